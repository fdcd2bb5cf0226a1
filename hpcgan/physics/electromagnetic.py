"""Profiles of electromagnetic showers: the parametrisation of Grindhammer and Peters, hep-ex/0001020.

Depths t are in radiation lengths, radii in Moliere radii, energies E in GeV; y = E / E_c. A shower is described by the
depth T of its maximum and a shape alpha, which fluctuate together from shower to shower. Constants are those of
Geant4's implementation of the paper (GFlash, default tuning), which in three places differ from the paper's text; none
was fitted to anything here.

There are two sets of constants, for two things that can be recorded:

- ``"total"``: the energy lost in both materials. Where it is lost is what the effective medium decides, so the
  constants are those of homogeneous media, and there are no sampling fluctuations.
- ``"active"``: the signal of the active medium, on the scale of the shower's energy. The constants are those of
  sampling calorimeters: the signal per energy lost falls with depth (the shower seems to be earlier), and it
  fluctuates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hpcgan.physics.calorimeter import CALORIMETER as MEDIUM

Array = NDArray[np.float64]

Recorded = Literal["total", "active"]
RECORDED: tuple[Recorded, ...] = get_args(Recorded)

SAMPLING_FLUCTUATION = 0.11
"""c: sigma(E) / E = c / sqrt(E / GeV) of the signal of the active medium, for plates as these."""

LOWEST_LN_Y = 2.0
"""Shapes are taken at no less than E = exp(2) E_c, 66 MeV, below which the fits have no meaning."""

LARGEST_SIGMA = 0.5
"""Limits that GFlash sets to the fluctuations at low energy, and to what they may lead to."""
SMALLEST_ALPHA = 1.1
SMALLEST_T = 0.5


@dataclass(frozen=True)
class LongitudinalMoments:
    """Distribution of ln T and ln alpha of showers of given energies, arrays of equal shape.

    Attributes
    ----------
    ln_t, ln_alpha : array
        Means.
    sigma_t, sigma_alpha : array
        Standard deviations.
    rho : array
        Correlation.
    """

    ln_t: Array
    ln_alpha: Array
    sigma_t: Array
    sigma_alpha: Array
    rho: Array


@dataclass(frozen=True)
class Shape:
    """Longitudinal shape of single showers, arrays (n,).

    Attributes
    ----------
    t_max : array
        Depth of the maximum, X0.
    alpha : array
        The profile is a gamma density of shape alpha and rate beta = (alpha - 1) / T.
    mean_alpha : array
        exp <ln alpha> of showers of that energy, which defines tau.
    t_spot, alpha_spot : array
        The same of the number of spots.
    """

    t_max: Array
    alpha: Array
    mean_alpha: Array
    t_spot: Array
    alpha_spot: Array

    @property
    def beta(self) -> Array:
        """1 / X0."""
        return (self.alpha - 1.0) / self.t_max

    @property
    def beta_spot(self) -> Array:
        """1 / X0."""
        return (self.alpha_spot - 1.0) / self.t_spot

    def tau(self, t: Array) -> Array:
        """Age of the showers at depths (n, k): t / <t> exp<ln alpha> / (exp<ln alpha> - 1), 1 near the maximum."""
        centre = self.alpha / self.beta
        return t / centre[:, None] * (self.mean_alpha / (self.mean_alpha - 1.0))[:, None]


def _ln_y(energy: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(1000.0 * energy / MEDIUM.critical_energy), LOWEST_LN_Y)


def longitudinal(energy: Array, recorded: Recorded = "total") -> LongitudinalMoments:
    """Means, standard deviations and correlation of ln T and ln alpha.

    Homogeneous:

        <ln T> = ln(ln y - 0.812),  <ln alpha> = ln(0.81 + (0.458 + 2.26 / Z) ln y),
        sigma(ln T) = 1 / (-1.4 + 1.26 ln y),  sigma(ln alpha) = 1 / (-0.58 + 0.86 ln y),  rho = 0.705 - 0.023 ln y.

    Sampling, with the homogeneous values T' and alpha':

        <ln T> = ln(T' - 0.55 / F_S - 0.69 (1 - e)),  <ln alpha> = ln(alpha' - 0.476 / F_S),
        sigma(ln T) = 1 / (-2.5 + 1.25 ln y),  sigma(ln alpha) = 1 / (-0.82 + 0.79 ln y),  rho = 0.784 - 0.023 ln y.

    Parameters
    ----------
    energy : array
        GeV.
    recorded : "total" or "active"

    Returns
    -------
    LongitudinalMoments
    """
    ln_y = _ln_y(energy)
    t = ln_y - 0.812
    alpha = 0.81 + (0.458 + 2.26 / MEDIUM.z) * ln_y
    if recorded == "total":
        widths = -1.4 + 1.26 * ln_y, -0.58 + 0.86 * ln_y
        rho = 0.705 - 0.023 * ln_y
    else:
        frequency = MEDIUM.sampling_frequency
        t = np.maximum(t - 0.55 / frequency - 0.69 * (1.0 - MEDIUM.e_over_mip), SMALLEST_T)
        alpha = alpha - 0.476 / frequency
        widths = -2.5 + 1.25 * ln_y, -0.82 + 0.79 * ln_y
        rho = 0.784 - 0.023 * ln_y
    sigma_t, sigma_alpha = (1.0 / np.maximum(width, 1.0 / LARGEST_SIGMA) for width in widths)
    return LongitudinalMoments(np.log(t), np.log(alpha), sigma_t, sigma_alpha, rho)


def draw_shapes(energy: Array, rng: np.random.Generator, recorded: Recorded = "total") -> Shape:
    """Shapes of single showers: ln T and ln alpha from a normal distribution in two dimensions.

    The spots follow a gamma distribution, too. Homogeneous:

        T_spot = T (0.698 + 0.00212 Z),  alpha_spot = alpha (0.639 + 0.00334 Z),

    sampling, from the homogeneous shape of the same shower (the same two random numbers):

        T_spot = T' (0.813 + 0.0019 Z),  alpha_spot = alpha' (0.844 + 0.0026 Z).

    Parameters
    ----------
    energy : (n,) array
        GeV.
    rng : numpy.random.Generator
    recorded : "total" or "active"

    Returns
    -------
    Shape
    """
    normals = rng.standard_normal((2, len(energy)))
    moments = longitudinal(energy, recorded)
    t_max, alpha = _correlated(moments, normals)
    if recorded == "total":
        t_spot, alpha_spot = t_max * (0.698 + 0.00212 * MEDIUM.z), alpha * (0.639 + 0.00334 * MEDIUM.z)
    else:
        t_hom, alpha_hom = _correlated(longitudinal(energy, "total"), normals)
        t_spot, alpha_spot = t_hom * (0.813 + 0.0019 * MEDIUM.z), alpha_hom * (0.844 + 0.0026 * MEDIUM.z)
    return Shape(
        t_max,
        alpha,
        np.maximum(np.exp(moments.ln_alpha), SMALLEST_ALPHA),
        np.maximum(t_spot, SMALLEST_T),
        np.maximum(alpha_spot, SMALLEST_ALPHA),
    )


def _correlated(moments: LongitudinalMoments, normals: Array) -> tuple[Array, Array]:
    plus, minus = np.sqrt((1.0 + moments.rho) / 2.0), np.sqrt((1.0 - moments.rho) / 2.0)
    t_max = np.exp(moments.ln_t + moments.sigma_t * (plus * normals[0] + minus * normals[1]))
    alpha = np.exp(moments.ln_alpha + moments.sigma_alpha * (plus * normals[0] - minus * normals[1]))
    return np.maximum(t_max, SMALLEST_T), np.maximum(alpha, SMALLEST_ALPHA)


@dataclass(frozen=True)
class Radial:
    """Radial profile p f(r; core) + (1 - p) f(r; tail) with f(r; R) = 2 r R^2 / (r^2 + R^2)^2, arrays of equal shape.

    Attributes
    ----------
    core, tail : array
        R of either part, the radius that holds half of it, in Moliere radii.
    p : array
        Share of the core, in [0, 1].
    """

    core: Array
    tail: Array
    p: Array


SMALLEST_RADIUS = 1e-3


def radial(energy: Array, tau: Array, recorded: Recorded = "total") -> Radial:
    """Radial profiles at ages tau of showers.

    Homogeneous:

        core = z1 + z2 tau,  z1 = 0.0251 + 0.00319 ln E,  z2 = 0.1162 - 0.000381 Z,
        tail = k1 (exp(k3 (tau - k2)) + exp(k4 (tau - k2))),
            k1 = 0.659 - 0.00309 Z,  k2 = 0.645,  k3 = -2.59,  k4 = 0.3585 + 0.0412 ln E,
        p = p1 exp(u - exp(u)),  u = (p2 - tau) / p3,
            p1 = 2.632 - 0.00094 Z,  p2 = 0.401 + 0.00187 Z,  p3 = 1.313 - 0.0686 ln E.

    Sampling adds to these -0.0203 (1 - e) + 0.0397 exp(-tau) / F_S, -0.14 (1 - e) - 0.495 exp(-tau) / F_S, and
    (1 - e) (0.348 - 0.642 exp(-(tau - 1)^2) / F_S).

    Parameters
    ----------
    energy : (n,) array
        GeV.
    tau : (n, k) array
    recorded : "total" or "active"

    Returns
    -------
    Radial
        Arrays (n, k).
    """
    z = MEDIUM.z
    ln_e = (_ln_y(energy) + np.log(MEDIUM.critical_energy / 1000.0))[:, None]
    core = 0.0251 + 0.00319 * ln_e + (0.1162 - 0.000381 * z) * tau
    k1, k2, k3, k4 = 0.659 - 0.00309 * z, 0.645, -2.59, 0.3585 + 0.0412 * ln_e
    tail = k1 * (np.exp(k3 * (tau - k2)) + np.exp(k4 * (tau - k2)))
    p1, p2, p3 = 2.632 - 0.00094 * z, 0.401 + 0.00187 * z, 1.313 - 0.0686 * ln_e
    u = (p2 - tau) / p3
    p = p1 * np.exp(u - np.exp(u))
    if recorded == "active":
        deficit, frequency = 1.0 - MEDIUM.e_over_mip, MEDIUM.sampling_frequency
        early = np.exp(-tau) / frequency
        core = core - 0.0203 * deficit + 0.0397 * early
        tail = tail - 0.14 * deficit - 0.495 * early
        p = p + deficit * (0.348 - 0.642 * np.exp(-((tau - 1.0) ** 2)) / frequency)
    return Radial(np.maximum(core, SMALLEST_RADIUS), np.maximum(tail, SMALLEST_RADIUS), np.clip(p, 0.0, 1.0))


def spots(energy: Array, recorded: Recorded = "total") -> Array:
    """Number of spots of equal energy (at one depth) that a shower is made of: its lateral fluctuations.

    Homogeneous 93 ln(Z) E^0.876, sampling 10.3 / c E^0.959 with c = 0.11.

    Parameters
    ----------
    energy : array
        GeV.

    Returns
    -------
    array
    """
    if recorded == "total":
        return 93.0 * np.log(MEDIUM.z) * energy**0.876
    return 10.3 / SAMPLING_FLUCTUATION * energy**0.959


MEAN_CONVERSION = 9.0 / 7.0
"""Mean depth at which a photon converts, X0: the limit of high energy (complete screening)."""


def convert(energy: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Depth of the conversion of photons, and the share of one of the two electrons in the energy.

    The depth is exponential with mean 9/7 X0. The share x has the density (9/7) (1 - 4/3 x (1 - x)) of complete
    screening (Particle Data Group, Passage of Particles Through Matter, eq. 34.31), which is 6/7 of a uniform
    distribution and 1/7 of the density 3 (2x - 1)^2, so that it can be drawn directly.

    Parameters
    ----------
    energy : (n,) array
        GeV; only its length matters.
    rng : numpy.random.Generator

    Returns
    -------
    depth : (n,) array
        X0.
    share : (n,) array
        In [0, 1].
    """
    n = len(energy)
    depth = rng.exponential(MEAN_CONVERSION, n)
    chosen, u = rng.random((2, n))
    share = np.where(chosen < 6.0 / 7.0, u, 0.5 + 0.5 * np.cbrt(2.0 * u - 1.0))
    return depth, share
