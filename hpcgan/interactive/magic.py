"""The line magic `%hpcgan`: clusters and trainings without typing Python.

```
%load_ext hpcgan.interactive
%hpcgan start --engines slurm -n 8 --nodes 2 --time 2:00:00 --partition gpu
%hpcgan train configs/rpv.yaml training.epochs=3 --run runs/try
%hpcgan status
%hpcgan list
%hpcgan stop
%hpcgan traceback
```

What it makes is in the notebook's variables `cluster`, `session` and `training`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from hpcgan.config import JobSection, flags
from hpcgan.errors import HpcganError, InputError
from hpcgan.interactive.cluster import Cluster
from hpcgan.interactive.engine_set import DECIDED, ENGINES, UNHEEDED
from hpcgan.interactive.training import attach
from hpcgan.system.parser import Parser


class _Parser(Parser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"%hpcgan: {message}; see {self.prog} --help")


@magics_class
class HpcganMagics(Magics):
    """`%hpcgan`."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._variables: dict[str, Any] = shell.user_ns
        self._failed: BaseException | None = None
        self._before: BaseException | None = None  # the error of a cell that was the last one then

    @line_magic
    def hpcgan(self, line: str) -> Any:
        """`%hpcgan start | connect | list | train | attach | status | stop | traceback`; `%hpcgan --help` says more."""
        try:
            args = _parser().parse_args(_words(line) or ["--help"])
            return getattr(self, f"_{args.do}")(args)
        except SystemExit:  # the help was shown
            return None
        except HpcganError as error:
            self._failed, self._before = error, getattr(sys, "last_value", None)
            print(f"hpcgan: error: {error}", file=sys.stderr)
            return None

    def _start(self, args: argparse.Namespace) -> Any:
        if isinstance(old := self._variables.get("cluster"), Cluster) and old.state != "stopped":
            raise InputError(f"`cluster` is {old!r}: %hpcgan stop first")
        job = flags.keywords_of(args, "job")
        cluster = Cluster.start(args.engines, args.n, job=job, address=args.address, timeout=args.timeout)
        return self._take(cluster)

    def _connect(self, args: argparse.Namespace) -> Any:
        return self._take(Cluster.connect(args.id))

    def _take(self, cluster: Cluster) -> Cluster:
        self._variables.update(cluster=cluster, session=cluster.session())
        return cluster

    def _list(self, args: argparse.Namespace) -> Any:
        return Cluster.list()

    def _traceback(self, args: argparse.Namespace) -> None:
        """Of the last error, of a cell or of this magic, whichever came later."""
        last = getattr(sys, "last_value", None)
        error = self._failed if last is self._before else last
        if error is None:
            raise InputError("there was no error")
        print("".join(traceback.format_exception(type(error), error, error.__traceback__)))

    def _train(self, args: argparse.Namespace) -> Any:
        training = self._cluster().session().train(args.config, args.overrides, run=args.run)
        self._variables["training"] = training
        return training

    def _attach(self, args: argparse.Namespace) -> Any:
        training = attach(args.run)
        self._variables["training"] = training
        return training

    def _status(self, args: argparse.Namespace) -> None:
        for name in ("cluster", "training"):
            print(f"{name}: {self._variables.get(name, 'none')}")

    def _stop(self, args: argparse.Namespace) -> None:
        self._cluster().stop()

    def _cluster(self) -> Cluster:
        cluster = self._variables.get("cluster")
        if not isinstance(cluster, Cluster):
            raise InputError("there is no cluster in this notebook: %hpcgan start or %hpcgan connect")
        return cluster


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:  # a quotation that does not end
        raise InputError(f"%hpcgan: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="%hpcgan",
        description="Clusters and trainings.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=20),
    )
    commands = parser.add_subparsers(dest="do", metavar="COMMAND", required=True, parser_class=_Parser)
    start = commands.add_parser("start", help="a cluster, on this machine or in a Slurm job")
    start.add_argument("--engines", choices=ENGINES, default="mpi")
    start.add_argument("-n", type=int, default=2, help="ranks (2)")
    start.add_argument("--address", metavar="NAME", help="of this machine, as compute nodes reach it")
    start.add_argument("--timeout", type=float, metavar="S", help="seconds for which the engines are waited for")
    flags.add_flags(start, "job", JobSection, leave_out=(DECIDED, *UNHEEDED))
    connect = commands.add_parser("connect", help="to a cluster that runs")
    connect.add_argument("id", nargs="?")
    train = commands.add_parser("train", help="on the cluster")
    train.add_argument("config", type=Path)
    train.add_argument("overrides", nargs="*", metavar="key=value")
    train.add_argument("--run", type=Path)
    run = commands.add_parser("attach", help="to the training of a run directory")
    run.add_argument("run", type=Path)
    commands.add_parser("status", help="of cluster and training")
    commands.add_parser("list", help="your clusters")
    commands.add_parser("stop", help="the cluster")
    commands.add_parser("traceback", help="where the last error came from")
    return parser
