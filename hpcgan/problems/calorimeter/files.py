"""Calorimeter showers in the layout of the published CaloGAN data (Mendeley Data, DOI 10.17632/pvn3xc3wy5.1).

Layout, at the top of the file: ``layer_0 (N, 3, 96)``, ``layer_1 (N, 12, 12)``, ``layer_2 (N, 12, 6)`` with the energy
in the cells in MeV, axes [phi (y), eta (x)]; ``overflow (N, 3)``, the energy at the depth of each layer outside the
cells, MeV; ``energy (N, 1)``, that of the incident particle, GeV. Files written here say units, axes, particle and
segmentation in attributes; those of other people need not. Other segmentations of the same three layers have other
shapes.

Read with :func:`open_showers`, check with :func:`validate`, train from a `TensorSource` with group ``/``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import ROOT
from hpcgan.data.layouts.tensors import TensorFile
from hpcgan.data.meaning import Meaning, Numbers
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.storage import Target, find_data, open_file, readable
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import (
    AXES,
    HALF_SIDE,
    LAYER_EDGES,
    N_LAYERS,
    PUBLISHED,
    Grid,
    Segmentation,
    parse_segmentation,
)
from hpcgan.physics.showers import PARTICLES

LAYERS = tuple(f"layer_{layer}" for layer in range(N_LAYERS))
OVERFLOW = "overflow"
ENERGY = "energy"
ENERGY_LIMITS = (0.1, 1000.0)
"""Energies of the particle that are taken, GeV. The constants of the parametrisation behind `hpcgan data calo` were
fitted to showers of 0.4 to 400 GeV (hep-ex/0001020)."""

PLACES = {
    "windowmm": Numbers(((-HALF_SIDE, HALF_SIDE),), 0.01),
    "layeredgesmm": Numbers((LAYER_EDGES,), 0.01),
}
"""What files may say of where the cells are."""

LAYER_MEANING = Meaning("MeV", ("phi", "eta"), {"y": "phi", "x": "eta"}, PLACES)

TITLES = {
    "gamma": "photons",
    "eplus": "positrons",
    "piplus": "positive pions",
}


def schema_of(segmentation: Segmentation = PUBLISHED) -> Schema:
    """Tensors of a shower."""
    schema = {
        name: TensorSpec(grid.shape, "MeV", sparse=True, meaning=LAYER_MEANING)
        for name, grid in zip(LAYERS, segmentation.layers, strict=True)
    }
    schema[OVERFLOW] = TensorSpec((N_LAYERS,), "MeV")
    schema[ENERGY] = TensorSpec((1,), "GeV", role="condition")
    return schema


def to_sample(layers: Sequence[np.ndarray], energy: np.ndarray, overflow: np.ndarray | None = None) -> Sample:
    """Tensors of showers: images of the layers in MeV, `energy` (n,) in GeV; without an overflow there is none."""
    sample = dict(zip(LAYERS, layers, strict=True))
    sample[OVERFLOW] = np.zeros((len(energy), N_LAYERS), np.float32) if overflow is None else overflow
    sample[ENERGY] = np.asarray(energy, np.float32).reshape(-1, 1)
    return sample


def images(sample: Sample) -> list[np.ndarray]:
    """The images of the layers of a batch."""
    return [sample[name] for name in LAYERS]


class Writer(tensors.Writer):
    """Streams showers into one file a split (see :class:`hpcgan.data.storage.SplitWriter`).

    Parameters
    ----------
    target : Target
        Its attributes are what the files say besides.
    segmentation : Segmentation
    particle : str
        One of the particles of :mod:`hpcgan.physics.showers`, or "" where it is not known.
    more : Schema, optional
        Further tensors of a shower.

    Raises
    ------
    InputError
        As the base class.
    """

    def __init__(
        self,
        target: Target,
        segmentation: Segmentation,
        particle: str,
        more: Schema | None = None,
    ) -> None:
        of_file = {
            "contents": f"calorimeter showers of {TITLES.get(particle, 'particles')}",
            "particle": particle,
            "segmentation": str(segmentation),
            "axes": AXES,
            "window_mm": [-HALF_SIDE, HALF_SIDE],
            "layer_edges_mm": list(LAYER_EDGES),
            **target.attributes,
        }
        schema = {**schema_of(segmentation), **(more or {})}
        super().__init__(replace(target, attributes=of_file), schema, ROOT, "showers")

    def _lay_out(self, group: h5py.Group, size: int) -> None:
        super()._lay_out(group, size)
        for name in LAYERS:
            group[name].attrs["axes"] = AXES
        group[OVERFLOW].attrs["axes"] = "shower, layer"


def open_showers(path: str | os.PathLike[str], segmentation: Segmentation | None = None) -> TensorFile:
    """Open a file of showers; use it in a ``with`` statement.

    Parameters
    ----------
    path : path
    segmentation : Segmentation, optional
        What the layers must have. Default: whatever they have.

    Returns
    -------
    TensorFile

    Raises
    ------
    InputError
        No such file, not HDF5, cut short, unfinished, data sets missing or of other shapes, another segmentation,
        another unit than the layout's, or a particle that is not known. The contents are not scanned; :func:`validate`
        does that.
    """
    path = Path(path)
    cells = _segmentation(path)
    if segmentation is not None and cells != segmentation:
        raise InputError(
            f"{path}: the layers are {cells} cells (phi x eta), needed are {segmentation}; "
            "hpcgan data import --segmentation makes coarser ones"
        )
    opened = tensors.open_tensors(path, schema_of(cells), ROOT)
    try:
        particle_of(opened)
        stated = opened.text("segmentation")
        if stated and parse_segmentation(stated) != cells:
            raise InputError(
                f"{path}: attribute segmentation of the file is {stated[:60]!r}, but its layers are {cells}"
            )
    except BaseException:
        opened.close()
        raise
    return opened


def _segmentation(path: Path) -> Segmentation:
    grids = []
    with open_file(path) as file, readable(path, "the shapes of the layers"):
        for name in LAYERS:
            shape = find_data(path, file[ROOT], name).shape
            if shape is None or len(shape) != 3 or not (0 < shape[1] <= 100_000 and 0 < shape[2] <= 100_000):
                raise InputError(f"{path}: {name} has shape {shape}; needed is (N, phi, eta), published {PUBLISHED}")
            grids.append(Grid(int(shape[1]), int(shape[2])))
    try:
        return Segmentation(tuple(grids))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def segmentation_of(file: TensorFile) -> Segmentation:
    """Cells of an open file's layers."""
    return Segmentation(tuple(Grid(*file.schema[name].shape) for name in LAYERS))


