"""Generators that come with the package, by name: run directories of which only what is sampled was kept.

`pretrained:NAME` names one wherever a run is read. Nothing is written into them. No TensorFlow here.
"""

from __future__ import annotations

import os
from pathlib import Path

import pydantic

from hpcgan import yamlio
from hpcgan.errors import InputError
from hpcgan.suggest import choose

PREFIX = "pretrained:"
FOLDER = Path(__file__).resolve().parents[1] / "pretrained"
CARD = "card.yaml"


class Number(pydantic.BaseModel):
    """A measured number; `real` is what real events have of it, as a report gives it."""

    name: str
    value: float
    error: float | None = None
    real: str = ""


class Card(pydantic.BaseModel):
    """What is said of a generator.

    Attributes
    ----------
    title : str
        What it makes.
    recipe, data, trained : str
        Configuration, command that made the training events, time and machine.
    licence : str
        SPDX identifier.
    conditions : dict of str to (float, float)
        Of conditional ones, the range of each condition in the training events.
    scores : list of Number
        On test events, in samples of `events`.
    """

    title: str
    recipe: str
    data: str
    trained: str
    licence: str
    conditions: dict[str, tuple[float, float]] = {}
    events: int
    scores: list[Number]


def names() -> list[str]:
    """Of all that there are."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{CARD}"))


def is_name(path: str | os.PathLike[str]) -> bool:
    """Whether it means one of these instead of a folder."""
    return os.fspath(path).startswith(PREFIX)


def resolve(path: str | os.PathLike[str]) -> Path:
    """The folder of `pretrained:NAME`; any other path as it is.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if not is_name(path):
        return Path(path)
    name = os.fspath(path).removeprefix(PREFIX)
    if name not in names():
        raise InputError(f"{PREFIX}{name}: there is no such generator{choose(name, names())}")
    return FOLDER / name


def card(name: str) -> Card:
    """What is said of a generator."""
    return Card.model_validate(yamlio.load((FOLDER / name / CARD).read_text(encoding="utf-8")))


def ranges(path: str | os.PathLike[str]) -> dict[str, tuple[float, float]] | None:
    """The ranges of conditions that `pretrained:NAME` was trained in; None of any other path."""
    return card(resolve(path).name).conditions if is_name(path) else None


def size(name: str) -> int:
    """Bytes of a generator."""
    return sum(path.stat().st_size for path in (FOLDER / name).rglob("*") if path.is_file())
