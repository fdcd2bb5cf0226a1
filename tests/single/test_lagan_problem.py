"""The problem of jet images: encoding, what is measured, figures; a training, its resumption, samples and report."""

from __future__ import annotations

import argparse
import json
import math
from itertools import combinations
from pathlib import Path

import jet_data
import needs
import numpy as np
import pytest
import tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from one_rank import eagerly
from pages import Page, check_numbers

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

import hpcgan  # noqa: E402
from hpcgan import config  # noqa: E402
from hpcgan.commands import generate as generate_command  # noqa: E402
from hpcgan.errors import InputError, Interrupted  # noqa: E402
from hpcgan.evaluation import report  # noqa: E402
from hpcgan.evaluation.compare import EvaluationOptions  # noqa: E402
from hpcgan.metrics import points  # noqa: E402
from hpcgan.problems.figures import figures_of  # noqa: E402
from hpcgan.problems.jet_images import files  # noqa: E402
from hpcgan.problems.jet_images.problem import JetsModel, JetsProblem  # noqa: E402
from hpcgan.problems.jet_images.quantities import SCORED, more_observables, observables  # noqa: E402
from hpcgan.runs import checkpoint as checkpoints  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402

PROBLEM = JetsProblem(JetsModel())


@pytest.fixture(scope="module", autouse=True)
def _eager():
    """Graphs take longer to make than the few steps; `test_the_published_step_compiles` makes one."""
    with eagerly():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jet_data.write(tmp_path_factory.mktemp("data") / "jets")


def configuration(folder: Path, *overrides: str) -> config.Config:
    raw = {
        "problem": "jets",
        "name": "tiny",
        "data": {"path": str(folder)},
        "model": {"architecture": "fc", "latent_dim": 5},
        "training": {
            "epochs": 2, "batch_size": 30, "average_half_life": 50, "generator_steps": 2,
            "discriminator_update": "apart", "label_flip": 0.3, "label_flip_unit": "sample",
        },
        "scoring": {"events": 20},
    }  # fmt: skip
    return config.load(raw, overrides)


# --- configuration and encoding ------------------------------------------------------------------------------------


def test_the_configuration_is_the_published_training():
    published = config.load(Path("configs/jets_lagan.yaml"))
    assert published.model == JetsModel()
    model, training = published.model, published.training
    assert (model.architecture, model.latent_dim, model.scale_gev, model.dropout) == ("lagan", 200, 100.0, 0.2)
    assert model.class_flip == (0.05, 0.09)
    assert (training.global_batch_size, training.epochs, training.loss) == (100, 50, "bce")
    assert (training.generator_steps, training.discriminator_update) == (2, "apart")
    assert (training.label_flip, training.label_flip_unit) == (0.05, "sample")
    for adam in (training.generator, training.discriminator):
        assert (adam.learning_rate, adam.beta1, adam.beta2) == (2e-4, 0.5, 0.999)


def test_a_critic_needs_images_by_themselves(folder):
    with pytest.raises(InputError, match=r"minibatch discrimination \(of problem jets\)"):
        configuration(folder, "training.loss=wgan_gp", "training.label_flip=0", "training.discriminator_update=joint")


@given(st.floats(0.1, 1.0), st.floats(1.0, 1000.0))
def test_decoding_is_the_way_back(exponent, scale):
    problem = JetsProblem(JetsModel(exponent=exponent, scale_gev=scale))
    sample = jet_data.jets(4)
    encoded = problem.encode(sample)
    assert encoded["image"].dtype == np.float32
    np.testing.assert_array_equal(encoded["signal"], sample["signal"])
    np.testing.assert_allclose(problem.decode(encoded)["image"], sample["image"], rtol=1e-4)


