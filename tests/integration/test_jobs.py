"""Real jobs under mpirun: exit codes, requests to stop, and that no rank outlives its job."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from stopping import stop_process

from hpcgan.errors import HpcganError
from hpcgan.launch.launcher import Watch, launch
from hpcgan.launch.mpirun import find_mpirun
from hpcgan.launch.process import JobTimeout
from hpcgan.launch.topology import plan

try:
    find_mpirun()
except HpcganError as error:
    pytest.skip(str(error), allow_module_level=True)

#: Seconds for what has to come, on a machine that has much else to do.
PATIENCE = 600.0

# A rank that needs no MPI: it says that it is there, and ends as it is told.
RANK = """
    import json, os, signal, sys, time
    from hpcgan.launch.world import die_with_parent, expected_world, stdout_is_terminal

    world = expected_world(os.environ)
    what, *rest = sys.argv[1:]
    if what == "orphan":
        die_with_parent()
    folder = os.environ["RANK_FOLDER"]

    def tell(event, **more):
        path = os.path.join(folder, f"{event}.{world.rank}")
        with open(path + ".part", "w") as file:
            json.dump({"pid": os.getpid(), **more}, file)
        os.rename(path + ".part", path)

    asked = []
    if what == "slow":
        time.sleep(2.5)  # as if importing; a request comes in this time
    if what != "deaf":
        signal.signal(signal.SIGUSR1, lambda signum, frame: asked.append(signum))
    tell("up", terminal=stdout_is_terminal(), threads=os.environ["HPCGAN_THREADS"])
    if what == "exit":
        codes = [int(code) for code in rest]
        sys.exit(codes[world.rank % len(codes)])
    end = time.monotonic() + 60
    while not asked and time.monotonic() < end:
        time.sleep(0.05)
    print(f"rank {world.rank} stops", file=sys.stderr, flush=True)
    tell("asked", signals=asked)
    # mpirun ends the others when the first leaves with a code that is not 0, so they leave together.
    while not all(os.path.exists(os.path.join(folder, f"asked.{rank}")) for rank in range(world.size)):
        time.sleep(0.02)
    sys.exit(75 if asked else 3)
"""
LAUNCHER = """
    import sys
    from hpcgan.launch.launcher import Watch, launch

    sys.exit(launch(sys.argv[2:], 2, module="jobrank", watch=Watch(float(sys.argv[1]))))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "jobrank.py").write_text(textwrap.dedent(RANK))
    (tmp_path / "start.py").write_text(textwrap.dedent(LAUNCHER))
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    monkeypatch.setenv("RANK_FOLDER", str(tmp_path))
    started.clear()
    yield tmp_path
    for process in started:
        process.kill()
        process.communicate()
    for path in tmp_path.glob("up.*"):  # whatever a failed test has left
        with contextlib.suppress(ProcessLookupError):
            os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)


