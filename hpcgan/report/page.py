"""Reports as HTML pages, made of templates: no scripts, no external resources, figures embedded as PNG.

Jinja escapes every text that is not marked as HTML: names of runs, paths and YAML come from users. A name that a
template spells wrongly is an error, not an empty place.
"""

from __future__ import annotations

import base64
import datetime
import functools
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hpcgan import yamlio
from hpcgan.metrics.points import label as point_label

WIDE = 1.8  # aspect ratio from which a figure gets the whole width


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

    @property
    def width(self) -> int:
        """In pixels, as the file has it."""
        return int(struct.unpack(">I", self.png[16:20])[0])

    @property
    def height(self) -> int:
        """In pixels, as the file has it."""
        return int(struct.unpack(">I", self.png[20:24])[0])

    @property
    def max_width(self) -> int:
        """In pixels of the page: alone in a row, a figure would be blown up."""
        return round(0.8 * self.width)

    @property
    def is_wide(self) -> bool:
        """Whether it gets a row of its own."""
        return self.width / self.height > WIDE

    @property
    def data_uri(self) -> str:
        """The picture itself as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


class Numbers:
    """Numbers of a report by their path in its JSON.

    Each is a `<data>` element that carries the full value and, in `data-key`, its path.

    Parameters
    ----------
    report : dict
        Content of the JSON file. A path is its keys and indices, joined by dots; keys may have dots themselves.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report

    def get(self, key: str) -> Any:
        """What stands at a path; None below a place where nothing is."""
        value: Any = self.report
        while key and value is not None:
            if isinstance(value, list):
                part = key.partition(".")[0]
                value = value[int(part)]
            else:
                part = max((name for name in value if f"{key}.".startswith(f"{name}.")), key=len, default=key)
                value = value[part]
            key = key[len(part) + 1 :]
        return value

    def number(self, key: str, spec: str = ".3g") -> Markup:
        """The number at a path as HTML; a dash where there is none."""
        value = self.get(key)
        if value is None:
            return Markup("–")
        return Markup('<data value="{}" data-key="{}">{}</data>').format(repr(value), key, format(value, spec))

    def spread(self, key: str, spec: str = ".2f", error: str = "std") -> Markup:
        """`mean` of a path with its `std`, or with another `error`, where there is one."""
        mean = self.number(f"{key}.mean", spec)
        if self.get(f"{key}.{error}") is None:
            return mean
        return Markup("{} ± {}").format(mean, self.number(f"{key}.{error}", spec))


def render(
    template: str, report: dict[str, Any], figures: Iterable[EmbeddedFigure], notices: Iterable[str], **context: Any
) -> str:
    """A page.

    Parameters
    ----------
    template : str
        Name of a file in `templates/`. It sees the report, its numbers as HTML (`number`, `spread`) and its figures by
        their groups (`figures`).
    report : dict
        Content of the JSON file.
    figures : iterable of EmbeddedFigure
    notices : iterable of str
        What a reader has to know before the numbers.
    **context
        What else the template names.
    """
    groups: defaultdict[str, list[EmbeddedFigure]] = defaultdict(list)
    for figure in figures:
        groups[figure.group].append(figure)
    numbers = Numbers(report)
    return (
        environment()
        .get_template(template)
        .render(report=report, figures=groups, notices=notices, number=numbers.number, spread=numbers.spread, **context)
    )


@functools.cache
def environment() -> Environment:
    """The templates, and what all of them may use."""
    templates = Environment(
        loader=PackageLoader("hpcgan.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(label=label, point=point_label, date=date, yaml=yamlio.dump)
    return templates


def label(name: str) -> str:
    """An identifier as words."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def date(created: str) -> str:
    """The time of a report as people write it."""
    return datetime.datetime.fromisoformat(created).strftime("%-d %B %Y, %H:%M UTC")
