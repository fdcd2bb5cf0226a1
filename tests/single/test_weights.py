"""Weights of events and selections: what they mean for scores, for the events of an epoch, and what is said of them."""

import contextlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from pools import write_pool
from scipy import stats

from hpcgan import weights
from hpcgan.commands import cli
from hpcgan.config import DataConfig
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.data.schema import TensorSpec
from hpcgan.data.sharding import Sharding
from hpcgan.data.storage import Target
from hpcgan.errors import InputError
from hpcgan.evaluation import report
from hpcgan.evaluation.conditions import training_conditions
from hpcgan.evaluation.distances import Samples, of_single_events
from hpcgan.metrics.distances import chi2_test, distances, mean_error, wasserstein
from hpcgan.metrics.ks import MAX_PART, ks_score, ks_test
from hpcgan.metrics.null_band import null_band
from hpcgan.metrics.observable import Observable, weighted, weights_of
from hpcgan.physics.calorimeter import PUBLISHED
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter.source import ShowerSource
from hpcgan.problems.cosmo.problem import CosmoModel, CosmoProblem
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.detector_images.figures import ImageFigures
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.problems.events import Use, doubts, open_events, open_split, weights_used
from hpcgan.problems.figures import figures_of
from hpcgan.problems.layouts import layout_of
from hpcgan.problems.pileup.problem import PileupModel, PileupProblem
from hpcgan.report import plots
from hpcgan.report.plots.distributions import _bin

RPV = RpvProblem(RpvModel())


# --- the numbers -------------------------------------------------------------------------------------


# Cumulative shares of the real values at 1, 2, 3: w1, w1 + w2, 1; of the generated one at 2: 0, 1, 1. The p-value is
# that of n = round(n1 m1 / (n1 + m1)) with n1 = (sum w)^2 / sum w^2.
@pytest.mark.parametrize(
    ("real", "of_real", "fake", "of_fake", "distance", "n"),
    [
        ([1, 2, 3], [1, 2, 1], [2], None, 0.25, 1),  # 16 / 6 = 2.67 and 1: 0.73
        ([1, 2, 3], [6, 1, 1], [2], None, 0.75, 1),
        ([1, 2, 3, 4] * 5, [1, 1, 1, 5] * 5, [1, 2, 3, 4] * 5, [5, 1, 1, 1] * 5, 0.5, 6),  # 11.43 each: 5.7
        ([1, 2, 3, 4], [2, -1, 2, 1], [1, 2, 3, 4], None, 0.25, 1),  # 0.5, 0.25, 0.75; 16 / 10 and 4: 1.14
        ([1, 2, 3], [0, 1, 1], [2, 3], None, 0.0, 1),
    ],
)
def test_weighted_ks_by_hand(real, of_real, fake, of_fake, distance, n):
    of_fake = None if of_fake is None else np.array(of_fake, float)
    found = ks_test(np.array(real, float), np.array(fake, float), np.array(of_real, float), of_fake)
    assert found[0] == pytest.approx(distance)
    assert found[1] == pytest.approx(float(np.clip(stats.kstwo.sf(distance, n), 0, 1)))


VALUES = st.lists(st.floats(-5, 5), min_size=2, max_size=30)


@given(VALUES, VALUES, st.floats(0.01, 100))
def test_equal_weights_are_none_to_the_bit(real, fake, weight):
    a, b = np.array(real), np.array(fake)
    assert ks_test(a, b, np.full(len(a), weight), np.full(len(b), 3.0)) == ks_test(a, b)
    one, other = Observable(a), Observable(b)
    with_weights = Observable(a, weights=np.full(len(a), weight))
    assert distances(with_weights, other, bootstrap=3) == distances(one, other, bootstrap=3)


