"""`python -m faulty ARGS`: hpcgan with a fault, for the ranks of a test's job.

`HPCGAN_FAULT` says which: {"rank": 1, "phase": "data", "step": 20}. The rank raises when it gets there.
`HPCGAN_STOP_AT=20` asks rank 0 to stop after that many steps of the run, as a signal would.
`HPCGAN_SLOW_WRITE=0.5` has the write of a checkpoint take more than twice that many seconds.
`HPCGAN_SLOW_COPY=0.3` has copies of data (`data.stage`) take that many seconds for every 4 kB.
`HPCGAN_PATIENCE=0.05` makes `comm.timeout_s` that much shorter in the second step: the first one takes long.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from hpcgan.launch.world import expected_world
from hpcgan.system.console import quiet_tensorflow

TEXT = "injected fault"
PHASES = ("data", "discriminator", "generator", "step", "scoring", "samples", "checkpoint")


def install(phase: str, step: int) -> None:
    """Make the phase fail in this process, from a step on (0: at once)."""
    from hpcgan.data.pipeline import Pipeline
    from hpcgan.evaluation.epoch import Scorer
    from hpcgan.methods.gan import Gan
    from hpcgan.problems.detector_images.rpv import RpvProblem
    from hpcgan.runs import checkpoint

    reached = [0]

    def failing(cls: Any, name: str, due: Any = lambda *args: True) -> None:
        whole = getattr(cls, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if reached[0] >= step and due(*args):
                raise RuntimeError(f"{TEXT} in {phase}")
            return whole(*args, **kwargs)

        setattr(cls, name, wrapper)

    original = Gan.step

    def counted(self: Any, number: int, *args: Any, **kwargs: Any) -> Any:
        reached[0] = number
        return original(self, number, *args, **kwargs)

    Gan.step = counted  # type: ignore[method-assign]
    if phase == "data":
        failing(Pipeline, "_batch", lambda self, order, epoch, position, number: number >= step)
    elif phase == "discriminator":  # while the step is being traced, between collectives of the others
        failing(Gan, "_discriminator_local")
    elif phase == "generator":
        failing(Gan, "generator_gradients")
    elif phase == "step":
        failing(Gan, "step", lambda self, number, *args: number >= step)
    elif phase == "scoring":
        failing(Scorer, "_score")
    elif phase == "samples":
        failing(RpvProblem, "writer")
    elif phase == "checkpoint":
        failing(checkpoint, "save")
    else:
        raise ValueError(f"no phase '{phase}'")


def stop_after(steps: int) -> None:
    """Ask for a stop so that the training ends with this number of steps, at least two."""
    from hpcgan.methods.gan import Gan

    whole = Gan.step

    def one(self: Any, number: int, *args: Any, **kwargs: Any) -> Any:
        if number + 2 == steps:  # what comes during a step is said in the next one
            os.kill(os.getpid(), signal.SIGUSR1)
        return whole(self, number, *args, **kwargs)

    Gan.step = one  # type: ignore[method-assign]


def slow_write(seconds: float) -> None:
    """Write checkpoints slowly."""
    from hpcgan.runs import checkpoint

    whole = checkpoint.sync

    def slowly(descriptor: int) -> None:
        time.sleep(seconds)
        whole(descriptor)

    checkpoint.sync = slowly


def slow_copy(seconds: float) -> None:
    """Copy data slowly."""
    from hpcgan.data import staging

    whole = staging._into

    def slowly(copy: Any) -> Any:
        write = whole(copy)

        def write_slowly(piece: Any) -> None:
            time.sleep(seconds)
            write(piece)

        return write_slowly

    staging.PIECE = 4096
    staging._into = slowly


def shorten(factor: float) -> None:
    """Have a watchdog wait for a part of its time from the second step on."""
    from hpcgan.comm.watchdog import Watchdog

    whole, steps = Watchdog.beat, [0]

    def beat(self: Any, activity: str, may_take: float = 0.0) -> None:
        steps[0] += activity.startswith("step ")
        if steps[0] == 2:
            steps[0] += 1
            self._timeout *= factor
        whole(self, activity, may_take)

    Watchdog.beat = beat  # type: ignore[method-assign]


if __name__ == "__main__":
    quiet_tensorflow()  # as `hpcgan` does before anything else, which what follows imports
    fault = json.loads(os.environ.get("HPCGAN_FAULT", "null"))
    world = expected_world(os.environ)
    if fault is not None and (0 if world is None else world.rank) == fault["rank"]:
        install(fault["phase"], fault["step"])
    if "HPCGAN_STOP_AT" in os.environ:
        stop_after(int(os.environ["HPCGAN_STOP_AT"]))
    if "HPCGAN_SLOW_WRITE" in os.environ:
        slow_write(float(os.environ["HPCGAN_SLOW_WRITE"]))
    if "HPCGAN_SLOW_COPY" in os.environ:
        slow_copy(float(os.environ["HPCGAN_SLOW_COPY"]))
    if "HPCGAN_PATIENCE" in os.environ:
        shorten(float(os.environ["HPCGAN_PATIENCE"]))
    from hpcgan.commands.cli import main

    sys.exit(main())
