"""`hpcgan train`: train, resume, or start itself on several ranks."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING

from hpcgan import api
from hpcgan import config as configuration
from hpcgan.commands import arguments
from hpcgan.config import Config
from hpcgan.errors import EXIT_DONE
from hpcgan.runs.directory import RunDirectory
from hpcgan.system import streams

if TYPE_CHECKING:
    from hpcgan.comm.base import Comm


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "train",
        description="Train the model of a configuration. The same command again resumes from the last checkpoint.",
    )
    arguments.add_training(parser)
    parser.add_argument(
        "--ranks", type=arguments.processes, metavar="N", help="start N ranks, here or in this Slurm job"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def run(args: argparse.Namespace) -> int:
    """Train, or print the configuration."""
    from hpcgan.launch.world import starts_ranks

    config = configuration.load(args.config, args.overrides)
    if args.dry_run:
        print(config.to_yaml(*configuration.STARTING), end="")
        if config.data.stage is not None:
            from hpcgan.training.staged import forecast

            print(f"# {forecast(config)}")
        return EXIT_DONE
    directory = RunDirectory(args.run or api.default_directory(config))
    streams.go_on(f"the training goes on, see {directory.metrics_file}")
    if starts_ranks(args.ranks, os.environ):
        from hpcgan.launch.outcome import launch_training

        api.preflight(config, directory, args.ranks)
        command = ["train", str(args.config), *args.overrides, "--run", str(directory.path)]
        return launch_training(command, directory, args.ranks)
    return train_here(config, directory)


def train_here(config: Config, directory: RunDirectory) -> int:
    """Train as the rank this process is."""
    from hpcgan.launch.world import process_age, stdout_is_terminal

    born = time.monotonic() - process_age()
    from hpcgan.training.requests import StopRequest

    stop = StopRequest()
    stop.install()  # before the slow imports: a signal during them must not be lost
    from hpcgan.comm.rank import run_as_rank

    def work(comm: Comm) -> None:
        from hpcgan.training.attempt import train

        best = train(config, directory, comm, stop, terminal=stdout_is_terminal(), born=born)
        stop.retire()
        if comm.is_root:
            if best is not None:
                print(f"best: {config.scoring.criterion} {best['score']:.2f} in epoch {best['epoch']}")
            print(f"run: {directory.path}", flush=True)

    return run_as_rank(work, config.comm.backend, at_end=stop.retire)
