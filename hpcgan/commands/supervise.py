"""`hpcgan supervise -- train ...`: run a command on all tasks of a job until it is done."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.config import JobSection, flags
from hpcgan.errors import InputError

if TYPE_CHECKING:
    from hpcgan.config import Config
    from hpcgan.runs.directory import RunDirectory


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "supervise",
        description="Run an hpcgan command on all tasks of this Slurm job (or on N ranks here) and see it to its end: "
        "before the time limit it checkpoints and goes back into the queue, after a failure it starts again.",
    )
    parser.add_argument(
        "--ranks", type=arguments.processes, metavar="N", help="ranks (default: the tasks of the Slurm job)"
    )
    parser.add_argument("--launcher", default=os.environ.get("HPCGAN_LAUNCHER", "auto"), help="auto, srun or mpirun")
    own = {"retries", "requeues", "min_ranks"}
    flags.add_flags(parser, "job", JobSection, leave_out=JobSection.model_fields.keys() - own)
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="e.g. -- train configs/rpv.yaml")


def run(args: argparse.Namespace) -> int:
    """Supervise."""
    from hpcgan.commands import cli
    from hpcgan.launch import srun
    from hpcgan.launch.elastic import Elastic
    from hpcgan.launch.launcher import Place, Watch
    from hpcgan.launch.outcome import launch_training
    from hpcgan.launch.process import Requests
    from hpcgan.launch.supervise import Supervisor
    from hpcgan.system import streams
    from hpcgan.system.allocation import current_job

    argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not argv:
        raise InputError("nothing to supervise: write the command after --, e.g. hpcgan supervise -- train CONFIG")
    streams.go_on("the work goes on, see the run directory")
    config, run = _watched(cli.parse(argv))
    limits, job = flags.section("job", JobSection, flags.keywords_of(args, "job")), current_job(os.environ)
    ranks = args.ranks if args.ranks is not None else job.tasks if job else 1
    launcher = srun.choose(args.launcher, os.environ) if job else None
    # The job's only steps are these. One whose end the controller has missed must not keep the next one waiting.
    env = {**os.environ, "SLURM_OVERLAP": "1"}
    place = Place(launcher, min(job.nodes, ranks), env=env) if job else Place(nodes=1)
    if limits.min_ranks is None:

        def start(requests: Requests) -> int:
            return launch_training(argv, run, ranks, place=place, watch=Watch(requests=requests))

        return Supervisor(start, run, limits, job).supervise()
    if job is None:
        raise InputError("--min-ranks: is about lost nodes of a Slurm job, and this is none; leave it out")
    elastic = Elastic(config, job, ranks, limits.min_ranks, os.environ)

    def start_rest(requests: Requests) -> int:
        world = elastic.world
        rest = replace(place, nodes=world.nodes, env={**env, **world.env}) if world else place
        return launch_training(argv, run, world.ranks if world else ranks, place=rest, watch=Watch(requests=requests))

    return Supervisor(start_rest, run, limits, job, has_room=elastic.look).supervise()


def _watched(args: argparse.Namespace) -> tuple[Config, RunDirectory]:
    """The configuration and the run of a command.

    Raises
    ------
    InputError
        It is not `train`, or what `train` itself would refuse.
    """
    if args.command != "train":
        raise InputError(f"only 'train' can be supervised, not '{args.command}'")
    from hpcgan import api
    from hpcgan import config as configuration
    from hpcgan.runs.directory import RunDirectory

    config = configuration.load(args.config, args.overrides)
    return config, RunDirectory(args.run or api.default_directory(config))
