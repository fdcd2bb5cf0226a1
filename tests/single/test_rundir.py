import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stopping import stop_process

from hpcgan.errors import HpcganError, InputError
from hpcgan.runs import lease as rundir
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import FencedError, Lease, attempt_state
from hpcgan.system import liveness
from hpcgan.system.files import write_atomic
from hpcgan.system.liveness import Identity


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
        "import os, sys; from pathlib import Path; from hpcgan.runs.directory import RunDirectory;"
        "from hpcgan.runs.lease import Lease;"
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


ELSEWHERE = {"host": socket.gethostname(), "boot": "another", "space": "pid:[1]", "pid": 1, "started": "1"}


def hold(run, process=ELSEWHERE, **fields):
    """An attempt 1 as somebody else would have written it, by default in another kernel of the same host name."""
    run.attempts.mkdir()
    path = run.attempts / "0001.json"
    path.write_text(json.dumps({"process": process, "state": "running", **fields}))
    beats = run.attempts / "0001.beat"
    beats.write_bytes(b"%012d\n" % 1)
    return path, beats


@contextlib.contextmanager
def beating(beat):
    """Call something again and again, as the heart of another does."""
    stop = threading.Event()

    def run():
        for n in range(1_000_000):
            if stop.wait(0.05):
                return
            beat(n)

    heart = threading.Thread(target=run)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()


@pytest.mark.parametrize("off", [-3600.0, -600.0, 0.0, 600.0, 86400.0])
@pytest.mark.parametrize("counts", [True, False], ids=["content", "time"])
def test_one_that_cannot_be_looked_up_holds_it_while_its_heart_beats(tmp_path, monkeypatch, off, counts):
    """Whatever the clock that stamps its file, which may be coarse, or its content, which a full disk may refuse."""
    monkeypatch.setattr(liveness, "WATCH_S", 60.0)
    run = RunDirectory(tmp_path)
    _, beats = hold(run)
    first = time.time() + off
    os.utime(beats, (first, first))

    def beat(n):
        if counts:
            beats.write_bytes(b"%012d\n" % n)
        moment = first if counts else first + n
        os.utime(beats, (moment, moment))

    said = []
    with beating(beat), pytest.raises(FencedError, match="is at work in it"):
        Lease(run, say=said.append)
    assert len(said) == 1
    assert "attempt 1 (process 1 on" in said[0]
    assert "waiting up to 60 s to see whether it still lives" in said[0]


@pytest.mark.parametrize("off", [-86400.0, -600.0, 0.0, 600.0])
def test_one_whose_heart_does_not_beat_is_taken_over(tmp_path, monkeypatch, capsys, off):
    monkeypatch.setattr(liveness, "WATCH_S", 0.5)
    run = RunDirectory(tmp_path)
    _, beats = hold(run)
    os.utime(beats, (time.time() + off,) * 2)
    lease = Lease(run)
    assert lease.attempt == 2
    assert "waiting up to 0 s" in capsys.readouterr().err
    lease.release("done")
    assert attempt_state(run) == "done"


def test_a_holder_that_ends_in_the_meantime_does_not_block(tmp_path, monkeypatch):
    monkeypatch.setattr(liveness, "WATCH_S", 600.0)
    run = RunDirectory(tmp_path)
    path, _ = hold(run)
    # It says so while the other one waits, not before: the line that it waits is said first.
    Lease(run, say=lambda line: threading.Timer(0.2, write_atomic, (path, '{"state": "interrupted"}')).start()).release(
        "done"
    )
    assert attempt_state(run) == "done"


def test_a_file_that_is_being_written_is_waited_for(tmp_path, monkeypatch):
    """Where there are no links, an attempt's file is empty for a moment."""
    monkeypatch.setattr(liveness, "WATCH_S", 600.0)
    run = RunDirectory(tmp_path)
    path, _ = hold(run)
    whole = path.read_text()
    path.write_text("")
    assert attempt_state(run) == "running"
    with pytest.raises(FencedError, match="is at work in it"):
        Lease(run, say=lambda line: threading.Timer(0.2, write_atomic, (path, whole)).start())


def test_a_file_that_stays_empty_is_nobodys(tmp_path, monkeypatch):
    monkeypatch.setattr(liveness, "WATCH_S", 0.3)
    run = RunDirectory(tmp_path)
    path, beats = hold(run)
    path.write_text("")
    beats.unlink()
    Lease(run, say=lambda line: None).release("done")
    assert rundir.attempts_made(run) == 2


