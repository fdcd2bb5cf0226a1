"""Whether a process that holds something still lives, wherever it runs. A leaf.

Two things are not to be trusted. Numbers of processes mean something only within one PID namespace of one boot of one
kernel: a container has numbers of its own, and two nodes may have the same host name. Times mean something only beside
others of the same clock: those of files may come from a file server, or from the host that wrote. So a process is
looked up only where its number can be compared (`Identity.lives`). Elsewhere it is watched whether its heartbeat, a
file that it changes all the time, *changes* over a span of the watcher's own clock (`watch`).
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BEAT_S = 10.0
"""Between two heartbeats."""

WATCH_S = 35.0
"""For a sign of life: three heartbeats, as a busy file system may delay some."""

LOST_S = 900.0
"""Age of the last heartbeat, by the clock that stamps files, from which on `Watcher` believes at first sight that there
are no more; well above the minutes by which clocks differ."""


@dataclass(frozen=True)
class Identity:
    """A process, told from all others.

    Attributes
    ----------
    host : str
        For people.
    boot, space : str
        Of the kernel, and the namespaces of PIDs and times: numbers and start times are compared within these. Empty
        where they cannot be known.
    pid : int
    started : str
        As the kernel counts it, which tells the process from a later one of the same number.
    machine : str
        The number of the system's installation. Clones of one have the same.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: str
    machine: str = ""

    @classmethod
    def own(cls) -> Identity:
        """That of this process."""
        return cls(socket.gethostname(), _boot(), _space(), os.getpid(), _started("self") or "", _machine())

    @classmethod
    def of(cls, pid: int) -> Identity:
        """That of another process in this namespace of PIDs."""
        return cls(socket.gethostname(), _boot(), _space(), pid, _started(str(pid)) or "", _machine())

    @classmethod
    def read(cls, plain: Any) -> Identity | None:
        """One that `plain` has written; None if this is none."""
        try:
            identity = cls(**plain)
        except TypeError:
            return None
        texts = identity.plain()
        pid = texts.pop("pid")
        sound = all(isinstance(text, str) for text in texts.values()) and isinstance(pid, int) and pid > 0
        return identity if sound else None

    def plain(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    def comparable(self) -> bool:
        """Whether this process sees the other one under its number, if it is there."""
        return bool(self.boot and self.space and self.started) and (self.boot, self.space) == (_boot(), _space())

    def lives(self) -> bool | None:
        """Whether the process is there; None if that cannot be told from here."""
        if not self.comparable():
            return None
        start = _started(str(self.pid))
        if start is not None:
            return start == self.started
        try:  # /proc may hide the processes of others
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return None
        return _started(str(self.pid)) == self.started  # it has ended and waits for its parent, or has just come

    def is_of_earlier_boot(self) -> bool:
        """Whether this machine was started again since; also true on a clone of it that has its name, too."""
        here = (socket.gethostname(), _machine())
        return bool(self.machine and self.boot) and (self.host, self.machine) == here and self.boot != _boot()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _boot() -> str:
    return _line("/proc/sys/kernel/random/boot_id")


def _machine() -> str:
    return _line("/etc/machine-id")


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _space() -> str:
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # the /proc of another namespace
            return ""
        spaces = [os.readlink("/proc/self/ns/pid")]
        with contextlib.suppress(FileNotFoundError):  # older kernels have none of times
            spaces.append(os.readlink("/proc/self/ns/time"))
    except OSError:
        return ""
    return " ".join(spaces)


def _started(pid: str) -> str | None:
    """Start time of a process; None if it is not there, or has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


Sign = tuple[bytes, int]
"""What changes with every heartbeat: the file's content and its time, of whatever clock."""


def sign(path: Path) -> Sign | None:
    """The sign of life in a heartbeat's file, as it is now; None if there is no file.

    The file is opened: network file systems then ask the server and do not answer from memory.
    """
    try:
        with open(path, "rb") as file:
            return file.read(64), os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


class Heart:
    """Beats in a thread, from its making to `stop`: counts in a file.

    The number is written over the old one, in place: a full disk takes that, as it takes a new time of a file. Either
    one is a sign of life.

    Parameters
    ----------
    path : Path
    check : callable
        Called before each beat; when it returns False, the heart stops.
    """

    def __init__(self, path: Path, check: Callable[[], bool] = lambda: True) -> None:
        self._path, self._check = path, check
        self._count = 0
        self._stop = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more. The file goes."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stop.wait(BEAT_S):
            if not self._check():
                return
            self._beat()

    def _beat(self) -> None:
        self._count += 1
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, b"%012d\n" % self._count)
            finally:
                os.close(descriptor)
        except OSError:  # the next write of the holder reports a real loss; a hiccup of the file system is none
            with contextlib.suppress(OSError):
                os.utime(self._path)


def watch(look: Callable[[], object], first: object) -> bool:
    """Whether `look` sees another thing than `first` within `WATCH_S` of this process's own clock.

    Looks are counted, not seconds: if the watcher itself is stopped for a while, and the watched one with it, as on a
    machine that sleeps, then that while is one look.
    """
    pause = min(1.0, WATCH_S / 10)
    for _ in range(math.ceil(WATCH_S / pause)):
        time.sleep(pause)
        if look() != first:
            return True
    return False


class Watcher:
    """Remembers heartbeats between looks, for those who may not wait."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[Sign | None, float, bool]] = {}
        self._lock = threading.Lock()

    def lives(self, path: Path) -> bool:
        """Whether a heart beats, as far as is known: at once.

        One that has changed since an earlier look beats. One that has not for `WATCH_S` of this process's own clock
        does not. Before that much is known, the first impression counts: a heart whose last beat is more than `LOST_S`
        older than a file that is made now, beside it, beats no more. Both times are stamped by one file server, or at
        worst by two hosts, whose clocks differ by less. Where no file can be made, it is believed to beat until it is
        known better: nobody acts upon a belief without a `watch` of its own.
        """
        now, current_sign = time.monotonic(), sign(path)
        with self._lock:
            before = self._seen.get(path)
            if before is not None and before[0] == current_sign:
                _, since, impression = before
                if now - since < WATCH_S:
                    return impression
                self._seen[path] = (current_sign, since, False)
                return False
            impression = True if before is not None else _first_impression(path, current_sign)
            self._seen[path] = (current_sign, now, impression)
            return impression


def _first_impression(path: Path, current_sign: Sign | None) -> bool:
    if current_sign is None:  # not yet begun, perhaps
        return True
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            now = os.stat(probe).st_mtime_ns
        finally:
            probe.unlink()
    except OSError:
        return True
    return now - current_sign[1] < LOST_S * 1e9
