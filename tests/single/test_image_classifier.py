"""The classifier on images: known answers, symmetries, periodic axes, where it looks, and when a report has one."""

import functools
import importlib.util
import json
import math
import sys

import needs
import numpy as np
import pages
import pytest
import tiny
from scipy import stats

tf = needs.tensorflow()

from hpcgan.data.schema import TensorSpec  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.evaluation import distances, image_classifier, report  # noqa: E402
from hpcgan.evaluation.classifier import Classifier  # noqa: E402
from hpcgan.evaluation.compare import EvaluationOptions  # noqa: E402
from hpcgan.evaluation.distances import Options  # noqa: E402
from hpcgan.evaluation.image_classifier import Frame, ImageNetwork, ImageTraining, Scales, image_test  # noqa: E402
from hpcgan.problems.base import problem_class  # noqa: E402
from hpcgan.problems.cosmo.problem import CosmoModel, CosmoProblem  # noqa: E402
from hpcgan.problems.detector_images.figures import ImageFigures  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402
from hpcgan.problems.symmetries import Symmetries, axis, flattened  # noqa: E402

SIDE = 16
#: Pixels by which the network of such images halves them once.
STRIDE = 2


class Tube(Symmetries):
    """Images on a cylinder: columns go around. Each has a mass of its own, so that there are no points."""

    name = "tube"
    symmetries = ("row_reflection", "column_reflection", "rotation")
    mirrors = symmetries[:2]
    images = {"picture": (False, True)}
    schema = {"picture": TensorSpec((SIDE, SIDE)), "mass": TensorSpec((), role="condition")}
    point_conditions = ()

    def permutations(self, symmetries, draws):
        rows, columns = (axis(SIDE, draws[:, i], self.symmetries[i] in symmetries) for i in range(2))
        if "rotation" in symmetries:
            columns = (columns + (draws[:, 2:3] * SIDE).astype(np.int32)) % SIDE
        return {"picture": flattened(rows, columns)}


class Classes(Tube):
    """The mass is one of a few."""

    point_conditions = ("mass",)


class Fixed(Tube):
    """The same without symmetries."""

    symmetries, mirrors = (), ()


def settings(problem=None, **changed):
    defaults = {"epochs": 6, "channels": (6, 8, 8), "units": 16, "learning_rate": 4e-3}
    return ImageTraining(frame=Frame.of(problem or Tube()), **{**defaults, **changed})


def pictures(seed, n, shift=0.0, mass=0.0):
    """Sparse images whose pixels have a common brightness exp(z), z normal around `shift` with width one."""
    rng = np.random.default_rng(seed)
    lit = rng.random((n, SIDE, SIDE)) < 0.2
    brightness = np.exp(rng.normal(shift, 1.0, n))[:, None, None]
    return {"picture": (lit * brightness).astype(np.float32), "mass": rng.normal(mass, 1.0, n)}


def network(problem=None):
    chosen = settings(problem)
    return chosen.network(chosen.frame.rows(pictures(1, 50)))


# --- known answers -----------------------------------------------------------------------------------


def test_two_gaussians_as_brightness():
    """The best classifier has AUC Phi(shift / sqrt 2), whatever the pixels; real against real it has one half."""
    samples = pictures(1, 1500, 1.5), pictures(2, 1500), pictures(3, 1500, 1.5)
    numbers, suspects = image_test(samples, settings(), trainings=2)
    assert numbers["events"] == {"train": 900, "validation": 300, "test": 300}
    expected = stats.norm.cdf(1.5 / math.sqrt(2))
    assert expected - 0.03 < numbers["auc"]["value"] + 3 * numbers["auc"]["error"]
    assert numbers["auc"]["value"] == pytest.approx(expected, abs=4 * numbers["auc"]["error"])
    assert numbers["auc"]["value"] == pytest.approx(np.mean(numbers["aucs"]))
    assert numbers["auc_spread"] == pytest.approx(abs(numbers["aucs"][0] - numbers["aucs"][1]) / math.sqrt(2))
    assert numbers["null"]["auc"]["value"] == pytest.approx(0.5, abs=4 * numbers["null"]["auc_null_error"])
    assert numbers["inputs"] == SIDE * SIDE + 1
    # The generated events that look least real are the faintest ones.
    assert suspects.events.shape == suspects.attention.shape == (30, SIDE, SIDE)
    assert suspects.events.max(axis=(1, 2)).mean() < 0.5
    assert suspects.real.shape == (SIDE, SIDE)
    json.dumps(numbers, allow_nan=False)


