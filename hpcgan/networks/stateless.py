"""Random numbers that networks draw in training, such as those of dropout, as functions of what they are for.

As of `hpcgan.rng`: they depend on the seed, the step and the global number of the sample, so ranks that share a batch
draw what one rank with all of it would. Here they are drawn within the compiled step, which is where they are used:
dropout takes tens of thousands a sample.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hpcgan import rng

#: Name, among the tensors of a sample, of what numbers are drawn by.
RANDOM = "random"
_BLOCK = 4  # 32-bit words that Philox makes from one counter value
_PHILOX = 1  # TensorFlow's name of the algorithm


def source(seed: int, stream: str, step: int, first: int, n: int) -> np.ndarray:
    """What the numbers of samples first ... first + n - 1 of the global batch are drawn by.

    Returns
    -------
    (n, 2) int64
        A key, the same for all samples, and the number of each.
    """
    key = int(rng.uniform(seed, stream, step, 0, 1, 1)[0, 0] * 2.0**53)
    return np.stack([np.full(n, key, np.int64), np.arange(first, first + n, dtype=np.int64)], axis=1)


def uniform(source: tf.Tensor, stream: int, numbers: int, dtype: tf.DType) -> tf.Tensor:
    """Uniform numbers in [0, 1), (n, numbers).

    Parameters
    ----------
    source : (n, 2) int64
        Of consecutive samples.
    stream : int
        What they are for, such as the number of a layer.
    numbers : int
        Of each sample.
    dtype : tf.DType
        The numbers are the same in any, of single precision.
    """
    blocks = -(-numbers // _BLOCK)
    samples = tf.shape(source, tf.int64)[0]
    key, first = source[0, 0], source[0, 1]
    values = tf.raw_ops.StatelessRandomUniformV2(
        shape=tf.stack([samples, tf.constant(blocks * _BLOCK, tf.int64)]),
        key=tf.cast(key[None], tf.uint64),
        counter=tf.cast(tf.stack([first * blocks, tf.constant(stream, tf.int64)]), tf.uint64),
        alg=tf.constant(_PHILOX, tf.int32),
        dtype=tf.float32,
    )
    return tf.ensure_shape(tf.cast(values[:, :numbers], dtype), [None, numbers])


def dropout(x: tf.Tensor, source: tf.Tensor | None, stream: int, rate: float) -> tf.Tensor:
    """Every number of x (n, ...) is 0 with probability `rate`, and otherwise over 1 - rate (Srivastava et al. 2014).

    Without a source nothing is dropped.
    """
    if source is None or rate == 0.0:
        return x
    shape = x.shape[1:]
    uniforms = uniform(source, stream, shape.num_elements(), x.dtype)
    mask = tf.cast(uniforms >= rate, x.dtype) / (1.0 - rate)
    return x * tf.reshape(mask, [-1, *shape])
