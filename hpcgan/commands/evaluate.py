"""`hpcgan evaluate`: physics score and report of a run, or of anybody's files."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hpcgan.commands import arguments, events, protocols
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.system import streams
from hpcgan.system.console import note

if TYPE_CHECKING:
    from hpcgan.evaluation.distances import Options

SPLITS = ("test", "val", "train")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "evaluate",
        description="Score generated events against held-out real ones, beside what real events score "
        "against each other, and write a report: one HTML page, one JSON file.",
    )
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--real", type=Path, metavar="FILE", help="instead of RUN: real events, HDF5")
    parser.add_argument("--fake", type=Path, metavar="FILE", help="instead of RUN: generated events, HDF5")
    parser.add_argument("--problem", metavar="NAME", help="what the files hold (default: what they say)")
    events.add_options(parser, "--real", " and --fake")
    parser.add_argument("--checkpoint", choices=("best", "latest"), help="weights of a RUN (default: best)")
    parser.add_argument("--split", choices=SPLITS, help="real events of a RUN's data (default: test)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="real events (default: a RUN's own data, wherever they lie now)"
    )
    parser.add_argument(
        "--samples", type=arguments.count, default=5, metavar="K", help="generated samples (default: 5)"
    )
    parser.add_argument(
        "--events",
        type=arguments.whole(2),
        metavar="N",
        help="events on each side (default: scoring.events of the run, 4096 for files)",
    )
    parser.add_argument(
        "--out", type=arguments.output_folder, metavar="DIR", help="folder of the report (default: RUN/report)"
    )
    parser.add_argument(
        "--distances",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="FPD, KPD, precision, recall, density, coverage, memorisation (default: yes)",
    )
    parser.add_argument(
        "--classifier",
        choices=("features", "cells", "both", "images", "conditions", "none"),
        action="append",
        help="train classifiers to tell generated from real events, on observables, cells, both of these (takes long) "
        "or images, or to tell conditions apart; may be given several times (default: images, where samples are such, "
        "of 1000 events or more)",
    )
    parser.add_argument(
        "--classifier-units",
        type=arguments.whole(1, 10**6),
        metavar="N",
        help="of classifiers on features, cells and conditions, units of their three layers (default: 2048)",
    )
    parser.add_argument(
        "--classifier-epochs", type=arguments.count, metavar="N", help="epochs of these, at most (default: 50)"
    )
    protocols.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the report and print its summary."""
    from hpcgan.evaluation import report
    from hpcgan.evaluation.compare import EvaluationOptions

    if (args.real is None) != (args.fake is None):
        missing = "--fake" if args.fake is None else "--real"
        raise InputError(f"{missing} is missing: give --real FILE and --fake FILE together")
    if args.protocol is not None:
        return protocols.run(args)
    protocols.check_absent(args)
    if (args.run is None) == (args.real is None):
        raise InputError("give either a run directory, or --real FILE and --fake FILE")
    options = EvaluationOptions(args.samples, args.events, distances=_distances(args))
    streams.go_on("the report is written all the same")
    if args.run is not None:
        if args.problem is not None:
            raise InputError("--problem goes with --real and --fake; a run knows its problem")
        options_of_files = (
            ("select", "data.select", args.select),
            ("ignore-weights", "data.weights", args.ignore_weights),
        )
        for option, key, value in options_of_files:
            if value:
                raise InputError(f"--{option} goes with --real and --fake; a run has {key} in its configuration")
        page = report.evaluate_run(
            args.run,
            options,
            checkpoint=args.checkpoint or "best",
            split=args.split or "test",
            data=args.data,
            out=args.out,
            log=note,
        )
    else:
        for option in ("checkpoint", "split", "data"):
            if getattr(args, option) is not None:
                raise InputError(f"--{option} goes with a run directory, not with --real and --fake")
        page = report.compare_files(
            args.real,
            args.fake,
            options,
            problem=args.problem,
            use=events.use_of(args),
            out=args.out,
            log=note,
        )
    print(report.summary(page))
    return EXIT_DONE


def _distances(args: argparse.Namespace) -> Options:
    """Which distances between samples are asked for."""
    from hpcgan.evaluation.distances import DEFAULTS, Inputs, Options

    words = {*(args.classifier or ())}
    if "none" in words and len(words) > 1:
        raise InputError("--classifier none goes with no other")
    if "both" in words:
        words |= {"features", "cells"}
    inputs = [name for name in get_args(Inputs) if name in words]
    for name in ("units", "epochs"):
        if getattr(args, f"classifier_{name}") is not None and not {"features", "cells", "conditions"} & words:
            raise InputError(f"--classifier-{name} goes with --classifier features, cells, both or conditions")
    if inputs and importlib.util.find_spec("tensorflow") is None:  # said before minutes of scoring
        raise InputError("--classifier needs TensorFlow: pip install 'hpcgan[train]'")
    return Options(
        distances=args.distances,
        classifier=None if args.classifier is None else tuple(inputs),
        units=args.classifier_units or DEFAULTS.units,
        epochs=args.classifier_epochs or DEFAULTS.epochs,
    )
