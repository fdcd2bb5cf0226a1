"""Pools of minimum-bias events: sparse images, their files, and how they are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pools import dense, sparse_events, write_pool

from hpcgan.commands.cli import main
from hpcgan.data.generators import make_data_set
from hpcgan.data.storage import SPLITS, Target, split_sizes
from hpcgan.errors import InputError
from hpcgan.physics.pileup import SparseImages
from hpcgan.problems.detector_images import generate as generation
from hpcgan.problems.layouts import problem_of
from hpcgan.problems.pileup import files as pool
from hpcgan.problems.pileup import generate as minbias
from hpcgan.problems.pileup.files import open_pool
from hpcgan.problems.pileup.layout import POOL

# --- sparse images -----------------------------------------------------------------------------------------------


def test_sparse_and_dense_are_the_same():
    events = sparse_events(50)
    images = dense(events)
    again = SparseImages.of(images)
    for name in ("indptr", "pixel", "energy"):
        np.testing.assert_array_equal(getattr(again, name), getattr(events, name))
        assert getattr(again, name).dtype == getattr(events, name).dtype
    np.testing.assert_array_equal(dense(events.part(slice(7, 31))), images[7:31])
    joined = SparseImages.join([events.part(slice(0, 9)), events.part(slice(9, 9)), events.part(slice(9, 50))])
    np.testing.assert_array_equal(joined.indptr, events.indptr)
    np.testing.assert_array_equal(joined.energy, events.energy)


@given(st.data())
def test_sums_are_those_of_a_loop(data: st.DataObject):
    seed = data.draw(st.integers(0, 10))
    events = sparse_events(data.draw(st.integers(1, 30)), seed)
    images = dense(events).astype(np.float64)
    shape = (data.draw(st.integers(0, 6)), data.draw(st.integers(0, 8)))
    members = np.random.default_rng(seed).integers(-1, len(events), shape)
    found = events.sums(members)
    assert found.shape == (len(members), 64, 64)
    assert found.dtype == np.float32
    for image, chosen in zip(found, members, strict=True):
        expected = np.zeros((64, 64))
        for event in chosen:
            if event >= 0:
                expected += images[event]
        np.testing.assert_array_equal(image, expected.astype(np.float32))


def test_sums_do_not_depend_on_how_they_are_cut(monkeypatch: pytest.MonkeyPatch):
    events = sparse_events(40)
    members = np.random.default_rng(0).integers(0, 40, (30, 5))
    whole = events.sums(members)
    monkeypatch.setattr("hpcgan.physics.pileup._PIECE", 400)
    np.testing.assert_array_equal(events.sums(members), whole)


# --- files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool")
    write_pool(path, 100)
    return path


def same(one: SparseImages, other: SparseImages) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("indptr", "pixel", "energy"))


def test_events_go_to_the_splits_in_order(folder: Path):
    events, start = sparse_events(100), 0
    for split, size in split_sizes(100).items():
        with open_pool(folder / f"{split}.h5") as file:
            assert (file.n, file.mu) == (size, 3)
            assert same(file.read(), events.part(slice(start, start + size)))
        start += size
    assert sorted(path.name for path in folder.iterdir()) == ["test.h5", "train.h5", "val.h5"]
    assert POOL.holds(folder / "val.h5")
    assert problem_of(folder / "val.h5") == "pileup"


def test_layout_for_plain_h5py(folder: Path):
    with h5py.File(folder / "val.h5") as file:
        group = file["pool"]
        assert {name: group[name].dtype for name in group} == {"indptr": "<i8", "pixel": "<u2", "energy": "<f4"}
        assert group["indptr"].shape == (21,)
        assert group["energy"].attrs["units"] == "MeV"
        assert group.attrs["complete"]


def test_same_input_same_bytes(folder: Path, tmp_path: Path):
    write_pool(tmp_path, 100)
    for split in SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (folder / f"{split}.h5").read_bytes()


def test_an_interruption_leaves_nothing(tmp_path: Path):
    def interrupted() -> None:
        with pool.Writer(Target(tmp_path, split_sizes(100), {})) as writer:
            writer.append(sparse_events(80))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


GOOD: dict[str, Any] = {
    "indptr": np.array([0, 2, 2, 3]),
    "pixel": np.array([5, 4095, 0], np.uint16),
    "energy": np.array([500.0, 700.0, 1e5], np.float32),
}


def other_file(path: Path, attributes: dict[str, Any] | None = None, unit: str | None = None, **columns: Any) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("pool")
        group.attrs.update(attributes or {})
        for name, values in columns.items():
            group[name] = values
        if unit is not None:
            group["energy"].attrs["units"] = unit
    return path


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i4", "u8"])
def test_files_of_other_people(tmp_path: Path, dtype: str):
    columns = {**GOOD, "energy": GOOD["energy"].astype(dtype), "pixel": GOOD["pixel"].astype("i8")}
    with open_pool(other_file(tmp_path / "a.h5", **columns)) as file:
        events = file.read()
        assert file.mu is None
    assert same(events, SparseImages(GOOD["indptr"], GOOD["pixel"], GOOD["energy"]))
    assert (events.pixel.dtype, events.energy.dtype) == (np.uint16, np.float32)


def changed(name: str, values: Any) -> dict[str, Any]:
    return {**GOOD, name: np.asarray(values)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"indptr": GOOD["indptr"]}, r"has no data set 'pool/pixel' \(the group holds: indptr\)"),
        (changed("indptr", [0, 3, 2, 3]), "does not lead from 0 to the 3 entries without going back"),
        (changed("indptr", [1, 2, 2, 3]), "does not lead from 0"),
        (changed("indptr", [0, 2, 2, 4]), "does not lead from 0"),
        (changed("indptr", [0, 2, 2, 2]), "does not lead from 0"),
        (changed("indptr", [3]), "indptr has 1 entries: the pool holds no events"),
        (changed("indptr", [0.0, 2, 2, 3]), "pool/indptr does not hold whole numbers"),
        (changed("indptr", [[0, 2], [2, 3]]), r"pool/indptr has shape \(2, 2\); needed is one dimension"),
        (changed("pixel", [5, 4096, 0]), "pool/pixel: entry 1 is 4096; pixels are 0 to 4095"),
        (changed("pixel", [5, 7, -1]), "pool/pixel: entry 2 is -1"),
        (changed("pixel", [5, 7]), "pool/pixel has 2 entries but pool/energy has 3"),
        (changed("pixel", [b"x"] * 3), "pool/pixel does not hold whole numbers"),
        (changed("energy", [1.0, np.nan, 1.0]), "event 0 holds an energy of nan MeV"),
        (changed("energy", [1.0, 1.0, -2.0]), "event 2 holds an energy of -2 MeV"),
        (changed("energy", [1.0, 1.0, 0.0]), "event 2 holds an energy of 0 MeV"),
        (changed("energy", [1e300, 1.0, 1.0]), "event 0 holds an energy of inf MeV"),
    ],
)
def test_bad_contents(tmp_path: Path, columns: dict[str, Any], message: str):
    path = other_file(tmp_path / "a.h5", **columns)
    with pytest.raises(InputError, match=message) as error, open_pool(path) as file:
        file.read()
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("attributes", "unit", "message"),
    [
        ({"units": "photons"}, None, "attribute units of pool is 'photons'; needed is MeV"),
        ({"units": "MeV"}, "GeV", "units of pool/energy is 'GeV', but attribute units of pool is 'MeV'"),
        ({"eta_range": [-3.0, 3.0]}, None, r"attribute eta_range of pool is \[-3.0, 3.0\]; needed is \[-2.5, 2.5\]"),
        ({"image_shape": [32, 32]}, None, r"image_shape of pool is \[32, 32\]; needed is \[64, 64\]"),
        ({"image_shape": [64, 64, 1]}, None, "image_shape"),
        ({"axes": "phi, eta"}, None, "attribute axes of pool is 'phi, eta'; needed is 'eta, phi'"),
        ({"complete": False}, None, "unfinished"),
    ],
)
def test_other_grids_and_units_are_refused(tmp_path: Path, attributes: dict[str, Any], unit: str, message: str):
    with pytest.raises(InputError, match=message):
        open_pool(other_file(tmp_path / "a.h5", attributes, unit, **GOOD))


@pytest.mark.parametrize("mu", [0, -3, 1001, 2.5, "many"])
def test_a_mu_out_of_range_is_no_default(tmp_path: Path, mu: Any):
    with (
        open_pool(other_file(tmp_path / "a.h5", {"mu": mu}, **GOOD)) as file,
        pytest.raises(InputError, match="attribute mu of pool is"),
    ):
        file.mu  # noqa: B018


def test_not_pools(tmp_path: Path, folder: Path):
    whole = (folder / "train.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["all_events/hist"] = np.zeros((1, 64, 64))
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("pool/indptr", (10**12,), "<i8", chunks=(1024,))
        file["pool/pixel"], file["pool/energy"] = GOOD["pixel"], GOOD["energy"]
    for path, message in (
        (tmp_path / "none.h5", "no such file"),
        (tmp_path / "cut.h5", "not a readable HDF5 file"),
        (tmp_path / "other.h5", r"has no group 'pool' \(it holds: all_events\)"),
        (tmp_path / "huge.h5", "pool/indptr claims 1000000000000 events but holds no data"),
    ):
        with pytest.raises(InputError, match=message):
            open_pool(path)


@pytest.mark.parametrize("name", ["indptr", "pixel", "energy"])
def test_data_of_other_files_are_not_opened(tmp_path: Path, name: str):
    other_file(tmp_path / "other.h5", **GOOD)
    path = other_file(tmp_path / "a.h5", **{key: values for key, values in GOOD.items() if key != name})
    with h5py.File(path, "a") as file:
        file[f"pool/{name}"] = h5py.ExternalLink(str(tmp_path / "other.h5"), f"/pool/{name}")
    with pytest.raises(InputError, match=rf"pool/{name} is a link to another file"):
        open_pool(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_one_error_or_the_right_events(data: st.DataObject, folder: Path, tmp_path: Path):
    """Cut anywhere, or with bytes changed: never another exception, and never other numbers."""
    path = tmp_path / "damaged.h5"
    path.write_bytes(data.draw(damaged((folder / "test.h5").read_bytes())))
    message = None
    try:
        with open_pool(path) as file:
            events = file.read()
    except InputError as error:
        message = str(error)
    if message is None:
        with open_pool(folder / "test.h5") as good:
            assert same(events, good.read())
    else:
        assert message.startswith(str(path))
        assert "\n" not in message


# --- making them -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "BLOCK_EVENTS", 12)
        arguments = ["--events", "40", "--mu", "5", "--seed", "3"]
        assert main(["data", "pileup", "--out", str(path), *arguments]) == 0
    return path


def test_bytes_do_not_depend_on_the_jobs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generation, "BLOCK_EVENTS", 12)
    assert make_data_set(minbias.Pools(40, 3, mu=5), tmp_path, jobs=2)
    for split in SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (made / f"{split}.h5").read_bytes()
    assert not make_data_set(minbias.Pools(40, 3, mu=5), tmp_path)
    with pytest.raises(InputError, match="mu: 5, asked for 6"):
        make_data_set(minbias.Pools(40, 3, mu=6), tmp_path)


def test_pools_share_no_event_and_hold_minimum_bias(made: Path):
    pools = []
    for split in SPLITS:
        with open_pool(made / f"{split}.h5") as file:
            pools.append(file.read())
            assert file.mu == 5
    assert [len(events) for events in pools] == [24, 8, 8]
    images = [image.tobytes() for events in pools for image in dense(events) if image.any()]
    assert len(set(images)) == len(images) > 30
    joined = SparseImages.join(pools)
    assert 3e3 < joined.energy.sum() / 40 < 3e5  # MeV; 50 GeV on average
    assert joined.energy.min() > 100  # a muon; towers have at least 500 MeV


def test_attributes_tell_everything(made: Path):
    with h5py.File(made / "val.h5") as file:
        attributes = dict(file["pool"].attrs)
    assert (attributes["units"], attributes["process"], attributes["problem"]) == ("MeV", "minbias", "pileup")
    assert attributes["ecm_gev"] == 13000
    said = json.loads(attributes["settings"])
    assert (said["mu"], said["seed"], said["events"]) == (5, 3, 40)
    assert "SoftQCD:inelastic = on" in said["pythia_settings"]
    assert said["detector"]["ecal"]["energy_min"] == 0.5


def test_info(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "picture.png"
    assert main(["data", "info", str(made / "train.h5"), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    for said in ("pool of 24 events", "readable and valid", "GeV an event", "mu                5", "PYTHIA 8"):
        assert said in out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mu", "0", "--events", "10"], "argument --mu: 0: give at least 1"),
        (["--mu", "-20", "--events", "10"], "argument --mu: -20: give at least 1"),
        (["--mu", "5000", "--events", "10"], "argument --mu: 5000: give at most 1000"),
        (["--events", "3"], "at least 5"),
        (["--events", "10", "--jobs", "0"], "argument --jobs: 0: give at least 1"),
    ],
)
def test_bad_input(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "pileup", *arguments, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
