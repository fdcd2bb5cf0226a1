"""Collision events from PYTHIA 8: processes, seeds and flat arrays of stable particles.

Three processes share one interface (:class:`Process`): the RPV gluino-pair signal, hard QCD (the background)
and minimum-bias collisions (pileup). ``pythia8mc`` is imported only when events are made, so importing this
module costs nothing where PYTHIA is not installed.

References
----------
PYTHIA 8.3 manual, arXiv:2203.11601; SUSY Les Houches Accord, hep-ph/0311123 and arXiv:0801.0045.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgan.errors import HpcganError, InputError

ECM_GEV = 13000.0
"""Centre-of-mass energy of the proton-proton collisions, GeV."""

DECOUPLED_GEV = 5000.0
"""Mass of every sparticle that takes no part, GeV."""

TAU0_MAX_MM = 10.0
"""Particles with a nominal proper lifetime c*tau above this reach the detector undecayed, mm (Delphes'
convention)."""

SEED_MAX = 900_000_000
"""The largest seed PYTHIA accepts."""

BATCH_EVENTS = 25
"""Events asked from ``Pythia.nextBatch`` at a time: the full event records of a batch are held in memory."""

# Lightest masses for which the decay kinematics below are physical: the neutralino must be able to make u d
# s, and the gluino a neutralino with two charm quarks, all with PYTHIA's quark masses (m_s = 0.5, m_c = 1.5
# GeV).
MIN_NEUTRALINO_GEV = 2.0
MIN_SPLITTING_GEV = 4.0


class Particles(NamedTuple):
    """Stable particles of a batch of events, as flat arrays of the same length M.

    Attributes
    ----------
    event : (M,) int64, index of the event within the batch, ascending.
    pid : (M,) int, PDG code.
    momentum : px, py, pz, e, each (M,) float64, GeV.
    vertex : x, y, z of the production vertex, each (M,) float64, mm.
    n_events : number of events in the batch (some may hold no particle).
    """

    event: NDArray[np.int64]
    pid: NDArray[np.integer[Any]]
    momentum: Sequence[NDArray[np.float64]]
    vertex: Sequence[NDArray[np.float64]]
    n_events: int


def write_slha(m_gluino: float, m_neutralino: float) -> str:
    """SLHA spectrum and decay tables of the RPV model.

    The gluino decays to a quark pair (u, d, s, c in equal shares) and the lightest neutralino, which decays
    through the baryon-number violating coupling lambda''_112 to u d s or the charge conjugate. Every other
    sparticle sits at :data:`DECOUPLED_GEV`. PYTHIA needs each of the blocks written here to initialise its
    SUSY couplings.

    Parameters
    ----------
    m_gluino, m_neutralino : float
        Masses in GeV.

    Returns
    -------
    str
        The text of the file. Its bytes depend on the two masses only.

    Raises
    ------
    InputError
        For masses that are not physical here (see :func:`check_masses`).
    """
    check_masses(m_gluino, m_neutralino)
    heavy = [*range(1000001, 1000007), *range(2000001, 2000007)]  # squarks, left and right
    heavy += [1000011, 1000012, 1000013, 1000014, 1000015, 1000016, 2000011, 2000013, 2000015]  # sleptons
    heavy += [1000023, 1000025, 1000035, 1000024, 1000037]  # other neutralinos and the charginos
    heavy += [35, 36, 37]  # heavy Higgs bosons
    masses = {24: 80.385, 25: 125.0, 1000021: m_gluino, 1000022: m_neutralino} | dict.fromkeys(heavy, DECOUPLED_GEV)

    lines = [
        "BLOCK SPINFO", "  1  hpcgan", "  2  1.0",
        "BLOCK MODSEL  # 4 1: R-parity violation", "  1  0", "  4  1",
        "BLOCK SMINPUTS", "  1  1.279340000e+02", "  2  1.166370000e-05", "  3  1.176000000e-01",
        "  4  9.118760000e+01", "  5  4.180000000e+00", "  6  1.731000000e+02", "  7  1.777000000e+00",
        "BLOCK MINPAR", "  3  1.000000000e+01  # tan beta",
        "BLOCK MASS",
    ]  # fmt: skip
    lines += [f"  {code}  {mass:.9e}" for code, mass in sorted(masses.items())]
    for name, size in (("NMIX", 4), ("UMIX", 2), ("VMIX", 2), ("STOPMIX", 2), ("SBOTMIX", 2), ("STAUMIX", 2)):
        lines.append(f"BLOCK {name}  # no mixing")
        lines += [f"  {i}  {j}  {float(i == j):.9e}" for i in range(1, size + 1) for j in range(1, size + 1)]
    lines += ["BLOCK ALPHA", "  -1.000000000e-01"]
    lines += [f"BLOCK HMIX Q= {DECOUPLED_GEV:.9e}", "  1  5.000000000e+03", "  2  1.000000000e+01"]
    lines += [f"BLOCK GAUGE Q= {DECOUPLED_GEV:.9e}"]
    lines += ["  1  3.600000000e-01", "  2  6.460000000e-01", "  3  1.050000000e+00"]
    # Widths of 1 GeV: prompt, and narrow against any mass resolution.
    lines.append("DECAY  1000021  1.000000000e+00")
    lines += [f"  2.500000000e-01  3  1000022  {q}  {-q}" for q in (1, 2, 3, 4)]
    lines.append("DECAY  1000022  1.000000000e+00")
    lines += ["  5.000000000e-01  3  2  1  3", "  5.000000000e-01  3  -2  -1  -3"]
    return "\n".join(lines) + "\n"


def check_masses(m_gluino: float, m_neutralino: float) -> None:
    """Refuse masses for which the model has no events.

    Raises
    ------
    InputError
        Not finite, not positive, a neutralino not lighter than the gluino, or a pair too heavy for the
        collider.
    """
    for name, value in (("m_gluino", m_gluino), ("m_neutralino", m_neutralino)):
        if not math.isfinite(value) or value <= 0:
            raise InputError(f"{name} = {value:g} GeV: a mass must be a positive number")
    if m_neutralino < MIN_NEUTRALINO_GEV:
        raise InputError(
            f"m_neutralino = {m_neutralino:g} GeV: too light to decay to u d s; use at least {MIN_NEUTRALINO_GEV:g} GeV"
        )
    if m_gluino - m_neutralino < MIN_SPLITTING_GEV:
        raise InputError(
            f"m_neutralino = {m_neutralino:g} GeV: must be at least {MIN_SPLITTING_GEV:g} GeV below "
            f"m_gluino = {m_gluino:g} GeV, or the gluino cannot decay to it"
        )
    if 2 * m_gluino >= ECM_GEV:
        raise InputError(
            f"m_gluino = {m_gluino:g} GeV: a pair of them is too heavy for "
            f"{ECM_GEV / 1000:g} TeV collisions; use less than {ECM_GEV / 2:g} GeV"
        )


@dataclass(frozen=True)
class Process(ABC):
    """A kind of collision, with its parameters.

    Attributes
    ----------
    name : str
        Short name, e.g. ``rpv``.
    label : int
        The image label ``y``: 1 signal, 0 background.
    soft : bool
        A soft process, initialised with diffraction.
    """

    name: ClassVar[str]
    label: ClassVar[int] = 0
    soft: ClassVar[bool] = False

    @abstractmethod
    def settings(self) -> list[str]:
        """PYTHIA settings beside the common ones."""

    def slha(self) -> str | None:
        """SLHA text to read, if the process needs one."""
        return None

    def describe(self) -> dict[str, Any]:
        """Name and parameters, for file attributes and for the seed."""
        return {**asdict(self), "name": self.name, "label": self.label}


@dataclass(frozen=True)
class RpvProcess(Process):
    """Gluino pairs decaying through an R-parity violating coupling.

    Parameters
    ----------
    m_gluino, m_neutralino : float
        Masses in GeV; checked when the process is made.
    """

    name = "rpv"
    label = 1
    m_gluino: float
    m_neutralino: float

    def __post_init__(self) -> None:
        check_masses(self.m_gluino, self.m_neutralino)
        for name in ("m_gluino", "m_neutralino"):  # 1400 and 1400.0 are the same process, with the same seeds
            object.__setattr__(self, name, float(getattr(self, name)))

    def settings(self) -> list[str]:
        return ["SUSY:gg2gluinogluino = on", "SUSY:qqbar2gluinogluino = on", "SLHA:useDecayTable = on"]

    def slha(self) -> str | None:
        return write_slha(self.m_gluino, self.m_neutralino)


@dataclass(frozen=True)
class QcdProcess(Process):
    """Hard QCD 2 -> 2 scattering above a transverse momentum.

    Parameters
    ----------
    pt_hat_min : float
        Smallest transverse momentum of the hard process, GeV.
    """

    name = "qcd"
    pt_hat_min: float = 400.0

    def __post_init__(self) -> None:
        # Below a few GeV the 2 -> 2 cross section diverges; at half the collision energy no phase space is
        # left.
        if not math.isfinite(self.pt_hat_min) or not 5.0 <= self.pt_hat_min <= 0.45 * ECM_GEV:
            raise InputError(f"pt_hat_min = {self.pt_hat_min:g} GeV: use a value from 5 to {0.45 * ECM_GEV:g} GeV")
        object.__setattr__(self, "pt_hat_min", float(self.pt_hat_min))

    def settings(self) -> list[str]:
        return ["HardQCD:all = on", f"PhaseSpace:pTHatMin = {self.pt_hat_min!r}"]


@dataclass(frozen=True)
class MinBiasProcess(Process):
    """Inelastic soft QCD: one pileup collision an event."""

    name = "minbias"
    soft = True

    def settings(self) -> list[str]:
        return ["SoftQCD:inelastic = on"]


COMMON_SETTINGS = (
    "Print:quiet = on",
    "SLHA:verbose = 0",
    "Beams:idA = 2212",
    "Beams:idB = 2212",
    f"Beams:eCM = {ECM_GEV!r}",
    "ParticleDecays:limitTau0 = on",
    f"ParticleDecays:tau0Max = {TAU0_MAX_MM!r}",
    "Random:setSeed = on",
)
"""Settings of every process: beams, which particles are stable, no output."""


def version() -> str:
    """Version of the installed PYTHIA, e.g. ``"8.317"``."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as package_version

    try:
        return package_version("pythia8mc")
    except PackageNotFoundError:
        return "unknown"


