"""The page of a sweep's report, made of its JSON and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hpcgan.report import page
from hpcgan.report.page import EmbeddedFigure
from hpcgan.sweep.labels import short_names, show

PLACES = 20
"""Places of the ranking that are shown at once; the table of trials has all."""


def render(report: dict[str, Any], figures: Sequence[EmbeddedFigure]) -> str:
    """The page.

    Parameters
    ----------
    report : dict
        As `hpcgan.sweep.report.build` makes it.
    figures : sequence of EmbeddedFigure
    """
    broken = [f"Cannot be read, and does not count: {problem}" for problem in report["problems"]]
    return page.render(
        "sweep.html.j2",
        report,
        figures,
        [*report["notices"], *broken],
        show=show,
        searched=_searched,
        places=PLACES,
        ranking_names=_parameters(report["ranking"]),
        trial_names=_parameters(report["trials"]),
        above_chance=any(weight["share"] > weight["chance"] for weight in report["importance"]["weights"]),
        spent=timedelta(seconds=round(report["seconds"])),
    )


def _parameters(trials: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Short names of the hyper-parameters that any of the trials has, by their keys."""
    return short_names(list(dict.fromkeys(key for trial in trials for key in trial["params"])))


def _searched(dimension: Any) -> str:
    """A dimension in a few words."""
    if not isinstance(dimension, dict):
        return ""
    for kind, name in (("choice", "one of"), ("uniform", "uniform"), ("log_uniform", "log-uniform"), ("int", "int")):
        if isinstance(dimension.get(kind), list):
            values = ", ".join(show(value) for value in dimension[kind])
            return f"{name} {values}" if kind == "choice" else f"{name} {values.replace(', ', ' … ')}"
    return show(dimension)
