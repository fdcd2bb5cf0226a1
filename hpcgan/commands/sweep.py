"""`hpcgan sweep`: search hyper-parameters, see how a search stands, report it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.commands.submit import add_job_options, job_of
from hpcgan.errors import EXIT_DONE, HpcganError, InputError
from hpcgan.suggest import did_you_mean
from hpcgan.system import streams

if TYPE_CHECKING:
    from hpcgan.config import Config, SweepSection
    from hpcgan.launch.process import Requests
    from hpcgan.launch.slurm import JobSpec
    from hpcgan.sweep.executors.base import Executor
    from hpcgan.sweep.executors.slurm import SlurmExecutor
    from hpcgan.sweep.space import Space
    from hpcgan.sweep.store import Description, StudyDirectory

VIEWS = ("status", "report", "best", "journal")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "sweep",
        help="search hyper-parameters; 'sweep status|report|best DIR' show a search",
        usage="hpcgan sweep CONFIG [key=value ...] --trials N [options]\n"
        "       hpcgan sweep status DIR [--once]\n"
        "       hpcgan sweep report DIR\n"
        "       hpcgan sweep best DIR",
        description="Train a configuration with other hyper-parameters again and again, and keep the best by the "
        "score on validation events. What is searched is in the section 'search:' of the configuration. The same "
        "command again goes on with what is missing.",
    )
    parser.add_argument("config", metavar="CONFIG|status|report|best", help="YAML configuration with 'search:'")
    parser.add_argument("overrides", nargs="*", metavar="key=value|DIR", help="e.g. training.epochs=10")
    parser.add_argument(
        "--trials", type=arguments.count, metavar="N", help="trials of the search (of a grid, default: all)"
    )
    parser.add_argument("--executor", choices=("local", "slurm", "ipyparallel"), default="local",
                        help="who runs them: this machine, Slurm arrays, IPython engines")  # fmt: skip
    parser.add_argument("--concurrency", type=arguments.processes, metavar="K",
                        help="trials at a time (default: what the cores, or the engines, allow; Slurm: 4)")  # fmt: skip
    parser.add_argument("--ranks", type=arguments.processes, metavar="R", help="ranks of a trial (default: 1)")
    parser.add_argument(
        "--out", type=arguments.output_folder, metavar="DIR", help="study (default: runs/sweep-NAME-HASH)"
    )
    parser.add_argument("--seed", type=arguments.seed, default=1, metavar="S", help="of the study (default: 1)")
    parser.add_argument("--sampler", default="random", metavar="NAME",
                        help="random, grid, or one of Optuna's: tpe ... (default: random)")  # fmt: skip
    parser.add_argument("--pruner", choices=("none", "median", "halving"), default="none",
                        help="end bad trials early (default: none)")  # fmt: skip
    parser.add_argument(
        "--top", type=arguments.count, metavar="K", help="so many of the best are trained again (default: 3)"
    )
    parser.add_argument(
        "--repeats", type=arguments.whole(0), default=0, metavar="R", help="with so many fresh seeds each (default: 0)"
    )
    parser.add_argument(
        "--retries", type=arguments.whole(0), default=3, metavar="N", help="starts of a lost trial (default: 3)"
    )
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="ipcontroller-client.json of the IPython cluster")
    parser.add_argument("--log", type=Path, metavar="FILE", help="once it is at work, append there what it would print")
    parser.add_argument("--dry-run", action="store_true", help="print the trials that are known before, and stop")
    parser.add_argument("--once", action="store_true", help="for status: print once and stop")
    job = parser.add_argument_group("with --executor slurm, for each trial")
    add_job_options(job)
    job.add_argument(
        "--signal", type=arguments.count, metavar="S", dest="signal_s", help="checkpoint this early, s (120)"
    )
    job.add_argument("--print", action="store_true", dest="show", help="print the batch script and stop")


def run(args: argparse.Namespace) -> int:
    """Search, or show a search."""
    if args.config in VIEWS:
        return _view(args)
    if "." not in args.config and not Path(args.config).exists() and (hint := did_you_mean(args.config, VIEWS)):
        raise InputError(f"{args.config}: is neither a configuration nor one of {', '.join(VIEWS)}{hint}")
    from hpcgan.problems.base import Problems
    from hpcgan.sweep import optuna_study, study
    from hpcgan.sweep.store import StudyDirectory

    base, space = study.load(Path(args.config), Problems(), args.overrides)
    optuna_study.check_sampler(args.sampler)
    trials = args.trials
    if args.sampler == "grid":
        size = len(space.grid())
        trials = size if trials is None else min(trials, size)
    if trials is None:
        raise InputError("--trials is missing: give the number of trials, e.g. --trials 32")
    ranks = _ranks(args)
    options = {"seed": args.seed, "sampler": args.sampler, "pruner": args.pruner, "ranks": ranks}
    description = study.describe(base, space, threads=1, **options)
    study.check_draws(space, description, trials)
    if args.dry_run:
        return _show(space, description, trials)
    out = StudyDirectory((args.out or study.default_directory(description)).absolute())
    concurrency = args.concurrency or _concurrency(args.executor, ranks)
    threads = args.threads or study.threads_of(out) or _threads(args.executor, concurrency, ranks)
    description = study.describe(base, space, threads=threads, **options)
    study.check(out, description, base)
    _preflight(base, ranks)
    spec = _spec(args, base, ranks, threads) if args.executor == "slurm" else None
    if args.show:
        if spec is None:
            raise InputError("--print shows the batch script of --executor slurm")
        print(_slurm(args, out, spec, concurrency).script(range(trials)), end="")
        return EXIT_DONE
    from hpcgan.config import SweepSection

    plan = SweepSection(
        trials=trials, top=args.top or 3, repeats=args.repeats, retries=args.retries, concurrency=concurrency
    )
    return _search(args, out, description, base, space, plan, concurrency, spec)


def _search(
    args: argparse.Namespace,
    out: StudyDirectory,
    description: Description,
    base: Config,
    space: Space,
    plan: SweepSection,
    concurrency: int,
    spec: JobSpec | None,
) -> int:
    """Coordinate until everything is done."""
    from hpcgan.launch.process import STOP_SIGNALS, Requests, handling
    from hpcgan.sweep import study, views
    from hpcgan.sweep.coordinator import Coordinator

    streams.go_on(f"the search goes on, see 'hpcgan sweep status {_short(out.path)}'")
    requests = Requests(_say_stopping)
    with handling(STOP_SIGNALS, requests.ask):
        executor = _executor(args, out, concurrency, spec)
        try:
            with study.opened(out, description, base, lambda text: _fenced(text, requests)) as lease:
                if args.log is not None:
                    _print_into(args.log)
                _say(f"study {_short(out.path)}: {plan.trials} trials, {args.sampler} search, {args.executor}")
                out.write_goal(plan)
                _warn_of_crowding(args.executor, concurrency, description.ranks, description.threads)
                code = Coordinator(out, space, executor, plan, requests, _say, lease.check).run()
                for line in views.summary(out.path):
                    print(line)
                print(f"study: {_short(out.path)}", flush=True)
                return code
        finally:
            executor.close()


def _print_into(log: Path) -> None:
    """From here on. Who has started this with a pipe hears that nothing was refused, and then the pipe's end."""
    from hpcgan.sweep import views

    try:
        with open(log, "ab") as file:
            _say(views.into_log(log))
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(file.fileno(), stream.fileno())
    except OSError as error:
        raise InputError(f"{log}: cannot be written (--log): {error.strerror}") from None