def initialise(process: Process, seed: int, tables: str | None = None, hooks: Any = None) -> Any:
    """A freshly initialised ``Pythia`` object.

    Parameters
    ----------
    process : Process
    seed : int
        1 to :data:`SEED_MAX`.
    tables : str, optional
        What :func:`multiparton_tables` returned, to skip that part of the work.
    hooks : pythia8mc.UserHooks, optional
        What PYTHIA asks within an event.

    Raises
    ------
    InputError
        A seed out of range.
    HpcganError
        PYTHIA is not installed or does not initialise.
    """
    with tempfile.TemporaryDirectory(prefix="hpcgan-pythia-") as folder:
        settings = list(process.settings())
        if tables is not None:
            settings += ["MultipartonInteractions:reuseInit = 2", _write_input(folder, _TABLES_FILE, tables)]
        slha = process.slha()
        if slha is not None:
            settings.append(_write_input(folder, "SLHA:file", slha))
        return _initialised(process, settings, seed, hooks)


_TABLES_FILE = "MultipartonInteractions:initFile"


def multiparton_tables(soft: bool, seed: int) -> str:
    """PYTHIA's integrals for multiple parton interactions, as the text it saves them in.

    They depend on the beams only and are the longest part of an initialisation (half of it for a hard
    process, 4 of 4.5 seconds for soft ones), so generators that run side by side share them.

    Parameters
    ----------
    soft : bool
        For soft processes, which need diffractive systems too.
    seed : int
        1 to :data:`SEED_MAX`; the integrals are Monte Carlo ones.

    Raises
    ------
    InputError
        A seed out of range.
    HpcganError
        PYTHIA is not installed or does not initialise.
    """
    # Always from the same process, so that the text does not depend on, say, the masses of a signal.
    process: Process = MinBiasProcess() if soft else QcdProcess()
    with tempfile.TemporaryDirectory(prefix="hpcgan-pythia-") as folder:
        path = os.path.join(folder, "tables")
        settings = [*process.settings(), "MultipartonInteractions:reuseInit = 1", f"{_TABLES_FILE} = {path}"]
        _initialised(process, settings, seed)
        with open(path, encoding="ascii") as stream:
            return stream.read()


