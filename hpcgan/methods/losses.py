"""Losses as paired pure functions of logits; each term is the mean over the batch.

`flip` swaps what the discriminator is told is real and fake (0 or 1, one draw a batch); the generator's
loss is never flipped. `smoothing` makes the target of what is told real 1 - smoothing (Salimans et al. 2016,
arXiv:1606.03498, section 3.4); only the losses that have a target take it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tensorflow as tf

DiscriminatorLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
GeneratorLoss = Callable[[tf.Tensor], tf.Tensor]


# --- binary cross-entropy ------------------------------------------------------------------------------


def bce_discriminator(real: tf.Tensor, fake: tf.Tensor, flip: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Binary cross-entropy (Goodfellow et al. 2014), the sum of the real and the fake half.

    Parameters
    ----------
    real, fake : (n,) logits
    flip : scalar
        1 swaps the labels, 0 leaves them.
    smoothing : float
        s: -(1 - s) ln sigmoid(x) - s ln sigmoid(-x) for what is told real.
    """
    sign = 1.0 - 2.0 * flip
    loss = tf.reduce_mean(tf.nn.softplus(-sign * real)) + tf.reduce_mean(tf.nn.softplus(sign * fake))
    if smoothing:
        loss += smoothing * ((1.0 - flip) * tf.reduce_mean(real) + flip * tf.reduce_mean(fake))
    return loss


def bce_generator(fake: tf.Tensor) -> tf.Tensor:
    """Non-saturating generator loss: -mean ln sigmoid(fake)."""
    return tf.reduce_mean(tf.nn.softplus(-fake))


# --- Wasserstein distance ------------------------------------------------------------------------------


def wgan_discriminator(real: tf.Tensor, fake: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Minus the critic's estimate of the Wasserstein distance: mean(fake) - mean(real).

    The first two terms of Gulrajani et al. (arXiv:1704.00028), eq. 3; the third is `penalties.gradient_penalty`.

    Parameters
    ----------
    real, fake : (n,) critic's values
    flip : scalar
        Not used: a critic that is told the opposite is driven away from its optimum, without bound.
    """
    return tf.reduce_mean(fake) - tf.reduce_mean(real)


def wgan_generator(fake: tf.Tensor) -> tf.Tensor:
    """Minus the critic's value: -mean(fake) (Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1)."""
    return -tf.reduce_mean(fake)


# --- hinge ---------------------------------------------------------------------------------------------


def hinge_discriminator(real: tf.Tensor, fake: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Hinge loss: mean max(0, 1 - real) + mean max(0, 1 + fake).

    Lim and Ye 2017 (arXiv:1705.02894); minus eq. 16 of Miyato et al. 2018 (arXiv:1802.05957).

    Parameters
    ----------
    real, fake : (n,) logits
    flip : scalar
        1 swaps the sides of the margin, 0 leaves them.
    """
    sign = 1.0 - 2.0 * flip
    return tf.reduce_mean(tf.nn.relu(1.0 - sign * real)) + tf.reduce_mean(tf.nn.relu(1.0 + sign * fake))


def hinge_generator(fake: tf.Tensor) -> tf.Tensor:
    """-mean(fake) (Miyato et al. 2018, eq. 17)."""
    return -tf.reduce_mean(fake)


# --- least squares -------------------------------------------------------------------------------------


def least_squares_discriminator(real: tf.Tensor, fake: tf.Tensor, flip: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Least squares: mean (real - b)^2 / 2 + mean (fake - a)^2 / 2 with a = 0 and b = 1.

    Mao et al. 2017 (arXiv:1611.04076), eq. 9.

    Parameters
    ----------
    real, fake : (n,) values
    flip : scalar
        1 swaps the targets a and b, 0 leaves them.
    smoothing : float
        s: b = 1 - s.
    """
    high = 1.0 - smoothing
    halves = tf.reduce_mean(tf.square(real - (1.0 - flip) * high)) + tf.reduce_mean(tf.square(fake - flip * high))
    return 0.5 * halves


def least_squares_generator(fake: tf.Tensor) -> tf.Tensor:
    """Least squares: mean (fake - c)^2 / 2 with c = 1 (Mao et al. 2017, eq. 9)."""
    return 0.5 * tf.reduce_mean(tf.square(fake - 1.0))


# --- how far the discriminator takes a sample for real --------------------------------------------------


def unit_belief(values: tf.Tensor) -> tf.Tensor:
    """Values between the targets 0 and 1 of least squares; those beyond are as certain as can be."""
    return tf.clip_by_value(values, 0.0, 1.0)


def hinge_belief(logits: tf.Tensor) -> tf.Tensor:
    """Places within the margin from -1 to 1; beyond, where the discriminator has no gradient, 0 or 1."""
    return tf.clip_by_value(0.5 * (1.0 + logits), 0.0, 1.0)


def wgan_probabilities(real: tf.Tensor, fake: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Probabilities from the critic's mean values on real and fake samples.

    A critic has neither a zero nor a scale: what counts is the difference W of the means, its estimate of the
    Wasserstein distance. The probabilities are sigmoid(W / 2) and sigmoid(-W / 2), so their difference is tanh(W / 4).
    """
    half = 0.5 * (real - fake)
    return tf.sigmoid(half), tf.sigmoid(-half)


def _unchanged(real: tf.Tensor, fake: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return real, fake


@dataclass(frozen=True)
class Loss:
    """A pair of losses, and what the discriminator's output says.

    Attributes
    ----------
    discriminator : callable
        (real logits, fake logits, flip) -> scalar.
    generator : callable
        (fake logits) -> scalar.
    belief : callable
        Logits to what is averaged over samples and ranks to say how far they are taken for real.
    probabilities : callable
        These averages over real and over fake samples to two probabilities of being real.
    """

    discriminator: Callable[..., tf.Tensor]
    generator: GeneratorLoss
    belief: Callable[[tf.Tensor], tf.Tensor] = tf.sigmoid
    probabilities: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = _unchanged

    def smoothed(self, smoothing: float) -> Loss:
        """The same with smoothed labels; itself for 0."""
        if not smoothing:
            return self
        told = functools.partial(self.discriminator, smoothing=smoothing)
        return Loss(told, self.generator, self.belief, self.probabilities)


#: By name in the configuration.
LOSSES: Mapping[str, Loss] = {
    "bce": Loss(bce_discriminator, bce_generator),
    "wgan_gp": Loss(wgan_discriminator, wgan_generator, tf.identity, wgan_probabilities),
    "hinge": Loss(hinge_discriminator, hinge_generator, hinge_belief),
    "least_squares": Loss(least_squares_discriminator, least_squares_generator, unit_belief),
}
