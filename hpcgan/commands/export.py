"""`hpcgan export`: the generator of a run as a SavedModel."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.runs.directory import trained_run
from hpcgan.system import streams
from hpcgan.system.console import note


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "export",
        description="Write a run's generator as a SavedModel that takes noise and conditions and gives samples in "
        "physical units, in batches of any size. TensorFlow and TensorFlow Serving run it without hpcgan.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--out",
        type=arguments.output_folder,
        required=True,
        metavar="DIR",
        help="folder to make; for TensorFlow Serving MODEL/VERSION, e.g. models/gamma/1",
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")


def run(args: argparse.Namespace) -> int:
    """Export."""
    if args.out.exists():  # said before TensorFlow takes its seconds to load
        raise InputError(f"{args.out}: exists already; give --out a folder that does not")
    trained_run(args.run)
    streams.go_on(f"the work goes on, into {args.out}")
    from hpcgan.evaluation.export import SIGNATURE, export
    from hpcgan.evaluation.sampling import load_sampler

    sampler = load_sampler(args.run, args.checkpoint, warn=note)
    contents = export(sampler, args.run, args.out)
    if contents["statistics"] == "batch":
        note(
            f"warning: this run generates with the statistics of batches of {contents['batch_size']} "
            "(scoring.statistics=batch), and so does the model: what it gives for a sample depends on the others of "
            f"the request; send {contents['batch_size']} at a time"
        )
    print(f"{args.out}: {contents['problem']}, epoch {contents['epoch']}, {contents['weights']}, signature {SIGNATURE}")
    for kind in ("input", "output"):
        for name, tensor in contents[f"{kind}s"].items():
            shape = ", ".join("n" if length is None else str(length) for length in tensor["shape"])
            what = tensor.get("unit") or tensor.get("distribution", "")
            print(f"  {kind:6} {name} ({shape}) {tensor['dtype']} {what}".rstrip())
    return EXIT_DONE
