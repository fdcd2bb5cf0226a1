"""Peak memory of a training against the size of its data, and a training on data larger than its memory limit.

    python benchmarks/memory.py configs/rpv_gan.yaml [key=value ...] [--events 4000,16000,64000] [--data data/rpv]

Data sets of the given sizes are made by repeating the events of --data; a rank then trains on each for some steps with
`data.cache_mb=1`, so that every batch is read from disk, under a limit on its address space: that of the smallest one
plus --margin MB. Uncompressed, 64,000 events are 1 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from hpcgan.data.storage import Target
from hpcgan.errors import HpcganError
from hpcgan.problems.detector_images import files as hdf5


def repeated(source: Path, folder: Path, events: int) -> None:
    """A data set of this number of training events; validation and test as they are."""
    with hdf5.open_images(source / "train.h5") as file:
        chunks = hdf5.pack(file.read(slice(0, min(file.n, 4000))))
    sizes = {"train": events, "val": 100, "test": 100}
    with hdf5.Writer(Target(folder, sizes, {"settings": "{}"})) as writer:
        left = sum(sizes.values())
        while left > 0:
            part = chunks[: min(left, len(chunks))]
            writer.append_packed(part, 1.0, 1.0, 1400.0, 850.0)
            left -= len(part)


def worker(args: argparse.Namespace) -> None:
    """Train for an epoch of at most --steps steps; print peak memory as JSON."""
    if args.limit:
        resource.setrlimit(resource.RLIMIT_AS, (args.limit, args.limit))
    from hpcgan import config as configuration
    from hpcgan.comm.base import SerialComm
    from hpcgan.comm.devices import configure_devices
    from hpcgan.training.assembly import Assembly
    from hpcgan.training.inputs import Inputs

    comm = SerialComm()
    configure_devices(comm, 1)
    overrides = [*args.overrides, f"data.path={args.data}", "data.cache_mb=1"]
    config = configuration.load(args.config, overrides)
    inputs = Inputs.open(config, ["train"])
    inputs.problem.validate(config.data.path, "train")
    training = Assembly.of(config, comm, inputs)
    training.calibrate()
    for step, (real, draws) in enumerate(training.rest_of_epoch(), start=1):
        training.method.step(
            step - 1,
            real,
            draws,
            learning_rates=training.learning_rates(),
            samples=training.sharding.global_batch * step,
        )
        if step == args.steps:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    space = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPeak"))
    print(json.dumps({"steps": step, "peak": peak, "space": int(space.split()[1]) * 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--data", type=Path, default=Path("data/rpv"))
    parser.add_argument("--events", default="4000,16000,64000", metavar="N,N,...")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--margin", type=float, default=200.0, metavar="MB")
    parser.add_argument("--limit", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    limit = 0
    print(f"{'events':>8} {'uncompressed':>13} {'on disk':>9} {'peak memory':>12} {'limit on address space':>23}")
    for events in map(int, args.events.split(",")):
        with tempfile.TemporaryDirectory(dir=".") as name:
            repeated(args.data, Path(name), events)
            command = [sys.executable, __file__, str(args.config), *args.overrides, "--data", name, "--worker"]
            command += ["--steps", str(args.steps), "--limit", str(limit)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.exit(f"{events} events: {done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            disk = (Path(name) / "train.h5").stat().st_size
        shown = f"{limit / 1e6:.0f} MB" if limit else "none"
        sizes = (events * 16384 / 1e6, disk / 1e6, found["peak"] / 1e6)
        print("{:>8} {:>10.0f} MB {:>6.0f} MB {:>9.0f} MB {:>23}".format(events, *sizes, shown), flush=True)
        limit = limit or found["space"] + int(args.margin * 1e6)


if __name__ == "__main__":
    try:
        main()
    except HpcganError as error:
        sys.exit(f"memory: {error}")
