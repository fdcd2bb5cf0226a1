"""Runs in trackers: what is told, once, over attempts that were killed, and by a process that nothing waits for."""

import os
import signal
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trackers import BATCH, Notebook, WrittenRun, heard

from hpcgan.commands.cli import main
from hpcgan.config import TrackingConfig
from hpcgan.errors import InputError
from hpcgan.runs.curves import KEEP, point, settled
from hpcgan.runs.records import Reader
from hpcgan.system.files import file_lock
from hpcgan.tracking import process
from hpcgan.tracking.follower import Follower
from hpcgan.tracking.memory import Entry, Memory
from hpcgan.tracking.mirror import Mirror
from hpcgan.tracking.mlflow_runs import clean, without_password


@pytest.fixture
def run(tmp_path):
    return WrittenRun(tmp_path)


@pytest.fixture
def mirror(run, tmp_path):
    return lambda tracker=Notebook: Mirror(
        run.directory,
        tracker(TrackingConfig(to="trackers:Notebook", uri=str(tmp_path)), run.directory.path),
        Memory(run.directory.path / "tracking", "trackers:Notebook"),
    )


def points(folder):
    return [(samples // BATCH, values["step/d"]) for call, samples, values in
            (line for line in heard(folder) if line[0] == "point")]  # fmt: skip


def calls(folder, name):
    return [line[1:] for line in heard(folder) if line[0] == name]


def shown(reader):
    return [point(record) for record in settled(reader.read())]


def test_points_stay_once_a_checkpoint_holds_them(run):
    reader = Reader(run.directory.metrics_file, *KEEP)
    assert shown(reader) == []
    run.attempt(0, [10, 20, 30], checkpoints=[20])
    first = shown(reader)
    assert [point.samples for point in first] == [40, 80]
    assert first[0].values == {"step/d": 1.01}  # what is not known is left out
    run.attempt(20, [30, 40], checkpoints=[40])  # step 30 is done again, with another loss
    second = shown(reader)
    assert second[:2] == first
    assert [(p.samples, p.values["step/d"]) for p in second[2:]] == [(120, 2.03), (160, 2.04)]


def test_a_run_that_is_over_is_tracked_to_its_end(run):
    run.attempt(0, [10, 20], checkpoints=[10], end="pruned")
    assert [point.samples for point in shown(Reader(run.directory.metrics_file, *KEEP))] == [40, 80]


def test_three_requeues_are_one_tracked_run_with_one_curve(run, mirror, tmp_path):
    run.attempt(0, [10, 20, 30], checkpoints=[20])  # killed
    mirror().look(alive=False)
    run.attempt(20, [30, 40], checkpoints=[30], end="interrupted")
    mirror().look(alive=False)
    run.attempt(30, [40, 50], checkpoints=[50], end="failed")
    third = mirror()
    third.look(alive=False)
    run.attempt(50, [60], checkpoints=[60], end="done")
    third.look(alive=True)  # by the same process
    assert points(tmp_path) == [(10, 1.01), (20, 1.02), (30, 2.03), (40, 3.04), (50, 3.05), (60, 4.06)]
    assert len(calls(tmp_path, "begin")) == 1
    assert [key for (key,) in calls(tmp_path, "find")] == calls(tmp_path, "begin")[0] * 3
    assert [status for (status,) in calls(tmp_path, "state")] == ["failed", "interrupted", "failed", "finished"]
    assert calls(tmp_path, "discard") == []
    before = heard(tmp_path)
    mirror().look(alive=False)
    assert [line[0] for line in heard(tmp_path)[len(before) :]] == ["find"]  # there is nothing new to tell


def test_what_is_told_of_it(run, mirror, tmp_path):
    run.attempt(0, [10], checkpoints=[10])
    run.directory.samples.mkdir()
    (run.directory.samples / "epoch-0001.h5").write_bytes(b"events")
    (run.directory.samples / ".epoch-0002.h5.tmp").write_bytes(b"half of them")
    one = mirror()
    one.look(alive=True)
    ((parameters, facts),) = calls(tmp_path, "describe")
    assert parameters == {"name": "run", "model.filters": "2"}
    assert facts == {"directory": str(run.directory.path), "attempt": "1", "host": "node7", "ranks": "2"}
    assert [name for name, _ in calls(tmp_path, "file")] == ["config.yaml", "provenance.jsonl", "samples/epoch-0001.h5"]
    run.directory.report.mkdir()
    (run.directory.report / "report.html").write_text("a page")
    (run.directory.samples / "epoch-0001.h5").write_bytes(b"other events")  # by a later attempt
    one.look(alive=True)
    assert calls(tmp_path, "file")[3:] == [["samples/epoch-0001.h5", 12], ["report/report.html", 6]]


def test_a_lost_checkpoint_begins_another_tracked_run(run, mirror, tmp_path):
    run.attempt(0, [10, 20], checkpoints=[10, 20])
    mirror().look(alive=True)
    run.attempt(10, [20], checkpoints=[20], end="done")  # that of step 20 was broken
    mirror().look(alive=False)
    (first,), (second,) = calls(tmp_path, "begin")
    assert first != second
    assert calls(tmp_path, "discard") == [[first]]
    assert points(tmp_path)[2:] == [(10, 1.01), (20, 2.02)]  # those of the second
    mirror().forget()
    mirror().look(alive=False)
    assert calls(tmp_path, "discard") == [[first], [second]]
    assert points(tmp_path)[4:] == [(10, 1.01), (20, 2.02)]


def test_a_tracked_run_that_is_gone_is_made_again(run, mirror, tmp_path):
    run.attempt(0, [10, 20], checkpoints=[20])
    mirror().look(alive=True)
    (tmp_path / "heard.jsonl").unlink()
    mirror().look(alive=True)
    assert points(tmp_path) == [(10, 1.01), (20, 1.02)]
    assert len(calls(tmp_path, "describe")) == 1


def test_a_process_that_was_killed_while_it_made_the_tracked_run_again_loses_no_point(
    run, mirror, tmp_path, monkeypatch
):
    run.attempt(0, [10, 20], checkpoints=[20])
    mirror().look(alive=True)
    (tmp_path / "heard.jsonl").unlink()
    begin = Notebook.begin

    def killed(self, key, started):
        begin(self, key, started)
        raise KeyboardInterrupt

    monkeypatch.setattr(Notebook, "begin", killed)
    with pytest.raises(KeyboardInterrupt):
        mirror().look(alive=True)
    monkeypatch.setattr(Notebook, "begin", begin)
    mirror().look(alive=True)
    assert points(tmp_path) == [(10, 1.01), (20, 1.02)]
    assert len(calls(tmp_path, "begin")) == 1


def test_another_place_has_a_tracked_run_of_its_own(run, mirror, tmp_path):
    run.attempt(0, [10], checkpoints=[10])
    mirror().look(alive=True)
    memory = Memory(run.directory.path / "tracking", "trackers:Notebook")
    memory.write("elsewhere", Entry(points=7))
    mirror().look(alive=True)
    assert points(tmp_path) == [(10, 1.01)]
    assert memory.read()["elsewhere"].points == 7


def test_a_failure_between_points_loses_none(run, mirror, tmp_path, monkeypatch):
    monkeypatch.setattr("hpcgan.tracking.mirror.CHUNK", 1)
    run.attempt(0, [10, 20, 30], checkpoints=[30])
    log = Notebook.log

    def weak(self, chunk):
        if chunk[0].samples == 80:
            raise ConnectionError
        log(self, chunk)

    monkeypatch.setattr(Notebook, "log", weak)
    with pytest.raises(ConnectionError):
        mirror().look(alive=True)
    monkeypatch.setattr(Notebook, "log", log)
    mirror().look(alive=True)
    assert points(tmp_path) == [(10, 1.01), (20, 1.02), (30, 1.03)]


BROKEN = [b"[]", b'{"a": {"points": -1}}', b'{"a": {"key": "../x"}}', b'{"a": {"points": 1.5}}', b'{"a": {"new": 1}}']


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60).filter(lambda content: content.strip() != b"{}"), st.sampled_from(BROKEN)))
def test_a_broken_memory_is_refused_in_one_line(tmp_path, content):
    memory = Memory(tmp_path, "mlflow")
    memory.path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        memory.read()
    assert str(refused.value).startswith(str(memory.path))
    assert "\n" not in str(refused.value)


