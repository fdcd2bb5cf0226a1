"""Pictures of a run, drawn in a process of their own.

Drawing takes a good part of a second, holds Python's lock meanwhile, and sets matplotlib's settings for as long, which
belong to the whole process. In a thread of a notebook's kernel it would hold up the cells and could change the look of
what they draw. So a second process (`python -m hpcgan.interactive.figure_process`) draws on request,
a request a line of its standard input, and ends with it: also when the kernel is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation import run_samples

Picture = Literal["curves", "samples", "sweep"]
DPI = 110


class Painter:
    """Draws pictures of runs, one at a time; its process starts with the first of them.

    Attributes
    ----------
    seconds : float
        Of a core's time, that the last picture took.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process; None if there is none."""
        return None if self._process is None else self._process.pid

    def draw(self, run: Path, what: Picture, epoch: int | None = None) -> tuple[bytes, str]:
        """A picture.

        Parameters
        ----------
        run : Path
            Run directory; for "sweep" that of a study.
        what : "curves", "samples" or "sweep"
            As `Training.plot`, `Training.samples` of an epoch, or `Sweep.plot`.
        epoch : int, optional

        Returns
        -------
        png, caption : bytes, str

        Raises
        ------
        InputError
            It cannot be drawn.
        HpcganError
            The process ended: something killed it, or `close`. The next picture starts another.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"run": str(run), "what": what, "epoch": epoch}).encode() + b"\n")
            process.stdin.flush()
            head: dict[str, Any] = json.loads(process.stdout.readline())
            png = process.stdout.read(head["bytes"])
        except (OSError, ValueError):  # a line that is none: the process is gone
            code = self._end()
            raise HpcganError(f"the process that draws has ended (exit code {code})") from None
        self.seconds = head["seconds"]
        if "error" in head:
            raise InputError(head["error"])
        return png, head["caption"]

    def close(self) -> None:
        """End the process, also in the middle of a picture."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
        self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise HpcganError("closed: nothing is drawn any more")
            if self._process is None:
                package = str(Path(__file__).resolve().parents[2])  # a kernel may have it from anywhere
                path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "hpcgan.interactive.figure_process"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "Agg"},
                )
            return self._process

    def _end(self) -> int | None:
        """Take leave of the process; its exit code."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # it may have a line left that nobody takes
                if pipe is not None:
                    pipe.close()
        return process.wait()


def _paint(run: str, what: Picture, epoch: int | None) -> tuple[bytes, str]:
    from hpcgan.interactive.sweep import Sweep
    from hpcgan.interactive.training import attach
    from hpcgan.report import plots

    if what == "sweep":
        return plots.png(Sweep.attach(run).plot(), DPI), ""
    if what == "curves":
        return plots.png(attach(run).plot(), DPI), ""
    training = attach(run)
    drawn = None if epoch is None else run_samples.figure(training.run, epoch)
    if drawn is None:
        raise InputError(f"problem '{training.config.problem}' has no picture of single samples")
    caption, figure = drawn
    return plots.png(figure, DPI), caption


def main() -> None:
    """Draw what the lines of the standard input ask for, to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted cell is none of its business
    os.nice(5)  # the training may be on the same cores
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "wb") as nowhere:  # what a library prints must not get in between
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    for line in sys.stdin.buffer:
        png, began = b"", time.process_time()
        try:
            png, caption = _paint(**json.loads(line))
            head: dict[str, Any] = {"caption": caption}
        except HpcganError as error:
            head = {"error": str(error)}
        except Exception as error:  # whatever it is, it is said, and the next picture may be drawn
            head = {"error": f"{type(error).__name__}: {error}"}
        answers.write(
            json.dumps({**head, "bytes": len(png), "seconds": time.process_time() - began}).encode() + b"\n" + png
        )
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
