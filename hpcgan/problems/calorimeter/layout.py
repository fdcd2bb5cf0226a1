"""Calorimeter showers in the published layout, as a layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import h5py

from hpcgan.data.layouts.base import ROOT
from hpcgan.data.layouts.tensor_layout import TensorLayout
from hpcgan.data.layouts.tensors import TensorFile
from hpcgan.data.workers import Progress
from hpcgan.problems.calorimeter import files, importing


class ShowerLayout(TensorLayout):
    """`layer_0`, `layer_1`, `layer_2` and more at the top of the file."""

    title: ClassVar[str] = "calorimeter showers"
    group = ROOT
    problem: ClassVar[str | None] = "calogan"
    export_format: ClassVar[str] = (
        "CaloChallenge files (incident_energies, showers; MeV), with the cells of the three layers in order, row (phi) "
        "after row, and without the overflow"
    )

    def recognises(self, file: h5py.File) -> bool:
        return any(name in file for name in files.LAYERS)

    def open(self, path: Path) -> TensorFile:
        return files.open_showers(path)

    def validate(self, path: Path) -> None:
        files.validate(path)

    def export(self, paths: Sequence[Path], out: Path, force: bool = False, progress: Progress | None = None) -> bool:
        """As CaloChallenge files of the same names: :func:`hpcgan.problems.calorimeter.importing.export`."""
        return importing.export(paths, out, force, progress)


SHOWERS = ShowerLayout()
