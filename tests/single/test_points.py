"""Scores by the points of the conditions, and their null band."""

import math

import numpy as np
import pytest
from scipy import stats

from hpcgan.evaluation import compare, conditional
from hpcgan.evaluation.conditional import nearest_point
from hpcgan.evaluation.events import is_left_out, join
from hpcgan.metrics import points
from hpcgan.metrics.ks import ks_score
from hpcgan.metrics.null_band import Splitter, null_band
from hpcgan.metrics.observable import Observable, Score
from hpcgan.problems.detector_images.conditional import ConditionalModel, ConditionalProblem


def events(values, m_glu, m_neu=850.0):
    m_glu = np.asarray(m_glu, np.float64)
    return {
        "x": Observable(np.asarray(values, np.float64)),
        "mGlu": Observable(m_glu, condition=True),
        "mNeu": Observable(np.broadcast_to(np.asarray(m_neu, np.float64), m_glu.shape), condition=True),
    }


def pooled(real, fake):
    return ks_score(real, fake, ["x"])


def by_points(real, fake):
    return points.score_by_point(real, fake, pooled)


TWO = np.repeat([1400.0, 1800.0], 4)


def test_a_model_that_ignores_its_conditions_by_hand():
    """Real events are 0 at one point and 1 at the other; the model makes the mixture at both.

    All events together: the same numbers of both, distance 0, p = 1, score 0. At each point: distance 1/2 between 4 and
    4 values, p = 2 (1 - 1/2)^2 = 1/2 (exact for an effective size of 2), score ln 2.
    """
    real, ignoring = events(TWO > 1500, TWO), events([0, 1] * 4, TWO)
    assert pooled(real, ignoring).total == 0.0
    found = by_points(real, ignoring)
    assert found.total == pytest.approx(math.log(2))
    assert found.parts == {"x": pytest.approx(math.log(2))}
    assert found.n == 8
    assert [p["conditions"] for p in found.details["points"]] == [
        {"mGlu": 1400.0, "mNeu": 850.0},
        {"mGlu": 1800.0, "mNeu": 850.0},
    ]
    assert [(p["n"], p["total"]) for p in found.details["points"]] == [(4, pytest.approx(math.log(2)))] * 2
    assert by_points(real, real).total == 0.0


def test_with_a_hundred_events_it_is_beyond_doubt():
    masses = np.repeat([1400.0, 1800.0], 100)
    real, ignoring = events(masses > 1500, masses), events([0, 1] * 100, masses)
    assert pooled(real, ignoring).total == 0.0
    assert by_points(real, ignoring).total == pytest.approx(-math.log(stats.kstwo.sf(0.5, 50)), rel=1e-6)
    assert by_points(real, ignoring).total > 20


def test_the_order_of_events_does_not_matter_and_all_points_count_alike():
    masses = np.array([1400.0] * 6 + [1800.0] * 2)
    real, fake = events([0] * 6 + [0, 1], masses), events([0] * 6 + [5, 6], masses)
    found = by_points(real, fake)
    each = [p["total"] for p in found.details["points"]]
    assert each[0] == 0.0
    assert each[1] == pytest.approx(pooled(events([0, 1], [1.0] * 2), events([5, 6], [1.0] * 2)).total)
    assert found.total == pytest.approx(np.mean(each))
    order = np.random.default_rng(0).permutation(8)
    assert by_points(points.take(real, order), points.take(fake, order[::-1])).total == found.total


def test_unequal_numbers_at_a_point_are_refused():
    with pytest.raises(ValueError, match="equal numbers of events at every point"):
        by_points(events(range(8), TWO), events(range(8), [1400.0] * 3 + [1800.0] * 5))
    nothing = events([], [])
    with pytest.raises(ValueError, match="equal numbers"):
        by_points(nothing, nothing)


