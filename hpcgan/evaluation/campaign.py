"""Runs side by side in one page: scores and losses, what their time went to, what they cost, and in what they differ.

Everything comes from the directories of the runs, also while they train; no network is loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.errors import InputError
from hpcgan.report.output import Report, check_folder, embed, listed, stamp, write
from hpcgan.report.page import EmbeddedFigure, render
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory, differences, trained_run
from hpcgan.runs.goodput import PARTS, TimeSpent, time_spent
from hpcgan.runs.lease import attempt_state
from hpcgan.runs.records import Epoch

#: Version of the JSON's layout; grows when a key changes its meaning or goes.
SCHEMA_VERSION = 1
#: Configuration keys in which runs differ that the page shows, at most; the JSON has all.
KEYS_SHOWN = 30
#: Losses that get a figure, at most.
LOSSES_SHOWN = 4
#: Of a configuration, what does not say how a run is trained.
_NOT_TRAINING = ("name", "comm", "checkpoint", "profile")


@dataclass(frozen=True)
class Member:
    """One of the runs, with what its directory says.

    Attributes
    ----------
    label : str
        What the page calls it.
    run : RunDirectory
    config : dict
        Its configuration as plain values.
    criterion : str
        What its epochs are compared by.
    epochs : list of Epoch
    spent : TimeSpent or None
    """

    label: str
    run: RunDirectory
    config: dict[str, Any]
    criterion: str
    epochs: list[Epoch]
    spent: TimeSpent | None


def compare_runs(paths: Sequence[Path], out: Path) -> Report:
    """Write one page about several runs, `runs.html`, and `runs.json`.

    Parameters
    ----------
    paths : sequence of Path
        Run directories.
    out : Path
        Folder of the page.

    Raises
    ------
    InputError
        One of them is no run, or its configuration is broken; one is named twice.
    Unwritten
        The folder cannot be written.
    """
    check_folder(out)
    members = _members(paths)
    figures = _figures(members)
    notices = _notices(members)
    data = {
        "schema": "hpcgan.runs",
        "schema_version": SCHEMA_VERSION,
        **stamp(),
        "runs": [_row(member) for member in members],
        "differences": _differences(members),
        "notices": notices,
        "figures": listed(figures),
    }
    report = Report(data, out / "runs.html", out / "runs.json")
    page = render("runs.html.j2", data, figures, notices, parts_of_time=PARTS, keys_shown=KEYS_SHOWN)
    files: dict[str, bytes | str] = {"runs.html": page, "runs.json": json.dumps(data, indent=1, allow_nan=False) + "\n"}
    write(out, files, "\n".join(table(data)))
    return report


def table(data: Mapping[str, Any]) -> list[str]:
    """A line a run, for a terminal."""
    lines = []
    for row in data["runs"]:
        best, spent = row["best"], row["time"]
        score = f"best {row['criterion']} {best['score']:.2f} in epoch {best['epoch']}" if best else "no score"
        cost = ""
        if spent is not None:
            share = "" if spent["goodput"] is None else f", goodput {spent['goodput']:.0%}"
            cost = f", {spent['core_hours']:.3g} core-hours{share}"
        lines.append(f"{row['label']}: {row['state']}, epoch {row['epoch']} of {row['epochs']}, {score}{cost}")
    return lines


def _members(paths: Sequence[Path]) -> list[Member]:
    runs = [trained_run(path) for path in paths]
    places = Counter(run.path.resolve() for run in runs)
    if twice := [run.path for run in runs if places[run.path.resolve()] > 1]:
        raise InputError(f"{twice[0]}: is named twice; name each run once")
    names = Counter(run.path.absolute().name for run in runs)
    members = []
    for run in runs:
        name, config = run.path.absolute().name, run.load_config()
        members.append(
            Member(
                name if names[name] == 1 else str(run.path),
                run,
                config.dump(),
                config.scoring.criterion,
                records.read(run.metrics_file, Epoch),
                time_spent(run),
            )
        )
    return members


def _row(member: Member) -> dict[str, Any]:
    """What the page and the JSON say of a run."""
    epochs, config = member.epochs, member.config
    rates = [record.samples_per_second for record in epochs if record.samples_per_second]
    scored = [record.score for record in epochs if record.score is not None]
    best = epochs[-1].best if epochs else None
    finite = best is not None and bool(np.isfinite(best.score))
    return {
        "label": member.label,
        "path": str(member.run.path),
        "problem": config["problem"],
        "method": config["method"],
        "state": attempt_state(member.run) or "not started",
        "epoch": epochs[-1].epoch if epochs else 0,
        "epochs": config["training"]["epochs"],
        "samples": epochs[-1].samples if epochs else 0,
        "samples_per_second": float(np.median(rates)) if rates else None,
        "criterion": member.criterion,
        "best": {"score": best.score, "epoch": best.epoch} if best is not None and finite else None,
        "score_n": scored[-1].n if scored else None,
        "test": _test_score(member.run),
        "time": None if member.spent is None else member.spent.plain(),
    }


def _test_score(run: RunDirectory) -> dict[str, Any] | None:
    """The score that `hpcgan evaluate` has given to the best epoch; None where it has not."""
    try:
        score = json.loads((run.report / "report.json").read_text(encoding="utf-8"))["score"]
        return {"mean": float(score["mean"]), "std": score["std"], "n": int(score["n"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _differences(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Keys of the configurations that differ among the runs, with the value of each run as text."""
    plain = [{key: value for key, value in m.config.items() if key not in _NOT_TRAINING} for m in members]
    keys = sorted({key for other in plain[1:] for key, _, _ in differences(plain[0], other)})
    return [{"key": key, "values": [_shown(_value(config, key)) for config in plain]} for key in keys]


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _notices(members: Sequence[Member]) -> list[str]:
    """What a reader has to know before comparing numbers."""
    notices = []
    problems = sorted({member.config["problem"] for member in members})
    if len(problems) > 1:
        notices.append(f"Runs of different problems ({', '.join(problems)}): their scores are not comparable.")
    criteria = sorted({member.criterion for member in members})
    if len(criteria) > 1:
        notices.append(f"Best epochs were chosen by different numbers ({', '.join(criteria)}), which are no ranking.")
    sizes = sorted({record.score.n for member in members for record in member.epochs if record.score is not None})
    if len(sizes) > 1:
        notices.append(f"Scores at different N ({', '.join(map(str, sizes))}): compare only those at the same N.")
    return notices


