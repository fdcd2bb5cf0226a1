"""Time the steps of a training, or bare collectives, as one rank of a job.

    mpirun ... python -m hpcgan.training.timing REQUEST.json

What `hpcgan scaling` starts on every rank. The training is assembled as `hpcgan.training.assembly` does it, from the
same functions; what is left out is scoring, checkpoints and records. It takes two kinds of steps, in alternating blocks
at whose beginning all ranks wait for one another:

- *real* steps, those of the training;
- *local* steps of a second copy of the networks, by the same code without any collective. What they change is
  thrown away, so the ranks of the real training stay equal, and so do its numbers.

Both are fed by the same pipeline, whose thread runs beside either. Their difference is what collectives cost:
packing and unpacking of the buffer, the transfer, and the wait for the slowest rank.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hpcgan
from hpcgan import config as configuration
from hpcgan.comm.agreement import agreed
from hpcgan.comm.base import SerialComm
from hpcgan.comm.rank import run_as_rank
from hpcgan.config import Config, TrainingSection
from hpcgan.errors import EXIT_BAD_INPUT, HpcganError
from hpcgan.launch.topology import threads_from_env
from hpcgan.launch.world import expected_world
from hpcgan.system import failure
from hpcgan.system.failure import Failure
from hpcgan.system.files import write_atomic

if TYPE_CHECKING:
    from hpcgan.comm.base import Comm
    from hpcgan.data.schema import Sample
    from hpcgan.training.assembly import Assembly, Batch

SHORTEST_BLOCK = 10  # steps


def block_length(steps: int, every: int) -> int:
    """Steps of a block: every block has as many steps of each kind as any other.

    Parameters
    ----------
    steps : int
        Steps that are asked for; a block is not longer.
    every : int
        Steps after which the kinds of steps come again (`period`).
    """
    return min(steps, every * -(-SHORTEST_BLOCK // every))


def period(settings: TrainingSection) -> int:
    """Steps after which penalties and updates of all networks come again in the same order; 1: all are alike."""
    penalty_every, turns = settings.cadences
    return math.lcm(penalty_every or 1, turns)


def time_steps(config: Config, comm: Comm, request: Mapping[str, Any]) -> dict[str, Any]:
    """Take real and local steps and time them on this rank.

    Parameters
    ----------
    config : Config
    comm : Comm
    request : mapping
        `steps` and `warm_up`, numbers of steps; `synthetic`, whether data are made up; `processes` and `folder`,
        for isolated processes that begin together.

    Returns
    -------
    dict
        `blocks`: for `real` and `local`, one entry a block with `seconds` and, a step, `wait_s` (for the pipeline)
        and `step_s` (the step itself), in seconds of this rank's clock. `local` is empty where there are no
        collectives to leave out. Besides, what the step is: `batch_size`, `payload_bytes` of each collective,
        `parameters`, `finite`.
    """
    from hpcgan.training.assembly import Assembly
    from hpcgan.training.inputs import Inputs

    with agreed(comm):
        inputs = Inputs.synthetic(config, comm.size) if request["synthetic"] else Inputs.open(config, ["train"])
        inputs.batch_size(comm.size)
    real = Assembly.of(config, comm, inputs)
    with agreed(comm):
        if comm.is_root:
            real.calibrate()
    real.share()
    timed = {"real": _Timed(real)}
    if comm.backend != "serial":
        timed["local"] = _Timed(real.without_ranks())
    method, sharding = real.method, real.sharding
    penalty_every, turns = config.training.cadences
    length = block_length(request["steps"], period(config.training))
    count = -(-request["steps"] // length)
    blocks: dict[str, list[dict[str, Any]]] = {"real": [], "local": []}
    with contextlib.closing(_endless(real)) as batches:
        for training in timed.values():
            _block(comm, batches, training, request["warm_up"])
        if request.get("processes"):
            _wait_for_all(Path(request["folder"]), request["processes"])
        for number in range(count):
            kinds = list(timed) if number % 2 == 0 else list(reversed(timed))
            for kind in kinds:
                blocks[kind].append(_block(comm, batches, timed[kind], length))
    inputs.close()
    return {
        "rank": comm.rank,
        "node": platform.node(),
        "threads": threads_from_env(os.environ),
        "backend": comm.backend,
        "batch_size": sharding.batch_size,
        "block_steps": length,
        "penalty_every": penalty_every,
        "critic_steps": turns,
        "updates": config.training.updates,
        "first_step": request["warm_up"],
        "payload_bytes": dict(method.payload_bytes),
        "parameters": {k: _elements(n.weights) for k, n in method.networks.items() if k in method.optimizers},
        "finite": timed["real"].finite,
        "hpcgan": hpcgan.__version__,
        "blocks": blocks,
    }


class _Timed:
    """One of two trainings side by side."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly, self._step = assembly, 0
        self.finite = True

    def __call__(self, real: Sample, draws: dict[str, np.ndarray]) -> None:
        sharding = self._assembly.sharding
        samples = self._step * sharding.global_batch
        epochs = samples / sharding.n
        result = self._assembly.method.step(
            self._step,
            real,
            draws,
            learning_rates=self._assembly.rates.at(self._step, epochs),
            samples=samples + sharding.global_batch,
            epochs=epochs,
        )
        self._step += 1
        self.finite = self.finite and bool(np.isfinite(list(result.metrics.values())).all())


