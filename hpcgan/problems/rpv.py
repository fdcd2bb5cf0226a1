"""RPV-SUSY whole-detector images (Farrell et al. 2019, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hpcgan.config import Positive, Section
from hpcgan.data import hdf5
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.source import ImageSource, Source
from hpcgan.errors import InputError
from hpcgan.metrics.ks import ks_score
from hpcgan.metrics.observable import Observable, Score
from hpcgan.physics import jets
from hpcgan.problems.base import Observables, Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = 64
QUANTITIES = ("jet_multiplicity", "summed_jet_mass", "jet_pt")


class RpvModel(Section):
    """Networks and image encoding; the defaults are the authors' except where the README says otherwise."""

    latent_dim: int = Field(64, ge=1, le=4096, description="length of the noise vector")
    filters: int = Field(16, ge=1, le=1024, description="f; layers have f, 2f, 4f and 8f channels")
    scale_mev: Positive = Field(4.0e6, description="pixel energy that is encoded as 1, MeV")
    threshold_mev: Annotated[float, Field(ge=0)] = Field(500.0, description="generated pixels below become 0, MeV")
    exponent: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="encoded = (energy / scale)^exponent")
    normalisation: Literal["batch", "none"] = "batch"
    phi_padding: Literal["zero", "circular"] = Field("zero", description="edges of the phi axis in convolutions")

    @property
    def encoded_threshold(self) -> float:
        """The threshold as the networks see it."""
        return float((self.threshold_mev / self.scale_mev) ** self.exponent)


class RpvProblem(Problem):
    """Images (64, 64) of calorimeter energy over eta and phi, judged by jets."""

    name: ClassVar[str] = "rpv"
    Model: ClassVar[type[RpvModel]] = RpvModel
    symmetries: ClassVar[Sequence[str]] = ("eta_reflection", "phi_reflection", "phi_rotation")
    model: RpvModel

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        return {"hist": TensorSpec((PIXELS, PIXELS), "MeV")}

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        file = path if path.is_file() else path / f"{split}.h5"
        if not file.is_file():
            raise InputError(f"{file}: no such file; make it with 'hpcgan data rpv --out {path} ...'")
        return ImageSource(file, cache_mb)

    def validate(self, path: Path, split: str) -> None:
        file = path if path.is_file() else path / f"{split}.h5"
        hdf5.validate(file)

    def write(self, path: Path, sample: Sample, attributes: Mapping[str, Any]) -> None:
        hdf5.write_images(path, sample["hist"], attributes)

    def encode(self, sample: Sample) -> Sample:
        scaled = sample["hist"] / np.float32(self.model.scale_mev)
        return {"hist": scaled if self.model.exponent == 1.0 else scaled**self.model.exponent}

    def decode(self, sample: Sample) -> Sample:
        x = sample["hist"]
        linear = x if self.model.exponent == 1.0 else x ** (1.0 / self.model.exponent)
        return {"hist": (linear * self.model.scale_mev).astype(np.float32)}

    def augment(self, sample: Sample, symmetries: Sequence[str], draws: np.ndarray) -> Sample:
        """Reflections in eta and phi, and rotations in phi by whole pixels, all independent."""
        images = sample["hist"]
        index = np.broadcast_to(np.arange(PIXELS), (len(images), PIXELS))
        eta = phi = index
        if "eta_reflection" in symmetries:
            eta = np.where(draws[:, 0:1] < 0.5, PIXELS - 1 - eta, eta)
        if "phi_reflection" in symmetries:
            phi = np.where(draws[:, 1:2] < 0.5, PIXELS - 1 - phi, phi)
        if "phi_rotation" in symmetries:
            phi = (phi + (draws[:, 2:3] * PIXELS).astype(np.int64)) % PIXELS
        rows = np.arange(len(images))[:, None, None]
        return {"hist": images[rows, eta[:, :, None], phi[:, None, :]]}

    # --- networks --------------------------------------------------------------------------------

    @property
    def networks(self) -> Mapping[str, str]:
        return {
            "generator": "hpcgan.models.dcgan:Generator",
            "discriminator": "hpcgan.models.dcgan:Discriminator",
        }

    @property
    def latent_dim(self) -> int:
        return self.model.latent_dim

    # --- physics ---------------------------------------------------------------------------------

    def observables(self, sample: Sample) -> Observables:
        found = jets.jet_quantities(sample["hist"])
        return {
            "jet_multiplicity": Observable(found["jet_multiplicity"]),
            "summed_jet_mass": Observable(found["summed_jet_mass"]),
            "jet_pt": Observable(found["jet_pt"], found["jet_multiplicity"]),
        }

    def score(self, real: Observables, fake: Observables) -> Score:
        """Sum over `QUANTITIES` of -ln p of a two-sample KS test (paper, section 4)."""
        return ks_score(real, fake, QUANTITIES)

    def figures(self, real: Sample, fake: Sample) -> list[tuple[str, str, Figure]]:
        from hpcgan.problems import rpv_figures

        return rpv_figures.figures(real, fake)
