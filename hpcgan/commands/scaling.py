"""`hpcgan scaling`: measure a training on several numbers of ranks, report, extrapolate."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.commands.submit import announce, enter, record_job, short
from hpcgan.config import JobSection, ScalingSection, flags
from hpcgan.errors import EXIT_DONE, EXIT_FAILED, HpcganError, InputError
from hpcgan.system import streams
from hpcgan.system.console import print_table

if TYPE_CHECKING:
    from hpcgan.config import Config
    from hpcgan.scaling.measure import Resources, Study


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command, and the one that extrapolates."""
    parser = subparsers.add_parser(
        "scaling",
        usage="hpcgan scaling CONFIG [key=value ...] --ranks 1,2,4 [options]\n"
        "       hpcgan scaling model STUDY --nodes 1..8192 --interconnect NAME [options]",
        description="Time the steps of a training on several numbers of ranks and report rate, efficiency and the "
        "parts of a step. The options are the sections 'scaling:' and 'job:' of the configuration. The same command "
        "again measures what is missing. 'scaling model STUDY' extrapolates a study to a cluster.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. model.filters=32")
    flags.add_flags(parser, "scaling", ScalingSection)
    parser.add_argument(
        "--out", type=arguments.output_folder, metavar="DIR", help="folder (default: runs/scaling-NAME-MODE-HASH)"
    )
    job = parser.add_argument_group("in a Slurm job")
    flags.add_flags(job, "job", JobSection, leave_out=("signal_s", "requeues", "retries", "min_ranks"))
    job.add_argument("--print", action="store_true", dest="show", help="print the batch script and stop")
    model = subparsers.add_parser("scaling model", description="Extrapolate a scaling study to a cluster.")
    model.add_argument("study", nargs="?", type=Path, metavar="STUDY", help="directory of the study")
    model.add_argument("--interconnect", metavar="NAME", help="network to assume; 'list' shows those that are known")
    model.add_argument("--nodes", default="1..8192", metavar="A..B", help="nodes (default: 1..8192)")
    model.add_argument("--ranks-per-node", type=arguments.processes, default=1, metavar="R", help="ranks on each (1)")
    model.add_argument("--comm", metavar="NAME", help="backend whose measurements count")
    model.add_argument("--seed", type=arguments.seed, default=1, metavar="S", help="of the bootstrap (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Measure and report, submit, or extrapolate."""
    if args.command != "scaling":
        return _model(args)
    from hpcgan import config as configuration
    from hpcgan.comm import select
    from hpcgan.scaling import measure

    config = configuration.load(args.config, args.overrides)
    scaling = config.scaling
    if not scaling.ranks:
        raise InputError("--ranks is missing: give the numbers of ranks, e.g. --ranks 1,2,4")
    for backend in scaling.comm:  # refuses unknown names
        configuration.load(args.config, [*args.overrides, f"comm.backend={backend}"])
    for backend in measure.backends_of(config):
        select.check(backend)
    batch = measure.study_batch(config)
    if not scaling.synthetic_data:
        _check_data(config, batch)
    out = (args.out or measure.default_directory(config)).absolute()
    if scaling.executor == "slurm":
        return _submit(args, config, out)
    resources, cores = _resources(scaling.limit_s)
    study = measure.Study(out)
    earlier = study.setting() if study.exists else None  # with other numbers of ranks, it keeps its threads
    by_default = earlier.threads if earlier else measure.default_threads(scaling.ranks, resources, cores)
    study.prepare(config, measure.setting_of(config, batch, config.job.threads or by_default, cores))
    return _measure(study, config, resources)


def _measure(study: Study, config: Config, resources: Resources) -> int:
    from hpcgan.runs.directory import RunDirectory
    from hpcgan.runs.lease import Lease
    from hpcgan.scaling import measure, report

    def say(line: str) -> None:
        print(f"scaling: {line}", file=sys.stderr, flush=True)

    streams.go_on(f"the measurement goes on, into {short(study.path)}")
    points, setting = measure.plan(config), study.setting()
    threads = f"{setting.threads} thread{'s' * (setting.threads > 1)} a rank"
    say(f"{len(points)} points, {setting.steps} steps each, {threads}, into {short(study.path)}")
    # Two of these at once would spoil each other's times, and share work files.
    lease = Lease(RunDirectory(study.path))
    state = "interrupted"
    try:
        measure.measure(study, points, resources, say)
        if config.scaling.allreduce:
            measure.sweep(study, config, resources, say)
        state = "done"
    finally:
        lease.release(state)
    summary = report.build(study)
    files = report.write(study, summary)
    print(report.title(summary))
    print_table(report.COLUMNS, report.rows(summary), report.notes(summary), texts=report.TEXTS)
    print(f"report: {short(files[-1])}", flush=True)
    keys = {point.key for point in points}
    failed = [f for f in summary["failures"] if measure.Point(f["ranks"], f["comm"], f["repeat"]).key in keys]
    return EXIT_FAILED if failed else EXIT_DONE


def _check_data(config: Config, batch: int) -> None:
    """Refuse missing data, and fewer events than a global batch, before anything starts."""
    from hpcgan.training.inputs import Inputs

    sizes = {"batch_size": batch, "global_batch_size": batch if config.scaling.mode == "strong" else None}
    training = config.training.model_copy(update=sizes)
    with Inputs.open(config.model_copy(update={"training": training}), ["train"]) as inputs:
        for ranks in config.scaling.ranks:
            inputs.batch_size(ranks)


def _resources(limit_s: float) -> tuple[Resources, int]:
    """What points are started with here, each for so many seconds, and the cores of a node.

    Raises
    ------
    InputError
        No mpirun, or one that does not work; this process is a rank itself.
    """
    from hpcgan.launch import srun
    from hpcgan.launch.mpirun import find_mpirun
    from hpcgan.launch.topology import available_cores
    from hpcgan.launch.world import ranks_of_launcher
    from hpcgan.scaling.measure import Resources
    from hpcgan.system.allocation import current_job

    world = ranks_of_launcher(os.environ)
    if world is not None and world.size > 1:
        raise InputError(f"scaling starts jobs of its own, but this is rank {world.rank} of {world.size}: run it once")
    job = current_job(os.environ)
    cores = available_cores()
    try:
        if job is None:
            return Resources(find_mpirun(), limit_s=limit_s), cores
        launcher = srun.choose(os.environ.get("HPCGAN_LAUNCHER", "auto"), os.environ)
    except HpcganError as error:
        raise InputError(str(error)) from None
    return Resources(launcher, job.nodes, max(1, job.tasks // job.nodes), limit_s), cores


def _submit(args: argparse.Namespace, config: Config, out: Path) -> int:
    """Hand a job to Slurm that runs this command in its allocation."""
    from hpcgan.launch import slurm

    job, most = config.job, max(config.scaling.ranks)
    if most > job.ranks:
        raise InputError(
            f"--ranks {most}: more than --nodes {job.nodes or 1} times --ranks-per-node {job.ranks_per_node or 1}"
        )
    argv = ["scaling", str(args.config.absolute()), *args.overrides, "scaling.executor=local", "--out", str(out)]
    name = f"scaling-{config.name}"[:64]
    script = slurm.render(job, name, slurm.Program(argv), site=slurm.site_file(job), ending="plain")
    if args.show:
        print(script, end="")
        return EXIT_DONE
    streams.go_on("'hpcgan jobs' shows the job")
    with enter(out):
        number = slurm.submit(script, out)
    record_job(out / "jobs.jsonl", {"job": number, "time": time.time(), "script": script})
    announce(number, "study", out)
    return EXIT_DONE


def _model(args: argparse.Namespace) -> int:
    """Extrapolate a study."""
    from hpcgan.scaling import model, report
    from hpcgan.scaling.measure import Study

    if args.interconnect == "list":
        print_table(model.NETWORK_COLUMNS, model.network_rows(), texts=report.TEXTS)
        return EXIT_DONE
    if args.study is None:
        raise InputError("name one study: hpcgan scaling model STUDY --nodes 1..8192 --interconnect NAME")
    if args.interconnect is None:
        raise InputError(f"--interconnect is missing: one of {', '.join(model.NETWORK_NAMES)}")
    study = Study(args.study)
    nodes = model.parse_nodes(args.nodes)
    prediction = model.extrapolate(study, nodes, args.ranks_per_node, args.interconnect, comm=args.comm, seed=args.seed)
    files = model.write(study, prediction)
    streams.go_on(f"see {short(files[-1])}")
    print(f"A model, not a measurement. {prediction['title']}")
    print_table(model.COLUMNS, model.rows(prediction), prediction["notes"], texts=report.TEXTS)
    print(f"model: {', '.join(short(file) for file in files)}", flush=True)
    return EXIT_DONE
