"""Jets of images: pixels are massless particles at bin centres, clustered with anti-kt by FastJet.

The definition is fixed, because the physics score is only comparable between models if everybody clusters
alike. ``fastjet`` and ``awkward`` are imported when jets are made.

References
----------
Cacciari, Salam, Soyez, anti-kt: arXiv:0802.1189; FastJet: arXiv:1111.6097.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgan.errors import HpcganError, InputError
from hpcgan.physics.images import ETA_RANGE, N_ETA, N_PHI

JET_RADIUS = 1.0
JET_PT_MIN_GEV = 200.0
JET_ETA_MAX = 2.0
PIXEL_PT_MIN_MEV = 100.0


CHUNK_IMAGES = 1024
"""Images clustered at a time: keeps the temporary arrays at some tens of megabytes."""


class ImageGeometry(NamedTuple):
    """Directions of the pixels as the jet definition sees them.

    Attributes
    ----------
    eta : (64,) float64, bin centres -2.5 + (i + 1/2) 5/64.
    phi : (64,) float64, -pi + (j + 1/2) 2 pi/64 (the full circle, although towers are binned up to 3.15).
    px, py, pz : (4096,) float64, components of a pixel's unit-energy momentum.
    sech : (4096,) float64, 1 / cosh(eta): transverse momentum per energy.
    """

    eta: NDArray[np.float64]
    phi: NDArray[np.float64]
    px: NDArray[np.float64]
    py: NDArray[np.float64]
    pz: NDArray[np.float64]
    sech: NDArray[np.float64]


@lru_cache(maxsize=1)
def image_geometry() -> ImageGeometry:
    """The pixel directions (constant)."""
    low, high = ETA_RANGE
    eta = low + (np.arange(N_ETA) + 0.5) * (high - low) / N_ETA
    phi = -np.pi + (np.arange(N_PHI) + 0.5) * 2 * np.pi / N_PHI
    eta_grid, phi_grid = (grid.ravel() for grid in np.meshgrid(eta, phi, indexing="ij"))
    sech = 1 / np.cosh(eta_grid)
    arrays = (eta, phi, sech * np.cos(phi_grid), sech * np.sin(phi_grid), np.tanh(eta_grid), sech)
    for array in arrays:
        array.flags.writeable = False
    return ImageGeometry(*arrays)


@dataclass(frozen=True)
class JetCollection:
    """Jets of a set of images, in image order, by falling pT within an image.

    Attributes
    ----------
    counts : (N,) int64, number of jets of each image (0 where there is none).
    pt : (J,) float64, GeV.
    eta, phi : (J,) float64.
    mass : (J,) float64, GeV.
    """

    counts: NDArray[np.int64]
    pt: NDArray[np.float64]
    eta: NDArray[np.float64]
    phi: NDArray[np.float64]
    mass: NDArray[np.float64]

    @property
    def event(self) -> NDArray[np.int64]:
        """(J,) image of each jet."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def summed_mass(self) -> NDArray[np.float64]:
        """(N,) sum of the jets' masses of each image, GeV; 0 without jets."""
        masses = np.bincount(self.event, weights=self.mass, minlength=len(self.counts))
        return masses.astype(np.float64)  # integers if there are no jets

    def leading_pt(self, rank: int = 0) -> NDArray[np.float64]:
        """(N,) pT of the jet at a rank (0 the hardest), GeV; 0 where the image has fewer jets."""
        first = np.cumsum(self.counts) - self.counts
        values = np.zeros(len(self.counts))
        has = self.counts > rank
        values[has] = self.pt[first[has] + rank]
        return values


def cluster(images: NDArray[Any], pt_min_gev: float = JET_PT_MIN_GEV) -> JetCollection:
    """Cluster images into jets.

    Parameters
    ----------
    images : (N, 64, 64) float
        Energy in MeV, axes [eta, phi]; also (N, 64, 64, 1) or (N, 1, 64, 64). Pixels at or below 100 MeV of
        transverse momentum are ignored, so small negative values do no harm. N may be 0.
    pt_min_gev : float
        Jets below are left out, GeV.

    Returns
    -------
    JetCollection
        Anti-kt jets, R = 1.0, pT > 200 GeV (or `pt_min_gev`), |eta| < 2.0.

    Raises
    ------
    InputError
        Images of another shape, or with values that are not finite.
    HpcganError
        FastJet is not installed.
    """
    images = np.asarray(images)
    if images.ndim == 4 and 1 in (images.shape[1], images.shape[3]):
        images = images.reshape(len(images), *(size for size in images.shape[1:] if size != 1))
    if images.shape[1:] != (N_ETA, N_PHI):
        raise InputError(f"jets: images of shape {images.shape[1:]} instead of ({N_ETA}, {N_PHI})")
    starts = range(0, len(images), CHUNK_IMAGES)
    parts = [_cluster_chunk(images[start : start + CHUNK_IMAGES], pt_min_gev) for start in starts]
    if not parts:
        return JetCollection(np.zeros(0, dtype=np.int64), *(np.zeros(0) for _ in range(4)))
    return JetCollection(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))


_COLUMNS = ("counts", "pt", "eta", "phi", "mass")


