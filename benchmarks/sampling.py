"""Time of a generated sample against the batch size, on one core and on all, beside the simulation it stands for.

What is timed is what `hpcgan.generate` does for a batch: noise, network, decoding to physical units. Loading and
compiling are not. The simulation of the run's problem makes the same kind of samples, on one core and on all of them (a
process each): PYTHIA and the detector for detector images (gluinos of 1400 GeV for `rpv` and `conditional`; for a sum
of mu minimum-bias events, mu times an event's time), parametrised showers for calorimeters, lognormal maps for `cosmo`.
With `--reference` a rate of something else, samples a second and core, is compared, too. With `--condition` both make
samples of one point of the conditions, such as a class: what is simulated takes its own time for each.

    python benchmarks/sampling.py RUN --out DIR --reference 2.5 --reference-name Geant4
    python benchmarks/sampling.py RUN --out DIR --condition signal=1 --simulation-seconds 120

DIR gets `sampling.csv`, `sampling.json` and `sampling.png`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from together import run_all, spread, total_rate, wait_for_all, write_rate

from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation.conditions import of_points, parse
from hpcgan.problems.base import Problem, problem_class
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.console import quiet_tensorflow
from hpcgan.system.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.config import Config

FACTOR = 4
"""Between one batch size and the next."""


@dataclass(frozen=True)
class Row:
    """One batch size on one number of cores.

    Attributes
    ----------
    cores, batch_size : int
    us_per_sample, us_min, us_max : float
        Wall-clock microseconds: median over the repeats, least, most.
    samples_per_s, samples_per_s_core : float
    over_simulation : float or None
        Rate over that of the simulation on as many cores.
    over_reference : float or None
        Rate over that of the reference on as many cores.
    """

    cores: int
    batch_size: int
    us_per_sample: float
    us_min: float
    us_max: float
    samples_per_s: float
    samples_per_s_core: float
    over_simulation: float | None
    over_reference: float | None


def batch_sizes(largest: int) -> list[int]:
    """1, 4, 16 ... and the largest."""
    sizes = [1]
    while sizes[-1] * FACTOR < largest:
        sizes.append(sizes[-1] * FACTOR)
    return sizes if largest == 1 else [*sizes, largest]


def row(
    cores: int, batch_size: int, seconds: Sequence[float], simulation: float | None, reference: float | None
) -> Row:
    """A row from seconds a batch; `simulation` is samples a second of all these cores, `reference` of one."""
    each = spread([1e6 * value / batch_size for value in seconds])
    rate = 1e6 / each["median"]
    return Row(
        cores=cores,
        batch_size=batch_size,
        us_per_sample=each["median"],
        us_min=each["min"],
        us_max=each["max"],
        samples_per_s=rate,
        samples_per_s_core=rate / cores,
        over_simulation=None if simulation is None else rate / simulation,
        over_reference=None if reference is None else rate / (reference * cores),
    )


# --- in a process of its own: threads are fixed when TensorFlow starts ----------------------------------------------


def use_cores(cores: int) -> None:
    """Confine this process to so many of the cores it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def time_batches(args: argparse.Namespace) -> None:
    """Write a line for each batch size: its seconds a batch, in each repeat."""
    use_cores(args.cores)
    quiet_tensorflow()
    import tensorflow as tf

    from hpcgan.evaluation.conditions import each, from_random_events
    from hpcgan.evaluation.sampling import load_sampler

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(args.cores)
    with args.worker.open("w") as out:
        for size in batch_sizes(args.max_batch):
            sampler = load_sampler(args.run, batch_size=size)
            asked = None
            if args.condition is not None:
                asked = each(of_points(sampler.problem, [parse(args.condition)], "--condition"))
            elif sampler.problem.conditions:
                asked = each(from_random_events(sampler.training_conditions, 1)(0, size))
            done = 0

            def batches(count: int) -> float:
                nonlocal done
                started = time.perf_counter()
                for index in range(done, done + count):
                    sampler.sample(size, 1, index * size, asked)  # noqa: B023 - called in this turn of the loop only
                done += count
                return (time.perf_counter() - started) / count

            batches(2)  # compiles
            count = max(1, round(args.seconds / batches(1)))
            print(json.dumps([size, [batches(count) for _ in range(args.repeats)]]), file=out, flush=True)


