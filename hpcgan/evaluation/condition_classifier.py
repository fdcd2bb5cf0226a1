"""Classifiers that tell conditions apart, trained on real or on generated events, tested on both. Needs TensorFlow.

The test of LAGAN (arXiv:1701.05927) and of CaloGAN (PRL 120 (2018) 042003). Trained on real events and as good on
generated ones: these differ from point to point as real ones do. Trained on generated events and worse on real ones:
the generator exaggerates or invents differences.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.evaluation.classifier import LEAST, Log, Settings, Training, comparable, mean_of, split, spread_of, train
from hpcgan.evaluation.image_classifier import Frame, ImageTraining
from hpcgan.metrics import points
from hpcgan.metrics.classification import auc
from hpcgan.metrics.features import Cells
from hpcgan.metrics.observable import Estimate, Observable
from hpcgan.problems.base import Problem

#: Trainings on events of each kind, for each pair of points.
TRAININGS = 3
#: Pairs of points, at most: each takes nine trainings.
MOST_PAIRS = 6
#: Events of a pair that other real ones must be for, as a share, to be trained on as well.
ENOUGH = 0.9

REAL, GENERATED, OTHER = "real", "generated", "other_real"
#: Which events a classifier is trained and tested on; the last says what trainings on different real events do.
TESTS = ((REAL, REAL), (REAL, GENERATED), (GENERATED, GENERATED), (GENERATED, REAL), (OTHER, REAL))


@dataclass(frozen=True)
class Contest:
    """The events of two points of the conditions.

    Attributes
    ----------
    rows : dict of str to pair of (n, inputs) arrays
        Of each kind of events, those of the first point and those of the second: `real`, `generated`, and `other_real`
        or not. All are cut to the size of the smallest.
    """

    rows: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def areas(
        self, settings: Training, trainings: int = TRAININGS, log: Log = lambda text: None, label: str = "classifier"
    ) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """Train a classifier on the events of each kind and test it on others of the same kind and of another.

        Parameters
        ----------
        settings : Training
            60% of the events train, 20% choose the epoch, 20% test. Seeds are `seed` ... `seed + trainings - 1`.
        trainings : int
        log, label
            As of `hpcgan.evaluation.classifier.train`.

        Returns
        -------
        events : dict of str to int
            Of each point for `train`, `validation` and `test`.
        tests : list of dict
            `trained_on`, `tested_on`, `auc` (mean over the trainings, with the error of one; the second point is the
            positive class), `aucs` and `auc_spread`.

        Raises
        ------
        ValueError
            Too few events, or inputs that differ in number.
        """
        n = comparable([side for pair in self.rows.values() for side in pair])
        areas: dict[tuple[str, str], list[Estimate]] = {test: [] for test in TESTS if set(test) <= set(self.rows)}
        events: dict[str, int] = {}
        for i in range(trainings):
            seeded = dataclasses.replace(settings, seed=settings.seed + i)
            parts = {
                kind: [split(side[:n], seeded.seed, f"{kind}/{j}") for j, side in enumerate(pair)]
                for kind, pair in self.rows.items()
            }
            for kind, ((train0, validation0, test0), (train1, validation1, _)) in parts.items():
                text = f"{label}, trained on {kind.replace('_', ' ')} events, training {i + 1} of {trainings}"
                classifier = train((train0, train1), (validation0, validation1), seeded, log, text)
                for tested_on in (of_test for trained_on, of_test in areas if trained_on == kind):
                    negative, positive = (classifier(side[2]) for side in parts[tested_on])
                    areas[kind, tested_on].append(auc(positive, negative))
                events = {"train": len(train0), "validation": len(validation0), "test": len(test0)}
        tests = []
        for (trained_on, tested_on), estimates in areas.items():
            values = [estimate.value for estimate in estimates]
            tests.append(
                {
                    "trained_on": trained_on,
                    "tested_on": tested_on,
                    "auc": dataclasses.asdict(mean_of(estimates)),
                    "aucs": values,
                    "auc_spread": spread_of(values),
                }
            )
        return events, tests


def condition_test(
    problem: Problem,
    samples: Sequence[Sample],
    settings: Settings,
    trainings: int = TRAININGS,
    log: Log = lambda text: None,
) -> dict[str, Any]:
    """Separate the points of the conditions, each pair of them by itself.

    Samples that are images have the network of `hpcgan.evaluation.image_classifier`, others are compared by their
    cells. Neither sees the conditions.

    Parameters
    ----------
    problem : Problem
    samples : (real, generated) or (real, generated, more real) Samples
        In physical units, conditions included.
    settings : Settings
        Of classifiers on cells; its seed counts for images as well.
    trainings : int
        On events of each kind.
    log : callable
        Hears of progress.

    Returns
    -------
    dict
        JSON-able: `inputs` (`images` or `cells`), `trainings` and `pairs`. Each of these has the points `first` and
        `second` (the positive class), `events` and `tests`, as `Contest.areas` has them.

    Raises
    ------
    ValueError
        Fewer than two points, too many pairs, too few events, values that are not finite.
    """
    encode, training = _inputs(problem, samples[0], settings)
    at = [_conditions(problem, sample) for sample in samples]
    common = [point for point in points.sizes(at[0]) if point in points.sizes(at[1])]
    pairs = list(itertools.combinations(common, 2))
    if not pairs:
        raise ValueError(f"{len(common)} points of the conditions in common: it takes two")
    if len(pairs) > MOST_PAIRS:
        raise ValueError(
            f"{len(common)} points of the conditions make {len(pairs)} pairs, {MOST_PAIRS} at most: compare fewer "
            "points (data.select, --select)"
        )
    rows = [encode(sample) for sample in samples]
    contests = []
    for first, second in pairs:
        sides = [
            tuple(of_all[points.events_of(where, point)] for point in (first, second))
            for of_all, where in zip(rows, at, strict=True)
        ]
        named = _named(sides)
        names = [points.label(points.described(at[0], point)) for point in (first, second)]
        events, tests = Contest(named).areas(training, trainings, log, f"classifier between {' and '.join(names)}")
        contests.append(
            {
                "first": points.described(at[0], first),
                "second": points.described(at[0], second),
                "events": events,
                "tests": tests,
            }
        )
    return {"inputs": "images" if problem.images else "cells", "trainings": trainings, "pairs": contests}


def _conditions(problem: Problem, sample: Sample) -> dict[str, Observable]:
    return {name: Observable(sample[name].reshape(-1), condition=True) for name in problem.point_conditions}


def _inputs(problem: Problem, real: Sample, settings: Settings) -> tuple[Callable[[Sample], np.ndarray], Training]:
    """What makes rows of inputs of a sample, and the network that takes them."""
    if problem.images:
        frame = dataclasses.replace(Frame.of(problem), conditions=())
        return frame.rows, ImageTraining(frame=frame, seed=settings.seed)
    tensors = {name: values for name, values in real.items() if name not in problem.conditions}
    return Cells.of(tensors), settings


def _named(sides: Sequence[tuple[np.ndarray, ...]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The events of each kind; other real ones only where there are about as many of them."""
    named = {name: (pair[0], pair[1]) for name, pair in zip((REAL, GENERATED, OTHER), sides, strict=False)}
    if OTHER in named:
        enough = ENOUGH * min(len(side) for name in (REAL, GENERATED) for side in named[name])
        if min(len(side) for side in named[OTHER]) < max(LEAST, enough):
            del named[OTHER]
    return named
