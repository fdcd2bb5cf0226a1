"""Samples a second of N ranks against N isolated one-rank processes, in pairs, on one machine.

    python benchmarks/ranks.py configs/rpv.yaml [key=value ...] [--ranks 2] [--steps 100] [--repeats 3]

The isolated processes run at the same time, one thread each, without communication: the ceiling of N ranks
on these cores. Efficiency is the ratio, pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hpcgan import config as configuration
from hpcgan.launch.start import launch
from hpcgan.launch.topology import plan
from hpcgan.problems.base import Problems, problem_class

WARM_UP = 20


def worker(args: argparse.Namespace) -> None:
    """Time steps as one rank of a job, or alone; write the result beside the others."""
    from hpcgan import attempt
    from hpcgan.comm.devices import configure_devices
    from hpcgan.comm.select import make_comm
    from hpcgan.data.pipeline import Pipeline
    from hpcgan.data.sharding import Sharding
    from hpcgan.launch.topology import threads_from_env
    from hpcgan.methods.gan import Gan

    comm = make_comm("auto")
    configure_devices(comm, threads_from_env(os.environ))
    config = configuration.load(args.config, Problems(), args.overrides)
    problem = problem_class(config.problem)(config.model)
    gan = Gan(problem, config.training, comm, config.seed, config.data.augment)
    source = problem.open(config.data.path, "train")
    gan.calibrate(lambda: attempt.encoded(problem, source))
    sharding = Sharding(len(source), config.training.batch_size, comm.rank, comm.size, config.seed)
    pipeline = Pipeline(source, problem, sharding, config.data.augment, gan.draws)
    rates = {"generator": 1e-4, "discriminator": 1e-4}
    step, started = 0, 0.0
    while step < WARM_UP + args.steps:
        for real, draws in pipeline.rest_of_epoch(0, 0, step):
            if step == WARM_UP:
                comm.barrier()
                _wait_for_all(args.folder, args.processes, comm.rank if comm.size > 1 else args.index)
                started = time.monotonic()
            gan.step(step, real, draws, learning_rates=rates, samples=step * 64 + 64, stop=False)
            step += 1
            if step == WARM_UP + args.steps:
                break
    seconds = time.monotonic() - started
    rate = args.steps * config.training.batch_size / seconds
    name = comm.rank if comm.size > 1 else args.index
    (args.folder / f"{name}.json").write_text(json.dumps(rate))
    comm.close()


def _wait_for_all(folder: Path, processes: int, index: int) -> None:
    """Begin when everybody is warm: the isolated processes share nothing but this folder."""
    (folder / f"{index}.ready").touch()
    while len(list(folder.glob("*.ready"))) < processes:
        time.sleep(0.01)


def _measure(args: argparse.Namespace, ranks: bool) -> float:
    with tempfile.TemporaryDirectory() as name:
        common = [str(args.config), *args.overrides, "--steps", str(args.steps), "--processes", str(args.ranks)]
        command = [*common, "--folder", name]
        if ranks:
            os.environ["PYTHONPATH"] = str(Path(__file__).parent)
            code = launch([*command, "--worker"], args.ranks, module="ranks")
            if code:
                sys.exit(f"the job of {args.ranks} ranks failed with {code}")
        else:
            env = {**os.environ, **plan(1, threads=1).env}
            started = [
                subprocess.Popen([sys.executable, __file__, *command, "--worker", "--index", str(i)], env=env)
                for i in range(args.ranks)
            ]
            if any([process.wait() for process in started]):  # noqa: C419 - wait for all of them
                sys.exit("an isolated process failed")
        return sum(json.loads(path.read_text()) for path in Path(name).glob("*.json"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.worker:
        worker(args)
        return
    ratios = []
    for i in range(args.repeats):
        isolated, together = _measure(args, ranks=False), _measure(args, ranks=True)
        ratios.append(together / isolated)
        print(
            f"pair {i + 1}: {args.ranks} isolated processes {isolated:.0f} samples/s, "
            f"{args.ranks} ranks {together:.0f} samples/s, efficiency {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"median efficiency {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
