"""What files say of themselves: converted where it is exact, else refused, in every reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.commands.cli import main
from hpcgan.data import attributes
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import ROOT
from hpcgan.errors import InputError
from hpcgan.evaluation.conditions import read as read_conditions
from hpcgan.overlay.inputs import open_signal
from hpcgan.physics.calorimeter import PUBLISHED
from hpcgan.physics.images import image_attributes
from hpcgan.problems.base import problem_class
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter import importing as calo_import
from hpcgan.problems.calorimeter.source import ShowerSource
from hpcgan.problems.cosmo.generate import map_schema
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.events import Use
from hpcgan.problems.layouts import problem_of
from hpcgan.problems.pileup import files as pool

PLACES = {"data set": "all_events/hist", "group": "all_events", "top": "/"}
RNG = np.random.default_rng(3)
MEV = np.where(RNG.random((6, 64, 64)) < 0.05, RNG.exponential(5e3, (6, 64, 64)), 0.0)
"""Images in MeV, double precision: the float32 of them is what every reader must give."""


def image_file(path: Path, images: np.ndarray = MEV, says: dict[str, dict[str, Any]] | None = None) -> Path:
    """Images of other people: `says` has attributes by place."""
    with h5py.File(path, "w") as file:
        file["all_events/hist"] = images
        for name, value in (("mGlu", 1400.0), ("mNeu", 850.0), ("weight", 1.0), ("y", 1.0)):
            file[f"all_events/{name}"] = np.full(len(images), value)
        for place, found in (says or {}).items():
            file[place].attrs.update(found)
    return path


def one_line(error: pytest.ExceptionInfo[InputError], path: Path) -> str:
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


# --- units -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    ("unit", "mev"),
    [
        ("eV", 1e-6),
        ("keV", 1e-3),
        ("KeV", 1e-3),
        ("MeV", 1.0),
        ("Mev", 1.0),
        ("mev", 1.0),
        ("MEV", 1.0),
        ("[MeV]", 1.0),
        (np.bytes_(b"MeV   "), 1.0),
        ("GeV", 1e3),
        ("gev", 1e3),
        (" GeV ", 1e3),
        ("in GeV", 1e3),
        (b"GeV", 1e3),
        (np.array(["GeV"], h5py.string_dtype()), 1e3),
        (np.array([b"GeV"]), 1e3),
        (np.array([[b"GeV\0\0"]], "S8"), 1e3),
        ("giga electron volts", 1e3),
        ("Energy [GeV]", 1e3),
        ("(GeV per pixel)", 1e3),
        ("TeV", 1e6),
    ],
)
def test_energies_of_another_unit_are_converted(tmp_path: Path, place: str, unit: Any, mev: float) -> None:
    path = image_file(tmp_path / "a.h5", MEV / mev, {place: {"units": unit}})
    with hdf5.open_images(path) as file:
        np.testing.assert_allclose(file.read(), MEV, rtol=3e-7)
        np.testing.assert_allclose(file.read([4, 0, 4]), MEV[[4, 0, 4]], rtol=3e-7)
    source = problem_class("rpv")(problem_class("rpv").Model()).open(path, "")
    np.testing.assert_allclose(source.read(np.array([5, 1]))["hist"], MEV[[5, 1]], rtol=3e-7)
    source.close()


def test_a_stated_mev_changes_no_bit(tmp_path: Path) -> None:
    images = MEV.astype(np.float32)
    with hdf5.open_images(image_file(tmp_path / "a.h5", images, {"all_events": {"unit": "mev"}})) as file:
        assert file.read().tobytes() == images.tobytes()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    "unit", ["J", "meV", "photons", "dimensionless", "MeV GeV", "10 MeV", 1000, [1.0, 2.0], "Me\nV", "pT", b"\xff\xfe"]
)
def test_other_units_are_refused_with_their_attribute(tmp_path: Path, place: str, unit: Any) -> None:
    path = image_file(tmp_path / "a.h5", says={place: {"units": unit}})
    with pytest.raises(InputError, match="attribute units of ") as error:
        hdf5.open_images(path)
    text = one_line(error, path)
    assert (place.strip("/") or "the file") in text


def test_an_empty_unit_says_nothing(tmp_path: Path) -> None:
    for number, empty in enumerate(("", b"", h5py.Empty("S3"), h5py.Empty("f4"), np.array([], "S3"), "  ")):
        with hdf5.open_images(image_file(tmp_path / f"{number}.h5", says={"all_events": {"units": empty}})) as file:
            np.testing.assert_array_equal(file.read(), MEV.astype(np.float32))


def test_statements_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = image_file(tmp_path / "a.h5", says={"all_events/hist": {"units": "MeV"}, "/": {"units": "GeV"}})
    with pytest.raises(
        InputError, match=r"units of all_events/hist is 'MeV', but attribute units of the file is 'GeV'"
    ):
        hdf5.open_images(path)
    says = {"all_events/hist": {"units": "GeV"}, "all_events": {"unit": "gev"}}
    with hdf5.open_images(image_file(tmp_path / "b.h5", MEV / 1e3, says)) as file:
        np.testing.assert_allclose(file.read(), MEV, rtol=3e-7)


def test_numbers_that_contradict_the_unit_are_refused(tmp_path: Path) -> None:
    """Images in MeV of which the file says GeV: 25 GeV an event is possible, 1000 times the energy of a pair is not."""
    images = np.zeros((3, 64, 64))
    images[1, 3, 4] = 2.5e6
    path = image_file(tmp_path / "a.h5", images, {"all_events": {"units": "GeV"}})
    with pytest.raises(InputError, match="units says GeV, but event 1 would have 2500 TeV") as error:
        hdf5.validate(path)
    one_line(error, path)
    with hdf5.open_images(path) as file, pytest.raises(InputError, match="event 1 would"):
        file.read([2, 1])
    hdf5.validate(image_file(tmp_path / "b.h5", images))  # says nothing


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    images = np.zeros((2, 64, 64))
    images[1, 0, 0] = 1e37
    with pytest.raises(InputError, match="event 1"):
        hdf5.validate(image_file(tmp_path / "a.h5", images, {"all_events": {"units": "TeV"}}))


@pytest.mark.parametrize(("unit", "gev"), [("MeV", 1e-3), ("GeV", 1.0), ("TeV/c^2", 1e3), (np.array([b"GeV/c2"]), 1.0)])
def test_masses_of_another_unit_are_converted(tmp_path: Path, unit: Any, gev: float) -> None:
    path = image_file(tmp_path / "a.h5", says={"all_events": {"units": "MeV"}})
    with h5py.File(path, "a") as file:
        file["all_events/mGlu"][:] = 1400.0 / gev
        file["all_events/mGlu"].attrs["units"] = unit
    model = problem_class("conditional").Model(conditioning="channels")
    problem = problem_class("conditional")(model)
    problem.validate(path, "")
    source = problem.open(path, "")
    assert source.conditions()["mGlu"].tolist() == [1400.0] * 6
    assert source.conditions()["mNeu"].tolist() == [850.0] * 6
    source.close()
    assert read_conditions(problem, path)["mGlu"].tolist() == [1400.0] * 6
    wanted = tmp_path / "wanted.h5"
    with h5py.File(wanted, "w") as file:
        file["mGlu"], file["mNeu"] = np.array([1400.0, 1600.0]) / gev, np.array([850.0, 850.0]) / gev
        file.attrs["units"] = unit
    assert read_conditions(problem, wanted)["mGlu"].tolist() == [1400.0, 1600.0]
    with h5py.File(path, "a") as file:
        file["all_events/mNeu"].attrs["units"] = "kg"
    for use in (
        lambda: problem.open(path, ""),
        lambda: problem.validate(path, ""),
        lambda: read_conditions(problem, path),
    ):
        with pytest.raises(InputError, match="attribute units of all_events/mNeu is 'kg'; needed is GeV"):
            use()


# --- axes and ranges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axes",
    [
        "eta, phi",
        "event, eta, phi",
        "event,eta,phi",
        "[eta, phi]",
        '["eta", "phi"]',
        "Eta Phi",
        "ETA-PHI",
        "N x eta x phi",
        "N x 64 (eta) x 64 (phi)",
        "η, φ",
        r"\eta, \phi",
        "ieta, iphi",
        "eta (rows), phi (columns)",
        np.array(["eta", "phi"], h5py.string_dtype()),
        np.array([b"event", b"eta  ", b"phi"]),
        np.array([b"eta, phi"], "S12"),
        "",
    ],
)
def test_spellings_of_the_axes(tmp_path: Path, axes: Any) -> None:
    for number, place in enumerate(PLACES.values()):
        hdf5.validate(image_file(tmp_path / f"{number}.h5", says={place: {"axes": axes}}))


@pytest.mark.parametrize(
    "axes", ["phi, eta", "event, phi, eta", "x, y", "eta", "phi", "eta, phi, event", 5, np.array([b"phi", b"eta"]), "?"]
)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_other_axes_are_refused(tmp_path: Path, axes: Any, place: str) -> None:
    path = image_file(tmp_path / "a.h5", says={place: {"axes": axes}})
    with pytest.raises(InputError, match="attribute axes of ") as error:
        hdf5.open_images(path)
    one_line(error, path)


def test_labels_of_dimensions_are_axes(tmp_path: Path) -> None:
    for number, labels in enumerate(
        (("", "", ""), ("event", "eta", "phi"), ("", "eta", "phi"), ("event", "phi", "eta"))
    ):
        path = image_file(tmp_path / f"{number}.h5")
        with h5py.File(path, "a") as file:
            for axis, label in enumerate(labels):
                file["all_events/hist"].dims[axis].label = label
        if number < 3:
            hdf5.validate(path)
        else:
            with pytest.raises(InputError, match=r"DIMENSION_LABELS of all_events/hist is 'event, phi, eta'"):
                hdf5.validate(path)


@pytest.mark.parametrize(
    "said",
    [
        image_attributes(),
        {"phi_range": [-np.pi, np.pi]},
        {"phi_range": np.array([-3.1416, 3.1416], "f4"), "eta_range": [-2.5, 2.5]},
        {"phi_range": [-3.14, 3.14]},
        {"phi_range": "[-pi, pi]", "eta_range": "-2.5 to 2.5"},
        {"etaRange": b"-2.5, 2.5"},
        {"eta_min": -2.5, "eta_max": np.array([2.5])},
        {"range": [[-2.5, 2.5], [-3.15, 3.15]], "bins": 64},
        {"extent": [-2.5, 2.5, -3.15, 3.15], "bins": [64, 64]},
        {"range": "run 1 to 1000", "bins": "see the note", "dims": "64x64"},
        {"eta_edges": np.linspace(-2.5, 2.5, 65), "n_phi": 64, "image_shape": [6, 64, 64]},
        {"detector": "ATLAS", "phi": 0.3, "range_m": 1},
    ],
)
def test_ranges_that_mean_the_same(tmp_path: Path, said: dict[str, Any]) -> None:
    for number, place in enumerate(PLACES.values()):
        hdf5.validate(image_file(tmp_path / f"{number}.h5", says={place: said}))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"eta_range": [-5.0, 5.0]}, r"attribute eta_range of .* is \[-5.0, 5.0\]; needed is \[-2.5, 2.5\]"),
        ({"eta_range": np.array([-2.4, 2.4])}, "eta_range"),
        ({"etaRange": "-5, 5"}, "etaRange"),
        ({"Eta Range": [2.5, -2.5]}, "Eta Range"),
        ({"eta_range": 2.5}, "eta_range"),
        ({"eta_range": "all of it"}, "eta_range"),
        ({"eta_range": np.nan}, "eta_range"),
        ({"phi_range": [0.0, 6.3]}, r"needed is \[-3.15, 3.15\]"),
        ({"phi_range": [-180, 180]}, "phi_range"),
        ({"phi_range": [-3.2, 3.2]}, "phi_range"),
        ({"eta_max": 4.9}, "eta_max"),
        ({"range": [[-3.15, 3.15], [-2.5, 2.5]]}, "attribute range of"),
        ({"extent": [-3.0, 3.0, -3.15, 3.15]}, "extent"),
        ({"bins": 32}, "bins"),
        ({"eta_bins": np.linspace(-5, 5, 65)}, "eta_bins"),
        ({"image_shape": [64, 32]}, "image_shape"),
        ({"image_shape": True}, "image_shape"),
    ],
)
def test_other_ranges_are_refused(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    for number, place in enumerate(PLACES.values()):
        path = image_file(tmp_path / f"{number}.h5", says={place: said})
        with pytest.raises(InputError, match=message) as error:
            hdf5.open_images(path)
        one_line(error, path)


def test_packed_numbers_are_refused(tmp_path: Path) -> None:
    """As netCDF keeps them; what is stored is not what is meant."""
    hdf5.validate(image_file(tmp_path / "a.h5", says={"all_events/hist": {"scale_factor": 1.0, "add_offset": 0}}))
    with pytest.raises(InputError, match=r"scale_factor of all_events/hist is 0\.1; needed is 1"):
        hdf5.validate(image_file(tmp_path / "b.h5", says={"all_events/hist": {"scale_factor": 0.1}}))


# --- every reader ------------------------------------------------------------------------------------------------


def showers(path: Path, factor: float = 1.0) -> Path:
    """Four showers in the published layout; deposits divided by `factor`."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, spec in calo.schema_of().items():
            file[name] = rng.random((4, *spec.shape)) * 100 / (factor if spec.unit == "MeV" else 1.0)
    return path