def test_conditions_are_told_apart_and_kept():
    found = events(range(8), TWO)
    assert points.condition_names(found) == ["mGlu", "mNeu"]
    assert list(points.measured(found)) == ["x"]
    assert points.sizes(found) == {(1400.0, 850.0): 4, (1800.0, 850.0): 4}
    assert points.sizes(points.measured(found)) == {(): 8}
    both = join([found, points.take(found, np.array([7]))])
    assert both["mGlu"].condition
    assert points.events_of(both, (1800.0, 850.0)).tolist() == [4, 5, 6, 7, 8]
    assert points.events_of(both, (1.0, 2.0)).tolist() == []
    with pytest.raises(ValueError, match="one value an event"):
        Observable(np.zeros(2), np.array([2]), condition=True)
    assert points.first_events(both, {(1800.0, 850.0): 2, (1400.0, 850.0): 1}, skip=1).tolist() == [6, 7, 1]
    with pytest.raises(ValueError, match=r"5 events at .* 6 are needed"):
        points.first_events(both, {(1800.0, 850.0): 3}, skip=1)
    asked = points.asked_for(found, {"mGlu": 1600.0, "mNeu": 850.0})
    assert points.sizes(asked) == {(1600.0, 850.0): 8}
    assert points.sizes(found) == {(1400.0, 850.0): 4, (1800.0, 850.0): 4}


def test_the_band_has_the_numbers_of_each_point():
    masses = np.repeat([1400.0, 1600.0, 1800.0], [40, 30, 20])
    pool, seen = events(np.arange(90), masses), []

    def record(real, fake):
        seen.append((real, fake))
        return by_points(real, fake)

    sizes = {(1400.0, 850.0): 12, (1600.0, 850.0): 5, (1800.0, 850.0): 10}
    band = null_band(pool, record, sizes, repetitions=20)
    assert (band.n, band.splits.requested, band.splits.pool, band.complete) == (27, 27, 90, True)
    assert band.sizes == [12, 5, 10]
    for real, fake in seen:
        assert points.sizes(real) == points.sizes(fake) == sizes
        assert not set(real["x"].values) & set(fake["x"].values)
    assert [p.n for p in band.points] == [12, 5, 10]
    assert band.samples == pytest.approx(np.mean([p.samples for p in band.points], axis=0))
    assert band.points[1].conditions == {"mGlu": 1600.0, "mNeu": 850.0}
    assert band.points[1].share_above(Score(-1.0, {}, 5)) == 1.0
    assert band.to_json()["points"][2]["p95"] == np.quantile(band.points[2].samples, 0.95)


def test_a_scarce_point_makes_a_smaller_band_in_proportion():
    pool = events(np.arange(60), np.repeat([1400.0, 1800.0], [50, 10]))
    splitter = Splitter(pool, {(1400.0, 850.0): 20, (1800.0, 850.0): 10})
    assert (splitter.sizes, splitter.n, splitter.requested, splitter.pool) == ([10, 5], 15, 30, 60)
    with pytest.raises(ValueError, match="no null band"):
        Splitter(pool, {(1400.0, 850.0): 2, (1600.0, 850.0): 2})
    one = events([1.0, 2.0, 3.0], [1400.0, 1400.0, 1800.0])
    with pytest.raises(ValueError, match="no null band"):
        null_band(one, by_points, points.sizes(one), repetitions=2)


class Counted(ConditionalProblem):
    """Scores the difference of means at each point."""

    def score(self, real, fake):
        def difference(a, b):
            n = a["x"].n_events
            return Score(float(abs(a["x"].values.mean() - b["x"].values.mean())), {"x": 0.0}, n)

        return points.score_by_point(real, fake, difference)


PROBLEM = Counted(ConditionalModel())


def test_a_comparison_with_too_few_events_for_the_band():
    """12 events of each point are compared, 20 there are: the band and what is held against it have 10."""
    masses = np.tile([1400.0, 1800.0], 12)
    real, fake = events(np.zeros(24), masses), events(np.ones(24), masses)
    pool = events(np.zeros(40), np.tile([1400.0, 1800.0], 20))
    found = compare.compare(PROBLEM, real, [fake, fake], pool, 24, repetitions=5)
    assert (found.n, found.band.n, found.band_scores[0].n) == (24, 20, 20)
    assert list(found.distances) == list(found.reference) == ["x"]
    rows = conditional.trained_rows(found.band, found.band_scores)
    assert [row["n"] for row in rows] == [10, 10]
    assert rows[0]["score"] == {"mean": 1.0, "std": 0.0}
    assert rows[0]["share_above"] == 0.0
    assert rows[0]["band"]["parts"] == {"x": {"median": 0.0, "p95": 0.0, "p99": 0.0}}
    assert rows[0]["trained"]
    assert rows[0]["nearest"] is None