def particle_of(file: TensorFile) -> str:
    """The particle that a file says it holds, "" where it does not.

    Raises
    ------
    InputError
        One that is not known.
    """
    return check_particle(file.path, file.text("particle"))


def check_particle(path: Path, particle: str) -> str:
    """The particle that a file says it holds, if it is known; otherwise as :func:`particle_of`."""
    if particle not in ("", *PARTICLES):
        raise InputError(f"{path}: holds showers of {particle[:40]!r}; known are {', '.join(PARTICLES)}")
    return particle


def check_sample(sample: Sample, path: str, first: int = 0) -> None:
    """Refuse showers that cannot be: negative deposits, incident energies that are not above 0.

    Parameters
    ----------
    sample : Sample
        Energies, and some of the other tensors.
    path : str
        What the message calls the file.
    first : int
        Number of the first shower.

    Raises
    ------
    InputError
        The message names file, data set and shower.
    """
    for name in (name for name in (*LAYERS, OVERFLOW) if name in sample):
        refuse_negative(sample, name, path, first)
    energy = sample[ENERGY].reshape(-1)
    bad = np.flatnonzero(~(energy > 0))
    if bad.size:
        raise InputError(f"{path}: {ENERGY} of shower {first + bad[0]} is {energy[bad[0]]:g} GeV; it must be above 0")


def refuse_negative(sample: Sample, name: str, path: str, first: int = 0) -> None:
    """Refuse showers with a negative energy, in MeV, in one of their tensors; as of :func:`check_sample`."""
    flat = sample[name].reshape(len(sample[name]), -1)
    bad = np.flatnonzero((flat < 0).any(axis=1))
    if bad.size:
        value = flat[bad[0]].min()
        raise InputError(f"{path}: {name} of shower {first + bad[0]} holds a negative energy: {value:g} MeV")


def validate(path: str | os.PathLike[str], segmentation: Segmentation | None = None) -> None:
    """Read a whole file, some showers at a time, and refuse it if anything in it is wrong.

    Raises
    ------
    InputError
        As :func:`open_showers` and :func:`check_sample`, and for damaged data and values that are not finite.
    """
    with open_showers(path, segmentation) as file:
        cells = segmentation_of(file)
    tensors.validate(path, schema_of(cells), check_sample, ROOT)
