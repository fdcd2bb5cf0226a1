"""Distances at each point of the conditions: those of the events there, beside real against real."""

from __future__ import annotations

import dataclasses

import numpy as np
import pages
import pytest

from hpcgan.evaluation import by_point, compare
from hpcgan.evaluation.conditional import trained_rows
from hpcgan.evaluation.distances import Options, Samples
from hpcgan.evaluation.more_scores import MoreSamples
from hpcgan.metrics import points
from hpcgan.metrics.distances import distances
from hpcgan.metrics.ks import ks_score_by_point
from hpcgan.metrics.observable import Observable
from hpcgan.report.page import Numbers, environment

N = 60
NAMES = ("mass", "width", "extra")


class Problem:
    """Scores mass and width of events of two classes; `extra` is no part of the score."""

    name = "classes"
    conditions = ("kind",)
    more_quantities = ("extra",)
    tails = ()

    def score(self, real, fake):
        return ks_score_by_point(real, fake, ["mass"])


def events(seed, n, shift=0.0, more=False):
    """`n` events of either class in turn; the mass of the second is shifted."""
    rng = np.random.default_rng(seed)
    kind = np.arange(2 * n) % 2
    if more:
        return {"extra": Observable(rng.normal(0, 1, 2 * n))}
    return {
        "mass": Observable(rng.normal(80, 10, 2 * n) + shift * kind, unit="GeV"),
        "width": Observable(rng.exponential(2.0, 2 * n)),
        "kind": Observable(kind.astype(float), condition=True),
    }


@pytest.fixture(scope="module")
def rows():
    samples = Samples(2 * N, events(1, N), [events(2, N, 30.0), events(3, N, 30.0)], events(4, 2 * N))
    more = MoreSamples(Problem(), ["extra"])
    more.real, more.pool = events(5, N, more=True), events(6, 2 * N, more=True)
    more.fakes = [events(7, N, more=True), events(8, N, more=True)]
    compared = compare.compare(Problem(), samples.real, samples.fakes, samples.pool, 2 * N, repetitions=40)
    scored = trained_rows(compared.band, compared.band_scores)
    measured = by_point.measure(samples, more, compared, scored, Options(), lambda text: None)
    return samples, more, measured


def test_each_point_has_the_distances_of_its_events(rows):
    samples, more, (first, second) = rows
    assert (first["conditions"], second["conditions"]) == ({"kind": 0.0}, {"kind": 1.0})
    assert first["n"] == second["n"] == N
    for kind, row in enumerate((first, second)):
        assert tuple(row["quantities"]) == NAMES
        chosen = np.arange(kind, 2 * N, 2)
        for name in NAMES:
            real, fake = (
                side[name].take(chosen)
                for side in ({**samples.real, **more.real}, {**samples.fakes[0], **more.fakes[0]})
            )
            assert row["quantities"][name].items() >= dataclasses.asdict(distances(real, fake)).items()


def test_the_class_that_is_wrong_is_told_from_the_one_that_is_right(rows):
    """A shift by three standard deviations: Wasserstein 30 GeV, an FPD of about nine, and coverage is lost."""
    _, _, (right, wrong) = rows
    mass = [row["quantities"]["mass"] for row in (right, wrong)]
    assert mass[0]["score"]["mean"] < mass[0]["score"]["band"]["p99"]
    assert mass[1]["score"]["mean"] > 10 * mass[1]["score"]["band"]["p99"]
    assert mass[1]["wasserstein"] == pytest.approx(30.0, abs=4 * 10 * np.sqrt(2 / N))
    assert mass[1]["reference"]["wasserstein"] < 5.0
    assert right["quantities"]["width"]["score"] is None
    numbers = [row["sample_distances"]["numbers"] for row in (right, wrong)]
    assert right["sample_distances"]["features"] == ["mass", "width"]
    assert abs(numbers[0]["fpd"]["mean"]) < 0.5
    assert numbers[1]["fpd"]["mean"] == pytest.approx(9.0, abs=3.0)
    assert all(abs(of_point["fpd"]["null"]["mean"]) < 0.5 for of_point in numbers)
    assert numbers[1]["coverage"]["mean"] < 0.5 < numbers[0]["coverage"]["mean"]


def test_without_conditions_there_are_no_points():
    real = points.measured(events(1, N))
    samples = Samples(2 * N, real, [real], real)
    assert by_point.measure(samples, MoreSamples(Problem(), []), None, [], Options(), lambda text: None) == []


def test_areas_go_to_their_points(rows):
    _, _, measured = rows
    third = float(np.float32(1) / np.float32(3))
    of_points = [{"conditions": {"kind": third}, "auc": {"value": 0.7, "error": 0.1}, "null": None}]
    at_third = [{**measured[0], "conditions": {"kind": 1 / 3}}, measured[1]]
    joined = by_point.with_classifier(at_third, of_points)
    assert [row["classifier"] for row in joined] == [of_points[0], None]


def test_lines_and_page(rows):
    _, _, measured = rows
    of_point = {"conditions": {"kind": 1.0}, "auc": {"value": 0.9, "error": 0.01}, "auc_spread": 0.02,
                "null": {"value": 0.5, "error": 0.03}}  # fmt: skip
    report = {"by_point": by_point.with_classifier(measured, [of_point])}
    lines = by_point.summary(report)
    assert lines[0] == f"at kind=0, N={N} (in brackets: real against real):"
    assert sum(line.startswith("  mass: -ln p ") for line in lines) == 2
    assert "AUC on images 0.900 +- 0.010 (0.500)" in lines[-1]
    numbers = Numbers(report)
    page = pages.Page(
        environment()
        .from_string('{% from "parts.html.j2" import table, row with context %}{% include "by_point.html.j2" %}')
        .render(
            report=report, number=numbers.number, spread=numbers.spread, repeated="", distance_titles={"fpd": "FPD"}
        )
    )
    pages.check_numbers(page, report)
    keys = {key for key, _, _ in page.data}
    for i in (0, 1):
        for name in NAMES:
            assert {
                f"by_point.{i}.quantities.{name}.{key}" for key in ("ks.value", "reference.ks", "wasserstein")
            } <= keys
        assert {f"by_point.{i}.sample_distances.numbers.fpd.{key}" for key in ("mean", "null.mean")} <= keys
    assert {"by_point.1.classifier.auc.value", "by_point.1.classifier.null.value"} <= keys
