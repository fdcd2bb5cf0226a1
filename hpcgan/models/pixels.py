"""Calorimeter images whose pixels are lit at random, each by itself.

An image of soft particles is for the greater part noise at the scale of single pixels: towers that just pass the
threshold, or do not. A network that cuts a smooth image at the threshold gets gradients that are wrong by the height of
the cut, and learns to keep whole regions just below it, where a small change lights them all. Here the network says how
probable it is that a pixel is lit, and how far above the threshold it is then on average. Whether it is lit is drawn,
and the gradient of the probability is that of a relaxed draw (binary concrete: Maddison et al., arXiv:1611.00712; Jang
et al., arXiv:1611.01144; with a hard value forward, as in section 2.2 of the latter).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hpcgan.models.layers import Conv2D, Initializer

PARTS = 2  # electromagnetic and hadronic calorimeter
#: Of the relaxed draw: at most 2/3 has a density without peaks inside (Maddison et al., appendix C.3).
_TEMPERATURE = 0.5
_LIT = (-2.0, -4.0)  # initial logits: of eight electromagnetic pixels one, of fifty hadronic ones
_SPREAD = -1.0  # ln(e^s - 1), s = 0.3 being the mean distance to the threshold in units of it, to begin with
_HALVINGS = 6  # of the interval in which a factor is looked for; what is left is made up for in the end
_MOST = 2.0  # factor of the energies at the end; more would be asked of images with hardly a lit pixel only


class Pixels(tf.Module):
    """Features (n, 64, 64, inputs) and noise (n, 2, 64, 64) -> encoded energies of both calorimeters, (n, 64, 64) each.

    Each is zero or above its threshold.

    Parameters
    ----------
    init : Initializer
    name : str
    inputs : int
    thresholds : (2, 64, 1) array
        Encoded.
    dtype : str
    """

    def __init__(self, init: Initializer, name: str, inputs: int, thresholds: np.ndarray, dtype: str) -> None:
        super().__init__(name.replace("/", "_"))
        self.last = Conv2D(init, f"{name}/last", inputs, 2 * PARTS, kernel=3, stride=1, padding="circular", gain=1)
        self.lit_bias = init.constant(f"{name}/lit_bias", (PARTS,), 0.0)
        self.lit_bias.assign(_LIT)
        self.spread_bias = init.constant(f"{name}/spread_bias", (PARTS,), _SPREAD)
        self.thresholds = [tf.constant(threshold, dtype) for threshold in thresholds]

    def __call__(self, x: tf.Tensor, noise: tf.Tensor) -> list[tf.Tensor]:
        planes, parts = tf.unstack(self.last(x), axis=-1), []
        for i, threshold in enumerate(self.thresholds):
            margin = planes[i] + self.lit_bias[i] + logistic(noise[:, i])
            relaxed = tf.sigmoid(margin / _TEMPERATURE)
            lit = relaxed + tf.stop_gradient(tf.cast(margin > 0, x.dtype) - relaxed)
            # How far the draw went beyond what it took is a random number of its own, exponential where few are lit.
            spread = tf.nn.softplus(planes[PARTS + i] + self.spread_bias[i])
            parts.append(lit * threshold * (1.0 + spread * tf.nn.relu(margin)))
        return parts

    def scaled(self, parts: Sequence[tf.Tensor], factor: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Images (n, 64, 64) of both parts, all energies times one number, so that `factor` is 1 for them.

        Parameters
        ----------
        parts : sequence of (n, 64, 64) tensor
        factor : callable
            What an image (n, 64, 64) is to be multiplied with, (n,). It falls when the image grows.
        """
        first = tf.stop_gradient(self._factor(parts, factor))
        image = self._passing(parts, first)
        return _times(image, tf.minimum(factor(image), _MOST))

    def _passing(self, parts: Sequence[tf.Tensor], factor: tf.Tensor) -> tf.Tensor:
        """The parts times a factor (n,), each without what is below its threshold then, as one image (n, 64, 64)."""
        scaled = [_times(part, factor) for part in parts]
        passing = [
            tf.where(part >= threshold, part, tf.zeros_like(part))
            for part, threshold in zip(scaled, self.thresholds, strict=True)
        ]
        return tf.add_n(passing)

    def _factor(self, parts: Sequence[tf.Tensor], factor: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """What to multiply the parts with, (n,), so that what passes the thresholds then needs no factor any more.

        With a larger factor more passes, in leaps of one pixel each: the largest, to `_HALVINGS` halvings of an
        interval, with which it is not yet too much.
        """
        # If all that is lit is enough, what passes is no more than that (and the same, if the factor is 1 or more).
        # Times what is then missing, it is enough, if anything passes: the brightest, just above its threshold, at
        # least.
        low = factor(tf.add_n(parts))
        ratios = [part / threshold for part, threshold in zip(parts, self.thresholds, strict=True)]
        brightest = tf.reduce_max(tf.maximum(*ratios), axis=[1, 2]) + 1e-12
        high = tf.maximum(low, 1.001 / brightest)
        high = high * tf.maximum(factor(self._passing(parts, high)), 1.0)
        for _ in range(_HALVINGS):
            middle = tf.sqrt(low * high)
            enough = factor(self._passing(parts, middle)) < 1.0
            low, high = tf.where(enough, low, middle), tf.where(enough, middle, high)
        return low


def logistic(normal: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers as numbers of the logistic distribution."""
    half = tf.cast(np.sqrt(0.5), normal.dtype)
    return tf.math.log(tf.math.erfc(-normal * half)) - tf.math.log(tf.math.erfc(normal * half))


def _times(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Each sample (n, ...) times its own factor (n,)."""
    return x * tf.reshape(factor, [-1] + [1] * (len(x.shape) - 1))
