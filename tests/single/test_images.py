"""Towers into pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.physics.images import ETA_RANGE, N_ETA, N_PHI, PHI_RANGE, bin_towers, pixel_index, wrap


def test_known_pixels() -> None:
    # eta bins are 5/64 = 0.078125 wide, phi bins 6.3/64 = 0.0984375.
    images = bin_towers([0, 0, 2], [-2.5, 0.0, 2.5], [-3.15, 0.0, 3.15], [1.0, 2.0, 3.0], 3)
    assert images.dtype == np.float32
    assert images.shape == (3, 64, 64)
    assert images[0, 0, 0] == 1000.0
    assert images[0, 32, 32] == 2000.0
    assert images[2, 63, 63] == 3000.0  # the last bins include their upper edges
    assert np.count_nonzero(images) == 3


def test_axes_are_eta_then_phi() -> None:
    image = bin_towers([0], [2.4], [-3.0], [1.0], 1)[0]
    assert np.argwhere(image).tolist() == [[62, 1]]


def test_towers_outside_are_left_out() -> None:
    assert not bin_towers([0, 0, 0], [2.51, -2.6, np.nan], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 1).any()
    assert pixel_index([0.0, 3.0], [0.0, 0.0]).tolist() == [32 * 64 + 32, -1]


def test_towers_of_a_pixel_add_up() -> None:
    image = bin_towers([0] * 3, [0.01, 0.02, 0.03], [0.01, 0.02, 0.03], [0.5, 1.0, 2.0], 1)[0]
    assert image[32, 32] == 3500.0


@pytest.mark.parametrize("n_events", [0, 1, 4])
def test_no_towers(n_events: int) -> None:
    images = bin_towers([], [], [], [], n_events)
    assert images.shape == (n_events, N_ETA, N_PHI)
    assert not images.any()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.floats(-3, 3),
            st.floats(-np.pi, np.pi),
            st.floats(1e-3, 1e4),
        ),
        max_size=60,
    )
)
def test_agrees_with_numpy_histograms(towers: list[tuple[int, float, float, float]]) -> None:
    event, eta, phi, energy = (
        (np.array(column) for column in zip(*towers, strict=True)) if towers else (np.zeros(0),) * 4
    )
    images = bin_towers(event, eta, phi, energy, 5)
    for number in range(5):
        of = event == number
        expected, _, _ = np.histogram2d(
            eta[of], phi[of], bins=(N_ETA, N_PHI), range=(ETA_RANGE, PHI_RANGE), weights=1e3 * energy[of]
        )
        np.testing.assert_allclose(images[number], expected, rtol=1e-6)


@pytest.mark.parametrize("turns", [-3, -1, 1, 2])
def test_whole_turns_do_not_matter(turns: int) -> None:
    phi = np.linspace(-3.1, 3.1, 40)
    one, other = (
        bin_towers(np.zeros(40, int), np.zeros(40), angle, np.ones(40), 1) for angle in (phi, phi + 2 * np.pi * turns)
    )
    np.testing.assert_array_equal(one, other)
    assert other.sum() == 40_000.0


def test_wrapped_angles() -> None:
    kept = np.array([-np.pi, -1.0, 0.0, 3.0, np.pi, np.float32(np.pi)])
    assert wrap(kept).tobytes() == kept.tobytes()
    np.testing.assert_allclose(
        wrap([3.145, -3.145, 7.0, 100.0]), [3.145 - 2 * np.pi, 2 * np.pi - 3.145, 7 - 2 * np.pi, 100 - 32 * np.pi]
    )
    assert np.isnan(wrap([np.nan, np.inf, -np.inf])).all()
