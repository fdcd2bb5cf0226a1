"""Generate data sets: PYTHIA, the calorimeter and the image files, on any number of processes.

Events come in fixed blocks, each from a freshly initialised generator whose seed depends only on the user's
seed, the process and the number of the block. The blocks are written in order, so the files do not depend on
how many processes made them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hpcgan
from hpcgan.data import storage
from hpcgan.data.workers import Progress, check_jobs, in_order
from hpcgan.errors import InputError
from hpcgan.physics import detector, pythia
from hpcgan.physics.images import bin_towers, image_attributes
from hpcgan.problems.detector_images import files as hdf5

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
    return [packed for images in image_batches(block, advance) for packed in hdf5.pack(images)]


def image_batches(block: Block, advance: Callable[[int], None] | None = None) -> Iterator[NDArray[np.float32]]:
    """The images of a block, some (n, 64, 64) in MeV at a time; arguments as of :func:`make_block`."""
    calorimeter = detector.Calorimeter(block.card)
    pythia_seed, random = block.seeds()
    for particles in pythia.events(block.process, pythia_seed, block.n_events, tables=block.tables):
        towers = calorimeter.simulate(particles, random)
        yield bin_towers(*towers, particles.n_events)
        if advance is not None:
            advance(particles.n_events)


def settings_of(processes: Sequence[pythia.Process], events: int, seed: int, card: detector.Card) -> str:
    """Everything the files' contents depend on, as JSON."""
    return json.dumps(
        {
            "processes": [process.describe() for process in processes],
            "events": events,
            "seed": seed,
            "block_events": BLOCK_EVENTS,
            "batch_events": pythia.BATCH_EVENTS,
            "split_edges": storage.SPLIT_EDGES,
            "pythia": pythia.version(),
            "pythia_settings": [*pythia.COMMON_SETTINGS, *_process_settings(processes)],
            "detector": card.describe(),
        }
    )


def _process_settings(processes: Sequence[pythia.Process]) -> list[str]:
    return list(dict.fromkeys(line for process in processes for line in process.settings()))


def attributes_of(processes: Sequence[pythia.Process], settings: str, seed: int) -> dict[str, Any]:
    """What the files say of the events in them."""
    attributes: dict[str, Any] = {
        **image_attributes(),
        "process": processes[0].name,
        "ecm_gev": pythia.ECM_GEV,
        "seed": seed,
        "detector": "parametrised calorimeter, parameters of the Delphes ATLAS card",
        "generator": f"PYTHIA {pythia.version()}",
        "hpcgan": hpcgan.__version__,
        "settings": settings,
    }
    for key in processes[0].describe():
        if key not in ("name", "label"):
            attributes[f"{key}_gev"] = [float(process.describe()[key]) for process in processes]
    slha = processes[0].slha()
    if slha is not None:
        attributes["slha"] = slha  # of the first mass point: the others differ in the two masses only
    return attributes


def generate(
    processes: pythia.Process | Sequence[pythia.Process],
    out: str | os.PathLike[str],
    events: int,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress | None = None,
    force: bool = False,
    card: detector.Card = detector.ATLAS,
) -> bool:
    """Write ``train.h5``, ``val.h5`` and ``test.h5`` (60/20/20 percent) of generated events.

    Several processes (mass points) take turns event by event, so each split holds the same number of each, up
    to one. The same arguments give the same bytes whatever `jobs` is. With more than one job a script that
    calls this needs the usual ``if __name__ == "__main__":`` guard, since the workers are spawned.

    Parameters
    ----------
    processes : Process or sequence of Process
        Of one kind, e.g. several :class:`~hpcgan.physics.pythia.RpvProcess`.
    out : path
        Folder of the files.
    events : int
        Total number.
    seed : int
        0 or more.
    jobs : int
        Processes that make events; 1 works in this process.
    progress : callable(done, total), optional
    force : bool
        Replace existing files.
    card : Card
        The detector.

    Returns
    -------
    bool
        False if `out` already held exactly this data and nothing was done.

    Raises
    ------
    InputError
        Arguments out of range, an `out` that holds other data, no room on its disk.
    HpcganError
        PYTHIA failed, or a worker process died. Nothing is left under the final names in any case.
    """
    listed = [processes] if not isinstance(processes, Sequence) else list(processes)
    check_arguments(listed, events, seed, jobs)
    settings = settings_of(listed, events, seed, card)
    sizes = storage.split_sizes(events)
    if hdf5.check_target(out, settings, sizes, force):
        return False
    with hdf5.Writer(out, sizes, attributes_of(listed, settings, seed), force=force) as writer:
        ordered = plan(listed, events, seed, card)
        with contextlib.closing(in_order(make_block, ordered, jobs, events, progress)) as results:
            for round_blocks in _rounds(ordered, results):
                _write_round(writer, round_blocks)
    return True


def plan(processes: Sequence[pythia.Process], events: int, seed: int, card: detector.Card) -> list[Block]:
    """The blocks in the order they are written: block k of each process, then block k + 1 of each."""
    soft = processes[0].soft
    tables = pythia.multiparton_tables(soft, _pythia_seed(_digest(seed, "tables", soft)))
    rows = [
        [
            Block(process, seed, index, min(BLOCK_EVENTS, share - index * BLOCK_EVENTS), card, tables)
            for index in range(-(-share // BLOCK_EVENTS))
        ]
        for process, share in zip(processes, _shares(events, len(processes)))
    ]
    return [row[k] for k in range(len(rows[0])) for row in rows if k < len(row)]


def check_arguments(processes: Sequence[pythia.Process], events: int, seed: int, jobs: int) -> None:
    """Refuse arguments of :func:`generate` that are out of range.

    Raises
    ------
    InputError
    """
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
    check_jobs(seed, jobs)
    if events < 5 * len(processes):
        raise InputError(
            f"events = {events}: at least {5 * len(processes)} are needed so that every split holds every process"
        )


def _shares(events: int, parts: int) -> list[int]:
    """Events of each process: event i of the data set belongs to process i modulo their number."""
    return [(events - part + parts - 1) // parts for part in range(parts)]


def _rounds(
    ordered: Sequence[Block], results: Iterator[list[bytes]]
) -> Iterator[list[tuple[pythia.Process, list[bytes]]]]:
    """Group consecutive results of equal block number: one block of each process."""
    current: list[tuple[pythia.Process, list[bytes]]] = []
    for position, images in enumerate(results):
        block = ordered[position]
        current.append((block.process, images))
        last = position + 1 == len(ordered)
        if last or ordered[position + 1].index != block.index:
            yield current
            current = []


def _write_round(writer: hdf5.Writer, blocks: Sequence[tuple[pythia.Process, list[bytes]]]) -> None:
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
