import json
import os
import socket
import subprocess
import sys
import time

import pytest

from hpcgan.errors import HpcganError, InputError
from hpcgan.rundir import STALE_S, FencedError, Lease, RunDirectory, write_atomic


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
    with pytest.raises(HpcganError, match=f"process {os.getpid()} on .* is training in it"):
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


def test_another_host_holds_it_while_its_heart_beats(tmp_path):
    run = RunDirectory(tmp_path)
    run.attempts.mkdir()
    other = run.attempts / "0001.json"
    other.write_text(json.dumps({"host": socket.gethostname() + "x", "pid": 1, "started": "1", "state": "running"}))
    with pytest.raises(HpcganError, match="is training in it"):
        Lease(run)
    old = time.time() - STALE_S - 1
    os.utime(other, (old, old))
    Lease(run).release("done")


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
