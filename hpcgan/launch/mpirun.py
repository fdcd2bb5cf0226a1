"""Start a job of several ranks on this machine (or inside an allocation) under mpirun.

What a bare `mpirun` gets wrong, and `launch` puts right, besides threads and binding (`topology`):

- mpirun passes SIGTERM and SIGINT on and kills its ranks moments later, before they can write a
  checkpoint. Here both become SIGUSR1, which mpirun only passes on; mpirun itself runs in a session of
  its own, so Ctrl-C at the terminal does not reach it.
- A rank dies of a SIGUSR1 that comes before it has installed its handler. Here ranks are born ignoring
  it, and the request is repeated until the job ends.
- A killed launcher leaves mpirun running, and a killed mpirun its ranks. Here the kernel ends mpirun with the
  launcher, and the ranks with mpirun (`rank`).
- mpirun explains every non-zero exit with a banner, also "interrupted, resume later" and "bad input",
  where the ranks have said all there is to say. Those banners are held back; the others are shown.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from hpcgan.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, HpcganError, InputError
from hpcgan.launch.topology import Topology, mpi_flavour, plan
from hpcgan.launch.world import expected_world, set_parent_death_signal

#: Seconds that ranks get after a request to stop before mpirun is told to end them.
GRACE = 300.0
#: Seconds between repetitions of the request, for ranks that were still starting.
REPEAT = 2.0
#: Seconds between a second Ctrl-C and the first for it to mean "now".
IMPATIENCE = 1.0
#: Seconds that mpirun gets to clean up after SIGTERM before it is killed with all its ranks.
CLEANUP = 10.0

# Ranks start with SIGUSR1 ignored; an ignored signal stays ignored across exec.
_IGNORING_USR1 = ("sh", "-c", 'trap "" USR1; exec "$@"', "hpcgan")
_STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")


class JobTimeout(HpcganError):
    """The job was ended because it ran longer than it was given."""


@dataclass(frozen=True)
class Mpirun:
    """An mpirun: where it is, which MPI it belongs to and what it says of itself."""

    path: str
    flavour: str
    version: str


def find_mpirun(env: Mapping[str, str] | None = None) -> Mpirun:
    """The mpirun of the MPI that this environment was built with.

    `HPCGAN_MPIRUN` decides; else the one beside this Python (the set-up puts it there, the MPI from
    PyPI as well as a site's MPI that is not on PATH); else the first on PATH.

    Raises
    ------
    HpcganError
        If there is none, or it cannot be run.
    """
    env = os.environ if env is None else env
    path: str | None = env.get("HPCGAN_MPIRUN")
    if path is None:
        beside = Path(sys.prefix) / "bin" / "mpirun"
        path = str(beside) if os.access(beside, os.X_OK) else shutil.which("mpirun", path=env.get("PATH"))
    if path is None:
        raise HpcganError("no mpirun found: run `make setup`, load your site's MPI module, or set HPCGAN_MPIRUN")
    try:
        done = subprocess.run(
            [path, "--version"],
            env={**env, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HpcganError(f"{path} cannot be run ({error}): run `make setup` or set HPCGAN_MPIRUN") from error
    text = done.stdout.decode(errors="replace").strip()
    first = text.splitlines()[0] if text else ""
    if done.returncode != 0:
        raise HpcganError(
            f"{path} --version failed ({first or done.returncode}): run `make setup` or set HPCGAN_MPIRUN"
        )
    return Mpirun(path, mpi_flavour(text), first)


def command(mpirun: Mpirun, topology: Topology, argv: Sequence[str], *, module: str = "hpcgan") -> list[str]:
    """The command line that starts `python -m module ARGV` on all ranks."""
    python = [sys.executable, "-m", "hpcgan.launch.rank", module, *argv]
    return [mpirun.path, "-np", str(topology.ranks), *topology.mpirun_args, *_IGNORING_USR1, *python]


def launch(
    argv: Sequence[str],
    ranks: int,
    *,
    module: str = "hpcgan",
    threads: int | None = None,
    grace: float = GRACE,
    timeout: float | None = None,
    stdout: IO[Any] | int | None = None,
    stderr: IO[Any] | int | None = None,
    env: Mapping[str, str] | None = None,
    report: Callable[[str], None] | None = None,
) -> int:
    """Run `python -m module ARGV` on `ranks` ranks and return the job's exit code.

    SIGTERM, SIGINT, SIGHUP and SIGUSR1 sent to this process ask the ranks to stop (SIGUSR1); a second
    SIGINT, or ranks that have not ended after `grace` seconds, end the job the hard way. Signals are
    handled only when called from the main thread, and their handlers are put back at the end.

    Parameters
    ----------
    argv : sequence of str
        Arguments of the module.
    ranks : int
        World size.
    module : str
        What `python -m` runs.
    threads : int, optional
        Compute threads of a rank; by default cores over ranks.
    grace : float
        Seconds for the ranks to end after they were asked to. With 0 the job is ended at once: for
        commands that have nothing to save.
    timeout : float, optional
        Seconds after which the job is ended.
    stdout, stderr
        As in `subprocess.Popen`; by default those of this process.
    env : mapping, optional
        Environment to start from, by default this process's.
    report : callable, optional
        Takes one line for the user; by default printed to stderr.

    Returns
    -------
    int
        The exit code of the first rank that ended with a non-zero one, else 0; 128 + n if the job was
        ended the hard way after signal n, or mpirun itself by it.

    Raises
    ------
    InputError
        If `ranks` or `threads` is below one, or this process already is one rank of several.
    HpcganError
        If there is no working mpirun.
    JobTimeout
        If the job did not end within `timeout`.
    """
    base = dict(os.environ if env is None else env)
    report = _print if report is None else report
    if ranks < 1:
        raise InputError(f"--ranks must be at least 1, not {ranks}")
    world = expected_world(base)
    if world is not None and world.size > 1:
        raise InputError(
            f"--ranks starts a job of its own, but this process already is rank {world.rank} of {world.size} "
            f"under {world.launcher}: leave --ranks out"
        )
    requests = _Requests(report)
    # A signal from now on is a request, also while mpirun is being started.
    with _handling(_STOP_SIGNALS, requests.ask):
        mpirun = find_mpirun(base)
        topology = plan(ranks, flavour=mpirun.flavour, threads=threads)
        for warning in topology.warnings:
            report(f"hpcgan: warning: {warning}")
        full = topology.environment(base)
        full.setdefault("HPCGAN_TERMINAL", "1" if stdout is None and sys.stdout.isatty() else "0")
        full.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
        job = _Job(command(mpirun, topology, argv, module=module), full, stdout, stderr)
        try:
            return job.wait(requests, grace, timeout)
        finally:
            job.end()  # whatever went wrong here, no rank outlives it


class _Requests:
    """The requests to stop that this process has got."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.at: float | None = None
        self.signal = signal.SIGTERM
        self.hurry = False

    def ask(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if self.at is None:
            self.at = now
            self.signal = signal.Signals(signum)
            if signum == signal.SIGINT:
                self.report("hpcgan: stopping after this step; press Ctrl-C again to end the job at once")
        elif signum == signal.SIGINT and now - self.at > IMPATIENCE:
            self.hurry = True


class _Job:
    """One mpirun and the way to its end."""

    def __init__(
        self,
        args: list[str],
        env: dict[str, str],
        stdout: IO[Any] | int | None,
        stderr: IO[Any] | int | None,
    ) -> None:
        parent = os.getpid()

        def in_child() -> None:
            # A request may come before mpirun has its own handler; it replaces this one.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            # When this launcher is killed, mpirun's last words go into a pipe that nobody reads. Dying of
            # that, it would leave its ranks behind.
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            set_parent_death_signal(signal.SIGTERM)
            if os.getppid() != parent:  # the launcher ended in between
                os._exit(1)

        self.process = subprocess.Popen(
            args,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            start_new_session=True,
            restore_signals=False,
            preexec_fn=in_child,
        )
        self._filter: threading.Thread | None = None
        if stderr is None and self.process.stderr is not None:
            arguments = (self.process.stderr, 2)
            self._filter = threading.Thread(target=_copy_without_banner, args=arguments, daemon=True)
            self._filter.start()

    def wait(self, requests: _Requests, grace: float, timeout: float | None) -> int:
        """Until the job has ended, passing requests to stop on; its exit code."""
        started = time.monotonic()
        repeated_at = -math.inf
        while (code := self._poll()) is None:
            now = time.monotonic()
            if timeout is not None and now - started > timeout:
                self.end()
                raise JobTimeout(f"the job was ended after {timeout:.0f} s: it had not finished")
            if requests.at is None:
                continue
            if requests.hurry or now - requests.at >= grace:
                if grace > 0 and not requests.hurry:
                    requests.report(f"hpcgan: the ranks did not stop within {grace:.0f} s: ending them")
                self.end()
                return 128 + requests.signal
            if now - repeated_at >= REPEAT:
                self._signal(signal.SIGUSR1)
                repeated_at = now
        return code

    def _poll(self) -> int | None:
        try:
            code = self.process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            return None
        if self._filter is not None:
            self._filter.join(timeout=5)
        return code if code >= 0 else 128 - code

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signum)

    def end(self) -> int:
        """End the job: SIGTERM lets mpirun end its ranks, SIGKILL is for what is left."""
        code = self._poll()
        if code is not None:
            return code
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + CLEANUP
        while (code := self._poll()) is None:
            if time.monotonic() > deadline:
                for pid in _descendants(self.process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._signal(signal.SIGKILL)
                deadline = float("inf")
        return code


@contextlib.contextmanager
def _handling(names: Sequence[str], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Route signals to `handler`, only in the main thread.

    SIGHUP stays ignored where it is (nohup). SIGINT does not: a shell script starts its background
    jobs with it ignored, and yet who sends it means it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    for name in names:
        signum = getattr(signal, name)
        if name != "SIGHUP" or signal.getsignal(signum) is not signal.SIG_IGN:
            before[signum] = signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, signal.SIG_DFL if old is None else old)


def _descendants(pid: int) -> list[int]:
    """All processes below `pid`, children first (Linux)."""
    found = []
    todo = [pid]
    while todo:
        parent = todo.pop(0)
        try:
            tasks = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for task in tasks:
            with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{task}/children") as file:
                children = [int(child) for child in file.read().split()]
                found += children
                todo += children
    return found


class BannerFilter:
    """Take mpirun's "exited with non-zero status" banner out of a byte stream.

    Only a banner about exit codes 2 and 75 is taken out: there the rank has printed its reason, or
    nothing went wrong. Everything else passes unchanged and, unless it may be the beginning of a
    banner, at once.
    """

    _RULE = re.compile(rb"-{20,}")
    _CODE = re.compile(rb"Exit code:\s*(\d+)")
    _LIMIT = 40  # lines; no banner is longer, so a lone rule cannot hold back a log

    def __init__(self, codes: Sequence[int] = (EXIT_BAD_INPUT, EXIT_INTERRUPTED)) -> None:
        self._codes = set(codes)
        self._partial = b""
        self._block: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """What may be shown after `data` has come in."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        out = b"".join(self._line(line + b"\n") for line in lines)
        if not self._block and not self._partial.startswith(b"-"):
            out += self._partial
            self._partial = b""
        return out

    def finish(self) -> bytes:
        """What was still held back when the stream ended."""
        rest = b"".join(self._block) + self._partial
        self._block, self._partial = [], b""
        return rest

    def _line(self, line: bytes) -> bytes:
        is_rule = self._RULE.fullmatch(line.strip()) is not None
        if not self._block:
            if is_rule:
                self._block.append(line)
                return b""
            return line
        self._block.append(line)
        if not is_rule and len(self._block) < self._LIMIT:
            return b""
        block, self._block = b"".join(self._block), []
        code = self._CODE.search(block)
        hide = is_rule and b"non-zero" in block and (code is None or int(code[1]) in self._codes)
        return b"" if hide else block


def _copy_without_banner(source: IO[bytes], target: int) -> None:
    banner = BannerFilter()
    with source:
        while True:
            data = os.read(source.fileno(), 65536)
            _write(target, banner.feed(data) if data else banner.finish())
            if not data:
                return


def _write(target: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(target, data) :]
        except OSError:  # the terminal is gone; keep draining, so that the ranks do not block
            return


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
