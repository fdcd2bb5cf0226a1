"""Image files: what is written, what is refused."""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib.util
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.data import storage
from hpcgan.data.storage import Target, split_sizes
from hpcgan.errors import HpcganError, InputError
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.detector_images.files import Writer, open_images, validate
from hpcgan.problems.detector_images.layout import IMAGES
from hpcgan.problems.layouts import layout_of


def some_images(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((n, 64, 64)) < 0.05, rng.exponential(5e3, (n, 64, 64)), 0).astype(np.float32)


def write(folder: Path, n: int = 20, settings: str = '{"events": 20}', force: bool = False) -> np.ndarray:
    images = some_images(n)
    with Writer(Target(folder, split_sizes(n), {"settings": settings, "units": "MeV"}, force=force)) as writer:
        for start in range(0, n, 7):
            part = images[start : start + 7]
            writer.append(part, 1, 1.0, 1400.0, np.arange(start, start + len(part)))
    return images


def other_file(path: Path, **datasets: Any) -> Path:
    """A file as other people might make it."""
    with h5py.File(path, "w") as file:
        group = file.create_group("all_events")
        for name, values in datasets.items():
            group[name] = values
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write(path)
    return path


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "sizes"), [(5, (3, 1, 1)), (20, (12, 4, 4)), (24000, (14400, 4800, 4800)), (7, (4, 1, 2))]
)
def test_split_sizes(n: int, sizes: tuple[int, ...]) -> None:
    assert tuple(split_sizes(n).values()) == sizes
    assert sum(sizes) == n


@given(st.integers(5, 10**7))
def test_splits_cover_everything(n: int) -> None:
    sizes = split_sizes(n)
    assert sum(sizes.values()) == n
    assert min(sizes.values()) >= 1
    assert abs(sizes["train"] - 0.6 * n) <= 1


def test_too_few_events() -> None:
    with pytest.raises(InputError, match="at least 5"):
        split_sizes(4)


def test_layout_for_plain_h5py(folder: Path) -> None:
    """What the published files have, and how their users open them."""
    with h5py.File(folder / "train.h5") as f:
        assert f["all_events"]["hist"].shape == (12, 64, 64)
        assert f["all_events"]["hist"].dtype == np.float32
        assert set(f["all_events"]) == {"hist", "y", "weight", "mGlu", "mNeu"}
        assert f["all_events"]["hist"].attrs["units"] == "MeV"
        assert f["all_events"].attrs["units"] == "MeV"
        assert f["all_events/mGlu"].attrs["units"] == "GeV"
        np.testing.assert_array_equal(f["all_events"]["y"], np.ones(12))


def test_events_go_to_the_splits_in_order(folder: Path) -> None:
    images = some_images(20)
    start = 0
    for split, size in split_sizes(20).items():
        with open_images(folder / f"{split}.h5") as file:
            assert file.n == size
            np.testing.assert_array_equal(file.read(), images[start : start + size])
            assert file.column("mNeu") is not None
            np.testing.assert_array_equal(file.column("mNeu"), np.arange(start, start + size))
        start += size
    assert not list(folder.glob("*.part"))


def test_same_input_same_bytes(folder: Path, tmp_path: Path) -> None:
    write(tmp_path)
    for split in storage.SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (folder / f"{split}.h5").read_bytes()


def interrupted(folder: Path, announced: int, appended: int, force: bool = False) -> None:
    with Writer(Target(folder, split_sizes(announced), {}, force=force)) as writer:
        writer.append(some_images(appended), 1, 1, 0, 0)
        assert list(folder.glob("*.part"))
        raise KeyboardInterrupt


def test_folders_go_that_were_made_for_data_which_were_not(tmp_path: Path) -> None:
    (tmp_path / "was").mkdir()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "was" / "new" / "deep", 20, 5)
    assert list((tmp_path / "was").iterdir()) == []
    write(tmp_path / "was" / "new" / "deep")
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "was" / "new" / "deep", 20, 5, force=True)
    assert len(list((tmp_path / "was" / "new" / "deep").iterdir())) == 3
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "was", 20, 5)
    assert (tmp_path / "was").is_dir()  # it was there before


