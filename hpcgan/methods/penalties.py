"""Penalties on the gradient of a discriminator with respect to what it sees, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

#: Sample to (n,) logits.
Critic = Callable[[Mapping[str, tf.Tensor]], tf.Tensor]

_FLOOR = 1e-12  # under the root, which has no derivative at zero


def r1_penalty(critic: Critic, real: Mapping[str, tf.Tensor], weight: float) -> tf.Tensor:
    """Weight / 2 times the mean over the batch of |d critic / d real|^2 (Mescheder et al. 2018, eq. 9).

    Parameters
    ----------
    critic : callable
        Sample to (n,) logits.
    real : mapping of str to tensor
        Real samples; the squared norm runs over all cells of all tensors.
    """
    return 0.5 * weight * tf.reduce_mean(_squared_norm(critic, real))


def gradient_penalty(
    critic: Critic,
    real: Mapping[str, tf.Tensor],
    fake: Mapping[str, tf.Tensor],
    epsilon: tf.Tensor,
    weight: float,
) -> tf.Tensor:
    """Weight times the mean over the batch of (|d critic / d x| - 1)^2 at x between real and fake samples.

    The third term of Gulrajani et al. (arXiv:1704.00028), eq. 3, two-sided, with x = epsilon real + (1 - epsilon) fake.

    Parameters
    ----------
    critic : callable
        Sample to (n,) values; each may depend on its own sample only.
    real, fake : mapping of str to tensor
        What a generator makes, conditions excluded; the norm runs over all cells of all tensors.
    epsilon : (n,) uniform numbers
        One a sample, the same for all its tensors.
    """
    between = {
        name: fake[name] + tf.reshape(epsilon, [-1] + [1] * (tensor.shape.rank - 1)) * (tensor - fake[name])
        for name, tensor in real.items()
    }
    norm = tf.sqrt(_squared_norm(critic, between) + _FLOOR)
    return weight * tf.reduce_mean(tf.square(norm - 1.0))


def _squared_norm(critic: Critic, sample: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """(n,) squared norms of the critic's gradient at each sample."""
    tensors = list(sample.values())
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(critic(sample))
    gradients = tape.gradient(total, tensors)
    squares = [tf.reduce_sum(tf.reshape(tf.square(g), [tf.shape(g)[0], -1]), axis=1) for g in gradients]
    return tf.add_n(squares)
