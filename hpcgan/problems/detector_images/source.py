"""Random access to detector images, from disk with bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcgan.data.schema import Sample
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
        Files that fit are read into memory at the first access (decompressing each image once instead of
        once an epoch); larger ones are read from disk every time.
    columns : sequence of str
        What is read of an event besides, out of `files.COLUMN_UNITS`: its conditions.

    Raises
    ------
    InputError
        Missing or broken file, or one without these columns.
    """

    _file: files.ImageFile

    def __init__(self, path: Path, cache_mb: int = 1024, columns: Sequence[str] = ()) -> None:
        super().__init__(files.open_images(path), files.IMAGE_BYTES, cache_mb)
        self._columns: Sample = {}
        for name in columns:
            values = self._file.column(name)
            if values is None:
                self._file.close()
                raise InputError(
                    f"{self.path}: has no data set '{files.GROUP}/{name}' (one number an event), which the model is "
                    "conditioned on; 'hpcgan data' writes it"
                )
            self._columns[name] = values

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """Images (n, 64, 64) float32 in MeV as `hist`, and the columns (n,) float32."""
        if self._cacheable and self._cache is None:
            self._cache = self._file.read(slice(0, self._file.n))
        images = self._file.read(indices) if self._cache is None else self._cache[indices]
        return {"hist": images, **{name: values[indices] for name, values in self._columns.items()}}

    def conditions(self) -> Sample:
        return dict(self._columns)
