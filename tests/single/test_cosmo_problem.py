"""The cosmo problem: encoding, symmetries, observables, networks, data command, and a training from end to end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcgan import config
from hpcgan.comm.base import SerialComm
from hpcgan.commands import evaluate as evaluate_command
from hpcgan.commands.cli import main
from hpcgan.data.layouts.tensors import open_tensors
from hpcgan.data.storage import SPLITS
from hpcgan.errors import InputError
from hpcgan.evaluation import report
from hpcgan.evaluation.compare import EvaluationOptions
from hpcgan.evaluation.sampling import load_sampler
from hpcgan.metrics.null_band import null_band
from hpcgan.physics.lognormal import LognormalMaps, pixel_sites
from hpcgan.problems.cosmo import generate as generation
from hpcgan.problems.cosmo.networks import Discriminator, Generator
from hpcgan.problems.cosmo.problem import CosmoModel, CosmoProblem
from hpcgan.problems.figures import figures_of
from hpcgan.runs.directory import RunDirectory
from hpcgan.training import attempt
from hpcgan.training.requests import StopRequest

SMALL = CosmoProblem(CosmoModel(side=32))


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    return LognormalMaps(32).make(seed=1, first=0, n=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cosmo")
    assert main(["data", "cosmo", "--out", str(path), "--maps", "40", "--side", "32", "--seed", "1"]) == 0
    return path


# --- encoding ----------------------------------------------------------------------------------------------------


def test_encoding_by_hand():
    kappa = np.array([-0.03, 0.0, 0.03, 0.06, 0.54], np.float32)
    encoded = SMALL.encode({"kappa": kappa})["kappa"]
    assert encoded == pytest.approx([-1, 0, 1 / 3, 1 / 2, 0.9], abs=1e-6)
    assert encoded[1:] == pytest.approx(np.tanh(np.log1p(kappa[1:] / 0.03) / 2), abs=1e-6)
    other = CosmoProblem(CosmoModel(side=32, shift=0.06))
    assert other.encode({"kappa": kappa})["kappa"][3] == pytest.approx(1 / 3)


def test_decoding_undoes_encoding(maps):
    encoded = SMALL.encode({"kappa": maps})["kappa"]
    assert encoded.dtype == np.float32
    assert np.abs(encoded).max() < 1
    assert SMALL.decode({"kappa": encoded})["kappa"] == pytest.approx(maps, rel=1e-5, abs=1e-8)


def test_a_saturated_tanh_is_a_finite_convergence():
    ends = SMALL.decode({"kappa": np.array([-1.0, 1.0], np.float32)})["kappa"]
    assert ends[0] == np.float32(-0.03)
    assert 0.5e6 < ends[1] < 2e6


# --- symmetries --------------------------------------------------------------------------------------------------


def augmented(image: np.ndarray, symmetries: list[str], *draws: float) -> np.ndarray:
    return SMALL.augment({"kappa": image[None]}, symmetries, np.array([draws]))["kappa"][0]


def test_each_symmetry_by_hand():
    image = np.arange(32 * 32, dtype=np.float32).reshape(32, 32)
    everything = list(SMALL.symmetries)
    assert np.array_equal(augmented(image, everything, 0.7, 0.7, 0.7, 0.0), image)
    assert np.array_equal(augmented(image, everything, 0.2, 0.7, 0.7, 0.0), image[::-1])
    assert np.array_equal(augmented(image, everything, 0.7, 0.2, 0.7, 0.0), image[:, ::-1])
    assert np.array_equal(augmented(image, everything, 0.7, 0.7, 0.2, 0.0), image.T)
    assert np.array_equal(augmented(image, everything, 0.7, 0.2, 0.2, 0.0), np.rot90(image))
    shift = (3 * 32 + 5 + 0.5) / 32**2
    assert np.array_equal(augmented(image, everything, 0.7, 0.7, 0.7, shift), np.roll(image, (-3, -5), (0, 1)))
    assert np.array_equal(augmented(image, ["transpose"], 0.2, 0.2, 0.7, shift), image)


def test_symmetries_keep_pixels_and_power(maps):
    draws = np.random.default_rng(0).random((40, 4))
    changed = SMALL.augment({"kappa": maps}, SMALL.symmetries, draws)["kappa"]
    assert not np.array_equal(changed, maps)
    assert np.array_equal(np.sort(changed.reshape(40, -1)), np.sort(maps.reshape(40, -1)))
    before, after = (SMALL.observables({"kappa": m}) for m in (maps, changed))
    for name in list(before)[1:]:
        assert after[name].values == pytest.approx(before[name].values, rel=1e-9)


# --- observables and score ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 64, 256])
def test_the_pixels_that_are_compared(side):
    rows, columns = pixel_sites(side)
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 16
    assert set(zip((rows * 4 // side).tolist(), (columns * 4 // side).tolist(), strict=True)) == {
        (i, j) for i in range(4) for j in range(4)
    }
    phases = min(16, side // 4)
    assert len(set((rows % phases).tolist())) == len(set((columns % phases).tolist())) == phases


def test_observables_and_their_score(maps):
    found = SMALL.observables({"kappa": maps})
    # Rings 1-2, 3-8 and 9-16 of the fundamental multipole 103.9.
    assert list(found) == ["pixel_intensity", "power_l104-208", "power_l312-831", "power_l935-1663"]
    assert len(found["pixel_intensity"].values) == 16 * 40
    assert {observable.n_events for observable in found.values()} == {40}
    assert SMALL.score(found, found).total == pytest.approx(0.0)
    # A wave of l = 5 x 103.9 is in the second band and in no other: l (l + 1) Omega a^2 / 2 / (2 pi) over 192 modes.
    wave = np.broadcast_to(0.01 * np.cos(2 * np.pi * 5 * np.arange(32) / 32), (1, 32, 32))
    powers = [observable.values[0] for observable in list(SMALL.observables({"kappa": wave}).values())[1:]]
    assert powers[0] == pytest.approx(0, abs=1e-15)
    assert powers[2] == pytest.approx(0, abs=1e-15)
    modes = np.rint(np.hypot(*np.meshgrid(*[np.fft.fftfreq(32, 1 / 32)] * 2)))
    ell = 103.923 * np.hypot(*np.meshgrid(*[np.fft.fftfreq(32, 1 / 32)] * 2))[modes == 5].mean()
    in_band = np.count_nonzero((modes >= 3) & (modes <= 8))
    assert powers[1] == pytest.approx(ell * (ell + 1) * 0.0036554 * 0.01**2 / 2 / (2 * np.pi) / in_band, rel=1e-3)


def test_maps_to_look_at_with_and_without_real_ones(maps):
    for real, titles in (({"kappa": maps[:4]}, ["Real", "Generated"]), (None, ["Generated"])):
        _, figure = figures_of(SMALL).singles(real, {"kappa": maps[:9]})
        assert [axes.get_title() for axes in figure.axes if axes.get_title()] == titles
        assert sum(len(axes.images) for axes in figure.axes) == 9 + 4 * (real is not None)


def test_the_score_notices_what_the_null_band_allows_for():
    """Other maps of the same kind are inside the band; other amplitude, smoothing or a Gaussian field are not."""
    model = LognormalMaps(32)
    real, other = (SMALL.observables({"kappa": model.make(seed, 0, 200)}) for seed in (1, 2))
    pool = SMALL.observables({"kappa": model.make(3, 0, 400)})
    band = null_band(pool, SMALL.score, 200, repetitions=100)
    assert SMALL.score(real, other).total < band.levels["p99"]
    changed = model.make(2, 0, 200)
    smooth = (2 * changed + np.roll(changed, 1, 1) + np.roll(changed, -1, 1)) / 4
    gaussian = np.log1p(changed / model.shift) + model.sigma**2 / 2
    gaussian *= np.sqrt(model.variance) / model.sigma
    for worse in (changed * 1.1, smooth, gaussian):
        assert SMALL.score(real, SMALL.observables({"kappa": worse.astype(np.float32)})).total > 2 * band.levels["p99"]


# --- networks ----------------------------------------------------------------------------------------------------


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def test_parameter_counts_by_hand():
    model = CosmoModel()
    assert count(Generator(model, 0).weights) == 12_692_929
    assert 12_692_929 == (
        64 * 16 * 16 * 512  # dense, 8,388,608
        + 2 * 512  # batch norm: a scale and an offset a channel
        + 5 * 5 * 512 * 256  # transposed convolutions, 3,276,800
        + 2 * 256
        + 5 * 5 * 256 * 128  # 819,200
        + 2 * 128
        + 5 * 5 * 128 * 64  # 204,800
        + 2 * 64
        + 5 * 5 * 64 * 1  # 1,600 and a bias
        + 1
    )
    assert count(Discriminator(model, 0).weights) == 3_583_105
    assert 3_583_105 == (
        5 * 5 * 1 * 64  # convolutions, 1,600 and 64 biases
        + 64
        + 5 * 5 * 64 * 128  # 204,800
        + 2 * 128
        + 5 * 5 * 128 * 256  # 819,200
        + 2 * 256
        + 5 * 5 * 256 * 384  # 2,457,600
        + 2 * 384
        + 16 * 16 * 384  # dense, 98,304 and a bias
        + 1
    )
    assert count(Generator(model, 0).statistics) == 2 * (512 + 256 + 128 + 64)
    assert count(Discriminator(model, 0).statistics) == 2 * (128 + 256 + 384)


@pytest.mark.parametrize("side", [32, 64])
def test_shapes(side):
    model = CosmoModel(side=side, filters=2, latent_dim=3)
    generator, discriminator = Generator(model, 1), Discriminator(model, 1)
    noise = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    made = generator(noise, {}, training=True)
    assert made["kappa"].shape == (5, side, side)
    assert 0 < np.abs(made["kappa"].numpy()).max() < 1
    assert discriminator(made, training=True).shape == (5,)
    assert len(generator.named) == 6 + 4 * 4  # six kernels and biases, four variables of each of four norms
    assert generator.named["generator/up3/bias"].numpy().tolist() == [0.0]


def test_initial_weights_are_the_dcgans():
    network = Discriminator(CosmoModel(side=32, filters=16), 1)
    kernel = network.named["discriminator/down3/kernel"].numpy()
    assert kernel.shape == (5, 5, 64, 96)
    assert kernel.std() == pytest.approx(0.02, rel=0.02)
    assert abs(kernel.mean()) < 4 * 0.02 / np.sqrt(kernel.size)


# --- data --------------------------------------------------------------------------------------------------------


def test_the_files_of_the_data_command(folder, maps, tmp_path, capsys):
    parts = []
    for split in SPLITS:
        SMALL.validate(folder, split)
        with open_tensors(folder / f"{split}.h5") as file:
            parts.append(file.read()["kappa"])
            assert file.attrs["problem"] == "cosmo"
    assert np.array_equal(np.concatenate(parts), maps)  # map i is map i of the seed
    arguments = ["--maps", "40", "--side", "32", "--seed", "1"]
    assert main(["data", "cosmo", "--out", str(folder), *arguments]) == 0
    assert "holds exactly these maps already" in capsys.readouterr().out
    assert main(["data", "cosmo", "--out", str(folder), *arguments[:-1], "2"]) == 2
    assert "(seed: 1, asked for 2)" in capsys.readouterr().err
    assert main(["data", "cosmo", "--out", str(tmp_path), *arguments, "--jobs", "2"]) == 0
    for split in SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (folder / f"{split}.h5").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--maps", "4"], "maps = 4: at least 5"),
        (["--maps", "10", "--side", "40"], "side = 40: use a multiple of 16 from 32 to 4096"),
        (["--maps", "100000000000"], "MB are needed"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, capsys):
    assert main(["data", "cosmo", "--out", str(tmp_path / "out"), *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*"))


def test_ctrl_c_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generation.Maps, "make", interrupt)
    assert main(["data", "cosmo", "--out", str(tmp_path / "out"), "--maps", "10", "--side", "32"]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_info(folder, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    assert main(["data", "info", str(folder / "train.h5"), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    for said in ("24 samples", "readable and valid", "32 x 32, dimensionless", "problem           cosmo", "seed"):
        assert said in out
    assert picture.read_bytes().startswith(b"\x89PNG")


class Nameless(CosmoProblem):
    """A problem that is given by its place."""

    conditions = ("side",)


def test_maps_that_do_not_fit_are_refused(folder, tmp_path):
    other = CosmoProblem(CosmoModel(side=64))
    message = r"train\.h5: holds maps of 32 x 32 pixels, the model is for 64 x 64; set model\.side=32"
    with pytest.raises(InputError, match=message):
        other.open(folder, "train")
    with pytest.raises(InputError, match=message):
        other.validate(folder, "train")
    with pytest.raises(InputError, match=r"make it with 'hpcgan data \S*test_cosmo_problem:Nameless --out"):
        Nameless(CosmoModel()).existing(tmp_path, "train")
    with pytest.raises(InputError, match=r"'cosmo' has conditions \(side\), so its class has to define encode_cond"):
        Nameless(CosmoModel()).encode_conditions({})
    with pytest.raises(InputError, match=r"no such file; make it with 'hpcgan data cosmo"):
        SMALL.open(tmp_path, "train")
    for name, values, message in (
        ("oblong", np.zeros((3, 32, 48)), "maps must be square"),
        ("low", np.full((3, 32, 32), -0.04), r"map 0 holds a convergence of -0\.04, below -model\.shift = -0\.03"),
        ("nan", np.full((3, 32, 32), np.nan), "kappa of sample 0 holds a value of nan"),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["samples/kappa"] = values
        with pytest.raises(InputError, match=message):
            SMALL.validate(tmp_path / f"{name}.h5", "train")
    CosmoProblem(CosmoModel(side=32, shift=0.05)).validate(tmp_path / "low.h5", "train")
    assert CosmoProblem.of_file(folder / "val.h5").model.side == 32


@pytest.mark.parametrize("side", [16, 40, 8192])
def test_sides_that_networks_cannot_have(side, folder):
    raw = {"problem": "cosmo", "name": "x", "data": {"path": str(folder)}, "model": {"side": side}}
    with pytest.raises(InputError, match=r"model\.side"):
        config.load(raw)


# --- the whole way -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_repetitions")
def test_train_generate_evaluate(folder, tmp_path, monkeypatch):
    raw = {
        "problem": "cosmo",
        "name": "tiny",
        "data": {"path": str(folder), "augment": list(SMALL.symmetries)},
        "model": {"side": 32, "filters": 2, "latent_dim": 3},
        "training": {"epochs": 1, "batch_size": 12},
        "scoring": {"events": 8},
    }
    run = RunDirectory(tmp_path / "run")
    best = attempt.train(config.load(raw), run, SerialComm(), StopRequest())
    assert best["step"] == 2  # 24 maps
    with open_tensors(run.samples / "epoch-0001.h5") as file:
        assert file.read()["kappa"].shape == (12, 32, 32)

    sampler = load_sampler(run.path)
    made = sampler.sample(10, seed=1)["kappa"]
    assert np.isfinite(made).all()
    assert made.min() >= -0.03
    out = tmp_path / "generated.h5"
    with sampler.problem.writer(out, 10, {"seed": 1}) as append:
        append({"kappa": made})
    CosmoProblem.of_file(out).validate(out, "test")
    with pytest.raises(InputError, match="exists already"), sampler.problem.writer(out, 10, {}):
        pass

    of_run = report.evaluate_run(run.path, EvaluationOptions(1, repetitions=20), log=lambda text: None).data
    assert of_run["score"]["requested"] == 8  # scoring.events
    assert [figure["name"] for figure in of_run["figures"]] == [
        "null_band",
        "maps",
        "power_spectrum",
        "pixel_histogram",
        "mean_map",
        "score_curve",
        "loss_curve",
        "collapse_curve",
    ]
    parser = argparse.ArgumentParser()
    evaluate_command.add_parser(parser.add_subparsers())
    arguments = ["evaluate", "--real", str(folder / "test.h5"), "--fake", str(out)]
    assert evaluate_command.run(parser.parse_args(arguments)) == 0  # the problem and the side are the file's
    found = json.loads((tmp_path / "generated-report" / "report.json").read_text())
    assert found["problem"] == "cosmo"
    assert found["score"]["n"] == 8
    assert list(found["score"]["parts"]) == ["pixel_intensity", "power_l104-208", "power_l312-831", "power_l935-1663"]
