"""Pileup: sums of minimum-bias events as whole-detector images (Farrell et al. 2019, section 6)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from hpcgan.data.layouts.base import Layout
from hpcgan.data.meaning import Meaning
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.source import Source
from hpcgan.errors import InputError
from hpcgan.metrics.observable import Observable
from hpcgan.physics import jets
from hpcgan.physics.images import MEV_PER_GEV, image_attributes
from hpcgan.problems.base import Observables
from hpcgan.problems.detector_images import files as image_files
from hpcgan.problems.detector_images.quantities import lattice
from hpcgan.problems.detector_images.rpv import PIXELS, ConditionedModel, RpvProblem
from hpcgan.problems.detector_images.source import ImageSource
from hpcgan.problems.files import file_of, target_of
from hpcgan.problems.pileup import files
from hpcgan.problems.pileup.files import MU_MAX
from hpcgan.problems.pileup.layout import POOL
from hpcgan.problems.pileup.source import SumSource

JET_PT_MIN_GEV = 20.0
"""Jets of pileup alone, far softer than those of a search: a jet of R = 1 collects 35 GeV at mu = 20."""

MEAN_PT_MEV = 17.5e3
"""Summed pT of a minimum-bias event in the image (13 TeV, after the calorimeter's thresholds): sets a unit, no more."""

UNITS_OF_AN_EVENT = 27.7
"""What the detector architecture expects an event's summed pT to be, in its unit."""


class PileupModel(ConditionedModel):
    """Networks and image encoding, as for whole events (`rpv`), and how sums are drawn.

    The defaults are the authors' DCGAN and their intensities, energy / 4e6 MeV, at which pileup is hard to see for a
    network: docs/pileup.md says why, `configs/pileup.yaml` has others.
    """

    mu: int | tuple[int, ...] = Field(
        20, description="minimum-bias events of a sample; several numbers: a condition of the sample"
    )
    counting: Literal["fixed", "poisson"] = Field(
        "fixed", description="a sample has mu events, or a Poisson distributed number of mean mu"
    )
    sums_per_epoch: int = Field(14400, ge=1, description="samples of an epoch; new ones are drawn in each")
    held_out_sums: int = Field(
        4800, ge=2, description="samples of the validation and of the test split, always the same"
    )
    sums_seed: int = Field(1, ge=0, lt=2**63, description="of the draws from the pools")

    @field_validator("mu", mode="before")
    @classmethod
    def _mu_is_a_number_or_several(cls, value: Any) -> Any:
        several = isinstance(value, (list, tuple))
        numbers = list(value) if several else [value]
        if not all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MU_MAX for n in numbers):
            raise ValueError(f"give whole numbers of events from 1 to {MU_MAX}")
        if several and (len(numbers) < 2 or len(set(numbers)) < len(numbers)):
            raise ValueError("a list is for at least two different numbers of events")
        return tuple(sorted(numbers)) if several else value

    @property
    def mus(self) -> tuple[int, ...]:
        """All numbers of events, ascending."""
        return (self.mu,) if isinstance(self.mu, int) else self.mu

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("mu",) if len(self.mus) > 1 else ()

    def encoded_mu(self, mu: np.ndarray) -> np.ndarray:
        """As networks are given it where there are several: -1 for the smallest to 1 for the largest."""
        low, high = self.mus[0], self.mus[-1]
        return ((2.0 * mu - (low + high)) / (high - low)).astype(np.float32)

    @property
    def spectrum_condition(self) -> tuple[str, Sequence[float]] | tuple[()]:
        return ("mu", self.encoded_mu(np.asarray(self.mus)).tolist()) if self.conditions else ()

    @property
    def pt_unit_mev(self) -> float:
        """Such that a mean pileup has as many units as a signal event, for which the architecture was tuned."""
        return MEAN_PT_MEV * float(np.mean(self.mus)) / UNITS_OF_AN_EVENT


