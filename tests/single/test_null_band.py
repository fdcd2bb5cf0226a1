"""Real against real."""

import json

import numpy as np
import pytest

from hpcgan import rng as stateless
from hpcgan.metrics.ks import ks_score
from hpcgan.metrics.null_band import null_band, paired_null_band
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
    assert (small.n, small.splits.requested, small.splits.pool, small.complete) == (1200, 4096, 2400, False)


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


# --- events that depend on one another ---------------------------------------------------------------------------


def reused(rng, mu, events=4000, n=1000, blocks=10):
    """Totals of `n` sums of `mu` out of a pool of exponential values, each from one of the pool's blocks."""
    pool = rng.exponential(size=(blocks, events // blocks))
    block = np.arange(n) % blocks
    members = stateless.subsets(rng.random((n, mu)), np.full(n, mu), np.full(n, pool.shape[1]))
    return Observable(pool[block[:, None], members].sum(axis=1), blocks=block)


def without_blocks(observable):
    return Observable(observable.values)


def test_sums_that_share_events_need_a_band_of_blocks():
    """mu = 40, 4,000 events, 1,000 sums: every event is used ten times.

    Means of two pools differ by d = sqrt(2 mu / 4000) = 0.14 standard deviations of a sum, times a normal number, and
    the largest distance of the distributions is 0.4 d. The band of blocks has the right size: 5% of comparisons of
    independent pools lie above its 95%. The 95% of independent sums is a distance of 1.36 / sqrt(500) = 0.061, which
    0.056 times a normal number exceeds in 28%, and more often with the statistical fluctuation on top.
    """
    rng = np.random.default_rng(11)
    above = {"blocks": [], "events": []}
    for trial in range(40):
        one, other = {"total": reused(rng, 40)}, {"total": reused(rng, 40)}
        found = score(one, other).total
        pool = Observable.concatenate([one["total"], other["total"]])
        for kind, observable in (("blocks", pool), ("events", without_blocks(pool))):
            band = null_band({"total": observable}, score, 1000, repetitions=60, seed=trial)
            above[kind].append(found > band.p95)
    # Binomial: 0.05 of 40 is 2; more than 6 has a probability of 0.003, 10 or more of 2e-5.
    assert np.sum(above["blocks"]) <= 6
    assert np.sum(above["events"]) >= 10


def test_the_band_widens_with_the_reuse_of_events():
    rng = np.random.default_rng(3)
    widths = {}
    for mu in (1, 8, 40):
        pool = Observable.concatenate([reused(rng, mu), reused(rng, mu)])
        bands = [null_band({"total": o}, score, 1000, repetitions=200) for o in (pool, without_blocks(pool))]
        assert bands[0].splits.blocks == 20
        assert bands[1].splits.blocks is None
        widths[mu] = bands[0].p95 / bands[1].p95
    assert widths[1] < 2.5  # each event is used once in four sums
    assert widths[1] < widths[8] < widths[40]
    assert widths[40] > 4


def test_blocks_stay_whole():
    seen = []

    def record(real, fake):
        seen.append((set(real["id"].blocks.tolist()), set(fake["id"].blocks.tolist())))
        assert len(real["id"].values) == len(fake["id"].values)
        return Score(0.0, {"id": 0.0}, len(real["id"].values))

    blocks = np.repeat([5, 3, 9, 7, 1], [4, 6, 5, 5, 8])
    band = null_band({"id": Observable(np.arange(28), blocks=blocks)}, record, 20, repetitions=30)
    assert (band.n, band.splits.blocks) == (9, 5)  # the two smallest blocks have nine events
    for first, second in seen:
        assert len(first) == len(second) == 2
        assert not first & second
    with pytest.raises(ValueError, match="a single block"):
        null_band({"id": Observable(np.arange(4), blocks=np.zeros(4, int))}, record, 2)


def test_joined_sets_have_no_blocks_in_common():
    one = Observable(np.arange(4.0), blocks=np.array([0, 0, 7, 7]))
    joined = Observable.concatenate([one, one])
    assert joined.blocks.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert joined.take(np.array([7, 0])).blocks.tolist() == [3, 0]
    assert Observable.concatenate([Observable(np.zeros(2))] * 2).blocks is None
    with pytest.raises(ValueError, match="3 blocks are given for 2 events"):
        Observable(np.zeros(2), blocks=np.zeros(3))


def test_pairs_are_exchanged_by_blocks():
    """Each side keeps every event once, from the first or the second sample as its block says."""
    blocks, seen = np.array([0, 0, 1, 1, 2, 2]), []

    def record(real, fake):
        sides = np.stack([real["id"].values, fake["id"].values])
        assert np.array_equal(np.sort(sides % 10, axis=1), [np.arange(6)] * 2)
        assert np.array_equal(np.sort(sides, axis=0), [np.arange(6), np.arange(6) + 10])
        assert np.array_equal(sides[0, ::2] >= 10, sides[0, 1::2] >= 10)
        seen.append(tuple(sides[0]))
        return Score(0.0, {"id": 0.0}, 6)

    first, second = ({"id": Observable(np.arange(6) + shift, blocks=blocks)} for shift in (0, 10))
    band = paired_null_band(first, second, record, repetitions=100)
    assert len(set(seen)) == 8
    assert (band.n, band.splits.pool, band.splits.blocks) == (6, 12, 3)
    with pytest.raises(ValueError, match="same events in the same blocks"):
        paired_null_band(first, {"id": Observable(np.arange(6), blocks=blocks[::-1])}, record)
