"""`hpcgan generate`: samples of a trained run, as a file in the layout of the training data."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.runs import pretrained
from hpcgan.runs.directory import trained_run
from hpcgan.system import streams
from hpcgan.system.console import note

if TYPE_CHECKING:
    from hpcgan.comm.base import Comm
    from hpcgan.config import Config
    from hpcgan.evaluation.conditions import Conditions
    from hpcgan.problems.base import Problem
    from hpcgan.training.requests import StopRequest


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "generate",
        description="Sample a run's generator into a file of the same layout as the training data.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "-n", "--events", type=arguments.count, metavar="N", help="number of events (with --conditions: its rows)"
    )
    parser.add_argument("--out", type=arguments.output_file, required=True, metavar="FILE", help="HDF5 file to write")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="what a conditional model shall make, e.g. mGlu=1600,mNeu=850 or energy=50 (GeV); repeat it "
        "for equal shares of several points, in turn (default: as in random training events)",
    )
    group.add_argument(
        "--conditions",
        type=Path,
        metavar="FILE",
        help="the conditions of each event: .csv with a line of names, .npy (n, k), or .h5 with a data set a condition",
    )
    parser.add_argument("--seed", type=arguments.seed, default=1, metavar="S", help="of the noise (default: 1)")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--ranks", type=arguments.processes, metavar="R", help="start R ranks, which share the work")
    parser.add_argument(
        "--batch-size", type=arguments.count, metavar="B", help="events made at a time (default: that of the training)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    """Generate and write, here or on several ranks."""
    from hpcgan.launch.world import ranks_of_launcher, starts_ranks

    if args.events is None and args.conditions is None:
        raise InputError("-n is missing: give the number of events")
    streams.go_on(f"the work goes on, into {args.out}")
    starts = starts_ranks(args.ranks, os.environ)
    if ranks_of_launcher(os.environ) is not None:
        return _as_rank(args)
    check_target(args.out, args.force)
    trained_run(args.run)  # said before TensorFlow takes its seconds to load
    if not starts:
        from hpcgan.comm.base import SerialComm

        _generate(args, SerialComm())
        return EXIT_DONE
    from hpcgan.launch.outcome import launch_writing

    _asked(args, *_read_run(args.run))
    options = {"events": args.events, "conditions": args.conditions, "batch-size": args.batch_size}
    command = ["generate", str(args.run), f"--out={args.out}", f"--seed={args.seed}", f"--checkpoint={args.checkpoint}"]
    command += [f"--condition={point}" for point in args.condition]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    return launch_writing(command + ["--force"] * args.force, args.out, args.ranks)


def _as_rank(args: argparse.Namespace) -> int:
    """Generate as the rank this process is."""
    from hpcgan.training.requests import StopRequest

    stop = StopRequest()
    stop.install()  # before the slow imports: a signal during them must not be lost
    from hpcgan.comm.rank import run_as_rank

    backend = "auto"
    with contextlib.suppress(InputError):  # said below, by all ranks together
        backend = _read_run(args.run)[0].comm.backend
    if backend == "serial":  # which says how it was trained, no more
        backend = "auto"
    return run_as_rank(lambda comm: _generate(args, comm, stop), backend, at_end=stop.retire)


def _generate(args: argparse.Namespace, comm: Comm, stop: StopRequest | None = None) -> None:
    """Generate on all ranks of `comm`."""
    from hpcgan.comm.agreement import agreed

    with agreed(comm):
        if comm.is_root:
            check_target(args.out, args.force)
        config, problem = _read_run(args.run)
        conditions_of, n, warnings = _asked(args, config, problem)
        for warning in warnings if comm.is_root else ():
            note(f"warning: {warning}")

    from rich.console import Console
    from rich.progress import Progress

    import hpcgan
    from hpcgan.evaluation import sample_file
    from hpcgan.evaluation.sampling import load_sampler
    from hpcgan.launch.world import stdout_is_terminal

    token = comm.broadcast_json(secrets.token_hex(8))
    comm.watch(config.comm.timeout_s, args.out.absolute().parent / f".{args.out.name}.stalled-{token}")
    sampler = load_sampler(args.run, args.checkpoint, warn=note, comm=comm, batch_size=args.batch_size)
    info = sampler.checkpoint
    attributes = {
        "generated_by": f"hpcgan {hpcgan.__version__}",
        "run": str(args.run),
        "run_problem": config.problem,
        "step": info.step,
        "epoch": info.epoch,
        "seed": args.seed,
        **({} if info.score is None else {f"validation_{config.scoring.deciding}": info.score}),
    }
    if problem.conditions:
        of_data = f"those of random training events of {config.data.path}"
        of_file = None if args.conditions is None else f"those of {args.conditions}"
        attributes["conditions"] = of_file or "; ".join(args.condition) or of_data
    started = time.monotonic()
    console = Console(stderr=True)
    visible = comm.is_root and console.is_terminal and (comm.size == 1 or stdout_is_terminal())
    with Progress(console=console, disable=not visible) as bar:
        task = bar.add_task("generating", total=n)
        sample_file.write_samples(
            sampler,
            sample_file.SampleFile(args.out, n, args.seed, attributes, args.force),
            conditions=conditions_of,
            comm=comm,
            progress=lambda count: bar.update(task, completed=count),
            stopping=lambda: None if stop is None else stop.requested,
        )
    if stop is not None:
        stop.retire()
    if comm.is_root:
        rate = n / (time.monotonic() - started)
        print(f"{args.out}: {n} events from epoch {info.epoch} ({rate:.0f} events/s)", flush=True)


def _read_run(run: Path) -> tuple[Config, Problem]:
    """Configuration and problem of a run."""
    from hpcgan.problems import run_data
    from hpcgan.problems.base import problem_class

    config = run_data.load(trained_run(run))
    return config, problem_class(config.problem)(config.model)


def _asked(args: argparse.Namespace, config: Config, problem: Problem) -> tuple[Conditions | None, int, list[str]]:
    """What the options say, checked without TensorFlow: conditions, number of events, extrapolations to warn of."""
    if not args.condition and args.conditions is None:
        return None, args.events, []
    from hpcgan.evaluation import conditions

    n = args.events
    if args.conditions is None:
        values = conditions.of_points(problem, [conditions.parse(text) for text in args.condition], "--condition")
    else:
        values = conditions.read(problem, args.conditions)
        rows = len(next(iter(values.values())))
        n = n or rows
        if rows not in (1, n):
            raise InputError(f"{args.conditions}: has conditions of {rows} events, -n is {n}")
    return conditions.each(values), n, conditions.warnings(problem, config, values, pretrained.ranges(args.run))


def check_target(path: Path, force: bool) -> None:
    """Refuse a file's name that the command line allows but a generation does not, before any work is done.

    Raises
    ------
    InputError
        It does not end in .h5, or the file exists (and `force` is not set).
    """
    if path.suffix != ".h5":
        raise InputError(f"{path}: give --out a name that ends in .h5")
    if path.exists() and not force:
        raise InputError(f"{path}: exists already; choose another name, or --force to replace it")
