"""Showers of Geant4, CaloGAN and CaloChallenge files, and what is refused of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.commands.cli import main
from hpcgan.data.importers import Order
from hpcgan.data.schema import Sample
from hpcgan.data.storage import SPLITS
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import FINE, PUBLISHED, Segmentation, parse_segmentation
from hpcgan.physics.shower_shapes import layer_energies
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter import importing as calo_import
from hpcgan.problems.calorimeter.importing import ShowerImporter, export, open_reader, recognise

DATA = Path(__file__).parents[1] / "data"
GAMMA = DATA / "geant4_gamma.h5"


def import_files(files: Sequence[Path], out: Path, segmentation: Segmentation = PUBLISHED, particle: str = "") -> bool:
    """Import with the options of the command."""
    return ShowerImporter(segmentation=str(segmentation), particle=particle or None).import_files(Order(files, out))


#: Two showers: three cells, and one. 5 * 48 + 7: eta 5, phi 7 of the inner grid; 9216 + 3 * 48 + 40; 11520 + 23 * 24.
CELLS = {
    "energy": np.array([10.0, 20.0]),
    "counts": np.array([3, 1], np.uint16),
    "cell": np.array([5 * 48 + 7, 9216 + 3 * 48 + 40, 11520 + 23 * 24, 5 * 48 + 7], np.uint16),
    "deposit": np.array([1.0, 2.0, 4.0, 8.0], np.float32),
}


def geant4_file(path: Path, attributes: dict[str, Any] | None = None, **changes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in {**CELLS, **changes}.items():
            if values is not None:
                file[name] = values
        file.attrs.update({"particle": "gamma", **(attributes or {})})
    return path


def read(folder: Path) -> Sample:
    """All showers of the three files, in the order they had before they were shared out."""
    parts = [calo.open_showers(folder / f"{split}.h5").read() for split in SPLITS]
    counts = [0, 0, 0]
    order = []
    for i in range(sum(len(part["energy"]) for part in parts)):
        which = max(0, i % 5 - 2)
        order.append((which, counts[which]))
        counts[which] += 1
    return {name: np.stack([parts[which][name][at] for which, at in order]) for name in parts[0]}


# --- Geant4 ------------------------------------------------------------------------------------------------------


def test_cells_of_the_fine_grid(tmp_path: Path) -> None:
    with open_reader(geant4_file(tmp_path / "a.h5")) as reader:
        assert (reader.n, reader.particle, reader.segmentation) == (2, "gamma", FINE)
        (sample,) = reader.pieces()
    assert [(sample[name] > 0).sum() for name in calo.LAYERS] == [2, 1, 1]
    assert sample["layer_0"][0, 7, 5] == 1  # rows phi, columns eta
    assert sample["layer_1"][0, 40, 3] == 2
    assert sample["layer_2"][0, 0, 23] == 4
    assert sample["layer_0"][1, 7, 5] == 8
    assert sample["energy"].tolist() == [[10], [20]]
    assert not sample["overflow"].any()
    first, second, third = FINE.coarsen(calo.images(sample), PUBLISHED)
    assert (first[0, 0, 2], second[0, 10, 0], third[0, 0, 5]) == (1, 2, 4)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_reader(GAMMA) as reader:
        whole = list(reader.pieces())
    monkeypatch.setattr(calo_import, "PIECE_BYTES", 7 * 4 * FINE.n_cells)
    with open_reader(GAMMA) as reader:
        parts = list(reader.pieces())
    assert len(parts) == 58  # of at most 7 showers
    for name in whole[0]:
        joined = [np.concatenate([part[name] for part in some]) for some in (whole, parts)]
        np.testing.assert_array_equal(*joined)


@pytest.mark.parametrize(("particle", "shares"), [("gamma", (0.130, 0.868, 0.002)), ("eplus", (0.180, 0.818, 0.0015))])
def test_the_sample(tmp_path: Path, particle: str, shares: tuple[float, ...]) -> None:
    """Layer fractions and the total as the sample's description gives them, within the statistics of 400 showers."""
    assert import_files([DATA / f"geant4_{particle}.h5"], tmp_path)
    sample = read(tmp_path)
    for split in SPLITS:
        calo.validate(tmp_path / f"{split}.h5", PUBLISHED)
        with calo.open_showers(tmp_path / f"{split}.h5") as file:
            assert calo.particle_of(file) == particle
            assert "nothing lies outside" in file.attrs["overflow_means"]
    energies = layer_energies(calo.images(sample))
    found = energies.sum(axis=0) / energies.sum()
    assert found == pytest.approx(shares, rel=0.1)
    assert energies.sum() / sample["energy"].sum() / 1000 == pytest.approx(0.998, abs=0.001)
    with h5py.File(DATA / f"geant4_{particle}.h5") as file:
        np.testing.assert_array_equal(sample["energy"][:, 0], file["energy"][:])
        ends = np.cumsum(file["counts"][:].astype(int))
        sums = np.add.reduceat(file["deposit"][:].astype(float), np.concatenate([[0], ends[:-1]]))
    np.testing.assert_allclose(energies.sum(axis=1), sums, rtol=1e-5)


