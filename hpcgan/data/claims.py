"""What a file says of its data sets, against what they are: units, axes, ranges.

Schemas and layouts say what they are (:mod:`hpcgan.data.meaning`). A file need not say anything. What it does say, in
attributes of the data set, of its group or at the top of the file, is compared with that: energies in another unit are
converted, which is exact, and everything else that differs is refused, as is what cannot be understood.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcgan.data import attributes
from hpcgan.data.meaning import Meaning, Numbers
from hpcgan.data.schema import TensorSpec
from hpcgan.data.storage import readable
from hpcgan.errors import InputError


@dataclass(frozen=True)
class Conversion:
    """From the unit of a file to the needed one.

    Attributes
    ----------
    text : str
        What the file says, "" if nothing.
    times, over : float
        Powers of ten, one of them 1.
    """

    text: str = ""
    times: float = 1.0
    over: float = 1.0

    @property
    def trivial(self) -> bool:
        """Whether numbers stay what they are."""
        return self.times == self.over

    def __call__(self, values: Any) -> Any:
        """Numbers in the needed unit: the same object where nothing changes, else in double precision."""
        if self.trivial:
            return values
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values, np.float64) * self.times / self.over


_ANY = {"scalefactor": Numbers(((1.0,),)), "addoffset": Numbers(((0.0,),))}
"""Of a data set of any kind: what is stored is what is meant (netCDF)."""

_UNITS = ("units", "unit", "energyunits", "energyunit")
_AXES = ("axes", "axis", "axisorder", "axesorder", "axisnames", "axislabels", "axesnames", "axeslabels", "dims",
         "dimensions", "dimensionnames", "dimensionlabels", "dimensionorder", "dimorder")  # fmt: skip
_NO_UNIT = {"1", "none", "dimensionless", "unitless", "no unit", "no units", "-", "n/a"}


def conversions(path: Path, data: Mapping[str, tuple[h5py.Dataset, Meaning]]) -> dict[str, Conversion]:
    """Check what a file says of the data sets of a layout, and how to get their needed units.

    Parameters
    ----------
    path : Path
    data : mapping of str to (Dataset, Meaning)

    Returns
    -------
    dict of str to Conversion

    Raises
    ------
    InputError
        Another unit that cannot be converted, other axes, ranges or the like; two statements that contradict each
        other; a unit of the whole file where data sets have several. The message names file, data set or group, and
        attribute, with the value found and the one needed.
    """
    needed = {meaning.unit for _, meaning in data.values() if meaning.unit and _power(meaning.unit) is not None}
    by_name = {}
    for name, (dataset, meaning) in data.items():
        units: list[_Statement] = []
        for level, holder in enumerate(_levels(dataset)):
            for statement in _statements(path, holder):
                word = statement.word
                own = level == 0 or word.startswith(_word(name))
                word = word.removeprefix(_word(name)) or word
                if word in _UNITS and meaning.unit is not None and statement.says_something:
                    if own or (len(needed) == 1 and meaning.unit in needed):
                        units.append(statement)
                    elif len(needed) > 1 and meaning.unit in needed and not units:
                        several = " and ".join(sorted(needed))
                        raise InputError(
                            f"{statement} is {attributes.show(statement.value)}, but its data sets are in {several}; "
                            "state the units of each data set"
                        )
                elif word in _AXES and meaning.axes:
                    _check_axes(statement, meaning)
                elif word in meaning.numbers:
                    _check_numbers(statement, meaning.numbers[word])
                elif level == 0 and word in _ANY:
                    _check_numbers(statement, _ANY[word])
        by_name[name] = _conversion(units, meaning.unit)
    return by_name


def conversion_of_column(path: Path, dataset: h5py.Dataset, meaning: Meaning) -> Conversion:
    """The same for a data set of which the group's attributes say nothing, as masses beside images."""
    units = [
        statement for statement in _statements(path, dataset) if statement.word in _UNITS and statement.says_something
    ]
    return Conversion() if meaning.unit is None else _conversion(units, meaning.unit)


def of_tensor(spec: TensorSpec) -> Meaning:
    """What a data set of a schema is: its meaning, and the unit that the schema says."""
    return replace(spec.meaning, unit=None if spec.role == "condition" and not spec.unit else spec.unit)


_said: set[tuple[str, str]] = set()


def announce(path: Path, where: str, conversion: Conversion, needed: str) -> None:
    """Say on standard error, once in a process, that a file is converted."""
    if conversion.trivial or (str(path), where) in _said or sys.stderr is None:
        return
    _said.add((str(path), where))
    print(f"note: {path}: {where} is in {conversion.text}, converted to {needed}", file=sys.stderr)


@dataclass(frozen=True)
class _Statement:
    """An attribute: where it stands, its name, its name without case and punctuation, its value."""

    path: Path
    where: str
    name: str
    word: str
    value: Any

    @property
    def says_something(self) -> bool:
        """Whether it is more than an empty text."""
        return not isinstance(self.value, str) or bool(self.value)

    def __str__(self) -> str:
        name = " ".join(self.name.split())
        return f"{self.path}: attribute {name} of {self.where}"


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _levels(dataset: h5py.Dataset) -> list[h5py.Dataset | h5py.Group]:
    """A data set, its group, and so on to the top of the file."""
    parts = (dataset.name or "/").strip("/").split("/")[:-1]
    groups = [dataset.file["/".join(parts[:depth])] for depth in range(len(parts), 0, -1)]
    return [dataset, *groups, dataset.file["/"]]


