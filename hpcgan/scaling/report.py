"""The report of a scaling study: table, JSON, CSV, figure and page."""

from __future__ import annotations

import csv
import datetime
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hpcgan
from hpcgan.scaling.measure import ISOLATED, Study
from hpcgan.scaling.summary import PARTS, summarise
from hpcgan.system.files import write_atomic

MEANING = {
    "rate": "Samples of all ranks over the time of the slowest rank, in blocks of real training steps (with the real "
    "input pipeline, without scoring, checkpoints and records): median over blocks, mean over repeats.",
    "efficiency": "Rate over (ranks times the rate of the one-rank point of the same backend and the same threads a "
    "rank). Both errors propagate; the one-rank point is 1 by definition. One rank alone on a node has its memory "
    "bandwidth and clock to itself, which this counts as lost by the others: see the isolated processes.",
    "against_isolated": "Rate over that of as many one-rank processes at the same time on the same cores, without any "
    "communication: what the cores can do at best.",
    "cost": "Ranks times threads times seconds, for 1000 samples.",
    "input": "Waiting for the next batch. What the pipeline's thread takes from the cores of the step counts as "
    "compute.",
    "compute": "A step by the same code without collectives, on a second copy of the networks, in blocks that "
    "alternate with the real ones; mean over ranks.",
    "imbalance": "Mean over such steps of (slowest rank - mean of ranks): waiting for the slowest, once a step. "
    "A step has two collectives and may wait twice; the rest is in communication.",
    "communication": "What is left of the step: packing, transfer, unpacking, further waiting. A difference of two "
    "measurements, so noise can make it negative.",
}
ERRORS = "Errors are standard errors of the mean over repeats; with one repeat there are none."


def build(study: Study) -> dict[str, Any]:
    """Everything that a report shows, from the files of a study; what `study.json` holds."""
    setting, config = study.setting(), study.config()
    return {
        "kind": "scaling study",
        "name": config.name,
        "problem": config.problem,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "hpcgan": hpcgan.__version__,
        "setting": setting.model_dump(),
        **summarise(study.results(), setting),
        "allreduce_failures": [
            {"comm": r["comm"], "ranks": r["ranks"], "reason": r["failure"]}
            for r in study.allreduce()
            if "failure" in r
        ],
        "meaning": MEANING,
    }


def write(study: Study, report: Mapping[str, Any]) -> list[Path]:
    """Write `study.json`, `points.csv`, `scaling.png` and `report.html` into the study.

    Returns
    -------
    list of Path
        What was written; without points there is no figure.
    """
    paths = [study.path / "study.json", study.path / "points.csv"]
    write_atomic(paths[0], json.dumps(report, indent=2) + "\n")
    write_atomic(paths[1], to_csv(report["points"]))
    picture = None
    if report["points"]:
        from hpcgan.report.plots import png
        from hpcgan.scaling.figures import study_figure

        picture = png(study_figure(report))
        paths.append(study.path / "scaling.png")
        write_atomic(paths[-1], picture)
    paths.append(study.path / "report.html")
    write_atomic(paths[-1], page(report, picture))
    return paths


