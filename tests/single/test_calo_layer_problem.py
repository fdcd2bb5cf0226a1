"""One calorimeter layer by likelihood: the files, the observables, and whole trainings through the engine."""

import contextlib

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
from hpcgan.data.layouts import tensors  # noqa: E402
from hpcgan.errors import HpcganError, InputError, Interrupted  # noqa: E402
from hpcgan.evaluation import report  # noqa: E402
from hpcgan.evaluation.compare import EvaluationOptions  # noqa: E402
from hpcgan.evaluation.distances import Options  # noqa: E402
from hpcgan.interactive import attach  # noqa: E402
from hpcgan.physics.calorimeter import parse_segmentation  # noqa: E402
from hpcgan.problems.calorimeter import generate as calo_generate  # noqa: E402
from hpcgan.problems.calorimeter.generate import Beam  # noqa: E402
from hpcgan.problems.calorimeter.layer import CaloLayerModel, CaloLayerProblem  # noqa: E402
from hpcgan.problems.calorimeter.layer_figures import LayerFigures  # noqa: E402
from hpcgan.problems.figures import figures_of  # noqa: E402
from hpcgan.report import plots  # noqa: E402
from hpcgan.runs import (  # noqa: E402
    checkpoint,
)
from hpcgan.runs import commands as control  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import assembly  # noqa: E402
from hpcgan.training.timing import period  # noqa: E402

SHOWERS = 100  # 60 for training, 20 for validation, 20 for the test
TIMING = {"time", "samples_per_second", "scoring_seconds", "attempt"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data_set(calo_generate.ShowerSet(Beam("gamma", (1.0, 5.0)), SHOWERS, 3), folder)
    return folder


def config(data, *overrides):
    """Two epochs of 15 steps."""
    raw = {
        "problem": "calo_layer",
        "name": "tiny",
        "data": {"path": str(data)},
        "model": {"layer": "layer_2", "hidden_units": 8, "components": 2},
        "training": {"epochs": 2, "batch_size": 4, "average_half_life": 50},
        "scoring": {"events": 20},
    }
    return configuration.load(raw, overrides)


def train(data, folder, *overrides, stop=None):
    return tiny.train(config(data, *overrides), folder, stop)


def final_arrays(run):
    return checkpoint.load_latest(run.checkpoints, pytest.fail)


def epochs(run):
    return [{k: v for k, v in r.items() if k not in TIMING} for r in recorded(run.metrics_file, "epoch")]


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("reference") / "run")


# --- the engine --------------------------------------------------------------------------------------


def test_a_run_says_what_it_was_trained_by(reference, data):
    found = epochs(reference)
    assert [r["step"] for r in found] == [15, 30]
    assert [set(r["losses"]) for r in found] == [{"nll"}] * 2
    assert found[1]["losses"]["nll"] < found[0]["losses"]["nll"]
    assert found[0]["probabilities"] == {}
    assert found[0]["collapse"]["saturation"] is None
    assert found[0]["collapse"]["diversity"] > 0
    assert found[0]["learning_rates"] == {"density": 1e-3}
    parts = {"energy", "response", "occupancy", "width_eta", "width_phi", "ratio"}
    assert set(found[0]["score"]["parts"]) == parts
    arrays = final_arrays(reference).arrays
    assert {"network/density/hidden/kernel", "network/density_average/mean_log"} <= set(arrays)
    assert "optimizer/density/density/m/output/kernel" in arrays
    constants = arrays["network/density/mean_log"]
    with h5py.File(data / "train.h5") as file:
        x = file["layer_2"][:].reshape(60, -1)
    expected = [np.log(c[c > 0].astype(np.float64)).mean() if (c > 0).any() else 0.0 for c in x.T]
    np.testing.assert_allclose(constants, expected, rtol=1e-5, atol=1e-6)
    with tensors.open_tensors(reference.samples / "epoch-0002.h5") as file:
        assert file.schema["layer_2"].shape == (12, 6)
        assert file.attrs["problem"] == "calo_layer"


