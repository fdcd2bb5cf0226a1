"""Run a study many times in child processes, whose coordinator is killed at another one of its system calls each time.

    python killed_coordinator.py FOLDER

For n = 1, 2, ... until it gets through, a coordinator of made-up trials dies by SIGKILL at the n-th write, fsync,
rename, link, mkdir or unlink in a directory of its own; the next one goes on and is killed there as well, at the n-th
of its own calls; the third is left alone. What the study holds then is printed as a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sweeps

from hpcgan.sweep.store import StudyDirectory

PLAN = sweeps.plan(trials=3, top=1, repeats=1)


def arm(n: int) -> None:
    """Die at the n-th call."""
    left = n

    def before(plain: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **kwargs)

        return called

    for name in ("fsync", "replace", "rename", "link", "symlink", "mkdir", "unlink"):
        setattr(os, name, before(getattr(os, name)))


def child(path: Path, n: int | None) -> int:
    """Coordinate in a process of its own; the signal that ended it, 0 if none did."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if n is not None:
                arm(n)
            study = StudyDirectory(path)
            executor = sweeps.FakeExecutor(study, 2, {1: ["lost", "complete"]})
            sweeps.coordinate(path, PLAN, executor)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"the coordinator failed (call {n})")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(folder: Path, step: int) -> None:
    sweeps.coordinate(folder / "warm", PLAN)  # what it imports on the way is there for all children
    n = 1
    while True:
        path = folder / str(n)
        killed = child(path, n)
        if killed:
            child(path, n)
        child(path, None)
        study = StudyDirectory(path)
        entered = len(study.numbers())
        print(json.dumps({"call": n, "killed": bool(killed), "table": sweeps.table(path), "entered": entered}))
        if not killed:
            return
        n += step


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
