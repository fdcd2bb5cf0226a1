"""KS score and the observables it compares."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpcgan.metrics.ks import MAX_PART, ks_score, ks_test
from hpcgan.metrics.observable import Observable


def obs(values, counts=None):
    return Observable(np.asarray(values, dtype=np.float64), None if counts is None else np.asarray(counts))


# The asymptotic p-value is that of the one-sample distance at n = n1 n2 / (n1 + n2), whose tail for
# d >= 1 - 1/n is exactly 2 (1 - d)^n.
@pytest.mark.parametrize(
    ("real", "fake", "distance", "p"),
    [
        ([1, 2, 3, 4], [3.5, 5, 6, 7], 0.75, 2 * 0.25**2),  # n = 2
        ([1, 2, 3, 4], [2.5, 5, 6, 3.5], 0.5, 2 * 0.5**2),  # n = 2
        ([1, 2, 3, 4], [3.5] * 3 + [9] * 9, 0.75, 2 * 0.25**3),  # n = 3
        ([1, 2], [1.5, 3], 0.5, 1.0),  # n = 1
        ([1, 2, 3], [1, 2, 3], 0.0, 1.0),
        ([1], [2], 1.0, 1.0),  # SciPy divides by zero here; one value against one says nothing
        ([1], [1], 0.0, 1.0),
    ],
)
def test_hand_computed(real, fake, distance, p):
    found = ks_test(np.array(real, float), np.array(fake, float))
    assert found == pytest.approx((distance, p))


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=40),
    st.lists(st.floats(-3, 9), min_size=2, max_size=40),
)
def test_as_scipy_but_for_rounding(real, fake):
    n = min(len(real), len(fake))
    expected = stats.ks_2samp(real[:n], fake[:n], method="asymp")
    score = ks_score({"x": obs(real[:n])}, {"x": obs(fake[:n])}, ["x"])
    part = min(MAX_PART, -math.log(max(expected.pvalue, math.exp(-700.0))))
    assert score.total == score.parts["x"] == pytest.approx(part, rel=1e-12, abs=1e-12)
    assert score.details["x"]["ks"] == pytest.approx(expected.statistic, rel=1e-12)
    assert score.n == n


def test_sum_over_the_named_quantities():
    rng = np.random.default_rng(1)
    real = {name: obs(rng.normal(size=500)) for name in "abc"}
    fake = {name: obs(rng.normal(0.2, size=500)) for name in "abc"}
    score = ks_score(real, fake, ["a", "c"])
    parts = [-math.log(stats.ks_2samp(real[k].values, fake[k].values, method="asymp").pvalue) for k in "ac"]
    assert list(score.parts) == ["a", "c"]
    assert score.total == pytest.approx(sum(parts), rel=1e-12)
    assert score.details["a"]["mean_fake"] == pytest.approx(fake["a"].values.mean())


def test_floor():
    n = 4096
    score = ks_score({"x": obs(np.zeros(n))}, {"x": obs(np.ones(n))}, ["x"])
    assert score.total == 700.0
    # p = 7.5e-312 lies below exp(-700) = 9.9e-305, but is not zero.
    real, fake = np.arange(n, dtype=float), np.arange(n, dtype=float) + 0.41 * n
    assert 0 < stats.ks_2samp(real, fake, method="asymp").pvalue < math.exp(-700)
    assert ks_score({"x": obs(real)}, {"x": obs(fake)}, ["x"]).total == 700.0


def test_just_above_the_floor():
    n = 4096
    real, fake = np.arange(n, dtype=float), np.arange(n, dtype=float) + 0.40 * n
    assert 650 < ks_score({"x": obs(real)}, {"x": obs(fake)}, ["x"]).total < 700


@pytest.mark.parametrize(("real", "fake"), [(False, True), (True, False), (False, False)])
def test_empty_quantity_scores_700(real, fake):
    filled, empty = obs([1.0, 2.0], [2, 0]), obs([], [0, 0])
    score = ks_score({"x": filled if real else empty}, {"x": filled if fake else empty}, ["x"])
    assert score.total == 700.0
    assert score.details["x"]["ks"] is None
    assert score.details["x"]["mean_fake"] == (1.5 if fake else None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value):
    with pytest.raises(ValueError, match="1 of 3 generated values of 'mass' are not finite"):
        ks_score({"mass": obs([1, 2, 3])}, {"mass": obs([1, 2, value])}, ["mass"])


def test_unequal_numbers_of_events():
    with pytest.raises(ValueError, match=r"equal numbers of events, got \[2, 3\]"):
        ks_score({"x": obs([1, 2, 3])}, {"x": obs([1, 2])}, ["x"])


def test_missing_quantity():
    with pytest.raises(ValueError, match="generated observables lack 'y'"):
        ks_score({"x": obs([1]), "y": obs([1])}, {"x": obs([1])}, ["x", "y"])


events = st.lists(st.lists(st.floats(-10, 10), max_size=4), min_size=1, max_size=12)


@given(events, st.data())
def test_take_against_a_loop(lists, data):
    chosen = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=20))
    whole = obs([v for event in lists for v in event], [len(event) for event in lists])
    taken = whole.take(np.array(chosen, dtype=np.int64))
    assert taken.values.tolist() == [v for i in chosen for v in lists[i]]
    assert taken.counts.tolist() == [len(lists[i]) for i in chosen]
    assert taken.n_events == len(chosen)


def test_take_and_concatenate_keep_everything():
    jets = Observable(np.array([5.0, 6.0, 7.0]), np.array([2.0, 0.0, 1.0]), "GeV")  # counts as floats are accepted
    plain = Observable(np.array([1.0, 2.0, 3.0]), unit="GeV")
    order = np.array([2, 0])
    assert jets.take(order).values.tolist() == [7.0, 5.0, 6.0]
    assert plain.take(order).values.tolist() == [3.0, 1.0]
    both = Observable.concatenate([jets, jets.take(order)])
    assert both.counts.tolist() == [2, 0, 1, 1, 2]
    assert both.unit == jets.take(order).unit == plain.take(order).unit == "GeV"


@pytest.mark.parametrize("counts", [[1, 1], [2, -1, 2], [1.5, 1.5, 0]])
def test_impossible_counts(counts):
    with pytest.raises(ValueError, match="counts"):
        obs([1, 2, 3], counts)
