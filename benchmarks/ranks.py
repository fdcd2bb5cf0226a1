"""Samples a second of N ranks against N isolated one-rank processes, in pairs, on one machine.

    python benchmarks/ranks.py configs/rpv.yaml [key=value ...] [--ranks 2] [--steps 100] [--repeats 3]

The isolated processes run at the same time, one thread each, without communication: the ceiling of N ranks
on these cores. Efficiency is the ratio, pair by pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from together import run_all, total_rate, wait_for_all, write_rate

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
    name = comm.rank if comm.size > 1 else args.index
    step, started = 0, 0.0
    while step < args.warm_up + args.steps:
        for real, draws in pipeline.rest_of_epoch(0, 0, step):
            if step == args.warm_up:
                comm.barrier()
                wait_for_all(args.folder, args.processes, name)
                started = time.monotonic()
            gan.step(step, real, draws, learning_rates=rates, samples=step * 64 + 64, stop=False)
            step += 1
            if step == args.warm_up + args.steps:
                break
    seconds = time.monotonic() - started
    write_rate(args.folder, name, args.steps * config.training.batch_size / seconds)
    comm.close()


def measure(
    config: Path, overrides: Sequence[str], processes: int, *, ranks: bool, steps: int, warm_up: int = WARM_UP
) -> float:
    """Samples a second of `processes` ranks of one job, or (`ranks` false) of as many isolated processes."""
    with tempfile.TemporaryDirectory() as name:
        numbers = {"--steps": steps, "--warm-up": warm_up, "--processes": processes}
        options = [text for option, number in numbers.items() for text in (option, str(number))]
        command = [str(config), *overrides, *options, "--folder", name, "--worker"]
        if ranks:
            path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
            code = launch(command, processes, module="ranks", env=env)
            if code:
                sys.exit(f"the job of {processes} ranks failed with {code}")
        else:
            alone = [[sys.executable, __file__, *command, "--index", str(i)] for i in range(processes)]
            run_all(alone, plan(1, threads=1).env)
        return total_rate(Path(name))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
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
        isolated, together = (
            measure(args.config, args.overrides, args.ranks, ranks=ranks, steps=args.steps, warm_up=args.warm_up)
            for ranks in (False, True)
        )
        ratios.append(together / isolated)
        print(
            f"pair {i + 1}: {args.ranks} isolated processes {isolated:.0f} samples/s, "
            f"{args.ranks} ranks {together:.0f} samples/s, efficiency {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"median efficiency {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
