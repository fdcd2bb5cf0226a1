"""Jet images in the published layout, as a layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import h5py

from hpcgan.data.layouts.base import ROOT
from hpcgan.data.layouts.tensor_layout import TensorLayout
from hpcgan.data.layouts.tensors import TensorFile
from hpcgan.problems.jet_images import files


class JetLayout(TensorLayout):
    """`image`, `signal` and numbers of each jet at the top of the file."""

    title: ClassVar[str] = "jet images"
    group = ROOT
    problem: ClassVar[str | None] = "jets"

    def recognises(self, file: h5py.File) -> bool:
        return files.IMAGE in file or files.SIGNAL in file

    def open(self, path: Path) -> TensorFile:
        return files.open_jets(path)

    def validate(self, path: Path) -> None:
        files.validate(path)


JETS = JetLayout()
