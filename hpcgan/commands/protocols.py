"""`hpcgan evaluate --protocol`: a comparison that others have defined, on all ranks at hand."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.runs import pretrained
from hpcgan.runs.directory import trained_run
from hpcgan.system import streams
from hpcgan.system.console import note

if TYPE_CHECKING:
    from hpcgan.calochallenge.inputs import Files, Run
    from hpcgan.calochallenge.protocol import Inputs, Options
    from hpcgan.comm.base import Comm

#: Words of `--classifier`, and what the challenge's classifiers are trained on.
CLASSIFIERS: dict[str, tuple[Inputs, ...]] = {
    "features": ("high",),
    "cells": ("low",),
    "both": ("low", "high"),
    "none": (),
}
#: Options that only a protocol has.
OWN = ("binning", "other_real", "cut", "trainings", "ranks")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--protocol` and what goes with it."""
    group = parser.add_argument_group("comparisons that others have defined")
    group.add_argument(
        "--protocol",
        choices=("calochallenge",),
        help="instead: the CaloChallenge's comparison of calorimeter showers (arXiv:2410.21611), of a RUN of problem "
        "calogan, or of CaloChallenge or CaloGAN files; --classifier cells is its low level, features its high level",
    )
    group.add_argument("--binning", type=Path, metavar="XML", help="voxels of CaloChallenge files (default: published)")
    group.add_argument("--other-real", type=Path, metavar="FILE", help="more real showers, to hold --real against")
    group.add_argument("--cut", type=arguments.real(), metavar="MEV", help="voxels below it become 0 on all sides")
    group.add_argument(
        "--trainings", type=arguments.whole(1, 1000), metavar="K", help="trainings of each classifier (default: 10)"
    )
    group.add_argument("--ranks", type=arguments.processes, metavar="R", help="start R ranks, which share trainings")


def check_absent(args: argparse.Namespace) -> None:
    """Refuse what only a protocol has.

    Raises
    ------
    InputError
    """
    for name in OWN:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} goes with --protocol calochallenge")


def run(args: argparse.Namespace) -> int:
    """Compare, write the report and print its table, here or on several ranks."""
    from hpcgan.launch.world import ranks_of_launcher, starts_ranks

    _check(args)
    options, out = _options(args), _out(args)
    streams.go_on("the report is written all the same")
    starts = starts_ranks(args.ranks, os.environ)
    if ranks_of_launcher(os.environ) is not None:
        from hpcgan.comm.rank import run_as_rank

        return run_as_rank(lambda comm: _compare(args, options, out, comm))
    _inputs(args)  # what can be refused before ranks start
    if not starts:
        from hpcgan.comm.base import SerialComm

        _compare(args, options, out, SerialComm())
        return EXIT_DONE
    from hpcgan.calochallenge.report import STEM
    from hpcgan.launch.outcome import launch_writing

    return launch_writing(_command(args, out), out / f"{STEM}.json", args.ranks)


def _check(args: argparse.Namespace) -> None:
    if (args.run is None) == (args.real is None):
        raise InputError("give either a run directory, or --real FILE and --fake FILE")
    foreign = {"problem": args.problem, "select": args.select, "ignore-weights": args.ignore_weights}
    foreign["samples"] = args.samples if args.samples != 5 else None
    of_files = {"binning": args.binning, "other-real": args.other_real}
    of_run = {"checkpoint": args.checkpoint, "split": args.split, "data": args.data}
    for name, value in foreign.items():
        if value:
            raise InputError(f"--{name} does not go with --protocol calochallenge")
    for name, value in (of_files if args.run is not None else of_run).items():
        if value is not None:
            where = "--real and --fake" if args.run is not None else "a run directory"
            raise InputError(f"--{name} goes with {where}")
    if args.run is not None and args.out is None and pretrained.is_name(args.run):
        raise InputError(f"{args.run}: --out is missing: name a folder for the report")


def _options(args: argparse.Namespace) -> Options:
    from hpcgan.calochallenge.protocol import DEFAULTS, Options

    words = args.classifier or ["both"]
    if unknown := [word for word in words if word not in CLASSIFIERS]:
        raise InputError(f"--classifier {unknown[0]} does not go with --protocol calochallenge: take cells or features")
    if "none" in words and len(set(words)) > 1:
        raise InputError("--classifier none goes with no other")
    chosen = {inputs for word in words for inputs in CLASSIFIERS[word]}
    if chosen and importlib.util.find_spec("tensorflow") is None:
        raise InputError("--classifier needs TensorFlow: pip install 'hpcgan[train]', or take --classifier none")
    if not chosen and not args.distances:
        raise InputError("--classifier none --no-distances leaves nothing to compare")
    return Options(
        classifiers=tuple(inputs for inputs in DEFAULTS.classifiers if inputs in chosen),
        trainings=args.trainings or DEFAULTS.trainings,
        units=args.classifier_units or DEFAULTS.units,
        epochs=args.classifier_epochs or DEFAULTS.epochs,
        distances=args.distances,
    )


def _out(args: argparse.Namespace) -> Path:
    if args.out is not None:
        return Path(args.out)
    if args.run is not None:
        return trained_run(args.run).report
    fake: Path = args.fake
    return fake.with_name(f"{fake.stem}-report")


def _inputs(args: argparse.Namespace) -> Files | Run:
    from hpcgan.calochallenge.inputs import Files, Run

    if args.run is None:
        for path in (args.real, args.fake, args.other_real, args.binning):
            if path is not None and not path.is_file():
                raise InputError(f"{path}: no such file")
        return Files(args.real, args.fake, args.other_real, args.binning, args.events, args.cut or 0.0)
    inputs = Run(args.run, args.checkpoint or "best", args.split or "test", args.data, args.events, args.cut or 0.0)
    inputs.check()
    return inputs


def _compare(args: argparse.Namespace, options: Options, out: Path, comm: Comm) -> None:
    """Compare on all ranks of `comm`."""
    from hpcgan.calochallenge import report
    from hpcgan.comm.agreement import agreed

    with agreed(comm):
        inputs = _inputs(args)
    where = "" if comm.size == 1 else f"[{comm.rank}] "
    written_report = report.compare(inputs, out, options, comm, lambda text: note(where + text))
    if written_report is not None:
        print(report.summary(written_report), flush=True)


def _command(args: argparse.Namespace, out: Path) -> list[str]:
    """The command line of each rank."""
    command = [
        "evaluate",
        *([] if args.run is None else [str(args.run)]),
        f"--protocol={args.protocol}",
        f"--out={out}",
    ]
    names = ["real", "fake", "binning", "other_real", "cut", "trainings", "checkpoint", "split", "data", "events"]
    names += ["classifier_units", "classifier_epochs"]
    values = {name: getattr(args, name) for name in names}
    command += [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
    command += [f"--classifier={word}" for word in args.classifier or ()]
    return command + ([] if args.distances else ["--no-distances"])
