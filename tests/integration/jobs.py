"""Trainings as users start them, for tests that do things to them: a small problem, its processes, its end."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tiny
import yaml
from recorded import recorded

from hpcgan.runs import checkpoint

MARK = "HPCGAN_TEST_JOB"  # in the environment of every process of a job
HERE = Path(__file__).parent
#: Seconds for which a test waits for what has to come, on a machine that has ten other things to do.
PATIENCE = 900.0
TIMING = {"time", "samples_per_second", "scoring_seconds", "attempt"}


def make_setting(folder: Path, backend: str = "auto", **training: Any) -> Path:
    """Data and `tiny.yaml` in a folder: epochs of 7 steps on two ranks, scored and saved after each."""
    tiny.write_data(folder / "data")
    raw = tiny.config(folder / "data").dump()
    raw["training"].update(training)
    raw["comm"]["backend"] = backend
    (folder / "tiny.yaml").write_text(yaml.safe_dump(raw))
    return folder


SEARCH = {
    "training.generator.learning_rate": {"log_uniform": [1e-4, 1e-3]},
    "training.label_flip": {"uniform": [0.0, 0.2]},
    "model.filters": {"choice": [1, 2]},
}


def make_sweep(setting: Path, name: str = "sweep.yaml", **training: Any) -> Path:
    """A search over the setting's configuration, beside it."""
    raw = yaml.safe_load((setting / "tiny.yaml").read_text())
    raw["training"].update(training)
    (setting / name).write_text(yaml.safe_dump({**raw, "search": SEARCH}))
    return setting / name


def sweep_command(study: Path, *args: str, config: str = "sweep.yaml") -> list[str]:
    """`hpcgan sweep` of the setting's search, one thread a rank."""
    return [sys.executable, "-m", "hpcgan", "sweep", config, "--threads", "1", "--out", str(study), *args]


started: list[Running] = []  # in this test, or by what it shares with others


def end_all() -> None:
    """End what a test that has failed has left behind: some trainings would never end."""
    while started:
        job = started.pop()
        if job.process.poll() is None:
            job.kill()
            job.process.wait()


class Running:
    """A command that has been started.

    Parameters
    ----------
    setting : Path
        Working directory.
    command : sequence of str
        What is run.
    env : mapping
        Additions to the environment.
    """

    def __init__(self, setting: Path, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        self.mark = secrets.token_hex(8)
        self._output = os.memfd_create("output")  # a pipe that nobody empties would fill up and stop its writers
        weakref.finalize(self, os.close, self._output)
        root = HERE.parents[1]
        self.process = subprocess.Popen(
            list(command),
            cwd=setting,
            env={**os.environ, "PYTHONPATH": f"{root}:{HERE}", **(env or {}), MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        started.append(self)

    def output(self) -> str:
        """What it has printed so far."""
        return os.pread(self._output, os.fstat(self._output).st_size, 0).decode(errors="replace")

    def finish(self, timeout: float = PATIENCE) -> tuple[int, str]:
        """Exit code and output; fails the test if there is no end, or if a process outlives it."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            pytest.fail(f"no end within {timeout} s:\n{self.output()}")
        wait_for(lambda: not self.processes(), 60.0, lambda: f"still there: {self.processes()}\n{self.output()}")
        return code, self.output()

    def processes(self) -> list[psutil.Process]:
        """All processes of this job that live."""
        return marked(self.mark)

    def ranks(self) -> dict[int, psutil.Process]:
        """The ranks among them, by rank."""
        found = {}
        for process in self.processes():
            try:
                rank = process.environ().get("OMPI_COMM_WORLD_RANK")
                if rank is not None and "python" in process.name() and "-m" in process.cmdline():
                    found[int(rank)] = process
            except psutil.Error:
                continue
        return found

    def kill(self) -> None:
        """End everything the hard way."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.Error:
                continue


def marked(mark: str) -> list[psutil.Process]:
    """Living processes with a job's mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def train_command(run: Path, *args: str, ranks: int = 2, config: str = "tiny.yaml") -> list[str]:
    """`hpcgan train` of the setting's configuration."""
    return [sys.executable, "-m", "hpcgan", "train", config, *args, "--ranks", str(ranks), "--run", str(run)]


def faulty_command(run: Path, *args: str, ranks: int = 2) -> list[str]:
    """The same with ranks that obey `HPCGAN_FAULT` (see `faulty`)."""
    program = "import sys; from hpcgan.launch.launcher import launch as f"
    program += "; sys.exit(f(sys.argv[2:], int(sys.argv[1]), module='faulty'))"
    return [sys.executable, "-c", program, str(ranks), "train", "tiny.yaml", *args, "--run", str(run)]


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE, message: Callable[[], str] = lambda: "") -> Any:
    """The first true value of `what()`; fails the test after some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.05)
    pytest.fail(f"did not happen within {seconds} s; {message()}")


def newest_step(run: Path) -> int:
    """Step of the newest checkpoint, 0 if there is none."""
    return max(checkpoint.steps(run / "checkpoints"), default=0)


def wait_for_step(run: Path, step: int, job: Running) -> None:
    """Until a checkpoint of that step or a later one is there."""

    def there() -> bool:
        if job.process.poll() is not None:
            pytest.fail(f"ended before step {step} with {job.process.returncode}: {job.finish()[1]}")
        return newest_step(run) >= step

    wait_for(there, message=lambda: f"step {newest_step(run)} of {step}")


def assert_same_end(ours: Path, theirs: Path) -> None:
    """Both runs ended with the same bits: weights, optimizers, counters and the record of every epoch."""
    assert_same_state(ours, theirs)
    assert epochs(ours) == epochs(theirs)


def assert_same_state(ours: Path, theirs: Path, but: Sequence[str] = ()) -> None:
    """Both runs stand at the same bits: weights, optimizers, counters, but for some of the latter."""
    a, b = (checkpoint.load_latest(run / "checkpoints", pytest.fail) for run in (ours, theirs))
    assert {k: v for k, v in a.meta.items() if k not in but} == {k: v for k, v in b.meta.items() if k not in but}
    assert a.arrays.keys() == b.arrays.keys()
    for name, array in b.arrays.items():
        np.testing.assert_array_equal(a.arrays[name], array, err_msg=name)


def epochs(run: Path) -> list[dict[str, Any]]:
    """Records of the epochs without what the clock says."""
    return [{k: v for k, v in r.items() if k not in TIMING} for r in recorded(run / "metrics.jsonl", "epoch")]
