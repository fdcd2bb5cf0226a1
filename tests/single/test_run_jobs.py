"""The Slurm jobs of a run: which lives, a second one, its log, its end. Slurm's programs are played."""

from __future__ import annotations

import json
import os
import time

import pytest

from hpcgan.commands import cli
from hpcgan.errors import HpcganError, InputError
from hpcgan.launch import run_status, slurm
from hpcgan.runs.directory import RunDirectory


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """A Slurm that says what files say, and notes what it is told: `queue` has squeue's lines, `ended` scontrol's."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    scripts = {
        "squeue": f"cat {folder}/queue",
        "scontrol": f'echo scontrol "$@" >> {folder}/told; [ "$1" != show ] || cat {folder}/ended '
        '|| { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }',
        "scancel": f'echo scancel "$@" >> {folder}/told',
        "sbatch": f'echo sbatch "$@" >> {folder}/told; echo 99',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    (folder / "queue").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def run(tmp_path):
    made = RunDirectory(tmp_path / "runs" / "a run")
    made.path.mkdir(parents=True)
    return made


def submitted(run, *numbers, **more):
    with open(run.jobs_file, "a") as file:
        for i, number in enumerate(numbers):
            file.write(json.dumps({"job": number, "time": 1000.0 + i, "script": "#!/bin/bash", **more}) + "\n")


def trained(run, number, state="interrupted", when=2000.0):
    run.attempts.mkdir(exist_ok=True)
    (run.attempts / "0001.json").write_text(json.dumps({"state": state}))
    run.provenance_file.write_text(json.dumps({"slurm_job": number, "time": when}) + "\n")


def state_of(run):
    (found,) = run_status.list_runs(run.path)
    return found.job, found.state, found.reason


def queue(scheduler, *lines):
    (scheduler / "queue").write_text("".join(f"{line}\n" for line in lines))


def told(scheduler):
    path = scheduler / "told"
    return [line for line in path.read_text().splitlines() if " show " not in line] if path.exists() else []


# --- how a run stands -------------------------------------------------------------------------------------


def test_the_living_job_is_shown_not_the_newest_entry(scheduler, run):
    submitted(run, "11", "12")
    trained(run, "11", "running")
    queue(scheduler, "12|PENDING|1:00|(Dependency)", "11|RUNNING|10:00|n1", "13|RUNNING|1:00|n2")
    assert state_of(run) == ("11", "running", "n1")
    queue(scheduler, "12|PENDING|1:00|(Dependency)")
    assert state_of(run) == ("12", "pending", "(Dependency)")
    queue(scheduler, "11|COMPLETING|0:00|n1", "12|PENDING|1:00|(Dependency)")
    assert state_of(run)[:2] == ("12", "pending")


@pytest.mark.parametrize(
    ("ended", "state", "reason"),
    [
        ("JobState=CANCELLED Reason=None ExitCode=0:0", "cancelled", "job 12: cancelled before the training began"),
        ("JobState=FAILED Reason=None ExitCode=1:0", "failed", "job 12: failed before the training began"),
        (None, "cancelled", "job 12 was cancelled or ended before its start"),
    ],
)
def test_a_job_that_never_trained_is_not_new(scheduler, run, ended, state, reason):
    submitted(run, "12")
    if ended:
        (scheduler / "ended").write_text(ended + "\n")
    assert state_of(run) == ("12", state, reason)


def test_a_run_that_trained_before_keeps_its_state_beside_the_cancelled_job(scheduler, run):
    submitted(run, "12")
    trained(run, "11", when=500.0)
    assert state_of(run) == ("12", "interrupted", "job 12 was cancelled or ended before its start")


def test_a_job_that_trained_and_ended_is_known_by_its_attempt(scheduler, run):
    submitted(run, "12")
    trained(run, "12", "done")
    assert state_of(run) == ("12", "done", "")


def test_without_slurm_a_submitted_run_is_submitted(run, monkeypatch, tmp_path):
    submitted(run, "12")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert state_of(run) == ("12", "submitted", "Slurm does not answer here")


# --- a second job -----------------------------------------------------------------------------------------


def test_a_second_job_of_a_run_is_refused_by_the_name_of_the_first(scheduler, run):
    submitted(run, "11", "12")
    queue(scheduler, "12|PENDING|1:00|(Dependency)", "11|RUNNING|10:00|n1")
    there = run_status.living(run)
    assert {entry.job for entry in there} == {"11", "12"}
    with pytest.raises(InputError, match=r"job 11 of this run is running \(there since .*--again.*--cancel") as error:
        run_status.refuse_second(run, there)
    assert "\n" not in str(error.value)
    queue(scheduler, "11|COMPLETING|0:00|n1")
    run_status.refuse_second(run, run_status.living(run))


def test_a_scheduler_that_does_not_answer_is_no_empty_queue(scheduler, run):
    submitted(run, "11")
    (scheduler / "queue").unlink()
    with pytest.raises(HpcganError, match="squeue"):
        run_status.living(run)


def test_two_submit_at_the_same_time(run):
    with run_status.submitting(run):
        with pytest.raises(InputError, match="another 'hpcgan submit'"), run_status.submitting(run):
            pass
        assert os.listdir(run.path) == [".submitting"]
    assert os.listdir(run.path) == []


def test_what_a_killed_submission_left_behind_keeps_nobody_out(run):
    file = run.path / ".submitting"
    file.touch()
    old = time.time() - 10 * slurm.TIMEOUT
    os.utime(file, (old, old))
    with run_status.submitting(run):
        assert file.stat().st_mtime > old
    assert os.listdir(run.path) == []


# --- the end of a run's jobs ------------------------------------------------------------------------------


def test_cancel_takes_what_waits_and_asks_what_runs_for_a_checkpoint(scheduler, run, capsys):
    submitted(run, "11", "12")
    submitted(RunDirectory(run.path), "13")
    queue(scheduler, "11|RUNNING|10:00|n1", "12|PENDING|1:00|(Dependency)", "99|RUNNING|1:00|n2")
    assert cli.main(["jobs", str(run.path), "--cancel"]) == 0
    assert told(scheduler) == [
        "scancel 12", "scontrol update JobId=11 Requeue=0", "scancel --signal=USR1 --batch 11",
    ]  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "job 12 was waiting: it is taken out of the queue"
    assert said[1].startswith("job 11 is asked to write a checkpoint and to end")
    queue(scheduler, "11|RUNNING|10:00|n1")
    assert cli.main(["jobs", str(run.path), "--cancel"]) == 0
    assert told(scheduler)[3:] == ["scancel 11"]
    queue(scheduler)
    capsys.readouterr()
    assert cli.main(["jobs", str(run.path), "--cancel"]) == 0
    assert capsys.readouterr().out == f"no job of {run.path} is in the queue\n"


def test_cancel_of_a_job_that_ends_meanwhile(scheduler, run):
    submitted(run, "11")
    queue(scheduler, "11|RUNNING|0:01|n1")
    (scheduler / "scancel").write_text(
        "#!/bin/sh\necho 'scancel: error: job id 11: Invalid job id specified' >&2; exit 1\n"
    )
    assert run_status.cancel(run) == ["job 11 has just ended by itself"]


def test_a_script_of_the_users_own_is_cancelled_by_its_end(scheduler, run):
    """SIGUSR1 would end its shell, and the ranks with it."""
    trained(run, "11", "running")
    run.config_file.touch()
    queue(scheduler, "11|RUNNING|10:00|n1")
    assert "KillWait" in run_status.cancel(run)[0]
    assert told(scheduler) == ["scancel 11"]


def test_the_newest_log_and_where_it_is(run, capsys):
    submitted(run, "11")
    old, new = run.path / "slurm-11.out", run.path / "slurm-9.out"
    old.write_text("old\n")
    os.utime(old, (1, 1))
    new.write_bytes(b"".join(b"line %d\n" % i for i in range(300)) + b"\xff end\n")
    assert cli.main(["jobs", str(run.path), "--log"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"log: {new} (the last 200 lines of 301)"
    assert lines[1] == "line 101"
    assert lines[-1].endswith(" end")
    assert len(lines) == 201


@pytest.mark.parametrize("option", ["--log", "--cancel"])
def test_log_and_cancel_are_of_one_run(run, capsys, option):
    submitted(run, "11")
    assert cli.main(["jobs", str(run.path.parent), option]) == 2
    assert f"{option} is for one run directory" in capsys.readouterr().err


def test_a_run_without_a_log_is_said(run, capsys):
    submitted(run, "11")
    assert cli.main(["jobs", str(run.path), "--log"]) == 2
    assert "no job has written a log there" in capsys.readouterr().err


# --- what time went to ------------------------------------------------------------------------------------


def test_goodput_is_a_column_and_its_parts_are_in_json(scheduler, run, capsys):
    trained(run, "11", "done")
    run.provenance_file.write_text('{"attempt": 1, "born": 100.0, "cores": 36, "slurm_job": "11"}\n')
    metrics(
        run,
        {"kind": "start", "attempt": 1, "time": 110.0, "step": 0},
        {"kind": "begun", "attempt": 1, "time": 120.0},
        {"kind": "end", "attempt": 1, "time": 200.0, "outcome": "done"},
    )
    submitted(run, "11", time=40.0)
    assert cli.main(["jobs", str(run.path), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    spent = {part: seconds for part, seconds in entry["time"]["seconds"].items() if seconds}
    assert spent == {"queue": 60.0, "startup": 20.0, "steps": 80.0}
    assert (entry["time"]["goodput"], entry["time"]["core_hours"]) == (0.8, 1.0)
    assert cli.main(["jobs", str(run.path)]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert "goodput" in head
    assert "80%" in line


def test_a_run_that_waits_for_its_first_start_has_no_goodput(scheduler, run, capsys):
    submitted(run, "11")
    queue(scheduler, "11|PENDING|1:00|(Priority)")
    assert cli.main(["jobs", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["time"] is None


# --- what starts are good for -----------------------------------------------------------------------------


def metrics(run, *records):
    with open(run.metrics_file, "a") as file:
        file.writelines(json.dumps({"step": 1, **record}) + "\n" for record in records)


def test_seconds_of_starting_and_of_training(run):
    assert run_status.startup_seconds(run) is None
    assert run_status.trained_seconds(run, 0) == 0.0
    metrics(
        run,
        {"kind": "start", "attempt": 1, "time": 0.0},
        {"kind": "begun", "attempt": 1, "time": 30.0, "startup_s": 40.0},
        {"kind": "end", "attempt": 1, "time": 50.0, "outcome": "interrupted"},
        {"kind": "start", "attempt": 2, "time": 100.0},
        {"kind": "begun", "attempt": 2, "time": 110.0, "startup_s": 15.0},
        {"kind": "epoch", "attempt": 2, "time": 117.0, "epoch": 1},
        {"kind": "start", "attempt": 3, "time": 200.0},  # killed before its first step
    )
    assert run_status.startup_seconds(run) == 15.0
    assert run_status.trained_seconds(run, 0) == 27.0
    assert run_status.trained_seconds(run, 1) == 7.0
    assert run_status.trained_seconds(run, 2) == 0.0


@pytest.mark.parametrize(
    ("trained", "hopeless"),
    [((1, 2, 3), True), ((1, 60, 3), False), ((3, 3), False), ((60, 1, 2, 3), True), ((1, 2, 3, 60), False)],
)
def test_three_starts_in_a_row_that_trained_less_than_they_took(run, monkeypatch, trained, hopeless):
    clock = iter(range(0, 10_000, 100))  # each start takes 100 s
    monkeypatch.setattr(run_status.time, "monotonic", lambda: next(clock))
    said = None
    for seconds in trained:
        monkeypatch.setattr(run_status, "trained_seconds", lambda run, after, answer=float(seconds): answer)
        run_status.Shares(run, "6").hopeless()  # another job of the same run
        said = run_status.Shares(run, "7").hopeless()
    if hopeless:
        assert said.startswith("3 starts of job 7 in a row trained 1 s of 100 s, 2 s of 100 s, 3 s of 100 s")
        assert "longer --time" in said
    else:
        assert said is None
