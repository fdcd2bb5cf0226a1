"""What is simulated for either class, by PYTHIA at 14 TeV: W' -> W Z with a W that becomes a jet, and QCD dijets."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgan.physics import pythia
from hpcgan.problems.jet_images import veto

ECM_GEV = 14000.0
"""Centre-of-mass energy of the proton-proton collisions, GeV."""

WPRIME_MASS_GEV = 600.0
"""W and Z from its decay at rest have 287 GeV: the peak of the W's pT lies in the window of the selection."""

PT_HAT_GEV = (140.0, 500.0)
"""Of the hard scattering of dijets; docs/jets.md has the share of jets that this leaves out."""

BATCH_EVENTS = 100
"""Events of PYTHIA in memory at a time."""


@dataclass(frozen=True)
class WprimeProcess(pythia.Process):
    """W' -> W Z with W -> q q' and Z -> neutrinos: the leading jet is mostly the W's.

    Parameters
    ----------
    mass : float
        Of the W', GeV.
    """

    name = "wprime"
    label = 1
    mass: float = WPRIME_MASS_GEV

    def settings(self) -> list[str]:
        return [
            f"Beams:eCM = {ECM_GEV!r}",
            "NewGaugeBoson:ffbar2Wprime = on",
            "Wprime:coup2WZ = 1.",
            f"34:m0 = {self.mass!r}",
            "34:onMode = off",
            "34:onIfMatch = 23 24",
            "24:onMode = off",
            "24:onIfAny = 1 2 3 4 5",
            "23:onMode = off",
            "23:onIfAny = 12 14 16",
        ]


@dataclass(frozen=True)
class DijetProcess(pythia.Process):
    """Hard QCD 2 -> 2 scattering in a window of the transverse momentum.

    Parameters
    ----------
    pt_hat_min, pt_hat_max : float
        Of the hard scattering, GeV.
    """

    name = "dijets"
    pt_hat_min: float = PT_HAT_GEV[0]
    pt_hat_max: float = PT_HAT_GEV[1]

    def settings(self) -> list[str]:
        return [
            f"Beams:eCM = {ECM_GEV!r}",
            "HardQCD:all = on",
            f"PhaseSpace:pTHatMin = {self.pt_hat_min!r}",
            f"PhaseSpace:pTHatMax = {self.pt_hat_max!r}",
        ]


SIGNAL = WprimeProcess()
BACKGROUND = DijetProcess()


@dataclass(frozen=True)
class _TablesProcess(DijetProcess):
    """Saves its integrals for multiple parton interactions, which depend on the beams alone."""

    path: str = ""

    def settings(self) -> list[str]:
        return [
            *super().settings(),
            "MultipartonInteractions:reuseInit = 1",
            f"MultipartonInteractions:initFile = {self.path}",
        ]


def tables(seed: int) -> str:
    """PYTHIA's integrals for multiple parton interactions at 14 TeV, which all blocks share; as text.

    Parameters
    ----------
    seed : int
        Of the data set.

    Raises
    ------
    HpcganError
        PYTHIA is not installed or does not initialise.
    """
    with tempfile.TemporaryDirectory(prefix="hpcgan-pythia-") as folder:
        path = Path(folder) / "tables"
        pythia.initialise(_TablesProcess(path=str(path)), pythia_seed(seed, "tables"))
        return path.read_text(encoding="ascii")


def pythia_seed(*name: Any) -> int:
    """A seed for PYTHIA from a hash of everything that names what is generated, as plain values."""
    digest = hashlib.sha256(json.dumps(name, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:16], "little") % pythia.SEED_MAX + 1


@dataclass(frozen=True)
class Batch:
    """Events of a process, and how many PYTHIA has begun for them: more, where those without a chance are stopped."""

    particles: pythia.Particles
    begun: int


def events(process: pythia.Process, seed: int, integrals: str) -> Iterator[Batch]:
    """Events of a process without end, `BATCH_EVENTS` at a time; of dijets only those that may have a jet that passes.

    Parameters
    ----------
    process : hpcgan.physics.pythia.Process
    seed : int
    integrals : str
        Those of :func:`tables`.
    """
    hooks = veto.hooks() if isinstance(process, DijetProcess) else None
    before = 0
    for particles in pythia.events(process, seed, 1 << 62, BATCH_EVENTS, integrals, hooks):
        begun = particles.n_events if hooks is None else hooks.events - before
        before += begun
        yield Batch(particles, begun)
