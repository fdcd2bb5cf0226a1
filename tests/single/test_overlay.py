"""``hpcgan overlay``: shifts that are known, refusals, and a training from end to end."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pages import Page, check_escaped, check_numbers, check_self_contained
from pools import write_pool

from hpcgan import config
from hpcgan.comm.base import SerialComm
from hpcgan.commands import cli
from hpcgan.data.generators import make_data_set
from hpcgan.data.storage import Target
from hpcgan.overlay import study
from hpcgan.overlay.study import FILES, OverlayOptions, overlay
from hpcgan.physics.images import image_attributes
from hpcgan.physics.jets import image_geometry
from hpcgan.physics.pileup import SparseImages
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.pileup import files as pool
from hpcgan.problems.pileup.generate import Pools
from hpcgan.report.page import render
from hpcgan.runs.directory import RunDirectory
from hpcgan.training import attempt
from hpcgan.training.requests import StopRequest

MU = 4
COSH = np.cosh(image_geometry().eta)
PIXEL = 32 * 64 + 10  # at eta = 0.04, phi = -2.1
PT_OF_EVENT = 60.0  # GeV, of one minimum-bias event: 240 for four, a jet


def quiet(line: str) -> None:
    """Nobody listens."""


def signal_file(path: Path, n: int = 40, **attributes: Any) -> Path:
    """Events of one jet of 500 GeV, of a single pixel far from the pileup's: no mass."""
    images = np.zeros((n, 64, 64), np.float32)
    images[:, 32, 50] = 500e3 * COSH[32]
    with hdf5.Writer(Target(path.parent, {path.stem: n}, {**image_attributes(), **attributes})) as writer:
        writer.append(images, 1.0, 1.0, 1400.0, 850.0)
    return path


def pileup_file(path: Path, images: np.ndarray, **attributes: Any) -> Path:
    with hdf5.Writer(Target(path.parent, {path.stem: len(images)}, {"problem": "pileup", **attributes})) as writer:
        writer.append(images, 0.0, 1.0, 0.0, 0.0)
    return path


def two_pixels(n: int, pt: float) -> np.ndarray:
    """Images with a jet of two equal pixels, two rows apart."""
    images = np.zeros((n, 64, 64), np.float32)
    for row in (32, 34):
        images[:, row, 10] = 0.5 * pt * 1e3 * COSH[row]
    return images


