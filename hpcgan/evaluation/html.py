"""A report as one HTML page: no scripts, no external resources, figures embedded as PNG.

Every number of a table or sentence is a `<data>` element that carries the full value and, in `data-key`,
its path in the report's JSON.
"""

from __future__ import annotations

import base64
import datetime
import html
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WIDE = 1.8  # aspect ratio from which a figure gets the whole width

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --soft: #5b6470; --line: #d8dde3; --page: #fff; --card: #f5f7f9; --accent: #0b62a4;
  --warn: #fff4d6; --warn-ink: #5c4400; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #a0a9b4; --line: #3a424c; --page: #15181c; --card: #1f242a;
    --accent: #7fbdf0; --warn: #3d3212; --warn-ink: #f5dfa0; }
  figure img { filter: brightness(.93); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1.2rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 48rem; overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .92rem; }
.score { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0; }
.card { background: var(--card); border-radius: .6rem; padding: .8rem 1.1rem; flex: 1 1 14rem; }
.card b { display: block; font-size: 1.9rem; line-height: 1.25; font-weight: 650; }
.card span { color: var(--soft); font-size: .92rem; }
.notice { background: var(--warn); color: var(--warn-ink); border-radius: .4rem; padding: .5rem .8rem;
  max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; vertical-align: bottom; }
