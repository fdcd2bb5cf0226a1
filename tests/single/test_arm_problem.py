"""Trainings of the autoregressive model of several geometries through the engine."""

import shutil

import h5py
import needs
import numpy as np
import pytest
import tiny

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan import config as configuration  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.commands.cli import main  # noqa: E402
from hpcgan.data.generators import make_data_set  # noqa: E402
from hpcgan.evaluation import report  # noqa: E402
from hpcgan.evaluation.compare import EvaluationOptions  # noqa: E402
from hpcgan.evaluation.sampling import load_sampler  # noqa: E402
from hpcgan.problems.arm.generate import GeometryGenerator  # noqa: E402
from hpcgan.problems.arm.geometry import parse_all  # noqa: E402
from hpcgan.training.assembly import Assembly  # noqa: E402
from hpcgan.training.inputs import Inputs  # noqa: E402

TWO = ("eta4_phi2", "eta1+2_phi3")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """64 samples for training, 8 for validation, 8 for the test."""
    folder = tmp_path_factory.mktemp("data")
    options = GeometryGenerator(segmentation=TWO, energy=(1.0, 2.0), assignment="all")
    make_data_set(options.data_set(40, 3), folder)
    return folder


def train(data, folder, *overrides):
    raw = {
        "problem": "arm",
        "name": "tiny",
        "data": {"path": str(data)},
        "model": {"geometries": ["eta2_phi2", *TWO], "categories": 60, "dense_layers": 2, "features": 2},
        "training": {"epochs": 2, "batch_size": 8, "density": {"learning_rate": 1e-2}},
        "scoring": {"events": 8, "select_by": "held_out"},
    }
    return tiny.train(configuration.load(raw, overrides), folder, None)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("run") / "run")


def test_a_training_learns_and_is_scored_in_each_geometry(run):
    epochs = recorded(run.metrics_file, "epoch")
    assert epochs[1]["losses"]["nll"] < epochs[0]["losses"]["nll"]
    assert np.isfinite(epochs[1]["held_out"]["mean"])
    assert set(epochs[1]["score"]["parts"]) == {
        "energy", "occupancy", "mean_eta", "mean_phi", "width_eta", "width_phi",
    }  # fmt: skip
    points = [point["conditions"] for point in epochs[1]["score"]["details"]["points"]]
    assert points == [{"geometry": 1.0}, {"geometry": 2.0}]  # of the model's list: the file has no showers of the first


def test_samples_of_any_geometry_of_the_model(run, tmp_path, capsys):
    """Also of one that no training shower had."""
    out = tmp_path / "fake.h5"
    words = ["generate", str(run.path), "-n", "6", "--out", str(out)]
    assert main([*words, "--condition", "geometry=0", "--condition", "geometry=1"]) == 0
    geometries = parse_all(["eta2_phi2", *TWO], "middle")
    with h5py.File(out) as file:
        assert file["samples"].attrs["geometries"] == " ".join(map(str, geometries))
        cells, numbers = file["samples/cells"][:], file["samples/geometry"][:]
    np.testing.assert_array_equal(numbers, [0, 1] * 3)
    assert cells.shape == (6, 9)
    np.testing.assert_array_equal(cells[::2, 4:], 0.0)
    np.testing.assert_array_equal(cells[1::2, 8:], 0.0)
    roots = np.sqrt(cells.astype(np.float64))
    np.testing.assert_allclose(roots, np.rint(roots), atol=1e-5)
    assert cells.max() > 0
    capsys.readouterr()
    assert main([*words[:-1], str(tmp_path / "bad.h5"), "--condition", "geometry=3"]) == 2
    assert "geometry = 3: the model knows the cells of 0 (eta2_phi2), 1 (eta4_phi2), 2 (eta1+2_phi3)" in (
        capsys.readouterr().err
    )


def test_conditions_of_a_file_are_its_own_geometries(run, data, tmp_path, capsys):
    """Its list begins with the second of the model's."""
    out = tmp_path / "fake.h5"
    words = ["generate", str(run.path), "--out", str(out)]
    assert main([*words, "--conditions", str(data / "test.h5")]) == 0
    with h5py.File(out) as fake, h5py.File(data / "test.h5") as real:
        np.testing.assert_array_equal(fake["samples/geometry"][:], real["samples/geometry"][:] + 1)
        conditions = {"geometry": real["samples/geometry"][:]}
        n = len(conditions["geometry"])
    # The generated file names a geometry more than the real one, and in another order.
    few = EvaluationOptions(samples=1, repetitions=10)
    page = report.compare_files(data / "test.h5", out, few, out=tmp_path / "r", log=lambda _: None)
    assert page.data["score"]["n"] == n
    plain = tmp_path / "plain.h5"
    with h5py.File(plain, "w") as file:
        file["geometry"] = conditions["geometry"]  # nobody says of which list: of the model's
    assert main([*words[:-1], str(tmp_path / "b.h5"), "--conditions", str(plain)]) == 0
    with h5py.File(tmp_path / "b.h5") as file:
        np.testing.assert_array_equal(file["samples/geometry"][:], conditions["geometry"])
    shutil.copy(data / "test.h5", plain)
    with h5py.File(plain, "r+") as file:
        file["samples/geometry"][1] = 2
    assert main([*words[:-1], str(tmp_path / "c.h5"), "--conditions", str(plain)]) == 2
    assert "geometry of shower 1 is 2; the file names 2, from 0 on" in capsys.readouterr().err


