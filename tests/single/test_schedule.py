import math

import pytest

from hpcgan import schedule


def test_constant_is_the_base_rate():
    assert schedule.learning_rate(2e-4, 17.3) == 2e-4


@pytest.mark.parametrize(("rule", "expected"), [("none", 1.0), ("sqrt", 4.0), ("linear", 16.0)])
def test_scaling_rules(rule, expected):
    assert schedule.learning_rate(1.0, 0.0, size=16, scaling=rule) == pytest.approx(expected)


def test_warm_up_goes_from_the_one_rank_rate_to_the_scaled_one():
    rates = [schedule.learning_rate(1.0, e, size=4, scaling="linear", warmup_epochs=2.0) for e in (0, 1, 2, 3)]
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
