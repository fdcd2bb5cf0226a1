"""`hpcgan export`: the generator of a run as a program that other software runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.runs.directory import trained_run
from hpcgan.system import streams
from hpcgan.system.console import note

FORMATS = ("savedmodel", "onnx", "par04")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "export",
        description="Write a run's generator as a program that takes noise and conditions and gives samples in "
        "physical units, in batches of any size. TensorFlow and TensorFlow Serving run a SavedModel without hpcgan, "
        "ONNX Runtime an ONNX model, from Python, C++ and other languages.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--out",
        type=arguments.output_folder,
        required=True,
        metavar="DIR",
        help="folder to make; for TensorFlow Serving MODEL/VERSION, e.g. models/gamma/1",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="savedmodel",
        help="par04: an ONNX model of showers as Geant4's example Par04 takes it, with a macro (default: savedmodel)",
    )
    parser.add_argument(
        "--noise",
        choices=("given", "drawn"),
        default="given",
        help="whether the noise is an input of an ONNX model, or is drawn in it from a seed: the events of "
        "'hpcgan generate --seed' (default: given)",
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")


def run(args: argparse.Namespace) -> int:
    """Export."""
    if args.out.exists():  # said before TensorFlow takes its seconds to load
        raise InputError(f"{args.out}: exists already; give --out a folder that does not")
    if args.noise == "drawn" and args.format != "onnx":
        raise InputError("--noise drawn needs --format onnx")
    trained_run(args.run)
    streams.go_on(f"the work goes on, into {args.out}")
    contents, what = _saved_model(args) if args.format == "savedmodel" else _onnx(args)
    if contents["statistics"] == "batch":
        note(
            f"warning: this run generates with the statistics of batches of {contents['batch_size']} "
            "(scoring.statistics=batch), and so does the model: what it gives for a sample depends on the others of "
            f"the request; send {contents['batch_size']} at a time"
        )
    print(f"{args.out}: {contents['problem']}, epoch {contents['epoch']}, {contents['weights']}, {what}")
    for kind in ("input", "output"):
        for name, tensor in contents[f"{kind}s"].items():
            shape = ", ".join("n" if length is None else str(length) for length in tensor["shape"])
            meaning = tensor.get("unit") or tensor.get("distribution") or tensor.get("meaning", "")
            print(f"  {kind:6} {name} ({shape}) {tensor['dtype']} {meaning}".rstrip())
    return EXIT_DONE


def _saved_model(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What was written, and the end of the line that says so."""
    from hpcgan.evaluation.export import SIGNATURE, export
    from hpcgan.evaluation.sampling import load_sampler

    return export(load_sampler(args.run, args.checkpoint, warn=note), args.run, args.out), f"signature {SIGNATURE}"


def _onnx(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from hpcgan.evaluation import onnx_export, onnx_par04
    from hpcgan.evaluation.sampling import load_sampler

    onnx_export.check_installed()
    sampler = load_sampler(args.run, args.checkpoint, warn=note)
    if args.format == "par04":
        contents = onnx_par04.export(sampler, args.run, args.out)
    else:
        contents = onnx_export.export(sampler, args.run, args.out, args.noise)
    return contents, f"{onnx_export.MODEL}, opset {contents['opset']}"
