"""Sums of sparse images: a pileup of mu minimum-bias collisions. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcgan.physics.images import N_ETA, N_PHI

PIXELS = N_ETA * N_PHI

_PIECE = 1 << 21
"""Lit pixels summed at a time, about: keeps the temporary arrays at some tens of megabytes."""


@dataclass(frozen=True)
class SparseImages:
    """Images with few lit pixels, as compressed sparse rows.

    Attributes
    ----------
    indptr : (N + 1,) int64
        Lit pixels of image i are entries indptr[i] ... indptr[i + 1] - 1.
    pixel : (M,) uint16
        Flat pixel number, eta * 64 + phi.
    energy : (M,) float32
        MeV.
    """

    indptr: NDArray[np.int64]
    pixel: NDArray[np.uint16]
    energy: NDArray[np.float32]

    @classmethod
    def of(cls, images: NDArray[np.float32]) -> SparseImages:
        """Sparse form of images (N, 64, 64) in MeV."""
        flat = images.reshape(len(images), PIXELS)
        event, pixel = np.nonzero(flat)
        indptr = np.concatenate(([0], np.cumsum(np.bincount(event, minlength=len(flat)))))
        return cls(indptr.astype(np.int64), pixel.astype(np.uint16), flat[event, pixel].astype(np.float32))

    @classmethod
    def join(cls, parts: Sequence[SparseImages]) -> SparseImages:
        """Images of several parts, one after another; at least one part."""
        counts = np.concatenate([part.counts for part in parts])
        return cls(
            np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            np.concatenate([part.pixel for part in parts]),
            np.concatenate([part.energy for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) lit pixels of each image."""
        return np.diff(self.indptr)

    def part(self, which: slice) -> SparseImages:
        """Consecutive images."""
        start, stop, _ = which.indices(len(self))
        low, high = self.indptr[start], self.indptr[stop]
        return SparseImages(self.indptr[start : stop + 1] - low, self.pixel[low:high], self.energy[low:high])

    def sums(self, members: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images summed in groups.

        Parameters
        ----------
        members : (n, k) int
            Images of each sum; entries of -1 stand for none. Energies are added in this order, in double precision.

        Returns
        -------
        (n, 64, 64) float32, MeV.
        """
        step = max(1, int(_PIECE // (max(1.0, len(self.pixel) / len(self)) * max(1, members.shape[1]))))
        pieces = [self._sums(members[start : start + step]) for start in range(0, len(members), step)]
        return np.concatenate(pieces) if pieces else np.zeros((0, N_ETA, N_PHI), np.float32)

    def _sums(self, members: NDArray[np.int64]) -> NDArray[np.float32]:
        n = len(members)
        owner, place = np.nonzero(members >= 0)
        chosen = members[owner, place]
        start, lit = self.indptr[chosen], self.indptr[chosen + 1] - self.indptr[chosen]
        first = np.cumsum(lit) - lit
        entry = np.repeat(start - first, lit) + np.arange(int(lit.sum()))
        cell = np.repeat(owner * PIXELS, lit) + self.pixel[entry]
        summed = np.bincount(cell, self.energy[entry], n * PIXELS)
        return summed.astype(np.float32).reshape(n, N_ETA, N_PHI)
