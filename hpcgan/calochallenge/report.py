"""The report of the CaloChallenge's comparison: one HTML page, one JSON file, a table for the terminal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.calochallenge.inputs import Files, Run
from hpcgan.calochallenge.protocol import Options, measure
from hpcgan.comm.base import Comm
from hpcgan.report.output import Clock, Log, Report, check_folder, stamp, write
from hpcgan.report.page import render

#: Version of the JSON's layout; grows when a key changes its meaning or goes.
SCHEMA_VERSION = 1
STEM = "calochallenge"

#: What the table of a comparison has besides classifiers: key, title, factor.
DISTANCES = (
    ("fpd", "FPD x 10^3", 1e3),
    ("kpd", "KPD x 10^3", 1e3),
    ("precision", "Precision", 1.0),
    ("recall", "Recall", 1.0),
    ("density", "Density", 1.0),
    ("coverage", "Coverage", 1.0),
)
LEVELS = {"low": "low level", "high": "high level"}
#: Of the separation powers, how many the terminal shows.
SHOWN = 3


def compare(inputs: Files | Run, out: Path, options: Options, comm: Comm, log: Log) -> Report | None:
    """Compare generated with real showers and write the report; to be called on all ranks.

    Parameters
    ----------
    inputs : Files or Run
    out : Path
        Folder of the report.
    options : Options
    comm : Comm
    log : callable
        Hears of progress and warnings.

    Returns
    -------
    Report or None
        On rank 0 what was written, elsewhere None.

    Raises
    ------
    InputError
        Showers that are missing, broken or too few, or a folder that cannot be written.
    """
    check_folder(out)
    clock = Clock(log)
    with clock("showers"):
        loaded = inputs.load(comm, log)
    with clock("comparison"):
        comparisons = measure(loaded.comparisons, options, comm, log)
    if comparisons is None:
        return None
    data = {
        "schema": "hpcgan.calochallenge",
        "schema_version": SCHEMA_VERSION,
        **stamp(),
        "title": loaded.title,
        "real": loaded.real,
        "fake": loaded.fake,
        "options": dataclasses.asdict(options),
        "ranks": comm.size,
        "notices": [*loaded.notices, *_notices(comparisons, options)],
        "comparisons": comparisons,
        "timing": clock.seconds(),
    }
    report = Report(data, out / f"{STEM}.html", out / f"{STEM}.json")
    page = render("calochallenge.html.j2", data, [], data["notices"], distances=DISTANCES, levels=LEVELS)
    files: dict[str, bytes | str] = {
        report.html.name: page,
        report.json.name: json.dumps(data, indent=1, allow_nan=False) + "\n",
    }
    write(out, files, "\n".join(lines(data)))
    return report


def _notices(comparisons: list[dict[str, Any]], options: Options) -> list[str]:
    """In what a comparison is not the challenge's."""
    notices = []
    n = min(comparison["n"] for comparison in comparisons)
    if n < 100_000:
        notices.append(
            f"{n} showers on each side; the published tables have 100,000 or more, and classifiers find more with more."
        )
    standard = Options()
    changed = [name for name in ("trainings", "units", "epochs") if getattr(options, name) != getattr(standard, name)]
    if options.classifiers and changed:
        text = ", ".join(f"{name} {getattr(options, name)} instead of {getattr(standard, name)}" for name in changed)
        notices.append(f"Not the challenge's classifiers: {text}.")
    return notices


def lines(data: Mapping[str, Any]) -> list[str]:
    """What a terminal shows: a table for each comparison, then the notices."""
    text_lines: list[str] = []
    for comparison in data["comparisons"]:
        title = f", {comparison['title']}" if comparison["title"] else ""
        n, n_null = comparison["n"], comparison["n_null"]
        sizes = f"{n} generated against {n} real showers; real: {n_null} each"
        text_lines.append(f"{comparison['geometry']}{title}: {sizes}")
        cells = [("", "generated", "real against real"), *rows(comparison)]
        first, second = (max(len(row[column]) for row in cells) + 2 for column in range(2))
        text_lines += [f"{name:<{first}}{generated:<{second}}{real}" for name, generated, real in cells]
    return text_lines + [f"note: {notice}" for notice in data["notices"]]


def rows(comparison: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, generated against real, and real against real, of each number."""
    for measure_name, title in (("auc", "AUC"), ("jsd", "JSD [bit]")):
        for inputs, result in comparison["classifiers"].items():
            yield f"{title} {LEVELS[inputs]}", _spread(result[measure_name]), _spread(result["null"][measure_name])
    if comparison["distances"] is None:
        return
    generated, real = both = comparison["distances"], comparison["distances"]["null"]
    for name, title, factor in DISTANCES:
        yield title, _number(generated[name], factor), _number(real[name], factor)
    powers = [{name: value for name, value in side["separation"].items() if value is not None} for side in both]
    mean, real_mean = (f"{np.mean(list(side.values())):.5f}" if side else "-" for side in powers)
    yield f"Separation, mean of {len(powers[0])}", mean, real_mean
    for name in sorted(powers[0], key=lambda name: -powers[0][name])[:SHOWN]:
        yield f"  {name}", f"{powers[0][name]:.5f}", f"{powers[1][name]:.5f}" if name in powers[1] else "-"


def _spread(number: Mapping[str, Any]) -> str:
    return f"{number['mean']:.4f}" + ("" if number["std"] is None else f" +- {number['std']:.4f}")


def _number(number: Any, factor: float) -> str:
    if isinstance(number, Mapping):
        return f"{factor * number['value']:.4g} +- {factor * number['error']:.2g}"
    return f"{factor * number:.4f}"


def summary(report: Report) -> str:
    """What a terminal shows of a report."""
    return "\n".join([*lines(report.data), f"report: {report.html}", f"        {report.json}"])
