"""What a process that could not even be loaded has printed of its end, to be shown: it has told nobody of a failure."""

from __future__ import annotations

import re


def last_words(log: str) -> str:
    """One line of what a process has printed that says most about its end: its last error, or else its last line."""
    lines = [line.strip() for line in log.splitlines() if re.search(r"\w", line)]
    errors = [line for line in lines if re.match(r"hpcgan: error: |[\w.]*(Error|Exception|Exit|Interrupt): ", line)]
    return (errors or lines or ["it printed nothing"])[-1].removeprefix("hpcgan: error: ")
