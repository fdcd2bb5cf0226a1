"""Showers of other programs into the published layout, and out of it: Geant4 samples, CaloGAN and CaloChallenge files.

- Geant4 (as the sample of this calorimeter): ``energy (N,)`` GeV, ``counts (N,)`` cells hit, ``cell`` and ``deposit``
  (MeV) of one shower after another on the grid :data:`hpcgan.physics.calorimeter.FINE`. Cell index: layer after layer,
  eta * n_phi + phi within a layer. Nothing can have been deposited outside the cells, since they cover the whole
  calorimeter and there is nothing beyond it, so `overflow` is 0; what left the calorimeter, on any side, is in no data
  set.
- Published CaloGAN: :mod:`hpcgan.problems.calorimeter.files`.
- CaloChallenge (Krause et al., arXiv:2410.21611): ``incident_energies (N, 1)`` and ``showers (N, V)``, MeV. Here the V
  voxels are the cells of the three layers in order, row after row (phi), so V = 504 is the published segmentation. The
  format has no place for `overflow`.
"""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

import hpcgan
from hpcgan.config.base import Option
from hpcgan.data import attributes, claims, storage
from hpcgan.data.importers import Importer, Order
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import ROOT
from hpcgan.data.meaning import Meaning
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.storage import check_backed, find_data, open_file, readable
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import FINE, PUBLISHED, Segmentation, parse_segmentation
from hpcgan.problems.calorimeter import files as calo
from hpcgan.system.files import sha256

Format = Literal["geant4", "calogan", "challenge"]

PIECE_BYTES = 16 << 20
"""Showers in memory at a time."""

MEV_PER_GEV = 1000.0
GEANT4_UNITS = {"energy": "GeV", "deposit": "MeV"}

CHALLENGE = ("incident_energies", "showers")

KNOWN_VOXELS = {368: "dataset 1, photons", 533: "dataset 1, pions", 6480: "dataset 2", 40500: "dataset 3"}
"""Voxelisations of the CaloChallenge itself, none of which is one of this calorimeter."""


CELLS = (
    "rows x columns (phi x eta) of the three layers, for example 3x96,12x12,12x6, or its name, published; "
    "fine is 48x192,48x48,24x24"
)
"""How a segmentation is written on a command line."""

_NAMES: dict[Format, str] = {
    "geant4": "holds Geant4 showers",
    "calogan": "holds calorimeter showers",
    "challenge": "is a CaloChallenge file",
}


