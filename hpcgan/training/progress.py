"""What rank 0 shows: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hpcgan.methods.base import LossCurve
from hpcgan.runs.records import Epoch, HeldOut

_LINE_EVERY_S = 30.0
_PARTS_SHOWN = 6  # of a score, in a line


class Clock:
    """Measures the rate of an epoch, in samples a second."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, samples: int) -> None:
        """From here on, where so many samples are done."""
        self._start, self._samples = time.monotonic(), samples

    def exclude(self, seconds: float) -> None:
        """A pause is no part of it."""
        self._start += seconds

    def rate(self, samples: int) -> float | None:
        """Samples/s since the start; None if there were none."""
        elapsed, count = time.monotonic() - self._start, samples - self._samples
        return count / max(elapsed, 1e-9) if count else None


class Phases:
    """What the start of an attempt goes into, in seconds.

    Parameters
    ----------
    born : float
        When its process was started, by `time.monotonic`.
    """

    def __init__(self, born: float) -> None:
        self._born = self._last = born
        self.seconds: dict[str, float] = {}

    def done(self, name: str) -> None:
        """A phase has ended now, which the one before it began."""
        now = time.monotonic()
        self.seconds[name], self._last = now - self._last, now

    def exclude(self, seconds: float) -> None:
        """A pause is no part of it."""
        self._born += seconds
        self._last += seconds

    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._born


class Reporter:
    """Reports a training; silent on ranks other than 0.

    Parameters
    ----------
    active : bool
        True on rank 0.
    terminal : bool
        Whether a person watches: a rank's own output is a pipe, only the launcher knows.
    epochs : int
        Epochs of the whole training.
    losses : sequence of LossCurve
        What is shown beside the rate.
    epochs_done : float
        Epochs done before this attempt.
    """

    def __init__(
        self, active: bool, terminal: bool, epochs: int, losses: Sequence[LossCurve], epochs_done: float = 0.0
    ) -> None:
        self._active, self._epochs, self._losses = active, epochs, losses
        self._console = Console(force_terminal=terminal, force_interactive=terminal)
        self._started, self._first = time.monotonic(), epochs_done
        self._shown = self._started
        self._stepped = False
        self._bar: Progress | None = None
        if active and terminal:
            self._bar = Progress(
                TextColumn("epoch {task.completed:.1f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("train", total=float(epochs), text="")
            self._bar.update(self._task, completed=epochs_done)
            self._bar.start()

    def message(self, text: str) -> None:
        """One line."""
        if self._active:
            self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def step(self, epochs_done: float, rate: Callable[[], float | None], metrics: Mapping[str, float]) -> None:
        """After every step; what is shown is up to the display.

        Parameters
        ----------
        epochs_done : float
            Epochs done, fractional.
        rate : callable
            Gives the samples a second over all ranks, None as long as it is not known.
        metrics : mapping
            Averaged metrics of the step.
        """
        if not self._active:
            return
        if not self._stepped:  # building the step is no part of what is left
            self._stepped, self._started, self._first = True, time.monotonic(), epochs_done
        now = time.monotonic()
        if self._bar is None and now - self._shown <= _LINE_EVERY_S:
            return
        losses = "  ".join(f"{loss.short} {metrics[loss.metric]:.3f}" for loss in self._losses)
        text = f"{_rate(rate())}{losses}"
        if self._bar is not None:
            self._bar.update(self._task, completed=epochs_done, text=text)
        else:
            self._shown = now
            self.message(f"epoch {epochs_done:.2f}/{self._epochs}  {text}  left {self._left(epochs_done)}")

    def epoch(self, record: Epoch) -> None:
        """After every epoch, with its record."""
        if not self._active:
            return
        losses = "  ".join(f"{loss.short} {_loss(record.losses[loss.name])}" for loss in self._losses)
        line = f"epoch {record.epoch}/{self._epochs}  {_rate(record.samples_per_second)}{losses}"
        score, selection = record.score, record.selection
        if score is not None:
            line += f"  score {score.total:.2f} at N={score.n} ({_parts(score.parts)})"
        if selection is not None:
            line += f"  selection {selection.total:.2f} ({_parts(selection.parts)})"
        if record.held_out is not None:
            line += f"  held-out {_with_error(record.held_out)}"
        line += "  best" if record.is_best else ""
        self.message(f"{line}  left {self._left(float(record.epoch))}")
        self._shown = time.monotonic()

    def close(self) -> None:
        """End the display."""
        if self._bar is not None:
            self._bar.stop()

    def _left(self, epochs_done: float) -> str:
        elapsed, progressed = time.monotonic() - self._started, epochs_done - self._first
        if progressed <= 0:
            return "?"
        return str(timedelta(seconds=round(elapsed / progressed * (self._epochs - epochs_done))))


def _parts(parts: Mapping[str, float]) -> str:
    """The parts of a score; the largest ones of many."""
    rest = len(parts) - _PARTS_SHOWN
    names = list(parts) if rest <= 0 else sorted(parts, key=lambda name: -parts[name])[:_PARTS_SHOWN]
    text = ", ".join(f"{name} {parts[name]:.2f}" for name in names)
    return text if rest <= 0 else f"{text} and {rest} smaller ones"


def _with_error(held_out: HeldOut) -> str:
    return f"{held_out.loss} {held_out.mean:.2f} +- {held_out.error:.2f}"


def _rate(value: float | None) -> str:
    """Nothing, as long as nothing was measured: after a resume a training may have only the end of an epoch to do."""
    if value is None:
        return ""
    return f"{value:.0f} samples/s  " if value >= 10 else f"{value:.2g} samples/s  "


def _loss(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"