def test_the_loss_of_validation_showers_is_that_of_the_network_that_is_sampled(reference, data):
    """Of the last epoch, by hand."""
    settings = config(data)
    subject = CaloLayerProblem(settings.model)
    method, state = assembly.make_method(settings, subject, SerialComm())
    state.load_variables(final_arrays(reference).arrays)
    with contextlib.closing(subject.open(data, "val")) as source:
        sample = subject.encode(source.read(np.arange(20)))
    nll = -method.networks["density_average"].log_prob({k: tf.constant(v) for k, v in sample.items()}).numpy()
    recorded_last = epochs(reference)[-1]["held_out"]
    assert (recorded_last["loss"], recorded_last["n"]) == ("nll", 20)
    assert recorded_last["mean"] == pytest.approx(nll.mean(), rel=1e-5)
    assert recorded_last["error"] == pytest.approx(nll.std(ddof=1) / np.sqrt(20), rel=1e-4)


def test_an_epoch_is_best_by_the_loss_of_validation_showers(data, tmp_path, capsys):
    """At a rate at which the loss rises, sooner or later."""
    arguments = ("scoring.select_by=held_out", "training.epochs=6", "training.density.learning_rate=0.3")
    found = epochs(train(data, tmp_path, *arguments))
    losses = [r["held_out"]["mean"] for r in found]
    lowest = int(np.argmin(losses))
    assert [r["is_best"] for r in found] == [loss == min(losses[: i + 1]) for i, loss in enumerate(losses)]
    assert found[-1]["best"] == {"score": losses[lowest], "epoch": lowest + 1, "step": 15 * (lowest + 1)}
    assert checkpoint.load_best(RunDirectory(tmp_path).checkpoints, pytest.fail).step == 15 * (lowest + 1)
    assert f"  held-out nll {losses[0]:.2f} +- " in capsys.readouterr().out


@pytest.mark.parametrize("stops", [[7], [15], [20, 3]], ids=str)
def test_an_interrupted_run_ends_with_the_same_bits(data, reference, tmp_path, stops):
    """In the middle of an epoch, at its end, twice."""
    for step in stops:
        with pytest.raises(Interrupted, match="checkpoint written"):
            train(data, tmp_path, stop=tiny.StopAt(step))
    run = train(data, tmp_path)
    ours, theirs = final_arrays(run), final_arrays(reference)
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)
    assert epochs(run) == epochs(reference)


def test_a_line_a_minute_names_the_loss(data, tmp_path, capsys):
    train(data, tmp_path, "training.epochs=1")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 1/1"))
    assert "  NLL " in line
    assert "  D " not in line


def test_rates_of_the_density_are_set_by_commands_and_schedules(data, tmp_path):
    ours, theirs = RunDirectory(tmp_path / "ours"), tmp_path / "theirs"

    with pytest.raises(Interrupted):
        train(data, ours.path, stop=tiny.StopAt(5))
    control.send(ours, "set", {"density": 0.02})  # is obeyed in the first step of the next attempt
    with pytest.raises(InputError, match="set generator: choose one of density"):
        control.send(ours, "set", {"generator": 0.1})
    with pytest.raises(InputError, match=r"needs a learning rate, e\.g\. density=1e-4"):
        attach(ours.path).set()
    train(data, ours.path)
    step = recorded(ours.metrics_file, "command")[-1]["step"]
    run = train(data, theirs, f"training.schedule.changes=[{{step: {step}, rates: {{density: 0.02}}}}]")
    assert epochs(ours)[-1]["learning_rates"] == {"density": 0.02}
    for name, array in final_arrays(run).arrays.items():
        np.testing.assert_array_equal(final_arrays(ours).arrays[name], array, err_msg=name)
    assert attach(ours.path).plot().axes[0].get_ylabel() == "Negative log-likelihood [nats an event]"


