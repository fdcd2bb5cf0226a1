"""A density of calorimeter images: an event's transverse momentum, halved again and again until there are pixels.

The summed pT of an event is drawn (`total_pt.py`). It is shared by the two halves of the image in eta, each half's by
two halves in phi, and so on: twelve splits, alternating between eta and phi, from 1x1 to 64x64 (multiscale
autoregression: Reed et al., arXiv:1703.03664; splits of a conserved quantity, so that sums are right at each scale).
A split asks for each cell with momentum whether the one half, the other or both have any, and for both, how much the
first has. The answers are a network's with two hidden layers, the same for all cells of an image, which sees the cell
and what is around it: the cells to be split, sums over larger windows, and those of its neighbours that have been
split already. Cells are split in turns, by the places of their row and their column, so that all cells of a turn are
split at once and yet neighbours depend on one another.

The share of a half is bounded by the threshold of the calorimeter: each half with momentum has as much as one pixel at
least. Between the bounds the logit of the share has a density that is constant in intervals, so that edges, as
thresholds make them, stay sharp.

There is no upsampling, no cut and no adversary: images have neither a lattice nor streaks, because the density of every
pixel is learnt under the condition of its neighbours (docs/model.md says what that brings).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from hpcgan.networks.capabilities import Calibrated, Density
from hpcgan.networks.layers import Initializer, Tensors, stacked, uniform_of, wrap_phi
from hpcgan.problems.detector_images.pixels import to_power
from hpcgan.problems.detector_images.total_pt import DrawnTotal

if TYPE_CHECKING:
    from hpcgan.problems.detector_images.rpv import RpvModel

PIXELS = 64
BINS = (128, 32)
"""Intervals of the logit of a share: of images that are seen as a whole, whose bounds are far apart, and of others."""
RADIUS = 2
"""Rows and columns of cells on either side of the one to be split that the network sees."""
ALL = 64
"""Images of so many cells at most are seen as a whole: jets balance one another across the detector."""
WINDOWS = (3, 7)
"""Sides of the larger windows around the cell, in cells; nine of each, side by side."""
ETA, PHI = 1, 2
"""Axes of a batch of images."""
TURNS: Mapping[int, np.ndarray] = {ETA: np.array([[0, 2], [3, 1]]), PHI: np.array([[0, 4], [6, 2], [1, 5], [7, 3]])}
"""When a cell is split along an axis, by its row and its column: those of one turn know nothing of one another, so they
are two cells apart, and four in eta where cells are twice as wide as high: four pixels at the finest, like the others.
"""
TAIL = 0.005
"""Share of events with the highest summed pT, which falls off exponentially there."""
DENSE, SPARSE = 32, 8
"""A split with more than DENSE cells has so many of them in an event that it learns from every second event of a batch,
every fourth, ... every SPARSE-th: else nearly all the time would go into the finest splits, which know the most cells.
"""
NUMBERS = 2
"""Standard normal numbers for a cell to be split: which halves have momentum, and the share of the first."""
FIRST, SECOND, BOTH = range(3)
"""Which halves have momentum."""
MEASURED = 1024
"""Events, spread over the training split, by which inputs of the networks are centred and scaled."""
LEAST_SPREAD = 0.05
"""Of an input: what is nearly always the same stays small."""
_FREQUENCIES = 0.7 * np.arange(1, 9)  # of ln(pT / GeV): one period a factor of 4, ... of 1.2


def splits() -> list[tuple[int, int, int]]:
    """Rows, columns and axis of each split, from the whole image to pixels."""
    shapes, side = [], 1
    while side < PIXELS:
        shapes += [(side, side, ETA), (2 * side, side, PHI)]
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


class Answers(NamedTuple):
    """What the network says of cells: which ways the thresholds allow, (cells, 3), and ln of the probability of each
    way and of each interval of the logit of the first half's share, (cells, bins), which lie between `low` and `high`,
    (cells,).
    """

    is_allowed: tf.Tensor
    ways: tf.Tensor
    intervals: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor


class View(NamedTuple):
    """What the network sees of whole images before any cell is split, computed once.

    `planes` are (n, rows, columns, 6): encoded pT, whether there is any, and the same of both halves, as far as they
    are known; `windows` are sums over windows of each of the sides `WINDOWS`; `of_event` are (n, 2).
    """

    whole: tf.Tensor
    planes: tf.Tensor
    windows: list[tf.Tensor]
    of_event: tf.Tensor


class Split(tf.Module):
    """One split of all cells of images (n, rows, columns) of pT in GeV.

    Parameters
    ----------
    init : Initializer
    name : str
    shape : (rows, columns, axis)
        Of the images to be split, and along which axis.
    least : (rows of the split images,) array
        pT that a cell with momentum has at least, GeV.
    units : int
        Of each of the two hidden layers.
    conditions : int
        Numbers that the network knows of an event besides.
    """

    def __init__(
        self, init: Initializer, name: str, shape: tuple[int, int, int], least: np.ndarray, units: int, conditions: int
    ) -> None:
        super().__init__(name.replace("/", "_"))
        self.rows, self.columns, self.axis = shape
        self.least = [
            tf.constant(values, init.dtype)
            for values in ((least[0::2], least[1::2]) if self.axis == ETA else [least] * 2)
        ]
        self.every = max(1, min(SPARSE, self.rows * self.columns // DENSE))
        is_coarse = self.rows * self.columns <= ALL
        self.bins, radius = (BINS[0], PIXELS) if is_coarse else (BINS[1], RADIUS)
        self._reach = (min(radius, self.rows - 1), min(radius, self.columns // 2))
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
        inputs = 6 * len(places) + len(WINDOWS) * 9 + 4 + self._turns.size + 2 * len(_FREQUENCIES) + 2 + conditions
        self.mean = init.constant(f"{name}/mean", (inputs,), 0.0, trainable=False)
        self.scale = init.constant(f"{name}/scale", (inputs,), 1.0, trainable=False)
        self.hidden = init.he_uniform(f"{name}/hidden", (inputs, units), inputs, 2)
        self.hidden_bias = init.constant(f"{name}/hidden_bias", (self.rows, units), 0.0)  # of each row
        self.hidden2 = init.he_uniform(f"{name}/hidden2", (units, units), units, 2)
        self.hidden2_bias = init.constant(f"{name}/hidden2_bias", (units,), 0.0)
        self.out = init.normal(f"{name}/out", (units, BOTH + 1 + self.bins), 0.1 / math.sqrt(units))
        self.out_bias = init.constant(f"{name}/out_bias", (self.rows, BOTH + 1 + self.bins), 0.0)  # of each row

    def halves(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The images of either half of each cell, out of split images."""
        if self.axis == ETA:
            return images[:, 0::2], images[:, 1::2]
        return images[:, :, 0::2], images[:, :, 1::2]

    def log_prob(self, images: tf.Tensor, conditions: tf.Tensor | None) -> tf.Tensor:
        """Log of the density of split images (n, 2 rows, columns) or (n, rows, 2 columns), given their sums: (n,).

        With respect to the first half's pT in GeV where both halves have some. What the thresholds forbid, as the odd
        muon makes it, counts as the nearest that they allow.
        """
        first, second = self.halves(images)
        whole = first + second
        cells = Cells.where(whole > 0)
        answers = self.answers(self._view(whole, first, second), cells, conditions)
        a, b = cells.of(first), cells.of(second)
        allowed = tf.unstack(answers.is_allowed, axis=1)
        is_both = (a > 0) & (b > 0) & allowed[BOTH]
        is_first = (a >= b) & allowed[FIRST] | ~allowed[SECOND]
        way = tf.where(is_both, BOTH, tf.where(is_first, FIRST, SECOND))
        log_p = tf.gather(answers.ways, way, batch_dims=1)
        a, b = tf.where(is_both, a, 1.0), tf.where(is_both, b, 1.0)
        width = tf.where(is_both, answers.high - answers.low, 1.0)
        place = (tf.math.log(a) - tf.math.log(b) - answers.low) / width
        interval = tf.clip_by_value(tf.cast(tf.floor(place * self.bins), tf.int32), 0, self.bins - 1)
        log_density = tf.gather(answers.intervals, interval, batch_dims=1) + tf.math.log(self.bins / width)
        log_density += tf.math.log((a + b) / (a * b))  # of the logit by the pT
        log_p += tf.where(is_both, log_density, 0.0)
        return tf.math.unsorted_segment_sum(log_p, cells.event, tf.shape(images)[0])

    def __call__(self, whole: tf.Tensor, normal: tf.Tensor, conditions: tf.Tensor | None) -> tf.Tensor:
        """Split images (n, rows, columns) at random, by standard normal numbers (n, rows, columns, NUMBERS)."""
        uniform = uniform_of(normal)
        turns = tf.constant(self._turn(*np.indices((self.rows, self.columns))))
        view = self._view(whole, tf.zeros_like(whole), tf.zeros_like(whole))

        def split(turn: tf.Tensor, planes: tf.Tensor, halves: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            cells = Cells.where((whole > 0) & (turns == turn))
            answers = self.answers(view._replace(planes=planes), cells, conditions)
            of_way, of_share = tf.unstack(cells.of(uniform), axis=1)
            way = _drawn(answers.ways, of_way)[0]
            interval, within = _drawn(answers.intervals, of_share)
            place = (tf.cast(interval, within.dtype) + within) / self.bins
            share = tf.sigmoid(answers.low + place * (answers.high - answers.low))
            share = tf.where(way == BOTH, share, tf.cast(way == FIRST, share.dtype))
            parts = cells.of(whole)
            first, second = parts * share, parts * (1.0 - share)
            index = tf.stack(cells, axis=1)
            planes = tf.tensor_scatter_nd_update(planes, index, _planes(parts, first, second))
            halves = tf.tensor_scatter_nd_update(halves, index, tf.stack([first, second], axis=1))
            return turn + 1, planes, halves

        # A loop of the graph: unrolled, it would take a quarter of a minute to build.
        start = (tf.zeros([], turns.dtype), view.planes, tf.zeros_like(view.planes[..., :2]))
        halves = tf.while_loop(lambda turn, *_: turn < self._turns.size, split, start, parallel_iterations=1)[2]
        if self.axis == ETA:
            halves = tf.transpose(halves, [0, 1, 3, 2])
        return tf.reshape(
            halves,
            [-1, self.rows * (2 if self.axis == ETA else 1), self.columns * (2 if self.axis == PHI else 1)],
        )

    def answers(self, view: View, cells: Cells, conditions: tf.Tensor | None) -> Answers:
        """What the network says of cells of images, of whose halves it sees those of cells in earlier turns."""
        x = self._features(view, cells, conditions)
        # (x - mean) * scale, at the cost of the weights' number instead of the inputs'.
        hidden = self.hidden * self.scale[:, None]
        bias = self.hidden_bias - tf.linalg.matvec(hidden, self.mean, transpose_a=True)
        # Rows are no multiples of the towers, so neighbours depend on the row. Not gathered: that gradient is sparse.
        row = tf.one_hot(cells.row, self.rows, dtype=x.dtype)
        x = tf.nn.silu(tf.matmul(x, hidden) + tf.matmul(row, bias))
        x = tf.nn.silu(tf.matmul(x, self.hidden2) + self.hidden2_bias)
        x = tf.matmul(x, self.out) + tf.matmul(row, self.out_bias)
        pt = cells.of(view.whole)
        least_first, least_second = (tf.gather(least, cells.row) for least in self.least)
        is_first, is_both = pt >= 0.999 * least_first, pt > 1.001 * (least_first + least_second)
        is_second = (pt >= 0.999 * least_second) | ~is_first
        is_allowed = tf.stack([is_first, is_second, is_both], axis=1)
        pt = tf.where(is_both, pt, 2.0 * (least_first + least_second))  # any number for which there are logarithms
        low = tf.math.log(least_first) - tf.math.log(pt - least_first)
        high = tf.math.log(pt - least_second) - tf.math.log(least_second)
        ways = tf.where(is_allowed, x[:, : BOTH + 1], -1e9)
        return Answers(is_allowed, tf.nn.log_softmax(ways), tf.nn.log_softmax(x[:, BOTH + 1 :]), low, high)

    def measure(self, images: tf.Tensor, conditions: tf.Tensor | None) -> None:
        """Set the mean and the scale of what the network sees to those of split images, unless all are empty."""
        first, second = self.halves(images)
        whole = first + second
        cells = Cells.where(whole > 0)
        if not len(cells.event):
            return
        mean, variance = tf.nn.moments(self._features(self._view(whole, first, second), cells, conditions), axes=[0])
        self.mean.assign(mean)
        self.scale.assign(1.0 / (tf.sqrt(variance) + LEAST_SPREAD))

    # --- what the network sees -----------------------------------------------------------------------

    def _view(self, whole: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> View:
        share_lit = tf.reduce_mean(tf.cast(whole > 0, whole.dtype), axis=[1, 2])
        total = tf.math.log(tf.reduce_sum(whole, axis=[1, 2]) + 0.1) - 7.0
        windows = [self._sums(whole, side) for side in WINDOWS]
        return View(whole, _planes(whole, first, second), windows, tf.stack([total, 4.0 * share_lit], axis=1))

    def _features(self, view: View, cells: Cells, conditions: tf.Tensor | None) -> tf.Tensor:
        pt = cells.of(view.whole)
        log_pt = tf.math.log(tf.maximum(pt, 0.05))
        eta = (tf.cast(cells.row, pt.dtype) + 0.5) * (2.0 / self.rows) - 1.0
        phases = log_pt[:, None] * tf.constant(_FREQUENCIES, pt.dtype)
        place = self._turns.shape[1] * (cells.row % self._turns.shape[0]) + cells.column % self._turns.shape[1]
        columns = [
            self._neighbours(view.planes, cells, place),
            *(self._windows(sums, side, cells) for sums, side in zip(view.windows, WINDOWS, strict=True)),
            tf.stack([eta, tf.abs(eta), log_pt, _encoded(pt)], axis=1),
            tf.one_hot(place, self._turns.size, dtype=pt.dtype),
            tf.sin(phases),
            tf.cos(phases),
            tf.gather(view.of_event, cells.event),
        ]
        if conditions is not None:
            columns.append(tf.gather(conditions, cells.event))
        return tf.concat(columns, axis=1)

    def _turn(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """In which turn cells are split."""
        rows, columns = self._turns.shape
        return self._turns[row % rows, column % columns]

    def _neighbours(self, planes: tf.Tensor, cells: Cells, place: tf.Tensor) -> tf.Tensor:
        """Planes of the cell and of those around it; of halves, of those that are split before."""
        down, right = self._reach
        count = planes.shape[-1]
        padded = _wrapped(planes, down, right)
        height, width = self.rows + 2 * down, self.columns + 2 * right
        corner = (cells.event * height + cells.row + down) * width + cells.column + right
        steps = tf.constant(self._places[:, 0] * width + self._places[:, 1], tf.int32)
        around = tf.gather(tf.reshape(padded, [-1, count]), corner[:, None] + steps)  # (cells, places, planes)
        around = tf.concat([around[..., :2], around[..., 2:] * tf.gather(self._is_split, place)], axis=2)
        return tf.reshape(around, [-1, count * len(self._places)])

    def _sums(self, whole: tf.Tensor, side: int) -> tf.Tensor:
        """PT of all windows of `side` x `side` cells, encoded, with a margin of as many rows and columns of windows.

        Where an image is too narrow for three of them, each window has all columns, and there is one of them.
        """
        margin = side + side // 2
        if self._has_all(side):
            sums = tf.reduce_sum(whole, axis=2, keepdims=True)
        else:
            sums = _box(_wrapped(whole, 0, margin), side, PHI)
        return _encoded(_box(tf.pad(sums, [[0, 0], [margin, margin], [0, 0]]), side, ETA))

    def _windows(self, sums: tf.Tensor, side: int, cells: Cells) -> tf.Tensor:
        """Nine of these windows, side by side, the cell in the middle of them: (cells, 9)."""
        has_all = self._has_all(side)
        height, width = self.rows + 2 * side, 1 if has_all else self.columns + 2 * side
        moves = np.array([(down, right) for down in (0, 1, 2) for right in ((0, 0, 0) if has_all else (0, 1, 2))])
        corner = (cells.event * height + cells.row) * width + (0 if has_all else cells.column)
        steps = tf.constant(side * (moves[:, 0] * width + moves[:, 1]), tf.int32)
        return tf.gather(tf.reshape(sums, [-1]), corner[:, None] + steps)

    def _has_all(self, side: int) -> bool:
        return 3 * side > self.columns


class Multiscale(Density, Calibrated):
    """The density of images (n, 64, 64), encoded, under conditions if there are any."""

    def __init__(self, config: RpvModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("multiscale")
        init = Initializer(seed, dtype)
        self.conditions = config.conditions
        self.total = DrawnTotal(init, "density", len(self.conditions), config.total_pt_knots, TAIL)
        self.power = 1.0 / config.exponent
        self.to_gev = tf.constant(config.linear_to_pt * config.pt_unit_mev / 1e3, dtype)
        least = config.least_pt_gev
        self.splits = [
            Split(
                init,
                f"density/split{number}",
                shape,
                # Of the lowest threshold among the pixels of a cell.
                least.reshape(shape[0] * (2 if shape[2] == ETA else 1), -1).min(axis=1),
                config.hidden_units,
                len(self.conditions),
            )
            for number, shape in enumerate(splits())
        ]

    @property
    def constants(self) -> list[tf.Variable]:
        """The quantiles of ln(summed pT / GeV), and the means and scales of what the networks see."""
        return [*self.total.constants, *(c for split in self.splits for c in (split.mean, split.scale))]

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Measure them on the training events."""
        totals, conditions = [], []
        for batch in batches:
            totals.append(tf.reduce_sum(self._pt(batch["hist"]), axis=[1, 2]).numpy())
            if self.conditions:
                conditions.append(stacked(batch, self.conditions).numpy())
        self.total.measure(totals, conditions)
        every = -(-sum(map(len, totals)) // MEASURED)
        some = [{name: values[::every] for name, values in batch.items()} for batch in batches]
        images = self._pt(tf.concat([batch["hist"] for batch in some], axis=0))
        inputs = tf.concat([stacked(batch, self.conditions) for batch in some], axis=0) if self.conditions else None
        for split in reversed(self.splits):
            split.measure(images, inputs)
            images = tf.add_n(split.halves(images))

    def log_prob(self, sample: Tensors) -> tf.Tensor:
        """Log of the density of how an event's summed pT is shared among the pixels, given that sum: (n,), nats, for
        pT in GeV.
        """
        return tf.add_n(self._log_probs(sample, lambda _: 1))

    def mean_log_prob(self, sample: Tensors) -> tf.Tensor:
        """Mean of `log_prob`, each split's from every `every`-th event of the batch: ranks that share a batch in
        multiples of `SPARSE` events agree with one that has it all.
        """
        return tf.add_n([tf.reduce_mean(log_p) for log_p in self._log_probs(sample, lambda split: split.every)])

    def _log_probs(self, sample: Tensors, every: Callable[[Split], int]) -> list[tf.Tensor]:
        """Of each split, from the last to the first, for every so many events."""
        images = self._pt(sample["hist"])
        conditions = stacked(sample, self.conditions) if self.conditions else None
        log_p = []
        for split in reversed(self.splits):
            chosen = slice(None, None, every(split))
            log_p.append(split.log_prob(images[chosen], None if conditions is None else conditions[chosen]))
            images = tf.add_n(split.halves(images))
        return log_p

    def __call__(
        self, noise: tf.Tensor, conditions: Tensors, training: bool = False, update: bool = False
    ) -> dict[str, tf.Tensor]:
        """Images of noise: one number for the summed pT of each, then `NUMBERS` for each cell of each split."""
        inputs = stacked(conditions, self.conditions) if self.conditions else None
        images = tf.exp(self.total(noise[:, 0], inputs))[:, None, None]
        start = 1
        for split in self.splits:
            end = start + NUMBERS * split.rows * split.columns
            normal = tf.reshape(noise[:, start:end], [-1, split.rows, split.columns, NUMBERS])
            images, start = split(images, normal, inputs), end
        return {"hist": tf.pow(images / self.to_gev, 1.0 / self.power)}

    def _pt(self, encoded: tf.Tensor) -> tf.Tensor:
        """PT of pixels in GeV."""
        return to_power(encoded, self.power) * self.to_gev


def _drawn(log_p: tf.Tensor, uniform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which of the outcomes (n, k) a uniform number (n,) stands for, and where between its bounds the number lies."""
    p = tf.exp(log_p)
    upto = tf.cumsum(p, axis=1)
    which = tf.reduce_sum(tf.cast(uniform[:, None] >= upto[:, :-1], tf.int32), axis=1)
    chance = tf.gather(p, which, batch_dims=1)
    within = (uniform - (tf.gather(upto, which, batch_dims=1) - chance)) / tf.maximum(chance, 1e-12)
    return which, tf.clip_by_value(within, 0.0, 1.0)


def _encoded(pt: tf.Tensor) -> tf.Tensor:
    """What the network sees of a pT in GeV: pixels have 0.1 to some hundred."""
    return tf.math.log1p(2.0 * pt)


def _planes(whole: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """What the network sees of cells (...) and of their halves, (..., 6)."""
    return tf.stack(
        [_encoded(whole), _is_lit(whole), _encoded(first), _encoded(second), _is_lit(first), _is_lit(second)], axis=-1
    )


def _is_lit(pt: tf.Tensor) -> tf.Tensor:
    return tf.cast(pt > 0, pt.dtype)


def _wrapped(x: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
    """Margins of (n, rows, columns, ...): zeros beyond the edges in eta, the other edge beyond those in phi."""
    if columns:
        x = wrap_phi(x, columns)
    return tf.pad(x, [[0, 0], [rows, rows]] + [[0, 0]] * (len(x.shape) - 2)) if rows else x


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