class Particles(NamedTuple):
    """Lit pixels of a set of images as massless particles, image after image.

    Attributes
    ----------
    images : (F,) int64, numbers of the images that have particles: FastJet does not accept a first event without any.
    sizes : (F,) int64, particles of each of these.
    px, py, pz, e : (M,) float64, GeV.
    """

    images: NDArray[np.int64]
    sizes: NDArray[np.int64]
    px: NDArray[np.float64]
    py: NDArray[np.float64]
    pz: NDArray[np.float64]
    e: NDArray[np.float64]

    def take(self, images: NDArray[np.int64], sizes: NDArray[np.int64], which: NDArray[np.int64]) -> Particles:
        """Some of the particles, by their numbers, as those of other sets."""
        return Particles(images, sizes, self.px[which], self.py[which], self.pz[which], self.e[which])


def particles_of(images: NDArray[Any]) -> Particles:
    """Pixels of images (N, 64, 64) in MeV with more than 100 MeV of transverse momentum.

    Raises
    ------
    InputError
        Values that are not finite.
    """
    geometry = image_geometry()
    flat = images.reshape(len(images), -1)
    total = flat.sum(dtype=np.float64)  # one pass; finite if and only if every pixel is (float64 cannot overflow here)
    if not np.isfinite(total):
        raise InputError("jets: the images hold values that are not finite")
    energies = flat.reshape(-1)
    hit = np.flatnonzero(energies > 0)  # in two dimensions `np.nonzero` takes twice as long
    event, pixel = np.divmod(hit, flat.shape[1])
    energy = energies[hit].astype(np.float64)
    keep = energy * geometry.sech[pixel] > PIXEL_PT_MIN_MEV
    event, pixel, energy = event[keep], pixel[keep], energy[keep] * 1e-3
    sizes = np.bincount(event, minlength=len(images))
    filled = np.flatnonzero(sizes)
    px, py, pz = (energy * axis[pixel] for axis in (geometry.px, geometry.py, geometry.pz))
    return Particles(filled, sizes[filled], px, py, pz, energy)


def _cluster_chunk(images: NDArray[Any], pt_min_gev: float) -> JetCollection:
    particles = particles_of(images)
    counts = np.zeros(len(images), dtype=np.int64)
    if not particles.images.size:
        return JetCollection(counts, *(np.zeros(0) for _ in range(4)))
    (px, py, pz, e), jets_in = inclusive_jets(cluster_sequence(particles), pt_min_gev)
    owner = np.repeat(particles.images, jets_in)
    good = accepted(px, py, pz, owner, pt_min_gev)
    px, py, pz, e = (column[good] for column in (px, py, pz, e))
    pt = np.hypot(px, py)
    counts += np.bincount(owner[good], minlength=len(images))
    mass2 = e * e - (px * px + py * py + pz * pz)
    mass = np.sqrt(np.maximum(mass2, 0.0))  # a jet of one pixel is massless up to rounding
    return JetCollection(counts, pt, np.arcsinh(pz / pt), np.arctan2(py, px), mass)


def accepted(
    px: NDArray[np.float64],
    py: NDArray[np.float64],
    pz: NDArray[np.float64],
    owner: NDArray[np.int64],
    pt_min_gev: float,
) -> NDArray[np.int64]:
    """Numbers of the jets with pT > `pt_min_gev` and |eta| < 2.0, by their `owner`, and by falling pT within one."""
    pt = np.hypot(px, py)
    good = np.flatnonzero((pt > pt_min_gev) & (np.abs(np.arcsinh(pz / pt)) < JET_ETA_MAX))
    return good[np.lexsort((-pt[good], owner[good]))]


@lru_cache(maxsize=1)
def _swallow_banner() -> None:
    """Let FastJet print its banner, which it does once a process, to nowhere: ranks and tables share stdout.

    What it asks for, to be cited, is in the README.
    """
    import awkward
    import fastjet

    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # there is no stdout
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        particle = awkward.Array([[{"px": 1.0, "py": 0.0, "pz": 0.0, "E": 1.0}]])
        fastjet.ClusterSequence(particle, fastjet.JetDefinition(fastjet.antikt_algorithm, JET_RADIUS)).inclusive_jets()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


def cluster_sequence(particles: Particles) -> Any:
    """FastJet's anti-kt clustering, R = 1.0, of the particles of at least one image.

    Raises
    ------
    HpcganError
        FastJet is not installed.
    """
    try:
        import awkward
        import fastjet
    except ImportError as error:
        raise HpcganError(f"FastJet cannot be imported ({error}); install it with: pip install fastjet") from error
    _swallow_banner()
    columns = (particles.px, particles.py, particles.pz, particles.e)
    record = awkward.contents.RecordArray(
        [awkward.contents.NumpyArray(column) for column in columns], ["px", "py", "pz", "E"]
    )
    offsets = awkward.index.Index64(np.concatenate(([0], np.cumsum(particles.sizes))))
    events = awkward.Array(awkward.contents.ListOffsetArray(offsets, record))
    return fastjet.ClusterSequence(events, fastjet.JetDefinition(fastjet.antikt_algorithm, JET_RADIUS))


def inclusive_jets(sequence: Any, pt_min_gev: float) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Jets of a clustering above a pT, in FastJet's order: px, py, pz, E in GeV, and their number in each event."""
    import awkward

    jets = sequence.inclusive_jets(pt_min_gev)
    columns = [awkward.to_numpy(awkward.flatten(jets[name])) for name in ("px", "py", "pz", "E")]
    return columns, awkward.to_numpy(awkward.num(jets))