def test_networks_see_hundreds_of_gev_and_faint_pixels_go_dark():
    sample = {"image": np.full((1, 25, 25), 50.0, np.float32), "signal": np.ones(1, np.float32)}
    np.testing.assert_array_equal(PROBLEM.encode(sample)["image"], np.full((1, 25, 25), 0.5))
    encoded = {"image": np.array([[0.0, 0.4e-2, 0.6e-2, 1.0]], np.float32)}
    problem = JetsProblem(JetsModel(threshold_gev=0.5))
    np.testing.assert_allclose(problem.decode(encoded)["image"], [[0.0, 0.0, 0.6, 100.0]], rtol=1e-6)


# --- what is measured ----------------------------------------------------------------------------------------------


def image(*pixels: tuple[int, int, float]) -> np.ndarray:
    """(1, 25, 25) GeV, of (row, column, pT)."""
    images = np.zeros((1, 25, 25), np.float32)
    for row, column, pt in pixels:
        images[0, row, column] = pt
    return images


def values(images: np.ndarray) -> dict[str, float]:
    return {name: float(o.values[0]) for name, o in observables(images).items()}


def test_two_pixels_by_hand():
    """m^2 = 2 pT_1 pT_2 (cosh d_eta - cos d_phi); tau_1 about the axis of both, tau_2 is 0."""
    measured = values(image((12, 12, 100.0), (18, 10, 60.0)))
    assert measured["jet_mass"] == pytest.approx(math.sqrt(2 * 100 * 60 * (math.cosh(0.2) - math.cos(0.6))), rel=1e-5)
    assert measured["jet_pt"] == pytest.approx(math.hypot(100 + 60 * math.cos(0.6), 60 * math.sin(0.6)), rel=1e-6)
    assert measured["tau21"] == 0.0
    assert measured["lit_pixels"] == 2


def test_rows_are_phi_and_columns_eta():
    """Along phi pT cancels: twice 100 GeV at +-1.2 leave 2 * 100 cos 1.2; along eta they add up."""
    along_phi, along_eta = (
        values(image((0, 12, 100.0), (24, 12, 100.0))),
        values(image((12, 0, 100.0), (12, 24, 100.0))),
    )
    assert along_phi["jet_pt"] == pytest.approx(200 * math.cos(1.2), rel=1e-6)
    assert along_eta["jet_pt"] == pytest.approx(200.0, rel=1e-6)
    assert along_eta["jet_mass"] == pytest.approx(200 * math.sinh(1.2), rel=1e-6)


def test_dark_and_single_pixels():
    sides = observables(np.concatenate([np.zeros((1, 25, 25), np.float32), image((3, 4, 10.0))]))
    assert sides["jet_mass"].values == pytest.approx([0.0, 0.0], abs=1e-3)
    assert sides["jet_pt"].values == pytest.approx([0.0, 10.0])
    assert sides["tau21"].counts.tolist() == [0, 1]
    assert sides["tau21"].values.tolist() == [0.0]
    assert sides["lit_pixels"].values.tolist() == [0.0, 1.0]
    assert all(o.n_events == 0 for o in observables(np.zeros((0, 25, 25), np.float32)).values())


def test_spectrum_of_pixels():
    spectrum = more_observables(np.concatenate([image((1, 1, 2.0), (0, 5, 3.0)), image((4, 4, 0.5))]), ["pixel_pt"])
    assert spectrum["pixel_pt"].values.tolist() == [3.0, 2.0, 0.5]
    assert spectrum["pixel_pt"].counts.tolist() == [2, 1]
    assert more_observables(image(), []) == {}


def _exclusive_kt_axes(particles: list[np.ndarray], n: int) -> list[np.ndarray]:
    """Exclusive kt (R without end, E scheme) by looking at all pairs."""

    def place(p):
        return 0.5 * math.log((p[3] + p[2]) / (p[3] - p[2])), math.atan2(p[1], p[0]), math.hypot(p[0], p[1])

    jets = list(particles)
    while len(jets) > n:
        places, distances = [place(p) for p in jets], {}
        for i, j in combinations(range(len(jets)), 2):
            (y, phi, pt), (z, psi, qt) = places[i], places[j]
            distances[i, j] = min(pt, qt) ** 2 * ((y - z) ** 2 + (phi - psi) ** 2)
        nearest, *others = sorted(distances.values())
        assume(not others or others[0] > nearest * (1 + 1e-9))  # else either pair may be merged first
        i, j = min(distances, key=distances.get)
        jets = [p for k, p in enumerate(jets) if k not in (i, j)] + [jets[i] + jets[j]]
    return jets


