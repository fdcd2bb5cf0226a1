"""Which trimmed jets become images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcgan.problems.jet_images.trimming import TrimmedJets

PT_GEV = (250.0, 300.0)
MASS_GEV = (60.0, 100.0)
ETA_MAX = 2.0
"""Of the trimmed jet."""


def passes(jets: TrimmedJets) -> NDArray[np.bool_]:
    """(J,) whether trimmed jets are in the windows of pT and mass, and not too far forward."""
    pt, mass = jets.pt, jets.mass
    in_windows = (pt > PT_GEV[0]) & (pt < PT_GEV[1]) & (mass > MASS_GEV[0]) & (mass < MASS_GEV[1])
    return np.asarray(in_windows & (np.abs(jets.eta) < ETA_MAX))
