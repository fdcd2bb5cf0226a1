from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.data.sharding import Sharding, rank_batch
from hpcgan.errors import InputError


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_shows_no_sample_twice_and_drops_only_the_tail(n, batch, size, epoch):
    if n < batch * size:
        return
    ranks = [Sharding(n, batch, rank, size, seed=3) for rank in range(size)]
    seen = []
    for step in range(ranks[0].steps_per_epoch):
        position = step * batch * size
        shards = [r.shard(r.order(epoch), position) for r in ranks]
        assert [len(s) for s in shards] == [batch] * size
        seen.append(np.concatenate(shards))
    seen = np.concatenate(seen)
    assert len(np.unique(seen)) == len(seen) == n - n % (batch * size)


def test_ranks_share_the_global_batch_of_one_rank():
    one = Sharding(100, 12, 0, 1, seed=5)
    three = [Sharding(100, 4, rank, 3, seed=5) for rank in range(3)]
    for position in (0, 12, 60):
        np.testing.assert_array_equal(
            np.concatenate([r.shard(r.order(2), position) for r in three]), one.shard(one.order(2), position)
        )


def test_the_tail_differs_from_epoch_to_epoch():
    sharding = Sharding(100, 30, 0, 1, seed=5)
    tails = {tuple(sorted(sharding.order(epoch)[90:])) for epoch in range(20)}
    assert len(tails) > 15


def test_another_seed_is_another_order():
    a, b = (Sharding(50, 5, 0, 1, seed=s).order(0) for s in (1, 2))
    assert not np.array_equal(a, b)


def test_fewer_samples_than_a_global_batch():
    with pytest.raises(ValueError, match="fewer than a global batch of 128"):
        Sharding(100, 64, 0, 2, seed=1)


def test_steps_left_in_the_middle():
    sharding = Sharding(100, 8, 0, 2, seed=1)
    assert sharding.steps_per_epoch == 6
    assert [sharding.steps_left(p) for p in (0, 16, 96)] == [6, 5, 0]


@pytest.mark.parametrize(("whole", "ranks", "each"), [(None, 3, 8), (12, 1, 12), (12, 3, 4), (12, 4, 3), (12, 12, 1)])
def test_the_batch_of_a_rank(whole, ranks, each):
    assert rank_batch(Path("train.h5"), 100, 8, whole, ranks) == each


def test_a_global_batch_that_does_not_divide_evenly_is_refused_with_what_would():
    with pytest.raises(
        InputError, match=r"training.global_batch_size=12 .* on 5 ranks; ranks that can: 1, 2, 3, 4, 6, 12$"
    ):
        rank_batch(Path("train.h5"), 100, 8, 12, 5)
    with pytest.raises(InputError, match=r"^train.h5: 11 events .* of 12 \(training.global_batch_size=12\)$"):
        rank_batch(Path("train.h5"), 11, 1, 12, 2)
    with pytest.raises(InputError, match=r"^train.h5: 15 events .* of 16 \(training.batch_size=8 on 2 ranks\)$"):
        rank_batch(Path("train.h5"), 15, 8, None, 2)