WHOLES = ("eta6_phi4/eta4_phi2/eta2_phi2", "eta4_phi4/eta1+2_phi3/eta2_phi1")


def test_whole_showers_by_boxes_at_the_energy_that_is_asked_for(tmp_path):
    options = GeometryGenerator(layer="whole", segmentation=WHOLES, energy=(1.0, 9.0))
    make_data_set(options.data_set(60, 3), tmp_path / "data")
    raw = {
        "problem": "arm",
        "name": "tiny",
        "data": {"path": str(tmp_path / "data")},
        "model": {
            "layer": "whole",
            "geometries": WHOLES,
            "architecture": "boxes",
            "hidden_units": 8,
            "sees_energy": True,
        },
        "training": {"epochs": 2, "batch_size": 8, "density": {"learning_rate": 1e-2}},
        "scoring": {"events": 6, "select_by": "held_out"},
    }
    run = tiny.train(configuration.load(raw), tmp_path / "run", None)
    epochs = recorded(run.metrics_file, "epoch")
    assert epochs[1]["losses"]["nll"] < epochs[0]["losses"]["nll"]
    assert "distance_inner_middle" in epochs[1]["score"]["parts"]
    out = tmp_path / "fake.h5"
    conditions = ["--condition", "geometry=1,incident_energy=8", "--condition", "geometry=0,incident_energy=2"]
    assert main(["generate", str(run.path), "-n", "40", "--out", str(out), *conditions]) == 0
    with h5py.File(out) as file:
        cells, energies = file["samples/cells"][:], file["samples/incident_energy"][:]
    np.testing.assert_array_equal(energies, [8, 2] * 20)
    np.testing.assert_allclose(cells.sum(axis=1) / 1000 / energies, 1.0, atol=0.1)
    few = EvaluationOptions(samples=1, repetitions=10)
    report.compare_files(tmp_path / "data" / "train.h5", out, few, out=tmp_path / "report", log=lambda _: None)
    assert "distance_middle_outer" in (tmp_path / "report" / "report.json").read_text()


def test_a_training_starts_as_the_density_that_another_came_to(tmp_path):
    """Whatever other showers it learns from: only the energies are theirs."""
    for folder, energy in (("first", (1.0, 2.0)), ("second", (20.0, 30.0))):
        options = GeometryGenerator(segmentation=TWO, energy=energy)
        make_data_set(options.data_set(30, 3), tmp_path / folder)
    raw = {
        "problem": "arm",
        "name": "tiny",
        "data": {"path": str(tmp_path / "first")},
        "model": {"geometries": TWO, "architecture": "boxes", "hidden_units": 8},
        "training": {"epochs": 1, "batch_size": 8, "density": {"learning_rate": 1e-2}},
        "scoring": {"events": 3, "select_by": "held_out"},
    }
    run = tiny.train(configuration.load(raw), tmp_path / "run", None)
    settings = configuration.load(raw, [f"data.path={tmp_path / 'second'}", f"training.start_from={run.path}"])
    with Inputs.open(settings) as inputs:
        assembly = Assembly.of(settings, SerialComm(), inputs)
        assembly.begin()
        started, trained = assembly.method.networks["density"], load_sampler(run.path).network
        sample = {name: tf.constant(x) for name, x in next(iter(inputs.encoded(assembly.sharding))).items()}
    np.testing.assert_array_equal(started.log_prob(sample), trained.log_prob(sample))
    assert float(started.quantiles[0]) > 5 * float(trained.quantiles[-1])


def test_a_geometry_can_be_left_out_of_the_training(data, tmp_path):
    run = train(data, tmp_path / "run", "data.leave_out=[{geometry: 2}]", "training.epochs=1")
    points = recorded(run.metrics_file, "epoch")[0]["score"]["details"]["points"]
    assert [point["conditions"] for point in points] == [{"geometry": 1.0}]
