"""Pools of minimum-bias events: sparse images, written atomically and read with checks.

Layout: group ``pool`` with the compressed sparse rows of N images of 64 x 64 pixels, axes [eta, phi]: ``indptr``
(N + 1,) int64, ``pixel`` (M,) uint16 (eta * 64 + phi, ascending within an event) and ``energy`` (M,) float32 in MeV.
Event i is made of the entries indptr[i] ... indptr[i + 1] - 1; it may have none. Attributes of the group say how the
events were made, and ``mu`` how many of them make a pileup unless somebody asks for another number.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from hpcgan.data import attributes, claims, storage
from hpcgan.data.claims import Conversion
from hpcgan.data.storage import DataFile, check_backed, find_data, find_group, open_file, readable
from hpcgan.errors import InputError
from hpcgan.physics.pileup import PIXELS, SparseImages
from hpcgan.problems.detector_images.files import check_plausible, meaning

GROUP = "pool"

BYTES_PER_EVENT = 300
"""Upper estimate of an event's size in a file (measured: 91 at 13 TeV, of 128 uncompressed)."""

CHUNK = 1 << 15
"""Entries of a chunk. A pool is read as a whole, so chunks are as large as compression likes them."""

COLUMNS = {"indptr": "<i8", "pixel": "<u2", "energy": "<f4"}
MU_MAX = 1000
"""Events of a pileup, at most: more than any collider in sight, and few enough to draw quickly."""


def check_mu(mu: int, what: str = "mu") -> None:
    """Refuse a number of events of a pileup that is out of range (`InputError`)."""
    if not 1 <= mu <= MU_MAX:
        raise InputError(f"{what} = {mu}: events of a pileup, use 1 to {MU_MAX}")


class Writer(storage.SplitWriter):
    """Streams events into one pool a split (see :class:`hpcgan.data.storage.SplitWriter`).

    Parameters
    ----------
    target : Target

    Raises
    ------
    InputError
        As the base class.
    """

    def __init__(self, target: storage.Target) -> None:
        super().__init__(target, GROUP, BYTES_PER_EVENT, "events")

    def _lay_out(self, group: h5py.Group, size: int) -> None:
        compressed = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        group.create_dataset("indptr", (size + 1,), COLUMNS["indptr"], chunks=(min(size + 1, CHUNK),), **compressed)
        for name in ("pixel", "energy"):
            group.create_dataset(name, (0,), COLUMNS[name], chunks=(CHUNK,), maxshape=(None,), **compressed)
        group["energy"].attrs["units"] = "MeV"

    def append(self, events: SparseImages) -> None:
        """Add the next events, which go to the splits in order.

        Raises
        ------
        HpcganError
            The disk is full, or cannot be written.
        """
        for split, which in self._pieces(len(events)):
            part = events.part(which)
            at = self._filled[split]
            with storage.signals_held():
                group = self._files[split][GROUP]
                stored = group["pixel"].shape[0]
                indptr = part.indptr + stored
                group["indptr"][at : at + len(part) + 1] = indptr
                self._digests[split].add("indptr", indptr if at == 0 else indptr[1:])
                for name, values in (("pixel", part.pixel), ("energy", part.energy)):
                    group[name].resize((stored + len(values),))
                    group[name][stored:] = values
                    self._digests[split].add(name, values)
            self._check_written()
            self._filled[split] = at + len(part)