def test_memory_comes_back(tmp_path):
    memory = Memory(tmp_path / "tracking", "my.place:Class")
    assert memory.path.name == "my-place-Class.json"
    entry = Entry(points=3, mark=(12, 1.5), files={"samples/a": "[1, 2, 3]"}, status="running")
    memory.write("here", entry)
    assert memory.read() == {"here": entry}


@pytest.mark.parametrize(("name", "expected"), [
    ("score/total", "score/total"), ("m_{jj} (GeV)", "m__jj_ _GeV_"), ("a//b", "a__b"), ("/a", "_a"), ("é", "_"),
])  # fmt: skip
def test_names_for_mlflow(name, expected):
    assert clean(name) == expected


def test_passwords_are_not_remembered():
    assert without_password("https://me:secret@host:5000/x") == "https://host:5000/x"
    assert without_password("sqlite:////a/b.db") == "sqlite:////a/b.db"


# --- the process --------------------------------------------------------------------------------------


def until(condition, limit=60.0):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def follower(run, tmp_path, tracker, wait_s=60.0):
    return Follower(TrackingConfig(to=f"trackers:{tracker}", uri=str(tmp_path), wait_s=wait_s), run.directory)


def test_the_process_tells_what_is_written_meanwhile(run, tmp_path, find_trackers, capfd):
    run.attempt(0, [10], checkpoints=[10])
    follower_ = follower(run, tmp_path, "Notebook")
    until(lambda: points(tmp_path) == [(10, 1.01)])
    run.attempt(10, [20], checkpoints=[20], end="done")
    follower_.finish()
    assert points(tmp_path) == [(10, 1.01), (20, 2.02)]
    assert [status for (status,) in calls(tmp_path, "state")] == ["running", "finished"]
    assert capfd.readouterr().err == ""


