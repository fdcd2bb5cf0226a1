"""One layer of calorimeter showers for a given incident energy, trained by likelihood."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hpcgan.config import ModelSection, Positive
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.source import Source, TensorSource
from hpcgan.errors import InputError
from hpcgan.metrics.ks import ks_score
from hpcgan.metrics.observable import UNWEIGHTED, Observable, Score, SidesWeights
from hpcgan.physics.calorimeter import PUBLISHED, Grid
from hpcgan.physics.shower_shapes import energy_ratio, lateral_width, occupancy
from hpcgan.problems.base import Observables, Problem, file_of
from hpcgan.problems.calorimeter import files as calo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEV_PER_GEV = 1000.0
NOISE_A_CELL = 3
"""Standard normal numbers that `hpcgan.networks.made` takes for a cell."""

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
        return PUBLISHED.layers[calo.LAYERS.index(self.layer)]

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
        return (calo.ENERGY,)


class CaloLayerProblem(Problem):
    """Deposits in one layer in MeV, axes [phi, eta], and the incident energy in GeV as condition."""

    name: ClassVar[str] = "calo_layer"
    Model: ClassVar[type[CaloLayerModel]] = CaloLayerModel
    methods: ClassVar[Sequence[str]] = ("nll",)
    model: CaloLayerModel

    @classmethod
    def of_file(cls, path: Path) -> CaloLayerProblem:
        """The problem of the only layer that a file holds; of the default one, if it holds all."""
        if tensors.holds_tensors(path):
            for layer in calo.LAYERS:
                if tensors.shape_of(path, layer) is not None:
                    return cls(CaloLayerModel(layer=layer))
        return cls(CaloLayerModel())

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        return {
            self.model.layer: TensorSpec(self.model.shape, "MeV", sparse=True),
            calo.ENERGY: TensorSpec((1,), "GeV", role="condition"),
        }

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        file = file_of(path, split)
        return TensorSource(file, self.schema, cache_mb, self._group(file, path))

    def validate(self, path: Path, split: str) -> None:
        file = file_of(path, split)
        tensors.validate(file, self.schema, calo.check_sample, self._group(file, path))

    def _group(self, file: Path, path: Path) -> str:
        """Where the file has its data sets: showers of all layers as published, or one layer as `writer` writes it."""
        if not file.is_file():
            raise InputError(f"{file}: no such file; make it with 'hpcgan data calo --out {path} ...'")
        if tensors.holds_tensors(file):
            return tensors.GROUP
        calo.open_showers(file, PUBLISHED).close()
        return tensors.ROOT

    @contextlib.contextmanager
    def writer(
        self, path: Path, n: int, attributes: Mapping[str, Any], force: bool = False
    ) -> Iterator[Callable[[Sample], None]]:
        if path.suffix != ".h5":
            raise InputError(f"{path}: give a name that ends in .h5")
        said = {"problem": self.name, "segmentation": "x".join(map(str, self.model.shape)), **attributes}
        with tensors.Writer(path.absolute().parent, {path.stem: n}, self.schema, said, force, noun="showers") as writer:
            yield writer.append

    def encode(self, sample: Sample) -> Sample:
        """Deposits in units of `scale_mev`, and log10 of the energy over 10 GeV."""
        deposits = sample[self.model.layer]
        encoded: Sample = {self.model.layer: deposits / deposits.dtype.type(self.model.scale_mev)}
        if calo.ENERGY in sample:
            encoded |= self.encode_conditions({calo.ENERGY: sample[calo.ENERGY]})
        return encoded

    def decode(self, sample: Sample) -> Sample:
        """Deposits in MeV, float32."""
        return {self.model.layer: (sample[self.model.layer] * self.model.scale_mev).astype(np.float32)}

    def encode_conditions(self, conditions: Sample) -> Sample:
        energy = conditions[calo.ENERGY]
        return {calo.ENERGY: np.log10(energy / energy.dtype.type(CENTRE_GEV))}

    def check_conditions(self, conditions: Sample) -> None:
        energy = np.asarray(conditions[calo.ENERGY], np.float64)
        if not (energy > 0).all():
            raise InputError(f"{calo.ENERGY}={energy.min():g} GeV: must be above 0")

    # --- networks --------------------------------------------------------------------------------

    @property
    def networks(self) -> Mapping[str, str]:
        return {"density": "hpcgan.networks.made:Made"}

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
            "response": Observable(total / sample[calo.ENERGY].reshape(-1)),
            "occupancy": Observable(occupancy(image)),
            "width_eta": _of_some(lateral_width(image, grid.eta_centres, "eta"), "mm"),
            "width_phi": _of_some(lateral_width(image, grid.phi_centres, "phi"), "mm"),
            "ratio": _of_some(energy_ratio(image)),
        }

    def score(self, real: Observables, fake: Observables) -> Score:
        """Sum over all observables of -ln p of a two-sample KS test."""
        return ks_score(real, fake, list(real))

    def figures(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[tuple[str, str, Figure]]:
        from hpcgan.problems.calorimeter import layer_figures

        return layer_figures.figures(self, real, fake, weights)

    def samples_figure(self, real: Sample | None, fake: Sample) -> tuple[str, Figure] | None:
        from hpcgan.problems.calorimeter import layer_figures

        made = fake[self.model.layer]
        return layer_figures.images_figure(made[:0] if real is None else real[self.model.layer], made)


def _of_some(values: np.ndarray, unit: str = "") -> Observable:
    """A quantity that not every shower has: NaN where it has not."""
    there = np.isfinite(values)
    return Observable(values[there], there.astype(np.int64), unit)
