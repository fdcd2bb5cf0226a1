"""Figures drawn in a process of their own.

Drawing takes a good part of a second, holds Python's lock meanwhile, and sets matplotlib's settings for as long, which
belong to the whole process. In a thread of a notebook's kernel it would hold up the cells and could change the look of
what they draw. So a second process (`python -m hpcgan.interactive.figure_process`) calls the functions that draw, and
ends with the pipe to the kernel: also when the kernel is killed.

It is no `ProcessPoolExecutor`. Workers of one survive a kernel that is killed, cannot be ended in the middle of a
drawing before Python 3.14, and begin by running the main module: during `%run script.py`, a script that trains.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.errors import HpcganError, InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110


class FigureProcess:
    """Draws figures, one at a time; the process starts with the first of them.

    Attributes
    ----------
    seconds : float
        Of a core's time, that the last figure took.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False

    def draw(self, function: Callable[..., Figure | tuple[str, Figure]], *arguments: Any) -> tuple[bytes, str]:
        """Have a figure drawn.

        Parameters
        ----------
        function : callable
            Of a module, by whose name the process finds it; returns a figure, or its caption and the figure.
        arguments
            Of the function; they are pickled.

        Returns
        -------
        png, caption : bytes, str

        Raises
        ------
        InputError
            It cannot be drawn.
        HpcganError
            The process ended: something killed it, or `close`. The next figure starts another.
        """
        pipe = self._start()
        try:
            pipe.send((function, arguments))
            png, caption, failure, self.seconds = pipe.recv()
        except (OSError, EOFError):
            raise HpcganError(f"the process that draws has ended (exit code {self._end()})") from None
        if failure:
            raise InputError(failure)
        return png, caption

    def close(self) -> None:
        """End the process, also in the middle of a figure."""
        self._closed = True
        self._end()

    def _start(self) -> Connection:
        with self._lock:
            if self._closed:
                raise HpcganError("closed: nothing is drawn any more")
            if self._pipe is None:
                package = str(Path(__file__).resolve().parents[2])  # a kernel may have it from anywhere
                path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
                self._pipe, theirs = Pipe()
                with theirs:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "hpcgan.interactive.figure_process", str(theirs.fileno())],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        pass_fds=[theirs.fileno()],
                        env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "Agg"},
                    )
            return self._pipe

    def _end(self) -> int | None:
        """Take leave of the process; its exit code."""
        with self._lock:
            process, self._process, self._pipe = self._process, None, None
        if process is None:
            return None
        process.kill()
        return process.wait()


def serve(pipe: Connection) -> None:
    """Draw what is asked for, until nobody is left who asks."""
    from hpcgan.report import plots

    while True:
        began, png, caption, failure = time.process_time(), b"", "", ""
        try:
            function, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result = function(*arguments)
            caption, figure = result if isinstance(result, tuple) else ("", result)
            png = plots.png(figure, DPI)
        except HpcganError as error:
            failure = str(error)
        except Exception as error:  # whatever it is, it is said, and the next figure may be drawn
            failure = f"{type(error).__name__}: {error}"
        pipe.send((png, caption, failure, time.process_time() - began))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted cell is none of its business
    os.nice(5)  # the training may be on the same cores
    with contextlib.suppress(BrokenPipeError):
        serve(Connection(int(sys.argv[1])))
