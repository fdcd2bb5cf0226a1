"""`hpcgan chaos`: hit a training or a search with faults, and say whether it keeps what is promised."""

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
    from hpcgan.chaos.faults import Fault
    from hpcgan.chaos.venue import Venue
    from hpcgan.chaos.verdict import Promises, Verdict
    from hpcgan.config import Config
    from hpcgan.runs.directory import RunDirectory

#: Seconds for which a process is stopped at most, where nobody watches how long ranks wait for one another.
LONGEST_STOP_S = 120.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "chaos",
        description="Train a configuration, or with --trials search with it, undisturbed, then again under faults: "
        "killed and stopped processes, damaged files. Exit code 0 if the results are the same bits, nothing is lost "
        "and nothing is left behind. Only processes that the command has started are touched.",
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
    parser.add_argument("--trials", type=arguments.count, metavar="N",
                        help="hit a search of so many trials ('hpcgan sweep') instead of a training")  # fmt: skip
    parser.add_argument("--concurrency", type=arguments.count, metavar="K", help="trials at a time")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--ranks", type=arguments.processes, metavar="N",
                       help="ranks here, of a training (default: 2), or of a trial (default: 1)")  # fmt: skip
    where.add_argument("--slurm", action="store_true",
                       help="in jobs as 'job:' asks for, on a cluster whose daemons are yours")  # fmt: skip
    parser.add_argument("--reference", type=Path, metavar="RUN",
                        help="an undisturbed run of this configuration on as many ranks, not to train one")  # fmt: skip
    parser.add_argument("--patience", type=arguments.seconds, default=1800.0, metavar="SECONDS",
                        help="without a record, after which a training counts as hung (default: 1800)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train or search undisturbed, do it again under faults, judge."""
    out: Path = args.out.absolute()
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; name a new folder with --out")
    return _trainings(args, out) if args.trials is None else _searches(args, out)


def _trainings(args: argparse.Namespace, out: Path) -> int:
    from hpcgan import api
    from hpcgan import config as configuration
    from hpcgan.chaos import daemons, venue, verdict
    from hpcgan.runs.directory import RunDirectory

    if args.concurrency is not None:
        raise InputError("--concurrency: is about the trials of a search; give --trials, too")
    config = configuration.load(args.config, args.overrides)
    config_file = args.config.absolute()
    if args.slurm:
        daemons.check_own(os.environ)
        place, ranks = venue.in_jobs(config_file, args.overrides), config.job.ranks
    else:
        ranks = args.ranks or 2
        place = venue.here(config_file, args.overrides, ranks)
    kinds = _kinds(args, place)
    if args.reference:
        _check_reference(RunDirectory(args.reference), config, ranks)
    api.preflight(config, RunDirectory(out / "run-01"), ranks, here=not args.slurm)
    return _campaign(args, out, place, kinds, verdict.OF_TRAININGS, config.comm.timeout_s)


def _searches(args: argparse.Namespace, out: Path) -> int:
    from hpcgan import api
    from hpcgan.chaos import venue, verdict_search
    from hpcgan.runs.directory import RunDirectory
    from hpcgan.sweep import study
    from hpcgan.sweep.space import OWN_SAMPLERS

    base, space = study.load(args.config, args.overrides)
    asked = {"trials": args.trials, **({"ranks": args.ranks} if args.ranks else {})}
    base = base.model_copy(update={"sweep": base.sweep.model_copy(update=asked)})
    base = study.with_trials(base, space)
    ranks = base.sweep.ranks or 1
    if args.slurm or base.sweep.executor != "local":
        raise InputError("--trials: a campaign against a search has its trials on this machine (--executor local)")
    if base.sweep.sampler not in OWN_SAMPLERS or base.sweep.pruner != "none":
        chosen = f"sweep.sampler={base.sweep.sampler} with sweep.pruner={base.sweep.pruner}"
        raise InputError(
            f"{chosen}: what is tried depends on what has ended before, so no two searches are alike; a campaign needs "
            f"{' or '.join(OWN_SAMPLERS)} without a pruner"
        )
    options = ["--trials", str(base.sweep.trials), "--ranks", str(ranks)]
    options += [] if args.concurrency is None else ["--concurrency", str(args.concurrency)]
    place = venue.searching(args.config.absolute(), args.overrides, options)
    kinds = _kinds(args, place)
    if args.reference:
        raise InputError("--reference: is a run, of a campaign against trainings; leave it out")
    api.preflight(base, RunDirectory(Path(os.devnull) / "none"), ranks)
    return _campaign(args, out, place, kinds, verdict_search.OF_SEARCHES, base.comm.timeout_s)


def _kinds(args: argparse.Namespace, place: Venue) -> list[Fault]:
    """Which faults there are to be."""
    from hpcgan.chaos import faults

    return faults.choose([name for name in (args.faults or "").split(",") if name], place.faults)


def _campaign(
    args: argparse.Namespace, out: Path, place: Venue, kinds: list[Fault], promises: Promises, timeout_s: float | None
) -> int:
    from hpcgan.chaos import verdict
    from hpcgan.chaos.campaign import Campaign, Limits
    from hpcgan.chaos.plan import plan
    from hpcgan.launch.process import handling
    from hpcgan.system.console import note
    from hpcgan.system.files import write_atomic

    out.mkdir(parents=True, exist_ok=True)
    limits = Limits(2.0 * (timeout_s or LONGEST_STOP_S / 2.0), args.patience)
    planned = plan(kinds, args.failures, args.mtbf, args.seed)
    campaign = Campaign(place, planned, out, limits, lambda line: note(f"hpcgan: {line}"))
    reference = args.reference or out / "reference"
    with handling(("SIGTERM", "SIGHUP"), _interrupt):  # what was started ends with this process, and daemons come back
        if not args.reference:
            note(f"hpcgan: {promises.noun} undisturbed")
            campaign.go_undisturbed(reference)
        campaign.run()
    result = verdict.judge(campaign.subjects, reference, promises, campaign.findings, campaign.log_file)
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