def test_a_loss_beyond_the_limit_goes_back_to_the_best_state(data, tmp_path):
    limits = ("training.rollback.limit=1", "training.rollback.loss_above=1.0e-3")
    with pytest.raises(HpcganError, match=r"a loss of .* at step 1 \(training.rollback.loss_above: 0.001\)"):
        train(data, tmp_path, *limits)


def test_what_the_stopwatch_counts(data):
    settings = config(data)
    problem = CaloLayerProblem(settings.model)
    method, _ = assembly.make_method(settings, problem, SerialComm())
    weights = sum(int(np.prod(w.shape)) for w in method.networks["density"].weights)
    assert weights == 2 * 72 * 8 + 8 + 8 + 8 * 72 * 7 + 72 * 7
    with contextlib.closing(problem.open(data, "train")) as source:
        real = problem.encode(source.read(np.arange(4)))
    method.step(0, real, method.draws(0, 0, 4), learning_rates={"density": 1e-3}, samples=4)
    assert dict(method.payload_bytes) == {"density": 4 * (weights + 3)}
    assert period(settings.training) == 1
    assert settings.training.cadences == (0, 1)


# --- generating and evaluating -------------------------------------------------------------------------


def test_generate_writes_showers_for_given_energies(reference, tmp_path, capsys):
    out = tmp_path / "made.h5"
    assert main(["generate", str(reference.path), "-n", "10", "--out", str(out), "--condition", "energy=3"]) == 0
    with tensors.open_tensors(out) as file:
        made = file.read()
        assert (file.attrs["problem"], file.attrs["segmentation"]) == ("calo_layer", "12x6")
        assert [spec.unit for spec in map(file.schema.get, ("layer_2", "energy"))] == ["MeV", "GeV"]
    np.testing.assert_array_equal(made["energy"], np.full((10, 1), 3.0, np.float32))
    assert made["layer_2"].shape == (10, 12, 6)
    assert made["layer_2"].min() == 0.0
    assert made["layer_2"].max() > 0.0
    assert main(["generate", str(reference.path), "-n", "1", "--out", str(out), "--condition", "energy=-3"]) == 2
    assert main(["data", "info", str(out)]) == 0
    assert "12 x 6, MeV" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_evaluate_names_the_loss_for_what_it_is(reference, monkeypatch, tmp_path):
    labels = {}
    curves = plots.curves

    def spy(x, lines, x_label, y_label, **more):
        labels[y_label] = list(lines)
        return curves(x, lines, x_label, y_label, **more)

    monkeypatch.setattr(plots, "curves", spy)
    monkeypatch.setattr(LayerFigures, "compare", lambda self, real, fake, weights: [])  # drawn below
    made = report.evaluate_run(
        reference.path,
        EvaluationOptions(1, repetitions=20, distances=Options(False)),
        out=tmp_path,
        log=lambda text: None,
    )
    assert labels["Negative log-likelihood [nats an event]"] == ["nll", "held out"]
    assert made.data["held_out"]["loss"] == "Negative log-likelihood [nats an event]"
    assert made.data["held_out"]["n"] == 20
    assert "loss of the real events: " in report.summary(made)
    assert labels["Ratio"] == ["distance of generated pairs", "distance to the nearest"]
    assert made.data["score"]["n"] == 20
    assert [set(curve["losses"]) for curve in made.data["training"]["curves"]] == [{"nll"}] * 2
    collapse = next(figure for figure in made.data["figures"] if figure["name"] == "collapse_curve")
    assert "discriminator" not in collapse["caption"]


def test_figures_show_what_is_there(data):
    subject = problem()
    sides = []
    for split in ("train", "val"):
        source = subject.open(data, split)
        sides.append(source.read(np.arange(20)))
        source.close()
    made = {name: figure for name, _, figure in figures_of(subject).compare(*sides)}
    assert list(made) == [
        "energy", "response", "occupancy", "width_eta", "width_phi", "ratio", "response_by_energy", "cell_spectrum",
        "mean_image", "eta_profile", "phi_profile", "images",
    ]  # fmt: skip
    mean = made["mean_image"].axes[0].images[0].get_array()
    np.testing.assert_allclose(mean, sides[0]["layer_2"].mean(axis=0), rtol=1e-5)  # rows phi upwards, columns eta
    nothing = {**sides[0], "layer_2": np.zeros_like(sides[0]["layer_2"])}
    assert {name for name, _, _ in figures_of(subject).compare(sides[0], nothing)} == set(made)
    assert figures_of(subject).singles(None, sides[1])[1].axes


