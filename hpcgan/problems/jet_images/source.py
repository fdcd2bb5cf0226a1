"""Jet images as a training sees them: images in GeV and their class."""

from __future__ import annotations

from pathlib import Path

from hpcgan.data.layouts.base import ROOT
from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.problems.jet_images import files


class JetSource(TensorSource):
    """Jets of one file in the published layout; what it says of them besides are labels (`jet_pt` and others).

    A sample is {"image": (n, 25, 25) float32 in GeV, "signal": (n,) float32, 1 or 0}; `signal` is its condition.

    Parameters
    ----------
    path : Path
    cache_mb : int
        Files that fit are read into memory at the first access; larger ones are read from disk every time.

    Raises
    ------
    InputError
        Missing or broken file.
    """

    def __init__(self, path: Path, cache_mb: int = 1024) -> None:
        files.open_jets(path).close()
        super().__init__(path, files.SCHEMA, cache_mb, ROOT)
