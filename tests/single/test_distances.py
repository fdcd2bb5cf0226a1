"""Distances with closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.metrics.distances import (
    Statistic,
    bin_edges,
    chi2_test,
    distances,
    histogram,
    mean_error,
    separation_power,
    wasserstein,
    wasserstein_error,
)
from hpcgan.metrics.observable import Observable


@given(st.floats(-50, 50))
def test_wasserstein_of_a_shift_is_the_shift(shift):
    x = np.random.default_rng(1).normal(size=200)
    assert wasserstein(x, x + shift) == pytest.approx(abs(shift), abs=1e-9)


def test_wasserstein_of_two_uniform_distributions():
    """Quantiles of U(0, 1) and U(0, 3) at the same level u differ by 2u: the distance is 1."""
    u = (np.arange(1000) + 0.5) / 1000
    assert wasserstein(u, 3 * u) == pytest.approx(1.0)


def test_bootstrap_error_of_a_clear_shift():
    """Far apart, the distance is the difference of the means, with error sqrt(s1^2/n1 + s2^2/n2)."""
    rng = np.random.default_rng(2)
    a, b = Observable(rng.normal(0, 1, 1000)), Observable(rng.normal(20, 2, 500))
    assert wasserstein_error(a, b, 400) == pytest.approx(np.sqrt(1 / 1000 + 4 / 500), rel=0.15)


def test_bootstrap_resamples_events_not_values():
    """Ten equal values an event: the error is that of the events, not sqrt(10) times smaller."""
    rng = np.random.default_rng(3)
    once, far = rng.normal(0, 1, 400), rng.normal(20, 1, 400)
    counts = np.full(400, 10)
    single = wasserstein_error(Observable(once), Observable(far), 400)
    repeated = wasserstein_error(Observable(np.repeat(once, 10), counts), Observable(np.repeat(far, 10), counts), 400)
    assert repeated == pytest.approx(single, rel=0.2)


@pytest.mark.parametrize(
    ("h1", "h2", "expected"),
    [
        ([3, 5, 2], [30, 50, 20], 0.0),
        ([1, 0], [0, 7], 1.0),
        ([1, 1], [1, 3], 0.5 * (0.25**2 / 0.75 + 0.25**2 / 1.25)),
        ([1, 0, 1], [1, 0, 0], 0.5 * (0.5**2 / 1.5 + 0.5)),
    ],
)
def test_separation_power(h1, h2, expected):
    assert separation_power(np.array(h1, float), np.array(h2, float)) == pytest.approx(expected)


def test_separation_of_equal_distributions():
    rng = np.random.default_rng(4)
    n, bins = 2000, 20
    found = [
        separation_power(*(rng.multinomial(n, np.full(bins, 1 / bins)).astype(float) for _ in range(2)))
        for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx((bins - 1) / 4 * (2 / n), rel=0.1)


def test_chi2_by_hand():
    # Equal totals: sum (n1 - n2)^2 / (n1 + n2) = 4/16 + 4/14 with two filled bins.
    found = chi2_test(np.array([9.0, 6.0, 0.0]), np.array([7.0, 8.0, 0.0]))
    chi2, ndf, p = found.value, found.ndf, found.p
    assert chi2 == pytest.approx(4 / 16 + 4 / 14)
    assert ndf == 1
    assert p == pytest.approx(0.4642, abs=1e-3)
    assert chi2_test(np.array([4.0]), np.array([9.0])) == Statistic(0.0, 1.0, 0)


def test_chi2_of_equal_distributions_with_unequal_totals():
    rng = np.random.default_rng(5)
    shape = rng.dirichlet(np.ones(12) * 5)
    found = [
        chi2_test(rng.multinomial(4000, shape).astype(float), rng.multinomial(1500, shape).astype(float))
        for _ in range(300)
    ]
    assert np.mean([test.value for test in found]) == pytest.approx(11, abs=4 * np.sqrt(2 * 11 / 300))
    assert np.mean([test.p for test in found]) == pytest.approx(0.5, abs=0.07)


def test_bins_of_integers_are_centred():
    assert bin_edges(np.array([2, 3, 3, 5])).tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60))
def test_bins_cover_and_increase(values):
    edges = bin_edges(np.array(values))
    assert np.all(np.diff(edges) > 0)
    assert 2 <= len(edges) <= 80
    assert histogram(np.array(values), edges).sum() == len(values)
    low, high = np.quantile(values, [0.001, 0.999])
    tolerance = 1e-6 * (1 + abs(low) + abs(high))
    assert edges[0] <= low + tolerance
    assert edges[-1] >= high - tolerance


def test_bins_are_round_and_start_at_zero():
    edges = bin_edges(np.random.default_rng(6).exponential(100.0, 5000))
    assert edges[0] == 0.0
    assert (edges[1] - edges[0]) in (10.0, 20.0, 25.0)


def test_outside_values_are_folded_into_the_outermost_bins():
    assert histogram(np.array([-5.0, 0.5, 1.5, 99.0]), np.array([0.0, 1.0, 2.0])).tolist() == [2.0, 2.0]


def test_distances_of_a_quantity():
    rng = np.random.default_rng(7)
    a, b = Observable(rng.normal(10, 1, 800), unit="GeV"), Observable(rng.normal(11, 1, 800))
    found = distances(a, b, bootstrap=50)
    assert found.fake.mean - found.real.mean == pytest.approx(1.0, abs=0.2)
    assert found.wasserstein == pytest.approx(1.0, abs=5 * found.wasserstein_error)
    assert found.chi2.p < 1e-10
    assert found.ks.p < 1e-10
    assert distances(a, a, bootstrap=0).wasserstein_error is None
    assert distances(a, a, bootstrap=0).separation == 0.0


def test_distances_of_nothing():
    found = distances(Observable(np.zeros(0), np.zeros(3, int)), Observable(np.ones(3)))
    assert (found.real.n, found.fake.n, found.wasserstein) == (0, 3, None)


def test_errors_of_means_and_distances_allow_for_blocks():
    """Ten values, each a hundred times: the error is that of ten, not of a thousand."""
    rng = np.random.default_rng(2)
    values, block = rng.normal(size=10), np.repeat(np.arange(10), 100)
    copied = Observable(values[block], blocks=block)
    mean, error = mean_error(copied)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(10))
    assert mean_error(Observable(values[block]))[1] == pytest.approx(values.std(ddof=1) / np.sqrt(1000), rel=0.06)
    assert mean_error(Observable(np.ones(3), blocks=np.zeros(3, int))) == (1.0, None)
    other = Observable(rng.normal(5.0, size=1000))
    errors = [wasserstein_error(o, other) for o in (copied, Observable(values[block]))]
    assert errors[0] > 5 * errors[1]
    assert wasserstein_error(Observable(values, blocks=np.zeros(10, int)), other) is None
