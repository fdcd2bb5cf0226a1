"""Jet images in the layout of the published LAGAN data (Mendeley Data, DOI 10.17632/4r4v785rgx.1).

Layout, at the top of the file: ``image (N, 25, 25)``, the transverse momentum in the pixels in GeV; ``signal (N,)``, 1
for a boosted W and 0 for QCD; and one number each of what else is known of a jet: ``jet_pt``, ``jet_eta``, ``jet_phi``,
``jet_mass``, ``jet_delta_R`` (between the two leading subjets, 0 where there is one), ``tau_1``, ``tau_2``, ``tau_3``.
Rows of an image are phi and go down: row 0 is at the top, and the second subjet lies below the centre. Columns are eta.

Files need `image` and `signal`; what they have of the rest is checked. Read with :func:`open_jets`, check with
:func:`validate`, train from a :class:`hpcgan.problems.jet_images.source.JetSource`.
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
from hpcgan.data.storage import Target, open_file, readable
from hpcgan.errors import InputError

SIDE = 25
"""Pixels of a side."""

PIXEL = 0.1
"""Side of a pixel, in eta and phi."""

HALF_SIDE = SIDE * PIXEL / 2
"""From the centre of an image to its edge, in eta and phi."""

IMAGE = "image"
SIGNAL = "signal"

AXES = "event, phi, eta"
"""Rows are phi, from the largest to the smallest; columns eta, from the smallest to the largest."""

_PLACES = {
    "pixel": Numbers(((PIXEL,), (PIXEL, PIXEL)), PIXEL / 100),
    "window": Numbers(((-HALF_SIDE, HALF_SIDE),), PIXEL / 8),
}

SCHEMA: Schema = {
    IMAGE: TensorSpec(
        (SIDE, SIDE),
        "GeV",
        sparse=True,
        meaning=Meaning("GeV", ("phi", "eta"), {"y": "phi", "x": "eta"}, _PLACES),
    ),
    SIGNAL: TensorSpec((), role="condition"),
}
"""What a model makes, and what it is asked for."""

COLUMNS: Schema = {
    "jet_pt": TensorSpec((), "GeV"),
    "jet_eta": TensorSpec(()),
    "jet_phi": TensorSpec(()),
    "jet_mass": TensorSpec((), "GeV"),
    "jet_delta_R": TensorSpec(()),
    "tau_1": TensorSpec(()),
    "tau_2": TensorSpec(()),
    "tau_3": TensorSpec(()),
}
"""What else a file may say of each jet: of the jet itself, before it became an image."""

DIRECTIONS = ("jet_eta", "jet_phi")
"""Columns that may be negative."""


class Writer(tensors.Writer):
    """Streams jet images into one file a split (see :class:`hpcgan.data.storage.SplitWriter`).

    Parameters
    ----------
    target : Target
        Its attributes are what the files say besides.
    columns : sequence of str
        Of `COLUMNS`, those that every jet comes with.

    Raises
    ------
    InputError
        As the base class.
    """

    def __init__(self, target: Target, columns: Sequence[str] = tuple(COLUMNS)) -> None:
        of_file = {"contents": "images of jets", "pixel": PIXEL, "axes": AXES, **target.attributes}
        schema = {**SCHEMA, **{name: COLUMNS[name] for name in columns}}
        super().__init__(replace(target, attributes=of_file), schema, ROOT, "jets")

    def _lay_out(self, group: h5py.Group, size: int) -> None:
        super()._lay_out(group, size)
        group[IMAGE].attrs["axes"] = AXES
        group[SIGNAL].attrs["meaning"] = "1 boosted W, 0 QCD"


def open_jets(path: str | os.PathLike[str]) -> TensorFile:
    """Open a file of jet images; use it in a ``with`` statement.

    Parameters
    ----------
    path : path

    Returns
    -------
    TensorFile
        With those of `COLUMNS` that the file has.

    Raises
    ------
    InputError
        No such file, not HDF5, cut short, unfinished, data sets missing, of other shapes or unequal lengths, or with
        another unit or other axes than the layout's. The contents are not scanned; :func:`validate` does that.
    """
    path = Path(path)
    return tensors.open_tensors(path, schema_of(path), ROOT)


def schema_of(path: Path) -> Schema:
    """What a file of this layout has: `SCHEMA`, and those of `COLUMNS` that are there.

    Raises
    ------
    InputError
        No such file, not HDF5, or damaged.
    """
    with open_file(path) as file, readable(path, "the list of data sets"):
        # Asked for one by one: HDF5 may crash when it lists a damaged file.
        held = [name for name in COLUMNS if name in file]
    return {**SCHEMA, **{name: COLUMNS[name] for name in held}}


def check_sample(sample: Sample, path: str, first: int = 0) -> None:
    """Refuse jets that cannot be: NaN, negative numbers but in directions, and other classes than 0 and 1.

    Parameters
    ----------
    sample : Sample
        Some of the data sets, with the same jets.
    path : str
        What the message calls the file.
    first : int
        Number of the first jet.

    Raises
    ------
    InputError
        The message names file, data set and jet.
    """
    for name, values in sample.items():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if bad.size:
            raise InputError(f"{path}: {name} of jet {first + bad[0]} is not finite (NaN or infinite)")
    for name in (name for name in (IMAGE, *COLUMNS) if name in sample and name not in DIRECTIONS):
        flat = sample[name].reshape(len(sample[name]), -1)
        bad = np.flatnonzero((flat < 0).any(axis=1))
        if bad.size:
            unit = {**SCHEMA, **COLUMNS}[name].unit
            value = f"{flat[bad[0]].min():g} {unit}".strip()
            raise InputError(f"{path}: {name} of jet {first + bad[0]} is negative: {value}")
    if SIGNAL in sample:
        bad = np.flatnonzero(~np.isin(sample[SIGNAL], (0, 1)))
        if bad.size:
            value = sample[SIGNAL][bad[0]]
            raise InputError(
                f"{path}: {SIGNAL} of jet {first + bad[0]} is {value:g}; it must be 1 (boosted W) or 0 (QCD)"
            )


def validate(path: str | os.PathLike[str]) -> None:
    """Read a whole file, some jets at a time, and refuse it if anything in it is wrong.

    Raises
    ------
    InputError
        As :func:`open_jets` and :func:`check_sample`, and for damaged data and values that are not finite.
    """
    path = Path(path)
    tensors.validate(path, schema_of(path), check_sample, ROOT)
