"""RPV-SUSY whole-detector images (Farrell et al. 2019, sections 3 and 4)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from hpcgan.config import ModelSection, Positive
from hpcgan.data.layouts.base import Layout
from hpcgan.data.meaning import Meaning
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.source import Source
from hpcgan.errors import InputError
from hpcgan.metrics.observable import Observable
from hpcgan.physics import images, jets
from hpcgan.physics.detector import ATLAS
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.detector_images import files
from hpcgan.problems.detector_images.layout import IMAGES
from hpcgan.problems.detector_images.quantities import SCORED, TAILS, more_observables
from hpcgan.problems.detector_images.source import ImageSource
from hpcgan.problems.files import file_of, target_of
from hpcgan.problems.symmetries import axis, flattened

PIXELS = 64
NOISE_SIZES = (4, 8, 16, 32)  # of the detector architecture
DETECTOR_OPTIONS = (
    "upsampling",
    "pixel_noise",
    "pixel_channels",
    "pooled_pt",
    "pooled_mass",
    "minibatch_stddev",
    "hidden_units",
    "total_pt",
    "pixel_pt",
)
SPLIT_OPTIONS = ("hidden_units", "total_pt")
"""Those that the multiscale architecture has, too."""
PAIR_OPTIONS = (
    "latent_dim",
    "filters",
    "normalisation",
    "discriminator_normalisation",
    "phi_padding",
    "conditioning",
)
"""Those of a generator and a discriminator, whatever their architecture."""
MASSES = ("mGlu", "mNeu")


class RpvModel(ModelSection):
    """Networks and image encoding. The defaults are the authors' DCGAN.

    A pixel of energy E is encoded as (E / scale_mev)^exponent, or with `intensity: pt` as
    (E / cosh(eta) / scale_mev)^exponent.
    """

    indifferent: ClassVar[tuple[str, ...]] = ("pixel_pt",)

    architecture: Literal["dcgan", "detector", "multiscale"] = Field(
        "dcgan",
        description="dcgan: the authors'; detector: ours; multiscale: a density that shares an event's pT among ever "
        "smaller cells (method: nll)",
    )
    latent_dim: int = Field(64, ge=1, le=4096, description="length of the noise vector")
    filters: int = Field(16, ge=1, le=1024, description="f; layers have f, 2f, 4f and 8f channels")
    intensity: Literal["energy", "pt"] = Field("energy", description="what a pixel encodes")
    scale_mev: Positive = Field(4.0e6, description="what is encoded as 1, MeV")
    exponent: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="power of the encoding")
    threshold_mev: Annotated[float, Field(ge=0)] = Field(500.0, description="generated pixels below become 0, MeV")
    normalisation: Literal["batch", "none"] = Field("batch", description="of the layers of both networks")
    discriminator_normalisation: Literal["batch", "none", "layer", "spectral"] | None = Field(
        None,
        description="of the discriminator's layers (batch, layer), or of its weights (spectral); null: dcgan: what "
        "normalisation says, detector: none",
    )
    phi_padding: Literal["zero", "circular"] = Field("zero", description="edges of the phi axis in convolutions")
    upsampling: Literal["transposed", "nearest"] = Field(
        "transposed", description="detector: how the generator doubles the size"
    )
    pixel_noise: bool = Field(False, description="detector: noise images at every resolution of the generator")
    pixel_channels: int = Field(
        0,
        ge=0,
        le=1024,
        description="detector: channels of one more layer of the generator, at full resolution, whose pixels are lit "
        "at random, by the calorimeters of hpcgan's detector; 0: none",
    )
    pooled_pt: bool = Field(False, description="detector: the discriminator sees pT summed over growing windows")
    pooled_mass: bool = Field(False, description="detector: with pooled_pt, also the invariant mass of each window")
    minibatch_stddev: bool = Field(False, description="detector: the discriminator sees the spread of a batch")
    hidden_units: int = Field(
        0,
        ge=0,
        le=4096,
        description="detector: units of two layers between sums over the image and the discriminator's logit, 0: none; "
        "multiscale: units of the two hidden layers of each split",
    )

    total_pt: Literal["free", "drawn"] = Field(
        "free",
        description="detector: an event's summed pT is left to the network, or drawn from the training events'",
    )

    pixel_pt: Literal["free", "matched"] = Field(
        "free",
        description="detector: the pT of lit pixels of generated events is left to the network, or mapped, at every "
        "|eta|, so that its spectrum is that of the training events",
    )

    @model_validator(mode="after")
    def _options_of_the_architecture(self) -> RpvModel:
        own = {"dcgan": (), "multiscale": SPLIT_OPTIONS, "detector": DETECTOR_OPTIONS}[self.architecture]
        for option in DETECTOR_OPTIONS:
            if option not in own and getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"model.{option} needs model.architecture=detector")
        if self.architecture == "multiscale":
            self.refuse_options_of_pairs(PAIR_OPTIONS)
            if not self.hidden_units:
                raise ValueError("model.architecture=multiscale needs model.hidden_units, e.g. 128")
            if self.total_pt != "drawn":
                raise ValueError(
                    "model.architecture=multiscale shares a summed pT that is drawn: set model.total_pt=drawn"
                )
        if self.pixel_channels and not self.pixel_noise:
            raise ValueError("model.pixel_channels needs model.pixel_noise=true")
        if self.pixel_pt == "matched" and self.conditions and not self.spectrum_condition:
            raise ValueError(
                "model.pixel_pt=matched needs to know what conditions there are, but those "
                f"({', '.join(self.conditions)}) are the data's: leave it at free"
            )
        if self.pooled_mass and not self.pooled_pt:
            raise ValueError("model.pooled_mass needs model.pooled_pt=true")
        if self.architecture == "detector" and self.discriminator_normalisation in ("batch", "layer"):
            raise ValueError(
                f"model.discriminator_normalisation={self.discriminator_normalisation} needs model.architecture=dcgan; "
                "the detector's discriminator takes none or spectral"
            )
        return self

    @property
    def batch_coupling(self) -> dict[str, str]:
        settings = {}
        if self.architecture == "dcgan":
            if (self.discriminator_normalisation or self.normalisation) == "batch":
                is_own = self.discriminator_normalisation is not None
                key = "model.discriminator_normalisation" if is_own else "model.normalisation"
                settings[f"{key}=batch"] = "model.discriminator_normalisation=layer (or none)"
        elif self.minibatch_stddev:
            settings["model.minibatch_stddev=true"] = "model.minibatch_stddev=false"
        return settings

    @property
    def noise_intolerance(self) -> dict[str, str]:
        # Logarithms of sums over pixels, or a broken power of each.
        if self.architecture == "dcgan":
            return {}
        settings = {}
        if self.pooled_pt:
            settings["model.pooled_pt=true"] = "model.pooled_pt=false"
        if self.hidden_units:
            settings[f"model.hidden_units={self.hidden_units}"] = "model.hidden_units=0"
        if abs(1.0 / self.exponent - round(1.0 / self.exponent)) > 1e-9:
            settings[f"model.exponent={self.exponent:g}"] = "model.exponent to 1 over a whole number"
        return settings

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions that the generator is given beside the noise."""
        return ()

    @property
    def channel_conditions(self) -> tuple[str, ...]:
        """Conditions that the discriminator sees as constant channels of the image."""
        return ()

    @property
    def projected_conditions(self) -> tuple[str, ...]:
        """Conditions that the discriminator multiplies with its features."""
        return ()

    @property
    def spectrum_condition(self) -> tuple[str, Sequence[float]] | tuple[()]:
        """Name and encoded values, ascending, of the condition that spectra depend on, where they are known."""
        return ()

    @property
    def encoded_threshold(self) -> np.ndarray:
        """The threshold as the networks see it: a scalar, or (64, 1) where it depends on eta."""
        threshold = self.threshold_mev / self.per_energy
        return np.asarray((threshold / self.scale_mev) ** self.exponent)

    @property
    def least_pt_gev(self) -> np.ndarray:
        """The threshold as transverse momentum of each row of pixels, (64,), GeV."""
        return self.threshold_mev / images.MEV_PER_GEV / np.cosh(jets.image_geometry().eta)

    @property
    def encoded_thresholds(self) -> np.ndarray:
        """Of the electromagnetic and of the hadronic calorimeter, as the networks see them, (2, 64, 1).

        The latter is that of `hpcgan.physics.detector`: 3.8 GeV up to |eta| = 1.7, 2 GeV beyond, where noise decides.
        """
        edges = np.linspace(*images.ETA_RANGE, PIXELS + 1)
        hadronic = images.MEV_PER_GEV * ATLAS.hcal.least_energy(edges[:-1], edges[1:])[:, None]
        encoded = (hadronic / self.per_energy / self.scale_mev) ** self.exponent
        return np.stack(np.broadcast_arrays(self.encoded_threshold, encoded))

    @property
    def per_energy(self) -> np.ndarray:
        """Energy over what a pixel encodes: 1, or cosh(eta) as (64, 1)."""
        return np.cosh(jets.image_geometry().eta)[:, None] if self.intensity == "pt" else np.ones(())

    @property
    def linear_to_pt(self) -> np.ndarray:
        """PT in units of `pt_unit_mev` over (encoded intensity)^(1/exponent), as (64, 1)."""
        cosh = np.cosh(jets.image_geometry().eta)[:, None]
        return self.scale_mev / self.pt_unit_mev * self.per_energy / cosh

    @property
    def pt_unit_mev(self) -> float:
        """Transverse momentum that the detector architecture counts as 1, MeV; an event should have some 28 of it."""
        return 1e5

    @property
    def light_cone(self) -> np.ndarray:
        """(E + pz, E - pz, px, py) over pT of massless pixels, (64, 64, 4)."""
        geometry = jets.image_geometry()
        eta, phi = np.meshgrid(geometry.eta, geometry.phi, indexing="ij")
        return np.stack([np.exp(eta), np.exp(-eta), np.cos(phi), np.sin(phi)], axis=-1)

    @property
    def total_pt_knots(self) -> int:
        """Entries of the table of quantiles of the summed pT."""
        return 1025

    @property
    def absolute_eta(self) -> np.ndarray:
        """|eta| of the pixel rows in units of the largest, (64, 1)."""
        return np.abs(jets.image_geometry().eta)[:, None] / images.ETA_RANGE[1]


