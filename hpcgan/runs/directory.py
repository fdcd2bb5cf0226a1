"""The run directory: what is where, atomic writes, and who may write.

A run is a directory; every other tool reads it. One process writes at a time: it holds the newest
*attempt*, a numbered file created exclusively (atomic on shared file systems, too) with a heartbeat beside
it (`hpcgan.system.liveness`). A newer attempt fences off an older one: before each write the holder looks whether
it still is the newest, and stops if not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpcgan import config as configuration
from hpcgan import yamlio
from hpcgan.config import Config
from hpcgan.errors import HpcganError, InputError
from hpcgan.system import liveness
from hpcgan.system.allocation import current_job
from hpcgan.system.files import FULL, warn, write_atomic, write_once
from hpcgan.system.liveness import Heart, Identity, Watcher


class RunDirectory:
    """Paths of one run.

    Parameters
    ----------
    path : Path
        The directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.provenance_file = self.path / "provenance.jsonl"
        self.data_file = self.path / "data.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.report = self.path / "report"
        self.attempts = self.path / "attempts"
        self.jobs_file = self.path / "jobs.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.verdict_file = self.path / "verdict.json"
        self.commands = self.path / "commands"

    @property
    def exists(self) -> bool:
        """True if there is a run here."""
        return self.config_file.is_file()

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration as plain values.

        Raises
        ------
        InputError
            There is no run here, or its configuration is broken.
        """
        try:
            raw = yamlio.load(self.config_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.path}: not a run directory (no config.yaml in it)") from None
        except (OSError, ValueError) as error:  # ValueError: of what is no YAML, and no UTF-8
            raise InputError(f"{self.config_file}: cannot be read: {str(error).splitlines()[0]}") from None
        if not isinstance(raw, dict):
            raise InputError(f"{self.config_file}: is empty or not a mapping")
        return raw

    def load_config(self) -> Config:
        """The validated configuration.

        Raises
        ------
        InputError
            As `read_config`, or this version knows the configuration no more.
        """
        raw = self.read_config()
        try:
            return configuration.load(raw)
        except InputError as error:
            raise InputError(f"{self.config_file}: {error}") from None

    def check_config(self, config: Config, existing: Config) -> None:
        """Refuse to continue a run with another configuration.

        Raises
        ------
        InputError
            Some identity key differs; the message names it.
        """
        differing = differences(existing.identity(), config.identity())
        if differing:
            shown = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, old, new in differing[:3])
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise InputError(
                f"{self.path}: holds a run of another configuration ({shown}{more}); "
                "give another directory with --run, or leave --run out"
            )

    def create(self, config: Config) -> None:
        """Make the directory and write the resolved configuration.

        Raises
        ------
        HpcganError
            The disk is full.
        InputError
            It cannot be written for another reason.
        """
        try:
            for folder in (self.path, self.checkpoints, self.samples, self.report, self.attempts):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.config_file, config.to_yaml())
        except OSError as error:
            kind = HpcganError if error.errno in FULL else InputError
            raise kind(f"{self.path}: cannot write the run directory: {error.strerror}") from None


def owner_of(path: Path) -> RunDirectory:
    """The run of a run directory, or of one of its checkpoints."""
    is_checkpoint = (path / "manifest.json").is_file()
    return RunDirectory(path.absolute().parent.parent if is_checkpoint else path)


def differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted keys of which two nested mappings have different values, with both."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            found += differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return [] if old == new else [(prefix, old, new)]


# Files of the attempts of this process that have not ended. One whose end a full disk did not take says "running"
# for ever, of a process that lives: a notebook, say, which must be able to try again.
_held_here: set[Path] = set()


class FencedError(InputError):
    """Another attempt holds the run directory, or has taken it over."""


class Lease:
    """The right to write into a run directory, held by one process of the newest attempt.

    Parameters
    ----------
    run : RunDirectory
    on_lost : callable, optional
        Called with one line by the heartbeat's thread when a newer attempt has taken over. Whoever waits for
        peers that are gone would not notice otherwise.
    env : mapping, optional
        Where the Slurm job is read from; by default `os.environ`.
    say : callable, optional
        Hears one line when it has to be waited whether a holder lives; by default a warning.

    Attributes
    ----------
    attempt : int
        Number of this attempt, from 1.

    Raises
    ------
    FencedError
        Another process is writing, as its heartbeat shows or, where its number means something here, its being
        there. A Slurm job that was queued again takes over from its earlier self, which may live on where its
        node was lost.
    """

    def __init__(
        self,
        run: RunDirectory,
        on_lost: Callable[[str], None] | None = None,
        env: Mapping[str, str] | None = None,
        say: Callable[[str], None] = warn,
    ) -> None:
        env = os.environ if env is None else env
        self._folder = run.attempts
        self._folder.mkdir(parents=True, exist_ok=True)
        last = self._newest()
        current = current_job(env)
        job = None if current is None else {"id": current.id, "restart": current.restarts}
        if last:
            _refuse_if_held(run, last, job, say)
        self.attempt = last + 1
        self._file = _attempt_file(run, self.attempt)
        self._me = {"process": Identity.mine().plain(), "job": job}
        if not write_once(self._file, json.dumps({**self._me, "state": "running"})):
            raise FencedError(f"{run.path}: another process has just started on this run")
        _held_here.add(self._file.resolve())
        self._on_lost = on_lost
        self._heart = Heart(_heartbeat_file(run, self.attempt), self._is_ours)

    def check(self) -> None:
        """Raise FencedError if a newer attempt has taken over, HpcganError if that cannot be known."""
        try:
            newest = self._newest()
        except OSError as error:
            raise HpcganError(f"{self._folder}: cannot be read: {error.strerror}") from None
        if newest != self.attempt:
            raise FencedError(
                f"{self._folder.parent}: attempt {newest} has taken this run over; attempt {self.attempt} stops"
            )

    def release(self, state: str) -> None:
        """End the attempt in order; `state` says how (done, interrupted, failed)."""
        self._on_lost = None
        try:
            if self._newest() == self.attempt:
                write_atomic(self._file, json.dumps({**self._me, "state": state}))
        finally:  # not before: an attempt of this process that it does not hold, and that says `running`, is lost
            _held_here.discard(self._file.resolve())
            self._heart.stop()

    def _newest(self) -> int:
        return _newest_attempt(self._folder)

    def _is_ours(self) -> bool:
        """For the heartbeat: whether it goes on."""
        try:
            self.check()
        except FencedError as error:
            if (tell := self._on_lost) is not None:
                tell(str(error))
            return False
        except HpcganError:  # the next write reports a real loss; a hiccup of the file system is none
            pass
        return True


_watcher = Watcher()


def attempt_state(run: RunDirectory) -> str | None:
    """How the newest attempt stands: running, done, pruned, stopped, interrupted, failed, or lost; None if none was.

    `stopped` is one that a command ended, which is not to go on by itself; `interrupted` one that a signal ended.
    `lost` is one that never said how it ended, and whose process is not there, or shows no sign of life. Answers at
    once: of a process that cannot be looked up from here, by what is known of its heartbeat (`Watcher.lives`), which
    may be "running" for some time too long, and is not for a living one once this process has seen it beat.
    """
    newest = attempts_made(run)
    if not newest:
        return None
    holder = _read_attempt(_attempt_file(run, newest))
    if holder is not None and holder.get("state") != "running":
        return str(holder.get("state"))
    lives = None if holder is None else _process_lives(holder, _attempt_file(run, newest))
    if lives is None:
        lives = _watcher.lives(_heartbeat_file(run, newest))
    return "running" if lives else "lost"


def attempts_made(run: RunDirectory) -> int:
    """How often a run was started."""
    return _newest_attempt(run.attempts) if run.attempts.is_dir() else 0


def _attempt_file(run: RunDirectory, attempt: int) -> Path:
    return run.attempts / f"{attempt:04d}.json"


def _heartbeat_file(run: RunDirectory, attempt: int) -> Path:
    return run.attempts / f"{attempt:04d}.beat"


def _newest_attempt(folder: Path) -> int:
    numbers = [int(p.stem) for p in folder.iterdir() if re.fullmatch(r"\d{4,}\.json", p.name)]
    return max(numbers, default=0)


def _read_attempt(path: Path) -> dict[str, Any] | None:
    """What is written there; None if it is unreadable."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) else None


