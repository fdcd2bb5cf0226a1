"""Data sets of parametrised showers: bytes, blocks, attributes, and what interruptions leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import pytest

from hpcgan.commands.cli import main
from hpcgan.data.generators import Block, make_data_set
from hpcgan.data.storage import SPLITS, split_sizes
from hpcgan.errors import InputError
from hpcgan.physics import electromagnetic, showers
from hpcgan.physics.calorimeter import FINE, PUBLISHED
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter.generate import Beam, ShowerGenerator, ShowerSet

BEAM = Beam("gamma")


def nothing(done: int) -> None:
    pass


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShowerSet, "block", 8)


@pytest.fixture(scope="module")
def photons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photons")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShowerSet, "block", 8)
        assert make_data_set(ShowerSet(BEAM, 30, seed=3), folder)
    return folder


def test_bytes_do_not_depend_on_the_jobs(photons: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    assert make_data_set(ShowerSet(BEAM, 30, seed=3), tmp_path, jobs=2, progress=lambda *done: steps.append(done))
    for split in SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (photons / f"{split}.h5").read_bytes()
    assert steps[-1] == (30, 30)


def test_files_are_valid_and_complete(photons: Path) -> None:
    for split, size in split_sizes(30).items():
        calo.validate(photons / f"{split}.h5", PUBLISHED)
        with calo.open_showers(photons / f"{split}.h5") as file:
            assert file.n == size
    assert sorted(path.name for path in photons.iterdir()) == ["test.h5", "train.h5", "val.h5"]


def test_showers_are_those_of_their_blocks(photons: Path) -> None:
    parts = [calo.open_showers(photons / f"{split}.h5").read() for split in SPLITS]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    second = ShowerSet(BEAM, 30, 3).make(Block(1, 8, 8), nothing)
    for name, values in second.items():
        np.testing.assert_array_equal(found[name][8:16], values)
    assert len({image.tobytes() for image in found["layer_1"]}) == 30
    assert len(np.unique(found["energy"])) == 30
    assert 1 <= found["energy"].min() < found["energy"].max() <= 100


def test_seed_particle_and_block_change_the_showers_and_cells_do_not() -> None:
    def energies(beam: Beam, seed: int, index: int) -> list[float]:
        return ShowerSet(beam, 8, seed).make(Block(index, 4 * index, 4), nothing)["energy"].ravel().tolist()

    one = energies(BEAM, 1, 0)
    assert energies(BEAM, 1, 0) == one
    assert energies(Beam("gamma", segmentation=FINE), 1, 0) == one
    for other in ((BEAM, 2, 0), (BEAM, 1, 1), (Beam("eplus"), 1, 0), (Beam("gamma", recorded="active"), 1, 0)):
        assert energies(*other) != one


def test_energies(tmp_path: Path) -> None:
    block = ShowerSet(Beam("gamma", (65, 65)), 5).make(Block(0, 0, 4), nothing)
    assert block["energy"].tolist() == [[65]] * 4
    some = ShowerSet(Beam("piplus", (1, 100)), 4000).make(Block(0, 0, 4000), nothing)["energy"]
    assert some.mean() == pytest.approx(50.5, abs=1.5)
    assert np.quantile(some, [0.25, 0.75]) == pytest.approx([25.75, 75.25], abs=3)


def test_attributes_tell_everything(photons: Path) -> None:
    with h5py.File(photons / "val.h5") as file:
        attributes = dict(file.attrs)
    assert attributes["particle"] == "gamma"
    assert attributes["recorded"] == "energy lost in lead and liquid argon"
    assert attributes["energy_range_gev"].tolist() == [1, 100]
    assert "further than the window" in attributes["overflow_means"]
    said = json.loads(attributes["settings"])
    assert {key: said[key] for key in ("particle", "seed", "events", "segmentation", "recorded")} == {
        "particle": "gamma",
        "seed": 3,
        "events": 30,
        "segmentation": "3x96,12x12,12x6",
        "recorded": "total",
    }
    assert said["radiation_length_mm"] == pytest.approx(15.588, abs=1e-3)
    assert said["sampling_fluctuation"] == 0


def test_same_settings_do_nothing_and_others_are_refused(photons: Path) -> None:
    before = (photons / "train.h5").stat().st_mtime_ns
    assert not make_data_set(ShowerSet(BEAM, 30, seed=3), photons)
    assert (photons / "train.h5").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="seed: 3, asked for 4"):
        make_data_set(ShowerSet(BEAM, 30, seed=4), photons)
    with pytest.raises(InputError, match='particle: "gamma", asked for "eplus"'):
        make_data_set(ShowerSet(Beam("eplus"), 30, seed=3), photons)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"events": 4}, "showers = 4: at least 5"),
        ({"seed": -1}, "seed = -1"),
        ({"jobs": 0}, "jobs = 0"),
    ],
)
def test_bad_arguments(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arguments = {"events": 30, "seed": 1, "jobs": 1, **changes}
    data_set = ShowerSet(BEAM, arguments["events"], arguments["seed"])
    with pytest.raises(InputError, match=message):
        make_data_set(data_set, tmp_path / "out", arguments["jobs"])
    assert not (tmp_path / "out").exists()


def test_the_command_line_knows_what_there_is() -> None:
    particle, recorded = (ShowerGenerator.model_fields[name].annotation for name in ("particle", "recorded"))
    assert get_args(get_args(particle)[0]) == showers.PARTICLES
    assert get_args(recorded) == electromagnetic.RECORDED


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pions"
    arguments = ["data", "calo", "--particle", "piplus", "--events", "10", "--out", str(out), "--energy", "20:30"]
    assert main([*arguments, "--segmentation", "12x192,12x48,24x24"]) == 0
    captured = capsys.readouterr()
    assert "10/10 showers" in captured.err
    assert "10 showers in" in captured.out
    with calo.open_showers(out / "train.h5") as file:
        assert str(calo.segmentation_of(file)) == "12x192,12x48,24x24"
        energy = file.read()["energy"]
    assert ((energy >= 20) & (energy <= 30)).all()
    assert main([*arguments, "--segmentation", "12x192,12x48,24x24"]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--particle", "gamma", "--energy", "100:1"], "energy = 100:1 GeV"),
        (["--particle", "gamma", "--energy", "0:1"], "energy = 0:1 GeV: use LOW:HIGH from 0.1 to 1000 GeV"),
        (["--particle", "gamma", "--energy", "nan"], "finite number"),
        (["--particle", "gamma", "--segmentation", "3x96"], "1 layers instead of 3"),
        (["--particle", "piplus", "--recorded", "active"], "not parametrised"),
        (["--particle", "gamma", "--events", "3"], "at least 5"),
    ],
)
def test_bad_commands(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "calo", "--events", "10", "--out", str(tmp_path / "out"), *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--particle", "muon"], [], ["--particle", "gamma", "--energy", "1:2:3"]])
def test_bad_command_lines(arguments: list[str], tmp_path: Path) -> None:
    assert main(["data", "calo", "--events", "10", "--out", str(tmp_path), *arguments]) == 2


def test_sigterm_leaves_nothing(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "hpcgan", "data", "calo", "--particle", "gamma"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--events", "1000000", "--jobs", "2"],
        cwd=root,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    while not list(tmp_path.glob("train.h5.part")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing was written" in errors
    assert list(tmp_path.iterdir()) == []
