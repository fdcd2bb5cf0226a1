"""Boxes of a calorimeter layer that are halved until they are the cells of a geometry, and what is around each.

The whole window is a box; a box is cut along its longer side, at the edge of cells that is nearest to its middle, and
so on. Which boxes there are near the top is the same for all geometries, and a small box is like another of its size:
what is learnt of splits in some geometries holds in others.

A box is described in a frame of its own, in which the showers' symmetries are exact: a first coordinate along the axis
that it is cut along, a second one across, both from the centre of the window outwards. So its first half is the one
that is nearer to the centre. Places are edges of the finest cells of the layer, numbered from the window's lower side.

NumPy only; :mod:`hpcgan.problems.arm.network_boxes` is the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgan.physics.calorimeter import HALF_SIDE, Grid
from hpcgan.problems.arm.geometry import Geometry

NEAR_ALONG, NEAR_ACROSS = 3, 2
"""Half boxes on either side of the cut, and boxes on either side of the box, that are seen one by one."""
FAR = (-4, -1, 2, 5)
"""Edges of the nine larger windows, each of three boxes by three, in boxes from the box's first edge."""
TURNS = 4
"""Boxes that touch are split one after the other, by four colours of a chessboard."""
OCTAVES = range(-2, 7)
"""Sizes that the network tells apart, as powers of two of 10 mm."""
UNIT_MM = 10.0
_AROUND = [step for step in itertools.product((-1, 0, 1), repeat=2) if step != (0, 0)]
PLACES = 4
"""Of boxes along an axis, for what is frequent: in the middle, next to it, one further, and beyond."""

FEATURES = 4 + 2 * (1 + len(OCTAVES)) + 1 + len(_AROUND)
"""Numbers that describe a box by itself."""


class Frames(NamedTuple):
    """The frames of boxes.

    Attributes
    ----------
    step : (boxes, 2) int
        By how much a place in an image of edges moves for a step along and across, in the box's own frame; images have
        rows phi and columns eta, row after row.
    origin : (boxes,) int
        The place of the box's first corner in that image.
    lengths : (boxes, 3) int
        Of the first half and of the box along, and of the box across, in finest cells.
    margins : (boxes, 4) int
        Steps from the first corner to the edges of the window: along backwards and forwards, the same across.
    """

    step: NDArray[np.int64]
    origin: NDArray[np.int64]
    lengths: NDArray[np.int64]
    margins: NDArray[np.int64]


@dataclass(frozen=True)
class Boxes:
    """The boxes of a geometry that are split, in the order in which they are.

    Attributes
    ----------
    stage : (boxes,) int
        Ascending: depth of the box times `TURNS`, and its turn. Boxes of a stage are split at once.
    halves : (boxes, 2) int
        What either half is: the number of a box, or of a cell plus the number of boxes.
    frames : Frames
    features : (boxes, FEATURES) float
        Where it is, how large, where it is cut, and which of the eight boxes around it are split before.
    kind : (boxes, 3) int
        Where a box is cut, in sixths, and how far from the centre it is, in boxes, along and across. Sizes do not
        count, so that geometries have few kinds that others have not.
    """

    stage: NDArray[np.int64]
    halves: NDArray[np.int64]
    frames: Frames
    features: NDArray[np.float64]
    kind: NDArray[np.int64]


