"""A sweep as a live panel in a notebook: its trials, the best so far, the pictures, and buttons to prune and to stop.

A thread looks at the study's directory; pictures are drawn elsewhere (`hpcgan.interactive.figure_process`).
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.errors import InputError
from hpcgan.interactive import widgets
from hpcgan.interactive.figure_process import Painter
from hpcgan.sweep import views
from hpcgan.sweep.labels import short_names
from hpcgan.sweep.labels import show as shown
from hpcgan.sweep.statistics import Standing, ranking
from hpcgan.sweep.table import Row, RowState, Table, TableReader

if TYPE_CHECKING:
    from hpcgan.interactive.sweep import Sweep

EVERY_S = 3.0
MOST = 100
"""Trials that are listed, those that run and lead first."""
COLOURS = {"running": "#0072B2", "done": "#00795A", "stopped": "#B36B00", "failed": "#B3261E", "lost": "#B3261E"}
_STATES: dict[RowState, str] = {"running": "#0072B2", "pruned": "#B36B00", "failed": "#B3261E", "lost": "#B3261E",
                                "broken": "#B3261E"}  # fmt: skip
_STYLE = (
    "<style>.hpcgan-table{line-height:1.35}"
    ".hpcgan-table table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    ".hpcgan-table th,.hpcgan-table td{padding:1px 12px 1px 0;text-align:right;white-space:nowrap}"
    ".hpcgan-table th{border-bottom:1px solid #8888;position:sticky;top:0;background:var(--jp-layout-color0,white)}"
    ".hpcgan-table .why{text-align:left;white-space:normal;min-width:24em}</style>"
)

_open: dict[Path, SweepDashboard] = {}


def show(sweep: Sweep) -> SweepDashboard | None:
    """Display a panel, in place of one of the same study that this kernel has already.

    Returns
    -------
    SweepDashboard or None
        None where there cannot be one: then the table and the picture are displayed as they are now, if there is a
        notebook to display them in, with a line that says why.
    """
    why = widgets.missing()
    if why is not None:
        print(why)
        _show_plain(sweep)
        return None
    made = SweepDashboard(sweep)
    made.show()
    return made


def _show_plain(sweep: Sweep) -> None:
    try:
        widgets.display_plain(sweep.table())
        widgets.display_picture(sweep.plot())
    except InputError as error:  # no pandas, or no score yet
        print(error)


class SweepDashboard(widgets.Panel):
    """The panel of one sweep; it lives until nobody works on the sweep any more, or `close`.

    Parameters
    ----------
    sweep : Sweep
    every : float
        Seconds between two looks.

    Attributes
    ----------
    box : ipywidgets.VBox
        All of it.
    header, trials, status : ipywidgets.HTML
        How the sweep stands, its table, and what came of the buttons or cannot be read or drawn.
    number : ipywidgets.BoundedIntText
        Of the trial to prune.
    prune, stop : ipywidgets.Button
    picture : ipywidgets.Image
    """

    def __init__(self, sweep: Sweep, every: float = EVERY_S) -> None:
        before = _open.pop(sweep.path, None)
        if before is not None:
            before.close()
        self._sweep, self._every = sweep, every
        self._reader, self._painter = TableReader(sweep.path), Painter()
        self._lock, self._closed = threading.RLock(), threading.Event()
        self._message, self._trouble, self._undrawn = ("", False), "", ""
        self._wanted: list[tuple[int, str, float | None]] = []
        self._painted = self._wanted
        self._paint_after = 0.0
        self._build()
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name="hpcgan-sweep-dashboard", daemon=True)
        self._thread.start()
        _open[sweep.path] = self

    # --- what there is to see ----------------------------------------------------------------------

    def _build(self) -> None:
        import ipywidgets

        layout = ipywidgets.Layout
        # As high as it gets, or the buttons move under the mouse.
        self.header = ipywidgets.HTML(layout=layout(min_height="112px"))
        self.status = ipywidgets.HTML(layout=layout(min_height="28px"))
        # The widget scrolls, not something in its text, which every look replaces: the table stays where it is.
        self.trials = ipywidgets.HTML(layout=layout(width="100%", margin="4px 0", max_height="26em", overflow="auto"))
        self.number = ipywidgets.BoundedIntText(
            description="trial", min=0, max=10**6, layout=layout(width="120px"), style={"description_width": "initial"}
        )
        self.prune = ipywidgets.Button(
            description="Prune", tooltip="End this trial before its next epoch", icon="scissors",
            layout=layout(width="96px", margin="2px 24px 2px 2px"),
        )  # fmt: skip
        self.stop = ipywidgets.Button(
            description="Stop", tooltip="All trials write checkpoints; the same sweep goes on when it is started again",
            icon="stop", layout=layout(width="96px"),
        )  # fmt: skip
        self.prune.on_click(self._prune)
        self.stop.on_click(self._stop)
        self.picture = ipywidgets.Image(
            format="png", layout=layout(display="none", width="100%", max_width="900px", margin="0")
        )
        controls = ipywidgets.HBox([self.number, self.prune, self.stop], layout=layout(align_items="center"))
        self.box = ipywidgets.VBox(
            [self.header, controls, self.status, self.trials, self.picture],
            layout=layout(width="auto", padding="6px 10px"),
        )
        used = {"prune": self.prune, "stop": self.stop, "number": self.number}
        for part in used.values():
            widgets.hear_while_a_cell_runs(part)
        seen = {"sweep": self.box, "header": self.header, "status": self.status, "trials": self.trials}
        for name, widget in {**seen, **used, "picture": self.picture}.items():
            widget.add_class(f"hpcgan-{name}")  # for style sheets

    def close(self) -> None:
        """End the refreshing, and take the panel away. The sweep does not notice."""
        self._closed.set()
        self._painter.close()
        if self._thread is not threading.current_thread():
            self._thread.join(10.0)
        if _open.get(self._sweep.path) is self:
            del _open[self._sweep.path]
        widgets.close(self.box)

    # --- refreshing --------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it still looks at the sweep."""
        return self._thread.is_alive()

    def refresh(self) -> bool:
        """Look at the study and show what is new; whether anybody works on it.

        What goes wrong is shown as well, and tried again with the next look.
        """
        with self._lock:
            going = True
            try:
                going = self._look()
                self._trouble = ""
            except Exception as error:  # nothing may end the refreshing unseen
                self._trouble = f"cannot refresh, trying again: {widgets.line(error)}"
            self._show_status()
            return going

    def _follow(self) -> None:
        going = True
        while going and not self._closed.is_set():
            going = self.refresh()
            if not going or time.monotonic() >= self._paint_after:
                self._paint()
            if going:
                self._closed.wait(self._every)
        self._painter.close()

    def _look(self) -> bool:
        state, table = self._sweep.state, self._reader.read()  # in this order: the end of a sweep is in the table
        going = state == "running" or any(row.state == "running" for row in table.rows)
        standings = ranking(table.rows)
        self.header.value = _header(state, views.head_lines(table, standings))
        self.trials.value = _trials(table, standings)
        self.prune.disabled = self.number.disabled = self.stop.disabled = not going
        self._wanted = [(row.number, row.state, row.score) for row in table.searched() if row.score is not None]
        return going

    def _paint(self) -> None:
        """Have the picture drawn if there is another score than in the last one."""
        wanted = self._wanted
        if wanted == self._painted:
            return
        png, undrawn = b"", ""
        try:
            png, _ = self._painter.draw(self._sweep.path, "sweep")
        except Exception as error:  # nothing may end the refreshing unseen
            undrawn = f"the picture: {widgets.line(error)}"
        with self._lock:
            if self._closed.is_set():
                return
            self._painted, self._undrawn = wanted, undrawn
            self._paint_after = time.monotonic() + widgets.PAUSE_OF_PAINTER * self._painter.seconds
            if png:
                self.picture.value, self.picture.layout.display = png, ""
            self._show_status()

    def _show_status(self) -> None:
        wrong = [widgets.text(line, bad=True) for line in (self._trouble, self._undrawn) if line]
        self.status.value = "<br>".join([widgets.text(*self._message), *wrong])

    # --- commands ----------------------------------------------------------------------------------

    def _prune(self, _button: Any) -> None:
        number = int(self.number.value)
        self._do(lambda: self._sweep.prune(number), f"trial {number} ends before its next epoch")

    def _stop(self, _button: Any) -> None:
        self._do(lambda: self._sweep.stop(wait=0), "asked to stop: all trials write checkpoints")

    def _do(self, what: Callable[[], None], said: str) -> None:
        with self._lock:
            try:
                what()
                self._message = said, False
            except Exception as error:  # shown in the panel, where the button is
                self._message = widgets.line(error), True
            self._show_status()