def miscounted(folder: Path, announced: int, appended: int) -> None:
    with Writer(Target(folder, split_sizes(announced), {})) as writer:
        writer.append(some_images(appended), 1, 1, 0, 0)


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "new", 20, 15)
    assert list(tmp_path.iterdir()) == []


def test_too_few_or_too_many_events_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer events"):
        miscounted(tmp_path, 20, 19)
    with pytest.raises(ValueError, match="more events"):
        miscounted(tmp_path, 5, 6)
    assert list(tmp_path.iterdir()) == []


def test_signals_wait_for_hdf5() -> None:
    """A Ctrl-C while HDF5 writes takes effect after the write."""
    reached = False

    def held() -> None:
        nonlocal reached
        with hdf5.signals_held():
            signal.raise_signal(signal.SIGINT)
            reached = True

    with pytest.raises(KeyboardInterrupt):
        held()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_existing_files_are_not_replaced(folder: Path) -> None:
    before = (folder / "train.h5").read_bytes()
    with pytest.raises(InputError, match=r"train\.h5: exists already"):
        write(folder)
    assert (folder / "train.h5").read_bytes() == before


def test_force_replaces(tmp_path: Path) -> None:
    write(tmp_path, 20)
    write(tmp_path, 30, force=True)
    with open_images(tmp_path / "train.h5") as file:
        assert file.n == 18


def test_failed_force_keeps_the_old_files(tmp_path: Path) -> None:
    write(tmp_path)
    before = (tmp_path / "train.h5").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, 30, 25, force=True)
    assert (tmp_path / "train.h5").read_bytes() == before


def test_two_writers_in_one_folder(tmp_path: Path) -> None:
    with Writer(Target(tmp_path, split_sizes(20), {})) as writer:
        with pytest.raises(InputError, match="another process"):
            miscounted(tmp_path, 20, 20)
        writer.append(some_images(20), 1, 1, 0, 0)
    write(tmp_path, force=True)  # the lock is gone


