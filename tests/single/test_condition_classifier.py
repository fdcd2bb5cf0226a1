"""Classifiers between conditions: areas of two Gaussians, equal generated events, a generator that exaggerates."""

from __future__ import annotations

import json
import math

import needs
import numpy as np
import pages
import pytest
from scipy import stats

tf = needs.tensorflow()

from hpcgan.data.schema import TensorSpec  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.evaluation import distances  # noqa: E402
from hpcgan.evaluation.classifier import Settings  # noqa: E402
from hpcgan.evaluation.condition_classifier import MOST_PAIRS, condition_test  # noqa: E402
from hpcgan.evaluation.distances import Options, Samples  # noqa: E402
from hpcgan.metrics.observable import Observable  # noqa: E402
from hpcgan.problems.base import problem_class  # noqa: E402
from hpcgan.problems.symmetries import Symmetries  # noqa: E402
from hpcgan.report.page import Numbers, environment  # noqa: E402

SMALL = Settings(hidden=(16,), epochs=5, learning_rate=1e-2)
SIDE = 12


class Classes(Symmetries):
    """Samples of four cells, and a class."""

    name = "classes"
    images = {}
    schema = {"cells": TensorSpec((4,)), "kind": TensorSpec((), role="condition")}
    conditions = point_conditions = ("kind",)


class Pictures(Classes):
    """The same as images."""

    images = {"cells": (False, False)}
    schema = {"cells": TensorSpec((SIDE, SIDE)), "kind": TensorSpec((), role="condition")}