def challenge(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.full((6, 1), 65.0)
        file["showers"] = np.full((6, 504), 0.002)
    return path


def geant4(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["energy"], file["counts"] = np.full(5, 65.0), np.full(5, 2)
        file["cell"], file["deposit"] = np.tile([3, 9300], 5), np.full(10, 0.5)
    return path


def maps(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["samples/kappa"] = np.zeros((3, 32, 32))
    return path


def sparse(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["pool/indptr"], file["pool/pixel"] = np.array([0, 2, 3]), np.array([1, 2, 4095], "u2")
        file["pool/energy"] = np.array([0.5, 1.0, 2.0])
    return path


def test_pools(tmp_path: Path) -> None:
    path = sparse(tmp_path / "a.h5")
    for place in ("pool/energy", "pool", "/"):
        with h5py.File(path, "a") as file:
            file[place].attrs["units"] = "GeV"
        with pool.open_pool(path) as opened:
            assert opened.read().energy.tolist() == [500.0, 1000.0, 2000.0]
        with h5py.File(path, "a") as file:
            del file[place].attrs["units"]
    with h5py.File(path, "a") as file:
        file["pool"].attrs["units"], file["pool/energy"][2] = "TeV", 101.0
    with pool.open_pool(path) as opened, pytest.raises(InputError, match="event 1 would have 101 TeV"):
        opened.read()


def test_showers_with_units_of_their_own(tmp_path: Path) -> None:
    with tensors.open_tensors(showers(tmp_path / "mev.h5"), calo.schema_of(), ROOT) as file:
        wanted = file.read()
    path = showers(tmp_path / "gev.h5", 1000.0)
    with h5py.File(path, "a") as file:
        for name in (*calo.LAYERS, calo.OVERFLOW):
            file[name].attrs["units"] = np.array([b"GeV "])
        file[calo.ENERGY][:] = file[calo.ENERGY][:] * 1e3
        file[calo.ENERGY].attrs["unit"] = "MeV"
    calo.validate(path)
    with calo.open_showers(path) as opened:
        found = opened.read()
    source = ShowerSource({"": path}, PUBLISHED)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6)
    np.testing.assert_allclose(source.read(np.arange(4))["layer_1"], wanted["layer_1"], rtol=1e-6)
    np.testing.assert_allclose(source.conditions()["energy"], wanted["energy"][:, 0], rtol=1e-6)
    source.close()
    layer = problem_class("calo_layer")(problem_class("calo_layer").Model(layer="layer_2"))
    np.testing.assert_allclose(layer.open(path, "").read(np.arange(4))["layer_2"], wanted["layer_2"], rtol=1e-6)


def test_showers_of_the_challenge_and_of_geant4(tmp_path: Path) -> None:
    path = challenge(tmp_path / "challenge.h5")
    with h5py.File(path, "a") as file:
        file.attrs["units"] = "GeV"
    with calo_import.open_reader(path) as reader:
        sample = next(reader.pieces())
    assert np.unique(sample["energy"]).tolist() == [65.0]
    np.testing.assert_allclose(sample["layer_1"], 2.0, rtol=1e-6)
    path = geant4(tmp_path / "geant4.h5")
    with h5py.File(path, "a") as file:
        file["deposit"].attrs["unit"] = "GeV"
        file["energy"].attrs["unit"] = "TeV"
    with calo_import.open_reader(path) as reader:
        sample = next(reader.pieces())
    assert np.unique(sample["energy"]).tolist() == [65000.0]
    assert sorted(set(np.unique(sample["layer_0"])) | set(np.unique(sample["layer_1"]))) == [0.0, 500.0]


@pytest.mark.parametrize(
    ("make", "read", "place", "said"),
    [
        (showers, calo.validate, "/", {"units": "MeV"}),  # of what? layers are in MeV, the incident energy in GeV
        (showers, calo.validate, "/", {"axes": "shower, eta, phi"}),
        (showers, calo.validate, "/", {"window_mm": [-100.0, 100.0]}),
        (showers, calo.validate, "/", {"segmentation": "3x96,12x12,6x12"}),
        (showers, calo.validate, "/", {"segmentation": 3}),
        (showers, calo.validate, "/", {"particle": [1, 2]}),
        (showers, calo.validate, "layer_1", {"axes": "eta, phi"}),
        (showers, calo.validate, "layer_1", {"units": "pC"}),
        (showers, calo.validate, "energy", {"units": "GHz"}),
        (challenge, calo_import.open_reader, "showers", {"units": "pC"}),
        (challenge, calo_import.open_reader, "/", {"segmentation": np.array([1, 2])}),
        (geant4, calo_import.open_reader, "deposit", {"unit": "pC"}),
        (geant4, calo_import.open_reader, "/", {"grids": 3}),
        (geant4, calo_import.open_reader, "/", {"units": "MeV"}),
        (maps, lambda path: tensors.open_tensors(path, map_schema(32)), "samples/kappa", {"units": "GeV"}),
        (maps, lambda path: tensors.open_tensors(path, map_schema(32)), "samples", {"area_deg2": 25.0}),
        (sparse, pool.open_pool, "pool", {"eta_range": [-5.0, 5.0]}),
        (sparse, pool.open_pool, "/", {"axes": "phi, eta"}),
    ],
)
def test_every_layout_refuses_what_it_is_not(
    tmp_path: Path, make: Callable[[Path], Path], read: Callable[[Path], Any], place: str, said: dict[str, Any]
) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file[place].attrs.update(said)
    with pytest.raises(InputError, match=f"attribute {next(iter(said))} of ") as error:
        read(path)
    one_line(error, path)


def test_texts_of_all_kinds_of_showers(tmp_path: Path) -> None:
    forms = (np.bytes_(b"gamma   "), np.array(["gamma"], h5py.string_dtype()), np.array([b"gamma\0"], "S9"), b"gamma")
    for number, form in enumerate(forms):
        for make in (showers, challenge, geant4):
            path = make(tmp_path / f"{make.__name__}{number}.h5")
            with h5py.File(path, "a") as file:
                file.attrs["particle"] = form
            with calo_import.open_reader(path) as reader:
                assert reader.particle == "gamma"


def test_pileup_is_not_taken_for_hard_events(tmp_path: Path) -> None:
    path = image_file(tmp_path / "a.h5", says={"all_events": {"problem": np.array([b"pileup"])}})
    for name in ("rpv", "conditional"):
        problem = problem_class(name)(problem_class(name).Model())
        for use in (problem.open, problem.validate):
            with pytest.raises(InputError, match=f"holds events of problem pileup, not {name}"):
                use(path, "")
    assert problem_of(path) == "pileup"


def test_info_shows_converted_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((2, 64, 64))
    images[:, 3, 4] = 2500.0
    path = image_file(tmp_path / "a.h5", images, {"/": {"units": np.array(["GeV"], h5py.string_dtype())}})
    assert main(["data", "info", str(path), "--no-picture"]) == 0
    out, err = capsys.readouterr()
    assert "64 x 64 [eta, phi], MeV (GeV in the file)" in out
    assert "energy            2.5 +- 0 TeV an event" in out
    assert "brightest         2.5e+06 MeV in a pixel" in out
    assert err == f"note: {path}: all_events/hist is in GeV, converted to MeV\n"  # once
    image_file(path, images, {"/": {"axes": "phi, eta"}})
    assert main(["data", "info", str(path), "--no-picture"]) == 2


def test_overlay_reads_converted_images(tmp_path: Path) -> None:
    path = image_file(tmp_path / "a.h5", MEV / 1e3, {"all_events": {"units": "GeV"}})
    signal = open_signal(path, Use())
    np.testing.assert_allclose(signal.reader.read(2, 3), MEV[2:5], rtol=3e-7)
    signal.reader.close()


# --- anything ----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["units", "unit", "axes", "eta_range", "phi_range", "range", "bins", "image_shape", "mu", "problem", "complete",
     "settings", "particle", "scale_factor"]
)  # fmt: skip
TEXTS = st.sampled_from(["MeV", "GeV", "keV", "eta, phi", "phi, eta", "", "pileup", "64", "-2.5, 2.5"]) | st.text(
    max_size=8
)
NUMBERS = st.floats(width=32) | st.integers(-(2**40), 2**40) | st.booleans()
VALUES = (
    TEXTS.filter(lambda text: "\0" not in text)
    | TEXTS.map(lambda text: np.bytes_(text.encode("utf-8", "replace") + b" "))
    | TEXTS.filter(lambda text: "\0" not in text).map(lambda text: np.array([text], h5py.string_dtype()))
    | st.lists(TEXTS.map(lambda text: text.encode("utf-8", "replace") + b"x"), min_size=1, max_size=3).map(np.array)
    | st.binary(max_size=6).map(np.bytes_)
    | NUMBERS
    | st.lists(st.floats(width=32), min_size=1, max_size=4).map(np.array)
    | st.just(h5py.Empty("f4"))
    | st.just(np.zeros(2, [("a", "i4"), ("b", "f4")]))
    | st.just(np.void(b"\1\2"))
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["images", "pool", "showers", "maps"]),
    said=st.lists(st.tuples(st.integers(0, 2), WORDS, VALUES), min_size=1, max_size=3),
)
def test_any_attribute_gives_right_numbers_or_one_line(tmp_path: Path, kind: str, said: list[Any]) -> None:
    path = tmp_path / "a.h5"
    make, places, read = {
        "images": (image_file, ("all_events/hist", "all_events", "/"), lambda: problem_class("rpv").of_file(path)),
        "pool": (sparse, ("pool/energy", "pool", "/"), lambda: problem_class("pileup").of_file(path)),
        "showers": (showers, ("layer_0", "energy", "/"), lambda: problem_class("calogan").of_file(path)),
        "maps": (maps, ("samples/kappa", "samples", "/"), lambda: problem_class("cosmo").of_file(path)),
    }[kind]
    make(path)
    with h5py.File(path, "a") as file:
        for place, name, value in said:
            try:
                file[places[place]].attrs[name] = value
            except (ValueError, TypeError, UnicodeEncodeError):  # h5py cannot write it
                continue
    refused = None
    try:
        read()
        problem_of(path)
        look(path, kind)
    except InputError as error:
        refused = str(error)
    assert refused is None or (refused.startswith(str(path)) and "\n" not in refused and refused.encode("utf-8"))


