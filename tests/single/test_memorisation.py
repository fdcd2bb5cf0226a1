"""A sampler that copies its training events is found, an honest one is not."""

import math

import numpy as np
import pytest
from scipy import stats

from hpcgan.metrics.memorisation import memorisation, rank_sum_z


def sample(rng, n):
    return rng.normal(size=(n, 3))


def test_null_of_z_and_of_the_share_of_close_events():
    """Independent samples: z has mean 0 and deviation 1, close events come as often as they should."""
    rng = np.random.default_rng(1)
    found = [memorisation(sample(rng, 200), sample(rng, 150), sample(rng, 100), level=0.1) for _ in range(300)]
    z = np.array([f.z for f in found])
    assert z.mean() == pytest.approx(0.0, abs=4 / np.sqrt(300))
    assert z.std() == pytest.approx(1.0, abs=4 / np.sqrt(600))
    assert stats.kstest([f.p for f in found], "uniform").pvalue > 1e-3
    expected = 16 / 151  # the 16th of 150 distances: ceil(0.1 * 151)
    assert found[0].close.expected == pytest.approx(expected)
    shares = np.array([f.close.share for f in found])
    deviation = stats.betabinom.std(200, 16, 135) / 200
    assert shares.mean() == pytest.approx(expected, abs=4 * deviation / np.sqrt(300))
    assert shares.std() == pytest.approx(deviation, rel=0.2)


def test_a_memorising_sampler_is_flagged():
    rng = np.random.default_rng(2)
    training, held_out = sample(rng, 1000), sample(rng, 500)
    copies = training[rng.integers(0, 1000, 500)] + rng.normal(0, 0.01, (500, 3))
    found = memorisation(copies, held_out, training)
    assert found.z < -20
    assert found.p < 1e-90
    assert found.close.p < 1e-10
    assert found.generated.median < 0.1 * found.held_out.median
    assert (found.generated.n, found.held_out.n, found.n_training) == (500, 500, 1000)


def test_a_few_copies_among_good_events_are_flagged():
    """25 of 1000: z does not see them, the share of close events does."""
    rng = np.random.default_rng(3)
    training, held_out = sample(rng, 1000), sample(rng, 1000)
    generated = np.concatenate([training[:40], sample(rng, 960)])
    found = memorisation(generated, held_out, training)
    assert abs(found.z) < 3
    assert found.close.share >= 0.04
    assert found.close.p < 1e-5


def test_events_off_the_distribution_are_no_copies():
    rng = np.random.default_rng(4)
    found = memorisation(sample(rng, 300) * 3, sample(rng, 300), sample(rng, 300))
    assert found.z > 5
    assert found.close.p > 0.01


def test_by_hand():
    """Training at 0. Held-out at 1, 2, 3, 4; generated at 0.5, 1.5, 1.6, 5. Level 0.4: the threshold is the 2nd."""
    column = [np.array(values)[:, None] for values in ([0.5, -1.5, 1.6, 5.0], [1.0, -2.0, 3.0, 4.0], [0.0])]
    found = memorisation(*column, level=0.4)
    assert found.close.threshold == 2.0
    assert found.close.share == 3 / 4
    assert found.close.expected == 2 / 5
    # Of the 70 orders of 4 + 4, those with 3 or 4 generated before the second held-out: 4 places x 3 + 5 x 1.
    assert found.close.p == pytest.approx((4 * 3 + 5 * 1) / 70)
    # Pairs with a larger generated distance: 0 + 1 + 1 + 4 of 16.
    assert found.z == pytest.approx((6 - 8) / math.sqrt(16 / 12 * 9))
    assert found.p == pytest.approx(stats.norm.cdf(found.z))
    assert found.generated.median == pytest.approx(1.55)


def test_rank_sum_is_that_of_scipy_with_ties():
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 6, 40).astype(float), rng.integers(1, 7, 55).astype(float)
    p = stats.mannwhitneyu(x, y, alternative="less", method="asymptotic", use_continuity=False).pvalue
    assert stats.norm.cdf(rank_sum_z(x, y)) == pytest.approx(p)
    assert rank_sum_z(np.ones(3), np.ones(4)) == 0.0


def test_no_events():
    rng = np.random.default_rng(6)
    for sizes in ((0, 5, 5), (5, 0, 5), (5, 5, 0)):
        with pytest.raises(ValueError, match="no events"):
            memorisation(*(sample(rng, n) for n in sizes))
