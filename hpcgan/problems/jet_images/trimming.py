"""The leading jet of an event, trimmed: without the soft parts that are no decay product's.

A jet is the hardest anti-kt jet with R = 1.0. Its cells are clustered again with kt and R = 0.3; subjets with less than
5% of the jet's pT are dropped, and the trimmed jet is the sum of the others.

References
----------
Krohn, Thaler, Wang, jet trimming: arXiv:0912.1342; de Oliveira, Paganini, Nachman: arXiv:1701.05927.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgan.physics import jets

SUBJET_RADIUS = 0.3
PT_FRACTION = 0.05
"""Of the jet's pT before trimming."""

MAX_TAU = 3
TAU_AXES = "OnePass_WTA_KT_Axes"
"""Winner-take-all kt axes, then one pass of minimisation, as in the published data."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrimmedJets:
    """Trimmed jets of a batch of events, in their order.

    Attributes
    ----------
    momentum : (J, 4) float64, px, py, pz, E in GeV.
    axis : (J, 2) float64, eta and phi of the hardest subjet.
    second : (J, 2) float64, eta and phi of the second subjet from `axis`; NaN where there is none.
    cells : jets.Particles
        Constituents, as an image each.
    """

    momentum: Floats
    axis: Floats
    second: Floats
    cells: jets.Particles

    def __len__(self) -> int:
        return len(self.momentum)

    @property
    def pt(self) -> Floats:
        """(J,) GeV."""
        pt: Floats = np.hypot(self.momentum[:, 0], self.momentum[:, 1])
        return pt

    @property
    def eta(self) -> Floats:
        """(J,)"""
        return _direction(self.momentum)[:, 0]

    @property
    def phi(self) -> Floats:
        """(J,) from -pi to pi."""
        return _direction(self.momentum)[:, 1]

    @property
    def mass(self) -> Floats:
        """(J,) GeV."""
        squared = self.momentum[:, 3] ** 2 - (self.momentum[:, :3] ** 2).sum(axis=1)
        mass: Floats = np.sqrt(np.maximum(squared, 0.0))
        return mass

    @property
    def delta_r(self) -> Floats:
        """(J,) distance of the two hardest subjets, 0 where there is one."""
        return np.nan_to_num(np.hypot(self.second[:, 0], self.second[:, 1]))

    def tau(self) -> Floats:
        """(J, 3) N-subjettiness with N = 1, 2, 3 axes, beta = 1 and R = 1.0 (FastJet contrib).

        0 where a jet has no more cells than axes.
        """
        if not len(self):
            return np.zeros((0, MAX_TAU))
        tau = jets.cluster_sequence(self.cells).njettiness(
            measure_definition="NormalizedMeasure",
            axes_definition=TAU_AXES,
            njets=list(range(1, MAX_TAU + 1)),
            beta=1.0,
            R0=jets.JET_RADIUS,
        )
        return np.asarray(tau, np.float64).reshape(-1, MAX_TAU)

    def take(self, which: NDArray[np.bool_]) -> TrimmedJets:
        """Some of the jets."""
        numbers = np.flatnonzero(which)
        of_jets = which[np.repeat(np.arange(len(self)), self.cells.sizes)]
        cells = self.cells.take(np.arange(len(numbers)), self.cells.sizes[numbers], np.flatnonzero(of_jets))
        return TrimmedJets(self.momentum[numbers], self.axis[numbers], self.second[numbers], cells)


def leading_jets(cells: jets.Particles, pt_min_gev: float) -> TrimmedJets:
    """Trim the leading jets of events.

    Parameters
    ----------
    cells : hpcgan.physics.jets.Particles
        Of a batch of events.
    pt_min_gev : float
        Events whose leading jet has less before trimming, which takes pT away, are left out; GeV.

    Raises
    ------
    HpcganError
        FastJet is not installed.
    """
    if not cells.images.size:
        return _no_jets()
    sequence = jets.cluster_sequence(cells)
    (px, py, _, _), jets_in = jets.inclusive_jets(sequence, pt_min_gev)
    owner = np.repeat(np.arange(len(jets_in)), jets_in)
    events, leading = _hardest(np.hypot(px, py), owner)
    if not events.size:
        return _no_jets()
    starts = np.cumsum(cells.sizes) - cells.sizes
    sizes, which = _numbers_of(sequence, pt_min_gev, leading)
    which += np.repeat(starts[events], sizes)
    return trim(cells.take(np.arange(len(events)), sizes, which))


def trim(jets_in: jets.Particles) -> TrimmedJets:
    """Trim jets.

    Parameters
    ----------
    jets_in : hpcgan.physics.jets.Particles
        Constituents of each jet, as an image each; at least one jet. A jet that is left without a subjet is left out.
    """
    import awkward
    import fastjet

    columns = {"px": jets_in.px, "py": jets_in.py, "pz": jets_in.pz, "E": jets_in.e}
    of_jets = awkward.unflatten(awkward.zip(columns), jets_in.sizes)
    sequence = fastjet.ClusterSequence(of_jets, fastjet.JetDefinition(fastjet.kt_algorithm, SUBJET_RADIUS))
    columns_of_subjets, subjets_in = jets.inclusive_jets(sequence, 0.0)
    subjets = np.stack(columns_of_subjets, axis=1)
    owner = np.repeat(np.arange(len(subjets_in)), subjets_in)
    pt = np.hypot(subjets[:, 0], subjets[:, 1])
    whole = _sums(subjets, owner, len(subjets_in))
    hard = np.flatnonzero(pt >= PT_FRACTION * np.hypot(whole[:, 0], whole[:, 1])[owner])
    starts = np.cumsum(jets_in.sizes) - jets_in.sizes
    sizes, which = _numbers_of(sequence, 0.0, hard)
    which += np.repeat(starts[owner[hard]], sizes)
    numbers, hardest = _hardest(pt[hard], owner[hard])
    jet = np.searchsorted(numbers, owner[hard])
    sizes_of_jets = np.bincount(jet, weights=sizes, minlength=len(numbers)).astype(np.int64)
    axis = _direction(subjets[hard[hardest]])
    return TrimmedJets(
        _sums(subjets[hard], jet, len(numbers)),
        axis,
        _second(subjets[hard], jet, hardest, axis),
        jets_in.take(np.arange(len(numbers)), sizes_of_jets, which),
    )


def _no_jets() -> TrimmedJets:
    nothing = np.zeros(0)
    none = np.zeros(0, np.int64)
    cells = jets.Particles(none, none, nothing, nothing, nothing, nothing)
    return TrimmedJets(np.zeros((0, 4)), np.zeros((0, 2)), np.zeros((0, 2)), cells)


def _hardest(pt: Floats, owner: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Owners that have something, and the number of the hardest of what each has."""
    order = np.lexsort((-pt, owner))
    owners, first = np.unique(owner[order], return_index=True)
    return owners, order[first]