def _executor(args: argparse.Namespace, out: StudyDirectory, concurrency: int, spec: JobSpec | None) -> Executor:
    if args.executor == "slurm":
        assert spec is not None
        return _slurm(args, out, spec, concurrency)
    if args.executor == "ipyparallel":
        from hpcgan.sweep.executors.ipyparallel import IpyparallelExecutor

        return IpyparallelExecutor(out, args.concurrency, args.cluster)
    from hpcgan.sweep.executors.local import LocalExecutor

    return LocalExecutor(out, concurrency)


def _slurm(args: argparse.Namespace, out: StudyDirectory, spec: JobSpec, concurrency: int) -> SlurmExecutor:
    from hpcgan.launch import slurm
    from hpcgan.sweep.executors.slurm import SlurmExecutor

    return SlurmExecutor(out, spec, concurrency, Path.cwd(), slurm.site_file(args.site), _say)


def _spec(args: argparse.Namespace, base: Config, ranks: int, threads: int) -> JobSpec:
    """The job of an element: the ranks of a trial over its nodes."""
    nodes = args.nodes or 1
    if ranks % nodes:
        raise InputError(f"--ranks {ranks}: cannot be spread evenly over --nodes {nodes}")
    args.ranks_per_node, args.threads = ranks // nodes, args.threads or threads
    return job_of(args, f"sweep-{base.name}"[:64], signal_s=args.signal_s)