def test_the_state_of_one_that_cannot_be_looked_up(tmp_path, monkeypatch):
    """Known from what was seen before, by this process's own clock; at first sight, from a file made beside it."""
    run = RunDirectory(tmp_path)
    _, beats = hold(run)
    monkeypatch.setattr(rundir, "_watcher", liveness.Watcher())
    assert attempt_state(run) == "running"  # just made
    now = [time.monotonic()]
    monkeypatch.setattr(liveness.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(rundir, "_watcher", liveness.Watcher())
    old = time.time() - 2 * liveness.LOST_S
    os.utime(beats, (old, old))
    assert attempt_state(run) == "lost"  # at first sight
    beats.write_bytes(b"%012d\n" % 2)
    os.utime(beats, (old, old))
    assert attempt_state(run) == "running"  # it has changed, whatever its time
    now[0] += liveness.WATCH_S - 1
    assert attempt_state(run) == "running"
    now[0] += 2
    assert attempt_state(run) == "lost"
    beats.write_bytes(b"%012d\n" % 3)
    assert attempt_state(run) == "running"
    assert sorted(os.listdir(run.attempts)) == ["0001.beat", "0001.json"]


@pytest.mark.parametrize("lacking", ["nothing", "links"])
def test_of_many_that_start_at_once_one_wins(tmp_path, lacking):
    """After an attempt that was killed, whose number all of them find."""
    hold(RunDirectory(tmp_path), {**Identity.own().plain(), "started": "1"})
    code = """
import os, sys
from pathlib import Path
from hpcgan.errors import HpcganError
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease
def no_links(*names):
    raise PermissionError(1, "Operation not permitted")
if sys.argv[2] == "links":
    os.link = no_links
run = RunDirectory(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    lease = Lease(run)
except HpcganError:
    print("refused", flush=True)
else:
    print("won", flush=True)
    sys.stdin.readline()
    lease.check()
    lease.release("done")
    print("ended", flush=True)
"""
    many = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), lacking],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    assert [one.stdout.readline() for one in many] == ["ready\n"] * 8
    for one in many:
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.stdout.readline() for one in many]
    assert sorted(said) == ["refused\n"] * 7 + ["won\n"]
    for one in many:
        rest, _ = one.communicate("\n")
        assert rest == ("ended\n" if said[many.index(one)] == "won\n" else "")
    assert attempt_state(RunDirectory(tmp_path)) == "done"


HOLDER = """
import socket, sys
from pathlib import Path
from hpcgan.system import liveness
from hpcgan.errors import HpcganError
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease
if len(sys.argv) > 2:
    socket.sethostname(sys.argv[2])
liveness.BEAT_S = 0.2
lease = Lease(RunDirectory(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.readline()
try:
    lease.check()
except HpcganError as error:
    print(error, flush=True)
"""


@contextlib.contextmanager
def holder_in(options, run, *host):
    """A process that holds a run, in other namespaces."""
    process = subprocess.Popen(
        ["unshare", *options, sys.executable, "-c", HOLDER, str(run.path), *host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout.readline() != "held\n":
            said = process.communicate()[1]
            assert "Operation not permitted" in said, said
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no namespaces here: {said.strip()}")
        yield process
    finally:
        process.kill()
        process.communicate()


def only_child(pid):
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


CONTAINER = ["--pid", "--fork", "--mount-proc", "--kill-child"]


def test_a_container_of_the_same_host_name_holds_it_while_it_lives(tmp_path, monkeypatch):
    """And one that was stopped and overtaken learns of it when it goes on."""
    run = RunDirectory(tmp_path)
    with holder_in(CONTAINER, run) as process:
        said = []
        with pytest.raises(FencedError, match=rf"process 1 on {socket.gethostname()} is at work in it"):
            Lease(run, say=said.append)
        assert len(said) == 1
        assert attempt_state(run) == "running"
        stop_process(only_child(process.pid))
        monkeypatch.setattr(liveness, "WATCH_S", 2.0)
        lease = Lease(run, say=said.append)
        assert lease.attempt == 2
        os.kill(only_child(process.pid), signal.SIGCONT)
        told, _ = process.communicate("\n")
        assert told == f"{tmp_path}: attempt 2 has taken this run over; attempt 1 stops\n"
        lease.check()
        lease.release("done")


def test_a_host_name_that_is_another_does_not_matter(tmp_path):
    """In the same kernel, among the same processes: nothing has to be waited for."""
    run = RunDirectory(tmp_path)
    said = []
    with holder_in(["--uts"], run, "elsewhere"):
        with pytest.raises(FencedError, match="on elsewhere is at work in it"):
            Lease(run, say=said.append)
        assert attempt_state(run) == "running"
    assert attempt_state(run) == "lost"
    Lease(run, say=said.append).release("done")
    assert not said


def test_a_directory_that_is_gone_is_said(tmp_path):
    run = RunDirectory(tmp_path / "run")
    lease = Lease(run)
    os.rename(run.path, tmp_path / "elsewhere")
    with pytest.raises(HpcganError, match="attempts: cannot be read: No such file"):
        lease.check()
    os.rename(tmp_path / "elsewhere", run.path)
    lease.release("failed")


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
    started = liveness._started(str(os.getppid()))
    parent = Identity(**{**Identity.own().plain(), "pid": os.getppid(), "started": started})
    hold(run, parent.plain(), job=job)  # it lives
    env = {"SLURM_JOB_ID": mine[0], "SLURM_RESTART_COUNT": str(mine[1])} if mine else {}
    if refused:
        with pytest.raises(FencedError):
            Lease(run, env=env)
    else:
        lease = Lease(run, env=env)
        assert lease.attempt == 2
        lease.release("done")


def test_the_heartbeat_notices_that_another_has_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(liveness, "BEAT_S", 0.05)
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