def _numbers_of(sequence: Any, pt_min_gev: float, chosen: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """How many constituents jets of a clustering have, and their numbers in the event, jet after jet."""
    import awkward

    of_chosen = awkward.flatten(sequence.constituent_index(pt_min_gev))[chosen]
    return awkward.to_numpy(awkward.num(of_chosen)), np.array(awkward.flatten(of_chosen), np.int64)


def _sums(momenta: Floats, owner: NDArray[np.int64], n: int) -> Floats:
    """(n, 4) sums of momenta (S, 4) by their owner."""
    return np.stack([np.bincount(owner, weights=column, minlength=n) for column in momenta.T], axis=1)


def _direction(momenta: Floats) -> Floats:
    """(n, 2) eta and phi of momenta (n, 4)."""
    px, py, pz, _ = momenta.T
    return np.stack([np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px)], axis=1)


def _second(momenta: Floats, jet: NDArray[np.int64], hardest: NDArray[np.int64], axis: Floats) -> Floats:
    """(J, 2) eta and phi of the second subjet from the axis, by subjets (S, 4) and their jets (S,)."""
    others = np.ones(len(momenta), bool)
    others[hardest] = False
    rest = np.flatnonzero(others)
    owners, second = _hardest(np.hypot(momenta[rest, 0], momenta[rest, 1]), jet[rest])
    from_axis = np.full(axis.shape, np.nan)
    from_axis[owners] = _direction(momenta[rest[second]]) - axis[owners]
    from_axis[:, 1] = around(from_axis[:, 1])
    return from_axis


def around(angle: Floats) -> Floats:
    """Angles (n,) as those from -pi to pi."""
    return np.mod(angle + np.pi, 2 * np.pi) - np.pi
