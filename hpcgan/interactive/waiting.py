"""Waiting for what happens elsewhere, in processes and files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


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
