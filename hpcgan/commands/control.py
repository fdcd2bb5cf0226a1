"""`hpcgan control`: pause a training, go on, change learning rates, ask for a checkpoint, stop it."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcgan import streams
from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "control",
        help="pause, resume, change, checkpoint or stop a training",
        description="Command a training that runs anywhere, through its run directory. All ranks obey after the same "
        "step, and the run's records say when. A training that does not run obeys when it is started again.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("action", metavar="COMMAND", help="pause, resume, set, checkpoint or stop")
    parser.add_argument("rates", nargs="*", metavar="NETWORK=RATE",
                        help="for set: generator=1e-4 discriminator=5e-5, or density=1e-4")  # fmt: skip
    parser.add_argument("--wait", type=arguments.real(), default=60.0, metavar="S",
                        help="how long to wait for the answer, s; 0: not at all (default: 60)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Send a command and tell what came of it."""
    from hpcgan import control
    from hpcgan.rundir import RunDirectory

    directory = RunDirectory(args.run)
    sent = control.send(directory, args.action, _rates(args.rates))
    streams.go_on("the command was sent")
    if args.wait <= 0:
        print(f"{args.action}: sent to {args.run}")
        return EXIT_DONE
    record = control.wait(directory, sent, args.wait)
    print(f"{args.action}: obeyed by all ranks at step {record['step']}")
    return EXIT_DONE


def _rates(items: list[str]) -> dict[str, float]:
    found = {}
    for item in items:
        network, _, text = item.partition("=")
        try:
            found[network] = float(text)
        except ValueError:
            raise InputError(f"'{item}': write it as generator=1e-4") from None
    return found
