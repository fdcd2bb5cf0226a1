"""One attempt at a training on all ranks: check, assemble, take over the run directory, and loop."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import socket
import time
from typing import Any

import numpy as np

from hpcgan.comm.agreement import agreed
from hpcgan.comm.base import Comm
from hpcgan.config import Config
from hpcgan.data.storage import check_space
from hpcgan.problems import run_data
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.files import warn
from hpcgan.system.liveness import WATCH_S
from hpcgan.training.assembly import Assembly
from hpcgan.training.inputs import Inputs
from hpcgan.training.loop import Loop
from hpcgan.training.output import Output
from hpcgan.training.progress import Phases
from hpcgan.training.requests import StopRequest
from hpcgan.training.staged import Staged, staged
from hpcgan.training.state import TrainState


def train(
    config: Config,
    run: RunDirectory,
    comm: Comm,
    stop: StopRequest,
    *,
    terminal: bool = False,
    born: float | None = None,
) -> dict[str, Any] | None:
    """Train on all ranks of `comm`, resuming if the run directory holds a checkpoint.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    comm : Comm
    stop : StopRequest
    terminal : bool
        Whether a person reads on a terminal.
    born : float, optional
        When this attempt was started, by `time.monotonic`, for the record of what starting takes; by default now.

    Returns
    -------
    dict or None
        `score`, `epoch`, `step` and `diversity` of the best model, None if it was never scored.

    Raises
    ------
    InputError
        Bad data or a run directory of another configuration; on every rank, nothing written.
    Interrupted
        Stopped on request, with a checkpoint.
    HpcganError
        Any other failure that has a name.
    """
    phases = Phases(time.monotonic() if born is None else born)
    phases.done("imports")
    comm.watch(config.comm.timeout_s, run.attempts / f"stalled-{comm.broadcast_json(secrets.token_hex(8))}")
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(staged(config, comm, lambda: stop.requested is not None))
        inputs, data = checked_inputs(place, config, run, comm)
        stack.enter_context(inputs)
        phases.done("data")
        assembly = Assembly.of(config, comm, inputs)
        started_from = None
        with agreed(comm):  # apart from the checks: nothing is written if they fail on any rank
            if comm.is_root:
                check_room(run, assembly.state)
                run.create(config)
                run_data.write(run, data)
                started_from = None if assembly.restore(run) else assembly.begin()
        assembly.share()
        phases.done("state")
        with Output(assembly, run, terminal, phases) as output:
            # Rank 0 may have to watch whether an earlier attempt lives, whatever comm.timeout_s says: a training that
            # is ended for it would be so at each start. Looks are counted, not seconds: a busy machine needs longer.
            comm.beat("the right to write", may_take=2 * WATCH_S)
            with agreed(comm):
                output.open(data, started_from)
            comm.beat("the start")
            output.announce(started_from)
            output.pruned = Loop(assembly, run, output, stop).run()
    best = assembly.state.counters.best
    return None if best is None else dataclasses.asdict(best)


def checked_inputs(place: Staged, config: Config, run: RunDirectory, comm: Comm) -> tuple[Inputs, run_data.RunData]:
    """Open the inputs on all ranks, and check them.

    Raises
    ------
    InputError
        On all ranks: what `Inputs.check` and `Inputs.check_events` refuse, or other data than rank 0's on any.
    """
    inputs: Inputs | None = None
    try:
        with agreed(comm):
            inputs = Inputs.open(config, staged=place)
            inputs.batch_size(comm.size)
            own = run_data.identify(place.config)
            data = place.source or own
            if comm.is_root:
                if warning := inputs.check(run, data):
                    warn(warning)
                if not checkpoints.steps(run.checkpoints):
                    inputs.check_events()
        first = comm.broadcast_json(data.plain())
        with agreed(comm):  # each node may have copies of its own
            run_data.check_same(own, first, place.config, socket.gethostname())
    except BaseException:
        if inputs is not None:
            inputs.close()
        raise
    return inputs, data


def check_room(run: RunDirectory, state: TrainState) -> None:
    """Check that the disk has room for the next checkpoint, and for the one before it at the start.

    Raises
    ------
    InputError
        It has not.
    """
    size = sum(np.asarray(variable.numpy()).nbytes for variable in state.variables.values())
    disk = next(folder for folder in (run.path, *run.path.absolute().parents) if folder.is_dir())
    needed = size * (1 if checkpoints.steps(run.checkpoints) else 2)
    check_space(disk, needed, "make room for checkpoints, or choose another disk with --run")
