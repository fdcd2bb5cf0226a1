"""Observables as rows of numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.metrics.features import Features, columns
from hpcgan.metrics.observable import Observable

JETS = Observable(np.array([3.0, 9.0, 6.0, 4.0, 2.0, 5.0, 1.0, 7.0]), np.array([3, 0, 1, 4]), unit="GeV")


def test_columns_by_hand():
    """Events {3, 9, 6}, {}, {4}, {2, 5, 1, 7}."""
    found = columns("jet_pt", JETS)
    assert list(found) == ["jet_pt_count", "jet_pt_mean", "jet_pt_std", "jet_pt_1", "jet_pt_2", "jet_pt_3"]
    assert found["jet_pt_count"].tolist() == [3, 0, 1, 4]
    assert found["jet_pt_mean"].tolist() == [6, 0, 4, 3.75]
    assert found["jet_pt_std"] == pytest.approx([np.sqrt(6), 0, 0, np.sqrt(79 / 4 - 3.75**2)])
    assert found["jet_pt_1"].tolist() == [9, 0, 4, 7]
    assert found["jet_pt_2"].tolist() == [6, 0, 0, 5]
    assert found["jet_pt_3"].tolist() == [3, 0, 0, 2]
    assert list(columns("mass", Observable(np.arange(3)))) == ["mass"]


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), max_size=6), max_size=8), st.randoms(use_true_random=False))
def test_the_order_within_an_event_does_not_matter(events, random):
    shuffled = [random.sample(values, len(values)) for values in events]
    first, second = (
        columns("x", Observable(np.array([v for e in made for v in e], float), np.array([len(e) for e in made], int)))
        for made in (events, shuffled)
    )
    for name, column in first.items():
        assert column == pytest.approx(second[name], abs=1e-9)
        assert len(column) == len(events)
    for event, values in enumerate(events):
        leading = [first[f"x_{rank + 1}"][event] for rank in range(3)]
        assert leading == [*sorted(values, reverse=True), 0.0, 0.0, 0.0][:3]


def test_units_are_those_of_the_reference():
    rng = np.random.default_rng(1)
    real = {"mass": Observable(rng.normal(50, 4, 500)), "jet_pt": Observable(rng.exponential(90, 1500), [3] * 500)}
    features = Features.of(real)
    assert features.names == ("mass", "jet_pt_mean", "jet_pt_std", "jet_pt_1", "jet_pt_2", "jet_pt_3")  # no count
    matrix = features(real)
    assert matrix.shape == (500, 6)
    assert matrix.mean(axis=0) == pytest.approx(np.zeros(6), abs=1e-12)
    assert matrix.std(axis=0) == pytest.approx(np.ones(6))
    shifted = features({**real, "mass": Observable(real["mass"].values + 8)})
    assert (shifted - matrix)[:, 0] == pytest.approx(np.full(500, 8 / real["mass"].values.std()))


def test_what_says_the_same_twice_counts_once():
    features = Features.of({"jet_multiplicity": Observable(np.array([3.0, 0, 1, 4])), "jet_pt": JETS})
    assert features.names == ("jet_multiplicity", "jet_pt_mean", "jet_pt_std", "jet_pt_1", "jet_pt_2", "jet_pt_3")


def test_places_that_real_events_never_fill_are_no_features():
    short = Observable(np.array([3.0, 4.0, 5.0]), np.array([1, 0, 2]))
    assert Features.of({"x": short}).names == ("x_count", "x_mean", "x_std", "x_1", "x_2")


def test_a_constant_observable_is_seen_where_generated_events_vary():
    """0.1 in all of 300 events, whose rounded standard deviation is not zero: in units of its size."""
    real = {"x": Observable(np.full(300, 0.1)), "y": Observable(np.arange(300.0)), "z": Observable(np.zeros(300))}
    features = Features.of(real)
    assert features.scale.tolist() == [0.1, np.arange(300.0).std(), 1.0]
    assert features({k: o.take(np.arange(2)) for k, o in real.items()})[:, 0] == pytest.approx([0, 0], abs=1e-12)
    fake = {"x": Observable(np.array([0.2])), "y": Observable(np.zeros(1)), "z": Observable(np.ones(1))}
    assert features(fake)[0, [0, 2]] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({}, "no observable"),
        ({"x": Observable(np.ones(1))}, "1 events are too few"),
        ({"x": Observable(np.array([1.0, np.nan, 2.0]))}, "x: values that are not finite"),
        ({"x": Observable(np.ones(3)), "y": Observable(np.ones(4))}, "differ in length"),
        ({"x": Observable(np.zeros(0), np.zeros(4, int))}, "no observable"),
    ],
)
def test_what_makes_no_features(reference, message):
    with pytest.raises(ValueError, match=message):
        Features.of(reference)


def test_bad_events_are_named():
    features = Features.of({"x": Observable(np.arange(4.0)), "jet_pt": JETS})
    with pytest.raises(ValueError, match="these events have no jet_pt_count"):
        features({"x": Observable(np.arange(3.0))})
    with pytest.raises(ValueError, match="x: values that are not finite"):
        features({"x": Observable(np.array([np.inf])), "jet_pt": Observable(np.ones(1), np.ones(1, int))})
