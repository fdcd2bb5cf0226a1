"""What people see: tables, on a terminal or in a pipe, and none of what TensorFlow says of itself. A leaf."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 500
"""Columns where nobody watches: no cell is cut."""


def quiet_tensorflow() -> None:
    """Silence what it says of its own build, in this process, which has not loaded it yet, and in its children."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules and os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0":
        sys.meta_path[:] = [_QuietFinder(), *(f for f in sys.meta_path if not isinstance(f, _QuietFinder))]


class _QuietFinder(MetaPathFinder):
    """Has TensorFlow loaded without its chatter: from 2.20 on it says some things whatever level it is told."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _without_lines("^(WARNING: All log messages before absl|I0000 )"):
            self._loader.exec_module(module)


@contextlib.contextmanager
def _without_lines(pattern: str) -> Iterator[None]:
    """Lines that libraries write to standard error meanwhile are left out if they match.

    A process of its own sorts them: it goes on with what a process that crashes meanwhile has said last.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # closed: nobody is told anything
        yield
        return
    command = ["grep", "--text", "--line-buffered", "--invert-match", "--extended-regexp", pattern]
    try:
        # Not of this process's group: Ctrl-C is not meant for it.
        sieve = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stderr, start_new_session=True)
    except OSError:  # no grep
        os.close(stderr)
        yield
        return
    assert sieve.stdin is not None
    try:
        os.dup2(sieve.stdin.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        sieve.stdin.close()
        sieve.wait()


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
