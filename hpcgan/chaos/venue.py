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
from hpcgan.chaos.subject import Search, Subject, Training
from hpcgan.errors import HpcganError
from hpcgan.launch import run_status, slurm
from hpcgan.launch.world import set_parent_death_signal
from hpcgan.runs.directory import RunDirectory

#: Of a trial of a search: no number of faults is to make a trial a failed one.
MOST_STARTS = 1000


@dataclass(frozen=True)
class Venue:
    """How trainings are started.

    Attributes
    ----------
    before, after : sequence of str
        Arguments around the directory.
    faults : mapping of str to Fault
        What can happen.
    settle : callable
        Sees to it that nothing of a run waits to be started, after all its processes were killed.
    module : str
        What `python -m` runs.
    option : str
        What names the directory.
    subject : callable
        What is in that.
    """

    before: Sequence[str]
    after: Sequence[str]
    faults: Mapping[str, Fault]
    settle: Callable[[Path], None] = lambda _: None
    module: str = "hpcgan"
    option: str = "--run"
    subject: Callable[[Path], Subject] = Training

    def start(self, path: Path, env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Begin, or go on; what is printed goes to a log. It is asked to stop if this process ends."""
        command = [sys.executable, "-m", self.module, *self.before, self.option, str(path), *self.after]
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


def searching(config: Path, overrides: Sequence[str], options: Sequence[str]) -> Venue:
    """A search on this machine, under `hpcgan sweep` with such options; a trial is started as often as it is lost."""
    after = [*options, "--retries", str(MOST_STARTS)]
    return Venue(["sweep", str(config), *overrides], after, faults.SEARCH, option="--out", subject=Search)


def _end_jobs(path: Path) -> None:
    """Cancel what is in the queue of a run, and wait until it is gone; the controller may be away for a while."""
    run = RunDirectory(path)
    while True:
        with contextlib.suppress(HpcganError):
            living = run_status.living(run)
            if not living:
                return
            slurm.cancel([entry.job for entry in living])
        time.sleep(1.0)