def test_two_writers_in_one_folder_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one whose files were replaced notices, and takes none of the other's for its own."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    first = Writer(Target(tmp_path, split_sizes(20), {})).__enter__()
    first.append(some_images(20), 1, 1, 0, 0)
    with Writer(Target(tmp_path, split_sizes(20), {"settings": "second"})) as second:
        second.append(some_images(20), 1, 1, 0, 0)
    with pytest.raises(HpcganError, match="another process has written it at the same time"):
        first.__exit__(None, None, None)
    with open_images(tmp_path / "train.h5") as file:
        assert file.attrs["settings"] == "second"
    assert sorted(os.listdir(tmp_path)) == ["test.h5", "train.h5", "val.h5"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("there", [False, True])
def test_what_is_said_of_a_sync_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, there: bool
) -> None:
    """As file servers say at the end that there was no space."""
    if there:
        write(tmp_path)
    before = sorted(os.listdir(tmp_path))

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    left = "nothing was written, train.h5 and val.h5 and test.h5 of before stay as they were"
    with pytest.raises(HpcganError, match=left if there else "nothing was kept"):
        write(tmp_path, force=True)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_whose_sync_fails_has_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(HpcganError, match="all is written, but may not outlive a crash"):
        write(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["test.h5", "train.h5", "val.h5"]


def test_a_rename_that_fails_leaves_no_part_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def failing(old: Path, new: Path) -> None:
        if new.name == "train.h5":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        replace(old, new)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(HpcganError, match=r"Disk quota exceeded\); nothing was kept"):
        write(tmp_path)
    assert os.listdir(tmp_path) == []


def test_leftovers_of_a_killed_writer_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "train.h5.part").write_bytes(b"rubbish")
    write(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_unfinished_file_under_a_final_name_is_refused(tmp_path: Path) -> None:
    path = other_file(tmp_path / "a.h5", hist=some_images(3))
    with h5py.File(path, "a") as file:
        file["all_events"].attrs["complete"] = False
    with pytest.raises(InputError, match="unfinished"):
        open_images(path)


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # the kernel's refusal stands for a full disk
        with pytest.raises(HpcganError, match=r"train\.h5\.part: writing failed \(File too large\); nothing was kept"):
            miscounted(tmp_path, 1000, 600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path)  # HDF5 is still in working order


def test_no_room_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MB are needed"), Writer(Target(tmp_path / "a", split_sizes(10**13), {})):
        pass
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"), Writer(Target(tmp_path / "file", split_sizes(10), {})):
        pass
    with pytest.raises(InputError, match="not a folder"):
        Target(tmp_path / "file", split_sizes(10), {"settings": ""}).is_there(IMAGES.open)


def test_check_target(tmp_path: Path) -> None:
    sizes = split_sizes(20)
    assert Target(tmp_path / "none", sizes, {"settings": "{}"}).is_there(IMAGES.open) is False
    write(tmp_path, settings='{"seed": 1}')
    assert Target(tmp_path, sizes, {"settings": '{"seed": 1}'}).is_there(IMAGES.open) is True
    with pytest.raises(InputError, match=r"seed: 1, asked for 2.*--force"):
        Target(tmp_path, sizes, {"settings": '{"seed": 2}'}).is_there(IMAGES.open)
    assert Target(tmp_path, sizes, {"settings": '{"seed": 2}'}, force=True).is_there(IMAGES.open) is False
    (tmp_path / "val.h5").unlink()
    with pytest.raises(InputError, match=r"holds train\.h5 but not val\.h5"):
        Target(tmp_path, sizes, {"settings": '{"seed": 1}'}).is_there(IMAGES.open)
    (tmp_path / "val.h5").write_bytes((tmp_path / "train.h5").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"val\.h5.*--force"):
        Target(tmp_path, sizes, {"settings": '{"seed": 1}'}).is_there(IMAGES.open)


# --- reading -----------------------------------------------------------------------------------------------------


def test_random_access(folder: Path) -> None:
    images = some_images(20)[:12]
    with open_images(folder / "train.h5") as file:
        for which in ([5, 0, 5, 11], [-1, 3], [], np.array([2], dtype=np.uint8)):
            np.testing.assert_array_equal(file.read(which), images[np.asarray(which, dtype=int)])
        for piece in (slice(3, 7), slice(None), slice(10, 99), slice(None, None, 3), slice(5, 2), slice(-2, None)):
            np.testing.assert_array_equal(file.read(piece), images[piece])
        assert file.read([1]).dtype == np.float32
        with pytest.raises(IndexError):
            file.read([12])
        with pytest.raises(IndexError):
            file.read([-13])


@pytest.mark.parametrize("dtype", ["f8", ">f4", "f2", "i4", "u2"])
@pytest.mark.parametrize(
    "storage", [{}, {"chunks": (2, 64, 64), "compression": "lzf"}, {"chunks": (3, 32, 64), "shuffle": True}]
)
def test_files_of_other_people(tmp_path: Path, dtype: str, storage: dict[str, Any]) -> None:
    images = np.round(some_images(4)).clip(0, 60000).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("all_events/hist", data=images, **storage)
    validate(tmp_path / "a.h5")
    with open_images(tmp_path / "a.h5") as file:
        assert (file.column("y"), file.column("weight"), file.column("mGlu"), file.column("mNeu"), file.attrs) == (
            None,
            None,
            None,
            None,
            {},
        )
        for got in (file.read(), file.read([0, 1, 2, 3]), np.concatenate(list(file.chunks(3)))):
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, images.astype(np.float32))


def test_columns_of_shape_n_1(tmp_path: Path) -> None:
    path = other_file(tmp_path / "a.h5", hist=some_images(3), y=np.ones((3, 1)), weight=np.arange(3))
    with open_images(path) as file:
        assert file.column("y") is not None
        assert file.column("y").tolist() == [1, 1, 1]
        assert file.column("weight") is not None
        assert file.column("weight").tolist() == [0, 1, 2]


