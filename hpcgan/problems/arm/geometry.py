"""Segmentations of a calorimeter layer: cell edges, the order of the cells along a spiral, sums of finer cells.

A geometry is written as its two axes, eta and phi, each in one of two ways:

- cells of equal size: ``eta48_phi24`` has 48 x 24 cells. With ``+`` the window is cut into equal parts that have as
  many cells each as the numbers say: ``eta12+24_phi48`` has 12 cells in its left half and 24 in its right one.
- edges in mm, from -240 to 240: ``eta=-240,-20,0,10,240_phi=-240:240:48``, where ``a:b:n`` stands for n equal cells
  from a to b.

Of the whole calorimeter these are the geometries of all layers, from front to back, with ``/`` between:
``eta48_phi12/eta12_phi12/eta24_phi24``.

The window is that of :mod:`hpcgan.physics.calorimeter`; here as there eta stands for x and phi for y, both in mm.
Cells in a row are those of an image (rows phi, columns eta), row after row.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import CELL_LIMIT, FINE, HALF_SIDE, Grid

INNER, MIDDLE, OUTER = LAYERS = ("inner", "middle", "outer")
"""From the front of the calorimeter to its back."""

WHOLE = "whole"
"""All of them."""

FINEST = dict(zip(LAYERS, FINE.layers, strict=True))
"""Cells that showers are known on: every geometry of a layer is a sum of these."""

PUBLISHED = {
    INNER: tuple(f"eta{eta}_phi{phi}" for eta in (48, 192) for phi in (4, 12, 24, 48)),
    MIDDLE: ("eta12_phi12", "eta48_phi24", "eta48_phi48", "eta12+24_phi48"),
    OUTER: ("eta24_phi24",),
    WHOLE: (
        "eta48_phi12/eta12_phi12/eta24_phi24",
        "eta48_phi4/eta12+24_phi48/eta24_phi24",
        "eta48_phi24/eta48_phi24/eta24_phi24",
        "eta192_phi12/eta48_phi48/eta24_phi24",
    ),
}
"""Geometries of the geometry-aware model (Liu et al. 2022), by layer; the last of the middle layer is a transition
region, (36, 48) in the paper. Of the whole calorimeter, the two pairs of its figure 5, then one for each of the other
middle layers."""

ALL = "published"
"""Name for all of `PUBLISHED` of a layer."""

SAME_MM = 1e-6
"""Edges are the same within this."""

_COUNTS = re.compile(r"\d{1,6}(?:\+\d{1,6})*")
_HINT = "write it as eta48_phi24, eta12+24_phi48, or with edges in mm as eta=-240:0:12,0:240:24_phi=-240:240:48"


@dataclass(frozen=True)
class Geometry:
    """Cells of one layer, which cover the window without gaps.

    Attributes
    ----------
    eta_edges, phi_edges : tuple of float
        Ascending, mm; the first is -240, the last 240.

    Raises
    ------
    InputError
        Edges that do not ascend or do not cover the window, or too many cells.
    """

    eta_edges: tuple[float, ...]
    phi_edges: tuple[float, ...]

    def __post_init__(self) -> None:
        for axis, edges in (("eta", self.eta_edges), ("phi", self.phi_edges)):
            _check_edges(axis, edges)
        if self.n_cells > CELL_LIMIT:
            raise InputError(f"geometry of {self.n_cells} cells: at most {CELL_LIMIT} are possible")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (phi) and columns (eta) of an image."""
        return len(self.phi_edges) - 1, len(self.eta_edges) - 1

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{_axis_text('eta', self.eta_edges)}_{_axis_text('phi', self.phi_edges)}"

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """(n_cells, 2): lengths of the cells along eta and phi, mm."""
        return _pairs(np.diff(self.eta_edges), np.diff(self.phi_edges))

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """(n_cells, 2): centres of the cells in eta and phi, mm."""
        middles = [0.5 * (np.array(edges[1:]) + edges[:-1]) for edges in (self.eta_edges, self.phi_edges)]
        return _pairs(*middles)

    @cached_property
    def spiral(self) -> NDArray[np.int64]:
        """(n_cells,): numbers of the cells along a counter-clockwise spiral that begins at the centre of the window.

        The first cell is the one below and left of the centre, so that the first four surround it; the next one is in
        the direction of eta, then the path turns towards phi. Steps are cells, whatever their size. Where the spiral
        leaves the image it goes on outside, and comes back.
        """
        rows, columns = self.shape
        row, column = (_before_centre(edges) for edges in (self.phi_edges, self.eta_edges))
        order = np.empty(self.n_cells, np.int64)
        count, length = 0, 1
        while count < self.n_cells:
            for step, (down, right) in enumerate(((0, 1), (1, 0), (0, -1), (-1, 0))):
                for _ in range(length + step // 2):
                    if 0 <= row < rows and 0 <= column < columns:
                        order[count] = row * columns + column
                        count += 1
                    row, column = row + down, column + right
            length += 2
        return order

    def check_sum_of(self, fine: Grid, layer: str) -> None:
        """Refuse cells that are no sums of the cells of a grid.

        Raises
        ------
        InputError
            Names the first edge that is none of the grid's.
        """
        for axis, edges, n in (("eta", self.eta_edges, fine.n_eta), ("phi", self.phi_edges, fine.n_phi)):
            steps = (np.array(edges) + HALF_SIDE) * n / (2.0 * HALF_SIDE)
            off = np.flatnonzero(np.abs(steps - np.rint(steps)) * (2.0 * HALF_SIDE) / n > SAME_MM)
            if off.size:
                raise InputError(
                    f"geometry {self}: {axis} = {edges[off[0]]:g} mm is no edge of the finest cells of the {layer} "
                    f"layer, which are {2.0 * HALF_SIDE / n:g} mm wide: choose edges at whole numbers of these"
                )

    def is_sum_of(self, finer: Geometry) -> bool:
        """Whether its cells are sums of another geometry's."""
        pairs = ((self.phi_edges, finer.phi_edges), (self.eta_edges, finer.eta_edges))
        return all(set(edges) <= set(of_finer) for edges, of_finer in pairs)

    def sums(self, cells: NDArray[Any], finer: Geometry) -> NDArray[np.float64]:
        """Energies (n, n_cells) of its cells out of those (n, cells) of a geometry that they are sums of."""
        rows, columns = (
            np.searchsorted(np.array(of_finer), np.array(edges[:-1]))
            for edges, of_finer in ((self.phi_edges, finer.phi_edges), (self.eta_edges, finer.eta_edges))
        )
        images = np.asarray(cells, np.float64).reshape(-1, *finer.shape)
        return _added(images, rows, columns)

    def sum_of(self, images: NDArray[Any], fine: Grid) -> NDArray[Any]:
        """Energies of the cells out of those of a finer grid.

        Parameters
        ----------
        images : (n, rows, columns) array
            Of the grid.
        fine : Grid
            Its cells must be able to sum to these (`check_sum_of`).

        Returns
        -------
        (n, n_cells) array
            Of the same type; sums are taken in double precision.
        """
        rows, columns = (
            np.rint((np.array(edges[:-1]) + HALF_SIDE) * n / (2.0 * HALF_SIDE)).astype(np.int64)
            for edges, n in ((self.phi_edges, fine.n_phi), (self.eta_edges, fine.n_eta))
        )
        return _added(images, rows, columns).astype(images.dtype)


@dataclass(frozen=True)
class Whole:
    """Cells of the whole calorimeter: a geometry for each of the `LAYERS`."""

    layers: tuple[Geometry, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells in all layers, those of the first layer first."""
        return sum(geometry.n_cells for geometry in self.layers)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return "/".join(map(str, self.layers))


AnyGeometry = Geometry | Whole


class Part(NamedTuple):
    """One layer of a geometry: its name, its own geometry, and which of all cells are in it."""

    layer: str
    geometry: Geometry
    cells: slice


def parts(geometry: AnyGeometry, layer: str) -> list[Part]:
    """The layers of a geometry: the only one, or all."""
    if isinstance(geometry, Geometry):
        return [Part(layer, geometry, slice(0, geometry.n_cells))]
    ends = np.cumsum([0, *(of_layer.n_cells for of_layer in geometry.layers)]).tolist()
    cells = itertools.starmap(slice, itertools.pairwise(ends))
    return [Part(*part) for part in zip(LAYERS, geometry.layers, cells, strict=True)]


def layers_of(layer: str) -> tuple[str, ...]:
    """The layers that a name stands for."""
    return LAYERS if layer == WHOLE else (layer,)


def parse(text: str, layer: str) -> AnyGeometry:
    """A geometry of a layer from its text, or of the whole calorimeter.

    Raises
    ------
    InputError
        Not of the form above, cells that overlap, leave gaps or are no sums of the finest ones, or not one geometry for
        each layer.
    """
    if layer != WHOLE:
        return parse_layer(text, layer)
    each = text.split("/")
    if len(each) != len(LAYERS):
        raise InputError(f"geometry '{text}': give one of each layer ({', '.join(LAYERS)}), as {PUBLISHED[WHOLE][0]}")
    return Whole(tuple(parse_layer(part, name) for part, name in zip(each, LAYERS, strict=True)))


def parse_layer(text: str, layer: str) -> Geometry:
    """A geometry of one layer from its text.

    Raises
    ------
    InputError
        Not of the form above, or cells that overlap, leave gaps or are no sums of the finest ones.
    """
    axes = text.strip().split("_")
    if len(axes) != 2 or not axes[0].startswith("eta") or not axes[1].startswith("phi"):
        raise InputError(f"geometry '{text}': {_HINT}")
    try:
        geometry = Geometry(_edges(axes[0].removeprefix("eta")), _edges(axes[1].removeprefix("phi")))
    except ValueError:
        raise InputError(f"geometry '{text}': {_HINT}") from None
    except InputError as error:
        raise InputError(f"geometry '{text}': {error}") from None
    geometry.check_sum_of(FINEST[layer], layer)
    return geometry


def parse_all(texts: Iterable[str], layer: str) -> tuple[AnyGeometry, ...]:
    """Geometries of a layer, `published` standing for those of the paper.

    Raises
    ------
    InputError
        As `parse`, none, or one that is named twice.
    """
    names = [name for text in texts for name in (PUBLISHED[layer] if text.strip() == ALL else (text,))]
    geometries: list[AnyGeometry] = []
    for name in names:
        geometry = parse(name, layer)
        if geometry in geometries:
            raise InputError(f"geometry '{name}' is named twice: leave one out")
        geometries.append(geometry)
    if not geometries:
        raise InputError(f"no geometry: {_HINT}, or {ALL}")
    return tuple(geometries)


def _edges(text: str) -> tuple[float, ...]:
    """Edges along an axis; a ValueError if the text is of neither form."""
    if not text.startswith("="):
        if not _COUNTS.fullmatch(text):
            raise ValueError(text)
        counts = [int(count) for count in text.split("+")]
        if min(counts) < 1 or sum(counts) > CELL_LIMIT:
            raise ValueError(text)
        return _equal_parts(counts)
    edges: list[float] = []
    for piece in text[1:].split(","):
        numbers = piece.split(":")
        if len(numbers) not in (1, 3):
            raise ValueError(text)
        if len(numbers) == 1:
            new = [float(piece)]
        else:
            count = int(numbers[2])
            if not 0 < count <= CELL_LIMIT:
                raise ValueError(text)
            new = _spaced(float(numbers[0]), float(numbers[1]), count)
        if edges and edges[-1] == new[0]:
            del new[0]  # -240:0:12,0:240:24 has one edge at 0
        edges += new
    return tuple(edges)


def _spaced(low: float, high: float, cells: int) -> list[float]:
    return [low + (high - low) * i / cells for i in range(cells)] + [high]


def _equal_parts(counts: Sequence[int]) -> tuple[float, ...]:
    """Edges of as many equal parts of the window as there are counts, each with as many equal cells."""
    ends = _spaced(-HALF_SIDE, HALF_SIDE, len(counts))
    inner = [edge for low, high, n in zip(ends, ends[1:], counts) for edge in _spaced(low, high, n)[:-1]]
    return (*inner, HALF_SIDE)


def _check_edges(axis: str, edges: Sequence[float]) -> None:
    if not all(math.isfinite(edge) for edge in edges):
        raise InputError(f"{axis}: edges must be finite numbers of mm")
    for low, high in itertools.pairwise(edges):
        if high <= low:
            raise InputError(f"{axis}: {high:g} mm follows {low:g} mm, so that cells overlap: let edges ascend")
    if len(edges) < 2 or edges[0] != -HALF_SIDE or edges[-1] != HALF_SIDE:
        ends = f"{edges[0]:g} to {edges[-1]:g}" if edges else "none"
        raise InputError(
            f"{axis}: edges from {ends} mm leave a gap: let them run from {-HALF_SIDE:g} to {HALF_SIDE:g} mm"
        )


def _axis_text(name: str, edges: Sequence[float]) -> str:
    for parts in (1, 2):
        ends = _spaced(-HALF_SIDE, HALF_SIDE, parts)
        counts = [sum(low <= edge < high for edge in edges[:-1]) for low, high in itertools.pairwise(ends)]
        if min(counts) > 0 and _equal_parts(counts) == tuple(edges):
            return f"{name}{'+'.join(map(str, counts))}"
    return f"{name}={','.join(repr(float(edge)).removesuffix('.0') for edge in edges)}"


def _added(images: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """Sums of images between the rows and columns at which cells begin: (n, cells), in double precision."""
    sums = np.add.reduceat(np.add.reduceat(images, rows, axis=1, dtype=np.float64), columns, axis=2)
    return np.asarray(sums.reshape(len(images), len(rows) * len(columns)), np.float64)


def _pairs(along_eta: NDArray[Any], along_phi: NDArray[Any]) -> NDArray[np.float64]:
    """One number along either axis for each cell of an image, row after row: (n_cells, 2)."""
    phi, eta = np.meshgrid(along_phi, along_eta, indexing="ij")
    return np.stack([eta.ravel(), phi.ravel()], axis=1)


def _before_centre(edges: Sequence[float]) -> int:
    """Number of the cell that holds the centre of the window, or that ends there."""
    return int(np.searchsorted(np.array(edges), 0.0)) - 1