def to_csv(points: Sequence[Mapping[str, Any]]) -> str:
    """One line a backend and number of ranks; times in seconds, empty where there is nothing."""
    names = [
        *("comm", "backend", "ranks", "nodes", "threads", "batch_size", "repeats"),
        *("samples_per_second", "samples_per_second_error", "efficiency", "efficiency_error"),
        *("against_isolated", "against_isolated_error", "core_seconds_per_1000_samples"),
        *(f"{part}_{what}" for part in ("step", *PARTS) for what in ("s", "error_s")),
        *("step_median_s", "step_quartile_1_s", "step_quartile_3_s"),
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for p in points:
        empty = {"value": None, "error": None}
        writer.writerow(
            [
                *(p[k] for k in ("comm", "backend", "ranks", "nodes", "threads", "batch_size", "repeats")),
                *_pair(p["rate"]),
                *_pair(p["efficiency"] or empty),
                *_pair(p["against_isolated"] or empty),
                p["cost"]["value"],
                *(number for part in ("step", *PARTS) for number in _pair(p["parts"][part])),
                p["step_median_s"],
                *p["step_quartiles_s"],
            ]
        )
    return text.getvalue()


def _pair(value: Mapping[str, Any]) -> tuple[Any, Any]:
    return value["value"], value["error"]


COLUMNS = (
    "ranks",
    "backend",
    "samples/s",
    "efficiency",
    "of isolated",
    "core-s/1000",
    "step ms",
    *PARTS,
)
TEXTS = ("backend", "algorithm")
"""Columns of this and of the model's tables that hold no numbers."""


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table: one row a backend and number of ranks, times in ms."""
    cells = []
    for p in sorted(report["points"], key=lambda p: (p["comm"] == ISOLATED, p["comm"], p["ranks"])):
        name = p["comm"] if p["comm"] in (p["backend"], ISOLATED) else f"{p['comm']} ({p['backend']})"
        cells.append(
            [
                str(p["ranks"]) + ("*" if p["oversubscribed"] else ""),
                name,
                show(p["rate"], 1.0, 0 if p["rate"]["value"] >= 100 else 2),
                show(p["efficiency"], 1.0, 3),
                show(p["against_isolated"], 1.0, 3),
                show({"value": p["cost"]["value"], "error": None}, 1.0, 2),
                show(p["parts"]["step"], 1e3, 2),
                *(show(p["parts"][part], 1e3, 2) for part in PARTS),
            ]
        )
    return cells


def show(value: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    """A number with its error."""
    if value is None:
        return ""
    text = f"{scale * value['value']:.{digits}f}"
    return text if not value["error"] else f"{text} ± {scale * value['error']:.{digits}f}"


def notes(report: Mapping[str, Any]) -> list[str]:
    """What a reader of the table has to know besides."""
    texts = []
    if any(p["oversubscribed"] for p in report["points"]):
        texts.append("* more threads than cores: not a measurement of scaling")
    if report["setting"]["synthetic"]:
        texts.append("random samples from memory: no file was read")
    if not all(p["finite"] for p in report["points"]):
        texts.append("losses became non-finite while steps were timed: speed is not affected, a training would end")
    backends = {p["comm"] for p in report["points"]}
    texts += [
        f"{comm}: no point of one rank, so no efficiency"
        for comm in sorted(backends)
        if not any(p["ranks"] == 1 for p in report["points"] if p["comm"] == comm)
    ]
    for failure in report["failures"]:
        texts.append(f"failed: {failure['ranks']} ranks ({failure['comm']}): {failure['reason']}")
    for failure in report["allreduce_failures"]:
        texts.append(f"failed: allreduce on {failure['ranks']} ranks ({failure['comm']}): {failure['reason']}")
    return list(dict.fromkeys(texts))


def title(report: Mapping[str, Any]) -> str:
    """One line about a study."""
    s = report["setting"]
    batch = f"{s['batch']} samples a rank" if s["mode"] == "weak" else f"{s['batch']} samples over all ranks"
    return f"{report['name']}: {s['mode']} scaling, {batch}, {s['threads']} thread{'s' * (s['threads'] > 1)} a rank"


def page(report: Mapping[str, Any], picture: bytes | None) -> str:
    """The study as one HTML page."""
    from hpcgan.report.page import EmbeddedFigure, render

    caption = (
        "Left: samples a second; dashed, ranks times the one-rank point. Middle: efficiency against the one-rank "
        "point. Right: a step and its parts (a negative communication is drawn as zero). " + ERRORS
    )
    return render(
        "scaling.html.j2",
        dict(report),
        [] if picture is None else [EmbeddedFigure("scaling", caption, picture, "study")],
        notes(report),
        heading=title(report),
        columns=[*COLUMNS[:6], "step [ms]", *(f"{part} [ms]" for part in PARTS)],
        rows=rows(report),
        errors=ERRORS,
    )
