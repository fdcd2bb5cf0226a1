import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time

import pytest

from hpcgan import rundir
from hpcgan.errors import HpcganError, InputError
from hpcgan.rundir import STALE_S, FencedError, Lease, RunDirectory, attempt_state, write_atomic


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, "one")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "two")
    monkeypatch.undo()
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.json"]


def test_attempts_count_up(tmp_path):
    run = RunDirectory(tmp_path)
    for expected in (1, 2, 3):
        lease = Lease(run)
        assert lease.attempt == expected
        lease.release("done")


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path):
    run = RunDirectory(tmp_path)
    lease = Lease(run)
    with pytest.raises(HpcganError, match=f"process {os.getpid()} on .* is at work in it"):
        Lease(run)
    lease.check()
    lease.release("done")
    Lease(run).release("done")


def test_a_killed_holder_does_not_block(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from hpcgan.rundir import Lease, RunDirectory;"
        f"Lease(RunDirectory(Path({str(tmp_path)!r}))); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    lease = Lease(RunDirectory(tmp_path))
    assert lease.attempt == 2
    lease.release("done")


def test_an_attempt_whose_end_could_not_be_written_has_ended(tmp_path, disk):
    run = RunDirectory(disk.path)
    lease = Lease(run)
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        lease.release("failed")
    disk.empty()
    assert rundir.attempt_state(run) == "lost"
    Lease(run).release("done")
    assert rundir.attempt_state(run) == "done"


def hold(run, **fields):
    """An attempt 1 as somebody else would have written it."""
    run.attempts.mkdir()
    path = run.attempts / "0001.json"
    elsewhere = {"host": socket.gethostname() + "x", "pid": 1, "started": "1", "state": "running"}
    path.write_text(json.dumps({**elsewhere, **fields}))
    return path


def test_another_host_holds_it_while_its_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "WATCH_S", 5.0)
    run = RunDirectory(tmp_path)
    other = hold(run)
    stop = threading.Event()

    def beat():
        # The file server's clock may be far from ours: only the change counts.
        moment = time.time() - STALE_S / 2
        while not stop.wait(0.1):
            moment += 0.1
            os.utime(other, (moment, moment))

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(FencedError, match="is at work in it"):
            Lease(run)
        assert attempt_state(run) == "running"
    finally:
        stop.set()
        heart.join()
    monkeypatch.setattr(rundir, "WATCH_S", 0.5)
    Lease(run).release("done")  # no beat while it watched
    assert attempt_state(run) == "done"


def test_a_holder_that_ends_in_the_meantime_does_not_block(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "WATCH_S", 30.0)
    run = RunDirectory(tmp_path)
    other = hold(run)
    end = threading.Timer(0.5, lambda: hold_again(other))

    def hold_again(path):
        write_atomic(path, json.dumps({"state": "interrupted"}))

    end.start()
    started = time.monotonic()
    Lease(run).release("done")
    assert time.monotonic() - started < 25
    end.join()


def test_long_silence_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "WATCH_S", 1000.0)
    run = RunDirectory(tmp_path)
    other = hold(run)
    old = time.time() - 20 * STALE_S
    os.utime(other, (old, old))
    assert attempt_state(run) == "lost"
    Lease(run).release("done")


@pytest.mark.parametrize(
    ("theirs", "mine", "refused"),
    [
        (("7", 0), ("7", 1), False),  # queued again: its earlier self may live on where its node was lost
        (("7", 2), ("7", 1), True),  # this is that earlier self
        (("7", 1), ("7", 1), True),
        (("7", 0), ("8", 1), True),
        (("7", 0), None, True),
        (None, ("7", 1), True),
    ],
)
def test_a_job_takes_over_from_its_earlier_self_only(tmp_path, theirs, mine, refused):
    run = RunDirectory(tmp_path)
    job = theirs and {"id": theirs[0], "restart": theirs[1]}
    me = {"host": socket.gethostname(), "pid": os.getppid(), "started": rundir._start_time(os.getppid())}
    hold(run, **me, job=job)  # it lives
    env = {"SLURM_JOB_ID": mine[0], "SLURM_RESTART_COUNT": str(mine[1])} if mine else {}
    if refused:
        with pytest.raises(FencedError):
            Lease(run, env=env)
    else:
        lease = Lease(run, env=env)
        assert lease.attempt == 2
        lease.release("done")


def test_the_heartbeat_notices_that_another_has_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "HEARTBEAT_S", 0.05)
    run = RunDirectory(tmp_path)
    heard = queue.Queue()
    lease = Lease(run, on_lost=heard.put, env={})
    (run.attempts / "0002.json").write_text("{}")
    assert "attempt 2 has taken this run over" in heard.get(timeout=20)
    lease.release("failed")


def test_an_overtaken_writer_is_fenced(tmp_path):
    run = RunDirectory(tmp_path)
    lease = Lease(run)
    (run.attempts / "0002.json").write_text("{}")
    with pytest.raises(FencedError, match="attempt 2 has taken this run over"):
        lease.check()
    lease.release("failed")
    assert json.loads((run.attempts / "0001.json").read_text())["state"] == "running"  # no longer its to write


def test_not_a_run_directory(tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        RunDirectory(tmp_path).read_config()
    (tmp_path / "config.yaml").write_text("[1, 2")
    with pytest.raises(InputError, match="cannot be read"):
        RunDirectory(tmp_path).read_config()
