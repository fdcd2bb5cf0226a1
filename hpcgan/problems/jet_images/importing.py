"""Published files of jet images into train.h5, val.h5 and test.h5."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

import hpcgan
from hpcgan.data import storage
from hpcgan.data.importers import Importer, Order
from hpcgan.data.layouts import tensors
from hpcgan.data.storage import open_file, readable
from hpcgan.errors import InputError
from hpcgan.problems.jet_images import files
from hpcgan.problems.jet_images.layout import JETS
from hpcgan.system.files import sha256

MOST_GEV = 1e5
"""pT of a jet at most: the energy of collisions in the largest collider that was ever planned."""

PIECE_BYTES = 16 << 20
"""Jets in memory at a time."""


class JetImporter(Importer):
    """HDF5 files with images of jets, as the published LAGAN data."""

    title: ClassVar[str] = "files of jet images"
    needs: ClassVar[str] = (
        f"HDF5 with {', '.join(files.SCHEMA)}, and as many of {', '.join(files.COLUMNS)} as there are"
    )

    @classmethod
    def recognise(cls, path: Path) -> str:
        if not path.is_file() or not h5py.is_hdf5(path):
            return ""
        with open_file(path) as file, readable(path, "the list of data sets"):
            return "holds jet images" if JETS.recognises(file) else ""

    def import_files(self, order: Order) -> bool:
        paths = storage.to_import(order.files)
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(files.open_jets(path)) for path in paths]
            for file in opened:
                _check_columns(file, opened[0])
                file.announce()
            total = sum(file.n for file in opened)
            sources = [{"name": file.path.name, "jets": file.n, "sha256": sha256(file.path)} for file in opened]
            attributes = {
                "problem": JETS.problem,
                "generator": "imported",
                "hpcgan": hpcgan.__version__,
                "settings": json.dumps({"files": sources}),
            }
            target = storage.Target(order.out, storage.interleaved_sizes(total), attributes, order.force)
            if target.is_there(JETS.open):
                return False
            count = 0
            columns = [name for name in files.COLUMNS if name in opened[0].schema]
            with files.Writer(target, columns) as writer:
                for file in opened:
                    for first, sample in file.pieces(PIECE_BYTES):
                        files.check_sample(sample, str(file.path), first)
                        _check_plausible(sample[files.IMAGE], file.path, first)
                        n = len(sample[files.SIGNAL])
                        for split, which in storage.interleave(count, n).items():
                            writer.append_to(split, {name: values[which] for name, values in sample.items()})
                        count += n
                        order.progress(count, total)
        return True


def _check_plausible(images: np.ndarray, path: Path, first: int) -> None:
    """Refuse images of more pT than there is: whoever says no unit may mean MeV."""
    pt = images.sum(axis=(1, 2), dtype=float)
    bad = np.flatnonzero(pt > MOST_GEV)
    if bad.size:
        raise InputError(
            f"{path}: {files.IMAGE} of jet {first + bad[0]} has {pt[bad[0]]:.4g} GeV, more than any collision; if it "
            "is in another unit, say so in the attribute units of the data set"
        )


def _check_columns(file: tensors.TensorFile, first: tensors.TensorFile) -> None:
    """Refuse files that differ in what they say of a jet."""
    differing = sorted(file.schema.keys() ^ first.schema.keys())
    if differing:
        raise InputError(f"{file.path}: has other data sets than {first.path} ({differing[0]}); import them one by one")