def _write_input(folder: str, setting: str, text: str) -> str:
    """Write a file for PYTHIA to read; the setting that names it."""
    path = os.path.join(folder, setting.split(":")[0])
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)
    return f"{setting} = {path}"


def _initialised(process: Process, settings: list[str], seed: int, hooks: Any = None) -> Any:
    """A ``Pythia`` object with these settings, initialised."""
    if not 1 <= seed <= SEED_MAX:
        raise InputError(f"seed = {seed}: PYTHIA takes 1 to {SEED_MAX}")
    try:
        import pythia8mc
    except ImportError as error:
        raise HpcganError(f"PYTHIA cannot be imported ({error}); install it with: pip install pythia8mc") from error
    # The second argument switches the banner off. The XML folder of another PYTHIA in PYTHIA8DATA would be
    # used before the package's own, and give other physics or none.
    with _unset_environment("PYTHIA8DATA"):
        generator = pythia8mc.Pythia("", False)
    for line in (*COMMON_SETTINGS, f"Random:seed = {seed}", *settings):
        if not generator.readString(line):
            raise HpcganError(f"PYTHIA {version()} refuses the setting '{line}' of process {process.name}")
    if hooks is not None:
        generator.setUserHooksPtr(hooks)
    if not generator.init():
        values = ", ".join(f"{key} = {value}" for key, value in process.describe().items())
        raise HpcganError(f"PYTHIA {version()} does not initialise for {values}")
    return generator


