"""Files of jet images in the published layout: written, read, imported, and what is refused of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.data.importers import Order
from hpcgan.data.schema import Sample
from hpcgan.data.storage import SPLITS, Target
from hpcgan.errors import InputError
from hpcgan.problems.jet_images import files
from hpcgan.problems.jet_images.importing import JetImporter
from hpcgan.problems.jet_images.layout import JETS
from hpcgan.problems.jet_images.source import JetSource


def jets_of(n: int, seed: int = 1) -> Sample:
    """Everything that a published file says of jets; most pixels are 0."""
    rng = np.random.default_rng(seed)
    image = rng.exponential(1.0, (n, 25, 25)) * (rng.random((n, 25, 25)) < 0.1)
    columns = {name: rng.uniform(-1 if name in files.DIRECTIONS else 0, 1, n) for name in files.COLUMNS}
    sample = {files.IMAGE: image, files.SIGNAL: np.arange(n) % 2, **columns}
    return {name: values.astype(np.float32) for name, values in sample.items()}


def published(path: Path, sample: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    """A file as other people write it: data sets, and no attribute."""
    with h5py.File(path, "w") as file:
        for name, values in {**(sample or jets_of(6)), **changes}.items():
            if values is not None:
                file[name] = values
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sample = jets_of(7)
    with files.Writer(Target(tmp_path, {"train": 4, "val": 3}, {})) as writer:
        writer.append(sample)
    with files.open_jets(tmp_path / "val.h5") as file:
        second = file.read()
    assert set(second) == {"image", "signal", *files.COLUMNS}
    for name, values in sample.items():
        np.testing.assert_array_equal(second[name], values[4:])
    assert JETS.holds(tmp_path / "train.h5")
    assert JETS.problem_of(tmp_path / "train.h5") == "jets"
    files.validate(tmp_path / "train.h5")


def test_a_generated_jet_is_an_image_and_its_class(tmp_path: Path) -> None:
    sample = {name: jets_of(3)[name] for name in files.SCHEMA}
    with files.Writer(Target(tmp_path, {"fake": 3}, {}), columns=()) as writer:
        writer.append(sample)
    with h5py.File(tmp_path / "fake.h5") as file:
        assert set(file) == {"image", "signal"}
    files.validate(tmp_path / "fake.h5")


def test_a_published_file_is_a_source(tmp_path: Path) -> None:
    sample = jets_of(6)
    source = JetSource(published(tmp_path / "jets.h5", {**sample, "signal": sample["signal"].astype(np.float64)}))
    batch = source.read(np.array([4, 1]))
    assert set(batch) == {"image", "signal"}
    assert (batch["image"].dtype, batch["image"].shape) == (np.float32, (2, 25, 25))
    np.testing.assert_array_equal(batch["image"], sample["image"][[4, 1]])
    assert batch["signal"].tolist() == [0, 1]
    assert source.conditions()["signal"].tolist() == [0, 1, 0, 1, 0, 1]
    assert {"jet_pt", "jet_mass", "tau_1"} <= set(source.labels())
    np.testing.assert_array_equal(source.label("jet_mass"), sample["jet_mass"])
    source.close()


def test_energies_in_another_unit_are_converted(tmp_path: Path) -> None:
    sample = jets_of(6)
    path = published(tmp_path / "jets.h5", {**sample, "image": sample["image"] * 1000})
    with h5py.File(path, "a") as file:
        file["image"].attrs["units"] = "MeV"
    np.testing.assert_allclose(JetSource(path).read(np.arange(6))["image"], sample["image"], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "has no data set 'image'"),
        ({"signal": None}, "has no data set 'signal'"),
        ({"image": np.zeros((6, 24, 25))}, r"image has shape \(6, 24, 25\); needed is \(N, 25, 25\)"),
        ({"image": np.zeros((6, 625))}, r"image has shape \(6, 625\); needed is \(N, 25, 25\)"),
        ({"signal": np.zeros(5)}, "signal has 5 samples but image has 6"),
        ({"tau_2": np.zeros((6, 2))}, "tau_2 has shape"),
        ({"jet_pt": np.array([b"a"] * 6)}, "jet_pt does not hold numbers"),
        ({"image": np.zeros((0, 25, 25)), "signal": np.zeros(0)}, "holds no samples"),
    ],
)
def test_what_no_file_of_jets_is(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = published(tmp_path / "jets.h5", **changes)
    for refuse in (JetSource, files.validate):
        with pytest.raises(InputError, match=message) as error:
            refuse(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_other_axes_and_another_pixel_are_refused(tmp_path: Path) -> None:
    for attribute, value in (("axes", "eta, phi"), ("pixel", 0.08), ("window", [-1.0, 1.0])):
        path = published(tmp_path / f"{attribute}.h5")
        with h5py.File(path, "a") as file:
            file["image"].attrs[attribute] = value
        with pytest.raises(InputError, match=f"attribute {attribute} of image"):
            files.open_jets(path)


NUMBERS = ("image", "jet_pt", "jet_mass", "jet_delta_R", "tau_1", "tau_2", "tau_3")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.tuples(st.sampled_from(NUMBERS), st.floats(-1e6, -1e-6)),
        st.tuples(st.sampled_from((*NUMBERS, "signal", "jet_eta", "jet_phi")), st.sampled_from([np.nan, np.inf])),
        st.tuples(st.just("signal"), st.floats(-10, 10).filter(lambda x: np.float32(x) not in (0, 1))),
    ),
    st.integers(0, 5),
    st.integers(0, 624),
)
def test_a_number_that_cannot_be(tmp_path: Path, damage: tuple[str, float], jet: int, pixel: int) -> None:
    """Validation and import name the file, the data set and the jet, on one line."""
    name, value = damage
    sample = jets_of(6)
    sample[name].reshape(6, -1)[jet, pixel % sample[name].reshape(6, -1).shape[1]] = value
    path = published(tmp_path / "jets.h5", sample)
    importer = JetImporter()
    for refuse in (files.validate, lambda path: importer.import_files(Order([path], tmp_path / "out"))):
        with pytest.raises(InputError) as error:
            refuse(path)
        text = str(error.value)
        assert text.startswith(f"{path}: {name} of ")
        assert f" {jet} " in text
        assert "\n" not in text
    assert not list((tmp_path / "out").glob("*"))


def test_directions_may_be_negative(tmp_path: Path) -> None:
    files.validate(published(tmp_path / "jets.h5", jet_eta=np.full(6, -1.5), jet_phi=np.full(6, -3.0)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_one_error_or_the_right_jets(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, or with bytes changed: never another exception, and never other numbers."""
    sample = jets_of(2)
    with files.Writer(Target(tmp_path, {"whole": 2}, {}, force=True)) as writer:
        writer.append(sample)
    path = tmp_path / "damaged.h5"
    path.write_bytes(data.draw(damaged((tmp_path / "whole.h5").read_bytes())))
    message = None
    try:
        files.validate(path)
    except InputError as error:
        message = str(error)
    if message is None:
        with files.open_jets(path) as file:
            for name, values in file.read().items():
                np.testing.assert_array_equal(values, sample[name])
    else:
        assert str(path) in message
        assert "\n" not in message


