"""What a report says of quantities beside the score: scores, selection, largest values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from hpcgan.data.schema import TensorSpec
from hpcgan.evaluation import more_scores
from hpcgan.evaluation.distances import Samples
from hpcgan.evaluation.more_scores import MoreSamples
from hpcgan.evaluation.tails import count_tails
from hpcgan.metrics.observable import Observable, weighted
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.cosmo.problem import CosmoModel, CosmoProblem


class Numbers(CosmoProblem):
    """A problem of numbers: `x` is scored, `y` and `z` are not."""

    schema: Mapping[str, TensorSpec] = {"x": TensorSpec((3,))}
    more_quantities = ("y", "z")
    tails = ("x", "z")

    def observables(self, sample):
        return {"x": Observable(sample["x"][:, 0].astype(np.float64), unit="m")}

    def more_observables(self, sample, names):
        columns = {"y": 1, "z": 2}
        return {name: Observable(sample["x"][:, columns[name]].astype(np.float64)) for name in names}


PROBLEM: Problem = Numbers(CosmoModel())


def normal(n: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Three independent columns; the last one is shifted."""
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x[:, 2] += shift
    return {"x": x}


def report_of(shift: float, selection: list[str] | None = None) -> dict:
    pool, fakes = normal(1200, 0), [normal(400, seed, shift) for seed in (1, 2, 3)]
    own = PROBLEM.observables(pool)
    more = MoreSamples.of(PROBLEM, own, selection)
    assert more.names == ["y", "z"]
    more.pool = PROBLEM.more_observables(pool, more.names)
    first = np.arange(400)
    more.real = {name: o.take(first) for name, o in more.pool.items()}
    for sample in fakes:
        more.add_generated(sample)
    samples = Samples(400, {"x": own["x"].take(first)}, [PROBLEM.observables(fake) for fake in fakes], own)
    return more_scores.measure(samples, more, repetitions=100)


def test_the_same_is_in_the_band_and_another_is_not() -> None:
    found = report_of(1.0)["more_scores"]
    assert (found["n"], found["splits"]) == (400, 100)
    y, z = found["quantities"]["y"], found["quantities"]["z"]
    assert y["mean"] < 2 * y["band"]["p95"]
    assert z["mean"] > 5 * z["band"]["p95"]
    assert 0.3 < y["band"]["median"] < 1.2  # ln 2, if -ln p is exponential
    assert 1.8 < y["band"]["p95"] < 4.5  # ln 20
    assert len(z["samples"]) == 3
    assert z["mean"] == pytest.approx(np.mean(z["samples"]))
    assert z["std"] == pytest.approx(np.std(z["samples"], ddof=1))
    assert z["means"]["generated"] - z["means"]["real"] == pytest.approx(1.0, abs=0.3)


def test_the_selection_is_the_sum_of_what_it_names() -> None:
    assert report_of(0.0)["selection"] is None
    found = report_of(0.5, ["x", "z"])
    selection, quantities = found["selection"], found["more_scores"]["quantities"]
    assert set(quantities) == {"y", "z"}  # the score's own are above
    assert selection["quantities"] == ["x", "z"]
    above = np.array(selection["samples"]) - quantities["z"]["samples"]
    assert np.all((above >= 0) & (above < 10))  # what x adds
    assert selection["share_above"] == 0.0
    assert report_of(0.0, ["x", "z"])["selection"]["share_above"] > 0.02


def test_fewer_events_than_two_samples() -> None:
    """All at the number of events of the band."""
    pool, fake = normal(100, 0), normal(100, 1)
    own = PROBLEM.observables(pool)
    more = MoreSamples.of(PROBLEM, own)
    more.pool = more.real = PROBLEM.more_observables(pool, more.names)
    more.add_generated(fake)
    found = more_scores.measure(Samples(100, own, [PROBLEM.observables(fake)], own), more, 10)
    assert found["more_scores"]["n"] == 50


def test_problems_without_more_have_none() -> None:
    plain = CosmoProblem(CosmoModel())
    own = {"x": Observable(np.arange(40.0))}
    more = MoreSamples.of(plain, own)
    more.add_generated({"x": np.arange(40.0)})
    assert more_scores.measure(Samples(20, own, [own], own), more, 10) == {
        "more_scores": None,
        "selection": None,
        "tails": [],
    }
    assert more_scores.summary({"more_scores": None, "selection": None, "tails": []}) == []


def test_lines_for_a_terminal() -> None:
    lines = more_scores.summary(report_of(0.5, ["x"]))
    assert lines[0].startswith("selection ")
    assert "over x (real: 95% below" in lines[0]
    assert lines[1] == "beside the score, at N=400: 1 of 2 quantities above 95% of real"
    assert lines[2].startswith("  farthest, -ln p (real: 95% below): z ")
    assert lines[3].startswith("beyond 99.9% of real values: x ")
    assert len(lines) == 4


