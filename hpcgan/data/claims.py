"""What data sets mean, and what a file says of itself: units, axes, ranges.

Each layout has a table of what its data sets are. A file need not say anything. What it does say, in attributes of the
data set, of its group or at the top of the file, is compared with the table: energies in another unit are converted,
which is exact, and everything else that differs is refused, as is what cannot be understood.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcgan.data import attributes
from hpcgan.data.storage import readable
from hpcgan.errors import InputError
from hpcgan.physics import calorimeter, lognormal
from hpcgan.physics.images import ETA_RANGE, N_ETA, N_PHI, PHI_RANGE

TOLERANCE = 1 / 8
"""Of a pixel: ranges whose ends are nearer to one another mean the same. So +-3.14 or +-pi is the range +-3.15 of the
published images (a tower within 0.01 of an edge may be in the next pixel), and +-3.2 is not."""


@dataclass(frozen=True)
class Numbers:
    """What an attribute with numbers must say.

    Attributes
    ----------
    allowed : tuple of tuples of float
        Any of these.
    tolerance : float
    last : bool
        Of more numbers the last ones count, and one stands for all (shapes).
    loose : bool
        A common name: something of another form is about something else.
    """

    allowed: tuple[tuple[float, ...], ...]
    tolerance: float = 0.0
    last: bool = False
    loose: bool = False

    def accepts(self, found: NDArray[np.float64] | None) -> bool:
        """Whether numbers, or what is none, say the same."""
        for wanted in self.allowed:
            values = found
            if self.last and values is not None:
                values = np.repeat(values, len(wanted)) if len(values) == 1 else values[-len(wanted) :]
            if values is not None and len(values) == len(wanted):
                return bool((np.abs(values - wanted) <= self.tolerance * (1 + 1e-9)).all())
        return self.loose

    def __str__(self) -> str:
        wanted = [f"{value:g}" for value in self.allowed[0]]
        return wanted[0] if len(wanted) == 1 else f"[{', '.join(wanted)}]"


@dataclass(frozen=True)
class Meaning:
    """What a data set is.

    Attributes
    ----------
    unit : str or None
        "" where it has none; None: whatever the file says.
    axes : tuple of str
        Of one sample.
    synonyms : mapping of str to str
        Other names of these axes.
    numbers : mapping of str to Numbers
        Attributes by their names in small letters, without anything between words.
    """

    unit: str | None = None
    axes: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Numbers] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversion:
    """From the unit of a file to the needed one.

    Attributes
    ----------
    said : str
        What the file says, "" if nothing.
    times, over : float
        Powers of ten, one of them 1.
    """

    said: str = ""
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


def _grid(shape: tuple[int, int]) -> dict[str, Numbers]:
    """Attributes that say which part of the detector images show, in all the ways they are called."""
    found = {}
    ends: tuple[float, ...] = ()
    for number, (axis, span) in enumerate((("eta", ETA_RANGE), ("phi", PHI_RANGE))):
        bins, ends = shape[number], (*ends, *span)
        near = (span[1] - span[0]) / bins * TOLERANCE
        edges = tuple(np.linspace(*span, bins + 1).tolist())
        for word in ("range", "ranges", "lim", "lims", "limit", "limits", "bounds", "extent", "window", "interval"):
            found[f"{axis}{word}"] = found[f"{word}{axis}"] = Numbers((tuple(span), edges), near)
        for word, value in zip(("min", "max", "low", "high", "lo", "hi"), span * 3):
            found[f"{axis}{word}"] = found[f"{word}{axis}"] = Numbers(((value,),), near)
        for word in ("edges", "binedges", "bins", "edge"):
            found[f"{axis}{word}"] = found[f"{word}{axis}"] = Numbers((edges, (float(bins),)), near)
        for name in (f"n{axis}", f"n{axis}bins", f"nbins{axis}", f"{axis}nbins", f"num{axis}"):
            found[name] = Numbers(((float(bins),),))
        for name in (f"{axis}binwidth", f"{axis}width", f"{axis}pixelsize", f"d{axis}", f"delta{axis}", f"{axis}step"):
            found[name] = Numbers((((span[1] - span[0]) / bins,),), 2 * near / bins)
    pixel = TOLERANCE * min((ends[1] - ends[0]) / shape[0], (ends[3] - ends[2]) / shape[1])
    for name in ("range", "ranges", "extent", "histrange", "imagerange", "imageextent", "limits", "bounds"):
        found[name] = Numbers((ends,), pixel, loose=True)
    size = (tuple(map(float, shape)),)
    found["imageshape"] = found["imagesize"] = Numbers(size, last=True)
    for name in ("bins", "nbins", "shape", "histbins", "gridshape"):
        found[name] = Numbers(size, last=True, loose=True)
    return found


def images(shape: tuple[int, int] = (N_ETA, N_PHI)) -> Meaning:
    """Of detector images."""
    return Meaning("MeV", ("eta", "phi"), numbers=_grid(shape))


DETECTOR = images()
"""Detector images of the published size."""

MASS = Meaning("GeV")

_PLACES = {
    "windowmm": Numbers(((-calorimeter.HALF_SIDE, calorimeter.HALF_SIDE),), 0.01),
    "layeredgesmm": Numbers((calorimeter.LAYER_EDGES,), 0.01),
}
_LAYER = Meaning("MeV", ("phi", "eta"), {"y": "phi", "x": "eta"}, _PLACES)
SHOWERS = {
    **{f"layer_{layer}": _LAYER for layer in range(calorimeter.N_LAYERS)},
    "overflow": Meaning("MeV"),
    "energy": Meaning("GeV"),
}
"""The published layout of calorimeter showers."""

CHALLENGE = {"incident_energies": Meaning("MeV"), "showers": Meaning("MeV", numbers=_PLACES)}
"""Files of the CaloChallenge."""

GEANT4 = {"energy": Meaning("GeV"), "deposit": Meaning("MeV")}

_AREA = Numbers(((lognormal.AREA_DEG2,),), 0.01 * lognormal.AREA_DEG2)
MAPS = {"kappa": Meaning("", numbers={"areadeg2": _AREA})}
"""Convergence maps; their two axes are alike."""

TENSORS: Mapping[str, Meaning] = {**SHOWERS, **CHALLENGE, **MAPS}
"""Of files of any schema, by the names of their data sets."""

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
    found = {}
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
        found[name] = _conversion(units, meaning.unit)
    return found


def conversion_of_column(path: Path, dataset: h5py.Dataset, meaning: Meaning) -> Conversion:
    """The same for a data set of which the group's attributes say nothing, as masses beside images."""
    units = [
        statement for statement in _statements(path, dataset) if statement.word in _UNITS and statement.says_something
    ]
    return Conversion() if meaning.unit is None else _conversion(units, meaning.unit)


