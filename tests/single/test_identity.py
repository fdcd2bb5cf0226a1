"""What a data file is: the same wherever it lies and however it is packed, another one if anything in it is."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pools
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgan.commands.cli import main
from hpcgan.data import identity, storage
from hpcgan.data.generators import make_data_set
from hpcgan.data.identity import Identity, difference, fingerprint, identify, is_as_written
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import TensorSpec
from hpcgan.data.storage import Target
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import Grid, Segmentation
from hpcgan.problems.calorimeter import generate as calo_generate
from hpcgan.problems.cosmo import generate as cosmo
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.pileup.layout import POOL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return folder / "train.h5"


def repacked(source: Path, target: Path, dtype: str | None = None, **storage: Any) -> Path:
    """The same data sets and attributes as other programs would store them."""

    def copy(old: h5py.Group, new: h5py.Group) -> None:
        new.attrs.update(old.attrs)
        for name, found in old.items():
            if isinstance(found, h5py.Group):
                copy(found, new.create_group(name))
                continue
            made = new.create_dataset(name, data=found[()], dtype=dtype, **storage)
            made.attrs.update(found.attrs)

    with h5py.File(source) as old, h5py.File(target, "w") as new:
        copy(old, new)
    return target


def changed(source: Path, target: Path, change: Callable[[h5py.File], None]) -> Path:
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        change(file)
    return target


# --- the same ------------------------------------------------------------------------------------------------------


def test_a_copy_a_link_and_a_moved_file_are_the_same(file: Path, tmp_path: Path) -> None:
    first = fingerprint(file)
    shutil.copyfile(file, tmp_path / "staged.h5")
    (tmp_path / "link.h5").symlink_to(file)
    (tmp_path / "staged.h5").rename(tmp_path / "moved.h5")
    assert fingerprint(tmp_path / "moved.h5") == fingerprint(tmp_path / "link.h5") == first
    assert len(first) == 64


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"chunks": True, "compression": "gzip", "compression_opts": 9, "shuffle": True},
        {"chunks": True, "compression": "lzf", "fletcher32": True},
        {"dtype": "<f8"},
        {"dtype": ">f4"},
    ],
    ids=str,
)
def test_it_does_not_matter_how_a_file_is_packed(file: Path, tmp_path: Path, storage: dict[str, Any]) -> None:
    other = repacked(file, tmp_path / "other.h5", **storage)
    assert difference(identify(file), identify(other)) == ""
    assert is_as_written(other)


def test_attributes_may_be_arrays_of_one_string_padded_or_bytes(file: Path, tmp_path: Path) -> None:
    def change(opened: h5py.File) -> None:
        images = opened["all_events/hist"]
        images.attrs["units"] = np.array(["MeV"], "S8")
        images.attrs["axes"] = np.bytes_("event, eta, phi  ")
        opened["all_events"].attrs["hpcgan"] = "another version"
        opened.attrs["history"] = "repacked on Monday"

    assert fingerprint(changed(file, tmp_path / "other.h5", change)) == fingerprint(file)


def test_the_same_command_makes_the_same_data_twice(tmp_path: Path) -> None:
    for name, jobs in (("a", 1), ("b", 2)):
        make_data_set(cosmo.Maps(10, 3, side=32), tmp_path / name, jobs)
    make_data_set(cosmo.Maps(10, 4, side=32), tmp_path / "c")
    a, b, c = (identify(tmp_path / name / "train.h5") for name in "abc")
    assert a == b
    assert difference(a, c) == "samples.seed: 3 there, 4 here"
    assert (tmp_path / "a" / "val.h5").read_bytes() == (tmp_path / "b" / "val.h5").read_bytes()


# --- others --------------------------------------------------------------------------------------------------------


def _value(name: str, at: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][at] = file[name][at] + 1.0

    return change


def _attribute(name: str, key: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name].attrs[key] = value

    return change


def _reversed(file: h5py.File) -> None:
    for data in file["all_events"].values():
        data[...] = data[()][::-1]


def _shorter(file: h5py.File) -> None:
    group = file["all_events"]
    for name in list(group):
        values = group[name][:-1]
        attributes = dict(group[name].attrs)
        del group[name]
        group.create_dataset(name, data=values).attrs.update(attributes)


def _without(file: h5py.File) -> None:
    del file["all_events/weight"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_value("all_events/hist", (0, 0, 0)), "other values of all_events/hist"),
        (_value("all_events/hist", (59, 63, 63)), "other values of all_events/hist"),
        (_value("all_events/y", 30), "other values of all_events/y"),
        (_reversed, "other values of all_events/hist"),
        (_shorter, "60 events there, 59 here"),
        (_without, "all_events/weight is only there"),
        (_attribute("all_events/hist", "units", "GeV"), 'all_events/hist.units: "MeV" there, "GeV" here'),
        (_attribute("all_events", "eta_range", [-2.0, 2.0]), "all_events.eta_range: nothing there, [-2, 2] here"),
        (_attribute("all_events", "settings", '{"seed": 2}'), "seed: nothing there, 2 here"),
        (_attribute("all_events", "strange", h5py.Empty("f")), 'all_events.strange: nothing there, "Empty" here'),
    ],
)
def test_another_file_and_what_differs(file: Path, tmp_path: Path, change: Any, what: str) -> None:
    other = changed(file, tmp_path / "other.h5", change)
    assert difference(identify(file), identify(other)) == what
    assert fingerprint(file) != fingerprint(other)


def test_what_was_changed_after_it_was_written_is_found_by_reading_all(file: Path, tmp_path: Path) -> None:
    """The digest is still there, and the values that are looked at need not be those that were changed."""
    assert is_as_written(file)
    other = changed(file, tmp_path / "other.h5", _value("all_events/hist", (30, 1, 2)))
    with h5py.File(other) as opened, h5py.File(file) as original:
        assert opened["all_events"].attrs["digest"] == original["all_events"].attrs["digest"]
    assert is_as_written(other) is False

    def remove(opened: h5py.File) -> None:
        del opened["all_events"].attrs["digest"]

    assert is_as_written(changed(file, tmp_path / "foreign.h5", remove)) is None


LARGE = {"chunks": (50, 8, 8), "compression": "gzip", "compression_opts": 1}


def test_of_large_data_sets_some_entries_are_read_from_all_over(tmp_path: Path) -> None:
    n = 20_000
    rng = np.random.default_rng(1)
    images, column = rng.random((n, 8, 8)).astype(np.float32), rng.random(1 << 20)

    def write(name: str, images: np.ndarray, column: np.ndarray, **storage: Any) -> Identity:
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("hist", data=images, **storage)
            file.create_dataset("column", data=column)
        return identify(tmp_path / name)

    first = write("a.h5", images, column)
    assert write("b.h5", images, column, **LARGE) == first
    for at in (0, n - 1):  # the first and the last one always
        other = images.copy()
        other[at] += 1
        assert difference(first, write("c.h5", other, column)) == "other values of hist"
    assert difference(first, write("c.h5", images, np.roll(column, 1))) == "other values of column"
    half = images.copy()
    half[n // 2 :] = rng.random((n - n // 2, 8, 8))
    assert difference(first, write("c.h5", half, column)) == "other values of hist"


@pytest.mark.parametrize(("n", "looked_at"), [(30, 30), (64, 64), (20_000, 64), (2_000_000, 64)])
def test_what_is_looked_at_does_not_grow_with_the_file(tmp_path: Path, n: int, looked_at: int) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("hist", (n, 64, 64), "<f4", chunks=(1, 64, 64))
        places = identity._places(data)
    seen = [entry for first, last in places for entry in range(first, last)]
    assert len(seen) == len(set(seen)) == looked_at
    assert (min(seen), max(seen)) == (0, n - 1)


# --- every writer --------------------------------------------------------------------------------------------------


def test_all_writers_say_what_they_wrote(tmp_path: Path) -> None:
    hist = tiny.images(20)
    with hdf5.Writer(Target(tmp_path / "images", storage.split_sizes(20), {"settings": "{}"}), extra=("mu",)) as writer:
        for part in np.array_split(np.arange(20), 7):  # in whatever pieces
            writer.append(hist[part], 1.0, np.float64(0.1), 1400.0, 850.0, part)
    schema = {"wide": TensorSpec((3, 4), "MeV", sparse=True), "one": TensorSpec((1,)), "none": TensorSpec(())}
    sample = {name: np.random.default_rng(2).random((20, *spec.shape)) for name, spec in schema.items()}
    with tensors.Writer(Target(tmp_path / "tensors", storage.split_sizes(20), {"settings": "{}"}), schema) as more:
        more.append({name: values[:3] for name, values in sample.items()})
        more.append({name: values[3:] for name, values in sample.items()})
    pools.write_pool(tmp_path / "pool", 160)
    cells = Segmentation((Grid(3, 8), Grid(4, 4), Grid(4, 2)))
    make_data_set(calo_generate.ShowerSet(calo_generate.Beam("gamma", (2.0, 20.0), cells), 20), tmp_path / "calo")
    for kind in ("images", "tensors", "pool", "calo"):
        for split in ("train", "val", "test"):
            assert is_as_written(tmp_path / kind / f"{split}.h5"), (kind, split)
    assert POOL.holds(tmp_path / "pool" / "train.h5")


def test_what_is_not_followed(file: Path, tmp_path: Path) -> None:
    """Links to other files, data in other files, and groups that hold themselves."""

    def change(opened: h5py.File) -> None:
        opened["elsewhere"] = h5py.ExternalLink("/etc/secret.h5", "/x")
        opened["short"] = h5py.SoftLink("/all_events/hist")
        opened["all_events/loop"] = opened["all_events"]
        opened.create_dataset("raw", (4,), "<f4", external=[("raw.bin", 0, 16)])
        opened["texts"] = np.array([b"a", b"bc"], dtype=object)
        opened["records"] = np.zeros(3, [("x", "<f4"), ("y", "<i4")])
        opened["nothing"] = h5py.Empty("f")
        opened["scalar"] = 3.5

    other = changed(file, tmp_path / "other.h5", change)
    found = identify(other)
    assert found.attributes["/elsewhere.link"] == "/etc/secret.h5:/x"
    assert found.attributes["/short.link"] == "/all_events/hist"
    assert found == identify(other)
    moved = changed(other, tmp_path / "moved.h5", lambda opened: opened["texts"].__setitem__(1, b"bd"))
    assert difference(found, identify(moved)) == "other values of texts"


def test_identities_are_kept_as_json(file: Path) -> None:
    found = identify(file)
    assert Identity.of_plain(json.loads(json.dumps(found.plain()))) == found
    for broken in (None, {}, {"fingerprint": 3}, {"fingerprint": "a", "shapes": []}):
        with pytest.raises(ValueError, match="no identity"):
            Identity.of_plain(broken)


@pytest.mark.parametrize("content", [b"", b"nothing of this kind" * 100])
def test_what_is_no_data_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    for path in (tmp_path / "x.h5", tmp_path / "missing.h5", tmp_path):
        with pytest.raises(InputError) as error:
            identify(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


_ARRAYS = st.tuples(
    st.integers(1, 6), st.sampled_from([(), (1,), (2, 3)]), st.sampled_from(["<f4", "<f8", "<i4", "|u1"])
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), _ARRAYS, min_size=1), st.integers(0, 2**32 - 1), st.data())
def test_small_files_are_equal_if_and_only_if_their_values_are(sets: Any, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.integers(0, 100, (n, *shape)).astype(dtype) for name, (n, shape, dtype) in sets.items()}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x.h5"

        def write(chunked: bool) -> str:
            with h5py.File(path, "w") as file:
                for name, values in arrays.items():
                    file.create_dataset(name, data=values, chunks=True if chunked else None)
            return fingerprint(path)

        before = write(False)
        assert write(True) == before
        name = data.draw(st.sampled_from(sorted(arrays)))
        flat = arrays[name].reshape(-1)
        flat[data.draw(st.integers(0, flat.size - 1))] += 1
        assert write(data.draw(st.booleans())) != before


def test_info_says_the_fingerprint(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(file), "--no-picture"]) == 0
    assert f"  fingerprint       {fingerprint(file)[:12]} (as written)" in capsys.readouterr().out
    other = changed(file, tmp_path / "other.h5", _value("all_events/hist", (30, 1, 2)))
    assert main(["data", "info", str(other), "--no-picture"]) == 0
    assert "(CHANGED after it was written)" in capsys.readouterr().out
    assert identity.fingerprint(other)[:12] != fingerprint(file)[:12]
