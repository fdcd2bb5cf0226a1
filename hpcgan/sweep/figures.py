"""Figures of a sweep's report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from hpcgan.report.plots import COLOURS, FAKE, REAL, new_figure, styled
from hpcgan.sweep.dimension import Dimension, Int
from hpcgan.sweep.labels import short_names
from hpcgan.sweep.statistics import Importance, Standing
from hpcgan.sweep.table import ENDED, Row, RowState, Table

DONE, AGAIN, FAINT = COLOURS[0], COLOURS[2], "#b5b5b5"
LABELLED_CURVES = 5
_MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": DONE, "alpha": 0.8},
    "pruned": {"marker": "v", "color": REAL, "mfc": "none"},
    "failed": {"marker": "x", "color": FAKE},
    "so far": {"marker": "o", "color": DONE, "mfc": "none"},
}
LOG_FROM = 8.0
"""Scores whose largest is this many times the smallest get a logarithmic axis."""


@styled
def parameter_figure(table: Table, standings: Sequence[Standing]) -> Figure | None:
    """Score against each hyper-parameter; None if no trial has a score or nothing differs."""
    dimensions, names = table.varied(), short_names([d.key for d in table.dimensions()])
    rows = table.searched()
    scores = [r.score for r in rows if r.score is not None]
    if not dimensions or not scores:
        return None
    columns = min(3, len(dimensions))
    figure = new_figure((4.3 * columns, 3.3 * math.ceil(len(dimensions) / columns) + 0.5))
    panels = figure.subplots(math.ceil(len(dimensions) / columns), columns, squeeze=False, sharey=True)
    for panel in panels.flat[len(dimensions) :]:
        panel.set_axis_off()
    for panel, dimension in zip(panels.flat, dimensions):
        _draw_scores(panel, dimension, rows, standings)
        places = [dimension.place(r.params.get(dimension.key)) for r in rows]
        _value_axis(panel, dimension, {place for place in places if place is not None})
        panel.set_xlabel(_text(names[dimension.key]))
        without = places.count(None)
        if without:
            panel.set_title(f"{without} trials without it", fontsize=9, color=REAL)
    _score_axis(panels[0, 0], scores)
    for row in panels:
        row[0].set_ylabel("Score")
    _legend(figure, ncols=5)
    return figure


def _draw_scores(panel: Axes, dimension: Dimension, rows: Sequence[Row], standings: Sequence[Standing]) -> None:
    def x_of(row: Row | Standing) -> float | None:
        place = dimension.place(row.params.get(dimension.key))
        # Choices lie side by side, so that trials of the same do not hide one another.
        aside = 0.4 * (row.number * 0.618034 % 1.0 - 0.5) if dimension.labels else 0.0
        return None if place is None else place + aside

    for label in ("complete", "pruned"):
        _draw_points(panel, label, [(x_of(r), r.score) for r in rows if r.state == label])
    failed = [x for r in rows if r.state == "failed" and (x := x_of(r)) is not None]
    if failed:  # at the upper edge: whatever score they had, it is not that of a whole training
        edge = panel.get_xaxis_transform()
        panel.plot(failed, [0.96] * len(failed), "x", color=FAKE, ms=6, label="failed", transform=edge)
    means = [(x, s.repeats) for s in standings if s.repeats is not None and (x := x_of(s)) is not None]
    if means:
        panel.errorbar(
            [x for x, _ in means], [m.mean for _, m in means], yerr=[m.error or 0.0 for _, m in means],
            fmt="D", ms=5, lw=1.2, capsize=3, color=AGAIN, label="mean of repeats", zorder=4,
        )  # fmt: skip
    if standings and (x := x_of(standings[0])) is not None and math.isfinite(standings[0].value):
        panel.plot(x, standings[0].value, "o", ms=13, mfc="none", mew=1.6, color="black", label="first place", zorder=5)
    for place in range(len(dimension.labels)):
        of_choice = [r.final_score for r in rows if dimension.place(r.params.get(dimension.key)) == place]
        scores = [score for score in of_choice if score is not None]
        if len(scores) > 2:
            middle = [float(np.median(scores))] * 2
            panel.plot([place - 0.3, place + 0.3], middle, color=DONE, lw=1.2, label="median of a choice")


def _draw_points(panel: Axes, label: str, points: Sequence[tuple[float | None, float | None]]) -> None:
    """Trials of a kind, as far as they have both coordinates."""
    complete = [point for point in points if None not in point]
    if complete:
        panel.plot(*zip(*complete), ls="none", ms=5, label=label, **_MARKS[label])


@styled
def parallel_figure(table: Table) -> Figure | None:
    """Parallel coordinates: a line a trial across all hyper-parameters, coloured by score; None without."""
    if not _can_be_parallel(table):
        return None
    figure = new_figure((_parallel_width(table), 5.0))
    _draw_parallel(figure.subplots(), table)
    return figure


@styled
def overview_figure(table: Table) -> Figure | None:
    """Score of each trial by its number, and parallel coordinates as far as there are any; None without a score."""
    if not any(r.score is not None for r in table.searched()):
        return None
    if _can_be_parallel(table):
        figure = new_figure((_parallel_width(table), 8.0))
        numbers, parallel = figure.subplots(2, 1, height_ratios=(3, 5))
        _draw_parallel(parallel, table)
    else:
        figure = new_figure((8.0, 3.2))
        numbers = figure.subplots()
    _draw_numbers(numbers, table)
    return figure


def _draw_numbers(panel: Axes, table: Table) -> None:
    """The score of each trial, by its number, and the best so far."""
    rows = table.searched()
    for label in _MARKS:
        states = (label,) if label in ENDED else ("running", "queued", "lost")
        _draw_points(panel, label, [(r.number, r.score) for r in rows if r.state in states])
    final = [(r.number, r.final_score) for r in rows if r.final_score is not None]
    if len(final) > 1:
        numbers, scores = zip(*final)
        best = np.minimum.accumulate(scores)
        panel.plot(numbers, best, color=DONE, lw=1, drawstyle="steps-post", zorder=1, label="best so far")
    _score_axis(panel, [r.score for r in rows if r.score is not None])
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set(xlabel="Trial", ylabel="Score")
    panel.margins(x=0.04)
    panel.legend(loc="upper left", bbox_to_anchor=(0.0, 1.16), ncols=5, fontsize=9)


def _can_be_parallel(table: Table) -> bool:
    return sum(r.final_score is not None for r in table.searched()) > 1 and bool(table.varied())


def _parallel_width(table: Table) -> float:
    return max(8.0, 1.55 * (len(table.varied()) + 1))


def _draw_parallel(panel: Axes, table: Table) -> None:
    rows = [r for r in table.searched() if r.state in ENDED]
    scores = [r.final_score for r in rows if r.final_score is not None]
    dimensions, norm = table.varied(), _norm(scores)
    names = short_names([d.key for d in table.dimensions()])
    palette, absent = colormaps["viridis"], False
    for row in sorted(rows, key=lambda r: -math.inf if r.final_score is None else -r.final_score):  # the best last
        y = [_height(d, row.params.get(d.key)) for d in dimensions]
        if row.final_score is not None:
            end = float(norm(row.final_score))
            panel.plot(range(len(dimensions) + 1), [*y, end], color=palette(end), lw=1.6, alpha=0.9)
        else:
            panel.plot(range(len(dimensions)), y, color=FAINT, lw=0.8, ls="--", zorder=1)
    for x, dimension in enumerate(dimensions):
        for height, label in _ticks(dimension):
            _tick(panel, x, height, label)
        if any(dimension.place(r.params.get(dimension.key)) is None for r in rows):
            _tick(panel, x, ABSENT, "not set")
            absent = True
    for score in (min(scores), _middle(norm, scores), max(scores)):
        _tick(panel, len(dimensions), float(norm(score)), f"{score:.4g}")
    for x, name in enumerate([*(names[d.key] for d in dimensions), "score"]):
        panel.plot([x, x], [0.0, 1.0], color=REAL, lw=0.9, zorder=2)
        panel.annotate(_text(name), (x, 1.06), rotation=22, ha="left", va="bottom", fontsize=10, annotation_clip=False)
    panel.set_xlim(-0.25, len(dimensions) + 0.6)
    panel.set_ylim(ABSENT - 0.05 if absent else -0.04, 1.03)
    panel.set_axis_off()


ABSENT = -0.12
"""Height of what a trial does not have, below the values."""


def _height(dimension: Dimension, value: Any) -> float:
    place = dimension.place(value)
    if place is None:
        return ABSENT
    low, high = dimension.low, dimension.high
    if dimension.is_log:
        low, high, place = math.log(low), math.log(high), math.log(place)
    return (place - low) / (high - low) if high > low else 0.5


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    if dimension.labels:
        step = max(1, math.ceil(len(dimension.labels) / 10))
        return [(i / max(1.0, dimension.high), name) for i, name in enumerate(dimension.labels) if i % step == 0]
    return [(_height(dimension, value), f"{value:.3g}") for value in _ends_and_middle(dimension)]


def _tick(panel: Axes, x: float, height: float, label: str) -> None:
    panel.plot([x - 0.03, x + 0.03], [height] * 2, color=REAL, lw=0.9, zorder=2)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    panel.text(x + 0.05, height, _text(_cut(label, 18)), fontsize=8.5, va="center", bbox=box, zorder=3)


@styled
def importance_figure(importance: Importance) -> Figure | None:
    """Bars, with the level of chance."""
    if not importance.weights:
        return None
    names = short_names([w.key for w in importance.weights])
    figure = new_figure((7.2, 1.2 + 0.36 * len(importance.weights)))
    panel = figure.subplots()
    y = np.arange(len(importance.weights))[::-1]
    shares, chances = ([getattr(w, name) for w in importance.weights] for name in ("share", "chance"))
    colours = [DONE if w.share > w.chance else FAINT for w in importance.weights]
    panel.barh(y, shares, 0.62, color=colours)
    right = max(1.08 * max(shares), min(1.08 * max(chances), 1.0))
    inside = [(c, at) for c, at in zip(chances, y) if c < right]
    panel.plot([c for c, _ in inside], [at for _, at in inside], "|", ms=15, mew=2, color=FAKE,
               label="95% level of chance")  # fmt: skip
    beyond = [at for c, at in zip(chances, y) if c >= right]
    panel.plot([0.985 * right] * len(beyond), beyond, ">", ms=6, mfc="none", color=FAKE)
    panel.set_yticks(y, [_text(names[w.key]) for w in importance.weights])
    panel.yaxis.set_minor_locator(NullLocator())
    panel.tick_params(axis="y", left=False, right=False)
    panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.set_xlim(0.0, right)
    panel.set_xlabel("Share of importance")
    figure.legend(loc="outside upper center", fontsize=9)
    return figure


_ENDS: dict[RowState, dict[str, Any]] = {
    "complete": {},
    "pruned": {"ls": "--", "marker": "v", "markevery": [-1], "ms": 4, "mfc": "none"},
    "failed": {"ls": "--", "marker": "x", "markevery": [-1], "ms": 5},
}


@styled
def curves_figure(table: Table, standings: Sequence[Standing]) -> Figure | None:
    """Score after each epoch of all trials of the search; the first places are named."""
    rows = [r for r in table.searched() if r.curve]
    if not rows:
        return None
    leading = [s.number for s in standings[:LABELLED_CURVES]]
    figure = new_figure((8.6, 4.6))
    panel = figure.subplots()
    for row in rows:
        if row.number not in leading:
            style = {"color": FAINT, "lw": 0.9, "zorder": 1, **_ENDS.get(row.state, {"ls": ":"})}
            panel.plot(*zip(*row.curve), **style, label=row.state)
    for number, colour in zip(leading, itertools.cycle(COLOURS)):
        leader = table.row(number)
        if leader is not None and leader.curve:
            style = {"ms": 3, "lw": 1.6, "color": colour, "zorder": 3}
            marks = "o-" if len(leader.curve) < 30 else "-"
            panel.plot(*zip(*leader.curve), marks, **style, label=f"trial {number}")
    _score_axis(panel, [score for r in rows for _, score in r.curve])
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set(xlabel="Epoch", ylabel="Score")
    _legend(figure, ncols=5)
    return figure


@styled
def repeats_figure(standings: Sequence[Standing]) -> Figure | None:
    """Configurations that were repeated: scores with fresh seeds, their mean, the score that selected them."""
    repeated = [s for s in standings if s.repeats is not None]
    if not repeated:
        return None
    figure = new_figure((8.6, 1.5 + 0.5 * len(repeated)))
    panel = figure.subplots()
    values: list[float] = []
    for y, s in zip(range(len(repeated))[::-1], repeated):
        if s.repeats is None:
            continue
        values += [*s.scores, s.repeats.mean]
        panel.plot(s.scores, [y] * len(s.scores), "|", ms=11, color=REAL, label="a repeat")
        panel.errorbar(
            s.repeats.mean, y, xerr=s.repeats.error, fmt="D", ms=6, lw=1.6, capsize=4, color=AGAIN,
            label="mean of repeats, standard error",
        )  # fmt: skip
        if s.score is not None:
            values.append(s.score)
            panel.plot(s.score, y, "o", ms=6, mfc="none", color=DONE, label="score that selected it")
        if s.test is not None:
            values.append(s.test.mean)
            panel.errorbar(
                s.test.mean, y - 0.22, xerr=s.test.error, fmt="s", ms=5, lw=1.3, capsize=3, color=FAKE,
                label="mean on test events",
            )  # fmt: skip
    panel.set_yticks(range(len(repeated))[::-1], [f"trial {s.number}" for s in repeated])
    panel.yaxis.set_minor_locator(NullLocator())
    panel.tick_params(axis="y", left=False, right=False)
    panel.set_ylim(-0.6, len(repeated) - 0.4)
    _score_axis(panel, values, vertical=False)
    panel.set_xlabel("Score")
    _legend(figure, ncols=4)
    return figure


def _legend(figure: Figure, ncols: int) -> None:
    """Each label of any panel once, above all panels."""
    handles = {text: handle for axes in figure.axes for handle, text in zip(*axes.get_legend_handles_labels())}
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=ncols, fontsize=9)


# --- axes -------------------------------------------------------------------------------------------


def _is_wide(scores: Sequence[float]) -> bool:
    return min(scores) > 0 and max(scores) > LOG_FROM * min(scores)


def _score_axis(panel: Axes, scores: Sequence[float], vertical: bool = True) -> None:
    if not _is_wide(scores):
        return
    axis = panel.yaxis if vertical else panel.xaxis
    (panel.set_yscale if vertical else panel.set_xscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    narrow = max(scores) < 50 * min(scores)
    axis.set_minor_formatter(FuncFormatter(_sparse) if narrow else NullFormatter())


def _sparse(value: float, _: Any) -> str:
    """Minor ticks of a logarithmic axis: only some digits get a label."""
    digit = round(value / 10 ** math.floor(math.log10(value) + 1e-9))
    return f"{value:g}" if digit in (2, 5) else ""


def _value_axis(panel: Axes, dimension: Dimension, values: set[float]) -> None:
    if dimension.labels:
        long = sum(len(name) for name in dimension.labels) > 28
        labels = [_text(_cut(name, 16)) for name in dimension.labels]
        panel.set_xticks(range(len(labels)), labels, rotation=30 if long else 0, ha="right" if long else "center")
        panel.set_xlim(-0.6, len(labels) - 0.4)
    elif isinstance(dimension, Int) and len(values) <= 8:
        panel.set_xscale("log" if dimension.is_log else "linear")
        panel.set_xticks(sorted(values), [f"{x:.0f}" for x in sorted(values)])
        panel.margins(x=0.06)
    elif dimension.is_log:  # the whole range: a part of a decade may have no round number that is labelled
        panel.set_xscale("log")
        ticks = _ends_and_middle(dimension)
        panel.set_xticks(ticks, [f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e") for value in ticks])
        room = (dimension.high / dimension.low) ** 0.06
        panel.set_xlim(dimension.low / room, dimension.high * room)
    else:
        panel.margins(x=0.06)
        return
    panel.xaxis.set_minor_locator(NullLocator())


def _ends_and_middle(dimension: Dimension) -> tuple[float, float, float]:
    low, high = dimension.low, dimension.high
    return low, math.sqrt(low * high) if dimension.is_log else 0.5 * (low + high), high


def _norm(scores: Sequence[float]) -> Normalize:
    low, high = min(scores), max(scores)
    if _is_wide(scores):
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1.0)


def _middle(norm: Normalize, scores: Sequence[float]) -> float:
    return float(norm.inverse(0.5)) if max(scores) > min(scores) else min(scores)


def _cut(text: str, n: int) -> str:
    return text if len(text) <= n else f"{text[: n - 1]}…"


def _text(text: str) -> str:
    """Text of a user, not matplotlib's mathematics."""
    return text.replace("$", r"\$")
