"""Files of showers in geometries: of parametrised and of Geant4 showers; what a training reads, and refuses."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from hpcgan.commands.cli import main
from hpcgan.data.generators import make_data_set
from hpcgan.data.layouts import tensors
from hpcgan.data.source import SyntheticSource
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import FINE
from hpcgan.problems.arm import files
from hpcgan.problems.arm.figures import _drawn
from hpcgan.problems.arm.generate import GeometryGenerator
from hpcgan.problems.arm.geometry import PUBLISHED, parse, parse_all, parts
from hpcgan.problems.arm.problem import ArmModel, ArmProblem
from hpcgan.problems.arm.quantities import quantities
from hpcgan.problems.calorimeter.generate import Beam, ShowerSet
from hpcgan.problems.calorimeter.importing import open_reader
from hpcgan.problems.figures import figures_of

GEANT4 = Path(__file__).parents[1] / "data" / "geant4_gamma.h5"
TWO = ("eta4_phi2", "eta1+2_phi3")


def write(folder, n=20, **options):
    options = {"segmentation": TWO, "energy": (1.0, 5.0), **options}
    if "showers" in options:
        del options["energy"]
    make_data_set(GeometryGenerator(**options).data_set(n, 3), folder)
    return folder


def whole(folder):
    """All samples of a folder, in their order."""
    parts = []
    for split in ("train", "val", "test"):
        with tensors.open_tensors(folder / f"{split}.h5") as file:
            parts.append(file.read())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def middle_images(n):
    """Fine images of the middle layer of the showers that `write` makes."""
    return ShowerSet(Beam("gamma", (1.0, 5.0), FINE), n, 3).make(_block(n), lambda done: None)["layer_1"]


def _block(n):
    (block,) = ShowerSet(Beam("gamma", (1.0, 5.0), FINE), n, 3).tasks()
    return block


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"))


def test_parametrised_showers_are_those_of_data_calo_and_geometries_take_turns(data):
    sample, images = whole(data), middle_images(20)
    np.testing.assert_array_equal(sample["geometry"], np.arange(20) % 2)
    assert sample["cells"].shape == (20, 9)
    for number, text in enumerate(TWO):
        geometry = parse(text, "middle")
        rows = np.arange(number, 20, 2)
        expected = geometry.sum_of(images[rows], FINE.layers[1])
        np.testing.assert_array_equal(sample["cells"][rows, : geometry.n_cells], expected)
        np.testing.assert_array_equal(sample["cells"][rows, geometry.n_cells :], 0.0)
    np.testing.assert_allclose(sample["cells"].sum(axis=1), images.sum(axis=(1, 2)), rtol=1e-5)


def test_splits_are_80_10_and_10_percent_and_all_of_a_shower_is_in_one(tmp_path):
    write(tmp_path, assignment="all")
    sizes = {}
    for split in ("train", "val", "test"):
        with h5py.File(tmp_path / f"{split}.h5") as file:
            sizes[split] = len(file["samples/geometry"])
            np.testing.assert_array_equal(file["samples/geometry"], np.arange(sizes[split]) % 2)
            assert file["samples"].attrs["layer"] == "middle"
            assert file["samples"].attrs["geometries"] == "eta4_phi2 eta1+2_phi3"
    assert sizes == {"train": 32, "val": 4, "test": 4}
    totals = whole(tmp_path)["cells"].sum(axis=1)
    np.testing.assert_allclose(totals[::2], totals[1::2], rtol=1e-5)  # the same shower in both geometries


@pytest.mark.parametrize("layer", ["inner", "outer"])
def test_geant4_showers_are_summed_from_their_file(tmp_path, layer):
    write(tmp_path, n=30, layer=layer, segmentation=("eta6_phi4", "eta=-240,0,40,240_phi2"), showers=str(GEANT4))
    with open_reader(GEANT4) as reader:
        images = next(iter(reader.pieces()))[f"layer_{['inner', 'middle', 'outer'].index(layer)}"][:30]
    sample = whole(tmp_path)
    np.testing.assert_allclose(sample["cells"].sum(axis=1), images.sum(axis=(1, 2)), rtol=1e-5)
    corner = images[0, : images.shape[1] // 4, : images.shape[2] // 6]
    assert sample["cells"][0, 0] == pytest.approx(corner.sum(), rel=1e-5)


def test_files_say_the_energy_of_the_particle(tmp_path):
    write(tmp_path / "some", assignment="all")
    energies = whole(tmp_path / "some")["incident_energy"]
    (block,) = ShowerSet(Beam("gamma", (1.0, 5.0), FINE), 20, 3).tasks()
    made = ShowerSet(Beam("gamma", (1.0, 5.0), FINE), 20, 3).make(block, lambda done: None)["energy"].reshape(-1)
    np.testing.assert_array_equal(energies, np.repeat(made, 2))
    subject = problem(sees_energy=True, first_cell="learned")
    subject.validate(tmp_path / "some", "train")
    np.testing.assert_array_equal(
        subject.open(tmp_path / "some", "train").conditions()["incident_energy"], energies[:32]
    )
    compared = ArmProblem.of_file(tmp_path / "some" / "train.h5")
    with compared.writer(tmp_path / "fake.h5", 16, {}) as append:  # of a model that does not see it
        append(compared.open(tmp_path / "some", "val").read(np.arange(4)))
        append(compared.open(tmp_path / "some", "train").read(np.arange(12)))
    assert ArmProblem.of_file(tmp_path / "fake.h5").model == compared.model
    assert set(compared.open(tmp_path / "some", "test").read(np.arange(2))) == {"cells", "geometry"}
    with h5py.File(tmp_path / "some" / "train.h5", "a") as file:
        file["samples/incident_energy"][3] = -2.0
    with pytest.raises(InputError, match="incident_energy of shower 3 is -2 GeV; it must be above 0"):
        subject.validate(tmp_path / "some", "train")
    with pytest.raises(InputError, match="incident_energy = 0 GeV: must be above 0"):
        subject.check_conditions({"geometry": np.zeros(2), "incident_energy": np.array([5.0, 0.0])})


def test_whole_showers_have_the_cells_of_all_layers(tmp_path):
    texts = ("eta6_phi4/eta4_phi2/eta2_phi2", "eta4_phi4/eta1+2_phi3/eta2_phi1")
    write(tmp_path, layer="whole", segmentation=texts)
    sample = whole(tmp_path)
    (block,) = ShowerSet(Beam("gamma", (1.0, 5.0), FINE), 20, 3).tasks()
    images = ShowerSet(Beam("gamma", (1.0, 5.0), FINE), 20, 3).make(block, lambda done: None)
    for number, text in enumerate(texts):
        rows, start = np.arange(number, 20, 2), 0
        for i, part in enumerate(text.split("/")):
            geometry = parse(part, ("inner", "middle", "outer")[i])
            expected = geometry.sum_of(images[f"layer_{i}"][rows], FINE.layers[i])
            np.testing.assert_array_equal(sample["cells"][rows, start : start + geometry.n_cells], expected)
            start += geometry.n_cells
    subject = problem(texts, layer="whole", architecture="boxes", hidden_units=2)
    subject.validate(tmp_path, "train")
    values = subject.observables(sample)
    assert set(values) == {*subject.quantities, "geometry"}
    assert len(subject.quantities) == 20
    alone = quantities(sample["cells"][::2, 24:32], parse("eta4_phi2", "middle"))
    np.testing.assert_allclose(values["energy_middle"].values[::2], alone["energy"])
    first = {name: values[name].values for name in ("mean_eta_inner", "mean_eta_middle", "mean_phi_inner")}
    distance = values["distance_inner_middle"].values
    assert len(distance) == len(first["mean_eta_inner"])
    steps = [values[f"mean_{axis}_middle"].values - values[f"mean_{axis}_inner"].values for axis in ("eta", "phi")]
    np.testing.assert_allclose(distance, np.hypot(*steps))
    assert values["distance_inner_middle"].unit == values["mean_eta_outer"].unit == "mm"
    assert values["energy_inner"].unit == "GeV"
    with pytest.raises(InputError, match=r"holds whole showers, model\.layer is middle"):
        problem().validate(tmp_path, "train")


def test_a_file_has_as_many_showers_as_it_has_and_cells_as_fine_as_needed(tmp_path):
    with pytest.raises(InputError, match="holds 400 showers: ask for --events 400 at most"):
        write(tmp_path / "many", n=401, showers=str(GEANT4))
    coarse = tmp_path / "coarse"
    make_data_set(ShowerSet(Beam("gamma", (1.0, 2.0)), 20, 1), coarse)
    with pytest.raises(InputError, match="has cells 3x96,12x12,12x6, needed are 48x192,48x48,24x24"):
        write(tmp_path / "coarser", n=12, showers=str(coarse / "train.h5"))
    with pytest.raises(InputError, match="--energy is of parametrised showers, but --showers"):
        GeometryGenerator(showers=str(GEANT4), energy="65").data_set(10, 1)
    with pytest.raises(InputError, match="9 showers: at least 10"):
        write(tmp_path / "few", n=9)


def test_the_command_line(tmp_path, capsys):
    words = ["data", "arm", "--events", "10", "--energy", "2", "--layer", "outer", "--out", str(tmp_path / "new")]
    assert main([*words, "--segmentation", "eta2_phi2", "--segmentation", "eta=-240:0:2,0:240:6_phi4"]) == 0
    assert main(["data", "info", "--no-picture", str(tmp_path / "new" / "train.h5")]) == 0
    assert "eta2_phi2 eta2+6_phi4" in capsys.readouterr().out
    assert main([*words[:-1], str(tmp_path / "bad"), "--segmentation", "eta5_phi4"]) == 2
    assert "eta = -144 mm is no edge of the finest cells of the outer layer" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


# --- what a training reads -----------------------------------------------------------------------------


def problem(geometries=TWO, **settings):
    return ArmProblem(ArmModel.model_validate({"geometries": geometries, **settings}))


def test_geometries_of_the_model_may_be_more_and_in_another_order(data):
    subject = problem(("eta12_phi12", "eta1+2_phi3", "eta4_phi2"))
    subject.validate(data, "train")
    source = subject.open(data, "train")
    sample, held = source.read(np.arange(16)), whole(data)
    np.testing.assert_array_equal(sample["geometry"], [2, 1] * 8)
    np.testing.assert_array_equal(source.conditions()["geometry"], [2, 1] * 8)
    assert sample["cells"].shape == (16, 144)
    np.testing.assert_array_equal(sample["cells"][:, :9], held["cells"][:16])
    np.testing.assert_array_equal(sample["cells"][:, 9:], 0.0)
    source.close()


@pytest.mark.parametrize(
    ("layer", "own", "coarser", "other"),
    [
        ("middle", "eta4_phi6", "eta2_phi3", "eta4_phi2"),
        ("whole", "eta6_phi4/eta4_phi2/eta2_phi2", "eta3_phi4/eta2_phi2/eta2_phi1", "eta6_phi4/eta1+2_phi3/eta2_phi2"),
    ],
)
def test_training_showers_are_also_seen_in_coarser_geometries(tmp_path, layer, own, coarser, other):
    write(tmp_path, n=60, layer=layer, segmentation=(own, other))
    settings = {"architecture": "boxes", "hidden_units": 2, "layer": layer}
    subject = problem((own, other, coarser), also_as=(coarser,), **settings)
    plain = problem((own, other, coarser), **settings).open(tmp_path, "train").read(np.arange(48))
    source = subject.open(tmp_path, "train")
    epochs = [source.read(np.arange(48), epoch) for epoch in (1, 2)]
    np.testing.assert_array_equal(epochs[0]["cells"][5:9], source.read(np.arange(5, 9), 1)["cells"])
    for sample in epochs:
        seen = sample["geometry"]
        assert 5 < np.sum(seen == 2) < 19  # of 24 showers that can be
        if layer == "middle":  # whose cells are none of the coarser one's sums
            np.testing.assert_array_equal(seen[1::2], 1)
        kept = seen != 2
        np.testing.assert_array_equal(sample["cells"][kept], plain["cells"][kept])
        np.testing.assert_allclose(sample["cells"].sum(axis=1), plain["cells"].sum(axis=1), rtol=1e-5)
    assert np.any(epochs[0]["geometry"] != epochs[1]["geometry"])
    if layer == "middle":
        row = int(np.flatnonzero(epochs[0]["geometry"] == 2)[0])
        image = plain["cells"][row, :24].reshape(6, 4)
        sums = image.reshape(3, 2, 2, 2).sum(axis=(1, 3))
        np.testing.assert_allclose(epochs[0]["cells"][row, :6], sums.ravel(), rtol=1e-6)
        np.testing.assert_array_equal(epochs[0]["cells"][row, 6:], 0.0)
    np.testing.assert_array_equal(subject.open(tmp_path, "val").read(np.arange(6))["geometry"], [0, 1] * 3)
    with pytest.raises(ValidationError, match=r"also_as: geometry 'eta2_phi2.*' is none of model\.geometries: add it"):
        problem((own,), also_as=("eta2_phi2" if layer == "middle" else "eta2_phi2/eta2_phi2/eta2_phi2",), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"geometries": ("eta4_phi2",)}, r"in the geometry eta1\+2_phi3, of which model.geometries does not say"),
        ({"layer": "outer"}, "holds the middle layer, model.layer is outer"),
        ({"categories": 10}, r"shower \d+ has a cell of .* MeV, the number \d+ where model.unit_mev is 1"),
    ],
)
def test_files_of_another_model_are_refused(data, settings, message):
    with pytest.raises(InputError, match=message) as failure:
        problem(**settings).validate(data, "train")
    assert str(data / "train.h5") in str(failure.value)


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("cells", (3, 1), -1.0, "cells of shower 3 holds a negative energy: -1 MeV"),
        ("cells", (2, 8), 1.0, "cells of shower 2 has energy beyond the 8 cells of its geometry eta4_phi2"),
        ("geometry", (5,), 2.0, "geometry of shower 5 is 2; the file names 2, from 0 on"),
        ("geometry", (5,), 0.5, "geometry of shower 5 is 0.5"),
        ("cells", (4, 0), np.nan, "samples/cells of sample 4 holds a value of nan"),
    ],
)
def test_damaged_showers_are_refused(tmp_path, name, row, value, message):
    write(tmp_path)
    with h5py.File(tmp_path / "train.h5", "r+") as file:
        file[f"samples/{name}"][row] = value
    with pytest.raises(InputError, match=message):
        problem().validate(tmp_path, "train")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("layer", "fourth", "attribute layer is 'fourth'; needed is inner, middle, outer"),
        ("geometries", "eta4_phi2 eta7_phi1", "attribute geometries: geometry eta7_phi1: eta = -171.429 mm is no edge"),
    ],
)
def test_files_that_do_not_say_their_geometries_are_refused(tmp_path, key, value, message):
    write(tmp_path)
    with h5py.File(tmp_path / "train.h5", "r+") as file:
        file["samples"].attrs[key] = value
    with pytest.raises(InputError, match=message):
        problem().open(tmp_path, "train")


def test_models_of_unknown_geometries_are_refused():
    with pytest.raises(ValidationError, match="geometries: geometry eta5_phi5: eta = -144 mm is no edge"):
        problem(("eta5_phi5",))
    with pytest.raises(InputError, match=r"geometry = 2: the model knows the cells of 0 \(eta4_phi2\), 1"):
        problem().check_conditions({"geometry": np.array([0.0, 2.0])})
    problem().check_conditions({"geometry": np.array([0.0, 1.0])})
    assert [str(geometry) for geometry in ArmModel(layer="inner").cells] == list(PUBLISHED["inner"])
    assert (ArmModel(layer="inner").depth, ArmModel().depth, ArmModel(dense_layers=2).depth) == (1, 5, 2)


def test_the_problem_of_a_file_and_a_file_of_the_problem(data, tmp_path):
    subject = ArmProblem.of_file(data / "val.h5")
    assert subject.model.cells == parse_all(TWO, "middle")
    sample = whole(data)
    with subject.writer(tmp_path / "fake.h5", 20, {}) as append:
        append(sample)
    assert files.read_geometries(tmp_path / "fake.h5") == ("middle", subject.model.cells)
    subject.validate(tmp_path / "fake.h5", "test")


def test_energies_are_rounded_square_roots():
    subject = problem(unit_mev=2.0)
    cells = np.array([[0.0, 0.4, 0.6, 2.0, 8.0, 12.6, 1800.0]], np.float32)
    encoded = subject.encode({"cells": cells, "geometry": np.zeros(1, np.float32)})
    np.testing.assert_array_equal(encoded["cells"], [[0, 0, 1, 1, 2, 3, 30]])
    np.testing.assert_allclose(subject.decode(encoded)["cells"], [[0, 0, 2, 2, 8, 18, 1800]])


def test_synthetic_samples_can_be_encoded():
    """Trainings that are timed without data have any numbers."""
    subject = problem()
    encoded = subject.encode(SyntheticSource(subject.schema, 300, 1).read(np.arange(300)))
    assert set(encoded["geometry"]) <= {0.0, 1.0}
    assert encoded["cells"].max() < subject.model.categories


# --- physics -------------------------------------------------------------------------------------------


def test_means_and_widths_by_hand():
    """Equations 1 and 2 of the paper, cell by cell; one cell with energy has no width, none no mean either."""
    geometry = parse("eta1+2_phi1", "middle")  # centres at -120, 60 and 180 mm
    cells = np.array([[1000.0, 0.0, 3000.0], [0.0, 500.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]])
    values = quantities(cells, geometry)
    np.testing.assert_allclose(values["energy"], [4.0, 0.5, 0.0, 0.004])
    np.testing.assert_allclose(values["occupancy"], [2 / 3, 1 / 3, 0.0, 1.0])
    np.testing.assert_allclose(values["mean_eta"], [105.0, 60.0, np.nan, 45.0])
    squares = [(1000 * 225.0**2 + 3000 * 75.0**2) / (0.5 * 4000), (165.0**2 + 2 * 15.0**2 + 135.0**2) / (2 / 3 * 4)]
    np.testing.assert_allclose(values["width_eta"], [np.sqrt(squares[0]), np.nan, np.nan, np.sqrt(squares[1])])
    np.testing.assert_allclose(values["mean_phi"], [0.0, 0.0, np.nan, 0.0])


def test_observables_are_those_of_each_geometry(data):
    subject, sample = problem(), whole(data)
    observed = subject.observables(sample)
    assert set(observed) == {"energy", "occupancy", "mean_eta", "mean_phi", "width_eta", "width_phi", "geometry"}
    assert observed["geometry"].condition
    for number, geometry in enumerate(subject.model.cells):
        rows = np.arange(number, 20, 2)
        alone = quantities(sample["cells"][rows, : geometry.n_cells], geometry)
        np.testing.assert_array_equal(observed["occupancy"].values[rows], alone["occupancy"])
        np.testing.assert_array_equal(observed["mean_eta"].take(rows).values, alone["mean_eta"])


def test_figures_draw_cells_where_they_are_and_hold_their_energy(data):
    subject = problem()
    figures = figures_of(subject)
    geometry = subject.model.cells[1]  # 1 + 2 cells in eta, 3 in phi
    cells = np.zeros((1, 9))
    cells[0, 1 * 3 + 2] = 16.0 * 24.0 / 2  # middle row, outermost right column: 12 x 16 of the finest cells
    drawn = _drawn(cells, parts(geometry, "middle")[0])[0]  # (eta, phi)
    expected = np.zeros((48, 48))
    expected[36:, 16:32] = 1.0
    np.testing.assert_allclose(drawn, expected)
    sample = whole(data)
    panels = figures.compare(sample, sample)
    names = [name for name, *_ in panels]
    assert names == [
        "distributions_eta4_phi2", "mean_eta4_phi2", "distributions_eta1+2_phi3", "mean_eta1+2_phi3", "showers",
    ]  # fmt: skip
    assert figures.measurements(sample, sample) == {"mean_images": {"eta4_phi2": 0.0, "eta1+2_phi3": 0.0}}
    twice = {**sample, "cells": 2 * sample["cells"]}
    assert figures.measurements(sample, twice)["mean_images"]["eta4_phi2"] == pytest.approx(1.0)
