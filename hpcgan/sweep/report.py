"""The report of a sweep: one HTML page, the trials as CSV, everything as JSON, figures as PNG."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hpcgan
from hpcgan.errors import InputError
from hpcgan.evaluation import epoch_samples
from hpcgan.report.page import EmbeddedFigure, render
from hpcgan.runs.directory import RunDirectory
from hpcgan.sweep.labels import one_line, short_names, show
from hpcgan.sweep.statistics import Importance, Standing, importance, ranking
from hpcgan.sweep.store import check_json
from hpcgan.sweep.table import ENDED, Row, Table
from hpcgan.system.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Version of the JSON's layout; grows when a key changes its meaning or goes.
SCHEMA_VERSION = 1
#: Places of the ranking that are shown at once; the table of trials has all.
PLACES = 20

# Columns of the table of trials before the hyper-parameters and after them: attributes of `Row`.
_BEFORE = ("number", "state", "repeat_of", "seed")
_AFTER = ("score", "epoch", "epochs", "wanted", "attempts", "seconds", "test_score", "test_spread", "reason")


def build(table: Table, shuffles: int = 200) -> tuple[dict[str, Any], list[EmbeddedFigure]]:
    """Everything that a report shows.

    Parameters
    ----------
    table : Table
    shuffles : int
        For the level of chance of importances.

    Returns
    -------
    report : dict
        Content of the JSON file.
    figures : list of EmbeddedFigure
    """
    standings = ranking(table.rows)
    weights = importance(table, shuffles=shuffles)
    problems = list(table.problems)
    config = _config(table, problems)
    searched, repeats = table.searched(), [r for r in table.rows if r.repeat_of is not None]
    figures = _figures(table, standings, weights, problems)
    d = table.description
    report: dict[str, Any] = {
        "schema": "hpcgan.sweep",
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "hpcgan": hpcgan.__version__,
        "name": one_line(d.name),
        **{key: getattr(d, key) for key in ("sampler", "pruner", "seed", "ranks", "threads", "identity", "space")},
        "config": config,
        "search": {**table.counts(searched), "total": len(searched)},
        "repeats": {**table.counts(repeats), "total": len(repeats)},
        "seconds": sum(r.seconds or 0.0 for r in table.rows),
        "ranking": [asdict(s) for s in standings],
        "importance": asdict(weights),
        "reasons": reasons(table.rows),
        "trials": [asdict(r) for r in table.rows],
        "problems": problems,
        "summary": winner_lines(table, standings),
        "notices": _state_lines(table),
        "figures": [{"name": f.name, "caption": f.caption, "section": f.group} for f in figures],
    }
    return json.loads(json.dumps(report, allow_nan=False, default=str)), figures


def write(table: Table, shuffles: int = 200) -> list[Path]:
    """Write `trials.csv`, `sweep.json`, a PNG of each figure and `report.html` into the study's `report` folder.

    Returns
    -------
    list of Path
        What was written, the page last.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    report, figures = build(table, shuffles)
    folder = table.study.report
    content: dict[str, bytes | str] = {
        "trials.csv": to_csv(table),
        "sweep.json": json.dumps(report, indent=1, allow_nan=False) + "\n",
        **{f"{figure.name}.png": figure.png for figure in figures},
        "report.html": page(report, figures),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            write_atomic(folder / name, data)
    except OSError as error:
        raise InputError(f"{folder}: cannot write the report: {error.strerror}") from None
    return [folder / name for name in content]


def columns(table: Table) -> dict[str, list[Any]]:
    """Name of each column to its values, one a trial by number; None where there is nothing.

    `number`, `state`, `repeat_of`, `seed`; each hyper-parameter as `params.KEY`; `score`, `epoch` (the best one),
    `epochs` (trained), `wanted`, `attempts`, `seconds` (of the last attempt), `test_score`, `test_spread`, `reason`.
    """
    return {
        **{name: [getattr(row, name) for row in table.rows] for name in _BEFORE},
        **{f"params.{d.key}": [row.params.get(d.key) for row in table.rows] for d in table.dimensions()},
        **{name: [getattr(row, name) for row in table.rows] for name in _AFTER},
    }


def to_csv(table: Table) -> str:
    """One line a trial; scores as they are, times in seconds, empty where there is nothing."""
    keys, text = [d.key for d in table.dimensions()], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns(table))
    for row in table.rows:
        values = [_cell(row.params[key]) if key in row.params else None for key in keys]
        writer.writerow([*(getattr(row, k) for k in _BEFORE), *values, *(getattr(row, k) for k in _AFTER)])
    return text.getvalue()


