"""A running job: one mpirun or srun, its ranks, and the way to its end.

What the launchers get wrong, and this puts right:

- They pass SIGTERM and SIGINT on and kill their ranks moments later, before they can write a checkpoint. Here
  both become SIGUSR1, which they only pass on; the launcher runs in a session of its own, so Ctrl-C at the
  terminal does not reach it.
- A rank dies of a SIGUSR1 that comes before it has installed its handler. Here ranks are born ignoring
  it, and the request is repeated until the job ends.
- A killed parent leaves mpirun running, and a killed mpirun its ranks. Here the kernel ends mpirun with its
  parent, and the ranks with mpirun (`rank`).
- mpirun may hang when a rank ends while it connects to mpirun. Here an mpirun whose ranks are gone is ended.
- srun waits for ever for ranks on a node whose slurmd was away when it should have ended them. Here an srun that goes
  on long after it has told of a rank's failure is asked to end once more.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from hpcgan.errors import HpcganError
from hpcgan.launch.mpirun_output import Deaths, copy
from hpcgan.launch.world import set_parent_death_signal

#: Seconds that ranks get after a request to stop before the launcher is told to end them.
GRACE = 300.0
#: Seconds between repetitions of the request, for ranks that were still starting.
REPEAT = 2.0
#: Seconds between a second Ctrl-C and the first for it to mean "now".
IMPATIENCE = 1.0
#: Seconds that the launcher gets to clean up after SIGTERM before it is killed with all its ranks.
CLEANUP = 10.0

#: Seconds for which mpirun may go on after the last of its ranks on this machine has ended.
DESERTED = 30.0

#: Seconds for which srun may go on after it has told that a rank has failed: it ends the others in Slurm's KillWait, of
#: 30 s by default. And seconds between two looks at what it has told.
STRICKEN = 120.0
LOOK = 5.0

#: Signals that ask a job to stop.
STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")


class JobTimeout(HpcganError):
    """The job was ended because it ran longer than it was given."""


def rank_command(argv: Sequence[str], module: str) -> list[str]:
    """What the launcher starts as a rank: `python -m MODULE ARGV`, born ignoring SIGUSR1.

    An ignored signal stays ignored across exec.
    """
    ignoring = ("sh", "-c", 'trap "" USR1; exec "$@"', "hpcgan")
    return [*ignoring, sys.executable, "-m", "hpcgan.launch.rank_shim", module, *argv]


class Requests:
    """The requests to stop that this process has got."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.at: float | None = None
        self.signal = signal.SIGTERM
        self.hurry = False

    def pending(self) -> bool:
        """Whether there was one."""
        return self.at is not None

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


class Job:
    """One mpirun or srun and the way to its end.

    Parameters
    ----------
    args : list of str
        Its command line.
    env : dict of str to str
    stdout, stderr
        As in `subprocess.Popen`.
    ranks_below : bool
        Whether all ranks are processes below it: an mpirun on one machine.
    """

    def __init__(
        self,
        args: list[str],
        env: dict[str, str],
        stdout: IO[Any] | int | None,
        stderr: IO[Any] | int | None,
        ranks_below: bool = False,
    ) -> None:
        parent = os.getpid()
        # When something below it was last seen to live; None before anything was, or if nothing need be.
        self._peopled: float | None = None
        self._ranks_below = ranks_below
        # When a look found that ranks have failed; None before. And when to look again.
        self._stricken: float | None = None
        self._look_at = 0.0

        def in_child() -> None:
            # A request may come before mpirun has its own handler; it replaces this one.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            # When this launcher is killed, mpirun's last words go into a pipe that nobody reads. Dying of
            # that, it would leave its ranks behind.
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            set_parent_death_signal(signal.SIGTERM)
            if os.getppid() != parent:  # the launcher ended in between
                os._exit(1)

        # A file that the output goes to is read when the job has ended, from here on.
        name = getattr(stderr, "name", None)
        self._log = Path(name) if isinstance(name, str) else None
        self._log_start = 0 if self._log is None else self._log.stat().st_size
        self.process = subprocess.Popen(
            args,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            start_new_session=True,
            restore_signals=False,
            preexec_fn=in_child,
        )
        self._deaths = Deaths()
        pipes = ((self.process.stdout, 1, None), (self.process.stderr, 2, self._deaths))
        self._copying = [threading.Thread(target=copy, args=pipe, daemon=True) for pipe in pipes if pipe[0] is not None]
        for thread in self._copying:
            thread.start()

    def death(self) -> str | None:
        """What the launcher has told of ranks that were killed, to this process or into a file."""
        return self._told().told()

    def _told(self) -> Deaths:
        if self._log is None:
            return self._deaths
        deaths = Deaths()
        with contextlib.suppress(OSError), open(self._log, "rb") as log:
            log.seek(max(self._log_start, os.fstat(log.fileno()).st_size - Deaths.LIMIT))
            deaths.feed(log.read())
        return deaths

    def wait(self, requests: Requests, grace: float, timeout: float | None) -> int:
        """Until the job has ended, passing requests to stop on; its exit code."""
        started = time.monotonic()
        repeated_at = -math.inf
        while (code := self._poll()) is None:
            now = time.monotonic()
            if timeout is not None and now - started > timeout:
                self.end()
                raise JobTimeout(f"the job was ended after {timeout:.0f} s: it had not finished")
            if self._is_deserted(now) or self._is_stricken(now):
                requests.report("hpcgan: the launcher did not end with its ranks: ending it")
                return self.end()
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

    def _is_deserted(self, now: float) -> bool:
        """Whether the launcher lives on though nothing below it has for a while."""
        if not self._ranks_below:
            return False
        if any(is_alive(pid) for pid in descendants(self.process.pid)):
            self._peopled = now
        return self._peopled is not None and now - self._peopled > DESERTED

    def _is_stricken(self, now: float) -> bool:
        """Whether srun lives on though it has told of a failed rank a while ago."""
        if now >= self._look_at:
            self._look_at = now + LOOK
            if self._stricken is None and self._told().of_srun():
                self._stricken = now
        return self._stricken is not None and now - self._stricken > STRICKEN

    def _poll(self) -> int | None:
        try:
            code = self.process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            return None
        for thread in self._copying:
            thread.join(timeout=5)
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
                for pid in descendants(self.process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._signal(signal.SIGKILL)
                deadline = float("inf")
        return code


@contextlib.contextmanager
def handling(names: Sequence[str], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
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


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended: one that waits for its parent to hear of its end has (Linux)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, children first (Linux)."""
    below: list[int] = []
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
                below += children
                todo += children
    return below
