"""Requests to a running training: signals that ask it to stop, and a verdict that it shall end early."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

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


def verdict(path: Path) -> str | None:
    """Why a training shall end before its last epoch, as somebody who watches it has decided; None: it goes on.

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
