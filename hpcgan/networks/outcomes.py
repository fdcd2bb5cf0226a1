"""Outcomes that a network gives logits for: the probability of one, and drawing one by a uniform number."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

GROUP = 16
"""Outcomes of a group, where there are many."""


def log_prob(logits: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """Log of the probability of an outcome each, (n,), of logits (n, k)."""
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=which, logits=logits)


def draw(logits: tf.Tensor, uniform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which of the outcomes, of logits (n, k), a uniform number (n,) stands for, and where between its bounds the
    number lies.
    """
    p = tf.nn.softmax(logits)
    count = p.shape[1]
    if count % GROUP or count == GROUP:
        which, below, chance = _reached(p, uniform)
    else:  # first in which group, then which of it: running sums of all would take longer than the network
        groups = tf.reshape(p, [-1, count // GROUP, GROUP])
        group, below, _ = _reached(tf.reduce_sum(groups, axis=2), uniform)
        which, within, chance = _reached(tf.gather(groups, group, batch_dims=1), uniform - below)
        which, below = GROUP * group + which, below + within
    return which, tf.clip_by_value((uniform - below) / tf.maximum(chance, 1e-12), 0.0, 1.0)


def _reached(p: tf.Tensor, uniform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Which of the outcomes (n, k) a number stands for, the probability of those before it, and its own."""
    count = p.shape[1]
    upto = tf.matmul(p, tf.constant(np.triu(np.ones((count, count))), p.dtype))  # TensorFlow's cumsum is slower
    which = tf.reduce_sum(tf.cast(uniform[:, None] >= upto[:, :-1], tf.int32), axis=1)
    chance = tf.gather(p, which, batch_dims=1)
    return which, tf.gather(upto, which, batch_dims=1) - chance, chance
