"""Shower files in the published layout: what is written, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.data.schema import Sample
from hpcgan.data.storage import SPLITS, Target, split_sizes
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import FINE, PUBLISHED, Segmentation
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter.files import Writer, open_showers, validate
from hpcgan.problems.calorimeter.layout import SHOWERS
from hpcgan.problems.layouts import layout_of


def some(n: int, segmentation: Segmentation = PUBLISHED, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    sample = {
        name: (rng.exponential(100, (n, *shape)) * (rng.random((n, *shape)) < 0.4)).astype(np.float32)
        for name, shape in zip(calo.LAYERS, segmentation.shapes, strict=True)
    }
    sample["overflow"] = rng.exponential(1, (n, 3)).astype(np.float32)
    sample["energy"] = rng.uniform(1, 100, (n, 1)).astype(np.float32)
    return sample


def write(folder: Path, n: int = 20, segmentation: Segmentation = PUBLISHED, particle: str = "gamma") -> Sample:
    sample = some(n, segmentation)
    with Writer(Target(folder, split_sizes(n), {"settings": '{"a": 1}'}), segmentation, particle) as writer:
        for start in range(0, n, 7):
            writer.append({name: values[start : start + 7] for name, values in sample.items()})
    return sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("showers")
    write(path)
    return path


def equal(found: Sample, wanted: Sample) -> bool:
    return list(found) == list(wanted) and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_layout_for_plain_h5py(folder: Path) -> None:
    """What the published files have, and how their users open them."""
    with h5py.File(folder / "train.h5") as file:
        assert {name: file[name].shape for name in file} == {
            "layer_0": (12, 3, 96),
            "layer_1": (12, 12, 12),
            "layer_2": (12, 12, 6),
            "overflow": (12, 3),
            "energy": (12, 1),
        }
        assert all(file[name].dtype == np.dtype("<f4") for name in file)
        assert {name: file[name].attrs["units"] for name in file} == {
            "layer_0": "MeV",
            "layer_1": "MeV",
            "layer_2": "MeV",
            "overflow": "MeV",
            "energy": "GeV",
        }
        assert file["layer_0"].attrs["axes"] == "shower, phi (y), eta (x)"
        assert (file["layer_0"].chunks, file["layer_0"].compression) == ((1, 3, 96), "gzip")
        attributes = {name: file.attrs[name] for name in file.attrs}
    assert re.fullmatch("[0-9a-f]{64}", attributes.pop("digest"))
    assert attributes.pop("window_mm").tolist() == [-240, 240]
    assert attributes.pop("layer_edges_mm").tolist() == [-240, -150, 197, 240]
    assert attributes == {
        "contents": "calorimeter showers of photons",
        "particle": "gamma",
        "segmentation": "3x96,12x12,12x6",
        "axes": "shower, phi (y), eta (x)",
        "settings": '{"a": 1}',
        "split": "train",
        "showers": 12,
        "complete": True,
    }


def test_showers_go_to_the_splits_in_order(folder: Path) -> None:
    parts = []
    for split in SPLITS:
        with open_showers(folder / f"{split}.h5", PUBLISHED) as file:
            parts.append(file.read())
            assert calo.particle_of(file) == "gamma"
            assert calo.segmentation_of(file) == PUBLISHED
        validate(folder / f"{split}.h5", PUBLISHED)
    assert [len(part["energy"]) for part in parts] == [12, 4, 4]
    assert equal({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, some(20))


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_the_source_reads_at_random(folder: Path, cache_mb: int) -> None:
    source = TensorSource(folder / "train.h5", calo.schema_of(PUBLISHED), cache_mb, calo.ROOT)
    indices = np.array([7, 0, 7, 11])
    assert len(source) == 12
    assert equal(source.read(indices), {name: values[:12][indices] for name, values in some(20).items()})
    source.close()
    with pytest.raises(InputError, match=r"needed are 48x192,48x48,24x24; hpcgan data import --segmentation"):
        open_showers(folder / "train.h5", FINE)


def test_any_segmentation(tmp_path: Path) -> None:
    write(tmp_path, 5, FINE, "piplus")
    with open_showers(tmp_path / "train.h5") as file:
        assert calo.segmentation_of(file) == FINE
        assert calo.particle_of(file) == "piplus"
        assert equal(file.read(), {name: values[:3] for name, values in some(5, FINE).items()})


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Writer(Target(tmp_path, split_sizes(20), {}), PUBLISHED, "gamma") as writer:
            writer.append(some(15))
            assert list(tmp_path.glob("*.part"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_check_target(folder: Path, tmp_path: Path) -> None:
    assert Target(folder, split_sizes(20), {"settings": '{"a": 1}'}).is_there(SHOWERS.open) is True
    with pytest.raises(InputError, match=r"a: 1, asked for 2"):
        Target(folder, split_sizes(20), {"settings": '{"a": 2}'}).is_there(SHOWERS.open)
    assert Target(tmp_path / "new", split_sizes(20), {"settings": "{}"}).is_there(SHOWERS.open) is False


GOOD = some(6)


def other_file(path: Path, attributes: dict[str, Any] | None = None, **datasets: Any) -> Path:
    """A file as other people might make it."""
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            if values is not None:
                file[name] = values
        file.attrs.update(attributes or {})
    return path


@pytest.mark.parametrize("dtype", ["f8", ">f4", "f4"])
def test_the_published_files(tmp_path: Path, dtype: str) -> None:
    """Without attributes, of other number types, with further data sets."""
    path = other_file(tmp_path / "gamma.hdf5", **{n: v.astype(dtype) for n, v in GOOD.items()}, more=np.zeros(6))
    validate(path, PUBLISHED)
    with open_showers(path) as file:
        assert calo.particle_of(file) == ""
        assert equal(file.read(), GOOD)


def spoilt(name: str, at: tuple[int, ...], value: float) -> dict[str, np.ndarray]:
    changed = {key: values.astype(float) for key, values in GOOD.items()}
    changed[name][at] = value
    return changed


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        (
            {**GOOD, "layer_1": None},
            r"has no data set 'layer_1' \(the file holds: energy, layer_0, layer_2, overflow\)",
        ),
        ({**GOOD, "energy": None}, r"has no data set 'energy'"),
        ({**GOOD, "overflow": None}, r"has no data set 'overflow'"),
        ({**GOOD, "layer_0": np.ones((6, 288))}, r"layer_0 has shape \(6, 288\); needed is \(N, phi, eta\)"),
        ({**GOOD, "layer_0": 3.0}, r"layer_0 has shape \(\)"),
        ({**GOOD, "layer_0": np.ones((6, 0, 96))}, r"layer_0 has shape \(6, 0, 96\)"),
        ({**GOOD, "layer_0": np.array([[[b"x"] * 96] * 3] * 6)}, r"layer_0 does not hold numbers"),
        ({**GOOD, "layer_0": np.ones((6, 1000, 1000), "i1")}, r"cells, at most 100000"),
        ({**GOOD, "layer_2": GOOD["layer_2"][:5]}, r"layer_2 has 5 samples but layer_0 has 6"),
        ({**GOOD, "energy": np.ones((6, 2))}, r"energy has shape \(6, 2\); needed is \(N, 1\)"),
        ({**GOOD, "overflow": np.ones((6, 2))}, r"overflow has shape \(6, 2\); needed is \(N, 3\)"),
        ({name: values[:0] for name, values in GOOD.items()}, r"layer_0 holds no samples"),
        (spoilt("layer_0", (3, 1, 2), np.nan), r"layer_0 of sample 3 holds a value of nan"),
        (spoilt("layer_1", (2, 0, 0), -5.0), r"layer_1 of shower 2 holds a negative energy: -5 MeV"),
        (spoilt("overflow", (4, 1), -0.5), r"overflow of shower 4 holds a negative energy: -0.5 MeV"),
        (spoilt("energy", (5, 0), 0.0), r"energy of shower 5 is 0 GeV; it must be above 0"),
        (spoilt("energy", (1, 0), -3.0), r"energy of shower 1 is -3 GeV"),
        (spoilt("energy", (1, 0), np.inf), r"energy of sample 1 holds a value of inf"),
    ],
)
def test_bad_contents(tmp_path: Path, datasets: dict[str, Any], message: str) -> None:
    path = other_file(tmp_path / "a.h5", **datasets)
    with pytest.raises(InputError, match=message) as error:
        validate(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_bad_files(tmp_path: Path, folder: Path) -> None:
    whole = (folder / "train.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    other_file(tmp_path / "muon.h5", {"particle": "muon"}, **GOOD)
    other_file(tmp_path / "bytes.h5", {"particle": np.bytes_("mu\non")}, **GOOD)
    with h5py.File(other_file(tmp_path / "joule.h5", **GOOD), "a") as file:
        file["layer_1"].attrs["units"] = "J"
    other_file(tmp_path / "unfinished.h5", {"complete": False}, **GOOD)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["layer_0"] = h5py.ExternalLink(str(folder / "train.h5"), "/layer_0")
    for name, message in (
        ("none.h5", "no such file"),
        ("cut.h5", "not a readable HDF5 file"),
        ("muon.h5", "holds showers of 'muon'; known are gamma, eplus, piplus"),
        ("bytes.h5", r"holds showers of 'mu\\non'"),
        ("joule.h5", "attribute units of layer_1 is 'J'; needed is MeV"),
        ("unfinished.h5", "unfinished"),
        ("link.h5", "has no data set 'layer_1'|layer_0 is a link to another file"),
    ):
        with pytest.raises(InputError, match=message) as error:
            open_showers(tmp_path / name)
        assert "\n" not in str(error.value)
        assert name in str(error.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_one_error_or_the_right_showers(data: st.DataObject, folder: Path, tmp_path: Path) -> None:
    """Cut anywhere, or with bytes changed: never another exception, and never other numbers."""
    path = tmp_path / "damaged.h5"
    path.write_bytes(data.draw(damaged((folder / "test.h5").read_bytes())))
    message = None
    try:
        validate(path, PUBLISHED)
    except InputError as error:
        message = str(error)
    if message is None:
        with open_showers(folder / "test.h5") as good, open_showers(path) as file:
            assert equal(file.read(), good.read())
    else:
        assert str(path) in message
        assert "\n" not in message


values = st.floats(-10, 10, width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0])


@given(st.sampled_from([*calo.LAYERS, "overflow", "energy"]), st.data())
def test_any_value_that_cannot_be_is_found(name: str, data: st.DataObject) -> None:
    """One number changed anywhere: refused exactly when it is negative, or an energy that is not above 0."""
    sample = {key: array.copy() for key, array in GOOD.items()}
    place = data.draw(st.tuples(*(st.integers(0, length - 1) for length in sample[name].shape)))
    value = data.draw(values)
    sample[name][place] = value
    bad = not value > 0 if name == "energy" else value < 0
    if bad:
        with pytest.raises(InputError, match=f"a.h5: {name} of shower {100 + place[0]} "):
            calo.check_sample(sample, "a.h5", 100)
    else:
        calo.check_sample(sample, "a.h5", 100)


def test_info(folder: Path, tmp_path: Path) -> None:
    text = layout_of(folder / "train.h5").describe(folder / "train.h5", tmp_path / "p.png")
    for said in ("12 samples", "readable and valid", "3 x 96, MeV", "12 x 6, MeV", "phi (y), eta (x)", "photons"):
        assert said in text
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    bad = other_file(tmp_path / "bad.h5", **spoilt("energy", (5, 0), 0.0))
    with pytest.raises(InputError, match="energy of shower 5 is 0 GeV"):
        layout_of(bad).describe(bad)
