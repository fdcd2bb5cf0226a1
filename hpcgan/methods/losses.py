"""Losses as paired pure functions of logits; each term is the mean over the batch.

`flip` swaps what the discriminator is told is real and fake (0 or 1, one draw a batch or one a sample); the generator's
loss is never flipped. `smoothing` makes the target of what is told real 1 - smoothing (Salimans et al. 2016,
arXiv:1606.03498, section 3.4); only the losses that have a target take it.

The discriminator's loss is the sum of a half on real and a half on generated samples, which may be taken apart: two
updates of the discriminator, one on each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import tensorflow as tf

GeneratorLoss = Callable[[tf.Tensor], tf.Tensor]


# --- binary cross-entropy (Goodfellow et al. 2014) ------------------------------------------------------


def bce_on_real(real: tf.Tensor, flip: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Half of the discriminator's loss, -mean ln sigmoid(real).

    Parameters
    ----------
    real : (n,) logits
    flip : scalar or (n,)
        1 swaps the labels, 0 leaves them.
    smoothing : float
        s: -(1 - s) ln sigmoid(x) - s ln sigmoid(-x) for what is told real.
    """
    loss = tf.reduce_mean(tf.nn.softplus(-(1.0 - 2.0 * flip) * real))
    return loss + smoothing * _weighted_mean(1.0 - flip, real) if smoothing else loss


def bce_on_fake(fake: tf.Tensor, flip: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """The other half, -mean ln sigmoid(-fake); parameters as of `bce_on_real`."""
    loss = tf.reduce_mean(tf.nn.softplus((1.0 - 2.0 * flip) * fake))
    return loss + smoothing * _weighted_mean(flip, fake) if smoothing else loss


def _weighted_mean(weight: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Mean of weight * values, (n,), for one weight or as many as there are values."""
    weight = tf.convert_to_tensor(weight, values.dtype)
    return tf.reduce_mean(weight * values) if weight.shape.rank else weight * tf.reduce_mean(values)


def bce_generator(fake: tf.Tensor) -> tf.Tensor:
    """Non-saturating generator loss: -mean ln sigmoid(fake)."""
    return tf.reduce_mean(tf.nn.softplus(-fake))


# --- Wasserstein distance ------------------------------------------------------------------------------


def wgan_on_real(real: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """-mean(real): with `wgan_on_fake` minus the critic's estimate of the Wasserstein distance.

    The first two terms of Gulrajani et al. (arXiv:1704.00028), eq. 3; the third is `penalties.gradient_penalty`.

    Parameters
    ----------
    real : (n,) critic's values
    flip : scalar
        Not used: a critic that is told the opposite is driven away from its optimum, without bound.
    """
    return -tf.reduce_mean(real)


def wgan_on_fake(fake: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """The other term, mean(fake); parameters as of `wgan_on_real`."""
    return tf.reduce_mean(fake)


def wgan_generator(fake: tf.Tensor) -> tf.Tensor:
    """Minus the critic's value: -mean(fake) (Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1)."""
    return -tf.reduce_mean(fake)


# --- hinge ---------------------------------------------------------------------------------------------


def hinge_on_real(real: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Half of the hinge loss: mean max(0, 1 - real).

    Lim and Ye 2017 (arXiv:1705.02894); minus eq. 16 of Miyato et al. 2018 (arXiv:1802.05957).

    Parameters
    ----------
    real : (n,) logits
    flip : scalar
        1 swaps the sides of the margin, 0 leaves them.
    """
    return tf.reduce_mean(tf.nn.relu(1.0 - (1.0 - 2.0 * flip) * real))


def hinge_on_fake(fake: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """The other half, mean max(0, 1 + fake); parameters as of `hinge_on_real`."""
    return tf.reduce_mean(tf.nn.relu(1.0 + (1.0 - 2.0 * flip) * fake))


def hinge_generator(fake: tf.Tensor) -> tf.Tensor:
    """-mean(fake) (Miyato et al. 2018, eq. 17)."""
    return -tf.reduce_mean(fake)


# --- least squares -------------------------------------------------------------------------------------


def least_squares_on_real(real: tf.Tensor, flip: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Half of the least-squares loss, mean (real - b)^2 / 2 with b = 1 (Mao et al. 2017, arXiv:1611.04076, eq. 9).

    Parameters
    ----------
    real : (n,) values
    flip : scalar
        1 swaps the targets a and b, 0 leaves them.
    smoothing : float
        s: b = 1 - s.
    """
    return 0.5 * tf.reduce_mean(tf.square(real - (1.0 - flip) * (1.0 - smoothing)))


def least_squares_on_fake(fake: tf.Tensor, flip: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """The other half, mean (fake - a)^2 / 2 with a = 0; parameters as of `least_squares_on_real`."""
    return 0.5 * tf.reduce_mean(tf.square(fake - flip * (1.0 - smoothing)))


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
    on_real, on_fake : callable
        (logits, flip) -> scalar: the halves of the discriminator's loss.
    generator : callable
        (fake logits) -> scalar.
    belief : callable
        Logits to what is averaged over samples and ranks to say how far they are taken for real.
    probabilities : callable
        These averages over real and over fake samples to two probabilities of being real.
    """

    on_real: Callable[..., tf.Tensor]
    on_fake: Callable[..., tf.Tensor]
    generator: GeneratorLoss
    belief: Callable[[tf.Tensor], tf.Tensor] = tf.sigmoid
    probabilities: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = _unchanged

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
        """The discriminator's loss: (real logits, fake logits, flip) -> scalar."""
        return self.on_real(real, flip) + self.on_fake(fake, flip)

    def smoothed(self, smoothing: float) -> Loss:
        """The same with smoothed labels; itself for 0."""
        if not smoothing:
            return self
        on_real, on_fake = (functools.partial(half, smoothing=smoothing) for half in (self.on_real, self.on_fake))
        return replace(self, on_real=on_real, on_fake=on_fake)


#: By name in the configuration.
LOSSES: Mapping[str, Loss] = {
    "bce": Loss(bce_on_real, bce_on_fake, bce_generator),
    "wgan_gp": Loss(wgan_on_real, wgan_on_fake, wgan_generator, tf.identity, wgan_probabilities),
    "hinge": Loss(hinge_on_real, hinge_on_fake, hinge_generator, hinge_belief),
    "least_squares": Loss(least_squares_on_real, least_squares_on_fake, least_squares_generator, unit_belief),
}