@given(VALUES, VALUES, st.data())
def test_a_weight_of_two_is_the_event_twice(real, fake, data):
    a, b = np.array(real), np.array(fake)
    w = np.array(data.draw(st.lists(st.sampled_from([1, 2]), min_size=len(a), max_size=len(a))))
    distance, p = ks_test(a, b, w)
    assert distance == pytest.approx(ks_test(np.repeat(a, w), b)[0], abs=1e-12)
    assert 0.0 <= p <= 1.0
    assert wasserstein(a, b, w.astype(float)) == pytest.approx(wasserstein(np.repeat(a, w), b), abs=1e-9)
    assert weights.effective(w) == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert weights.mean(a, w) == pytest.approx(np.repeat(a, w).mean(), abs=1e-12)
    assert weights.deviation(a, w) == pytest.approx(np.repeat(a, w).std(), abs=1e-6)


@pytest.mark.parametrize("kind", ["importance", "independent", "signed"])
def test_p_values_of_a_weighted_sample_are_uniform(kind):
    rng = np.random.default_rng(4)
    found = []
    for _ in range(400):
        x, target = rng.normal(size=400), rng.normal(size=400)
        if kind == "importance":  # drawn from a wider density, with its ratio to the target's as weight
            x = 1.4 * x
            w = np.exp(-(x**2) / 2 + (x / 1.4) ** 2 / 2)
        else:
            w = rng.exponential(size=400) if kind == "independent" else np.where(rng.random(400) < 0.15, -1.0, 1.0)
        found.append(ks_test(x, target, w)[1])
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert abs(np.mean(found) - 0.5) < 0.05  # 3.5 standard errors


def test_without_weights_such_a_sample_fails():
    rng = np.random.default_rng(4)
    x = 1.4 * rng.normal(size=4000)
    target = rng.normal(size=4000)
    assert ks_test(x, target)[1] < 1e-6
    assert ks_test(x, target, np.exp(-(x**2) / 2 + (x / 1.4) ** 2 / 2))[1] > 0.01


def test_a_score_takes_the_weights_of_the_events():
    counts = np.array([2, 0, 1])
    real = {"jets": Observable(np.array([1.0, 2.0, 3.0]), counts, weights=np.array([1.0, 5.0, 2.0]))}
    fake = {"jets": Observable(np.array([1.0, 2.0, 3.0]), counts)}
    assert real["jets"].value_weights.tolist() == [1.0, 1.0, 2.0]
    found = ks_score(real, fake, ["jets"])
    assert found.details["jets"]["ks"] == pytest.approx(2 / 3 - 1 / 2)
    assert found.details["jets"]["mean_real"] == pytest.approx((1 + 2 + 6) / 4)
    nothing = {"jets": Observable(np.array([1.0, 2.0, 3.0]), counts, weights=np.array([1.0, 9.0, -2.0]))}
    assert ks_score(nothing, fake, ["jets"]).total == MAX_PART
    assert distances(nothing["jets"], fake["jets"]).ks is None


def test_events_keep_their_weights():
    made = Observable(np.arange(4.0), weights=np.array([1.0, 2.0, 3.0, 4.0]))
    assert made.take(np.array([2, 0])).weights.tolist() == [3.0, 1.0]
    assert Observable.concatenate([made.take(np.array([1])), Observable(np.zeros(2))]).weights.tolist() == [2, 1, 1]
    several = Observable(np.arange(3.0), np.array([1, 0, 2, 0]), weights=np.array([1.0, 2.0, 3.0, 4.0]))
    assert several.take(np.array([2, 1])).weights.tolist() == [3.0, 2.0]
    with pytest.raises(ValueError, match="3 weights are given for 4 events"):
        Observable(np.arange(4.0), weights=np.ones(3))


def test_the_null_band_of_weighted_events_is_that_of_fair_comparisons():
    rng = np.random.default_rng(7)
    x = 1.4 * rng.normal(size=1200)
    pool = {"x": Observable(x, weights=np.exp(-(x**2) / 2 + (x / 1.4) ** 2 / 2))}
    band = null_band(pool, lambda a, b: ks_score(a, b, ["x"]), 400, repetitions=300)
    # One continuous quantity: -ln p of a uniform p has the median ln 2 and 95% below 3.0.
    assert band.median == pytest.approx(np.log(2), abs=0.25)
    assert band.p95 == pytest.approx(3.0, abs=1.0)


