"""NumPy code traced into graphs against the same code on arrays."""

import needs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

tf = needs.tensorflow()

from hpcgan.methods.numpy_to_graph import Traced, UntraceableError, untraced  # noqa: E402

X = np.array([[-2.5, -1.0, 0.0], [0.25, 1.0, 7.0]])

FORMULAS = {
    "ufuncs of one": lambda x: np.sqrt(np.abs(x)) + np.square(x) - np.tanh(x) + np.exp(-x) + np.log1p(np.abs(x)),
    "cube root": np.cbrt,
    "whole numbers, halves to even": lambda x: np.rint(x) + np.rint(np.rint(x) + x.dtype.type(0.5)),
    "logarithms": lambda x: np.log10(np.abs(x) + 1) + np.log(np.abs(x) + 2),
    "power": lambda x: np.power(np.abs(x), x.dtype.type(0.3)),
    "python numbers": lambda x: 2.0 * x / (3 - x) + 1,
    "array of float64": lambda x: x * np.array([1.0, 2.0, 3.0]),
    "scalar of float64": lambda x: x * np.float64(3.3),
    "minimum": lambda x: np.minimum(x.astype(np.float64), 1.0 - 2.0**-24),
    "clip": lambda x: np.clip(x, -1.0, None) + np.clip(x, None, 1.0) + np.clip(x, -0.5, 0.5),
    "where": lambda x: np.where(x[:, 0:1] < 0.5, 63 - np.arange(3), x),
    "integers": lambda x: (7 * x).astype(np.int32) // 3 * 10 + (7 * x).astype(np.int32) % 3,
    "axes": lambda x: x[:, None, ::-1].transpose(2, 1, 0).reshape(3, 2),
    "shapes": lambda x: x.reshape(len(x), 3, 1).reshape((6,))[:4] * x.ndim,
    "logic": lambda x: np.logical_or(x > 1, np.logical_not(x >= 0)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_gives_what_numpy_gives(name, dtype):
    formula, x = FORMULAS[name], X.astype(dtype)
    with np.errstate(invalid="ignore"):
        expected = formula(x)
    found = formula(Traced(tf.constant(x)))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(untraced(found).numpy(), expected, rtol=1e-6 if expected.dtype == np.float32 else 1e-13)


@given(st.integers(-1000, 1000), st.integers(1, 50))
def test_integer_division_is_that_of_numpy_for_negative_numbers_too(a, b):
    x = np.array([a], np.int32)
    for function in (np.floor_divide, np.remainder):
        assert untraced(function(Traced(tf.constant(x)), b)).numpy().tolist() == function(x, b).tolist()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (lambda x: np.arctan(x), "np.arctan is not known"),
        (lambda x: np.add.reduce(x), "np.add.reduce is not known"),
        (lambda x: np.median(x), "np.median is not known"),
        (lambda x: np.add(x, 1, out=np.zeros((2, 3))), "np.add is not known"),
        (lambda x: np.asarray(x), "values are not known"),
        (lambda x: 1 if x > 0 else 2, "no branches"),
        (lambda x: x.__setitem__(0, 1.0), "use np.where"),
    ],
)
def test_what_is_not_known_is_refused(code, message):
    with pytest.raises(UntraceableError, match=message):
        code(Traced(tf.constant(X)))


def test_the_length_of_a_batch_is_not_known_in_a_graph():
    seen = []

    @tf.function(input_signature=[tf.TensorSpec([None, 3])], autograph=False)
    def graph(x):
        with pytest.raises(UntraceableError, match="is not known before the graph runs"):
            len(Traced(x))
        seen.append(Traced(x).ndim)
        return untraced(2.0 * Traced(x))

    assert graph(tf.ones((5, 3))).shape == (5, 3)
    assert seen == [2]
    assert untraced(np.arange(3)).numpy().tolist() == [0, 1, 2]