@dataclass
class _Box:
    """Ranges of cells, rows then columns, until it is cut."""

    cells: tuple[tuple[int, int], tuple[int, int]]
    depth: int
    axis: int = 0
    cut: int = 0  # an edge of cells
    turn: int = 0

    @property
    def halves(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Ranges of cells of what it is cut into, the lower one first."""
        begin, end = self.cells[self.axis]
        parts = ((begin, self.cut), (self.cut, end))
        return [(part, self.cells[1]) if self.axis == 0 else (self.cells[0], part) for part in parts]


def boxes_of(geometry: Geometry, fine: Grid) -> Boxes:
    """Those of a geometry whose cells are sums of the finest ones."""
    edges = [
        np.rint((np.array(along) + HALF_SIDE) * n / (2.0 * HALF_SIDE)).astype(np.int64)
        for along, n in ((geometry.phi_edges, fine.n_phi), (geometry.eta_edges, fine.n_eta))
    ]
    mm = np.array([2.0 * HALF_SIDE / fine.n_phi, 2.0 * HALF_SIDE / fine.n_eta])
    boxes = _cut(edges, mm)
    order = sorted(range(len(boxes)), key=lambda i: (boxes[i].depth, boxes[i].turn))
    boxes = [boxes[i] for i in order]
    number = {box.cells: i for i, box in enumerate(boxes)}
    turns = _turns_by_place(boxes, edges, fine)
    described = [_described(box, edges, mm, fine, turns) for box in boxes]
    columns = geometry.shape[1]
    halves = [_halves(box, number, len(boxes), columns, edges) for box in boxes]

    def column(name: str, *shape: int) -> NDArray[Any]:
        return np.array([each[name] for each in described]).reshape(len(boxes), *shape)

    return Boxes(
        stage=np.array([box.depth * TURNS + box.turn for box in boxes], np.int64),
        halves=np.array(halves, np.int64).reshape(-1, 2),
        frames=Frames(column("step", 2), column("origin"), column("lengths", 3), column("margins", 4)),
        features=column("features", FEATURES),
        kind=column("kind", 3),
    )


def _cut(edges: Sequence[NDArray[np.int64]], mm: NDArray[np.float64]) -> list[_Box]:
    """All boxes with more than one cell."""
    boxes, waiting = [], [_Box(((0, len(edges[0]) - 1), (0, len(edges[1]) - 1)), 0)]
    while waiting:
        box = waiting.pop()
        counts = [end - begin for begin, end in box.cells]
        if max(counts) == 1:
            continue
        lengths = [(edges[axis][end] - edges[axis][begin]) * mm[axis] for axis, (begin, end) in enumerate(box.cells)]
        # The longer side; of a square, rows are cut first.
        box.axis = max((axis for axis in (0, 1) if counts[axis] > 1), key=lambda axis: (lengths[axis], -axis))
        begin, end = box.cells[box.axis]
        along = edges[box.axis]
        middle, centre = 0.5 * (along[begin] + along[end]), 0.5 * along[-1]
        inner = np.arange(begin + 1, end)
        # The edge nearest to the middle; of two, the one nearer to the centre of the window.
        box.cut = int(min(inner, key=lambda i: (abs(along[i] - middle), abs(along[i] - centre))))
        low = [edges[axis][box.cells[axis][0]] for axis in (0, 1)]
        sizes = [edges[axis][box.cells[axis][1]] - low[axis] for axis in (0, 1)]
        box.turn = int(low[0] // sizes[0] + 2 * (low[1] // sizes[1])) % TURNS
        boxes.append(box)
        waiting += [_Box(cells, box.depth + 1) for cells in box.halves]
    return boxes


def _turns_by_place(
    boxes: Sequence[_Box], edges: Sequence[NDArray[np.int64]], fine: Grid
) -> dict[int, NDArray[np.int64]]:
    """Of each depth, the turn of the box over each finest cell; `TURNS` where there is none."""
    turns: dict[int, NDArray[np.int64]] = {}
    for box in boxes:
        image = turns.setdefault(box.depth, np.full((fine.n_phi, fine.n_eta), TURNS))
        rows, columns = (slice(edges[a][begin], edges[a][end]) for a, (begin, end) in enumerate(box.cells))
        image[rows, columns] = box.turn
    return turns


def _ends(box: _Box, edges: Sequence[NDArray[np.int64]], axis: int) -> tuple[int, int]:
    begin, end = box.cells[axis]
    return int(edges[axis][begin]), int(edges[axis][end])


def _direction(box: _Box, edges: Sequence[NDArray[np.int64]], axis: int) -> int:
    """Outwards from the centre of the window; upwards for a box in its middle."""
    low, high = _ends(box, edges, axis)
    return -1 if low + high < edges[axis][-1] else 1


def _halves(
    box: _Box,
    number: dict[tuple[tuple[int, int], tuple[int, int]], int],
    boxes: int,
    columns: int,
    edges: Sequence[NDArray[np.int64]],
) -> list[int]:
    halves = [number.get(cells, boxes + cells[0][0] * columns + cells[1][0]) for cells in box.halves]
    return halves if _direction(box, edges, box.axis) > 0 else halves[::-1]


def _described(
    box: _Box,
    edges: Sequence[NDArray[np.int64]],
    mm: NDArray[np.float64],
    fine: Grid,
    turns: dict[int, NDArray[np.int64]],
) -> dict[str, object]:
    axes = (box.axis, 1 - box.axis)
    strides = (fine.n_eta + 1, 1)
    directions = [_direction(box, edges, axis) for axis in axes]
    ends = [_ends(box, edges, axis) for axis in axes]
    first = [low if direction > 0 else high for (low, high), direction in zip(ends, directions)]
    limits = [edges[axis][-1] for axis in axes]
    lengths = [high - low for low, high in ends]
    cut = abs(int(edges[box.axis][box.cut]) - first[0])
    margins = []
    for place, direction, limit in zip(first, directions, limits):
        behind, ahead = (place, limit - place) if direction > 0 else (limit - place, place)
        margins += [behind, ahead]
    centres = [abs(0.5 * (low + high) - 0.5 * limit) * mm[axis] for (low, high), limit, axis in zip(ends, limits, axes)]
    sizes = [length * mm[axis] for length, axis in zip(lengths, axes)]
    octaves = [np.log2(size / UNIT_MM) for size in sizes]
    around = []
    for along, across in _AROUND:
        # The middle of the box of the same size there, within one of the finest cells.
        step = [0, 0]
        for axis, direction, (low, high), times in zip(axes, directions, ends, (along, across)):
            step[axis] = (low + high - 1) // 2 + direction * times * (high - low)
        is_inside = all(0 <= step[axis] < edges[axis][-1] for axis in (0, 1))
        around.append(float(is_inside and turns[box.depth][step[0], step[1]] < box.turn))
    features = [
        *(centre / HALF_SIDE for centre in centres),
        *(np.arcsinh(centre / UNIT_MM) / 3.0 for centre in centres),
        *(octave / 3.0 for octave in octaves),
        *(max(0.0, 1.0 - abs(octave - k)) for octave in octaves for k in OCTAVES),
        4.0 * (cut / lengths[0] - 0.5),
        *around,
    ]
    places = [
        0 if centre < 0.5 * size - 1e-9 else 1 + min(PLACES - 2, int((centre - 0.5 * size) / size + 1e-9))
        for centre, size in zip(centres, sizes)
    ]
    return {
        "step": [strides[axis] * direction for axis, direction in zip(axes, directions)],
        "origin": sum(strides[axis] * place for axis, place in zip(axes, first)),
        "lengths": [cut, *lengths],
        "margins": margins,
        "features": features,
        "kind": [int(np.rint(6.0 * cut / lengths[0])), *places],
    }
