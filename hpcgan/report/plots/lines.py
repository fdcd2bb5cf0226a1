"""What was recorded during a training, as lines."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from hpcgan.report.plots.style import COLOURS, REAL, new_figure, styled


@styled
def curves(
    x: np.ndarray,
    lines: Mapping[str, Sequence[float | None]],
    x_label: str,
    y_label: str,
    *,
    log_y: bool = False,
    mark: tuple[float, str] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Quantities recorded during a training, against samples seen.

    Parameters
    ----------
    x : (n,) array
    lines : mapping of str to (n,) sequence
        Label and values of each line; None and NaN where there is nothing.
    x_label, y_label : str
    log_y : bool
    mark : (x, label), optional
        A vertical line.
    levels : mapping of str to float, optional
        Horizontal lines by label.
    """
    figure = new_figure((7.2, 4.2))
    panel = figure.subplots()
    _draw_lines(panel, x, lines)
    for (name, level), dashes in zip((levels or {}).items(), ("--", ":", "-.")):
        panel.axhline(level, color=REAL, lw=1, ls=dashes, label=name)
    if mark:
        panel.axvline(mark[0], color=REAL, lw=0.8, label=mark[1], zorder=0)
    if log_y:
        panel.set_yscale("log")
    panel.set(xlabel=x_label, ylabel=y_label)
    panel.margins(x=0.02)
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    longest = max((len(str(label)) for label in panel.get_legend_handles_labels()[1]), default=1)
    figure.legend(loc="outside upper center", ncols=max(1, min(4, 90 // (longest + 5))), fontsize=9)
    return figure


@styled
def progress(
    epochs: Sequence[int],
    panels: Sequence[tuple[str, Mapping[str, Sequence[float | None]], bool]],
    marks: Sequence[float] = (),
) -> Figure:
    """A training at a glance, panels side by side.

    Parameters
    ----------
    epochs : (n,) sequence
    panels : sequence of (label, lines, logarithmic)
        Lines as in `curves`.
    marks : sequence of float
        Epochs at which learning rates were changed.
    """
    figure = new_figure((4.2 * len(panels), 3.4))
    for panel, (label, lines, log) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_lines(panel, epochs, lines)
        for mark in marks:
            panel.axvline(mark, color=REAL, lw=0.8, ls=":", zorder=0)
        if log:
            panel.set_yscale("log")
        panel.set(xlabel="Epoch", ylabel=label)
        panel.set_xlim(*_around(epochs))  # the same ones, also where some have no value
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.legend(fontsize=8)
    return figure


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis that shows all values, with some room; half a unit on each side of a single one."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _draw_lines(panel: Axes, x: Sequence[float] | np.ndarray, lines: Mapping[str, Sequence[float | None]]) -> None:
    """Lines with a point a value; None is a gap."""
    for (name, values), colour in zip(lines.items(), itertools.cycle(COLOURS)):
        y = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        panel.plot(x, y, "o-", ms=2.5 if len(x) > 20 else 4, lw=1.3, color=colour, label=name)