def mass(pt: float) -> float:
    """Of such a jet: m^2 = 2 pT1 pT2 (cosh(delta eta) - 1)."""
    return float(np.sqrt(2 * (0.5 * pt) ** 2 * (np.cosh(2 * 5 / 64) - 1)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pools whose events are all the same, 60 GeV in two pixels, a signal file, and generated pileup: none in the even
    events, 300 GeV in the odd ones.
    """
    path = tmp_path_factory.mktemp("overlay")
    event = SparseImages.of(two_pixels(1, PT_OF_EVENT))
    with pool.Writer(Target(path / "pool", {"train": 160, "val": 160, "test": 170}, {"mu": MU})) as writer:
        writer.append(SparseImages.join([event] * 490))
    signal_file(path / "signal.h5")
    made = two_pixels(40, 300.0)
    made[::2] = 0.0
    pileup_file(path / "made.h5", made, mu=MU)
    return path


@pytest.fixture(scope="module")
def made(folder: Path) -> study.Report:
    return overlay(
        folder / "made.h5",
        folder / "signal.h5",
        MU,
        folder / "out",
        OverlayOptions(folder / "pool", repetitions=30),
        log=quiet,
    )


def test_shifts_by_hand(made: study.Report):
    """Real: one more jet, of 240 GeV, in each event. Generated: one more of 300 GeV in every other event."""
    found = made.data["quantities"]["jet_multiplicity"]
    assert made.data["events"] == 40
    assert {name: found[name]["mean"] for name in ("signal", "with_real", "with_generated")} == {
        "signal": 1.0,
        "with_real": 2.0,
        "with_generated": 1.5,
    }
    half = 0.5 / np.sqrt(39)  # standard error of 40 values, half of them 0 and half 1
    assert found["shift_real"] == {"mean": 1.0, "error": 0.0}
    assert found["shift_generated"] == {"mean": 0.5, "error": pytest.approx(half)}
    # Events i, i + 4, ... are of one block of the pool: two blocks of even events, two of odd ones.
    assert found["difference"] == {"mean": -0.5, "error": pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)}
    masses = made.data["quantities"]["summed_jet_mass"]
    assert masses["unit"] == "GeV"
    assert masses["shift_real"]["mean"] == pytest.approx(mass(240.0), rel=1e-4)
    assert masses["shift_generated"]["mean"] == pytest.approx(0.5 * mass(300.0), rel=1e-4)
    assert masses["difference"]["mean"] == pytest.approx(0.5 * mass(300.0) - mass(240.0), rel=1e-4)


def test_curves_and_score(made: study.Report):
    curves = made.data["quantities"]["jet_multiplicity"]["curves"]
    assert curves["edges"] == [0.5, 1.5, 2.5]
    assert (curves["signal"], curves["with_real"], curves["with_generated"]) == ([40, 0], [0, 40], [20, 20])
    score = made.data["score"]
    assert score["details"]["jet_multiplicity"]["ks"] == 0.5
    assert score["n"] == made.data["band"]["n"] == 40
    # Real pileups are all the same: nothing is exchanged that could differ.
    assert made.data["band"]["blocks"] == 4
    assert max(made.data["band"]["samples"]) == 0.0
    assert made.data["share_above"] == 0.0
    assert score["total"] > 5


def test_files_of_a_report(made: study.Report):
    page = Page(made.html.read_text())
    check_numbers(page, made.data)
    check_self_contained(page, made.html.read_text())
    assert json.loads(made.json.read_text()) == made.data
    names = [figure["name"] for figure in made.data["figures"]]
    assert page.figures == names
    assert {"jet_multiplicity", "summed_jet_mass", "jet_multiplicity_shift", "jet_pt", "images"} <= set(names)
    assert {path.name for path in made.pictures} == {f"{name}.png" for name in names}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made.pictures)
    notices = " ".join(made.data["notices"])
    assert "N = 40 instead of 4096" in notices
    assert "4 independent blocks only, so that the null band rests on 8 different exchanges" in notices
    text = study.summary(made)
    assert "+1 +- 0 (real), +0.5 +- 0.08 (generated)" in text
    assert str(made.html) in text


def test_texts_of_a_report_are_no_markup(made: study.Report):
    check_escaped(lambda data: render("overlay.html.j2", data, [], data["notices"]), made.data)


@pytest.mark.usefixtures("undrawn")
def test_a_pool_in_place_of_generated_pileup(folder: Path, tmp_path: Path):
    """Real pileup on both sides: no difference, and it is said."""
    test = folder / "pool" / "test.h5"
    found = overlay(
        test, folder / "signal.h5", MU, tmp_path, OverlayOptions(folder / "pool", 20, repetitions=5), log=quiet
    )
    assert found.data["events"] == 20
    assert found.data["score"]["total"] == 0.0
    assert found.data["quantities"]["summed_jet_mass"]["difference"]["mean"] == 0.0
    assert "Real and generated pileup come from the same file." in found.data["notices"]


@pytest.mark.usefixtures("undrawn")
def test_signal_events_have_their_weights(folder: Path, tmp_path: Path):
    """Every other event, which has generated pileup, three times as heavy: 3/4 instead of 1/2 of a jet more."""
    shutil.copy(folder / "signal.h5", tmp_path / "signal.h5")
    with h5py.File(tmp_path / "signal.h5", "a") as file:
        file["all_events/weight"][1::2] = 3.0
    found = {}
    for name, use in (("weighted", FILES), ("plain", dataclasses.replace(FILES, weighted=False))):
        found[name] = overlay(
            folder / "made.h5",
            tmp_path / "signal.h5",
            MU,
            tmp_path / name,
            OverlayOptions(folder / "pool", use=use, repetitions=5),
            log=quiet,
        ).data
        shift = found[name]["quantities"]["jet_multiplicity"]["shift_generated"]["mean"]
        assert shift == pytest.approx(0.75 if name == "weighted" else 0.5)
    assert any("as much as 32.0 of equal weight" in text for text in found["weighted"]["notices"])
    assert not any("weight" in text for text in found["plain"]["notices"])


@pytest.mark.usefixtures("undrawn")
def test_the_band_is_wide_where_pools_differ(folder: Path, tmp_path: Path):
    """A test pool of twice the energy: real against real differs, so the band must allow for as much."""
    event = SparseImages.of(two_pixels(1, PT_OF_EVENT))
    double = SparseImages(event.indptr, event.pixel, 2 * event.energy)
    with pool.Writer(Target(tmp_path / "pool", {"val": 160, "test": 160}, {})) as writer:
        writer.append(SparseImages.join([*[event] * 160, *[double] * 160]))
    found = overlay(
        folder / "made.h5",
        folder / "signal.h5",
        MU,
        tmp_path / "out",
        OverlayOptions(tmp_path / "pool", repetitions=100),
        log=quiet,
    )
    # All exchanged or none: every mass differs. Half of the blocks exchanged: the same mixture on both sides.
    samples = np.unique(found.data["band"]["samples"])
    assert samples[0] == 0.0
    assert samples[-1] > 30
    assert len(samples) == 3


# --- refusals ----------------------------------------------------------------------------------------------------


def tiny_run(path: Path, data: Path, problem: str = "pileup", **model: Any) -> RunDirectory:
    run = RunDirectory(path)
    raw = {"problem": problem, "data": {"path": str(data)}, "model": {"filters": 2, "latent_dim": 3, **model}}
    run.create(config.load(raw))
    return run


@pytest.fixture(scope="module")
def bad(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad")
    signal_file(path / "gev.h5", units="GeV")
    signal_file(path / "wide.h5", eta_range=[-5.0, 5.0])
    pileup_file(path / "other_mu.h5", two_pixels(40, 300.0), mu=60)
    pileup_file(path / "each_mu.h5", two_pixels(40, 300.0))
    with h5py.File(path / "each_mu.h5", "r+") as file:
        file["all_events/mu"] = np.full(40, 5, np.float32)
    signal_file(path / "gev_hist.h5")
    with h5py.File(path / "gev_hist.h5", "r+") as file:
        file["all_events/hist"].attrs["units"] = "GeV"
    signal_file(path / "of_masses.h5", run_problem="conditional")
    pileup_file(path / "one.h5", two_pixels(1, 300.0), mu=MU)
    spoilt = two_pixels(40, 300.0)
    spoilt[33, 1, 1] = np.nan
    pileup_file(path / "nan.h5", spoilt, mu=MU)
    with h5py.File(path / "small.h5", "w") as file:
        file["all_events/hist"] = np.zeros((4, 32, 32))
    (path / "cut.h5").write_bytes((folder / "made.h5").read_bytes()[:1500])
    signal_file(path / "rpv_process.h5", process="rpv")
    tiny_run(path / "rpv_run", folder, "rpv")
    tiny_run(path / "run60", folder / "pool", mu=60)
    tiny_run(path / "no_data", path / "nowhere", mu=MU)
    tiny_run(path / "untrained", folder / "pool", mu=MU)
    (path / "empty").mkdir()
    (path / "images").mkdir()
    for split in ("val", "test"):
        signal_file(path / "images" / f"{split}.h5")
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--pileup made --signal signal --mu 4", "--real-pileup is missing"),
        ("--pileup made --signal none --real-pileup pool --mu 4", "none: no such file"),
        ("--pileup none --signal signal --real-pileup pool --mu 4", "none: no such file"),
        ("--pileup made --signal signal --real-pileup none --mu 4", "test.h5: no such file; make it with"),
        ("--pileup made --signal signal --real-pileup images --mu 4", "test.h5: has no group 'pool'"),
        ("--pileup made --signal signal --real-pileup pool --mu 40", "too few for pileup of mu = 40, which needs 320"),
        ("--pileup made --signal made --real-pileup pool --mu 4", "made.h5: holds pileup, not signal events"),
        ("--pileup made --signal pooled --real-pileup pool --mu 4", "a pool of minimum-bias events, not signal events"),
        (
            "--pileup made --signal gev --real-pileup pool --mu 4",
            "gev.h5: attribute units of all_events/hist is 'MeV', but",
        ),
        ("--pileup made --signal wide --real-pileup pool --mu 4", "eta_range of all_events is [-5.0, 5.0]; needed"),
        ("--pileup made --signal small --real-pileup pool --mu 4", "small.h5: all_events/hist has shape (4, 32, 32)"),
        ("--pileup made --signal cut --real-pileup pool --mu 4", "cut.h5: not a readable HDF5 file"),
        ("--pileup cut --signal signal --real-pileup pool --mu 4", "cut.h5: not a readable HDF5 file"),
        ("--pileup small --signal signal --real-pileup pool --mu 4", "small.h5: all_events/hist has shape"),
        (
            "--pileup gev --signal signal --real-pileup pool --mu 4",
            "gev.h5: attribute units of all_events/hist is 'MeV', but",
        ),
        (
            "--pileup gev_hist --signal signal --real-pileup pool --mu 4",
            "gev_hist.h5: attribute units of all_events/hist is 'GeV', but",
        ),
        (
            "--pileup made --signal gev_hist --real-pileup pool --mu 4",
            "gev_hist.h5: attribute units of all_events/hist is 'GeV', but",
        ),
        ("--pileup rpv_process --signal signal --real-pileup pool --mu 4", "holds events of process rpv, not pileup"),
        ("--pileup other_mu --signal signal --real-pileup pool --mu 4", "holds pileup of mu = 60; --mu 4 is something"),
        ("--pileup each_mu --signal signal --real-pileup pool --mu 4", "each_mu.h5: holds pileup of mu = 5; --mu 4"),
        ("--pileup of_masses --signal signal --real-pileup pool --mu 4", "by a run of problem 'conditional', not of"),
        ("--pileup one --signal signal --real-pileup pool --mu 4", "one.h5: holds 1 event, too few to compare"),
        ("--pileup nan --signal signal --real-pileup pool --mu 4", "nan.h5: event 33 holds an energy that is not fini"),
        ("--pileup rpv_run --signal signal --mu 4", "rpv_run: a run of problem 'rpv', not of 'pileup'"),
        ("--pileup run60 --signal signal --mu 4", "run60: trained at mu = 60; --mu 4 is not what it generates"),
        ("--pileup no_data --signal signal --mu 4", "test.h5: no such file"),
        ("--pileup empty --signal signal --mu 4", "empty: neither a file nor a run directory"),
        ("--pileup untrained --signal signal --mu 4", "no checkpoint"),
    ],
)
def test_refusals(arguments: str, message: str, folder: Path, bad: Path, tmp_path: Path, capsys: Any):
    paths = {
        "made": folder / "made.h5",
        "signal": folder / "signal.h5",
        "pool": folder / "pool",
        "pooled": folder / "pool" / "val.h5",
        **{path.stem: path for path in bad.iterdir()},
        "none": bad / "none",
    }
    words = [str(paths.get(word, word)) for word in arguments.split()]
    assert cli.main(["overlay", *words, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len([line for line in captured.err.splitlines() if "error" in line]) == 1
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path, capsys: Any):
    (tmp_path / "out" / "overlay.html").mkdir(parents=True)  # which is found out when it is written
    words = ["--pileup", "made.h5", "--signal", "signal.h5", "--real-pileup", "pool"]
    words = [word if word.startswith("--") else str(folder / word) for word in words]
    assert cli.main(["overlay", *words, "--mu", "4", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "cannot write the report" in said.err
    assert "real against real" in said.out
    assert "report:" not in said.out


# --- from PYTHIA to the report -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.usefixtures("undrawn")
def test_train_generate_overlay(tmp_path: Path, capsys: Any):
    """A training on minimum-bias events of PYTHIA; the run and a file of what it generates give the same report."""
    make_data_set(Pools(200, 2, mu=3), tmp_path / "pool")
    raw = {
        "problem": "pileup",
        "name": "tiny",
        "data": {"path": str(tmp_path / "pool"), "augment": ["eta_reflection", "phi_rotation"]},
        "model": {
            "mu": 3,
            "sums_per_epoch": 32,
            "held_out_sums": 24,
            "architecture": "detector",
            "filters": 2,
            "latent_dim": 3,
            "intensity": "pt",
            "scale_mev": 2000,
            "exponent": 0.5,
            "total_pt": "drawn",
            "hidden_units": 4,
            "pooled_pt": True,
            "pixel_noise": True,
            "pixel_channels": 2,
        },
        "training": {"epochs": 1, "batch_size": 8},
        "scoring": {"events": 24},
    }
    settings = config.load(raw)
    run = RunDirectory(tmp_path / "run")
    best = attempt.train(settings, run, SerialComm(), StopRequest())
    assert best is not None
    assert 0 < best["score"] <= 4200
    made = tmp_path / "made.h5"
    assert cli.main(["generate", str(run.path), "-n", "20", "--out", str(made)]) == 0
    with hdf5.open_images(made) as file:
        assert (file.attrs["problem"], file.attrs["mu"]) == ("pileup", 3)
    signal_file(tmp_path / "signal.h5", 20)
    reports = []
    for pileup, more in ((run.path, []), (made, ["--real-pileup", str(tmp_path / "pool")])):
        out = tmp_path / f"out-{pileup.stem}"
        words = ["--pileup", str(pileup), "--signal", str(tmp_path / "signal.h5"), "--mu", "3", "--out", str(out)]
        assert cli.main(["overlay", *words, *more]) == 0
        reports.append(json.loads((out / "overlay.json").read_text()))
    assert reports[0]["quantities"] == reports[1]["quantities"]
    assert reports[0]["score"] == reports[1]["score"]
    assert reports[0]["band"] == reports[1]["band"]
    assert "shift of the mean" in capsys.readouterr().out
    assert cli.main(["evaluate", str(run.path), "--samples", "1"]) == 0
    assert "score" in capsys.readouterr().out


def test_write_pool_is_no_signal(tmp_path: Path):
    write_pool(tmp_path, 20)
    with pytest.raises(study.InputError, match="a pool of minimum-bias events"):
        overlay(tmp_path / "val.h5", tmp_path / "val.h5", 2, tmp_path / "out", OverlayOptions(tmp_path), log=quiet)