def time_simulation(args: argparse.Namespace) -> None:
    """Leave this core's samples a second."""
    folder, index, processes = args.simulate.parent, int(args.simulate.name), args.cores
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1 - index]})
    config, problem = read_run(args.run)
    make = SIMULATIONS[problem.name](config, problem, index, {} if args.condition is None else parse(args.condition))
    make(1)  # imports, tables
    wait_for_all(folder, processes, index)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < args.simulation_seconds:
        done += make(None)
    write_rate(folder, index, done / (time.perf_counter() - started))


# --- what a sample costs without a network --------------------------------------------------------------------------

#: Makes so many samples (None: what is made at a time) and says how many there were.
Make = Callable[["int | None"], float]


def _collisions(config: Config, problem: Problem, index: int, condition: Mapping[str, float]) -> Make:
    from hpcgan.physics import detector, pythia
    from hpcgan.problems.detector_images import generate

    mus = getattr(problem.model, "mus", None)
    masses = (condition.get("mGlu", 1400.0), condition.get("mNeu", 850.0))
    process: pythia.Process = pythia.MinBiasProcess() if mus else pythia.RpvProcess(*masses)
    tables = pythia.multiparton_tables(process.soft, 1)
    each = float(np.mean(mus)) if mus else 1.0
    blocks = iter(range(1000 * index, 1000 * (index + 1)))

    def make(n: int | None) -> float:
        events = n or generate.BLOCK_EVENTS
        for _ in generate.image_batches(generate.Block(process, 1, next(blocks), events, detector.ATLAS, tables)):
            pass
        return events / each

    return make


def _showers(config: Config, problem: Problem, index: int, condition: Mapping[str, float]) -> Make:
    from hpcgan.evaluation.conditions import training_conditions
    from hpcgan.physics.showers import simulate
    from hpcgan.problems.calorimeter import files as calo
    from hpcgan.problems.files import file_of

    energies = training_conditions(problem, config)[calo.ENERGY].reshape(-1)
    with calo.open_showers(file_of(config.data.path, "train")) as file:
        particle, segmentation = str(file.attrs.get("particle", "")), calo.segmentation_of(file)
    rng = np.random.default_rng(index)

    def make(n: int | None) -> int:
        n = n or 1000
        simulate(particle, rng.choice(energies, n), rng, segmentation)
        return n

    return make


def _maps(config: Config, problem: Problem, index: int, condition: Mapping[str, float]) -> Make:
    from hpcgan.physics.lognormal import LognormalMaps
    from hpcgan.problems.cosmo.generate import Maps

    maps = LognormalMaps(problem.model.side)
    firsts = iter(range(10**6 * index, 10**6 * (index + 1), Maps.block))

    def make(n: int | None) -> int:
        maps.make(1, next(firsts), n or Maps.block)
        return n or Maps.block

    return make


def _jets(config: Config, problem: Problem, index: int, condition: Mapping[str, float]) -> Make:
    from hpcgan.problems.jet_images import processes
    from hpcgan.problems.jet_images.generate import CLASSES, Block, JetImages

    images = JetImages(2)
    integrals = processes.tables(1)
    kinds = [process for process in CLASSES if process.label == condition.get("signal", process.label)]
    blocks = iter(range(1000 * index, 1000 * (index + 1)))

    def make(n: int | None) -> int:
        each, block = n or 50, next(blocks)  # of each class
        for process in kinds:
            images.make(Block(process, block, each, integrals), lambda _: None)
        return each * len(kinds)

    return make