def _ranks(args: argparse.Namespace) -> int:
    if args.ranks_per_node is None:
        return args.ranks or 1
    ranks = int(args.ranks_per_node * (args.nodes or 1))
    if args.ranks is not None and args.ranks != ranks:
        raise InputError(f"--ranks {args.ranks}: is not --nodes times --ranks-per-node; leave one out")
    return ranks


def _concurrency(executor: str, ranks: int) -> int:
    from hpcgan.launch.topology import available_cores

    return max(1, available_cores() // ranks) if executor == "local" else 4


def _threads(executor: str, concurrency: int, ranks: int) -> int:
    """Threads of a rank in a new study, which all its trials have, whoever runs them."""
    from hpcgan.launch.topology import available_cores

    return max(1, available_cores() // concurrency // ranks) if executor == "local" else 1


def _preflight(base: Config, ranks: int) -> None:
    """Refuse missing data, and fewer events than a global batch, before anything is written."""
    from hpcgan import api
    from hpcgan.runs.directory import RunDirectory

    api.preflight(base, RunDirectory(Path(os.devnull) / "none"), ranks)


def _show(space: Space, description: Description, trials: int) -> int:
    """Print the trials that are known before they run."""
    from hpcgan import yamlio
    from hpcgan.sweep.search import OWN_SAMPLERS, known_params

    if description.sampler not in OWN_SAMPLERS:
        raise InputError(f"--dry-run: what {description.sampler} tries depends on what came of the trials before")
    for index in range(trials):
        print(f"{index}: {yamlio.dump(known_params(space, description, index), flow=True)}", end="")
    return EXIT_DONE


def _view(args: argparse.Namespace) -> int:
    """Show a study."""
    if len(args.overrides) != 1:
        raise InputError(f"name one study: hpcgan sweep {args.config} DIR")
    from hpcgan.sweep import views

    path = Path(args.overrides[0])
    if args.config == "status":
        return views.status(path, once=args.once)
    if args.config == "journal":
        file = _short(views.journal(path))
        print(f"journal: {file} (optuna-dashboard {file})")
        return EXIT_DONE
    if args.config == "best":
        print(views.best(path), end="")
        return EXIT_DONE
    files = views.report(path)
    streams.go_on(f"the report is {_short(files[-1])}")
    print(f"report: {_short(files[-1])}")
    return EXIT_DONE


def _warn_of_crowding(executor: str, concurrency: int, ranks: int, threads: int) -> None:
    from hpcgan.launch.topology import available_cores

    cores = available_cores()
    if executor == "local" and concurrency * ranks * threads > cores:
        _say(
            f"warning: {concurrency} trials x {ranks} ranks x {threads} threads share {cores} cores: this works, "
            "but slower than one thread a core"
        )


def _fenced(text: str, requests: Requests) -> None:
    """Another coordinator has the study: this one must not touch it any more."""
    print(f"hpcgan: error: {text}", file=sys.stderr, flush=True)
    os._exit(HpcganError.exit_code)


def _say(line: str) -> None:
    print(f"sweep: {line}", file=sys.stderr, flush=True)


def _say_stopping(line: str) -> None:
    print(line.replace("after this step", "all trials"), file=sys.stderr, flush=True)


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
