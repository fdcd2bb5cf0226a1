"""Calorimeter showers as a training sees them: images and incident energy, possibly of several particles.

`energy` (N, 1) of the files becomes a number a shower, and the overflow, which no generator makes, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import ROOT
from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.data.schema import Sample, Schema, TensorSpec, concatenate, take
from hpcgan.data.source import Source
from hpcgan.data.storage import open_file, readable
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import Segmentation
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter.files import ENERGY, LAYERS, OVERFLOW
from hpcgan.weights import counting

PARTICLE = "particle"
PDG = {"gamma": 22.0, "eplus": -11.0, "piplus": 211.0}
"""Particles by the numbers of the Particle Data Group."""

LABEL: Schema = {PARTICLE: TensorSpec((), role="condition")}
"""What a file with showers of several particles has besides: the number of each."""


def particles_in(path: Path) -> tuple[str, ...]:
    """Particles of a file that says of each shower which it is of; () of any other.

    Raises
    ------
    InputError
        Not HDF5, damaged, or a number that is none of `PDG`.
    """
    with open_file(path) as file, readable(path, "the list of data sets"):
        if PARTICLE not in list(file.keys()):
            return ()
    with tensors.open_tensors(path, LABEL, ROOT) as opened:
        numbers = opened.column(PARTICLE)
    bad = np.flatnonzero(~np.isin(numbers, list(PDG.values())))
    if bad.size:
        known = ", ".join(f"{number:g} ({name})" for name, number in PDG.items())
        raise InputError(f"{path}: {PARTICLE} of shower {bad[0]} is {numbers[bad[0]]:g}; known are {known}")
    return tuple(name for name, number in PDG.items() if number in numbers)


class ShowerSource(Source):
    """Showers of one file, or of one file for each of several particles.

    Of several, showers take turns as long as there are any of a particle, so that the first ones of the source are a
    mixture in equal shares, and each comes with its `particle`.

    Parameters
    ----------
    files : mapping of str to Path
        File of each particle (one of `PDG`); a single one may be "", which is not looked at.
    segmentation : Segmentation
    cache_mb : int
        Files that fit, all together, are read into memory at the first access.
    labelled : bool
        A single file says itself which `particle` each shower is of.

    Attributes
    ----------
    path : Path
        The file; of several, the first.

    Raises
    ------
    InputError
        Missing or broken files, or of another segmentation.
    """

    def __init__(
        self, files: Mapping[str, Path], segmentation: Segmentation, cache_mb: int = 1024, labelled: bool = False
    ) -> None:
        self.path = next(iter(files.values()))
        schema = {name: spec for name, spec in calo.schema_of(segmentation).items() if name != OVERFLOW}
        if labelled:
            schema |= LABEL
        self._sources: list[TensorSource] = []
        try:
            for file in files.values():
                calo.open_showers(file, segmentation).close()
                self._sources.append(TensorSource(file, schema, cache_mb // len(files), ROOT))
        except BaseException:
            self.close()
            raise
        self._pdg = np.array([PDG[name] for name in files], np.float32) if len(files) > 1 else None
        turns = np.concatenate([np.arange(len(source)) for source in self._sources])
        of = np.repeat(np.arange(len(self._sources)), [len(source) for source in self._sources])
        order = np.lexsort((of, turns))
        self._of, self._within = of[order], turns[order]

    def __len__(self) -> int:
        return len(self._of)

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """Images (n, rows, columns) float32 in MeV, `energy` (n,) in GeV; of several particles `particle` (n,)."""
        of, within = self._of[indices], self._within[indices]
        sample: Sample = {}
        for number, source in enumerate(self._sources):
            rows = np.flatnonzero(of == number)
            for name, values in source.read(within[rows]).items():
                whole = sample.setdefault(name, np.empty((len(of), *values.shape[1:]), values.dtype))
                whole[rows] = values
        return {**{name: sample[name] for name in LAYERS}, **self._asked(sample, of)}

    def weights(self) -> np.ndarray | None:
        """Data set `weight` of the files; showers of a file without any have the weight 1."""
        weights = [source.raw_weights() for source in self._sources]
        if all(values is None for values in weights):
            return None
        each = [np.ones(len(s)) if v is None else v for s, v in zip(self._sources, weights, strict=True)]
        return counting(self._in_turn(each))

    def labels(self) -> list[str]:
        """Data sets with one number a shower that all files have."""
        others = [source.labels() for source in self._sources[1:]]
        return [name for name in self._sources[0].labels() if all(name in names for names in others)]

    def label(self, name: str) -> np.ndarray:
        """One of them, (N,)."""
        return self._in_turn([source.label(name) for source in self._sources])

    def _in_turn(self, each: list[np.ndarray]) -> np.ndarray:
        starts = np.cumsum([0, *(len(values) for values in each)])
        return np.concatenate(each)[starts[self._of] + self._within]

    def conditions(self) -> Sample:
        """`energy` (N,) in GeV of all showers; of several particles also `particle` (N,)."""
        whole = concatenate([source.conditions() for source in self._sources])
        starts = np.cumsum([0, *(len(source) for source in self._sources)])
        return self._asked(take(whole, starts[self._of] + self._within), self._of)

    def _asked(self, sample: Sample, of: np.ndarray) -> Sample:
        conditions = {ENERGY: sample[ENERGY][:, 0]}
        if self._pdg is not None:
            conditions[PARTICLE] = self._pdg[of]
        elif PARTICLE in sample:
            conditions[PARTICLE] = sample[PARTICLE]
        return conditions

    def close(self) -> None:
        """Close the files and drop the caches."""
        for source in self._sources:
            source.close()
