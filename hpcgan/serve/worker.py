"""A process that makes events: `python -m hpcgan.serve.worker PIPE`, with the generators of all runs of a service.

TensorFlow is here and nowhere else in the service, so that what it does to its process (memory, threads, a crash) does
not touch the connections. The process ends with the pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgan.errors import HpcganError
from hpcgan.serve import pipe
from hpcgan.system.console import note, quiet_tensorflow

if TYPE_CHECKING:
    from hpcgan.evaluation.sampling import CheckpointInfo, RunSampler


def serve(connection: Connection) -> None:
    """Load the generators, say so, and make what is asked for until nobody is left who asks."""
    from hpcgan.evaluation.sampling import load_sampler

    header, _ = pipe.receive(connection)
    try:
        samplers = [
            load_sampler(
                Path(model["run"]), model["checkpoint"], note, batch_size=model["batch_size"], statistics="moving"
            )
            for model in header["models"]
        ]
        for sampler in samplers:
            _warm(sampler)
    except HpcganError as error:
        pipe.send(connection, {"refused": str(error)})
        return
    pipe.send(connection, {"models": [_about(sampler.checkpoint) for sampler in samplers]})
    while True:
        header, arrays = pipe.receive(connection)
        sampler = samplers[header["model"]]
        seeds, indices = arrays.pop("seed"), arrays.pop("index")
        try:
            events = sampler.at(seeds, indices, arrays)
        except Exception as error:  # said to those who asked; the next batch may be made
            pipe.send(connection, {"failure": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"})
            continue
        pipe.send(connection, {}, {name: events[name] for name in header["outputs"]})


def _warm(sampler: RunSampler) -> None:
    """Have the network compiled, and measured where that is needed, before anybody waits for it."""
    _ = sampler.sampler.table
    size, schema = sampler.batch_size, sampler.problem.schema
    ones = {name: np.ones((size, *schema[name].shape), schema[name].dtype) for name in sampler.problem.conditions}
    with contextlib.suppress(Exception):  # where no event is of 1 whatever it is, the first request waits longer
        sampler.at(np.ones(size, np.int64), np.arange(size), ones)


def _about(checkpoint: CheckpointInfo) -> dict[str, Any]:
    return {"step": checkpoint.step, "epoch": checkpoint.epoch, "score": checkpoint.score}


if __name__ == "__main__":
    # The service decides when its workers end: a signal to the whole job must not reach them first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    quiet_tensorflow()
    with contextlib.suppress(EOFError, OSError):
        serve(Connection(int(sys.argv[1])))
