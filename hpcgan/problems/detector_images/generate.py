"""Generate data sets: PYTHIA, the calorimeter and the image files, on any number of processes.

Events come in fixed blocks, each from a freshly initialised generator whose seed depends only on the user's
seed, the process and the number of the block. The blocks are written in order, so the files do not depend on
how many processes made them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from hpcgan.config.base import Option
from hpcgan.data.generators import DataSet, Generator
from hpcgan.data.layouts.base import Layout
from hpcgan.data.storage import SPLIT_EDGES, Target
from hpcgan.errors import InputError
from hpcgan.physics import detector, pythia
from hpcgan.physics.images import bin_towers, image_attributes
from hpcgan.problems.detector_images import files
from hpcgan.problems.detector_images.layout import IMAGES

BLOCK_EVENTS = 1500
"""Events of a block. Starting PYTHIA takes as long as 25 RPV events, so small blocks would cost speed."""

MAX_PROCESSES = 100
"""A finished block of each is in memory at a time, about 1.7 MB."""


@dataclass(frozen=True)
class Block:
    """A unit of work: `n_events` of a process, the `index`-th block of it; `tables` spares PYTHIA some
    work.
    """

    process: pythia.Process
    seed: int
    index: int
    n_events: int
    card: detector.Card
    tables: str | None = None

    def seeds(self) -> tuple[int, np.random.Generator]:
        """PYTHIA's seed and the detector's random numbers, from a hash of everything that names the block."""
        digest = _digest(self.seed, self.process.describe(), self.index)
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
        return _pythia_seed(digest[16:]), generator


def _digest(*name: Any) -> bytes:
    return hashlib.sha256(json.dumps(name, sort_keys=True).encode()).digest()


def _pythia_seed(random: bytes) -> int:
    return int.from_bytes(random, "little") % pythia.SEED_MAX + 1


def make_block(block: Block, advance: Callable[[int], None] | None = None) -> list[bytes]:
    """Generate and image the events of a block.

    Parameters
    ----------
    block : Block
    advance : callable(n), optional
        Called after every batch with its number of events.

    Returns
    -------
    list of bytes
        The images, compressed as the files hold them: some hundredths of their size, cheap to send on.
    """
    return [packed for images in image_batches(block, advance) for packed in files.pack(images)]


def image_batches(block: Block, advance: Callable[[int], None] | None = None) -> Iterator[NDArray[np.float32]]:
    """The images of a block, some (n, 64, 64) in MeV at a time; arguments as of :func:`make_block`."""
    calorimeter = detector.Calorimeter(block.card)
    pythia_seed, random = block.seeds()
    for particles in pythia.events(block.process, pythia_seed, block.n_events, tables=block.tables):
        towers = calorimeter.simulate(particles, random)
        yield bin_towers(*towers, particles.n_events)
        if advance is not None:
            advance(particles.n_events)


@dataclass(frozen=True)
class Events(DataSet):
    """Events of one kind of process, or of several mass points of it, which take turns event by event.

    Each split holds the same number of each, up to one.

    Attributes
    ----------
    processes : sequence of Process
        Of one kind, e.g. several :class:`~hpcgan.physics.pythia.RpvProcess`.
    n, seed
        As of the base class.
    card : Card
        The detector.
    """

    processes: Sequence[pythia.Process]
    n: int
    seed: int = 1
    card: detector.Card = detector.ATLAS
    layout: ClassVar[Layout] = IMAGES

    def check(self) -> None:
        check_processes(self.processes)
        if self.n < 5 * len(self.processes):
            least = 5 * len(self.processes)
            raise InputError(f"events = {self.n}: at least {least} are needed so that every split holds every process")

    def settings(self) -> dict[str, Any]:
        return {
            "processes": [process.describe() for process in self.processes],
            "events": self.n,
            "seed": self.seed,
            "block_events": BLOCK_EVENTS,
            "batch_events": pythia.BATCH_EVENTS,
            "split_edges": SPLIT_EDGES,
            "pythia": pythia.version(),
            "pythia_settings": [
                *pythia.COMMON_SETTINGS,
                *dict.fromkeys(line for process in self.processes for line in process.settings()),
            ],
            "detector": asdict(self.card),
        }

    def attributes(self) -> dict[str, Any]:
        first = self.processes[0]
        attributes: dict[str, Any] = {
            **image_attributes(),
            "process": first.name,
            "ecm_gev": pythia.ECM_GEV,
            "detector": "parametrised calorimeter, parameters of the Delphes ATLAS card",
            "generator": f"PYTHIA {pythia.version()}",
        }
        for key in first.describe():
            if key not in ("name", "label"):
                attributes[f"{key}_gev"] = [float(process.describe()[key]) for process in self.processes]
        slha = first.slha()
        if slha is not None:
            attributes["slha"] = slha  # of the first mass point: the others differ in the two masses only
        return attributes

    def tasks(self) -> list[Block]:
        """The blocks in the order they are written: block k of each process, then block k + 1 of each."""
        soft = self.processes[0].soft
        tables = pythia.multiparton_tables(soft, _pythia_seed(_digest(self.seed, "tables", soft)))
        rows = [
            [
                Block(process, self.seed, index, min(BLOCK_EVENTS, share - index * BLOCK_EVENTS), self.card, tables)
                for index in range(-(-share // BLOCK_EVENTS))
            ]
            for process, share in zip(self.processes, _shares(self.n, len(self.processes)))
        ]
        return [row[k] for k in range(len(rows[0])) for row in rows if k < len(row)]

    def make(self, task: Block, advance: Callable[[int], None]) -> list[bytes]:
        return make_block(task, advance)

    def writer(self, target: Target) -> files.Writer:
        return files.Writer(target)

    def write(self, writer: files.Writer, results: Iterator[tuple[Block, list[bytes]]]) -> None:
        for _, blocks in itertools.groupby(results, key=lambda task_and_result: task_and_result[0].index):
            _write_round(writer, [(block.process, images) for block, images in blocks])


def check_processes(processes: Sequence[pythia.Process]) -> None:
    """Refuse processes that make no data set (`InputError`)."""
    if not processes:
        raise InputError("no process to generate")
    if len({process.name for process in processes}) > 1:
        raise InputError("the processes of one data set must be of one kind")
    for i, process in enumerate(processes):
        if process in processes[:i]:
            values = ", ".join(f"{value:g}" for value in process.describe().values() if isinstance(value, float))
            raise InputError(f"{process.name} {values}: named twice")
    if len(processes) > MAX_PROCESSES:
        raise InputError(f"{len(processes)} mass points: use at most {MAX_PROCESSES}")


def _shares(events: int, parts: int) -> list[int]:
    """Events of each process: event i of the data set belongs to process i modulo their number."""
    return [(events - part + parts - 1) // parts for part in range(parts)]


def _write_round(writer: files.Writer, blocks: Sequence[tuple[pythia.Process, list[bytes]]]) -> None:
    """Write a block of each process, the processes taking turns event by event."""
    chunks: list[bytes] = []
    rows = []
    for turn in range(max(len(images) for _, images in blocks)):
        for process, images in blocks:
            if turn < len(images):
                values = process.describe()
                chunks.append(images[turn])
                rows.append((process.label, 1.0, values.get("m_gluino", 0.0), values.get("m_neutralino", 0.0)))
    writer.append_packed(chunks, *np.array(rows, dtype=np.float64).T)


# --- the commands ------------------------------------------------------------------------------------------------

GRID_LIMIT = 1000
"""Masses of one axis of a grid, before what is possible is taken out of it."""

Masses = tuple[float, float]
"""Of gluino and neutralino, GeV."""


class RpvGenerator(Generator):
    """Generate gluino pairs with R-parity violating decays in pp collisions at 13 TeV, pass them through the
    parametrised calorimeter and write train.h5, val.h5 and test.h5 (60/20/20 percent).
    """

    summary: ClassVar[str] = "generate RPV gluino-pair events (signal)"

    mass: Annotated[tuple[Masses, ...], Option(metavar="M_GLUINO,M_NEUTRALINO")] = Field(
        (), description="masses in GeV; repeat the option to mix mass points in equal shares"
    )
    mass_grid: Annotated[tuple[tuple[Masses, ...], ...], Option(metavar="GLUINOS,NEUTRALINOS")] = Field(
        (),
        description="all combinations of masses in GeV, each side a mass or START:STOP:STEP with both ends, e.g. "
        "1400:1800:200,850; beside or instead of --mass",
    )

    @field_validator("mass", mode="before")
    @classmethod
    def _masses(cls, values: Any) -> Any:
        return [masses(values)] if isinstance(values, str) else values

    @field_validator("mass_grid", mode="before")
    @classmethod
    def _grids(cls, values: Any) -> Any:
        return [grid(values)] if isinstance(values, str) else values

    def data_set(self, n: int, seed: int) -> Events:
        points = mass_points(self.mass, self.mass_grid)
        return Events([pythia.RpvProcess(*point) for point in points], n, seed)


class QcdGenerator(Generator):
    """Generate hard QCD events the same way as rpv; y is 0 and the masses are 0."""

    summary: ClassVar[str] = "generate QCD multijet events (background)"

    pt_hat_min: Annotated[float, Option(metavar="GEV")] = Field(
        400.0, ge=0, description="smallest hard transverse momentum"
    )

    def data_set(self, n: int, seed: int) -> Events:
        return Events([pythia.QcdProcess(self.pt_hat_min)], n, seed)


def masses(text: str) -> Masses:
    """Masses of `M_GLUINO,M_NEUTRALINO`."""
    try:
        gluino, neutralino = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("write it as M_GLUINO,M_NEUTRALINO, for example 1400,850") from None
    return gluino, neutralino


def _axis(text: str) -> list[float]:
    """Masses of one axis of a grid: a number, or START:STOP:STEP with both ends."""
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"'{text}' is neither a mass nor START:STOP:STEP, for example 1400:1800:200")
    if len(numbers) == 1:
        return numbers
    start, stop, step = numbers
    if step <= 0 or stop < start:
        raise ValueError(f"'{text}': STOP must not be below START, and STEP above zero")
    steps = (stop - start) / step
    if steps > GRID_LIMIT:
        raise ValueError(f"'{text}' has more than {GRID_LIMIT} masses; use a larger STEP")
    if abs(steps - round(steps)) > 1e-6:
        ends = [start + step * whole for whole in (math.floor(steps), math.ceil(steps))]
        raise ValueError(f"'{text}' does not arrive at {stop:g}; let it end at {ends[0]:g} or {ends[1]:g}")
    return [start + step * i for i in range(round(steps) + 1)]


def grid(text: str) -> list[tuple[float, float]]:
    """Points of `GLUINOS,NEUTRALINOS`, the neutralino mass running faster."""
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError(
            f"'{text}' is not GLUINOS,NEUTRALINOS, each a mass or START:STOP:STEP, for example 1400:1800:200,850"
        )
    gluinos, neutralinos = (_axis(part.strip()) for part in parts)
    return [(gluino, neutralino) for gluino in gluinos for neutralino in neutralinos]


def mass_points(
    masses: Sequence[tuple[float, float]], grids: Sequence[Sequence[tuple[float, float]]]
) -> list[tuple[float, float]]:
    """The mass points of `--mass` and `--mass-grid` options, in this order.

    A point of a grid that is there already is not repeated. One whose neutralino is too heavy for its gluino is skipped
    with a warning, since a grid is rectangular and what is possible is not.

    Raises
    ------
    InputError
        No points, or a grid without a possible one.
    """
    least = pythia.MIN_SPLITTING_GEV
    points = list(masses)
    for grid in grids:
        possible = [point for point in grid if point[0] - point[1] >= least]
        skipped = [f"{gluino:g},{neutralino:g}" for gluino, neutralino in grid if (gluino, neutralino) not in possible]
        reason = f"the neutralino must be at least {least:g} GeV lighter than the gluino"
        if not possible:
            raise InputError(f"--mass-grid: no point is left: {reason}")
        if skipped:
            more = f" and {len(skipped) - 6} more" if len(skipped) > 6 else ""
            count = f"{len(skipped)} of {len(grid)} points skipped"
            print(f"warning: --mass-grid: {count} ({reason}): {'; '.join(skipped[:6])}{more}", file=sys.stderr)
        points += [point for point in possible if point not in points]
    if not points:
        raise InputError("give --mass M_GLUINO,M_NEUTRALINO or --mass-grid GLUINOS,NEUTRALINOS")
    return points
