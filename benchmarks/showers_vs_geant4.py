"""The parametrised showers against real Geant4 showers in the same calorimeter: numbers and a figure.

Every Geant4 shower is met by parametrised ones of the same incident energy. Nothing in the parametrisation was fitted
to Geant4, so the differences are those of the model.

    python benchmarks/showers_vs_geant4.py --figure docs/figures/showers_vs_geant4.png
    python benchmarks/showers_vs_geant4.py --sample FOLDER     # with all of geant4_gamma.h5, geant4_eplus.h5
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from hpcgan.physics.calorimeter import PUBLISHED
from hpcgan.physics.shower_shapes import layer_energies, shower_shapes
from hpcgan.physics.showers import simulate
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter.importing import open_reader

SAMPLE = Path(__file__).resolve().parent.parent / "tests" / "data"
PARTICLES = {"gamma": r"$\gamma$", "eplus": r"$e^+$"}

UNITS = {
    "total": "GeV",
    "depth_weighted": "GeV",
    **{f"width_{axis}_{i}": "mm" for axis in ("eta", "phi") for i in range(3)},
}
ENERGY_BINS = (1.0, 3.0, 10.0, 30.0, 60.0, 100.0)
DRAWN = ("shower_depth", "fraction_0", "width_eta_0", "width_eta_1", "ratio_1", "occupancy_1")

Images = list[NDArray[np.float32]]


def load(path: Path) -> tuple[NDArray[np.float64], Images]:
    """Incident energies (GeV) and images in the published segmentation (MeV) of all showers of a Geant4 file."""
    energies, parts = [], []
    with open_reader(path) as reader:
        for sample in reader.pieces():
            energies.append(sample[calo.ENERGY].reshape(-1).astype(np.float64))
            parts.append(reader.segmentation.coarsen(calo.images(sample), PUBLISHED))
    return np.concatenate(energies), [np.concatenate(layer) for layer in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Comparison:
    """One variable of Geant4 and of the parametrisation: means, standard deviations, KS distance."""

    name: str
    mean: float
    error: float
    made: float
    spread: float
    made_spread: float
    ks: float


def compare(real: dict[str, NDArray[Any]], made: dict[str, NDArray[Any]]) -> list[Comparison]:
    """Compare every variable over the showers that have it."""
    found = []
    for name in real:
        a, b = (shapes[name][np.isfinite(shapes[name])] for shapes in (real, made))
        ks = float(ks_2samp(a, b, method="asymp").statistic)
        error = float(a.std() / np.sqrt(len(a)))
        found.append(Comparison(name, float(a.mean()), error, float(b.mean()), float(a.std()), float(b.std()), ks))
    return found


def fractions_by_energy(energy: NDArray[Any], images: Images) -> NDArray[np.float64]:
    """Mean layer fractions in bins of the incident energy: (bins, 3)."""
    energies = layer_energies(images)
    shares = energies / energies.sum(axis=1, keepdims=True)
    place = np.digitize(energy, ENERGY_BINS[1:-1])
    return np.stack([shares[place == i].mean(axis=0) for i in range(len(ENERGY_BINS) - 1)])


def mean_image_distance(real: NDArray[Any], made: NDArray[Any]) -> float:
    """Sum over the cells of a layer of the differences of the mean images, without sign, in units of their energy."""
    a, b = real.mean(axis=0, dtype=np.float64), made.mean(axis=0, dtype=np.float64)
    return float(np.abs(a - b).sum() / a.sum())


def profile(images: Images, layer: int) -> NDArray[np.float64]:
    """Share of a layer's energy in each column (eta), all showers together."""
    along = images[layer].sum(axis=(0, 1), dtype=np.float64)
    return along / along.sum()


