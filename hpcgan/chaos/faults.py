"""What a campaign does to a training or a search: a small class a kind of fault."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hpcgan.chaos.processes import Process, Role
from hpcgan.chaos.subject import Subject
from hpcgan.errors import InputError
from hpcgan.runs import checkpoint
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempts_made
from hpcgan.runs.records import Reader
from hpcgan.suggest import did_you_mean

#: Of files that lie about, s.
_AGE_S = 3600.0

_Choice = TypeVar("_Choice")

Seen = dict[str, Any]
"""What was hit, for the log."""


@dataclass(frozen=True)
class Scene:
    """What a fault has before it.

    Attributes
    ----------
    subject : Subject
        What is hit.
    processes : callable
        The campaign's living processes.
    later : callable
        Takes seconds and what to do then: a process that was stopped goes on.
    longest_stop : float
        Seconds for which a process is stopped at most.
    """

    subject: Subject
    processes: Callable[[], list[Process]]
    later: Callable[[float, Callable[[], object]], None]
    longest_stop: float

    def of_role(self, role: Role) -> list[Process]:
        """The living processes of a role, ranks in their order."""
        return [process for process in self.processes() if process.role == role]

    def training(self, is_fit: Callable[[RunDirectory], bool], chance: random.Random) -> RunDirectory | None:
        """One of the trainings under way that are fit; None if there is none."""
        return _one_of([run for run in self.subject.trainings if is_fit(run)], chance)

    def named(self, file: Path) -> str:
        """What the log calls a file."""
        return str(file.relative_to(self.subject.path))


class Fault(Protocol):
    """A kind of fault."""

    @property
    def name(self) -> str:
        """What `--faults` calls it."""
        ...

    @property
    def between(self) -> bool:
        """Whether it happens to the files of a training that has just been killed as a whole."""
        ...

    def ready(self, scene: Scene) -> bool:
        """Whether there is something to hit."""
        ...

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Hit; what was hit, None if there was nothing."""
        ...


@dataclass(frozen=True)
class Signal:
    """A signal to a process of a role. What SIGSTOP stops goes on after a while, unless it was ended meanwhile."""

    name: str
    role: Role
    signum: signal.Signals
    between: bool = False

    def ready(self, scene: Scene) -> bool:
        """Whether there is such a process."""
        return bool(scene.of_role(self.role))

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Send it."""
        processes = scene.of_role(self.role)
        if not processes:
            return None
        victim = processes[int(chance.random() * len(processes))]
        pause = chance.uniform(0.0, scene.longest_stop)
        if not victim.send(self.signum):
            return None
        if self.signum != signal.SIGSTOP:
            return victim.plain()
        scene.later(pause, lambda: victim.send(signal.SIGCONT))
        return {**victim.plain(), "stopped_s": round(pause, 3)}


@dataclass(frozen=True)
class NoWrites:
    """Rank 0 can write to no file any more: a limit on the size of its files (RLIMIT_FSIZE) stands for a full disk.

    Of several trials, that of one.
    """

    name: str = "full-disk"
    between: bool = False

    def ready(self, scene: Scene) -> bool:
        """Whether there is a rank 0."""
        return bool(self._roots(scene))

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Set the limit."""
        victim = _one_of(self._roots(scene), chance)
        return victim.plain() if victim is not None and victim.limit_files() else None

    def _roots(self, scene: Scene) -> list[Process]:
        return [process for process in scene.of_role("rank") if process.rank == 0]


def intact_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that verify, from the oldest to the newest."""
    intact = []
    for path in sorted(path for path in folder.glob("step-*") if path.is_dir()):
        try:
            intact.append(checkpoint.load(path).path)
        except checkpoint.BrokenCheckpoint:
            continue
    return intact


@dataclass(frozen=True)
class DamagedCheckpoint:
    """The newest intact checkpoint, if there is an older one, is cut short or has another bit in it."""

    name: str
    cut: bool
    between: bool = True

    def ready(self, scene: Scene) -> bool:
        """Whether the training can go on from an older one."""
        return any(map(_goes_on, scene.subject.trainings))

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Damage one of its files."""
        run = scene.training(_goes_on, chance)
        if run is None:
            return None
        intact = intact_checkpoints(run.checkpoints)
        file = intact[-1] / chance.choice(("arrays.npz", "manifest.json"))
        content = bytearray(file.read_bytes())
        place = int(chance.random() * len(content))
        if self.cut:
            del content[place:]
        else:
            content[place] ^= 1 << int(chance.random() * 8)
        file.write_bytes(content)
        return {"file": scene.named(file), "byte": place}


