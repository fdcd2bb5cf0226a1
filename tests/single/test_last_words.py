"""The line of a log that says why a process has ended."""

import pytest

from hpcgan.system.last_words import last_words

TRACEBACK = (
    "Traceback (most recent call last):\n  File 'x.py', line 1\nImportError: no libmpi\n\nmpirun: one has ended\n"
)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (TRACEBACK, "ImportError: no libmpi"),
        ("loading\nhpcgan: error: runs/a: no such run\n---\n", "runs/a: no such run"),
        ("json.JSONDecodeError: x\nSystemExit: 2\nbye", "SystemExit: 2"),
        ("first\n  second  \n-----\n", "second"),
        (" \n", "it printed nothing"),
    ],
)
def test_the_last_error_or_else_the_last_line(log, line):
    assert last_words(log) == line
