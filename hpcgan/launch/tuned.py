"""Settings that were measured on a machine (`hpcgan doctor --tune`), in place of the defaults of `topology`.

One JSON file a user, `~/.config/hpcgan/tuned.json` unless `HPCGAN_TUNED` names another one (`off`: none). It has an
entry for each kind of node, as a home directory is often shared by several: processor, number of cores, and MPI.
Nothing in here changes what a training computes, only how fast.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpcgan.errors import InputError

VERSION = 1
#: What may be tuned, with the form of its values; a file with anything else in it is not read.
VARIABLES = {
    "HOROVOD_CYCLE_TIME": re.compile(r"\d{1,4}(\.\d{1,3})?"),  # ms between two looks for work of Horovod's thread
    "OMPI_MCA_mpi_yield_when_idle": re.compile(r"[01]"),
}
BINDINGS = ("none", "core")


@dataclass(frozen=True)
class Tuned:
    """What was found on one kind of node.

    Attributes
    ----------
    env : dict of str to str
        Of `VARIABLES`, those that differ from the default.
    binding : "none" or "core"
        Where mpirun puts ranks of one thread.
    ranks, threads : int
        The fastest layout of a node.
    measured : dict
        What the decision rests on: samples a second of every candidate, versions, date.
    """

    env: dict[str, str] = field(default_factory=dict)
    binding: str = "none"
    ranks: int = 0
    threads: int = 0
    measured: dict[str, Any] = field(default_factory=dict)


def location(env: Mapping[str, str]) -> Path | None:
    """The file; None if there is to be none."""
    named = env.get("HPCGAN_TUNED")
    if named is not None:
        return None if named in ("", "off") else Path(named)
    base = env.get("XDG_CONFIG_HOME") or (f"{env['HOME']}/.config" if env.get("HOME") else "")
    return Path(base) / "hpcgan" / "tuned.json" if base else None


def machine(cores: int, flavour: str, root: Path = Path("/")) -> str:
    """Name of this kind of node.

    Parameters
    ----------
    cores : int
        Usable cores.
    flavour : str
        The MPI (`topology.mpi_flavour`).
    root : Path
        Where `proc` is looked up; another one in tests.
    """
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    model = " ".join(found[1].split()) if found else platform.machine()
    return f"{model}, {cores} core{'s' * (cores != 1)}, {flavour}"


def load(env: Mapping[str, str], name: str) -> Tuned | None:
    """What was measured on the kind of node `name`; None if nothing was.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    file = location(env)
    entry = _read(file).get(name) if file is not None else None
    return None if entry is None or file is None else _entry(file, name, entry)


def save(file: Path, name: str, tuned: Tuned) -> None:
    """Write what was measured on the kind of node `name`; other entries stay.

    Raises
    ------
    InputError
        The file cannot be read, or not written.
    """
    from hpcgan.system.files import write_atomic  # only here: every rank reads settings, none writes them

    machines = {**_read(file), name: asdict(tuned)}
    text = json.dumps({"version": VERSION, "machines": machines}, indent=2) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text)
    except OSError as error:
        raise InputError(f"{file}: cannot write: {error.strerror}; name another file in HPCGAN_TUNED") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError):
        raise InputError(f"{file}: cannot be read; delete it, or set HPCGAN_TUNED=off") from None
    machines = raw.get("machines") if isinstance(raw, dict) and raw.get("version") == VERSION else None
    if not isinstance(machines, dict):
        raise InputError(f"{file}: not written by this version of 'hpcgan doctor --tune'; delete it and run that again")
    return machines


def _entry(file: Path, name: str, entry: Any) -> Tuned:
    try:
        tuned = Tuned(**entry)
        sound = tuned.binding in BINDINGS and all(
            key in VARIABLES and isinstance(value, str) and VARIABLES[key].fullmatch(value)
            for key, value in tuned.env.items()
        )
    except (TypeError, AttributeError):
        sound = False
    if not sound:
        raise InputError(f"{file}: the entry for '{name}' is broken; run 'hpcgan doctor --tune' again, or delete it")
    return tuned
