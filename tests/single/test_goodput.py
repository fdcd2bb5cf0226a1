"""What the time of a run went to, of records that are written by hand: every number below is worked out on paper."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.runs import goodput
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.goodput import PARTS, PHASES, time_spent


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def write(run, metrics, provenance=(), jobs=()):
    for file, entries in ((run.metrics_file, metrics), (run.provenance_file, provenance), (run.jobs_file, jobs)):
        file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def record(kind, attempt, step, time, **values):
    return {"kind": kind, "attempt": attempt, "step": step, "time": time, **values}


def step(attempt, number, time):
    return record("step", attempt, number, time, samples=4 * number, epoch=number / 100)


def parts(spent):
    """Those parts that took any time."""
    return {part: pytest.approx(seconds) for part, seconds in spent.seconds.items() if seconds}


def test_a_run_without_records_has_spent_nothing(run):
    assert time_spent(run) is None


UNDISTURBED = [
    record("start", 1, 0, 1010.0, ranks=2),
    record("begun", 1, 1, 1020.0, startup_s=20.0, phases={"imports": 6.0, "data": 3.0, "state": 1.0, "scoring": 4.0}),
    step(1, 50, 1070.0),
    record("epoch", 1, 100, 1130.0, epoch=1, scoring_seconds=10.0),
    record("checkpoint", 1, 100, 1133.0, seconds=2.0),
    step(1, 150, 1183.0),
    record("epoch", 1, 200, 1243.0, epoch=2, scoring_seconds=12.0),
    record("checkpoint", 1, 200, 1246.0, seconds=3.0),
    record("end", 1, 200, 1246.5, outcome="done"),
]


def test_an_undisturbed_run(run):
    write(run, UNDISTURBED, [{"attempt": 1, "born": 1000.0, "cores": 8}])
    spent = time_spent(run)
    # 246.5 s in all; 50 + 50 (to the epoch's last step) + 1 (samples written) + 50 + 48 + 0 + 0.5
    assert parts(spent) == {"startup": 20.0, "scoring": 22.0, "checkpoint": 5.0, "steps": 199.5}
    assert spent.whole == spent.held == 246.5
    assert spent.goodput == pytest.approx(199.5 / 246.5)
    assert spent.startup == {"imports": 6.0, "data": 3.0, "state": 1.0, "scoring": 4.0, "first_step": 6.0}
    assert spent.core_seconds == pytest.approx(8 * 246.5)
    assert (spent.attempts, spent.failures) == (1, 0)


KILLED_TWICE = [
    record("start", 1, 0, 105.0),
    record("begun", 1, 1, 110.0),
    record("epoch", 1, 100, 215.0, epoch=1, scoring_seconds=5.0),
    record("checkpoint", 1, 100, 217.0, seconds=2.0),
    step(1, 150, 267.0),  # redone: 50 s
    record("start", 2, 100, 305.0),
    record("begun", 2, 101, 311.0),
    step(2, 150, 360.0),
    record("epoch", 2, 200, 415.0, epoch=2, scoring_seconds=5.0),  # recorded, and its checkpoint never written
    step(2, 250, 470.0),
    record("start", 3, 100, 506.0),
    record("begun", 3, 101, 512.0),
    step(3, 150, 561.0),
    record("epoch", 3, 200, 616.0, epoch=2, scoring_seconds=5.0),
    record("checkpoint", 3, 200, 618.0, seconds=2.0),
    record("end", 3, 200, 618.0, outcome="done"),
]


def test_a_run_that_was_killed_twice(run):
    write(run, KILLED_TWICE, [{"attempt": n, "born": born} for n, born in ((1, 100.0), (2, 300.0), (3, 500.0))])
    spent = time_spent(run)
    assert parts(spent) == {
        "startup": 10.0 + 11.0 + 12.0,
        "steps": 100.0 + 99.0,
        "scoring": 10.0,
        "checkpoint": 4.0,
        "redone": 50.0 + (470.0 - 311.0),  # all of the second attempt's, its scoring as well
        "down": (300.0 - 267.0) + (500.0 - 470.0),
    }
    assert spent.whole == 518.0
    assert (spent.attempts, spent.failures) == (3, 2)
    # Nobody knows who started it again, or whether anything was held in between.
    assert spent.core_seconds == pytest.approx(167.0 + 170.0 + 118.0)


def test_a_checkpoint_beside_the_steps_counts_what_the_training_waited_for_it(run):
    """Copied in 1 s before step 50; written while 50 more are taken; waited for another 5 s."""
    beside = [
        record("start", 1, 0, 0.0),
        record("begun", 1, 1, 10.0, startup_s=10.0),
        step(1, 50, 60.0),
        step(1, 100, 110.0),
        record("checkpoint", 1, 49, 112.0, seconds=6.0, write_seconds=55.0),
        record("end", 1, 102, 113.0, outcome="done"),
    ]
    write(run, beside, [{"attempt": 1, "born": 0.0}])
    assert parts(time_spent(run)) == {"startup": 10.0, "checkpoint": 6.0, "steps": 97.0}


def test_a_checkpoint_in_the_middle_of_an_epoch_is_where_the_lost_time_begins(run):
    metrics = [
        record("start", 1, 0, 0.0),
        record("begun", 1, 1, 10.0),
        record("checkpoint", 1, 70, 80.0, seconds=1.0),
        step(1, 100, 110.0),
        record("start", 2, 70, 150.0),
    ]
    write(run, metrics)
    assert parts(time_spent(run)) == {
        "startup": 10.0, "steps": 69.0, "checkpoint": 1.0, "redone": 30.0, "down": 40.0,
    }  # fmt: skip


def test_jobs_of_a_chain_wait_in_the_queue_and_the_supervisor_tries_again(run):
    metrics = [
        record("start", 1, 0, 110.0),
        record("begun", 1, 1, 120.0),
        record("end", 1, 40, 160.0, outcome="interrupted"),  # the time limit: queued again
        record("start", 2, 40, 205.0),
        record("begun", 2, 41, 210.0),  # killed; the supervisor starts the next one in the same job
        record("start", 3, 40, 225.0),
        record("begun", 3, 41, 230.0),
        record("end", 3, 60, 250.0, outcome="stopped"),
        record("start", 4, 60, 410.0),  # submitted again at 300 s
        record("begun", 4, 61, 420.0),
        record("end", 4, 100, 460.0, outcome="done"),
    ]
    places = [(1, 100.0, "7", 0), (2, 200.0, "7", 1), (3, 220.0, "7", 1), (4, 400.0, "8", 0)]
    provenance = [
        {"attempt": n, "born": born, "cores": 4, "slurm_job": job, "slurm_restarts": restarts}
        for n, born, job, restarts in places
    ]
    jobs = [{"job": "7", "time": 30.0, "script": "x"}, {"job": "8", "time": 300.0, "script": "x"}]
    write(run, metrics, provenance, jobs)
    spent = time_spent(run)
    assert parts(spent) == {
        "queue": (100.0 - 30.0) + (200.0 - 160.0) + (400.0 - 300.0),
        "idle": 300.0 - 250.0,
        "startup": 20.0 + 10.0 + 10.0 + 20.0,
        "steps": 40.0 + 20.0 + 40.0,
        "down": 10.0,
    }
    assert spent.whole == 430.0
    assert spent.held == 170.0
    assert spent.failures == 1
    assert spent.core_seconds == pytest.approx(4 * (60.0 + 10.0 + 10.0 + 30.0 + 60.0))


def test_a_pause_that_outlives_a_restart(run):
    command = {"id": "1", "rates": {}}
    metrics = [
        record("start", 1, 0, 0.0),
        record("begun", 1, 1, 10.0),
        record("command", 1, 30, 40.0, name="pause", paused=True, **command),
        record("checkpoint", 1, 30, 41.0, seconds=1.0),
        record("end", 1, 30, 100.0, outcome="interrupted"),
        record("start", 2, 30, 205.0),
        record("command", 2, 30, 300.0, name="resume", paused=False, **command),
        record("checkpoint", 2, 30, 301.0, seconds=1.0),
        record("begun", 2, 31, 306.0),
        record("end", 2, 50, 326.0, outcome="done"),
    ]
    write(run, metrics, [{"attempt": 1, "born": 0.0}, {"attempt": 2, "born": 200.0}])
    assert parts(time_spent(run)) == {
        "startup": 10.0 + 5.0 + 5.0,
        "steps": 30.0 + 20.0,
        "checkpoint": 2.0,
        "paused": 59.0 + 95.0,
        "idle": 100.0,
    }


@pytest.mark.parametrize(
    ("outcome", "kind", "between", "failures"),
    [("failed", "environment", "down", 1), ("failed", "training", "down", 0), ("interrupted", None, "idle", 0)],
)
def test_failures_are_those_that_another_try_may_not_have(run, outcome, kind, between, failures):
    end = {"outcome": outcome, "failure": None if kind is None else {"kind": kind, "text": "x", "rank": 0}}
    metrics = [record("start", 1, 0, 0.0), record("end", 1, 0, 5.0, **end), record("start", 2, 0, 25.0)]
    metrics += [record("end", 2, 0, 25.0, outcome="done")]
    write(run, metrics)
    spent = time_spent(run)
    assert spent.seconds[between] == 20.0
    assert spent.failures == failures


def test_a_run_that_lives_goes_on_until_now(run):
    write(run, UNDISTURBED[:3], [{"attempt": 1, "born": 1000.0}])
    assert parts(time_spent(run, 1100.0)) == {"startup": 20.0, "steps": 80.0}
    assert time_spent(run, 1100.0).failures == 0
    assert parts(time_spent(run)) == {"startup": 20.0, "steps": 50.0}
    assert time_spent(run).failures == 1  # nobody says that it lives
    write(run, UNDISTURBED[:1], [{"attempt": 1, "born": 1000.0}])
    assert parts(time_spent(run, 1100.0)) == {"startup": 100.0}


def test_phases_of_a_start_that_was_killed_are_those_of_its_provenance(run):
    phases = {"imports": 4.0, "data": 2.0, "something": 9.0}
    write(run, UNDISTURBED[:1], [{"attempt": 1, "born": 1000.0, "phases": phases}])
    assert time_spent(run).startup == {"imports": 4.0, "data": 2.0, "state": 0.0, "scoring": 0.0, "first_step": 4.0}


def test_every_part_is_explained_and_has_a_place_in_json(run):
    write(run, UNDISTURBED, [{"attempt": 1, "born": 1000.0}])
    plain = time_spent(run).plain()
    assert list(plain["seconds"]) == list(PARTS)
    assert list(plain["startup"]) == list(PHASES)
    assert plain["core_hours"] == pytest.approx(2 * 246.5 / 3600)  # a core a rank where nothing says how many
    assert json.loads(json.dumps(plain)) == plain


KINDS = {
    "start": {},
    "begun": {},
    "step": {"samples": 1, "epoch": 0.5},
    "epoch": {"epoch": 1, "scoring_seconds": 3.0},
    "checkpoint": {"seconds": 4.0},
    "command": {"id": "1", "name": "pause", "paused": True},
    "end": {"outcome": "failed"},
}
entry = st.builds(
    lambda kind, attempt, number, time: record(kind, attempt, number, time, **KINDS[kind]),
    st.sampled_from(sorted(KINDS)), st.integers(1, 3), st.integers(0, 5), st.floats(0, 100),
)  # fmt: skip


@given(st.lists(entry, min_size=1, max_size=12), st.lists(st.floats(0, 100), max_size=3))
def test_the_parts_of_any_records_add_up_to_the_whole_time(tmp_path_factory, entries, births):
    """Also of records in any order, as clocks of hosts differ: from the first birth to the latest moment."""
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    write(run, entries, [{"attempt": n, "born": born} for n, born in enumerate(births, 1)])
    attempts = goodput._attempts(run)
    spent = time_spent(run)
    latest = max([entry["time"] for entry in entries] + [attempt.born for attempt in attempts])
    assert spent.whole == pytest.approx(latest - attempts[0].born)
    assert min(spent.seconds.values()) >= 0.0
    assert sum(spent.startup.values()) == pytest.approx(spent.seconds["startup"])
