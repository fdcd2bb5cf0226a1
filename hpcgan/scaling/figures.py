"""Figures of scaling studies and of their extrapolation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from hpcgan.report.plots import COLOURS, REAL, STYLE, new_figure
from hpcgan.scaling.measure import ISOLATED
from hpcgan.scaling.summary import PARTS

PART_COLOURS = dict(zip(PARTS, ("#56B4E9", "#E69F00", "#D55E00", "#009E73")))


def study_figure(report: Mapping[str, Any]) -> Figure:
    """Rate, efficiency and parts of a step, of all backends.

    Parameters
    ----------
    report : mapping
        As `hpcgan.scaling.report.build` makes it, with at least one point.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure((13.0, 4.4))
        rate, efficiency, parts = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        points = report["points"]
        kinds = sorted({p["comm"] for p in points}, key=lambda comm: (comm == ISOLATED, comm))
        ranks = sorted({p["ranks"] for p in points})
        for comm, colour, marker in zip(kinds, itertools.cycle(COLOURS), itertools.cycle("osD^v")):
            of_backend = sorted((p for p in points if p["comm"] == comm), key=lambda p: p["ranks"])
            style: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5, "lw": 1.3, "capsize": 3}
            if comm == ISOLATED:
                style.update(color=REAL, ls=":")
            _errorbar(rate, of_backend, "rate", label=comm, **style)
            if comm == ISOLATED:
                continue
            one = next((p["rate"]["value"] for p in of_backend if p["ranks"] == 1), None)
            if one is not None:
                x = np.array([1, max(ranks)])
                rate.plot(x, one * x, color=colour, ls="--", lw=1, label=f"{comm}: ideal")
            _errorbar(efficiency, of_backend, "efficiency", label=f"{comm}: against 1 rank", **style)
            style.update(ls=":", mfc="none")
            _errorbar(efficiency, of_backend, "against_isolated", label=f"{comm}: against isolated", **style)
        for axes in (rate, efficiency):
            axes.set_xlabel("Ranks")
            _rank_axis(axes, ranks)
        rate.set_yscale("log", base=2)
        rate.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f}" if y >= 10 else f"{y:.2g}"))
        rate.yaxis.set_minor_locator(NullLocator())
        low, high = rate.get_ylim()
        if high < 6 * low:  # few powers of two, or none
            rate.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        rate.set(ylabel="Samples / s")
        efficiency.axhline(1.0, color=REAL, lw=1, ls="--")
        efficiency.set_ylim(0.0, max(1.1, 1.05 * efficiency.get_ylim()[1]))
        efficiency.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        efficiency.set(ylabel="Efficiency")
        for axes in (rate, efficiency):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=9)
        _stack(parts, [p for p in points if p["comm"] != ISOLATED] or points)
        return figure


def _stack(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Parts of a step as bars on one another."""
    ordered = sorted(points, key=lambda p: (p["ranks"], p["comm"]))
    several = len({p["comm"] for p in ordered}) > 1
    x = np.arange(len(ordered))
    bottom = np.zeros(len(ordered))
    for part in PARTS:
        height = np.array([max(0.0, 1e3 * p["parts"][part]["value"]) for p in ordered])
        axes.bar(x, height, 0.7, bottom=bottom, color=PART_COLOURS[part], label=part.capitalize())
        bottom += height
    steps = np.array([1e3 * p["parts"]["step"]["value"] for p in ordered])
    errors = np.array([1e3 * (p["parts"]["step"]["error"] or 0.0) for p in ordered])
    axes.errorbar(x, steps, yerr=errors, fmt="_", color="black", ms=12, lw=1.1, capsize=3, label="Step")
    names = [f"{p['ranks']}\n{p['comm']}" if several else str(p["ranks"]) for p in ordered]
    axes.set_xticks(x, names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", top=False, bottom=False)
    axes.set(xlabel="Ranks", ylabel="Time of a step [ms]")
    axes.set_ylim(0.0, 1.35 * max(bottom.max(), (steps + errors).max()))
    axes.legend(fontsize=9, ncols=2, loc="upper left")


def model_figure(model: Mapping[str, Any]) -> Figure:
    """Efficiency and time of a step against the number of ranks, clearly a model.

    Parameters
    ----------
    model : mapping
        As `hpcgan.scaling.model.extrapolate` makes it.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure((12.0, 6.0))
        efficiency, step = figure.subplots(1, 2)
        for (name, curve), colour in zip(model["curves"].items(), COLOURS):
            ranks = np.array([p["ranks"] for p in curve])
            middle, low, high = (np.array([p["efficiency"][k] for p in curve]) for k in ("value", "low", "high"))
            efficiency.fill_between(ranks, low, high, color=colour, alpha=0.2, lw=0)
            efficiency.plot(ranks, middle, color=colour, lw=1.5, label=f"model: {name}")
            total = np.array([1e3 * p["step_s"] for p in curve])
            step.plot(ranks, total, color=colour, lw=1.5, label=f"step, {name}")
            step.plot(ranks, _in_ms(curve, "communication_s"), color=colour, lw=1, ls="--",
                      label=f"communication, {name}")  # fmt: skip
        first = next(iter(model["curves"].values()))
        x = [p["ranks"] for p in first]
        step.plot(x, _in_ms(first, "imbalance_s"), color=REAL, lw=1, ls=":", label="imbalance")
        step.plot(x, _in_ms(first, "compute_s"), color=REAL, lw=1, ls="-.", label="compute")
        measured = model["measured"]
        if measured:
            efficiency.errorbar(
                [p["ranks"] for p in measured],
                [p["efficiency"] for p in measured],
                yerr=[p["error"] or 0.0 for p in measured],
                fmt="o", ms=5, color="black", capsize=3, label="measured in the study",
            )  # fmt: skip
        for entry, marker in zip(model["published"], "*P"):
            efficiency.plot(
                entry["devices"], entry["efficiency"], marker, ms=11, color=REAL, mfc="none",
                label=f"{entry['name']}: {entry['efficiency']:.0%}, {entry['devices']:,} {entry['unit']}",
            )  # fmt: skip
        for axes in (efficiency, step):
            axes.set_xscale("log", base=2)
            axes.set_xlabel("Ranks")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.tick_params(axis="x", labelrotation=45)
        efficiency.set_ylim(0.0, 1.15)
        efficiency.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        efficiency.set_ylabel("Efficiency against one rank")
        efficiency.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        step.set_yscale("log")
        step.set_ylabel("Time [ms]")
        step.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
        step.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        step.yaxis.set_minor_formatter(NullFormatter())
        figure.suptitle(f"A model, not a measurement: {model['title']}", fontsize=11)
        return figure


def _in_ms(curve: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """For a logarithmic axis: a gap where there is nothing."""
    return [1e3 * p[name] if p[name] > 0 else np.nan for p in curve]


def _errorbar(axes: Axes, points: Sequence[Mapping[str, Any]], name: str, **style: Any) -> None:
    measured = [p for p in points if p[name] is not None]
    if measured:
        errors = [p[name]["error"] or 0.0 for p in measured]
        axes.errorbar([p["ranks"] for p in measured], [p[name]["value"] for p in measured], yerr=errors, **style)


def _rank_axis(axes: Axes, ranks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(ranks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.1)