# --- import --------------------------------------------------------------------------------------


def test_a_published_file_is_shared_out(tmp_path: Path) -> None:
    """Of five jets in a row three are for training, one each for validation and test."""
    sample = jets_of(12)
    path, out = published(tmp_path / "jets.h5", sample), tmp_path / "out"
    assert JetImporter.recognise(path) == "holds jet images"
    assert JetImporter().import_files(Order([path], out))
    numbers = {"train": [0, 1, 2, 5, 6, 7, 10, 11], "val": [3, 8], "test": [4, 9]}
    for split in SPLITS:
        with files.open_jets(out / f"{split}.h5") as file:
            part = file.read()
        for name, values in sample.items():
            np.testing.assert_array_equal(part[name], values[numbers[split]])
    assert not JetImporter().import_files(Order([path], out))  # all of it is there


def test_several_files_are_joined(tmp_path: Path) -> None:
    some, others = jets_of(5, seed=1), jets_of(5, seed=2)
    paths = [published(tmp_path / "a.h5", some), published(tmp_path / "b.h5", others)]
    JetImporter().import_files(Order(paths, tmp_path / "out"))
    with files.open_jets(tmp_path / "out" / "test.h5") as file:
        np.testing.assert_array_equal(file.read()["image"], np.stack([some["image"][4], others["image"][4]]))


def test_files_that_say_different_things_of_a_jet(tmp_path: Path) -> None:
    paths = [published(tmp_path / "a.h5"), published(tmp_path / "b.h5", tau_3=None)]
    with pytest.raises(InputError, match=r"b\.h5: has other data sets than .*a\.h5 \(tau_3\)"):
        JetImporter().import_files(Order(paths, tmp_path / "out"))


def test_other_files_are_none_of_jets(tmp_path: Path) -> None:
    text, other = tmp_path / "a.txt", tmp_path / "b.h5"
    text.write_text("no HDF5")
    with h5py.File(other, "w") as file:
        file["layer_0"] = np.zeros(3)
    assert JetImporter.recognise(text) == JetImporter.recognise(other) == ""


def test_pt_that_no_collision_has(tmp_path: Path) -> None:
    """Images in MeV whose file does not say so; where it does, they are converted."""
    sample = jets_of(6)
    sample["image"][4, 12, 12] = 300.0
    path = published(tmp_path / "mev.h5", sample, image=sample["image"] * 1000)
    with pytest.raises(
        InputError, match=r"mev\.h5: image of jet 4 has 3\.\d+e\+05 GeV, more than any .* attribute units"
    ):
        JetImporter().import_files(Order([path], tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*"))
    with h5py.File(path, "a") as file:
        file["image"].attrs["units"] = "MeV"
    assert JetImporter().import_files(Order([path], tmp_path / "out"))
    with files.open_jets(tmp_path / "out" / "test.h5") as file:
        np.testing.assert_allclose(file.read()["image"][0], sample["image"][4], rtol=1e-6)


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    path = published(tmp_path / "a.h5", image=None)
    with h5py.File(path, "a") as file:
        file["image"] = h5py.SoftLink("/pixels")
    with pytest.raises(InputError, match=r"a\.h5: image is a link to /pixels, which the file does not hold; copy"):
        files.open_jets(path)


def test_classes_that_are_no_numbers(tmp_path: Path) -> None:
    path = published(tmp_path / "a.h5", signal=np.arange(6) % 2 > 0)
    with pytest.raises(InputError, match=r"signal does not hold numbers \(type bool\); store it as float32"):
        files.open_jets(path)
