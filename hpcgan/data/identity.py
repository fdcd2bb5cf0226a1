"""What a data file is, by its content: the same wherever the file lies, whoever copied it, however it is packed.

An identity is made of the names, shapes and kinds of the data sets, of what the attributes say, and of values: those of
small data sets whole, of large ones some entries from all over. It takes some milliseconds for a file of any size.
Other events, another order, another column, unit or seed make another file; another place, compression, chunking, byte
order or width of the numbers does not.

Files that were written here say besides, in the attribute ``digest`` of their group, what all of their values come to
(:class:`hpcgan.data.digest.Digest`). It is part of the identity as any attribute is; values are looked at all the same,
as a file may have been changed after it was written. :func:`is_as_written` compares it with all the values.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcgan.data import digest
from hpcgan.data.digest import Digest
from hpcgan.data.storage import open_file, readable

WHOLE_BYTES = 2 << 20
"""Data sets up to this size are looked at as a whole."""

RUNS, RUN = 16, 4
"""Of larger ones: so many places, and entries in a row at each. A chunk is unpacked as a whole: few places are fast."""

MOST_OBJECTS = 10_000
"""Groups and data sets of a file, at most: a broken file may claim any number."""

#: Attributes that tell of the writing, or of other programs, and nothing of the data.
SILENT = {"complete", "hpcgan", "history", "NCO", "CLASS", "NAME", "TITLE", "VERSION", "FLAVOR", "DIMENSION_LIST"}
SILENT |= {"REFERENCE_LIST", "PYTABLES_FORMAT_VERSION", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_NCProperties"}


@dataclass(frozen=True)
class Identity:
    """What a data file is.

    Attributes
    ----------
    fingerprint : str
        64 hex digits: two files with the same one hold the same data.
    shapes : dict of str to list of int
        Of all data sets, by their path in the file.
    attributes : dict of str to str
        What all attributes say, by the path of their object and their name.
    values : dict of str to str
        Of all data sets, kind and digest of the values that were looked at.
    """

    fingerprint: str
    shapes: dict[str, list[int]]
    attributes: dict[str, str]
    values: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of_plain(cls, raw: Any) -> Identity:
        """From what `plain` made.

        Raises
        ------
        ValueError
            It is something else.
        """
        if not isinstance(raw, Mapping) or not isinstance(raw.get("fingerprint"), str):
            raise ValueError("is no identity of a data file")
        parts: list[dict[str, Any]] = [raw.get(name, {}) for name in ("shapes", "attributes", "values")]
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError("is no identity of a data file")
        return cls(raw["fingerprint"], *parts)


def identify(path: Path) -> Identity:
    """What a file is.

    Raises
    ------
    InputError
        No such file, not HDF5, or damaged where it was looked at.
    """
    path = Path(path)
    shapes: dict[str, list[int]] = {}
    attributes: dict[str, str] = {}
    values: dict[str, str] = {}
    with open_file(path) as file:
        with readable(path, "the list of data sets"):
            for name, node in _objects(file):
                for key in sorted(node.attrs.keys()):
                    if key not in SILENT:
                        attributes[f"{name}.{key}"] = _attribute(node, key)
                if isinstance(node, h5py.Dataset):
                    shapes[name] = [int(n) for n in node.shape or ()]
                    with readable(path, name):
                        values[name] = _look(node)
        attributes.update(_links(path, file))
    whole = json.dumps([shapes, attributes, values], sort_keys=True, separators=(",", ":"))
    return Identity(hashlib.sha256(whole.encode()).hexdigest(), shapes, attributes, values)


def fingerprint(path: Path) -> str:
    """64 hex digits that say what a file is: `identify`."""
    return identify(path).fingerprint


def is_as_written(path: Path) -> bool | None:
    """Whether all values of a file are those that were written here; None where the file does not say what those were.

    Raises
    ------
    InputError
        No such file, not HDF5, or damaged.
    """
    path = Path(path)
    with open_file(path) as file, readable(path, "the data"):
        groups = (node for _, node in _objects(file) if isinstance(node, h5py.Group))
        group = next((node for node in groups if digest.ATTRIBUTE in node.attrs), None)
        if group is None:
            return None
        actual_digest = Digest()
        for name, data in group.items():
            if isinstance(data, h5py.Dataset):
                rows = max(1, 4 * WHOLE_BYTES // (8 * max(1, math.prod(data.shape[1:]))))
                for first in range(0, len(data), rows):
                    actual_digest.add(name, np.asarray(data[first : first + rows]))
        return bool(_plain(group.attrs[digest.ATTRIBUTE]) == str(actual_digest))


def difference(old: Identity, new: Identity) -> str:
    """The first thing that tells two files apart, in a few words; "" where nothing does."""
    if old.fingerprint == new.fingerprint:
        return ""
    for name in sorted(old.shapes.keys() ^ new.shapes.keys()):
        return f"{name} is only {'there' if name in old.shapes else 'here'}"
    differing = [name for name in sorted(old.shapes) if old.shapes[name] != new.shapes[name]]
    lengths = {(tuple(old.shapes[name][:1]), tuple(new.shapes[name][:1])) for name in differing}
    if len(lengths) == 1 and all(old.shapes[name][1:] == new.shapes[name][1:] for name in differing):
        (((before,), (now,)),) = lengths  # a scalar has one shape only
        return f"{before} events there, {now} here"
    for name in differing:
        return f"{name} has shape {tuple(old.shapes[name])} there, {tuple(new.shapes[name])} here"
    for key in sorted(old.attributes.keys() | new.attributes.keys()):
        values = old.attributes.get(key), new.attributes.get(key)
        if values[0] != values[1] and not key.endswith(f".{digest.ATTRIBUTE}"):
            return _said_differently(key, *values)
    for name in sorted(old.values):
        if old.values[name] != new.values.get(name):
            return f"other values of {name}"
    return "other values"


def _said_differently(key: str, old: str | None, new: str | None) -> str:
    """What an attribute says in two files; of settings, the first that differs."""
    before, now = _settings(old), _settings(new)
    if before is not None and now is not None:
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                return f"{name}: {_short(before.get(name))} there, {_short(now.get(name))} here"
    return f"{key.removeprefix('.')}: {_short(old)} there, {_short(new)} here"


def _settings(text: str | None) -> dict[str, Any] | None:
    """The content of an attribute that is a text of JSON with a mapping."""
    try:
        settings = json.loads(json.loads(text or "null"))
    except (TypeError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _objects(group: h5py.Group) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """All groups and data sets of a file, each once, by their paths in it; links to other files are not followed."""
    names: list[str] = []
    group.visit(names.append)  # hard links only, each object once, however many lead there or back
    if len(names) > MOST_OBJECTS:
        raise ValueError(f"{len(names)} groups and data sets")
    yield "", group
    for name in sorted(names):
        here = group[name]
        if isinstance(here, (h5py.Group, h5py.Dataset)):
            yield name, here


def _links(path: Path, file: h5py.File) -> dict[str, str]:
    """Where links of a file lead, as attributes of their names."""
    targets: dict[str, str] = {}
    with readable(path, "the list of data sets"):
        for name, here in _objects(file):
            if not isinstance(here, h5py.Group):
                continue
            for key in here:
                link = here.get(key, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    targets[f"{name}/{key}.link"] = f"{link.filename}:{link.path}"
                elif isinstance(link, h5py.SoftLink):
                    targets[f"{name}/{key}.link"] = str(link.path)
    return targets


def _attribute(node: h5py.Group | h5py.Dataset, key: str) -> str:
    """What an attribute says, as JSON: a text is the same as bytes, padded, or as an array of one."""
    try:
        return json.dumps(_plain(node.attrs[key]), sort_keys=True)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):  # a type that h5py does not know
        return "?"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        flat = [_plain(item) for item in value.reshape(-1)[:MOST_OBJECTS].tolist()]
        return flat[0] if value.size == 1 else flat
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.rstrip("\0 ")
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else repr(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return type(value).__name__  # references, types


def _look(data: h5py.Dataset) -> str:
    """Kind and digest of some values of a data set, of all where they are few."""
    sha = hashlib.sha256()
    if data.shape is None:
        return "empty"
    if data.external or data.is_virtual:  # in other files, which are not opened for it
        return f"{data.dtype.kind} elsewhere"
    if not data.shape or 0 in data.shape:
        if data.size:
            sha.update(_canonical(np.asarray(data[()])))
        return f"{data.dtype.kind} {sha.hexdigest()[:32]}"
    for first, last in _places(data):
        sha.update(_canonical(np.asarray(data[first:last])))
    return f"{_kind(data.dtype)} {sha.hexdigest()[:32]}"


def _places(data: h5py.Dataset) -> list[tuple[int, int]]:
    """Entries that are looked at, by first and last + 1. They depend on the shape and not on the chunks."""
    length = int(data.shape[0])
    entry = 8 * max(1, math.prod(data.shape[1:]))
    run = max(RUN, 4096 // entry)
    if length * entry <= WHOLE_BYTES or length <= RUNS * run:
        rows = max(1, (8 * WHOLE_BYTES) // entry)
        return [(first, min(first + rows, length)) for first in range(0, length, rows)]
    edges = [round(place * (length - run) / (RUNS - 1)) for place in range(RUNS)]
    # Between the first and the last, not at even distances: what repeats would be seen at one phase only.
    moved = [edge + (0 if place in (0, RUNS - 1) else (place * 7919) % 97 % (1 + length // (4 * RUNS)))
             for place, edge in enumerate(edges)]  # fmt: skip
    return [(first, first + run) for first in (min(edge, length - run) for edge in moved)]


def _kind(dtype: np.dtype[Any]) -> str:
    return "i" if dtype.kind in "iub" else dtype.kind


def _canonical(values: np.ndarray) -> bytes:
    """Values as bytes that do not depend on byte order and width."""
    with np.errstate(all="ignore"):
        if values.dtype.kind == "f":
            return values.astype("<f8").tobytes()
        if values.dtype.kind in "iub":
            return values.astype("<i8").tobytes()
    if values.dtype.kind == "c":
        return values.astype("<c16").tobytes()
    if values.dtype.hasobject or values.dtype.kind in "SV":
        return json.dumps(_listed(values.tolist()), sort_keys=True).encode()
    return values.tobytes()


def _listed(value: Any) -> Any:
    """Texts, records and arrays of any length, as JSON has them."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_listed(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("latin-1").rstrip("\0")
    return value if isinstance(value, (str, int, float)) or value is None else type(value).__name__
