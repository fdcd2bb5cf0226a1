"""Where a campaign trains: what is started, and what can happen to it there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcgan.chaos import faults, slurm_faults
from hpcgan.chaos.faults import Fault
from hpcgan.errors import HpcganError
from hpcgan.launch import run_status, slurm
from hpcgan.launch.world import set_parent_death_signal
from hpcgan.runs.directory import RunDirectory


@dataclass(frozen=True)
class Venue:
    """How trainings are started.

    Attributes
    ----------
    before, after : sequence of str
        Arguments around the run directory.
    faults : mapping of str to Fault
        What can happen.
    settle : callable
        Sees to it that nothing of a run waits to be started, after all its processes were killed.
    module : str
        What `python -m` runs.
    """

    before: Sequence[str]
    after: Sequence[str]
    faults: Mapping[str, Fault]
    settle: Callable[[RunDirectory], None] = lambda _: None
    module: str = "hpcgan"

    def start(self, run: RunDirectory, env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Train, or go on; what is printed goes to a log. The training is asked to stop if this process ends."""
        command = [sys.executable, "-m", self.module, *self.before, "--run", str(run.path), *self.after]
        return subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: set_parent_death_signal(signal.SIGTERM),
        )


def here(config: Path, overrides: Sequence[str], ranks: int) -> Venue:
    """Ranks on this machine, under `hpcgan train`."""
    after = ["--ranks", str(ranks)] if ranks > 1 else []
    kinds = {name: kind for name, kind in faults.LOCAL.items() if ranks > 1 or name not in faults.OF_LAUNCHERS}
    return Venue(["train", str(config), *overrides], after, kinds)


def in_jobs(config: Path, overrides: Sequence[str]) -> Venue:
    """Jobs of Slurm, under `hpcgan submit --wait`; what is asked for is in the section `job:`."""
    return Venue(["submit", str(config), *overrides], ["--wait"], slurm_faults.SLURM, _end_jobs)


def _end_jobs(run: RunDirectory) -> None:
    """Cancel what is in the queue of a run, and wait until it is gone; the controller may be away for a while."""
    while True:
        with contextlib.suppress(HpcganError):
            living = run_status.living(run)
            if not living:
                return
            slurm.cancel([entry.job for entry in living])
        time.sleep(1.0)
