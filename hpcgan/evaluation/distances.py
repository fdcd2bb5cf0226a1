"""Distances between whole samples of events, beside those between real ones: numbers and lines of a report.

Imports TensorFlow only where a classifier is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.data.schema import take as take_sample
from hpcgan.errors import InputError
from hpcgan.metrics.features import Cells, Features
from hpcgan.metrics.frechet import GROUPS, fpd, fpd_value
from hpcgan.metrics.kernel import kpd
from hpcgan.metrics.manifold import NEIGHBOURS, manifold
from hpcgan.metrics.memorisation import memorisation
from hpcgan.metrics.observable import weighted, weights_of
from hpcgan.metrics.points import label, take
from hpcgan.problems.base import Observables, Problem
from hpcgan.system.console import quiet_tensorflow
from hpcgan.weights import single_events

if TYPE_CHECKING:
    from hpcgan.evaluation.image_classifier import Suspects

#: Least events on each side.
LEAST = 4 * GROUPS
#: Splits of real events for the numbers between real and real.
NULL_SPLITS = 10

#: Events on each side from which on images have a classifier unless something else is asked for, and their pixels at
#: most: that takes a minute or two at 4096 events, and with few events it says little.
LEAST_FOR_IMAGES, MOST_PIXELS = 1000, 64 * 64

Inputs = Literal["features", "cells", "images", "conditions"]
Log = Callable[[str], None]

NAMES = {
    "fpd": "FPD",
    "kpd": "KPD",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
}


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    distances : bool
        FPD, KPD, precision, recall, density, coverage and memorisation.
    classifier : tuple of "features", "cells", "images" and "conditions", or None
        What classifiers are trained on, if any, and "conditions" for those that tell points of the conditions apart;
        None: images, where `inputs` takes them.
    units, epochs : int
        Of a classifier on features or cells, that between conditions included where samples are no images: units of
        each of its three layers, and epochs, at most.
    """

    distances: bool = True
    classifier: tuple[Inputs, ...] | None = None
    units: int = 2048
    epochs: int = 50

    def inputs(self, problem: Problem, n: int) -> tuple[Inputs, ...]:
        """What classifiers are trained on for `n` events of a problem on each side.

        If nothing is asked for: images of up to `MOST_PIXELS` pixels, with `LEAST_FOR_IMAGES` events or more, where
        TensorFlow is installed.

        Raises
        ------
        InputError
            Images or conditions are asked for, and the problem has none.
        """
        if self.classifier is not None:
            if "images" in self.classifier and not problem.images:
                raise InputError(
                    f"--classifier images: samples of problem '{problem.name}' are no images of one shape; "
                    "take features or cells"
                )
            if "conditions" in self.classifier and not problem.point_conditions:
                raise InputError(
                    f"--classifier conditions: samples of problem '{problem.name}' have no conditions with many events "
                    "of the same; take images, features or cells"
                )
            return self.classifier
        pixels = max((math.prod(problem.schema[name].shape) for name in problem.images), default=0)
        fits = n >= LEAST_FOR_IMAGES and 0 < pixels <= MOST_PIXELS
        return ("images",) if fits and importlib.util.find_spec("tensorflow") is not None else ()


DEFAULTS = Options()


@dataclass(frozen=True)
class Samples:
    """The events of a report.

    Attributes
    ----------
    n : int
        Events on each side.
    real : Observables
        Events generated ones are held against; the first `n` count.
    fakes : sequence of Observables
        Generated samples; the first `n` events of each count.
    pool : Observables
        All real events at hand that were not trained on.
    training : Observables or None
        Training events, if they are known.
    cells : (real, generated) or (real, generated, more real) Samples, or empty
        Tensors of `real`, of the first of `fakes`, and of real events that are not among the former.
    more_weights : (k,) array or None
        Weights of those, where they have some.
    """

    n: int
    real: Observables
    fakes: Sequence[Observables]
    pool: Observables
    training: Observables | None = None
    cells: tuple[Sample, ...] = ()
    more_weights: np.ndarray | None = None


