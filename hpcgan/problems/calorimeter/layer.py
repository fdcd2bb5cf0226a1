"""One layer of calorimeter showers for a given incident energy, trained by likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hpcgan.config import ModelSection, Positive
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import ROOT, Layout
from hpcgan.data.layouts.tensor_layout import SAMPLES
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.errors import InputError
from hpcgan.metrics.observable import Observable
from hpcgan.physics.calorimeter import PUBLISHED, Grid
from hpcgan.physics.shower_shapes import energy_ratio, lateral_width, occupancy
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.calorimeter import files
from hpcgan.problems.calorimeter.layout import SHOWERS

MEV_PER_GEV = 1000.0
NOISE_A_CELL = 3
"""Standard normal numbers that `hpcgan.problems.calorimeter.made` takes for a cell."""

CENTRE_GEV = 10.0
"""The network sees log10(E / 10 GeV): from -1 to 1 for the 1 to 100 GeV of the published showers."""


class CaloLayerModel(ModelSection):
    """The density of a layer (MADE)."""

    layer: Literal["layer_0", "layer_1", "layer_2"] = Field(
        "layer_1", description="3 x 96, 12 x 12 or 12 x 6 cells (phi x eta), as published"
    )
    hidden_units: int = Field(512, ge=1, le=65536, description="units of the hidden layer")
    components: int = Field(3, ge=1, le=64, description="log-normals of which the deposit of a cell is a mixture")
    scale_mev: Positive = Field(1.0, description="unit of the deposits that the network sees, MeV")

    @property
    def grid(self) -> Grid:
        """Cells of the layer."""
        return PUBLISHED.layers[files.LAYERS.index(self.layer)]

    @property
    def tensor(self) -> str:
        """Name of the image."""
        return self.layer

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (phi) and columns (eta)."""
        return self.grid.shape

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the density is conditional on."""
        return (files.ENERGY,)


class CaloLayerProblem(Problem):
    """Deposits in one layer in MeV, axes [phi, eta], and the incident energy in GeV as condition."""

    name: ClassVar[str] = "calo_layer"
    Model: ClassVar[type[CaloLayerModel]] = CaloLayerModel
    methods: ClassVar[Sequence[str]] = ("nll",)
    layouts: ClassVar[Sequence[Layout]] = (SAMPLES, SHOWERS)
    generators: ClassVar[Mapping[str, str]] = {"calo": "hpcgan.problems.calorimeter.generate:ShowerGenerator"}
    importers: ClassVar[Sequence[str]] = ("hpcgan.problems.calorimeter.importing:ShowerImporter",)
    networks: ClassVar[Mapping[str, str]] = {"density": "hpcgan.problems.calorimeter.made:Made"}
    figures: ClassVar[str] = "hpcgan.problems.calorimeter.layer_figures:LayerFigures"
    noun: ClassVar[str] = "showers"
    model: CaloLayerModel

    @classmethod
    def of_file(cls, path: Path) -> CaloLayerProblem:
        """The problem of the only layer that a file holds; of the default one, if it holds all."""
        if SAMPLES.holds(path):
            for layer in files.LAYERS:
                if tensors.shape_of(path, layer) is not None:
                    return cls(CaloLayerModel(layer=layer))
        return cls(CaloLayerModel())

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        return {
            self.model.layer: TensorSpec(self.model.shape, "MeV", sparse=True, meaning=files.LAYER_MEANING),
            files.ENERGY: TensorSpec((1,), "GeV", role="condition"),
        }

    @property
    def file_attributes(self) -> dict[str, Any]:
        return {"segmentation": "x".join(map(str, self.model.shape))}

    def check_samples(self, sample: Sample, path: str, first: int) -> None:
        files.check_sample(sample, path, first)

    def group_of(self, file: Path) -> str:
        """Where the file has its data sets: showers of all layers as published, or one layer as `writer` writes it."""
        if SAMPLES.holds(file):
            return SAMPLES.group
        files.open_showers(file, PUBLISHED).close()
        return ROOT

    def encode(self, sample: Sample) -> Sample:
        """Deposits in units of `scale_mev`, and log10 of the energy over 10 GeV."""
        deposits = sample[self.model.layer]
        encoded: Sample = {self.model.layer: deposits / deposits.dtype.type(self.model.scale_mev)}
        if files.ENERGY in sample:
            encoded |= self.encode_conditions({files.ENERGY: sample[files.ENERGY]})
        return encoded

    def decode(self, sample: Sample) -> Sample:
        """Deposits in MeV, float32."""
        return {self.model.layer: (sample[self.model.layer] * self.model.scale_mev).astype(np.float32)}

    def encode_conditions(self, conditions: Sample) -> Sample:
        energy = conditions[files.ENERGY]
        return {files.ENERGY: np.log10(energy / energy.dtype.type(CENTRE_GEV))}

    def check_conditions(self, conditions: Sample) -> None:
        energy = np.asarray(conditions[files.ENERGY], np.float64)
        if not (energy > 0).all():
            raise InputError(f"{files.ENERGY}={energy.min():g} GeV: must be above 0")

    # --- networks --------------------------------------------------------------------------------

    @property
    def noise_dim(self) -> int:
        return NOISE_A_CELL * self.model.grid.n_cells

    # --- physics ---------------------------------------------------------------------------------

    def observables(self, sample: Sample) -> Observables:
        """Shower shapes of the layer; those that need energy are missing for showers that leave none in it."""
        image, grid = sample[self.model.layer], self.model.grid
        total = image.sum(axis=(1, 2), dtype=np.float64) / MEV_PER_GEV
        return {
            "energy": Observable(total, unit="GeV"),
            "response": Observable(total / sample[files.ENERGY].reshape(-1)),
            "occupancy": Observable(occupancy(image)),
            "width_eta": _of_some(lateral_width(image, grid.eta_centres, "eta"), "mm"),
            "width_phi": _of_some(lateral_width(image, grid.phi_centres, "phi"), "mm"),
            "ratio": _of_some(energy_ratio(image)),
        }


def _of_some(values: np.ndarray, unit: str = "") -> Observable:
    """A quantity that not every shower has: NaN where it has not."""
    has_value = np.isfinite(values)
    return Observable(values[has_value], has_value.astype(np.int64), unit)