class PoolFile(DataFile):
    """An open pool; made by :func:`open_pool`.

    Attributes
    ----------
    path : Path
    n : int
        Number of events.
    unit : Conversion
        Of the energies.
    """

    def __init__(self, path: Path, file: h5py.File, columns: Mapping[str, h5py.Dataset]) -> None:
        super().__init__(path, file, GROUP, int(columns["indptr"].shape[0]) - 1)
        self._columns = dict(columns)
        self.unit: Conversion = claims.conversions(path, {"energy": (columns["energy"], meaning())})["energy"]

    def announce(self) -> None:
        """Say on standard error, once in a process, that the energies are converted, if they are."""
        claims.announce(self.path, f"{GROUP}/energy", self.unit, "MeV")

    @property
    def mu(self) -> int | None:
        """Events of a pileup that the pool was made for; None where it does not say.

        Raises
        ------
        InputError
            Something else than a number in range stands there.
        """
        return stated_mu(self)

    def read(self) -> SparseImages:
        """All events, some 130 bytes each.

        Raises
        ------
        InputError
            The file is damaged, or holds what cannot be images: rows that do not follow one another, pixels outside the
            image, energies that are not finite or not positive.
        """
        columns = {}
        for name, data in self._columns.items():
            with readable(self.path, f"{GROUP}/{name}"), np.errstate(over="ignore", invalid="ignore"):
                columns[name] = np.asarray(data[:])
        indptr, pixel = columns["indptr"], columns["pixel"]
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite: refused
            energy = np.asarray(self.unit(columns["energy"])).astype(np.float32, copy=False)
        where = f"{self.path}: {GROUP}"
        if indptr[0] != 0 or indptr[-1] != len(pixel) or np.any(indptr[1:] < indptr[:-1]):
            raise InputError(f"{where}/indptr does not lead from 0 to the {len(pixel)} entries without going back")
        if len(pixel) and (pixel.min() < 0 or pixel.max() >= PIXELS):
            bad = int(np.flatnonzero((pixel < 0) | (pixel >= PIXELS))[0])
            raise InputError(f"{where}/pixel: entry {bad} is {pixel[bad]}; pixels are 0 to {PIXELS - 1}")
        good = np.isfinite(energy) & (energy > 0)
        if not good.all():
            bad = int(np.flatnonzero(~good)[0])
            event = int(np.searchsorted(indptr, bad, side="right")) - 1
            raise InputError(f"{where}/energy: event {event} holds an energy of {energy[bad]:g} MeV")
        if not self.unit.trivial:
            owner = np.repeat(np.arange(self.n), np.diff(indptr))
            check_plausible(np.bincount(owner, energy, self.n).astype(float), self.unit, f"{where}/energy", 0)
        return SparseImages(indptr.astype(np.int64, copy=False), pixel.astype(np.uint16, copy=False), energy)


def stated_mu(file: DataFile) -> int | None:
    """Events of a pileup that a file says it is for; None where it does not say.

    Raises
    ------
    InputError
        Something else than a number in range stands there.
    """
    mu = attributes.single(file.attrs.get("mu"))
    if mu is None:
        return None
    if not isinstance(mu, (int, float)) or mu not in range(1, MU_MAX + 1):
        raise InputError(
            f"{file.path}: attribute mu of {file.group} is {attributes.show(mu)}, not a number from 1 to {MU_MAX}"
        )
    return int(mu)


def open_pool(path: str | os.PathLike[str]) -> PoolFile:
    """Open a pool; use it in a ``with`` statement.

    Raises
    ------
    InputError
        No such file, not HDF5, cut short, unfinished, with data sets missing, of other shapes or types, or kept in
        other files, or with images of another grid or unit. The contents are checked when they are read.
    """
    path = Path(path)
    file = open_file(path)
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        with readable(path, GROUP):
            opened = PoolFile(path, file, _find_columns(path, file))
        if not opened.complete:
            raise InputError(f"{path}: unfinished (its writer was interrupted); generate it again")
        stack.pop_all()
    return opened


def _find_columns(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    group = find_group(path, file, GROUP)
    columns: dict[str, h5py.Dataset] = {}
    for name in COLUMNS:
        where = f"{GROUP}/{name}"
        data = find_data(path, group, name, "fiu" if name == "energy" else "iu")
        if data.shape is None or data.ndim != 1:
            raise InputError(f"{path}: {where} has shape {data.shape}; needed is one dimension")
        if data.size:
            check_backed(path, data, where)
        columns[name] = data
    if columns["indptr"].shape[0] < 2:
        raise InputError(f"{path}: {GROUP}/indptr has {columns['indptr'].shape[0]} entries: the pool holds no events")
    if columns["pixel"].shape != columns["energy"].shape:
        raise InputError(
            f"{path}: {GROUP}/pixel has {columns['pixel'].shape[0]} entries but {GROUP}/energy has "
            f"{columns['energy'].shape[0]}"
        )
    return columns
