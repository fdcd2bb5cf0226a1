"""Commands to a training, as files in its run directory: pause, resume, set, checkpoint, stop.

Anybody who may write there can send one, from any machine that sees it: a notebook, a shell, another job. Rank 0 looks
for them about twice a second and all ranks obey after the same step. What was obeyed, and when, is in `metrics.jsonl`
as records of the kind `command`. A command's file is there until a checkpoint holds what it did, so that one that was
sent is obeyed once, also by a training that is killed in between, or that is started later.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpcgan.config import LARGEST_RATE, settings_of
from hpcgan.errors import HpcganError, InputError
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state
from hpcgan.runs.records import Reader
from hpcgan.suggest import did_you_mean
from hpcgan.system.files import write_atomic

COMMANDS = ("pause", "resume", "set", "checkpoint", "stop")


@dataclass(frozen=True)
class Command:
    """What a training is asked to do.

    Attributes
    ----------
    id : str
        Unique; commands are obeyed in the order of their ids.
    name : str
        One of `COMMANDS`.
    rates : dict of str to float
        For `set`: network to its learning rate from the next step on, before scaling by ranks and decay, as in
        `training.generator.learning_rate`.
    """

    id: str
    name: str
    rates: dict[str, float] = field(default_factory=dict)


def networks_of(run: RunDirectory) -> tuple[str, ...]:
    """The networks of a run whose learning rates `set` changes.

    Raises
    ------
    InputError
        There is no run here, or one of a method that this version does not know.
    """
    method = str(run.read_config().get("method"))
    try:
        return settings_of(method).networks
    except InputError as error:
        raise InputError(f"{run.config_file}: {error}") from None


def check(name: str, rates: Mapping[str, Any], networks: Sequence[str]) -> None:
    """Refuse what no training of these networks can do.

    Raises
    ------
    InputError
        An unknown command, rates that are none, or rates for a command that takes none.
    """
    if name not in COMMANDS:
        raise InputError(f"command '{name}': choose one of {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    if name != "set" and rates:
        raise InputError(f"command '{name}' takes no learning rates")
    if name == "set" and not rates:
        raise InputError(f"command 'set' needs a learning rate, e.g. {networks[0]}=1e-4")
    for network, rate in rates.items():
        if network not in networks:
            raise InputError(f"set {network}: choose one of {', '.join(networks)}{did_you_mean(network, networks)}")
        number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if not (number and math.isfinite(rate) and 0 < rate <= LARGEST_RATE):
            raise InputError(f"set {network}={rate}: a learning rate is above 0 and at most {LARGEST_RATE:g}")


def send(run: RunDirectory, name: str, rates: Mapping[str, float] | None = None) -> str:
    """Ask a training for something; returns at once. A run that is not training obeys when it is started again.

    Returns
    -------
    str
        The command's id, for `outcome`.

    Raises
    ------
    InputError
        The command is none, there is no run here, it has ended, or its directory cannot be written.
    """
    rates = dict(rates or {})
    check(name, rates, networks_of(run))
    if (state := attempt_state(run)) in records.OVER:
        raise InputError(f"{run.path}: the training has ended ({state}); there is nothing to {name}")
    command = Command(f"{time.time_ns():020d}-{secrets.token_hex(4)}", name, rates)
    try:
        run.commands.mkdir(exist_ok=True)
        write_atomic(run.commands / f"{command.id}.json", json.dumps(asdict(command)) + "\n")
    except OSError as error:
        raise InputError(f"{run.path}: cannot write a command: {error.strerror}") from None
    return command.id


def outcome(run: RunDirectory, command_id: str) -> records.Command | None:
    """The record of a command that was obeyed or refused; None as long as it was not."""
    return Reader(run.metrics_file, records.Command).read().outcome(command_id)


def wait(run: RunDirectory, command_id: str, timeout: float = 60.0) -> records.Command:
    """The record of a command, once a training has obeyed it.

    Raises
    ------
    InputError
        The training refused it.
    HpcganError
        The training does not run, or none has obeyed within `timeout` seconds, and the command stays; or the training
        ended before it could obey.
    """
    end = time.monotonic() + timeout
    reader = Reader(run.metrics_file, records.Command)

    def answer() -> records.Command | None:
        return reader.read().outcome(command_id)

    while (record := answer()) is None:
        state = attempt_state(run) or "not started"
        if state in records.OVER and answer() is None:  # which may have come in between
            Inbox(run).remove([command_id])
            raise HpcganError(f"{run.path}: the training has ended ({state}) before it could obey")
        if state not in ("running", "not started") and answer() is None:
            raise HpcganError(f"{run.path}: {stays(run, command_id)}")
        if time.monotonic() > end:
            raise HpcganError(f"{run.path}: no answer in {timeout:.0f} s; {stays(run, command_id)}")
        time.sleep(0.2)
    if record.refused:
        raise InputError(f"{run.path}: {record.refused}")
    return record


def stays(run: RunDirectory, command_id: str) -> str:
    """What becomes of a command that nobody has obeyed yet, and how it is taken back, as part of a line."""
    state = attempt_state(run)
    if state == "running":
        when = "the training runs and obeys when it comes to it"
    elif state is None:
        when = "the training has not been started, and obeys when it is"
    else:
        when = f"the training does not run ({state}), and obeys when it is started again"
    return f"{when}; to take the command back: hpcgan control {shlex.quote(str(run.path))} withdraw {command_id}"


def withdraw(run: RunDirectory, ids: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Take commands back that nobody has obeyed; all that wait where none is named.

    Returns
    -------
    list of dict
        What was taken back, as of `Inbox.read`.

    Raises
    ------
    InputError
        None of this id waits, or it has been obeyed.
    """
    inbox = Inbox(run)
    waits = {command["id"]: command for command in inbox.read()}
    for name in ids:
        if (record := outcome(run, name)) is not None:
            raise InputError(f"{run.path}: command {name} was obeyed at step {record.step}")
        if name not in waits:
            raise InputError(f"{run.path}: no command {name} waits{did_you_mean(name, waits)}")
    withdrawn = [waits[name] for name in ids or waits if outcome(run, name) is None]
    inbox.remove(command["id"] for command in withdrawn)
    return withdrawn


