"""Which trials end early: decided by the learning curves of the table, so by the trials' files alone.

Optuna has both rules, but keeps in its study which trials it has let pass: a second truth beside the files.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from hpcgan.sweep.table import Row

#: Complete trials before the first verdict of `median`.
LEAST_COMPLETE = 4
#: Of `halving`: one trial in so many goes on, and the second look is after so many times the epochs of the first.
REDUCTION = 3


def verdict(pruner: str, row: Row, rows: Sequence[Row], judged: int) -> str | None:
    """Why a trial shall end, in one line; None if it shall not.

    Parameters
    ----------
    pruner : str
        `median`: its best epoch so far is worse than the median of the complete trials at the same epoch (Golovin et
        al., KDD 2017), from a quarter of the epochs on and once four trials are complete. `halving`: after a ninth and
        after a third of the epochs it is not among the best third of those that came as far (Li et al.,
        arXiv:1810.05934); the best goes on, however few there are.
    row : Row
        The trial.
    rows : sequence of Row
        All trials.
    judged : int
        Epochs of the trial that have been judged before.
    """
    curve, complete = dict(row.curve), [dict(r.curve) for r in rows if r.state == "complete"]
    others = [dict(r.curve) for r in rows if r.number != row.number]
    for epoch in sorted(epoch for epoch in curve if epoch > judged):
        best = min(score for at, score in curve.items() if at <= epoch)
        if pruner == "median":
            ends = epoch >= max(1, row.wanted // 4) and _is_worse_than_median(best, epoch, complete)
        else:
            ends = any(_is_among_the_worst(curve, look, others) for look in _looks(row.wanted, curve, epoch))
        if ends:
            return f"{pruner} pruning after epoch {epoch}, best score {best:.2f}"
    return None


def _is_worse_than_median(best: float, epoch: int, complete: Sequence[Mapping[int, float]]) -> bool:
    scores = [curve[epoch] for curve in complete if epoch in curve]
    return len(complete) >= LEAST_COMPLETE and bool(scores) and best > statistics.median(scores)


def _looks(epochs: int, curve: Mapping[int, float], epoch: int) -> list[int]:
    """The looks that halving takes at a trial after this epoch: the epochs from which on the next score counts."""
    first = max(1, epochs // REDUCTION**2)
    return [look for look in (first, first * REDUCTION) if look < epochs and _score_at(curve, look)[0] == epoch]


def _is_among_the_worst(curve: Mapping[int, float], look: int, others: Sequence[Mapping[int, float]]) -> bool:
    score = _score_at(curve, look)[1]
    scores = sorted([score, *(_score_at(other, look)[1] for other in others if any(at >= look for at in other))])
    return score > scores[max(0, len(scores) // REDUCTION - 1)]


def _score_at(curve: Mapping[int, float], look: int) -> tuple[int, float]:
    """First epoch from a look on that was scored, and its score; (0, 0.0) if there is none yet."""
    return min(((epoch, score) for epoch, score in curve.items() if epoch >= look), default=(0, 0.0))