def _tau(images: np.ndarray, n: int) -> float:
    rows, columns = np.nonzero(images[0])
    pt = images[0][rows, columns].astype(float)
    phi, eta = 1.2 - 0.1 * rows, -1.2 + 0.1 * columns
    momenta = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)], axis=1)
    axes = _exclusive_kt_axes(list(momenta), n)
    distances = [
        np.hypot(eta - 0.5 * math.log((p[3] + p[2]) / (p[3] - p[2])), phi - math.atan2(p[1], p[0])) for p in axes
    ]
    return float(np.sum(pt * np.min(distances, axis=0)) / pt.sum())


@given(
    st.lists(
        st.tuples(st.integers(4, 20), st.integers(4, 20), st.floats(0.5, 100.0)),
        min_size=3,
        max_size=12,
        unique_by=lambda pixel: pixel[:2],
    )
)
@settings(max_examples=60, deadline=None)
def test_tau21_against_an_implementation_of_its_own(pixels):
    """FastJet contrib's against exclusive kt subjets that are found by looking at all pairs."""
    jet = image(*pixels)
    assert values(jet)["tau21"] == pytest.approx(_tau(jet, 2) / _tau(jet, 1), rel=1e-5, abs=1e-7)


def test_w_jets_have_two_prongs_and_the_score_is_a_mean_over_the_classes():
    real, other = (PROBLEM.observables(jet_data.jets(60, seed)) for seed in (1, 2))
    tau21 = real["tau21"].values
    assert np.median(tau21[1::2]) < 0.7 * np.median(tau21[::2])
    score = PROBLEM.score(real, other)
    assert list(score.parts) == list(SCORED)
    by_class = [
        PROBLEM.score(points.take(real, np.arange(c, 60, 2)), points.take(other, np.arange(c, 60, 2))) for c in (0, 1)
    ]
    assert score.total == pytest.approx(np.mean([s.total for s in by_class]))
    swapped = {**other, "signal": other["signal"].take(np.arange(60)[::-1])}
    assert PROBLEM.score(real, swapped).total > 5 * score.total


# --- a training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> RunDirectory:
    return tiny.train(configuration(folder), tmp_path_factory.mktemp("run") / "run")


def test_a_training_records_the_loss_of_the_class_and_the_score(run):
    records = recorded(run.metrics_file, "epoch")
    assert len(records) == 2
    for record in records:
        assert set(record["losses"]) == {"discriminator", "generator", "auxiliary"}
        assert record["losses"]["auxiliary"] > 0.1  # of ln 2, for a guess
        assert record["losses"]["generator"] > record["losses"]["auxiliary"]
        assert set(record["score"]["parts"]) == set(SCORED)


def test_stopped_and_resumed_it_ends_with_the_same_bits(run, folder, tmp_path):
    """Dropout and flips included."""
    with pytest.raises(Interrupted):
        tiny.train(configuration(folder), tmp_path / "again", tiny.StopAt(3))
    again = tiny.train(configuration(folder), tmp_path / "again")
    ours, theirs = (checkpoints.load(checkpoints.path_of(r.checkpoints, 4)) for r in (again, run))
    tiny.assert_same_state(ours, theirs)


def generate(run: RunDirectory, out: Path, *options: str) -> files.TensorFile:
    parser = argparse.ArgumentParser()
    generate_command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["generate", str(run.path), "--out", str(out), *options])
    assert generate_command.run(args) == 0
    return files.open_jets(out)


