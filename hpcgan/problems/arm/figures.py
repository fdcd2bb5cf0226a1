"""Figures of showers in several geometries, real against generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcgan.data.schema import Sample, take
from hpcgan.metrics.distances import distances
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights, weighted
from hpcgan.physics.calorimeter import HALF_SIDE
from hpcgan.problems.arm.files import CELLS, GEOMETRY
from hpcgan.problems.arm.geometry import FINEST, WHOLE, AnyGeometry, Part, Whole, parts
from hpcgan.problems.arm.quantities import names_of
from hpcgan.problems.figures import BEYOND, Captioned, Figures
from hpcgan.report import plots
from hpcgan.weights import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.problems.arm.problem import ArmProblem

EXTENT = (-HALF_SIDE, HALF_SIDE, -HALF_SIDE, HALF_SIDE)
AXES = (r"$\eta$ (x) [mm]", r"$\phi$ (y) [mm]")
LABELS = {
    "energy": "Energy in the layer",
    "occupancy": "Share of cells with energy",
    "mean_eta": r"Mean $\bar\eta$",
    "mean_phi": r"Mean $\bar\phi$",
    "width_eta": r"Width $\sigma_\eta$",
    "width_phi": r"Width $\sigma_\phi$",
    "distance": "Distance of the means",
}
COLUMNS = 3
SHOWN = 3

Weighted = tuple[Sample, np.ndarray | None]
"""Showers and their weights."""


class ArmFigures(Figures):
    """Distributions and mean images of each geometry, and single showers."""

    problem: ArmProblem

    def compare(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[Captioned]:
        panels: list[Captioned] = []
        for geometry, sides in self._by_geometry(real, fake, weights).items():
            name = str(geometry).replace("/", "_")  # of a file
            panels.append((f"distributions_{name}", *self._distributions(geometry, sides)))
            for part in parts(geometry, self.problem.model.layer):
                a, b = (_drawn(sample[CELLS], part) for sample, _ in sides)
                own = (sides[0][1], sides[1][1])
                figure = plots.mean_images(a, b, EXTENT, _value(part.layer), AXES, log=True, weights=own)
                caption = (
                    f"{self._named(part)}: mean energy of each cell, spread over the finest cells that it holds; the "
                    "difference relative to real, and in units of its standard error."
                )
                suffix = f"_{part.layer}" if isinstance(geometry, Whole) else ""
                panels.append((f"mean_{name}{suffix}", caption, figure))
        return [*panels, ("showers", *self.singles(real, fake))]

    def singles(self, real: Sample | None, fake: Sample) -> tuple[str, Figure]:
        rows, layer = [], self.problem.model.layer
        for number, geometry in enumerate(self.problem.model.cells):
            for part in parts(geometry, layer):
                for kind, sample in (("Real", real or {}), ("Generated", fake)):
                    if sample:
                        cells = sample[CELLS][sample[GEOMETRY].reshape(-1) == number][:SHOWN]
                        if len(cells) == SHOWN:
                            rows.append((f"{kind}\n{self._named(part)}", list(_drawn(cells, part))))
        caption = "Showers, unselected; cells without energy are white. Each column has a colour scale of its own."
        if not rows:  # too few of any geometry
            first = [parts(geometry, layer)[0] for geometry in self.problem.model.cells]
            images = [
                _drawn(cells[None], first[int(number)])[0]
                for cells, number in zip(fake[CELLS], fake[GEOMETRY].reshape(-1), strict=True)
            ]
            showers = np.stack(images)
            return caption, plots.image_grid(showers[:0], showers, EXTENT, _value(first[0].layer), AXES)
        columns = [f"Shower {i + 1}" for i in range(SHOWN)]
        value = "Energy [MeV / finest cell]" if layer == WHOLE else _value(layer)
        return caption, plots.image_table(rows, columns, EXTENT, value, AXES)

    def measurements(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> dict[str, Any]:
        """Of each geometry: sum over the cells of |difference of the means|, over the sum of the real means."""
        shares = {}
        for geometry, sides in self._by_geometry(real, fake, weights).items():
            a, b = (mean(sample[CELLS].astype(np.float64), w) for sample, w in sides)
            shares[str(geometry)] = float(np.abs(b - a).sum() / a.sum()) if a.sum() > 0 else None
        return {"mean_images": shares}

    def _named(self, part: Part) -> str:
        return f"{part.layer} {part.geometry}" if self.problem.model.layer == WHOLE else str(part.geometry)

    def _by_geometry(self, real: Sample, fake: Sample, weights: SidesWeights) -> dict[AnyGeometry, list[Weighted]]:
        """Showers of either side in each geometry that both have."""
        groups: dict[AnyGeometry, list[Weighted]] = {}
        for number, geometry in enumerate(self.problem.model.cells):
            sides: list[Weighted] = []
            for sample, w in zip((real, fake), weights, strict=True):
                rows = np.flatnonzero(sample[GEOMETRY].reshape(-1) == number)
                sides.append((take(sample, rows), None if w is None else w[rows]))
            if all(len(sample[CELLS]) for sample, _ in sides):
                groups[geometry] = sides
        return groups

    def _distributions(self, geometry: AnyGeometry, sides: list[Weighted]) -> tuple[str, Figure]:
        real, fake = (weighted(self.problem.observables(sample), w) for sample, w in sides)
        names = names_of(self.problem.model.layer)
        cells = [(label_of(name), real[name], fake[name], note_of(real[name], fake[name])) for name in names]
        caption = (
            f"{geometry}: what is compared of each shower, with Kolmogorov-Smirnov and Wasserstein distance. {BEYOND}"
        )
        return caption, plots.histogram_grid(cells, COLUMNS, entries="showers")


def _drawn(cells: NDArray[Any], part: Part) -> NDArray[np.float64]:
    """Images (n, eta, phi) of the finest cells, each with its share of the energy of the cell that holds it."""
    grid, geometry = FINEST[part.layer], part.geometry
    rows, columns = (
        np.searchsorted(np.array(edges), centres) - 1
        for edges, centres in ((geometry.phi_edges, grid.phi_centres), (geometry.eta_edges, grid.eta_centres))
    )
    whole = (2.0 * HALF_SIDE) ** 2 / grid.n_cells / geometry.sizes.prod(axis=1)
    energies = (cells[:, part.cells] * whole).reshape(-1, *geometry.shape)
    return np.asarray(energies[:, rows[None, :], columns[:, None]], np.float64)


def _value(layer: str) -> str:
    grid = FINEST[layer]
    sides = " x ".join(f"{2.0 * HALF_SIDE / n:g}" for n in (grid.n_eta, grid.n_phi))
    return f"Energy [MeV / ({sides} mm$^2$)]"


def label_of(name: str) -> str:
    """Of one of `names_of`."""
    for begin, label in LABELS.items():
        if name == begin:
            return label
        if name.startswith(f"{begin}_"):
            return f"{label}, {name.removeprefix(f'{begin}_').replace('_', ' to ')}"
    return name


def note_of(real: Observable, fake: Observable) -> str:
    distance = distances(real, fake, bootstrap=0)
    if distance.ks is None or distance.wasserstein is None:
        return "no values to compare"
    return f"KS {distance.ks.value:.3f}, W$_1$ {distance.wasserstein:.3g} {real.unit}".rstrip()