def bad(images: np.ndarray, event: int, value: float) -> np.ndarray:
    images = images.copy()
    images[event, 3, 4] = value
    return images


GOOD = some_images(4)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"image": GOOD}, r"no data set 'all_events/hist' \(the group holds: image\)"),
        ({"hist": np.zeros((4, 32, 32))}, r"shape \(4, 32, 32\)"),
        ({"hist": np.zeros((4, 64 * 64))}, r"shape \(4, 4096\)"),
        ({"hist": np.zeros((4, 64, 64, 1))}, "shape"),
        ({"hist": np.zeros((0, 64, 64))}, "no events"),
        ({"hist": np.array([b"a"])}, "numbers"),
        ({"hist": GOOD.astype(complex)}, "numbers"),
        ({"hist": bad(GOOD, 2, np.nan)}, "all_events/hist: event 2 holds an energy that is not finite"),
        ({"hist": bad(GOOD, 3, np.inf)}, "event 3 .* not finite"),
        ({"hist": bad(GOOD, 1, -5)}, "event 1 .* negative: -5"),
        ({"hist": GOOD, "y": np.ones(3)}, r"all_events/y has shape \(3,\) but all_events/hist has 4 events"),
        ({"hist": GOOD, "mGlu": np.array([1, np.nan, 1, 1])}, "all_events/mGlu of event 1 is nan"),
        ({"hist": GOOD, "weight": np.array(["a"] * 4, dtype="S1")}, "weight does not hold numbers"),
    ],
)
def test_bad_contents(tmp_path: Path, datasets: dict[str, Any], message: str) -> None:
    path = other_file(tmp_path / "bad.h5", **datasets)
    with pytest.raises(InputError, match=message) as error:
        validate(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_masses_that_nobody_knows(tmp_path: Path) -> None:
    """What an unconditional model generates is valid; that its other columns are no numbers is not."""
    path, nothing = tmp_path / "generated.h5", {"mGlu": np.full(4, np.nan), "mNeu": np.full(4, np.nan)}
    validate(other_file(path, hist=GOOD, y=np.ones(4), **nothing))
    said = layout_of(path).describe(path)
    assert "mGlu              not known" in said
    assert "(mGlu, mNeu)" not in said
    with pytest.raises(InputError, match="all_events/weight of event 0 is nan"):
        validate(other_file(tmp_path / "weight.h5", hist=GOOD, weight=np.full(4, np.nan), **nothing))


def test_bad_event_beyond_the_first_chunk(tmp_path: Path) -> None:
    images = np.zeros((hdf5.SCAN_IMAGES + 10, 64, 64), dtype=np.float32)
    images[-2, 0, 0] = -1
    with pytest.raises(InputError, match=f"event {hdf5.SCAN_IMAGES + 8} "):
        validate(other_file(tmp_path / "a.h5", hist=images))


def test_not_data_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_images(tmp_path / "none.h5")
    with pytest.raises(InputError, match="folder"):
        open_images(tmp_path)
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "cut.h5").write_bytes((folder / "train.h5").read_bytes()[:-1000])
    for name in ("empty.h5", "text.h5", "cut.h5"):
        with pytest.raises(InputError, match=f"{name}: not a readable HDF5 file"):
            open_images(tmp_path / name)
    with h5py.File(tmp_path / "nothing.h5", "w"):
        pass
    with pytest.raises(InputError, match="no group 'all_events'"):
        open_images(tmp_path / "nothing.h5")


