"""Parametrised showers in the CaloGAN calorimeter, many at a time: photons, positrons and positive pions.

A shower is a set of spots, each with a depth, a position across and an energy; they are summed into the cells of any
segmentation. Electromagnetic showers follow :mod:`hpcgan.physics.electromagnetic` with the algorithm of the paper
(hep-ex/0001020): in every step in depth the profile gives the energy and, from a profile of its own, the number of
spots that share it; radius and azimuth of a spot are drawn. A photon is two electrons from its point of conversion on.
Pions follow :mod:`hpcgan.physics.hadronic`.

All energy is accounted for: it is in the cells, in the overflow (at the depth of a layer, but outside the window of
+-240 mm), behind the calorimeter, or, for pions, invisible. Energy that the Geant4 sample would not have kept is not
simulated either: steps with less than `THRESHOLD` MeV are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hpcgan.errors import InputError
from hpcgan.physics import electromagnetic, hadronic
from hpcgan.physics.calorimeter import (
    CALORIMETER,
    HALF_SIDE,
    LAYER_EDGES,
    N_LAYERS,
    PLANES,
    PUBLISHED,
    Grid,
    Segmentation,
)
from hpcgan.physics.electromagnetic import Recorded
from hpcgan.suggest import did_you_mean

Particle = Literal["gamma", "eplus", "piplus"]
PARTICLES: tuple[Particle, ...] = get_args(Particle)

THRESHOLD = 0.01
"""MeV: the least energy of a cell of the Geant4 sample."""

BATCH_ENERGY = 1600.0
"""GeV of showers that are made at a time: a few hundred thousand spots, which stay in the processor's cache."""

BATCH_SHOWERS = 64
"""Showers that are made at a time, at most. Neither depends on the segmentation, which must not touch the random
numbers."""

MEV_PER_GEV = 1000.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Showers:
    """Deposits of n showers, MeV.

    Attributes
    ----------
    layers : list of (n, n_phi, n_eta) float32
        Energy in the cells of each layer.
    overflow : (n, 3) float32
        Energy at the depth of each layer outside the window.
    """

    layers: list[NDArray[np.float32]]
    overflow: NDArray[np.float32]


@lru_cache(1)
def _steps() -> tuple[Array, NDArray[np.int64]]:
    """Ends of the steps in depth, mm from the front, and the layer each step is in.

    A step is a pair of plates, cut in two where a layer ends within it.
    """
    planes = np.arange(PLANES + 1) * CALORIMETER.pitch
    cuts = np.array(LAYER_EDGES) + HALF_SIDE
    edges = np.unique(np.concatenate([planes, cuts]))
    layer = np.searchsorted(cuts, 0.5 * (edges[1:] + edges[:-1])) - 1
    edges.flags.writeable = layer.flags.writeable = False
    return edges, layer


class _Canvas:
    """Sums spots into cells. Around the cells of a layer runs a border of one, which catches what is outside."""

    def __init__(self, n: int, segmentation: Segmentation) -> None:
        self.n = n
        self._grids = segmentation.layers
        self._sums = [np.zeros(n * self._stride(grid)) for grid in self._grids]

    @staticmethod
    def _stride(grid: Grid) -> int:
        return (grid.n_phi + 2) * (grid.n_eta + 2)

    def add(self, layer: int, shower: NDArray[np.int32], x: NDArray, y: NDArray, energy: NDArray) -> None:
        """Add spots of one layer: shower numbers, positions in mm (overwritten), energies in MeV; of one length."""
        grid = self._grids[layer]
        cell = _bin(y, grid.n_phi)
        cell *= np.int32(grid.n_eta + 2)
        cell += _bin(x, grid.n_eta)
        cell += shower * np.int32(self._stride(grid))
        self._sums[layer] += np.bincount(cell, energy, len(self._sums[layer]))

    def finish(self) -> Showers:
        layers, overflow = [], np.zeros((self.n, N_LAYERS))
        for layer, (grid, sums) in enumerate(zip(self._grids, self._sums, strict=True)):
            framed = sums.reshape(self.n, grid.n_phi + 2, grid.n_eta + 2)
            inside = framed[:, 1:-1, 1:-1]
            layers.append(inside.astype(np.float32))
            edge = np.stack([framed[:, 0].sum(axis=1), framed[:, -1].sum(axis=1)]).sum(axis=0)
            overflow[:, layer] = edge + framed[:, 1:-1, 0].sum(axis=1) + framed[:, 1:-1, -1].sum(axis=1)
        return Showers(layers, overflow.astype(np.float32))


