"""CaloGAN: showers in a calorimeter of three layers (Paganini, de Oliveira and Nachman 2018, PRL 120, 042003)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from hpcgan.config import ModelSection, NonNegative
from hpcgan.data.layouts.base import Layout
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.source import Source
from hpcgan.errors import InputError
from hpcgan.metrics.observable import Observable
from hpcgan.physics.calorimeter import N_LAYERS, Segmentation, parse_segmentation
from hpcgan.physics.shower_shapes import shower_shapes
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.calorimeter import files as shower_files
from hpcgan.problems.calorimeter.files import ENERGY, ENERGY_LIMITS, LAYERS
from hpcgan.problems.calorimeter.grids import padded
from hpcgan.problems.calorimeter.layout import SHOWERS
from hpcgan.problems.calorimeter.mesh import mesh_of
from hpcgan.problems.calorimeter.source import LABEL, PARTICLE, PDG, ShowerSource, particles_in
from hpcgan.problems.files import file_of, target_of
from hpcgan.problems.mesh import ShowerMesh
from hpcgan.problems.symmetries import axis, flattened
from hpcgan.suggest import did_you_mean

MEV_PER_GEV = 1000.0

WHOLE = ("total_energy", "response", "depth_weighted", "depth", "shower_depth", "shower_depth_width")
OF_LAYER = ("fraction", "width_eta", "width_phi", "ratio", "occupancy")
QUANTITIES = (*WHOLE, *(f"{name}_{layer}" for name in OF_LAYER for layer in range(N_LAYERS)))
"""What is compared: the paper's shower-shape variables, and `response`, the energy in all cells over that asked for.