def test_other_distances_of_weighted_events():
    rng = np.random.default_rng(5)
    wide, target = 1.4 * rng.normal(size=4000), Observable(rng.normal(size=4000))
    real = Observable(wide, weights=np.exp(-(wide**2) / 2 + (wide / 1.4) ** 2 / 2))
    found, without = distances(real, target), distances(Observable(wide), target)
    assert found.real.mean == pytest.approx(0.0, abs=0.1)
    assert found.real.std == pytest.approx(1.0, abs=0.05)
    for name in ("wasserstein", "separation"):
        assert getattr(found, name) < 0.3 * getattr(without, name)
    for name in ("ks", "chi2"):
        assert getattr(found, name).value < 0.3 * getattr(without, name).value
    assert found.chi2.p > 0.001
    assert found.wasserstein_error == pytest.approx(without.wasserstein_error, rel=1.0)
    mean, error = mean_error(real)
    assert mean == pytest.approx(found.real.mean)
    assert error == pytest.approx(np.std(wide * real.weights) / real.weights.sum() * np.sqrt(4000), rel=0.1)


def test_chi2_of_weighted_histograms():
    h1, h2 = np.array([2.0, 9.0, 0.0, 4.0]), np.array([4.0, 8.0, 0.0, 0.0])
    assert chi2_test(h1, h2, h1, h2) == chi2_test(h1, h2)
    # All weights 2 on one side: as many events as half the sums.
    assert vars(chi2_test(2 * h1, h2, 4 * h1, h2)) == pytest.approx(vars(chi2_test(h1, h2)))


def test_means_of_weighted_images():
    images = np.arange(24.0).reshape(4, 2, 3)
    w = np.array([1.0, 2.0, 0.0, 1.0])
    np.testing.assert_allclose(weights.mean(images, w), np.repeat(images, [1, 2, 0, 1], axis=0).mean(axis=0))
    np.testing.assert_array_equal(weights.mean(images, None), images.mean(axis=0))
    np.testing.assert_allclose(weights.mean_error(images, np.full(4, 3.0)), weights.mean_error(images, None))
    found = weights.quantiles(np.array([3.0, 1.0, 2.0]), [0.2, 0.5, 0.9], np.array([1.0, 1.0, 2.0]))
    assert found.tolist() == [1.0, 2.0, 3.0]


def test_histograms_of_a_report_are_weighted():
    edges = np.array([0.0, 1.0, 2.0])
    values = np.array([0.5, 0.5, 1.5])
    bins = _bin(Observable(values, weights=np.array([1.0, 2.0, 1.0])), edges)
    assert bins.per_event.tolist() == [0.75, 0.25]
    assert bins.effective.tolist() == pytest.approx([9 / 5, 1.0])
    plain = _bin(Observable(values), edges)
    equal = _bin(Observable(values, weights=np.full(3, 0.5)), edges)
    np.testing.assert_array_equal(plain.per_event, equal.per_event)
    np.testing.assert_array_equal(plain.errors, equal.errors)
    jets = _bin(Observable(values, np.array([1, 2]), weights=np.array([2.0, 1.0])), edges)
    assert jets.per_event.tolist() == [1.0, pytest.approx(1 / 3)]
    # All values come from events of one weight, but not all events have that weight.
    apart = _bin(Observable(values, np.array([3, 0]), weights=np.array([2.0, 1.0])), edges)
    assert apart.per_event.tolist() == [pytest.approx(4 / 3), pytest.approx(2 / 3)]