def recognise(path: str | os.PathLike[str]) -> Format | None:
    """Format of a file to import; None for any other, or for no file at all.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = Path(path)
    if not path.is_file() or not h5py.is_hdf5(path):
        return None
    with open_file(path) as file, readable(path, "the list of data sets"):
        present = set(file.keys())
    if present & {"cell", "counts", "deposit"}:
        return "geant4"
    if present & set(calo.LAYERS):
        return "calogan"
    return "challenge" if present & set(CHALLENGE) else None


class Reader(ABC):
    """A file of showers, read in pieces.

    Attributes
    ----------
    path : Path
    n : int
        Showers.
    segmentation : Segmentation
    particle : str
        "" where the file does not say.
    """

    path: Path
    n: int
    segmentation: Segmentation
    particle: str = ""

    _opened: h5py.File | tensors.TensorFile

    @abstractmethod
    def pieces(self) -> Iterator[Sample]:
        """All showers in order, some at a time, in the published layout with the file's own segmentation.

        Raises
        ------
        InputError
            Damaged data, or values that cannot be.
        """

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _dataset(path: Path, file: h5py.File, name: str, ndim: int) -> h5py.Dataset:
    with readable(path, name):
        data = find_data(path, file[ROOT], name)
        if data.shape is None or data.ndim != ndim:
            raise InputError(f"{path}: {name} has shape {data.shape}; needed are {ndim} dimensions")
        check_backed(path, data, name)
    return data


def _text(path: Path, file: h5py.File, name: str) -> str:
    """An attribute at the top of a file that is text, "" where there is none."""
    with readable(path, "attributes of the file"):
        entries = attributes.read(file)
    return attributes.text(entries.get(name, ""), f"{path}: attribute {name} of the file")


class Geant4File(Reader):
    """Geant4 showers on the fine grid.

    Raises
    ------
    InputError
        Not HDF5, data sets missing, of other shapes or lengths that do not match, another grid, an unknown particle.
    """

    GRIDS = ("192 x 48", "48 x 48", "24 x 24")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.segmentation = FINE
        self._opened = open_file(path)
        with contextlib.ExitStack() as stack:
            stack.callback(self._opened.close)
            self._energy, self._counts, self._cell, self._deposit = (
                _dataset(path, self._opened, name, 1) for name in ("energy", "counts", "cell", "deposit")
            )
            for data, name in ((self._counts, "counts"), (self._cell, "cell")):
                if data.dtype.kind not in "iu":
                    raise InputError(f"{path}: {name} does not hold whole numbers (type {data.dtype})")
            self.n = int(self._counts.shape[0])
            if not self.n:
                raise InputError(f"{path}: counts holds no showers")
            if self._energy.shape != self._counts.shape:
                raise InputError(f"{path}: energy has {self._energy.shape[0]} showers but counts has {self.n}")
            with readable(path, "counts"):
                counts = self._counts[:]
            if (counts < 0).any() or (counts > FINE.n_cells).any():
                worst = int(np.flatnonzero((counts < 0) | (counts > FINE.n_cells))[0])
                raise InputError(f"{path}: counts of shower {worst} is {counts[worst]}; there are {FINE.n_cells} cells")
            self._ends = np.cumsum(counts.astype(np.int64))
            for data, name in ((self._cell, "cell"), (self._deposit, "deposit")):
                if data.shape[0] != self._ends[-1]:
                    raise InputError(
                        f"{path}: {name} has {data.shape[0]} entries but counts adds up to {self._ends[-1]}"
                    )
            grids = _text(path, self._opened, "grids") or ", ".join(self.GRIDS)
            self.particle = calo.check_particle(path, _text(path, self._opened, "particle"))
            held = {"energy": self._energy, "deposit": self._deposit}
            with readable(path, "attributes"):
                self._units = claims.conversions(
                    path, {name: (data, Meaning(GEANT4_UNITS[name])) for name, data in held.items()}
                )
            if not all(grid in grids for grid in self.GRIDS):
                raise InputError(f"{path}: has another segmentation ({grids[:80]!r}); known is {', '.join(self.GRIDS)}")
            stack.pop_all()

    def pieces(self) -> Iterator[Sample]:
        size = max(1, PIECE_BYTES // (4 * FINE.n_cells))
        for start in range(0, self.n, size):
            end = min(start + size, self.n)
            first = int(self._ends[start - 1]) if start else 0
            with readable(self.path, "cell"):
                cell = self._cell[first : self._ends[end - 1]].astype(np.int64)
            with readable(self.path, "deposit"), np.errstate(over="ignore"):
                raw = self._deposit[first : self._ends[end - 1]]
                deposit = np.asarray(self._units["deposit"](raw)).astype(np.float64)
            with readable(self.path, "energy"), np.errstate(over="ignore"):
                energy = np.asarray(self._units["energy"](self._energy[start:end])).astype(np.float32)
            shower = np.repeat(np.arange(end - start), np.diff(self._ends[start:end], prepend=first))
            self._check(cell, deposit, shower + start)
            yield self._images(shower, cell, deposit, energy)

    def _check(self, cell: NDArray[np.int64], deposit: NDArray[np.float64], shower: NDArray[np.int64]) -> None:
        bad = np.flatnonzero((cell < 0) | (cell >= FINE.n_cells))
        if bad.size:
            at = bad[0]
            raise InputError(
                f"{self.path}: cell of shower {shower[at]} is {cell[at]}; the segmentation has {FINE.n_cells} cells"
            )
        bad = np.flatnonzero(~(np.isfinite(deposit) & (deposit >= 0)))
        if bad.size:
            at = bad[0]
            raise InputError(
                f"{self.path}: deposit of shower {shower[at]} is {deposit[at]:g} MeV; it must be 0 or more"
            )

    @staticmethod
    def _images(
        shower: NDArray[np.int64], cell: NDArray[np.int64], deposit: NDArray[np.float64], energy: NDArray[np.float32]
    ) -> Sample:
        n, offset, layers = len(energy), 0, []
        for grid in FINE.layers:
            here = (cell >= offset) & (cell < offset + grid.n_cells)
            flat = shower[here] * grid.n_cells + cell[here] - offset
            sums = np.bincount(flat, deposit[here], n * grid.n_cells)
            by_eta = sums.reshape(n, grid.n_eta, grid.n_phi)
            with np.errstate(over="ignore"):  # beyond float32 is infinite: refused
                layers.append(by_eta.transpose(0, 2, 1).astype(np.float32))
            offset += grid.n_cells
        return calo.to_sample(layers, energy)


class CaloGanFile(Reader):
    """Showers in the published layout, of any segmentation.

    Raises
    ------
    InputError
        As :func:`hpcgan.problems.calorimeter.files.open_showers`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = calo.open_showers(path)
        self._opened.announce()
        self.n = self._opened.n
        self.segmentation = calo.segmentation_of(self._opened)
        self.particle = calo.particle_of(self._opened)

    def pieces(self) -> Iterator[Sample]:
        for _, sample in self._opened.pieces(PIECE_BYTES):
            yield sample


