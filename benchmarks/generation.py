"""Events per second of the whole generation chain against bare PYTHIA, in pairs on one core.

Each pair runs the same events twice, in alternating order: bare ``Pythia.next()`` calls, and the chain as
``hpcgan data`` runs it (batches of events, calorimeter, images, compressed HDF5). Times are processor time,
so that other programs on the machine disturb little; the wall-clock ratio is printed beside it.
Both sides initialise PYTHIA once, in the same way.

    python benchmarks/generation.py --pairs 6 --events 1000
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable

import numpy as np

from hpcgan.data import storage
from hpcgan.data.storage import Target
from hpcgan.physics import detector, pythia
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.detector_images import generate


def bare(block: generate.Block) -> None:
    """PYTHIA and nothing else."""
    generator = pythia.initialise(block.process, block.seeds()[0], block.tables)
    for _ in range(block.n_events):
        generator.next()


def chain(block: generate.Block, folder: str) -> None:
    """Everything between two mass points and three files."""
    sizes = storage.split_sizes(block.n_events)
    with hdf5.Writer(Target(os.path.join(folder, str(block.index)), sizes, {"settings": "benchmark"})) as writer:
        images = generate.make_block(block)
        generate._write_round(writer, [(block.process, images)])


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Processor and wall-clock seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--events", type=int, default=generate.BLOCK_EVENTS)
    parser.add_argument("--mass", type=float, nargs=2, default=(1400.0, 850.0), metavar=("GLUINO", "NEUTRALINO"))
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    process = pythia.RpvProcess(*args.mass)
    tables = pythia.multiparton_tables(process.soft, 1)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        chain(generate.Block(process, 0, -1, 20, detector.ATLAS, tables), folder)  # imports, memory
        for index in range(args.pairs):
            block = generate.Block(process, 0, index, args.events, detector.ATLAS, tables)
            steps = [lambda block=block: bare(block), lambda block=block: chain(block, folder)]
            order = (0, 1) if index % 2 == 0 else (1, 0)
            measured = {which: timed(steps[which]) for which in order}
            times.append([measured[0], measured[1]])
            rates = [args.events / measured[which][0] for which in (0, 1)]
            print(
                f"pair {index}: bare {rates[0]:.1f}, chain {rates[1]:.1f} events/s of processor time, "
                f"ratio {rates[1] / rates[0]:.3f} (wall clock {measured[0][1] / measured[1][1]:.3f})",
                flush=True,
            )
    processor = np.array(times)[:, 0, 0] / np.array(times)[:, 1, 0]
    wall = np.array(times)[:, 0, 1] / np.array(times)[:, 1, 1]
    for name, ratio in (("processor time", processor), ("wall clock", wall)):
        error = ratio.std(ddof=1) / len(ratio) ** 0.5 if len(ratio) > 1 else float("nan")
        print(f"chain / bare, {name}: {ratio.mean():.3f} +- {error:.3f}")


if __name__ == "__main__":
    main()
