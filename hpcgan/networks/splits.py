"""Splits of images: what is in a cell is shared by its two halves, at random, until cells are pixels.

An image is a sum, shared by its two halves, each half's by two halves of its own across, and so on (multiscale
autoregression: Reed et al., arXiv:1703.03664; splits of a conserved quantity, so that sums are right at each scale). A
split asks for each cell with momentum whether the one half, the other or both have any, and for both, how much the
first has. The answers are a network's with two hidden layers, the same for all cells of an image, which sees the cell
and what is around it: the cells to be split, sums over larger windows, and those of its neighbours that have been
split already. Cells are split in turns, by the places of their row and their column, so that all cells of a turn are
split at once and yet neighbours depend on one another.

`hpcgan/networks/sharing.py` has the density of what a cell's halves have: each half with momentum has as much as one
pixel at least. `hpcgan/networks/multiscale.py` has the density of images that such splits make.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hpcgan.networks import sharing
from hpcgan.networks.layers import Initializer, wrap_phi
from hpcgan.networks.sharing import WAYS, Answers, Bounds, Logit

WINDOWS = (3, 7)
"""Sides of the larger windows around the cell, in cells; nine of each, side by side."""
ROWS, COLUMNS = 1, 2
"""Axes of a batch of images, along which cells are split: into an upper and a lower half, or a left and a right."""
TURNS: Mapping[int, np.ndarray] = {
    ROWS: np.array([[0, 2], [3, 1]]),
    COLUMNS: np.array([[0, 4], [6, 2], [1, 5], [7, 3]]),
}
"""When a cell is split along an axis, by its row and its column: those of one turn know nothing of one another, so they
are two cells apart, and four rows where cells are twice as wide as high: four pixels at the finest, like the others.
"""
DENSE = 32
"""A split with more than DENSE cells has so many of them in an event that it learns from every second event of a batch,
every fourth, ... every `Grid.sparse`-th: else nearly all the time would go into the finest splits, which know the most
cells.
"""
LEAST_SPREAD = 0.05
"""Of an input: what is nearly always the same stays small."""
FREQUENCIES = 0.7 * np.arange(1, 9)
"""Of ln(pT / GeV) in the sines that a network sees: one period a factor of 4, ... of 1.2."""

_NO_PIXEL = 1e30
"""GeV that the half of a cell without a pixel would have at least: as no cell has so much, it stays dark."""


@dataclass(frozen=True)
class Sight:
    """What the network of a split sees.

    Attributes
    ----------
    radius : int
        Rows and columns of cells on either side of the one to be split.
    per_gev : tuple of float
        A pT as ln(1 + pT times each of them), with pT in GeV: linear below the inverse, logarithmic above.
    whole : int
        Images of so many cells at most are seen as a whole: what is far apart depends on one another at large scales.
    guides : int
        Images of other things on the same cells, known beforehand, that are seen besides: in GeV, as a cell's pT is.
    """

    radius: int = 2
    per_gev: tuple[float, ...] = (2.0,)
    whole: int = 64
    guides: int = 0

    @property
    def faint_gev(self) -> float:
        """What is fainter looks alike in the sines of ln pT that the network sees besides."""
        return 0.1 / self.per_gev[0]


@dataclass(frozen=True)
class Grid:
    """What all splits of an image have in common.

    Attributes
    ----------
    side : int
        Pixels of a side, a power of two.
    goes_around : bool
        Whether the last column is next to the first.
    coordinate : Logit
        Of shares.
    bins : (int, int)
        Intervals of this coordinate: of images that are seen as a whole, whose bounds are far apart, and of others.
    sight : Sight
    sparse : int
        The finest splits learn from every so-many-th event of a batch.
    prior : bool
        Whether answers are told as departures from what is frequent in training samples (`Split.count`). Without it an
        interval that never occurs begins as likely as any, and is left with some probability.
    """

    side: int
    goes_around: bool
    coordinate: Logit
    bins: tuple[int, int] = (128, 32)
    sight: Sight = Sight()
    sparse: int = 8
    prior: bool = False

    def splits(self) -> list[tuple[int, int, int]]:
        """Rows, columns and axis of each split, from the whole image to pixels."""
        shapes, side = [], 1
        while side < self.side:
            shapes += [(side, side, ROWS), (2 * side, side, COLUMNS)]
            side *= 2
        return shapes


class Cells(NamedTuple):
    """Some cells of a batch of images: the event, row and column of each, (cells,) int32."""

    event: tf.Tensor
    row: tf.Tensor
    column: tf.Tensor

    def of(self, images: tf.Tensor) -> tf.Tensor:
        """Their values in (n, rows, columns)."""
        return tf.gather_nd(images, tf.stack(self, axis=1))

    @staticmethod
    def where(mask: tf.Tensor) -> Cells:
        """The cells of a mask (n, rows, columns), event after event."""
        return Cells(*tf.unstack(tf.cast(tf.where(mask), tf.int32), axis=1))


class View(NamedTuple):
    """What the network sees of whole images before any cell is split, computed once.

    `planes` are (n, rows, columns, planes) and what is around them, within reach: encoded pT, whether there is any, the
    encoded `guides`, if there are any; `halves` are (n, rows, columns, planes): encoded pT of both halves, as far as
    they are known, and whether they have any; `windows` are sums over windows of each of the sides `WINDOWS`;
    `of_event` are (n, 2).
    """

    whole: tf.Tensor
    planes: tf.Tensor
    halves: tf.Tensor
    windows: list[tf.Tensor]
    of_event: tf.Tensor


class Split(tf.Module):
    """One split of all cells of images (n, rows, columns) of pT in GeV.

    Parameters
    ----------
    init : Initializer
    name : str
    grid : Grid
    shape : (rows, columns, axis)
        Of the images to be split, and along which axis.
    least : (rows, columns) array of the split images, or (rows, 1)
        pT that a cell with momentum has at least, GeV; infinite where there is no pixel.
    units : int
        Of each of the two hidden layers.
    conditions : int
        Numbers that the network knows of an event besides.
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        grid: Grid,
        shape: tuple[int, int, int],
        least: np.ndarray,
        units: int,
        conditions: int,
    ) -> None:
        super().__init__(name.replace("/", "_"))
        self.grid = grid
        self.rows, self.columns, self.axis = shape
        self._bound(least, init.dtype)
        self.every = max(1, min(grid.sparse, self.rows * self.columns // DENSE))
        is_coarse = self.rows * self.columns <= grid.sight.whole
        self.bins, radius = (grid.bins[0], grid.side) if is_coarse else (grid.bins[1], grid.sight.radius)
        self._reach = (
            min(radius, self.rows - 1),
            min(radius, self.columns // 2 if grid.goes_around else self.columns - 1),
        )
        places = [
            (down, right)
            for down in range(-self._reach[0], self._reach[0] + 1)
            for right in range(-self._reach[1], self._reach[1] + 1)
        ]
        self._places = np.array(places)
        self._turns = TURNS[self.axis]
        cells = np.indices(self._turns.shape)[..., None]
        turns = self._turn(cells[0] + self._places[:, 0], cells[1] + self._places[:, 1])
        is_split = turns < self._turns[..., None]  # before, by the cell's place among those of one period of turns
        self._is_split = tf.constant(is_split.reshape(self._turns.size, -1, 1), init.dtype)
        kinds = len(grid.sight.per_gev)
        self._half_planes = 2 * (kinds + 1)
        planes = kinds + 1 + kinds * grid.sight.guides + self._half_planes
        inputs = planes * len(places) + len(WINDOWS) * 9 + 3 + kinds
        inputs += self._turns.size + 2 * len(FREQUENCIES) + 2 + conditions
        inputs += 0 if grid.goes_around else 2 + self.columns
        self.mean = init.constant(f"{name}/mean", (inputs,), 0.0, trainable=False)
        self.scale = init.constant(f"{name}/scale", (inputs,), 1.0, trainable=False)
        self.hidden = init.he_uniform(f"{name}/hidden", (inputs, units), inputs, 2)
        self.hidden_bias = init.constant(f"{name}/hidden_bias", (self.rows, units), 0.0)  # of each row
        self.hidden2 = init.he_uniform(f"{name}/hidden2", (units, units), units, 2)
        self.hidden2_bias = init.constant(f"{name}/hidden2_bias", (units,), 0.0)
        self.out = init.normal(f"{name}/out", (units, WAYS + self.bins), 0.1 / math.sqrt(units))
        self.out_bias = init.constant(f"{name}/out_bias", (self.rows, WAYS + self.bins), 0.0)  # of each row
        self.prior: tf.Variable | None = None
        if grid.prior:
            answers = (self.rows * self.columns, WAYS + self.bins)  # of each place
            self.prior = init.constant(f"{name}/prior", answers, 0.0, trainable=False)

    @property
    def constants(self) -> list[tf.Variable]:
        """What is measured on training samples."""
        return [self.mean, self.scale, *([] if self.prior is None else [self.prior])]

    def _bound(self, least: np.ndarray, dtype: str) -> None:
        """Note what each half has at least, and which halves have no pixel."""
        of_split = np.broadcast_to(
            least, [self.rows * (2 if self.axis == ROWS else 1), self.columns * (2 if self.axis == COLUMNS else 1)]
        )
        halves = (of_split[0::2], of_split[1::2]) if self.axis == ROWS else (of_split[:, 0::2], of_split[:, 1::2])
        has_pixel = [np.isfinite(half).reshape(-1) for half in halves]
        self.least = [
            tf.constant(np.where(has, half.reshape(-1), _NO_PIXEL), dtype)
            for has, half in zip(has_pixel, halves, strict=True)
        ]
        self._is_first_alone = None if all(has.all() for has in has_pixel) else tf.constant(~has_pixel[1])

    def halves(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The images of either half of each cell, out of split images."""
        if self.axis == ROWS:
            return images[:, 0::2], images[:, 1::2]
        return images[:, :, 0::2], images[:, :, 1::2]

    def log_prob(self, images: tf.Tensor, conditions: tf.Tensor | None, guides: tf.Tensor | None = None) -> tf.Tensor:
        """Log of the density of split images (n, 2 rows, columns) or (n, rows, 2 columns), given their sums: (n,).

        Conditions are (n, conditions), guides (n, rows, columns, guides).

        With respect to the first half's pT in GeV where both halves have some. What the thresholds forbid, as the odd
        muon makes it, counts as the nearest that they allow.
        """
        first, second = self.halves(images)
        whole = first + second
        cells = Cells.where(whole > 0)
        answers = self.answers(self._view(whole, first, second, guides), cells, conditions)
        log_p = sharing.log_prob(self.grid.coordinate, answers, cells.of(first), cells.of(second))
        return tf.math.unsorted_segment_sum(log_p, cells.event, tf.shape(images)[0])

    def __call__(
        self, whole: tf.Tensor, uniform: tf.Tensor, conditions: tf.Tensor | None, guides: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Split images (n, rows, columns) at random, by uniform numbers (n, rows, columns, NUMBERS)."""
        turns = self._turn(*np.indices((self.rows, self.columns)))
        used, turns = np.unique(turns), tf.constant(turns)
        view = self._view(whole, None, None, guides)

        def split(number: tf.Tensor, seen: tf.Tensor, halves: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            cells = Cells.where((whole > 0) & (turns == tf.gather(used, number)))
            answers = self.answers(view._replace(halves=seen), cells, conditions)
            of_way, of_share = tf.unstack(cells.of(uniform), axis=1)
            first, second = sharing.draw(self.grid.coordinate, answers, cells.of(whole), of_way, of_share)
            index = tf.stack(cells, axis=1)
            seen = tf.tensor_scatter_nd_update(seen, index, self._planes_sharing(first, second))
            halves = tf.tensor_scatter_nd_update(halves, index, tf.stack([first, second], axis=1))
            return number + 1, seen, halves

        # A loop of the graph: unrolled, it would take a quarter of a minute to build.
        start = (tf.constant(0), view.halves, tf.zeros_like(view.halves[..., :2]))
        halves = tf.while_loop(lambda number, *_: number < len(used), split, start, parallel_iterations=1)[2]
        if self.axis == ROWS:
            halves = tf.transpose(halves, [0, 1, 3, 2])
        return tf.reshape(
            halves,
            [-1, self.rows * (2 if self.axis == ROWS else 1), self.columns * (2 if self.axis == COLUMNS else 1)],
        )

    def answers(self, view: View, cells: Cells, conditions: tf.Tensor | None) -> Answers:
        """What the network says of cells of images, of whose halves it sees those of cells in earlier turns."""
        # Rows differ: in a detector's, towers are no multiples of them. Not gathered: that gradient is sparse.
        row = tf.one_hot(cells.row, self.rows, dtype=self.hidden.dtype)
        # (x - mean) * scale, at the cost of the weights' number instead of the inputs'.
        hidden = self.hidden * self.scale[:, None]
        bias = self.hidden_bias - tf.linalg.matvec(hidden, self.mean, transpose_a=True)
        x = tf.concat([*self._features(view, cells, conditions), row], axis=1)
        x = tf.nn.silu(tf.matmul(x, tf.concat([hidden, bias], axis=0)))
        x = tf.nn.silu(tf.matmul(x, self.hidden2) + self.hidden2_bias)
        x, out = tf.concat([x, row], axis=1), tf.concat([self.out, self.out_bias], axis=0)
        place = cells.row * self.columns + cells.column
        answers = []
        for which in (slice(WAYS), slice(WAYS, None)):  # weights are cut, which are few
            answers.append(tf.matmul(x, out[:, which]))
            if self.prior is not None:
                answers[-1] += tf.gather(self.prior[:, which], place)
        return sharing.answers_of(self._bounds(cells, cells.of(view.whole)), *answers)

    def _bounds(self, cells: Cells, pt: tf.Tensor) -> Bounds:
        """What thresholds allow for cells with momentum (cells,)."""
        number = cells.row * self.columns + cells.column
        is_first_alone = None if self._is_first_alone is None else tf.gather(self._is_first_alone, number)
        first, second = (tf.gather(least, number) for least in self.least)
        return sharing.bounds_of(self.grid.coordinate, pt, (first, second), is_first_alone)

    def count(self, images: tf.Tensor) -> None:
        """Set the prior, if there is one, to how frequent answers are in split images, place by place.

        A place with few cells has those of all places besides, and what no cell has gets a little. Of rows alone, a
        cell on one side of the middle would have what is frequent on the other side, mirrored.
        """
        if self.prior is None:
            return
        first, second = self.halves(images)
        cells = Cells.where(first + second > 0)
        a, b = cells.of(first), cells.of(second)
        bounds = self._bounds(cells, a + b)
        way, interval = (x.numpy() for x in sharing.seen(self.grid.coordinate, bounds, a, b, self.bins))
        place = (cells.row * self.columns + cells.column).numpy()
        self.prior.assign(sharing.log_shares(self.rows * self.columns, self.bins, place, way, interval))

    def measure(self, images: tf.Tensor, conditions: tf.Tensor | None, guides: tf.Tensor | None = None) -> None:
        """Set the mean and the scale of what the network sees to those of split images, unless all are empty."""
        first, second = self.halves(images)
        whole = first + second
        cells = Cells.where(whole > 0)
        if not len(cells.event):
            return
        view = self._view(whole, first, second, guides)
        mean, variance = tf.nn.moments(tf.concat(self._features(view, cells, conditions), axis=1), axes=[0])
        self.mean.assign(mean)
        self.scale.assign(1.0 / (tf.sqrt(variance) + LEAST_SPREAD))

    # --- what the network sees -----------------------------------------------------------------------

    def _view(
        self, whole: tf.Tensor, first: tf.Tensor | None, second: tf.Tensor | None, guides: tf.Tensor | None = None
    ) -> View:
        """Of images (n, rows, columns) and their halves, None before any cell is split."""
        share_lit = tf.reduce_mean(tf.cast(whole > 0, whole.dtype), axis=[1, 2])
        total = tf.math.log(tf.reduce_sum(whole, axis=[1, 2]) + 0.1) - 7.0
        windows = [self._sums(whole, side) for side in WINDOWS]
        planes = tf.stack([*self._encoded(whole), _is_lit(whole)], axis=-1)
        if guides is not None:
            planes = tf.concat([planes, *self._encoded(guides)], axis=-1)
        if first is None:
            halves = tf.zeros([*tf.unstack(tf.shape(whole)), self._half_planes], whole.dtype)
        else:
            halves = self._planes_sharing(first, second)
        return View(whole, self._surrounded(planes), halves, windows, tf.stack([total, 4.0 * share_lit], axis=1))

    def _features(self, view: View, cells: Cells, conditions: tf.Tensor | None) -> list[tf.Tensor]:
        pt = cells.of(view.whole)
        log_pt = tf.math.log(tf.maximum(pt, self.grid.sight.faint_gev))
        down = (tf.cast(cells.row, pt.dtype) + 0.5) * (2.0 / self.rows) - 1.0
        phases = log_pt[:, None] * tf.constant(FREQUENCIES, pt.dtype)
        place = self._turns.shape[1] * (cells.row % self._turns.shape[0]) + cells.column % self._turns.shape[1]
        columns = [
            self._neighbours(view, cells, place),
            *(self._windows(sums, side, cells) for sums, side in zip(view.windows, WINDOWS, strict=True)),
            tf.stack([down, tf.abs(down), log_pt, *self._encoded(pt)], axis=1),
            tf.one_hot(place, self._turns.size, dtype=pt.dtype),
            tf.sin(phases),
            tf.cos(phases),
            tf.gather(view.of_event, cells.event),
        ]
        if not self.grid.goes_around:  # then columns differ
            right = (tf.cast(cells.column, pt.dtype) + 0.5) * (2.0 / self.columns) - 1.0
            columns += [
                tf.stack([right, tf.abs(right)], axis=1),
                tf.one_hot(cells.column, self.columns, dtype=pt.dtype),
            ]
        if conditions is not None:
            columns.append(tf.gather(conditions, cells.event))
        return columns

    def _encoded(self, pt: tf.Tensor) -> list[tf.Tensor]:
        """What the network sees of a pT in GeV."""
        return [tf.math.log1p(per_gev * pt) for per_gev in self.grid.sight.per_gev]

    def _planes_sharing(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """What the network sees of halves (...): (..., planes)."""
        planes = [*self._encoded(first), *self._encoded(second), _is_lit(first), _is_lit(second)]
        return tf.stack(planes, axis=len(first.shape))  # -1 is unknown to ONNX's converter in loops

    def _turn(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """In which turn cells are split."""
        rows, columns = self._turns.shape
        return self._turns[row % rows, column % columns]

    def _neighbours(self, view: View, cells: Cells, place: tf.Tensor) -> tf.Tensor:
        """Planes of the cell and of those around it; of halves, of those that are split before."""
        down, right = self._reach
        height, width = self.rows + 2 * down, self.columns + 2 * right
        corner = (cells.event * height + cells.row + down) * width + cells.column + right
        index = corner[:, None] + tf.constant(self._places[:, 0] * width + self._places[:, 1], tf.int32)
        planes, halves = (
            tf.gather(tf.reshape(x, [-1, x.shape[-1]]), index) for x in (view.planes, self._surrounded(view.halves))
        )  # (cells, places, planes)
        around = tf.concat([planes, halves * tf.gather(self._is_split, place)], axis=2)
        return tf.reshape(around, [-1, around.shape[-1] * len(self._places)])

    def _surrounded(self, planes: tf.Tensor) -> tf.Tensor:
        """Planes (n, rows, columns, planes), and those beyond the edges within reach."""
        return self._widened(planes, *self._reach)

    def _sums(self, whole: tf.Tensor, side: int) -> tf.Tensor:
        """PT of all windows of `side` x `side` cells, encoded, with a margin of as many rows and columns of windows.

        Where an image is too narrow for three of them, each window has all columns, and there is one of them.
        """
        margin = side + side // 2
        if self._has_all(side):
            sums = tf.reduce_sum(whole, axis=2, keepdims=True)
        else:
            sums = _box(self._widened(whole, 0, margin), side, COLUMNS)
        return self._encoded(_box(tf.pad(sums, [[0, 0], [margin, margin], [0, 0]]), side, ROWS))[0]

    def _windows(self, sums: tf.Tensor, side: int, cells: Cells) -> tf.Tensor:
        """Nine of these windows, side by side, the cell in the middle of them: (cells, 9)."""
        has_all = self._has_all(side)
        height, width = self.rows + 2 * side, 1 if has_all else self.columns + 2 * side
        moves = np.array([(down, right) for down in (0, 1, 2) for right in ((0, 0, 0) if has_all else (0, 1, 2))])
        corner = (cells.event * height + cells.row) * width + (0 if has_all else cells.column)
        steps = tf.constant(side * (moves[:, 0] * width + moves[:, 1]), tf.int32)
        return tf.gather(tf.reshape(sums, [-1]), corner[:, None] + steps)

    def _widened(self, x: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
        """Margins of (n, rows, columns, ...): zeros, but where columns go around the other edge beyond theirs."""
        if columns and self.grid.goes_around:
            x, columns = wrap_phi(x, columns), 0
        if not rows and not columns:
            return x
        return tf.pad(x, [[0, 0], [rows, rows], [columns, columns]] + [[0, 0]] * (len(x.shape) - 3))

    def _has_all(self, side: int) -> bool:
        return 3 * side > self.columns


def joined(splits: Sequence[Split], images: tf.Tensor) -> Iterator[tuple[Split, tf.Tensor]]:
    """The splits of an image, from the last to the first, each with the images (n, rows, columns) that it makes."""
    for split in reversed(splits):
        yield split, images
        images = tf.add_n(split.halves(images))


def _is_lit(pt: tf.Tensor) -> tf.Tensor:
    return tf.cast(pt > 0, pt.dtype)


def _box(x: tf.Tensor, side: int, axis: int) -> tf.Tensor:
    """Sums over `side` neighbours along an axis of (n, rows, columns), which gets shorter by side - 1."""
    length = x.shape[axis] - side + 1
    begin = [0, 0, 0]
    parts = []
    for shift in range(side):
        begin[axis] = shift
        size = [-1, -1, -1]
        size[axis] = length
        parts.append(tf.slice(x, begin, size))
    return tf.add_n(parts)
