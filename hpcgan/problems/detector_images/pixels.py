"""Calorimeter images whose pixels are lit at random, each by itself.

An image of soft particles is for the greater part noise at the scale of single pixels: towers that just pass the
threshold, or do not. A network that cuts a smooth image at the threshold gets gradients that are wrong by the height of
the cut, and learns to keep whole regions just below it, where a small change lights them all. Here the network says how
probable it is that a pixel is lit, and how far above the threshold it is then on average. Whether it is lit is drawn,
and the gradient of the probability is that of a relaxed draw (binary concrete: Maddison et al., arXiv:1611.00712; Jang
et al., arXiv:1611.01144; with a hard value forward, as in section 2.2 of the latter).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from hpcgan.networks.layers import Conv2D, Initializer

PARTS = 2  # electromagnetic and hadronic calorimeter
#: Of the relaxed draw: at most 2/3 has a density without peaks inside (Maddison et al., appendix C.3).
_TEMPERATURE = 0.5
_LIT = (-2.0, -4.0)  # initial logits: of eight electromagnetic pixels one, of fifty hadronic ones
_SPREAD = -1.5  # ln(e^s - 1), s = 0.2 being the mean encoded distance to the threshold to begin with
#: What energies above the thresholds may be multiplied with. Far apart: a common factor of all distances is without
#: consequence as long as this number makes up for it, so nothing keeps it near 1.
_LEAST, _MOST = 0.02, 50.0
_BRIGHTER = 2.0  # factor of all energies where that is not enough: of images with hardly a lit pixel only


class Pixels(tf.Module):
    """Features (n, 64, 64, inputs) and noise (n, 2, 64, 64) -> encoded images (n, 64, 64) of both calorimeters.

    Every |eta| has a logit and a distance to the threshold of its own, besides what the features say.

    Parameters
    ----------
    init : Initializer
    name : str
    inputs : int
    thresholds : (2, 64, 1) array
        Encoded.
    power : float
        An encoded intensity to this power is proportional to energy.
    weights : (64, 1) array
        What to multiply that with for transverse momenta.
    dtype : str
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        inputs: int,
        thresholds: np.ndarray,
        power: float,
        weights: np.ndarray,
        dtype: str,
    ) -> None:
        super().__init__(name.replace("/", "_"))
        self.last = Conv2D(init, f"{name}/last", inputs, 2 * PARTS, kernel=3, stride=1, padding="circular", gain=1)
        rows = thresholds.shape[1] // 2
        self.lit_bias = init.constant(f"{name}/lit_bias", (PARTS, rows), 0.0)
        self.lit_bias.assign(np.repeat(np.array(_LIT)[:, None], rows, axis=1))
        self.spread_bias = init.constant(f"{name}/spread_bias", (PARTS, rows), _SPREAD)
        self.thresholds = tf.constant(thresholds, dtype)
        self.power, self.weights = power, tf.constant(weights, dtype)

    def __call__(self, x: tf.Tensor, noise: tf.Tensor, total: tf.Tensor | None = None) -> tf.Tensor:
        """Images whose summed transverse momentum is `total` (n,), if it is given."""
        lit, above = self.draws(x, noise)
        return self.image(lit, above, total)

    def draws(self, x: tf.Tensor, noise: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Which pixels are lit in either calorimeter, 0 or 1, and how far above the threshold they are, encoded."""
        planes, lit, above = tf.unstack(self.last(x), axis=-1), [], []
        for i in range(PARTS):
            logit, draw = planes[i] + _mirrored(self.lit_bias[i]), logistic(noise[:, i])
            relaxed = tf.sigmoid((logit + draw) / _TEMPERATURE)
            lit.append(relaxed + tf.stop_gradient(tf.cast(logit + draw > 0, x.dtype) - relaxed))
            # How far the draw went beyond what it took is a random number of its own: -ln of the share of the draws
            # that would have lit the pixel and go further, so exponential of mean 1 whatever the logit is.
            beyond = tf.nn.relu(tf.nn.softplus(draw) - tf.nn.softplus(-logit))
            above.append(tf.nn.softplus(planes[PARTS + i] + _mirrored(self.spread_bias[i])) * beyond)
        return lit, above

    def image(self, lit: Sequence[tf.Tensor], above: Sequence[tf.Tensor], total: tf.Tensor | None = None) -> tf.Tensor:
        """Encoded sum of the energies in both calorimeters, (n, 64, 64).

        For a given total what pixels have beyond their thresholds is multiplied with one number an image: so no pixel
        falls below a threshold, and none is missing just above. Where this number would not be between 1/50 and 50, all
        energies are multiplied with another one.
        """
        least = [to_power(threshold, self.power) for threshold in tf.unstack(self.thresholds)]
        more = [
            to_power(threshold + distance, self.power) - low
            for threshold, distance, low in zip(tf.unstack(self.thresholds), above, least, strict=True)
        ]
        if total is not None:
            sums = [
                tf.reduce_sum(
                    self.weights * tf.add_n([on * x for on, x in zip(lit, energies, strict=True)]), axis=[1, 2]
                )
                for energies in (least, more)
            ]
            factor = tf.clip_by_value((total - sums[0]) / (sums[1] + 1e-6), _LEAST, _MOST)
            more = [_times(x, factor) for x in more]
            rest = tf.minimum(total / (sums[0] + factor * sums[1] + 1e-6), _BRIGHTER**self.power)
        first, second = (tf.pow(low + x, 1.0 / self.power) for low, x in zip(least, more, strict=True))
        both = tf.pow(least[0] + least[1] + more[0] + more[1], 1.0 / self.power)
        # Linear in whether the one is lit and in whether the other is: the gradient of either is what it would change.
        image = lit[0] * first + lit[1] * second + lit[0] * lit[1] * (both - first - second)
        return image if total is None else _times(image, tf.pow(rest, 1.0 / self.power))


def _mirrored(rows: tf.Tensor) -> tf.Tensor:
    """Numbers of 32 |eta|, the smallest first, as those of 64 rows in eta, (64, 1)."""
    return tf.concat([rows[::-1], rows], axis=0)[:, None]


def to_power(x: tf.Tensor, exponent: float) -> tf.Tensor:
    """x^exponent; whole exponents by multiplication, which is faster and has a gradient at zero."""
    whole = round(exponent)
    if abs(exponent - whole) > 1e-9:
        return tf.pow(x, exponent)
    y = x
    for _ in range(whole - 1):
        y = y * x
    return y


def logistic(normal: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers as numbers of the logistic distribution."""
    half = tf.cast(np.sqrt(0.5), normal.dtype)
    return tf.math.log(tf.math.erfc(-normal * half)) - tf.math.log(tf.math.erfc(normal * half))


def _times(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Each sample (n, ...) times its own factor (n,)."""
    return x * tf.reshape(factor, [-1] + [1] * (len(x.shape) - 1))
