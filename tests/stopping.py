"""Stopping a process for a while, as a debugger, a full memory or a sleeping machine does."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def stop_process(pid: int) -> None:
    """SIGSTOP, and wait until no thread of the process does anything any more.

    The signal is heeded when a thread next comes back from the kernel: on a busy machine one that was writing when it
    was sent may finish its write a while later.
    """
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 60
    while not all(state in "tTZX" for state in _states(pid)):
        assert time.monotonic() < end, f"process {pid} does not stop"
        time.sleep(0.005)


def _states(pid: int) -> list[str]:
    """Of each thread: R, S, D, T ..., as proc(5) has them."""
    states = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
    return states
