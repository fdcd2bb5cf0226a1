"""Losses as paired pure functions of logits; each term is the mean over the batch.

`flip` swaps what the discriminator is told is real and fake (0 or 1, one draw a batch); the generator's
loss is never flipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

DiscriminatorLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
GeneratorLoss = Callable[[tf.Tensor], tf.Tensor]


def bce_discriminator(real: tf.Tensor, fake: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy (Goodfellow et al. 2014), the sum of the real and the fake half.

    Parameters
    ----------
    real, fake : (n,) logits
    flip : scalar
        1 swaps the labels, 0 leaves them.
    """
    sign = 1.0 - 2.0 * flip
    return tf.reduce_mean(tf.nn.softplus(-sign * real)) + tf.reduce_mean(tf.nn.softplus(sign * fake))


def bce_generator(fake: tf.Tensor) -> tf.Tensor:
    """Non-saturating generator loss: -mean ln sigmoid(fake)."""
    return tf.reduce_mean(tf.nn.softplus(-fake))


def r1_penalty(
    critic: Callable[[Mapping[str, tf.Tensor]], tf.Tensor], real: Mapping[str, tf.Tensor], weight: float
) -> tf.Tensor:
    """Weight / 2 times the mean over the batch of |d critic / d real|^2 (Mescheder et al. 2018, eq. 9).

    Parameters
    ----------
    critic : callable
        Sample to (n,) logits.
    real : mapping of str to tensor
        Real samples; the squared norm runs over all cells of all tensors.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(list(real.values()))
        total = tf.reduce_sum(critic(real))
    gradients = tape.gradient(total, list(real.values()))
    squares = [tf.reduce_sum(tf.reshape(tf.square(g), [tf.shape(g)[0], -1]), axis=1) for g in gradients]
    return 0.5 * weight * tf.reduce_mean(tf.add_n(squares))


#: name in the configuration -> (discriminator, generator)
LOSSES: dict[str, tuple[DiscriminatorLoss, GeneratorLoss]] = {
    "bce": (bce_discriminator, bce_generator),
}
