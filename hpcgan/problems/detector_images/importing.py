"""Calorimeter towers from Delphes ROOT files, and their import into the project's layout."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

import hpcgan
from hpcgan.config.base import Option
from hpcgan.data import storage
from hpcgan.data.importers import Importer, Order
from hpcgan.errors import HpcganError, InputError
from hpcgan.physics.detector import Towers
from hpcgan.physics.images import ETA_RANGE, bin_towers, image_attributes, wrap
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.detector_images.generate import masses
from hpcgan.problems.detector_images.layout import IMAGES
from hpcgan.system.files import sha256

TREE = "Delphes"
BRANCHES = ("Tower.Eta", "Tower.Phi", "Tower.E")
WEIGHTS = ("Event.Weight", "Weight.Weight")
"""Where an event's weight may be; of several numbers the first is the nominal one."""

STEP_EVENTS = 1000
"""Events in memory at a time: some 350 towers each."""


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """One clear error for whatever a damaged file makes the ROOT reader raise."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # uproot interprets class descriptions found in the file: damage surfaces as almost any exception
        # type.
        text = " ".join(str(error).split()) or type(error).__name__
        text = text if len(text) <= 120 else text[:117] + "..."
        raise InputError(f"{path}: cannot be read as ROOT ({text}); the file is damaged or of another kind") from error


@contextlib.contextmanager
def _open_tree(path: Path) -> Iterator[Any]:
    try:
        import uproot
    except ImportError as error:
        raise HpcganError(f"uproot cannot be imported ({error}); install it with: pip install uproot") from error
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a ROOT file")
    with open(path, "rb") as stream:
        if stream.read(4) != b"root":
            raise InputError(f"{path}: not a ROOT file (it does not begin with 'root')")
    with contextlib.ExitStack() as stack:
        with _readable(path):
            file = stack.enter_context(uproot.open(path))
            names = file.keys(cycle=False, recursive=False)
            if TREE not in names:
                raise InputError(f"{path}: has no tree '{TREE}' (it holds: {', '.join(names[:8]) or 'nothing'})")
            tree = file[TREE]
            if not hasattr(tree, "num_entries") or not hasattr(tree, "iterate"):
                raise InputError(f"{path}: '{TREE}' is not a tree")
            # Delphes nests them in a branch `Tower`; files skimmed with other tools hold them side by side.
            held = {name.rsplit("/", 1)[-1] for name in tree.keys()}  # noqa: SIM118
            if not any(name.split(".")[0] == "Tower" for name in held):
                top = ", ".join(tree.keys(recursive=False)[:8]) or "nothing"
                raise InputError(f"{path}: tree '{TREE}' has no branch 'Tower' (it holds: {top})")
            missing = [name for name in BRANCHES if name not in held]
            if missing:
                raise InputError(f"{path}: branch 'Tower' has no '{missing[0]}'")
            for name in BRANCHES:
                if tree[name].num_entries != tree.num_entries:
                    raise InputError(
                        f"{path}: tree '{TREE}' claims {tree.num_entries} events but '{name}' has "
                        f"{tree[name].num_entries}; the file is damaged"
                    )
            if tree.num_entries <= 0:
                raise InputError(f"{path}: tree '{TREE}' holds no events")
        yield tree


def count_events(path: str | os.PathLike[str]) -> int:
    """Number of events in a Delphes file.

    Raises
    ------
    InputError
        As :func:`read_towers`.
    """
    with _open_tree(Path(path)) as tree:
        return int(tree.num_entries)


def read_towers(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], step: int = STEP_EVENTS
) -> Iterator[tuple[Towers, int]]:
    """Towers of Delphes files, some events at a time.

    Parameters
    ----------
    paths : path or sequence of paths
    step : int
        Events in memory at a time.

    Yields
    ------
    towers : Towers
        Event index within the batch, eta, phi (from -pi to pi, whatever turns the file counts), energy in GeV.
    n_events : int
        Events in the batch.

    Raises
    ------
    InputError
        No such file, not ROOT, cut short, without tree ``Delphes`` or branch ``Tower``, without events, or
        with towers of a negative energy, or whose numbers are not finite.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    for path in map(Path, paths):
        with _open_tree(path) as tree:
            seen = 0
            batches = tree.iterate(list(BRANCHES), step_size=step, library="ak")
            while True:
                with _readable(path):
                    batch = next(batches, None)
                    if batch is None:
                        break
                    towers, count = _flatten(path, batch, seen)
                seen += count
                yield towers, count
            if seen != tree.num_entries:
                raise InputError(f"{path}: {seen} of {tree.num_entries} events could be read; the file is damaged")


def _flatten(path: Path, batch: Any, seen: int) -> tuple[Towers, int]:
    import awkward

    counts = awkward.to_numpy(awkward.num(batch[BRANCHES[0]]))
    columns = []
    for name in BRANCHES:
        if not np.array_equal(awkward.to_numpy(awkward.num(batch[name])), counts):
            raise InputError(f"{path}: '{name}' and '{BRANCHES[0]}' have different numbers of towers")
        columns.append(awkward.to_numpy(awkward.flatten(batch[name])).astype(np.float64))
    event = np.repeat(np.arange(len(counts)), counts)
    eta, phi, energy = columns
    bad = ~(np.isfinite(energy) & (energy >= 0) & np.isfinite(eta) & np.isfinite(phi))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{path}: event {seen + event[first]} has a tower with eta {eta[first]:g}, phi {phi[first]:g}, "
            f"E {energy[first]:g} GeV"
        )
    return Towers(event, eta, wrap(phi), energy), len(counts)