def test_group_and_data_set_swapped(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["all_events"] = np.zeros(3)
    with pytest.raises(InputError, match="no group"):
        open_images(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_group("all_events/hist")
    with pytest.raises(InputError, match="no data set"):
        open_images(tmp_path / "b.h5")


def test_other_image_sizes_can_be_asked_for(tmp_path: Path) -> None:
    path = other_file(tmp_path / "a.h5", hist=np.zeros((2, 8, 9)))
    with open_images(path, image_shape=(8, 9)) as file:
        assert file.read().shape == (2, 8, 9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_one_error_or_the_right_images(data: st.DataObject, folder: Path, tmp_path: Path) -> None:
    """Cut anywhere, or with bytes changed: never another exception, and never other images."""
    path = tmp_path / "damaged.h5"
    path.write_bytes(data.draw(damaged((folder / "test.h5").read_bytes())))
    message = None
    try:
        validate(path)
    except InputError as error:
        message = str(error)
    if message is None:
        with open_images(folder / "test.h5") as good, open_images(path) as file:
            np.testing.assert_array_equal(file.read(), good.read())
    else:
        assert str(path) in message
        assert "\n" not in message


def _foreign(kind: str, path: Path, other: Path) -> None:
    """A file whose images, group or column are in another one."""
    with h5py.File(other, "w") as file:
        file["all_events/hist"] = GOOD
    with h5py.File(path, "w") as file:
        group = file.create_group("all_events") if kind != "group" else None
        if kind == "group":
            file["all_events"] = h5py.ExternalLink(str(other), "/all_events")
        elif kind == "link":
            group["hist"] = h5py.ExternalLink(str(other), "/all_events/hist")
        elif kind == "column":
            group["hist"] = GOOD
            group["y"] = h5py.ExternalLink(str(other), "/all_events/hist")
        elif kind == "storage":
            (path.parent / "raw").write_bytes(GOOD.astype("<f4").tobytes())
            group.create_dataset("hist", GOOD.shape, "<f4", external=[(str(path.parent / "raw"), 0, GOOD.nbytes)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(GOOD.shape, "<f4")
            layout[:] = h5py.VirtualSource(str(other), "all_events/hist", GOOD.shape)
            group.create_virtual_dataset("hist", layout)
        elif kind == "chunk":
            group.create_dataset("hist", (4, 64, 64), "<f4", chunks=(1 << 17, 64, 64), maxshape=(None, 64, 64))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("group", r"all_events is a link to another file \('.*other.h5'\)"),
        ("link", r"all_events/hist is a link to another file \('.*other.h5'\)"),
        ("column", r"all_events/y is a link to another file"),
        ("storage", r"all_events/hist keeps its data in another file \('.*raw'\)"),
        ("virtual", r"all_events/hist is a virtual data set"),
        ("chunk", r"all_events/hist is stored in chunks of 2048 MiB"),
    ],
)
def test_data_of_other_files_are_not_opened(tmp_path: Path, kind: str, message: str) -> None:
    """An input file must not make its reader open what else that reader may read."""
    _foreign(kind, tmp_path / "a.h5", tmp_path / "other.h5")
    with pytest.raises(InputError, match=message):
        open_images(tmp_path / "a.h5")
    (tmp_path / "other.h5").unlink()  # whether it is there or not
    with pytest.raises(InputError):
        open_images(tmp_path / "a.h5")


# --- filters and locks -------------------------------------------------------------------------------------------


def packed_file(path: Path, number: int, applied: bool = True) -> Path:
    """Images whose chunks went through a filter that is not here, or whose pipeline says that it may be left out."""
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 64, 64))
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 16384))
        space = h5py.h5s.create_simple((3, 64, 64))
        group = file.create_group("all_events")
        images = h5py.h5d.create(group.id, b"hist", h5py.h5t.IEEE_F32LE, space, properties)
        for event in range(3):
            data = np.full((64, 64), event + 1, "<f4").tobytes()
            images.write_direct_chunk((event, 0, 0), data, 0 if applied and event == 2 else 1)
    return path


