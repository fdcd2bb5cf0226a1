"""Random access to detector images, from disk with bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcgan.data.schema import Sample, take
from hpcgan.data.source import FileSource
from hpcgan.errors import InputError
from hpcgan.problems.detector_images import files


class ImageSource(FileSource):
    """Images of an HDF5 file in the published layout.

    Parameters
    ----------
    path : Path
        File with group `all_events`.
    cache_mb : int
        As of `FileSource`: each image is then decompressed once, instead of once an epoch.
    columns : sequence of str
        What is read of an event besides, out of `files.COLUMN_UNITS`: its conditions.

    Raises
    ------
    InputError
        Missing or broken file, or one without these columns.
    """

    def __init__(self, path: Path, cache_mb: int = 1024, columns: Sequence[str] = ()) -> None:
        self._file = files.open_images(path)
        super().__init__(self._file, files.IMAGE_BYTES, cache_mb)
        self._columns: Sample = {}
        for name in columns:
            values = self._file.column(name)
            if values is None:
                self.close()
                raise InputError(
                    f"{path}: has no data set '{files.GROUP}/{name}' (one number an event), which the model is "
                    "conditioned on; 'hpcgan data' writes it"
                )
            self._columns[name] = values

    def _from_file(self, which: slice | np.ndarray) -> Sample:
        return {"hist": self._file.read(which)}

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """Images (n, 64, 64) float32 in MeV as `hist`, and the columns (n,) float32."""
        return {**super().read(indices), **take(self._columns, indices)}

    def conditions(self) -> Sample:
        """The columns, (N,) float32 each."""
        return dict(self._columns)
