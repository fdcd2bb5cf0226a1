"""A sweep as a live panel in a notebook: its trials, the best so far, the picture, and buttons to prune and to stop."""

from __future__ import annotations

import html
from pathlib import Path

from hpcgan.interactive import figures
from hpcgan.interactive.live_panel import COLOURS, LivePanel, Picture, badge
from hpcgan.sweep import commands, views
from hpcgan.sweep.labels import short_names, show
from hpcgan.sweep.statistics import Standing, ranking
from hpcgan.sweep.table import Row, Table, TableReader

EVERY_S = 3.0
MOST = 100
"""Trials that are listed, those that run and lead first."""
_STYLE = (
    "<style>.hpcgan-table{line-height:1.35}"
    ".hpcgan-table table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    ".hpcgan-table th,.hpcgan-table td{padding:1px 12px 1px 0;text-align:right;white-space:nowrap}"
    ".hpcgan-table th{border-bottom:1px solid #8888;position:sticky;top:0;background:var(--jp-layout-color0,white)}"
    ".hpcgan-table .why{text-align:left;white-space:normal;min-width:24em}</style>"
)


class SweepDashboard(LivePanel):
    """The panel of one sweep; it lives until nobody works on the sweep any more, or `close`.

    Parameters
    ----------
    study : Path
        Its directory.
    every : float
        Seconds between two looks.

    Attributes
    ----------
    header, trials : ipywidgets.HTML
        How the sweep stands, and its table.
    number : ipywidgets.BoundedIntText
        Of the trial to prune.
    prune, stop : ipywidgets.Button
    picture : ipywidgets.Image
    """

    def __init__(self, study: Path, every: float = EVERY_S) -> None:
        self._reader = TableReader(study)
        super().__init__(study, every)

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
        self.prune.on_click(lambda _: self._prune())
        self.stop.on_click(lambda _: self._stop())
        self.picture = ipywidgets.Image(
            format="png", layout=layout(display="none", width="100%", max_width="900px", margin="0")
        )
        controls = ipywidgets.HBox([self.number, self.prune, self.stop], layout=layout(align_items="center"))
        self.box = ipywidgets.VBox(
            [self.header, controls, self.status, self.trials, self.picture],
            layout=layout(width="auto", padding="6px 10px"),
        )
        self._pictures = {"picture": Picture(self.picture)}
        outputs = {"header": self.header, "status": self.status, "trials": self.trials, "picture": self.picture}
        inputs = {"prune": self.prune, "stop": self.stop, "number": self.number}
        self._connect({"sweep": self.box, **outputs, **inputs})

    # --- looking -----------------------------------------------------------------------------------

    def _look(self) -> float | None:
        state, table = commands.state(self._path), self._reader.read()  # in this order: its end is in the table
        going = state == "running" or any(row.state == "running" for row in table.rows)
        standings = ranking(table.rows)
        lines = [html.escape(line) for line in views.head_lines(table, standings)]
        self.header.value = f"{badge(state)} &ensp; {'<br>'.join(lines)}"
        self.trials.value = _trials(table, standings)
        self.prune.disabled = self.number.disabled = self.stop.disabled = not going
        scores = tuple((row.number, row.state, row.score) for row in table.searched() if row.score is not None)
        if scores:
            self._due("picture", scores, figures.trials, self._path)
        return self._every if going else None

    # --- commands ----------------------------------------------------------------------------------

    def _prune(self) -> None:
        number = int(self.number.value)
        if self._try(lambda: commands.prune(self._reader, number)):
            self._say(f"trial {number} ends before its next epoch")

    def _stop(self) -> None:
        if self._try(lambda: commands.stop(self._reader)):
            self._say("asked to stop: all trials write checkpoints")


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
    cells = [*views.cells(row), *(show(row.params[key], 3) if key in row.params else "" for key in names)]
    style = f"color:{COLOURS[row.state]};" if row.state in COLOURS else ""
    style += "font-weight:bold;" if leads else ""
    body = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f"<tr style='{style}'>{body}<td class='why'>{html.escape(row.reason or '')}</td></tr>"