def _bin(position: NDArray, n: int) -> NDArray[np.int32]:
    """Cell along one axis: 1 to n inside the window, 0 and n + 1 outside. The positions are overwritten."""
    kind = position.dtype.type
    position += kind(HALF_SIDE)
    position *= kind(n / (2.0 * HALF_SIDE))
    position += kind(1.0)
    return np.clip(position, kind(0), kind(n + 1), out=position).astype(np.int32)


def simulate(
    particle: str,
    energy: Array,
    rng: np.random.Generator,
    segmentation: Segmentation = PUBLISHED,
    recorded: Recorded = "total",
) -> Showers:
    """Showers of particles that come along the axis of the calorimeter.

    Parameters
    ----------
    particle : "gamma", "eplus" or "piplus"
    energy : (n,) array
        GeV, above 0.
    rng : numpy.random.Generator
    segmentation : Segmentation
    recorded : "total" or "active"
        What is recorded: the energy lost in lead and argon, as in the Geant4 sample and the published data, or the
        signal of the argon, on the scale of the energy, with its sampling fluctuations.

    Returns
    -------
    Showers

    Raises
    ------
    InputError
        An unknown particle, energies that are not above 0, or `recorded` "active" for pions, whose signal in the active
        medium is not parametrised here.
    """
    check_recorded(particle, recorded)
    energy = np.asarray(energy, np.float64)
    if not (np.isfinite(energy).all() and (energy > 0).all()):
        raise InputError("energies of particles must be above 0 GeV")
    parts = [_batch(particle, energy[which], rng, segmentation, recorded) for which in _batches(energy)]
    layers = [np.concatenate([part.layers[layer] for part in parts]) for layer in range(N_LAYERS)]
    return Showers(layers, np.concatenate([part.overflow for part in parts]))


def check_recorded(particle: str, recorded: str) -> None:
    """Refuse particles and quantities that cannot be simulated.

    Raises
    ------
    InputError
    """
    if particle not in PARTICLES:
        raise InputError(f"particle '{particle}': use one of {', '.join(PARTICLES)}{did_you_mean(particle, PARTICLES)}")
    if recorded not in electromagnetic.RECORDED:
        choices = electromagnetic.RECORDED
        raise InputError(f"recorded '{recorded}': use one of {', '.join(choices)}{did_you_mean(recorded, choices)}")
    if particle == "piplus" and recorded != "total":
        raise InputError("recorded 'active': the signal of pions in the argon is not parametrised; use 'total'")


def _batches(energy: Array) -> list[slice]:
    """Consecutive showers that are made together; one batch of none where there are none."""
    slices, start = [], 0
    while start < len(energy):
        together = np.cumsum(energy[start : start + BATCH_SHOWERS])
        end = start + max(1, int(np.searchsorted(together, BATCH_ENERGY, side="right")))
        slices.append(slice(start, end))
        start = end
    return slices or [slice(0, 0)]


def _batch(
    particle: str, energy: Array, rng: np.random.Generator, segmentation: Segmentation, recorded: Recorded
) -> Showers:
    canvas = _Canvas(len(energy), segmentation)
    shower = np.arange(len(energy), dtype=np.int32)
    if particle == "eplus":
        _electron(canvas, shower, energy, np.zeros(len(energy)), rng, recorded)
    elif particle == "gamma":
        depth, share = electromagnetic.convert(energy, rng)
        both = np.concatenate([energy * share, energy * (1.0 - share)])
        _electron(canvas, np.tile(shower, 2), both, np.tile(depth, 2), rng, recorded)
    else:
        _pion(canvas, shower, energy, rng)
    return canvas.finish()


def _electron(
    canvas: _Canvas,
    shower: NDArray[np.int32],
    energy: Array,
    start: Array,
    rng: np.random.Generator,
    recorded: Recorded,
) -> None:
    """Add electron showers that start at depths (n,), X0; `shower` says to which each belongs."""
    edges, layer_of = _steps()
    shape = electromagnetic.draw_shapes(energy, rng, recorded)
    t = np.maximum(edges / CALORIMETER.radiation_length - start[:, None], 0.0)
    deposit = _increments(shape.alpha, shape.beta, t) * energy[:, None] * MEV_PER_GEV
    if recorded == "active":
        deposit = _fluctuate(deposit, rng)
    total = electromagnetic.spots(energy, recorded)
    mean_spots = _increments(shape.alpha_spot, shape.beta_spot, t) * total[:, None]
    number = np.where(deposit >= THRESHOLD, np.maximum(mean_spots, 1.0), 0.0).astype(np.int64)

    profile = electromagnetic.radial(energy, shape.tau(0.5 * (t[:, 1:] + t[:, :-1])), recorded)
    in_core = rng.binomial(number, profile.p)
    counts = np.stack([in_core, number - in_core], axis=-1)
    radii = (np.stack([profile.core, profile.tail], axis=-1) * CALORIMETER.moliere_radius).astype(np.float32)
    each = np.where(number > 0, deposit / np.maximum(number, 1), 0.0).astype(np.float32)
    for layer in range(N_LAYERS):
        here = layer_of == layer
        count = counts[:, here].ravel()
        _scatter(
            canvas,
            layer,
            np.repeat(shower, counts[:, here].sum(axis=(1, 2))),
            np.repeat(radii[:, here].ravel(), count),
            np.repeat(np.repeat(each[:, here].ravel(), 2), count),
            rng,
        )


