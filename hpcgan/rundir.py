"""The run directory: what is where, atomic writes, and who may write.

A run is a directory; every other tool reads it. One process writes at a time: it holds the newest
*attempt*, a numbered file created exclusively (atomic on shared file systems, too) and touched as a
heartbeat. A newer attempt fences off an older one: before each write the holder looks whether it still
is the newest, and stops if not.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hpcgan import config as configuration
from hpcgan.allocation import current_job
from hpcgan.config import Config, Registry
from hpcgan.errors import HpcganError, InputError

HEARTBEAT_S = 10.0
STALE_S = 90.0  # several heartbeats: a busy file system may delay some
WATCH_S = 35.0  # for a heartbeat of a holder on another host, whose clock may be another


def fsync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file as a whole: readers and crashes see the old content or the new, nothing between."""
    payload = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_once(path: Path, data: bytes | str) -> bool:
    """Write a file as a whole unless it is there already; of several who try at the same time, one gets True."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    write_atomic(temporary, data)
    try:
        os.link(temporary, path)  # a complete file appears under the name, or none
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


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
            raw = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.path}: not a run directory (no config.yaml in it)") from None
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: also of a date's parts
            raise InputError(f"{self.config_file}: cannot be read: {str(error).splitlines()[0]}") from None
        if not isinstance(raw, dict):
            raise InputError(f"{self.config_file}: is empty or not a mapping")
        return raw

    def load_config(self, registry: Registry) -> Config:
        """The validated configuration.

        Raises
        ------
        InputError
            As `read_config`, or this version knows the configuration no more.
        """
        raw = self.read_config()
        try:
            return configuration.load(raw, registry)
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
            kind = HpcganError if error.errno in (errno.ENOSPC, errno.EDQUOT) else InputError
            raise kind(f"{self.path}: cannot write the run directory: {error.strerror}") from None


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

    Attributes
    ----------
    attempt : int
        Number of this attempt, from 1.

    Raises
    ------
    FencedError
        Another process is writing, as its heartbeat (or, on this host, its process) shows. A Slurm job that
        was queued again takes over from its earlier self, which may live on where its node was lost.
    """

    def __init__(
        self, run: RunDirectory, on_lost: Callable[[str], None] | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        env = os.environ if env is None else env
        self._folder = run.attempts
        self._folder.mkdir(parents=True, exist_ok=True)
        last = self._newest()
        current = current_job(env)
        job = None if current is None else {"id": current.id, "restart": current.restarts}
        if last:
            _refuse_if_held(run, last, job)
        self.attempt = last + 1
        self._file = _attempt_file(run, self.attempt)
        me = {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_time(os.getpid()), "job": job}
        if not write_once(self._file, json.dumps({**me, "state": "running"})):
            raise FencedError(f"{run.path}: another process has just started on this run")
        _held_here.add(self._file.resolve())
        self._me = me
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise FencedError if a newer attempt has taken over."""
        newest = self._newest()
        if newest != self.attempt:
            raise FencedError(
                f"{self._folder.parent}: attempt {newest} has taken this run over; attempt {self.attempt} stops"
            )

    def release(self, state: str) -> None:
        """End the attempt in order; `state` says how (done, interrupted, failed)."""
        self._stop.set()
        self._thread.join(timeout=1.0)
        try:
            if self._newest() == self.attempt:
                write_atomic(self._file, json.dumps({**self._me, "state": state}))
        finally:  # not before, or this process would take the attempt for lost
            _held_here.discard(self._file.resolve())

    def _newest(self) -> int:
        return _newest_attempt(self._folder)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self.check()
                os.utime(self._file)
            except FencedError as error:
                if self._on_lost is not None and not self._stop.is_set():
                    self._on_lost(str(error))
                return
            except OSError:  # the next write reports a real loss; a hiccup of the file system is none
                continue


def attempt_state(run: RunDirectory) -> str | None:
    """How the newest attempt stands: running, done, pruned, stopped, interrupted, failed, or lost; None if none was.

    `stopped` is one that a command ended, which is not to go on by itself; `interrupted` one that a signal ended.
    `lost` is one that never said how it ended, and of which nothing has been heard for some time.
    """
    newest = attempts_made(run)
    holder = _read_attempt(_attempt_file(run, newest)) if newest else None
    if holder is None:
        return None
    state = str(holder.get("state"))
    if state != "running":
        return state
    if holder.get("host") == socket.gethostname():
        return "running" if _process_lives(holder, _attempt_file(run, newest)) else "lost"
    try:
        age = time.time() - _attempt_file(run, newest).stat().st_mtime
    except OSError:
        return "lost"
    return "running" if age < STALE_S else "lost"


def attempts_made(run: RunDirectory) -> int:
    """How often a run was started."""
    return _newest_attempt(run.attempts) if run.attempts.is_dir() else 0


def _attempt_file(run: RunDirectory, attempt: int) -> Path:
    return run.attempts / f"{attempt:04d}.json"


def _newest_attempt(folder: Path) -> int:
    numbers = [int(p.stem) for p in folder.iterdir() if re.fullmatch(r"\d{4,}\.json", p.name)]
    return max(numbers, default=0)


def _read_attempt(path: Path) -> dict[str, Any] | None:
    """What is written there; None if it is unreadable: nobody can be shown to hold it."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) else None


def _refuse_if_held(run: RunDirectory, attempt: int, job: dict[str, Any] | None) -> None:
    path = _attempt_file(run, attempt)
    holder = _read_attempt(path)
    if holder is None or holder.get("state") != "running":
        return
    theirs = holder.get("job")
    who = f"process {holder.get('pid')} on {holder.get('host')}"
    if job is not None and isinstance(theirs, dict) and theirs.get("id") == job["id"]:
        who += f", job {job['id']}"
        before = theirs.get("restart")
        if isinstance(before, int) and before < job["restart"]:
            return  # this is the same job, queued again: Slurm means its earlier self to be gone
        if isinstance(before, int) and before > job["restart"]:
            raise FencedError(f"{run.path}: job {job['id']} was queued again and trains in it: this one stops")
    if holder.get("host") == socket.gethostname():
        alive = _process_lives(holder, path)
    else:
        alive = _beats(path)
    if alive:
        raise FencedError(f"{run.path}: {who} is at work in it (attempt {attempt}); wait for it or stop it first")


def _process_lives(holder: Mapping[str, Any], path: Path) -> bool:
    """Whether the process on this host that wrote an attempt's file is there and still holds it."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or _start_time(pid) != holder.get("started") or holder.get("started") is None:
        return False
    return pid != os.getpid() or path.resolve() in _held_here


def _beats(path: Path) -> bool:
    """Whether a holder on another host shows a sign of life, by the file server's clock alone."""
    try:
        first = path.stat().st_mtime
        if time.time() - first > 10 * STALE_S:
            return False
        end = time.monotonic() + WATCH_S
        while time.monotonic() < end:
            time.sleep(min(1.0, WATCH_S / 10))
            if path.stat().st_mtime != first or (_read_attempt(path) or {}).get("state") != "running":
                return (_read_attempt(path) or {}).get("state") == "running"
    except OSError:
        return False
    return False


def _start_time(pid: int) -> str | None:
    """Start time of a process as the kernel counts it, which tells it from a later one of the same number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
