"""Files of any schema: one data set a tensor, written atomically and read with checks.

Layout: group ``samples`` with one data set (N, *shape) of little-endian float32 for each tensor of the schema, its
unit in the attribute ``units``. Attributes of the group name the problem and say how the data were made. Files of other
people need the data sets only, and may use another number type, chunking or compression. Published layouts without a
group are read and written with the group ``/``.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from hpcgan.data import attributes, claims, storage
from hpcgan.data.claims import Conversion
from hpcgan.data.layouts.base import ROOT
from hpcgan.data.schema import Sample, Schema, TensorSpec, check_sample, sample_bytes, take
from hpcgan.data.storage import (
    DataFile,
    Target,
    check_backed,
    find_data,
    find_group,
    open_file,
    readable,
    refuse_foreign,
)
from hpcgan.errors import InputError

GROUP = "samples"
SMALL_BYTES = 1024
"""Tensors smaller than this share a chunk: a chunk a number would be more bookkeeping than data."""

SCAN_BYTES = 8 << 20
"""Samples in memory at a time when a file is checked."""


def _storage(spec: TensorSpec, size: int) -> dict[str, Any]:
    """How a tensor is stored: a chunk a sample, since training reads samples in random order.

    What is mostly zeros is compressed (and has the checksum of the compression). Dense floats are not, and get a
    checksum of their own: byte shuffling and gzip make a convergence map of 256 x 256 smaller by 15%, but take 12 ms to
    write it (making it takes 9) and 1.6 ms to read it, against 0.5 and 0.4 ms.
    """
    together = max(1, SMALL_BYTES // (4 * math.prod(spec.shape)))
    kind = {"compression": "gzip", "compression_opts": 1} if spec.sparse else {"fletcher32": True}
    return {"chunks": (min(together, max(size, 1)), *spec.shape), **kind}


def place(group: str, name: str) -> str:
    """What messages call a data set."""
    return name if group == ROOT else f"{group}/{name}"


class Writer(storage.SplitWriter):
    """Streams samples into one file a split (see :class:`hpcgan.data.storage.SplitWriter`).

    Parameters
    ----------
    target : Target
    schema : Schema
        Tensors of a sample, conditions included.
    group, noun : str
        As of the base class.

    Raises
    ------
    InputError
        As the base class.
    """

    def __init__(self, target: Target, schema: Schema, group: str = GROUP, noun: str = "samples") -> None:
        super().__init__(target, group, sample_bytes(schema) + 64, noun)
        self._schema = dict(schema)

    def _lay_out(self, group: h5py.Group, size: int) -> None:
        for name, spec in self._schema.items():
            data = group.create_dataset(name, shape=(size, *spec.shape), dtype="<f4", **_storage(spec, size))
            data.attrs["units"] = spec.unit

    def append(self, sample: Sample) -> None:
        """Add the next samples, which go to the splits in order.

        Parameters
        ----------
        sample : Sample
            All tensors of the schema, (n, *shape), in physical units.

        Raises
        ------
        ValueError
            Other tensors or shapes than the schema's, or more samples than announced.
        HpcganError
            The disk is full, or cannot be written.
        """
        n = check_sample(sample, self._schema)
        for split, which in self._pieces(n):
            self._append_to(split, take(sample, which), which.stop - which.start)

    def append_to(self, split: str, sample: Sample) -> None:
        """Add samples to one split, which must have room for them; otherwise as `append`."""
        n = check_sample(sample, self._schema)
        if n > self.sizes[split] - self._filled[split]:
            raise ValueError(f"more {self._noun} appended to {split} than announced")
        if n:
            self._append_to(split, sample, n)

    def _append_to(self, split: str, sample: Sample, count: int) -> None:
        at = self._filled[split]
        with storage.signals_held():
            group = self._files[split][self._group]
            for name in self._schema:
                group[name][at : at + count] = sample[name]
                self._digests[split].add(name, np.asarray(sample[name], np.float32))
        self._check_written()
        self._filled[split] = at + count


class TensorFile(DataFile):
    """An open file of samples; made by :func:`open_tensors`.

    Attributes
    ----------
    path : Path
    n : int
        Number of samples.
    schema : dict of str to TensorSpec
    units : dict of str to Conversion
        Of the data sets that are in another unit than the schema's.
    """

    def __init__(
        self,
        path: Path,
        file: h5py.File,
        data: Mapping[str, h5py.Dataset],
        schema: Schema,
        n: int,
        group: str = GROUP,
        units: Mapping[str, Conversion] | None = None,
    ) -> None:
        super().__init__(path, file, group, n)
        self.schema = dict(schema)
        self.units = {name: unit for name, unit in (units or {}).items() if not unit.trivial}
        self._data = data

    def announce(self) -> None:
        """Say on standard error, once in a process, which data sets are converted."""
        for name, unit in self.units.items():
            claims.announce(self.path, place(self.group, name), unit, self.schema[name].unit)

    def read(self, which: slice | ArrayLike = slice(None)) -> Sample:
        """Samples by slice, or by indices in any order, repeats included.

        Parameters
        ----------
        which : slice or (k,) int
            Negative indices count from the end.

        Returns
        -------
        dict of str to (k, *shape) float32
            In physical units.

        Raises
        ------
        InputError
            The file is damaged there.
        IndexError
            An index out of range.
        """
        if isinstance(which, slice):
            start, stop, step = which.indices(self.n)
            if step == 1:
                return {name: self._read(name, slice(start, max(start, stop))) for name in self.schema}
            which = np.arange(start, stop, step)
        indices = np.asarray(which, dtype=np.int64)
        bad = indices[(indices < -self.n) | (indices >= self.n)]
        if bad.size:
            raise IndexError(f"{self.path}: sample {bad[0]} of {self.n}")
        sample = {}
        for name, spec in self.schema.items():
            # One read a sample: h5py's fancy indexing needs sorted unique indices and is several times slower.
            sample[name] = np.empty((indices.size, *spec.shape), np.float32)
            for position, index in enumerate((indices % self.n).tolist()):
                sample[name][position] = self._read(name, index)
        return sample

    def column(self, name: str) -> np.ndarray:
        """One tensor of all samples, (N, *shape) float32."""
        return self._read(name, slice(0, self.n))

    def _read(self, name: str, which: slice | int) -> np.ndarray:
        # What is beyond float32 becomes infinite, and is refused.
        with readable(self.path, place(self.group, name)), np.errstate(over="ignore"):
            values = np.asarray(self._data[name][which])
            if name in self.units:
                values = np.asarray(self.units[name](values))
            return values.astype(np.float32, copy=False)

    def pieces(self, limit: int = SCAN_BYTES) -> Iterator[tuple[int, Sample]]:
        """All samples, at most `limit` bytes at a time, each piece with the number of its first sample."""
        size = max(1, limit // sample_bytes(self.schema))
        for start in range(0, self.n, size):
            yield start, self.read(slice(start, start + size))


def open_tensors(path: str | os.PathLike[str], schema: Schema | None = None, group: str = GROUP) -> TensorFile:
    """Open a file of samples; use it in a ``with`` statement.

    Parameters
    ----------
    path : path
    schema : Schema, optional
        What the file must hold; more is not looked at. Default: whatever it holds.
    group : str
        Group of the data sets.

    Returns
    -------
    TensorFile

    Raises
    ------
    InputError
        No such file, not HDF5, cut short, unfinished, or with tensors missing, of other shapes, of unequal lengths, or
        kept in other files, or with other units, axes or places than the schema's, as far as the file says anything
        (energies are converted). The contents are not scanned; :func:`validate` does that.
    """
    path = Path(path)
    file = open_file(path)
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        with readable(path, group):
            held = file[ROOT] if group == ROOT else find_group(path, file, group)
            needed = _schema_of(path, held, group) if schema is None else schema
            data = {name: _find_tensor(path, held, name, spec) for name, spec in needed.items()}
            lengths = {name: int(tensor.shape[0]) for name, tensor in data.items()}
            units = {} if schema is None else _conversions(path, data, schema)
        first, n = next(iter(lengths.items()))
        for name, length in lengths.items():
            if length != n:
                raise InputError(f"{path}: {place(group, name)} has {length} samples but {place(group, first)} has {n}")
        opened = TensorFile(path, file, data, needed, n, group, units)
        if not opened.complete:
            raise InputError(f"{path}: unfinished (its writer was interrupted); generate it again")
        stack.pop_all()
    return opened


def _conversions(path: Path, data: Mapping[str, h5py.Dataset], schema: Schema) -> dict[str, Conversion]:
    meanings = {name: claims.of_tensor(spec) for name, spec in schema.items()}
    return claims.conversions(path, {name: (data[name], meaning) for name, meaning in meanings.items()})


def _schema_of(path: Path, group: h5py.Group, group_name: str) -> dict[str, TensorSpec]:
    schema = {}
    for name in list(group.keys()):
        refuse_foreign(path, group, name, place(group_name, name))
        data = group[name]
        if isinstance(data, h5py.Dataset):
            shape = tuple(int(length) for length in data.shape[1:])
            schema[name] = TensorSpec(shape, _stated_unit(data))
    if not schema:
        raise InputError(f"{path}: {group_name} holds no data sets")
    return schema


def _stated_unit(data: h5py.Dataset) -> str:
    attributes_of_data = attributes.read(data)
    return str(attributes_of_data.get("units", attributes_of_data.get("unit", "")))


def _find_tensor(path: Path, group: h5py.Group, name: str, spec: TensorSpec) -> h5py.Dataset:
    data, where = find_data(path, group, name), place(group.name.strip("/") or ROOT, name)
    if data.shape is None or data.ndim != 1 + len(spec.shape) or data.shape[1:] != spec.shape:
        needed = ", ".join(["N", *(str(length) for length in spec.shape)])
        raise InputError(f"{path}: {where} has shape {data.shape}; needed is ({needed})")
    if data.shape[0] == 0:
        raise InputError(f"{path}: {where} holds no samples")
    if data.size == 0:
        raise InputError(f"{path}: {where} has shape {data.shape}, samples without a value")
    check_backed(path, data, where)
    return data


def validate(
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    check: Callable[[Sample, str, int], None] = lambda sample, path, first: None,
    group: str = GROUP,
) -> None:
    """Read a whole file, some samples at a time, and refuse it if anything in it is wrong.

    Parameters
    ----------
    path : path
    schema : Schema, optional
        As for :func:`open_tensors`.
    check : callable(sample, path, first), optional
        What else to refuse; hears of every piece with the number of its first sample.
    group : str
        Group of the data sets.

    Raises
    ------
    InputError
        As :func:`open_tensors`, and for damaged data and values that are not finite. The message names file, data set
        and sample.
    """
    with open_tensors(path, schema, group) as file:
        file.announce()
        for first, sample in file.pieces():
            for name, values in sample.items():
                finite = np.isfinite(values)
                if not finite.all():
                    bad = int(np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))[0])
                    value = values[bad][~finite[bad]].flat[0]
                    raise InputError(f"{path}: {place(group, name)} of sample {first + bad} holds a value of {value}")
            check(sample, str(path), first)


def shape_of(path: str | os.PathLike[str], name: str) -> tuple[int, ...] | None:
    """Shape of a tensor of one sample in a file, None where the file does not hold it.

    Raises
    ------
    InputError
        No such file, not HDF5, without group `samples`, or damaged.
    """
    path = Path(path)
    with open_file(path) as file, readable(path, f"{GROUP}/{name}"):
        group = find_group(path, file, GROUP)
        if name not in list(group.keys()):
            return None
        refuse_foreign(path, group, name, f"{GROUP}/{name}")
        data = group[name]
        if not isinstance(data, h5py.Dataset) or data.shape is None:
            return None
        return tuple(int(length) for length in data.shape[1:])
