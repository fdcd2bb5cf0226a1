"""`hpcgan generate`: samples of a trained run, as a file in the layout of the training data."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hpcgan.data.schema import sample_bytes
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.rundir import RunDirectory

if TYPE_CHECKING:
    from hpcgan.data.schema import Sample
    from hpcgan.evaluation.conditions import Conditions
    from hpcgan.problems.base import Problem

CHUNK_BYTES = 64 << 20  # of samples in memory at a time, about: 4,096 detector images


class Sampler(Protocol):
    """What generation needs of a trained run (`hpcgan.evaluation.sample.RunSampler`)."""

    problem: Problem

    @property
    def batch_size(self) -> int: ...

    def sample(self, n: int, seed: int, first: int = 0, conditions: Conditions | None = None) -> Sample: ...


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "generate",
        help="samples of a trained run as a file",
        description="Sample a run's generator into a file of the same layout as the training data.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("-n", "--events", type=int, required=True, metavar="N", help="number of events")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="what a conditional model shall make, e.g. mGlu=1600,mNeu=850 (GeV); repeat the option for equal shares "
        "of several points, in turn (default: as in random training events)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the noise (default: 1)")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    """Generate and write."""
    if args.events < 1:
        raise InputError(f"-n {args.events}: give at least 1")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: must not be negative")
    check_target(args.out, args.force)
    if not RunDirectory(args.run).exists:  # said before TensorFlow takes its seconds to load
        raise InputError(f"{args.run}: not a run directory (no config.yaml in it)")
    asked = _asked(args.run, args.condition) if args.condition else None

    from rich.console import Console
    from rich.progress import Progress

    import hpcgan
    from hpcgan.evaluation.sample import load_sampler

    console = Console(stderr=True)
    sampler = load_sampler(args.run, args.checkpoint, warn=lambda text: print(text, file=sys.stderr, flush=True))
    info = sampler.checkpoint
    attributes = {
        "generated_by": f"hpcgan {hpcgan.__version__}",
        "run": str(args.run),
        "step": info.step,
        "epoch": info.epoch,
        "seed": args.seed,
        **({} if info.score is None else {"validation_score": info.score}),
    }
    if sampler.problem.conditions:
        of_data = f"those of random training events of {sampler.config.data.path}"
        attributes["conditions"] = "; ".join(args.condition) or of_data
    started = time.monotonic()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("generating", total=args.events)
        generate(
            sampler,
            args.events,
            args.seed,
            args.out,
            attributes,
            args.force,
            lambda done: bar.update(task, completed=done),
            asked,
        )
    rate = args.events / (time.monotonic() - started)
    print(f"{args.out}: {args.events} events from epoch {info.epoch} ({rate:.0f} events/s)")
    return EXIT_DONE


def _asked(run: Path, texts: Sequence[str]) -> Conditions:
    """What the options say, checked before TensorFlow takes its seconds to load; warns of extrapolations.

    Raises
    ------
    InputError
        Not a condition of the run's problem, one that is missing, or what no event can have.
    """
    from hpcgan.evaluation import conditions
    from hpcgan.problems.base import Problems, problem_class

    config = RunDirectory(run).load_config(Problems())
    problem = problem_class(config.problem)(config.model)
    points = [conditions.parse(text) for text in texts]
    conditions.check_points(problem, points)
    asked = conditions.in_turn(points, problem.schema)
    for warning in conditions.warnings(problem, config, asked(0, len(points))):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return asked


def check_target(path: Path, force: bool) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Raises
    ------
    InputError
        The file exists (and `force` is not set), is a folder, or its folder does not exist or is read-only.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give --out a file name")
    if path.exists() and not force:
        raise InputError(f"{path}: exists already; choose another name, or --force to replace it")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path}: the folder is not writable")


def generate(
    sampler: Sampler,
    n: int,
    seed: int,
    path: Path,
    attributes: Mapping[str, Any],
    force: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    conditions: Conditions | None = None,
) -> None:
    """Write the first `n` samples of the sequence of a seed, some megabytes in memory at a time.

    Parameters
    ----------
    sampler : Sampler
    n, seed : int
    path : Path
    attributes : mapping
        Written into the file.
    force : bool
        Replace an existing file, which stays until the new one is complete.
    progress : callable
        Hears the number of samples done.
    conditions : Conditions, optional
        What the events are asked for; default: the sampler's.

    Raises
    ------
    InputError
        The file cannot be written, or exists.
    """
    limit = CHUNK_BYTES // sample_bytes(sampler.problem.schema)
    size = sampler.batch_size * max(1, limit // sampler.batch_size)
    with sampler.problem.writer(path, n, attributes, force) as append:
        for first in range(0, n, size):
            count = min(size, n - first)
            given = {} if conditions is None else {"conditions": conditions}
            append(sampler.sample(count, seed, first, **given))
            progress(first + count)
