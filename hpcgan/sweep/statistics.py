"""What a table of trials says: who leads and by how much, what matters, how long it still takes.

A trial's own score selected it, so it is biased: the lowest of many noisy numbers is lower than what its configuration
gives on average. Repetitions with fresh seeds had no part in the selection, so where there are any, they alone decide,
and a trial's own score is left out of their mean.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hpcgan.errors import InputError
from hpcgan.sweep.optuna_study import as_trial, load_optuna, quiet
from hpcgan.sweep.store import Result
from hpcgan.sweep.table import ENDED, Row, Table

CONFIDENCE = 0.95
LEAST_TRIALS = 10
TOP_TRIALS = 5  # that PED-ANOVA's authors want to see among the good ones, at least
TOP_PART = 3
"""One in so many trials counts as good. Of one in ten, Optuna's default, too few are left: in 24 made-up trials, a
parameter that decides with some noise was above the level of chance in 34 of 60 cases, with one in three in 55."""
SHUFFLES = 200


# --- means ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """Mean of a few numbers.

    Attributes
    ----------
    mean : float
    error : float or None
        Standard error of the mean, from the numbers' own spread; None for a single one.
    std : float or None
        Their standard deviation.
    n : int
    """

    mean: float
    error: float | None
    std: float | None
    n: int

    def text(self) -> str:
        """The mean with its error, if there is one."""
        return f"{self.mean:.2f}" + (f" ± {self.error:.2f}" if self.error is not None else "")


def mean_of(values: Sequence[float]) -> Mean | None:
    """Mean, standard error and standard deviation; None of nothing."""
    if not values:
        return None
    n, std = len(values), statistics.stdev(values) if len(values) > 1 else None
    return Mean(statistics.fmean(values), None if std is None else std / math.sqrt(n), std, n)


# --- ranking ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Place of a configuration.

    Attributes
    ----------
    place : int
        From 1. Repeated configurations come first, by the mean over their repetitions (those of which one came to no
        score after the others); configurations without repetitions follow by their score.
    number : int
        The trial of the search.
    params : mapping
    score : float or None
        Its own score, by which it was selected; None if that cannot be read.
    repeats : Mean or None
        Of the scores of complete repetitions.
    scores : tuple of float
        Those scores.
    unfinished : int
        Repetitions that ended without a score or are broken, pruned or lost; they are not in the mean.
    test : Mean or None
        Of the repetitions' scores on test events; their spread is that between seeds.
    test_score, test_spread : float or None
        The trial's own on test events, mean and standard deviation over generated samples.
    tied : bool or None
        The difference to the first place may be chance; None for the first place, and where repetitions are too few
        to say.
    difference, difference_error : float or None
        Of the means over repetitions to the first place, with its standard error.
    """

    place: int
    number: int
    params: Mapping[str, Any]
    score: float | None
    repeats: Mean | None = None
    scores: tuple[float, ...] = ()
    unfinished: int = 0
    test: Mean | None = None
    test_score: float | None = None
    test_spread: float | None = None
    tied: bool | None = None
    difference: float | None = None
    difference_error: float | None = None

    @property
    def value(self) -> float:
        """What it is ranked by."""
        if self.repeats is not None:
            return self.repeats.mean
        return math.inf if self.score is None else self.score


def ranking(rows: Iterable[Row | Result]) -> list[Standing]:
    """All configurations that were trained to the end and scored, best first.

    Repeated ones come first, of these the ones of which every repetition came to a score. Ties are by Welch's t-test of
    the repetitions' scores at 5%, against the first place.
    """
    originals: dict[int, Row | Result] = {}
    repeats: dict[int, list[Row | Result]] = {}
    for row in rows:
        if row.repeat_of is None:
            originals[row.number] = row
        else:
            repeats.setdefault(row.repeat_of, []).append(row)
    standings = []
    for number in sorted({*originals, *repeats}):
        own, again = originals.get(number), repeats.get(number, [])
        score = own.score if own is not None and own.state == "complete" else None
        complete_rows = [r for r in again if r.state == "complete" and r.score is not None]
        if score is None and not complete_rows:
            continue
        scores = tuple(r.score for r in complete_rows if r.score is not None)
        standings.append(
            Standing(
                place=0,
                number=number,
                params=own.params if own is not None and (own.params or not again) else again[0].params,
                score=score,
                repeats=mean_of(scores),
                scores=scores,
                unfinished=sum(r.state not in ("running", "queued") for r in again) - len(complete_rows),
                test=mean_of([r.test_score for r in complete_rows if r.test_score is not None]),
                test_score=own.test_score if own is not None else None,
                test_spread=own.test_spread if own is not None else None,
            )
        )
    standings.sort(key=lambda s: (s.repeats is None, s.unfinished, s.value, s.number))
    return [
        replace(standing, place=place, **(_difference(standing.repeats, standings[0].repeats) if place > 1 else {}))
        for place, standing in enumerate(standings, start=1)
    ]


