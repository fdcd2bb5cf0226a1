"""What `hpcgan data info` says of a file: the lines that all layouts share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hpcgan.errors import Unwritten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_EVENTS = 5
"""Samples in a picture, at most."""

_SAID = {"units", "image_shape", "events", "samples", "showers"}


def headline(path: Path, samples: str) -> str:
    """The first line: name, number of samples, size."""
    return f"{path}: {samples}, {os.path.getsize(path) / 1e6:.1f} MB, readable and valid"


def attribute_lines(attributes: Mapping[str, Any]) -> list[str]:
    """A line for each attribute that is not said in others."""
    return [f"  {_short(name):<18}{_short(value)}" for name, value in sorted(attributes.items()) if name not in _SAID]


def line(name: str, values: NDArray[Any], unit: str) -> str:
    spread = f"{values.mean():.4g} +- {values.std():.2g}"
    return f"  {name:<18}{spread} {unit} ({values.min():.4g} to {values.max():.4g})"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}... ({len(text)} characters)"


@contextlib.contextmanager
def keeping(lines: Sequence[str]) -> Iterator[None]:
    """What was found out is not lost with a picture of it."""
    try:
        yield
    except Unwritten as error:
        raise Unwritten(str(error), "\n".join(lines)) from error


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    try:
        figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    except OSError as error:
        raise Unwritten(
            f"{path}: the picture cannot be written ({error.strerror}); use --picture FILE.png or --no-picture", ""
        ) from error
