"""The parametrised detector against real Delphes output for the same generated events: numbers and a figure.

Both samples start from the same particles, so they differ by the detector's random numbers only, and Delphes
should look like one more seed of the detector. Each quantity is therefore judged by how far Delphes lies from
the spread over seeds.

    python benchmarks/detector_vs_delphes.py --figure docs/figures/detector_vs_delphes.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from hpcgan.physics import jets
from hpcgan.physics.detector import ATLAS, Calorimeter, Card, Towers
from hpcgan.physics.images import ETA_RANGE, N_ETA, bin_towers
from hpcgan.physics.pythia import Particles
from hpcgan.problems.detector_images.importing import read_towers

SAMPLE = Path(__file__).resolve().parent.parent / "tests" / "data"
PARTICLES = SAMPLE / "rpv_1400_850_particles.h5"
TOWERS = SAMPLE / "rpv_1400_850_towers.root"

PER_EVENT = ("total_energy", "occupancy", "jet_multiplicity", "summed_jet_mass")
POOLED = ("jet_pt", "pixel_energy", "tower_eta")

LABELS = {
    "total_energy": "energy in the image [TeV]",
    "occupancy": "lit pixels",
    "jet_multiplicity": "jets",
    "summed_jet_mass": "summed jet mass [GeV]",
    "jet_pt": r"jet $p_T$ [GeV]",
    "pixel_energy": r"$\log_{10}$(pixel energy / GeV)",
    "tower_eta": r"tower $\eta$",
}

Sample = dict[str, NDArray[Any]]


def load_particles(path: Path = PARTICLES) -> Particles:
    """Particles of all events of a file with ``offsets``, ``pid`` and ``p4``; vertices at the origin."""
    with h5py.File(path) as file:
        offsets, pid, p4 = file["offsets"][:], file["pid"][:], file["p4"][:].astype(np.float64)
    event = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    zero = np.zeros(len(pid))
    return Particles(event, pid, np.ascontiguousarray(p4.T), (zero, zero, zero), len(offsets) - 1)


def load_towers(path: Path = TOWERS) -> tuple[Towers, int]:
    """Towers of all events of a Delphes file."""
    parts, events = [], 0
    for towers, n in read_towers(path):
        parts.append(towers._replace(event=towers.event + events))
        events += n
    columns = [np.concatenate(column) for column in zip(*parts)]
    return Towers(*columns), events


def observables(towers: Towers, n_events: int) -> Sample:
    """The quantities compared: one value an event, or all values pooled."""
    images = bin_towers(*towers, n_events)
    found = jets.cluster(images)
    return {
        "total_energy": images.sum(axis=(1, 2), dtype=np.float64) * 1e-6,
        "occupancy": np.count_nonzero(images, axis=(1, 2)).astype(np.float64),
        "jet_multiplicity": found.counts.astype(np.float64),
        "summed_jet_mass": found.summed_mass,
        "jet_pt": found.pt,
        "pixel_energy": np.log10(images[images > 0] * 1e-3),
        "tower_eta": towers.eta,
        "eta_profile": images.sum(axis=(0, 2), dtype=np.float64) * 1e-3 / n_events,
    }


def simulate(particles: Particles, seeds: int, card: Card = ATLAS) -> list[Sample]:
    """Observables of the detector for several seeds."""
    calorimeter = Calorimeter(card)
    return [
        observables(calorimeter.simulate(particles, np.random.default_rng([2026, seed])), particles.n_events)
        for seed in range(seeds)
    ]


@dataclass(frozen=True)
class Comparison:
    """One quantity of Delphes against the detector.

    Attributes
    ----------
    reference, detector : float
        Means (per-event quantities: over events; pooled ones: over entries).
    mean_z : float
        Deviation of Delphes' mean from the seeds', in standard deviations over seeds.
    paired_z : float
        Mean paired difference, event by event, in standard errors (first seed); 0 for pooled quantities.
    correlation, self_correlation : float
        Event by event, Delphes with the seeds and the seeds among themselves; 1 for pooled quantities.
    ks, self_ks : float
        Mean KS distance of Delphes to the seeds, and of a seed to the others.
    ks_z : float
        Deviation of the former from the latter, in standard deviations over seeds.
    """

    name: str
    reference: float
    detector: float
    mean_z: float
    paired_z: float
    correlation: float
    self_correlation: float
    ks: float
    self_ks: float
    ks_z: float


def compare(reference: Sample, seeds: list[Sample]) -> list[Comparison]:
    """Compare every quantity."""
    return [_compare(name, reference[name], [sample[name] for sample in seeds]) for name in PER_EVENT + POOLED]


def _compare(name: str, reference: NDArray[Any], seeds: list[NDArray[Any]]) -> Comparison:
    means = np.array([values.mean() for values in seeds])
    spread = means.std(ddof=1) * np.sqrt(1 + 1 / len(seeds))
    paired_z, correlation, self_correlation = 0.0, 1.0, 1.0
    if name in PER_EVENT:
        difference = seeds[0] - reference
        paired_z = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
        correlation = float(np.mean([np.corrcoef(values, reference)[0, 1] for values in seeds]))
        table = np.corrcoef(np.stack(seeds))
        self_correlation = float(table[np.triu_indices(len(seeds), 1)].mean())
    distances = np.zeros((len(seeds), len(seeds)))
    for i in range(len(seeds)):
        for j in range(i):
            distances[i, j] = distances[j, i] = _ks(seeds[i], seeds[j])
    own = distances.sum(axis=1) / (len(seeds) - 1)
    ks = float(np.mean([_ks(values, reference) for values in seeds]))
    return Comparison(
        name,
        float(reference.mean()),
        float(means.mean()),
        float((reference.mean() - means.mean()) / spread),
        float(paired_z),
        correlation,
        self_correlation,
        ks,
        float(own.mean()),
        float((ks - own.mean()) / own.std(ddof=1)),
    )


def _ks(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(ks_2samp(a, b, method="asymp").statistic)


def draw(reference: Sample, seeds: list[Sample], path: Path) -> None:
    """Save the figure: points are Delphes, the band is the mean and spread of the detector over seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    events = len(reference["total_energy"])
    figure = Figure(figsize=(17, 8.6))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 4, hspace=0.22, wspace=0.26, left=0.05, right=0.985, top=0.9, bottom=0.07)
    figure.suptitle(
        f"Parametrised detector ({len(seeds)} seeds) and Delphes, the same {events} RPV events, "
        r"$m_{\tilde g} = 1400$, $m_{\tilde\chi} = 850$ GeV",
        x=0.05,
        ha="left",
    )
    for index, name in enumerate((*PER_EVENT, *POOLED, "eta_profile")):
        row, column = divmod(index, 4)
        panel = grid[row, column].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.06)
        axes = figure.add_subplot(panel[0])
        ratio = figure.add_subplot(panel[1], sharex=axes)
        if name == "eta_profile":
            edges = np.linspace(*ETA_RANGE, N_ETA // 2 + 1)
            point = reference[name].reshape(-1, 2).sum(axis=1)
            band = np.array([sample[name].reshape(-1, 2).sum(axis=1) for sample in seeds])
            label, unit = r"$\eta$", "energy per event [GeV]"
        else:
            edges = _edges(name, np.concatenate([reference[name], *(sample[name] for sample in seeds)]))
            point = np.histogram(reference[name], edges)[0].astype(float)
            band = np.array([np.histogram(sample[name], edges)[0] for sample in seeds], dtype=float)
            label, unit = LABELS[name], "entries"
        centre, mean, spread = 0.5 * (edges[1:] + edges[:-1]), band.mean(axis=0), band.std(axis=0, ddof=1)
        axes.stairs(mean, edges, color="C0", label="detector: mean and spread over seeds")
        axes.stairs(mean + spread, edges, baseline=mean - spread, fill=True, color="C0", alpha=0.3)
        axes.plot(centre, point, "k.", markersize=5, label="Delphes")
        axes.set(ylabel=unit, ylim=(0, None))
        if name in ("jet_pt", "pixel_energy"):
            axes.set(yscale="log", ylim=(max(0.5, 0.5 * mean[mean > 0].min()), None))
        safe = np.where(mean > 0, mean, np.nan)
        ratio.stairs(1 + spread / safe, edges, baseline=1 - spread / safe, fill=True, color="C0", alpha=0.3)
        ratio.plot(centre, point / safe, "k.", markersize=5)
        ratio.axhline(1, color="C0", linewidth=0.8)
        wide = float(np.nanquantile(spread / safe, 0.6)) * 3.5
        ratio.set(xlabel=label, ylabel="ratio", ylim=(1 - max(wide, 0.02), 1 + max(wide, 0.02)))
        axes.tick_params(labelbottom=False)
        if index == 0:
            figure.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75, metadata={"Software": None})


