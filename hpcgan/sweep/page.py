"""The page of a sweep's report, made of its JSON and its figures."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hpcgan import yamlio
from hpcgan.report.page import EmbeddedFigure, Numbers, document, gallery, table, text
from hpcgan.sweep.labels import short_names, show

SHOWN = 20
"""Places of the ranking that are shown at once; the table of trials has all."""


def render(report: dict[str, Any], figures: Sequence[EmbeddedFigure]) -> str:
    """The page.

    Parameters
    ----------
    report : dict
        As `hpcgan.sweep.report.build` makes it.
    figures : sequence of EmbeddedFigure
    """
    numbers = Numbers(report)

    def drawn(section: str) -> str:
        return gallery(f for f in figures if f.group == section)

    sections = [
        _header(report),
        _cards(numbers),
        _winner(report),
        "<h2>Ranking</h2>",
        _ranking(numbers),
        drawn("ranking"),
        "<h2>Score against hyper-parameters</h2>" if drawn("parameters") else "",
        drawn("parameters"),
        "<h2>What matters</h2>",
        _importance(numbers),
        drawn("importance"),
        "<h2>Learning curves</h2>" if drawn("curves") else "",
        drawn("curves"),
        "<h2>Samples of the winner</h2>" if drawn("samples") else "",
        drawn("samples"),
        _reasons(report),
        "<h2>All trials</h2>",
        _trials(numbers),
        _about(report),
    ]
    return document(f"Sweep {report['name']}", sections)


def _header(report: dict[str, Any]) -> str:
    created = datetime.datetime.fromisoformat(report["created"]).strftime("%-d %B %Y, %H:%M UTC")
    ranks = f"{report['ranks']} rank{'s' * (report['ranks'] > 1)} a trial"
    how = f"{report['sampler']} search, pruning: {report['pruner']}, seed {report['seed']}, {ranks}, {created}"
    lines = [f"<h1>{text('Sweep ' + report['name'])}</h1>", f'<p class="soft">{text(how)}.</p>']
    broken = [f"Cannot be read, and does not count: {problem}" for problem in report["problems"]]
    lines += [f'<p class="notice">{text(line)}</p>' for line in [*report["notices"], *broken]]
    lead, *rest = report["summary"]
    repeated = bool(report["ranking"]) and report["ranking"][0]["repeats"] is not None
    lines.append(f"<p>{text(lead)}</p>" if repeated else f'<p class="notice">{text(lead)}</p>')
    return "\n".join(lines + [f"<p>{text(line)}</p>" for line in rest])


def _cards(numbers: Numbers) -> str:
    report = numbers.report
    cards = []
    if report["ranking"]:
        first = report["ranking"][0]
        if first["repeats"] is not None:
            small = f"mean of {numbers.number('ranking.0.repeats.n', 'd')} repetitions of trial {first['number']}"
            if first["repeats"]["error"] is not None:
                small += ", with its standard error"
            cards.append((numbers.spread("ranking.0.repeats", error="error"), small))
        if first["score"] is not None:
            small = f"score that selected trial {first['number']}: a single best, biased low"
            cards.append((numbers.number("ranking.0.score", ".2f"), small))
        if first["test"] is not None:
            small = f"on test events, mean of {numbers.number('ranking.0.test.n', 'd')} repetitions"
            cards.append((numbers.spread("ranking.0.test", error="error"), small))
        elif first["test_score"] is not None:
            spread = first["test_spread"] is not None
            big = numbers.number("ranking.0.test_score", ".2f")
            big += f" ± {numbers.number('ranking.0.test_spread', '.2f')}" if spread else ""
            cards.append((big, f"trial {first['number']} on test events" + ", between generated samples" * spread))
    done = f"{numbers.number('search.complete', 'd')} of {numbers.number('search.total', 'd')}"
    rest = [
        f"{numbers.number(f'search.{state}', 'd')} {state}"
        for state in ("pruned", "failed", "running", "queued", "lost", "broken")
        if report["search"][state]
    ]
    cards.append((done, "trials complete" + (f"; {', '.join(rest)}" if rest else "")))
    shown = "".join(f'<div class="card"><b>{big}</b><span>{small}</span></div>' for big, small in cards)
    return f'<div class="score">{shown}</div>'


def _winner(report: dict[str, Any]) -> str:
    if not report["ranking"]:
        return ""
    first = report["ranking"][0]
    rows = [
        [text(key), text(show(value)), text(_range(report["space"].get(key)))] for key, value in first["params"].items()
    ]
    return f"<h2>Winner: trial {first['number']}</h2>\n" + table(["Hyper-parameter", "value", "searched"], rows, "")


def _range(dimension: Any) -> str:
    """A dimension in a few words."""
    if not isinstance(dimension, dict):
        return ""
    for kind, name in (("choice", "one of"), ("uniform", "uniform"), ("log_uniform", "log-uniform"), ("int", "int")):
        if isinstance(dimension.get(kind), list):
            values = ", ".join(show(value) for value in dimension[kind])
            return f"{name} {values}" if kind == "choice" else f"{name} {values.replace(', ', ' … ')}"
    return show(dimension)


def _ranking(numbers: Numbers) -> str:
    places = numbers.report["ranking"]
    if not places:
        return "<p>No trial has been trained to the end and scored.</p>"
    repeated = any(p["repeats"] is not None for p in places)
    tested = any(p["test"] is not None or p["test_score"] is not None for p in places)
    names = short_names(list(dict.fromkeys(key for p in places for key in p["params"])))
    rows = []
    for i, p in enumerate(places[:SHOWN]):
        key = f"ranking.{i}"
        row = [numbers.number(f"{key}.place", "d"), str(p["number"])]
        if repeated:
            row += _repeat_cells(numbers, key, p)
        row.append(numbers.number(f"{key}.score", ".2f"))
        if tested:
            row.append(_test_cell(numbers, key, p))
        row += [text(show(p["params"][name], 3)) if name in p["params"] else "" for name in names]
        rows.append(row)
    head = [
        "Place",
        "trial",
        *(("repeats", "n", "to the first", "told apart") if repeated else ()),
        "score" if not repeated else "selected by",
        *(("on test events",) if tested else ()),
        *names.values(),
    ]
    caption = "By the score of a single training; lower is better."
    if repeated:
        caption = (
            "Repeated configurations first, by their mean over repetitions with fresh seeds (± standard error); the "
            "others by the score of a single training, which is not comparable with a mean. Lower is better."
        )
    more = f" The first {SHOWN} of {len(places)}." if len(places) > SHOWN else ""
    return table(head, rows, caption + more)


def _repeat_cells(numbers: Numbers, key: str, place: dict[str, Any]) -> list[str]:
    if place["repeats"] is None:
        return ["", "", "", ""]
    n = numbers.number(f"{key}.repeats.n", "d")
    if place["unfinished"]:
        n += f" (+{numbers.number(f'{key}.unfinished', 'd')} without score)"
    difference = "" if place["difference"] is None else numbers.number(f"{key}.difference", "+.2f")
    if place["difference_error"] is not None:
        difference += f" ± {numbers.number(f'{key}.difference_error', '.2f')}"
    if place["place"] == 1:
        told = ""
    else:
        told = {True: "no: tied", False: "yes", None: "too few"}[place["tied"]]
    return [numbers.spread(f"{key}.repeats", error="error"), n, difference, told]


def _test_cell(numbers: Numbers, key: str, place: dict[str, Any]) -> str:
    if place["test"] is not None:
        return numbers.spread(f"{key}.test", error="error")
    return "" if place["test_score"] is None else numbers.number(f"{key}.test_score", ".2f")


def _importance(numbers: Numbers) -> str:
    found = numbers.report["importance"]
    if found["reason"] is not None:
        return f"<p>No importances: {text(found['reason'])}.</p>"
    above = [w for w in found["weights"] if w["share"] > w["chance"]]
    basis = (
        f"It rests on {numbers.number('importance.trials', 'd')} complete trials of the search, of which the best "
        f"{numbers.number('importance.top', 'd')} are compared with all. Pruned and failed trials are left out."
    )
    few = " With so few, only large effects show, and a bar is no measurement." if found["trials"] < 100 else ""
    told = "No hyper-parameter stands out from chance." if not above else ""
    return f"<p>{basis}{few} {told}</p>"


def _reasons(report: dict[str, Any]) -> str:
    if not report["reasons"]:
        return ""
    rows = [
        [text(r["state"]), str(len(r["trials"])), text(_some(r["trials"])), text(r["reason"])]
        for r in report["reasons"]
    ]
    caption = "Reasons that differ in numbers only are counted together; the text is that of the first trial."
    return "<h2>Why trials ended early</h2>\n" + table(["State", "trials", "which", "reason"], rows, caption)


def _some(trials: Sequence[int]) -> str:
    return ", ".join(str(n) for n in trials[:8]) + (" …" if len(trials) > 8 else "")


def _trials(numbers: Numbers) -> str:
    trials = numbers.report["trials"]
    names = short_names(list(dict.fromkeys(key for t in trials for key in t["params"])))
    rows = []
    for i, t in enumerate(trials):
        key = f"trials.{i}"
        state = t["state"] if t["repeat_of"] is None else f"{t['state']}, repeats {t['repeat_of']}"
        epochs = f"{numbers.number(f'{key}.epochs', 'd')}/{numbers.number(f'{key}.wanted', 'd')}"
        rows.append(
            [
                str(t["number"]),
                text(state),
                numbers.number(f"{key}.score", ".2f"),
                numbers.number(f"{key}.epoch", "d"),
                epochs if t["wanted"] else numbers.number(f"{key}.epochs", "d"),
                *(text(show(t["params"][name], 3)) if name in t["params"] else "" for name in names),
                numbers.number(f"{key}.attempts", "d"),
                "–" if t["seconds"] is None else numbers.number(f"{key}.seconds", ".0f"),
            ]
        )
    head = ["Trial", "state", "score", "best epoch", "epochs", *names.values(), "starts", "seconds"]
    listing = table(head, rows, "Seconds are those of the last start.")
    return f"<details><summary>{len(rows)} trials</summary>{listing}</details>"


def _about(report: dict[str, Any]) -> str:
    parts = ["<h2>Details</h2>"]
    space = yamlio.dump(report["space"])
    parts.append(f"<details><summary>Search space</summary><pre>{text(space)}</pre></details>")
    if report["config"] is not None:
        config = yamlio.dump(report["config"])
        parts.append(f"<details><summary>Configuration that trials change</summary><pre>{text(config)}</pre></details>")
    spent = str(timedelta(seconds=round(report["seconds"])))
    parts.append(f'<p class="soft">All trials together took {spent}. hpcgan {text(report["hpcgan"])}.</p>')
    return "\n".join(parts)
