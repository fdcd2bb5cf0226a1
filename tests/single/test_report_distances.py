"""Distances between samples in a report: numbers beside those of real events, table, lines, what is refused."""

import dataclasses
import json
import sys

import numpy as np
import pages
import pytest
import tiny
from manifolds import expected_coverage
from pages import Page

from hpcgan.errors import InputError
from hpcgan.evaluation import distances, report
from hpcgan.evaluation.compare import EvaluationOptions
from hpcgan.evaluation.distances import Options, Samples, measure
from hpcgan.metrics.features import Features
from hpcgan.metrics.frechet import fpd, fpd_value
from hpcgan.metrics.kernel import kpd
from hpcgan.metrics.manifold import manifold
from hpcgan.metrics.memorisation import memorisation
from hpcgan.metrics.observable import Observable
from hpcgan.problems.detector_images.figures import ImageFigures

SMALL = Options(classifier=("features", "cells"), units=16, epochs=5)


def silent(text):
    pass


def events(seed, n, shift=0.0):
    """A scalar and some objects an event."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2.5, n)
    objects = rng.exponential(50.0, counts.sum())
    return {"mass": Observable(rng.normal(80 + shift, 10, n), unit="GeV"), "pt": Observable(objects, counts, "GeV")}


def samples(n=60, shift=0.0, **more):
    return Samples(n, events(1, n), [events(2, n, shift), events(3, n, shift)], events(4, 3 * n), **more)


def test_numbers_are_those_of_the_metrics():
    given = samples(60, 5.0, training=events(5, 200))
    found = measure(given, Options(), silent, seed=3)
    features = Features.of(given.pool)
    assert found["features"] == list(features.names)
    assert found["features"] == ["mass", "pt_count", "pt_mean", "pt_std", "pt_1", "pt_2", "pt_3"]
    real, first, second = (features(side) for side in (given.real, *given.fakes))
    numbers = found["numbers"]
    assert list(numbers) == ["fpd", "kpd", "precision", "recall", "density", "coverage"]
    assert numbers["fpd"]["values"] == [fpd_value(real, first, seed=3), fpd_value(real, second, seed=3)]
    assert numbers["fpd"]["error"] == fpd(real, first, seed=3).error
    assert numbers["kpd"]["values"][0] == kpd(real, first, seed=3).value
    assert numbers["kpd"]["error"] == kpd(real, first, seed=3).error
    for name in ("precision", "recall", "density", "coverage"):
        assert numbers[name]["values"] == [getattr(manifold(real, side), name) for side in (first, second)]
        assert numbers[name]["error"] is None
    for number in numbers.values():
        assert number["mean"] == pytest.approx(np.mean(number["values"]))
        assert number["std"] == pytest.approx(np.std(number["values"], ddof=1))
    expected = memorisation(np.concatenate([first, second]), features(given.pool), features(given.training))
    assert found["memorisation"] == dataclasses.asdict(expected)
    assert found["classifier"] == {}
    json.dumps(found, allow_nan=False)


def test_real_against_real_is_no_difference():
    given = samples(150, 30.0)
    found = measure(given, Options(), silent)["numbers"]
    assert abs(found["fpd"]["null"]["mean"]) < 3 * found["fpd"]["null"]["std"]
    assert found["coverage"]["null"]["mean"] == pytest.approx(expected_coverage(150, 150), abs=0.03)
    shift = 30.0 / given.pool["mass"].values.std()  # about 3: the square of it, give or take its sampling error
    assert found["fpd"]["mean"] == pytest.approx(shift**2, abs=4 * 2 * shift * np.sqrt(2 / 150))
    assert found["coverage"]["mean"] < 0.6


def test_only_the_first_n_events_count():
    """A band at fewer events than the score: all numbers are at the smaller N."""
    longer = Samples(60, events(1, 90), [events(2, 90)], events(4, 120))
    features = Features.of(longer.pool)
    found = measure(longer, Options(), silent)
    rows = [features(side)[:60] for side in (longer.real, longer.fakes[0])]
    assert found["numbers"]["recall"]["values"] == [manifold(*rows).recall]
    assert found["numbers"]["fpd"]["std"] is None


def test_nothing_is_measured_where_nothing_can_be():
    assert measure(samples(39), Options(), silent) is None
    assert measure(samples(60), Options(distances=False), silent) is None
    assert distances.summary(None) == []


def test_a_generator_that_makes_nothing():
    """No objects in any event, and one mass: twins everywhere, a covariance of zero, numbers all the same."""
    nothing = {"mass": Observable(np.full(60, 80.0)), "pt": Observable(np.zeros(0), np.zeros(60, int))}
    given = Samples(60, events(1, 60), [nothing], events(4, 180), events(5, 200))
    found = measure(given, Options(), silent)
    json.dumps(found, allow_nan=False)
    numbers = {name: number["mean"] for name, number in found["numbers"].items()}
    assert numbers["recall"] == 0.0
    assert numbers["coverage"] < 0.2
    assert numbers["fpd"] > 5
    assert found["memorisation"]["generated"]["median"] > 0


def test_what_is_not_finite_is_named():
    given = samples(60)
    given.fakes[0]["mass"].values[7] = np.nan
    with pytest.raises(InputError, match="sample distances: mass: values that are not finite"):
        measure(given, Options(), silent)


def test_classifiers_on_features_and_cells():
    cells = [{"hist": tiny.images(100, seed) * np.float32(scale)} for seed, scale in ((1, 1), (2, 30), (3, 1))]
    given = samples(100, 60.0, cells=tuple(cells))
    found = measure(given, dataclasses.replace(SMALL, distances=False, units=256, epochs=60), silent)
    assert found["numbers"] == {}
    assert found["memorisation"] is None
    for inputs, width in (("features", 7), ("cells", 4096)):
        test = found["classifier"][inputs]
        assert test["inputs"] == width
        assert test["events"] == {"train": 60, "validation": 20, "test": 20}
        assert test["auc"]["value"] > 0.9
        assert test["null"]["auc"]["value"] == pytest.approx(0.5, abs=4 * test["null"]["auc_null_error"])
    assert [line.split(":")[0] for line in distances.summary(found)] == [
        "classifier on features",
        "classifier on cells",
    ]


def test_no_more_real_events_no_null_of_cells():
    cells = tuple({"hist": tiny.images(60, seed)} for seed in (1, 2))
    found = measure(samples(60, cells=cells), Options(False, ("cells",), 4, 1), silent)
    assert found["classifier"]["cells"]["null"] is None


def test_without_tensorflow_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "hpcgan.evaluation.classifier", None)
    with pytest.raises(InputError, match=r"--classifier needs TensorFlow: pip install 'hpcgan\[train\]'"):
        measure(samples(60), Options(False, ("features",)), silent)


# --- in a report -------------------------------------------------------------------------------------


class Sampler(tiny.Sampler):
    """Images of `tiny`, or copies of the training images, turned by half a circle."""

    def __init__(self, folder, copies=False):
        super().__init__(folder)
        self.copies = copies

    def sample(self, n, seed, first=0):
        if self.copies:
            return {"hist": np.roll(tiny.images(300)[:n], 32, axis=2)}
        return super().sample(n, seed, first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"), 300)  # 180 for training, 60 and 60


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(ImageFigures, "compare", lambda self, real, fake, weights: [])


def evaluate(sampler, out, **options):
    chosen = EvaluationOptions(**{"events": 50, "samples": 2, "repetitions": 3, **options})
    return report.evaluate_sampler(sampler, report.History(), chosen, page=out / "report.html", log=silent)


def test_the_page_and_the_lines_show_the_numbers(folder, tmp_path):
    made = evaluate(Sampler(folder), tmp_path, distances=SMALL)
    data = json.loads(made.json.read_text(), parse_constant=pytest.fail)
    found = data["sample_distances"]
    assert found["n"] == 50
    assert found["features"][:2] == ["jet_multiplicity", "summed_jet_mass"]
    assert found["memorisation"]["n_training"] == 180
    assert found["memorisation"]["held_out"]["n"] == 120
    assert found["memorisation"]["generated"]["n"] == 100
    assert found["memorisation"]["p"] > 1e-3
    page = Page(made.html.read_text(encoding="utf-8"))
    pages.check_numbers(page, data)
    keys = {key for key, _, _ in page.data}
    for name in distances.NAMES:
        assert {f"sample_distances.numbers.{name}.{end}" for end in ("mean", "std", "null.mean", "null.std")} <= keys
    assert {f"sample_distances.memorisation.{name}" for name in ("z", "p", "close.share", "close.p")} <= keys
    assert {f"sample_distances.classifier.{i}.null.auc.value" for i in ("features", "cells")} <= keys
    lines = report.summary(made)
    for shown in ("at N=50:", "FPD", "real against real", "memorisation: z =", "classifier on cells: AUC"):
        assert shown in lines
    assert data["notices"] == []


def test_a_run_that_copies_its_training_events_is_flagged(folder, tmp_path):
    """Turned in phi, as augmentation turns them: the jets do not change, and features are made of jets."""
    found = evaluate(Sampler(folder, copies=True), tmp_path).data["sample_distances"]["memorisation"]
    assert found["z"] < -8
    assert found["close"]["p"] < 1e-6


def test_where_the_training_events_are_gone(tmp_path):
    folder = tiny.write_data(tmp_path / "data", 300)
    (folder / "train.h5").unlink()
    made = evaluate(Sampler(folder), tmp_path / "out")
    assert made.data["sample_distances"]["memorisation"] is None
    assert "Not checked for memorised training events" in made.data["notices"][0]
    assert "train.h5: no such file" in made.data["notices"][0]


def test_too_few_events_are_said(folder, tmp_path):
    made = evaluate(Sampler(folder), tmp_path, events=39)
    assert made.data["sample_distances"] is None
    assert made.data["notices"][-1].startswith("No distances between samples: they take 40 real events")
    assert "Distances between samples" not in made.html.read_text()


def test_files(folder, tmp_path):
    made = report.compare_files(
        folder / "train.h5",
        folder / "test.h5",
        EvaluationOptions(events=60, repetitions=3, distances=Options(True, ("cells",), 8, 2)),
        out=tmp_path,
        log=silent,
    )
    found = made.data["sample_distances"]
    assert found["memorisation"] is None
    assert found["classifier"]["cells"]["null"] is not None
    assert "Memorisation" not in made.html.read_text()
