"""`hpcgan submit`: train a configuration in a Slurm job."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, HpcganError, InputError
from hpcgan.system import streams

if TYPE_CHECKING:
    from hpcgan.launch.slurm import JobSpec

# Options that sbatch has too, handed through after a check: (option, metavar, help).
_PASSED = (
    ("partition", "NAME", "partition (comma-separated: several)"),
    ("account", "NAME", "account that is charged"),
    ("qos", "NAME", "quality of service"),
    ("reservation", "NAME", "reservation"),
    ("constraint", "FEATURES", "features that nodes must have"),
    ("mem", "SIZE", "memory of a node, e.g. 16G"),
    ("nodelist", "NODES", "nodes to take"),
    ("exclude", "NODES", "nodes to leave out"),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "submit",
        help="train in a Slurm job, or in as many as it takes",
        description="Submit a training to Slurm. Before its time limit the job checkpoints and goes back into the "
        "queue, until the training is done. The same command again continues a run that was stopped.",
    )
    parser.add_argument("config", type=Path, help="YAML configuration, e.g. configs/rpv.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.epochs=3")
    parser.add_argument(
        "--run", type=arguments.run_folder, metavar="DIR", help="run directory (default: runs/NAME-HASH)"
    )
    add_job_options(parser)
    parser.add_argument(
        "--signal", type=arguments.count, metavar="S", dest="signal_s", help="checkpoint this early, s (120)"
    )
    parser.add_argument(
        "--requeues", type=arguments.whole(0), metavar="N", help="times the job may queue again (default: 100)"
    )
    parser.add_argument(
        "--retries", type=arguments.whole(0), metavar="N", help="failures in a row without progress (default: 3)"
    )
    parser.add_argument("--again", action="store_true", help="queue behind the job of the run that is there")
    parser.add_argument("--print", action="store_true", dest="show", help="print the batch script and stop")
    parser.add_argument("--wait", action="store_true", help="wait for the training to end")


def run(args: argparse.Namespace) -> int:
    """Check, write the script, submit it."""
    from hpcgan import api
    from hpcgan import config as configuration
    from hpcgan.launch import run_status, slurm
    from hpcgan.runs.directory import RunDirectory

    config = configuration.load(args.config, args.overrides)
    directory = RunDirectory((args.run or api.default_directory(config)).absolute())
    spec = job_of(args, config.name, signal_s=args.signal_s, requeues=args.requeues, retries=args.retries)
    site = slurm.site_file(args.site)
    argv = ["train", str(args.config.absolute()), *args.overrides, "--run", str(directory.path)]
    folder = Path.cwd()
    script = slurm.render(spec, argv, python=sys.executable, folder=folder, site=site)
    if args.show:
        print(script, end="")
        return EXIT_DONE
    api.preflight(config, directory, spec.nodes * spec.ranks_per_node)
    streams.go_on("'hpcgan jobs' shows the job")
    if warning := slurm.check_room(spec, run_status.startup_seconds(directory)):
        print(f"hpcgan: warning: {warning}", file=sys.stderr)
    with enter(directory.path), run_status.submitting(directory):
        there = run_status.living(directory)
        if not args.again:
            run_status.refuse_second(directory, there)
        if there and any(option.startswith("--dependency") for option in spec.sbatch):
            raise InputError("--sbatch --dependency: is what --again sets; leave one of them out")
        job = slurm.submit(script, directory.path, after=[entry.job for entry in there])
        record_job(directory.jobs_file, {"job": job, "time": time.time(), "script": script})
    print(f"job {job}: run {_short(directory.path)}, log {_short(directory.path)}/slurm-{job}.out")
    if reason := slurm.obstacle(job):
        print(
            f"hpcgan: warning: job {job} waits for {reason}: the cluster as it is may never start it; see "
            f"'scontrol show job {job}', take it back with 'scancel {job}'",
            file=sys.stderr,
        )
    return _wait(job) if args.wait else EXIT_DONE


def add_job_options(parser: argparse._ActionsContainer, nodes_type: Callable[[str], Any] = arguments.processes) -> None:
    """Add what is asked of Slurm: nodes, ranks, time, and what is handed to sbatch.

    Parameters
    ----------
    parser : parser or group of arguments
    nodes_type : callable
        Of `--nodes`, which may be another thing elsewhere in the same command.
    """
    parser.add_argument("--nodes", type=nodes_type, metavar="N", help="nodes (default: 1)")
    parser.add_argument("--ranks-per-node", type=arguments.processes, metavar="R", help="ranks on each (default: 1)")
    parser.add_argument("--threads", type=arguments.processes, metavar="T", help="CPUs of a rank (default: the site's)")
    parser.add_argument("--time", default="1:00:00", metavar="LIMIT", help="limit of one job (default: 1:00:00)")
    parser.add_argument(
        "--gpus", type=arguments.processes, metavar="N", dest="gpus_per_node", help="GPUs of a node, one a rank"
    )
    for option, metavar, text in _PASSED:
        parser.add_argument(f"--{option}", metavar=metavar, help=text)
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTIONS",
                        help="further options of sbatch, e.g. --sbatch '--mail-type=END'; may be repeated")  # fmt: skip
    parser.add_argument(
        "--site", type=Path, metavar="FILE", help="settings of the site (default: slurm/site.sh if there)"
    )


def job_of(args: argparse.Namespace, name: str, **fields: Any) -> JobSpec:
    """The job that the options of `add_job_options` ask for.

    Raises
    ------
    InputError
        One line that names the option.
    """
    from hpcgan.launch import slurm

    spec = slurm.job_spec(
        name=name,
        nodes=args.nodes,
        ranks_per_node=args.ranks_per_node,
        threads=args.threads,
        time=args.time,
        gpus_per_node=args.gpus_per_node,
        sbatch=args.sbatch,
        **{option: getattr(args, option) for option, _, _ in _PASSED},
        **fields,
    )
    if spec.gpus_per_node is not None and spec.ranks_per_node > spec.gpus_per_node:
        raise InputError(
            f"--ranks-per-node {spec.ranks_per_node}: more ranks than GPUs ({spec.gpus_per_node}) on a node; "
            "hpcgan runs one rank a GPU"
        )
    return spec


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
def enter(path: Path):  # type: ignore[no-untyped-def]
    """Make a folder, which sbatch needs for the log, and take it away again if the block fails."""
    made = []
    for part in [path, *path.parents]:
        if part.exists():
            break
        made.append(part)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make the run directory: {error.strerror}") from None
    try:
        yield
    except HpcganError:
        for part in made:
            with contextlib.suppress(OSError):
                part.rmdir()
        raise


def _short(path: Path) -> str:
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
