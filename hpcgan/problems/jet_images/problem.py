"""Jet images by class: LAGAN (de Oliveira, Paganini and Nachman 2017, arXiv:1701.05927)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from hpcgan.config import Fraction, ModelSection, NonNegative, Positive
from hpcgan.data.layouts.base import Layout
from hpcgan.data.schema import Sample, Schema
from hpcgan.data.source import Source
from hpcgan.errors import InputError
from hpcgan.metrics.observable import Observable
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.files import target_of
from hpcgan.problems.jet_images import files
from hpcgan.problems.jet_images.files import IMAGE, SIGNAL
from hpcgan.problems.jet_images.layout import JETS
from hpcgan.problems.jet_images.quantities import MORE, SCORED, TAILS, more_observables, observables
from hpcgan.problems.jet_images.source import JetSource

PAIR_OPTIONS = ("latent_dim", "dropout", "minibatch_discrimination", "class_weight", "class_flip")
"""Those of a generator and a discriminator, whatever their architecture."""
SIDE_OF_SPLITS = 32
"""Pixels of a side of the image that the multiscale architecture splits, the next power of two."""


class JetsModel(ModelSection):
    """Networks and encoding of the images. The defaults are the published ones.

    A pixel of transverse momentum pT is encoded as (pT / scale_gev)^exponent.
    """

    indifferent: ClassVar[tuple[str, ...]] = (
        "dropout",
        "minibatch_discrimination",
        "class_weight",
        "class_flip",
        "threshold_gev",
    )

    architecture: Literal["lagan", "dcgan", "fc", "hybrid", "multiscale"] = Field(
        "lagan",
        description="lagan: locally connected layers; dcgan: convolutions, whose weights are those of every place; fc: "
        "fully connected layers; hybrid: dcgan and fc together; multiscale: a density that shares an image's pT among "
        "ever smaller cells (method: nll)",
    )
    latent_dim: int = Field(200, ge=1, le=4096, description="length of the noise vector")
    scale_gev: Positive = Field(100.0, description="pT of a pixel that is encoded as 1, GeV")
    exponent: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="power of the encoding")
    threshold_gev: NonNegative = Field(
        0.0,
        description="generated pixels below become 0, GeV; multiscale: pixels below are dark to the density, too",
    )
    hidden_units: int = Field(0, ge=0, le=4096, description="multiscale: units of the two hidden layers of each split")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="share of the discriminator's features that are dropped in training"
    )
    minibatch_discrimination: Literal["local", "global"] = Field(
        "global", description="the discriminator compares an image with those of the rank's own batch, or of all ranks"
    )
    class_weight: NonNegative = Field(
        1.0, description="weight of the loss of telling the class of an image, in both networks' losses"
    )
    class_flip: tuple[Fraction, Fraction] = Field(
        (0.05, 0.09),
        description="probability that the class of a generated image is told wrongly, in the discriminator's update "
        "and in the generator's",
    )

    @model_validator(mode="after")
    def _options_of_the_architecture(self) -> JetsModel:
        if self.architecture != "multiscale":
            if self.hidden_units:
                raise ValueError("model.hidden_units needs model.architecture=multiscale")
            return self
        self.refuse_options_of_pairs(PAIR_OPTIONS)
        if not self.hidden_units:
            raise ValueError("model.architecture=multiscale needs model.hidden_units, e.g. 128")
        if not self.threshold_gev:
            raise ValueError(
                "model.architecture=multiscale needs to know what a lit pixel has at least: set model.threshold_gev, "
                "e.g. 1.0e-10"
            )
        return self

    @property
    def batch_coupling(self) -> dict[str, str]:
        if self.architecture == "multiscale":
            return {}
        return {"minibatch discrimination (of problem jets)": "training.loss to bce, hinge or least_squares"}


class JetsProblem(Problem):
    """Images (25, 25) of transverse momentum around a jet's axis, of boosted W bosons (`signal` 1) and QCD (0)."""

    name: ClassVar[str] = "jets"
    Model: ClassVar[type[JetsModel]] = JetsModel
    methods: ClassVar[Sequence[str]] = ("gan", "nll")
    images: ClassVar[Mapping[str, tuple[bool, bool]]] = {IMAGE: (False, False)}
    layouts: ClassVar[Sequence[Layout]] = (JETS,)
    generators: ClassVar[Mapping[str, str]] = {"jets": "hpcgan.problems.jet_images.generate:JetGenerator"}
    importers: ClassVar[Sequence[str]] = ("hpcgan.problems.jet_images.importing:JetImporter",)
    quantities: ClassVar[Sequence[str]] = SCORED
    more_quantities: ClassVar[Sequence[str]] = MORE
    tails: ClassVar[Sequence[str]] = TAILS
    figures: ClassVar[str] = "hpcgan.problems.jet_images.figures:JetFigures"
    noun: ClassVar[str] = "jets"
    model: JetsModel

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        return files.SCHEMA

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        return JetSource(self.existing(path, split), cache_mb)

    def validate(self, path: Path, split: str) -> None:
        files.validate(self.existing(path, split))

    @contextlib.contextmanager
    def writer(
        self, path: Path, n: int, attributes: Mapping[str, Any], force: bool = False
    ) -> Iterator[Callable[[Sample], None]]:
        target = target_of(path, n, {"problem": self.name, **attributes}, force)
        with files.Writer(target, columns=()) as writer:
            yield writer.append

    def encode(self, sample: Sample) -> Sample:
        images = sample[IMAGE]
        scaled = images * images.dtype.type(1.0 / self.model.scale_gev)
        if self.model.exponent != 1.0:
            scaled = np.power(scaled, images.dtype.type(self.model.exponent))
        return {IMAGE: scaled, **self.encode_conditions(sample)}

    def decode(self, sample: Sample) -> Sample:
        model = self.model
        pt = model.scale_gev * np.power(sample[IMAGE].astype(np.float64), 1.0 / model.exponent)
        return {IMAGE: np.where(pt >= model.threshold_gev, pt, 0.0).astype(np.float32)}

    def encode_conditions(self, conditions: Sample) -> Sample:
        """As it is: `signal`, 0 or 1."""
        return {SIGNAL: conditions[SIGNAL]}

    def check_conditions(self, conditions: Sample) -> None:
        classes = np.asarray(conditions[SIGNAL], np.float64).reshape(-1)
        bad = np.flatnonzero((classes != 0) & (classes != 1))
        if bad.size:
            raise InputError(f"signal = {classes[bad[0]]:g}: must be 1 (boosted W) or 0 (QCD)")

    # --- networks --------------------------------------------------------------------------------

    @property
    def networks(self) -> Mapping[str, str]:
        package = "hpcgan.problems.jet_images"
        if self.model.architecture == "multiscale":
            return {"density": f"{package}.networks_multiscale:Multiscale"}
        return {
            "generator": f"{package}.networks_generator:Generator",
            "discriminator": f"{package}.networks_discriminator:Discriminator",
        }

    @property
    def noise_dim(self) -> int:
        if self.model.architecture == "multiscale":
            # One for the summed pT, and two for each cell that is split.
            return 1 + 2 * (SIDE_OF_SPLITS**2 - 1)
        return self.model.latent_dim

    # --- physics ---------------------------------------------------------------------------------

    def observables(self, sample: Sample) -> Observables:
        """Mass, pT, tau_21 and lit pixels of each image, and its class."""
        of_class = Observable(sample[SIGNAL].astype(np.float64), condition=True)
        return {**observables(sample[IMAGE]), SIGNAL: of_class}

    def more_observables(self, sample: Sample, names: Sequence[str]) -> Observables:
        return more_observables(sample[IMAGE], names)
