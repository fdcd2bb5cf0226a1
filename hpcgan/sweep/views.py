"""What `hpcgan sweep status` and `best` show of a study, and the end of a search."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan import config
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.launch.run_status import clock
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state
from hpcgan.sweep.labels import one_line, short_names, show
from hpcgan.sweep.statistics import Standing, ranking, time_left
from hpcgan.sweep.table import Row, RowState, Table, TableReader, read_table
from hpcgan.system.console import make_table, open_console

if TYPE_CHECKING:
    from rich.console import Group

REFRESH_S = 2.0
LEADING = 5
COLUMNS = ("trial", "state", "epoch", "score", "best", "time", "left")
TEXTS = ("parameters", "why")
"""Columns in a pipe; on a terminal one, of the reason if there is one and else of the parameters, as far as it fits."""
_COLOURS: dict[RowState, str] = {"running": "cyan", "failed": "red", "lost": "red", "broken": "red", "pruned": "yellow"}


def status(path: Path, *, once: bool) -> int:
    """Show how a study stands: a table that follows it on a terminal, plain lines once elsewhere.

    The table is there until the study ends or a key interrupts it; neither touches the study.

    Parameters
    ----------
    path : Path
        The study's directory.
    once : bool
        Once, whoever looks.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    InputError
        There is no study.
    """
    reader, console = TableReader(path), open_console()
    if once or not console.is_terminal:
        table = reader.read()
        width = console.width if console.is_terminal else None
        console.print(_picture(table, len(table.rows), width), soft_wrap=True)
        return EXIT_DONE
    from rich.live import Live

    def picture() -> tuple[Group, bool]:
        table = reader.read()
        most = max(3, console.height - 10 - len(table.problems))
        return _picture(table, most, console.width), _under_way(table)

    content, going = picture()
    try:
        with Live(content, console=console, auto_refresh=False) as live:
            while going:
                time.sleep(REFRESH_S)
                content, going = picture()
                live.update(content, refresh=True)
    except KeyboardInterrupt:
        pass
    return EXIT_DONE


def summary(path: Path) -> list[str]:
    """What a terminal shows of a study that has ended."""
    table = read_table(path)
    standings, counts = ranking(table.rows), table.counts(table.searched())
    lines = [", ".join(f"{n} {state}" for state, n in counts.items() if n or state == "complete")]
    for s in standings[: max(3, sum(s.repeats is not None for s in standings))]:
        params = ", ".join(f"{key} {show(value, 3)}" for key, value in s.params.items())
        lines.append(f"trial {s.number}:" + ("" if s.score is None else f" score {s.score:.2f}") + f" ({params})")
        if s.repeats is not None:
            lines.append(f"  with {s.repeats.n} fresh seed{'s' * (s.repeats.n > 1)}: score {s.repeats.text()}")
    if standings and standings[0].repeats is not None:
        test = standings[0].test
        lines.append(f"winner: trial {standings[0].number}" + (f"; on test events score {test.text()}" if test else ""))
    elif len(standings) > 1:
        lines.append("The best score of many is too good to be true: see --repeats.")
    return lines


def best(path: Path) -> str:
    """The configuration that leads, as YAML with a comment that says how sure that is.

    Parameters
    ----------
    path : Path
        The study's directory.

    Raises
    ------
    InputError
        There is no study, no trial that was trained to the end and scored, or no configuration of the winner.
    """
    from hpcgan.sweep.report import winner_lines

    table = read_table(path)
    standings = ranking(table.rows)
    if not standings:
        raise InputError(f"{path}: no trial has been trained to the end and scored: there is no winner yet")
    first = standings[0]
    head = [
        f"Trial {first.number} of the sweep '{one_line(table.description.name)}' ({one_line(str(path))}).",
        *winner_lines(table, standings),
    ]
    run = table.study.trial(first.number)
    if run.exists:
        winner = run.load_config()
    else:
        where = f"{table.study.config_file}, with the values of trial {first.number}"
        values = [f"{key}={json.dumps(value)}" for key, value in first.params.items()]
        winner = config.load(RunDirectory(table.study.path).read_config(), values, where=where)
    return "".join(f"# {line}\n" for line in head) + winner.to_yaml()


# --- status -----------------------------------------------------------------------------------------


def _under_way(table: Table) -> bool:
    """Whether anything may still change: a trial runs, or somebody hands trials out."""
    return any(r.state == "running" for r in table.rows) or attempt_state(RunDirectory(table.study.path)) == "running"


def _picture(table: Table, most: int, width: int | None) -> Group:
    """All there is to see, with at most so many trials, in the width of a terminal or as wide as it gets."""
    from rich.console import Group
    from rich.text import Text

    standings = ranking(table.rows)
    rows = in_order(table, standings)
    names = short_names(list(dict.fromkeys(key for r in rows for key in r.params)))
    lines = [cells(row) for row in rows[:most]]
    texts = [[_params(row, names), row.reason or ""] for row in rows[:most]]
    if width is None:
        listing = make_table([*COLUMNS, *TEXTS], ("state", *TEXTS))
    else:
        used_width = sum(2 + max(len(line[i]) for line in [COLUMNS, *lines]) for i in range(len(COLUMNS)))
        texts = [[(reason or params)[: max(0, width - used_width)]] for params, reason in texts]
        listing = make_table([*COLUMNS, ""], ("state", ""))
    for row, line, text in zip(rows, lines, texts):
        leads = bool(standings) and row.number == standings[0].number
        listing.add_row(*line, *text, style="bold" if leads else _COLOURS.get(row.state, ""))
    parts: list[Any] = [Text(line) for line in head_lines(table, standings)]
    parts += [listing] if rows else [Text("no trial yet")]
    if len(rows) > most:
        parts.append(Text(f"... and {len(rows) - most} more; --once shows all"))
    parts += [Text(f"cannot be read: {problem}") for problem in table.problems]
    return Group(*parts)


def in_order(table: Table, standings: Sequence[Standing]) -> list[Row]:
    """Trials as a viewer wants them: what runs, what leads, what went wrong, what waits, the rest."""
    places = {s.number: s.place for s in standings}
    groups: dict[RowState, int] = {"running": 0, "lost": 2, "broken": 2, "failed": 2, "queued": 3, "pruned": 4}

    def key(row: Row) -> tuple[int, int, int]:
        place = places.get(row.number)
        if row.state == "complete" and place is not None and place <= LEADING:
            return 1, place, row.number
        return groups.get(row.state, 5), place or len(places) + 1, row.number

    return sorted(table.rows, key=key)


def head_lines(table: Table, standings: Sequence[Standing]) -> list[str]:
    """The study, its progress, the best so far and the time left, a line each."""
    d, counts = table.description, table.counts()
    states = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    repeats = sum(r.repeat_of is not None for r in table.rows)
    of = "" if table.planned_trials is None else f" of {table.planned_trials}"
    lines = [
        f"{one_line(d.name)}: {one_line(d.sampler)} search, pruning: {one_line(d.pruner)}, seed {d.seed}, "
        f"{one_line(str(table.study.path))}",
        f"{len(table.rows)}{of} trials{f' ({repeats} of them repetitions)' * (repeats > 0)}: {states or 'none yet'}",
    ]
    if standings:
        first = standings[0]
        m = first.repeats
        if m is None:
            lines.append(f"best so far: trial {first.number}, {first.value:.2f} (a single best of many is biased)")
        else:
            lines.append(f"best: trial {first.number}, {m.text()} over {m.n} repetitions")
    lines.append(_time_line(table))
    return lines


def _time_line(table: Table) -> str:
    missing = len(table.rows) < (table.planned_trials or 0)
    if not missing and not any(r.state in ("running", "queued", "lost") for r in table.rows):
        if any(r.to_test for r in table.rows):
            return "time left: trained, scores on test events are to come"
        return "time left: none, all trials have ended" if table.rows else "time left: not known"
    if not _under_way(table):
        return "time left: nobody works on it; the sweep's command goes on with it"
    rest_s = time_left(table)
    if rest_s is None:
        return "time left: not known before an epoch is done"
    return f"time left: {clock(rest_s)}" + (
        "" if table.planned_trials is not None else " for the trials that run or wait"
    )


def cells(row: Row) -> list[str]:
    """A trial in the `COLUMNS`."""
    return [
        str(row.number),
        row.state if row.repeat_of is None else f"{row.state} (repeats {row.repeat_of})",
        f"{row.epochs}/{row.wanted}" if row.wanted else str(row.epochs),
        _number(row.current),
        _number(row.score) + (f" @{row.epoch}" if row.epoch is not None else ""),
        clock(row.seconds),
        clock(row.left_s),
    ]


def _params(row: Row, names: dict[str, str]) -> str:
    return " ".join(f"{names[key]}={show(value, 3)}" for key, value in row.params.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
