"""The calorimeter of jet images: cells of 0.1 x 0.1 that add up the energy of all visible particles."""

from __future__ import annotations

import numpy as np

from hpcgan.physics import jets, pythia

ETA_MAX = 5.0
N_ETA = 100
N_PHI = 63
"""2 pi / 63 = 0.0997: cells of nearly 0.1 that go around without a seam."""

NEUTRINOS = (12, 14, 16)

_ETA_WIDTH = 2 * ETA_MAX / N_ETA
_PHI_WIDTH = 2 * np.pi / N_PHI
_ETA = -ETA_MAX + (np.arange(N_ETA) + 0.5) * _ETA_WIDTH
_PHI = -np.pi + (np.arange(N_PHI) + 0.5) * _PHI_WIDTH


def hit_cells(particles: pythia.Particles) -> jets.Particles:
    """Cells with energy, as massless particles at their centres.

    Parameters
    ----------
    particles : hpcgan.physics.pythia.Particles
        Stable particles of a batch of events. Neutrinos are not seen, nor is what has |eta| > 5.

    Returns
    -------
    hpcgan.physics.jets.Particles
        Its `images` are the numbers of the events that have hit cells. A cell has the energy of its particles, so its
        pT is E / cosh(eta) with the eta of its centre.
    """
    px, py, pz, energy = particles.momentum
    with np.errstate(divide="ignore", invalid="ignore"):  # a particle along the beam has no eta
        eta = np.arcsinh(pz / np.hypot(px, py))
    seen = np.flatnonzero(~np.isin(np.abs(particles.pid), NEUTRINOS) & (np.abs(eta) < ETA_MAX))
    row = np.minimum(((eta[seen] + ETA_MAX) / _ETA_WIDTH).astype(np.int64), N_ETA - 1)
    phi = np.arctan2(py[seen], px[seen])
    column = np.minimum(((phi + np.pi) / _PHI_WIDTH).astype(np.int64), N_PHI - 1)
    of_cells = np.bincount(
        (particles.event[seen] * N_ETA + row) * N_PHI + column,
        weights=energy[seen],
        minlength=particles.n_events * N_ETA * N_PHI,
    )
    hit = np.flatnonzero(of_cells > 0)
    event, cell = np.divmod(hit, N_ETA * N_PHI)
    e, eta, phi = of_cells[hit].astype(np.float64), _ETA[cell // N_PHI], _PHI[cell % N_PHI]
    pt = e / np.cosh(eta)
    sizes = np.bincount(event, minlength=particles.n_events)
    filled = np.flatnonzero(sizes)
    return jets.Particles(filled, sizes[filled], pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), e)