def _difference(repeats: Mean | None, first: Mean | None) -> dict[str, Any]:
    """How far a mean is from the first one, and whether it may be the same (Welch, Biometrika 34 (1947) 28)."""
    from scipy.stats import ttest_ind_from_stats

    if repeats is None or first is None:
        return {}
    difference = repeats.mean - first.mean
    if repeats.error is None or first.error is None:
        return {"difference": difference}
    samples = (repeats.mean, repeats.std, repeats.n, first.mean, first.std, first.n)
    with np.errstate(all="ignore"):  # of samples without any spread
        p = ttest_ind_from_stats(*samples, equal_var=False).pvalue
    error = math.hypot(repeats.error, first.error)
    return {"difference": difference, "difference_error": error, "tied": not p <= 1.0 - CONFIDENCE}


# --- importance -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weight:
    """How much a key matters.

    Attributes
    ----------
    key : str
    share : float
        Of the importance of all keys.
    chance : float
        The share that 95% of studies stay below in which the key matters nothing: those with scores dealt out anew.
    """

    key: str
    share: float
    chance: float


@dataclass(frozen=True)
class Importance:
    """Importance of hyper-parameters.

    Attributes
    ----------
    weights : tuple of Weight
        Most important first; empty if `reason` says why there are none.
    trials : int
        Complete, scored trials of the search that it rests on. Trials that were pruned or failed are not among them,
        though they say something, too: mostly of bad regions.
    top : int
        Of these, the good ones, whose parameters are compared with those of all.
    reason : str or None
    """

    weights: tuple[Weight, ...]
    trials: int
    top: int
    reason: str | None = None


def importance(table: Table, seed: int = 0, shuffles: int = SHUFFLES) -> Importance:
    """PED-ANOVA (Watanabe et al., arXiv:2304.10255) of a table: what the good trials have in common.

    The distribution of each parameter among the best trials (a third, but five at least) is compared with that among
    all. The level of chance is that of the same numbers with the scores dealt out anew.

    Parameters
    ----------
    table : Table
    seed, shuffles : int
        Of the level of chance.
    """
    rows = [r for r in table.searched() if r.final_score is not None]
    scores = np.array([r.score for r in rows], dtype=np.float64)
    top = max(TOP_TRIALS, math.ceil(len(rows) / TOP_PART))
    if len(rows) < LEAST_TRIALS:
        return Importance((), len(rows), 0, f"{len(rows)} complete trials say nothing yet: at least {LEAST_TRIALS}")
    if np.ptp(scores) == 0:
        return Importance((), len(rows), 0, "all trials have the same score")
    try:
        optuna = load_optuna()
    except InputError as error:
        return Importance((), len(rows), 0, str(error))
    varied = [d for d in table.dimensions() if len({d.place(r.params.get(d.key)) for r in rows} - {None}) > 1]
    if not varied:
        return Importance((), len(rows), 0, "no parameter was varied")
    with quiet(optuna):  # of experimental methods and small numbers of trials, which the report states
        study = optuna.create_study(direction="minimize")
        study.add_trials([as_trial(optuna, row, varied) for row in rows])
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=(top - 0.5) / len(rows))

        def evaluate(dealt: np.ndarray) -> dict[str, float]:
            shares: dict[str, float] = evaluator.evaluate(study, target=lambda trial: float(dealt[trial.number]))
            return shares

        measured = evaluate(scores)
        rng = np.random.default_rng(seed)
        dealt = [evaluate(rng.permutation(scores)) for _ in range(shuffles)]
    total = sum(measured.values())
    if not total > 0:
        return Importance((), len(rows), top, "the best trials have nothing in common")
    weights = [
        Weight(key, measured[key] / total, float(np.quantile([d[key] for d in dealt], CONFIDENCE)) / total)
        for key in measured
    ]
    return Importance(tuple(sorted(weights, key=lambda w: (-w.share, w.key))), len(rows), top)


# --- time -------------------------------------------------------------------------------------------


def time_left(table: Table) -> float | None:
    """Seconds until all trials have ended: those of the goal, if there is one, or those that are known.

    None if there is nothing to tell it from.

    Notes
    -----
    A trial that has not begun takes the mean time of those that have ended, pruned and failed ones included: it may
    end as they did. Each goes to where it can begin first; without a goal, as many run at a time as run now.
    """
    running = [r for r in table.rows if r.state == "running"]
    to_come = max(0, (table.planned_trials or 0) - len(table.rows))
    waiting = sum(r.state in ("queued", "lost") for r in table.rows) + to_come
    if not running and not waiting:
        return 0.0
    ended = [r.seconds for r in table.rows if r.state in ENDED and r.seconds is not None]
    if not ended:  # trainings that run, as they look now
        ended = [r.seconds + r.left_s for r in running if r.seconds is not None and r.left_s is not None]
    if not ended and (waiting or any(r.left_s is None for r in running)):
        return None
    usual = statistics.fmean(ended) if ended else 0.0
    free = [max(0.0, usual - (r.seconds or 0.0)) if r.left_s is None else r.left_s for r in running]
    concurrency = table.goal.concurrency if table.goal is not None else None
    free += [0.0] * (max(concurrency or 0, 1) - len(running))
    heapq.heapify(free)
    for _ in range(waiting):
        heapq.heappush(free, heapq.heappop(free) + usual)
    return max(free)