# --- largest values ----------------------------------------------------------------------------------------------


def each(values: np.ndarray) -> Observables:
    return {"x": Observable(np.asarray(values, np.float64), unit="GeV")}


def test_one_value_an_event() -> None:
    """Of 0 ... 9999 ten are beyond the 99.9% quantile, 9989. Poisson errors, and expected from the real ones."""
    real = each(np.random.default_rng(0).permutation(10_000))
    fakes = [each(np.r_[np.zeros(4985), np.full(15, 9990.0)]), each(np.r_[np.zeros(4994), np.full(6, 2e4)])]
    (row,) = count_tails(["x"], real, fakes, {})
    assert (row["name"], row["unit"], row["level"], row["threshold"]) == ("x", "GeV", 0.999, 9989.0)
    assert row["events"] == {"real": 10_000, "generated": 10_000}
    assert row["generated"] == {"value": 21.0, "error": pytest.approx(np.sqrt(21))}
    assert row["expected"] == {"value": pytest.approx(10.0), "error": pytest.approx(np.sqrt(10))}
    assert row["ratio"]["value"] == pytest.approx(2.1)
    assert row["ratio"]["error"] == pytest.approx(2.1 * np.sqrt(1 / 21 + 1 / 10))
    assert row["deviation"] == pytest.approx(11 / np.sqrt(10 + 10))
    assert row["beyond_training"] is None


def test_values_of_one_event_count_together() -> None:
    """Two events have five values beyond each: an effective number of 2, not 10."""
    values = np.concatenate([np.arange(9990.0), np.full(10, 1e5)])
    real = {"x": Observable(values, np.r_[np.full(999, 10), 5, 5])}
    (row,) = count_tails(["x"], real, [real], {})
    assert row["generated"] == {"value": 10.0, "error": pytest.approx(np.sqrt(50))}
    assert row["deviation"] == 0.0


def test_the_deviation_of_equal_distributions() -> None:
    """Jets of independent events: deviations scatter by one."""
    rng = np.random.default_rng(3)

    def sample(n: int) -> Observables:
        counts = rng.poisson(4, n)
        return {"x": Observable(rng.exponential(size=counts.sum()), counts)}

    deviations = [count_tails(["x"], sample(3000), [sample(3000)], {})[0]["deviation"] for _ in range(300)]
    assert np.std(deviations) == pytest.approx(1.0, abs=0.2)
    assert np.mean(deviations) == pytest.approx(0.0, abs=0.35)


def test_none_beyond() -> None:
    real = each(np.arange(10_000))
    (row,) = count_tails(["x"], real, [each(np.zeros(10_000))], {})
    assert row["generated"] == {"value": 0.0, "error": 0.0}
    assert row["deviation"] == pytest.approx(-10 / np.sqrt(20))
    nothing = {"x": Observable(np.zeros(0), np.zeros(5, np.int64))}
    assert count_tails(["x"], nothing, [real], {}) == []


def test_beyond_the_largest_of_the_training() -> None:
    real, training = each(np.arange(2000)), each(np.arange(1000) + 900)
    (row,) = count_tails(["x"], real, [each(np.full(500, 1899.0)), each(np.full(3, 1900.0))], training)
    beyond = row["beyond_training"]
    assert (beyond["largest"], beyond["events"]) == (1899.0, 1000)
    assert beyond["generated"] == {
        "value": 3.0,
        "error": pytest.approx(np.sqrt(3)),
        "expected": pytest.approx(503 / 1001),
    }
    assert beyond["real"]["value"] == 100.0
    several = {"x": Observable(np.arange(4.0), np.array([2, 2]))}
    assert count_tails(["x"], real, [real], several)[0]["beyond_training"] is None


def test_weights_of_one_number_are_none_and_zeros_take_events_out() -> None:
    values = np.random.default_rng(4).exponential(size=4000)
    real, fake = each(values[:2000]), each(values[2000:])
    (plain,) = count_tails(["x"], real, [fake], {})
    (equal,) = count_tails(["x"], weighted(real, np.full(2000, 3.0)), [fake], {})
    assert equal["expected"] == {key: pytest.approx(value) for key, value in plain["expected"].items()}
    assert equal["deviation"] == pytest.approx(plain["deviation"])
    doubled = {"x": dataclasses.replace(real["x"], values=np.r_[real["x"].values, np.full(500, 1e9)])}
    without = weighted(doubled, np.r_[np.ones(2000), np.zeros(500)])
    (row,) = count_tails(["x"], without, [fake], {})
    assert row["threshold"] == plain["threshold"]
    assert row["expected"] == {key: pytest.approx(value) for key, value in plain["expected"].items()}
