"""Reports as HTML pages: what is on them, and what they may not need."""

from __future__ import annotations

import html
import html.parser
from collections.abc import Callable
from decimal import Decimal
from typing import Any

HOSTILE = """<script>alert("1")</script> & 'x' {{ 7 * 7 }}"""


class Page(html.parser.HTMLParser):
    """Numbers, figures and links of a page."""

    def __init__(self, text):
        super().__init__()
        self.data, self.images, self.figures, self.tags, self.links = [], [], [], set(), []
        self._open = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.links += [v for k, v in found.items() if k in ("src", "href", "srcset", "data", "action", "poster")]
        if tag == "img":
            self.images.append(found)
        if tag == "figure":
            self.figures.append(found["id"])
        if tag == "data":
            self._open = [found["data-key"], found["value"], ""]

    def handle_data(self, data):
        if self._open:
            self._open[2] += data

    def handle_endtag(self, tag):
        if tag == "data":
            self.data.append(tuple(self._open))
            self._open = None


def lookup(data, key):
    for part in key.split("."):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


def check_numbers(page: Page, report: dict[str, Any]) -> None:
    """Every number of a page is that of the report's JSON, and shown rounded, not otherwise."""
    for key, value, shown in page.data:
        number = lookup(report, key)
        assert float(value) == number, key
        digits = Decimal(shown.replace(",", "").rstrip("%"))
        unit = Decimal(10) ** digits.as_tuple().exponent / (100 if shown.endswith("%") else 1)  # last digit shown
        visible = digits / (100 if shown.endswith("%") else 1)
        assert abs(visible - Decimal(number)) <= unit * Decimal("0.5001"), key


def check_self_contained(page: Page, text: str) -> None:
    """A page takes nothing from elsewhere and runs nothing."""
    assert all(link.startswith("data:") for link in page.links)
    assert "script" not in page.tags
    for outside in ("http://", "https://", "@import", "url("):
        assert outside not in text


def check_escaped(render: Callable[[dict[str, Any]], str], report: dict[str, Any]) -> None:
    """No text of a report becomes markup of its page, or is taken for a template."""

    def spoiled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: text if key == "created" else spoiled(text) for key, text in value.items()}
        if isinstance(value, list):
            return [spoiled(item) for item in value]
        return HOSTILE if isinstance(value, str) else value

    text = render(spoiled(report))
    assert "script" not in Page(text).tags
    assert html.unescape(text).count(HOSTILE) > 3