.figures { display: grid; gap: 1rem; margin-top: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; }
figure img { display: block; width: 100%; height: auto; background: #fff; border-radius: .4rem; }
figcaption { margin-top: .3rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre { background: var(--card); border-radius: .4rem; padding: .8rem; overflow-x: auto; font-size: .82rem; }
@media print {
  :root { --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --card: #f2f2f2;
    --warn: #eee; --warn-ink: #000; }
  html { font-size: 10px; }
  body { max-width: none; padding: 0; }
  th, td { white-space: normal; }
  .figures { grid-template-columns: 1fr 1fr; }
  figure img { filter: none; }
  h2 { break-after: avoid; }
}
"""


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure of the page.

    Attributes
    ----------
    name : str
        Identifier, unique on the page.
    caption : str
    png : bytes
    group : "score", "physics" or "training"
        Section it belongs to.
    """

    name: str
    caption: str
    png: bytes
    group: str


def render(report: dict[str, Any], figures: Sequence[EmbeddedFigure]) -> str:
    """The page of a report.

    Parameters
    ----------
    report : dict
        As `hpcgan.evaluation.report` makes it.
    figures : sequence of EmbeddedFigure
    """
    page = _Page(report)
    title = f"{report['title']}: generated against real"
    sections = [
        _header(page, title),
        _score(page),
        _figures(f for f in figures if f.group == "score"),
        _distances(page),
        "<h2>Distributions and images</h2>",
        _figures(f for f in figures if f.group == "physics"),
        _training(page, [f for f in figures if f.group == "training"]),
        _about(page),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


class _Page:
    """Looks numbers up in the report by their path, and marks them with it."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report

    def get(self, key: str) -> Any:
        value: Any = self.report
        for part in key.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value

    def number(self, key: str, spec: str = ".3g") -> str:
        value = self.get(key)
        if value is None:
            return "–"
        return f'<data value="{value!r}" data-key="{_text(key)}">{value:{spec}}</data>'

    def spread(self, key: str, spec: str = ".2f") -> str:
        mean = self.number(f"{key}.mean", spec)
        return mean if self.get(f"{key}.std") is None else f"{mean} ± {self.number(f'{key}.std', spec)}"


def _header(page: _Page, title: str) -> str:
    report = page.report
    created = datetime.datetime.fromisoformat(report["created"]).strftime("%-d %B %Y, %H:%M UTC")
    origin = f"{report['real']['label']}; {report['fake']['label']}. Problem {report['problem']}, {created}"
    lines = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="soft">{_text(origin)}.</p>',
    ]
    lines += [f'<p class="notice">{_text(notice)}</p>' for notice in report["notices"]]
    return "\n".join(lines)


def _score(page: _Page) -> str:
    n, samples = page.number("score.n", "d"), len(page.report["score"]["samples"])
    same = page.report["score"]["n"] == page.report["band"]["n"]
    band_n = page.number("band.n", "d")
    repeated = f"mean and standard deviation of {samples} samples" if samples > 1 else "one sample"
    p95 = f"{page.number('band.p95', '.2f')} ± {page.number('band.p95_error', '.2f')}"
    p99 = page.number("band.p99", ".2f")
    count = len(page.report["band"]["samples"])
    splits = f"{count} random disjoint splits of {page.number('band.pool', 'd')} events"
    cards = [
        (page.spread("score"), f"score of generated events, N = {n}, {repeated}"),
        (
            page.number("band.median", ".2f"),
            f"median of real against real, N = {band_n}; 95% below {p95}, 99% below {p99} ({splits})",
        ),
    ]
    if not same:
        cards.append((page.spread("against_band"), f"the same generated events at N = {band_n}, as the band"))
    cards.append(
        (
            page.number("against_band.share_above", ".1%"),
            "of real-against-real comparisons score as high as a generated sample, or higher",
        )
    )
    caption = (
        "The score is the sum of its parts; lower is better. The score of a given difference grows with N: "
        "compare it only with scores at the same N."
    )
    rows = []
    for part in page.report["score"]["parts"]:
        rows.append(
            [
                _text(label(part)),
                page.spread(f"score.parts.{part}"),
                *([] if same else [page.spread(f"against_band.parts.{part}")]),
                page.number(f"band.parts.{part}.median", ".2f"),
                page.number(f"band.parts.{part}.p95", ".2f"),
                page.number(f"band.parts.{part}.p99", ".2f"),
            ]
        )
    head = [
        "Part",
        f"Generated (N = {page.report['score']['n']})",
        *([] if same else [f"Generated (N = {page.report['band']['n']})"]),
        "Real: median",
        "95%",
        "99%",
    ]
    return (
        "<h2>Score</h2>\n"
        '<div class="score">'
        + "".join(f'<div class="card"><b>{big}</b><span>{small}</span></div>' for big, small in cards)
        + "</div>\n"
        + _table(head, rows, caption)
    )


def _distances(page: _Page) -> str:
    rows = []
    for name, found in page.report["distances"].items():
        key = f"distances.{name}"
        unit = f" [{found['unit']}]" if found["unit"] else ""
        error = "" if found["wasserstein_error"] is None else f" ± {page.number(f'{key}.wasserstein_error', '.2g')}"
        rows.append(
            [
                _text(label(name) + unit),
                page.number(f"{key}.mean_real"),
                page.number(f"{key}.mean_fake"),
                page.number(f"{key}.std_real"),
                page.number(f"{key}.std_fake"),
                page.number(f"{key}.ks", ".3f"),
                page.number(f"{key}.reference.ks", ".3f"),
                page.number(f"{key}.wasserstein") + error,
                page.number(f"{key}.reference.wasserstein"),
                page.number(f"{key}.separation", ".4f"),
                page.number(f"{key}.reference.separation", ".4f"),
                f"{page.number(f'{key}.chi2', '.1f')} / {page.number(f'{key}.chi2_ndf', 'd')}",
            ]
        )
    head = [
        "Quantity",
        "Mean, real",
        "generated",
        "Std, real",
        "generated",
        "KS",
        "(real)",
        "Wasserstein",
        "(real)",
        "Separation",
        "(real)",
        "χ² / ndf",
    ]
    caption = (
        f"First generated sample, N = {page.report['band']['n']}. Columns (real): median between disjoint "
        "real samples of the same size. Wasserstein distances in the unit of the quantity, bootstrap errors."
    )
    return "<h2>Distances</h2>\n" + _table(head, rows, caption)


def _training(page: _Page, figures: Sequence[EmbeddedFigure]) -> str:
    training = page.report["training"]
    if training is None:
        return ""
    selected = f"Checkpoint of epoch {page.number('training.checkpoint.epoch', 'd')}, step " + page.number(
        "training.checkpoint.step", "d"
    )
    if training["checkpoint"]["score"] is not None:
        selected += f", score {page.number('training.checkpoint.score', '.2f')} on validation events"
        if training["checkpoint"]["score_n"] is not None:
            selected += f" at N = {page.number('training.checkpoint.score_n', 'd')}"
    epochs, samples = page.number("training.epochs", "d"), page.number("training.samples", ",d")
    done = f"{epochs} epochs trained, {samples} samples"
    if training["samples_per_second"] is not None:
        done += f", {page.number('training.samples_per_second', '.0f')} samples/s (median over epochs)"
    return f"<h2>Training</h2>\n<p>{selected}. {done}.</p>\n" + _figures(figures)


def _about(page: _Page) -> str:
    report = page.report
    rows = [[_text(label(name).removesuffix(" s")), page.number(f"timing.{name}", ".1f")] for name in report["timing"]]
    parts = ["<h2>Details</h2>", _table(["Evaluation step", "seconds"], rows, "")]
    if report["training"] is not None:
        config = yaml.safe_dump(report["training"]["config"], sort_keys=False)
        parts.append(f"<details><summary>Configuration</summary><pre>{_text(config)}</pre></details>")
        attempts = report["training"]["provenance"]
        if attempts:
            listing = yaml.safe_dump(attempts, sort_keys=False, width=100)
            parts.append(f"<details><summary>Provenance</summary><pre>{_text(listing)}</pre></details>")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    parts.append(f'<p class="soft">Evaluated with {_text(versions)}.</p>')
    return "\n".join(parts)


def _figures(figures: Iterable[EmbeddedFigure]) -> str:
    shown = []
    for figure in figures:
        width, height = struct.unpack(">II", figure.png[16:24])
        wide = f' class="wide" style="max-width: {round(0.8 * width)}px"' if width / height > WIDE else ""
        data = base64.b64encode(figure.png).decode("ascii")
        shown.append(
            f'<figure id="{_text(figure.name)}"{wide}><img width="{width}" height="{height}" '
            f'alt="{_text(label(figure.name))}" src="data:image/png;base64,{data}">'
            f"<figcaption>{_text(figure.caption)}</figcaption></figure>"
        )
    return '<div class="figures">\n' + "\n".join(shown) + "\n</div>" if shown else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of cells that are HTML already."""
    title = f'<p class="soft">{_text(caption)}</p>\n' if caption else ""
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return f'{title}<div class="scroll">{table}</div>'


def label(name: str) -> str:
    """An identifier as words."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
