"""The interface of a problem, and the events that are used of its files.

A problem is the only place that knows what the data mean. The engine asks it for data, networks by
name, observables and a score, and never looks inside. Problem modules import no TensorFlow: networks
are named as `module:function` and resolved by the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel

from hpcgan import weights as of_events
from hpcgan.data.schema import Sample, Schema
from hpcgan.errors import InputError
from hpcgan.metrics import points
from hpcgan.metrics.observable import UNWEIGHTED, Observable, Score, SidesWeights
from hpcgan.problems.discovery import PROBLEMS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.config import DataConfig
    from hpcgan.data.source import Source

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
            raise NotImplementedError(f"problem '{self.name}' does not encode its conditions")
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
        made: Sequence[tuple[Mapping[str, float], Observables]],
        weights: np.ndarray | None = None,
    ) -> list[tuple[str, str, Figure]]:
        """Plots of what the generator made of the `probes`, as `figures`.

        Parameters
        ----------
        trained : Sample
            Conditions of the training events.
        real : Sample
            Real events, in physical units.
        made : sequence of (point, observables)
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


class Problems:
    """The registry as configuration loading wants it (`hpcgan.config.Registry`)."""

    def names(self) -> list[str]:
        """Names of all problems."""
        return PROBLEMS.names()

    def get(self, name: str) -> type[Problem]:
        """The class of a problem."""
        return problem_class(name)


@dataclass(frozen=True)
class Use:
    """Which events of a file are used, and how they count.

    Attributes
    ----------
    select : mapping of str to a number or a list of numbers
        Columns, and the values they must have.
    weighted : bool
        Whether events count with their weights.
    select_key, ignore_key : str
        What messages call the settings.
    """

    select: Mapping[str, float | list[float]] = field(default_factory=dict)
    weighted: bool = True
    select_key: str = "data.select"
    ignore_key: str = "data.weights=ignore"

    @property
    def example(self) -> str:
        """How to select events of y = 1."""
        return f"{self.select_key} y=1" if self.select_key.startswith("-") else f"{self.select_key}={{y: 1}}"

    @classmethod
    def of(cls, data: DataConfig) -> Use:
        """As a configuration has it."""
        return cls(data.select, data.weights == "use")


def open_events(problem: Problem, path: Path, split: str, use: Use, cache_mb: int = 1024) -> Source:
    """Open one split of a folder, or a file, with the events that are used of it: those selected, with any weight.

    Raises
    ------
    InputError
        Missing or broken file, no such column, no event that is left, weights of which no distribution can be made.
    """
    return _counted(_selected(problem.open(path, split, cache_mb), use), use)


def open_split(problem: Problem, data: DataConfig, split: str) -> Source:
    """Open a split as it is trained on, or selected by: also without the events of `data.leave_out`.

    Raises
    ------
    InputError
        As `open_events`; a file that is not that of the run (`hpcgan.runs.data.load`); a point that no event of the
        training split has, or no event that is left.
    """
    data.require(split)
    use = Use.of(data)
    source = _selected(problem.open(data.path, split, data.cache_mb), use)
    if not data.leave_out:
        return _counted(source, use)
    from hpcgan.data.source import Subset, matching

    conditions = source.conditions()
    kept = np.ones(len(source), bool)
    for point in data.leave_out:
        fits = matching(conditions, point)
        if split == "train" and not fits.any():
            source.close()
            raise InputError(
                f"{source.path}: data.leave_out: no event has {points.label(point)}; {_there(problem, conditions)}"
            )
        kept &= ~fits
    if not kept.any():
        source.close()
        raise InputError(f"{source.path}: data.leave_out leaves no event")
    return _counted(Subset(source, np.flatnonzero(kept)), use)


def _selected(source: Source, use: Use) -> Source:
    """The events that have the values asked for."""
    if not use.select:
        return source
    from hpcgan.data.source import Subset

    try:
        where, known = f"{source.path}: {use.select_key}", source.labels()
        kept = np.ones(len(source), bool)
        for name, wanted in use.select.items():
            if name not in known:
                there = f"; there are: {', '.join(known)}" if known else ", nor any other to select by"
                raise InputError(f"{where}: the file has no column '{name}'{there}")
            values = np.asarray(wanted, np.float64).reshape(-1)
            found = source.label(name)
            # Files hold most columns in single precision: 0.1 there is not 0.1.
            fits = np.isin(found, values) | np.isin(found, values.astype(np.float32).astype(np.float64))
            if not fits.any():
                raise InputError(f"{where}: no event has {_asked(name, values)}; there are: {counted(found)}")
            kept &= fits
        if not kept.any():
            raise InputError(f"{where} leaves no event: none has all of {', '.join(use.select)} as asked for")
    except BaseException:
        source.close()
        raise
    return Subset(source, np.flatnonzero(kept))


