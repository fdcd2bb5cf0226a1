"""The command line: subcommands, and errors as one line with an exit code.

Each command is a module of `hpcgan.commands` with `add_parser(subparsers)` and `run(args)`; what is heavy
(TensorFlow, MPI, PYTHIA, matplotlib) is imported inside `run`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence

import hpcgan
from hpcgan.console import quiet_tensorflow
from hpcgan.errors import EXIT_INTERRUPTED, HpcganError, Interrupted

COMMANDS = (
    "data",
    "train",
    "generate",
    "export",
    "evaluate",
    "overlay",
    "scaling",
    "sweep",
    "submit",
    "jobs",
    "control",
    "supervise",
    "doctor",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="hpcgan",
        description="Data-parallel training of generative adversarial networks for the physical sciences.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad input, 75 interrupted with a checkpoint to resume from, "
        "130 interrupted without.",
    )
    parser.add_argument("--version", action="version", version=f"hpcgan {hpcgan.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"hpcgan.commands.{name}").add_parser(subparsers)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse, allowing `key=value` overrides after options, which argparse leaves over."""
    parser = build_parser()
    args, left = parser.parse_known_args(_joined(sys.argv[1:] if argv is None else argv))
    stray = [item for item in left if item.startswith("-") or not hasattr(args, "overrides")]
    if stray:
        parser.error(f"unrecognized arguments: {' '.join(stray)}")
    if left:
        args.overrides = [*args.overrides, *left]
    return args


def _joined(argv: Sequence[str]) -> list[str]:
    """With `--sbatch --x=y` as `--sbatch=--x=y`: argparse takes no value that looks like an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--sbatch":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = parse(argv)
    quiet_tensorflow()
    # To load TensorFlow makes a million objects that stay; looking through them over and over is a tenth of a start.
    gc.set_threshold(100_000, 50, 50)
    try:
        code: int = importlib.import_module(f"hpcgan.commands.{args.command}").run(args)
        sys.stdout.flush()
        return code
    except Interrupted as error:
        print(f"hpcgan: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except HpcganError as error:
        print(f"hpcgan: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hpcgan: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