@dataclass(frozen=True)
class TornRecord:
    """The last record is half written: one that no checkpoint holds is cut, else the beginning of another is added.

    What a checkpoint holds has reached the disk before it (`records.Writer.sync`), so no crash can cut that.
    """

    name: str = "torn-record"
    between: bool = True

    def ready(self, scene: Scene) -> bool:
        """Whether there are records."""
        return any(run.metrics_file.is_file() for run in scene.subject.trainings)

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Cut, or add."""
        run = scene.training(lambda run: run.metrics_file.is_file(), chance)
        if run is None:
            return None
        file = run.metrics_file
        content = file.read_bytes()
        last = content.rstrip(b"\n").rfind(b"\n") + 1
        line = content[last:].rstrip(b"\n")
        newest = checkpoint.newest_step(run.checkpoints)
        if Reader(file, replaced=True).read().step > newest and line:
            size = last + int(chance.random() * len(line))
            with open(file, "r+b") as stream:
                stream.truncate(size)
            return {"file": scene.named(file), "cut": len(content) - size}
        added = line[: 1 + int(chance.random() * max(0, len(line) - 1))]
        with open(file, "ab") as stream:
            stream.write(added)
        return {"file": scene.named(file), "added": len(added)}


@dataclass(frozen=True)
class StrangeLease:
    """The newest attempt is that of a process of another kernel, which nobody can look up; or its file is empty."""

    name: str = "lease"
    between: bool = True

    def ready(self, scene: Scene) -> bool:
        """Whether there was an attempt."""
        return any(map(attempts_made, scene.subject.trainings))

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Write it."""
        run = scene.training(lambda run: attempts_made(run) > 0, chance)
        if run is None:
            return None
        file = run.attempts / f"{attempts_made(run):04d}.json"
        if chance.random() < 0.3:  # a writer that was killed where there are no hard links
            file.write_text("")
            return {"file": scene.named(file), "content": "empty"}
        holder = json.loads(file.read_text() or "{}")
        process = {**holder.get("process", {}), "host": "elsewhere", "boot": "another"}
        file.write_text(json.dumps({**holder, "process": process, "job": None, "state": "running"}))
        return {"file": scene.named(file), "content": "another host"}


@dataclass(frozen=True)
class StaleFiles:
    """Files in the making lie about, of a writer that was killed an hour ago between making and renaming them."""

    name: str = "stale-files"
    between: bool = True

    def ready(self, scene: Scene) -> bool:
        """Whether there is a run."""
        return any(run.checkpoints.is_dir() for run in scene.subject.trainings)

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Make some."""
        run, token = scene.training(lambda run: run.checkpoints.is_dir(), chance), secrets.token_hex(4)
        if run is None:
            return None
        folder = run.checkpoints / f".step-{max(0, checkpoint.newest_step(run.checkpoints))}.{token}.tmp"
        folder.mkdir()
        (folder / "arrays.npz").write_bytes(b"PK\x03\x04")
        files = [folder]
        for place in (run.config_file, run.attempts / f"{attempts_made(run) + 1:04d}.json"):
            files.append(place.with_name(f".{place.name}.1-{token}.tmp"))
            files[-1].write_text("{")
            then = files[-1].stat().st_mtime - _AGE_S
            os.utime(files[-1], (then, then))
        return {"files": [scene.named(file) for file in files]}


@dataclass(frozen=True)
class Blackout:
    """All processes are killed at once, as when a machine goes down."""

    name: str = "kill-all"
    between: bool = True

    def ready(self, scene: Scene) -> bool:
        """Whether there are any besides the one that was started."""
        return len(scene.processes()) > 1

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Nothing more."""
        return None


def _one_of(choices: Sequence[_Choice], chance: random.Random) -> _Choice | None:
    """One of them, None if there is none; a single one takes no draw."""
    if len(choices) < 2:
        return next(iter(choices), None)
    return choices[int(chance.random() * len(choices))]


def _goes_on(run: RunDirectory) -> bool:
    """Whether a training that loses its newest checkpoint has another one."""
    return len(intact_checkpoints(run.checkpoints)) > 1


def signals(*roles: Role) -> list[Fault]:
    """SIGKILL, SIGSTOP and SIGTERM to processes of some roles."""
    verbs = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
    return [Signal(f"{verb}-{role}", role, signum) for role in roles for verb, signum in verbs.items()]


#: What can happen to files, wherever the training runs.
FILES: list[Fault] = [
    NoWrites(),
    DamagedCheckpoint("cut-checkpoint", cut=True),
    DamagedCheckpoint("flip-checkpoint", cut=False),
    TornRecord(),
    StrangeLease(),
    StaleFiles(),
]
_LAUNCHERS = [*signals("launcher"), Signal("kill-mpirun", "mpirun", signal.SIGKILL)]
#: Kinds that there are only where ranks have a launcher.
OF_LAUNCHERS = tuple(fault.name for fault in _LAUNCHERS)
#: What can happen to a training on this machine, by name.
LOCAL: dict[str, Fault] = {fault.name: fault for fault in (*signals("rank"), *_LAUNCHERS, *FILES)}
#: What can happen to a search on this machine, by name.
SEARCH: dict[str, Fault] = {
    fault.name: fault for fault in (*signals("coordinator", "trial", "rank"), Blackout(), *FILES)
}


def choose(names: Sequence[str], choices: Mapping[str, Fault]) -> list[Fault]:
    """The faults of these names, all of them if there is no name.

    Raises
    ------
    InputError
        A name that is none.
    """
    for name in names:
        if name not in choices:
            raise InputError(f"--faults {name}: choose of {', '.join(choices)}{did_you_mean(name, choices)}")
    return [choices[name] for name in names or choices]
