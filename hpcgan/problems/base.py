"""The interface of a problem.

A problem is the only place that knows what the data mean. The engine asks it for data, networks by
name, observables and a score, and never looks inside. Problem modules import no TensorFlow: networks
are named as `module:function` and resolved by the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from hpcgan.data.schema import Sample, Schema, no_samples
from hpcgan.metrics import points
from hpcgan.metrics.ks import ks_score_by_point
from hpcgan.metrics.observable import Observable, Score
from hpcgan.problems.conditions import Conditions
from hpcgan.problems.discovery import PROBLEMS
from hpcgan.problems.files import ProblemFiles
from hpcgan.problems.mesh import ShowerMesh
from hpcgan.problems.symmetries import Symmetries

Observables = dict[str, Observable]


class Problem(ProblemFiles, Conditions, Symmetries, ABC):
    """One scientific data set with its networks and its physics.

    What is here, each problem says. The three base classes have a default for all that is in them: where samples lie in
    files (`hpcgan.problems.files`), conditions, and symmetries.

    Parameters
    ----------
    model : BaseModel
        The validated `model:` section of the configuration, an instance of `Model`.
    """

    #: Name in the configuration.
    name: ClassVar[str]
    #: pydantic schema of the `model:` section.
    Model: ClassVar[type[BaseModel]]
    #: Methods that train its networks, by their names in the configuration; the first is the default.
    methods: ClassVar[Sequence[str]] = ("gan",)
    #: Observables that the score adds up, in this order; () for all.
    quantities: ClassVar[Sequence[str]] = ()
    #: Names of `more_observables` that a report scores besides, each by itself.
    more_quantities: ClassVar[Sequence[str]] = ()
    #: Observables, or more observables, whose largest values a report counts.
    tails: ClassVar[Sequence[str]] = ()
    #: Tensors of a sample that are images (rows, columns), with whether rows and columns go around; {} for none.
    images: ClassVar[Mapping[str, tuple[bool, bool]]] = {}
    #: `module:class` of its `hpcgan.problems.figures.Figures`; "" for none.
    figures: ClassVar[str] = ""

    def __init__(self, model: BaseModel) -> None:
        self.model = model

    @classmethod
    def of_file(cls, path: Path) -> Problem:
        """The problem as a data file without a configuration has it; by default, that of the default model.

        Raises
        ------
        InputError
            Missing or broken file.
        pydantic.ValidationError
            The model has no defaults.
        """
        return cls(cls.Model())

    @classmethod
    def of_files(cls, real: Path, fake: Path) -> Problem:
        """The problem in which two files are compared; by default, that of the first one.

        Raises
        ------
        InputError, pydantic.ValidationError
            As of `of_file`.
        """
        return cls.of_file(real)

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """Tensors of a sample as they stand in the files, in physical units."""

    @abstractmethod
    def encode(self, sample: Sample) -> Sample:
        """Physical units to what the networks see."""

    @abstractmethod
    def decode(self, sample: Sample) -> Sample:
        """What the generator makes to physical units."""

    @property
    @abstractmethod
    def networks(self) -> Mapping[str, str]:
        """Builder of each network as `module:function`, called with the `model:` section."""

    @property
    @abstractmethod
    def noise_dim(self) -> int:
        """Standard normal numbers that the generator takes for one sample."""

    @abstractmethod
    def observables(self, sample: Sample) -> Observables:
        """What is compared between real and generated samples (physical units in), and their conditions."""

    @property
    def mesh(self) -> ShowerMesh | None:
        """Where Geant4's example Par04 puts the energy of a sample, if samples are showers; by default nowhere."""
        return None

    def more_observables(self, sample: Sample, names: Sequence[str]) -> Observables:
        """What else can be compared, those that are named: of `more_quantities` and `tails`.

        Unlike `observables`, more observables count for no score unless `scoring.quantities` names them, and are no
        features of distances between samples. Conditions are not among them.
        """
        return {}

    @property
    def quantity_names(self) -> list[str]:
        """Names of all that `scoring.quantities` may name: observables without conditions, then `more_quantities`."""
        return [*points.measured(self.observables(no_samples(self.schema))), *self.more_quantities]

    def score(self, real: Observables, fake: Observables) -> Score:
        """Distance between two sets of observables; lower is better.

        By default the sum of -ln p of a two-sample KS test over `quantities`, and where events have conditions the mean
        of that over the points of the conditions.
        """
        names = self.quantities or list(points.measured(real))
        return ks_score_by_point(real, fake, names)


def problem_class(name: str) -> type[Problem]:
    """The class of a problem, by its name or as `package.module:Class`.

    Raises
    ------
    InputError
        There is none, or it cannot be imported.
    """
    cls: type[Problem] = PROBLEMS.get(name)
    return cls
