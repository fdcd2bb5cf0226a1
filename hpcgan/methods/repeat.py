"""Several steps in one call: a loop, compiled around the step.

Python runs once a call, not once a step. The batches of a call are stacked, the loop hands one of them after the
other to the step, and it ends early, after the first step that the engine has to look at before the next one is taken:
so nothing is updated that would not have been, step by step. All ranks end at the same step, since they decide by the
same averages, however many steps each was given.

In a training that takes several steps a call, a single one is a loop of one: without the loop, TensorFlow simplifies
the graph of some steps (with R1, or with `training.accumulation`) in another way and adds up in another order. In a
training that never does, there is no loop, which would take half a millisecond a step and a second to compile.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hpcgan.methods.base import ATTENTION, NONFINITE

#: What a step takes but for the attention flag: arrays, and dictionaries of them.
Arguments = tuple[Any, ...]


def kind_of(arguments: Arguments) -> Any:
    """Names, shapes and types of what a step takes: only steps that are alike in them go into one loop."""
    return [
        {k: (v.shape, v.dtype) for k, v in part.items()} if isinstance(part, dict) else (part.shape, part.dtype)
        for part in arguments
    ]


class Repeated:
    """A step that is taken several times in a call.

    Parameters
    ----------
    step : callable
        Compiled: (*arguments, attention) to the metrics averaged over all ranks, in one row, and whether this rank's
        own contribution was finite.
    metrics : sequence of str
        Names in the row, `NONFINITE` and `ATTENTION` among them.
    losses : sequence of str
        Those of them that `loss_above` is about.
    dtype : str
    several : bool
        Whether there is a loop: without it a call takes one step.
    """

    def __init__(
        self, step: Callable[..., Any], metrics: Sequence[str], losses: Sequence[str], dtype: str, several: bool
    ) -> None:
        self._step, self._dtype, self._width, self._is_several = step, dtype, len(metrics), several
        self._flags = [metrics.index(name) for name in (NONFINITE, ATTENTION)]
        self._losses = [metrics.index(name) for name in losses]
        self._traced: list[Any] = []
        # Without autograph: the loop is written as one.
        self._loop = tf.function(self._several, autograph=False)

    def __call__(
        self, steps: Sequence[Arguments], attention: bool, loss_above: float
    ) -> list[tuple[list[float], bool]]:
        """Take those of the steps that are like the first.

        Returns
        -------
        list of (list of float, bool)
            Metrics of the steps that were taken, up to the first that the engine has to look at, and whether this
            rank's own contribution was finite.
        """
        if not self._is_several:
            arguments = tf.nest.map_structure(tf.constant, steps[0])
            metrics, finite = self._step(*arguments, tf.constant(float(attention), self._dtype))
            return [(metrics.numpy().tolist(), bool(finite.numpy()))]
        kind = kind_of(steps[0])
        steps = [steps[0], *itertools.takewhile(lambda arguments: kind_of(arguments) == kind, steps[1:])]
        stacked = tf.nest.map_structure(lambda *arrays: tf.constant(np.stack(arrays)), *steps)
        arguments = (stacked, tf.constant(float(attention), self._dtype), tf.constant(loss_above, tf.float64))
        if kind not in self._traced:
            # For any number of steps, so that there is one trace of them all.
            self._loop.get_concrete_function(tf.nest.map_structure(_any_number, stacked), *arguments[1:])
            self._traced.append(kind)
        done, metrics, finite = self._loop(*arguments)
        rows = metrics.numpy()[: int(done.numpy())].tolist()
        return [*((row, True) for row in rows[:-1]), (rows[-1], bool(finite.numpy()))]  # one that is not is the last

    def _several(
        self, stacked: Any, attention: tf.Tensor, loss_above: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Number of steps taken, their metrics in rows (zeros behind the last), whether the last was finite here."""
        given = tf.shape(tf.nest.flatten(stacked)[0])[0]

        def more(number: tf.Tensor, ordinary: tf.Tensor, *_: Any) -> tf.Tensor:
            return tf.logical_and(ordinary, number < given)

        def once(number: tf.Tensor, _: tf.Tensor, said: tf.TensorArray, __: tf.Tensor) -> tuple[Any, ...]:
            arguments = tf.nest.map_structure(lambda tensor: tensor[number], stacked)
            metrics, finite = self._step(*arguments, attention)
            return number + 1, self._is_ordinary(metrics, loss_above), said.write(number, metrics), finite

        said = tf.TensorArray(self._dtype, size=given, element_shape=[self._width])
        begin = (tf.constant(0), tf.constant(True), said, tf.constant(True))
        done, _, said, finite = tf.while_loop(more, once, begin, parallel_iterations=1)
        return done, said.stack(), finite

    def _is_ordinary(self, metrics: tf.Tensor, loss_above: tf.Tensor) -> tf.Tensor:
        """Whether the next step may follow without the engine: see `Method.steps`."""
        quiet = tf.reduce_all(tf.gather(metrics, self._flags) <= 0)
        finite = tf.reduce_all(tf.math.is_finite(metrics))
        worst = tf.reduce_max(tf.cast(tf.gather(metrics, self._losses), tf.float64))
        return quiet & finite & (worst <= loss_above)


def _any_number(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