@pytest.fixture
def no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if hdf5plugin were not installed, nor imported by another test."""
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: number < 4)


@pytest.mark.parametrize(
    ("number", "name"),
    [(32001, "blosc"), (32004, "lz4"), (32008, "bitshuffle"), (32015, "zstd"), (31999, "unknown"), (307, "bzip2")],
)
def test_a_filter_that_is_not_here_is_named(tmp_path: Path, no_plugin: None, number: int, name: str) -> None:
    path = packed_file(tmp_path / "a.h5", number)
    for use in (open_images, validate, lambda path: layout_of(path).describe(path)):
        with pytest.raises(InputError, match=rf"all_events/hist is compressed with the filter {name} ") as error:
            use(path)
        text = str(error.value)
        assert text.startswith(f"{path}: ")
        assert f"(HDF5 filter {number})" in text
        assert "pip install hdf5plugin" in text
        assert "HDF5_PLUGIN_PATH" in text
        assert "damaged" not in text
        assert "\n" not in text


def test_a_filter_that_no_chunk_went_through_is_not_needed(tmp_path: Path, no_plugin: None) -> None:
    with open_images(packed_file(tmp_path / "a.h5", 32001, applied=False)) as file:
        assert file.read()[:, 5, 6].tolist() == [1, 2, 3]


def test_hdf5plugin_is_used_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported when a file needs it, and not before."""
    known = {1, 2, 3}
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: number in known)
    sys.modules.pop("hdf5plugin", None)
    (tmp_path / "hdf5plugin.py").write_text("import builtins\nbuiltins.hpcgan_filters.add(32001)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builtins, "hpcgan_filters", known, raising=False)
    open_images(packed_file(tmp_path / "plain.h5", 3, applied=False)).close()
    assert "hdf5plugin" not in sys.modules
    open_images(packed_file(tmp_path / "blosc.h5", 32001)).close()
    assert 32001 in known
    del sys.modules["hdf5plugin"]


def test_files_that_hdf5plugin_packs(tmp_path: Path) -> None:
    """In another process, since its filters stay in one that has imported it."""
    if importlib.util.find_spec("hdf5plugin") is None:
        pytest.skip("hdf5plugin is not installed (extra filters)")
    code = """
import sys, h5py, hdf5plugin, numpy
for name in ("Blosc", "Zstd", "LZ4", "Bitshuffle"):
    with h5py.File(f"{sys.argv[1]}/{name}.h5", "w") as file:
        data = numpy.full((3, 64, 64), 2.5, "f4")
        file.create_dataset("all_events/hist", data=data, chunks=(1, 64, 64), **getattr(hdf5plugin, name)())
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    read = """
import sys
from hpcgan.problems.detector_images.files import open_images
for name in ("Blosc", "Zstd", "LZ4", "Bitshuffle"):
    with open_images(f"{sys.argv[1]}/{name}.h5") as file:
        assert (file.read() == 2.5).all()
"""
    subprocess.run([sys.executable, "-c", read, str(tmp_path)], check=True)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_a_file_system_without_locks(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """HDF5 asks for a lock, which reading does not need."""
    real = h5py.File

    def without_locks(path: Path, mode: str, **options: Any) -> h5py.File:
        if options.get("locking") is not False:
            text = f"Unable to synchronously open file (unable to lock file, errno = {number})"
            raise OSError(number, text)
        return real(path, mode, **options)

    monkeypatch.setattr(h5py, "File", without_locks)
    validate(folder / "train.h5")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        open_images(Path(__file__))
    with open_images(folder / "train.h5") as first:
        monkeypatch.setattr(h5py, "File", real)  # HDF5 itself refuses to mix both ways
        with open_images(folder / "train.h5") as second:
            assert np.array_equal(first.read(), second.read())


def test_an_hdf5_that_cannot_do_without_locks_says_how(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def old(path: Path, mode: str, **options: Any) -> h5py.File:
        if "locking" in options:
            raise ValueError("h5py version >= 1.12.1 or 1.10.x >= 1.10.7 required for file locking options.")
        raise OSError(errno.ENOLCK, "Unable to open file (unable to lock file, errno = 37)")

    monkeypatch.setattr(h5py, "File", old)
    with pytest.raises(InputError, match=r"has no locks \(No locks available\); set HDF5_USE_FILE_LOCKING=FALSE"):
        open_images(folder / "train.h5")


def test_a_writer_at_work_is_not_read(folder: Path) -> None:
    path = folder / "val.h5"
    with open(path, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another program is writing to it") as error:
            open_images(path)
        assert "HDF5_USE_FILE_LOCKING=FALSE" in str(error.value)
    validate(path)