def challenge_schema(voxels: int) -> Schema:
    """Data sets of a CaloChallenge file."""
    return {
        "incident_energies": TensorSpec((1,), "MeV", role="condition"),
        "showers": TensorSpec((voxels,), "MeV", sparse=True, meaning=Meaning(numbers=calo.PLACES)),
    }


class ChallengeFile(Reader):
    """Showers in the format of the CaloChallenge whose voxels are the cells of this calorimeter.

    Raises
    ------
    InputError
        Data sets missing or of other shapes, or a number of voxels that is neither that of the segmentation which the
        file states (as those of :func:`export` do), nor one of a segmentation named in
        :mod:`hpcgan.physics.calorimeter`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_file(path) as file:
            voxels = int(_dataset(path, file, "showers", 2).shape[1])
            _dataset(path, file, "incident_energies", 2)
            self.particle = calo.check_particle(path, _text(path, file, "particle"))
            text = _text(path, file, "segmentation")
        segmentations = {segmentation.n_cells: segmentation for segmentation in (PUBLISHED, FINE)}
        if text:
            try:
                stated = parse_segmentation(" ".join(text.split())[:80])
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
            segmentations = {stated.n_cells: stated}
        if voxels not in segmentations:
            what = f" (CaloChallenge {KNOWN_VOXELS[voxels]})" if voxels in KNOWN_VOXELS else ""
            raise InputError(
                f"{path}: showers has {voxels} voxels{what}, another segmentation; known are "
                + ", ".join(f"{n} ({segmentation})" for n, segmentation in segmentations.items())
            )
        self.segmentation = segmentations[voxels]
        self._opened = tensors.open_tensors(path, challenge_schema(voxels), ROOT)
        self._opened.announce()
        self.n = self._opened.n

    def pieces(self) -> Iterator[Sample]:
        for _, raw in self._opened.pieces(PIECE_BYTES):
            yield calo.to_sample(
                self.segmentation.unflatten(raw["showers"]), raw["incident_energies"] / np.float32(MEV_PER_GEV)
            )


READERS: dict[Format, Callable[[Path], Reader]] = {
    "geant4": Geant4File,
    "calogan": CaloGanFile,
    "challenge": ChallengeFile,
}

OVERFLOW_MEANS = {
    "geant4": "0: the cells cover the whole calorimeter, nothing lies outside them",
    "calogan": "as in the file imported",
    "challenge": "0: not in the CaloChallenge format",
}


def open_reader(path: str | os.PathLike[str]) -> Reader:
    """Open a file of showers of any known format.

    Raises
    ------
    InputError
        Of no known format, or broken.
    """
    path = Path(path)
    return READERS[_format(path)](path)


def _format(path: Path) -> Format:
    kind = recognise(path)
    if kind is None:
        with open_file(path) as file:
            held = storage.names(file)
        raise InputError(
            f"{path}: holds no calorimeter showers (it holds: {held}); known are Geant4 showers (cell, counts, "
            "deposit, energy), CaloGAN (layer_0, ...) and CaloChallenge (incident_energies, showers)"
        )
    return kind


def _check_finite(sample: Sample, path: Path, first: int) -> None:
    for name, values in sample.items():
        finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            raise InputError(f"{path}: {name} of shower {first + bad} is not finite (NaN or infinite)")


def _checked(reader: Reader) -> Iterator[Sample]:
    """Pieces of a file, those that cannot be refused."""
    first = 0
    for sample in reader.pieces():
        _check_finite(sample, reader.path, first)
        calo.check_sample(sample, str(reader.path), first)
        yield sample
        first += len(sample[calo.ENERGY])


def _same_particle(readers: Sequence[Reader], option: str) -> str:
    held = option
    for reader in readers:
        if reader.particle and held and reader.particle != held:
            other = "--particle" if held == option else "another file"
            raise InputError(f"{reader.path}: holds showers of '{reader.particle}', {other} says '{held}'")
        held = held or reader.particle
    return held


def export(
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Write showers of the published layout as CaloChallenge files of the same names.

    Energies become MeV; `overflow` is left out.

    Parameters
    ----------
    files : sequence of paths
        Of one folder, or with different names.
    out : path
        Folder of the new files.
    force : bool
        Replace existing files.
    progress : callable(done, total), optional

    Returns
    -------
    bool
        False if `out` already held exactly this data and nothing was done.

    Raises
    ------
    InputError
        Files that cannot be used, of two particles or segmentations, or with one name, or an `out` that holds other
        data.
    """
    paths = [Path(file) for file in files]
    if len({path.stem for path in paths}) < len(paths):
        raise InputError(f"{paths[0]}: two files have the same name; export them one by one")
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(CaloGanFile(path)) for path in paths]
        held = _same_particle(readers, "")
        segmentation = readers[0].segmentation
        for reader in readers:
            if reader.segmentation != segmentation:
                raise InputError(f"{reader.path}: has cells {reader.segmentation}, {paths[0]} has {segmentation}")
            if reader.path.resolve().parent == Path(out).resolve():
                raise InputError(f"{reader.path}: would be replaced; choose another folder than {out}")
        sizes = {path.stem: reader.n for path, reader in zip(paths, readers)}
        settings = json.dumps({"source": [{"name": path.name, "sha256": sha256(path)} for path in paths]})
        schema = challenge_schema(segmentation.n_cells)
        attributes = {
            "contents": "calorimeter showers in the format of the CaloChallenge",
            "particle": held,
            "segmentation": str(segmentation),
            "voxels": "cells of layer 0, 1, 2, row (phi) after row",
            "hpcgan": hpcgan.__version__,
            "settings": settings,
        }
        target = storage.Target(out, sizes, attributes, force)
        if target.is_there(_open_challenge):
            return False
        count, total = 0, sum(sizes.values())
        with tensors.Writer(target, schema, ROOT, "events") as writer:
            for reader in readers:
                for sample in _checked(reader):
                    with np.errstate(over="ignore"):
                        energy = sample[calo.ENERGY] * np.float32(MEV_PER_GEV)
                    voxels = segmentation.flatten(calo.images(sample))
                    rows = {"incident_energies": energy, "showers": voxels}
                    _check_finite(rows, reader.path, count)
                    writer.append(rows)
                    count += len(sample[calo.ENERGY])
                    if progress is not None:
                        progress(count, total)
    return True


