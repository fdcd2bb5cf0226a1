"""`hpcgan track RUN`: a run in MLflow or Weights & Biases, made from its records."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from hpcgan.errors import EXIT_DONE, InputError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "track",
        description="Show a run in a tracker of experiments, or tell the tracker what it does not know yet: "
        "parameters, curves, generated events, reports. A training with tracking.to does so by itself. All attempts at "
        "a training are one tracked run.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--to", metavar="TRACKER", help="mlflow, wandb, or package.module:Class (default: tracking.to)")
    parser.add_argument("--uri", metavar="URI", help="server or database (default: tracking.uri)")
    parser.add_argument("--project", metavar="NAME", help="experiment or project (default: tracking.project)")
    parser.add_argument("--python", metavar="FILE", help="Python with the tracker's package (default: tracking.python)")
    parser.add_argument("--anew", action="store_true", help="begin another tracked run, and put this one aside")


def run(args: argparse.Namespace) -> int:
    """Tell the tracker, here or in another Python."""
    from hpcgan.config import TrackingConfig, validated
    from hpcgan.runs.directory import RunDirectory
    from hpcgan.tracking import process

    directory = RunDirectory(args.run)
    stored = process.read_settings(directory)
    options = {name: getattr(args, name) for name in ("to", "uri", "project", "python")}
    changes = {name: value for name, value in options.items() if value is not None}
    settings = validated(TrackingConfig, {**stored.model_dump(mode="json"), **changes}, "options", "tracking")
    if settings.to is None:
        raise InputError(f"{directory.path}: --to is missing: the run's configuration has no tracking.to")
    if settings.python is None:
        print(process.track(directory, settings, anew=args.anew))
        return EXIT_DONE
    words = ["anew" if args.anew else "once"]
    try:
        return subprocess.run(process.command(settings, directory.path.absolute(), *words), check=False).returncode
    except OSError as error:
        raise InputError(f"--python {settings.python}: cannot be started: {error.strerror}") from None
