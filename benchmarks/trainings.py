"""Trainings of a study, each on a core of its own, as many at a time as there are cores; goes on if interrupted."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from hpcgan.config import Config
from hpcgan.problems.base import problem_class
from hpcgan.problems.events import open_split
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state
from hpcgan.system.files import write_atomic

Job = tuple[Path, Sequence[str]]  # run directory, overrides


def train_all(config: Path, jobs: Sequence[Job], done: Callable[[Path], None]) -> None:
    """Train what is not trained yet; `done` is called with each run directory at its end."""
    cores: SimpleQueue[int] = SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def work(job: Job) -> None:
        core = cores.get()
        try:
            _train(config, *job, core)
        finally:
            cores.put(core)
        done(job[0])

    with ThreadPoolExecutor(cores.qsize()) as pool:
        list(pool.map(work, jobs))


def _train(config: Path, run: Path, overrides: Sequence[str], core: int) -> None:
    """Train on one core; what it says goes to a log beside the run directory."""
    if RunDirectory(run).exists and attempt_state(RunDirectory(run)) == "done":
        return
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hpcgan", "train", str(config), "--run", str(run), *overrides]
    with open(run.with_suffix(".log"), "ab") as log:
        # A training that ends in numbers that are not finite is a result of the study, not a failure of it.
        subprocess.run(["taskset", "-c", str(core), *command], stdout=log, stderr=log, check=False)


def outcome(run: Path, epochs: int) -> dict[str, float | int | None]:
    """What a training of so many epochs came to: its best score, that of its last epoch, and whether it got there."""
    recorded = records.read(run / "metrics.jsonl", records.Epoch)
    scores = [record.total for record in recorded if record.total is not None]
    whole = len(recorded) == epochs
    return {
        "samples": recorded[-1].samples if recorded else 0,
        "steps": recorded[-1].step if recorded else 0,
        "best": min(scores) if scores else None,
        "last": scores[-1] if scores and whole else None,
        "finished": int(whole),
    }


def training_events(config: Config) -> int:
    """Events of the training split."""
    source = open_split(problem_class(config.problem)(config.model), config.data, "train")
    try:
        return len(source)
    finally:
        source.close()


def write_table(folder: Path, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as `NAME.csv` and `NAME.json`; a cell that a row lacks is empty."""
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    write_atomic(folder / f"{name}.json", json.dumps(rows, indent=1).encode())
