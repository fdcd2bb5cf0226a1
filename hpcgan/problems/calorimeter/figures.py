"""Figures of calorimeter showers, real against generated (Paganini, de Oliveira and Nachman 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.metrics.distances import distances
from hpcgan.metrics.neighbours import distance_blocks
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights, weighted
from hpcgan.physics.calorimeter import HALF_SIDE
from hpcgan.problems.base import Observables
from hpcgan.problems.calorimeter.files import ENERGY, ENERGY_LIMITS, LAYERS
from hpcgan.problems.calorimeter.files import TITLES as TITLES_OF
from hpcgan.problems.calorimeter.source import PARTICLE
from hpcgan.problems.figures import Captioned, Figures
from hpcgan.report import plots
from hpcgan.report.plots import Band
from hpcgan.weights import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.problems.calorimeter.calogan import CaloganProblem

EXTENT = (-HALF_SIDE, HALF_SIDE, -HALF_SIDE, HALF_SIDE)
AXES = ("eta (x) [mm]", "phi (y) [mm]")
TITLES = ("Layer 0", "Layer 1", "Layer 2")
SHOWN = 4
NEIGHBOURS = 5
ENERGY_BINS = 12

PROBES = (0.5, 0.75, 1.25, 1.5, 2.0)
"""Energies of a report outside of those trained on, in units of the lowest and of the highest."""

LABELS = {
    "total_energy": "Energy in all cells",
    "response": "Energy in all cells / requested",
    "depth_weighted": "Depth-weighted energy $l_d$",
    "depth": "Last layer with energy $d$",
    "shower_depth": "Shower depth $s_d$",
    "shower_depth_width": r"Its spread $\sigma_{s_d}$",
    "fraction": "Fraction of layer {}",
    "width_eta": "Width in eta, layer {}",
    "width_phi": "Width in phi, layer {}",
    "ratio": r"$E_{{ratio}}$, layer {}",
    "occupancy": "Occupancy, layer {}",
}
DEPTHS = (
    "total_energy", "response", "depth_weighted", "fraction_0", "fraction_1", "fraction_2", "depth", "shower_depth",
    "shower_depth_width",
)  # fmt: skip
SHAPES = tuple(f"{name}_{layer}" for name in ("width_eta", "width_phi", "ratio", "occupancy") for layer in range(3))


class CaloganFigures(Figures):
    """Showers, their mean images and their shapes, and how they follow the energy that is asked for."""

    problem: CaloganProblem

    def compare(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[Captioned]:
        means = discrepancies(real, fake, weights)
        of_real, of_fake = self.observables(real, fake, weights)
        return [
            ("showers", *self.singles(real, fake)),
            *[
                _mean_image(real, fake, name, title, means[name], weights)
                for name, title in zip(LAYERS, TITLES, strict=True)
            ],
            ("shower_depths", *_shapes(of_real, of_fake, DEPTHS)),
            ("shower_shapes", *_shapes(of_real, of_fake, SHAPES)),
            *[_neighbours(real, fake, layer) for layer in range(len(LAYERS))],
        ]

    def singles(self, real: Sample | None, fake: Sample) -> tuple[str, Figure]:
        rows = []
        for kind, sample in (("Real", real), ("Generated", fake)):
            if sample is None:
                continue
            for i in range(min(SHOWN, len(sample[ENERGY]))):
                rows.append((f"{kind}\n{sample[ENERGY][i]:.3g} GeV", [_across(sample[name][i]) for name in LAYERS]))
        rule = SHOWN if real is not None else None
        caption = "Showers, unselected, with the energy of the particle. Each layer has a colour scale of its own."
        return caption, plots.image_table(rows, TITLES, EXTENT, "Energy [MeV]", AXES, rule=rule)

    def measurements(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> dict[str, Any]:
        return {"mean_images": discrepancies(real, fake, weights)}

    def probes(self, trained: Sample) -> list[Mapping[str, float]]:
        """Energies over the range trained on, and beyond both of its ends; for each of several particles."""
        low, high = float(trained[ENERGY].min()), float(trained[ENERGY].max())
        inside = np.geomspace(low, high, 4)[:-1].tolist() + np.linspace(low, high, 5)[1:].tolist()
        outside = [factor * (low if factor < 1 else high) for factor in PROBES]
        least, most = ENERGY_LIMITS
        energies = sorted({float(f"{e:.3g}") for e in (*inside, *outside) if least <= e <= most})
        particles: list[dict[str, float]] = [{PARTICLE: number} for number in self.problem.model.classes] or [{}]
        return [{ENERGY: energy, **particle} for particle in particles for energy in energies]

    def probed(
        self,
        trained: Sample,
        real: Sample,
        probes: Sequence[tuple[Mapping[str, float], Observables]],
        weights: np.ndarray | None = None,
    ) -> list[Captioned]:
        model = self.problem.model
        span = (float(trained[ENERGY].min()), float(trained[ENERGY].max()))
        events = weighted(self.problem.observables(real), weights)
        figures = []
        for number, name in zip(model.classes or (None,), model.particles or ("",), strict=True):
            chosen = np.flatnonzero(real[PARTICLE] == number) if number is not None else np.arange(len(real[ENERGY]))
            if not len(chosen):
                continue
            observables = {key: observable.take(chosen) for key, observable in events.items()}
            of_particle = [(at[ENERGY], of_probe) for at, of_probe in probes if at.get(PARTICLE) == number]
            which = name if number is not None else ""
            figures.append(_response(span, real[ENERGY][chosen], observables, of_particle, which))
        return figures


def discrepancies(real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> dict[str, dict[str, Any]]:
    """How much the mean images of each layer differ.

    Returns
    -------
    dict of layer name to dict
        `cells`: sum over the cells of |difference of the means|, over the sum of the real means; `real_cells`: what
        two real samples of this size would have, from the two halves of the real one; `energy`: relative difference of
        the layers' mean energies, with a sign. None where the real layer is dark.
    """
    results = {}
    for name in LAYERS:
        a, b = (mean(side[name], w) for side, w in zip((real, fake), weights, strict=True))
        half = len(real[name]) // 2
        parts = [(real[name][which], None if weights[0] is None else weights[0][which]) for which in _halves(half)]
        halves = [mean(part, w) for part, w in parts if len(part) and (w is None or w.sum() > 0)]
        whole = float(a.sum())
        numbers: dict[str, Any] = dict.fromkeys(("cells", "real_cells", "energy"))
        if whole > 0:
            numbers["cells"] = float(np.abs(b - a).sum() / whole)
            numbers["energy"] = float(b.sum() / whole - 1.0)
            if len(halves) == 2:  # differences go with sqrt(1/n + 1/m)
                numbers["real_cells"] = float(np.abs(halves[1] - halves[0]).sum() / whole / np.sqrt(2.0))
        results[name] = numbers
    return results


def _halves(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(half, None)


def _response(
    span: tuple[float, float],
    energy: np.ndarray,
    real: Mapping[str, Observable],
    probes: Sequence[tuple[float, Mapping[str, Observable]]],
    particle: str = "",
) -> Captioned:
    """How showers follow the energy that is asked for.

    Parameters
    ----------
    span : (float, float)
        Energies trained on, GeV.
    energy : (n,) array
        Of real showers, GeV.
    real : mapping of str to Observable
    probes : sequence of (energy, shower shapes)
        Generated at single energies.
    particle : str
        Which it is, if there are several.
    """
    edges = np.geomspace(energy.min(), energy.max() * (1 + 1e-6), ENERGY_BINS + 1)
    bins = np.clip(np.searchsorted(edges, energy, side="right") - 1, 0, ENERGY_BINS - 1)
    groups = [np.flatnonzero(bins == i) for i in range(ENERGY_BINS)]
    panels = []
    for name in ("response", "fraction_0", "width_eta_1"):
        of_real = [(float(energy[which].mean()), real[name].take(which)) for which in groups if len(which)]
        of_fake = [(at, observables[name]) for at, observables in probes]
        panels.append((plots.with_unit(label(name), real[name].unit), Band.of(of_real), Band.of(of_fake)))
    of = f" of {TITLES_OF[particle]}" if particle else ""
    caption = (
        f"Showers{of} at single requested energies, within the range of the training showers (shaded, {span[0]:.3g} to "
        f"{span[1]:.3g} GeV) and beyond it, beside real ones in bins of energy."
    )
    return (
        f"response_{particle}" if particle else "response",
        caption,
        plots.dependence(panels, "Requested energy [GeV]", span, "Trained on"),
    )


def label(name: str) -> str:
    """Name of a quantity as axes have it."""
    kind, _, layer = name.rpartition("_")
    return LABELS[name] if name in LABELS else LABELS[kind].format(layer)


def _across(image: np.ndarray) -> np.ndarray:
    """Rows phi, columns eta -> eta first, which is drawn horizontally."""
    return np.swapaxes(image, -1, -2)


def _mean_image(
    real: Sample,
    fake: Sample,
    name: str,
    title: str,
    numbers: Mapping[str, float | None],
    weights: SidesWeights,
) -> Captioned:
    caption = f"Mean image of {title.lower()}."
    if numbers["cells"] is not None:
        caption += f" Summed over cells, the means differ by {numbers['cells']:.1%} of the layer's energy"
        if numbers["real_cells"] is not None:
            caption += f" (two real samples of this size: {numbers['real_cells']:.1%})"
        caption += f", the layer's mean energy by {numbers['energy']:+.1%}."
    if name in LAYERS[:2]:
        caption += f" The paper quotes about {('4%', '1%')[LAYERS.index(name)]} for photons."
    a, b = (_across(side[name]) for side in (real, fake))
    figure = plots.mean_images(a, b, EXTENT, "Mean energy [MeV]", AXES, log=True, weights=weights)
    return f"mean_{name}", caption, figure


def _shapes(real: Mapping[str, Observable], fake: Mapping[str, Observable], names: Sequence[str]) -> tuple[str, Figure]:
    cells = []
    for name in names:
        distance = distances(real[name], fake[name], bootstrap=0)
        note = "no values to compare"
        if distance.ks is not None and distance.wasserstein is not None and distance.separation is not None:
            unit = f" {real[name].unit}".rstrip()
            numbers = f"KS {distance.ks.value:.3f}, W$_1$ {distance.wasserstein:.3g}{unit}"
            note = f"{numbers}, separation {distance.separation:.3f}"
        cells.append((label(name), real[name], fake[name], note))
    caption = (
        "Shower shapes, with Kolmogorov-Smirnov distance, Wasserstein distance and separation power (0: equal, 1: "
        "disjoint). Values beyond an axis are counted in its outermost bins; a shower without energy in a layer has no "
        "width or ratio there."
    )
    return caption, plots.histogram_grid(cells, 3, entries="showers")


def _neighbours(real: Sample, fake: Sample, layer: int) -> Captioned:
    """Some real showers and the generated ones that come nearest in a layer (figure 2 of the paper)."""
    by_energy = np.argsort(real[ENERGY], kind="stable")
    chosen = by_energy[np.linspace(0, len(by_energy) - 1, NEIGHBOURS + 2).round().astype(int)[1:-1]]
    flat = [side[LAYERS[layer]].reshape(len(side[ENERGY]), -1) for side in (real, fake)]
    nearest = np.concatenate([block.argmin(axis=1) for _, block in distance_blocks(flat[0][chosen], flat[1])])
    rows = [
        (kind, [_across(side[LAYERS[layer]][i]) for i in which])
        for kind, side, which in (("Real", real, chosen), ("Nearest generated", fake, nearest))
    ]
    columns = [f"{real[ENERGY][i]:.3g} GeV / {fake[ENERGY][j]:.3g} GeV" for i, j in zip(chosen, nearest, strict=True)]
    caption = (
        f"Real showers, {NEIGHBOURS} over the range of energies, and the generated one that is nearest to each in "
        f"layer {layer} (Euclidean distance of the energies in its cells, out of {len(flat[1])}), as in figure 2 of "
        "the paper; above, the energies of both."
    )
    return f"neighbours_{layer}", caption, plots.image_table(rows, columns, EXTENT, "Energy [MeV]", AXES)
