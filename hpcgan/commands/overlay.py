"""`hpcgan overlay`: real and generated pileup on signal events, and what they do to the jets."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcgan.commands import arguments, events
from hpcgan.errors import EXIT_DONE
from hpcgan.system import streams
from hpcgan.system.console import note


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "overlay",
        description="Add real and generated pileup to the same signal events, find jets, and report how jet "
        "multiplicity and summed jet mass shift: one HTML page, one JSON file, figures as PNG.",
    )
    parser.add_argument(
        "--pileup",
        type=Path,
        required=True,
        metavar="RUN|FILE",
        help="a run of 'problem: pileup', a file of generated pileup, or a pool",
    )
    parser.add_argument("--signal", type=Path, required=True, metavar="FILE", help="signal events, HDF5")
    events.add_options(parser, "--signal")
    parser.add_argument(
        "--real-pileup",
        type=Path,
        metavar="DIR",
        help="folder with the pools test.h5 and val.h5 (default: the data of the RUN)",
    )
    parser.add_argument(
        "--mu", type=arguments.whole(1, 1000), required=True, metavar="M", help="minimum-bias events of a pileup"
    )
    parser.add_argument(
        "--events", type=arguments.whole(2), default=4096, metavar="N", help="signal events, at most (default: 4096)"
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "latest"), default="best", help="weights of a RUN (default: best)"
    )
    parser.add_argument(
        "--seed", type=arguments.seed, default=1, metavar="S", help="of the noise of a RUN (default: 1)"
    )
    parser.add_argument(
        "--out", type=arguments.output_folder, required=True, metavar="DIR", help="folder of the report"
    )


def run(args: argparse.Namespace) -> int:
    """Overlay, write the report and print its summary."""
    from hpcgan.overlay import study

    streams.go_on(f"the report goes into {args.out}")

    options = study.OverlayOptions(args.real_pileup, args.events, events.use_of(args), args.checkpoint, args.seed)
    report = study.overlay(args.pileup, args.signal, args.mu, args.out, options, log=note)
    print(study.summary(report))
    return EXIT_DONE
