"""``hpcgan data``: the commands as a user types them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.commands.cli import main
from hpcgan.data.storage import SPLITS
from hpcgan.problems.detector_images import generate
from hpcgan.problems.detector_images.files import open_images

SAMPLE = Path(__file__).parents[1] / "data" / "rpv_1400_850_towers.root"


@pytest.fixture(scope="module")
def rpv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rpv")
    arguments = ["--out", str(folder), "--events", "12", "--seed", "5"]
    assert main(["data", "rpv", "--mass", "1400,850", "--mass", "1600,850", *arguments]) == 0
    return folder


def test_rpv(rpv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in rpv.iterdir()) == ["test.h5", "train.h5", "val.h5"]
    arguments = ["--out", str(rpv), "--events", "12", "--seed", "5"]
    assert main(["data", "rpv", "--mass", "1400,850", "--mass", "1600,850", *arguments]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["data", "rpv", "--mass", "1400,850", *arguments]) == 2
    message = capsys.readouterr().err
    assert "other settings" in message
    assert len(message.splitlines()) == 1
    assert main(["data", "rpv", "--mass", "1400,850", "--out", str(rpv / "small"), "--events", "5"]) == 0
    captured = capsys.readouterr()
    assert "5/5 events" in captured.err
    assert "5 events in" in captured.out


def test_a_grid_is_its_points(rpv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Byte by byte what --mass makes of the same points; a part that is there already is not made twice."""
    arguments = ["--events", "12", "--seed", "5", "--out"]
    assert main(["data", "rpv", "--mass-grid", "1400:1600:200,850", *arguments, str(tmp_path)]) == 0
    for split in SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (rpv / f"{split}.h5").read_bytes()
    both = ["--mass", "1400,850", "--mass-grid", "1400:1600:200,850"]
    assert main(["data", "rpv", *both, *arguments, str(tmp_path)]) == 0
    assert "holds exactly these events already" in capsys.readouterr().out


def test_points_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    grid = generate.grid("400:800:200,300:700:200")
    assert grid == [(g, n) for g in (400.0, 600.0, 800.0) for n in (300.0, 500.0, 700.0)]
    assert generate.mass_points([(1400.0, 850.0)], [generate.grid("1400:1800:200,850"), generate.grid("1600,250")]) == [
        (1400.0, 850.0),
        (1600.0, 850.0),
        (1800.0, 850.0),
        (1600.0, 250.0),
    ]
    assert capsys.readouterr().err == ""
    assert len(generate.mass_points([], [grid])) == 6
    warning = capsys.readouterr().err
    assert "3 of 9 points skipped" in warning
    assert "400,500; 400,700; 600,700" in warning
    assert len(warning.splitlines()) == 1


@given(st.integers(1, 4000), st.integers(1, 400), st.integers(0, 9))
def test_both_ends_belong_to_an_axis(start: int, step: int, steps: int) -> None:
    axis = generate._axis(f"{start / 4}:{(start + step * steps) / 4}:{step / 4}")
    assert axis == pytest.approx([(start + step * i) / 4 for i in range(steps + 1)])


@given(st.text(alphabet="0123456789:.,-e ", max_size=20))
def test_any_text_is_a_grid_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 1 <= len(generate.grid(text)) <= (generate.GRID_LIMIT + 1) ** 2


def test_qcd(tmp_path: Path) -> None:
    assert main(["data", "qcd", "--pt-hat-min", "300", "--out", str(tmp_path), "--events", "5"]) == 0
    with open_images(tmp_path / "train.h5") as file:
        assert file.attrs["pt_hat_min_gev"].tolist() == [300]
        assert file.column("y") is not None
        assert file.column("y").tolist() == [0, 0, 0]