@contextlib.contextmanager
def _unset_environment(name: str) -> Iterator[None]:
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def events(
    process: Process, seed: int, n: int, batch: int = BATCH_EVENTS, tables: str | None = None, hooks: Any = None
) -> Iterator[Particles]:
    """Generate events in batches.

    Parameters
    ----------
    process : Process
    seed : int
        1 to :data:`SEED_MAX`; the same seed gives the same events, whatever `batch` is.
    n : int
        Number of events, exactly.
    batch : int
        Events in memory at a time.
    tables : str, optional
        See :func:`multiparton_tables`.
    hooks : pythia8mc.UserHooks, optional
        What PYTHIA asks within an event; one that it vetoes is begun anew and counts neither for `n` nor for `batch`.

    Yields
    ------
    Particles
        Stable particles; the batches' ``n_events`` add up to `n`.

    Raises
    ------
    HpcganError
        PYTHIA does not initialise, or stops producing events.
    """
    if n <= 0:
        return
    generator = initialise(process, seed, tables, hooks)
    total = 0
    failures = 0
    while total < n:
        records = generator.nextBatch(min(batch, n - total))  # failed events are skipped: fewer may come back
        count = len(records)
        failures = failures + 1 if count == 0 else 0
        if failures > 10:
            raise HpcganError(f"PYTHIA {version()} stopped producing {process.name} events after {total} of {n}")
        if count:
            total += count
            yield _stable(records.prt.layout, count)


def _stable(records: Any, n_events: int) -> Particles:
    """Stable particles of an Awkward list of event records, touching only the columns used.

    Works on the buffers below the Awkward layer: masking eleven jagged columns one by one through the
    high-level interface costs several times more than the whole calorimeter.
    """
    offsets = np.asarray(records.offsets.data)
    first, last = int(offsets[0]), int(offsets[-1])
    content = records.content
    status = np.asarray(content["status"].data)[first:last]
    keep = np.flatnonzero(status > 0)  # PYTHIA counts final particles positive
    event = np.searchsorted(offsets[1:] - first, keep, side="right")
    keep += first
    pid = np.asarray(content["id"].data)[keep]
    momentum = [np.asarray(content["p"][name].data)[keep] for name in ("px", "py", "pz", "e")]
    # The vertex is an option type: index -1 means "at the origin", which is also what the added last row
    # holds.
    origin = content["vProd"]
    index = np.asarray(origin.index.data)[keep]
    # PYTHIA reuses its four-vector names for x, y, z, t.
    vertex = [np.append(np.asarray(origin.content[name].data), 0.0)[index] for name in ("px", "py", "pz")]
    return Particles(event, pid, momentum, vertex, n_events)
