"""Collisions in which no jet can pass are stopped before most of PYTHIA's work on them.

Most of the time of a dijet event goes into multiple parton interactions at a few GeV, and one event of a hundred has a
jet that passes. So PYTHIA is asked to stop when its evolution has come down to :data:`SCALE_GEV`, and the partons of
this moment are clustered and trimmed as an event's cells are. An event goes on if one of its jets is in the windows of
the selection with wide margins: what comes after moves a jet by some GeV. docs/jets.md has how many jets are lost.

Not for decays of resonances: their partons come when the evolution of the rest is over.

References
----------
User hooks (`canVetoPT`) and `SlowJet`: PYTHIA 8.3 manual, arXiv:2203.11601.
"""

from __future__ import annotations

from typing import Any

from hpcgan.physics.jets import JET_RADIUS
from hpcgan.problems.jet_images import trimming, windows

SCALE_GEV = 3.0
"""Transverse momentum of the evolution at which an event is looked at."""

PT_MARGINS_GEV = (45.0, 60.0)
MASS_MARGINS_GEV = (35.0, 60.0)
"""Below and above the windows of the selection."""

JETS = 3
"""The hardest so many jets of an event are looked at: any of them may be the leading one in the end."""


def hooks() -> Any:
    """User hooks for :func:`hpcgan.physics.pythia.events`; they count the events that were begun in `events`."""
    import pythia8mc

    pt_min, pt_max = windows.PT_GEV[0] - PT_MARGINS_GEV[0], windows.PT_GEV[1] + PT_MARGINS_GEV[1]
    mass_min, mass_max = windows.MASS_GEV[0] - MASS_MARGINS_GEV[0], windows.MASS_GEV[1] + MASS_MARGINS_GEV[1]
    every_eta, visible, true_masses = 25.0, 2, 2

    class Veto(pythia8mc.UserHooks):
        """Stops an event without a jet near the windows."""

        def __init__(self) -> None:
            super().__init__()
            self.events = 0
            self._jets = pythia8mc.SlowJet(-1, JET_RADIUS, pt_min, every_eta, visible, true_masses)
            self._subjets = pythia8mc.SlowJet(1, trimming.SUBJET_RADIUS, 0.0, every_eta, visible, true_masses)
            self._of_jet = pythia8mc.Event()

        def canVetoPT(self) -> bool:
            return True

        def scaleVetoPT(self) -> float:
            return SCALE_GEV

        def doVetoPT(self, _place: int, event: Any) -> bool:
            self.events += 1
            self._jets.analyze(event)
            return not any(self._near(event, jet) for jet in range(min(self._jets.sizeJet(), JETS)))

        def _near(self, event: Any, jet: int) -> bool:
            """Whether a jet is near the windows once it is trimmed."""
            if self._jets.m(jet) < mass_min:  # trimming takes mass away
                return False
            self._of_jet.clear()
            for parton in self._jets.constituents(jet):
                self._of_jet.append(event[parton])
            self._subjets.analyze(self._of_jet)
            least, trimmed = trimming.PT_FRACTION * self._jets.pT(jet), pythia8mc.Vec4()
            for subjet in range(self._subjets.sizeJet()):
                if self._subjets.pT(subjet) >= least:
                    trimmed = trimmed + self._subjets.p(subjet)
            return bool(trimmed.pT() < pt_max and mass_min < trimmed.mCalc() < mass_max)

    return Veto()
