"""Trainings of the autoregressive model of several geometries through the engine."""

import h5py
import needs
import numpy as np
import pytest
import tiny

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan import config as configuration  # noqa: E402
from hpcgan.commands.cli import main  # noqa: E402
from hpcgan.data.generators import make_data_set  # noqa: E402
from hpcgan.problems.arm.generate import GeometryGenerator  # noqa: E402
from hpcgan.problems.arm.geometry import parse_all  # noqa: E402

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


def test_a_geometry_can_be_left_out_of_the_training(data, tmp_path):
    run = train(data, tmp_path / "run", "data.leave_out=[{geometry: 2}]", "training.epochs=1")
    points = recorded(run.metrics_file, "epoch")[0]["score"]["details"]["points"]
    assert [point["conditions"] for point in points] == [{"geometry": 1.0}]
