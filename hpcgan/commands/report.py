"""`hpcgan report RUNS...`: runs compared in one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.system import streams


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "report",
        description="Compare runs in one page: curves, scores, what their time went to, cost in core-hours, and in "
        "what their configurations differ. Runs that are not done yet count as far as they are. 'hpcgan evaluate' "
        "scores the generator of one run.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN|FOLDER", help="run directories, or folders of them")
    parser.add_argument("--out", type=arguments.output_folder, default=Path("runs-report"), metavar="DIR",
                        help="folder of the page (default: runs-report)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the page, and print a line a run."""
    from hpcgan.evaluation import campaign
    from hpcgan.runs.directory import RunDirectory

    paths: list[Path] = []
    for path in args.runs:
        if RunDirectory(path).exists or not path.is_dir():
            paths.append(path)
            continue
        members = sorted(entry for entry in path.iterdir() if RunDirectory(entry).exists)
        if not members:
            raise InputError(f"{path}: is neither a run nor a folder of runs (no config.yaml)")
        paths += members
    streams.go_on("the page is written all the same")
    report = campaign.compare_runs(paths, args.out)
    print("\n".join(campaign.table(report.data)))
    print(f"report: {report.html}")
    print(f"        {report.json}")
    return EXIT_DONE
