"""What people see: tables, on a terminal or in a pipe, and none of what TensorFlow says of itself. A leaf."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 500
"""Columns where nobody watches: no cell is cut."""


def quiet_tensorflow() -> None:
    """Silence what it says of its own build, in this process, which has not loaded it yet, and in its children."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def note(text: str) -> None:
    """A line on standard error, at once: what a command has to say beside its result."""
    print(text, file=sys.stderr, flush=True)


def open_console() -> Console:
    """Standard output: as wide as the terminal, or as anything needs in a pipe. Text is never markup."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=PIPE_WIDTH)


def make_table(head: Sequence[str], texts: Collection[str] = ()) -> Table:
    """An empty table without lines; columns named in `texts` are left-justified, others right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, justify="left" if name in texts else "right", no_wrap=True)
    return table


def print_table(
    head: Sequence[str], cells: Sequence[Sequence[str]], after: Sequence[str] = (), texts: Collection[str] = ()
) -> None:
    """Print a table, then lines.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    cells : sequence of rows
    after : sequence of str
        Lines below the table.
    texts : collection of str
        Columns that are left-justified; the others are numbers.
    """
    table = make_table(head, texts)
    for row in cells:
        table.add_row(*row)
    console = open_console()
    console.print(table)
    for line in after:
        console.print(line, soft_wrap=True)
