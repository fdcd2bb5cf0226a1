"""The CaloChallenge's comparison of generated with real showers, dealt out over ranks: trainings are independent.

Each piece of work is a function of the showers and of its own number, so the results do not depend on how many ranks
there are (with the same threads a rank, whose number may change roundings).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hpcgan.calochallenge import features
from hpcgan.calochallenge.geometry import Geometry
from hpcgan.calochallenge.histograms import separations
from hpcgan.calochallenge.showers import Showers
from hpcgan.comm.agreement import agreed
from hpcgan.comm.base import Comm
from hpcgan.errors import InputError
from hpcgan.metrics.frechet import resampled_fpd
from hpcgan.metrics.kernel import resampled_kpd
from hpcgan.metrics.manifold import NEIGHBOURS, manifold
from hpcgan.system.console import quiet_tensorflow

Inputs = Literal["low", "high"]
Log = Callable[[str], None]

#: Least showers on each side: ten for each half of the real ones.
LEAST = 20


@dataclass(frozen=True)
class Options:
    """How much is done; the defaults are the challenge's.

    Attributes
    ----------
    classifiers : tuple of "low" and "high"
        What classifiers are trained on.
    trainings : int
        Of each classifier, with other initial weights, parts and order.
    units, epochs : int
        Of each of the three layers, and epochs at most.
    distances : bool
        Separation powers, FPD, KPD, precision, recall, density and coverage.
    seed : int
        Of the first training.
    """

    classifiers: tuple[Inputs, ...] = ("low", "high")
    trainings: int = 10
    units: int = 2048
    epochs: int = 50
    distances: bool = True
    seed: int = 0


DEFAULTS = Options()


@dataclass(frozen=True)
class Comparison:
    """Generated showers, real ones, and two samples of real ones that are held against each other in the same way.

    Attributes
    ----------
    geometry : Geometry
    real, fake : Showers
    null : pair of Showers
    title : str
        What this is about, "" where there is no other.
    """

    geometry: Geometry
    real: Showers
    fake: Showers
    null: tuple[Showers, Showers]
    title: str = ""

    @classmethod
    def of(
        cls, geometry: Geometry, real: Showers, fake: Showers, other: Showers | None = None, title: str = ""
    ) -> Comparison:
        """Cut to the size of the smaller sample.

        Parameters
        ----------
        geometry, real, fake, title
            As of the class. Real showers beyond the size of the generated sample are held against the others.
        other : Showers, optional
            More real showers. Without any, and with few left of `real`, its halves are held against each other.

        Raises
        ------
        InputError
            Too few showers.
        """
        n = min(len(real), len(fake))
        if n < LEAST:
            raise InputError(f"{n} showers are too few to compare: give {LEAST} or more on each side")
        if other is not None and len(other) < LEAST // 2:
            raise InputError(f"{len(other)} other real showers are too few to compare: give {LEAST // 2} or more")
        rest = (real.take(slice(n, None)) if other is None else other).take(slice(n))
        first = real.take(slice(n))
        if other is not None or len(rest) >= n // 2:
            null = first.take(slice(len(rest))), rest
        else:
            null = first.take(slice(n // 2)), first.take(slice(n // 2, 2 * (n // 2)))
        return cls(geometry, first, fake.take(slice(n)), null, title)

    def sides(self, null: bool) -> tuple[Showers, Showers]:
        """Real and generated showers, or real and other real ones."""
        return self.null if null else (self.real, self.fake)


@dataclass(frozen=True)
class Job:
    """A piece of work: a training, or the distances (`inputs` is None).

    Attributes
    ----------
    comparison : int
    null : bool
        Real against real.
    inputs : "low", "high" or None
    number : int
        Of the training.
    """

    comparison: int
    null: bool
    inputs: Inputs | None = None
    number: int = 0

    def label(self, options: Options) -> str:
        """What progress calls it."""
        against = "real against real" if self.null else "generated against real"
        if self.inputs is None:
            return f"distances, {against}"
        return f"classifier on {self.inputs} level, {against}, training {self.number + 1} of {options.trainings}"


def jobs(comparisons: int, options: Options) -> list[Job]:
    """All that is to be done, what takes longest first."""
    places = [(place, null) for null in (False, True) for place in range(comparisons)]
    trainings = [
        Job(place, null, inputs, number)
        for inputs in options.classifiers
        for place, null in places
        for number in range(options.trainings)
    ]
    return trainings + [Job(place, null) for place, null in places if options.distances]


def measure(
    comparisons: Sequence[Comparison], options: Options, comm: Comm, log: Log = lambda text: None
) -> list[dict[str, Any]] | None:
    """Do all work on the ranks at hand; on rank 0 the results of each comparison as JSON-able types, elsewhere None.

    Parameters
    ----------
    comparisons : sequence of Comparison
        The same on all ranks.
    options : Options
    comm : Comm
    log : callable
        Hears of what is begun and of what it came to.

    Raises
    ------
    InputError
        Showers of which the numbers cannot be made.
    """
    work = jobs(len(comparisons), options)
    own: list[tuple[int, dict[str, Any]]] = []
    with agreed(comm):
        for place in range(comm.rank, len(work), comm.size):
            try:
                own.append((place, _done(comparisons[work[place].comparison], work[place], options, log)))
            except ValueError as error:
                raise InputError(f"--protocol calochallenge: {work[place].label(options)}: {error}") from None
    gathered = comm.gather_json(own)
    if gathered is None:
        return None
    results = dict(pair for of_rank in gathered for pair in of_rank)
    done = [(job, results[place]) for place, job in enumerate(work)]
    return [
        _summary(comparison, [pair for pair in done if pair[0].comparison == number])
        for number, comparison in enumerate(comparisons)
    ]


def _done(comparison: Comparison, job: Job, options: Options, log: Log) -> dict[str, Any]:
    """The results of a piece of work."""
    log(job.label(options))
    real, fake = comparison.sides(job.null)
    if job.inputs is None:
        return distances(comparison.geometry, real, fake)
    quiet_tensorflow()
    from hpcgan.calochallenge.classifier import Protocol, classify

    real_rows, fake_rows = (_inputs(side, comparison.geometry, job.inputs) for side in (real, fake))
    protocol = Protocol(hidden=(options.units,) * 3, epochs=options.epochs, seed=options.seed + job.number)
    result = classify(real_rows, fake_rows, protocol, log, job.label(options))
    log(f"{job.label(options)}: AUC {result.auc.value:.4f}, epoch {result.epoch} of {result.epochs}")
    return dataclasses.asdict(result)


def _inputs(showers: Showers, geometry: Geometry, inputs: Inputs) -> np.ndarray:
    if inputs == "low":
        return features.low_level(showers)
    return features.high_level_inputs(showers, features.high_level(showers, geometry)).astype(np.float32)


def distances(geometry: Geometry, real: Showers, fake: Showers) -> dict[str, Any]:
    """Distances between two samples of showers.

    Separation powers are those of `hpcgan.calochallenge.histograms`. FPD and KPD are those of the package `jetnet`
    (its defaults, seed 42), of the high-level features of the classifier, each over the largest magnitude that it has
    among the real showers. Participants have computed them so; the organisers' own script was not found.
    Precision, recall, density and coverage have k = 5: the published coverage of real showers is about 1 - 1/2^5. That
    they are of all showers and of the same features in the same units is an assumption.

    Returns
    -------
    dict
        JSON-able: `n`, `separation` (by the quantity), `fpd` and `kpd` (with `value` and `error`), `precision`,
        `recall`, `density`, `coverage`.
    """
    sides = [(showers, features.high_level(showers, geometry)) for showers in (real, fake)]
    of_real, of_fake = (features.high_level_inputs(*side) for side in sides)
    scale = np.abs(of_real).max(axis=0)
    scale[scale == 0] = 1.0
    of_real, of_fake = of_real / scale, of_fake / scale
    if len(real) <= NEIGHBOURS:
        raise ValueError(f"{len(real)} showers have no {NEIGHBOURS} neighbours each")
    return {
        "n": len(real),
        "separation": separations(geometry, sides[0], sides[1]),
        "fpd": dataclasses.asdict(resampled_fpd(of_real, of_fake)),
        "kpd": dataclasses.asdict(resampled_kpd(of_real, of_fake)),
        **dataclasses.asdict(manifold(of_real, of_fake)),
    }


def _summary(comparison: Comparison, results: Sequence[tuple[Job, Mapping[str, Any]]]) -> dict[str, Any]:
    """The results of one comparison, real against real beside generated against real."""
    classifiers: dict[str, Any] = {}
    for inputs in dict.fromkeys(job.inputs for job, _ in results if job.inputs is not None):
        of_inputs = {
            null: [result for job, result in results if job.inputs == inputs and job.null == null]
            for null in (False, True)
        }
        classifiers[inputs] = {**_trainings(of_inputs[False]), "null": _trainings(of_inputs[True])}
    of_distances = {job.null: dict(result) for job, result in results if job.inputs is None}
    return {
        "title": comparison.title,
        "geometry": comparison.geometry.title,
        "voxels": comparison.geometry.n_voxels,
        "features": features.input_names(comparison.geometry),
        "n": len(comparison.real),
        "n_null": len(comparison.null[0]),
        "classifiers": classifiers,
        "distances": {**of_distances[False], "null": of_distances[True]} if of_distances else None,
    }


def _trainings(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over trainings, as the challenge's tables have them, and each training."""
    rows: dict[str, Any] = {}
    for name in ("auc", "auc_raw", "jsd"):
        values = [result[name]["value"] for result in results]
        spread = float(np.std(values)) if len(values) > 1 else None
        rows[name] = {"mean": float(np.mean(values)), "std": spread, "error": results[0][name]["error"]}
    return {**rows, "events": results[0]["events"], "trainings": [dict(result) for result in results]}
