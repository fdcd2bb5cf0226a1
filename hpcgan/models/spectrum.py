"""Energies of lit pixels brought to the training events' spectrum, at every |eta|.

Jets form around the brightest pixels of an event, and these are one in a thousand: what a discriminator has to say of
them is lost in what it says of all others (docs/pileup.md has numbers). But a spectrum is a histogram, which needs no
discriminator: the quantiles of what a network makes are taken to those of the training events by a monotone function
for each |eta|. Which pixels of an event are lit and which of them are bright stays as the network has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from hpcgan.models.layers import Initializer, Tensors

ROWS = 32  # of |eta|
BINS = 8192  # of a histogram, logarithmic in the encoded intensity, 0.22% wide each
_LOW, _HIGH = math.log(1e-4), math.log(1e4)
#: -ln of the share of lit pixels that are brighter: from all to one in ten thousand.
LEVELS = np.linspace(0.0, math.log(1e4), 97)
_ABSOLUTE = np.abs(np.arange(2 * ROWS) - (ROWS - 0.5)).astype(np.int64)  # |eta| row of a row of the image


class Spectrum(tf.Module):
    """Maps encoded images (n, 64, 64), of whose lit pixels quantiles are known, to the training events' spectrum.

    Below the lowest and above the highest quantile pixels move as much as these do, but none falls below the threshold.

    Parameters
    ----------
    init : Initializer
    name : str
    threshold : array
        Encoded, a number or (64, 1).
    """

    def __init__(self, init: Initializer, name: str, threshold: np.ndarray) -> None:
        super().__init__(name.replace("/", "_"))
        self.real = init.constant(f"{name}/quantiles", (ROWS, len(LEVELS)), 0.0, trainable=False)
        least = np.broadcast_to(threshold, (2 * ROWS, 1))[ROWS:]
        self._least = tf.constant(least, self.real.dtype)

    def counts(self, sample: Mapping[str, np.ndarray]) -> np.ndarray:
        """Histograms of the lit pixels of encoded samples, (32 * BINS) integers, which may be added up."""
        images = np.asarray(sample["hist"])
        _, rows, _ = np.nonzero(images)
        place = (np.log(images[images != 0]) - _LOW) * (BINS / (_HIGH - _LOW))
        bins = np.clip(place.astype(np.int64), 0, BINS - 1)
        return np.bincount(_ABSOLUTE[rows] * BINS + bins, minlength=ROWS * BINS)

    def table(self, counts: np.ndarray) -> np.ndarray:
        """Quantiles at `LEVELS` of histograms, (32, levels); zeros where no pixel is lit."""
        edges = np.exp(np.linspace(_LOW, _HIGH, BINS + 1))
        found = np.zeros((ROWS, len(LEVELS)))
        for row, histogram in enumerate(counts.reshape(ROWS, BINS)):
            full = np.flatnonzero(histogram)
            if len(full):
                below = np.concatenate([[0], np.cumsum(histogram)])
                reached = np.stack([below[full], below[full + 1]], axis=1).ravel()
                at = np.stack([edges[full], edges[full + 1]], axis=1).ravel()
                found[row] = np.interp((1.0 - np.exp(-LEVELS)) * below[-1], reached, at)
        return found

    def fit(self, counts: np.ndarray) -> None:
        """Set the spectrum to be matched to that of training events."""
        self.real.assign(self.table(counts))

    def __call__(self, sample: Tensors, made: tf.Tensor) -> Tensors:
        """Encoded samples of a network whose lit pixels have the quantiles `made`, (32, levels)."""
        images = sample["hist"]
        sides = tf.stack([images[:, ROWS:], tf.reverse(images[:, :ROWS], [1])])
        shape = tf.shape(sides)
        x = tf.reshape(tf.transpose(sides, [2, 0, 1, 3]), [ROWS, -1])
        last = len(LEVELS) - 1
        knot = tf.clip_by_value(tf.searchsorted(made, x, side="right") - 1, 0, last - 1)
        low, high = tf.gather(made, knot, batch_dims=1), tf.gather(made, knot + 1, batch_dims=1)
        to_low, to_high = tf.gather(self.real, knot, batch_dims=1), tf.gather(self.real, knot + 1, batch_dims=1)
        share = (x - low) / tf.maximum(high - low, 1e-12)
        y = to_low + share * (to_high - to_low)
        y = tf.where(x < made[:, :1], x + self.real[:, :1] - made[:, :1], y)
        y = tf.where(x >= made[:, last:], x + self.real[:, last:] - made[:, last:], y)
        known = (made[:, last:] > 0) & (self.real[:, last:] > 0)  # else no pixel was lit when they were measured
        y = tf.where(known, tf.maximum(y, self._least), x)
        y = tf.where(x > 0, y, tf.zeros_like(x))
        sides = tf.transpose(tf.reshape(y, tf.gather(shape, [2, 0, 1, 3])), [1, 2, 0, 3])
        mapped = tf.concat([tf.reverse(sides[1], [1]), sides[0]], axis=1)
        return {**sample, "hist": tf.ensure_shape(mapped, images.shape)}
