"""What several steps in one call gain: pairs of one step a call and of many, in turns in one process.

    taskset -c 0 python benchmarks/steps_per_call.py configs/rpv.yaml [key=value ...] [--pairs 20]

The samples are made up; they and the random numbers are prepared beforehand, so what is timed is the method alone, on
one thread. A pair is the same steps (without a penalty), one a call and all in one, half a second of them or 64. The
ratio of processor times hardly depends on what else the machine does, that of wall-clock times does.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from together import text

from hpcgan import config as configuration
from hpcgan.comm.base import SerialComm
from hpcgan.comm.devices import configure_devices
from hpcgan.data.source import SyntheticSource
from hpcgan.methods.base import StepInput
from hpcgan.problems.base import problem_class
from hpcgan.training import assembly
from hpcgan.training.pace import CALL_S, MOST


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--pairs", type=int, default=20)
    args = parser.parse_intermixed_args()
    comm = SerialComm()
    configure_devices(comm, 1)
    config = configuration.load(args.config, [*args.overrides, "training.steps_per_call=auto"])
    problem, size = problem_class(config.problem)(config.model), config.training.batch_size
    method, _ = assembly.make_method(config, problem, comm)
    source = SyntheticSource(problem.schema, max(64, size), config.seed)
    method.calibrate(lambda: assembly.encoded(problem, source))
    real = problem.encode(source.read(np.arange(size)))
    rates = {name: settings.learning_rate for name, settings in config.training.optimizers.items()}
    penalty_every, turns = config.training.cadences
    plain = turns * (penalty_every or 1) + turns - 1  # all networks are updated, and there is no penalty
    given = StepInput(plain, real, method.draws(plain, 0, size), rates, size)

    def take(steps: int, a_call: int) -> tuple[float, float]:
        """Processor and wall-clock seconds of a step."""
        begun = time.process_time(), time.perf_counter()
        for first in range(0, steps, a_call):
            method.steps([given] * min(a_call, steps - first))
        return (time.process_time() - begun[0]) / steps, (time.perf_counter() - begun[1]) / steps

    take(3, 1)
    many = max(2, min(MOST, int(CALL_S / take(5, 1)[0])))
    take(2 * many, many)
    pairs = []
    for number in range(args.pairs):
        order = (1, many) if number % 2 else (many, 1)
        pairs.append({a_call: take(many, a_call) for a_call in order})
    print(f"{args.config.name} {' '.join(args.overrides)}: 1 and {many} steps a call, {args.pairs} pairs")
    for index, clock in enumerate(("processor", "wall-clock")):
        one, several = ([1e3 * pair[n][index] for pair in pairs] for n in (1, many))
        ratios = [a / b for a, b in zip(one, several)]
        print(f"  {clock}: {text(one, '.2f')} ms and {text(several, '.2f')} ms a step, ratio {text(ratios, '.3f')}")


if __name__ == "__main__":
    main()