def _endless(assembly: Assembly) -> Generator[Batch, None, None]:
    """Batches of epoch after epoch."""
    step = epoch = 0
    while True:
        yield from assembly.pipeline.rest_of_epoch(epoch, 0, step)
        epoch, step = epoch + 1, step + assembly.sharding.steps_per_epoch


def _block(comm: Comm, batches: Iterator[Batch], training: _Timed, steps: int) -> dict[str, Any]:
    """Take some steps, beginning together with the other ranks."""
    comm.barrier()
    waits, times = [], []
    start = time.perf_counter()
    for _ in range(steps):
        comm.beat("a timed step")
        before = time.perf_counter()
        real, draws = next(batches)
        fetched = time.perf_counter()
        training(real, draws)
        times.append(round(time.perf_counter() - fetched, 7))
        waits.append(round(fetched - before, 7))
    return {"seconds": round(time.perf_counter() - start, 7), "wait_s": waits, "step_s": times}


def _wait_for_all(folder: Path, processes: int) -> None:
    """Begin when everybody is warm: isolated processes share nothing but this folder."""
    world = expected_world(os.environ)
    (folder / f"{world.rank if world else 0}.ready").touch()
    while len(list(folder.glob("*.ready"))) < processes:
        time.sleep(0.01)


def _elements(variables: Any) -> int:
    return int(sum(np.prod(variable.shape, dtype=np.int64) for variable in variables))


def time_allreduce(comm: Comm, sizes: list[int], repeats: int = 30) -> dict[str, Any]:
    """Time averages over all ranks of flat float32 buffers, in a compiled graph as in a step.

    Parameters
    ----------
    comm : Comm
    sizes : list of int
        Bytes.
    repeats : int
        Calls of each size; fewer, but at least five, of those beyond 1 MiB.

    Returns
    -------
    dict
        `times_s` of this rank: size in bytes to a list of seconds, of one call after the other.
    """
    import tensorflow as tf

    times_s: dict[str, list[float]] = {}
    for size in sizes:
        buffer = tf.ones([size // 4], tf.float32)

        def average(values: Any, name: str = f"sweep.{size}") -> Any:
            return comm.begin_average(values, name)()[0]

        compiled = tf.function(average, autograph=False)
        calls = max(5, min(repeats, repeats * (1 << 20) // size))
        for _ in range(3):
            compiled(buffer).numpy()
        comm.barrier()
        times = []
        for _ in range(calls):
            comm.beat(f"an allreduce of {size} bytes")
            before = time.perf_counter()
            compiled(buffer).numpy()
            times.append(time.perf_counter() - before)
        times_s[str(size)] = times
    return {"rank": comm.rank, "node": platform.node(), "backend": comm.backend, "times_s": times_s}


def main() -> int:
    """Obey the request in the file that the command line names; the exit code."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    isolated = bool(request.get("processes"))
    try:
        config = configuration.load(Path(request["config"]), request["overrides"])

        def work(comm: Comm) -> None:
            folder = Path(request["folder"])
            comm.watch(config.comm.timeout_s, folder / "stalled")
            if request["kind"] == "allreduce":
                times = time_allreduce(comm, request["sizes"])
            else:
                from hpcgan.training.staged import staged

                stage = None if request["synthetic"] else config.data.stage
                data = config.data.model_copy(update={"stage": stage})
                with staged(config.model_copy(update={"data": data}), comm) as place:
                    times = time_steps(place.config, comm, request)
            everyone = comm.gather_json(times)
            if everyone is not None:
                world = expected_world(os.environ)
                name = world.rank if isolated and world else 0
                write_atomic(folder / f"{name}.json", json.dumps(everyone))

        return run_as_rank(work, SerialComm() if isolated else config.comm.backend)
    except HpcganError as error:
        failure.tell(Failure.of(error))
        print(f"hpcgan: error: {error}", file=sys.stderr, flush=True)
        # Other ranks may be waiting in MPI already: only an abrupt end takes them along.
        os._exit(error.exit_code or EXIT_BAD_INPUT)


if __name__ == "__main__":
    sys.exit(main())
