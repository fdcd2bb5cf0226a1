import math

import pytest

from hpcgan import config, schedule
from hpcgan.config import RateChange
from hpcgan.errors import InputError
from hpcgan.methods.settings import GanSettings
from hpcgan.schedule import Rates


def rate(epochs_done, times=1, **settings):
    """Of a generator whose base rate is 1."""
    training = GanSettings(generator={"learning_rate": 1.0}, schedule=settings)
    return Rates(training, global_batch=64 * times, rank_batch=64).at(0, epochs_done)["generator"]


def test_constant_is_the_base_rate():
    assert Rates(GanSettings()).at(0, 17.3) == {"generator": 2e-4, "discriminator": 1e-4}


@pytest.mark.parametrize(("rule", "expected"), [("none", 1.0), ("sqrt", 4.0), ("linear", 16.0)])
def test_scaling_rules(rule, expected):
    assert rate(0.0, times=16, scaling=rule) == pytest.approx(expected)


def test_warm_up_goes_from_the_one_rank_rate_to_the_scaled_one():
    rates = [rate(e, times=4, scaling="linear", warmup_epochs=2.0) for e in (0, 1, 2, 3)]
    assert rates == pytest.approx([1.0, 2.5, 4.0, 4.0])


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("linear", [1, 1, 0.55, 0.1, 0.1]), ("cosine", [1, 1, 0.55, 0.1, 0.1])],
)
def test_decay_at_known_points(decay, expected):
    rates = [rate(e, decay=decay, decay_start=10, decay_epochs=20, final_fraction=0.1) for e in (0, 10, 15, 20, 25)]
    assert rates == pytest.approx(expected)


def test_cosine_a_quarter_of_the_way():
    assert rate(2.5, decay="cosine", decay_epochs=10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_of_several_changes_the_last_that_holds_counts_and_commands_come_after_the_configuration():
    changes = [{"step": 5, "rates": {"generator": 0.01}}, {"step": 9, "rates": {"discriminator": 0.02}}]
    rates = Rates(GanSettings(schedule={"changes": changes}))
    sent = [RateChange(step=7, rates={"generator": 0.03})]
    assert [rates.base(step, sent)["generator"] for step in (4, 5, 6, 7, 9)] == [2e-4, 0.01, 0.01, 0.03, 0.03]
    assert [rates.base(step)["discriminator"] for step in (8, 9)] == [1e-4, 0.02]


def test_each_rollback_lowers_all_rates():
    rates = Rates(GanSettings(rollback={"rate_factor": 0.25}))
    assert rates.at(0, 0.0, rollbacks=2)["generator"] == pytest.approx(2e-4 / 16)


def test_due():
    assert [schedule.due(i, 3, 8) for i in range(1, 9)] == [False, False, True, False, False, True, False, True]
    assert not any(schedule.due(i, 0, 8) for i in range(1, 9))


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("sqrt", 8.0), ("linear", 64.0)])
def test_a_large_batch_of_one_rank_has_the_rates_of_as_many_ranks(rule, factor):
    ranks = GanSettings(batch_size=64, schedule={"scaling": rule})
    parts = GanSettings(batch_size=4096, accumulation=64, schedule={"scaling": rule, "reference_batch": 64})
    on_64 = Rates(ranks, 64 * 64, 64).at(0, 0.0)
    assert on_64 == {"generator": 2e-4 * factor, "discriminator": 1e-4 * factor}
    assert Rates(parts, 4096, 4096).at(0, 0.0) == on_64


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
        rates = Rates(settings, 256, 256 // ranks).at(0, 0.0)
        assert rates == {"generator": 4e-4, "discriminator": 2e-4}