def _geometries(config: Config, problem: Problem, index: int, point: Mapping[str, float]) -> Make:
    from hpcgan.problems.arm.generate import GeometryGenerator

    options = GeometryGenerator(layer=problem.model.layer, segmentation=problem.model.geometries)
    seeds = iter(range(10**6 * index, 10**6 * (index + 1)))

    def make(n: int | None) -> int:
        data_set = options.data_set(n or 512, next(seeds))
        for task in data_set.tasks():
            data_set.make(task, lambda _: None)
        return data_set.n

    return make


#: From configuration, problem, number of the process and one point of the conditions, {} for all.
SIMULATIONS: dict[str, Callable[[Config, Problem, int, Mapping[str, float]], Make]] = {
    "arm": _geometries,
    "rpv": _collisions,
    "conditional": _collisions,
    "pileup": _collisions,
    "calogan": _showers,
    "calo_layer": _showers,
    "cosmo": _maps,
    "jets": _jets,
}

#: Problems whose simulation makes what `--condition` says.
BY_CONDITION = ("conditional", "jets")


# --- the whole ------------------------------------------------------------------------------------------------------


def read_run(run: Path) -> tuple[Config, Problem]:
    """Configuration and problem of a run."""
    config = RunDirectory(run).load_config()
    return config, problem_class(config.problem)(config.model)


def command(args: argparse.Namespace, cores: int, *more: str) -> list[str]:
    """This script again, for one part of the work."""
    said = [sys.executable, __file__, str(args.run), "--cores", str(cores), "--out", str(args.out)]
    for name in ("max_batch", "repeats", "seconds", "simulation_seconds"):
        said += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    if args.condition is not None:
        said += ["--condition", args.condition]
    return [*said, *more]


def measure(args: argparse.Namespace, cores: int, folder: Path) -> tuple[list[tuple[int, list[float]]], float | None]:
    """Seconds a batch of each batch size, and samples a second of the simulation, on so many cores."""
    simulation = None
    if not args.no_simulation:
        work = folder / f"simulation-{cores}"
        work.mkdir()
        run_all([command(args, cores, "--simulate", str(work / str(index))) for index in range(cores)], {})
        simulation = total_rate(work)
        print(f"simulation, {cores} cores: {simulation:.4g} samples/s", flush=True)
    result = folder / f"batches-{cores}.jsonl"
    code = subprocess.run(command(args, cores, "--worker", str(result)), check=False).returncode
    lines = [json.loads(line) for line in result.read_text().splitlines()] if result.exists() else []
    if code and not lines:
        sys.exit(f"no batch was timed: exit code {code}")
    if code:  # out of memory, as a rule: the kernel kills
        print(f"stopped after batches of {lines[-1][0]} with exit code {code}; --max-batch ends before", flush=True)
    return [(size, seconds) for size, seconds in lines], simulation


def figure(
    rows: Sequence[Row], simulation: dict[int, float], reference: tuple[str, float] | None, title: str
) -> Figure:
    """Time of a sample against the batch size; horizontal lines for what it is compared with."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8, 4.5), layout="constrained")
    axes = drawn.subplots()
    for number, cores in enumerate(sorted({row.cores for row in rows})):
        mine, colour = [row for row in rows if row.cores == cores], f"C{number}"
        label = f"{cores} core{'s' if cores > 1 else ''}"
        middle = [row.us_per_sample for row in mine]
        errors = np.abs([[row.us_min for row in mine], [row.us_max for row in mine]] - np.array(middle))
        sizes = [row.batch_size for row in mine]
        axes.errorbar(sizes, middle, yerr=errors, fmt="o-", color=colour, capsize=3, label=f"generator, {label}")
        if cores in simulation:
            axes.axhline(1e6 / simulation[cores], color=colour, ls="--", label=f"simulation, {label}")
        if reference is not None:
            axes.axhline(1e6 / (reference[1] * cores), color=colour, ls=":", label=f"{reference[0]}, {label}")
    sizes = sorted({row.batch_size for row in rows})
    axes.set(xscale="log", yscale="log", xlabel="Batch size", ylabel="Time a sample [µs]", title=title)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    drawn.legend(loc="outside right upper", fontsize="small")
    return drawn


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """A CSV file of dataclasses of one kind, floats to six digits."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(rows[0])])
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})


