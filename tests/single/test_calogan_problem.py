"""The CaloGAN problem: data, encoding, observables and figures; a training, its resumption, samples and report."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import h5py
import needs
import numpy as np
import pytest
import tiny
from one_rank import eagerly
from pages import Page, check_numbers

tf = needs.tensorflow()

from calogan_settings import CaloGan  # noqa: E402
from recorded import recorded  # noqa: E402

import hpcgan  # noqa: E402
from hpcgan import config  # noqa: E402
from hpcgan.api import preflight  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.commands import generate as generate_command  # noqa: E402
from hpcgan.data.generators import make_data_set  # noqa: E402
from hpcgan.data.importers import Order  # noqa: E402
from hpcgan.errors import HpcganError, InputError, Interrupted  # noqa: E402
from hpcgan.evaluation import conditional, report  # noqa: E402
from hpcgan.evaluation.compare import EvaluationOptions  # noqa: E402
from hpcgan.physics.calorimeter import parse_segmentation  # noqa: E402
from hpcgan.problems.calorimeter import figures as calogan_figures  # noqa: E402
from hpcgan.problems.calorimeter import files as calo  # noqa: E402
from hpcgan.problems.calorimeter import generate as calo_generate  # noqa: E402
from hpcgan.problems.calorimeter.calogan import QUANTITIES, CaloganModel, CaloganProblem  # noqa: E402
from hpcgan.problems.calorimeter.generate import Beam  # noqa: E402
from hpcgan.problems.calorimeter.importing import ShowerImporter  # noqa: E402
from hpcgan.problems.calorimeter.networks import Discriminator, Generator  # noqa: E402
from hpcgan.problems.figures import figures_of  # noqa: E402
from hpcgan.runs import checkpoint as checkpoints  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import warm_start as origin  # noqa: E402
from hpcgan.training.assembly import Assembly, make_method  # noqa: E402
from hpcgan.training.inputs import Inputs  # noqa: E402

CELLS = "2x8,4x4,4x2"


@pytest.fixture(scope="module", autouse=True)
def _eager():
    """Graphs of networks as small as these take longer to make than the steps; test_calogan_step.py compiles one."""
    with eagerly():
        yield


TINY = parse_segmentation(CELLS)
PROBLEM = CaloganProblem(CaloganModel(segmentation=CELLS))
GEANT4 = Path(__file__).parents[1] / "data" / "geant4_gamma.h5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "gamma"
    make_data_set(calo_generate.ShowerSet(Beam("gamma", (2.0, 20.0), TINY), 100), out)
    return out


def configuration(folder: Path, *overrides: str) -> config.Config:
    raw = {
        "problem": "calogan",
        "name": "tiny",
        "data": {"path": str(folder), "augment": ["eta_reflection", "phi_reflection"]},
        "model": {"segmentation": CELLS, "latent_dim": 5},
        "training": {
            "epochs": 2, "batch_size": 30, "average_half_life": 50, "generator_steps": 2,
            "discriminator_update": "apart",
        },
        "scoring": {"events": 20},
    }  # fmt: skip
    return config.load(raw, overrides)


def showers(*images: np.ndarray, energy: list[float]) -> dict[str, np.ndarray]:
    layers = {f"layer_{i}": np.asarray(image, np.float32) for i, image in enumerate(images)}
    return {**layers, "energy": np.array(energy, np.float32)}


def dark(n: int) -> list[np.ndarray]:
    return [np.zeros((n, *shape)) for shape in TINY.shapes]


# --- data and encoding ---------------------------------------------------------------------------------------------


def test_the_defaults_are_the_published_model():
    model, published = CaloganModel(), CaloGan()
    assert (
        (model.latent_dim, model.energy_mismatch) == (published.latent_dim, published.energy_mismatch) == (1024, 0.05)
    )
    assert tuple(model.shapes) == tuple(published.shapes) == ((3, 96), (12, 12), (12, 6))
    made = config.load(Path("configs/calogan_reference.yaml"))
    assert made.model.latent_dim == 1024
    assert tuple(made.model.shapes) == tuple(published.shapes)
    training = made.training
    assert (training.global_batch_size, training.epochs, training.loss) == (256, 50, "bce")
    assert (training.generator_steps, training.discriminator_update, training.label_flip) == (2, "apart", 0.0)
    assert (training.generator.learning_rate, training.discriminator.learning_rate) == (2e-4, 2e-5)
    assert training.generator.beta1 == training.discriminator.beta1 == 0.5


def test_networks_see_gev():
    images = dark(2)
    images[1][0, 2, 3] = 2500.0
    sample = showers(*images, energy=[3.0, 50.0])
    encoded = PROBLEM.encode(sample)
    assert encoded["layer_1"][0, 2, 3] == pytest.approx(2.5)
    assert encoded["energy"].tolist() == [3.0, 50.0]
    assert encoded["layer_1"].dtype == np.float32
    assert list(encoded) == list(PROBLEM.schema) == ["layer_0", "layer_1", "layer_2", "energy"]
    assert PROBLEM.decode(encoded)["layer_1"][0, 2, 3] == pytest.approx(2500.0)
    assert "energy" not in PROBLEM.decode(encoded)
    assert PROBLEM.conditions == ("energy",)
    assert PROBLEM.point_conditions == ()


@pytest.mark.parametrize("cache", [0, 1024])
def test_a_source_has_one_energy_a_shower_and_no_overflow(folder, cache):
    source = PROBLEM.open(folder, "val", cache)
    with calo.open_showers(folder / "val.h5") as file:
        whole = file.read()
    read = source.read(np.array([4, 0, 4]))
    assert list(read) == ["layer_0", "layer_1", "layer_2", "energy"]
    np.testing.assert_array_equal(read["layer_0"], whole["layer_0"][[4, 0, 4]])
    np.testing.assert_array_equal(read["energy"], whole["energy"][[4, 0, 4], 0])
    np.testing.assert_array_equal(source.conditions()["energy"], whole["energy"][:, 0])
    assert source.conditions()["energy"].shape == (len(source),) == (20,)
    source.close()


def test_geant4_showers_are_data_like_parametrised_ones(tmp_path):
    ShowerImporter().import_files(Order([GEANT4], tmp_path / "g4"))
    problem = CaloganProblem(CaloganModel(particles=["gamma"]))
    for split in ("train", "val"):
        problem.validate(tmp_path / "g4", split)
    source = problem.open(tmp_path / "g4", "val")
    found = problem.observables(source.read(np.arange(40)))
    source.close()
    assert found["response"].values.mean() == pytest.approx(0.998, abs=0.002)  # of the sample's description
    with pytest.raises(InputError, match=r"train.h5: the layers are 3x96,12x12,12x6 cells .* model is for 2x8,4x4,4x2"):
        PROBLEM.open(tmp_path / "g4", "train")


def test_the_writer_keeps_the_layout(folder, tmp_path):
    source = PROBLEM.open(folder, "test")
    sample = source.read(np.arange(6))
    source.close()
    problem = CaloganProblem(CaloganModel(segmentation=CELLS, particles=["eplus"]))
    with problem.writer(tmp_path / "made.h5", 6, {"seed": 3}) as append:
        append({name: values[:4] for name, values in sample.items()})
        append({name: values[4:] for name, values in sample.items()})
    problem.validate(tmp_path / "made.h5", "test")
    with calo.open_showers(tmp_path / "made.h5", TINY) as file:
        assert calo.particle_of(file) == "eplus"
        assert file.attrs["overflow_means"] == "nothing: a generator makes none"
        np.testing.assert_array_equal(file.read()["energy"][:, 0], sample["energy"])
        assert not file.read()["overflow"].any()
    with pytest.raises(InputError, match="holds showers of eplus, needed are those of gamma"):
        CaloganProblem(CaloganModel(segmentation=CELLS, particles=["gamma"])).open(tmp_path / "made.h5", "test")
    assert str(CaloganProblem.of_file(tmp_path / "made.h5").model.cells) == CELLS


def test_reflections_by_hand():
    draws = np.array([[0.4, 0.6], [0.6, 0.4], [0.1, 0.1], [0.9, 0.9]])
    sample = showers(*[np.arange(4 * r * c).reshape(4, r, c) for r, c in TINY.shapes], energy=[1.0] * 4)
    both = ("eta_reflection", "phi_reflection")
    found = PROBLEM.augment(sample, both, draws)
    for name in ("layer_0", "layer_1", "layer_2"):
        a, b = sample[name], found[name]
        np.testing.assert_array_equal(b[0], a[0, :, ::-1])  # columns are eta
        np.testing.assert_array_equal(b[1], a[1, ::-1])
        np.testing.assert_array_equal(b[2], a[2, ::-1, ::-1])
        np.testing.assert_array_equal(b[3], a[3])
    np.testing.assert_array_equal(found["energy"], sample["energy"])
    only = PROBLEM.augment(sample, ("phi_reflection",), draws)
    np.testing.assert_array_equal(only["layer_1"][0], sample["layer_1"][0])


# --- physics -------------------------------------------------------------------------------------------------------


def test_observables_by_hand():
    """2 GeV in layer 0 and 6 GeV in layer 1 at 10 GeV; a dark shower has totals and occupancies only."""
    images = dark(2)
    images[0][0, 1, 3], images[0][0, 1, 4] = 1500.0, 500.0
    images[1][0, 0, 0] = 6000.0
    found = PROBLEM.observables(showers(*images, energy=[10.0, 4.0]))
    assert set(found) == set(QUANTITIES)
    assert len(set(QUANTITIES)) == 21
    assert "total" not in QUANTITIES  # what records and figures call the sum of a score's parts
    assert found["total_energy"].values == pytest.approx([8.0, 0.0])
    assert found["response"].values == pytest.approx([0.8, 0.0])
    assert found["depth_weighted"].values == pytest.approx([6.0, 0.0])
    assert found["occupancy_0"].values == pytest.approx([2 / 16, 0.0])
    for name, value in {
        "fraction_0": 0.25, "fraction_1": 0.75, "depth": 1.0, "shower_depth": 0.75,
        "shower_depth_width": np.sqrt(0.75 - 0.75**2), "ratio_0": 0.5, "ratio_1": 1.0,
        "width_eta_0": 60.0 * np.sqrt(0.25 * 0.75), "width_phi_0": 0.0, "width_eta_1": 0.0,
    }.items():  # fmt: skip
        assert found[name].values == pytest.approx([value], abs=1e-4), name
        assert found[name].counts.tolist() == [1, 0]
    assert found["width_eta_2"].counts.tolist() == [0, 0]
    assert (found["total_energy"].unit, found["width_eta_0"].unit, found["ratio_0"].unit) == ("GeV", "mm", "")


def test_a_generator_that_does_not_heed_the_energy_shows_in_the_response(folder):
    source = PROBLEM.open(folder, "train")
    sample = source.read(np.arange(60))
    source.close()
    real = PROBLEM.observables({name: values[:30] for name, values in sample.items()})
    fake = {name: values[30:] for name, values in sample.items()}
    good = PROBLEM.score(real, PROBLEM.observables(fake))
    mixed = {**fake, "energy": np.roll(fake["energy"], 7)}
    bad = PROBLEM.score(real, PROBLEM.observables(mixed))
    assert good.n == bad.n == 30
    assert bad.parts["total_energy"] == good.parts["total_energy"]
    assert bad.parts["response"] > 5 > 3 > good.parts["response"]  # a KS distance of 0.5 at 30 events: p = 0.0011


def test_discrepancies_of_mean_images_by_hand():
    a, b = dark(4), dark(2)
    a[0][:, 0, 0], a[0][:, 1, 7] = 3.0, 1.0
    b[0][:, 0, 0], b[0][:, 1, 7] = 2.4, 1.4
    a[1][:2, 0, 0] = 2.0
    a[1][2:, 0, 0] = 4.0
    b[1][:, 0, 0] = 3.0
    found = calogan_figures.discrepancies(showers(*a, energy=[1.0] * 4), showers(*b, energy=[1.0] * 2))
    assert found["layer_0"]["cells"] == pytest.approx((0.6 + 0.4) / 4)
    assert found["layer_0"]["energy"] == pytest.approx(-0.05)
    assert found["layer_0"]["real_cells"] == 0.0
    assert found["layer_1"] == pytest.approx({"cells": 0.0, "energy": 0.0, "real_cells": 2 / 3 / np.sqrt(2)})
    assert found["layer_2"] == {"cells": None, "energy": None, "real_cells": None}


def test_probes_cover_the_range_and_go_beyond_it():
    energies = [point["energy"] for point in figures_of(PROBLEM).probes({"energy": np.array([1.0, 100.0, 7.0])})]
    assert energies == sorted(set(energies))
    assert {1.0, 100.0} < set(energies)
    assert min(energies) == 0.5
    assert max(energies) == 200.0
    limited = [point["energy"] for point in figures_of(PROBLEM).probes({"energy": np.array([0.15, 900.0])})]
    assert min(limited) >= 0.1
    assert max(limited) <= 1000.0


# --- bad input -----------------------------------------------------------------------------------------------------


def spoiled(folder: Path, tmp_path: Path, change) -> Path:
    out = tmp_path / "spoiled"
    shutil.copytree(folder, out)
    with h5py.File(out / "train.h5", "r+") as file:
        change(file)
    return out


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("layer_1", (3, 0, 0), -2.0, r"train.h5: layer_1 of shower 3 holds a negative energy: -2 MeV"),
        ("overflow", (1, 2), -1.0, r"overflow of shower 1 holds a negative energy"),
        ("energy", (5, 0), 0.0, r"energy of shower 5 is 0 GeV; it must be above 0"),
        ("energy", (5, 0), 20000.0, r"energy of shower 5 is 20000 GeV; problem 'calogan' takes 0.1 to 1000 GeV"),
        ("layer_0", (0, 1, 1), np.nan, r"layer_0 of sample 0 holds a value of nan"),
    ],
)
def test_showers_that_cannot_be(folder, tmp_path, name, index, value, message):
    def change(file):
        file[name][index] = value

    with pytest.raises(InputError, match=message) as error:
        PROBLEM.validate(spoiled(folder, tmp_path, change), "train")
    assert "\n" not in str(error.value)


def test_files_of_unknown_particles_and_missing_files(folder, tmp_path):
    def change(file):
        file.attrs["particle"] = "kaon"

    with pytest.raises(InputError, match=r"holds showers of 'kaon'; known are gamma, eplus, piplus"):
        PROBLEM.open(spoiled(folder, tmp_path, change), "train")
    with pytest.raises(InputError, match=r"gone/val.h5: no such file; make it with 'hpcgan data calo --particle eplus"):
        CaloganProblem(CaloganModel(segmentation=CELLS, particles=["eplus"])).open(tmp_path / "gone", "val")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.particles=[kaon]", "model.particles: 'kaon' is not known; choices: gamma, eplus, piplus"),
        ("model.particles=[gamma, gamma]", "model.particles: a particle is named twice"),
        ("model.segmentation=3x4", "model.segmentation: segmentation 3x4: 1 layers instead of 3"),
        ("model.segmentation=huge", "model.segmentation: segmentation 'huge': use published, fine"),
        ("model.segmentation='3x8,4x4,4x2'", "must grow or shrink by whole factors, not 3 to 4"),
        ("model.energy_mismatch=-1", "model.energy_mismatch: .*greater than or equal to 0"),
        ("training.loss=wgan_gp", "training.discriminator_update=apart: the penalty .* set it to joint"),
        ("data.leave_out=[{energy: 5}]", "data.leave_out.0: 'energy' has another value in every event of 'calogan'"),
        ("data.augment=[transpose]", "'transpose' is not a symmetry of 'calogan'; choices: eta_reflection"),
        ("scoring.statistics=batch", "scoring.statistics=batch: batch normalisation over events of one condition"),
        ("training.generator_steps=0", "training.generator_steps: .*greater than or equal to 1"),
        ("training.update=simultaneous", "training.generator_steps=2 are updates one after the other"),
        ("training.discriminator_update=both", "training.discriminator_update: input should be 'joint' or 'apart'"),
    ],
)
def test_configurations_that_are_refused(folder, override, message):
    with pytest.raises(InputError, match=message) as error:
        configuration(folder, override)
    assert "\n" not in str(error.value)


def test_a_critic_needs_samples_by_themselves(folder):
    with pytest.raises(InputError, match=r"minibatch discrimination .* lets .* set training.loss to bce, hinge"):
        configuration(folder, "training.loss=wgan_gp", "training.discriminator_update=joint")


def test_steps_and_first_weights_make_another_run(tmp_path):
    plain = tiny.config(tmp_path)
    for key in ("generator_steps=2", "discriminator_update=apart", "start_from=elsewhere"):
        assert tiny.config(tmp_path, f"training.{key}").identity_hash() != plain.identity_hash()


# --- a training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> RunDirectory:
    return tiny.train(configuration(folder), tmp_path_factory.mktemp("run") / "run")


def test_a_training_records_the_mismatch_and_the_shower_shapes(run):
    found = recorded(run.metrics_file, "epoch")
    assert len(found) == 2
    for record in found:
        assert set(record["losses"]) == {"discriminator", "generator", "auxiliary"}
        assert record["losses"]["auxiliary"] > 0
        assert set(record["score"]["parts"]) == set(QUANTITIES)
        assert record["score"]["n"] == 20


def test_stopped_and_resumed_it_ends_with_the_same_bits(run, folder, tmp_path):
    made = configuration(folder)
    with pytest.raises(Interrupted):
        tiny.train(made, tmp_path / "again", tiny.StopAt(3))
    again = tiny.train(made, tmp_path / "again")
    ours, theirs = (checkpoints.load(checkpoints.path_of(r.checkpoints, 4)) for r in (again, run))
    tiny.assert_same_state(ours, theirs)


def generate(run: RunDirectory, out: Path, *options: str) -> calo.TensorFile:
    parser = argparse.ArgumentParser()
    generate_command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["generate", str(run.path), "--out", str(out), *options])
    assert generate_command.run(args) == 0
    return calo.open_showers(out, TINY)


def test_generate_at_energies(run, folder, tmp_path, capsys):
    with generate(run, tmp_path / "a.h5", "-n", "5", "--condition", "energy=10", "--condition", "energy=15") as file:
        assert file.read()["energy"][:, 0].tolist() == [10.0, 15.0, 10.0, 15.0, 10.0]
    assert "warning" not in capsys.readouterr().err
    with generate(run, tmp_path / "b.h5", "-n", "2", "--condition", "energy=50"):
        pass
    assert "energy=50 GeV is outside the training data's" in capsys.readouterr().err
    with generate(run, tmp_path / "c.h5", "-n", "30") as file, calo.open_showers(folder / "train.h5") as data:
        assert set(file.read()["energy"].ravel()) <= set(data.read()["energy"].ravel())
    for text, message in (
        ("energy=0.01", "energy = 0.01 GeV: must be from 0.1 to 1000 GeV"),
        ("energy=-5", "energy = -5 GeV: must be from"),
        ("mass=5", "'mass' is not a condition of problem 'calogan'; the conditions are: energy"),
    ):
        with pytest.raises(InputError, match=message):
            generate(run, tmp_path / "d.h5", "-n", "2", "--condition", text)


def test_generate_from_python_at_energies_of_their_own(run):
    energies = np.linspace(3.0, 18.0, 23)
    made = hpcgan.generate(run.path, conditions={"energy": energies})
    np.testing.assert_allclose(made["energy"], energies, rtol=1e-6)
    assert made["layer_0"].shape == (23, 2, 8)
    first = hpcgan.generate(run.path, conditions={"energy": energies[:4]})
    np.testing.assert_array_equal(made["layer_1"][:4], first["layer_1"])
    assert min(made[f"layer_{i}"].min() for i in range(3)) >= 0.0


def test_evaluate(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(conditional, "PROBE_EVENTS", 16)
    made = report.evaluate_run(run.path, EvaluationOptions(2, repetitions=20), out=tmp_path, log=lambda text: None)
    data = made.data
    assert data["score"]["n"] == 20
    assert set(data["distances"]) == set(QUANTITIES)
    assert set(data["measurements"]["mean_images"]) == {"layer_0", "layer_1", "layer_2"}
    probed = [row["conditions"]["energy"] for row in data["probes"]]
    assert min(probed) < 2.0
    assert max(probed) > 39.0
    assert all(row["observables"]["total_energy"]["mean"] >= 0 for row in data["probes"])
    names = [figure["name"] for figure in data["figures"]]
    for expected in ("showers", "mean_layer_0", "shower_depths", "shower_shapes", "neighbours_2", "response"):
        assert expected in names
    page = Page(made.html.read_text())
    check_numbers(page, json.loads(made.json.read_text()))


def test_files_are_compared_by_their_layout(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(calogan_figures.CaloganFigures, "compare", lambda self, real, fake, weights: [])
    generate(run, tmp_path / "fake.h5", "-n", "20").close()
    made = report.compare_files(
        folder / "test.h5", tmp_path / "fake.h5", EvaluationOptions(repetitions=5), log=lambda text: None
    )
    assert made.data["problem"] == "calogan"
    assert made.data["probes"] == []


# --- starting from another run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eplus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "eplus"
    make_data_set(calo_generate.ShowerSet(Beam("eplus", (2.0, 20.0), TINY), 100), out)
    return out


@pytest.mark.parametrize("averaged", [True, False])
def test_a_training_starts_from_the_weights_of_another(run, eplus, tmp_path, averaged):
    best = checkpoints.load_best(run.checkpoints, print)
    half_life = f"training.average_half_life={50 if averaged else 0}"
    made = configuration(
        eplus, f"training.start_from={run.path}", "model.particles=[eplus]", half_life, "seed=5", "training.epochs=1"
    )
    preflight(made, RunDirectory(tmp_path / "new"), 1)
    with Inputs.open(made) as inputs:
        assembly = Assembly.of(made, SerialComm(), inputs)
        state = assembly.state
        fresh = {name: value for name, value in state.arrays().items() if name.startswith("optimizer/")}
        assert assembly.begin() == best.path
    found = state.arrays()
    owners = {name.split("/")[1] for name in found if name.startswith("network/")}
    assert owners == {"generator", "discriminator", *(["generator_average"] if averaged else [])}
    for name, value in found.items():
        np.testing.assert_array_equal(value, fresh[name] if name in fresh else best.arrays[name], err_msg=name)
    assert state.counters.step == 0
    if not averaged:
        return
    finished = tiny.train(made, tmp_path / "new")
    said = [json.loads(line) for line in finished.provenance_file.read_text().splitlines()]
    assert said[0]["started_from"] == str(best.path)
    # Resumed, it does not need the other run.
    moved = configuration(
        eplus, "training.start_from=/nowhere", "model.particles=[eplus]", half_life, "seed=5", "training.epochs=1"
    )
    with pytest.raises(InputError, match="/nowhere is no run directory"):
        preflight(moved, RunDirectory(tmp_path / "other"), 1)
    finished.config_file.write_text(moved.to_yaml())
    preflight(moved, finished, 1)
    assert tiny.train(moved, finished.path).provenance_file.read_text().count("started_from") == 1


def test_an_average_begins_where_the_generator_was_if_there_was_none(run, folder):
    made = configuration(folder)
    method, state = make_method(made, CaloganProblem(made.model), SerialComm())
    best = checkpoints.load_best(run.checkpoints, print).arrays
    arrays = {name: value for name, value in best.items() if "/generator_average/" not in name}
    method.adopt(arrays)
    found = state.arrays()
    for name in (n for n in found if n.startswith("network/generator_average/")):
        np.testing.assert_array_equal(found[name], best[name.replace("generator_average/", "generator/", 1)])
    with pytest.raises(InputError, match=r"'network/generator/.*' is only in one of them"):
        method.adopt({k: v for k, v in best.items() if not k.endswith("layer0/project/kernel")})
    with pytest.raises(InputError, match=r"'network/discriminator/.*head/kernel' has another shape"):
        method.adopt({**best, "network/discriminator/discriminator/head/kernel": np.zeros((3, 1), np.float32)})


def test_one_checkpoint_can_be_named_and_what_is_there_is_checked(run, folder, tmp_path):
    latest = checkpoints.path_of(run.checkpoints, 4)
    named = configuration(folder, f"training.start_from={latest}", "seed=2")
    origin.check(named)
    assert origin.load(named, latest, print).step == 4

    def refused(message, *overrides, start=run.path):
        with pytest.raises(InputError, match=message) as error:
            preflight(
                configuration(folder, f"training.start_from={start}", *overrides), RunDirectory(tmp_path / "x"), 1
            )
        assert str(error.value).startswith("training.start_from: ")
        assert "\n" not in str(error.value)

    refused("is no run directory", start=tmp_path)
    refused("model.latent_dim: 5 there, 6 here", "model.latent_dim=6")
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(run.config_file, empty)
    refused("has no checkpoint yet", start=empty)
    other = tiny.config(tiny.write_data(tmp_path / "rpv", 10))
    (empty / "config.yaml").write_text(other.to_yaml())
    refused("is a run of problem rpv, not calogan", start=empty)
    damaged = tmp_path / "damaged"
    shutil.copytree(run.path, damaged)
    for checkpoint in (damaged / "checkpoints").iterdir():
        (checkpoint / "arrays.npz").write_bytes(b"nothing")
    made = configuration(folder, f"training.start_from={damaged}", "seed=2")
    with pytest.raises(HpcganError, match=r"training.start_from: .*none of the .* checkpoints is intact"):
        origin.load(made, damaged, lambda text: None)


# --- several particles ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixture(folder, eplus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mixture")
    shutil.copytree(folder, out / "gamma")
    shutil.copytree(eplus, out / "eplus")
    return out


BOTH = CaloganProblem(CaloganModel(segmentation=CELLS, latent_dim=5, particles=["eplus", "gamma"]))


def test_showers_of_several_particles_take_turns(mixture, folder, eplus):
    source = BOTH.open(mixture, "val")
    assert len(source) == 40
    read = source.read(np.arange(5))
    assert read["particle"].tolist() == [22.0, -11.0, 22.0, -11.0, 22.0]
    for part, places in ((folder, [0, 2, 4]), (eplus, [1, 3])):
        with calo.open_showers(part / "val.h5") as file:
            np.testing.assert_array_equal(read["layer_1"][places], file.read(slice(0, len(places)))["layer_1"])
            np.testing.assert_array_equal(read["energy"][places], file.read(slice(0, len(places)))["energy"][:, 0])
    np.testing.assert_array_equal(source.conditions()["particle"][:5], read["particle"])
    np.testing.assert_array_equal(source.conditions()["energy"][:5], read["energy"])
    source.close()
    assert BOTH.conditions == ("energy", "particle")
    assert BOTH.point_conditions == ("particle",)


def test_networks_heed_the_particle():
    """A vector of the class times the noise; weights of the features that each class has for itself."""
    generator, critic = Generator(BOTH.model, 1), Discriminator(BOTH.model, 1)
    plain = [network(PROBLEM.model, 1) for network in (Generator, Discriminator)]
    count = [sum(int(np.prod(v.shape)) for v in network.weights) for network in (generator, critic)]
    assert generator.named["generator/embedding"].shape == (2, 5)
    features = critic.named["discriminator/head/kernel"].shape[0]
    assert critic.named["discriminator/projection/kernel"].shape == (2, features)
    assert count[1] - sum(int(np.prod(v.shape)) for v in plain[1].weights) == 2 * features
    noise = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    energy = tf.constant([5.0, 5.0, 5.0])

    def made(number, noise):
        given = {"energy": energy, "particle": tf.constant([number] * 3)}
        return generator(tf.constant(noise), given, training=True, update=False)

    first, second = generator.named["generator/embedding"].numpy()
    for name, value in made(22.0, noise).items():
        np.testing.assert_allclose(value, made(-11.0, noise * first / second)[name], rtol=1e-3, atol=1e-6)
    assert not np.allclose(made(22.0, noise)["layer_1"], made(-11.0, noise)["layer_1"])
    sample = {**made(22.0, noise), "energy": energy}
    logits = [critic({**sample, "particle": tf.constant([n] * 3)}, training=True).numpy() for n in (22.0, -11.0)]
    assert not np.allclose(*logits)


@pytest.mark.usefixtures("undrawn")
def test_a_training_on_several_particles(mixture, tmp_path, monkeypatch):
    monkeypatch.setattr(calogan_figures.CaloganFigures, "compare", lambda self, real, fake, weights: [])
    monkeypatch.setattr(conditional, "PROBE_EVENTS", 16)
    made = configuration(mixture, "model.particles=[gamma, eplus]", "training.epochs=1")
    run = tiny.train(made, tmp_path / "run")
    (record,) = recorded(run.metrics_file, "epoch")
    points = record["score"]["details"]["points"]
    assert [(point["conditions"], point["n"]) for point in points] == [
        ({"particle": -11.0}, 10),
        ({"particle": 22.0}, 10),
    ]
    generate(run, tmp_path / "a.h5", "-n", "4", "--condition", "energy=5,particle=22").close()
    source = BOTH.open(tmp_path / "a.h5", "test")
    assert source.read(np.arange(4))["particle"].tolist() == [22.0] * 4
    source.close()
    BOTH.validate(tmp_path / "a.h5", "test")
    for text, message in (
        ("energy=5,particle=211", r"particle = 211: there are 22 \(gamma\), -11 \(eplus\)"),
        ("energy=5", "particle is missing"),
    ):
        with pytest.raises(InputError, match=message):
            generate(run, tmp_path / "b.h5", "-n", "2", "--condition", text)
    asked = {"energy": [4.0, 5.0, 6.0], "particle": [22, -11, 22]}
    assert hpcgan.generate(run.path, conditions=asked)["particle"].tolist() == [22.0, -11.0, 22.0]
    report.evaluate_run(run.path, EvaluationOptions(1, repetitions=5), out=tmp_path, log=lambda text: None)
    found = json.loads((tmp_path / "report.json").read_text())
    assert [row["conditions"] for row in found["points"]] == [{"particle": -11.0}, {"particle": 22.0}]
    assert {"response_gamma", "response_eplus"} <= {figure["name"] for figure in found["figures"]}


def test_files_with_several_particles_that_are_refused(mixture, folder, tmp_path):
    with pytest.raises(
        InputError, match=r"train.h5: holds showers of a single particle, the model is for gamma, eplus"
    ):
        BOTH.open(folder / "train.h5", "train")
    with pytest.raises(InputError, match=r"piplus/train.h5: no such file; .*--particle piplus"):
        CaloganProblem(CaloganModel(segmentation=CELLS, particles=["gamma", "piplus"])).open(mixture, "train")
    shutil.copy(folder / "val.h5", tmp_path / "odd.h5")
    with h5py.File(tmp_path / "odd.h5", "r+") as file:
        file["particle"] = np.full(20, 13.0, np.float32)
    with pytest.raises(InputError, match=r"odd.h5: particle of shower 0 is 13; known are 22 \(gamma\)"):
        BOTH.open(tmp_path / "odd.h5", "val")