class Inbox:
    """Commands that wait, as rank 0 sees them.

    Parameters
    ----------
    run : RunDirectory
    every : float
        Seconds between two looks at the directory, which may be on a busy file system.
    """

    def __init__(self, run: RunDirectory, every: float = 0.5) -> None:
        self._run, self._folder, self._every, self._next = run, run.commands, every, 0.0

    def waiting(self) -> bool:
        """Whether there is a command; looks seldom."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every
        return bool(self._files())

    def read(self) -> list[dict[str, Any]]:
        """All commands that wait, the first one first, as plain values with `refused` where one is none."""
        networks = networks_of(self._run)
        return [_read(path, networks) for path in self._files()]

    def remove(self, ids: Iterable[str]) -> None:
        """Take commands away that were obeyed, or refused."""
        for name in ids:
            (self._folder / f"{name}.json").unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        try:
            return sorted(p for p in self._folder.iterdir() if re.fullmatch(r"[^.].*\.json", p.name))
        except OSError:  # there never was one, or the file system does not answer: it is looked at again
            return []


def _read(path: Path, networks: Sequence[str]) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        name, rates = raw["name"], raw.get("rates", {})
        if not isinstance(rates, dict):
            raise TypeError
        check(name, rates, networks)
    except InputError as error:
        return {"id": path.stem, "name": str(name), "rates": {}, "refused": str(error)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"id": path.stem, "name": "unknown", "rates": {}, "refused": f"{path.name} is no command"}
    return {"id": path.stem, "name": name, "rates": rates, "refused": None}