def _counted(source: Source, use: Use) -> Source:
    """The events that count: without those of weight zero, and with equal weights where weights are ignored."""
    from hpcgan.data.source import WEIGHT, Subset

    try:
        weights = source.weights()
        if weights is None:
            return source
        if not use.weighted:
            return Subset(source, np.arange(len(source)), weighted=False)
        of_events.check(
            weights, f"{source.path}: data set '{WEIGHT}'", f"correct the file, or ignore weights with {use.ignore_key}"
        )
    except BaseException:
        source.close()
        raise
    return source if weights.all() else Subset(source, np.flatnonzero(weights), weightless=int(np.sum(weights == 0)))


def weights_used(source: Source) -> str | None:
    """One line on the weights that the events of a source have; None where all count alike."""
    from hpcgan.data.source import Subset

    weights = source.weights()
    weightless = source.weightless if isinstance(source, Subset) else 0
    if weights is None and not weightless:
        return None
    said = f"the weights of events are used: {len(source)} events of {source.path} "
    if weights is None:
        said += "have equal weights"
    else:
        said += f"determine as much as {of_events.effective(weights):.1f} of equal weight"
    return said + (f", {weightless} have the weight 0 and are left out" if weightless else "")


def weights_of_first(source: Source, events: int) -> np.ndarray | None:
    """Weights of the first events of a source, which are to be scored; None where all count alike.

    Raises
    ------
    InputError
        Their sum is not above zero.
    """
    from hpcgan.data.source import WEIGHT

    weights = source.weights()
    if weights is None:
        return None
    n = min(events, len(source))
    where = f"{source.path}: data set '{WEIGHT}' of the first {n} events"
    of_events.check(weights[:n], where, "score more with scoring.events, or ignore weights with data.weights=ignore")
    return of_events.counting(weights[:n])


def doubts(source: Source, use: Use, *, trained: bool = True) -> list[str]:
    """What to warn of: negative weights, weights that cannot be used, a mixture of signal and background.

    Parameters
    ----------
    source : Source
        As `open_split` or `open_events` gave it.
    use : Use
    trained : bool
        Whether it is trained on, or compared with.
    """
    from hpcgan.data.source import Unweighted

    found = []
    weights = source.weights()
    if weights is not None and (weights < 0).any():
        share, of_sum = of_events.negative_shares(weights)
        what = (
            "training draws events by |weight|, since a batch cannot subtract events: the density that is learnt is "
            "that of |weight|"
            if trained
            else "distributions subtract them"
        )
        found.append(
            f"{source.path}: {share:.1%} of the events have a negative weight ({of_sum:.1%} of the sum of |weight|); "
            f"{what}"
        )
    if use.weighted and isinstance(source, Unweighted) and source.unused_weights():
        found.append(f"{source.path}: the weights of a pool's events are not used; sums draw all events alike")
    if "y" in source.labels() and "y" not in use.select:
        labels = source.label("y")
        if len(np.unique(labels)) > 1:
            found.append(
                f"{source.path}: the events are a mixture of y = {counted(labels)}, and all are used; "
                f"{use.example} selects those of y = 1"
            )
    return found


def counted(values: np.ndarray, most: int = 12) -> str:
    """The values that there are, and how often, `0 (30 events), 1 (12 events)`."""
    distinct, counts = np.unique(values, return_counts=True)
    shown = [f"{value:g} ({count} events)" for value, count in zip(distinct[:most], counts[:most], strict=True)]
    more = f" and {len(distinct) - most} other values" if len(distinct) > most else ""
    return ", ".join(shown) + more


def _asked(name: str, values: np.ndarray) -> str:
    return f"{name} = {' or '.join(f'{value:g}' for value in values)}"


def _there(problem: Problem, conditions: Sample) -> str:
    """The points of the conditions that there are, for a message."""
    found = np.unique(np.stack([conditions[name].reshape(-1) for name in problem.conditions], axis=1), axis=0)
    shown = [points.label(dict(zip(problem.conditions, row.tolist(), strict=True))) for row in found[:12]]
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    return f"there are: {'; '.join(shown)}{more}"
