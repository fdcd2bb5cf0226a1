"""AUC, calibration and divergence: closed forms, sums by hand, and what scikit-learn finds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from hpcgan.metrics.classification import Calibration, auc, auc_null_error, jensen_shannon

OUTPUTS = np.array([0.1, 0.2, 0.2, 0.35, 0.4, 0.6, 0.6, 0.7, 0.9, 0.95])
LABELS = np.array([0, 1, 0, 0, 1, 0, 1, 1, 0, 1])


def test_auc_by_hand():
    """2 of the 4 pairs right, one tied."""
    found = auc(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    assert found.value == (0.5 + 0 + 1 + 1) / 4
    # Placements 1/4 and 1 of the positive, 3/4 and 1/2 of the negative events.
    assert found.error == pytest.approx(math.sqrt(0.28125 / 2 + 0.03125 / 2))
    assert auc(OUTPUTS[LABELS == 1], OUTPUTS[LABELS == 0]).value == pytest.approx(0.68)  # roc_auc_score


def test_auc_of_two_gaussians_with_an_honest_error():
    """Phi(shift / sqrt 2)."""
    rng = np.random.default_rng(1)
    found = [auc(rng.normal(1, 1, 300), rng.normal(0, 1, 200)) for _ in range(200)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(stats.norm.cdf(1 / math.sqrt(2)), abs=4 * values.std() / math.sqrt(200))
    assert np.mean([f.error for f in found]) == pytest.approx(values.std(), rel=0.15)


def test_auc_of_nothing():
    rng = np.random.default_rng(2)
    values = [auc(rng.normal(size=80), rng.normal(size=120)).value for _ in range(400)]
    assert np.std(values) == pytest.approx(auc_null_error(80, 120), rel=0.15)
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == auc(np.array([5.0, 6.0]), np.array([0.0, 1.0]))
    assert vars(auc(np.array([2.0, 3.0]), np.array([0.0, 1.0]))) == {"value": 1.0, "error": 0.0}
    with pytest.raises(ValueError, match="no ROC curve of 1 and 4 events"):
        auc(np.zeros(1), np.zeros(4))


def test_calibration_by_hand():
    """Labels 0, 1, 0, 1 in order of the output: the middle two violate the order and are one step of two events."""
    found = Calibration.fit(np.array([4.0, 2.0, 3.0, 1.0]), np.array([1, 1, 0, 0]))
    assert found.outputs.tolist() == [1, 2, 3, 4]
    assert found.probabilities == pytest.approx([1 / 3, 2 / 4, 2 / 4, 2 / 3])
    assert found(np.array([0.0, 1.5, 2.5, 9.0])) == pytest.approx([1 / 3, 5 / 12, 1 / 2, 2 / 3])


def test_steps_are_those_of_scikit_learn():
    """IsotonicRegression of scikit-learn 1.9.1: 0, 1/3, 3/5 and 1, for 1, 3, 5 and 1 events."""
    found = Calibration.fit(OUTPUTS, LABELS)
    assert found.outputs.tolist() == [0.1, 0.2, 0.35, 0.4, 0.6, 0.7, 0.9, 0.95]
    assert found.probabilities == pytest.approx([1 / 3, 2 / 5, 2 / 5, 4 / 7, 4 / 7, 4 / 7, 4 / 7, 2 / 3])


def test_steps_that_fall_are_joined():
    """9 of 10 and then 1 of 1: 10/12 and 2/3, together (10 * 10/12 + 2/3) / 11."""
    found = Calibration.fit(np.array([1.0] * 10 + [2.0]), np.array([0] + [1] * 10))
    assert found.probabilities == pytest.approx([9 / 11, 9 / 11])


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 20))
def test_calibration_rises(seed, n, distinct):
    rng = np.random.default_rng(seed)
    outputs, labels = rng.integers(0, distinct, n) / distinct, rng.integers(0, 2, n)
    found = Calibration.fit(outputs, labels)(np.linspace(-0.2, 1.2, 57))
    assert np.all(np.diff(found) >= -1e-12)
    assert 1 / (n + 2) - 1e-12 <= found.min() <= found.max() <= 1 - 1 / (n + 2) + 1e-12


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 20))
def test_steps_are_those_of_scikit_learn_where_installed(seed, n, distinct):
    """With every event a thousand times, the rule of succession makes no difference."""
    isotonic = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(seed)
    outputs, labels = rng.integers(0, distinct, n) / distinct, rng.integers(0, 2, n)
    peer = isotonic.IsotonicRegression(out_of_bounds="clip").fit(outputs, labels)
    asked = np.linspace(-0.2, 1.2, 57)
    found = Calibration.fit(np.repeat(outputs, 1000), np.repeat(labels, 1000))(asked)
    assert found == pytest.approx(peer.predict(asked), abs=2e-3)


def test_calibration_undoes_a_distortion():
    rng = np.random.default_rng(3)
    p = rng.random(40_000)
    labels = rng.random(40_000) < p
    found = Calibration.fit(p**3, labels)
    inner = np.linspace(0.05, 0.95, 19)
    assert found(inner**3) == pytest.approx(inner, abs=0.05)


def test_divergence_by_hand():
    half = jensen_shannon(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    assert vars(half) == {"value": pytest.approx(0.0), "error": 0.0}
    found = jensen_shannon(np.array([0.5, 0.25]), np.array([0.5, 0.5]))
    assert found.value == pytest.approx(1 - 0.5 * (1.5 + 1))  # bits of surprise: 1 and 2; 1 and 1
    assert found.error == pytest.approx(0.5 * math.sqrt(0.5 / 2))


def test_divergence_of_two_gaussians():
    """Of the best classifier, p = sigmoid(log likelihood ratio): the Jensen-Shannon divergence itself."""
    shift = 1.5

    def density(x):
        p, q = stats.norm.pdf(x, shift), stats.norm.pdf(x)
        m = (p + q) / 2
        return 0.5 * (p * math.log2(p / m) + q * math.log2(q / m))

    exact = integrate.quad(density, -8, 10)[0]
    rng = np.random.default_rng(4)
    positive, negative = (
        1 / (1 + np.exp(-(shift * rng.normal(mean, 1, 50_000) - shift**2 / 2))) for mean in (shift, 0.0)
    )
    found = jensen_shannon(positive, negative)
    assert found.value == pytest.approx(exact, abs=4 * found.error)
    assert found.error < 0.01
