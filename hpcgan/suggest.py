"""What somebody meant who wrote a name that does not exist: one rule for keys, commands, options, networks.

A leaf module: everything may import it, it imports nothing of this package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CUTOFF = 0.5


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that is most like a word, whatever the case of its letters; None if none is like it."""
    by_lower: dict[str, str] = {}
    for choice in choices:
        by_lower.setdefault(choice.lower(), choice)
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=_CUTOFF)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'X'?`, for the end of a message; empty if no choice is like the word."""
    close = nearest(word, choices)
    return f"; did you mean '{close}'?" if close is not None else ""


def choose(word: str, choices: Iterable[str], what: str = "choices") -> str:
    """`; did you mean 'X'?`, else `; the WHAT are: ...`; empty without choices."""
    words = list(choices)
    if close := did_you_mean(word, words):
        return close
    return f"; the {what} are: {', '.join(words)}" if words else ""
