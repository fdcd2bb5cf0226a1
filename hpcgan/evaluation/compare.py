"""Generated against real events, and real against real: the numbers of a report. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgan.errors import InputError
from hpcgan.evaluation.distances import DEFAULTS, Options, spread
from hpcgan.evaluation.events import n_events
from hpcgan.metrics import points
from hpcgan.metrics.distances import Distances, distances
from hpcgan.metrics.null_band import NullBand, Splitter, null_band
from hpcgan.metrics.observable import Score
from hpcgan.problems.base import Observables, Problem

REFERENCE_SPLITS = 20
#: Real-against-real comparisons of a null band.
NULL_SPLITS = 2000
#: Events on each side of a comparison of files.
EVENTS = 4096


@dataclass(frozen=True)
class EvaluationOptions:
    """How much is compared.

    Attributes
    ----------
    samples : int
        Generated samples; of a file at most as many disjoint ones as it has events for.
    events : int, optional
        Events on each side; all that there are, where there are fewer. Default: `scoring.events` of a run, `EVENTS`
        of files.
    seed : int
        Generated samples are those of noise seeds `seed` ... `seed + samples - 1`.
    repetitions : int
        Real-against-real comparisons of the null band.
    distances : hpcgan.evaluation.distances.Options
        Distances between whole samples, and classifiers.

    Raises
    ------
    InputError
        Too few of something.
    """

    samples: int = 5
    events: int | None = None
    seed: int = 1
    repetitions: int = NULL_SPLITS
    distances: Options = DEFAULTS

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("events", 2), ("repetitions", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name}: {value} is too few, give at least {least}")


@dataclass(frozen=True)
class Comparison:
    """Scores of generated samples, and the scale on which to read them.

    Attributes
    ----------
    requested : int
        Events on each side that were asked for.
    scores : list of Score
        One a generated sample, all at the same `n`.
    band : NullBand
        Real against real; at a smaller `n` than `scores` where there are fewer than 2 n real events.
    band_scores : list of Score
        The samples scored at the band's `n`: only these may be held against the band.
    distances : dict of str to Distances
        Of each observable that is no condition, first generated sample against real, at the band's `n`.
    reference : dict of str to dict
        Median `ks`, `wasserstein` and `separation` of each observable between disjoint real samples, at
        the band's `n`.
    """

    requested: int
    scores: list[Score]
    band: NullBand
    band_scores: list[Score]
    distances: dict[str, Distances]
    reference: dict[str, dict[str, float | None]]

    @property
    def n(self) -> int:
        """Events on each side of `scores`."""
        return self.scores[0].n


def compare(
    problem: Problem,
    real: Observables,
    fakes: Sequence[Observables],
    pool: Observables,
    requested: int,
    repetitions: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Score generated samples against real events and real events against each other.

    Where events have conditions, all are compared with the numbers of events that each point has in `real`.

    Parameters
    ----------
    problem : Problem
        Supplies the score.
    real : Observables
        The real events generated ones are held against.
    fakes : sequence of Observables
        Generated samples, each of as many events as `real`, at every point.
    pool : Observables
        All real events the null band may be drawn from (`real` may be among them).
    requested : int
        Events on each side that were asked for.
    repetitions : int
        Real-against-real comparisons.
    seed : int
        Of the splits and the bootstrap.
    """
    n, sizes = n_events(real), sizes_of(real)
    scores = [problem.score(real, fake) for fake in fakes]
    band = null_band(pool, problem.score, sizes, repetitions, seed)
    band_real, *band_fakes = at_band(band, real, fakes)
    band_scores = scores if band.n == n else [problem.score(band_real, fake) for fake in band_fakes]
    names = list(points.measured(real))
    return Comparison(
        requested=requested,
        scores=scores,
        band=band,
        band_scores=band_scores,
        distances={name: distances(band_real[name], band_fakes[0][name], seed=seed) for name in names},
        reference=reference(pool, names, sizes, seed),
    )


def sizes_of(real: Observables) -> int | Mapping[points.Point, int]:
    """Numbers of events that a null band has on each side: of all, or of each point of the conditions."""
    at = points.sizes(real)
    return n_events(real) if list(at) == [()] else at


def at_band(band: NullBand, real: Observables, fakes: Sequence[Observables]) -> list[Observables]:
    """Real events and generated samples at the numbers of events of a band: as they are, or the first of each point."""
    at = points.sizes(real)
    if band.n == n_events(real):
        return [real, *fakes]
    in_band = dict(zip(at, band.sizes, strict=True))
    return [points.take(side, points.first_events(side, in_band)) for side in (real, *fakes)]


def summary(scores: Sequence[Score]) -> dict[str, Any]:
    """`score` and each of `parts` as mean and standard deviation over generated samples."""
    return {
        "score": spread([s.total for s in scores]),
        "parts": {part: spread([s.parts[part] for s in scores]) for part in scores[0].parts},
    }


def to_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers of a comparison as JSON-able types: `score`, `band`, `against_band`, `distances`."""

    def of_all(scores: list[Score]) -> dict[str, Any]:
        numbers = summary(scores)
        samples = [dataclasses.asdict(s) for s in scores]
        return {"n": scores[0].n, **numbers["score"], "parts": numbers["parts"], "samples": samples}

    band = comparison.band
    shares = [band.share_above(score) for score in comparison.band_scores]
    return {
        "score": {"requested": comparison.requested, **of_all(comparison.scores)},
        "band": band.to_json(),
        "against_band": {**of_all(comparison.band_scores), "share_above": float(np.mean(shares))},
        "distances": {
            name: {**dataclasses.asdict(distance), "reference": comparison.reference[name]}
            for name, distance in comparison.distances.items()
        },
    }


def reference(
    pool: Observables, names: Sequence[str], sizes: int | Mapping[points.Point, int], seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Median `ks`, `wasserstein` and `separation` of each quantity between disjoint real samples.

    Parameters
    ----------
    pool : Observables
        Real events that the samples are drawn from.
    names : sequence of str
        Of the quantities.
    sizes : int or mapping of Point to int
        Events of a sample, as of `hpcgan.metrics.null_band.Splitter`.
    seed : int
    """
    splitter = Splitter(pool, sizes)
    rng = np.random.default_rng([seed, 1])
    splits = [splitter.split(rng) for _ in range(REFERENCE_SPLITS)]
    medians: dict[str, dict[str, float | None]] = {}
    for observable in names:
        whole = pool[observable]
        between_real = [distances(whole.take(first), whole.take(second), bootstrap=0) for first, second in splits]
        values = {
            "ks": [d.ks.value for d in between_real if d.ks is not None],
            "wasserstein": [d.wasserstein for d in between_real if d.wasserstein is not None],
            "separation": [d.separation for d in between_real if d.separation is not None],
        }
        medians[observable] = {name: float(np.median(of)) if of else None for name, of in values.items()}
    return medians