def test_the_area_at_each_point():
    """Pictures of mass 1 are brighter by 1.5 than real ones, those of mass 2 are not."""

    def sample(seed, n, shift):
        parts = [pictures(seed, n, shift), pictures(seed + 100, n)]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**joined, "mass": np.repeat([1.0, 2.0], n)}

    samples = sample(1, 600, 1.5), sample(2, 600, 0.0), sample(3, 600, 1.5)
    numbers, _ = image_test(samples, settings(Classes()), trainings=2)
    heavy, light = reversed(numbers["points"])
    assert (light["conditions"], heavy["conditions"]) == ({"mass": 1.0}, {"mass": 2.0})
    expected = stats.norm.cdf(1.5 / math.sqrt(2))
    assert light["auc"]["value"] == pytest.approx(expected, abs=4 * light["auc"]["error"])
    assert heavy["auc"]["value"] == pytest.approx(0.5, abs=4 * heavy["auc"]["error"])
    for row in (light, heavy):
        assert row["auc"]["value"] == pytest.approx(np.mean(row["aucs"]))
        assert row["auc_spread"] == pytest.approx(abs(row["aucs"][0] - row["aucs"][1]) / math.sqrt(2))
        assert row["null"]["value"] == pytest.approx(0.5, abs=4 * row["null"]["error"])


def test_the_same_seed_gives_the_same_numbers():
    samples = pictures(4, 100, 0.5), pictures(5, 100)
    first, again, other = (image_test(samples, settings(epochs=2, seed=seed), 1)[0] for seed in (0, 0, 1))
    assert first == again
    assert first["aucs"] != other["aucs"]
    assert first["auc_spread"] is None
    assert first["null"] is None


def test_a_sharp_edge_of_the_spectrum_is_seen():
    """Smeared by a twentieth, pixels come below the least that there is in any real event."""
    rng = np.random.default_rng(18)

    def flat(n):
        energies = rng.uniform(1.0, 2.0, (n, SIDE, SIDE)) * (rng.random((n, SIDE, SIDE)) < 0.2)
        return {"picture": energies.astype(np.float32), "mass": np.zeros(n)}

    real, fake = flat(400), flat(400)
    fake["picture"] *= np.exp(0.05 * rng.normal(size=fake["picture"].shape)).astype(np.float32)
    numbers, _ = image_test((real, fake), settings(), 1)
    assert numbers["auc"]["value"] > 0.8


def test_conditions_are_seen():
    """Images alike, masses apart: what a generator does at the wrong mass is seen with the mass only."""
    numbers, _ = image_test((pictures(6, 400, mass=9.0), pictures(7, 400)), settings(), 1)
    assert numbers["auc"]["value"] > 0.95


def test_where_it_looks():
    """Classes that differ in one patch: the attention is there."""
    rng = np.random.default_rng(8)
    real, fake = (pictures(seed, 300) for seed in (9, 10))
    fake["picture"][:, 4:6, 9:11] = np.exp(rng.normal(1.5, 0.3, (300, 2, 2)))
    numbers, suspects = image_test((real, fake), settings(Fixed()), 1)
    assert numbers["auc"]["value"] > 0.95
    attention = suspects.attention.mean(axis=0)
    assert attention[4:6, 9:11].mean() > 5 * attention.mean()


# --- symmetries --------------------------------------------------------------------------------------


def test_mirror_images_have_the_same_logit():
    classifier = Classifier(network(), 1, 1, 0.0)
    images = pictures(11, 5)
    logits = classifier(Frame.of(Tube()).rows(images))
    assert np.ptp(logits) > 1e-3
    for flipped in (np.s_[:, ::-1], np.s_[:, :, ::-1], np.s_[:, ::-1, ::-1]):
        mirrored = {**images, "picture": images["picture"][flipped]}
        assert classifier(Frame.of(Tube()).rows(mirrored)) == pytest.approx(logits, abs=1e-5)
    alone = Classifier(network(Fixed()), 1, 1, 0.0)
    upside_down = {**images, "picture": images["picture"][:, ::-1]}
    rows = [Frame.of(Fixed()).rows(sample) for sample in (images, upside_down)]
    assert np.max(np.abs(alone(rows[0]) - alone(rows[1]))) > 1e-3


