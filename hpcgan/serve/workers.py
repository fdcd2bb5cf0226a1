"""Processes that make batches, each with a thread that hands it what waits; one that ends is started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from hpcgan.data.schema import Sample
from hpcgan.errors import HpcganError
from hpcgan.launch.topology import plan, threads_from_env
from hpcgan.serve import pipe
from hpcgan.serve.merging import Batch, Merger
from hpcgan.serve.refusal import Refusal

START_S = 600.0
"""How long a worker may take to load its generators."""
ATTEMPTS = 3
"""How often in a row a worker may end before it is ready."""


class WorkerEnded(Exception):
    """A worker is there no more; what says why, in a few words."""


class Process:
    """A worker's process; used by one thread at a time.

    Parameters
    ----------
    models : sequence of mapping
        What it is told of each generator: `run`, `checkpoint`, `batch_size`.
    outputs : sequence of sequence of str
        The tensors that it gives, of each generator.
    environment : mapping
    """

    def __init__(
        self, models: Sequence[Mapping[str, Any]], outputs: Sequence[Sequence[str]], environment: Mapping[str, str]
    ) -> None:
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package, *filter(None, [environment.get("PYTHONPATH")])])
        self._outputs = outputs
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hpcgan.serve.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C is for the service, which decides when its workers end
                env={**environment, "PYTHONPATH": path},
            )
        with contextlib.suppress(OSError):  # it has ended already: said when it is asked for something
            pipe.send(self._pipe, {"models": list(models)})

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ready(self) -> list[dict[str, Any]]:
        """Wait until the generators are loaded: step, epoch and score of the checkpoint of each.

        Raises
        ------
        HpcganError
            A generator cannot be loaded.
        WorkerEnded
            As told.
        """
        header, _ = self._receive(START_S)
        if "refused" in header:
            raise HpcganError(header["refused"])
        loaded: list[dict[str, Any]] = header["models"]
        return loaded

    def make(self, batch: Batch, timeout_s: float) -> Sample:
        """The events of a batch.

        Raises
        ------
        Refusal
            They could not be made.
        WorkerEnded
            As told; it is killed when it takes longer than `timeout_s`.
        """
        asked = batch.asked
        try:
            arrays = {"seed": asked.seeds, "index": asked.indices, **asked.conditions}
            pipe.send(self._pipe, {"model": batch.model, "outputs": list(self._outputs[batch.model])}, arrays)
        except OSError:
            raise WorkerEnded(self.why()) from None
        header, events = self._receive(timeout_s)
        if "failure" in header:
            raise Refusal(500, f"the events could not be made: {header['failure']}")
        return events

    def _receive(self, timeout_s: float) -> tuple[dict[str, Any], Sample]:
        try:
            if not self._pipe.poll(timeout_s):
                self._process.kill()
                raise WorkerEnded(f"was killed because it took longer than {timeout_s:g} s")
            return pipe.receive(self._pipe)
        except (EOFError, OSError):
            raise WorkerEnded(self.why()) from None

    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def why(self) -> str:
        """What has become of the process, in a few words; one that is still there is killed after a while."""
        try:
            code = self._process.wait(10.0)
        except subprocess.TimeoutExpired:  # the pipe is closed: no use any more
            self._process.kill()
            code = self._process.wait()
        if code >= 0:
            return f"has ended (exit code {code})"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"

    def end(self) -> None:
        """Let it go; one that does not is killed."""
        self._pipe.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Plan:
    """What workers are there for.

    Attributes
    ----------
    models, outputs
        As of `Process`.
    workers : int
        How many.
    timeout_s : float
        A batch that takes longer is given up, and its worker ended.
    """

    models: Sequence[Mapping[str, Any]]
    outputs: Sequence[Sequence[str]]
    workers: int
    timeout_s: float


class Workers:
    """The workers of a service.

    Parameters
    ----------
    plan : Plan
    merger : Merger
        Where they take their work from, until it is closed and empty.
    note : callable
        Takes a line about a worker that has ended.

    Attributes
    ----------
    restarts : int
        How many workers were started in place of one that had ended.
    failure : str or None
        Why there are no workers any more.
    """

    def __init__(self, plan: Plan, merger: Merger, note: Callable[[str], None]) -> None:
        self._plan, self._merger, self._note = plan, merger, note
        self.restarts = 0
        self.failure: str | None = None
        self.batches: Callable[[Batch], None] = lambda batch: None
        self.checkpoints: list[dict[str, Any]] | None = None
        self._running: dict[int, Process] = {}  # those that are ready, by thread
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(n,), name=f"worker {n}", daemon=True)
            for n in range(plan.workers)
        ]  # fmt: skip

    def start(self) -> None:
        """Start them all."""
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> int:
        """How many can be given work."""
        return len(self._running)

    @property
    def pids(self) -> list[int]:
        """The processes of those that can be given work."""
        return [process.pid for process in list(self._running.values())]

    def join(self) -> None:
        """Wait until all have ended, which they do once the merger is closed and empty."""
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        workers = self._plan.workers
        threads = max(1, threads_from_env(os.environ) // workers)
        environment = plan(workers, threads=threads).environment(os.environ)
        attempts = 0
        process: Process | None = None
        try:
            while True:
                process = Process(self._plan.models, self._plan.outputs, environment)
                try:
                    self._check(process.ready())
                    self._running[number], attempts = process, 0
                    self._serve(process)
                    return
                except WorkerEnded as error:
                    if self._running.pop(number, None) is None:
                        attempts += 1
                    if attempts == ATTEMPTS:
                        raise HpcganError(f"a worker {error} before it was ready, {ATTEMPTS} times in a row") from None
                    self.restarts += 1
                    self._note(f"a worker {error}; another one is started")
                    process.end()
        except Exception as error:
            text = str(error) if isinstance(error, HpcganError) else f"{type(error).__name__}: {error}"
            self.failure = text
            self._merger.fail_all(Refusal(503, f"the service has failed: {text}"))
        finally:
            self._running.pop(number, None)
            if process is not None:
                process.end()

    def _check(self, checkpoints: list[dict[str, Any]]) -> None:
        """See to it that all workers, also later ones, have the same weights."""
        with self._lock:
            if self.checkpoints is None:
                self.checkpoints = checkpoints
        for ours, theirs, model in zip(self.checkpoints, checkpoints, self._plan.models, strict=True):
            if ours != theirs:
                raise HpcganError(
                    f"{model['run']}: its {model['checkpoint']} checkpoint is now of step {theirs['step']}, the "
                    f"service began with that of step {ours['step']}; start it anew to have that one"
                )

    def _serve(self, process: Process) -> None:
        while (batch := self._merger.next(process.is_alive)) is not None:
            try:
                batch.deliver(process.make(batch, self._plan.timeout_s))
            except Refusal as refusal:
                batch.fail(refusal)
            except WorkerEnded as error:
                batch.fail(Refusal(503, f"the worker {error} while it made these events; ask again"))
                raise
            self.batches(batch)
        if not process.is_alive():
            raise WorkerEnded(process.why())