def test_coarser_segmentations(tmp_path: Path) -> None:
    """One of the geometry-aware model: 12 x 12 times 16 and 1/3 is no sum, 12 x 192, 12 x 48, 24 x 24 is one."""
    other = parse_segmentation("12x192,12x48,24x24")
    import_files([GAMMA], tmp_path / "a", other)
    import_files([GAMMA], tmp_path / "b", PUBLISHED)
    one, two = read(tmp_path / "a"), read(tmp_path / "b")
    np.testing.assert_allclose(layer_energies(calo.images(one)), layer_energies(calo.images(two)), rtol=1e-5)
    for name in ("layer_0", "layer_1"):
        rows = one[name].reshape(400, 3, 4, *one[name].shape[2:]).sum(axis=2) if name == "layer_0" else one[name]
        n_eta = two[name].shape[2]
        np.testing.assert_allclose(
            rows.reshape(*rows.shape[:2], n_eta, -1).sum(axis=3), two[name], rtol=1e-4, atol=1e-4
        )
    with pytest.raises(InputError, match=r"cannot be summed into those of 5x192,12x48,24x24"):
        import_files([GAMMA], tmp_path / "c", parse_segmentation("5x192,12x48,24x24"))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": None}, r"has no data set 'energy' \(the file holds: cell, counts, deposit\)"),
        ({"cell": None}, r"has no data set 'cell'"),
        ({"deposit": None}, r"has no data set 'deposit'"),
        ({"counts": None}, r"has no data set 'counts'"),
        ({"energy": np.ones(3)}, r"energy has 3 showers but counts has 2"),
        ({"energy": np.ones((2, 1))}, r"energy has shape \(2, 1\); needed are 1 dimensions"),
        ({"energy": np.array([b"a", b"b"])}, r"energy does not hold numbers"),
        ({"counts": np.array([3.0, 1.0])}, r"counts does not hold whole numbers"),
        ({"counts": np.array([3, 2])}, r"cell has 4 entries.*counts adds up to 5"),
        ({"counts": np.array([5, -1])}, r"counts of shower 1 is -1"),
        ({"counts": np.zeros(0, int)}, r"counts holds no showers"),
        ({"counts": np.array([2**62, 2**62])}, r"counts of shower 0 is 4611686018427387904; there are 12096 cells"),
        ({"cell": np.array([0, 1, 12096, 3])}, r"cell of shower 0 is 12096; the segmentation has 12096 cells"),
        ({"cell": np.array([0, 1, 2, -3])}, r"cell of shower 1 is -3"),
        ({"deposit": np.ones(3)}, r"deposit has 3 entries"),
        ({"deposit": np.array([1, np.nan, 1, 1])}, r"deposit of shower 0 is nan MeV"),
        ({"deposit": np.array([1, 1, 1, -2.0])}, r"deposit of shower 1 is -2 MeV; it must be 0 or more"),
        ({"deposit": np.array([1, 1, 1, 1e300])}, r"layer_0 of shower 1 is not finite"),
        (
            {"cell": np.array([0, 1, 2, 3]), "deposit": np.array([3e38, 3e38, 1, 1])},
            r"layer_0 of shower 0 is not finite",
        ),
        ({"energy": np.array([1, 0.0])}, r"energy of shower 1 is 0 GeV"),
        ({"energy": np.array([np.nan, 1])}, r"energy of shower 0 is not finite"),
        ({"attributes": {"particle": "muon"}}, r"holds showers of 'muon'; known are"),
        ({"attributes": {"grids": "100 x 100"}}, r"another segmentation \('100 x 100'\)"),
    ],
)
def test_bad_geant4_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = geant4_file(tmp_path / "a.h5", **changes)
    with pytest.raises(InputError, match=message) as error:
        import_files([path, geant4_file(tmp_path / "b.h5"), geant4_file(tmp_path / "c.h5")], tmp_path / "out")
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


