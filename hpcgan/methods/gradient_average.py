"""What the updates of all methods have in common: parts of a batch, and averages over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from hpcgan.comm.base import Comm
from hpcgan.errors import InputError
from hpcgan.networks.layers import Network, Tensors


class Exchange:
    """Averages over the ranks what each contributes to a network's update: one collective for all of it.

    Parameters
    ----------
    comm : Comm
    compression : "none" or "fp16"
        How gradients travel between ranks.

    Raises
    ------
    InputError
        A compression that the backend has not.
    """

    def __init__(self, comm: Comm, compression: str) -> None:
        self._comm = comm
        self._half = compression == "fp16" and comm.size > 1
        if self._half and comm.backend == "mpi":
            raise InputError("comm.compression: fp16 needs Horovod: MPI has no half precision; use none")

    def pack(self, network: Network, gradients: Sequence[tf.Tensor], metrics: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Gradients, moving statistics and metrics of a network's update as one flat buffer.

        With `comm.compression: fp16` the gradients are a buffer of their own, in half precision.
        """
        statistics = [s.read_value() for s in network.statistics]
        if not self._half:
            return [flat([*gradients, *statistics, tf.stack(metrics)])]
        return [tf.cast(flat(gradients), tf.float16), flat([*statistics, tf.stack(metrics)])]

    def begin(self, name: str, local: list[tf.Tensor]) -> Callable[[], list[tf.Tensor]]:
        """Start to average a packed contribution over the ranks; what is returned waits for it."""
        begun = [self._comm.begin_average(tensor, name) for tensor in local]
        return lambda: [finish() for finish in begun]

    def unpack(self, network: Network, mean: list[tf.Tensor], bad: int) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Averaged gradients and metrics; the network's moving statistics become the averaged ones.

        `bad` is the place of "not finite" among the metrics.
        """
        weights, statistics = network.weights, network.statistics
        count = sum(weight.shape.num_elements() for weight in weights)
        gradients, rest = (mean[0][:count], mean[0][count:]) if len(mean) == 1 else mean
        start = sum(statistic.shape.num_elements() for statistic in statistics)
        for statistic, value in zip(statistics, like(rest[:start], statistics), strict=True):
            statistic.assign(value)
        metrics = rest[start:]
        if len(mean) > 1:  # half precision ends at 65504: a sum beyond is not finite
            overflow = 1.0 - tf.cast(tf.reduce_all(tf.math.is_finite(gradients)), rest.dtype)
            metrics += overflow * tf.one_hot(bad, tf.shape(metrics)[0], dtype=rest.dtype)
        return like(tf.cast(gradients, rest.dtype), weights), metrics


def accumulate(
    count: int, part: Callable[[Tensors, Tensors], list[tf.Tensor]], real: Tensors, draws: Tensors
) -> list[tf.Tensor]:
    """Mean of what `part` gives for each of `count` equal parts of the batch, one at a time."""
    shared = {k: v for k, v in draws.items() if v.shape.rank == 0}
    sliced = {k: v for k, v in draws.items() if k not in shared}

    def cut(tensors: Tensors, number: tf.Tensor) -> Tensors:
        size = {k: tf.shape(v)[0] // count for k, v in tensors.items()}
        return {k: v[number * size[k] : (number + 1) * size[k]] for k, v in tensors.items()}

    def again(number: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        more = part(cut(real, number), {**shared, **cut(sliced, number)})
        return number + 1, [s + m for s, m in zip(sums, more, strict=True)]

    # The first one by itself: it says which tensors there are. A loop, so that one part is in memory at a time.
    first = part(cut(real, tf.constant(0)), {**shared, **cut(sliced, tf.constant(0))})
    _, sums = tf.while_loop(lambda number, sums: number < count, again, (tf.constant(1), first), parallel_iterations=1)
    return [s / count for s in sums]


def flat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """All entries in one row."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def like(whole: tf.Tensor, variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """A flat buffer cut into tensors of the variables' shapes."""
    sizes = [variable.shape.num_elements() for variable in variables]
    parts = tf.split(whole, sizes) if sizes else []
    return [tf.reshape(part, variable.shape) for part, variable in zip(parts, variables, strict=True)]


def finite(loss: tf.Tensor, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether a loss and the norm of its gradients are finite numbers."""
    return tf.math.is_finite(loss + tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
