"""Processes that go on when the kernel ends: started, and waited for."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def start(
    module: str, arguments: Sequence[str], output: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE ARGUMENTS` in a session of its own, which prints into a file."""
    with open(output, "ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )
    # Or it would stay as a zombie.
    threading.Thread(target=process.wait, name="hpcgan-process", daemon=True).start()
    return process


def until(
    over: Callable[[], bool], timeout: float | None, every: float, hurry: Callable[[], bool] = lambda: False
) -> bool:
    """Look every so many seconds whether something is over; False if it is not in time, or somebody is in a hurry."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    while not over():
        if time.monotonic() > end or hurry():
            return False
        time.sleep(every)
    return True