def test_a_point_left_out_beside_the_naive_alternatives():
    """Real events there are 10 plus noise of mean 0, the model makes 11; nearest real events are 5, its events 6."""
    at = np.full(40, 1600.0)
    real, pool = events(np.full(40, 10.0), at), events(np.tile([9.0, 11.0], 40), np.full(80, 1600.0))
    nearest = [events(np.full(40, value), np.full(40, 1400.0)) for value in (5.0, 6.0)]
    near = {"mGlu": 1400.0, "mNeu": 850.0}
    model = [events(np.full(40, value), at) for value in (11.0, 13.0)]
    row = conditional.left_out_row(PROBLEM, real, model, pool, (near, nearest[:1], nearest[1:] * 2), repetitions=50)
    assert row["conditions"] == {"mGlu": 1600.0, "mNeu": 850.0}
    assert (row["trained"], row["n"]) == (False, 40)
    assert row["score"] == {"mean": 2.0, "std": pytest.approx(math.sqrt(2))}
    assert row["share_above"] == 0.0
    assert row["band"]["p99"] < 1.0
    assert row["nearest"] == {
        "conditions": near,
        "real": {"mean": 5.0, "std": None, "samples": 1},
        "generated": {"mean": 4.0, "std": 0.0, "samples": 2},
    }


def point(m_glu, m_neu=850.0):
    return {"mGlu": m_glu, "mNeu": m_neu}


def test_the_nearest_point_is_that_of_the_encoded_masses():
    """200 GeV of the gluino are 0.4, 200 GeV of the neutralino 0.14; of equally near ones the lightest is taken."""
    asked = point(1600.0)
    assert nearest_point(PROBLEM, asked, [point(1800.0), point(1600.0, 650.0)]) == point(1600.0, 650.0)
    assert nearest_point(PROBLEM, asked, [point(1500.0), point(1600.0, 650.0)]) == point(1600.0, 650.0)
    assert nearest_point(PROBLEM, asked, [point(1800.0), point(1400.0)]) == point(1400.0)
    assert nearest_point(PROBLEM, asked, [point(1600.0, 950.0), point(1600.0, 750.0)]) == point(1600.0, 750.0)


def test_events_of_two_files_are_matched_point_by_point():
    real = events(np.arange(40), np.tile([1400.0, 1600.0], 20))
    fake = events(np.arange(60), np.tile([1400.0, 1600.0, 1800.0], 20))
    on_real, on_fakes, notices = conditional.match(real, fake, 17, 5)
    sizes = {(1400.0, 850.0): 8, (1600.0, 850.0): 9}
    assert points.sizes(points.take(real, on_real)) == sizes
    assert len(on_fakes) == 2  # 20 of each point hold two samples of 9
    assert all(points.sizes(points.take(fake, found)) == sizes for found in on_fakes)
    assert len(set(np.concatenate(on_fakes))) == 34
    assert notices == ["Generated events at mGlu=1800, mNeu=850 are left out: the other side has none."]
    few = conditional.match(real, events(np.arange(3), [1600.0] * 3), 40, 5)
    assert points.sizes(points.take(real, few[0])) == {(1600.0, 850.0): 3}
    assert "Real events at mGlu=1400, mNeu=850 are left out" in few[2][0]
    with pytest.raises(ValueError, match="no point of the conditions in common"):
        conditional.match(real, events([1.0], [1234.0]), 10, 1)


def test_points_that_name_one_condition_only():
    found = events(range(4), [1400.0, 1600.0, 1600.0, 1800.0], [250.0, 250.0, 850.0, 850.0])
    assert is_left_out(found, [{"mGlu": 1600.0}]).tolist() == [False, True, True, False]
    assert is_left_out(found, [point(1600.0), {"mGlu": 1400.0}]).tolist() == [True, False, True, False]
