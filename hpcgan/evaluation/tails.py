"""The largest values: how many generated events have beyond what one in a thousand real values exceeds. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcgan.metrics.observable import Observable
from hpcgan.problems.base import Observables

#: Share of the real values that are not beyond the threshold.
LEVEL = 0.999


def count_tails(
    names: Sequence[str], real: Observables, fakes: Sequence[Observables], training: Observables
) -> list[dict[str, Any]]:
    """Count values beyond the `LEVEL` quantile of the real ones.

    Errors are those of Poisson counts, with the effective numbers (sum c)^2 / sum c^2 of the events' counts c in place
    of the counts, since the values of an event are not independent. Events have their weights.

    Parameters
    ----------
    names : sequence of str
        Of the observables.
    real : Observables
        Real events, which set the quantile and what is expected.
    fakes : sequence of Observables
        Generated samples, which are counted together.
    training : Observables
        Of the training events, as far as they are known.

    Returns
    -------
    list of dict
        Of each observable with values: `name`, `unit`, `level`, `threshold`, `events` (`real`, `generated`),
        `generated` and `expected` (`value` and `error`), `ratio` (`value` and `error`, None if nothing is expected),
        `deviation` (of the generated count in standard deviations of what is expected) and `beyond_training`: None, or
        of observables with one value an event the `largest` of so many training `events`, and how many `generated`
        and `real` events are beyond it, with how many of them are `expected`, n / (events + 1).
    """
    return [
        _tail(name, real[name], [fake[name] for fake in fakes], training.get(name))
        for name in names
        if real[name].has_distribution
    ]


def _tail(name: str, real: Observable, fakes: Sequence[Observable], training: Observable | None) -> dict[str, Any]:
    threshold = _quantile(real, LEVEL)
    of_real = _Beyond.of([real], threshold)
    of_fakes = _Beyond.of(fakes, threshold)
    scale = of_fakes.events / of_real.events
    expected, error = scale * of_real.count, scale * of_real.error
    # Of a count of generated events that are like the real ones.
    spread = of_real.error * np.sqrt(of_fakes.squares / of_real.squares)
    total_error = float(np.hypot(spread, error))
    ratio = None
    if expected > 0:
        relative = of_fakes.error / expected, of_fakes.count * error / expected**2
        ratio = {"value": of_fakes.count / expected, "error": float(np.hypot(*relative))}
    return {
        "name": name,
        "unit": real.unit,
        "level": LEVEL,
        "threshold": threshold,
        "events": {"real": real.n_events, "generated": sum(fake.n_events for fake in fakes)},
        "generated": {"value": of_fakes.count, "error": of_fakes.error},
        "expected": {"value": expected, "error": error},
        "ratio": ratio,
        "deviation": (of_fakes.count - expected) / total_error if total_error > 0 else None,
        "beyond_training": _beyond_training(real, fakes, training),
    }


def _beyond_training(
    real: Observable, fakes: Sequence[Observable], training: Observable | None
) -> dict[str, Any] | None:
    if training is None or training.counts is not None or not len(training.values):
        return None
    largest, n = float(np.max(training.values)), training.n_events
    sides = {"real": _Beyond.of([real], largest), "generated": _Beyond.of(fakes, largest)}
    counts = {
        # The largest of n + 1 events that are alike is as likely to be the last one as any other.
        name: {"value": side.count, "error": side.error, "expected": side.events / (n + 1)}
        for name, side in sides.items()
    }
    return {"largest": largest, "events": n, **counts}


class _Beyond:
    """Values beyond a threshold in the events of several samples.

    Attributes
    ----------
    count, error : float
        Of the values, by the weights of their events.
    events, squares : float
        Sums of the events' weights and of their squares.
    """

    def __init__(self, counts: np.ndarray, weights: np.ndarray) -> None:
        weighted = counts * weights
        self.count, self.error = float(weighted.sum()), float(np.sqrt(np.sum(weighted**2)))
        self.events, self.squares = float(weights.sum()), float(np.sum(weights**2))

    @classmethod
    def of(cls, samples: Sequence[Observable], threshold: float) -> _Beyond:
        counts = [_beyond(sample, threshold) for sample in samples]
        weights = [np.ones(sample.n_events) if sample.weights is None else sample.weights for sample in samples]
        return cls(np.concatenate(counts), np.concatenate(weights))


def _beyond(observable: Observable, threshold: float) -> np.ndarray:
    """(events,) float64: values of each event that are above the threshold."""
    above = (observable.values > threshold).astype(np.float64)
    if observable.counts is None:
        return above
    events = np.repeat(np.arange(observable.n_events), observable.counts)
    return np.bincount(events, above, minlength=observable.n_events).astype(np.float64)


def _quantile(observable: Observable, level: float) -> float:
    """The smallest value that at least the share `level` of all values, by their weights, is not above."""
    weights = observable.value_weights
    if weights is None:
        return float(np.quantile(observable.values, level, method="inverted_cdf"))
    order = np.argsort(observable.values, kind="stable")
    upto = np.cumsum(weights[order])
    return float(observable.values[order][int(np.argmax(upto >= level * upto[-1]))])
