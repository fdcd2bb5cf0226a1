"""Weak-lensing convergence maps as lognormal random fields, and their power spectrum.

The convergence kappa (dimensionless) of a square patch of sky is modelled as a shifted lognormal field (Hilbert,
Hartlap and Schneider, A&A 536 (2011) A85; Xavier, Abdalla and Joachimi, MNRAS 459 (2016) 3693):

    kappa = shift (exp(g - sigma^2 / 2) - 1),

where g is a Gaussian random field of variance sigma^2 with correlation function ln(1 + xi / shift^2). Then kappa has
mean zero, correlation function xi exactly (Coles and Jones, MNRAS 248 (1991) 1), and no value below -shift. xi is that
of the target spectrum `convergence_power` on the modes of the grid, so on the periodic square the mean power of every
mode is the target's, without aliasing.

These are maps of the resolution and of nearly the spectrum of the N-body maps of CosmoGAN (Mustafa et al. 2019,
arXiv:1706.02390), not those maps: a lognormal field has no filaments, and its higher correlations are those that
follow from its spectrum and its shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hpcgan import rng

AREA_DEG2 = 12.0
"""Solid angle of a map, square degrees."""

FIELD = float(np.sqrt(AREA_DEG2) * np.pi / 180.0)
"""Side of a map, radians (3.46 degrees)."""

FUNDAMENTAL = 2.0 * np.pi / FIELD
"""Multipole of the longest wave that fits, 103.9; the modes of a map are at whole multiples of it on either axis."""

SIDE = 256
"""Pixels along a side of a map of full size: 0.81 arc minutes each, Nyquist multipole 13,302."""

SHIFT = 0.03
"""Largest negative convergence: 0.02975 for sources at z = 1 (Hilbert et al. 2011, eq. 38), rounded."""

AMPLITUDE, PIVOT, RISE, SHARPNESS, FALL = 1.11e-4, 3960.0, 0.665, 3.5, 0.295

STREAM = "cosmo/lognormal"


def convergence_power(ell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Target angular power spectrum C(l) of the convergence.

    With x = l / 3960,

        l (l + 1) C(l) / (2 pi) = 1.11e-4 x^0.665 / (1 + x^3.5)^0.295.

    A fit of this form to the Limber integral for sources at z = 1 in a flat LCDM universe (Omega_m = 0.26, h = 0.72,
    sigma_8 = 0.798, n_s = 0.96) with the transfer function of Bardeen et al. (ApJ 304 (1986) 15, with Sugiyama's
    shape parameter for Omega_b = 0.0428) and the nonlinear power of Smith et al. (MNRAS 341 (2003) 1311); it is
    within 6% of it for l from 90 to 19,000, as the tests recompute.

    Parameters
    ----------
    ell : array
        Multipoles, above 0.

    Returns
    -------
    array
        C(l), steradians.
    """
    x = ell / PIVOT
    return 2.0 * np.pi / (ell * (ell + 1.0)) * AMPLITUDE * x**RISE / (1.0 + x**SHARPNESS) ** FALL


def multipoles(side: int) -> NDArray[np.float64]:
    """|l| of the Fourier modes of a map (side, side), in the order of `numpy.fft.fft2`."""
    along = np.fft.fftfreq(side, 1.0 / side) * FUNDAMENTAL
    return np.hypot(along[:, None], along[None, :])