def test_an_axis_that_goes_around_has_no_edge():
    """Rotated by the pixels that the layers join, an image keeps its logit; along the other axis it does not."""
    judge, frame, images = network(), Frame.of(Tube()), pictures(12, 5)

    def logits(rows, columns):
        turned = {**images, "picture": np.roll(images["picture"], (rows, columns), axis=(1, 2))}
        return judge(tf.constant(frame.rows(turned))).numpy()

    assert logits(0, STRIDE) == pytest.approx(logits(0, 0), abs=1e-5)
    assert logits(0, 3 * STRIDE) == pytest.approx(logits(0, 0), abs=1e-5)
    assert np.max(np.abs(logits(STRIDE, 0) - logits(0, 0))) > 1e-3


def test_the_ends_of_an_axis_differ_where_no_mirror_reflects_it():
    """A lit pixel above the centre against one below: only mirror images, unless the problem has no such symmetry."""
    rng = np.random.default_rng(19)

    def dots(n, below):
        pixels = np.zeros((n, SIDE, SIDE), np.float32)
        pixels[np.arange(n), rng.integers(3, 6, n) + 7 * below, rng.integers(3, 13, n)] = 1.0
        return {"picture": pixels, "mass": np.zeros(n)}

    samples = dots(400, False), dots(400, True)
    mirrored, fixed = (image_test(samples, settings(problem), 1)[0]["auc"] for problem in (Tube(), Fixed()))
    assert mirrored["value"] == pytest.approx(0.5, abs=4 * 0.0458)  # of 80 and 80 events
    assert fixed["value"] > 0.95
    assert network(Fixed()).place.shape == (SIDE, SIDE, 2)
    assert network(Tube()).place.shape == (SIDE, SIDE, 1)


def test_jets_have_no_axis_that_goes_around():
    jets = problem_class("jets")
    frame = Frame.of(jets(jets.Model()))
    assert (frame.shape, frame.periodic, frame.conditions) == ((25, 25), (False, False), ("signal",))
    images = {"image": np.random.default_rng(20).exponential(1.0, (4, 25, 25)), "signal": np.zeros(4)}
    judge = ImageTraining(frame=frame).network(frame.rows(images))
    assert len(list(judge.orientations(frame.rows(images)))) == 1
    assert judge.place.shape == (25, 25, 4)