def _edges(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if name == "jet_multiplicity":
        return np.arange(values.min() - 0.5, values.max() + 1)
    if name == "jet_pt":
        return np.linspace(200, np.quantile(values, 0.998), 25)
    if name == "tower_eta":
        return np.linspace(-5, 5, 41)
    low, high = np.quantile(values, (0.002, 0.998)) if name != "pixel_energy" else (values.min(), values.max())
    return np.linspace(low, high, 31)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=Path, default=PARTICLES, help="HDF5: offsets, pid, p4")
    parser.add_argument("--towers", type=Path, default=TOWERS, help="Delphes ROOT file of the same events")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--figure", type=Path, help="PNG to write")
    args = parser.parse_args()
    particles = load_particles(args.particles)
    towers, events = load_towers(args.towers)
    if events != particles.n_events:
        parser.error(f"{args.particles} holds {particles.n_events} events, {args.towers} {events}")
    reference = observables(towers, events)
    seeds = simulate(particles, args.seeds)
    print(f"{events} events, {args.seeds} detector seeds")
    print("quantity            Delphes   detector  mean z  paired z  corr  (self)   KS      (self)   KS z")
    for row in compare(reference, seeds):
        print(
            f"{row.name:17s} {row.reference:10.5g} {row.detector:10.5g}  {row.mean_z:6.2f}  {row.paired_z:7.2f}  "
            f"{row.correlation:.4f} ({row.self_correlation:.4f}) {row.ks:.5f} ({row.self_ks:.5f}) {row.ks_z:6.2f}"
        )
    if args.figure is not None:
        draw(reference, seeds, args.figure)


if __name__ == "__main__":
    main()