@pytest.mark.parametrize("negative", [False, True])
def test_figures_take_weights(negative):
    images = {"hist": tiny.images(12)}
    w = np.linspace(0.5, 2.0, 12)
    w[::5] *= -0.5 if negative else 1.0
    made = figures_of(RPV).compare(images, images, (w, None))
    assert {name for name, _, _ in made} >= {"jet_pt", "pixel_spectrum", "mean_image", "phi_profile"}
    assert all(len(plots.png(figure, dpi=40)) > 0 for _, _, figure in made[:3])


# --- drawing ------------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.integers(-6, 9), min_size=1, max_size=40).filter(any)


@given(WEIGHTS, st.integers(1, 60), st.integers(0, 2**63 - 1), st.integers(0, 9))
def test_events_are_drawn_as_often_as_their_weight_says(w, n, seed, step):
    w = np.array(w)
    found = weights.resample(w, n, seed, "test", step)
    counts, expected = np.bincount(found, minlength=len(w)), n * np.abs(w) / np.abs(w).sum()
    assert len(found) == n
    assert (np.diff(found) >= 0).all()
    assert not counts[w == 0].any()
    assert (np.abs(counts - expected) < 1 + 1e-9).all()


@given(WEIGHTS, st.integers(0, 5))
def test_single_events_are_drawn_once(w, seed):
    found = weights.single_events(np.array(w, float), len(w), seed)
    assert len(np.unique(found)) == len(found) >= 1
    assert np.array(w)[found].all()
    size = np.abs(w)
    if weights.counting(np.array(w, float)) is not None:
        assert size.sum() / size.max() - 1 < len(found) <= size.sum() / size.max() + 1e-6


@given(WEIGHTS, st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_an_epoch_of_weighted_events_is_the_same_on_any_number_of_ranks(w, ranks, batch, epoch):
    w = np.tile(np.array(w, float), 12)
    n = len(w)
    one = Sharding(n, batch * ranks, 0, 1, 5, w)
    several = [Sharding(n, batch, rank, ranks, 5, w) for rank in range(ranks)]
    order = one.order(epoch)
    assert sorted(order.tolist()) == one.resampled(epoch).tolist()
    counts = np.bincount(order, minlength=n)
    assert (np.abs(counts - n * np.abs(w) / np.abs(w).sum()) < 1 + 1e-9).all()
    for position in range(0, n - one.global_batch + 1, one.global_batch):
        shares = [s.shard(s.order(epoch), position) for s in several]
        np.testing.assert_array_equal(np.concatenate(shares), one.shard(order, position))
    # From the middle of an epoch on nothing but seed, epoch and position counts.
    np.testing.assert_array_equal(Sharding(n, batch, 0, 1, 5, w.copy()).order(epoch), order)


def test_over_epochs_events_are_seen_in_proportion_to_their_weights():
    w = np.array([0.1, 2.0, -0.7, 0.0, 1.0, 0.33])
    sharding = Sharding(6, 2, 0, 1, 3, w)
    epochs = 4000
    counts = np.bincount(np.concatenate([sharding.order(e) for e in range(epochs)]), minlength=6)
    share = np.abs(w) / np.abs(w).sum()
    assert counts[3] == 0
    np.testing.assert_allclose(counts / (6 * epochs), share, atol=4 * 0.5 / 6 / np.sqrt(epochs))


def test_without_weights_an_epoch_is_what_it_was():
    assert Sharding(7, 2, 0, 1, 3, None).order(2).tolist() == Sharding(7, 2, 0, 1, 3).order(2).tolist()
    assert sorted(Sharding(7, 2, 0, 1, 3).order(2).tolist()) == list(range(7))


def test_distances_of_samples_compare_events_that_count_once():
    n = 400
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=n), np.where(np.arange(n) % 2, 1.0, 0.25)
    sides = [weighted({"x": Observable(x)}, w), {"x": Observable(x)}]
    cells = ({"c": x[:, None]}, {"c": x[:, None]}, {"c": x[:100, None]})
    found = of_single_events(Samples(200, sides[0], [sides[1]], sides[0], sides[0], cells, w[:100]))
    assert found.n == 125  # half of the 250 of the pool that can be drawn: sum w / max w
    assert weights_of(found.real) is None
    assert found.real["x"].n_events == found.training["x"].n_events == 250
    assert found.fakes[0]["x"].n_events == n
    assert [len(c["c"]) for c in found.cells] == [250, n, 62]
    np.testing.assert_array_equal(found.cells[0]["c"][:, 0], found.real["x"].values)
    untouched = Samples(200, sides[1], [sides[1]], sides[1])
    assert of_single_events(untouched) is untouched


