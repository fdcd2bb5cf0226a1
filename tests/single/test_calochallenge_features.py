"""What the CaloChallenge's classifiers see of showers, against loops over voxels; separation powers by hand."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcgan.calochallenge import features, histograms, showers
from hpcgan.calochallenge.geometry import Geometry, Layer, of_segmentation, published
from hpcgan.calochallenge.showers import Showers
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import PUBLISHED, Segmentation
from hpcgan.problems.calorimeter.calogan import CaloganModel, CaloganProblem

DATA = Path(__file__).parents[1] / "data"
GEOMETRY = Geometry(
    "small", (Layer.of_cylinder(0, [0, 10, 30], 1), Layer.of_cylinder(4, [0, 2, 6, 9], 5)), 0.1, wide=(4,)
)


def some(n=40, seed=1, geometry=GEOMETRY):
    """Showers with empty voxels, of which the first has an empty layer."""
    rng = np.random.default_rng(seed)
    voxels = rng.gamma(0.5, 20.0, (n, geometry.n_voxels)) * (rng.random((n, geometry.n_voxels)) < 0.7)
    voxels[0, geometry.slices[1]] = 0.0
    return Showers(10 ** rng.uniform(2.0, 3.0, n), voxels.astype(np.float32))


def test_low_level_by_hand():
    found = features.low_level(Showers(np.array([1000.0]), np.array([[5.0, 0.0, 20.0]], np.float32)))
    assert found.tolist() == [[3.0, pytest.approx(0.5), 0.0, pytest.approx(2.0)]]
    assert found.dtype == np.float32


def test_high_level_is_what_loops_over_voxels_find():
    """An implementation of its own: each shower, layer and voxel by itself, from the definitions."""
    sample = some()
    found = features.high_level_inputs(sample, features.high_level(sample, GEOMETRY))
    names = features.input_names(GEOMETRY)
    assert names == [
        *(
            "log10_energy",
            "log10_layer_0",
            "log10_layer_4",
            "centre_eta_4",
            "centre_phi_4",
            "width_eta_4",
            "width_phi_4",
        )
    ]
    for shower, row in zip(zip(sample.energy, sample.voxels.astype(float), strict=True), found, strict=True):
        energy, voxels = shower
        inner, outer = voxels[:2], voxels[2:]
        expected = [math.log10(energy), math.log10(sum(inner) + 1e-8), math.log10(sum(outer) + 1e-8)]
        moments = {"eta": [0.0, 0.0], "phi": [0.0, 0.0]}
        for place, e in enumerate(outer):
            angle, ring = divmod(place, 3)
            alpha = -math.pi + 2 * math.pi * (angle + 0.5) / 5
            radius = [1.0, 4.0, 7.5][ring]
            for axis, x in (("eta", radius * math.cos(alpha)), ("phi", radius * math.sin(alpha))):
                moments[axis][0] += e * x
                moments[axis][1] += e * x * x
        total = sum(outer) or 1.0
        centres = [moments[axis][0] / total for axis in ("eta", "phi")]
        widths = [
            math.sqrt(max(moments[axis][1] / total - centre**2, 0.0))
            for axis, centre in zip(("eta", "phi"), centres, strict=True)
        ]
        assert row == pytest.approx([*expected, *(length / 100 for length in (*centres, *widths))], rel=1e-6, abs=1e-9)
    assert found[0, 2] == -8.0  # an empty layer
    assert found[0, 3:].tolist() == [0, 0, 0, 0]


def test_pieces_make_no_difference(monkeypatch):
    sample = some(10)
    whole = features.high_level(sample, GEOMETRY)
    monkeypatch.setattr(features, "CHUNK", 3)
    for name, values in vars(features.high_level(sample, GEOMETRY)).items():
        assert np.allclose(values, getattr(whole, name), rtol=1e-12, atol=1e-12), name


def test_a_single_voxel_has_a_centre_and_no_width():
    geometry = published(6480)
    voxels = np.zeros((1, 6480), np.float32)
    voxels[0, 3 * 144 + 5 * 9 + 2] = 700.0  # layer 3, angle 5, ring 2
    found = features.high_level(Showers(np.array([1000.0]), voxels), geometry)
    alpha, radius = -math.pi + 2 * math.pi * 5.5 / 16, 4.65 * 2.5
    assert found.centre_eta[0, 3] == pytest.approx(radius * math.cos(alpha))
    assert found.centre_phi[0, 3] == pytest.approx(radius * math.sin(alpha))
    assert found.width_eta[0, 3] == pytest.approx(0.0, abs=1e-5)
    assert found.response.tolist() == [pytest.approx(0.7)]
    assert found.layers[0].nonzero()[0].tolist() == [3]


def test_calogan_showers_have_the_moments_of_their_images():
    """The widths in eta and phi are those that CaloGAN's own shower shapes have (`lateral_width`)."""
    rng = np.random.default_rng(3)
    sample = {f"layer_{i}": rng.gamma(0.5, 9.0, (6, *shape)) for i, shape in enumerate(PUBLISHED.shapes)}
    sample["energy"] = np.full(6, 50.0)
    geometry = of_segmentation(PUBLISHED)
    found = features.high_level(showers.of_sample(sample, PUBLISHED), geometry)
    shapes = CaloganProblem(CaloganModel()).observables(sample)
    for layer in range(3):
        for axis, widths in (("eta", found.width_eta), ("phi", found.width_phi)):
            assert widths[:, layer] == pytest.approx(shapes[f"width_{axis}_{layer}"].values, rel=1e-4)
    assert found.response == pytest.approx(shapes["response"].values)


