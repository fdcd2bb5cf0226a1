"""Real against real."""

import json

import numpy as np
import pytest

from hpcgan.metrics.ks import ks_score
from hpcgan.metrics.null_band import null_band
from hpcgan.metrics.observable import Observable, Score


def score(real, fake):
    return ks_score(real, fake, sorted(real))


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(5)
    counts = rng.poisson(3.0, 2400)
    return {
        "a": Observable(rng.normal(size=2400)),
        "b": Observable(rng.exponential(size=2400)),
        "jets": Observable(rng.exponential(size=counts.sum()), counts),
    }


@pytest.fixture(scope="module")
def band(pool):
    return null_band(pool, score, 1000, repetitions=400, seed=3)


def test_uniform_p_values(band, pool):
    """Under the null hypothesis p is uniform: each -ln p has mean 1 and median ln 2, their sum mean 3."""
    assert band.complete
    assert band.mean == pytest.approx(3.0, abs=4 * np.sqrt(3 / 400))
    # The sum of three exponential variates: median 2.67, 95% 6.30, 99% 8.41.
    assert band.median == pytest.approx(2.67, abs=0.5)
    assert band.p95 == pytest.approx(6.30, abs=1.2)
    for part in band.parts.values():
        assert part["median"] == pytest.approx(np.log(2), abs=0.25)


def test_reproducible(band, pool):
    again = null_band(pool, score, 1000, repetitions=5, seed=3)
    assert again.samples == band.samples[:5]
    assert null_band(pool, score, 1000, repetitions=5, seed=4).samples != again.samples


def test_halves_are_disjoint_and_of_the_size_asked_for():
    seen = []

    def record(real, fake):
        seen.append((real["id"].values, fake["id"].values))
        return Score(0.0, {"id": 0.0}, len(real["id"].values))

    null_band({"id": Observable(np.arange(25))}, record, 10, repetitions=30)
    for first, second in seen:
        assert len(np.unique(np.concatenate([first, second]))) == 20
    assert len({tuple(first) for first, _ in seen}) == 30


def test_too_few_events_make_a_smaller_band(pool):
    small = null_band(pool, score, 4096, repetitions=20)
    assert (small.n, small.requested, small.pool, small.complete) == (1200, 4096, 2400, False)


def test_scores_at_another_n_are_refused(band):
    assert band.share_above(Score(0.0, {}, 1000)) == 1.0
    assert band.share_above(Score(1e9, {}, 1000)) == 0.0
    assert band.share_above(Score(band.median, {}, 1000)) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="N=4096 cannot be held against a band at N=1000"):
        band.share_above(Score(0.0, {}, 4096))


def test_json(band):
    plain = json.loads(json.dumps(band.to_json(), allow_nan=False))
    assert plain["n"] == 1000
    assert plain["samples"] == band.samples
    assert np.quantile(plain["samples"], 0.95) == pytest.approx(plain["p95"])


def test_error_of_the_95_percent_level():
    """For an exponential variate the level is ln 20 and its error sqrt(0.95 / 0.05 / R)."""
    rng = np.random.default_rng(8)

    def draw(real, fake):
        return Score(rng.exponential(), {"a": 0.0}, 2)

    band = null_band({"a": Observable(np.zeros(4))}, draw, 2, repetitions=4000)
    assert band.p95_error == pytest.approx(np.sqrt(0.95 / 0.05 / 4000), rel=0.3)
    assert abs(band.p95 - np.log(20)) < 4 * band.p95_error


def test_bad_pools():
    with pytest.raises(ValueError, match="no null band from 1 events"):
        null_band({"a": Observable(np.zeros(1))}, score, 4)
    with pytest.raises(ValueError, match="differ in length"):
        null_band({"a": Observable(np.zeros(4)), "b": Observable(np.zeros(5))}, score, 2)