# --- files -------------------------------------------------------------------------------------------


def folder_with(folder, n=100, **columns):
    """`tiny` data with other columns: functions of the numbers of events."""
    tiny.write_data(folder, n)
    for split in ("train", "val", "test"):
        with h5py.File(folder / f"{split}.h5", "a") as file:
            group = file["all_events"]
            for name, of in columns.items():
                group[name][:] = of(np.arange(len(group["y"])))
    return folder


def opened(folder, split="train", **settings):
    return contextlib.closing(open_split(RPV, DataConfig(path=folder, **settings), split))


def test_weights_of_a_file(tmp_path):
    folder_with(tmp_path, weight=lambda i: 1.0 + i % 2)
    with opened(tmp_path) as source:
        assert source.weights().tolist() == [1.0, 2.0] * 30
        assert weights_used(source).startswith("the weights of events are used: 60 events of ")
        assert "as much as 54.0 of equal weight" in weights_used(source)
        assert doubts(source, Use()) == []
    with opened(tmp_path, weights="ignore") as source:
        assert source.weights() is None
        assert weights_used(source) is None
        assert len(source) == 60


@pytest.mark.parametrize("weight", [1.0, 0.37])
def test_equal_weights_change_nothing(tmp_path, weight):
    folder_with(tmp_path, weight=lambda i: 0 * i + weight)
    with opened(tmp_path) as source:
        assert source.weights() is None
        assert weights_used(source) is None


def test_events_of_weight_zero_are_not_there(tmp_path):
    folder_with(tmp_path, weight=lambda i: i % 3 > 0)
    with opened(tmp_path) as source, contextlib.closing(RPV.open(tmp_path, "train")) as whole:
        assert len(source) == 40
        assert source.weights() is None
        there = np.flatnonzero(np.arange(60) % 3)
        np.testing.assert_array_equal(source.read(np.arange(40))["hist"], whole.read(there)["hist"])
        assert "have equal weights, 20 have the weight 0 and are left out" in weights_used(source)


def test_negative_weights_are_said(tmp_path):
    folder_with(tmp_path, weight=lambda i: np.where(i % 10, 1.0, -3.0))
    with opened(tmp_path) as source:
        (text,) = doubts(source, Use())
        assert "10.0% of the events have a negative weight (25.0% of the sum of |weight|)" in text
        assert "the density that is learnt is that of |weight|" in text
        assert "distributions subtract them" in doubts(source, Use(), trained=False)[0]


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda i: np.where(i % 2, 1.0, -1.0), r"the weights of 60 events sum to 0 \(50.0% of them are negative\)"),
        (lambda i: np.where(i % 3, -1.0, 1.0), "sum to -20"),
        (lambda i: 0.0 * i, "the weights of all 60 events are zero"),
        (lambda i: -1.0 + 0 * i, "sum to -60"),
        (lambda i: np.where(i == 7, np.nan, 1.0), "the weight of event 7 is nan"),
        (lambda i: np.where(i == 7, np.inf, 1.0), "the weight of event 7 is inf"),
    ],
)
def test_weights_without_a_distribution_are_refused(tmp_path, of, message):
    folder_with(tmp_path, weight=of)
    with pytest.raises(InputError, match=message) as error, opened(tmp_path):
        pass
    assert "train.h5: data set 'weight'" in str(error.value)
    assert "ignore weights with data.weights=ignore" in str(error.value)
    assert "\n" not in str(error.value)
    with opened(tmp_path, weights="ignore") as source:
        assert len(source) == 60


