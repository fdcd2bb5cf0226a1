"""Commands to a sweep, through its study's directory: anybody who may write there can stop it, or prune a trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpcgan.errors import InputError
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state
from hpcgan.sweep.table import Row, TableReader

#: What the coordinator's lease says, and what it is called of a sweep.
STATES: Mapping[str | None, str] = {None: "not started", "interrupted": "stopped"}
#: Of a trial without a result.
_OPEN = ("running", "queued", "lost")


def state(study: Path) -> str:
    """`running`, or how the sweep ended: `done`, `stopped`, `failed` or `lost` (killed); `not started`: it never was.

    Of the process that hands out trials. Trials of a batch system and of engines go on without it.
    """
    lease = attempt_state(RunDirectory(study))
    return STATES.get(lease, str(lease))


def stop(reader: TableReader) -> None:
    """Have all trials write checkpoints and end.

    Raises
    ------
    InputError
        Nobody works on the sweep, or its directory cannot be written.
    """
    path, how = reader.study.path, state(reader.study.path)
    if how != "running" and not any(row.state == "running" for row in reader.read().rows):
        raise InputError(f"{path}: there is nothing to stop: the sweep is {how}")
    try:
        reader.study.stop_file.touch()
    except OSError as error:
        raise InputError(f"{path}: cannot ask it to stop: {error.strerror}") from None


def prune(reader: TableReader, number: int) -> None:
    """Have a trial end before its next epoch, as one that a pruner ends; a trial that waits ends when it begins.

    Raises
    ------
    InputError
        There is no such trial, it has ended, or that was decided already.
    """
    row = trial_row(reader, number)
    if row.state not in _OPEN:
        raise InputError(f"trial {number}: is {row.state}; only trials that run or wait can be pruned")
    try:
        decided = reader.study.write_verdict(number, f"pruned by hand after epoch {row.epochs}", row.epochs)
    except OSError as error:
        raise InputError(f"{reader.study.path}: cannot prune trial {number}: {error.strerror}") from None
    if not decided:
        raise InputError(f"trial {number}: shall end already, before its next epoch")


def trial_row(reader: TableReader, number: int) -> Row:
    """What is known of a trial.

    Raises
    ------
    InputError
        There is no such trial.
    """
    table = reader.read()
    row = table.row(number)
    if row is None:
        hint = f"the last one is {table.rows[-1].number}" if table.rows else "there is none yet"
        raise InputError(f"{reader.study.path}: no trial {number}; {hint}")
    return row