def write(
    folder: Path,
    rows: Sequence[Row],
    simulation: dict[int, float],
    reference: tuple[str, float] | None,
    facts: dict[str, Any],
) -> None:
    """The table as CSV and JSON, and the plot."""
    write_rows(folder / "sampling.csv", rows)
    said = {**facts, "simulation_samples_per_s": {str(k): v for k, v in simulation.items()}}
    if reference is not None:
        said["reference"] = {"name": reference[0], "samples_per_s_core": reference[1]}
    write_atomic(folder / "sampling.json", json.dumps({**said, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    figure(rows, simulation, reference, facts["title"]).savefig(folder / "sampling.png", dpi=150)


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory, of any problem")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--max-batch", type=int, default=4096, help="largest batch (default: 4096)")
    parser.add_argument("--repeats", type=int, default=7, help="of which the median counts (default: 7)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a repeat, at least a batch (default: 1)")
    parser.add_argument("--simulation-seconds", type=float, default=20.0, help="of the simulation (default: 20)")
    parser.add_argument("--condition", metavar="NAME=VALUE,...", help="samples of this point of the conditions alone")
    parser.add_argument("--no-simulation", action="store_true", help="time the generator alone")
    parser.add_argument("--reference", type=float, metavar="RATE", help="samples a second and core of something else")
    parser.add_argument("--reference-name", default="reference", metavar="NAME", help="what that is")
    parser.add_argument("--cores", type=int, help="instead of one and all")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--simulate", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = options().parse_args()
    if args.worker is not None:
        time_batches(args)
    elif args.simulate is not None:
        time_simulation(args)
    else:
        compare(args)


def check_above_0(args: argparse.Namespace, *names: str) -> None:
    """Refuse options that are not, where they are given."""
    for name in names:
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be above 0")


def compare(args: argparse.Namespace) -> None:
    """Measure everything, write it down."""
    check_above_0(args, "max_batch", "repeats", "reference", "cores")
    config, problem = read_run(args.run)
    if problem.name not in SIMULATIONS and not args.no_simulation:
        raise InputError(f"there is no simulation of problem '{problem.name}' here: give --no-simulation")
    if args.condition is not None:
        of_points(problem, [parse(args.condition)], "--condition")
        if problem.name not in BY_CONDITION and not args.no_simulation:
            raise InputError(
                f"the simulation of problem '{problem.name}' knows no --condition: give --no-simulation, too"
            )
    if args.out.exists():
        raise InputError(f"{args.out}: exists already; give --out a folder that does not")
    available = len(os.sched_getaffinity(0))
    reference = None if args.reference is None else (args.reference_name, args.reference)
    rows, simulation = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for cores in [args.cores] if args.cores else sorted({1, available}):
            timed, rate = measure(args, cores, Path(folder))
            if rate is not None:
                simulation[cores] = rate
            rows += [row(cores, size, seconds, rate, args.reference) for size, seconds in timed]
    args.out.mkdir(parents=True)
    facts = {
        "title": f"{problem.name}: {args.run.name}" + (f", {args.condition}" if args.condition else ""),
        "problem": problem.name,
        "run": str(args.run),
        "condition": args.condition,
        "model": config.model.model_dump(mode="json"),
        "cores_of_machine": available,
        "repeats": args.repeats,
        "load_average": os.getloadavg(),
    }
    write(args.out, rows, simulation, reference, facts)
    for line in rows:
        compared = "".join(
            f", {factor:.3g} x {name}"
            for name, factor in (("simulation", line.over_simulation), (args.reference_name, line.over_reference))
            if factor is not None
        )
        print(f"{line.cores} cores, batch {line.batch_size}: {line.us_per_sample:.4g} us a sample{compared}")
    print(f"table and plot: {args.out}")


if __name__ == "__main__":
    try:
        main()
    except HpcganError as error:
        sys.exit(f"sampling: {error}")