def read_weights(path: str | os.PathLike[str]) -> np.ndarray | None:
    """Weight of each event (N,) float64 as the file says it, None where it does not.

    Raises
    ------
    InputError
        As :func:`read_towers`, and for an event without a weight or with one that is not finite, and for weights that
        are all zero.
    """
    import awkward

    path = Path(path)
    with _open_tree(path) as tree, _readable(path):
        held = {name.rsplit("/", 1)[-1] for name in tree.keys()}  # noqa: SIM118
        name = next((name for name in WEIGHTS if name in held), None)
        if name is None:
            return None
        column = tree[name].array(library="ak")
        if column.ndim > 1:
            column = awkward.fill_none(awkward.firsts(column), np.nan)
        weights: np.ndarray = awkward.to_numpy(column).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(weights))
    if bad.size:
        raise InputError(f"{path}: event {bad[0]} has no weight, or one that is not finite ('{name}'); give --weight")
    if not weights.any():
        raise InputError(f"{path}: the weights of all events are 0 ('{name}'); give --weight")
    return weights


def _own_weights(paths: Sequence[Path], counts: Sequence[int]) -> np.ndarray | None:
    """Weights of the events of all files, 1 in those that have none; None if no file has any."""
    by_file = [read_weights(path) for path in paths]
    if all(weights is None for weights in by_file):
        return None
    return np.concatenate(
        [np.ones(n) if weights is None else weights for weights, n in zip(by_file, counts, strict=True)]
    )


class _LeftOut:
    """Towers that no image has a place for."""

    def __init__(self) -> None:
        self.towers, self._all = 0, 0
        self._energy, self._total = 0.0, 0.0

    def count(self, towers: Towers) -> None:
        """Look at the towers of some events."""
        outside = (towers.eta < ETA_RANGE[0]) | (towers.eta > ETA_RANGE[1])
        self.towers += int(np.count_nonzero(outside))
        self._all += len(outside)
        self._energy += float(towers.energy[outside].sum())
        self._total += float(towers.energy.sum())

    @property
    def share(self) -> float:
        """Of the energy of all towers."""
        return self._energy / self._total if self._total else 0.0

    def __str__(self) -> str:
        edge = f"|eta| > {ETA_RANGE[1]:g}"
        return f"{self.towers} of {self._all} towers, with {self.share:.1%} of the energy, are at {edge} and left out"


LARGEST_WEIGHT = 1e9
"""Files hold weights in single precision."""


class DelphesImporter(Importer):
    """ROOT files of Delphes, of whose towers images are made.

    Towers beyond the images' eta are left out; how many, and with what share of the energy, is in the attributes
    ``towers_left_out`` and ``energy_left_out``.
    """

    title: ClassVar[str] = "Delphes files"
    needs: ClassVar[str] = "ROOT"

    mass: Annotated[tuple[float, float] | None, Option(metavar="M_GLUINO,M_NEUTRALINO")] = Field(
        None, description="masses to record, GeV"
    )
    label: int = Field(1, ge=0, le=1, description="1 signal, 0 background")
    weight: float | None = Field(
        None,
        ge=-LARGEST_WEIGHT,
        le=LARGEST_WEIGHT,
        description="weight of every event (default: what the file says of each, else 1)",
    )

    @field_validator("mass", mode="before")
    @classmethod
    def _masses(cls, value: Any) -> Any:
        return masses(value) if isinstance(value, str) else value

    @classmethod
    def recognise(cls, path: Path) -> str:
        if not path.is_file():
            return ""
        with open(path, "rb") as stream:
            return "is a ROOT file" if stream.read(4) == b"root" else ""

    def import_files(self, order: Order) -> bool:
        m_gluino, m_neutralino = self.mass or (0.0, 0.0)
        weight = self.weight
        for name, mass in (("m_gluino", m_gluino), ("m_neutralino", m_neutralino)):
            if mass < 0:
                raise InputError(f"{name} = {mass:g}: must be 0 or more")
        if 0 < m_gluino <= m_neutralino:
            raise InputError(
                f"m_neutralino = {m_neutralino:g}: a gluino of {m_gluino:g} GeV cannot decay to it; is the order right?"
            )
        paths = storage.to_import(order.files)
        counts = [count_events(path) for path in paths]
        own = None if weight is not None else _own_weights(paths, counts)
        total = sum(counts)
        settings = json.dumps(
            {
                "source": "Delphes",
                "files": [{"name": path.name, "events": n, "sha256": sha256(path)} for path, n in zip(paths, counts)],
                "m_gluino": float(m_gluino),
                "m_neutralino": float(m_neutralino),
                "label": self.label,
                "weight": "of the files" if own is not None else 1.0 if weight is None else float(weight),
            }
        )
        attributes = {
            **image_attributes(),
            "settings": settings,
            "process": "import",
            "hpcgan": hpcgan.__version__,
        }
        target = storage.Target(order.out, storage.interleaved_sizes(total), attributes, order.force)
        if target.is_there(IMAGES.open):
            return False
        count, left_out = 0, _LeftOut()
        weights = np.full(total, 1.0 if weight is None else weight) if own is None else own
        with hdf5.Writer(target) as writer:
            for towers, n in read_towers(paths):
                left_out.count(towers)
                images = bin_towers(*towers, n)
                for split, where in storage.interleave(count, n).items():
                    of_split = weights[count : count + n][where]
                    writer.append_to(split, images[where], self.label, of_split, m_gluino, m_neutralino)
                count += n
                order.progress(count, total)
            writer.note(towers_left_out=left_out.towers, energy_left_out=left_out.share)
        if left_out.towers:
            order.say(str(left_out))
        return True