# --- files -----------------------------------------------------------------------------------------


def problem(**model):
    return CaloLayerProblem(CaloLayerModel(**{"layer": "layer_2", **model}))


def test_encoding_goes_there_and_back(data):
    subject = problem(scale_mev=2.5)
    source = subject.open(data, "train")
    sample = source.read(np.arange(60))
    source.close()
    assert set(sample) == {"layer_2", "energy"}
    encoded = subject.encode(sample)
    np.testing.assert_allclose(encoded["layer_2"], sample["layer_2"] / 2.5, rtol=1e-6)
    np.testing.assert_allclose(encoded["energy"], np.log10(sample["energy"] / 10.0), rtol=1e-5)
    np.testing.assert_allclose(subject.decode(encoded)["layer_2"], sample["layer_2"], rtol=1e-6)
    assert encoded["layer_2"].dtype == np.float32


def test_observables_by_hand():
    image = np.zeros((2, 12, 6), np.float32)
    image[0, 5, 2], image[0, 5, 3] = 3000.0, 1000.0  # centres at x = -40 and 40 mm, one row
    found = problem().observables({"layer_2": image, "energy": np.array([[8.0], [2.0]])})
    np.testing.assert_allclose(found["energy"].values, [4.0, 0.0])
    np.testing.assert_allclose(found["response"].values, [0.5, 0.0])
    np.testing.assert_allclose(found["occupancy"].values, [2 / 72, 0.0])
    np.testing.assert_allclose(found["ratio"].values, [0.5])
    np.testing.assert_array_equal(found["ratio"].counts, [1, 0])  # the second one has no two brightest cells
    np.testing.assert_allclose(found["width_eta"].values, [np.sqrt(1600 - 400)])
    np.testing.assert_allclose(found["width_phi"].values, [0.0], atol=1e-6)


def test_files_of_showers_and_of_one_layer_are_told_apart(data, reference):
    made = reference.samples / "epoch-0001.h5"
    assert CaloLayerProblem.of_file(data / "test.h5").model.layer == "layer_1"
    assert CaloLayerProblem.of_file(made).model.layer == "layer_2"
    problem().validate(made, "test")
    with pytest.raises(InputError, match="has no data set 'samples/layer_1'"):
        problem(layer="layer_1").open(made, "test")


def test_bad_files_are_one_line(data, tmp_path):
    with pytest.raises(InputError, match=r"train.h5: no such file; make it with 'hpcgan data calo --out"):
        problem().open(tmp_path, "train")
    other = parse_segmentation("3x48,6x6,12x6")
    make_data_set(calo_generate.ShowerSet(Beam("gamma", (1.0, 2.0), other), 10), tmp_path / "coarse")
    with pytest.raises(InputError, match="the layers are 3x48,6x6,12x6 cells"):
        problem().open(tmp_path / "coarse", "train")
    for name, value, message in (
        ("layer_2", -1.0, "layer_2 of shower 7 holds a negative energy: -1 MeV"),
        ("energy", 0.0, "energy of shower 7 is 0 GeV; it must be above 0"),
        ("layer_2", np.nan, "layer_2 of sample 7 holds a value of nan"),
    ):
        path = tmp_path / "bad.h5"
        path.write_bytes((data / "test.h5").read_bytes())
        with h5py.File(path, "r+") as file:
            file[name][7] = value
        with pytest.raises(InputError, match=message):
            problem().validate(path, "test")
    with (
        pytest.raises(InputError, match=r"made.hdf: give a name that ends in .h5"),
        problem().writer(tmp_path / "made.hdf", 1, {}),
    ):
        pass
