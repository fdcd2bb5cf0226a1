"""What the benchmarks of several processes share: a common start, isolated processes, spreads.

Standard library only, since programs of another Python environment use it, too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def wait_for_all(folder: Path, processes: int, index: int) -> None:
    """Begin when everybody is warm: isolated processes share nothing but this folder."""
    (folder / f"{index}.ready").touch()
    while len(list(folder.glob("*.ready"))) < processes:
        time.sleep(0.01)


def write_rate(folder: Path, index: int, rate: float) -> None:
    """Leave this process's samples a second beside the others'."""
    (folder / f"{index}.json").write_text(json.dumps(rate))


def total_rate(folder: Path) -> float:
    """Samples a second of all processes together."""
    return float(sum(json.loads(path.read_text()) for path in folder.glob("*.json")))


def run_all(commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> None:
    """Run the commands at the same time; end with a message if one of them fails."""
    started = [subprocess.Popen(command, env={**os.environ, **env}) for command in commands]
    codes = [process.wait() for process in started]
    if any(codes):
        sys.exit(f"a process failed: exit codes {codes}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def text(values: Sequence[float], form: str = ".0f") -> str:
    """The spread as it is printed."""
    found = spread(values)
    return f"{found['median']:{form}} ({found['min']:{form}} to {found['max']:{form}})"