def _refuse_if_held(run: RunDirectory, attempt: int, job: dict[str, Any] | None, say: Callable[[str], None]) -> None:
    """Look, and watch if need be, whether an attempt lives.

    Raises
    ------
    FencedError
        It does.
    """
    path, beats = _attempt_file(run, attempt), _heartbeat_file(run, attempt)

    def look() -> object:
        return liveness.sign(beats), liveness.sign(path)

    before = look()
    holder = _read_attempt(path)
    if holder is not None and holder.get("state") != "running":
        return
    process = None if holder is None else Identity.read(holder.get("process"))
    who = "a process that has not said its name" if process is None else str(process)
    theirs = None if holder is None else holder.get("job")
    if job is not None and isinstance(theirs, dict) and theirs.get("id") == job["id"]:
        who += f", job {job['id']}"
        before = theirs.get("restart")
        if isinstance(before, int) and before < job["restart"]:
            return  # this is the same job, queued again: Slurm means its earlier self to be gone
        if isinstance(before, int) and before > job["restart"]:
            raise FencedError(f"{run.path}: job {job['id']} was queued again and trains in it: this one stops")
    alive = None if holder is None else _process_lives(holder, path)
    if alive is None:
        say(
            f"{run.path}: attempt {attempt} ({who}) has not ended; waiting up to {liveness.WATCH_S:.0f} s to see "
            "whether it still lives"
        )
        alive = liveness.watch(look, before)
        holder = _read_attempt(path)
        if holder is not None and holder.get("state") != "running":
            return  # it has ended by now
    if alive:
        raise FencedError(f"{run.path}: {who} is at work in it (attempt {attempt}); wait for it or stop it first")


def _process_lives(holder: Mapping[str, Any], path: Path) -> bool | None:
    """Whether the process that wrote an attempt's file is there and still holds it; None if nobody here can know."""
    process = Identity.read(holder.get("process"))
    lives = None if process is None else process.lives()
    if lives and process is not None and process.pid == os.getpid():
        return path.resolve() in _held_here
    return lives
