"""A report as one HTML page: no scripts, no external resources, figures embedded as PNG."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from hpcgan import yamlio
from hpcgan.evaluation import distances
from hpcgan.metrics.points import label as point_label
from hpcgan.report.page import EmbeddedFigure, Numbers, document, gallery, label, table, text


def render(report: dict[str, Any], figures: Sequence[EmbeddedFigure]) -> str:
    """The page of a report.

    Parameters
    ----------
    report : dict
        As `hpcgan.evaluation.report` makes it.
    figures : sequence of EmbeddedFigure
    """
    page = Numbers(report)
    title = f"{report['title']}: generated against real"
    sections = [
        _header(page, title),
        _score(page),
        gallery(f for f in figures if f.group == "score"),
        _points(page, [f for f in figures if f.group == "points"]),
        _distances(page),
        distances.section(page),
        "<h2>Distributions and images</h2>",
        gallery(f for f in figures if f.group == "physics"),
        _training(page, [f for f in figures if f.group == "training"]),
        _about(page),
    ]
    return document(title, sections)


def _header(page: Numbers, title: str) -> str:
    report = page.report
    created = datetime.datetime.fromisoformat(report["created"]).strftime("%-d %B %Y, %H:%M UTC")
    origin = f"{report['real']['label']}; {report['fake']['label']}. Problem {report['problem']}, {created}"
    lines = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{text(origin)}.</p>',
    ]
    lines += [f'<p class="notice">{text(notice)}</p>' for notice in report["notices"]]
    return "\n".join(lines)


def _score(page: Numbers) -> str:
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
                text(label(part)),
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
        + table(head, rows, caption)
    )


def _points(page: Numbers, figures: Sequence[EmbeddedFigure]) -> str:
    """The score at each point of the conditions."""
    rows, apart = [], []
    for i, row in enumerate(page.report["points"]):
        key = f"points.{i}"
        cells = [
            page.number(f"{key}.n", "d"),
            page.spread(f"{key}.score"),
            *(page.spread(f"{key}.parts.{part}") for part in row["parts"]),
            *(page.number(f"{key}.band.{level}", ".2f") for level in ("median", "p95", "p99")),
            page.number(f"{key}.share_above", ".1%"),
        ]
        rows.append([text(point_label(row["conditions"])) + ("" if row["trained"] else " (left out)"), *cells])
        if row["nearest"] is not None:
            apart.append(
                [
                    text(point_label(row["conditions"])),
                    page.spread(f"{key}.score"),
                    page.number(f"{key}.band.p95", ".2f"),
                    text(point_label(row["nearest"]["conditions"])),
                    page.spread(f"{key}.nearest.real"),
                    page.spread(f"{key}.nearest.generated"),
                ]
            )
    if not rows:
        return ""
    head = ["Point", "N", "Score", *(label(part) for part in page.report["points"][0]["parts"])]
    caption = (
        "Events of one point of the conditions, generated against real. The score above is the mean over the points "
        "that the model was trained on. All at the numbers of events of the null band."
    )
    found = table([*head, "Real: median", "95%", "99%", "Real as high"], rows, caption)
    if apart:
        caption = (
            "Points whose events the model has never seen, scored against real events there: what the model makes of "
            "them, and what stands in for it without interpolation, the events of the nearest trained point (in the "
            "conditions as the networks see them; of equally near ones that with the smallest values), real and "
            "generated. The model is of use where its score is the lowest."
        )
        head = ["Left out", "Generated", "Real: 95%", "Nearest trained", "Its real events", "Its generated events"]
        found += "\n" + table(head, apart, caption)
    return "<h2>Conditions</h2>\n" + found + "\n" + gallery(figures)


def _distances(page: Numbers) -> str:
    rows = []
    for name, found in page.report["distances"].items():
        key = f"distances.{name}"
        unit = f" [{found['unit']}]" if found["unit"] else ""
        error = "" if found["wasserstein_error"] is None else f" ± {page.number(f'{key}.wasserstein_error', '.2g')}"
        rows.append(
            [
                text(label(name) + unit),
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
    return "<h2>Distances</h2>\n" + table(head, rows, caption)


def _training(page: Numbers, figures: Sequence[EmbeddedFigure]) -> str:
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
    return f"<h2>Training</h2>\n<p>{selected}. {done}.</p>\n" + gallery(figures)


def _about(page: Numbers) -> str:
    report = page.report
    rows = [[text(label(name).removesuffix(" s")), page.number(f"timing.{name}", ".1f")] for name in report["timing"]]
    parts = ["<h2>Details</h2>", table(["Evaluation step", "seconds"], rows, "")]
    if report["training"] is not None:
        config = yamlio.dump(report["training"]["config"])
        parts.append(f"<details><summary>Configuration</summary><pre>{text(config)}</pre></details>")
        attempts = report["training"]["provenance"]
        if attempts:
            listing = yamlio.dump(attempts, width=100)
            parts.append(f"<details><summary>Provenance</summary><pre>{text(listing)}</pre></details>")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    parts.append(f'<p class="soft">Evaluated with {text(versions)}.</p>')
    return "\n".join(parts)
