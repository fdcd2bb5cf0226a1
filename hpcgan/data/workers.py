"""Work shared out to processes, results in order; and the progress of it on a terminal or in a log."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from hpcgan.errors import HpcganError, InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

Make = Callable[[Task, Callable[[int], None]], Result]
"""Does a task, and calls its second argument after every batch with the number of samples in it."""

Progress = Callable[[int, int], None]
"""Called with the samples done so far and the total."""

MAX_JOBS = 1024


def in_order(
    make: Make[Task, Result], tasks: Sequence[Task], jobs: int, total: int, progress: Progress | None = None
) -> Generator[Result, None, None]:
    """Results of the tasks in their order.

    Parameters
    ----------
    make : callable(task, advance)
        A function of a module, or a method: more than one job sends it to spawned processes.
    tasks : sequence
        Results must not depend on who does which.
    jobs : int
        Processes; 1 works in this one.
    total : int
        Samples of all tasks, for `progress`.
    progress : callable(done, total), optional

    Raises
    ------
    HpcganError
        What a task raised, or a worker process died.
    """
    done = 0

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        if progress is not None:
            progress(done, total)

    if jobs == 1 or len(tasks) == 1:
        for task in tasks:
            yield make(task, advance)
        return
    pool = _Pool(make, min(jobs, len(tasks)))
    try:
        yield from pool.map(tasks, advance)
    finally:
        pool.close()


def check_jobs(seed: int, jobs: int) -> None:
    """Refuse a seed or a number of processes out of range.

    Raises
    ------
    InputError
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"seed = {seed}: use 0 to 2^63 - 1")
    if not 1 <= jobs <= MAX_JOBS:
        raise InputError(f"jobs = {jobs}: use 1 to {MAX_JOBS}")


class _Pool(Generic[Task, Result]):
    """Worker processes, each on a pipe of its own.

    The standard pools hang when a worker is killed (``multiprocessing.Pool``) or leave idle workers behind
    when the parent is killed; here either end sees the other's pipe close.
    """

    def __init__(self, make: Make[Task, Result], size: int) -> None:
        context = multiprocessing.get_context("spawn")  # PYTHIA, HDF5 and threads do not survive a fork reliably
        self._workers: dict[Connection, Any] = {}
        try:
            for _ in range(size):
                ours, theirs = context.Pipe()
                worker = context.Process(target=_work, args=(theirs, make), daemon=True)
                with _signals_ignored_by_children():
                    worker.start()
                theirs.close()
                self._workers[ours] = worker
        except BaseException:
            self.close()
            raise

    def map(self, tasks: Sequence[Task], advance: Callable[[int], None]) -> Iterator[Result]:
        waiting = deque(enumerate(tasks))
        busy: dict[Connection, int] = {}
        finished: dict[int, Result] = {}
        ahead = 2 * len(self._workers)  # a slow task must not let the others pile up results without end
        following = 0
        while following < len(tasks):
            for connection in self._workers:
                if connection not in busy and waiting and waiting[0][0] < following + ahead:
                    number, task = waiting.popleft()
                    self._send(connection, task)
                    busy[connection] = number
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                kind, value = self._receive(ready)
                if kind == "advance":
                    advance(value)
                elif kind == "done":
                    finished[busy.pop(ready)] = value
                elif kind == "failed":
                    raise value
                else:
                    raise RuntimeError(f"in a worker process:\n{value}")
            while following in finished:
                yield finished.pop(following)
                following += 1

    def _send(self, connection: Connection, task: Task) -> None:
        try:
            connection.send(task)
        except OSError as error:
            raise self._died(connection) from error

    def _receive(self, connection: Connection) -> tuple[str, Any]:
        try:
            return connection.recv()
        except (EOFError, OSError) as error:
            raise self._died(connection) from error

    def _died(self, connection: Connection) -> HpcganError:
        worker = self._workers[connection]
        worker.join(5)
        code = worker.exitcode
        how = (
            f"by signal {-code} ({signal.Signals(-code).name})"
            if code is not None and code < 0
            else f"with code {code}"
        )
        hint = "; the system may be short of memory, try fewer --jobs" if code == -signal.SIGKILL else ""
        return HpcganError(f"a worker process ended {how}{hint}; no new file was written")

    def close(self) -> None:
        for connection, worker in self._workers.items():
            connection.close()
            worker.terminate()
        for worker in self._workers.values():
            worker.join(5)
            if worker.is_alive():
                worker.kill()
                worker.join()
        self._workers.clear()


@contextlib.contextmanager
def _signals_ignored_by_children() -> Iterator[None]:
    """Let children be born with Ctrl-C ignored: the terminal sends it to all, and the parent ends them in
    order.
    """
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread: children keep the default, and close() ends them anyway
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection, make: Make[Any, Any]) -> None:
    """A worker: tasks in, progress and results out, until the parent closes the pipe or is gone."""

    def send(kind: str, value: Any) -> None:
        try:
            connection.send((kind, value))
        except OSError:
            raise SystemExit from None  # the parent is gone

    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result = make(task, lambda count: send("advance", count))
        except HpcganError as error:
            send("failed", error)
        except Exception:  # whatever it is, the parent reports it
            send("crashed", traceback.format_exc())
        else:
            send("done", result)


class ProgressDisplay:
    """Shows the progress of a generation: a bar on a terminal, a plain line now and then in a log.

    Use as a context manager; pass the object itself as `progress`.

    Parameters
    ----------
    title : str
    interval : float
        Seconds between lines in a log.
    noun : str
        What is counted.
    """

    def __init__(self, title: str, interval: float = 10.0, noun: str = "events") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._title = title
        self._noun = noun
        self._console = Console(stderr=True)
        self._interval = interval
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(f"{{task.fields[rate]:.0f}} {noun}/s"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(title, total=None, rate=0.0)

    def __enter__(self) -> ProgressDisplay:
        self._start = self._last = time.monotonic()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, count: int, total: int) -> None:
        now = time.monotonic()
        rate = count / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=count, total=total, rate=rate)
        elif count >= total or now - self._last >= self._interval:
            self._last = now
            rest_s = (total - count) / rate
            line = f"{self._title}: {count}/{total} {self._noun}, {rate:.0f} {self._noun}/s, {rest_s:.0f} s left"
            print(line, file=sys.stderr, flush=True)
