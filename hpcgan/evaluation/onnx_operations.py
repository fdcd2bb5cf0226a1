"""Operations of generators that tf2onnx does not know, as operations of ONNX.

`register` adds them to tf2onnx's own table. ONNX has no erfc, log1p, expm1 and searchsorted, and ONNX Runtime's sigmoid
has no digits in its tail. The obvious substitutes lose what these are for: 1 - erf(x) has no digits left where a
spectrum's tail is drawn, and the obvious comparison of every number with every knot of a table takes memory for all of
these pairs.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

OPSET = 18
"""Version of ONNX's operators, which ONNX Runtime knows from 1.14 on: the first one with bitwise operations."""
_ERFC_DEGREE = 14
"""Of the polynomial in :func:`erfc_coefficients`: a relative error of 4e-10."""


@functools.cache
def erfc_coefficients(degree: int = _ERFC_DEGREE) -> np.ndarray:
    """Coefficients of a polynomial P, the constant first, with erfc(z) = t exp(P(t) - z^2), t = 2 / (2 + z), z >= 0.

    Of ln(exp(z^2) erfc(z) / t) interpolated at Chebyshev's points in t, as in Press et al., Numerical Recipes (3rd ed.,
    section 6.2.2); the relative error is the same for all z, however small erfc(z) is.

    Returns
    -------
    (degree + 1,) float64
    """
    from numpy.polynomial import Chebyshev, Polynomial
    from scipy.special import erfcx

    def logarithm(u: np.ndarray) -> np.ndarray:
        t = (u + 1.0) / 2.0
        return np.asarray(np.log(erfcx(2.0 / t - 2.0) / t))

    interpolated = Chebyshev.interpolate(logarithm, degree)
    return np.asarray(interpolated(Polynomial([-1.0, 2.0])).coef)


class Steps:
    """Makes nodes in place of one node of a graph that is being converted.

    Parameters
    ----------
    graph : tf2onnx.graph.Graph
    node : tf2onnx.graph.Node
        What is replaced; its own inputs are `inputs`.
    """

    def __init__(self, graph: Any, node: Any) -> None:
        self._graph, self._node = graph, node
        self.inputs = list(node.input)
        self.dtype = graph.get_dtype(node.input[0])
        self._shapes, self._dtypes = node.output_shapes, node.output_dtypes
        graph.remove_node(node.name)

    def __call__(self, op: str, *inputs: Any, **attributes: Any) -> Any:
        """The output of an operation on outputs and on numbers, which become constants of the same type."""
        names = [self._named(value) for value in inputs]
        return self._graph.make_node(op, names, attr=attributes or None, op_name_scope=self._node.name).output[0]

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant, by default of the type of the node's first input."""
        from tf2onnx import utils

        numpy_type = dtype or utils.map_onnx_to_numpy_type(self.dtype)
        name = utils.make_name(f"{self._node.name}_const")
        return str(self._graph.make_const(name, np.asarray(value, numpy_type)).output[0])

    def become(self, op: str, *inputs: Any, **attributes: Any) -> None:
        """The last operation, whose output is that of the node."""
        self._graph.make_node(
            op, [self._named(value) for value in inputs], attr=attributes or None, name=self._node.name,
            outputs=self._node.output, shapes=self._shapes, dtypes=self._dtypes,
        )  # fmt: skip

    def _named(self, value: Any) -> str:
        return value if isinstance(value, str) else self.constant(value)


def _expm1(steps: Steps) -> None:
    """e^x - 1 = tanh(x / 2) (e^x + 1), which keeps the digits of small x."""
    (x,) = steps.inputs
    steps.become("Mul", steps("Tanh", steps("Mul", x, 0.5)), steps("Add", steps("Exp", x), 1.0))


def _log1p(steps: Steps) -> None:
    """ln(1 + x) = ln(u) x / (u - 1) with u = 1 + x as it is rounded (W. Kahan), and x where that is 1."""
    (x,) = steps.inputs
    u = steps("Add", x, 1.0)
    more = steps("Sub", u, 1.0)
    is_tiny = steps("Equal", more, 0.0)
    corrected = steps("Mul", steps("Log", u), steps("Div", x, steps("Where", is_tiny, 1.0, more)))
    steps.become("Where", is_tiny, x, corrected)


def _sigmoid(steps: Steps) -> None:
    """1 / (1 + e^-x). ONNX Runtime's own has an error of 1e-7, however small the result: nothing is left of the share
    of a half that has next to nothing.
    """
    (x,) = steps.inputs
    steps.become("Div", 1.0, steps("Add", steps("Exp", steps("Neg", x)), 1.0))


def _erfc(steps: Steps) -> None:
    """In double precision, by :func:`erfc_coefficients`; erfc(-z) = 2 - erfc(z)."""
    from onnx import TensorProto

    (x,), dtype = steps.inputs, steps.dtype
    steps.dtype = TensorProto.DOUBLE
    x = steps("Cast", x, to=TensorProto.DOUBLE)
    z = steps("Abs", x)
    t = steps("Div", 2.0, steps("Add", z, 2.0))
    *others, power = erfc_coefficients().tolist()
    total: Any = power
    for coefficient in reversed(others):
        total = steps("Add", steps("Mul", total, t), coefficient)
    of_z = steps("Mul", t, steps("Exp", steps("Sub", total, steps("Mul", z, z))))
    both = steps("Where", steps("Less", x, 0.0), steps("Sub", 2.0, of_z), of_z)
    steps.become("Cast", both, to=dtype)


def _upper_bound(steps: Steps, knots: int) -> None:
    """How many of a row of ascending numbers are not above each value, by bisection: (n, knots), (n, k) -> (n, k)."""
    from onnx import TensorProto

    table, values = steps.inputs
    index = steps("Cast", steps("Mul", values, 0.0), to=TensorProto.INT64)
    dtype, steps.dtype = steps.dtype, TensorProto.INT64
    for bit in range(knots.bit_length() - 1, -1, -1):
        tried = steps("Min", steps("Add", index, 1 << bit), knots)
        knot = steps("GatherElements", table, steps("Sub", tried, 1), axis=1)
        index = steps("Where", steps("LessOrEqual", knot, values), tried, index)
    steps.dtype = dtype
    steps.become("Cast", index, to=TensorProto.INT32)


@functools.cache
def register() -> None:
    """Make tf2onnx know these operations."""
    from tf2onnx.handler import tf_op

    def add(name: str, convert: Any) -> None:
        @tf_op(name)
        class _Handler:
            @classmethod
            def version_18(cls, ctx: Any, node: Any, **_: Any) -> None:
                convert(ctx, node)

    for name, convert in (("Expm1", _expm1), ("Log1p", _log1p), ("Sigmoid", _sigmoid), ("Erfc", _erfc)):
        add(name, lambda graph, node, convert=convert: convert(Steps(graph, node)))

    def upper_bound(graph: Any, node: Any) -> None:
        shape = graph.get_shape(node.input[0])
        if shape is None or shape[-1] < 1:
            raise ValueError(f"searchsorted of a table whose length is not known: {shape}")
        _upper_bound(Steps(graph, node), int(shape[-1]))

    add("UpperBound", upper_bound)