RNG = np.random.default_rng(1)
SMALL = {
    "geant4": {
        "energy": RNG.uniform(1, 100, 8).astype("f4"),
        "counts": np.full(8, 20, np.uint16),
        "cell": RNG.integers(0, FINE.n_cells, 160).astype(np.uint16),
        "deposit": RNG.exponential(1, 160).astype("f4"),
    },
    "challenge": {
        "incident_energies": RNG.uniform(1e3, 1e5, (3, 1)).astype("f4"),
        "showers": (RNG.exponential(10, (3, 504)) * (RNG.random((3, 504)) < 0.3)).astype("f4"),
    },
}


@pytest.fixture(scope="module", params=SMALL)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With checksums on everything, so that a byte matters to one of them or not at all."""
    path = tmp_path_factory.mktemp("small") / "small.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, values in SMALL[request.param].items():
            file.create_dataset(name, data=values, chunks=values.shape, compression="gzip", fletcher32=True)
        file.attrs["particle"] = "gamma"
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_one_error_or_the_right_showers(data: st.DataObject, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    path.write_bytes(data.draw(damaged(small.read_bytes())))
    message, found = None, []
    try:
        with open_reader(path) as reader:
            found = list(calo_import._checked(reader))
    except InputError as error:
        message = str(error)
    if message is None:
        with open_reader(small) as reader:
            (wanted,) = reader.pieces()
        assert all(np.array_equal(found[0][name], wanted[name]) for name in wanted)
    else:
        assert str(path) in message
        assert "\n" not in message


# --- CaloChallenge and CaloGAN -----------------------------------------------------------------------------------


def challenge_file(path: Path, n: int = 6, voxels: int = 504, **changes: Any) -> Path:
    rng = np.random.default_rng(2)
    held = {"incident_energies": rng.uniform(1e3, 1e5, (n, 1)), "showers": rng.exponential(9, (n, voxels)), **changes}
    with h5py.File(path, "w") as file:
        for name, values in held.items():
            if values is not None:
                file[name] = values
    return path


def test_voxels_are_cells_in_order(tmp_path: Path) -> None:
    voxels = np.arange(6 * 504.0).reshape(6, 504)
    path = challenge_file(tmp_path / "a.hdf5", showers=voxels, incident_energies=np.full((6, 1), 65_000.0))
    import_files([path], tmp_path / "out", particle="eplus")
    sample = read(tmp_path / "out")
    assert sample["layer_0"][1].ravel().tolist() == list(range(504, 504 + 288))
    assert sample["layer_0"][1, 2, 0] == 504 + 2 * 96
    assert sample["layer_1"][0, 0, 0] == 288
    assert sample["layer_2"][5].ravel().tolist() == list(range(5 * 504 + 432, 6 * 504))
    assert (sample["energy"] == 65).all()
    with calo.open_showers(tmp_path / "out" / "test.h5") as file:
        assert calo.particle_of(file) == "eplus"


def test_there_and_back(tmp_path: Path) -> None:
    import_files([GAMMA], tmp_path / "calogan")
    files = [tmp_path / "calogan" / f"{split}.h5" for split in SPLITS]
    assert export(files, tmp_path / "challenge")
    assert not export(files, tmp_path / "challenge")
    with h5py.File(tmp_path / "challenge" / "train.h5") as file:
        assert file["showers"].shape == (240, 504)
        assert file["incident_energies"].shape == (240, 1)
        assert file["showers"].attrs["units"] == file["incident_energies"].attrs["units"] == "MeV"
        assert set(file) == {"showers", "incident_energies"}
    import_files([tmp_path / "challenge" / "val.h5"], tmp_path / "back")
    back = read(tmp_path / "back")
    with calo.open_showers(files[1]) as file:
        before = file.read()
    for name in calo.LAYERS:
        np.testing.assert_array_equal(back[name], before[name])
    np.testing.assert_allclose(back["energy"], before["energy"], rtol=1e-6)
    again = tmp_path / "again"
    assert import_files(files, again)  # the published layout itself: one file becomes three
    with calo.open_showers(again / "train.h5") as file:
        assert file.n == 240
    assert not import_files(files, again)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"voxels": 368},
            r"showers has 368 voxels \(CaloChallenge dataset 1, photons\), another segmentation; known are",
        ),
        ({"voxels": 40500}, r"40500 voxels \(CaloChallenge dataset 3\)"),
        ({"voxels": 505}, r"showers has 505 voxels, another segmentation; known are 504 \(3x96,12x12,12x6\), 12096"),
        ({"showers": None}, r"has no data set 'showers'"),
        ({"incident_energies": None}, r"has no data set 'incident_energies'"),
        ({"incident_energies": np.ones((5, 1))}, r"5 samples|has 6 samples but incident_energies has 5"),
        ({"incident_energies": np.ones(6)}, r"incident_energies has shape \(6,\)"),
        ({"incident_energies": np.ones((6, 2))}, r"incident_energies has shape \(6, 2\)"),
        ({"incident_energies": np.zeros((6, 1))}, r"energy of shower 0 is 0 GeV"),
        ({"showers": np.full((6, 504), np.nan)}, r"layer_0 of shower 0 is not finite"),
        ({"showers": np.full((6, 504), -1.0)}, r"layer_0 of shower 0 holds a negative energy: -1 MeV"),
        ({"showers": np.ones((6, 3, 168))}, r"showers has shape \(6, 3, 168\)"),
    ],
)
def test_bad_challenge_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = challenge_file(tmp_path / "a.h5", **changes)
    with pytest.raises(InputError, match=message) as error:
        import_files([path], tmp_path / "out")
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    other = challenge_file(tmp_path / "c.h5")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["hist"] = [1]
    for files, message in (
        ([GAMMA, GAMMA], "named twice"),
        ([GAMMA, DATA / "geant4_eplus.h5"], "holds showers of 'eplus', another file says 'gamma'"),
        ([GAMMA, other], "is a challenge file, .* a geant4 file"),
        ([tmp_path / "none.h5"], "no such file"),
        ([tmp_path / "x.h5"], r"holds no calorimeter showers \(it holds: hist\)"),
        ([], "no file to import"),
        ([geant4_file(tmp_path / "few.h5")], "at least 5"),
    ):
        with pytest.raises(InputError, match=message):
            import_files(files, tmp_path / "out")
    with pytest.raises(InputError, match="--particle says 'eplus'"):
        import_files([GAMMA], tmp_path / "out", particle="eplus")
    assert not (tmp_path / "out").exists()
    assert recognise(DATA / "rpv_1400_850_towers.root") is None


def test_exported_files_know_their_segmentation(tmp_path: Path) -> None:
    other = parse_segmentation("4x8,12x12,1x1")
    import_files([GAMMA], tmp_path / "a", other)
    export([tmp_path / "a" / "val.h5"], tmp_path / "b")
    import_files([tmp_path / "b" / "val.h5"], tmp_path / "c", other)
    with calo.open_showers(tmp_path / "a" / "val.h5") as file:
        np.testing.assert_array_equal(read(tmp_path / "c")["layer_0"], file.read()["layer_0"])
    with h5py.File(tmp_path / "b" / "val.h5", "a") as file:
        file.attrs["segmentation"] = "4x8,12x12,1x2"
    with pytest.raises(InputError, match=r"177 voxels, another segmentation; known are 178 \(4x8,12x12,1x2\)"):
        open_reader(tmp_path / "b" / "val.h5")


def test_export_does_not_replace_what_it_reads(tmp_path: Path) -> None:
    import_files([GAMMA], tmp_path)
    with pytest.raises(InputError, match="would be replaced"):
        export([tmp_path / "train.h5"], tmp_path, force=True)
    calo.validate(tmp_path / "train.h5")


# --- the commands ------------------------------------------------------------------------------------------------


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "g")
    assert main(["data", "import", str(GAMMA), "--out", out]) == 0
    assert main(["data", "import", str(GAMMA), "--out", out]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["data", "import", str(GAMMA), "--out", out, "--segmentation", "fine"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main(["data", "export", out, "--out", str(tmp_path / "e")]) == 0
    assert "exported" in capsys.readouterr().out
    assert main(["data", "info", str(tmp_path / "g" / "val.h5"), "--no-picture"]) == 0
    assert "80 samples" in capsys.readouterr().out
    for path, said in ((GAMMA, "holds Geant4 showers"), (tmp_path / "e" / "val.h5", "is a CaloChallenge file")):
        assert main(["data", "info", str(path), "--no-picture"]) == 2
        assert f"{said}; hpcgan data import" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", str(GAMMA), "--mass", "1400,850"], "--mass is for Delphes files"),
        (["import", str(GAMMA), "--label", "0"], "--label is for Delphes files"),
        (["import", str(DATA / "rpv_1400_850_towers.root"), "--particle", "gamma"], "--particle is for files of"),
        (["import", str(GAMMA), "--segmentation", "7x7,7x7,7x7"], "cannot be summed"),
        (["import", str(GAMMA), "--segmentation", "coarse"], "segmentation 'coarse': use published"),
        (["export", str(GAMMA)], "holds Geant4 showers; hpcgan data import makes a data set of it"),
        (["export", str(DATA)], "holds none of train.h5"),
    ],
)
def test_bad_commands(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *arguments, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
