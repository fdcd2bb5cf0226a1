"""When checkpoints are due: Young's and Daly's interval, and what it is made of."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.config import CheckpointConfig
from hpcgan.runs.directory import RunDirectory
from hpcgan.training import pace
from hpcgan.training.pace import Pace, interval


def test_known_intervals():
    """C = 50 s, M = 10 000 s: Young's 1000 s times 1 + 1/60 + 1/3600, less the checkpoint."""
    assert interval(50.0, 10_000.0) == pytest.approx(1000.0 * (1 + 1 / 60 + 1 / 3600) - 50.0)
    assert interval(1e-6, 1e6) == pytest.approx(math.sqrt(2.0), rel=1e-5)  # Young's
    assert interval(30.0, 10.0) == 10.0


def whole_time(between, cost, mtbf):
    """Daly's model of failures at a constant rate (eq. 13), without restarts: s for a second of training."""
    return mtbf * np.expm1((between + cost) / mtbf) / between


@given(st.floats(1e-3, 100.0), st.floats(0.6, 1e4))
def test_no_other_interval_saves_two_in_a_thousand(cost, ratio):
    """The exact model has no closed minimum; the formula loses little against the best of a fine grid."""
    mtbf = cost * ratio
    others = interval(cost, mtbf) * np.geomspace(0.05, 20.0, 4001)
    assert whole_time(interval(cost, mtbf), cost, mtbf) < 1.002 * whole_time(others, cost, mtbf).min()


class Time:
    """A clock that is set."""

    def __init__(self, now=1000.0):
        self.now = now

    def monotonic(self):
        return self.now

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Time()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def test_without_a_setting_none_is_ever_due(clock, tmp_path):
    one = Pace(CheckpointConfig(), RunDirectory(tmp_path))
    clock.now += 1e9
    assert not one.due()


def test_seconds_count_from_the_end_of_the_last_checkpoint_whatever_it_was_for(clock, tmp_path):
    one = Pace(CheckpointConfig(every=60.0), RunDirectory(tmp_path))
    clock.now += 59.0
    assert not one.due()
    one.saved(5.0)
    clock.now += 59.0
    assert not one.due()
    clock.now += 1.0
    assert one.due()


def test_auto_takes_the_cost_that_was_measured(clock, tmp_path):
    one = Pace(CheckpointConfig(every="auto", mtbf=10_000.0), RunDirectory(tmp_path))
    assert one.interval == pytest.approx(interval(1.0, 10_000.0))  # before any is known
    for seconds in (1.0, 40.0, 50.0, 60.0, 45.0, 55.0):  # the last five count
        one.saved(seconds)
    assert one.interval == pytest.approx(interval(50.0, 10_000.0))


def write(run, *metrics):
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in metrics))


def test_auto_takes_time_between_failures_and_cost_from_the_records_of_the_run(clock, tmp_path):
    run = RunDirectory(tmp_path)
    write(
        run,
        {"kind": "start", "attempt": 1, "step": 0, "time": 0.0},
        {"kind": "checkpoint", "attempt": 1, "step": 9, "time": 300.0, "seconds": 2.0},  # killed
        {"kind": "start", "attempt": 2, "step": 9, "time": 400.0},
        {"kind": "checkpoint", "attempt": 2, "step": 19, "time": 700.0, "seconds": 4.0},  # killed
        {"kind": "start", "attempt": 3, "step": 19, "time": 800.0},
    )
    one = Pace(CheckpointConfig(every="auto"), run)
    assert one.mtbf == pytest.approx(800.0 / 2)  # processes ran for 300 s, 300 s and 200 s so far
    assert one.interval == pytest.approx(interval(3.0, 400.0))
    clock.now += 500.0  # without another failure
    assert one.mtbf == pytest.approx(1300.0 / 2)


def test_a_run_without_failures_is_taken_to_have_one_a_day_or_fewer(clock, tmp_path):
    one = Pace(CheckpointConfig(every="auto"), RunDirectory(tmp_path))
    assert one.mtbf == 86400.0
    clock.now += 3 * 86400.0
    assert one.mtbf == 3 * 86400.0