def wait_for(what, seconds=PATIENCE):
    """The first true value of `what()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {seconds} s: {what}")


def told(folder, event):
    """What both ranks have told, or nothing."""
    paths = [folder / f"{event}.{rank}" for rank in range(2)]
    return [json.loads(path.read_text()) for path in paths] if all(path.exists() for path in paths) else None


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


started: list[subprocess.Popen[str]] = []


def start(folder, *args, grace="30", **options):
    process = subprocess.Popen(
        [sys.executable, str(folder / "start.py"), grace, *args],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )
    started.append(process)
    return process


def mpirun_of(process):
    """The mpirun of a launcher, once it has started the job."""
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "-np" in child.cmdline():
                return child
    return None


def finish(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("codes", "job"), [(["0"], 0), (["75"], 75), (["2"], 2), (["1"], 1), (["0", "7"], 7), (["9", "0"], 9)]
)
def test_the_jobs_exit_code_is_that_of_its_ranks(folder, capfd, codes, job):
    assert launch(["exit", *codes], 2, module="jobrank") == job
    if job in (0, 1, 2, 75):  # mpirun explains itself only where the ranks have not
        assert ("non-zero" in capfd.readouterr().err) == (job == 1)


def test_ranks_know_their_threads_and_that_a_log_is_no_terminal(folder):
    assert finish(start(folder, "exit", "0"))[0] == 0
    cores = len(os.sched_getaffinity(0))
    assert [(t["terminal"], t["threads"]) for t in told(folder, "up")] == [(False, str(max(1, cores // 2)))] * 2


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_a_signal_to_the_launcher_asks_all_ranks_to_stop(folder, name):
    process = start(folder, "run")
    wait_for(lambda: told(folder, "up"))
    process.send_signal(getattr(signal, name))
    code, _, err = finish(process)
    assert code == 75
    assert [t["signals"] for t in told(folder, "asked")] == [[signal.SIGUSR1]] * 2
    assert "rank 0 stops" in err
    assert "rank 1 stops" in err
    assert "non-zero" not in err


def test_a_request_while_ranks_are_starting_is_not_lost(folder):
    process = start(folder, "slow")
    mpirun = wait_for(lambda: mpirun_of(process))
    wait_for(lambda: len(mpirun.children()) == 2)  # the ranks are there, but have no handler yet
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 75


def test_a_request_before_mpirun_is_ready_is_not_lost(folder):
    process = start(folder, "run")
    wait_for(lambda: psutil.Process(process.pid).children())  # at first it only asks mpirun for its version
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 75


def test_ranks_that_do_not_listen_are_ended_after_the_grace(folder):
    process = start(folder, "deaf", grace="1")
    up = wait_for(lambda: told(folder, "up"))
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 128 + signal.SIGTERM
    assert "did not stop within 1 s" in err
    wait_for(lambda: all(gone(t["pid"]) for t in up))


def test_without_grace_the_job_is_ended_at_once(folder):
    process = start(folder, "deaf", grace="0")
    up = wait_for(lambda: told(folder, "up"))
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 128 + signal.SIGINT
    wait_for(lambda: all(gone(t["pid"]) for t in up))


def test_a_second_interrupt_ends_the_job(folder):
    process = start(folder, "deaf")
    up = wait_for(lambda: told(folder, "up"))
    process.send_signal(signal.SIGINT)
    while "press Ctrl-C again" not in process.stderr.readline():  # it has taken notice of the first
        pass
    time.sleep(1.3)  # a second one means it only after a second: Ctrl-C may be sent twice by accident
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 128 + signal.SIGINT
    wait_for(lambda: all(gone(t["pid"]) for t in up))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_killed_launcher_takes_its_job_along(folder, frozen):
    process = start(folder, "run", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    up = wait_for(lambda: told(folder, "up"))
    if frozen:  # even in the middle of a request
        stop_process(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: all(gone(t["pid"]) for t in up))


def test_a_killed_mpirun_takes_its_ranks_along(folder):
    process = start(folder, "orphan")
    up = wait_for(lambda: told(folder, "up"))
    session = mpirun_of(process).environ().get("PRTE_MCA_prte_tmpdir_base")  # of Open MPI 5
    assert session is None or os.listdir(session)
    mpirun_of(process).kill()
    assert finish(process)[0] == 128 + signal.SIGKILL
    wait_for(lambda: all(gone(t["pid"]) for t in up))
    assert session is None or not os.path.exists(session)


def test_what_a_killed_mpirun_has_left_behind_is_in_nobodys_way(tmp_path):
    """Its folder bears its process number, which another mpirun gets sooner or later: here at once, by `exec`."""
    mpirun = find_mpirun()
    if mpirun.flavour != "Open MPI 5":
        pytest.skip(f"{mpirun.version} keeps nothing by that name")
    layout = plan(1, 1, flavour=mpirun.flavour)
    env = {**layout.environment(os.environ), "TMPDIR": str(tmp_path)}
    left = f'mkdir "$TMPDIR/ompi.$$"; touch "$TMPDIR/ompi.$$/pmix.{os.uname().nodename}.tool.$$"; exec "$@"'
    command = mpirun.command(layout, [], "hpcgan.launch.world")
    bare = command[command.index(mpirun.path) :]
    for argv, fine in ((bare, False), (command, True)):
        done = subprocess.run(
            ["sh", "-c", left, "sh", *argv], env=env, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (done.returncode == 0) == fine, done.stdout + done.stderr
        assert ("listener thread failed to start" in done.stdout + done.stderr) != fine


def test_the_time_is_limited(folder):
    before = time.monotonic()
    with pytest.raises(JobTimeout, match="after 2 s"):
        launch(
            ["run"], 2, module="jobrank", watch=Watch(timeout=2, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
    assert time.monotonic() - before < 50  # its ranks would run for a minute
    wait_for(lambda: all(gone(t["pid"]) for t in told(folder, "up") or []))


def test_handlers_are_put_back(folder):
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    launch(["exit", "0"], 1, module="jobrank")
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_ctrl_c_at_a_terminal_reaches_the_ranks_as_a_request(folder):
    """The terminal sends SIGINT to the whole foreground group, of which mpirun must not be a part."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.execv(sys.executable, [sys.executable, str(folder / "start.py"), "30", "run"])
    try:
        up = wait_for(lambda: told(folder, "up"))
        assert [t["terminal"] for t in up] == [True, True]
        os.write(terminal, b"\x03")
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while data := os.read(terminal, 4096):
                shown += data
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
        assert b"press Ctrl-C again" in shown
        assert [t["signals"] for t in told(folder, "asked")] == [[signal.SIGUSR1]] * 2
    finally:
        os.close(terminal)


# --- with Horovod -----------------------------------------------------------------------------------------

ABORT = """
    import os, sys, time
    from hpcgan.comm.select import make_comm

    comm = make_comm("auto")
    comm.barrier()
    if comm.rank == 1:
        with open(os.path.join(os.environ["RANK_FOLDER"], "left"), "w") as file:
            file.write(str(time.time()))
        comm.abort("the loss is not finite in step 17")
    comm.barrier()
    print("rank 0 went on", flush=True)
"""


def test_a_rank_that_aborts_ends_a_job_that_waits_for_it(folder, capfd):
    pytest.importorskip("horovod")
    (folder / "aborts.py").write_text(textwrap.dedent(ABORT))
    code = launch([], 2, module="aborts", watch=Watch(timeout=PATIENCE))
    ended = time.time() - float((folder / "left").read_text())
    out, err = capfd.readouterr()
    assert code == 1
    assert "hpcgan: rank 1: the loss is not finite in step 17" in err
    assert "rank 0 went on" not in out
    assert ended < 60  # measured: 1 s; other jobs may have the cores


def test_another_world_than_promised_is_refused_by_real_mpi():
    """What happens when mpirun and the MPI library do not know each other: every rank is rank 0 of 1."""
    pytest.importorskip("horovod")
    env = {
        **os.environ,
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    code = "from hpcgan.comm.select import make_comm; make_comm('auto')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "HpcganError: mpirun started 2 ranks, but MPI reports a world of 1" in done.stderr
