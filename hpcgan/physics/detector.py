"""Parametrised calorimeter: the towers Delphes' ATLAS card makes of stable particles, vectorised over events.

Particles are carried through the solenoid field to the calorimeter surface, their energy is shared between an
electromagnetic (ECAL) and a hadronic (HCAL) grid of towers, every tower is smeared, cut and placed at random
inside its cell. Muons deposit nothing, but the card merges muon *tracks* into its tower list, so the
reconstructed ones appear as towers with the momentum resolution of the tracker. See ``docs/detector.md`` for
the comparison with Delphes.

References
----------
Delphes 3, arXiv:1307.6346, and its card ``delphes_card_ATLAS.tcl``; the numbers below are that card's. The
behaviour of each step was worked out from the modules ParticlePropagator, SimpleCalorimeter, Efficiency and
MomentumSmearing and checked against their output; no code was taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgan.physics.pythia import Particles

SPEED_OF_LIGHT = 0.299792458
"""Radius of curvature: R [m] = pT [GeV] / (0.2998 |q| B [T])."""

Floats = NDArray[np.float64]


class Towers(NamedTuple):
    """Calorimeter towers of a batch of events, flat arrays of length K.

    Attributes
    ----------
    event : (K,) int64, index of the event within the batch. Ascending within each of ECAL, HCAL and muons.
    eta, phi : (K,) float64, position drawn inside the cell (muons: direction of the momentum).
    energy : (K,) float64, GeV.
    """

    event: NDArray[np.int64]
    eta: Floats
    phi: Floats
    energy: Floats


@dataclass(frozen=True)
class Resolution:
    """Energy resolution sigma(E) = sqrt((constant E)^2 + stochastic^2 E + noise^2) for |eta| up to
    `eta_max`.
    """

    eta_max: float
    constant: float
    stochastic: float
    noise: float = 0.0


@dataclass(frozen=True)
class Segment:
    """Rows of towers with the same width in phi.

    Attributes
    ----------
    eta_edges : tuple of float
        *Upper* edges in eta of the rows (a row begins at the next lower edge of the whole grid).
    phi_bins : int
        Towers in a row, over the full circle starting at -pi.
    """

    eta_edges: tuple[float, ...]
    phi_bins: int


@dataclass(frozen=True)
class Grid:
    """One calorimeter: cells, response and cuts.

    Attributes
    ----------
    segments : tuple of Segment
        The lowest edge of all only closes the grid from below.
    fractions : tuple of (int, float)
        Share of the energy deposited, by absolute PDG code; code 0 stands for every other particle.
    resolution : tuple of Resolution
        By |eta| of the *centre* of the tower; beyond the last one, sigma = 0.
    energy_min : float
        Towers below this energy after smearing are dropped, GeV.
    significance_min : float
        Towers below this many sigma (evaluated at the smeared energy) are dropped.
    """

    segments: tuple[Segment, ...]
    fractions: tuple[tuple[int, float], ...]
    resolution: tuple[Resolution, ...]
    energy_min: float
    significance_min: float

    @cached_property
    def eta_edges(self) -> Floats:
        """(R + 1,) all edges in eta, ascending."""
        return np.unique([edge for segment in self.segments for edge in segment.eta_edges])

    @cached_property
    def phi_bins(self) -> NDArray[np.int64]:
        """(R + 1,) number of phi bins of the row that ends at each edge (entry 0 belongs to no row)."""
        bins = np.zeros(len(self.eta_edges), dtype=np.int64)
        for segment in self.segments:
            bins[np.searchsorted(self.eta_edges, segment.eta_edges)] = segment.phi_bins
        return bins

    def least_energy(self, low: Floats, high: Floats) -> Floats:
        """Energy below which no tower between two values of eta (r,) passes the cuts, GeV: (r,).

        Energies E with E >= energy_min and E >= significance_min * sigma(E), the latter from the root of a quadratic
        equation; of several rows of towers in between, the lowest.
        """
        centre = np.abs(0.5 * (self.eta_edges[1:] + self.eta_edges[:-1]))
        least = np.full(len(centre), self.energy_min)
        for resolution in reversed(self.resolution):  # the first that reaches to a row holds
            a = 1.0 - (self.significance_min * resolution.constant) ** 2
            b = (self.significance_min * resolution.stochastic) ** 2
            c = (self.significance_min * resolution.noise) ** 2
            root = (b + np.sqrt(b * b + 4.0 * a * c)) / (2.0 * a)
            least[centre <= resolution.eta_max] = max(self.energy_min, root)
        between = (self.eta_edges[None, 1:] > low[:, None]) & (self.eta_edges[None, :-1] < high[:, None])
        return np.where(between, least, np.inf).min(axis=1)


@dataclass(frozen=True)
class MuonTracks:
    """Reconstructed muons, which the card's tower list includes.

    Attributes
    ----------
    pt_min : float
        No track at or below, GeV.
    pt_plateau : float
        Above it the second efficiency of a bin holds, GeV.
    efficiency : tuple of (eta_max, below plateau, above plateau)
    resolution : tuple of (eta_max, constant, slope)
        sigma(pT) / pT = sqrt(constant^2 + (slope pT)^2), at most 1.
    """

    pt_min: float = 0.1
    pt_plateau: float = 1.0
    efficiency: tuple[tuple[float, float, float], ...] = ((1.5, 0.75, 0.99), (2.5, 0.70, 0.98))
    resolution: tuple[tuple[float, float, float], ...] = (
        (0.5, 0.01, 1.0e-4),
        (1.5, 0.015, 1.5e-4),
        (2.5, 0.025, 3.5e-4),
    )


_INVISIBLE = tuple(
    (code, 0.0) for code in (12, 13, 14, 16, 1000022, 1000023, 1000025, 1000035, 1000045)
)  # neutrinos, muons, neutralinos


def _atlas_ecal() -> Grid:
    step = 0.0174
    fine = [i * step for i in range(-85, 87)]
    fine += [-2.958 + i * step for i in range(1, 85)] + [1.4964 + i * step for i in range(1, 85)]
    coarse = (-5, -4.7, -4.525, -4.35, -4.175, -4, -3.825, -3.65, -3.475, -3.3, -3.125, -2.958,
              3.125, 3.3, 3.475, 3.65, 3.825, 4, 4.175, 4.35, 4.525, 4.7, 5)  # fmt: skip
    return Grid(
        # Rounding makes -85 * 0.0174 and -2.958 + 85 * 0.0174 style pairs one edge, not two an ulp apart.
        segments=(
            Segment(tuple(round(edge, 6) for edge in fine), 360),
            Segment(tuple(map(float, coarse)), 36),
        ),
        fractions=((0, 0.0), (11, 1.0), (22, 1.0), (111, 1.0), (310, 0.3), (3122, 0.3), *_INVISIBLE),
        resolution=(Resolution(3.2, 0.0017, 0.101), Resolution(4.9, 0.0350, 0.285)),
        energy_min=0.5,
        significance_min=2.0,
    )


def _atlas_hcal() -> Grid:
    ten_degrees = (-3.2, *(round(0.1 * i, 1) for i in range(-25, 27)), 3.3)
    twenty_degrees = (-4.9, -4.7, -4.5, -4.3, -4.1, -3.9, -3.7, -3.5, -3.3, -3.0, -2.8, -2.6,
                      2.8, 3.0, 3.2, 3.5, 3.7, 3.9, 4.1, 4.3, 4.5, 4.7, 4.9)  # fmt: skip
    return Grid(
        segments=(Segment(ten_degrees, 36), Segment(twenty_degrees, 18)),
        fractions=((0, 1.0), (11, 0.0), (22, 0.0), (111, 0.0), (310, 0.7), (3122, 0.7), *_INVISIBLE),
        resolution=(
            Resolution(1.7, 0.0302, 0.5205, 1.59),
            Resolution(3.2, 0.0500, 0.706),
            Resolution(4.9, 0.09420, 1.00),
        ),
        energy_min=1.0,
        significance_min=2.0,
    )


@dataclass(frozen=True)
class Card:
    """Every parameter of the detector; the defaults are Delphes' ATLAS card.

    Attributes
    ----------
    radius, half_length : float
        Cylinder filled by the field, m; the calorimeter begins at its surface.
    bz : float
        Field along z, T.
    ecal, hcal : Grid
    muons : MuonTracks or None
        None leaves muons out of the towers.
    smear_tower_centre : bool
        Place a tower at random inside its cell instead of at the centre.
    """

    radius: float = 1.15
    half_length: float = 3.51
    bz: float = 2.0
    ecal: Grid = field(default_factory=_atlas_ecal)
    hcal: Grid = field(default_factory=_atlas_hcal)
    muons: MuonTracks | None = field(default_factory=MuonTracks)
    smear_tower_centre: bool = True


ATLAS = Card()
"""The default detector."""


_TABLE_SIZE = 10_000
"""PDG codes below this are looked up; the few above (nuclei, sparticles) are worked out one by one."""

_QUARK_CHARGE = (0, -1, 2, -1, 2, -1, 2)  # times 3; index = flavour code

_SPECIAL_CHARGE = {11: -3, 13: -3, 15: -3, 24: 3, 34: 3, 37: 3, 1000024: 3, 1000037: 3} | dict.fromkeys(
    (1000011, 1000013, 1000015, 2000011, 2000013, 2000015), -3
)  # times 3


def charge_from_pid(code: int) -> float:
    """Electric charge of a positive PDG code, in units of e; NaN for a code that says nothing about it.

    Hadron codes spell out the valence quarks: ``n_q1 n_q2 n_q3 n_J``; a meson's heavier quark comes first and
    counts as the particle if up-type, as the antiparticle if down-type. Nuclei are ``10LZZZAAAI``.

    References
    ----------
    Particle Data Group, Monte Carlo particle numbering scheme.
    """
    if code in _SPECIAL_CHARGE:
        return _SPECIAL_CHARGE[code] / 3
    if 1 <= code <= 6:
        return _QUARK_CHARGE[code] / 3
    if code < 100 or 1_000_000 <= code < 3_000_000:  # bosons, neutrinos, neutral sparticles
        return 0.0
    if code >= 1_000_000_000:
        return float(code // 10_000 % 1000)
    if code >= 1_000_000:
        return math.nan
    q1, q2, q3 = code // 1000 % 10, code // 100 % 10, code // 10 % 10
    if max(q1, q2, q3) > 6 or q3 == 0:
        return 0.0 if code in (110, 990) else math.nan  # reggeon and pomeron
    if q1:
        return (_QUARK_CHARGE[q1] + _QUARK_CHARGE[q2] + _QUARK_CHARGE[q3]) / 3
    difference = _QUARK_CHARGE[q2] - _QUARK_CHARGE[q3]
    return (difference if q2 % 2 == 0 else -difference) / 3


class Calorimeter:
    """The parametrised detector.

    Parameters
    ----------
    card : Card
        All its parameters.
    """

    def __init__(self, card: Card = ATLAS) -> None:
        self.card = card
        codes = range(_TABLE_SIZE)
        self._charge = np.array([charge_from_pid(code) for code in codes])
        self._ecal = _GridResponse(card.ecal, card.smear_tower_centre)
        self._hcal = _GridResponse(card.hcal, card.smear_tower_centre)
        self._visible = np.array([self._is_visible(code) for code in codes])
        # A particle from the origin reaches the surface at |eta| >= that of its momentum (a bent track's
        # chord is shorter than its path), so what starts outside both grids stays outside: cut before the
        # costly part.
        self._sinh_eta_max = math.sinh(max(abs(self._ecal.eta_edges).max(), abs(self._hcal.eta_edges).max()) + 0.01)

    def _is_visible(self, code: int) -> bool:
        if math.isnan(charge_from_pid(code)):
            return False
        deposits = self._ecal.fraction_of(code) > 0 or self._hcal.fraction_of(code) > 0
        return deposits or (code == 13 and self.card.muons is not None)

    def simulate(self, particles: Particles, rng: np.random.Generator) -> Towers:
        """Towers of a batch of events.

        Parameters
        ----------
        particles : Particles
            Stable particles, GeV and mm.
        rng : numpy.random.Generator
            Source of every random draw; the number of draws depends on the particles.

        Returns
        -------
        Towers
            ECAL towers, then HCAL towers, then muons, each ordered by event.
        """
        code = np.abs(particles.pid)
        high = np.flatnonzero(code >= _TABLE_SIZE)
        low_code = np.where(code < _TABLE_SIZE, code, 0) if high.size else code
        visible = self._visible[low_code]
        charge = self._charge[low_code]
        for i in high:  # sparticles or nuclei that live long enough to be final: rare
            visible[i] = self._is_visible(int(code[i]))
            charge[i] = charge_from_pid(int(code[i]))

        (px, py, pz, e), (x, y, z) = particles.momentum, particles.vertex
        pt2 = px * px + py * py
        radius2 = x**2 + y**2
        limit = self._sinh_eta_max**2
        inside = (pz * pz <= limit * pt2) | (radius2 + z**2 > 1e-4)  # 1e-4 mm^2: 10 micrometres
        card = self.card
        keep = np.flatnonzero(
            visible
            & inside
            & (pt2 >= 1e-9)  # Delphes drops what has no transverse momentum
            & (radius2 <= (1e3 * card.radius) ** 2)
            & (np.abs(z) <= 1e3 * card.half_length)
        )
        event, code = particles.event[keep], code[keep]
        px, py, pz, e = px[keep], py[keep], pz[keep], e[keep]
        x, y, z = (1e-3 * x[keep], 1e-3 * y[keep], 1e-3 * z[keep])
        charge = charge[keep] * np.sign(particles.pid[keep])

        x, y, z = propagate(charge, (px, py, pz), (x, y, z), card.radius, card.half_length, card.bz)
        eta = np.arcsinh(z / np.sqrt(x * x + y * y))  # of the position, seen from the origin
        phi = np.arctan2(y, x)

        towers = [
            self._ecal.towers(event, code, eta, phi, e, rng),
            self._hcal.towers(event, code, eta, phi, e, rng),
        ]
        if card.muons is not None:
            muon = np.flatnonzero(code == 13)
            momenta = (px[muon], py[muon], pz[muon], e[muon])
            towers.append(_muon_towers(card.muons, event[muon], momenta, eta[muon], rng))
        event, eta, phi, energy = (np.concatenate(column) for column in zip(*towers))
        return Towers(event, eta, phi, energy)


def propagate(
    charge: Floats,
    momentum: tuple[Floats, Floats, Floats],
    start: tuple[Floats, Floats, Floats],
    radius: float,
    half_length: float,
    bz: float,
) -> tuple[Floats, Floats, Floats]:
    """Where particles leave a cylinder filled with a field along its axis.

    Neutral particles fly straight. Charged ones follow a helix; they leave through the side, or, if they curl
    up inside, through an end.

    Parameters
    ----------
    charge : (M,) float, units of e.
    momentum : px, py, pz, (M,) float each, GeV, with non-zero transverse part.
    start : x, y, z, (M,) float each, inside the cylinder, m.
    radius, half_length : float, m.
    bz : float, T.

    Returns
    -------
    x, y, z : (M,) float, m. NaN for a curling particle with no longitudinal momentum, which never leaves.
    """
    bends = charge * bz != 0
    straight, helix = np.flatnonzero(~bends), np.flatnonzero(bends)
    turning = 1.0 / (SPEED_OF_LIGHT * charge[helix] * bz)
    x_out, y_out, z_out = (np.empty_like(component) for component in momentum)
    with np.errstate(divide="ignore", invalid="ignore"):  # particles without longitudinal momentum
        x_out[straight], y_out[straight], z_out[straight] = _fly_straight(
            [column[straight] for column in (*momentum, *start)], radius, half_length
        )
        x_out[helix], y_out[helix], z_out[helix] = _fly_helix(
            turning, [column[helix] for column in (*momentum, *start)], radius, half_length
        )
    return x_out, y_out, z_out


def _fly_straight(start: list[Floats], radius: float, half_length: float) -> tuple[Floats, Floats, Floats]:
    px, py, pz, x, y, z = start
    pt2 = px * px + py * py
    along = px * x + py * y
    across = px * y - py * x
    # Time to the side, in m/GeV: the positive root of |x_T + p_T t|^2 = R^2.
    time = (np.sqrt(pt2 * radius**2 - across * across) - along) / pt2
    to_end = (np.copysign(half_length, pz) - z) / pz
    time = np.where(np.abs(z + pz * time) > half_length, to_end, time)
    return x + px * time, y + py * time, z + pz * time


def _fly_helix(
    turning: Floats, start: list[Floats], radius: float, half_length: float
) -> tuple[Floats, Floats, Floats]:
    """Helix; `turning` is the radius of curvature per transverse momentum, m/GeV, with the sign of charge *
    bz.
    """
    px, py, pz, x, y, z = start
    # Centre of the circle: a positive particle in a field along +z turns clockwise about it.
    xc, yc = x + turning * py, y - turning * px
    r, c = np.abs(turning) * np.sqrt(px * px + py * py), np.sqrt(xc * xc + yc * yc)
    leaves_side = r + c >= radius
    # Turning angles seen from the centre, counted from the point nearest the axis: `side` where the circle
    # crosses the cylinder on the way out, `passed` where the particle is now (0 for one from the origin).
    # Law of cosines in half-angle form, which keeps its precision for stiff tracks.
    half2 = (radius - (c - r)) * (radius + (c - r)) / (4 * r * c)
    side = 2 * np.arcsin(np.sqrt(np.clip(half2, 0.0, 1.0)))
    dx, dy = x - xc, y - yc
    passed = np.sign(turning) * np.arctan2(y * xc - x * yc, -(dx * xc + dy * yc))
    z_per_turn = pz * np.abs(turning)  # m per radian
    turn = np.where(leaves_side, side - passed, np.inf)
    to_end = (np.copysign(half_length, pz) - z) / z_per_turn
    turn = np.minimum(turn, to_end)
    angle = -np.sign(turning) * turn
    cos, sin = np.cos(angle), np.sin(angle)
    return xc + dx * cos - dy * sin, yc + dx * sin + dy * cos, z + z_per_turn * turn


class _GridResponse:
    """A grid of towers with its look-up tables."""

    def __init__(self, grid: Grid, smear_centre: bool) -> None:
        self.grid = grid
        self.smear_centre = smear_centre
        self.eta_edges = grid.eta_edges
        # Rows are found through a fine uniform grid: `_row_hint` is the row of the lower end of each of its
        # bins, and no bin holds more than one edge. A binary search takes three times as long.
        self._low = float(self.eta_edges[0])
        self._per_eta = 2.0 / float(np.diff(self.eta_edges).min())
        hints = np.arange(int((self.eta_edges[-1] - self._low) * self._per_eta) + 2)
        self._row_hint = np.searchsorted(self.eta_edges, self._low + hints / self._per_eta, side="left")
        self._phi_bins = grid.phi_bins
        self._stride = int(self._phi_bins.max())
        self._fractions = dict(grid.fractions)
        self._fraction = np.array([self.fraction_of(code) for code in range(_TABLE_SIZE)])
        centre = np.abs(0.5 * (self.eta_edges[1:] + self.eta_edges[:-1]))
        terms = np.zeros((3, len(self.eta_edges)))
        for resolution in reversed(grid.resolution):
            inside = np.append(False, centre <= resolution.eta_max)
            terms[:, inside] = [[resolution.constant**2], [resolution.stochastic**2], [resolution.noise**2]]
        self._constant2, self._stochastic2, self._noise2 = terms

    def fraction_of(self, code: int) -> float:
        return self._fractions.get(code, self._fractions[0])

    def _rows(self, hit: NDArray[np.int64], eta: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hits inside the grid, and the row of each: row r spans (edge r-1, edge r]."""
        inside = (eta > self._low) & (eta <= self.eta_edges[-1])  # false for NaN
        hit, eta = hit[inside], eta[inside]
        row = self._row_hint[((eta - self._low) * self._per_eta).astype(np.int64)]
        row += eta > self.eta_edges[row]
        return hit, row

    def _variance(self, row: NDArray[np.int64], energy: Floats) -> Floats:
        """sigma^2 in GeV^2 at an energy, by row of towers."""
        return (self._constant2[row] * energy + self._stochastic2[row]) * energy + self._noise2[row]

    def towers(
        self,
        event: NDArray[np.int64],
        code: NDArray[np.integer[Any]],
        eta: Floats,
        phi: Floats,
        energy: Floats,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
        """Event, eta, phi and energy of the towers made by particles that hit the surface at (eta, phi)."""
        fraction = self._fraction[np.where(code < _TABLE_SIZE, code, 0)]
        for i in np.flatnonzero(code >= _TABLE_SIZE):
            fraction[i] = self.fraction_of(int(code[i]))
        hit = np.flatnonzero(fraction > 0)
        hit, row = self._rows(hit, eta[hit])
        bins = self._phi_bins[row]
        column = np.minimum(((phi[hit] + np.pi) * (bins / (2 * np.pi))).astype(np.int64), bins - 1)
        cell = (event[hit] * len(self.eta_edges) + row) * self._stride + column

        # Sum by cell. Sorting cell and position packed into one integer is several times faster than an
        # argsort, and keeps the order of the sums, hence their last bit, fixed.
        shift = max(int(hit.size).bit_length(), 1)
        packed = np.sort((cell << shift) | np.arange(hit.size))
        cell = packed >> shift
        order = packed & ((1 << shift) - 1)
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        deposit = (energy[hit] * fraction[hit])[order]
        deposit = np.add.reduceat(deposit, first) if first.size else deposit
        cell = cell[first]
        row = cell // self._stride % len(self.eta_edges)

        smeared = log_normal(deposit, self._variance(row, deposit), rng)
        minimum = self.grid.significance_min
        keep = (smeared >= self.grid.energy_min) & (smeared**2 >= minimum**2 * self._variance(row, smeared))
        cell, row, smeared = cell[keep], row[keep], smeared[keep]
        width = 2 * np.pi / self._phi_bins[row]
        if self.smear_centre:
            in_eta, in_phi = rng.random((2, row.size))
        else:
            in_eta = in_phi = np.full(row.size, 0.5)
        low, high = self.eta_edges[row - 1], self.eta_edges[row]
        eta_out = low + in_eta * (high - low)
        phi_out = -np.pi + (cell % self._stride + in_phi) * width
        return cell // (self._stride * len(self.eta_edges)), eta_out, phi_out, smeared


def log_normal(mean: Floats, variance: Floats, rng: np.random.Generator) -> Floats:
    """Draw from log-normal distributions with the given means and variances (the mean is kept exactly).

    With b^2 = ln(1 + variance / mean^2), exp(ln mean - b^2 / 2 + b N(0, 1)) has that mean and variance.
    A mean of 0 gives 0.
    """
    positive = mean > 0
    safe = np.where(positive, mean, 1.0)
    b2 = np.log1p(variance / (safe * safe))
    values = safe * np.exp(np.sqrt(b2) * rng.standard_normal(mean.shape) - 0.5 * b2)
    return np.where(positive, values, 0.0)


def _muon_towers(
    muons: MuonTracks,
    event: NDArray[np.int64],
    momenta: tuple[Floats, Floats, Floats, Floats],
    position_eta: Floats,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Reconstructed muons: efficiency and resolution depend on where the muon leaves the tracker."""
    px, py, pz, e = momenta
    pt = np.hypot(px, py)
    abs_eta = np.abs(position_eta)
    efficiency = np.zeros_like(pt)
    for eta_max, low, high in reversed(muons.efficiency):
        efficiency = np.where(abs_eta <= eta_max, np.where(pt > muons.pt_plateau, high, low), efficiency)
    efficiency[pt <= muons.pt_min] = 0.0
    detected = rng.random(pt.size) < efficiency
    sigma = np.zeros_like(pt)
    for eta_max, constant, slope in reversed(muons.resolution):
        sigma = np.where(abs_eta <= eta_max, np.sqrt(constant**2 + (slope * pt) ** 2), sigma)
    smeared = log_normal(pt, (np.minimum(sigma, 1.0) * pt) ** 2, rng)
    scale2 = (smeared / np.where(pt > 0, pt, 1.0)) ** 2
    p2 = pt * pt + pz * pz
    mass2 = np.maximum(e * e - p2, 0.0)
    energy = np.sqrt(scale2 * p2 + mass2)  # direction and mass are kept
    eta = np.arcsinh(pz / np.where(pt > 0, pt, 1.0))
    return event[detected], eta[detected], np.arctan2(py, px)[detected], energy[detected]