def _figures(members: Sequence[Member]) -> list[EmbeddedFigure]:
    """Curves of all runs in the same axes, and where their time went."""
    from hpcgan.report import plots

    figures = []
    by_criterion: dict[str, dict[str, tuple[list[float], list[float | None]]]] = {}
    by_loss: dict[str, dict[str, tuple[list[float], list[float | None]]]] = {}
    for member in members:
        samples = [float(record.samples) for record in member.epochs]
        deciding = [record.deciding for record in member.epochs]
        if any(value is not None for value in deciding):
            by_criterion.setdefault(member.criterion, {})[member.label] = samples, deciding
        for loss in member.epochs[0].losses if member.epochs else ():
            values = [record.losses.get(loss) for record in member.epochs]
            by_loss.setdefault(loss, {})[member.label] = samples, values
    x_label = "Samples seen by all ranks"
    for criterion, lines in by_criterion.items():
        label = criterion[:1].upper() + criterion[1:]
        positive = all(value is None or value > 0 for _, values in lines.values() for value in values)
        figure = plots.series(lines, x_label, label, log_y=positive)
        caption = f"{label} on validation events after each epoch: what chooses the best one."
        figures.append(embed(f"deciding_{criterion.replace(' ', '_').replace('-', '_')}", caption, figure, "scores"))
    for loss, lines in list(by_loss.items())[:LOSSES_SHOWN]:
        figure = plots.series(lines, x_label, f"Loss: {loss.replace('_', ' ')}")
        figures.append(embed(f"loss_{loss}", f"Loss ({loss.replace('_', ' ')}), mean of each epoch.", figure, "losses"))
    hours = {
        member.label: {part: seconds / 3600 for part, seconds in member.spent.seconds.items()}
        for member in members
        if member.spent is not None
    }
    if hours:
        caption = "What the time of each run went to, from its first submission or start to its last record."
        figures.append(embed("time", caption, plots.stacked(hours, "Time [h]"), "time"))
    return figures
