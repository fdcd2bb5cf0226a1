"""Who may write into a run directory: one process at a time, which holds the newest attempt.

An *attempt* is a numbered file that is created exclusively (atomic on shared file systems, too), with a heartbeat
beside it (`hpcgan.system.liveness`). A newer attempt fences off an older one: before each write the holder looks
whether it still is the newest, and stops if not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpcgan.errors import EnvironmentFailure, FailureKind, HpcganError, InputError
from hpcgan.runs import leftovers
from hpcgan.runs.directory import RunDirectory
from hpcgan.system import liveness
from hpcgan.system.allocation import current_job
from hpcgan.system.files import warn, write_atomic, write_once
from hpcgan.system.liveness import Heart, Identity, Watcher

# Files of the attempts of this process that have not ended. One whose end a full disk did not take says "running"
# for ever, of a process that lives: a notebook, say, which must be able to try again.
_held_here: set[Path] = set()


class FencedError(InputError):
    """Another attempt holds the run directory, or has taken it over."""

    kind: FailureKind = "environment"


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
        self._me = {"process": Identity.own().plain(), "job": job}
        if not write_once(self._file, json.dumps({**self._me, "state": "running"})):
            raise FencedError(f"{run.path}: another process has just started on this run")
        _held_here.add(self._file.resolve())
        leftovers.remove(run, self.attempt)
        self._run, self._on_lost = run, on_lost
        self._heart = Heart(_heartbeat_file(run, self.attempt), self._is_ours)

    def check(self) -> None:
        """Raise FencedError if a newer attempt has taken over, HpcganError if that cannot be known."""
        try:
            newest = self._newest()
        except OSError as error:
            raise EnvironmentFailure(f"{self._folder}: cannot be read: {error.strerror}") from None
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
                leftovers.remove(self._run, self.attempt)
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


def held_by(run: RunDirectory, pid: int) -> bool:
    """Whether a process of this machine, by its number, holds the newest attempt."""
    newest = attempts_made(run)
    holder = _read_attempt(_attempt_file(run, newest)) if newest else None
    if holder is None or holder.get("state") != "running":
        return False
    return Identity.read(holder.get("process")) == Identity.of(pid)


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
