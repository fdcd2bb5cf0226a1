"""Which process it was, told so that nobody takes another one for it: not after a reboot, not on another host.

A number of a process means something only on one host, since one boot, in one namespace of numbers, and until it is
given to another process. Two hosts may have the same name (containers, clusters of clones).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def describe(pid: int) -> dict[str, Any]:
    """Who a process on this machine is, for `lives`."""
    return {**_here(), "pid": pid, "started": _started(pid)}


def lives(process: object) -> bool | None:
    """Whether a process that `describe` has described still runs; None where that cannot be told from here."""
    if not isinstance(process, Mapping) or not isinstance(process.get("pid"), int):
        return False
    here = _here()
    if process.get("host") != here["host"]:
        return None
    if process.get("boot") != here["boot"]:
        # The host of that name was started again, or it is another one.
        return None if process.get("machine") != here["machine"] or here["machine"] is None else False
    if process.get("namespace") != here["namespace"]:
        return None
    started = _started(process["pid"])
    return started is not None and started == process.get("started")


def _here() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _text(Path("/etc/machine-id")),
        "boot": _text(Path("/proc/sys/kernel/random/boot_id")),
        "namespace": _namespace(),
    }


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process was started, as the kernel counts it; None if there is none of that number, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
