"""Building blocks of a report as one HTML page: no scripts, no external resources, figures embedded as PNG."""

from __future__ import annotations

import base64
import html
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
    group : str
        Section it belongs to.
    """

    name: str
    caption: str
    png: bytes
    group: str


class Numbers:
    """Numbers of a report by their path in its JSON.

    Each is a `<data>` element that carries the full value and, in `data-key`, its path.

    Parameters
    ----------
    report : dict
        Content of the JSON file. A path is its keys and indices, joined by dots.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report

    def get(self, key: str) -> Any:
        """What stands at a path."""
        value: Any = self.report
        for part in key.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value

    def number(self, key: str, spec: str = ".3g") -> str:
        """The number at a path as HTML; a dash where there is none."""
        value = self.get(key)
        if value is None:
            return "–"
        return f'<data value="{value!r}" data-key="{text(key)}">{value:{spec}}</data>'

    def spread(self, key: str, spec: str = ".2f", error: str = "std") -> str:
        """`mean` of a path with its `std`, or with another `error`, where there is one."""
        mean = self.number(f"{key}.mean", spec)
        return mean if self.get(f"{key}.{error}") is None else f"{mean} ± {self.number(f'{key}.{error}', spec)}"


def document(title: str, sections: Iterable[str]) -> str:
    """A page of sections that are HTML already; empty ones are left out."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def gallery(shown: Iterable[EmbeddedFigure]) -> str:
    """Figures side by side, as far as there is room."""
    made = []
    for figure in shown:
        width, height = struct.unpack(">II", figure.png[16:24])
        wide = ' class="wide"' if width / height > WIDE else ""
        size = f' style="max-width: {round(0.8 * width)}px"'  # alone in a row, a figure would be blown up
        data = base64.b64encode(figure.png).decode("ascii")
        made.append(
            f'<figure id="{text(figure.name)}"{wide}{size}><img width="{width}" height="{height}" '
            f'alt="{text(label(figure.name))}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text(figure.caption)}</figcaption></figure>"
        )
    return '<div class="figures">\n' + "\n".join(made) + "\n</div>" if made else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of cells that are HTML already."""
    title = f'<p class="soft">{text(caption)}</p>\n' if caption else ""
    top = "".join(f"<th>{text(cell)}</th>" for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    whole = f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return f'{title}<div class="scroll">{whole}</div>'


def label(name: str) -> str:
    """An identifier as words."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def text(value: Any) -> str:
    """Anything as text of a page."""
    return html.escape(str(value), quote=True)