# --- separation powers -----------------------------------------------------------------------------


def test_separation_by_hand():
    """Shares 1/2, 1/2, 0 and 1/4, 1/4, 1/2; what lies outside is left out on either side before that."""
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    first, second = np.array([0.5, 1.5, 7.0]), np.array([0.5, 1.5, 2.5, 2.5, -1.0, 9.0, 9.0])
    assert histograms.separation(first, second, edges) == pytest.approx(0.5 * (1 / 12 + 1 / 12 + 1 / 2))
    assert histograms.separation(first, first + 10.0, edges) is None


def test_separations_of_equal_and_of_disjoint_showers():
    sample = some(300)
    sides = [(sample, features.high_level(sample, GEOMETRY))]
    dim = Showers(sample.energy, sample.voxels * np.float32(1e-3))  # all layers below the first bin but few
    sides.append((dim, features.high_level(dim, GEOMETRY)))
    same = histograms.separations(GEOMETRY, sides[0], sides[0])
    assert set(same.values()) == {0.0}
    lengths = [f"{kind}_4" for kind in ("centre_eta", "centre_phi", "width_eta", "width_phi")]
    assert list(same) == ["response", "layer_0", "layer_4", *lengths, "voxels"]
    other = histograms.separations(GEOMETRY, sides[0], sides[1])
    assert other["layer_0"] > 0.9
    assert other["centre_eta_4"] == pytest.approx(0.0, abs=1e-2)  # a scale moves no centre
    assert other["response"] is None


def test_bins_are_the_challenge_s():
    """Edges by the dataset: the least energies of `evaluate.py`, the windows of `evaluate_plotting_helper.py`."""
    assert (published(368).least_mev, published(368).window_mm, published(368).wide) == (10.0, 100.0, (12, 13))
    assert (published(6480).least_mev, published(40500).window_mm) == (pytest.approx(0.01515, abs=1e-5), 30.0)
    assert published(533).energies[0], published(533).energies[-1] == (256.0, 2.0**23)
    assert histograms.logarithmic(10.0, 1e5, 40) == pytest.approx(10 ** np.linspace(1, 5, 40))
    assert histograms.logarithmic(10.0, 10.0, 40) is None
    assert [len(edges) for edges in (histograms.RESPONSE, histograms.RESPONSE_AT, histograms.NARROW_AT)] == [
        101,
        21,
        21,
    ]


