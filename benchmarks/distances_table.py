"""All distances of several evaluated runs in one Markdown table, beside real against real.

    python benchmarks/distances_table.py lagan=runs/a/report/report.json dcgan=runs/b/report/report.json

The reports are those of `hpcgan evaluate`, of the same real events at the same N. A row is a number of all events or
of those of one point of the conditions; what a report lacks is left empty. Errors: of scores and distances between
samples the standard deviation over the generated samples, of Wasserstein distances the bootstrap error, of AUC that of
one training and, behind a comma, the standard deviation over the trainings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation.distances import NAMES
from hpcgan.metrics.points import label

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A number of a report: what it is, of which events, its text, and that of real against real."""

    what: str
    events: str
    text: str
    null: str = ""


def entries(report: Report) -> Iterator[Entry]:
    """All numbers of a report, those of all events first."""
    band = report["band"]
    everything = f"all, N = {band['n']}"
    yield Entry("score", everything, _spread(report["against_band"]), f"95% below {_number(band['p95'])}")
    yield from _of_samples(report["sample_distances"], everything)
    for row in report["by_point"]:
        events = f"{label(row['conditions'])}, N = {row['n']}"
        for name, quantity in row["quantities"].items():
            yield from _of_quantity(name, quantity, events)
        yield from _of_samples(row["sample_distances"], events)
        judged = row["classifier"]
        if judged is not None:
            null = "" if judged["null"] is None else _with_error(judged["null"])
            yield Entry("AUC on images", events, _area(judged), null)
    measurements = report["measurements"]
    for name, chance in measurements.items():
        if name.endswith("_by_chance"):
            what = name.removesuffix("_by_chance")
            for events, value in measurements[what].items():
                yield Entry(
                    f"{what.replace('_', ' ')}: share that differs", events, _number(value), _number(chance[events])
                )
    between = (report["sample_distances"] or {}).get("between_conditions")
    for pair in () if between is None else between["pairs"]:
        events = f"{label(pair['first'])} and {label(pair['second'])}"
        tests = {(test["trained_on"], test["tested_on"]): test for test in pair["tests"]}
        null = tests.pop(("other_real", "real"), None)
        for (trained_on, tested_on), test in tests.items():
            beside = _area(null) if null is not None and tested_on == "real" else ""
            yield Entry(f"AUC of classes, trained on {trained_on}, tested on {tested_on}", events, _area(test), beside)


def _of_quantity(name: str, quantity: Report, events: str) -> Iterator[Entry]:
    title, unit, medians = name.replace("_", " "), quantity["unit"], quantity["reference"]
    score = quantity["score"]
    if score is not None:
        yield Entry(f"{title}: -ln p", events, _spread(score), f"95% below {_number(score['band']['p95'])}")
    ks = None if quantity["ks"] is None else quantity["ks"]["value"]
    yield Entry(f"{title}: KS", events, _number(ks), _number(medians["ks"]))
    in_unit = f" [{unit}]" if unit else ""
    moved = _number(quantity["wasserstein"], quantity["wasserstein_error"])
    yield Entry(f"{title}: Wasserstein{in_unit}", events, moved, _number(medians["wasserstein"]))
    yield Entry(f"{title}: separation", events, _number(quantity["separation"]), _number(medians["separation"]))


def _of_samples(measured: Report | None, events: str) -> Iterator[Entry]:
    for name, number in ({} if measured is None else measured["numbers"]).items():
        yield Entry(NAMES[name], events, _spread(number), _spread(number["null"]))
    copies = None if measured is None else measured["memorisation"]
    if copies is not None:
        yield Entry("memorisation, z", events, _number(copies["z"]), "0 ± 1")
    for inputs, test in ({} if measured is None else measured["classifier"]).items():
        null = "" if test["null"] is None else _with_error(test["null"]["auc"])
        yield Entry(f"AUC on {inputs}", events, _area(test), null)


def _number(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" + ("" if error is None else f" ± {error:.2g}")


def _spread(numbers: Report) -> str:
    return _number(numbers["mean"], numbers["std"])


def _with_error(estimate: Report) -> str:
    return f"{estimate['value']:.3f} ± {estimate['error']:.3f}"


def _area(test: Report) -> str:
    spread = test.get("auc_spread")
    return _with_error(test["auc"]) + ("" if spread is None else f", {spread:.3f}")


def table(reports: Mapping[str, Report]) -> str:
    """The table as Markdown, a column a report; real against real is that of the first report that has the number.

    Raises
    ------
    InputError
        Reports of different problems, of different real events or at different N.
    """
    names = list(reports)
    first = reports[names[0]]
    for name, report in reports.items():
        for what, of_first, own in (
            ("problem", first["problem"], report["problem"]),
            ("N", first["band"]["n"], report["band"]["n"]),
            ("number of real events", first["band"]["pool"], report["band"]["pool"]),
        ):
            if of_first != own:
                raise InputError(f"{name}: {what} {own}, but {names[0]} has {of_first}: these cannot be compared")
    rows: dict[tuple[str, str], dict[str, Entry]] = {}
    for name, report in reports.items():
        for entry in entries(report):
            rows.setdefault((entry.events, entry.what), {})[name] = entry
    lines = ["| events | number | real against real | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 3)]
    for (events, what), row in rows.items():
        null = next((entry.null for entry in row.values() if entry.null), "")
        texts = [row[name].text if name in row else "" for name in names]
        lines.append(f"| {events} | {what} | {null} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def read(path: Path) -> Report:
    """The JSON file of a report.

    Raises
    ------
    InputError
        Missing, or something else.
    """
    try:
        report: Report = json.loads(path.read_text(encoding="utf-8"))
        if report["schema"] == "hpcgan.report" and "by_point" in report:
            return report
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: no report of hpcgan evaluate; make it with hpcgan evaluate RUN")


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", metavar="NAME=FILE", help="a column's name and the JSON of a report")
    args = parser.parse_args(argv)
    if not all("=" in text for text in args.reports):
        parser.error("give NAME=FILE for each report")
    try:
        print(table({name: read(Path(path)) for name, _, path in (text.partition("=") for text in args.reports)}))
    except HpcganError as error:
        print(f"distances_table: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
