"""Symmetry operations on generated samples, with their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hpcgan.networks.layers import Tensors


def inverse(order: np.ndarray) -> np.ndarray:
    """Inverse of each row's permutation."""
    inverse = np.empty_like(order)
    np.put_along_axis(inverse, order, np.broadcast_to(np.arange(order.shape[1], dtype=order.dtype), order.shape), 1)
    return inverse


def permute(sample: Tensors, draws: Tensors) -> dict[str, tf.Tensor]:
    """Apply the permutations among the draws, if any, to generated samples."""
    changed = dict(sample)
    for name, tensor in sample.items():
        if f"order/{name}" in draws:
            changed[name] = _reorder(tensor, draws[f"order/{name}"], draws[f"inverse/{name}"])
    return changed


def _reorder(tensor: tf.Tensor, order: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
    """Permute the cells of each sample; the gradient is gathered back, where TensorFlow would scatter."""
    shape = tf.shape(tensor)

    @tf.custom_gradient
    def gather(x: tf.Tensor) -> tuple[tf.Tensor, object]:
        def backward(upstream: tf.Tensor) -> tf.Tensor:
            flat = tf.reshape(upstream, tf.shape(inverse))
            return tf.reshape(tf.gather(flat, inverse, axis=1, batch_dims=1), shape)

        flat = tf.reshape(x, tf.shape(order))
        return tf.reshape(tf.gather(flat, order, axis=1, batch_dims=1), shape), backward

    return tf.ensure_shape(gather(tensor), tensor.shape)
