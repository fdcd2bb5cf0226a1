"""Showers of charged pions: where they interact, what becomes electromagnetic, and what is seen of the rest.

A simple model with the constants of the literature; there are no Geant4 pions here to hold it against.

1. The pion crosses the calorimeter as a minimum-ionising particle until it interacts, at an exponential depth with the
   mean of its interaction length. A third of all pions leaves this calorimeter (1.1 interaction lengths) without.
2. A share f_em of its energy goes into neutral pions: on average 1 - (E / E0)^(k - 1) with k = 0.82 and E0 = 1.3 GeV
   for pions in lead (Gabriel, Groom et al., NIM A338 (1994) 336; Wigmans, Calorimetry (Oxford, 2000), chapter 2). It
   is taken to shower like an electron at the point of interaction.
3. The rest is carried by hadrons. A third of it goes into breaking up nuclei and is never seen (34% in lead, Wigmans,
   chapter 2). What is seen lies along a gamma distribution from the point of interaction (Bock, Hansl-Kozanecka and
   Shah, NIM 186 (1981) 533) with the constants of Kulchitsky and Vinogradov (hep-ex/9903019, eq. 1), and has 95% within
   one interaction length of the axis (Fabjan and Gianotti, RMP 75 (2003) 1243).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcgan.physics.calorimeter import CALORIMETER as MEDIUM
from hpcgan.physics.calorimeter import Material

Array = NDArray[np.float64]

PION_MASS = 0.13957
"""GeV. Energies of pions are kinetic energies."""

ELECTRON_MASS_MEV = 0.51100

EM_EXPONENT = 0.82
"""k of f_em."""

EM_SCALE = 1.3
"""E0 of f_em, GeV."""

NEUTRAL_SHARE = 1.0 / 3.0
"""Neutral pions among the pions of a collision."""

INVISIBLE_SHARE = 0.34
"""Of the energy of hadrons in lead: nuclear binding energy, and the recoil of nuclei."""

LONGITUDINAL_RATE = 0.978
"""Rate of the longitudinal gamma density, per interaction length."""

HALF_RADIUS = float(np.sqrt(1.0 / 19.0))
"""R of 2 r R^2 / (r^2 + R^2)^2 that has 95% within 1: of the hadronic part, in interaction lengths."""

SPOT_ENERGY = 0.1
"""Energy of a spot of the hadronic part, GeV. No source gives it: chosen, half of what a minimum-ionising particle
loses in an interaction length of this calorimeter."""


def secondaries() -> int:
    """Hadrons of a collision: k - 1 = ln(1 - 1/3) / ln m in the model of Gabriel et al. gives m = 9.5."""
    return round(float(np.exp(np.log(1.0 - NEUTRAL_SHARE) / (EM_EXPONENT - 1.0))))


def mean_em_fraction(energy: Array) -> Array:
    """<f_em> = 1 - (E / E0)^(k - 1), 0 below E0; E in GeV."""
    return 1.0 - np.maximum(energy / EM_SCALE, 1.0) ** (EM_EXPONENT - 1.0)


def draw_em_fraction(energy: Array, rng: np.random.Generator) -> Array:
    """Electromagnetic share of single showers.

    It fluctuates mostly by the number of neutral pions in the first collision. Of its m hadrons of equal energy a
    binomial number n0 is neutral; the others make the mean electromagnetic share of their energy later, so that 1 -
    f_em is (1 - n0/m) times a constant. That constant, and for pions of low energy the probability of a hadron to be
    neutral, are such that the mean is `mean_em_fraction`.

    Parameters
    ----------
    energy : (n,) array
        GeV, at the point of interaction.
    rng : numpy.random.Generator

    Returns
    -------
    (n,) array
        In [0, 1].
    """
    hadronic = 1.0 - mean_em_fraction(energy)
    neutral = np.minimum(NEUTRAL_SHARE, 1.0 - hadronic)
    m = secondaries()
    first = rng.binomial(m, neutral) / m
    return 1.0 - (1.0 - first) * hadronic / (1.0 - neutral)


def longitudinal_shape(energy: Array) -> Array:
    """Shape of the longitudinal gamma density of the hadronic part: 0.786 + 0.427 ln E (E in GeV)."""
    return np.maximum(0.786 + 0.427 * np.log(np.maximum(energy, 1.0)), 0.786)


def ionisation(energy: Array, path: Array, rng: np.random.Generator) -> Array:
    """Energy that pions lose by ionisation on stretches of their way.

    Landau's distribution with the most probable loss of relativistic particles (Particle Data Group, Passage of
    Particles Through Matter, eq. 34.13), summed over both materials:

        xi (ln(2 m_e c^2 xi / (hbar omega_p)^2) + 0.200),  xi = 0.1535 MeV (Z / A) x.

    Parameters
    ----------
    energy : (n,) array
        GeV.
    path : (n, k) array
        Length of each stretch, mm.
    rng : numpy.random.Generator

    Returns
    -------
    (n, k) array
        GeV; not more than the energy in all.
    """
    xi = np.zeros(path.shape)
    constants = np.zeros(path.shape)
    for material, thickness in ((MEDIUM.absorber, MEDIUM.absorber_mm), (MEDIUM.active, MEDIUM.active_mm)):
        part = _landau_width(material, path / 10.0 * thickness / MEDIUM.pitch)
        xi += part
        constants += part * (_log_transfer(material) + 0.200)
    # Landau's distribution is stable: widths add up, and with them all of the most probable loss but xi ln(xi).
    most_probable = constants + xi * np.log(np.maximum(xi, 1e-300))
    lost = np.maximum(most_probable + xi * (landau(path.shape, rng) - LANDAU_MODE), 0.0) / 1000.0
    total = lost.sum(axis=1, keepdims=True)
    return lost * np.minimum(1.0, energy[:, None] / np.maximum(total, 1e-300))


def _landau_width(material: Material, centimetres: Array) -> Array:
    """The width xi, MeV."""
    return 0.153537 * material.z / material.a * material.density * centimetres


def _log_transfer(material: Material) -> float:
    """ln(2 m_e c^2 / (hbar omega_p)^2), masses and energies in MeV."""
    return float(np.log(2.0 * ELECTRON_MASS_MEV / (1e-6 * material.plasma_energy) ** 2))


LANDAU_MODE = -0.22278
"""Where Landau's density is largest."""


