"""`hpcgan evaluate`: physics score and report of a run, or of anybody's files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcgan.errors import EXIT_DONE, InputError

SPLITS = ("test", "val", "train")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="physics score and report (HTML, JSON) of a run or of files",
        description="Score generated events against held-out real ones, beside what real events score "
        "against each other, and write a report: one HTML page, one JSON file.",
    )
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--real", type=Path, metavar="FILE", help="instead of RUN: real events, HDF5")
    parser.add_argument("--fake", type=Path, metavar="FILE", help="instead of RUN: generated events, HDF5")
    parser.add_argument("--problem", metavar="NAME", help="what the files hold (default: what they say, or rpv)")
    parser.add_argument("--checkpoint", choices=("best", "latest"), help="weights of a RUN (default: best)")
    parser.add_argument("--split", choices=SPLITS, help="real events of a RUN's data (default: test)")
    parser.add_argument("--samples", type=int, default=5, metavar="K", help="generated samples (default: 5)")
    parser.add_argument(
        "--events",
        type=int,
        metavar="N",
        help="events on each side (default: scoring.events of the run, 4096 for files)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report (default: RUN/report)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the report and print its summary."""
    from hpcgan.evaluation import report

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if (args.real is None) != (args.fake is None):
        missing = "--fake" if args.fake is None else "--real"
        raise InputError(f"{missing} is missing: give --real FILE and --fake FILE together")
    if (args.run is None) == (args.real is None):
        raise InputError("give either a run directory, or --real FILE and --fake FILE")
    if args.run is not None:
        if args.problem is not None:
            raise InputError("--problem goes with --real and --fake; a run knows its problem")
        made = report.evaluate_run(
            args.run,
            checkpoint=args.checkpoint or "best",
            split=args.split or "test",
            samples=args.samples,
            events=args.events,
            out=args.out,
            log=log,
        )
    else:
        for option in ("checkpoint", "split"):
            if getattr(args, option) is not None:
                raise InputError(f"--{option} goes with a run directory, not with --real and --fake")
        made = report.compare_files(
            args.real,
            args.fake,
            problem=args.problem,
            samples=args.samples,
            events=4096 if args.events is None else args.events,
            out=args.out,
            log=log,
        )
    print(report.summary(made))
    return EXIT_DONE
