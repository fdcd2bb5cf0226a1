"""The command line: subcommands, and errors as one line with an exit code.

Each command is a module of `hpcgan.commands` with `add_parser(subparsers)` and `run(args)`, imported when it is asked
for; what is heavy (TensorFlow, MPI, PYTHIA, matplotlib) is imported inside `run`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence

import hpcgan
from hpcgan.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, HpcganError, Interrupted, Unwritten
from hpcgan.system import failure, home, streams
from hpcgan.system.console import quiet_tensorflow
from hpcgan.system.failure import Failure
from hpcgan.system.parser import Parser

COMMANDS = {
    "data": "generate, import or inspect data sets",
    "train": "train a model; the same command again resumes it",
    "generate": "samples of a trained run as a file",
    "pretrained": "generators that come with hpcgan, as runs: 'hpcgan generate pretrained:NAME'",
    "serve": "generators of runs as a service: Open Inference Protocol over HTTP and gRPC",
    "export": "the generator of a run as a SavedModel, for TensorFlow without hpcgan",
    "evaluate": "physics score and report (HTML, JSON) of a run or of files",
    "track": "show a run in MLflow or Weights & Biases, or tell them what is missing",
    "report": "runs compared in one page: curves, scores, time, core-hours",
    "overlay": "generated and real pileup on signal events: shift of the jets",
    "scaling": "measure a training on 1, 2, 4 ... ranks; 'scaling model STUDY' extrapolates",
    "sweep": "search hyper-parameters; 'sweep status|report|best|journal DIR' show a search",
    "submit": "train in a Slurm job, or in as many as it takes",
    "jobs": "list runs with queue state, epoch, score, goodput and time left",
    "control": "pause, resume, change, checkpoint or stop a training",
    "supervise": "inside a Slurm job: train on all its tasks, through time limits and failures",
    "chaos": "faults for a training, and a verdict whether it keeps what is promised",
    "doctor": "check the installation with a real job of two ranks",
}
#: Commands of two words, which show what there is already.
VIEWS = ("sweep status", "sweep report", "sweep best", "sweep journal", "scaling model")

EXIT_READER_LEFT = 141
"""The shell's convention for a program ended by SIGPIPE."""


def build_parser(command: str) -> Parser:
    """The parser of the command line, with the options of one command: what is not asked for is not imported."""
    parser = Parser(
        prog="hpcgan",
        description="Data-parallel training of generative adversarial networks for the physical sciences.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad input, 75 interrupted with a checkpoint to resume from, "
        "130 interrupted without.",
    )
    parser.add_argument("--version", action="version", version=f"hpcgan {hpcgan.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        if name == command.partition(" ")[0]:
            importlib.import_module(f"hpcgan.commands.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse, allowing `key=value` overrides after options, which argparse leaves over.

    Options that are keys of the configuration become overrides, too, behind those that are written as such.
    """
    words = _joined(sys.argv[1:] if argv is None else argv)
    parser = build_parser(next((word for word in words if not word.startswith("-")), ""))
    args, rest = parser.parse_known_args(words)
    if not hasattr(args, "overrides"):
        if rest:
            parser.unknown(rest, args)
        return args
    from hpcgan.config import flags, keys

    if stray := [item for item in rest if item.startswith("-")]:
        parser.unknown(stray, args, keys())
    args.overrides = [*args.overrides, *rest, *flags.overrides_of(args)]
    return args


def _joined(argv: Sequence[str]) -> list[str]:
    """With `--sbatch --x=y` as `--sbatch=--x=y`: argparse takes no value that looks like an option.

    And `sweep status` as one word: a command with options of its own.
    """
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--sbatch":
            joined[-1] += f"={word}"
        elif len(joined) == 1 and f"{joined[0]} {word}" in VIEWS:
            joined[0] += f" {word}"
        else:
            joined.append(word)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    streams.guard()
    streams.insist()
    try:
        return _run(argv)
    except streams.OutputError as error:
        if error.reader_left:  # e.g. `| head`
            return EXIT_READER_LEFT
        print(f"hpcgan: error: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        streams.settle()


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = parse(argv)
    except SystemExit as end:  # of argparse, after --help or a wrong word
        streams.finish()
        return end.code if isinstance(end.code, int) else EXIT_DONE
    quiet_tensorflow()
    # To load TensorFlow makes a million objects that stay; looking through them over and over is a tenth of a start.
    gc.set_threshold(100_000, 50, 50)
    try:
        home.provide(os.environ)
        code: int = importlib.import_module(f"hpcgan.commands.{args.command.split()[0]}").run(args)
        streams.finish()
        return code
    except Interrupted as error:
        print(f"hpcgan: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except HpcganError as error:
        if isinstance(error, Unwritten):  # an hour's work, say
            print(error.output, flush=True)
        failure.tell(Failure.of(error))
        print(f"hpcgan: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hpcgan: interrupted", file=sys.stderr)
        return 130
