"""NumPy code as part of a TensorFlow graph.

A problem encodes conditions and decodes samples with NumPy, on whatever machine reads files, and knows no TensorFlow. A
program that is to run without hpcgan has to hold the same formulas. They are not written down a second time: a `Traced`
tensor behaves like an array, and what NumPy is asked to do with it becomes operations of the graph, through the
protocols that NumPy has for such types (NEP 13 and 18). What is not known here is refused when it is traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_UFUNCS: dict[np.ufunc, Callable[..., tf.Tensor]] = {
    np.add: tf.add,
    np.subtract: tf.subtract,
    np.multiply: tf.multiply,
    np.true_divide: tf.divide,
    np.floor_divide: tf.math.floordiv,
    np.remainder: tf.math.floormod,
    np.negative: tf.negative,
    np.absolute: tf.abs,
    np.rint: tf.math.rint,
    np.square: tf.square,
    np.sqrt: tf.sqrt,
    np.cbrt: lambda x: tf.sign(x) * tf.pow(tf.abs(x), tf.constant(1.0 / 3.0, x.dtype)),
    np.power: tf.pow,
    np.exp: tf.exp,
    np.expm1: tf.math.expm1,
    np.log: tf.math.log,
    np.log10: lambda x: tf.math.log(x) * tf.constant(1.0 / math.log(10.0), x.dtype),
    np.log1p: tf.math.log1p,
    np.tanh: tf.tanh,
    np.minimum: tf.minimum,
    np.maximum: tf.maximum,
    np.less: tf.less,
    np.less_equal: tf.less_equal,
    np.greater: tf.greater,
    np.greater_equal: tf.greater_equal,
    np.logical_and: tf.logical_and,
    np.logical_or: tf.logical_or,
    np.logical_not: tf.logical_not,
}


class UntraceableError(TypeError):
    """NumPy code does what has no counterpart here."""


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """A tensor that NumPy code takes for an array.

    Types of results are NumPy's: float32 times a Python number stays float32. In place of values, which are known only
    when the graph runs, there is an error.

    Parameters
    ----------
    tensor : tf.Tensor
        Of known rank.
    """

    def __init__(self, tensor: tf.Tensor) -> None:
        self.tensor = tensor

    @property
    def dtype(self) -> np.dtype:
        """NumPy's name of the type."""
        return np.dtype(self.tensor.dtype.as_numpy_dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return int(self.tensor.shape.rank)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes.

        Raises
        ------
        UntraceableError
            One is not known before the graph runs, as that of a batch.
        """
        if not self.tensor.shape.is_fully_defined():
            raise UntraceableError(f"the shape {self.tensor.shape} is not known before the graph runs")
        return tuple(self.tensor.shape.as_list())

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise UntraceableError("values are not known before the graph runs")

    def __bool__(self) -> bool:
        raise UntraceableError("values are not known before the graph runs: no branches on them")

    def __getitem__(self, index: Any) -> Traced:
        return Traced(self.tensor[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        raise UntraceableError("tensors cannot be written to: use np.where")

    def astype(self, dtype: Any, copy: bool = True) -> Traced:
        """`ndarray.astype`."""
        return Traced(tf.cast(self.tensor, np.dtype(dtype)))

    def reshape(self, *shape: Any) -> Traced:
        """`ndarray.reshape`."""
        return Traced(tf.reshape(self.tensor, shape[0] if isinstance(shape[0], Sequence) else shape))

    def transpose(self, *axes: int) -> Traced:
        """`ndarray.transpose` with axes."""
        return Traced(tf.transpose(self.tensor, axes))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Traced:
        function = _UFUNCS.get(ufunc)
        if function is None or method != "__call__" or options:
            raise UntraceableError(f"np.{ufunc.__name__}{'' if method == '__call__' else f'.{method}'} is not known")
        stand_ins = [_stand_in(value) for value in inputs]
        with np.errstate(all="ignore"):
            result = ufunc(*stand_ins).dtype
        common = np.result_type(*stand_ins) if result == np.bool_ else result
        return Traced(function(*(_tensor(value, common) for value in inputs)))

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any], options: dict[str, Any]
    ) -> Traced:
        counterpart = {np.where: _where, np.clip: _clip}.get(function)
        if counterpart is None:
            raise UntraceableError(f"np.{function.__name__} is not known")
        return counterpart(*args, **options)


def _stand_in(value: Any) -> Any:
    """What NumPy is asked about types with."""
    return np.ones((1,) * value.ndim, value.dtype) if isinstance(value, Traced) else value


def _tensor(value: Any, dtype: np.dtype) -> tf.Tensor:
    if isinstance(value, Traced):
        return tf.cast(value.tensor, dtype)
    return tf.constant(np.asarray(value, dtype))


def _where(condition: Any, yes: Any, no: Any) -> Traced:
    dtype = np.result_type(_stand_in(yes), _stand_in(no))
    return Traced(tf.where(_tensor(condition, np.dtype(np.bool_)), _tensor(yes, dtype), _tensor(no, dtype)))


def _clip(values: Any, low: Any, high: Any) -> Traced:
    clipped = values if low is None else np.maximum(values, low)
    return clipped if high is None else np.minimum(clipped, high)


def untraced(value: Traced | np.ndarray) -> tf.Tensor:
    """The tensor of a result, which is a constant where it depends on nothing."""
    return value.tensor if isinstance(value, Traced) else tf.constant(value)
