"""What all reports have in common: when and with what they were made, figures, files, seconds."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

import hpcgan
from hpcgan.errors import InputError, Unwritten
from hpcgan.report.page import EmbeddedFigure
from hpcgan.system.files import refusal, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Log = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes
    ----------
    data : dict
        Content of the JSON file.
    html, json : Path
    pictures : list of Path
        Figures that are files as well.
    """

    data: dict[str, Any]
    html: Path
    json: Path
    pictures: list[Path] = field(default_factory=list)


def stamp() -> dict[str, Any]:
    """When and with what: `created`, `versions`."""
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "hpcgan": hpcgan.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }


def embed(name: str, caption: str, figure: Figure, group: str) -> EmbeddedFigure:
    """A figure for the page."""
    from hpcgan.report import plots

    return EmbeddedFigure(name, caption, plots.png(figure), group)


def listed(figures: Sequence[EmbeddedFigure]) -> list[dict[str, str]]:
    """Figures as the JSON file has them."""
    return [{"name": figure.name, "caption": figure.caption, "group": figure.group} for figure in figures]


def check_folder(out: Path) -> None:
    """Refuse a folder of a report that cannot be written, before minutes are spent on what would go there.

    Raises
    ------
    InputError
    """
    if (reason := refusal(out)) is not None:
        raise InputError(f"{out}: cannot write the report: {reason}; name another folder with --out")


def write(out: Path, files: Mapping[str, bytes | str], results: str) -> None:
    """Write files into a folder, which is made.

    Parameters
    ----------
    out : Path
    files : mapping
        Content by name.
    results : str
        What they say, in short: that is not lost with them.

    Raises
    ------
    Unwritten
        It cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(out / name, content)
    except OSError as error:
        raise Unwritten(
            f"{out}: cannot write the report: {error.strerror}; name another folder with --out", results
        ) from None


class Clock:
    """Adds up the seconds of each step, and says what is going on."""

    def __init__(self, log: Log) -> None:
        self.log, self._seconds = log, dict[str, float]()
        self._started = time.monotonic()

    @contextmanager
    def __call__(self, step: str, message: str = "") -> Iterator[None]:
        if message:
            self.log(message)
        started = time.monotonic()
        yield
        self._seconds[f"{step}_s"] = self._seconds.get(f"{step}_s", 0.0) + time.monotonic() - started

    def seconds(self) -> dict[str, float]:
        return {**self._seconds, "total_s": time.monotonic() - self._started}
