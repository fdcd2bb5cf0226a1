"""How keys and values of a search are written where there is little room: tables, figures, terminals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def one_line(text: str) -> str:
    """Text of a file as one line that a terminal can show."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def show(value: Any, digits: int = 6) -> str:
    """A value as short text: some digits of a number, JSON of what is neither number nor text."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return json.dumps(value)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each dotted key, as many of its last parts as tell it from the others."""
    names = {}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [other for other in keys if other != key]
        name = next((t for t in tails if not any(f".{o}".endswith(f".{t}") for o in others)), key)
        names[key] = one_line(name)
    return names
