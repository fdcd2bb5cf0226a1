"""Images of jets: 25 x 25 pixels around the jet's axis, transverse momentum in GeV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from hpcgan.config import ModelSection
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.errors import InputError
from hpcgan.metrics.observable import Observable
from hpcgan.problems.base import Observables, Problem

SIDE = 25
SCHEMA: Schema = {"jet": TensorSpec((SIDE, SIDE), "GeV", sparse=True)}
SCALE_GEV = 100.0
"""A pixel of this pT is encoded as 1."""


class Jets25Model(ModelSection):
    """The networks: the `model:` section of a configuration."""

    latent_dim: int = Field(16, ge=1, le=1024, description="length of the noise vector")
    filters: int = Field(16, ge=1, le=1024, description="f; layers have f and 2f channels")
    threshold_gev: float = Field(0.1, ge=0, description="generated pixels below become 0, GeV")


class Jets25Problem(Problem):
    """Images (25, 25) of the pT of a jet, judged by its pT, width and number of lit pixels."""

    name: ClassVar[str] = "jets25"
    Model: ClassVar[type[Jets25Model]] = Jets25Model
    networks: ClassVar[Mapping[str, str]] = {
        "generator": "jets25.networks:Generator",
        "discriminator": "jets25.networks:Discriminator",
    }
    figures: ClassVar[str] = "jets25.figures:Jets25Figures"
    generators: ClassVar[Mapping[str, str]] = {"jets25": "jets25.generate:Jets25Generator"}
    symmetries: ClassVar[Sequence[str]] = ("transpose",)
    mirrors: ClassVar[Sequence[str]] = ("transpose",)
    images: ClassVar[Mapping[str, tuple[bool, bool]]] = {"jet": (False, False)}
    model: Jets25Model

    @property
    def schema(self) -> Schema:
        return SCHEMA

    def check_samples(self, sample: Sample, path: str, first: int) -> None:
        negative = np.flatnonzero((sample["jet"] < 0).any(axis=(1, 2)))
        if negative.size:
            raise InputError(f"{path}: jet {first + negative[0]} has a pixel of negative pT")

    def encode(self, sample: Sample) -> Sample:
        return {"jet": np.sqrt(sample["jet"] / np.float32(SCALE_GEV))}

    def decode(self, sample: Sample) -> Sample:
        return {"jet": (SCALE_GEV * sample["jet"].astype(np.float64) ** 2).astype(np.float32)}

    def permutations(self, symmetries: Sequence[str], draws: np.ndarray) -> dict[str, np.ndarray]:
        cells = np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE)
        exchanged = draws[:, 0] < 0.5
        return {"jet": np.where(exchanged[:, None], cells.T.ravel(), cells.ravel())}

    @property
    def noise_dim(self) -> int:
        return self.model.latent_dim

    def observables(self, sample: Sample) -> Observables:
        jets = sample["jet"].astype(np.float64)
        return {
            "jet_pt": Observable(jets.sum(axis=(1, 2)), unit="GeV"),
            "lit_pixels": Observable(np.count_nonzero(jets, axis=(1, 2)).astype(np.float64)),
            "width": width(jets),
        }


def width(jets: np.ndarray) -> Observable:
    """Mean distance of the pT from the axis, in pixels; a jet without pT has none."""
    distance = np.hypot(*(np.indices((SIDE, SIDE)) - SIDE // 2))
    pt = jets.sum(axis=(1, 2))
    lit = pt > 0
    values = (jets[lit] * distance).sum(axis=(1, 2)) / pt[lit]
    return Observable(values, counts=lit.astype(np.int64), unit="pixels")
