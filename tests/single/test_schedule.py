import math

import pytest

from hpcgan import config, schedule
from hpcgan.config import TrainingConfig
from hpcgan.data.sharding import Sharding
from hpcgan.errors import InputError
from hpcgan.training.loop import learning_rates


def test_constant_is_the_base_rate():
    assert schedule.learning_rate(2e-4, 17.3) == 2e-4


@pytest.mark.parametrize(("rule", "expected"), [("none", 1.0), ("sqrt", 4.0), ("linear", 16.0)])
def test_scaling_rules(rule, expected):
    assert schedule.learning_rate(1.0, 0.0, times=16, scaling=rule) == pytest.approx(expected)


def test_warm_up_goes_from_the_one_rank_rate_to_the_scaled_one():
    rates = [schedule.learning_rate(1.0, e, times=4, scaling="linear", warmup_epochs=2.0) for e in (0, 1, 2, 3)]
    assert rates == pytest.approx([1.0, 2.5, 4.0, 4.0])


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("linear", [1, 1, 0.55, 0.1, 0.1]), ("cosine", [1, 1, 0.55, 0.1, 0.1])],
)
def test_decay_at_known_points(decay, expected):
    rates = [
        schedule.learning_rate(1.0, e, decay=decay, decay_start=10, decay_epochs=20, final_fraction=0.1)
        for e in (0, 10, 15, 20, 25)
    ]
    assert rates == pytest.approx(expected)


def test_cosine_a_quarter_of_the_way():
    rate = schedule.learning_rate(1.0, 2.5, decay="cosine", decay_epochs=10)
    assert rate == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_due():
    assert [schedule.due(i, 3, 8) for i in range(1, 9)] == [False, False, True, False, False, True, False, True]
    assert not any(schedule.due(i, 0, 8) for i in range(1, 9))


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("sqrt", 8.0), ("linear", 64.0)])
def test_a_large_batch_of_one_rank_has_the_rates_of_as_many_ranks(rule, factor):
    ranks = TrainingConfig(batch_size=64, schedule={"scaling": rule})
    parts = TrainingConfig(batch_size=4096, accumulation=64, schedule={"scaling": rule, "reference_batch": 64})
    on_64 = learning_rates(ranks, 0.0, Sharding(9000, 64, 0, 64, seed=1), 0)
    assert on_64 == {"generator": 2e-4 * factor, "discriminator": 1e-4 * factor}
    assert learning_rates(parts, 0.0, Sharding(9000, 4096, 0, 1, seed=1), 0) == on_64


def test_a_fixed_global_batch_is_scaled_from_a_reference_only():
    raw = {
        "problem": "rpv",
        "data": {"path": "data"},
        "training": {"global_batch_size": 256, "schedule": {"scaling": "sqrt"}},
    }
    with pytest.raises(InputError, match=r"set it to none, or training\.schedule\.reference_batch"):
        config.load(raw)
    settings = config.load(raw, ["training.schedule.reference_batch=64"]).training
    for ranks in (1, 2, 4):
        rates = learning_rates(settings, 0.0, Sharding(9000, 256 // ranks, 0, ranks, seed=1), 0)
        assert rates == {"generator": 4e-4, "discriminator": 2e-4}