def test_response_at_each_energy_of_data_set_1():
    """At 256 MeV from 0.4 to 1.4; from the fifth energy of photons on from 0.9 to 1.1."""
    geometry = published(368)
    energy = np.repeat([256.0, 4096.0], 50)
    voxels = np.zeros((100, 368), np.float32)
    voxels[:, 0] = 0.8 * energy
    sample = Showers(energy, voxels)
    side = sample, features.high_level(sample, geometry)
    found = histograms.separations(geometry, side, side)
    assert found["response_at_256_mev"] == 0.0
    assert found["response_at_4096_mev"] is None  # outside of the narrow bins
    assert found["response_at_512_mev"] is None  # no shower
    assert sum(name.startswith("response_at") for name in found) == 15


# --- files ------------------------------------------------------------------------------------------


def write(path, energies, voxels, **attributes):
    with h5py.File(path, "w") as file:
        file["incident_energies"], file["showers"] = energies, voxels
        file.attrs.update(attributes)
    return path


def test_files_of_the_challenge_and_of_calogan(tmp_path):
    rng = np.random.default_rng(4)
    energies, voxels = rng.uniform(1e3, 1e5, (5, 1)), rng.random((5, 368))
    challenge = write(tmp_path / "a.hdf5", energies, voxels)
    found, geometry = showers.read(challenge, None, 3)
    assert (geometry.title, len(found)) == ("CaloChallenge data set 1, photons", 3)
    assert found.energy == pytest.approx(energies[:3, 0])
    assert found.voxels == pytest.approx(voxels[:3])
    cut, _ = showers.read(challenge, None, None, 0.5)
    assert np.array_equal(cut.voxels > 0, voxels.astype(np.float32) >= np.float32(0.5))
    cells, of_cells = showers.read(write(tmp_path / "b.hdf5", energies, rng.random((5, 504))), None, None)
    assert (of_cells.title, cells.voxels.shape) == (f"CaloGAN, {PUBLISHED} cells", (5, 504))
    assert cells.energy == pytest.approx(energies[:, 0], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, v: (-e, v), "the incident energy of shower 0 is -1000 MeV; it must be above 0"),
        (lambda e, v: (e, v - 1.0), "shower 1 has a voxel of -0.5 MeV; energies must not be negative .--cut"),
        (lambda e, v: (e, v * [[1.0], [1.0], [np.nan]]), "voxels of shower 2 are not finite"),
        (lambda e, v: (e, v[:, :7]), "showers has 7 voxels, another segmentation"),
        (lambda e, v: (e[:2], v), "showers has 3 samples but incident_energies has 2"),
        (lambda e, v: (e[:, 0], v), r"incident_energies has shape \(3,\)"),
        (lambda e, v: (e, v[:, 0]), r"needed are incident_energies \(N, 1\) and showers \(N, voxels\)"),
    ],
)
def test_broken_files(tmp_path, change, message):
    voxels = np.ones((3, 368))
    voxels[1, 3] = 0.5
    path = write(tmp_path / "a.hdf5", *change(np.full((3, 1), 1000.0), voxels))
    with pytest.raises(InputError, match=message) as error:
        showers.read(path, None, None)
    assert str(error.value).startswith(str(path))


def test_a_binning_is_for_files_of_the_challenge(tmp_path):
    path = tmp_path / "a.h5"
    cells = Segmentation(PUBLISHED.layers)
    with h5py.File(path, "w") as file:
        for i, shape in enumerate(cells.shapes):
            file[f"layer_{i}"] = np.ones((2, *shape))
        file["overflow"], file["energy"] = np.zeros((2, 3)), np.full((2, 1), 5.0)
    with pytest.raises(InputError, match="to which --binning does not apply"):
        showers.read(path, tmp_path / "x.xml", None)
    sample, geometry = showers.read(path, None, None)
    assert geometry.title == f"CaloGAN, {cells} cells"
    assert (sample.energy.tolist(), sample.voxels.tolist()) == ([5000.0] * 2, [[1.0] * 504] * 2)


def test_showers_of_geant4():
    """Energies in one unit: what the cells hold is less than the incident energy, but most of it."""
    sample, geometry = showers.read(DATA / "geant4_gamma.h5", None, 50)
    assert (len(sample), geometry.n_voxels) == (50, sample.voxels.shape[1])
    assert 0.7 < np.median(sample.voxels.sum(axis=1) / sample.energy) < 1.0