def of_tensor(name: str, unit: str, is_condition: bool) -> Meaning:
    """What a data set of a schema is: axes and numbers of :data:`TENSORS`, and the unit that its schema says."""
    return replace(TENSORS.get(name, Meaning()), unit=None if is_condition and not unit else unit)


_said: set[tuple[str, str]] = set()


def announce(path: Path, where: str, conversion: Conversion, needed: str) -> None:
    """Say on standard error, once in a process, that a file is converted."""
    if conversion.trivial or (str(path), where) in _said or sys.stderr is None:
        return
    _said.add((str(path), where))
    print(f"note: {path}: {where} is in {conversion.said}, converted to {needed}", file=sys.stderr)


MOST_TEV = 100.0
"""Energy of an event of detector images at most, where a file's unit is converted: that of the largest collider that
was ever planned. Whoever writes MeV and says GeV has a thousand times more than there is."""


def check_plausible(energy_mev: NDArray[np.floating[Any]], conversion: Conversion, where: str, first: int) -> None:
    """Refuse a unit that the numbers themselves contradict.

    Parameters
    ----------
    energy_mev : (n,) float
        Energy of each event, after the conversion.
    conversion : Conversion
    where : str
        What the message begins with: file and data set.
    first : int
        Number of the first event.

    Raises
    ------
    InputError
    """
    bad = np.flatnonzero(energy_mev > MOST_TEV * 1e6)
    if bad.size and conversion.times > 1:
        raise InputError(
            f"{where}: attribute units says {conversion.said}, but event {first + bad[0]} would have "
            f"{energy_mev[bad[0]] / 1e6:.4g} TeV, more than any collision; correct the attribute"
        )


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
        found = attributes.read(holder)
    return [_Statement(path, where, name, _word(name), value) for name, value in found.items()]


def _conversion(units: list[_Statement], needed: str | None) -> Conversion:
    """What all statements of a unit agree on."""
    found = Conversion()
    for number, statement in enumerate(units):
        said = attributes.text(statement.value, str(statement))
        other = _converted(said, needed or "")
        if other is None:
            raise InputError(f"{statement} is {attributes.show(said)}; needed is {needed or 'no unit'}")
        if number and (other.times, other.over) != (found.times, found.over):
            first = units[0]
            raise InputError(
                f"{first} is {attributes.show(first.value)}, but attribute {statement.name} of {statement.where} is "
                f"{attributes.show(said)}; correct the wrong one"
            )
        found = found if number else other
    return found


def _converted(said: str, needed: str) -> Conversion | None:
    """How to get from a unit to another; None if there is no way."""
    have, want = _power(said), _power(needed)
    if want is None:
        same = said.casefold() == needed.casefold() or (not needed and said.casefold() in _NO_UNIT)
        return Conversion(said) if same else None
    if have is None:
        return None
    return Conversion(said, 10.0 ** max(have - want, 0), 10.0 ** max(want - have, 0))


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
    found = _ELECTRONVOLT.fullmatch(text.casefold())
    if found is None or text.startswith("meV"):
        return None
    return _POWERS[(found["prefix"] or "")[:1]]


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
        found = re.findall(_NUMBER, value)
        rest = _SEPARATORS.sub("", re.sub(_NUMBER, "", value))
        return np.array(found, dtype=np.float64) if found and not rest else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return np.array([value], dtype=np.float64)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        return value.reshape(-1).astype(np.float64)
    return None
