"""`hpcgan submit`: train a configuration in a Slurm job."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcgan.commands import arguments
from hpcgan.config import JobSection, flags
from hpcgan.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, HpcganError, InputError
from hpcgan.system import streams


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "submit",
        description="Submit a training to Slurm. Before its time limit the job checkpoints and goes back into the "
        "queue, until the training is done. The same command again continues a run that was stopped.",
    )
    arguments.add_training(parser)
    flags.add_flags(parser, "job", JobSection)
    parser.add_argument("--again", action="store_true", help="queue behind the job of the run that is there")
    parser.add_argument("--print", action="store_true", dest="show", help="print the batch script and stop")
    parser.add_argument("--wait", action="store_true", help="wait for the training to end")


def run(args: argparse.Namespace) -> int:
    """Check, write the script, submit it."""
    from hpcgan import api
    from hpcgan import config as configuration
    from hpcgan.launch import elastic, run_status, slurm
    from hpcgan.runs.directory import RunDirectory

    config = configuration.load(args.config, args.overrides)
    directory = RunDirectory((args.run or api.default_directory(config)).absolute())
    if config.job.min_ranks is not None:
        elastic.global_batch(config)
    argv = ["train", str(args.config.absolute()), *configuration.of_training(args.overrides)]
    program = slurm.Program([*argv, "--run", str(directory.path)])
    script = slurm.render(config.job, config.name, program, site=slurm.site_file(config.job))
    if args.show:
        print(script, end="")
        return EXIT_DONE
    doubt = api.preflight(config, directory, config.job.ranks, here=False)
    streams.go_on("'hpcgan jobs' shows the job")
    for warning in (doubt, slurm.check_room(config.job, run_status.startup_seconds(directory))):
        if warning:
            print(f"hpcgan: warning: {warning}", file=sys.stderr)
    with enter(directory.path), run_status.submitting(directory):
        living = run_status.living(directory)
        if not args.again:
            run_status.refuse_second(directory, living)
        if living and any(option.startswith("--dependency") for option in config.job.sbatch):
            raise InputError("--sbatch --dependency: is what --again sets; leave one of them out")
        job = slurm.submit(script, directory.path, after=[entry.job for entry in living])
        record_job(directory.jobs_file, {"job": job, "time": time.time(), "script": script})
    announce(job, "run", directory.path)
    return _wait(job) if args.wait else EXIT_DONE


def announce(job: str, what: str, path: Path) -> None:
    """Say that a job is submitted, and why it may never start."""
    from hpcgan.launch import slurm

    print(f"job {job}: {what} {short(path)}, log {short(path)}/slurm-{job}.out")
    if reason := slurm.obstacle(job):
        print(
            f"hpcgan: warning: job {job} waits for {reason}: the cluster as it is may never start it; see "
            f"'scontrol show job {job}', take it back with 'scancel {job}'",
            file=sys.stderr,
        )


def record_job(file: Path, entry: dict[str, Any]) -> None:
    """Note a job that was submitted.

    Raises
    ------
    HpcganError
        That cannot be written.
    """
    from hpcgan.runs import records

    try:
        records.append(file, entry)
    except OSError as error:
        raise HpcganError(
            f"job {entry['job']} is submitted, but {file} cannot be written ({error.strerror}): 'hpcgan jobs' will not "
            f"know it before it trains; 'scancel {entry['job']}' takes it back"
        ) from None


@contextlib.contextmanager
def enter(path: Path) -> Iterator[None]:
    """Make a folder, which sbatch needs for the log, and take it away again if the block fails."""
    missing = []
    for part in [path, *path.parents]:
        if part.exists():
            break
        missing.append(part)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make the run directory: {error.strerror}") from None
    try:
        yield
    except HpcganError:
        for part in missing:
            with contextlib.suppress(OSError):
                part.rmdir()
        raise


def short(path: Path) -> str:
    """A path for messages: from here, if that leads down."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _wait(job: str) -> int:
    """Until the job has ended for good; its exit code."""
    from hpcgan.launch import slurm

    try:
        end = slurm.wait(job, lambda text: print(f"job {job}: {text}", flush=True))
    except KeyboardInterrupt:
        print(f"hpcgan: job {job} goes on; see 'hpcgan jobs', end it with 'scancel {job}'", file=sys.stderr)
        return 130
    if end.state == "COMPLETED":
        return EXIT_DONE
    return end.code if end.code in (EXIT_FAILED, EXIT_BAD_INPUT) else EXIT_FAILED
