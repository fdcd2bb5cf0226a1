"""Energies of lit pixels brought to the training events' spectrum, at every |eta|.

Jets form around the brightest pixels of an event, and these are one in a thousand: what a discriminator has to say of
them is lost in what it says of all others (docs/pileup.md has numbers). But a spectrum is a histogram, which needs no
discriminator: the quantiles of what a network makes are taken to those of the training events by a monotone function
for each |eta|. Which pixels of an event are lit and which of them are bright stays as the network has it.

Where events have a condition, such as their pileup, there are quantiles at each of its values in the training; between
them both the training events' and the network's are interpolated, level by level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from hpcgan.networks.capabilities import Matching
from hpcgan.networks.layers import Initializer, Tensors
from hpcgan.networks.quantiles import of_histogram

ROWS = 32  # of |eta|
BINS = 8192  # of a histogram, logarithmic in the encoded intensity, 0.22% wide each
_LOW, _HIGH = math.log(1e-4), math.log(1e4)
#: -ln of the share of lit pixels that are brighter: from all to one in ten thousand.
LEVELS = np.linspace(0.0, math.log(1e4), 97)
_ABSOLUTE = np.abs(np.arange(2 * ROWS) - (ROWS - 0.5)).astype(np.int64)  # |eta| row of a row of the image


class Spectrum(Matching):
    """Maps encoded images (n, 64, 64), of whose lit pixels quantiles are known, to the training events' spectrum.

    Below the lowest and above the highest quantile pixels move as much as these do, but none falls below the threshold.

    Parameters
    ----------
    init : Initializer
    name : str
    threshold : array
        Encoded, a number or (64, 1).
    condition : str, optional
        On which spectra depend.
    values : sequence of float
        Of the condition in the training events, encoded, ascending.
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        threshold: np.ndarray,
        condition: str | None = None,
        values: Sequence[float] = (),
    ) -> None:
        super().__init__(name.replace("/", "_"))
        self._condition, self._values = condition, np.asarray(values, np.float64)
        shape = (ROWS, len(LEVELS)) if condition is None else (len(values), ROWS, len(LEVELS))
        self.real = init.constant(f"{name}/quantiles", shape, 0.0, trainable=False)
        least = np.broadcast_to(threshold, (2 * ROWS, 1))[ROWS:]
        self._least = tf.constant(least, self.real.dtype)

    @property
    def points(self) -> int:
        """The condition's values in the training events; one point where there is none."""
        return max(1, len(self._values))

    def conditions(self, point: int, first: int, n: int) -> dict[str, np.ndarray]:
        """The condition's value, if there is one, for n samples."""
        return {self._condition: np.full(n, self._values[point])} if self._condition else {}

    def counts(self, sample: Mapping[str, np.ndarray], point: int) -> np.ndarray:
        """Histograms of the lit pixels of the encoded samples at a point, (32 * BINS,) integers."""
        images = np.asarray(sample["hist"])
        if self._condition is not None:
            images = images[self._nearest(sample[self._condition]) == point]
        _, rows, _ = np.nonzero(images)
        place = (np.log(images[images != 0]) - _LOW) * (BINS / (_HIGH - _LOW))
        bins = np.clip(place.astype(np.int64), 0, BINS - 1)
        return np.bincount(_ABSOLUTE[rows] * BINS + bins, minlength=ROWS * BINS)

    def _nearest(self, values: np.ndarray) -> np.ndarray:
        return np.argmin(np.abs(np.asarray(values)[:, None] - self._values), axis=1)

    def table(self, counts: np.ndarray) -> np.ndarray:
        """Quantiles at `LEVELS` of histograms at a point, (32, levels); zeros where no pixel is lit."""
        edges = np.exp(np.linspace(_LOW, _HIGH, BINS + 1))
        shares = 1.0 - np.exp(-LEVELS)
        return np.stack([of_histogram(row, edges[:-1], edges[1:], shares) for row in counts.reshape(ROWS, BINS)])

    def __call__(self, sample: Tensors, conditions: Tensors, generated_table: tf.Tensor) -> Tensors:
        """Encoded samples of a network whose lit pixels have the quantiles `generated_table`, (points, 32, levels)."""
        images = sample["hist"]
        n = tf.shape(images)[0]
        generated_table, real = (self._of_each(table, conditions, n) for table in (generated_table, self.real))
        sides = tf.stack([images[:, ROWS:], tf.reverse(images[:, :ROWS], [1])], axis=2)
        x = tf.reshape(sides, [n * ROWS, 2 * images.shape[2]])
        last = len(LEVELS) - 1
        knot = tf.clip_by_value(tf.searchsorted(generated_table, x, side="right") - 1, 0, last - 1)
        low, high = tf.gather(generated_table, knot, batch_dims=1), tf.gather(generated_table, knot + 1, batch_dims=1)
        to_low, to_high = tf.gather(real, knot, batch_dims=1), tf.gather(real, knot + 1, batch_dims=1)
        share = (x - low) / tf.maximum(high - low, 1e-12)
        y = to_low + share * (to_high - to_low)
        y = tf.where(x < generated_table[:, :1], x + real[:, :1] - generated_table[:, :1], y)
        y = tf.where(x >= generated_table[:, last:], x + real[:, last:] - generated_table[:, last:], y)
        is_lit = (generated_table[:, last:] > 0) & (real[:, last:] > 0)  # else no pixel was lit when they were measured
        y = tf.where(is_lit, tf.maximum(y, tf.tile(self._least, [n, 1])), x)
        y = tf.where(x > 0, y, tf.zeros_like(x))
        sides = tf.reshape(y, [n, ROWS, 2, images.shape[2]])
        mapped = tf.concat([tf.reverse(sides[:, :, 1], [1]), sides[:, :, 0]], axis=1)
        return {**sample, "hist": tf.ensure_shape(mapped, images.shape)}

    def _of_each(self, table: tf.Tensor, conditions: Tensors, n: tf.Tensor) -> tf.Tensor:
        """Quantiles for the rows of each of n samples, (n * 32, levels)."""
        if self._condition is None:
            return tf.tile(tf.reshape(table, [ROWS, len(LEVELS)]), [n, 1])
        values = tf.constant(self._values, table.dtype)
        condition = tf.clip_by_value(conditions[self._condition], values[0], values[-1])
        low = tf.clip_by_value(tf.searchsorted(values, condition, side="right") - 1, 0, len(self._values) - 2)
        start, end = tf.gather(values, low), tf.gather(values, low + 1)
        share = ((condition - start) / (end - start))[:, None, None]
        # A row that is dark at one of the two is not known between them.
        low, high = tf.gather(table, low), tf.gather(table, low + 1)
        lit = (low[..., -1:] > 0) & (high[..., -1:] > 0)
        between = tf.where(lit, low + share * (high - low), tf.where(share < 0.5, low, high))
        return tf.reshape(between, [n * ROWS, len(LEVELS)])