def _open_challenge(path: Path) -> tensors.TensorFile:
    with open_file(path) as file:
        voxels = int(_dataset(path, file, "showers", 2).shape[1])
    return tensors.open_tensors(path, challenge_schema(voxels), ROOT)


class ShowerImporter(Importer):
    """HDF5 files with calorimeter showers: Geant4 on the fine grid, CaloGAN, CaloChallenge."""

    title: ClassVar[str] = "files of calorimeter showers"
    needs: ClassVar[str] = (
        "HDF5 with the data sets of Geant4: energy, counts, cell, deposit; CaloGAN: "
        f"{', '.join(calo.LAYERS)}, energy, overflow; or CaloChallenge: {', '.join(CHALLENGE)}"
    )

    segmentation: Annotated[str, Option(metavar="CELLS")] = Field(
        "published", description=f"cells to sum those of the files into: {CELLS}"
    )
    particle: Annotated[Literal["gamma", "eplus", "piplus"] | None, Option(metavar="PARTICLE")] = Field(
        None, description="gamma, eplus or piplus: what files hold that do not say it"
    )

    @classmethod
    def recognise(cls, path: Path) -> str:
        kind = recognise(path)
        return "" if kind is None else _NAMES[kind]

    def import_files(self, order: Order) -> bool:
        segmentation = parse_segmentation(self.segmentation)
        paths = storage.to_import(order.files)
        kinds = [_format(path) for path in paths]
        for path, kind in zip(paths, kinds):
            if kind != kinds[0]:
                raise InputError(f"{path}: is a {kind} file, {paths[0]} a {kinds[0]} file; import them one by one")
        readers: list[Reader] = []
        with contextlib.ExitStack() as stack:
            for path in paths:
                readers.append(stack.enter_context(open_reader(path)))
            held = _same_particle(readers, self.particle or "")
            for reader in readers:
                if not reader.segmentation.divides_into(segmentation):
                    raise InputError(
                        f"{reader.path}: its cells {reader.segmentation} cannot be summed into those of {segmentation} "
                        "(phi x eta of each layer)"
                    )
            total = sum(reader.n for reader in readers)
            settings = json.dumps(
                {
                    "source": kinds[0],
                    "files": [
                        {"name": path.name, "showers": reader.n, "sha256": sha256(path)}
                        for path, reader in zip(paths, readers)
                    ],
                    "particle": held,
                    "segmentation": str(segmentation),
                }
            )
            attributes = {
                "generator": f"imported from {kinds[0]} files",
                "overflow_means": OVERFLOW_MEANS[kinds[0]],
                "hpcgan": hpcgan.__version__,
                "settings": settings,
            }
            target = storage.Target(order.out, storage.interleaved_sizes(total), attributes, order.force)
            if target.is_there(calo.open_showers):
                return False
            count = 0
            with calo.Writer(target, segmentation, held) as writer:
                for reader in readers:
                    done_of_file = 0
                    for sample in _checked(reader):
                        n = len(sample[calo.ENERGY])
                        coarse = reader.segmentation.coarsen(calo.images(sample), segmentation)
                        sample.update(zip(calo.LAYERS, coarse, strict=True))
                        _check_finite(sample, reader.path, done_of_file)
                        done_of_file += n
                        for split, where in storage.interleave(count, n).items():
                            writer.append_to(split, {name: values[where] for name, values in sample.items()})
                        count += n
                        order.progress(count, total)
        return True