def look(path: Path, kind: str) -> None:
    """Read a file whose attributes may say anything: its numbers are those of the unit that was understood."""
    if kind == "images":
        with hdf5.open_images(path) as opened:
            factor = opened.unit.times / opened.unit.over
            np.testing.assert_allclose(opened.read(), MEV * factor, rtol=1e-6)
            opened.text("problem")
            opened.number("mu")
    elif kind == "pool":
        with pool.open_pool(path) as events:
            factor = events.unit.times / events.unit.over
            np.testing.assert_allclose(events.read().energy, np.array([0.5, 1.0, 2.0]) * factor, rtol=1e-6)
            assert events.mu is None or 1 <= events.mu <= pool.MU_MAX
    elif kind == "showers":
        calo.validate(path)
    else:
        tensors.validate(path, map_schema(32))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("text", "text"),
        (b"text", "text"),
        (np.str_("text"), "text"),
        (np.bytes_(b"text  "), "text"),
        (np.array([b"text\0\0"]), "text"),
        (np.array([["text"]], object), "text"),
        (np.array([b"a", b"b "]), ["a", "b"]),
        (h5py.Empty("S4"), None),
        (np.array([], "S4"), None),
        (np.float32(2.5), 2.5),
        (np.bool_(True), True),
        (b"\xff", "�"),
        ("\udcff", "�"),
    ],
)
def test_plain_values(value: Any, wanted: Any) -> None:
    assert attributes.plain(value) == wanted


def test_numbers_of_attributes() -> None:
    for value in (3, 3.0, np.array([3]), np.array([[3.0]]), "3"):
        assert attributes.number(value, "x") == 3.0
    for value in (True, "three", [1, 2], np.array([1, 2]), float("nan"), None, "1e999", 10**400):
        with pytest.raises(InputError, match=r"^x is .*, not a number$"):
            attributes.number(value, "x")
