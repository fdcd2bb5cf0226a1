"""The report on overlaid pileup as one HTML page."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from hpcgan.report.page import EmbeddedFigure, Numbers, document, gallery, label, table, text


def render(report: dict[str, Any], figures: Sequence[EmbeddedFigure]) -> str:
    """The page of a report.

    Parameters
    ----------
    report : dict
        As `hpcgan.overlay.study` makes it.
    figures : sequence of EmbeddedFigure
    """
    page = Numbers(report)
    title = f"Pileup of μ = {report['mu']} on signal events"
    sections = [_header(page, title), _shifts(page), _score(page), "<h2>Curves</h2>", gallery(figures), _about(page)]
    return document(title, sections)


def _header(page: Numbers, title: str) -> str:
    report = page.report
    created = datetime.datetime.fromisoformat(report["created"]).strftime("%-d %B %Y, %H:%M UTC")
    origin = "; ".join(report[part]["label"] for part in ("signal", "real", "fake"))
    lines = [f"<h1>{text(title)}</h1>", f'<p class="soft">{text(origin)}. {text(created)}.</p>']
    lines += [f'<p class="notice">{text(notice)}</p>' for notice in report["notices"]]
    return "\n".join(lines)


def _shifts(page: Numbers) -> str:
    columns = ("signal", "with_real", "with_generated", "shift_real", "shift_generated", "difference")
    rows = []
    for name, found in page.report["quantities"].items():
        unit = f" [{found['unit']}]" if found["unit"] else ""
        spec = ".1f" if found["unit"] else ".3f"
        cells = [page.spread(f"quantities.{name}.{column}", spec, "error") for column in columns]
        rows.append([text(label(name) + unit), *cells])
    head = ["Mean of", "Signal", "Real pileup", "Generated", "Shift, real", "generated", "Generated - real"]
    caption = (
        f"Means over {page.report['events']} events and their standard errors. Shifts and the difference are taken "
        "event by event, on the same signal events; errors of real pileup come from independent parts of its pool."
    )
    return "<h2>Shift</h2>\n" + table(head, rows, caption)


def _score(page: Numbers) -> str:
    n = page.number("score.n", "d")
    p95 = f"{page.number('band.p95', '.2f')} ± {page.number('band.p95_error', '.2f')}"
    cards = [
        (
            page.number("score.total", ".2f"),
            f"score of generated against real pileup on the same signal events, N = {n}",
        ),
        (
            page.number("band.median", ".2f"),
            f"median of real against real; 95% below {p95}, 99% below {page.number('band.p99', '.2f')}",
        ),
        (page.number("share_above", ".1%"), "of real-against-real comparisons score as high, or higher"),
    ]
    rows = [
        [
            text(label(part)),
            page.number(f"score.parts.{part}", ".2f"),
            page.number(f"score.details.{part}.ks", ".4f"),
            *(page.number(f"band.parts.{part}.{level}", ".2f") for level in ("median", "p95", "p99")),
        ]
        for part in page.report["score"]["parts"]
    ]
    blocks = "" if page.report["band"]["blocks"] is None else f" of {page.number('band.blocks', 'd')} blocks"
    caption = (
        "Sum of -ln p of Kolmogorov-Smirnov tests; lower is better. Both sides have the same signal events, which "
        "makes scores smaller than those of independent events: compare them with real against real only."
    )
    note = (
        '<p class="soft">Real against real: pileup of the test and of the validation pool, exchanged at random in '
        f"units{blocks}.</p>"
    )
    return (
        "<h2>Score</h2>\n"
        '<div class="score">'
        + "".join(f'<div class="card"><b>{big}</b><span>{small}</span></div>' for big, small in cards)
        + "</div>\n"
        + table(["Part", "Generated", "KS", "Real: median", "95%", "99%"], rows, caption)
        + note
    )


def _about(page: Numbers) -> str:
    report = page.report
    rows = [[text(label(name).removesuffix(" s")), page.number(f"timing.{name}", ".1f")] for name in report["timing"]]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return "\n".join(
        [
            "<h2>Details</h2>",
            table(["Step", "seconds"], rows, ""),
            f'<p class="soft">Made with {text(versions)}.</p>',
        ]
    )
