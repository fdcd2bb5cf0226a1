"""`hpcgan jobs`: the runs of a folder, with their jobs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hpcgan.errors import EXIT_DONE, InputError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "jobs",
        help="list runs with queue state, epoch, score and time left",
        description="List the runs in a folder: state of their Slurm jobs, epochs done, best score, time left.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from dataclasses import asdict

    from hpcgan.launch import jobs

    if not args.folder.is_dir():
        raise InputError(f"{args.folder}: no such folder; name the one your runs are in")
    found = jobs.list_runs(args.folder)
    if args.json:
        print(json.dumps([asdict(status) for status in found], indent=2))
    elif not found:
        print(f"no runs in {args.folder}")
    else:
        jobs.print_statuses(found)
    return EXIT_DONE