def report(
    particle: str, energy: NDArray[Any], real: Images, made_energy: NDArray[Any], made: Images, lost: Any
) -> None:
    """Print the table of one particle."""
    print(f"\n{particle}: {len(energy)} Geant4 showers, {len(made_energy)} parametrised")
    for name, value, of in (("Geant4", real, energy), ("parametrised", made, made_energy)):
        sums = layer_energies(value).sum(axis=0)
        parts = " ".join(f"{share:.4f}" for share in sums / sums.sum())
        print(
            f"{name:13s} energy in the cells / incident {sums.sum() / of.sum() / 1e3:.4f}; of it in the layers {parts}"
        )
    apart = " ".join(f"{mean_image_distance(a, b):.3f}" for a, b in zip(real, made, strict=True))
    print(f"{'mean images':13s} sum of |differences| / energy, by layer: {apart}")
    print(f"{'':13s} outside the window / incident {lost.sum() / made_energy.sum() / 1e3:.4f}")
    print(
        "| variable | Geant4 | parametrised | difference | spread | parametrised | KS |\n|---|---|---|---|---|---|---|"
    )
    for row in compare(shower_shapes(real, PUBLISHED), shower_shapes(made, PUBLISHED)):
        unit = f" [{UNITS[row.name]}]" if row.name in UNITS else ""
        change = f"{100 * (row.made / row.mean - 1):+.1f}%" if row.mean else ""
        print(
            f"| {row.name}{unit} | {row.mean:.4g} ± {row.error:.2g} | {row.made:.4g} | {change} | {row.spread:.3g} | "
            f"{row.made_spread:.3g} | {row.ks:.3f} |"
        )
    print("| incident energy [GeV] | layer 0, Geant4 | parametrised | layer 2, Geant4 | parametrised |")
    print("|---|---|---|---|---|")
    shares = fractions_by_energy(energy, real), fractions_by_energy(made_energy, made)
    for i, (low, high) in enumerate(pairwise(ENERGY_BINS)):
        a, b = (share[i] for share in shares)
        print(f"| {low:g} - {high:g} | {a[0]:.3f} | {b[0]:.3f} | {1e3 * a[2]:.2f}e-3 | {1e3 * b[2]:.2f}e-3 |")


def draw(found: dict[str, tuple[Any, ...]], path: Path) -> None:
    """Save the figure: points are Geant4, lines the parametrisation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(19, 3.4 * 2 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("Geant4 (points) and parametrised showers (lines), incident energies of 1 to 100 GeV")
    for block, (particle, (energy, real, made_energy, made)) in enumerate(found.items()):
        shapes = shower_shapes(real, PUBLISHED), shower_shapes(made, PUBLISHED)
        for index in range(8):
            axes = figure.add_subplot(2 * len(found), 4, 8 * block + index + 1)
            if index < len(DRAWN):
                _histogram(axes, DRAWN[index], *(shape[DRAWN[index]] for shape in shapes))
            elif index == len(DRAWN):
                centres = PUBLISHED.layers[0].eta_centres
                axes.plot(centres, profile(real, 0), "k.", markersize=3)
                axes.plot(centres, profile(made, 0), "C0", drawstyle="steps-mid")
                axes.set(xlabel=r"$\eta$ (x) in layer 0 [mm]", ylabel="share of the energy", yscale="log")
            else:
                middle = np.sqrt(np.multiply(ENERGY_BINS[1:], ENERGY_BINS[:-1]))
                shares = fractions_by_energy(energy, real), fractions_by_energy(made_energy, made)
                for layer in range(3):
                    axes.plot(middle, shares[0][:, layer], "k.")
                    axes.plot(middle, shares[1][:, layer], f"C{layer}", label=f"layer {layer}")
                axes.set(xlabel="incident energy [GeV]", ylabel="mean share", xscale="log", yscale="log")
                axes.set_xticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
                axes.set_xticks([], minor=True)
                axes.legend(frameon=False)
            if index == 0:
                axes.set_title(PARTICLES[particle], loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=65, metadata={"Software": None})


def _histogram(axes: Any, name: str, real: NDArray[Any], made: NDArray[Any]) -> None:
    real, made = real[np.isfinite(real)], made[np.isfinite(made)]
    low, high = np.quantile(np.concatenate([real, made]), (0.003, 0.995))
    edges = np.linspace(low, high, 36)
    centres, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    counts = np.histogram(real, edges)[0]
    axes.errorbar(centres, counts / len(real) / width, np.sqrt(counts) / len(real) / width, fmt="k.", markersize=4)
    axes.stairs(np.histogram(made, edges)[0] / len(made) / width, edges, color="C0")
    axes.set(xlabel=name + (f" [{UNITS[name]}]" if name in UNITS else ""), ylabel="density", ylim=(0, None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="folder with geant4_gamma.h5 and geant4_eplus.h5")
    parser.add_argument("--recorded", choices=("total", "active"), default="total")
    parser.add_argument("--times", type=int, default=1, help="parametrised showers for each of Geant4")
    parser.add_argument("--figure", type=Path, help="PNG to write")
    args = parser.parse_args()
    found = {}
    for number, particle in enumerate(PARTICLES):
        energy, real = load(args.sample / f"geant4_{particle}.h5")
        made_energy = np.tile(energy, args.times)
        made = simulate(particle, made_energy, np.random.default_rng([2026, number]), PUBLISHED, args.recorded)
        report(particle, energy, real, made_energy, made.layers, made.overflow)
        found[particle] = (energy, real, made_energy, made.layers)
    if args.figure is not None:
        draw(found, args.figure)


if __name__ == "__main__":
    main()
