"""What all subcommands take in the same way: numbers within limits, and names of what is to be written.

They are looked at while the command line is read, so that a number that makes no sense, or a place where nothing can be
written, is one line at the start and not the end of an hour of work.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from hpcgan.errors import HpcganError
from hpcgan.runs import pretrained
from hpcgan.system import home
from hpcgan.system.files import refusal

MOST = 10**12
"""The largest number of anything: events, epochs, units."""
MOST_PROCESSES = 10**5
"""The largest number of processes or ranks."""
MOST_SEED = 2**63 - 1

_WORKING_NAME = 48
"""Bytes that names of files in the making have more than the name at the end."""


def whole(least: int = 1, most: int = MOST) -> Callable[[str], int]:
    """A type of argument: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?\d{1,400}\s*", text, re.ASCII):
            raise argparse.ArgumentTypeError(f"'{_short(text)}' is not a whole number, {_limits(least, most)}")
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{_short(text)}: give at least {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{_short(text)}: give at most {_power(most)}")
        return value

    return parse


def real(least: float = 0.0, most: float = 1e9, *, above: bool = False) -> Callable[[str], float]:
    """A type of argument: a number from `least` (or above it) to `most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise argparse.ArgumentTypeError(f"'{_short(text)}' is not a number")
        if value < least or (above and value == least):
            raise argparse.ArgumentTypeError(f"{_short(text)}: give {'more than' if above else 'at least'} {least:g}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{_short(text)}: give at most {most:g}")
        return value

    return parse


count = whole(1)
"""A number of events, epochs, units: at least one."""
processes = whole(1, MOST_PROCESSES)
"""A number of processes or ranks."""
seed = whole(0, MOST_SEED)
"""A seed that every source of random numbers takes."""
seconds = real(0.0, above=True)
"""A limit of time, s."""


def add_training(parser: argparse.ArgumentParser) -> None:
    """What a training is started with: its configuration, overrides and run directory."""
    parser.add_argument("config", type=Path, help="YAML configuration, e.g. configs/rpv.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.epochs=3")
    parser.add_argument("--run", type=run_folder, metavar="DIR", help="run directory (default: runs/NAME-HASH)")


def output_file(text: str) -> Path:
    """A file to write, which may exist. What is behind a symbolic link is meant, not the link.

    Parameters
    ----------
    text : str
        `~` in front is the user's folder.

    Raises
    ------
    argparse.ArgumentTypeError
        It is a folder, a device, a pipe or a socket; its folder is missing, is none, or cannot be written; or there can
        be no such name.
    """
    if text.endswith("/"):
        raise argparse.ArgumentTypeError(f"{_short(text)}: is the name of a folder; give a file name")
    path = _named(text)
    status = _status(path)
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise argparse.ArgumentTypeError(f"{path}: is a folder; give a file name")
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise argparse.ArgumentTypeError(f"{path}: is a device, a pipe or a socket; give the name of a file")
    parent = path.absolute().parent
    if not parent.is_dir():
        what = f"{parent} is not a folder" if parent.exists() else f"there is no folder {path.parent}"
        raise argparse.ArgumentTypeError(f"{path}: {what}")
    _check_writable(path, parent)
    _check_name(path.name, parent)
    return path


def output_folder(text: str) -> Path:
    """A folder to write into, which may exist and otherwise will be made, with those above it.

    Raises
    ------
    argparse.ArgumentTypeError
        It, or what should be a folder above it, is something else or cannot be written; or there can be no such name.
    """
    path = run_folder(text)
    _check_writable(path, _deepest(path))
    return path


def run_folder(text: str) -> Path:
    """As `output_folder`, for a run directory: whether it can be written is found out by who needs that.

    Raises
    ------
    argparse.ArgumentTypeError
        It, or what should be a folder above it, is something else, or there can be no such name.
    """
    path = _named(text)
    if _status(path) is not None and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: is not a folder")
    place = _deepest(path)
    if not place.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: {place} is not a folder")
    for name in path.absolute().relative_to(place).parts:
        _check_name(name, place)
    return path


def _named(text: str) -> Path:
    """The path that a text names, through symbolic links at its end."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise argparse.ArgumentTypeError(f"{_short(text)}: a name with a line break or another control character")
    if pretrained.is_name(text):
        raise argparse.ArgumentTypeError(f"{_short(text)}: is what comes with hpcgan, which is only read; name another")
    try:
        path = home.expand(text)
    except HpcganError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    try:
        if path.is_symlink():
            path = Path(os.path.realpath(path))
            if path.is_symlink():
                raise argparse.ArgumentTypeError(f"{text}: a symbolic link that leads to itself")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{_short(text)}: {error.strerror}") from None
    return path


def _status(path: Path) -> os.stat_result | None:
    """What is there; None if nothing is."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise argparse.ArgumentTypeError(f"{path}: {_deepest(path)} is not a folder") from None
    except OSError as error:  # a name that is too long, say, or no permission to look
        raise argparse.ArgumentTypeError(f"{_short(str(path))}: {error.strerror}") from None


def _deepest(path: Path) -> Path:
    """The longest part of a path that exists."""
    place = path.absolute()
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    return place


def _check_writable(path: Path, folder: Path) -> None:
    if (reason := refusal(folder)) is not None:
        where = "" if folder == path.absolute() else f"{folder}: "
        raise argparse.ArgumentTypeError(f"{path}: cannot be written ({where}{reason}); name another place")


def _check_name(name: str, folder: Path) -> None:
    """Refuse a name that has no room for the endings of files in the making."""
    try:
        longest = os.pathconf(folder, "PC_NAME_MAX") - _WORKING_NAME
    except (OSError, ValueError):
        return
    if len(os.fsencode(name)) > longest:
        raise argparse.ArgumentTypeError(f"{_short(name)}: the name is too long, give at most {longest} bytes")


def _short(text: str) -> str:
    """A text for a message: on one line, and not pages of it."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return line if len(line) <= 60 else f"{line[:40]}...{line[-10:]}"


def _limits(least: int, most: int) -> str:
    return f"give one from {least} to {_power(most)}"


def _power(number: int) -> str:
    return "2^63 - 1" if number == MOST_SEED else str(number)