def test_a_tracker_that_hangs_holds_an_end_for_its_limit(run, tmp_path, find_trackers, capfd):
    run.attempt(0, [10], checkpoints=[10])
    follower_ = follower(run, tmp_path, "Hanging", wait_s=0.2)
    until(lambda: calls(tmp_path, "hangs"))
    (pid,) = calls(tmp_path, "hangs")[0]
    began = time.monotonic()
    follower_.finish()
    assert time.monotonic() - began < 20.0  # it would hang for an hour
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    message = f"'hpcgan track {run.directory.path}' tells what is missing"
    assert capfd.readouterr().err.count(message) == 1
    assert "connecting" in (run.directory.path / "tracking" / "log.txt").read_text()


def test_a_tracker_that_hangs_outlives_a_rank_that_does_not_wait_for_its_limit(run, tmp_path, find_trackers):
    run.attempt(0, [10], checkpoints=[10])
    command = process.command(TrackingConfig(to="trackers:Hanging", uri=str(tmp_path), wait_s=0.2), run.directory.path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as started:
        until(lambda: calls(tmp_path, "hangs"))
        started.stdin.close()  # as of a rank that was killed
        assert started.wait(60) == -signal.SIGKILL


def test_a_tracker_that_fails_is_said_once(run, tmp_path, find_trackers, capfd, monkeypatch):
    monkeypatch.setattr(process, "command", lambda *words: _impatient(process_command(*words)))
    monkeypatch.setattr("hpcgan.tracking.follower.command", process.command)
    run.attempt(0, [10], checkpoints=[10])
    follower_ = follower(run, tmp_path, "Failing")
    until(lambda: len(calls(tmp_path, "find")) > 2)  # it tries again and again
    follower_.finish()
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == (
        "hpcgan: warning: tracking.to=trackers:Failing: ConnectionError: no route to the server; the training goes on, "
        f"'hpcgan track {run.directory.path}' tells what is missing"
    )
    assert len(lines) == 2  # and one at the end


process_command = process.command


def _impatient(command):
    return [*command[:2], command[2].replace("process.start", "process.AGAIN_S = 0.01; process.start"), *command[3:]]


def test_the_process_of_a_killed_rank_ends_by_itself(run, tmp_path, find_trackers):
    run.attempt(0, [10, 20], checkpoints=[10])
    settings_ = TrackingConfig(to="trackers:Notebook", uri=str(tmp_path), wait_s=60)
    command = process.command(settings_, run.directory.path)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as started:
        until(lambda: calls(tmp_path, "state"))
        started.send_signal(signal.SIGTERM)  # that of a job, which is meant for the training
        started.stdin.close()
        assert started.wait(60) == 0
    assert points(tmp_path) == [(10, 1.01)]
    assert [status for (status,) in calls(tmp_path, "state")] == ["running", "failed"]


def test_the_process_of_a_killed_attempt_is_waited_for(run, tmp_path, find_trackers, capfd):
    run.attempt(0, [10], checkpoints=[10])
    folder = run.directory.path / "tracking"
    folder.mkdir()
    with file_lock(folder / "trackers-Notebook.lock"):
        follower_ = follower(run, tmp_path, "Notebook")
        until((folder / "log.txt").exists)
        assert heard(tmp_path) == []
    until(lambda: points(tmp_path) == [(10, 1.01)])
    follower_.finish()
    assert capfd.readouterr().err == ""


def test_python_that_cannot_be_started_is_said(run, tmp_path, capfd):
    Follower(TrackingConfig(to="mlflow", python=tmp_path / "none"), run.directory).finish()
    assert "cannot start" in capfd.readouterr().err


# --- the command --------------------------------------------------------------------------------------


def test_hpcgan_track(run, tmp_path, capsys):
    run.attempt(0, [10], checkpoints=[10], end="done")
    options = ["track", str(run.directory.path), "--to", "trackers:Notebook", "--uri", str(tmp_path)]
    assert main(options) == 0
    text = f"trackers:Notebook: 1 points of {run.directory.path} are tracked: here\n"
    assert capsys.readouterr().out == text
    assert main([*options, "--anew"]) == 0
    assert len(calls(tmp_path, "discard")) == 1


@pytest.mark.parametrize(("options", "text"), [
    ([], "tracking.to=mlflow: "),
    (["--to", "mlfow"], "did you mean 'mlflow'"),
    (["--to", "trackers:Failing"], "ConnectionError: no route to the server"),
    (["--python", "/no/python"], "/no/python: cannot be started"),
])  # fmt: skip
def test_failures_of_hpcgan_track_are_one_line(run, tmp_path, capsys, monkeypatch, options, text):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)  # as where it is not installed
    run.attempt(0, [10], checkpoints=[10], end="done")
    assert main(["track", str(run.directory.path), "--uri", str(tmp_path), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_trackers_are_no_part_of_a_run_s_identity(tmp_path):
    from tiny import config

    plain, tracked = config(tmp_path), config(tmp_path, "tracking.to=mlflow", "tracking.project=x")
    assert plain.identity_hash() == tracked.identity_hash()
    with pytest.raises(InputError, match=r"tracking\.to: choose one of: mlflow, wandb, or package"):
        config(tmp_path, "tracking.to=tensorboard")
    with pytest.raises(InputError, match=r"tracking\.uri: has a password") as refused:
        config(tmp_path, "tracking.uri=http://me:secret@host:5000")
    assert "secret" not in str(refused.value)
