"""Showers as the CaloChallenge has them, an incident energy and a row of voxels each, from files of known formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcgan.calochallenge.geometry import Geometry, of_segmentation, published, read_binning
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import ROOT
from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import Segmentation
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter import importing

ENERGY, VOXELS = importing.CHALLENGE


@dataclass(frozen=True)
class Showers:
    """Some showers.

    Attributes
    ----------
    energy : (n,) float64 array
        Of the incident particle, MeV.
    voxels : (n, voxels) float32 array
        MeV.
    """

    energy: NDArray[np.float64]
    voxels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.energy)

    def take(self, which: NDArray[np.int64] | slice) -> Showers:
        """Some of them."""
        return Showers(self.energy[which], self.voxels[which])

    def cut(self, least_mev: float) -> Showers:
        """With 0 in voxels that hold less."""
        if least_mev <= 0:
            return self
        return Showers(self.energy, np.where(self.voxels < np.float32(least_mev), np.float32(0), self.voxels))


def of_sample(sample: Sample, cells: Segmentation) -> Showers:
    """Of images of CaloGAN's layers (MeV) and `energy` in GeV."""
    energy = np.asarray(sample[calo.ENERGY], np.float64).reshape(-1) * importing.MEV_PER_GEV
    return Showers(energy, cells.flatten(calo.images(sample)).astype(np.float32, copy=False))


def read(path: Path, binning: Path | None, limit: int | None, cut_mev: float = 0.0) -> tuple[Showers, Geometry]:
    """The first showers of a file: CaloChallenge, CaloGAN, or what `hpcgan data import` takes besides.

    Parameters
    ----------
    path : Path
    binning : Path, optional
        Of a CaloChallenge file; by default the published one with as many voxels, or the cells that the file states.
    limit : int, optional
        How many are read, at most; by default all.
    cut_mev : float
        Voxels that hold less become 0.

    Raises
    ------
    InputError
        Of no known format, broken, without a known binning, or with energies that cannot be.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if importing.recognise(path) == "challenge":
        voxels = _voxels_of(path)
        geometry = published(voxels) if binning is None else read_binning(binning, voxels)
        if geometry is not None:
            return _collected(path, _challenge(path, voxels), limit, cut_mev), geometry
    if binning is not None:
        raise InputError(f"{path}: holds the cells of CaloGAN's calorimeter, to which --binning does not apply")
    with importing.open_reader(path) as reader:
        cells = reader.segmentation
        pieces = (of_sample(sample, cells) for sample in reader.pieces())
        return _collected(path, pieces, limit, cut_mev), of_segmentation(cells)


def _voxels_of(path: Path) -> int:
    """Voxels of a CaloChallenge file."""
    with tensors.open_tensors(path, group=ROOT) as file:
        if VOXELS not in file.schema or len(file.schema[VOXELS].shape) != 1:
            raise InputError(f"{path}: needed are {ENERGY} (N, 1) and {VOXELS} (N, voxels), in MeV")
        return file.schema[VOXELS].shape[0]


def _challenge(path: Path, voxels: int) -> Iterator[Showers]:
    with tensors.open_tensors(path, importing.challenge_schema(voxels), ROOT) as file:
        file.announce()
        for _, sample in file.pieces(importing.PIECE_BYTES):
            yield Showers(sample[ENERGY][:, 0].astype(np.float64), sample[VOXELS])


def _collected(path: Path, pieces: Iterator[Showers], limit: int | None, cut_mev: float) -> Showers:
    """The first of them, checked."""
    held: list[Showers] = []
    count = 0
    for piece in pieces:
        if limit is not None:
            piece = piece.take(slice(limit - count))
        held.append(checked(piece, str(path), count, cut_mev))
        count += len(piece)
        if limit is not None and count >= limit:
            break
    return Showers(np.concatenate([one.energy for one in held]), np.concatenate([one.voxels for one in held]))


def checked(showers: Showers, where: str, first: int = 0, cut_mev: float = 0.0) -> Showers:
    """Showers after the cut, if they can be.

    Raises
    ------
    InputError
        Energies that are not finite or negative, incident ones that are not above 0; with the number of the shower.
    """
    bad = np.flatnonzero(~(np.isfinite(showers.energy) & (showers.energy > 0)))
    if bad.size:
        value = showers.energy[bad[0]]
        raise InputError(
            f"{where}: the incident energy of shower {first + bad[0]} is {value:g} MeV; it must be above 0"
        )
    bad = np.flatnonzero(~np.isfinite(showers.voxels).all(axis=1))
    if bad.size:
        raise InputError(f"{where}: voxels of shower {first + bad[0]} are not finite (NaN or infinite)")
    showers = showers.cut(cut_mev)
    bad = np.flatnonzero((showers.voxels < 0).any(axis=1))
    if bad.size:
        value = showers.voxels[bad[0]].min()
        raise InputError(
            f"{where}: shower {first + bad[0]} has a voxel of {value:g} MeV; energies must not be negative "
            "(--cut MEV sets voxels below an energy to 0)"
        )
    return showers