def test_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", str(SAMPLE), "--out", str(tmp_path), "--mass", "1400,850"]) == 0
    sizes = []
    for split in SPLITS:
        with open_images(tmp_path / f"{split}.h5") as file:
            sizes.append(file.n)
    assert sizes == [120, 40, 40]
    assert main(["data", "import", str(SAMPLE), "--out", str(tmp_path), "--mass", "1400,850"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_info(rpv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.png"
    assert main(["data", "info", str(rpv / "train.h5"), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    for said in (
        "7 events",
        "readable and valid",
        "64 x 64",
        "MeV",
        "occupancy",
        "(1400, 850): 4; (1600, 850): 3",
        "seed",
        "PYTHIA 8",
    ):
        assert said in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_info_of_a_folder_puts_pictures_beside_the_files(rpv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(rpv)]) == 0
    assert capsys.readouterr().out.count("readable and valid") == 3
    pictures = list(rpv.glob("*.info.png"))
    assert len(pictures) == 3
    for path in pictures:
        path.unlink()
    assert main(["data", "info", str(rpv), "--no-picture"]) == 0
    assert not list(rpv.glob("*.png"))


def test_info_of_files_of_other_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["all_events/hist"] = np.zeros((3, 64, 64))
        file["all_events/y"] = np.arange(3)
    assert main(["data", "info", str(tmp_path / "other.h5")]) == 0  # also: a picture of nothing but zeros
    out = capsys.readouterr().out
    assert "weight            not in the file" in out
    assert "0 (1), 1 (1), 2 (1)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rpv", "--mass", "850,1400", "--events", "10"], "m_neutralino = 1400 GeV"),
        (["rpv", "--mass", "nan,1", "--events", "10"], "finite number"),
        (["rpv", "--mass", "9000,850", "--events", "10"], "too heavy"),
        (["rpv", "--mass", "1400,850", "--mass", "1400,850.0", "--events", "10"], "named twice"),
        (["rpv", "--mass", "1400,850", "--events", "3"], "at least 5"),
        (["rpv", "--events", "10"], "give --mass M_GLUINO,M_NEUTRALINO or --mass-grid"),
        (["rpv", "--mass-grid", "500,500:900:200", "--events", "10"], "--mass-grid: no point is left"),
        (["rpv", "--mass-grid", "1400,0:200:200", "--events", "10"], "m_neutralino = 0 GeV"),
        (["rpv", "--mass-grid", "5000:9000:500,850", "--events", "1000"], "too heavy"),
        (["import", str(SAMPLE), "--mass", "850,1400"], "a gluino of 850 GeV cannot decay to it"),
        (["qcd", "--pt-hat-min", "1e9", "--events", "10"], "pt_hat_min"),
        (["import", str(SAMPLE), "--weight", "1e300"], "give at most 1e+09"),
        (["import", str(SAMPLE), "--weight", "-1e10"], "give at least -1e+09"),
        (["import", "none.root"], r"none.root: no such file"),
        (["import", str(SAMPLE), str(SAMPLE)], "named twice"),
    ],
)
def test_bad_input(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *arguments, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_bad_info(tmp_path: Path, rpv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.h5").write_bytes((rpv / "train.h5").read_bytes()[:2000])
    for target, message in (
        ("none.h5", "no such file"),
        ("cut.h5", "not a readable HDF5 file"),
        (".", "holds none of"),
    ):
        assert main(["data", "info", str(tmp_path / target)]) == 2
        assert message in capsys.readouterr().err
    assert main(["data", "info", str(rpv), "--picture", "p.png"]) == 2


def test_files_of_other_programs_are_told_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, geant4 = tmp_path / "other.h5", tmp_path / "geant4.h5"
    with h5py.File(other, "w") as file:
        file["mine"] = [1]
    with h5py.File(geant4, "w") as file:
        file["cell"] = [1]
    assert main(["data", "import", str(other), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "other.h5: is of no known kind (it holds: mine); known are " in message
    assert "CaloChallenge: incident_energies, showers" in message
    for path, kind in ((geant4, "holds Geant4 showers"), (SAMPLE, "is a ROOT file")):
        assert main(["evaluate", "--real", str(path), "--fake", str(other), "--out", str(tmp_path / "report")]) == 2
        assert f"{path}: {kind}; hpcgan data import makes a data set of it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["rpv", "--mass", "1400", "--events", "10"],
        ["rpv", "--mass-grid", "1400", "--events", "10"],
        ["rpv", "--mass-grid", "1400:1800,850", "--events", "10"],
        ["rpv", "--mass-grid", "1400:1800:0,850", "--events", "10"],
        ["rpv", "--mass-grid", "1800:1400:200,850", "--events", "10"],
        ["rpv", "--mass-grid", "1400:1700:200,850", "--events", "10"],
        ["rpv", "--mass-grid", "1:6000:1e-9,1", "--events", "10"],
        ["rpv", "--mass-grid", "1400:inf:1,850", "--events", "10"],
        ["rpv", "--mass-grid", "nan,850", "--events", "10"],
        ["rpv", "--mass", "a,b", "--events", "10"],
        ["unknown"],
        [],
    ],
)
def test_bad_command_lines(arguments: list[str], tmp_path: Path) -> None:
    assert main(["data", *arguments, "--out", str(tmp_path)]) == 2


def test_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "make_block", interrupt)
    assert main(["data", "rpv", "--mass", "1400,850", "--out", str(tmp_path / "out"), "--events", "10"]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sigterm(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "hpcgan",
        "data",
        "rpv",
        "--mass",
        "1400,850",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        [*command, "--events", "100000", "--jobs", "2"],
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