def _statements(path: Path, holder: h5py.Dataset | h5py.Group) -> list[_Statement]:
    where = (holder.name or "").strip("/") or "the file"
    with readable(path, f"attributes of {where}"):
        entries = attributes.read(holder)
    return [_Statement(path, where, name, _word(name), value) for name, value in entries.items()]


def _conversion(units: list[_Statement], needed: str | None) -> Conversion:
    """What all statements of a unit agree on."""
    conversion = Conversion()
    for number, statement in enumerate(units):
        unit = attributes.text(statement.value, str(statement))
        other = _converted(unit, needed or "")
        if other is None:
            raise InputError(f"{statement} is {attributes.show(unit)}; needed is {needed or 'no unit'}")
        if number and (other.times, other.over) != (conversion.times, conversion.over):
            first = units[0]
            raise InputError(
                f"{first} is {attributes.show(first.value)}, but attribute {statement.name} of {statement.where} is "
                f"{attributes.show(unit)}; correct the wrong one"
            )
        conversion = conversion if number else other
    return conversion


def _converted(unit: str, needed: str) -> Conversion | None:
    """How to get from a unit to another; None if there is no way."""
    have, want = _power(unit), _power(needed)
    if want is None:
        same = unit.casefold() == needed.casefold() or (not needed and unit.casefold() in _NO_UNIT)
        return Conversion(unit) if same else None
    if have is None:
        return None
    return Conversion(unit, 10.0 ** max(have - want, 0), 10.0 ** max(want - have, 0))


_ELECTRONVOLT = re.compile(
    r"(?P<prefix>k|kilo|m|mega|g|giga|t|tera|p|peta)?[\s_-]*(?:ev|electron[\s-]?volts?)"
    r"(?:\s*/\s*c(?:\s*(?:\^|\*\*)?\s*\{?2\}?|²)?)?"
    r"(?:\s*(?:/|per)\s*(?:pixel|cell|tower|voxel|bin|event|shower))?"
)
_POWERS = {"": 0, "k": 3, "m": 6, "g": 9, "t": 12, "p": 15}


def _power(text: str) -> int | None:
    """Power of ten of a unit of energy, in eV; None for what is none. Case does not matter, but for meV."""
    labelled = re.fullmatch(r"(?:energy|energies|e)?\s*[\[(]([^\[\]()]*)[\])]", text.strip(), flags=re.IGNORECASE)
    text = (labelled[1] if labelled else text).strip()
    text = re.sub(r"^in\s+", "", text, flags=re.IGNORECASE)
    match = _ELECTRONVOLT.fullmatch(text.casefold())
    if match is None or text.startswith("meV"):
        return None
    return _POWERS[(match["prefix"] or "")[:1]]


_EVENT = {"event", "events", "evt", "n", "nevents", "i", "sample", "samples", "batch", "shower", "showers", "entry",
          "index", "number", "images"}  # fmt: skip
_FILLER = {"row", "rows", "column", "columns", "cols", "axis", "and", "by", "bin", "bins", "image", "of"}
_SPELLINGS = {
    "ieta": "eta",
    "pseudorapidity": "eta",
    "η": "eta",
    "iphi": "phi",
    "azimuth": "phi",
    "φ": "phi",
    "ϕ": "phi",
}


def _check_axes(statement: _Statement, meaning: Meaning) -> None:
    value = statement.value
    if isinstance(value, list):
        if not any(value):
            return  # dimensions that have no labels
        value = ", ".join(value)
    if not isinstance(value, str):
        if statement.word == "axes":
            raise InputError(f"{statement} is {attributes.show(value)}, not text")
        return
    if statement.word != "axes" and not re.search(r"[^\W\dx_]", value.casefold()):
        return  # a shape
    bare = re.sub(r"\([^()]*\)", " ", value)
    if value and meaning.axes not in (_axes(bare, meaning), _axes(value, meaning)):
        raise InputError(
            f"{statement} is {attributes.show(value)}; needed is {attributes.show(', '.join(meaning.axes))}"
        )


def _axes(text: str, meaning: Meaning) -> tuple[str, ...]:
    """Names of the axes of a sample that a text lists."""
    text = re.sub(r"\s[x×]\s", ", ", text.casefold())
    words = [word for word in re.findall(r"[^\W\d_]+", text) if word not in _FILLER]
    while words and words[0] in _EVENT:
        words = words[1:]
    names = {**_SPELLINGS, **meaning.synonyms}
    return tuple(names.get(word, word) for word in words)


_SEPARATORS = re.compile(r"[\s,;:\[\](){}x×]|to")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def _check_numbers(statement: _Statement, needed: Numbers) -> None:
    if not needed.accepts(_numbers(statement.value)):
        raise InputError(f"{statement} is {attributes.show(statement.value)}; needed is {needed}")


def _numbers(value: Any) -> NDArray[np.float64] | None:
    """Numbers of an attribute in a row, also those that are written as text; None for anything else."""
    if isinstance(value, list):
        value = ", ".join(value)
    if isinstance(value, str):
        value = re.sub(r"(?<![^\W\d_])(?:pi|π)(?![^\W\d_])", f"{np.pi:.9f}", value.casefold())
        digits = re.findall(_NUMBER, value)
        rest = _SEPARATORS.sub("", re.sub(_NUMBER, "", value))
        return np.array(digits, dtype=np.float64) if digits and not rest else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return np.array([value], dtype=np.float64)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        return value.reshape(-1).astype(np.float64)
    return None