def test_a_selection(tmp_path):
    folder_with(tmp_path, y=lambda i: i % 2, weight=lambda i: 1.0 + i % 2, mGlu=lambda i: 1400.0 + 100 * (i % 3))
    with opened(tmp_path) as source:
        (text,) = doubts(source, Use())
        assert text.endswith(
            "train.h5: the events are a mixture of y = 0 (30 events), 1 (30 events), and all are used; "
            "data.select={y: 1} selects those of y = 1"
        )
        assert doubts(source, Use({"y": [0, 1]})) == []
        assert "--select y=1 selects" in doubts(source, report.FILES)[0]
    with opened(tmp_path, select={"y": 1}) as source, contextlib.closing(RPV.open(tmp_path, "train")) as whole:
        assert len(source) == 30
        assert source.weights() is None  # all 2 among these
        assert doubts(source, Use({"y": 1})) == []
        np.testing.assert_array_equal(source.read(np.array([3]))["hist"], whole.read(np.array([7]))["hist"])
    with opened(tmp_path, "val", select={"y": [0, 1], "mGlu": 1500}) as source:
        assert len(source) == 7
        assert set(source.label("mGlu")) == {1500.0}
    with opened(tmp_path, select={"y": 0, "mGlu": [1400, 1600]}) as source:
        assert len(source) == 20


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"y": 2}, r"data.select: no event has y = 2; there are: 0 \(30 events\), 1 \(30 events\)"),
        ({"label": 1}, "data.select: the file has no column 'label'; there are: mGlu, mNeu, y$"),
        ({"y": [3, 4]}, "no event has y = 3 or 4"),
        ({"y": 1, "mGlu": 1400}, "data.select leaves no event: none has all of y, mGlu as asked for"),
    ],
)
def test_a_selection_that_cannot_be(tmp_path, select, message):
    folder_with(tmp_path, y=lambda i: i % 2, mGlu=lambda i: 1400.0 + 200 * (i % 2))
    with pytest.raises(InputError, match=message) as error, opened(tmp_path, select=select):
        pass
    assert "train.h5" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["[]", ".nan", "[1, .inf]", "abc"])
def test_a_selection_needs_numbers(tmp_path, value):
    with pytest.raises(InputError, match=r"data\.select"):
        tiny.config(tmp_path, f"data.select={{y: {value}}}")


def test_selection_and_weights_are_part_of_a_run(tmp_path):
    plain = tiny.config(tmp_path).identity_hash()
    others = [tiny.config(tmp_path, text).identity_hash() for text in ("data.select={y: 1}", "data.weights=ignore")]
    assert len({plain, *others}) == 3


def test_weights_of_other_layouts(tmp_path):
    schema = {"kappa": TensorSpec((16, 16))}
    maps = np.random.default_rng(0).normal(0, 0.002, (20, 16, 16)).astype(np.float32)
    with tensors.Writer(Target(tmp_path, {"train": 20}, {"problem": "cosmo"}), schema) as writer:
        writer.append({"kappa": maps})
    with h5py.File(tmp_path / "train.h5", "a") as file:
        file["samples/weight"] = np.where(np.arange(20) % 4, 1.0, 0.0)[:, None]
    source = TensorSource(tmp_path / "train.h5", schema)
    assert source.weights().tolist() == [0.0, 1.0, 1.0, 1.0] * 5
    assert source.labels() == []
    source.close()
    problem = CosmoProblem(CosmoModel.model_construct(side=16, shift=0.5))
    with contextlib.closing(open_events(problem, tmp_path / "train.h5", "", Use())) as source:
        assert len(source) == 15
    assert "20, all equal" not in layout_of(tmp_path / "train.h5").describe(tmp_path / "train.h5")
    assert "effective events 15.0 of 20" in layout_of(tmp_path / "train.h5").describe(tmp_path / "train.h5")