def measure(samples: Samples, options: Options, log: Log, seed: int = 0) -> dict[str, Any] | None:
    """All numbers as JSON-able types; None if nothing is asked for, or there are fewer than `LEAST` events.

    Those of classifiers on images and between conditions are not among them: `classify_images` and
    `classify_conditions` have them.

    Raises
    ------
    InputError
        Observables or cells that are not finite, or no classifier without TensorFlow.
    """
    samples = of_single_events(samples, seed)
    classifier = options.classifier or ()
    if samples.n < LEAST or not (options.distances or classifier):
        return None
    try:
        features = Features.of(samples.pool)
        real, *fakes = (features(side)[: samples.n] for side in (samples.real, *samples.fakes))
        pool = features(samples.pool)
        rng = np.random.default_rng(seed)
        splits = [_split(pool, samples.n, rng) for _ in range(NULL_SPLITS)]
        measured: dict[str, Any] = {"n": samples.n, "features": list(features.names), "numbers": {}}
        if options.distances:
            measured |= {"neighbours": NEIGHBOURS, "null_splits": NULL_SPLITS}
            measured["numbers"] = _numbers(real, fakes, splits, seed)
        copies = None
        if options.distances and samples.training is not None:
            copies = dataclasses.asdict(memorisation(np.concatenate(fakes), pool, features(samples.training)))
        measured["memorisation"] = copies
        measured |= {"classifier": {}, "between_conditions": None}
        if "features" in classifier:
            measured["classifier"]["features"] = _classify((real, fakes[0]), splits[0], options, log, "features")
        if "cells" in classifier and samples.cells:
            of_real, *others = samples.cells
            cells = Cells.of(of_real)
            first, second, *more = (cells(sample) for sample in (of_real, *others))
            null = (first, more[0]) if more and len(more[0]) >= LEAST else None
            measured["classifier"]["cells"] = _classify((first, second), null, options, log, "cells")
    except ValueError as error:
        raise InputError(f"sample distances: {error}") from None
    return measured


