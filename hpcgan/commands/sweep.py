"""`hpcgan sweep`: search hyper-parameters, see how a search stands, report it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.commands.submit import short
from hpcgan.config import JobSection, SweepSection, flags
from hpcgan.errors import EXIT_DONE, HpcganError, InputError
from hpcgan.suggest import did_you_mean
from hpcgan.system import streams

if TYPE_CHECKING:
    from hpcgan.config import Config
    from hpcgan.sweep.space import Space
    from hpcgan.sweep.store import Description, StudyDirectory

VIEWS = {
    "status": "how a search stands",
    "report": "a report of a search",
    "best": "the best configuration",
    "journal": "the trials to optuna-dashboard, as a journal",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command, and those that show a study."""
    parser = subparsers.add_parser(
        "sweep",
        usage="hpcgan sweep CONFIG [key=value ...] --trials N [options]\n"
        "       hpcgan sweep status DIR [--once]\n"
        "       hpcgan sweep report DIR\n"
        "       hpcgan sweep best DIR\n"
        "       hpcgan sweep journal DIR",
        description="Train a configuration with other hyper-parameters again and again, and keep the best by the "
        "score on validation events. What is searched is in the section 'search:' of the configuration; the options "
        "are its sections 'sweep:' and 'job:'. The same command again goes on with what is missing.",
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML configuration with 'search:'")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.epochs=10")
    flags.add_flags(parser, "sweep", SweepSection)
    parser.add_argument(
        "--out", type=arguments.output_folder, metavar="DIR", help="study (default: runs/sweep-NAME-HASH)"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="once it is at work, append there what it would print")
    parser.add_argument("--dry-run", action="store_true", help="print the trials that are known before, and stop")
    job = parser.add_argument_group("with --executor slurm, for each trial")
    flags.add_flags(job, "job", JobSection, leave_out=("requeues", "retries", "min_ranks"))
    job.add_argument("--print", action="store_true", dest="show", help="print the batch script and stop")
    for view, text in VIEWS.items():
        shows = subparsers.add_parser(f"sweep {view}", description=f"Show {text}.")
        shows.add_argument("study", type=Path, metavar="DIR", help="directory of the study")
        shows.set_defaults(once=False)
        if view == "status":
            shows.add_argument("--once", action="store_true", help="print once and stop")


def run(args: argparse.Namespace) -> int:
    """Search, or show a search."""
    if args.command != "sweep":
        return _view(args.command.split()[1], args.study, args.once)
    if "." not in args.config and not Path(args.config).exists() and (hint := did_you_mean(args.config, VIEWS)):
        raise InputError(f"{args.config}: is neither a configuration nor one of {', '.join(VIEWS)}{hint}")
    from hpcgan import api
    from hpcgan.runs.directory import RunDirectory
    from hpcgan.sweep import optuna_study, study
    from hpcgan.sweep.executors import EXECUTORS
    from hpcgan.sweep.store import StudyDirectory

    base, space = study.load(Path(args.config), args.overrides)
    optuna_study.check_sampler(base.sweep.sampler)
    base = study.with_trials(base, space)
    trials = base.sweep.trials or 0
    description = study.describe(base, space, threads=1)
    study.check_draws(space, description, trials)
    if args.dry_run:
        return _show(space, description, trials)
    out = StudyDirectory((args.out or study.default_directory(description)).absolute())
    executor = EXECUTORS.get(base.sweep.executor)
    threads = base.job.threads or (out.description().threads if out.exists else executor.default_threads(base.sweep))
    base = base.model_copy(update={"job": flags.section("job", JobSection, base.job, threads=threads)})
    description = study.describe(base, space, threads=threads)
    study.check(out, description, base)
    # Missing data, and fewer events than a global batch, are refused before anything is written.
    local = base.sweep.executor == "local"
    api.preflight(base, RunDirectory(Path(os.devnull) / "none"), base.sweep.ranks or 1, here=local)
    if args.show:
        print(executor(out, base, _say).script(range(trials)), end="")
        return EXIT_DONE
    return _search(out, description, base, space, args.log)


def _search(out: StudyDirectory, description: Description, base: Config, space: Space, log: Path | None) -> int:
    """Coordinate until everything is done."""
    from hpcgan.launch.process import STOP_SIGNALS, Requests, handling
    from hpcgan.sweep import study, views
    from hpcgan.sweep.coordinator import Coordinator
    from hpcgan.sweep.executors import EXECUTORS

    sweep = base.sweep
    streams.go_on(f"the search goes on, see 'hpcgan sweep status {short(out.path)}'")
    requests = Requests(_say_stopping)
    with handling(STOP_SIGNALS, requests.ask):
        executor = EXECUTORS.get(sweep.executor)(out, base, _say)
        try:
            executor.open()
            with study.opened(out, description, base, _fenced) as lease:
                if log is not None:
                    _print_into(log)
                _say(f"study {short(out.path)}: {sweep.trials} trials, {sweep.sampler} search, {sweep.executor}")
                out.write_goal(sweep.model_copy(update={"concurrency": executor.concurrency}))
                for warning in executor.warnings():
                    _say(f"warning: {warning}")
                code = Coordinator(out, space, executor, sweep, requests, _say, lease.check).run()
                for line in views.summary(out.path):
                    print(line)
                print(f"study: {short(out.path)}", flush=True)
                return code
        finally:
            executor.close()


def _print_into(log: Path) -> None:
    """From here on."""
    try:
        with open(log, "ab") as file:
            if sys.stderr.isatty():  # a program that has given the log knows it
                _say(f"at work; what it says from here on is in {log}")
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(file.fileno(), stream.fileno())
    except OSError as error:
        raise InputError(f"{log}: cannot be written (--log): {error.strerror}") from None


def _show(space: Space, description: Description, trials: int) -> int:
    """Print the trials that are known before they run."""
    from hpcgan import yamlio
    from hpcgan.sweep.space import OWN_SAMPLERS

    if description.sampler not in OWN_SAMPLERS:
        raise InputError(f"--dry-run: what {description.sampler} tries depends on what came of the trials before")
    for index in range(trials):
        params = space.planned(description.sampler, description.seed, index)
        print(f"{index}: {yamlio.dump(params, flow=True)}", end="")
    return EXIT_DONE


def _view(view: str, path: Path, once: bool) -> int:
    """Show a study."""
    from hpcgan.sweep import views
    from hpcgan.sweep.table import read_table

    if view == "status":
        return views.status(path, once=once)
    if view == "best":
        print(views.best(path), end="")
    elif view == "journal":
        from hpcgan.sweep.optuna_study import write_journal

        file = short(write_journal(read_table(path)))
        print(f"journal: {file} (optuna-dashboard {file})")
    else:
        from hpcgan.sweep import report

        file = short(report.write(read_table(path))[-1])
        streams.go_on(f"the report is {file}")
        print(f"report: {file}")
    return EXIT_DONE


def _fenced(text: str) -> None:
    """Another coordinator has the study: this one must not touch it any more."""
    print(f"hpcgan: error: {text}", file=sys.stderr, flush=True)
    os._exit(HpcganError.exit_code)


def _say(line: str) -> None:
    print(f"sweep: {line}", file=sys.stderr, flush=True)


def _say_stopping(line: str) -> None:
    print(line.replace("after this step", "all trials"), file=sys.stderr, flush=True)