Both sides are compared at the same energies; a generator that does not heed them would show in `response`.
"""

UNITS = {"total_energy": "GeV", "depth_weighted": "GeV", "width_eta": "mm", "width_phi": "mm"}
PAIR_OPTIONS = (
    "latent_dim",
    "minibatch_discrimination",
    "energy_mismatch",
    "total_energy",
    "cell_encoding",
    "cell_energies",
    "conditioning",
    "discriminator_hidden",
)
"""Those of a generator and a discriminator."""
ALWAYS = ("total_energy", "response", "depth_weighted", "occupancy")
"""What every shower has; the others take energy in the calorimeter, or in a layer."""


class CaloganModel(ModelSection):
    """The networks. The defaults are the published ones, for the published cells."""

    indifferent: ClassVar[tuple[str, ...]] = (
        "particles",
        "minibatch_discrimination",
        "energy_mismatch",
        "cell_energies",
        "threshold_mev",
    )

    architecture: Literal["calogan", "multiscale"] = Field(
        "calogan",
        description="calogan: locally connected networks, trained adversarially; multiscale: a density that shares a "
        "shower's energy among its layers and ever smaller cells (method: nll)",
    )
    hidden_units: int = Field(0, ge=0, le=4096, description="multiscale: units of the two hidden layers of each split")
    threshold_mev: Annotated[float, Field(gt=0)] = Field(
        0.01, description="multiscale: energy that a lit cell has at least, MeV; cells below are dark to the density"
    )
    particles: tuple[str, ...] = Field(
        (),
        description="gamma, eplus or piplus: files of others are refused; none: whatever the files hold; several: a "
        "condition of the sample, data.path then has a folder for each",
    )
    segmentation: str = Field(
        "published", description="rows x columns (phi x eta) of the three layers, as 'hpcgan data calo' takes them"
    )
    latent_dim: int = Field(1024, ge=1, le=16384, description="length of the noise vector")
    minibatch_discrimination: Literal["local", "global"] = Field(
        "global", description="the discriminator compares a shower with those of the rank's own batch, or of all ranks"
    )
    energy_mismatch: NonNegative = Field(
        0.05, description="weight of the mean |E_tot - E| (GeV) of generated showers in the generator's loss"
    )
    total_energy: Literal["free", "drawn"] = Field(
        "free",
        description="a shower's energy in all cells is left to the network, or drawn from the training showers' of its "
        "energy",
    )
    cell_encoding: Literal["linear", "log"] = Field(
        "linear",
        description="convolutions see the energies of cells in GeV, or ln(1 + 1000 E / E_lit), E_lit being the layer's "
        "mean lit cell",
    )
    cell_energies: Literal["free", "matched"] = Field(
        "free",
        description="layers' and cells' shares of the energy of generated showers are the network's, or mapped, at "
        "every energy of the particle, so that each has the distribution of the training showers'",
    )
    conditioning: Literal["scaled", "joined"] = Field(
        "scaled",
        description="the generator's noise is scaled by the energy, or the energy's logarithm is its last number",
    )
    discriminator_hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (),
        description="widths of layers between the discriminator's features, then with the shares of the layers among "
        "them, and its logit; none: linear, as published",
    )

    @field_validator("particles")
    @classmethod
    def _particles_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in PDG:
                raise ValueError(f"'{name}' is not known; choices: {', '.join(PDG)}{did_you_mean(name, PDG)}")
        if len(set(value)) < len(value):
            raise ValueError("a particle is named twice")
        return tuple(name for name in PDG if name in value)

    @field_validator("segmentation")
    @classmethod
    def _layers_fit_on_each_other(cls, value: str) -> str:
        try:
            shapes = parse_segmentation(value).shapes
        except InputError as error:
            raise ValueError(str(error)) from None
        for before, after in itertools.pairwise(shapes):
            for old, new in zip(before, after, strict=True):
                if old % new and new % old:
                    raise ValueError(
                        f"from layer to layer rows and columns must grow or shrink by whole factors, not {old} to {new}"
                    )
        return value

    @model_validator(mode="after")
    def _options_of_the_architecture(self) -> CaloganModel:
        if self.architecture == "calogan":
            if self.hidden_units:
                raise ValueError("model.hidden_units needs model.architecture=multiscale")
            return self
        self.refuse_options_of_pairs(PAIR_OPTIONS)
        if not self.hidden_units:
            raise ValueError("model.architecture=multiscale needs model.hidden_units, e.g. 128")
        return self

    @property
    def cells(self) -> Segmentation:
        """Cells of the layers."""
        return parse_segmentation(self.segmentation)

    @property
    def shapes(self) -> Sequence[tuple[int, int]]:
        """Rows and columns of each layer's image."""
        return self.cells.shapes

    @property
    def classes(self) -> tuple[float, ...]:
        """PDG numbers of the particles, if there are several."""
        return tuple(PDG[name] for name in self.particles) if len(self.particles) > 1 else ()

    @property
    def batch_coupling(self) -> dict[str, str]:
        if self.architecture == "multiscale":
            return {}
        return {"minibatch discrimination (of problem calogan)": "training.loss to bce, hinge or least_squares"}