def gaussians(seed, n, shift, kinds=2):
    """`n` events of each class, four cells around 5 with width one each; those of class k are `k shift` higher."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(float(kinds)), n)
    return {"cells": rng.normal(5.0 + shift * kind[:, None], 1.0, (kinds * n, 4)), "kind": kind}


def pictures(seed, n, shift):
    """Every fifth pixel is lit, with a common brightness exp(z); z is normal, and `shift` higher in class 1."""
    rng = np.random.default_rng(seed)
    kind = np.repeat([0.0, 1.0], n)
    lit = rng.random((2 * n, SIDE, SIDE)) < 0.2
    return {"cells": (lit * np.exp(rng.normal(shift * kind, 1.0))[:, None, None]).astype(np.float32), "kind": kind}


def areas(measured):
    (pair,) = measured["pairs"]
    return {(test["trained_on"], test["tested_on"]): test for test in pair["tests"]}


def expected(shift, cells=1):
    """Of two Gaussians that are as far apart as this in each of so many independent cells."""
    return stats.norm.cdf(shift * math.sqrt(cells / 2))


@pytest.mark.usefixtures("eager")
def test_two_gaussians():
    """Equal distributions on both sides: all five areas are that of the best classifier."""
    samples = [gaussians(seed, 800, 0.5) for seed in (1, 2, 3)]
    measured = condition_test(Classes(), samples, SMALL, 2)
    (pair,) = measured["pairs"]
    assert (pair["first"], pair["second"]) == ({"kind": 0.0}, {"kind": 1.0})
    assert pair["events"] == {"train": 480, "validation": 160, "test": 160}
    measured_areas = areas(measured)
    assert list(measured_areas) == [
        ("real", "real"), ("real", "generated"), ("generated", "generated"), ("generated", "real"),
        ("other_real", "real"),
    ]  # fmt: skip
    for test in measured_areas.values():
        assert test["auc"]["value"] == pytest.approx(expected(0.5, 4), abs=4 * test["auc"]["error"])
        assert test["auc"]["value"] == pytest.approx(np.mean(test["aucs"]))
        assert test["auc_spread"] == pytest.approx(abs(test["aucs"][0] - test["aucs"][1]) / math.sqrt(2))
    json.dumps(measured, allow_nan=False)


@pytest.mark.usefixtures("eager")
def test_a_generator_that_exaggerates():
    """Generated classes are twice as far apart: easy to tell for either classifier, real ones are not."""
    measured_areas = areas(condition_test(Classes(), [gaussians(1, 800, 0.5), gaussians(2, 800, 1.0)], SMALL, 1))
    assert ("other_real", "real") not in measured_areas
    for trained_on in ("real", "generated"):
        of_real, of_generated = (measured_areas[trained_on, tested_on]["auc"] for tested_on in ("real", "generated"))
        assert of_real["value"] == pytest.approx(expected(0.5, 4), abs=4 * of_real["error"])
        assert of_generated["value"] > of_real["value"] + 0.05
    assert of_generated["value"] == pytest.approx(expected(1.0, 4), abs=4 * of_generated["error"])
    assert all(test["auc_spread"] is None for test in measured_areas.values())


@pytest.mark.usefixtures("eager")
def test_a_generator_that_ignores_its_condition():
    measured_areas = areas(condition_test(Classes(), [gaussians(1, 400, 1.0), gaussians(2, 400, 0.0)], SMALL, 1))
    assert measured_areas["real", "real"]["auc"]["value"] > 0.85
    for test in (measured_areas["real", "generated"], measured_areas["generated", "generated"]):
        assert test["auc"]["value"] == pytest.approx(0.5, abs=4 * test["auc"]["error"])


def test_images_have_the_network_of_images_and_do_not_show_their_class():
    samples = pictures(1, 500, 1.0), pictures(2, 500, 0.0)
    measured = condition_test(Pictures(), samples, SMALL, 1)
    assert measured["inputs"] == "images"
    measured_areas = areas(measured)
    real = measured_areas["real", "real"]["auc"]
    assert real["value"] == pytest.approx(expected(1.0), abs=4 * real["error"])
    # The class is a condition of every event: a classifier that saw it would have an area of one.
    for tested_on in ("generated", "real"):
        unaware = measured_areas["generated", tested_on]["auc"]
        assert unaware["value"] < 0.8
    assert measured_areas["generated", "generated"]["auc"]["value"] == pytest.approx(0.5, abs=4 * 0.0408)


@pytest.mark.usefixtures("eager")
def test_pairs_of_points():
    samples = [gaussians(seed, 100, 3.0, kinds=3) for seed in (1, 2)]
    measured = condition_test(Classes(), samples, SMALL, 1)
    assert [(pair["first"]["kind"], pair["second"]["kind"]) for pair in measured["pairs"]] == [(0, 1), (0, 2), (1, 2)]
    for pair in measured["pairs"]:
        assert all(test["auc"]["value"] > 0.9 for test in pair["tests"])


def test_what_is_refused():
    one = {name: values[:50] for name, values in gaussians(1, 50, 1.0).items()}
    with pytest.raises(ValueError, match="1 points of the conditions in common: it takes two"):
        condition_test(Classes(), [one, one], SMALL)
    many = gaussians(1, 10, 1.0, kinds=5)
    with pytest.raises(ValueError, match=f"5 points of the conditions make 10 pairs, {MOST_PAIRS} at most"):
        condition_test(Classes(), [many, many], SMALL)
    few = gaussians(1, 9, 1.0)
    with pytest.raises(ValueError, match="9 events are too few for a classifier"):
        condition_test(Classes(), [few, few], SMALL)
    rpv = problem_class("rpv")
    with pytest.raises(InputError, match="--classifier conditions: samples of problem 'rpv' have no conditions"):
        Options(classifier=("conditions",)).inputs(rpv(rpv.Model()), 5000)
    assert Options(classifier=("conditions",)).inputs(Classes(), 50) == ("conditions",)


@pytest.mark.usefixtures("eager")
def test_lines_table_and_refusals_of_a_report():
    real, fake = gaussians(1, 40, 2.0), gaussians(2, 40, 2.0)
    observables = {"cells": Observable(real["cells"][:, 0])}
    samples = Samples(80, observables, [observables], observables, cells=(real, fake))
    options = Options(False, ("conditions",), units=8, epochs=3)
    measured = distances.measure(samples, options, lambda text: None)
    assert measured["between_conditions"] is None
    measured["between_conditions"] = distances.classify_conditions(Classes(), samples, options, lambda text: None)
    lines = distances.summary(measured)
    assert lines[0] == "classifiers on cells between kind=0 and kind=1, AUC:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "trained on real, tested on real", "trained on real, tested on generated",
        "trained on generated, tested on generated", "trained on generated, tested on real",
    ]  # fmt: skip
    measured = {**measured, "numbers": {}, "memorisation": None, "classifier": {}}
    numbers = Numbers({"sample_distances": measured})
    page = pages.Page(
        environment()
        .from_string(
            '{% from "parts.html.j2" import gallery, row, table with context %}{% include "sample_distances.html.j2" %}'
        )
        .render(report=numbers.report, number=numbers.number, spread=numbers.spread, repeated="", distance_titles={})
    )
    pages.check_numbers(page, numbers.report)
    pair = "sample_distances.between_conditions.pairs.0.tests"
    keys = {f"{pair}.{i}.{end}" for i in range(4) for end in ("auc.value", "auc.error", "auc_spread")}
    assert {key for key, _, _ in page.data} == keys
    one = {name: values[:40] for name, values in real.items()}
    few = Samples(40, observables, [observables], observables, cells=(one, one))
    with pytest.raises(InputError, match="--classifier conditions: 1 points"):
        distances.classify_conditions(Classes(), few, options, lambda text: None)
