"""Requests to a running training: signals that ask it to stop, commands, and a verdict that it shall end early.

Signals may come to any rank, commands and verdicts come to rank 0. A step's own collective tells all ranks that one of
them has something to say, so they hear it after the same step, and it costs nothing while there is nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from hpcgan.errors import Interrupted, Stopped
from hpcgan.runs.commands import Inbox
from hpcgan.runs.directory import RunDirectory
from hpcgan.training.state import CommandedChange

if TYPE_CHECKING:
    from hpcgan.training.assembly import Assembly
    from hpcgan.training.output import Output
    from hpcgan.training.saving import Saving

PAUSED_S = 1.0  # between two looks of a paused training
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""SIGHUP, of a terminal that goes away, stays ignored where it is (`nohup`)."""


class StopRequest:
    """Remembers a signal that asks for a checkpoint and an orderly end.

    Any rank may get it; the training step's own collective tells the others. A second SIGINT is not
    caught, so that a person can insist.
    """

    def __init__(self) -> None:
        self.requested: str | None = None

    def install(self) -> None:
        """Catch `SIGNALS` from now on (main thread only)."""
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Catch `SIGNALS` during a block in a process that goes on after it, to which it sends what it has caught."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self.requested is not None:
                os.kill(os.getpid(), signal.Signals[self.requested])

    def retire(self) -> None:
        """From here on the process only ends: requests are ignored, as launchers repeat them.

        The interpreter puts caught signals back to their default action when it shuts down, of which a
        late SIGUSR1 would kill the rank and turn its exit code into a failure; ignored ones stay ignored.
        """
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Requests:
    """What a training is asked for, heard and obeyed on all ranks together.

    Parameters
    ----------
    assembly : Assembly
    run : RunDirectory
    stop : StopRequest
        Signals to this rank.
    output : Output
    saving : Saving
        Takes checkpoints, and says when rank 0 wants one.
    """

    def __init__(
        self, assembly: Assembly, run: RunDirectory, stop: StopRequest, output: Output, saving: Saving
    ) -> None:
        self._assembly, self._comm, self._state = assembly, assembly.comm, assembly.state
        self._stop, self._output, self._saving = stop, output, saving
        self._verdict_file = run.verdict_file
        self._inbox = Inbox(run) if assembly.comm.is_root else None

    def look(self) -> tuple[bool, bool]:
        """Whether a signal has asked this rank to stop; whether it has anything to say.

        That is a stop, commands that wait, that a checkpoint could not be written, or that one is due.
        """
        stop, failed = self._stop.requested is not None, self._saving.look()
        return stop, stop or failed or self._saving.due() or (self._inbox is not None and self._inbox.waiting())

    def verdict(self) -> str | None:
        """Why the training shall end before its last epoch: rank 0 looks, all ranks hear."""
        self._comm.beat(f"the verdict after epoch {self._state.counters.epoch}")
        reason = verdict(self._verdict_file) if self._comm.is_root else None
        return cast("str | None", self._comm.broadcast_json(reason))

    def attend(self, stop: bool) -> float:
        """Hear what any rank has to say and obey on all of them, for as long as the training is paused.

        Parameters
        ----------
        stop : bool
            Whether this rank was asked to stop when it said that it has something to say.

        Returns
        -------
        float
            Seconds that it took.

        Raises
        ------
        Interrupted
            A signal, or a command, asks for the end.
        HpcganError
            A checkpoint could not be written.
        """
        counters, start = self._state.counters, time.monotonic()
        while True:
            stop = any(self._comm.broadcast_json(self._comm.gather_json(stop)))
            news = cast("dict[str, Any]", self._comm.broadcast_json(self._news()))
            if news["failed"]:
                self._saving.settle()
            if news["commands"] and self._obey(news["commands"]):
                raise Stopped(self._goodbye("by a command"), collective=True)
            # What was obeyed is in a checkpoint already, and a pause has nothing new for one.
            due = news["due"] and not news["commands"] and not counters.commanded.paused
            if stop or due:
                self._saving.save(wait=stop)
            if stop:
                raise Interrupted(self._goodbye("on request"), collective=True)
            if not counters.commanded.paused:
                return time.monotonic() - start
            self._comm.beat(f"the end of the pause at step {counters.step}")
            time.sleep(PAUSED_S)
            stop = self._stop.requested is not None

    def _news(self) -> dict[str, Any] | None:
        """What rank 0 has to say but for signals; None on other ranks."""
        if self._inbox is None:
            return None
        failed = self._saving.look()
        return {"failed": failed, "commands": self._inbox.read(), "due": self._saving.due()}

    def _obey(self, commands: Sequence[Mapping[str, Any]]) -> bool:
        """Do what commands say, which are the same on all ranks; True if one of them says to stop.

        Their files go only when a checkpoint holds what they did: a training that is killed before finds them again.
        """
        commanded = self._state.counters.commanded
        obeyed_ids = {change.id for change in commanded.changes}
        for command in commands:
            if command["refused"] or command["id"] in obeyed_ids:
                continue
            if command["name"] in ("pause", "resume"):
                commanded.paused = command["name"] == "pause"
            elif command["name"] == "set":
                change = CommandedChange(step=self._state.counters.step, rates=command["rates"], id=command["id"])
                commanded.changes.append(change)
        self._output.commands(commands, self._comm.gather_json(self._assembly.learning_rates()) or [])
        self._saving.save(wait=True)
        if self._inbox is not None:
            self._inbox.remove(command["id"] for command in commands)
        return any(command["name"] == "stop" and not command["refused"] for command in commands)

    def _goodbye(self, why: str) -> str:
        return f"stopped {why} at step {self._state.counters.step}, checkpoint written; run the same command to resume"


def verdict(path: Path) -> str | None:
    """The reason why a watcher has decided to end a training before its last epoch; None if the training goes on.

    Parameters
    ----------
    path : Path
        `RunDirectory.verdict_file`. It is written once, as a whole: that it is there is the decision, also after the
        training was started again.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["reason"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "no reason can be read"
