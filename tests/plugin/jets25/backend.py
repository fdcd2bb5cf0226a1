"""A way to the other ranks of one's own: here one that counts what a single rank averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpcgan.comm.base import SerialComm


class Counting(SerialComm):
    """One rank."""

    backend = "counting"
    averages = 0

    def begin_average(self, tensor: Any, name: str) -> Callable[[], Any]:
        self.averages += 1
        return super().begin_average(tensor, name)
