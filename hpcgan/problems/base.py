"""The interface of a problem.

A problem is the only place that knows what the data mean. The engine asks it for data, networks by
name, observables and a score, and never looks inside. Problem modules import no TensorFlow: networks
are named as `module:function` and resolved by the engine.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel

from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import Layout
from hpcgan.data.layouts.tensor_layout import SAMPLES
from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.data.schema import Sample, Schema
from hpcgan.data.source import Source
from hpcgan.data.storage import Target
from hpcgan.errors import InputError
from hpcgan.metrics.observable import UNWEIGHTED, Observable, Score, SidesWeights
from hpcgan.problems.discovery import PROBLEMS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Observables = dict[str, Observable]


class Problem(ABC):
    """One scientific data set with its networks and its physics.

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
    #: Layouts of its files, which generic commands then know (`hpcgan.problems.layouts`).
    layouts: ClassVar[Sequence[Layout]] = (SAMPLES,)
    #: What `hpcgan data NAME` makes for it, by NAME: `module:class` of each `hpcgan.data.generators.Generator`.
    generators: ClassVar[Mapping[str, str]] = {}
    #: What `hpcgan data import` reads for it: `module:class` of each `hpcgan.data.importers.Importer`.
    importers: ClassVar[Sequence[str]] = ()
    #: Names of the symmetries that `permutations` knows.
    symmetries: ClassVar[Sequence[str]] = ()

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

    # --- data ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """Tensors of a sample as they stand in the files, in physical units."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the tensors with the role of a condition: what a generator is asked for."""
        return tuple(name for name, spec in self.schema.items() if spec.role == "condition")

    @property
    def point_conditions(self) -> tuple[str, ...]:
        """Conditions of which there are points with many events each (masses, but not an energy that is drawn)."""
        return self.conditions

    def files(self, path: Path, split: str) -> dict[str, Path]:
        """The files that a split of the data folder consists of, by name; "" where it is one.

        Raises
        ------
        InputError
            One of several is missing.
        """
        return {"": file_of(path, split)}

    def existing(self, path: Path, split: str) -> Path:
        """The file of a split, which has to be there.

        Raises
        ------
        InputError
            It is not; the message says how to make it.
        """
        file = file_of(path, split)
        if not file.is_file():
            maker = next(iter(self.generators), None)
            place = f"{type(self).__module__}:{type(self).__qualname__}"
            if all(place != point.value for point in PROBLEMS.entry_points().values()):
                maker = maker and place  # its generators have no names
            hint = "" if maker is None else f"; make it with 'hpcgan data {maker} --out {path} ...'"
            raise InputError(f"{file}: no such file{hint}")
        return file

    @abstractmethod
    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        """Open one split (`train`, `val`, `test`) of the data folder, or the file itself.

        Raises
        ------
        InputError
            Missing or broken file.
        """

    @abstractmethod
    def validate(self, path: Path, split: str) -> None:
        """Read a whole split once and refuse what cannot be trained on.

        Raises
        ------
        InputError
            Missing, truncated or unsuitable file, wrong shape, NaN or negative energies.
        """

    def check_events(self, source: Source) -> None:
        """Refuse events that are readable, but none of this problem's; of those that are used, not of all of a file.

        Raises
        ------
        InputError
        """

    @abstractmethod
    def writer(
        self, path: Path, n: int, attributes: Mapping[str, Any], force: bool = False
    ) -> AbstractContextManager[Callable[[Sample], None]]:
        """Write `n` generated samples in the layout of the training data, batch by batch.

        The context gives a function that appends a batch (physical units). The file appears under its
        name when the context ends without an error, and is complete then.

        Raises
        ------
        InputError
            The file exists (and `force` is not set), or cannot be written.
        """

    @abstractmethod
    def encode(self, sample: Sample) -> Sample:
        """Physical units to what the networks see."""

    @abstractmethod
    def decode(self, sample: Sample) -> Sample:
        """What the generator makes to physical units."""

    def encode_conditions(self, conditions: Sample) -> Sample:
        """`encode` for the conditions alone, which a generator is given."""
        if self.conditions:
            raise InputError(
                f"problem '{self.name}' has conditions ({', '.join(self.conditions)}), so its class has to define "
                "encode_conditions"
            )
        return {}

    def check_conditions(self, conditions: Sample) -> None:
        """Refuse conditions (n, ...), in physical units, that no event can have.

        Raises
        ------
        InputError
            Names the condition and its value.
        """

    def permutations(self, symmetries: Sequence[str], draws: np.ndarray) -> dict[str, np.ndarray]:
        """Random symmetry operations of the data, as permutations of the cells of each tensor.

        Parameters
        ----------
        symmetries : sequence of str
            Those switched on, out of `self.symmetries`.
        draws : (n, len(self.symmetries)) float64
            Uniform numbers in [0, 1), one column for each of `self.symmetries`.

        Returns
        -------
        dict of str to (n, cells) int32
            For each tensor that changes: cell `j` of the flattened new sample is cell `[i, j]` of the old.
        """
        if symmetries:
            raise NotImplementedError(f"problem '{self.name}' has no symmetries")
        return {}

    def augment(self, sample: Sample, symmetries: Sequence[str], draws: np.ndarray) -> Sample:
        """Apply `permutations` to a batch."""
        changed = dict(sample)
        for name, order in self.permutations(symmetries, draws).items():
            flat = sample[name].reshape(len(order), -1)
            changed[name] = np.take_along_axis(flat, order, axis=1).reshape(sample[name].shape)
        return changed

    # --- networks --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def networks(self) -> Mapping[str, str]:
        """Builder of each network as `module:function`, called with the `model:` section."""

    @property
    @abstractmethod
    def noise_dim(self) -> int:
        """Standard normal numbers that the generator takes for one sample."""

    # --- physics ---------------------------------------------------------------------------------

    @abstractmethod
    def observables(self, sample: Sample) -> Observables:
        """What is compared between real and generated samples (physical units in), and their conditions."""

    @abstractmethod
    def score(self, real: Observables, fake: Observables) -> Score:
        """Distance between two sets of observables; lower is better."""

    def figures(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[tuple[str, str, Figure]]:
        """Problem-specific plots for the report: (identifier, caption, matplotlib figure).

        Parameters
        ----------
        real, fake : Sample
            In physical units.
        weights : pair of (n,) array or None
            Of the real and of the generated events; None where all count alike.
        """
        return []

    def points_figures(
        self, real: Observables, fake: Observables, left_out: Sequence[Mapping[str, float]]
    ) -> list[tuple[str, str, Figure]]:
        """Plots of how events change with their conditions, as `figures`.

        Parameters
        ----------
        real, fake : Observables
            Of events at all points, conditions among them.
        left_out : sequence of mapping
            The points that the model was not trained on.
        """
        return []

    def measurements(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> dict[str, Any]:
        """Problem-specific numbers for the report's JSON, as plain values; arguments as of `figures`."""
        return {}

    def probes(self, trained: Sample) -> list[Mapping[str, float]]:
        """Points of the conditions at which a report has the generator make events besides.

        Parameters
        ----------
        trained : Sample
            Conditions of the training events.
        """
        return []

    def probe_figures(
        self,
        trained: Sample,
        real: Sample,
        probes: Sequence[tuple[Mapping[str, float], Observables]],
        weights: np.ndarray | None = None,
    ) -> list[tuple[str, str, Figure]]:
        """Plots of what the generator made of the `probes`, as `figures`.

        Parameters
        ----------
        trained : Sample
            Conditions of the training events.
        real : Sample
            Real events, in physical units.
        probes : sequence of (point, observables)
        weights : (n,) array or None
            Of the real events.
        """
        return []

    def samples_figure(self, real: Sample | None, fake: Sample) -> tuple[str, Figure] | None:
        """Single samples to look at, beside real ones if there are any: caption and figure; None if they are no images.

        Parameters
        ----------
        real, fake : Sample
            In physical units; the numbers of samples may differ.
        """
        return None


class FileProblem(Problem):
    """A problem with one file a split, in which each tensor of the schema is a data set.

    A subclass says what is special about its files: `check_file`, `check_samples`, `file_attributes`.
    """

    #: What messages call the samples of such a file.
    noun: ClassVar[str] = "samples"

    @property
    def file_attributes(self) -> Mapping[str, Any]:
        """Attributes that a file of generated samples has besides the problem's name."""
        return {}

    def check_file(self, file: Path) -> None:
        """Refuse a file for a reason that is worth a message of its own, before it is opened.

        Raises
        ------
        InputError
        """

    def check_samples(self, sample: Sample, path: str, first: int) -> None:
        """Refuse samples that cannot be; those of file `path` from number `first` on.

        Raises
        ------
        InputError
        """

    def group_of(self, file: Path) -> str:
        """Group of the file that holds the data sets."""
        return SAMPLES.group

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        file = self.existing(path, split)
        self.check_file(file)
        return TensorSource(file, self.schema, cache_mb, self.group_of(file))

    def validate(self, path: Path, split: str) -> None:
        file = self.existing(path, split)
        self.check_file(file)
        tensors.validate(file, self.schema, self.check_samples, self.group_of(file))

    @contextlib.contextmanager
    def writer(
        self, path: Path, n: int, attributes: Mapping[str, Any], force: bool = False
    ) -> Iterator[Callable[[Sample], None]]:
        target = target_of(path, n, {"problem": self.name, **self.file_attributes, **attributes}, force)
        with tensors.Writer(target, self.schema, noun=self.noun) as writer:
            yield writer.append


def target_of(path: Path, n: int, attributes: Mapping[str, Any], force: bool) -> Target:
    """A single file of generated samples, as a `SplitWriter` takes it.

    Raises
    ------
    InputError
        The name does not end in .h5.
    """
    if path.suffix != ".h5":
        raise InputError(f"{path}: give a name that ends in .h5")
    return Target(path.absolute().parent, {path.stem: n}, attributes, force)


def file_of(path: Path, split: str) -> Path:
    """The file of a split, or the path itself if it is a file."""
    return path if path.is_file() else path / f"{split}.h5"


def problem_class(name: str) -> type[Problem]:
    """The class of a problem, by its name or as `package.module:Class`.

    Raises
    ------
    InputError
        There is none, or it cannot be imported.
    """
    cls: type[Problem] = PROBLEMS.get(name)
    return cls
