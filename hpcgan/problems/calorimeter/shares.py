"""Energies of layers and of cells brought to the training showers' distributions, at every energy of the particle.

Layers share out the energy of a shower, and cells that of their layer: a few hundred numbers, each with a distribution
of its own that narrows as the energy grows. A discriminator which sees all of them at once tells of none of them much
(docs/calogan.md has numbers), but a table of quantiles needs no discriminator. As
`hpcgan.problems.detector_images.spectrum` does for the pixels of a detector, the quantiles of what a network makes are
taken to those of the training showers by a monotone function for each layer and, at several shares of it in the energy,
for each cell: a core is another one where a layer has caught the tail of a shower only, or a hadron has gone through.
What goes with what besides stays as the network has it, and so does the energy in all cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hpcgan.networks.capabilities import Matching
from hpcgan.networks.layers import Initializer, Tensors
from hpcgan.networks.local import Pair
from hpcgan.networks.quantiles import of_histogram
from hpcgan.problems.calorimeter.showers import ENERGY, PARTICLE, class_numbers, images_of, layer_energies, layer_name

BINS = 6  # of the energy, with as many training showers in each
LEAST_SHOWERS = 1000  # by which a bin is measured, some of them of its neighbours if there are few
STAGES = 6  # at most: of the share of a layer, with as many training showers in each; cells have tables for each
LEAST_OF_STAGE = 500  # training showers
ENERGIES = 64  # at which a network is measured in each bin
#: Of the lit showers: linear where most showers are, in ln(1 - level) above: to one in two thousand, and the largest.
LEVELS = np.concatenate([np.linspace(0.0, 0.5, 32, endpoint=False), 1.0 - np.geomspace(0.5, 1.0 / 2000.0, 48), [1.0]])
#: Of those in which a cell is dark.
DARK_LEVELS = np.linspace(0.0, 1.0, 9)
KNOTS = len(DARK_LEVELS) + len(LEVELS)
DARK, STEPS = 256, 1024  # bins of a histogram below and above zero, logarithmic in the share; the latter are 1.5% wide
_SIZE = DARK + 1 + STEPS  # and one for zero
_HIGHEST = 4.0
_LOWEST, _FAINTEST = 1e-6, 1e-14  # of what is lit, and of what tells dark cells apart
_NEVER = 1e30  # where a stage begins that there is not


def _edges(low: float, steps: int) -> np.ndarray:
    return np.geomspace(low, _HIGHEST, steps + 1)


_FROM = np.concatenate([-_edges(_FAINTEST, DARK)[:0:-1], [0.0], _edges(_LOWEST, STEPS)[:-1]])
_TO = np.concatenate([-_edges(_FAINTEST, DARK)[-2::-1], [0.0], _edges(_LOWEST, STEPS)[1:]])


class Shares(Matching):
    """Maps images (n, rows, columns) of layers, of whose shares quantiles are known, to the training showers'.

    In the images dark cells may have negative energies (`Matched.before_matching`): where too few are lit, those
    nearest to it are. A cell that is brighter than any was when the network was measured moves as much as the
    brightest does. Where cells of a layer no longer add up to 1, all are scaled to do so. A layer without energy
    stays without.

    Parameters
    ----------
    init : Initializer
    name : str
    shapes : sequence of (int, int)
        Rows and columns of each layer.
    classes : sequence of float
        Values of the particle, each of which has tables of its own, if there are several.
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        shapes: Sequence[Pair],
        classes: Sequence[float] = (),
    ) -> None:
        super().__init__(name.replace("/", "_"))
        self.shapes: list[Pair] = [(rows, columns) for rows, columns in shapes]
        self._classes = tuple(classes)
        sizes = [rows * columns for rows, columns in self.shapes]
        self._sizes = [len(sizes), *sizes]
        self._layer = np.repeat(np.arange(len(sizes)), sizes)  # of each cell
        self.rows = len(sizes) + STAGES * sum(sizes)
        several = max(1, len(self._classes))
        self.real = init.constant(f"{name}/tables", (several * BINS, self.rows, 1 + KNOTS), 0.0, trainable=False)
        #: Energies of the showers by which each bin is measured, ascending, and where the bins after the first begin.
        self.energies = init.constant(f"{name}/energies", (several * BINS, ENERGIES), 1.0, trainable=False)
        self.edges = init.constant(f"{name}/edges", (several, BINS - 1), 1.0, trainable=False)
        #: Shares of the layers where the stages after the first begin.
        stages = (several * BINS, len(sizes), STAGES - 1)
        self.stages = init.constant(f"{name}/stages", stages, _NEVER, trainable=False)

    @property
    def constants(self) -> list[tf.Variable]:
        """What `fit` sets."""
        return [self.real, self.energies, self.edges, self.stages]

    # --- what is measured ------------------------------------------------------------------------

    @property
    def points(self) -> int:
        """Bins of the energy, of all classes."""
        return max(1, len(self._classes)) * BINS

    def conditions(self, point: int, first: int, n: int) -> dict[str, np.ndarray]:
        """Energies all over a bin, and the class."""
        energies = self.energies.numpy()[point][np.arange(first, first + n) % ENERGIES]
        point_conditions = {ENERGY: energies}
        if self._classes:
            point_conditions[PARTICLE] = np.full(n, self._classes[point // BINS])
        return point_conditions

    def split(self, images: Sequence[tf.Tensor], energy: tf.Tensor) -> tf.Tensor:
        """Shares of the layers in the particle's energy (n,), then of lit cells in their layer: (n, layers + cells)."""
        layers = _lit_energies(images)
        flat = [
            tf.reshape(image, [-1, rows * columns]) for image, (rows, columns) in zip(images, self.shapes, strict=True)
        ]
        cells = [tf.where(x > 0, tf.math.divide_no_nan(x, layers[:, i : i + 1]), x) for i, x in enumerate(flat)]
        return tf.concat([layers / energy[:, None], *cells], axis=1)

    def _measured_by(self, energies: np.ndarray, particles: np.ndarray | None, point: int) -> np.ndarray:
        """Which showers a bin is measured by."""
        grid = self.energies.numpy()[point]
        chosen = (energies >= grid[0]) & (energies <= grid[-1])
        return chosen if particles is None else chosen & (particles == self._classes[point // BINS])

    def counts(self, sample: Mapping[str, np.ndarray], point: int) -> np.ndarray:
        """Histograms of the shares of those showers, in GeV, by which a bin is measured: (rows * bins,)."""
        energy = np.asarray(sample[ENERGY]).reshape(-1)
        chosen = self._measured_by(energy, np.asarray(sample[PARTICLE]) if self._classes else None, point)
        images = [tf.constant(np.asarray(sample[layer_name(i)])[chosen]) for i in range(len(self.shapes))]
        x = self.split(images, tf.constant(energy[chosen], images[0].dtype)).numpy()
        above, below = (
            np.clip((np.log(size / low) * (steps / math.log(_HIGHEST / low))).astype(np.int64), 0, steps - 1)
            for size, low, steps in (
                (np.maximum(x, _LOWEST), _LOWEST, STEPS),
                (np.maximum(-x, _FAINTEST), _FAINTEST, DARK),
            )
        )
        bins = np.where(x > 0, DARK + 1 + above, np.where(x < 0, DARK - 1 - below, DARK))
        layers = x[:, : self._sizes[0]]
        stage = np.sum(layers[:, :, None] >= self.stages.numpy()[point], axis=2)
        rows = np.concatenate(
            [np.broadcast_to(np.arange(self._sizes[0]), layers.shape), self._cell_rows(stage)], axis=1
        )
        # Cells tell nothing of their share in a layer that has nothing.
        valid = np.concatenate([np.ones_like(layers), layers[:, self._layer]], axis=1) > 0
        # Of all bins and classes these are hundreds of megabytes.
        return np.bincount((rows * _SIZE + bins)[valid], minlength=self.rows * _SIZE).astype(np.int32)

    def _cell_rows(self, stage: Any) -> Any:
        """Rows of a table for the cells of layers at these stages, (n, layers) -> (n, cells)."""
        cells = len(self._layer)
        of_cells = stage[:, self._layer] if isinstance(stage, np.ndarray) else tf.gather(stage, self._layer, axis=1)
        return self._sizes[0] + cells * of_cells + np.arange(cells, dtype=np.int32)

    def table(self, counts: np.ndarray) -> np.ndarray:
        """Of the histograms of a bin: how often each is dark, and quantiles of what it then is and else: (rows, 1 +
        `KNOTS`).
        """
        quantiles = np.zeros((self.rows, 1 + KNOTS))
        dark, middle = DARK + 1, 1 + len(DARK_LEVELS)
        for row, histogram in zip(quantiles, counts.reshape(self.rows, _SIZE), strict=True):
            row[0] = histogram[:dark].sum() / max(1, histogram.sum())
            row[1:middle] = of_histogram(histogram[:dark], _FROM[:dark], _TO[:dark], DARK_LEVELS)
            row[middle:] = of_histogram(histogram[dark:], _FROM[dark:], _TO[dark:], LEVELS)
        return quantiles

    def fit(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Set what is to be matched to training showers, which are gone through twice."""
        columns: list[tuple[np.ndarray, ...]] = []
        for batch in batches:
            energy = batch[ENERGY].numpy().reshape(-1)
            which = batch[PARTICLE].numpy() if self._classes else np.zeros_like(energy)
            columns.append((energy, which, layer_energies(images_of(batch)).numpy() / energy[:, None]))
        energies, particles, layers = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        self._choose(energies, particles, layers)
        for _ in self.follow(batches):
            pass

    def _choose(self, energies: np.ndarray, particles: np.ndarray, layers: np.ndarray) -> None:
        """Bins with as many training showers in each, those by which each is measured, and the stages in it."""
        edges, grid = np.ones(self.edges.shape), np.ones(self.energies.shape)
        for number, particle in enumerate(self._classes or (0.0,)):
            of_particle = np.sort(energies[particles == particle])
            n = len(of_particle)
            if not n:
                continue
            edges[number] = of_particle[np.arange(1, BINS) * n // BINS]
            width = min(n, max(LEAST_SHOWERS, -(-n // BINS)))
            for i in range(BINS):
                start = min(max(0, (2 * i + 1) * n // (2 * BINS) - width // 2), n - width)
                grid[number * BINS + i] = of_particle[start + np.linspace(0, width - 1, ENERGIES).astype(np.int64)]
        self.edges.assign(edges)
        self.energies.assign(grid)
        stages = np.full(self.stages.shape, _NEVER)
        for point in range(self.points):
            chosen = layers[self._measured_by(energies, particles if self._classes else None, point)]
            for i, shares in enumerate(chosen.T):
                lit = shares[shares > 0]
                several = min(STAGES, len(lit) // LEAST_OF_STAGE)
                if several > 1:
                    stages[point, i, : several - 1] = np.quantile(lit, np.arange(1, several) / several)
        self.stages.assign(stages)

    # --- what is done about it -------------------------------------------------------------------

    def __call__(self, sample: Tensors, conditions: Tensors, generated_table: tf.Tensor) -> Tensors:
        """Showers of a network whose shares have the tables `generated_table`, (points, rows, 1 + `KNOTS`), in GeV."""
        images = images_of(sample)
        energy = tf.reshape(conditions[ENERGY], [-1])
        point = self._point(energy, conditions)[:, None]
        shares, *cells = tf.split(self.split(images, energy), self._sizes, axis=1)
        rows = point * self.rows + tf.range(self._sizes[0])
        layers = tf.where(shares > 0, self._mapped(shares, rows, rows, generated_table), 0.0)
        before, after = (point * self.rows + self._cell_rows(self._stage(x, point)) for x in (shares, layers))
        cells = tf.split(
            self._mapped(tf.concat(cells, axis=1), before, after, generated_table), self._sizes[1:], axis=1
        )
        # Where nothing would be left, everything stays as it is.
        total = tf.reduce_sum(shares, axis=1, keepdims=True) * energy[:, None]
        layers = _parts(layers, shares) * total
        result = dict(sample)
        for i, (image, mapped) in enumerate(zip(images, cells, strict=True)):
            part = _parts(mapped, tf.reshape(tf.nn.relu(image), [-1, self._sizes[1 + i]]))
            result[layer_name(i)] = tf.reshape(part * layers[:, i : i + 1], [-1, *self.shapes[i]])
        return result

    def _stage(self, layers: tf.Tensor, point: tf.Tensor) -> tf.Tensor:
        """At which stages layers with these shares are, (n, layers)."""
        above = layers[:, :, None] >= tf.gather(self.stages, point[:, 0])
        return tf.reduce_sum(tf.cast(above, tf.int32), axis=2)

    def _point(self, energy: tf.Tensor, conditions: Tensors) -> tf.Tensor:
        """Which bin of which class each shower is in."""
        number = tf.zeros_like(energy, tf.int32)
        if self._classes:
            number = class_numbers(conditions[PARTICLE], self._classes)
        above = energy[:, None] >= tf.gather(self.edges, number)
        return number * BINS + tf.reduce_sum(tf.cast(above, tf.int32), axis=1)

    def _mapped(self, x: tf.Tensor, before: tf.Tensor, after: tf.Tensor, generated_table: tf.Tensor) -> tf.Tensor:
        """Shares (n, k) by the quantiles in these rows (n, k) of the generated and of the training showers' tables."""
        shape = tf.shape(x)
        x, before, after = (tf.reshape(tensor, [-1]) for tensor in (x, before, after))
        old, new = (tf.reshape(table, [-1]) for table in (generated_table, self.real))
        before, after = before * (1 + KNOTS), after * (1 + KNOTS)
        dark, to_dark = tf.gather(old, before), tf.gather(new, after)
        last, to_last = tf.gather(old, before + KNOTS), tf.gather(new, after + KNOTS)
        knot = tf.minimum(_last_below(old, before + 1, x), KNOTS - 2)
        low, high = (tf.gather(old, before + 1 + knot + i) for i in (0, 1))
        along = tf.clip_by_value(tf.math.divide_no_nan(x - low, high - low), 0.0, 1.0)
        start, end = (_level(knot + i, dark) for i in (0, 1))
        level = tf.math.divide_no_nan(start + along * (end - start) - to_dark, 1.0 - to_dark)  # among those to be lit
        levels = tf.constant(LEVELS, x.dtype)
        knot = tf.clip_by_value(tf.searchsorted(levels, level, side="right") - 1, 0, len(LEVELS) - 2)
        below, above = (tf.gather(levels, knot + i) for i in (0, 1))
        low, high = (tf.gather(new, after + 1 + len(DARK_LEVELS) + knot + i) for i in (0, 1))
        # What is as faint as any is lit if it was; of zeros nobody knows which is the nearest to being lit.
        lit = ((level > 0) | ((level >= 0) & (x > 0))) & (x != 0)
        y = tf.where(lit, low + (level - below) / (above - below) * (high - low), 0.0)
        y = tf.where(x >= last, x + to_last - last, y)
        y = tf.where(last > 0, y, x)  # else it was dark when the network was measured
        return tf.reshape(tf.nn.relu(y), shape)


def _level(knot: tf.Tensor, dark: tf.Tensor) -> tf.Tensor:
    """Share of the showers below a knot of a table, of which the share `dark` are dark."""
    of_dark = tf.gather(tf.constant(np.append(DARK_LEVELS, np.ones(len(LEVELS))), dark.dtype), knot)
    of_lit = tf.gather(tf.constant(np.append(np.zeros(len(DARK_LEVELS)), LEVELS), dark.dtype), knot)
    return of_dark * dark + of_lit * (1.0 - dark)


def _lit_energies(images: Sequence[tf.Tensor]) -> tf.Tensor:
    return layer_energies([tf.nn.relu(image) for image in images])


def _parts(x: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
    """Shares (n, k) in the sum of a row, those of the other numbers where there is none."""
    x = tf.where(tf.reduce_sum(x, axis=1, keepdims=True) > 0, x, otherwise)
    return tf.math.divide_no_nan(x, tf.reduce_sum(x, axis=1, keepdims=True))


def _last_below(table: tf.Tensor, start: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Of the `KNOTS` ascending numbers of a table from each start on, (n,): the last that is not above x, or the first.

    By bisection: `tf.searchsorted` needs a copy of the numbers for each x.
    """
    index = tf.zeros_like(start)
    for bit in range(KNOTS.bit_length() - 1, -1, -1):
        tried = tf.minimum(index + (1 << bit), KNOTS - 1)
        index = tf.where(tf.gather(table, start + tried) <= x, tried, index)
    return index
