"""`hpcgan chaos`: hit a training with faults, and say whether it keeps what is promised."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, EXIT_FAILED, InputError

if TYPE_CHECKING:
    from hpcgan.chaos.verdict import Verdict
    from hpcgan.config import Config
    from hpcgan.runs.directory import RunDirectory

#: Seconds for which a process is stopped at most, where nobody watches how long ranks wait for one another.
LONGEST_STOP_S = 120.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "chaos",
        description="Train a configuration undisturbed, then again under faults: killed and stopped ranks and "
        "launchers, damaged files. Exit code 0 if the results are the same bits, nothing is lost and nothing is left "
        "behind. Only processes that the command has started are touched.",
    )
    parser.add_argument("config", type=Path, help="YAML configuration, e.g. configs/rpv.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.epochs=3")
    parser.add_argument("--out", type=arguments.output_folder, required=True, metavar="DIR",
                        help="new folder for runs, logs and the verdict")  # fmt: skip
    parser.add_argument("--failures", type=arguments.count, default=20, metavar="N", help="faults (default: 20)")
    parser.add_argument("--mtbf", type=arguments.seconds, default=30.0, metavar="SECONDS",
                        help="mean time between faults (default: 30)")  # fmt: skip
    parser.add_argument("--seed", type=arguments.seed, default=1, metavar="S", help="of times and targets (default: 1)")
    parser.add_argument("--faults", metavar="KIND,...", help="kinds of faults (default: all)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--ranks", type=arguments.processes, default=2, metavar="N", help="ranks here (default: 2)")
    where.add_argument("--slurm", action="store_true",
                       help="in jobs as 'job:' asks for, on a cluster whose daemons are yours")  # fmt: skip
    parser.add_argument("--reference", type=Path, metavar="RUN",
                        help="an undisturbed run of this configuration on as many ranks, not to train one")  # fmt: skip
    parser.add_argument("--patience", type=arguments.seconds, default=1800.0, metavar="SECONDS",
                        help="without a record, after which a training counts as hung (default: 1800)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train undisturbed, train under faults, judge."""
    from hpcgan import api
    from hpcgan import config as configuration
    from hpcgan.chaos import daemons, faults, venue, verdict
    from hpcgan.chaos.campaign import Campaign, Limits
    from hpcgan.chaos.plan import plan
    from hpcgan.launch.process import handling
    from hpcgan.runs.directory import RunDirectory
    from hpcgan.system.console import note
    from hpcgan.system.files import write_atomic

    config = configuration.load(args.config, args.overrides)
    out: Path = args.out.absolute()
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; name a new folder with --out")
    config_file = args.config.absolute()
    if args.slurm:
        daemons.check_own(os.environ)
        place, ranks = venue.in_jobs(config_file, args.overrides), config.job.ranks
    else:
        place, ranks = venue.here(config_file, args.overrides, args.ranks), args.ranks
    kinds = faults.choose([name for name in (args.faults or "").split(",") if name], place.faults)
    reference = RunDirectory(args.reference or out / "reference")
    if args.reference:
        _check_reference(reference, config, ranks)
    api.preflight(config, RunDirectory(out / "run-01"), ranks, here=not args.slurm)
    out.mkdir(parents=True, exist_ok=True)
    limits = Limits(2.0 * (config.comm.timeout_s or LONGEST_STOP_S / 2.0), args.patience)
    planned = plan(kinds, args.failures, args.mtbf, args.seed)
    campaign = Campaign(place, planned, out, limits, lambda line: note(f"hpcgan: {line}"))
    with handling(("SIGTERM", "SIGHUP"), _interrupt):  # what was started ends with this process, and daemons come back
        if not args.reference:
            note("hpcgan: training undisturbed")
            campaign.train_undisturbed(reference)
        campaign.run()
    result = verdict.judge(campaign.runs, reference, campaign.findings, campaign.log_file)
    write_atomic(out / "verdict.json", json.dumps(result.plain(), indent=1) + "\n")
    _print(result, out)
    return EXIT_DONE if result.holds else EXIT_FAILED


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _check_reference(reference: RunDirectory, config: Config, ranks: int) -> None:
    """Refuse a run that is not what the campaign would have trained undisturbed.

    Raises
    ------
    InputError
        Another configuration, other ranks, or no end.
    """
    from hpcgan.runs import records
    from hpcgan.runs.records import End, Start

    theirs = reference.load_config()
    reference.check_config(config, theirs)
    starts, ends = records.read(reference.metrics_file, Start), records.read(reference.metrics_file, End)
    if len(starts) != 1 or not ends or ends[-1].cause != "finished":
        raise InputError(f"{reference.path}: was not trained to its end in one attempt; leave --reference out")
    if (starts[0].ranks, theirs.training.epochs) != (ranks, config.training.epochs):
        raise InputError(
            f"{reference.path}: has {theirs.training.epochs} epochs of {starts[0].ranks} ranks, not "
            f"{config.training.epochs} of {ranks}; leave --reference out"
        )


def _print(result: Verdict, out: Path) -> None:
    """The verdict as a table."""
    from hpcgan.system.console import print_table

    counts = ", ".join(f"{kind} {row['injected']}" for kind, row in result.faults.items())
    print_table(("promised", "kept", "how"), result.rows(), [f"faults: {counts}", f"verdict: {out / 'verdict.json'}"],
                texts=("promised", "kept", "how"))  # fmt: skip
