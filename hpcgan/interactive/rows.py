"""Tables: of pandas where it is installed, and a list of rows that a notebook shows as a table without it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from hpcgan.errors import InputError


def import_pandas() -> Any:
    """The module `pandas`.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError("tables need pandas: pip install 'hpcgan[interactive]'") from None
    return pandas


class Rows(list[dict[str, Any]]):
    """Rows, each a dict; `pandas.DataFrame(rows)` takes them as they are.

    Parameters
    ----------
    rows : iterable of dict
    columns : sequence of str
        Keys that are shown, in this order.
    none : str
        What is shown in place of no rows.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = (), columns: Sequence[str] = (), none: str = "none") -> None:
        super().__init__(rows)
        self.columns = tuple(columns)
        self._none = none

    def __repr__(self) -> str:
        if not self:
            return self._none
        lines = [list(self.columns), *self._cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        if not self:
            return html.escape(self._none)
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>" for cells in self._cells()
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div style='max-height:26em;overflow:auto'>{table}</div>"

    def _cells(self) -> list[list[str]]:
        return [["" if row.get(name) is None else str(row[name]) for name in self.columns] for row in self]