def test_training_events_are_turned_anew_in_each_epoch():
    judge, frame = network(), Frame.of(Tube())
    rows = frame.rows(pictures(13, 40))
    first, second = (judge.augment(rows, epoch, np.arange(40)) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(first[7:9], judge.augment(rows[7:9], 0, np.arange(7, 9)))  # by the event, not by the batch
    assert np.array_equal(np.sort(first, axis=1)[:, :-1], np.sort(rows, axis=1)[:, :-1])
    draws = np.full((40, 3), 0.75)
    draws[:, 2] = 0.0
    assert np.array_equal(frame.permute(rows, Tube.symmetries, draws), rows)


def test_maps_are_averaged_over_the_eight_symmetries_of_a_square():
    problem = CosmoProblem(CosmoModel(side=32))
    frame = Frame.of(problem)
    maps = np.random.default_rng(14).normal(0.0, 0.01, (3, 32, 32)).astype(np.float32)
    chosen = ImageTraining(frame=frame, channels=(4, 4), units=4)
    classifier = Classifier(chosen.network(frame.rows({"kappa": maps})), 1, 1, 0.0)
    logits = classifier(frame.rows({"kappa": maps}))
    ways = list(classifier.network.orientations(frame.rows({"kappa": maps})))
    assert len({way.tobytes() for way in ways}) == 8
    turned = np.ascontiguousarray(np.rot90(maps, axes=(1, 2)))
    assert classifier(frame.rows({"kappa": turned})) == pytest.approx(logits, abs=1e-5)


# --- the network -------------------------------------------------------------------------------------


def test_the_network_of_detector_images():
    frame = Frame.of(RpvProblem(RpvModel()))
    judge = ImageTraining(frame=frame).network(frame.rows({"hist": tiny.images(4)}))
    assert isinstance(judge, ImageNetwork)
    assert [layer.stride for layer in judge.convolutions] == [1, 2, 2, 2, 1]
    assert [tuple(layer.kernel.shape[:2]) for layer in judge.convolutions] == [(3, 3)] * 5
    planes = judge.planes(tf.constant(frame.rows({"hist": tiny.images(4)}))).numpy()
    assert planes.shape == (4, 64, 64, 4)
    assert np.sqrt(np.mean(planes**2, axis=(0, 1, 2))) == pytest.approx(1.0, abs=1e-4)
    assert np.array_equal(planes[..., 3] > 0, tiny.images(4) > 0)
    eta = judge.place[:, 0, 0]
    assert (eta[0], eta[31], eta[32], eta[63]) == pytest.approx((63 / 64, 1 / 64, 1 / 64, 63 / 64))


def test_the_spectrum_counts_each_lit_pixel_once():
    frame, images = Frame.of(Tube()), pictures(17, 60)
    judge = settings().network(frame.rows(images))
    numbers = judge.summary(tf.constant(frame.rows(images))).numpy().astype(np.float64)[:, 1:]  # the first is the mass
    lit = images["picture"] > 0
    assert numbers[:, ::2].sum(axis=1) == pytest.approx(lit.mean(axis=(1, 2)), rel=1e-5)
    distance = np.abs(np.arange(SIDE) + 0.5 - SIDE / 2)[:, None] / (SIDE / 2)
    assert numbers[:, 1::2].sum(axis=1) == pytest.approx((lit * distance).mean(axis=(1, 2)), rel=1e-5)
    below = (images["picture"] > 0) & (images["picture"] <= np.quantile(images["picture"][lit], 0.002))
    assert numbers[:, 0] == pytest.approx(below.mean(axis=(1, 2)), abs=2 / SIDE**2)
    assert numbers[:, 0].sum() > 0


def test_nothing_in_any_image():
    frame = Frame.of(Tube())
    dark = {"picture": np.zeros((40, SIDE, SIDE), np.float32), "mass": np.zeros(40)}
    numbers, _ = image_test((dark, dark), settings(epochs=1), 1)
    assert numbers["auc"]["value"] == 0.5
    assert np.all(np.isfinite(Scales.of(frame.rows(dark), frame).sizes))


def test_what_is_not_finite_is_refused():
    bad = pictures(15, 40)
    bad["picture"][3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="images: values that are not finite"):
        image_test((pictures(16, 40), bad), settings(epochs=1), 1)


# --- in a report -------------------------------------------------------------------------------------


def test_when_a_report_has_it(monkeypatch):
    rpv, cosmo = RpvProblem(RpvModel()), CosmoProblem(CosmoModel(side=64))
    large, calogan = CosmoProblem(CosmoModel(side=128)), problem_class("calogan")
    showers = calogan(calogan.Model())
    assert [Options().inputs(rpv, n) for n in (999, 1000)] == [(), ("images",)]
    assert Options().inputs(cosmo, 5000) == ("images",)
    for problem in (large, showers):
        assert Options().inputs(problem, 5000) == ()
    assert Options(classifier=()).inputs(rpv, 5000) == ()
    assert Options(classifier=("cells", "images")).inputs(large, 50) == ("cells", "images")
    with pytest.raises(InputError, match=r"--classifier images: samples of problem 'calogan' are no images"):
        Options(classifier=("images",)).inputs(showers, 5000)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert Options().inputs(rpv, 5000) == ()


@pytest.mark.usefixtures("eager")
def test_page_and_lines_show_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFigures, "compare", lambda self, real, fake, weights: [])
    light = functools.partial(ImageTraining, epochs=1, channels=(2,))
    monkeypatch.setattr(image_classifier, "ImageTraining", light)
    folder = tiny.write_data(tmp_path / "data", 250)
    options = EvaluationOptions(samples=1, repetitions=3, distances=Options(False, ("images",)))
    page_file = tmp_path / "report.html"
    made = report.evaluate_sampler(
        tiny.Sampler(folder, 3.0), report.History(), options, page=page_file, log=lambda text: None
    )
    data = json.loads(made.json.read_text(), parse_constant=pytest.fail)
    numbers = data["sample_distances"]["classifier"]["images"]
    assert numbers["inputs"] == 64 * 64
    assert len(numbers["aucs"]) == 3
    assert numbers["null"]["auc"]["value"] == pytest.approx(0.5, abs=4 * numbers["null"]["auc_null_error"])
    page = pages.Page(made.html.read_text(encoding="utf-8"))
    pages.check_numbers(page, data)
    keys = {key for key, _, _ in page.data}
    assert {
        f"sample_distances.classifier.images.{end}" for end in ("auc.value", "auc_spread", "null.auc.value")
    } <= keys
    assert "attention" in page.figures
    assert "classifier on images: AUC" in report.summary(made)
    assert "spread of 3 trainings" in report.summary(made)
    assert "image_classifier_s" in data["timing"]


def test_no_tensorflow_no_classifier(monkeypatch):
    monkeypatch.setitem(sys.modules, "hpcgan.evaluation.image_classifier", None)
    with pytest.raises(InputError, match=r"--classifier needs TensorFlow"):
        distances.classify_images(RpvProblem(RpvModel()), None, lambda text: None)
