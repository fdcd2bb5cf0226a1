"""What the engines of a cluster are asked to do. Each of these functions runs on all of them at the same time."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgan import config as configuration
from hpcgan.comm.rank import run_as_rank
from hpcgan.errors import HpcganError
from hpcgan.launch.topology import threads_from_env
from hpcgan.runs.directory import RunDirectory
from hpcgan.system import streams
from hpcgan.training.requests import StopRequest

if TYPE_CHECKING:
    from hpcgan.comm.base import Comm


def describe() -> dict[str, Any]:
    """Who this rank is, and the mean over all ranks of their numbers by a real allreduce.

    Returns
    -------
    dict
        `rank`, `size`, `host`, `pid`, `threads`, `backend` and `mean`, which is (size - 1) / 2.

    Raises
    ------
    HpcganError
        The ranks do not make one world.
    """
    # Slurm's name of the node, by which its queue and its messages call it.
    host = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    rank: dict[str, Any] = {"host": host, "pid": os.getpid()}

    def look(comm: Comm) -> None:
        mean = comm.allreduce(np.array([comm.rank], np.float32), "interactive.mean")
        rank.update(rank=comm.rank, size=comm.size, backend=comm.backend, mean=float(np.asarray(mean)[0]))
        rank["threads"] = threads_from_env(os.environ)

    errors: list[HpcganError] = []
    if run_as_rank(look, report=errors.append):
        raise errors[0] if errors else HpcganError("another rank failed")
    return rank


def train(settings: dict[str, Any], run: str, folder: str) -> dict[str, Any]:
    """Train as the rank this engine is, as `hpcgan train` does.

    Parameters
    ----------
    settings : dict
        The configuration.
    run : str
        Run directory.
    folder : str
        Working directory: relative paths of the configuration count from there.

    Returns
    -------
    dict
        `code`, the exit code that `hpcgan train` would have, and on rank 0 `error`, what it would say, or None.
    """
    from hpcgan.training import attempt

    streams.guard()
    os.chdir(folder)
    config = configuration.load(settings)
    stop = StopRequest()
    errors: list[HpcganError] = []

    def work(comm: Comm) -> None:
        attempt.train(config, RunDirectory(Path(run)), comm, stop)

    # What a rank prints goes into the log of the engines, also of one that dies of it, not through the controller.
    with (
        stop.installed(),
        contextlib.redirect_stdout(sys.__stdout__ or sys.stdout),
        contextlib.redirect_stderr(sys.__stderr__ or sys.stderr),
    ):
        code = run_as_rank(work, config.comm.backend, report=errors.append)
    return {"code": code, "error": str(errors[0]) if errors else None}