def of_single_events(samples: Samples, seed: int = 0) -> Samples:
    """Events that count once each: of weighted ones some that are drawn by the absolute weight, none of them twice."""
    sides = (samples.real, *samples.fakes, samples.pool)
    if all(weights_of(side) is None for side in sides) and (
        samples.training is None or weights_of(samples.training) is None
    ):
        return samples
    real, *fakes, pool = (_drawn(side, seed) for side in sides)
    training = None if samples.training is None else _drawn(samples.training, seed)
    weights = (weights_of(samples.real), weights_of(samples.fakes[0]), samples.more_weights)
    cells = tuple(_drawn_cells(sample, w, seed) for sample, w in zip(samples.cells, weights, strict=False))
    n = min(samples.n, _events(pool) // 2, *(_events(side) for side in (real, *fakes)))
    return Samples(n, real, fakes, pool, training, cells)


def _drawn(side: Observables, seed: int) -> Observables:
    weights = weights_of(side)
    return weighted(take(side, single_events(weights, _events(side), seed)), None)


def _drawn_cells(sample: Sample, weights: np.ndarray | None, seed: int) -> Sample:
    n = len(next(iter(sample.values())))
    return take_sample(sample, single_events(weights, n, seed))


def _events(side: Observables) -> int:
    return next(iter(side.values())).n_events


def _split(pool: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    events = rng.permutation(len(pool))[: 2 * n]
    return pool[events[:n]], pool[events[n:]]


def _numbers(
    real: np.ndarray, fakes: Sequence[np.ndarray], splits: Sequence[tuple[np.ndarray, np.ndarray]], seed: int
) -> dict[str, Any]:
    """FPD, KPD and the rest: of each generated sample, and of real against real."""

    def of(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
        return {
            "fpd": fpd_value(first, second, seed=seed),
            "kpd": kpd(first, second, seed=seed).value,
            **dataclasses.asdict(manifold(first, second)),
        }

    generated = [of(real, fake) for fake in fakes]
    null = [of(first, second) for first, second in splits]
    errors = {"fpd": fpd(real, fakes[0], seed=seed).error, "kpd": kpd(real, fakes[0], seed=seed).error}
    return {
        name: {
            **spread([row[name] for row in generated]),
            "values": [row[name] for row in generated],
            "error": errors.get(name),
            "null": spread([row[name] for row in null]),
        }
        for name in NAMES
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation of a few numbers; a single one has no deviation."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _classify(
    samples: tuple[np.ndarray, np.ndarray],
    null: tuple[np.ndarray, np.ndarray] | None,
    options: Options,
    log: Log,
    inputs: Inputs,
) -> dict[str, Any]:
    """A classifier between real and generated events, and one between real and real."""
    quiet_tensorflow()
    try:
        from hpcgan.evaluation.classifier import Settings, classifier_test
    except ImportError as error:
        raise _no_tensorflow(error) from None

    settings = Settings(hidden=(options.units,) * 3, epochs=options.epochs)
    log(f"training a classifier on {inputs}")
    test = classifier_test(*samples, settings, log, f"classifier on {inputs}, real against generated")
    against = None
    if null is not None:
        against = dataclasses.asdict(
            classifier_test(*null, settings, log, f"classifier on {inputs}, real against real")
        )
    return {**dataclasses.asdict(test), "inputs": samples[0].shape[1], "units": options.units, "null": against}


def classify_images(problem: Problem, samples: Samples, log: Log, seed: int = 0) -> tuple[dict[str, Any], Suspects]:
    """Classifiers on the images of the events, real against generated and real against real.

    Returns
    -------
    dict, Suspects
        As of `hpcgan.evaluation.image_classifier.image_test`.

    Raises
    ------
    InputError
        Images that are not finite or not of one shape, or no TensorFlow.
    """
    quiet_tensorflow()
    try:
        from hpcgan.evaluation.image_classifier import Frame, ImageTraining, image_test
    except ImportError as error:
        raise _no_tensorflow(error) from None

    cells = of_single_events(samples, seed).cells
    log("training classifiers on images")
    try:
        return image_test(cells, ImageTraining(frame=Frame.of(problem), seed=seed), log=log)
    except ValueError as error:
        raise InputError(f"classifier on images: {error}") from None


def classify_conditions(
    problem: Problem, samples: Samples, options: Options, log: Log, seed: int = 0
) -> dict[str, Any]:
    """Classifiers between the points of the conditions, trained and tested on real and on generated events.

    Returns
    -------
    dict
        As of `hpcgan.evaluation.condition_classifier.condition_test`.

    Raises
    ------
    InputError
        Fewer than two points, too many, too few events, or no TensorFlow.
    """
    quiet_tensorflow()
    try:
        from hpcgan.evaluation.classifier import Settings
        from hpcgan.evaluation.condition_classifier import condition_test
    except ImportError as error:
        raise _no_tensorflow(error) from None

    cells = of_single_events(samples, seed).cells
    log("training classifiers between conditions")
    settings = Settings(hidden=(options.units,) * 3, epochs=options.epochs, seed=seed)
    try:
        return condition_test(problem, cells, settings, log=log)
    except ValueError as error:
        raise InputError(f"--classifier conditions: {error}") from None


def _no_tensorflow(error: ImportError) -> InputError:
    return InputError(f"--classifier needs TensorFlow: pip install 'hpcgan[train]' ({error})")


def summary(measured: dict[str, Any] | None) -> list[str]:
    """What a terminal shows: a few lines."""
    lines: list[str] = []
    if measured is None:
        return lines
    for name, number in measured["numbers"].items():
        error = f" +- {number['error']:.2g}" if number["error"] is not None else ""
        null = f"real against real {number['null']['mean']:.3g} +- {number['null']['std']:.2g}"
        lines.append(f"  {NAMES[name]:<20} {number['mean']:.3g}{error}; {null}")
    if lines:
        lines.insert(0, f"distances of {len(measured['features'])} features at N={measured['n']}:")
    copies = measured["memorisation"]
    if copies is not None:
        lines.append(
            f"memorisation: z = {copies['z']:.2f} (copies: far below 0), {copies['close']['share']:.1%} of generated "
            f"events close to a training event, {copies['close']['expected']:.1%} expected "
            f"(p = {copies['close']['p']:.2g})"
        )
    for inputs, test in measured["classifier"].items():
        against = "" if test["null"] is None else f"; real against real {test['null']['auc']['value']:.3f}"
        area, divergence = (f"{test[name]['value']:.3f} +- {test[name]['error']:.3f}" for name in ("auc", "jsd"))
        spread_over = ""
        if test.get("auc_spread") is not None:
            spread_over = f" (spread of {len(test['aucs'])} trainings {test['auc_spread']:.3f})"
        lines.append(f"classifier on {inputs}: AUC {area}{spread_over}{against}; JSD {divergence} bit")
    between = measured["between_conditions"]
    for pair in () if between is None else between["pairs"]:
        names = " and ".join(label(pair[side]) for side in ("first", "second"))
        lines.append(f"classifiers on {between['inputs']} between {names}, AUC:")
        for test in pair["tests"]:
            trained_on, tested_on = (test[key].replace("_", " ") for key in ("trained_on", "tested_on"))
            spread_over = "" if test["auc_spread"] is None else f" (spread {test['auc_spread']:.3f})"
            lines.append(
                f"  trained on {trained_on}, tested on {tested_on}: {test['auc']['value']:.3f} +- "
                f"{test['auc']['error']:.3f}{spread_over}"
            )
    return lines