class CaloganProblem(Problem):
    """Images `layer_0`, `layer_1`, `layer_2` (phi, eta) in MeV for an `energy` in GeV, judged by shower shapes.

    Of several particles, `particle` is the PDG number of each (22, -11, 211).
    """

    name: ClassVar[str] = "calogan"
    Model: ClassVar[type[CaloganModel]] = CaloganModel
    methods: ClassVar[Sequence[str]] = ("gan", "nll")
    symmetries: ClassVar[Sequence[str]] = ("eta_reflection", "phi_reflection")
    layouts: ClassVar[Sequence[Layout]] = (SHOWERS,)
    generators: ClassVar[Mapping[str, str]] = {"calo": "hpcgan.problems.calorimeter.generate:ShowerGenerator"}
    importers: ClassVar[Sequence[str]] = ("hpcgan.problems.calorimeter.importing:ShowerImporter",)
    quantities: ClassVar[Sequence[str]] = QUANTITIES
    figures: ClassVar[str] = "hpcgan.problems.calorimeter.figures:CaloganFigures"
    model: CaloganModel

    @classmethod
    def of_file(cls, path: Path) -> CaloganProblem:
        """The problem for showers of the segmentation that a file holds."""
        with shower_files.open_showers(path) as file:
            segmentation = str(shower_files.segmentation_of(file))
        return cls(CaloganModel(segmentation=segmentation, particles=particles_in(path)))

    @property
    def mesh(self) -> ShowerMesh | None:
        """Of a single particle: the example does not say which one."""
        return None if self.model.classes else mesh_of(self.model.cells)

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        whole = shower_files.schema_of(self.model.cells)
        schema = {name: whole[name] for name in LAYERS}
        schema[ENERGY] = TensorSpec((), "GeV", role="condition")
        return {**schema, **(LABEL if self.model.classes else {})}

    @property
    def point_conditions(self) -> tuple[str, ...]:
        return (PARTICLE,) if self.model.classes else ()

    def files(self, path: Path, split: str) -> dict[str, Path]:
        """File of each particle, "" for any: in a folder for each of several, unless it is a file with labels."""
        if len(self.model.particles) == 1:
            files = {self.model.particles[0]: file_of(path, split)}
        elif not self.model.classes or path.is_file():
            files = {"": file_of(path, split)}
        else:
            files = {name: path / name / f"{split}.h5" for name in self.model.particles}
        for particle, file in files.items():
            if not file.is_file():
                command = f"hpcgan data calo --particle {particle or 'gamma'} --out {file.parent} ..."
                raise InputError(f"{file}: no such file; make it with '{command}'")
        return files

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        files = self.files(path, split)
        for particle, file in files.items():
            self._check(file, particle)
        return ShowerSource(files, self.model.cells, cache_mb, labelled=self._is_labelled(files))

    def _is_labelled(self, files: Mapping[str, Path]) -> bool:
        """Whether there is one file for several particles, which then must be those of the model.

        Raises
        ------
        InputError
            It is not.
        """
        if not self.model.classes or len(files) > 1:
            return False
        file = files[""]
        held = particles_in(file)
        if not held or not set(held) <= set(self.model.particles):
            raise InputError(
                f"{file}: holds showers of {', '.join(held) or 'a single particle'}, the model is for "
                f"{', '.join(self.model.particles)} (model.particles): give a folder with one for each"
            )
        return True

    def validate(self, path: Path, split: str) -> None:
        files = self.files(path, split)
        self._is_labelled(files)
        for particle, file in files.items():
            self._check(file, particle)
            shower_files.validate(file, self.model.cells)
            with shower_files.open_showers(file) as opened:
                energy = opened.column(ENERGY).reshape(-1)
            low, high = ENERGY_LIMITS
            bad = np.flatnonzero((energy < low) | (energy > high))
            if bad.size:
                raise InputError(
                    f"{file}: {ENERGY} of shower {bad[0]} is {energy[bad[0]]:g} GeV; problem '{self.name}' takes "
                    f"{low:g} to {high:g} GeV"
                )

    def _check(self, file: Path, particle: str) -> None:
        with shower_files.open_showers(file) as opened:
            cells, held = shower_files.segmentation_of(opened), shower_files.particle_of(opened)
        if cells != self.model.cells:
            raise InputError(
                f"{file}: the layers are {cells} cells (phi x eta), the model is for {self.model.cells}; set "
                "model.segmentation, or make coarser ones with 'hpcgan data import --segmentation'"
            )
        if particle and held and held != particle:
            raise InputError(
                f"{file}: holds showers of {held}, needed are those of {particle} (model.particles, data.path)"
            )

    @contextlib.contextmanager
    def writer(
        self, path: Path, n: int, attributes: Mapping[str, Any], force: bool = False
    ) -> Iterator[Callable[[Sample], None]]:
        model, more = self.model, LABEL if self.model.classes else {}
        target = target_of(path, n, {"overflow_means": "nothing: a generator makes none", **attributes}, force)
        particle = model.particles[0] if len(model.particles) == 1 else ""
        with shower_files.Writer(target, model.cells, particle, more) as writer:
            yield lambda sample: writer.append(
                {
                    **shower_files.to_sample(shower_files.images(sample), sample[ENERGY]),
                    **{name: sample[name] for name in more},
                }
            )

    def encode(self, sample: Sample) -> Sample:
        """Energies in the cells in GeV, as the particle's."""
        cells = {name: sample[name] * sample[name].dtype.type(1.0 / MEV_PER_GEV) for name in LAYERS}
        return {**cells, **self.encode_conditions(sample)}

    def decode(self, sample: Sample) -> Sample:
        return {name: (sample[name] * MEV_PER_GEV).astype(np.float32) for name in LAYERS}

    def encode_conditions(self, conditions: Sample) -> Sample:
        """As they are: `energy` in GeV, `particle` by its number."""
        return {name: conditions[name] for name in self.conditions}

    def check_conditions(self, conditions: Sample) -> None:
        low, high = ENERGY_LIMITS
        energy = np.asarray(conditions[ENERGY], np.float64).reshape(-1)
        bad = np.flatnonzero(~((energy >= low) & (energy <= high)))
        if bad.size:
            raise InputError(f"energy = {energy[bad[0]]:g} GeV: must be from {low:g} to {high:g} GeV")
        if self.model.classes:
            for number in np.unique(conditions[PARTICLE]).tolist():
                if number not in self.model.classes:
                    choices = ", ".join(f"{PDG[name]:g} ({name})" for name in self.model.particles)
                    raise InputError(f"particle = {number:g}: there are {choices}")

    def permutations(self, symmetries: Sequence[str], draws: np.ndarray) -> dict[str, np.ndarray]:
        """Reflections of eta (x) and of phi (y), independent, the same in all layers.

        Particles come in along z on the centre of a cube without a magnetic field: both are exact for any cells.
        """
        return {
            name: flattened(
                axis(rows, draws[:, 1], "phi_reflection" in symmetries),
                axis(columns, draws[:, 0], "eta_reflection" in symmetries),
            )
            for name, (rows, columns) in zip(LAYERS, self.model.shapes, strict=True)
        }

    # --- networks --------------------------------------------------------------------------------

    @property
    def networks(self) -> Mapping[str, str]:
        package = "hpcgan.problems.calorimeter"
        if self.model.architecture == "multiscale":
            return {"density": f"{package}.networks_multiscale:Multiscale"}
        return {"generator": f"{package}.networks:Generator", "discriminator": f"{package}.networks:Discriminator"}

    @property
    def noise_dim(self) -> int:
        if self.model.architecture == "multiscale":
            # One for the energy, and two for each layer's share but the last's and for each cell that is split.
            split = sum(padded(rows) * padded(columns) - 1 for rows, columns in self.model.shapes)
            return 1 + 2 * (len(self.model.shapes) - 1 + split)
        return self.model.latent_dim

    # --- physics ---------------------------------------------------------------------------------

    def observables(self, sample: Sample) -> Observables:
        """`QUANTITIES` of each shower; a shower has no width of a layer without energy, say."""
        shapes_of_showers = shower_shapes(shower_files.images(sample), self.model.cells)
        shapes_of_showers["total_energy"] = shapes_of_showers.pop("total")  # the total of a score is something else
        shapes_of_showers["response"] = shapes_of_showers["total_energy"] / sample[ENERGY]
        shapes = {name: _observable(name, shapes_of_showers[name]) for name in QUANTITIES}
        if self.model.classes:
            shapes[PARTICLE] = Observable(sample[PARTICLE].astype(np.float64), condition=True)
        return shapes


def _observable(name: str, values: np.ndarray) -> Observable:
    """One value a shower, or none where it is NaN."""
    kind = name.rstrip("0123456789").rstrip("_")
    unit = UNITS.get(kind, "")
    if kind in ALWAYS:
        return Observable(values, unit=unit)
    has_value = ~np.isnan(values)
    return Observable(values[has_value], has_value.astype(np.int64), unit)
