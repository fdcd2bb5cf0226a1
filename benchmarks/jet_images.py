"""Events per second of the generation of jet images against bare PYTHIA, in pairs on one core, by class.

Each pair runs as many events twice, in alternating order: bare ``Pythia.next()`` calls, and what ``hpcgan data jets``
does (events without a chance stopped early, cells, jets, images). Times are processor time, so that other programs on
the machine disturb little. Both sides initialise PYTHIA once, in the same way.

    python benchmarks/jet_images.py --pairs 6 --events 2000
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from hpcgan.physics import pythia
from hpcgan.problems.jet_images import files, generate, processes


def bare(process: pythia.Process, seed: int, n: int, integrals: str) -> tuple[int, int]:
    """PYTHIA and nothing else: events, and no images."""
    generator = pythia.initialise(process, seed, integrals)
    for _ in range(n):
        generator.next()
    return n, 0


def chain(process: pythia.Process, seed: int, n: int, integrals: str) -> tuple[int, int]:
    """Everything between a process and its images: at least `n` events, those included that are stopped, and images."""
    begun = images = 0
    for batch in processes.events(process, seed, integrals):
        images += len(generate.sample_of(batch.particles, process.label, "cubic")[files.SIGNAL])
        begun += batch.begun
        if begun >= n:
            break
    return begun, images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--events", type=int, default=2000)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    integrals = processes.tables(1)
    for process in generate.CLASSES:
        chain(process, 1, 100, integrals)  # imports, memory
        rate, seconds, images = np.zeros((args.pairs, 2)), 0.0, 0
        for pair in range(args.pairs):
            for side in (0, 1) if pair % 2 == 0 else (1, 0):
                start = time.process_time()
                events, new = (bare, chain)[side](process, pair + 2, args.events, integrals)
                lap = time.process_time() - start
                rate[pair, side], seconds, images = events / lap, seconds + lap * side, images + new
        ratio = rate[:, 1] / rate[:, 0]
        error = ratio.std(ddof=1) / args.pairs**0.5 if args.pairs > 1 else float("nan")
        print(
            f"{process.name}: bare {rate[:, 0].mean():.0f}, chain {rate[:, 1].mean():.0f} events/s, "
            f"ratio {ratio.mean():.3f} +- {error:.3f}; {images / seconds:.1f} images/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
