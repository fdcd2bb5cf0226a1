"""Options that say which events of a file are used, and how they count; shared by commands that take files."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from hpcgan.errors import InputError

if TYPE_CHECKING:
    from hpcgan.problems.events import Use


def add_options(parser: argparse.ArgumentParser, option: str, more: str = "") -> None:
    """Add `--select` and `--ignore-weights` for the file that another option names."""
    parser.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"of {option}{more}: only events with this value of a column, such as y=1 (y=0,1: either)",
    )
    parser.add_argument(
        "--ignore-weights", action="store_true", help=f"of {option}{more}: events count alike, whatever their weights"
    )


def use_of(args: argparse.Namespace) -> Use:
    """What the options ask for.

    Raises
    ------
    InputError
        A selection that is not of the form NAME=NUMBER or NAME=NUMBER,NUMBER.
    """
    from hpcgan.problems.events import Use

    selection: dict[str, float | list[float]] = {}
    for text in args.select:
        name, _, values = (part.strip() for part in text.partition("="))
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError:
            numbers = []
        if not name or not numbers or not all(math.isfinite(number) for number in numbers):
            raise InputError(f"--select {text}: write it as NAME=NUMBER or NAME=NUMBER,NUMBER, such as y=1")
        if name in selection:
            raise InputError(f"--select {text}: '{name}' is given twice; several values are NAME=NUMBER,NUMBER")
        selection[name] = numbers
    return Use(selection, not args.ignore_weights, "--select", "--ignore-weights")