@dataclass(frozen=True)
class LognormalMaps:
    """Maps of one size; map number `index` is a function of (seed, index) and nothing else.

    Parameters
    ----------
    side : int
        Pixels along a side, even. The field is 12 square degrees for every side.
    shift : float
        Largest negative convergence.

    Raises
    ------
    ValueError
        An odd side, or a shift for which no Gaussian field gives the target spectrum.
    """

    side: int = SIDE
    shift: float = SHIFT

    def __post_init__(self) -> None:
        if self.side < 4 or self.side % 2:
            raise ValueError(f"maps of {self.side} pixels a side: use an even number of 4 or more")
        _amplitudes(self.side, self.shift)

    @property
    def target(self) -> NDArray[np.float64]:
        """Mean power of each mode (side, side), steradians, in the order of `numpy.fft.fft2`.

        The mode of a map as a whole, at l = 0, is given the power of the longest wave: a patch of the sky has a mean
        of its own.
        """
        return _target(self.side)

    @property
    def variance(self) -> float:
        """Variance of a pixel: the sum of the target over the modes, divided by the solid angle."""
        return float(self.target.sum() / FIELD**2)

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian field: sigma^2 = ln(1 + variance / shift^2)."""
        return float(np.sqrt(np.log1p(self.variance / self.shift**2)))

    def make(self, seed: int, first: int, n: int) -> NDArray[np.float32]:
        """Maps number first ... first + n - 1 of a seed.

        Returns
        -------
        (n, side, side) float32, dimensionless.
        """
        amplitudes = _amplitudes(self.side, self.shift)
        maps = np.empty((n, self.side, self.side), np.float32)
        for i in range(n):  # one by one: what stands beside a map in an array must not change its last bit
            white = rng.normal(seed, STREAM, 0, first + i, 1, self.side**2).reshape(self.side, self.side)
            gaussian = np.fft.irfft2(np.fft.rfft2(white) * amplitudes, s=white.shape)
            maps[i] = self.shift * np.expm1(gaussian - 0.5 * self.sigma**2)
        return maps


@lru_cache(8)
def _target(side: int) -> NDArray[np.float64]:
    ell = multipoles(side)
    ell[0, 0] = FUNDAMENTAL
    power = convergence_power(ell)
    power.flags.writeable = False
    return power


@lru_cache(8)
def _amplitudes(side: int, shift: float) -> NDArray[np.float64]:
    """What the modes of unit white noise are multiplied with (side, side / 2 + 1)."""
    xi = np.fft.irfft2(_target(side)[:, : side // 2 + 1], s=(side, side)) * side**2 / FIELD**2
    if xi.min() <= -(shift**2):
        raise ValueError(f"shift {shift:g}: too small for the correlations of the convergence")
    power = np.fft.rfft2(np.log1p(xi / shift**2)).real
    if power.min() < 0.0:
        raise ValueError(f"shift {shift:g}: too small, no Gaussian field has the correlations that are needed")
    return np.sqrt(power)


def power_spectrum(maps: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power spectrum of maps, averaged over rings of multipoles.

    The power of a mode l is Omega |sum_x kappa(x) exp(-i l x)|^2 / N^4 with Omega the solid angle of the field and
    N^2 the number of pixels: that of the continuous transform, per unit of solid angle. White noise of variance v has
    Omega v / N^2 in every mode, and a wave a cos(l x) has Omega a^2 / 4 in each of its two modes.
    Ring k = 1 ... N/2 holds the modes whose |l| rounds to k times the fundamental multipole 103.9; the corners of the
    Fourier plane beyond the last ring are left out, and so is the mean.

    Parameters
    ----------
    maps : (n, N, N) array
        N even; each map is 12 square degrees.

    Returns
    -------
    ell : (N/2,) float64
        Mean |l| of the modes in each ring.
    power : (n, N/2) float64
        Steradians (times the square of the maps' unit).
    """
    side = maps.shape[-1]
    ring, counts, ell = _rings(side)
    power = np.empty((len(maps), side // 2))
    for i, one in enumerate(maps):
        modes = np.abs(np.fft.fft2(np.asarray(one, np.float64))) ** 2
        power[i] = np.bincount(ring, modes.ravel(), side // 2 + 2)[1:-1] / counts
    return ell, power * (FIELD**2 / side**4)


@lru_cache(8)
def _rings(side: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Ring of each mode (0: the mean, N/2 + 1: the corners), modes in each ring, and their mean multipole."""
    ell = multipoles(side).ravel()
    ring = np.minimum(np.rint(ell / FUNDAMENTAL).astype(np.int64), side // 2 + 1)
    counts = np.bincount(ring, minlength=side // 2 + 2)[1:-1].astype(np.float64)
    return ring, counts, np.bincount(ring, ell, side // 2 + 2)[1:-1] / counts


BAND_EDGES = (1, 3, 9, 27, 81, 243)
"""Rings at which the bands begin: l = 104, 312, 935, 2806 and 8418."""


def bands(side: int) -> list[tuple[int, int]]:
    """First and last ring of each band of multipoles; the last band ends at the Nyquist multipole."""
    edges = [edge for edge in BAND_EDGES if edge < side // 2 + 1]
    return [(low, high - 1) for low, high in zip(edges, [*edges[1:], side // 2 + 1])]


def band_powers(maps: NDArray[np.floating]) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Dimensionless power l (l + 1) C(l) / (2 pi) of each map in each band.

    Parameters
    ----------
    maps : (n, N, N) array

    Returns
    -------
    dict of (int, int) to (n,) float64
        By the lowest and highest multipole of the band, rounded; the mean over the modes of the band, with l that of
        the ring.
    """
    side = maps.shape[-1]
    ell, power = power_spectrum(maps)
    weights = _rings(side)[1]
    scaled = power * (ell * (ell + 1.0) / (2.0 * np.pi))
    powers = {}
    for first, last in bands(side):
        rings = slice(first - 1, last)
        key = (round(first * FUNDAMENTAL), round(last * FUNDAMENTAL))
        powers[key] = scaled[:, rings] @ weights[rings] / weights[rings].sum()
    return powers


SITES = 4
"""A map is divided into SITES x SITES cells with a pixel of each: that many intensities a map."""

STRIDES = 16
"""Pixels after which the four stride-2 layers of the networks repeat themselves."""


def pixel_sites(side: int, sites: int = SITES) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels whose intensities are compared, sites^2 of each map.

    Neighbouring pixels are correlated, so that all of them would say less than a KS test takes them for. These are
    one of each of 4 x 4 cells, about 0.87 degrees apart, where the correlation of `hpcgan data cosmo` is 0.01. Their
    places in the cells differ, so that they meet each of the 16 positions, along either axis, that transposed
    convolutions treat differently.

    Returns
    -------
    rows, columns : (sites^2,) int64
    """
    cell = side // sites
    number = np.arange(sites * sites)
    phase = min(STRIDES, cell)
    rows = cell * (number // sites) + number % phase
    columns = cell * (number % sites) + (5 * number + 3) % phase
    return rows, columns
