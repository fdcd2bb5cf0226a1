"""`hpcgan scaling`: measure a training on several numbers of ranks, report, extrapolate."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.commands.submit import add_job_options, enter, job_of, record_job
from hpcgan.errors import EXIT_DONE, EXIT_FAILED, HpcganError, InputError
from hpcgan.system import streams
from hpcgan.system.console import print_table

if TYPE_CHECKING:
    from hpcgan.config import Config
    from hpcgan.scaling.measure import Mode, Resources, Setting, Study

MODEL = "model"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "scaling",
        help="measure a training on 1, 2, 4 ... ranks; 'scaling model STUDY' extrapolates",
        usage="hpcgan scaling CONFIG [key=value ...] --ranks 1,2,4 [options]\n"
        "       hpcgan scaling model STUDY --nodes 1..8192 --interconnect NAME [options]",
        description="Time the steps of a training on several numbers of ranks and report rate, efficiency and the "
        "parts of a step. The same command again measures what is missing. 'scaling model STUDY' extrapolates a study "
        "to a cluster.",
    )
    parser.add_argument("config", metavar="CONFIG|model", help="YAML configuration, or the word 'model'")
    parser.add_argument("overrides", nargs="*", metavar="key=value|STUDY", help="e.g. model.filters=32")
    parser.add_argument("--ranks", metavar="N,...", help="numbers of ranks, e.g. 1,2,4")
    parser.add_argument("--mode", choices=("weak", "strong"), default="weak",
                        help="keep the batch of a rank (weak) or of all ranks together (strong)")  # fmt: skip
    parser.add_argument("--comm", metavar="NAME,...", help="backends (default: that of the configuration)")
    parser.add_argument(
        "--repeats", type=arguments.count, default=3, metavar="R", help="measurements of each point (default: 3)"
    )
    parser.add_argument(
        "--steps", type=arguments.count, default=100, metavar="N", help="timed steps of a point (default: 100)"
    )
    parser.add_argument(
        "--warm-up", type=arguments.whole(2), default=20, metavar="N", help="steps before, not timed (default: 20)"
    )
    parser.add_argument("--synthetic-data", action="store_true", help="random samples: needs no data")
    parser.add_argument("--isolated", action="store_true",
                        help="also as many processes at once without communication: the ceiling")  # fmt: skip
    parser.add_argument("--no-allreduce", action="store_true",
                        help="leave out the timing of bare collectives, which the model needs")  # fmt: skip
    parser.add_argument(
        "--limit", type=arguments.seconds, default=1800.0, metavar="S", help="seconds for a point (default: 1800)"
    )
    parser.add_argument(
        "--out", type=arguments.output_folder, metavar="DIR", help="folder (default: runs/scaling-NAME-MODE-HASH)"
    )
    model = parser.add_argument_group("for 'scaling model STUDY'")
    model.add_argument("--interconnect", metavar="NAME", help="network to assume; 'list' shows those that are known")
    model.add_argument("--seed", type=arguments.seed, default=1, metavar="S", help="of the bootstrap (default: 1)")
    job = parser.add_argument_group("in a Slurm job")
    job.add_argument("--executor", choices=("local", "slurm"), default="local",
                     help="measure here (or in the job this runs in), or submit a job that does")  # fmt: skip
    add_job_options(job, nodes_type=str)
    job.add_argument("--print", action="store_true", dest="show", help="print the batch script and stop")


def run(args: argparse.Namespace) -> int:
    """Measure and report, submit, or extrapolate."""
    if args.config == MODEL:
        return _model(args)
    from hpcgan import config as configuration
    from hpcgan.problems.base import Problems
    from hpcgan.scaling import measure

    if args.ranks is None:
        raise InputError("--ranks is missing: give the numbers of ranks, e.g. --ranks 1,2,4")
    if args.interconnect is not None:
        raise InputError("--interconnect is for 'hpcgan scaling model STUDY'")
    ranks = measure.parse_ranks(args.ranks)
    config = configuration.load(Path(args.config), Problems(), args.overrides)
    backends = list(dict.fromkeys((args.comm or config.comm.backend).split(",")))
    for backend in backends:  # refuses unknown names
        configuration.load(Path(args.config), Problems(), [*args.overrides, f"comm.backend={backend}"])
    batch = measure.study_batch(config, args.mode, ranks)
    if not args.synthetic_data:
        _check_data(config, args.mode, batch, ranks)
    out = (args.out or measure.default_directory(config, args.mode, args.synthetic_data)).absolute()
    if args.executor == "slurm":
        return _submit(args, config, max(ranks), out)
    resources, cores = _resources(args)
    study = measure.Study(out)
    there = study.setting() if study.exists else None  # with other numbers of ranks, it keeps its threads
    threads = args.threads or (there.threads if there else measure.default_threads(ranks, resources, cores))
    setting = measure.Setting(
        identity=measure.identity_of(config, args.synthetic_data),
        mode=args.mode,
        batch=batch,
        steps=args.steps,
        warm_up=args.warm_up,
        synthetic=args.synthetic_data,
        threads=threads,
        cores=cores,
    )
    study.prepare(config, setting)
    return _measure(args, study, setting, ranks, backends, resources)


def _measure(
    args: argparse.Namespace,
    study: Study,
    setting: Setting,
    ranks: list[int],
    backends: list[str],
    resources: Resources,
) -> int:
    from hpcgan.runs.directory import Lease, RunDirectory
    from hpcgan.scaling import measure, report

    def say(line: str) -> None:
        print(f"scaling: {line}", file=sys.stderr, flush=True)

    streams.go_on(f"the measurement goes on, into {_short(study.path)}")
    points = measure.plan(ranks, backends, args.repeats, args.isolated)
    threads = f"{setting.threads} thread{'s' * (setting.threads > 1)} a rank"
    say(f"{len(points)} points, {setting.steps} steps each, {threads}, into {_short(study.path)}")
    # Two of these at once would spoil each other's times, and share work files.
    lease = Lease(RunDirectory(study.path))
    state = "interrupted"
    try:
        measure.measure(study, points, resources, say)
        if not args.no_allreduce:
            measure.sweep(study, backends, ranks, resources, say)
        state = "done"
    finally:
        lease.release(state)
    made = report.build(study)
    files = report.write(study, made)
    print(report.title(made))
    print_table(report.COLUMNS, report.rows(made), report.notes(made), left=report.LEFT)
    print(f"report: {_short(files[-1])}", flush=True)
    wanted = {point.key for point in points}
    failed = [f for f in made["failures"] if measure.Point(f["ranks"], f["comm"], f["repeat"]).key in wanted]
    return EXIT_FAILED if failed else EXIT_DONE


def _check_data(config: Config, mode: Mode, batch: int, ranks: list[int]) -> None:
    """Refuse missing data, and fewer events than a global batch, before anything starts."""
    from hpcgan.training.inputs import Inputs

    sizes = {"batch_size": batch, "global_batch_size": batch if mode == "strong" else None}
    training = config.training.model_copy(update=sizes)
    with Inputs.open(config.model_copy(update={"training": training}), ["train"]) as inputs:
        for n in ranks:
            inputs.batch_size(n)


def _resources(args: argparse.Namespace) -> tuple[Resources, int]:
    """What points are started with here, and the cores of a node.

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
            return Resources(find_mpirun(), limit_s=args.limit), cores
        launcher = srun.choose(os.environ.get("HPCGAN_LAUNCHER", "auto"), os.environ)
    except HpcganError as error:
        raise InputError(str(error)) from None
    return Resources(launcher, job.nodes, max(1, job.tasks // job.nodes), args.limit), cores


def _submit(args: argparse.Namespace, config: Config, most: int, out: Path) -> int:
    """Hand a job to Slurm that runs this command in its allocation."""
    from hpcgan.launch import slurm

    spec = job_of(args, f"scaling-{config.name}"[:64])
    if most > spec.nodes * spec.ranks_per_node:
        raise InputError(f"--ranks {most}: more than --nodes {spec.nodes} times --ranks-per-node {spec.ranks_per_node}")
    argv = ["scaling", str(Path(args.config).absolute()), *args.overrides, "--ranks", args.ranks, "--mode", args.mode]
    argv += ["--repeats", str(args.repeats), "--steps", str(args.steps), "--warm-up", str(args.warm_up)]
    argv += ["--limit", f"{args.limit:g}", "--out", str(out)]
    argv += ["--comm", args.comm] if args.comm else []
    argv += ["--threads", str(args.threads)] if args.threads else []
    flags = ("synthetic_data", "isolated", "no_allreduce")
    argv += [f"--{name.replace('_', '-')}" for name in flags if getattr(args, name)]
    script = slurm.render(
        spec, argv, python=sys.executable, folder=Path.cwd(), site=slurm.site_file(args.site), supervised=False
    )
    if args.show:
        print(script, end="")
        return EXIT_DONE
    streams.go_on("'hpcgan jobs' shows the job")
    with enter(out):
        number = slurm.submit(script, out)
    record_job(out / "jobs.jsonl", {"job": number, "time": time.time(), "script": script})
    print(f"job {number}: study {_short(out)}, log {_short(out)}/slurm-{number}.out")
    if reason := slurm.obstacle(number):
        print(
            f"hpcgan: warning: job {number} waits for {reason}: the cluster as it is may never start it; "
            f"take it back with 'scancel {shlex.quote(number)}'",
            file=sys.stderr,
        )
    return EXIT_DONE


def _model(args: argparse.Namespace) -> int:
    """Extrapolate a study."""
    from hpcgan.scaling import model, report
    from hpcgan.scaling.measure import Study

    if args.interconnect == "list":
        print_table(model.NETWORK_COLUMNS, model.network_rows(), left=report.LEFT)
        return EXIT_DONE
    if len(args.overrides) != 1:
        raise InputError("name one study: hpcgan scaling model STUDY --nodes 1..8192 --interconnect NAME")
    if args.interconnect is None:
        raise InputError(f"--interconnect is missing: one of {', '.join(model.network_names())}")
    study = Study(Path(args.overrides[0]))
    nodes = model.parse_nodes(args.nodes if args.nodes is not None else "1..8192")
    if args.ranks_per_node is not None and args.ranks_per_node < 1:
        raise InputError(f"--ranks-per-node {args.ranks_per_node}: give at least 1")
    made = model.extrapolate(
        study,
        nodes,
        args.ranks_per_node or 1,
        args.interconnect,
        comm=args.comm,
        seed=args.seed,
    )
    files = model.write(study, made)
    streams.go_on(f"see {_short(files[-1])}")
    print(f"A model, not a measurement. {made['title']}")
    print_table(model.COLUMNS, model.rows(made), made["notes"], left=report.LEFT)
    print(f"model: {', '.join(_short(file) for file in files)}", flush=True)
    return EXIT_DONE


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