def _increments(alpha: Array, beta: Array, t: Array) -> Array:
    """Integral of gamma densities of shapes alpha (n,) and rates beta (n,) between depths t (n, k + 1): (n, k)."""
    from scipy.special import gammainc  # which whoever only reads a configuration need not wait for

    return np.diff(gammainc(alpha[:, None], beta[:, None] * t), axis=1)


def _fluctuate(deposit: Array, rng: np.random.Generator) -> Array:
    """Sampling fluctuations of deposits, MeV: a gamma variate with the same mean and the variance c^2 E GeV."""
    unit = electromagnetic.SAMPLING_FLUCTUATION**2 * MEV_PER_GEV
    return rng.standard_gamma(deposit / unit) * unit


def _scatter(
    canvas: _Canvas,
    layer: int,
    shower: NDArray[np.int32],
    radius: NDArray[np.float32],
    energy: NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    """Add spots with the radial density 2 r R^2 / (r^2 + R^2)^2 around the axis; the radii are overwritten."""
    n = len(radius)
    u = rng.random(n, np.float32)
    angle = rng.random(n, np.float32)
    angle *= np.float32(2.0 * np.pi)
    u /= 1 - u
    radius *= np.sqrt(u, out=u)
    y = np.sin(angle)
    y *= radius
    radius *= np.cos(angle, out=angle)
    canvas.add(layer, shower, radius, y, energy)


def _pion(canvas: _Canvas, shower: NDArray[np.int32], energy: Array, rng: np.random.Generator) -> None:
    """Add showers of charged pions."""
    edges, _ = _steps()
    n = len(energy)
    start = rng.exponential(CALORIMETER.pion_interaction_length, n)
    ends = np.array(LAYER_EDGES) + HALF_SIDE
    path = np.diff(np.minimum(start[:, None], ends), axis=1)
    lost = hadronic.ionisation(energy, path, rng)
    lost[lost * MEV_PER_GEV < THRESHOLD] = 0.0
    middle = 0.5 * (ends[1:] + ends[:-1])
    width = hadronic.scattering(energy, middle)
    directions = rng.standard_normal((2, n))
    for layer in range(N_LAYERS):
        x, y = (direction * width[:, layer] for direction in directions)
        canvas.add(layer, shower, x, y, lost[:, layer] * MEV_PER_GEV)

    inside = start < edges[-1]
    rest = np.where(inside, energy - lost.sum(axis=1), 0.0)
    share = hadronic.draw_em_fraction(rest, rng)
    some = inside & (share * rest * MEV_PER_GEV > THRESHOLD)
    _electron(
        canvas,
        shower[some],
        (share * rest)[some],
        start[some] / CALORIMETER.radiation_length,
        rng,
        "total",
    )
    hadrons = (1.0 - share) * rest * (1.0 - hadronic.INVISIBLE_SHARE)
    hadrons[hadrons * MEV_PER_GEV < THRESHOLD] = 0.0
    number = np.ceil(hadrons / hadronic.SPOT_ENERGY).astype(np.int64)
    each = np.repeat(hadrons / np.maximum(number, 1) * MEV_PER_GEV, number).astype(np.float32)
    owner = np.repeat(np.arange(n), number)
    alpha = hadronic.longitudinal_shape(rest)
    scale = CALORIMETER.interaction_length
    depth = start[owner] + rng.standard_gamma(alpha[owner]) / hadronic.LONGITUDINAL_RATE * scale
    radius = np.full(len(owner), hadronic.HALF_RADIUS * scale, np.float32)
    layer_of = np.searchsorted(ends, depth, side="right") - 1
    for layer in range(N_LAYERS):
        here = layer_of == layer
        _scatter(canvas, layer, shower[owner[here]], radius[here], each[here], rng)