def _header(state: str, lines: list[str]) -> str:
    first, *rest = (html.escape(line) for line in lines)
    return f"{widgets.badge(state, COLOURS.get(state, widgets.GREY))} &ensp; {first}<br>" + "<br>".join(rest)


def _trials(table: Table, standings: list[Standing]) -> str:
    rows = views.in_order(table, standings)
    names = short_names(list(dict.fromkeys(key for row in rows for key in row.params)))
    head = [*views.COLUMNS, *names.values(), ""]
    lines = [_line(row, names, bool(standings) and row.number == standings[0].number) for row in rows[:MOST]]
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    more = f"<p>... and {len(rows) - MOST} more</p>" if len(rows) > MOST else ""
    problems = "".join(f"<p>cannot be read: {html.escape(problem)}</p>" for problem in table.problems)
    return f"{_STYLE}<div class='hpcgan-table'><table><tr>{top}</tr>{''.join(lines)}</table>{more}{problems}</div>"


def _line(row: Row, names: dict[str, str], leads: bool) -> str:
    cells = [*views.cells(row), *(shown(row.params[key], 3) if key in row.params else "" for key in names)]
    style = f"color:{_STATES[row.state]};" if row.state in _STATES else ""
    style += "font-weight:bold;" if leads else ""
    body = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f"<tr style='{style}'>{body}<td class='why'>{html.escape(row.reason or '')}</td></tr>"
