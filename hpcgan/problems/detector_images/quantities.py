"""What of a calorimeter image a score of jets does not see: sums, single pixels, neighbours, the leading jet's shape.

Each is an observable by itself, computed from images (n, 64, 64) of energies in MeV, axes [eta, phi]. They are no part
of the problem's observables, and so of no score and no feature unless somebody asks for them (docs/scoring.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from hpcgan.metrics.observable import Observable
from hpcgan.physics.images import MEV_PER_GEV, N_ETA, N_PHI
from hpcgan.physics.jet_shapes import leading_jets
from hpcgan.physics.jets import image_geometry

#: Spectra of pixels are compared at every 8th row and column of an image: a KS test takes values for independent.
LATTICE = 8
#: In pixels, at which lit pixels are counted as neighbours.
DISTANCES = (1, 2, 4)
#: Of |eta|, equally wide.
BANDS = 4

SUMS = ("occupancy", "total_energy", "total_pt")
PIXELS = ("pixel_energy", "pixel_energies")
SHARES = tuple(f"pt_share_{band}" for band in range(1, BANDS + 1))
CORRELATIONS = tuple(f"{axis}_correlation_{distance}" for axis in ("eta", "phi") for distance in DISTANCES)
LEADING = ("leading_jet_pt", "leading_jet_tau21")

#: What reports score besides.
SCORED = ("occupancy", "total_energy", "pixel_energy", *SHARES, *CORRELATIONS, *LEADING)
#: Whose largest values reports count: every jet, every pixel, every event.
TAILS = ("jet_pt", "pixel_energies", "total_pt")

Measure = Callable[[np.ndarray], dict[str, Observable]]


def more_observables(images: np.ndarray, names: Sequence[str], pt_min_gev: float) -> dict[str, Observable]:
    """Those of the quantities of this module that are named, in this order; nothing else is computed.

    Parameters
    ----------
    images : (n, 64, 64) array
        Energies in MeV.
    names : sequence of str
    pt_min_gev : float
        Jets below are none, GeV.
    """
    groups: dict[tuple[str, ...], Measure] = {
        SUMS: sums,
        PIXELS: pixels,
        SHARES: pt_shares,
        CORRELATIONS: correlations,
        LEADING: lambda events: leading(events, pt_min_gev),
    }
    observables: dict[str, Observable] = {}
    for group, measure in groups.items():
        if set(group) & set(names):
            observables |= measure(images)
    return {name: observables[name] for name in names}


def sums(images: np.ndarray) -> dict[str, Observable]:
    """`occupancy` (lit pixels), `total_energy` and `total_pt` (GeV, sums over the pixels), one value an event each."""
    energy = images.sum(axis=(1, 2), dtype=np.float64) / MEV_PER_GEV
    return {
        "occupancy": Observable(np.count_nonzero(images, axis=(1, 2)).astype(np.float64)),
        "total_energy": Observable(energy, unit="GeV"),
        "total_pt": Observable(_row_pt(images).sum(axis=1), unit="GeV"),
    }


def pixels(images: np.ndarray) -> dict[str, Observable]:
    """Energies of lit pixels in GeV: `pixel_energy` at the sites of `lattice`, `pixel_energies` of all of them."""
    rows, columns = lattice(images)
    sites = images[np.arange(len(images))[:, None], rows, columns]
    return {"pixel_energy": _lit(sites), "pixel_energies": _lit(images.reshape(-1, N_ETA * N_PHI))}


def pt_shares(images: np.ndarray) -> dict[str, Observable]:
    """`pt_share_1` to `pt_share_4`: shares of an event's summed pT in bands of |eta|, from the centre outwards.

    The bands are 0.625 wide. An event without momentum has no shares; the shares of all others sum to 1.
    """
    rows = _row_pt(images)
    by_distance = rows[:, N_ETA // 2 :] + rows[:, N_ETA // 2 - 1 :: -1]
    bands = by_distance.reshape(len(rows), BANDS, N_ETA // 2 // BANDS).sum(axis=2)
    total = bands.sum(axis=1)
    return {name: _ratio(bands[:, band], total) for band, name in enumerate(SHARES)}


def correlations(images: np.ndarray) -> dict[str, Observable]:
    """Two-point correlations of lit pixels: pairs at a distance over the pairs that chance would make.

    `eta_correlation_d` counts pairs of lit pixels (i, j) and (i + d, j), `phi_correlation_d` pairs (i, j) and
    (i, j + d) on the circle. Let row i of eta have n_i lit pixels out of 64. If these lie anywhere in phi, each row
    independently of the others, then sum_i n_i n_(i+d) / 64 and sum_i n_i (n_i - 1) / 63 pairs are expected. So
    independent pixels have a mean of 1 whatever the event's profile in eta is. Events for which no pair is expected
    have no value.
    """
    lit = images > 0
    in_row = np.count_nonzero(lit, axis=2).astype(np.float64)
    along_phi = np.sum(in_row * (in_row - 1.0), axis=1) / (N_PHI - 1)
    observables = {}
    for distance in DISTANCES:
        pairs = np.count_nonzero(lit[:, distance:] & lit[:, :-distance], axis=(1, 2))
        along_eta = np.sum(in_row[:, distance:] * in_row[:, :-distance], axis=1) / N_PHI
        observables[f"eta_correlation_{distance}"] = _ratio(pairs, along_eta)
        pairs = np.count_nonzero(lit & np.roll(lit, distance, axis=2), axis=(1, 2))
        observables[f"phi_correlation_{distance}"] = _ratio(pairs, along_phi)
    return observables


def leading(images: np.ndarray, pt_min_gev: float) -> dict[str, Observable]:
    """`leading_jet_pt` (GeV) and `leading_jet_tau21` of the hardest jet, one value an event that has a jet."""
    jets = leading_jets(images, pt_min_gev)
    return {
        "leading_jet_pt": Observable(jets.pt, jets.counts, "GeV"),
        "leading_jet_tau21": Observable(jets.tau21, jets.counts),
    }


def lattice(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a lattice of pixels in each image, (n, sites), at one of `LATTICE`^2 offsets.

    A hash of the image chooses the offset. So all pixels are looked at, and it does not matter in which batch or on
    which rank. At fixed places few pixels of a pool of events would be seen, each many times.
    """
    digests = b"".join(hashlib.blake2b(image, digest_size=2).digest() for image in np.ascontiguousarray(images))
    offset = np.frombuffer(digests, "<u2").astype(np.int64) % LATTICE**2
    rows, columns = (
        grid.ravel() for grid in np.meshgrid(*[np.arange(0, n, LATTICE) for n in (N_ETA, N_PHI)], indexing="ij")
    )
    return rows + (offset // LATTICE)[:, None], columns + (offset % LATTICE)[:, None]


def _row_pt(images: np.ndarray) -> np.ndarray:
    """(n, 64) GeV: momentum in each row of eta."""
    energy = images.sum(axis=2, dtype=np.float64)
    return np.asarray(energy / np.cosh(image_geometry().eta) / MEV_PER_GEV)


def _lit(energies: np.ndarray) -> Observable:
    """Those of (n, k) energies in MeV that are above zero, in GeV and in the precision of the image: they are many."""
    lit = energies > 0
    return Observable(energies[lit] / MEV_PER_GEV, np.count_nonzero(lit, axis=1), "GeV")


def _ratio(values: np.ndarray, over: np.ndarray) -> Observable:
    """The ratio values / over of each event (n,) for which `over` is above zero."""
    has = over > 0
    return Observable(values[has] / over[has], has.astype(np.int64))