def _cell(value: Any) -> Any:
    plain = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    return value if plain else json.dumps(value)


def reasons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Why trials were pruned, failed, were lost or are broken: reasons that differ in numbers only count as one.

    Returns
    -------
    list of dict
        `state`, `reason` (of the first such trial) and `trials`; the most frequent first.
    """
    by_reason: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row.state in ("pruned", "failed", "lost", "broken"):
            reason = row.reason or "no reason given"
            key = (row.state, re.sub(r"\d[\d.]*(e[+-]?\d+)?", "#", reason))
            by_reason.setdefault(key, {"state": row.state, "reason": reason, "trials": []})["trials"].append(row.number)
    return sorted(by_reason.values(), key=lambda entry: -len(entry["trials"]))


def winner_lines(table: Table, standings: Sequence[Standing]) -> list[str]:
    """Plain sentences on who leads, how sure that is, and why a single best is biased."""
    if not standings:
        return ["No trial has been trained to the end and scored: there is no winner yet."]
    first, n = standings[0], sum(r.final_score is not None for r in table.searched())
    lines = []
    if first.repeats is None:
        lines.append(
            f"Trial {first.number} has the lowest score, {first.value:.2f}, the single best of {n}. A single best of "
            "many is biased: part of it is luck, and the same configuration with another seed is expected to score "
            "worse. Only repetitions with fresh seeds tell by how much; there are none yet."
        )
    else:
        m = first.repeats
        seeds = "repetition with a fresh seed" if m.n == 1 else f"{m.n} repetitions with fresh seeds"
        own = f" The score that selected it was {first.score:.2f}." if first.score is not None else ""
        lines.append(
            f"Trial {first.number} leads with {m.text()}, the mean of {seeds}.{own} A single best of many "
            f"({n} here) is biased low, so the scores that selected trials are not in the means."
        )
        lines += _tie_lines(standings)
    if first.unfinished:
        lines.append(
            f"{first.unfinished} of the repetitions of trial {first.number} came to no score; its mean is that of the "
            "others and may flatter it."
        )
    passed = [s.number for s in standings[1:] if s.repeats is not None and s.unfinished and s.value < first.value]
    if passed:
        lines.append(f"{_trials(passed)} had a lower mean, but not every repetition came to a score.")
    lines.append(_test_line(first))
    return lines


def _tie_lines(standings: Sequence[Standing]) -> list[str]:
    first, others = standings[0], [s for s in standings[1:] if s.repeats is not None]
    lines = []
    if tied := [s.number for s in others if s.tied]:
        lines.append(
            f"{_trials(tied)} cannot be told from trial {first.number}: the difference of the means is within what "
            "chance gives (Welch's t-test, 5%)."
        )
    if unknown := [s.number for s in others if s.tied is None]:
        lines.append(f"{_trials(unknown)}: too few repetitions to say whether the difference is more than chance.")
    if others and not tied and not unknown and all(s.value > first.value for s in others):
        lines.append(
            f"It is better than the other repeated trials beyond the spread between seeds (Welch's t-test, 5%; "
            f"next: trial {others[0].number})."
        )
    return lines


def _test_line(first: Standing) -> str:
    if first.test is not None:
        seeds = f"{first.test.n} seed{'s' * (first.test.n > 1)}"
        return f"On test events, which selected nothing, it scores {first.test.text()} ({seeds})."
    if first.test_score is not None:
        spread = f" ± {first.test_spread:.2f} between generated samples" if first.test_spread is not None else ""
        return f"On test events, which selected nothing, trial {first.number} scores {first.test_score:.2f}{spread}."
    return "It has not been scored on test events yet."


def _state_lines(table: Table) -> list[str]:
    searched, lines = table.searched(), []
    counts, ended = table.counts(searched), sum(r.state in ENDED for r in searched)
    failed, pruned = counts["failed"], counts["pruned"]
    if failed or pruned:
        shares = [f"{failed} ({failed / ended:.0%}) failed"] * bool(failed)
        shares += [f"{pruned} ({pruned / ended:.0%}) {'was' if pruned == 1 else 'were'} pruned"] * bool(pruned)
        lines.append(f"Of {ended} trials that ended, {' and '.join(shares)}; the reasons are below.")
    whole = table.counts()
    if unfinished := [f"{whole[state]} {state}" for state in ("running", "queued", "lost") if whole[state]]:
        lines.append(f"The sweep has not ended: {', '.join(unfinished)}. This is how it stands.")
    return lines


def _trials(numbers: Sequence[int]) -> str:
    names = [str(n) for n in numbers]
    return f"Trial{'s' * (len(names) > 1)} {', '.join(names[:-1])}{' and ' * (len(names) > 1)}{names[-1]}"


def _config(table: Table, problems: list[str]) -> Mapping[str, Any] | None:
    """The configuration that trials change; None if it cannot be read."""
    run = RunDirectory(table.study.path)
    try:
        config = run.read_config()
        check_json(config)
        return config
    except InputError as error:
        problems.append(one_line(str(error)))
    except (TypeError, ValueError) as error:
        problems.append(one_line(f"{run.config_file}: is no configuration: {error}"))
    return None


# --- the page ---------------------------------------------------------------------------------------


def page(report: dict[str, Any], figures: Sequence[EmbeddedFigure]) -> str:
    """The HTML page.

    Parameters
    ----------
    report : dict
        As `build` makes it.
    figures : sequence of EmbeddedFigure
    """
    broken = [f"Cannot be read, and does not count: {problem}" for problem in report["problems"]]
    return render(
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
        spent=datetime.timedelta(seconds=round(report["seconds"])),
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
            return f"{name} " + (", " if kind == "choice" else " … ").join(show(value) for value in dimension[kind])
    return show(dimension)


# --- figures ----------------------------------------------------------------------------------------


def _figures(
    table: Table, standings: Sequence[Standing], weights: Importance, problems: list[str]
) -> list[EmbeddedFigure]:
    from hpcgan.report.plots import png
    from hpcgan.sweep import figures

    complete = sum(r.final_score is not None for r in table.searched())
    captioned_figures = [
        (
            "repeats",
            "Repeated configurations, best mean first. The circle is the score by which a trial was selected, and has "
            "no part in the mean.",
            "ranking",
            figures.repeats_figure(standings),
        ),
        (
            "parameters",
            "Score of each trial against each hyper-parameter; lower is better. Trials that failed are at the upper "
            "edge; pruned ones have the best score until then, of a shorter training.",
            "parameters",
            figures.parameter_figure(table, standings),
        ),
        (
            "parallel",
            f"Each line is a trial: {complete} complete ones coloured by score (dark is good), dashed those that were "
            "pruned or failed.",
            "parameters",
            figures.parallel_figure(table),
        ),
        (
            "importance",
            f"Share of each hyper-parameter in what the best {weights.top} of {weights.trials} complete trials have in "
            "common (PED-ANOVA). A grey bar is no longer than what 95% of studies stay below in which scores are dealt "
            "out at random (a triangle: that level is off the axis).",
            "importance",
            figures.importance_figure(weights),
        ),
        (
            "curves",
            "Score on validation events after each epoch; the first places are named.",
            "curves",
            figures.curves_figure(table, standings),
        ),
        ("samples", *_samples(table, standings, problems)),
    ]
    return [
        EmbeddedFigure(name, caption, png(figure), section)
        for name, caption, section, figure in captioned_figures
        if figure is not None
    ]


def _samples(table: Table, standings: Sequence[Standing], problems: list[str]) -> tuple[str, str, Figure | None]:
    """Events that the best trial generated while it was trained, beside real ones if its data are there."""
    row, captioned_figure = table.row(standings[0].number) if standings else None, None
    if row is not None and row.epoch is not None:
        run = table.study.trial(row.number)
        try:
            if row.epoch in epoch_samples.epochs(run):
                captioned_figure = epoch_samples.figure(run, row.epoch)
        except InputError as error:
            problems.append(one_line(str(error)))
    if row is None or captioned_figure is None:
        return "", "samples", None
    caption, figure = captioned_figure
    return f"Trial {row.number} after epoch {row.epoch}, its best. {caption}", "samples", figure
