"""Losses as paired pure functions of logits; each term is the mean over the batch.

`flip` swaps what the discriminator is told is real and fake (0 or 1, one draw a batch); the generator's
loss is never flipped.
"""

from __future__ import annotations

from collections.abc import Callable

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


#: name in the configuration -> (discriminator, generator)
LOSSES: dict[str, tuple[DiscriminatorLoss, GeneratorLoss]] = {
    "bce": (bce_discriminator, bce_generator),
}
