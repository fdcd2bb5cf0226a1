"""`hpcgan jobs`: the runs of a folder, with their jobs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.errors import EXIT_DONE, InputError

if TYPE_CHECKING:
    from hpcgan.runs.directory import RunDirectory

#: Lines of a log that `--log` shows.
LOG_LINES = 200


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "jobs",
        description="List the runs in a folder: state of their Slurm jobs, epochs done, best score, "
        "goodput (steps that count over the time in which cores were held), time left.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), metavar="FOLDER|RUN",
                        help="folder of runs, or one run (default: runs)")  # fmt: skip
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="as JSON")
    what.add_argument("--log", action="store_true", help="of one run: where its newest log is, and its end")
    what.add_argument("--cancel", action="store_true", help="of one run: end its job, with a checkpoint if it trains")


def run(args: argparse.Namespace) -> int:
    """Print the table, or do what was asked for with one run."""
    from hpcgan.launch import run_status
    from hpcgan.runs.directory import RunDirectory

    if not args.folder.is_dir():
        raise InputError(f"{args.folder}: no such folder; name the one your runs are in")
    if args.log or args.cancel:
        run = RunDirectory(args.folder)
        if not run_status.is_run(run.path):
            option = "--log" if args.log else "--cancel"
            raise InputError(f"{run.path}: is no run; {option} is for one run directory, not for a folder of them")
        return _log(run) if args.log else _cancel(run)
    statuses = run_status.list_runs(args.folder)
    if args.json:
        print(json.dumps([status.plain() for status in statuses], indent=2))
    elif not statuses:
        print(f"no runs in {args.folder}")
    else:
        run_status.print_statuses(statuses)
    return EXIT_DONE


def _log(run: RunDirectory) -> int:
    """The end of a run's newest log."""
    from hpcgan.launch import run_status

    path = run_status.newest_log(run)
    if path is None:
        raise InputError(f"{run.path}: no job has written a log there (slurm-*.out); one that waits has none yet")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    left_out = len(lines) - LOG_LINES
    print(f"log: {path}" + (f" (the last {LOG_LINES} lines of {len(lines)})" if left_out > 0 else ""))
    for line in lines[-LOG_LINES:]:
        print(line)
    return EXIT_DONE


def _cancel(run: RunDirectory) -> int:
    """End a run's jobs."""
    from hpcgan.launch import run_status

    for line in run_status.cancel(run) or [f"no job of {run.path} is in the queue"]:
        print(line)
    return EXIT_DONE
