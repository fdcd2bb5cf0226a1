"""The leading jet of an image and whether it has two prongs, by N-subjettiness (FastJet contrib).

For a jet with constituents i and N axes, with beta = 1,

    tau_N = sum_i pT_i min_k dR_ik / (R sum_i pT_i),

where the axes are the N exclusive kt subjets of the jet and R = 1.0 is the jets' radius. tau_21 = tau_2 / tau_1 is near
1 for energy that is spread about one axis, and near 0 for energy that is in two places.

References
----------
Thaler, Van Tilburg, N-subjettiness: arXiv:1011.2268.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgan.physics import jets


@dataclass(frozen=True)
class LeadingJets:
    """The hardest jet of each image that has one.

    Attributes
    ----------
    counts : (N,) int64, 1 where the image has a jet, 0 where it has none.
    pt : (J,) float64, GeV.
    tau21 : (J,) float64, 0 for a jet of one or two pixels.
    """

    counts: NDArray[np.int64]
    pt: NDArray[np.float64]
    tau21: NDArray[np.float64]


def leading_jets(images: NDArray[Any], pt_min_gev: float = jets.JET_PT_MIN_GEV) -> LeadingJets:
    """Find the leading jets of images and their shapes.

    Parameters
    ----------
    images : (N, 64, 64) float
        Energy in MeV, axes [eta, phi]. N may be 0.
    pt_min_gev : float
        Jets below are none, GeV; otherwise jets are those of `hpcgan.physics.jets.cluster`.

    Raises
    ------
    InputError
        Images with values that are not finite.
    HpcganError
        FastJet is not installed.
    """
    starts = range(0, len(images), jets.CHUNK_IMAGES)
    parts = [_of_chunk(images[start : start + jets.CHUNK_IMAGES], pt_min_gev) for start in starts]
    if not parts:
        parts = [LeadingJets(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))]
    return LeadingJets(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "pt", "tau21")))


def _of_chunk(images: NDArray[Any], pt_min_gev: float) -> LeadingJets:
    particles = jets.particles_of(images)
    counts = np.zeros(len(images), np.int64)
    if not particles.images.size:
        return LeadingJets(counts, np.zeros(0), np.zeros(0))
    sequence = jets.cluster_sequence(particles)
    (px, py, pz, _), jets_in = jets.inclusive_jets(sequence, pt_min_gev)
    owner = np.repeat(np.arange(len(jets_in)), jets_in)
    good = jets.accepted(px, py, pz, owner, pt_min_gev)
    owners, first = np.unique(owner[good], return_index=True)
    leading = good[first]
    counts[particles.images[owners]] = 1
    return LeadingJets(
        counts, np.hypot(px, py)[leading], tau21(_constituents(sequence, particles, leading, pt_min_gev))
    )


def _constituents(
    sequence: Any, particles: jets.Particles, chosen: NDArray[np.int64], pt_min_gev: float
) -> jets.Particles:
    """The constituents of jets, as an image each; `chosen` are ascending numbers of the jets above the pT."""
    import awkward

    of_jets = sequence.constituent_index(pt_min_gev)  # of each event, of each of its jets
    starts = np.cumsum(particles.sizes) - particles.sizes
    first = np.repeat(starts, awkward.to_numpy(awkward.num(of_jets)))
    chosen_jets = awkward.flatten(of_jets)[chosen]
    sizes = awkward.to_numpy(awkward.num(chosen_jets))
    which = awkward.to_numpy(awkward.flatten(chosen_jets)) + np.repeat(first[chosen], sizes)
    return particles.take(np.arange(len(chosen)), sizes, which)


def tau21(constituents: jets.Particles) -> NDArray[np.float64]:
    """tau_2 / tau_1 of jets, each an image of its constituents; 0 where tau_1 is 0, for a jet of one pixel."""
    if not constituents.images.size:
        return np.zeros(0)
    tau = jets.cluster_sequence(constituents).njettiness(
        measure_definition="NormalizedMeasure", axes_definition="KT_Axes", njets=[1, 2], beta=1.0, R0=jets.JET_RADIUS
    )
    tau1, tau2 = np.asarray(tau, np.float64).reshape(-1, 2).T
    return np.divide(tau2, tau1, out=np.zeros_like(tau1), where=tau1 > 0)
