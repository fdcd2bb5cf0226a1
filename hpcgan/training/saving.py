"""Checkpoints of a training: copied between two steps, written by a thread beside the next ones, heard of by all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from hpcgan.errors import HpcganError
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.failure import Failure
from hpcgan.system.files import warn
from hpcgan.training.assembly import Assembly
from hpcgan.training.output import Output
from hpcgan.training.pace import Pace


class Saving:
    """Takes checkpoints, one at a time: rank 0 writes, all ranks hear how it went.

    With `checkpoint.beside` the ranks wait for the copy of the state only. Whoever needs the checkpoint to be there
    settles first. Everything of this class but `look`, `due` and `close` is for all ranks together.

    Parameters
    ----------
    assembly : Assembly
    run : RunDirectory
    output : Output
    """

    def __init__(self, assembly: Assembly, run: RunDirectory, output: Output) -> None:
        self._state, self._comm, self._output = assembly.state, assembly.comm, output
        settings = assembly.config.checkpoint
        self._is_beside = settings.beside
        self._pace = Pace(settings, run) if assembly.comm.is_root else None
        self._is_unsettled = False  # the same on all ranks
        self._write: _Write | None = None
        self._failure: dict[str, Any] | None = None

    def save(self, score: float | None = None, *, wait: bool = False) -> None:
        """Begin a checkpoint of the step that is done, once the one before is written.

        Parameters
        ----------
        score : float, optional
            Of these weights.
        wait : bool
            Until it is written, whatever the configuration says.

        Raises
        ------
        HpcganError
            On all ranks: ranks differ, or this checkpoint or the one before cannot be written.
        """
        self.settle()
        started = time.monotonic()
        self._comm.beat(f"the checkpoint of step {self._state.counters.step}")
        self._state.check_equal(self._comm)
        if self._comm.is_root:
            snapshot = self._state.snapshot()
            self._write = _Write(snapshot.step, lambda: self._output.save(snapshot, score))
            self._write.waited = time.monotonic() - started
        self._is_unsettled = True
        if wait or not self._is_beside:
            self.settle()

    def settle(self) -> None:
        """Wait for the last checkpoint, if all ranks have not heard of it yet.

        Raises
        ------
        HpcganError
            On all ranks: it could not be written.
        """
        if not self._is_unsettled:
            return
        self._comm.beat(f"the checkpoint before step {self._state.counters.step}")
        if self._write is not None:
            self._finish(self._write)
        self._is_unsettled = False
        failure, self._failure = self._comm.broadcast_json(self._failure), None
        if failure is not None:
            raise Failure(**failure).error()

    def look(self) -> bool:
        """Whether this rank knows of a checkpoint that could not be written: all ranks shall settle."""
        if self._write is not None and self._write.is_over:
            self._finish(self._write)
        return self._failure is not None

    def due(self) -> bool:
        """Whether rank 0 wants a checkpoint; not while it writes one."""
        return self._pace is not None and self._write is None and self._pace.due()

    def close(self) -> None:
        """Wait for what is still written when an error ends the training, which a second one must not hide."""
        if self._write is not None:
            try:
                with contextlib.suppress(HpcganError):  # of its record
                    self._finish(self._write)
            except Exception as error:
                self._failure = asdict(Failure.of(error))
        if self._failure is not None:
            warn(str(Failure(**self._failure)))
            self._failure = None

    def _finish(self, write: _Write) -> None:
        """Take note of how a write has gone, for which the training waits if it is not over yet."""
        write.wait()
        self._write = None
        try:
            if write.error is not None:
                raise write.error
        except (HpcganError, OSError) as error:
            self._failure = asdict(Failure.of(error))
            return
        self._output.saved(write.step, write.waited, write.seconds)
        if self._pace is not None:
            self._pace.saved(write.waited)


class _Write:
    """A checkpoint on its way to the disk.

    The thread is a daemon: who insists on an end, by a second Ctrl-C, need not wait for a disk that does not answer.

    Parameters
    ----------
    step : int
    write : callable
        Called in the thread.

    Attributes
    ----------
    waited : float
        Seconds for which the training waited, for the copy and in `wait`.
    seconds : float
        What the write took, once it is over.
    error : BaseException or None
        What it has raised.
    """

    def __init__(self, step: int, write: Callable[[], None]) -> None:
        self.step, self._call = step, write
        self.waited = self.seconds = 0.0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"checkpoint of step {step}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        started = time.monotonic()
        try:
            self._call()
        except BaseException as error:  # whoever waits raises it
            self.error = error
        self.seconds = time.monotonic() - started

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Until it is over."""
        started = time.monotonic()
        self._thread.join()
        self.waited += time.monotonic() - started
