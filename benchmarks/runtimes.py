"""Time of a generated sample against the batch size: TensorFlow, SavedModel and ONNX Runtime, on one core and on all.

`tensorflow` is what `hpcgan.generate` does for a batch: noise, network, decoding to physical units. `savedmodel` and
`onnx` are given noise that was drawn before, `onnx_drawn` draws its own from a seed. Exporting, loading and the first
batches of each size are not timed. Each runtime has a process of its own, confined to its cores; the runtimes take
turns, so a slow minute of the machine does not fall on one of them alone. It needs a quiet machine.

    python benchmarks/runtimes.py pretrained:rpv --out DIR --max-batch 100
    python benchmarks/runtimes.py RUN --out DIR --condition energy=50

DIR gets `runtimes.csv` and `runtimes.json`: milliseconds a sample, median and range over the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sampling import check_above_0, use_cores, write_rows
from together import spread

from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation.conditions import Conditions, each, from_random_events, of_points, parse
from hpcgan.system.console import quiet_tensorflow
from hpcgan.system.files import write_atomic

RUNTIMES = ("tensorflow", "savedmodel", "onnx", "onnx_drawn")
FACTOR = 10
"""Between one batch size and the next."""
#: Makes a batch of so many samples, which it has prepared for.
Make = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One batch size of one runtime on one number of cores: wall-clock milliseconds a sample."""

    runtime: str
    cores: int
    batch_size: int
    ms_per_sample: float
    ms_min: float
    ms_max: float


def batch_sizes(largest: int) -> list[int]:
    """1, 10, 100 ... up to the largest, which is among them."""
    sizes = [1]
    while sizes[-1] * FACTOR < largest:
        sizes.append(sizes[-1] * FACTOR)
    return sizes if largest == 1 else [*sizes, largest]


def rows_of(runtime: str, cores: int, timed: dict[int, list[float]]) -> list[Row]:
    """Rows from seconds a batch, by batch size."""
    found = []
    for size, seconds in timed.items():
        ms = spread([1e3 * value / size for value in seconds])
        found.append(Row(runtime, cores, size, ms["median"], ms["min"], ms["max"]))
    return found


# --- in a process of its own: threads are fixed when TensorFlow starts ----------------------------------------------


def asked(sampler: Any, point: str | None) -> Conditions | None:
    """Conditions of a point, or of random training events."""
    if point is not None:
        return each(of_points(sampler.problem, [parse(point)], "--condition"))
    return from_random_events(sampler.training_conditions, 1) if sampler.problem.conditions else None


def maker(args: argparse.Namespace, size: int) -> Make:
    """What makes a batch of this size."""
    import tensorflow as tf

    from hpcgan.evaluation.export import SIGNATURE, request
    from hpcgan.evaluation.sampling import load_sampler

    sampler = load_sampler(args.run, batch_size=size)
    conditions = asked(sampler, args.condition)
    if args.worker == "tensorflow":
        numbers = iter(range(10**9))
        return lambda: sampler.sample(size, 1, size * next(numbers), conditions)
    values = None if conditions is None else conditions(0, size)
    if args.worker == "savedmodel":
        function = tf.saved_model.load(str(args.models / "savedmodel")).signatures[SIGNATURE]
        sent = {name: tf.constant(value) for name, value in request(sampler, size, 1, values).items()}
        return lambda: {name: tensor.numpy() for name, tensor in function(**sent).items()}
    from hpcgan.evaluation import onnx_export

    model = onnx_export.session(args.models / args.worker / onnx_export.MODEL, args.cores)
    fed = onnx_export.asked(model, sampler, size, 1, values)
    return lambda: model.run(None, fed)


def serve(args: argparse.Namespace) -> None:
    """Answer each line on standard input, a batch size, by the seconds a batch took."""
    use_cores(args.cores)
    quiet_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(args.cores)
    size, make = 0, lambda: None

    def seconds_of(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            make()
        return (time.perf_counter() - started) / count

    for line in sys.stdin:
        if int(line) != size:
            size = int(line)
            make = maker(args, size)
            seconds_of(2)  # compiles
        print(seconds_of(max(1, round(args.seconds / max(1e-6, seconds_of(1))))), flush=True)


# --- the whole ------------------------------------------------------------------------------------------------------


def export_all(args: argparse.Namespace, folder: Path) -> None:
    """Write the models that are timed."""
    from hpcgan.evaluation import export, onnx_export
    from hpcgan.evaluation.sampling import load_sampler

    quiet_tensorflow()
    sampler = load_sampler(args.run)
    export.export(sampler, args.run, folder / "savedmodel")
    onnx_export.export(sampler, args.run, folder / "onnx")
    onnx_export.export(sampler, args.run, folder / "onnx_drawn", "drawn")


def measure(args: argparse.Namespace, cores: int, folder: Path) -> list[Row]:
    """All runtimes on so many cores, in turns."""
    workers = {}
    for runtime in RUNTIMES:
        line = [sys.executable, __file__, str(args.run), "--out", str(args.out), "--worker", runtime]
        line += ["--models", str(folder), "--cores", str(cores), "--seconds", str(args.seconds)]
        line += [] if args.condition is None else ["--condition", args.condition]
        workers[runtime] = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    timed: dict[str, dict[int, list[float]]] = {runtime: {} for runtime in RUNTIMES}
    try:
        for size in batch_sizes(args.max_batch):
            for _ in range(args.repeats):
                for runtime, worker in workers.items():
                    print(size, file=worker.stdin, flush=True)
                    answer = worker.stdout.readline() if worker.stdout else ""
                    if not answer:
                        raise HpcganError(f"{runtime} ended at batches of {size}; --max-batch ends before")
                    timed[runtime].setdefault(size, []).append(float(answer))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return [row for runtime in RUNTIMES for row in rows_of(runtime, cores, timed[runtime])]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory, of any problem, or pretrained:NAME")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--max-batch", type=int, default=10_000, help="largest batch (default: 10000)")
    parser.add_argument("--repeats", type=int, default=5, help="of which the median counts (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a repeat, at least a batch (default: 1)")
    parser.add_argument("--condition", metavar="NAME=VALUE,...", help="samples of this point of the conditions")
    parser.add_argument("--cores", type=int, help="instead of one and all")
    parser.add_argument("--worker", choices=RUNTIMES, help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = options().parse_args()
    if args.worker is not None:
        serve(args)
        return
    check_above_0(args, "max_batch", "repeats", "seconds", "cores")
    if args.out.exists():
        raise InputError(f"{args.out}: exists already; give --out a folder that does not")
    available = len(os.sched_getaffinity(0))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        export_all(args, Path(folder))
        for cores in [args.cores] if args.cores else sorted({1, available}):
            rows += measure(args, cores, Path(folder))
    args.out.mkdir(parents=True)
    write_rows(args.out / "runtimes.csv", rows)
    facts = {"run": str(args.run), "condition": args.condition, "cores_of_machine": available, "repeats": args.repeats}
    facts |= {"load_average": os.getloadavg(), "rows": [asdict(row) for row in rows]}
    write_atomic(args.out / "runtimes.json", json.dumps(facts, indent=1) + "\n")
    for row in rows:
        print(f"{row.cores} cores, batch {row.batch_size}, {row.runtime}: {row.ms_per_sample:.4g} ms a sample")


if __name__ == "__main__":
    try:
        main()
    except HpcganError as error:
        sys.exit(f"runtimes: {error}")
