"""Minibatch discrimination: features of a sample that say how near the others of its batch are.

Salimans et al. 2016 (arXiv:1606.03498), section 3.2. A generator that makes much the same of all its noise is given
away by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

from hpcgan.networks.layers import BatchStatistic, Initializer
from hpcgan.networks.local import Fans, fans_of


def nearness(own: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """o[i, k] = sum over j of exp(-|own[i, k] - others[j, k]|_1).

    (n, kernels, dims), (m, kernels, dims) -> (n, kernels). Where two numbers are equal the derivative of their distance
    counts as 0. Dimension by dimension, as all n * m * kernels * dims differences would be the largest tensor of all.
    """

    @tf.custom_gradient
    def near(own: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, object]:
        rows = [row[:, :, None] for row in _planes(own)]
        columns = [column[:, None, :] for column in _planes(others)]
        terms = tf.exp(-tf.add_n([tf.abs(row - column) for row, column in zip(rows, columns, strict=True)]))

        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            slope = -terms * tf.transpose(upstream)[:, :, None]
            signed = [slope * tf.sign(row - column) for row, column in zip(rows, columns, strict=True)]
            by_own = tf.stack([tf.reduce_sum(plane, axis=2) for plane in signed])
            by_others = tf.stack([-tf.reduce_sum(plane, axis=1) for plane in signed])
            return tf.transpose(by_own, [2, 1, 0]), tf.transpose(by_others, [2, 1, 0])

        return tf.transpose(tf.reduce_sum(terms, axis=2)), backward

    return near(own, others)


def _planes(x: tf.Tensor) -> list[tf.Tensor]:
    """(n, kernels, dims) -> for every dimension (kernels, n)."""
    planes: list[tf.Tensor] = tf.unstack(tf.transpose(x, [2, 1, 0]), axis=0)
    return planes


class MinibatchDiscrimination(BatchStatistic):
    """Nearness to the other samples of the batch, for several sets of features at once.

    M = f T + b, cut into kernels of so many dimensions, and o_i = sum over all samples j, i included, of
    exp(-|M_i - M_j|_1) for each kernel (b, which CaloGAN has, is in none of the differences). With `scope="global"`,
    after `synchronise`, the sum runs over the samples of all ranks, whose M are gathered in one collective for all
    sets. The work of a rank then grows with the global batch: (samples here) * (samples of all) * kernels * dims.

    Parameters
    ----------
    init : Initializer
    name : str
    widths : sequence of int
        Features of each set.
    kernels, dims : int
    scope : "local" or "global"
        Whether the batch is the rank's own or that of all ranks, whatever holds for batch norm.
    fans : "layer" or "geometric"
        As of `hpcgan.networks.local.LocallyConnected2D`, of T as an array (kernels, features, dims).
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        widths: Sequence[int],
        *,
        kernels: int = 10,
        dims: int = 10,
        scope: Literal["local", "global"] = "local",
        fans: Fans = "layer",
    ) -> None:
        super().__init__(name.replace("/", "_"))
        self.scope = scope
        self.shape = (kernels, dims)
        # Glorot-uniform with the fans of T as an array (kernels, features, dims), of which the first axis counts as a
        # receptive field. With those of a matrix hundreds of features would set all samples e^-15 apart to begin with.
        self.projections = [
            init.glorot_uniform(f"{name}/{i}/kernel", (width, kernels * dims), *fans_of((kernels, width, dims), fans))
            for i, width in enumerate(widths)
        ]
        self.biases = [init.constant(f"{name}/{i}/bias", (kernels * dims,), 0.0) for i in range(len(widths))]

    def __call__(self, features: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Each (n, width) -> (n, kernels)."""
        sets = zip(features, self.projections, self.biases, strict=True)
        projected = [tf.matmul(f, kernel) + bias for f, kernel, bias in sets]
        if self.comm is None:
            others = projected
        else:
            gathered = self.comm.allgather(tf.concat(projected, axis=1), f"{self.name}.features")
            others = tf.split(gathered, len(projected), axis=1)
        return [nearness(self._cut(a), self._cut(b)) for a, b in zip(projected, others, strict=True)]

    def _cut(self, projected: tf.Tensor) -> tf.Tensor:
        return tf.reshape(projected, [-1, *self.shape])