def landau(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Numbers with Landau's density (1 / 2 pi i) integral exp(s ln s + lambda s) ds.

    It is the stable distribution of index 1 and skewness 1, which Chambers, Mallows and Stuck (JASA 71 (1976) 340) draw
    from an angle and an exponential number.
    """
    angle = np.pi * (rng.random(shape) - 0.5)
    exponential = rng.standard_exponential(shape)
    half = 0.5 * np.pi
    stable = ((half + angle) * np.tan(angle) - np.log(half * exponential * np.cos(angle) / (half + angle))) / half
    return half * stable + np.log(half)


def scattering(energy: Array, depth: Array) -> Array:
    """RMS displacement of a pion along one axis at depths, by multiple scattering.

    theta0 z / sqrt(3), theta0 = 13.6 MeV / p sqrt(t) (1 + 0.038 ln t) with t in X0 (Particle Data Group, eq. 34.16,
    34.20).

    Parameters
    ----------
    energy : (n,) array
        GeV.
    depth : (k,) array
        mm.

    Returns
    -------
    (n, k) array
        mm.
    """
    momentum = np.sqrt(energy * (energy + 2.0 * PION_MASS))[:, None]
    t = depth / MEDIUM.radiation_length
    angle = 0.0136 / momentum * np.sqrt(t) * (1.0 + 0.038 * np.log(np.maximum(t, 1e-3)))
    return angle * depth / np.sqrt(3.0)
