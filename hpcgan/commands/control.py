"""`hpcgan control`: pause a training, go on, change learning rates, ask for a checkpoint, stop it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.suggest import did_you_mean
from hpcgan.system import streams

if TYPE_CHECKING:
    from hpcgan.runs.directory import RunDirectory

_OWN = ("waiting", "withdraw")  # what is about commands, and none to the training


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "control",
        description="Command a training that runs anywhere, through its run directory. All ranks obey after the same "
        "step, and the run's records say when. A training that does not run obeys when it is started again, unless the "
        "command is withdrawn before; 'waiting' lists such commands.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("action", metavar="COMMAND", help="pause, resume, set, checkpoint or stop; waiting or withdraw")
    parser.add_argument("rates", nargs="*", metavar="NETWORK=RATE|ID",
                        help="for set: generator=1e-4 discriminator=5e-5, or density=1e-4; for withdraw: the commands "
                        "(default: all that wait)")  # fmt: skip
    parser.add_argument("--wait", type=arguments.real(), default=60.0, metavar="S",
                        help="how long to wait for the answer, s; 0: not at all (default: 60)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Send a command and tell what came of it, or list or withdraw those that wait."""
    from hpcgan.runs import commands as control
    from hpcgan.runs.directory import RunDirectory
    from hpcgan.runs.lease import attempt_state

    directory = RunDirectory(args.run)
    if args.action in _OWN:
        return _of_waiting(directory, args.action, args.rates)
    if args.action not in control.COMMANDS:
        choices = (*control.COMMANDS, *_OWN)
        hint = did_you_mean(args.action, choices)
        raise InputError(f"command '{args.action}': choose one of {', '.join(choices)}{hint}")
    sent = control.send(directory, args.action, _rates(args.rates))
    streams.go_on("the command was sent")
    if args.wait <= 0:
        idle = attempt_state(directory) != "running"
        print(f"{args.action}: sent to {args.run}" + (f"; {control.stays(directory, sent)}" if idle else ""))
        return EXIT_DONE
    try:
        record = control.wait(directory, sent, args.wait)
    except KeyboardInterrupt:
        print(f"hpcgan: interrupted; {control.stays(directory, sent)}", file=sys.stderr)
        return 130
    print(f"{args.action}: obeyed by all ranks at step {record.step}")
    return EXIT_DONE


def _of_waiting(directory: RunDirectory, action: str, ids: list[str]) -> int:
    from hpcgan.runs import commands as control

    if action == "waiting":
        if ids:
            raise InputError("waiting: takes nothing more")
        commands, state = control.Inbox(directory).read(), "waits"
    else:
        commands, state = control.withdraw(directory, ids), "withdrawn"
    for command in commands:
        rates = "".join(f" {network}={rate:g}" for network, rate in command["rates"].items())
        print(f"{command['id']}  {command['name']}{rates}  {state}")
    if not commands:
        print(f"{directory.path}: no command waits")
    return EXIT_DONE


def _rates(items: list[str]) -> dict[str, float]:
    rates = {}
    for item in items:
        network, _, text = item.partition("=")
        try:
            rates[network] = float(text)
        except ValueError:
            raise InputError(f"'{item}': write it as generator=1e-4") from None
    return rates