def test_weights_of_showers_of_several_particles(tmp_path):
    sample = {name: np.ones((3, *spec.shape), np.float32) for name, spec in calo.schema_of(PUBLISHED).items()}
    files = {}
    for particle in ("gamma", "eplus"):
        with calo.Writer(Target(tmp_path, {particle: 3}, {}), PUBLISHED, particle) as writer:
            writer.append(sample)
        files[particle] = tmp_path / f"{particle}.h5"
    source = ShowerSource(files, PUBLISHED)
    assert source.weights() is None
    source.close()
    with h5py.File(files["eplus"], "a") as file:
        file["weight"] = np.full(3, 2.0)
    source = ShowerSource(files, PUBLISHED)
    assert source.weights().tolist() == [1.0, 2.0] * 3  # particles take turns
    assert source.labels() == ["energy"]
    source.close()


def test_weights_of_a_pool_are_not_used_and_that_is_said(tmp_path):
    write_pool(tmp_path, 200)
    path = tmp_path / "train.h5"
    problem = PileupProblem(PileupModel(mu=3, sums_per_epoch=8))
    with contextlib.closing(open_events(problem, path, "train", Use())) as source:
        assert doubts(source, Use()) == []
    with h5py.File(path, "a") as file:
        group = file[next(iter(file))]
        group["weight"] = np.linspace(0.5, 1.5, 120)
    with contextlib.closing(open_events(problem, path, "train", Use())) as source:
        assert source.weights() is None
        assert "the weights of a pool's events are not used" in doubts(source, Use())[0]
    with pytest.raises(InputError, match="the file has no column 'y', nor any other to select by"):
        open_events(problem, path, "train", Use({"y": 1}))


def test_information_about_weights(tmp_path):
    folder_with(tmp_path, weight=lambda i: np.where(i % 10, 1.0, -0.5), y=lambda i: i % 4 > 0)
    text = layout_of(tmp_path / "train.h5").describe(tmp_path / "train.h5")
    assert "-0.5 to 1, sum 51, effective events 46.9 of 60, negative in 10.0% of events" in text
    assert "0 (15), 1 (45)" in text


def test_conditions_that_are_drawn_follow_the_weights(tmp_path):
    from hpcgan.problems.detector_images.conditional import ConditionalModel, ConditionalProblem

    tiny.write_conditional_data(tmp_path)
    with h5py.File(tmp_path / "train.h5", "a") as file:
        group = file["all_events"]
        group["weight"][:] = np.where(group["mGlu"][:] == 1400, 4.0, 1.0)
    made = tiny.config(tmp_path, "problem=conditional")
    found = training_conditions(ConditionalProblem(ConditionalModel()), made)
    masses, counts = np.unique(found["mGlu"], return_counts=True)
    assert masses.tolist() == [1400.0, 1600.0, 1800.0]
    np.testing.assert_allclose(counts, [60, 15, 15], atol=12)


def test_kinds_of_events_that_take_turns_are_drawn_alike():
    w = np.tile([4.0, 1.0, 1.0], 300)  # equal steps of 2 through the file would only meet every other event of weight 1
    counts = np.bincount(weights.resample(w, 900, 1, "test") % 3)
    assert counts[0] == pytest.approx(600, abs=5)
    np.testing.assert_allclose(counts[1:], 150, atol=45)


# --- reports -----------------------------------------------------------------------------------------


@pytest.fixture
def quick(few_repetitions, monkeypatch):
    monkeypatch.setattr(ImageFigures, "compare", lambda self, real, fake, weights: [])


def evaluate(*arguments):
    return cli.main(["evaluate", *map(str, arguments), "--no-distances"])


