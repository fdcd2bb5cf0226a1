"""The run directory: what is where, atomic writes, and who may write.

A run is a directory; every other tool reads it. One process writes at a time: it holds the newest
*attempt*, a numbered file created exclusively (atomic on shared file systems, too) and touched as a
heartbeat. A newer attempt fences off an older one: before each write the holder looks whether it still
is the newest, and stops if not.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from hpcgan import config as configuration
from hpcgan.config import Config, Registry
from hpcgan.errors import HpcganError, InputError

HEARTBEAT_S = 10.0
STALE_S = 90.0  # several heartbeats: a busy file system may delay some


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
        self.tensorboard = self.path / "tensorboard"

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
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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
        try:
            return configuration.load(self.read_config(), registry)
        except InputError as error:
            raise InputError(f"{self.config_file}: {error}") from None

    def check_config(self, config: Config, existing: Config) -> None:
        """Refuse to continue a run with another configuration.

        Raises
        ------
        InputError
            Some identity key differs; the message names it.
        """
        differing = _differences(existing.identity(), config.identity())
        if differing:
            shown = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, old, new in differing[:3])
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise InputError(
                f"{self.path}: holds a run of another configuration ({shown}{more}); "
                "give another directory with --run, or leave --run out"
            )

    def create(self, config: Config) -> None:
        """Make the directory and write the resolved configuration."""
        try:
            for folder in (self.path, self.checkpoints, self.samples, self.report, self.attempts):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.config_file, config.to_yaml())
        except OSError as error:
            raise InputError(f"{self.path}: cannot write the run directory: {error.strerror}") from None


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            found += _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return [] if old == new else [(prefix, old, new)]


class FencedError(HpcganError):
    """A newer attempt has taken the run directory over."""


class Lease:
    """The right to write into a run directory, held by one process of the newest attempt.

    Parameters
    ----------
    run : RunDirectory

    Attributes
    ----------
    attempt : int
        Number of this attempt, from 1.

    Raises
    ------
    HpcganError
        Another process is writing, as its heartbeat (or, on this host, its process) shows.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._folder = run.attempts
        self._folder.mkdir(parents=True, exist_ok=True)
        last = self._newest()
        if last:
            self._refuse_if_alive(run, last)
        self.attempt = last + 1
        self._file = self._path(self.attempt)
        me = {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_time(os.getpid())}
        # A complete file appears under the number, or none: link() fails if another was quicker.
        temporary = self._folder / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
        write_atomic(temporary, json.dumps({**me, "state": "running"}))
        try:
            os.link(temporary, self._file)
        except FileExistsError:
            raise HpcganError(f"{run.path}: another process has just started on this run") from None
        finally:
            temporary.unlink(missing_ok=True)
        self._me = me
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
        if self._newest() == self.attempt:
            write_atomic(self._file, json.dumps({**self._me, "state": state}))

    def _path(self, attempt: int) -> Path:
        return self._folder / f"{attempt:04d}.json"

    def _newest(self) -> int:
        numbers = [int(p.stem) for p in self._folder.iterdir() if re.fullmatch(r"\d{4,}\.json", p.name)]
        return max(numbers, default=0)

    def _refuse_if_alive(self, run: RunDirectory, attempt: int) -> None:
        path = self._path(attempt)
        try:
            holder = json.loads(path.read_text())
            age = time.time() - path.stat().st_mtime
        except (OSError, ValueError):
            return  # unreadable: nobody can be shown to hold it
        if holder.get("state") != "running":
            return
        host, pid = holder.get("host"), holder.get("pid")
        if host == socket.gethostname():
            alive = isinstance(pid, int) and _start_time(pid) == holder.get("started") is not None
        else:
            alive = age < STALE_S
        if alive:
            raise HpcganError(
                f"{run.path}: process {pid} on {host} is training in it (attempt {attempt}); "
                "wait for it or stop it first"
            )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                os.utime(self._file)
            except OSError:  # the next write reports a real loss; a hiccup of the file system is none
                continue


def _start_time(pid: int) -> str | None:
    """Start time of a process as the kernel counts it, which tells it from a later one of the same number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