def test_generate_by_class(run, tmp_path):
    with generate(run, tmp_path / "w.h5", "-n", "5", "--condition", "signal=1") as file:
        sample = file.read()
    assert sample["signal"].tolist() == [1.0] * 5
    assert sample["image"].shape == (5, 25, 25)
    assert sample["image"].min() >= 0.0
    files.validate(tmp_path / "w.h5")
    with generate(run, tmp_path / "both.h5", "-n", "3", "--condition", "signal=0", "--condition", "signal=1") as file:
        assert file.read()["signal"].tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(InputError, match=r"signal = 0.5: must be 1 \(boosted W\) or 0 \(QCD\)"):
        generate(run, tmp_path / "no.h5", "-n", "2", "--condition", "signal=0.5")


def test_generate_from_python(run):
    signal = np.array([1.0, 0.0, 1.0, 1.0])
    sample = hpcgan.generate(run.path, conditions={"signal": signal})
    np.testing.assert_array_equal(sample["signal"], signal)
    assert len(np.unique(sample["image"].sum(axis=(1, 2)))) == 4


def test_evaluate(run, tmp_path):
    page = report.evaluate_run(run.path, EvaluationOptions(2, repetitions=20), out=tmp_path, log=lambda text: None)
    assert set(page.data["distances"]) >= {*SCORED, "lit_pixels"}
    assert set(page.data["measurements"]["mean_images"]) == {"signal", "background"}
    qcd, w = page.data["by_point"]
    assert (qcd["conditions"], w["conditions"]) == ({"signal": 0.0}, {"signal": 1.0})
    for row in (qcd, w):
        assert set(row["quantities"]) == {*SCORED, "lit_pixels", "pixel_pt"}
        assert {name for name, q in row["quantities"].items() if q["score"] is not None} == {*SCORED, "pixel_pt"}
    names = [figure["name"] for figure in page.data["figures"]]
    for expected in ("distributions", "mean_signal", "mean_background", "pixels_signal", "difference", "jets"):
        assert expected in names
    check_numbers(Page(page.html.read_text()), json.loads(page.json.read_text()))


def test_the_difference_of_mean_images_beside_chance():
    """Pixels with a mean of 1 GeV and as large a spread: sqrt(2 / pi) sqrt(1 / n + 1 / m) by chance."""
    rng = np.random.default_rng(1)
    real, fake = (
        {"image": rng.exponential(1.0, (n, 25, 25)).astype(np.float32), "signal": np.ones(n, np.float32)}
        for n in (200, 800)
    )
    by_chance = math.sqrt(2 / math.pi) * math.sqrt(1 / 200 + 1 / 800)
    numbers = figures_of(PROBLEM).measurements(real, fake)
    assert numbers["mean_images_by_chance"] == {"signal": pytest.approx(by_chance, rel=0.02)}
    assert numbers["mean_images"] == {
        "signal": pytest.approx(by_chance, rel=0.15)
    }  # 625 pixels, 0.76 / 25 each: 5 sigma
    fake["image"] *= 2
    assert figures_of(PROBLEM).measurements(real, fake)["mean_images"] == {"signal": pytest.approx(1.0, rel=0.05)}


def test_figures_of_one_class_and_of_few_jets():
    figures = figures_of(PROBLEM)
    sample = jet_data.jets(10)
    qcd = {name: array[sample["signal"] == 0] for name, array in sample.items()}
    names = [name for name, *_ in figures.compare(sample, qcd)]
    assert names == ["distributions", "mean_background", "pixels_background", "jets"]
    few = {name: array[:1] for name, array in sample.items()}
    assert figures.singles(None, few)[1] is not None
    assert figures.measurements(sample, sample)["mean_images"] == {"signal": 0.0, "background": 0.0}


@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_the_published_step_compiles(folder, tmp_path, parts):
    tf.config.run_functions_eagerly(False)
    try:
        overrides = (
            "model.architecture=lagan",
            "training.epochs=1",
            "training.batch_size=30",
            f"training.accumulation={parts}",
        )
        lagan = tiny.train(configuration(folder, *overrides), tmp_path / "run")
    finally:
        tf.config.run_functions_eagerly(True)
    (record,) = recorded(lagan.metrics_file, "epoch")
    assert all(math.isfinite(value) for value in record["losses"].values())
