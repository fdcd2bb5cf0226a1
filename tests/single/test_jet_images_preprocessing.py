"""Images of jets: turned, mirrored, and what interpolation must keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgan.physics import jets
from hpcgan.problems.jet_images import preprocessing
from hpcgan.problems.jet_images.preprocessing import brighter_side_right, images_of, turned
from hpcgan.problems.jet_images.trimming import TrimmedJets

ROTATIONS = ("cubic", "cells")


def jet_of(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, second: tuple[float, float] | None) -> TrimmedJets:
    """A jet by its cells, with its axis at the origin."""
    cells = jets.Particles(np.zeros(1, int), np.array([len(pt)]), pt * np.cos(phi), pt * np.sin(phi),
                           pt * np.sinh(eta), pt * np.cosh(eta))  # fmt: skip
    momentum = np.array([[cells.px.sum(), cells.py.sum(), cells.pz.sum(), cells.e.sum()]])
    return TrimmedJets(momentum, np.zeros((1, 2)), np.array([second or (np.nan, np.nan)]), cells)


# --- turning an image ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse() -> np.ndarray:
    """(5, 25, 25)"""
    rng = np.random.default_rng(3)
    return rng.exponential(10.0, (5, 25, 25)) * (rng.random((5, 25, 25)) < 0.05)


@pytest.mark.parametrize("quarters", [-1, 0, 1, 2, 3])
def test_quarters_of_a_turn_are_exact(sparse: np.ndarray, quarters: int) -> None:
    """Anticlockwise, as NumPy turns arrays whose rows go down."""
    expected = np.rot90(sparse, quarters, axes=(1, 2))
    np.testing.assert_allclose(turned(sparse, np.full(5, quarters * np.pi / 2)), expected, atol=1e-9)


def test_each_image_has_its_own_angle(sparse: np.ndarray) -> None:
    angles = np.array([0.0, 0.3, 1.0, -2.0, np.pi])
    together = turned(sparse, angles)
    for i in range(5):
        np.testing.assert_array_equal(together[i], turned(sparse[i : i + 1], angles[i : i + 1])[0])


def test_quadratic_images_are_reproduced() -> None:
    """Cubic convolution with a = -1/2 has no error of second order (Keys, section IV)."""
    down, right = np.indices((25, 25)) - 12.0

    def image(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return 300 + 2 * row - 3 * column + 0.5 * row**2 - 0.25 * row * column + 0.75 * column**2

    angle = 0.7
    result = turned(image(down, right)[None], np.array([angle]))[0]
    # The value at a place comes from the place that is turned there: by -angle, with rows that go down.
    row, column = (np.cos(angle) * down + np.sin(angle) * right, -np.sin(angle) * down + np.cos(angle) * right)
    inside = np.hypot(down, right) < 10
    np.testing.assert_allclose(result[inside], image(row, column)[inside], rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(-7.0, 7.0))
@settings(max_examples=30, deadline=None)
def test_no_pixel_is_negative_or_brighter_than_before(seed: int, angle: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.exponential(1.0, (1, 25, 25)) * (rng.random((1, 25, 25)) < 0.1)
    result = turned(image, np.array([angle]))
    assert result.min() >= 0
    assert result.max() <= image.max()
    np.testing.assert_allclose(turned(7 * image, np.array([angle])), 7 * result, rtol=1e-12)


def test_a_single_pixel_stays_near() -> None:
    """Its light reaches two pixels at most, so an image of a few cells stays dark elsewhere."""
    image = np.zeros((1, 25, 25))
    image[0, 12, 18] = 5.0  # at 6 pixels to the right
    result = turned(image, np.array([np.pi / 3]))[0]
    rows, columns = np.nonzero(result)
    assert np.hypot(rows - (12 - 6 * np.sin(np.pi / 3)), columns - (12 + 6 * np.cos(np.pi / 3))).max() < 2 * 2**0.5
    assert result.sum() > 4


# --- mirrors -------------------------------------------------------------------------------------


def test_the_brighter_half_is_right() -> None:
    images = np.zeros((3, 25, 25))
    images[:, 3, 2], images[:, 20, 22] = [5.0, 1.0, 1.0], [1.0, 5.0, 1.0]
    images[:, 7, 12] = 99.0  # of neither half
    result = brighter_side_right(images)
    np.testing.assert_array_equal(result[0], images[0, :, ::-1])
    np.testing.assert_array_equal(result[1:], images[1:])  # brighter already, and equal


# --- whole images --------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("angle", [0.0, 1.0, np.pi / 2, 2.5, np.pi, -1.0, -np.pi / 2, -3.0])
def test_the_second_subjet_is_below(rotation: preprocessing.Rotation, angle: float) -> None:
    """A prong at 0.5 from a harder one: five pixels below the centre, whatever its direction was."""
    second = (0.5 * np.cos(angle), 0.5 * np.sin(angle))
    jet = jet_of(np.array([200.0, 80.0]), np.array([0.0, second[0]]), np.array([0.0, second[1]]), second)
    image = images_of(jet, rotation)[0]
    assert image[12, 12] > 150
    below = image[15:20, 10:15]
    assert below.sum() > 60
    rows = (below.sum(axis=1) * np.arange(15, 20)).sum() / below.sum()
    assert rows == pytest.approx(17, abs=0.6)
    assert image[:10].sum() == pytest.approx(0, abs=1e-3)


def test_cells_keep_their_pt_and_the_image_does_not_depend_on_the_direction() -> None:
    rng = np.random.default_rng(5)
    pt, radius, angle = rng.exponential(10, 40), 0.8 * rng.random(40), rng.uniform(-np.pi, np.pi, 40)
    images = []
    for turn in (0.0, 0.9, -2.3):
        for side in (1, -1):  # and the mirror image of the jet
            places = radius * np.cos(angle + turn), side * radius * np.sin(angle + turn)
            second = (0.4 * np.cos(0.3 + turn), side * 0.4 * np.sin(0.3 + turn))
            images.append(images_of(jet_of(pt, *places, second), "cells")[0])
    for image in images:
        assert image.sum() == pytest.approx(pt.sum(), rel=1e-6)
        np.testing.assert_allclose(image, images[0], atol=1e-4)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_without_a_second_subjet_the_fainter_half_is_below(rotation: preprocessing.Rotation) -> None:
    """Cells along a line: 110 GeV on the one side of their mean at 0.18, 60 on the other, which has the far one."""
    place = np.array([0.0, 0.1, 0.2, 0.3, 0.8])
    pt = np.array([60.0, 50.0, 20.0, 20.0, 20.0])
    for direction in (0.4, -2.0, 3.0):
        image = images_of(jet_of(pt, place * np.cos(direction), place * np.sin(direction), None), rotation)[0]
        assert image[11:].sum() > 0.99 * image.sum()
        assert image[19:22, 11:14].sum() > 10


def test_what_is_outside_is_left_out() -> None:
    jet = jet_of(np.array([200.0, 80.0]), np.array([0.0, 1.3]), np.zeros(2), (1.3, 0.0))
    assert images_of(jet, "cells").sum() == pytest.approx(200.0)
    jet = jet_of(np.array([200.0, 80.0]), np.array([0.0, 1.2]), np.zeros(2), (1.2, 0.0))
    assert images_of(jet, "cells")[0, 24, 12] == pytest.approx(80.0)


def test_no_jets_have_no_images() -> None:
    nothing = jets.Particles(np.zeros(0, int), np.zeros(0, int), *(np.zeros(0),) * 4)
    none = TrimmedJets(np.zeros((0, 4)), np.zeros((0, 2)), np.zeros((0, 2)), nothing)
    for rotation in ROTATIONS:
        assert images_of(none, rotation).shape == (0, 25, 25)
