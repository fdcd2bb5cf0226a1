"""A problem in a package of somebody else, installed with pip: everything works without a change inside hpcgan."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import sweeps
import yaml

pytest.importorskip("horovod")

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugin"
SMALL = ("training.epochs=1", "training.batch_size=8", "scoring.events=20", "model.filters=2")


class Place:
    """A folder to work in, where the package is found."""

    def __init__(self, folder: Path) -> None:
        self.folder, site = folder, folder / "site"
        shutil.copytree(PLUGIN, folder / "package")
        options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder / "package")], check=True)
        self.env = {**os.environ, "PYTHONPATH": f"{ROOT}:{site}"}
        for name in ("jets25.yaml", "search.yaml"):
            shutil.copy(PLUGIN / name, folder)

    def hpcgan(self, *args: str, code: int = 0, **env: str) -> str:
        """Output of a command, which has to end with this exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "hpcgan", *args],
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("plugin"))
    place.hpcgan("data", "jets25", "--jets", "200", "--prongs", "3", "--seed", "2", "--out", "data/jets25")
    return place


@pytest.fixture(scope="module")
def run(place: Place) -> Path:
    """A training on two ranks."""
    place.hpcgan("train", "jets25.yaml", *SMALL, "--ranks", "2", "--run", "run")
    return place.folder / "run"


def test_its_data_are_made_and_described(place: Place) -> None:
    assert "jets25    generate 25 x 25 images of jets" in place.hpcgan("data", "--help")
    assert "--prongs N" in place.hpcgan("data", "jets25", "--help")
    described = place.hpcgan("data", "info", "data/jets25")
    assert "120 samples" in described
    assert "25 x 25, GeV" in described
    assert "jets of 3 prongs" in described
    assert (place.folder / "data" / "jets25" / "train.info.png").stat().st_size > 1000
    assert "argument --prongs: 10: give at most 9" in place.hpcgan(
        "data", "jets25", "--jets", "200", "--prongs", "10", "--out", "other", code=2
    )


def test_it_is_trained_on_two_ranks_and_scored(run: Path) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (epoch,) = [record for record in records if record["kind"] == "epoch"]
    assert set(epoch["score"]["parts"]) == {"jet_pt", "lit_pixels", "width"}
    assert json.loads((run / "provenance.jsonl").read_text().splitlines()[0])["ranks"] == 2
    assert len(list((run / "samples").glob("*.h5"))) == 1


def test_its_run_generates_exports_and_is_reported(place: Place, run: Path) -> None:
    place.hpcgan("generate", "run", "-n", "40", "--out", "fake.h5")
    with h5py.File(place.folder / "fake.h5") as file:
        assert file["samples/jet"].shape == (40, 25, 25)
        assert file["samples"].attrs["problem"] == "jets25"
    place.hpcgan("export", "run", "--out", "exported")
    assert (place.folder / "exported" / "saved_model.pb").is_file()
    # The file says whose it is; its figures and its observable of its own are in the report.
    place.hpcgan("evaluate", "--real", "data/jets25/test.h5", "--fake", "fake.h5", "--events", "40", "--out", "report")
    report = json.loads((place.folder / "report" / "report.json").read_text())
    assert report["problem"] == "jets25"
    assert {"jet_pt", "lit_pixels", "width"} <= {figure["name"] for figure in report["figures"]}


def test_it_is_swept_by_an_executor_of_its_own(place: Place) -> None:
    pytest.importorskip("optuna")
    options = ("--trials", "2", "--concurrency", "2", "--threads", "1", "--out", "study")
    place.hpcgan("sweep", "search.yaml", *SMALL, *options, "--executor", "jets25.executor:Plain")
    assert len(sweeps.table(place.folder / "study")) == 2


def test_a_method_and_a_backend_of_its_own(place: Place) -> None:
    options = ("method=moments", "comm.backend=jets25.backend:Counting", "training.generator.learning_rate=1e-3")
    output = place.hpcgan("train", "jets25.yaml", *SMALL, *options, "--run", "moments")
    assert "1 rank (counting)" in output
    records = [json.loads(line) for line in (place.folder / "moments" / "metrics.jsonl").read_text().splitlines()]
    (epoch,) = [record for record in records if record["kind"] == "epoch"]
    assert set(epoch["losses"]) == {"difference"}
    place.hpcgan("generate", "moments", "-n", "5", "--out", "moments.h5")


def test_a_class_needs_no_entry_point_but_a_place_that_every_rank_finds(place: Place) -> None:
    shutil.copytree(PLUGIN / "jets25", place.folder / "elsewhere" / "jets25")
    raw = yaml.safe_load((PLUGIN / "jets25.yaml").read_text()) | {"problem": "jets25.problem:Jets25Problem"}
    (place.folder / "by_place.yaml").write_text(yaml.safe_dump(raw))
    command = ("train", "by_place.yaml", "--dry-run")
    assert "problem: jets25.problem:Jets25Problem" in place.hpcgan(
        *command, PYTHONPATH=f"{ROOT}:{place.folder / 'elsewhere'}"
    )
    missing = place.hpcgan(*command, code=2, PYTHONPATH=str(ROOT))
    assert "there is no module 'jets25' on Python's path" in missing
    assert "the working directory does not count" in missing
    again = place.hpcgan("data", "jets25.problem:Jets25Problem", "--jets", "200", "--prongs", "3", "--seed", "2",
                         "--out", "data/jets25")  # fmt: skip
    assert "holds exactly these jets already" in again
    assert "there is no module 'nowhere'" in place.hpcgan("data", "nowhere:Problem", "--out", "x", code=2)
    named = place.hpcgan("train", "jets25.yaml", "--dry-run", code=2, PYTHONPATH=str(ROOT))
    assert "problem 'jets25' does not exist; choose one of: arm, calo_layer" in named


def test_a_package_that_cannot_be_loaded_hides_no_other(place: Place) -> None:
    broken = place.folder / "broken"
    shutil.copytree(place.folder / "site", broken)
    (broken / "jets25" / "problem.py").write_text("import no_such_module\n")
    output = place.hpcgan("data", "--help", PYTHONPATH=f"{ROOT}:{broken}")
    assert "warning: problem 'jets25'" in output
    assert "no_such_module" in output
    assert "generate RPV gluino-pair events" in output