class PileupProblem(RpvProblem):
    """Images (64, 64) of the energy of mu minimum-bias events, judged by sums, pixels and soft jets.

    The tests of a score take events for independent. Real sums are not, since they share minimum-bias events: only the
    null band, which allows for that, says what a score means (docs/pileup.md).
    """

    name: ClassVar[str] = "pileup"
    Model: ClassVar[type[PileupModel]] = PileupModel
    layouts: ClassVar[Sequence[Layout]] = (POOL,)
    generators: ClassVar[Mapping[str, str]] = {"pileup": "hpcgan.problems.pileup.generate:PileupGenerator"}
    importers: ClassVar[Sequence[str]] = ()
    quantities: ClassVar[Sequence[str]] = ("total_pt", "occupancy", "pixel_pt", *RpvProblem.quantities)
    more_quantities: ClassVar[Sequence[str]] = tuple(name for name in RpvProblem.more_quantities if name != "occupancy")
    jet_pt_min_gev: ClassVar[float] = JET_PT_MIN_GEV
    model: PileupModel

    @classmethod
    def of_file(cls, path: Path) -> PileupProblem:
        """The problem with the mu that a pool, or a file of generated events, says it is for."""
        opener = files.open_pool if POOL.holds(path) else image_files.open_images
        with opener(path) as file:
            mu = files.stated_mu(file)
        return cls(PileupModel() if mu is None else PileupModel(mu=mu))

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        image = {"hist": TensorSpec((PIXELS, PIXELS), "MeV", meaning=Meaning("MeV", ("eta", "phi")))}
        return {**image, **{name: TensorSpec((), role="condition") for name in self.model.conditions}}

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        """Sums drawn from the pool of a split; of a file with images, these."""
        file = self.existing(path, split)
        if POOL.holds(file):
            return self._sums(file, split)
        _check_images(file)
        return ImageSource(file, cache_mb, self.conditions)

    def _sums(self, file: Path, split: str) -> SumSource:
        model, held_out = self.model, split != "train"
        n = model.held_out_sums if held_out else model.sums_per_epoch
        return SumSource(file, model.mus, n, model.sums_seed, model.counting, held_out)

    def validate(self, path: Path, split: str) -> None:
        file = file_of(path, split)
        if not POOL.holds(file):
            _check_images(file)
            image_files.validate(file)
            return
        self._sums(file, split).close()
        with files.open_pool(file) as events:
            events.announce()
            events.read()

    @contextlib.contextmanager
    def writer(
        self, path: Path, n: int, attributes: Mapping[str, Any], force: bool = False
    ) -> Iterator[Callable[[Sample], None]]:
        of_file = {
            **image_attributes(),
            **({} if self.conditions else {"mu": self.model.mu}),
            **attributes,
            "problem": self.name,
        }
        # Five bytes a lit pixel; at any mu half of the pixels are dark, or nearly.
        names = self.conditions
        with image_files.Writer(target_of(path, n, of_file, force), 12_000, names) as writer:
            yield lambda sample: writer.append(sample["hist"], 0.0, 1.0, 0.0, 0.0, *(sample[name] for name in names))

    def encode_conditions(self, conditions: Sample) -> Sample:
        return {name: self.model.encoded_mu(conditions[name]) for name in self.conditions}

    def check_conditions(self, conditions: Sample) -> None:
        for name in self.conditions:
            for mu in np.unique(conditions[name]).tolist():
                if not 1 <= mu <= MU_MAX:
                    raise InputError(f"mu = {mu:g}: must be from 1 to {MU_MAX}")

    # --- physics ---------------------------------------------------------------------------------

    def observables(self, sample: Sample) -> Observables:
        """Summed pT, lit pixels, pT of lit pixels at the sites of `lattice`, and jets above `JET_PT_MIN_GEV`."""
        images = sample["hist"]
        sech = jets.image_geometry().sech.reshape(PIXELS, PIXELS)
        total: np.ndarray = np.einsum("nij,ij->n", images, sech, dtype=np.float64)
        rows, columns = lattice(images)
        sites = images[np.arange(len(images))[:, None], rows, columns] * sech[rows, columns]
        lit = sites > 0
        return {
            "total_pt": Observable(total / MEV_PER_GEV, unit="GeV"),
            "occupancy": Observable(np.count_nonzero(images, axis=(1, 2)).astype(np.float64)),
            "pixel_pt": Observable(sites[lit] / MEV_PER_GEV, np.count_nonzero(lit, axis=1), "GeV"),
            **super().observables(sample),
        }


def _check_images(file: Path) -> None:
    """Refuse images that say that they are no pileup."""
    with image_files.open_images(file) as images:
        stated = {name: images.text(name) for name in ("problem", "process")}
    for name, ours in (("problem", "pileup"), ("process", "minbias")):
        value = stated[name] or ours
        if value != ours:
            raise InputError(f"{file}: holds events of {name} {value}, not pileup ('hpcgan data pileup' makes a pool)")
