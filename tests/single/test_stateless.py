import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpcgan import rng


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**62),
    size=st.integers(1, 5),
    batch=st.integers(1, 7),
    dim=st.integers(1, 9),
)
def test_shares_of_ranks_make_up_the_draw_of_one_rank(seed, step, size, batch, dim):
    for draw in (rng.uniform, rng.normal):
        whole = draw(seed, "noise", step, 0, size * batch, dim)
        shares = [draw(seed, "noise", step, rank * batch, batch, dim) for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate(shares), whole)


def test_streams_seeds_and_steps_differ():
    base = rng.uniform(1, "noise", 0, 0, 4, 4)
    others = [(2, "noise", 0), (1, "label-flip", 0), (1, "noise", 1)]
    for seed, stream, step in others:
        assert not np.isin(rng.uniform(seed, stream, step, 0, 4, 4), base).any()


def test_normal_is_standard_normal():
    draws = rng.normal(7, "noise", 3, 0, 20000, 5)
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
    correlations = np.corrcoef(draws.T)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(20000)


def test_uniform_is_in_the_half_open_interval():
    draws = rng.uniform(7, "augment", 3, 0, 50000, 3)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3


def test_known_value_stays():
    """A change here would break the resume of every run there is."""
    first = rng.uniform(1, "noise", 0, 0, 1, 2)[0]
    np.testing.assert_array_equal(first, [0.6228571191751491, 0.4048739740801084])


def test_negative_arguments_are_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        rng.uniform(1, "noise", -1, 0, 1, 1)


def test_scattered_samples_draw_what_consecutive_ones_do():
    whole = rng.uniform(3, "pileup", 7, 0, 20, 5)
    indices = np.array([4, 19, 0, 4])
    np.testing.assert_array_equal(rng.uniform_at(3, "pileup", 7, indices, 5), whole[indices])
    assert rng.uniform_at(3, "pileup", 7, np.array([], int), 5).shape == (0, 5)


@given(st.data())
def test_subsets_are_drawn_without_replacement(data):
    sizes = np.array(data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=5)))
    counts = np.array([data.draw(st.integers(0, size)) for size in sizes.tolist()])
    k = int(counts.max()) + data.draw(st.integers(0, 3))
    uniforms = np.random.default_rng(data.draw(st.integers(0, 99))).random((len(sizes), k))
    drawn = rng.subsets(uniforms, counts, sizes)
    assert drawn.shape == (len(sizes), k)
    for row, count, size in zip(drawn, counts, sizes, strict=True):
        assert len(set(row[:count].tolist())) == count
        assert np.all((row[:count] >= 0) & (row[:count] < size))
        assert np.all(row[count:] == -1)


def test_all_subsets_are_equally_likely():
    """Three of five, 20,000 times: each of the ten subsets 2,000 times, within what chi-squared allows."""
    n = 20_000
    drawn = rng.subsets(rng.uniform(1, "subset", 0, 0, n, 3), np.full(n, 3), np.full(n, 5))
    kinds = np.bincount((1 << drawn).sum(axis=1), minlength=32)
    found = kinds[kinds > 0]
    assert len(found) == 10
    assert stats.chisquare(found).pvalue > 0.001


def test_more_than_there_are_cannot_be_drawn():
    for counts, size in ((4, 3), (3, 9)):
        with pytest.raises(ValueError, match="more are drawn"):
            rng.subsets(np.zeros((1, 2)), np.array([counts]), np.array([size]))
