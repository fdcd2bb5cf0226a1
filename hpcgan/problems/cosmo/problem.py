"""Weak-lensing convergence maps (CosmoGAN, Mustafa et al. 2019, arXiv:1706.02390)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hpcgan.config import ModelSection, Positive
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import Sample, Schema
from hpcgan.errors import InputError
from hpcgan.metrics.observable import Observable
from hpcgan.physics import lognormal
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.cosmo.generate import SIDES, map_schema
from hpcgan.problems.symmetries import axis, flattened

_NO_SIDE = f"maps must be square, with a side that is a multiple of {SIDES.step} from {SIDES[0]} to {SIDES[-1]}"


class CosmoModel(ModelSection):
    """Networks and encoding of the maps. The defaults are CosmoGAN's.

    A pixel of convergence kappa is encoded as kappa / (kappa + 2 shift), which is tanh(ln(1 + kappa / shift) / 2).
    """

    side: int = Field(
        lognormal.SIDE, ge=SIDES[0], le=SIDES[-1], multiple_of=SIDES.step, description="pixels along a side"
    )
    latent_dim: int = Field(64, ge=1, le=4096, description="length of the noise vector")
    filters: int = Field(
        64, ge=1, le=1024, description="f; channels are 8f to f in the generator, f to 6f in the discriminator"
    )
    shift: Positive = Field(lognormal.SHIFT, description="no pixel may be below minus this convergence")
    discriminator_normalisation: Literal["batch", "none", "layer", "spectral"] = Field(
        "batch", description="of the discriminator's layers (batch, layer), or of its weights (spectral)"
    )

    @property
    def batch_coupling(self) -> dict[str, str]:
        if self.discriminator_normalisation == "batch":
            return {"model.discriminator_normalisation=batch": "model.discriminator_normalisation=layer (or none)"}
        return {}


class CosmoProblem(Problem):
    """Maps (side, side) of convergence over 12 square degrees, judged by pixel intensities and power."""

    name: ClassVar[str] = "cosmo"
    Model: ClassVar[type[CosmoModel]] = CosmoModel
    symmetries: ClassVar[Sequence[str]] = ("x_reflection", "y_reflection", "transpose", "shift")
    mirrors: ClassVar[Sequence[str]] = ("x_reflection", "y_reflection", "transpose")
    images: ClassVar[Mapping[str, tuple[bool, bool]]] = {"kappa": (True, True)}
    networks: ClassVar[Mapping[str, str]] = {
        "generator": "hpcgan.problems.cosmo.networks:Generator",
        "discriminator": "hpcgan.problems.cosmo.networks:Discriminator",
    }
    generators: ClassVar[Mapping[str, str]] = {"cosmo": "hpcgan.problems.cosmo.generate:CosmoGenerator"}
    figures: ClassVar[str] = "hpcgan.problems.cosmo.figures:CosmoFigures"
    model: CosmoModel

    @classmethod
    def of_file(cls, path: Path) -> CosmoProblem:
        """The problem for maps of the size that a file holds."""
        shape = tensors.shape_of(path, "kappa") or (0,)
        side = shape[0] if shape == (shape[0], shape[0]) else 0
        return cls(CosmoModel(side=side) if side in SIDES else CosmoModel())

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        return map_schema(self.model.side)

    @property
    def file_attributes(self) -> dict[str, Any]:
        return {"area_deg2": lognormal.AREA_DEG2, "shift": self.model.shift}

    def group_of(self, file: Path) -> str:
        shape = tensors.shape_of(file, "kappa")
        if shape is not None and len(shape) == 2 and shape != self.schema["kappa"].shape:
            have, want = " x ".join(map(str, shape)), f"{self.model.side} x {self.model.side}"
            hint = f"set model.side={shape[0]}" if shape == (shape[0],) * 2 and shape[0] in SIDES else _NO_SIDE
            raise InputError(f"{file}: holds maps of {have} pixels, the model is for {want}; {hint}")
        return super().group_of(file)

    def check_samples(self, sample: Sample, path: str, first: int) -> None:
        maps, shift = sample["kappa"], self.model.shift
        if maps.min() < -shift * (1 + 1e-6):  # the shift itself in float32 may be a little less
            lowest = maps.reshape(len(maps), -1).min(axis=1)
            bad = int(lowest.argmin())
            raise InputError(
                f"{path}: map {first + bad} holds a convergence of {lowest[bad]:g}, below -model.shift = -{shift:g}; "
                "set model.shift to more than that"
            )

    def encode(self, sample: Sample) -> Sample:
        """Convergence to kappa / (kappa + 2 shift) = tanh(ln(1 + kappa / shift) / 2).

        This maps -shift, 0, infinity to -1, 0, 1, and a lognormal field to the tanh of half a Gaussian one: what a
        generator with tanh at its end has to make before it is the Gaussian field. (The form 2x / (x + a) - 1 of
        Rodriguez et al., arXiv:1801.09070, for x = kappa + shift and a = shift.)
        """
        kappa = sample["kappa"]
        return {"kappa": kappa / (kappa + kappa.dtype.type(2.0 * self.model.shift))}

    def decode(self, sample: Sample) -> Sample:
        """Back to convergence: 2 shift x / (1 - x), float32, for x in [-1, 1].

        A tanh that has rounded to 1, which stands for infinity, is taken for the number below 1.
        """
        x = np.minimum(sample["kappa"].astype(np.float64), 1.0 - 2.0**-24)
        return {"kappa": (2.0 * self.model.shift * x / (1.0 - x)).astype(np.float32)}

    def permutations(self, symmetries: Sequence[str], draws: np.ndarray) -> dict[str, np.ndarray]:
        """Reflections of either axis, exchange of the axes, and periodic shifts by whole pixels, all independent.

        Together the first three make the eight symmetries of a square, rotations by 90 degrees included. `shift` holds
        for periodic maps, as `hpcgan data cosmo` makes them, not for pieces cut out of larger ones.
        """
        side = self.model.side
        x, y = (axis(side, draws[:, i], f"{name}_reflection" in symmetries) for i, name in enumerate("xy"))
        if "shift" in symmetries:
            by = (draws[:, 3:4] * side**2).astype(np.int32)  # one of all the pairs of shifts
            x, y = (x + by // side) % side, (y + by % side) % side
        cells = flattened(x, y)
        if "transpose" in symmetries:
            exchanged = cells.reshape(-1, side, side).transpose(0, 2, 1).reshape(cells.shape)
            cells = np.where(draws[:, 2:3] < 0.5, exchanged, cells)
        return {"kappa": cells}

    # --- networks --------------------------------------------------------------------------------

    @property
    def noise_dim(self) -> int:
        return self.model.latent_dim

    # --- physics ---------------------------------------------------------------------------------

    def observables(self, sample: Sample) -> Observables:
        """Pixel intensities at `lognormal.pixel_sites`, and the power of each map in each band of multipoles."""
        maps = sample["kappa"]
        rows, columns = lognormal.pixel_sites(self.model.side)
        pixels = maps[:, rows, columns].astype(np.float64)
        observables = {"pixel_intensity": Observable(pixels.ravel(), np.full(len(maps), pixels.shape[1]))}
        for (low, high), power in lognormal.band_powers(maps).items():
            observables[f"power_l{low}-{high}"] = Observable(power)
        return observables
