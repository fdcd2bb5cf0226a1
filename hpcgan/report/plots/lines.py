"""What was recorded during a training, as lines."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from hpcgan.report.plots.style import COLOURS, REAL, new_figure, styled

#: Lines of a figure that have names.
MOST_NAMED = 12


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


@styled
def series(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    x_label: str,
    y_label: str,
    *,
    log_y: bool = False,
) -> Figure:
    """One quantity of several trainings, each with its own x.

    Parameters
    ----------
    lines : mapping of str to ((n,) sequence, (n,) sequence)
        Label, x and y of each; None where there is nothing. Of many lines, none is named.
    x_label, y_label : str
    log_y : bool
    """
    figure = new_figure((7.2, 4.2))
    panel = figure.subplots()
    for (name, (x, values)), colour in zip(lines.items(), itertools.cycle(COLOURS)):
        _draw_line(panel, x, values, name, colour)
    if log_y:
        panel.set_yscale("log")
    panel.set(xlabel=x_label, ylabel=y_label)
    panel.margins(x=0.02)
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    if len(lines) <= MOST_NAMED:
        longest = max((len(name) for name in lines), default=1)
        figure.legend(loc="outside upper center", ncols=max(1, min(4, 90 // (longest + 5))), fontsize=9)
    return figure


@styled
def stacked(bars: Mapping[str, Mapping[str, float]], x_label: str) -> Figure:
    """A horizontal bar each, of parts one behind the other.

    Parameters
    ----------
    bars : mapping of str to mapping of str to float
        Label of a bar to its parts, the same ones of each; a part that is nothing in all bars is left out.
    x_label : str
    """
    figure = new_figure((9.0, 1.6 + 0.34 * len(bars)))
    panel = figure.subplots()
    parts = [part for part in next(iter(bars.values())) if any(bar[part] for bar in bars.values())]
    starts = np.zeros(len(bars))
    for part, colour in zip(parts, itertools.cycle((*COLOURS, "#999999", "#dddddd", "#000000"))):
        widths = np.array([bar[part] for bar in bars.values()])
        panel.barh(list(bars), widths, left=starts, height=0.7, color=colour, label=part)
        starts += widths
    panel.set(xlabel=x_label, xlim=(0, max(float(starts.max()) * 1.02, 1e-9)))
    panel.tick_params(axis="y", which="both", left=False, right=False)
    panel.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=min(len(parts), 9) or 1, fontsize=9)
    return figure


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis that shows all values, with some room; half a unit on each side of a single one."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _draw_lines(panel: Axes, x: Sequence[float] | np.ndarray, lines: Mapping[str, Sequence[float | None]]) -> None:
    """Lines with a point a value; None is a gap."""
    for (name, values), colour in zip(lines.items(), itertools.cycle(COLOURS)):
        _draw_line(panel, x, values, name, colour)


def _draw_line(
    panel: Axes, x: Sequence[float] | np.ndarray, values: Sequence[float | None], name: str, colour: str
) -> None:
    y = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    panel.plot(x, y, "o-", ms=2.5 if len(x) > 20 else 4, lw=1.3, color=colour, label=name)