def weighted_file(folder, n=60, **columns):
    """A file of n events with columns, and its images."""
    images = tiny.images(n)
    values = {name: np.asarray(of(np.arange(n)), float) for name, of in {"y": lambda i: 0 * i + 1, **columns}.items()}
    with hdf5.Writer(Target(folder, {"weighted": n}, {})) as writer:
        writer.append(images, values["y"], values["weight"], 0.0, 0.0)
    return folder / "weighted.h5", images


def test_files_are_compared_with_their_weights(tmp_path, quick, capsys):
    # Events of half the energy have no weight to speak of.
    path, images = weighted_file(tmp_path, weight=lambda i: np.where(i % 2, 2.0, 0.001))
    with h5py.File(path, "a") as file:
        file["all_events/hist"][::2] = images[::2] * np.float32(0.2)
    with hdf5.Writer(Target(tmp_path, {"fake": 60}, {})) as writer:
        writer.append(tiny.images(60, seed=5), 1.0, 1.0, 0.0, 0.0)
    with_weights = tmp_path / "a"
    assert evaluate("--real", path, "--fake", tmp_path / "fake.h5", "--out", with_weights) == 0
    shown = capsys.readouterr().out
    assert "note: The weights of events are used: 60 events of" in shown
    assert "as much as 30.0 of equal weight" in shown
    without = tmp_path / "b"
    assert evaluate("--real", path, "--fake", tmp_path / "fake.h5", "--ignore-weights", "--out", without) == 0
    assert "weights of events" not in capsys.readouterr().out
    a, b = (json.loads((out / "report.json").read_text())["score"]["mean"] for out in (with_weights, without))
    assert a < b - 5.0


def test_files_of_a_mixture(tmp_path, quick, capsys):
    path, _ = weighted_file(tmp_path, y=lambda i: i % 3 > 0, weight=lambda i: 0 * i + 1)
    with hdf5.Writer(Target(tmp_path, {"fake": 60}, {})) as writer:
        writer.append(tiny.images(60, seed=5), 1.0, 1.0, 0.0, 0.0)
    fake = tmp_path / "fake.h5"
    assert evaluate("--real", path, "--fake", fake, "--out", tmp_path / "a") == 0
    assert "mixture of y = 0 (20 events), 1 (40 events), and all are used; --select y=1" in capsys.readouterr().out
    assert evaluate("--real", path, "--fake", fake, "--select", "y=0", "--out", tmp_path / "b") == 0
    assert "are a mixture" not in capsys.readouterr().out
    assert json.loads((tmp_path / "b" / "report.json").read_text())["real"]["events"] == 20
    # What a file of generated events is a mixture of is selected there as well.
    assert evaluate("--real", path, "--fake", path, "--select", "y=0", "--out", tmp_path / "c") == 0
    assert json.loads((tmp_path / "c" / "report.json").read_text())["fake"]["events"] == 20
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--select", "y"], "--select y: write it as NAME=NUMBER"),
        (["--select", "y=one"], "write it as NAME=NUMBER"),
        (["--select", "y=1", "--select", "y=0"], "'y' is given twice"),
        (["--select", "z=1"], "--select: the file has no column 'z'"),
        (["--select", "y=5"], "--select: no event has y = 5; there are: 1 (60 events)"),
        ([], "the weights of 60 events sum to 0 (50.0% of them are negative)"),
    ],
)
def test_what_evaluate_refuses(tmp_path, arguments, message, capsys):
    path, _ = weighted_file(tmp_path, weight=lambda i: np.where(i % 2, 1.0, -1.0))
    assert evaluate("--real", path, "--fake", path, *arguments) == 2
    shown = capsys.readouterr().err.strip().splitlines()
    assert message in shown[-1]
    assert not arguments or "--select" in shown[-1]


@pytest.mark.parametrize("option", [["--select", "y=1"], ["--ignore-weights"]])
def test_a_run_says_itself_which_events_it_is_of(tmp_path, option, capsys):
    assert evaluate(Path(tmp_path), *option) == 2
    assert f"{option[0]} goes with --real and --fake; a run has data." in capsys.readouterr().err
