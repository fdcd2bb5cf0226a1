"""Samples as rows of cells."""

import numpy as np
import pytest

from hpcgan.metrics.features import Cells


def test_scale_by_hand():
    """Filled cells 1, 3, 5, -3: median magnitude 3."""
    reference = {"x": np.array([[[0.0, 1.0], [3.0, 0.0]], [[5.0, 0.0], [0.0, -3.0]]]), "e": np.zeros((2, 1))}
    cells = Cells.of(reference)
    assert cells.size == {"x": 3.0, "e": 1.0}
    scaled = np.arcsinh(np.array([1 / 3, 1, 5 / 3, 1]))
    assert cells.spread == {"x": pytest.approx(np.sqrt(np.sum(scaled**2) / 8)), "e": 1.0}
    made = cells({"x": 3 * np.ones((1, 2, 2)), "e": np.full((1, 1), np.sinh(2.0))})
    assert made.dtype == np.float32
    assert made.tolist() == [pytest.approx([np.arcsinh(1) / cells.spread["x"]] * 4 + [2.0])]


def test_the_reference_has_unit_size_and_keeps_its_zeros():
    rng = np.random.default_rng(1)
    images = np.where(rng.random((50, 8, 8)) < 0.1, rng.exponential(1e5, (50, 8, 8)), 0).astype(np.float32)
    made = Cells.of({"hist": images})({"hist": images})
    assert made.shape == (50, 64)
    assert np.mean(made.astype(float) ** 2) == pytest.approx(1.0, rel=1e-5)
    assert np.array_equal(made == 0, images.reshape(50, 64) == 0)


def test_what_is_not_finite_is_named():
    cells = Cells.of({"hist": np.ones((2, 3))})
    with pytest.raises(ValueError, match="hist: values that are not finite"):
        cells({"hist": np.array([[1.0, np.nan, 2.0]])})