class ConditionedModel(RpvModel):
    """The same networks with the conditions that a subclass names in `conditions`."""

    conditioning: Literal["channels", "projection"] = Field(
        "channels",
        description="the discriminator sees conditions as constant channels, or multiplies them with its features "
        "(Miyato and Koyama, arXiv:1802.05637)",
    )

    @property
    def channel_conditions(self) -> tuple[str, ...]:
        return self.conditions if self.conditioning == "channels" else ()

    @property
    def projected_conditions(self) -> tuple[str, ...]:
        return self.conditions if self.conditioning == "projection" else ()


class RpvProblem(Problem):
    """Images (64, 64) of calorimeter energy over eta and phi, judged by jets."""

    name: ClassVar[str] = "rpv"
    Model: ClassVar[type[RpvModel]] = RpvModel
    methods: ClassVar[Sequence[str]] = ("gan", "nll")
    symmetries: ClassVar[Sequence[str]] = ("eta_reflection", "phi_reflection", "phi_rotation")
    mirrors: ClassVar[Sequence[str]] = ("eta_reflection", "phi_reflection")
    images: ClassVar[Mapping[str, tuple[bool, bool]]] = {"hist": (False, True)}
    layouts: ClassVar[Sequence[Layout]] = (IMAGES,)
    generators: ClassVar[Mapping[str, str]] = {
        "rpv": "hpcgan.problems.detector_images.generate:RpvGenerator",
        "qcd": "hpcgan.problems.detector_images.generate:QcdGenerator",
    }
    importers: ClassVar[Sequence[str]] = ("hpcgan.problems.detector_images.importing:DelphesImporter",)
    quantities: ClassVar[Sequence[str]] = ("jet_multiplicity", "summed_jet_mass", "jet_pt")
    more_quantities: ClassVar[Sequence[str]] = SCORED
    tails: ClassVar[Sequence[str]] = TAILS
    figures: ClassVar[str] = "hpcgan.problems.detector_images.figures:ImageFigures"
    #: Jets below do not count.
    jet_pt_min_gev: ClassVar[float] = jets.JET_PT_MIN_GEV
    model: RpvModel

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        return {"hist": TensorSpec((PIXELS, PIXELS), "MeV", meaning=Meaning("MeV", ("eta", "phi")))}

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        file = self.existing(path, split)
        self._check_kind(file)
        return ImageSource(file, cache_mb, self.conditions)

    def validate(self, path: Path, split: str) -> None:
        file = file_of(path, split)
        self._check_kind(file)
        files.validate(file)

    def _check_kind(self, file: Path) -> None:
        """Refuse images that say that they are no hard events."""
        with files.open_images(file) as images:
            kind = images.text("problem")
        if kind == "pileup":
            raise InputError(f"{file}: holds events of problem {kind}, not {self.name} (attribute problem)")

    @contextlib.contextmanager
    def writer(
        self, path: Path, n: int, attributes: Mapping[str, Any], force: bool = False
    ) -> Iterator[Callable[[Sample], None]]:
        target = target_of(path, n, {**images.image_attributes(), **attributes}, force)
        with files.Writer(target) as writer:
            # Generated events are signal of weight one; a model without conditions knows nothing of masses.
            yield lambda sample: writer.append(
                sample["hist"], 1.0, 1.0, *(sample.get(name, np.full((), np.nan)) for name in MASSES)
            )

    def encode(self, sample: Sample) -> Sample:
        model = self.model
        scaled = sample["hist"] * (1.0 / (model.scale_mev * model.per_energy)).astype(sample["hist"].dtype)
        return {"hist": _power(scaled, model.exponent), **self.encode_conditions(sample)}

    def decode(self, sample: Sample) -> Sample:
        model = self.model
        linear = _power(sample["hist"].astype(np.float64), 1.0 / model.exponent)
        return {"hist": (linear * (model.scale_mev * model.per_energy)).astype(np.float32)}

    def permutations(self, symmetries: Sequence[str], draws: np.ndarray) -> dict[str, np.ndarray]:
        """Reflections in eta and phi, and rotations in phi by whole pixels, all independent."""
        eta, phi = (
            axis(PIXELS, draws[:, i], f"{name}_reflection" in symmetries) for i, name in enumerate(("eta", "phi"))
        )
        if "phi_rotation" in symmetries:
            phi = (phi + (draws[:, 2:3] * PIXELS).astype(np.int32)) % PIXELS
        return {"hist": flattened(eta, phi)}

    # --- networks --------------------------------------------------------------------------------

    @property
    def networks(self) -> Mapping[str, str]:
        module = f"hpcgan.problems.detector_images.networks_{self.model.architecture}"
        if self.model.architecture == "multiscale":
            return {"density": f"{module}:Multiscale"}
        return {"generator": f"{module}:Generator", "discriminator": f"{module}:Discriminator"}

    @property
    def noise_dim(self) -> int:
        if self.model.architecture == "multiscale":
            # One for the summed pT, and two for each cell that is split, up to 64x32 of them.
            return 1 + 2 * (PIXELS * PIXELS - 1)
        images = sum(size * size for size in NOISE_SIZES) if self.model.pixel_noise else 0
        # One for the features at full resolution, and whether a pixel of either calorimeter is lit.
        images += (1 + 2) * PIXELS * PIXELS if self.model.pixel_channels else 0
        return self.model.latent_dim + images

    # --- physics ---------------------------------------------------------------------------------

    def observables(self, sample: Sample) -> Observables:
        clustered = jets.cluster(sample["hist"], self.jet_pt_min_gev)
        return {
            "jet_multiplicity": Observable(clustered.counts.astype(np.float64)),
            "summed_jet_mass": Observable(clustered.summed_mass, unit="GeV"),
            "jet_pt": Observable(clustered.pt, clustered.counts, unit="GeV"),
            **{
                name: Observable(sample[name].astype(np.float64), unit=self.schema[name].unit, condition=True)
                for name in self.conditions
            },
        }

    def more_observables(self, sample: Sample, names: Sequence[str]) -> Observables:
        return more_observables(sample["hist"], names, self.jet_pt_min_gev)


def _power(x: np.ndarray, exponent: float) -> np.ndarray:
    """x^exponent, quickly for the exponents in use."""
    if exponent == 0.5:
        return np.sqrt(x)
    if abs(exponent - 1 / 3) < 1e-9:
        return np.cbrt(x)
    whole = round(exponent)
    if whole < 1 or abs(exponent - whole) > 1e-9:
        return np.power(x, x.dtype.type(exponent))
    y = x
    for _ in range(whole - 1):
        y = y * x
    return y
