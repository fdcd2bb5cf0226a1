import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpcgan import stateless


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**62),
    size=st.integers(1, 5),
    batch=st.integers(1, 7),
    dim=st.integers(1, 9),
)
def test_shares_of_ranks_make_up_the_draw_of_one_rank(seed, step, size, batch, dim):
    for draw in (stateless.uniform, stateless.normal):
        whole = draw(seed, "noise", step, 0, size * batch, dim)
        shares = [draw(seed, "noise", step, rank * batch, batch, dim) for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate(shares), whole)


def test_streams_seeds_and_steps_differ():
    base = stateless.uniform(1, "noise", 0, 0, 4, 4)
    others = [(2, "noise", 0), (1, "label-flip", 0), (1, "noise", 1)]
    for seed, stream, step in others:
        assert not np.isin(stateless.uniform(seed, stream, step, 0, 4, 4), base).any()


def test_normal_is_standard_normal():
    draws = stateless.normal(7, "noise", 3, 0, 20000, 5)
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
    correlations = np.corrcoef(draws.T)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(20000)


def test_uniform_is_in_the_half_open_interval():
    draws = stateless.uniform(7, "augment", 3, 0, 50000, 3)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3


def test_known_value_stays():
    """A change here would break the resume of every run there is."""
    first = stateless.uniform(1, "noise", 0, 0, 1, 2)[0]
    np.testing.assert_array_equal(first, [0.6228571191751491, 0.4048739740801084])


def test_negative_arguments_are_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        stateless.uniform(1, "noise", -1, 0, 1, 1)
