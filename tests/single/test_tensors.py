"""Files of any schema: layout, atomic writing, reading with distrust."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.tensor_layout import SAMPLES
from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.data.layouts.tensors import Writer, open_tensors, validate
from hpcgan.data.schema import Sample, TensorSpec
from hpcgan.data.storage import SPLITS, Target, split_sizes
from hpcgan.errors import HpcganError, InputError
from hpcgan.problems.layouts import layout_of

#: A calorimeter shower with its conditions: all kinds of tensors.
SCHEMA = {
    "layer_0": TensorSpec((3, 96), "GeV", sparse=True),
    "map": TensorSpec((32, 32)),
    "overflow": TensorSpec((3,), "GeV"),
    "energy": TensorSpec((1,), "GeV", role="condition"),
}


def samples(n: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(0, 1, (n, *spec.shape)).astype(np.float32) for name, spec in SCHEMA.items()}
    made["layer_0"] *= made["layer_0"] > 1
    return made


def write(folder: Path, n: int = 20, said: str = '{"samples": 20}', force: bool = False) -> Sample:
    made = samples(n)
    with Writer(Target(folder, split_sizes(n), {"settings": said, "problem": "shower"}, force=force), SCHEMA) as writer:
        for start in range(0, n, 7):
            writer.append({name: values[start : start + 7] for name, values in made.items()})
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples")
    write(path)
    return path


def equal(found: Sample, wanted: Sample) -> bool:
    return list(found) == list(wanted) and all(np.array_equal(found[name], wanted[name]) for name in wanted)


# --- writing -----------------------------------------------------------------------------------------------------


def test_layout_for_plain_h5py(folder: Path) -> None:
    with h5py.File(folder / "train.h5") as file:
        group = file["samples"]
        assert sorted(group) == sorted(SCHEMA)
        assert {name: group[name].shape for name in group} == {
            "layer_0": (12, 3, 96),
            "map": (12, 32, 32),
            "overflow": (12, 3),
            "energy": (12, 1),
        }
        assert all(group[name].dtype == np.dtype("<f4") for name in group)
        assert group["layer_0"].attrs["units"] == "GeV"
        assert (group["layer_0"].chunks, group["layer_0"].compression) == ((1, 3, 96), "gzip")
        assert (group["map"].chunks, group["map"].compression, group["map"].fletcher32) == ((1, 32, 32), None, True)
        assert group["overflow"].chunks == (12, 3)  # 85 would fit
        assert {name: value for name, value in group.attrs.items() if name != "digest"} == {
            "settings": '{"samples": 20}',
            "problem": "shower",
            "split": "train",
            "samples": 12,
            "complete": True,
        }


def test_samples_go_to_the_splits_in_order(folder: Path) -> None:
    found = [open_tensors(folder / f"{split}.h5", SCHEMA).read() for split in SPLITS]
    assert [len(part["map"]) for part in found] == [12, 4, 4]
    assert equal({name: np.concatenate([part[name] for part in found]) for name in SCHEMA}, samples(20))


def test_same_input_same_bytes(folder: Path, tmp_path: Path) -> None:
    write(tmp_path)
    for split in SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (folder / f"{split}.h5").read_bytes()


def append(folder: Path, announced: int, appended: int, force: bool = False, interrupt: bool = False) -> None:
    with Writer(Target(folder, split_sizes(announced), {}, force=force), SCHEMA) as writer:
        writer.append(samples(appended))
        assert list(folder.glob("*.part"))
        if interrupt:
            raise KeyboardInterrupt


def test_an_interruption_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        append(tmp_path / "new", 20, 15, interrupt=True)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path)
    before = (tmp_path / "train.h5").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        append(tmp_path, 30, 25, force=True, interrupt=True)
    with pytest.raises(InputError, match=r"train\.h5: exists already"):
        append(tmp_path, 30, 25)
    assert (tmp_path / "train.h5").read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["test.h5", "train.h5", "val.h5"]


def test_mistakes_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer samples appended than announced: train 12 of 12, val 4 of 4, test 3 o"):
        append(tmp_path, 20, 19)
    with pytest.raises(ValueError, match="more samples"):
        append(tmp_path, 5, 6)
    with pytest.raises(ValueError, match="'map' is missing"), Writer(Target(tmp_path, {"a": 1}, {}), SCHEMA) as writer:
        writer.append({"layer_0": np.zeros((1, 3, 96))})
    assert list(tmp_path.iterdir()) == []


def test_two_writers_in_one_folder(tmp_path: Path) -> None:
    with Writer(Target(tmp_path, split_sizes(20), {}), SCHEMA) as writer:
        with pytest.raises(InputError, match="another process"):
            append(tmp_path, 20, 20)
        writer.append(samples(20))
    assert (tmp_path / "train.h5").exists()


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # the kernel's refusal stands for a full disk
        with pytest.raises(HpcganError, match=r"train\.h5\.part: writing failed \(File too large\); nothing was kept"):
            append(tmp_path, 500, 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="MB are needed"), Writer(Target(tmp_path, split_sizes(10**13), {}), SCHEMA):
        pass


def test_check_target(tmp_path: Path) -> None:
    sizes = split_sizes(20)
    assert Target(tmp_path / "none", sizes, {"settings": "{}"}).is_there(SAMPLES.open) is False
    write(tmp_path, said='{"seed": 1}')
    assert Target(tmp_path, sizes, {"settings": '{"seed": 1}'}).is_there(SAMPLES.open) is True
    with pytest.raises(InputError, match=r"seed: 1, asked for 2.*--force"):
        Target(tmp_path, sizes, {"settings": '{"seed": 2}'}).is_there(SAMPLES.open)
    (tmp_path / "val.h5").write_bytes((tmp_path / "train.h5").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"val\.h5.*--force"):
        Target(tmp_path, sizes, {"settings": '{"seed": 1}'}).is_there(SAMPLES.open)


# --- reading -----------------------------------------------------------------------------------------------------


def test_random_access(folder: Path) -> None:
    whole = {name: values[:12] for name, values in samples(20).items()}
    with open_tensors(folder / "train.h5", SCHEMA) as file:
        for which in ([3, 0, 3, 11], [], [-1, -12]):
            assert equal(file.read(which), {k: v[np.array(which, int)] for k, v in whole.items()})
        for part in (slice(2, 9), slice(1, 12, 3), slice(5, 5), slice(9, 2)):
            assert equal(file.read(part), {k: v[part] for k, v in whole.items()})
        for outside in ([12], [-13]):
            with pytest.raises(IndexError, match=f"sample {outside[0]} of 12"):
                file.read(outside)
        pieces = list(file.pieces(limit=5 * 4 * (288 + 1024 + 4)))
        assert [first for first, _ in pieces] == [0, 5, 10]
    with open_tensors(folder / "train.h5") as file:  # without a schema: what is there
        assert {name: spec.shape for name, spec in file.schema.items()} == {k: v.shape for k, v in SCHEMA.items()}
        assert file.schema["energy"].unit == "GeV"
    assert SAMPLES.problem_of(folder / "train.h5") == "shower"


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_the_source_reads_with_and_without_its_cache(folder: Path, cache_mb: int) -> None:
    source = TensorSource(folder / "train.h5", SCHEMA, cache_mb)
    assert len(source) == 12
    for _ in range(2):
        indices = np.array([7, 7, 2])
        assert equal(source.read(indices), {k: v[:12][indices] for k, v in samples(20).items()})
    assert (source._cache is None) == (cache_mb == 0)
    source.close()


SMALL = {"map": TensorSpec((4, 4), "K"), "energy": TensorSpec((1,))}
GOOD = {"map": np.ones((6, 4, 4)), "energy": np.ones((6, 1))}


def other_file(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("samples")
        for name, values in datasets.items():
            group[name] = values
    return path


@pytest.mark.parametrize("dtype", ["f8", ">f4", "f2", "i4", "u2"])
def test_files_of_other_people(tmp_path: Path, dtype: str) -> None:
    path = other_file(tmp_path / "a.h5", **{name: values.astype(dtype) for name, values in GOOD.items()}, more=[1])
    validate(path, SMALL)
    with open_tensors(path, SMALL) as file:
        assert equal(file.read(), {name: values.astype(np.float32) for name, values in GOOD.items()})
    assert SAMPLES.problem_of(path) is None


def spoilt(name: str, at: tuple[int, ...], value: float) -> dict[str, np.ndarray]:
    changed = {key: values.copy() for key, values in GOOD.items()}
    changed[name][at] = value
    return changed


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"map": GOOD["map"]}, r"has no data set 'samples/energy' \(the group holds: map\)"),
        ({**GOOD, "map": np.ones((6, 4, 5))}, r"samples/map has shape \(6, 4, 5\); needed is \(N, 4, 4\)"),
        ({**GOOD, "map": np.ones((6, 16))}, r"samples/map has shape \(6, 16\); needed is \(N, 4, 4\)"),
        ({**GOOD, "energy": np.ones((5, 1))}, r"samples/energy has 5 samples but samples/map has 6"),
        ({**GOOD, "energy": np.array([[b"x"]] * 6)}, r"samples/energy does not hold numbers"),
        ({**GOOD, "map": np.ones((0, 4, 4))}, r"samples/map holds no samples"),
        ({**GOOD, "map": 3.0}, r"samples/map has shape \(\)"),
        (spoilt("map", (3, 1, 2), np.nan), r"samples/map of sample 3 holds a value of nan"),
        (spoilt("energy", (5, 0), -np.inf), r"samples/energy of sample 5 holds a value of -inf"),
        (spoilt("energy", (1, 0), 1e300), r"samples/energy of sample 1 holds a value of inf"),
    ],
)
def test_bad_contents(tmp_path: Path, datasets: dict[str, Any], message: str) -> None:
    path = other_file(tmp_path / "a.h5", **datasets)
    with pytest.raises(InputError, match=message) as error:
        validate(path, SMALL)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_not_data_files(tmp_path: Path, folder: Path) -> None:
    whole = (folder / "train.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("nothing")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["all_events/hist"] = np.zeros((1, 64, 64))
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.create_group("samples")
    other_file(tmp_path / "hollow.h5", map=np.zeros((3, 0)))
    unfinished = other_file(tmp_path / "unfinished.h5", **GOOD)
    with h5py.File(unfinished, "a") as file:
        file["samples"].attrs["complete"] = False
    huge = tmp_path / "huge.h5"
    with h5py.File(huge, "w") as file:
        file.create_dataset("samples/map", (10**9, 4, 4), "<f4", chunks=(1, 4, 4))
    for path, message in (
        (tmp_path / "none.h5", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "cut.h5", "not a readable HDF5 file"),
        (tmp_path / "text.h5", "not a readable HDF5 file"),
        (tmp_path / "other.h5", r"has no group 'samples' \(it holds: all_events\)"),
        (tmp_path / "empty.h5", "holds no data sets"),
        (tmp_path / "hollow.h5", r"samples/map has shape \(3, 0\), samples without a value"),
        (unfinished, "unfinished"),
        (huge, "samples/map claims 1000000000 events but holds no data for them"),
    ):
        with pytest.raises(InputError, match=message):
            open_tensors(path)


def _foreign(kind: str, path: Path, other: Path) -> None:
    other_file(other, **GOOD)
    maps = GOOD["map"].astype("<f4")
    with h5py.File(path, "w") as file:
        if kind == "group":
            file["samples"] = h5py.ExternalLink(str(other), "/samples")
            return
        group = file.create_group("samples")
        group["energy"] = GOOD["energy"]
        if kind == "link":
            group["map"] = h5py.ExternalLink(str(other), "/samples/map")
        elif kind == "storage":
            (path.parent / "raw").write_bytes(maps.tobytes())
            group.create_dataset("map", maps.shape, "<f4", external=[(str(path.parent / "raw"), 0, maps.nbytes)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(maps.shape, "<f4")
            layout[:] = h5py.VirtualSource(str(other), "samples/map", maps.shape)
            group.create_virtual_dataset("map", layout)
        else:
            group.create_dataset("map", (6, 4, 4), "<f4", chunks=(1 << 25, 4, 4), maxshape=(None, 4, 4))


@pytest.mark.parametrize("schema", [SMALL, None], ids=["schema", "any"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("group", r"samples is a link to another file \('.*other.h5'\)"),
        ("link", r"samples/map is a link to another file \('.*other.h5'\)"),
        ("storage", r"samples/map keeps its data in another file \('.*raw'\)"),
        ("virtual", r"samples/map is a virtual data set"),
        ("chunk", r"samples/map is stored in chunks of 2048 MiB"),
    ],
)
def test_data_of_other_files_are_not_opened(tmp_path: Path, kind: str, message: str, schema: Any) -> None:
    _foreign(kind, tmp_path / "a.h5", tmp_path / "other.h5")
    with pytest.raises(InputError, match=message):
        open_tensors(tmp_path / "a.h5", schema)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_one_error_or_the_right_samples(data: st.DataObject, folder: Path, tmp_path: Path) -> None:
    """Cut anywhere, or with bytes changed: never another exception, and never other numbers."""
    path = tmp_path / "damaged.h5"
    path.write_bytes(data.draw(damaged((folder / "test.h5").read_bytes())))
    message = None
    try:
        validate(path, SCHEMA)
    except InputError as error:
        message = str(error)
    if message is None:
        with open_tensors(folder / "test.h5", SCHEMA) as good, open_tensors(path, SCHEMA) as file:
            assert equal(file.read(), good.read())
    else:
        assert str(path) in message
        assert "\n" not in message


def test_info_shows_every_tensor(folder: Path, tmp_path: Path) -> None:
    text = layout_of(folder / "train.h5").describe(folder / "train.h5", tmp_path / "p.png")
    values = samples(20)["layer_0"][:12]
    assert "12 samples" in text
    assert f"layer_0           3 x 96, GeV, {values.mean():.4g} +- {values.std():.4g}" in text
    assert f"({values.min():.4g} to {values.max():.4g}), {np.mean(values == 0):.1%} zero" in text
    assert "energy            1, GeV, " in text
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_small_tensors_share_chunks() -> None:
    shapes = {"one": (1,), "three": (3,), "row": (12, 6), "layer": (3, 96), "map": (256, 256)}
    together = {name: tensors._storage(TensorSpec(shape), 10**6)["chunks"][0] for name, shape in shapes.items()}
    assert together == {"one": 256, "three": 85, "row": 3, "layer": 1, "map": 1}  # 1024 bytes over 4, 12, 288, 1152
