"""Run a write many times in child processes, each killed at another one of its system calls.

    python killed_writer.py FOLDER

Saves a checkpoint of step 2 (and of step 1 once more) over one of step 1 and prunes, and dies by SIGKILL at the
n-th write, fsync, rename, mkdir or unlink, for n = 1, 2, ... until it gets through. What is on disk after each
death is printed as a line of JSON: the call, and the step and content of what a resume would load.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.runs import checkpoint

ARRAYS = {"network/w": np.arange(5000.0), "optimizer/m": np.zeros(3, np.float32)}


class Countdown:
    """Kills this process at the n-th call."""

    def __init__(self, n: int, told: int) -> None:
        self.left, self.told = n, told

    def __call__(self, what: str, half: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            if half is not None:
                half()  # a write may be cut in the middle
            os.write(self.told, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)


def arm(countdown: Countdown) -> None:
    """Count what reaches the kernel: files are unbuffered, so each write is one."""

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            view = memoryview(data).cast("B")
            countdown("write", lambda: io.FileIO.write(self, view[: len(view) // 2]))
            written = 0
            while written < len(view):
                written += super().write(view[written:]) or 0
            return written

    plain = open

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "w" not in mode:
            return plain(file, mode, *args, **kwargs)
        raw = Raw(file, "w+" if "+" in mode else "w")
        if "b" in mode:
            return raw
        return io.TextIOWrapper(raw, encoding="utf-8", write_through=True)

    checkpoint.open = opened  # type: ignore[attr-defined]
    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
        call = getattr(os, name)

        def counted(*args: Any, call: Any = call, name: str = name, **kwargs: Any) -> Any:
            countdown(name)
            return call(*args, **kwargs)

        setattr(os, name, counted)


def shifted(by: float) -> dict[str, np.ndarray]:
    return {name: array + array.dtype.type(by) for name, array in ARRAYS.items()}


def main() -> None:
    template = Path(sys.argv[1]) / "template"
    checkpoint.save(template, 1, shifted(1.0), {"step": 1}, 5.0)
    for again in (False, True):
        number, done = 0, False
        while not done:
            number += 1
            folder = Path(sys.argv[1]) / f"{again}-{number}"
            shutil.copytree(template, folder)
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                arm(Countdown(number, write))
                if again:
                    checkpoint.save(folder, 1, shifted(2.0), {"step": 1}, None)
                else:
                    checkpoint.save(folder, 2, shifted(2.0), {"step": 2}, 4.0)
                checkpoint.prune(folder, 1, None)
                os._exit(0)
            os.close(write)
            _, status = os.waitpid(child, 0)
            done = status == 0
            with os.fdopen(read) as pipe:
                call = pipe.read()
            warnings: list[str] = []
            found = checkpoint.load_latest(folder, warnings.append)
            assert found is not None
            values = {name: float(array[0] - ARRAYS[name][0]) for name, array in found.arrays.items()}
            after = {"again": again, "call": call, "step": found.step, "values": values, "warnings": warnings}
            # The next save works, and clears up.
            checkpoint.save(folder, 3, shifted(3.0), {"step": 3}, None)
            checkpoint.prune(folder, 1, None)
            print(json.dumps({**after, "left": sorted(p.name for p in folder.iterdir()), "done": done}))
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
