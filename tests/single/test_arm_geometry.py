"""Segmentations of a calorimeter layer: texts, spirals, sums of finer cells."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import FINE, Grid
from hpcgan.problems.arm.geometry import FINEST, LAYERS, PUBLISHED, Geometry, parse, parse_all


def image(geometry, values):
    """Numbers of cells as an image whose first row is below, as phi goes up."""
    return np.asarray(values).reshape(geometry.shape)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # When each cell's turn is; rows go up. The first is below and left of the centre, the next on its right.
        ("eta2_phi2", [[0, 1], [3, 2]]),
        ("eta4_phi4", [[6, 7, 8, 9], [5, 0, 1, 10], [4, 3, 2, 11], [15, 14, 13, 12]]),
        ("eta4_phi2", [[5, 0, 1, 6], [4, 3, 2, 7]]),  # walks on above and below, where there are no cells
        ("eta3_phi3", [[6, 7, 8], [5, 0, 1], [4, 3, 2]]),
        ("eta1_phi3", [[2], [0], [1]]),
        ("eta1+2_phi2", [[0, 1, 4], [3, 2, 5]]),  # the centre of the window, not of the image
    ],
)
def test_the_spiral_by_hand(text, expected):
    geometry = parse(text, "middle")
    turns = np.empty(geometry.n_cells, int)
    turns[geometry.spiral] = np.arange(geometry.n_cells)
    np.testing.assert_array_equal(image(geometry, turns), expected)


@pytest.mark.parametrize(("layer", "text"), [(layer, text) for layer in LAYERS for text in PUBLISHED[layer]])
def test_published_geometries_cover_the_window_and_begin_at_its_centre(layer, text):
    geometry = parse(text, layer)
    assert str(geometry) == text
    assert sorted(geometry.spiral) == list(range(geometry.n_cells))
    assert geometry.sizes.prod(axis=1).sum() == pytest.approx(480.0**2)
    first_four = geometry.centres[geometry.spiral[:4]]
    signs = [(-1, -1), (1, -1), (1, 1), (-1, 1)]  # counter-clockwise
    np.testing.assert_array_equal(np.sign(first_four), signs)


def test_the_published_geometries_are_those_of_the_paper():
    shapes = {layer: [parse(text, layer).shape[::-1] for text in PUBLISHED[layer]] for layer in LAYERS}
    eta, phi = [12 * 4, 12 * 16], [12 // 3, 12, 12 * 2, 12 * 4]
    assert shapes["inner"] == list(itertools.product(eta, phi))
    assert shapes["middle"] == [(12, 12), (48, 24), (48, 48), (36, 48)]
    assert shapes["outer"] == [(24, 24)]
    transition = parse(PUBLISHED["middle"][-1], "middle")
    along_eta = np.diff(transition.eta_edges)
    np.testing.assert_array_equal(along_eta, [20.0] * 12 + [10.0] * 24)
    assert parse("eta=-240:0:12,0:240:24_phi=-240:240:48", "middle") == transition
    edges = ",".join(f"{edge:g}" for edge in transition.eta_edges)
    assert parse(f"eta={edges}_phi48", "middle") == transition


@st.composite
def geometries(draw):
    """Any edges of the finest cells of a layer, with that layer."""
    layer = draw(st.sampled_from(LAYERS))
    axes = []
    for n in (FINEST[layer].n_eta, FINEST[layer].n_phi):
        inner = draw(st.sets(st.integers(1, n - 1), max_size=12))
        axes.append(tuple(480.0 * k / n - 240.0 for k in sorted({0, n, *inner})))
    return Geometry(*axes), layer


@given(geometries())
def test_any_geometry_survives_its_text_and_has_each_cell_once_on_its_spiral(drawn):
    geometry, layer = drawn
    assert parse(str(geometry), layer) == geometry
    assert " " not in str(geometry)
    assert sorted(geometry.spiral) == list(range(geometry.n_cells))


@given(geometries(), st.integers(0, 2**32 - 1))
def test_sums_of_fine_cells_are_those_of_the_energy_inside_each_cell(drawn, seed):
    geometry, layer = drawn
    fine = FINEST[layer]
    images = np.random.default_rng(seed).exponential(size=(2, *fine.shape)).astype(np.float32)
    expected = np.zeros((2, *geometry.shape))
    rows = np.searchsorted(geometry.phi_edges, fine.phi_centres) - 1
    columns = np.searchsorted(geometry.eta_edges, fine.eta_centres) - 1
    np.add.at(expected, (slice(None), rows[:, None], columns[None, :]), images)
    sums = geometry.sum_of(images, fine)
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, expected.reshape(2, -1), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "layer", "message"),
    [
        ("48x24", "middle", "write it as eta48_phi24"),
        ("eta48", "middle", "write it as"),
        ("eta0_phi4", "middle", "write it as"),
        ("eta=a_phi4", "middle", "write it as"),
        ("eta=-240:240:0_phi4", "middle", "write it as"),
        ("eta=-240:240_phi4", "middle", "write it as"),
        ("eta5_phi12", "middle", "eta = -144 mm is no edge of the finest cells of the middle layer, which are 10 mm"),
        ("eta48_phi24", "outer", "eta = -230 mm is no edge of the finest cells of the outer layer"),
        ("eta=-240,20,10,240_phi4", "middle", "eta: 10 mm follows 20 mm, so that cells overlap"),
        ("eta4_phi=-240,0", "middle", "phi: edges from -240 to 0 mm leave a gap"),
        ("eta=-200,240_phi4", "middle", "eta: edges from -200 to 240 mm leave a gap"),
        ("eta=nan,240_phi4", "middle", "finite"),
        ("eta=-240,inf_phi4", "middle", "finite"),
    ],
)
def test_bad_geometries_are_refused_with_what_is_wrong(text, layer, message):
    with pytest.raises(InputError, match=message) as failure:
        parse(text, layer)
    assert "\n" not in str(failure.value)


def test_lists_of_geometries():
    middle = parse_all(["published"], "middle")
    assert [str(geometry) for geometry in middle] == list(PUBLISHED["middle"])
    assert parse_all(["eta2_phi2", "published"], "outer")[1].shape == (24, 24)
    with pytest.raises(InputError, match="'eta=-240:240:24_phi24' is named twice"):
        parse_all(["published", "eta=-240:240:24_phi24"], "outer")
    with pytest.raises(InputError, match="no geometry"):
        parse_all([], "outer")


def test_finest_cells_are_those_of_the_fine_segmentation():
    assert {"inner": Grid(48, 192), "middle": Grid(48, 48), "outer": Grid(24, 24)} == FINEST
    assert tuple(FINEST.values()) == FINE.layers
