"""Shower-shape variables against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.physics import shower_shapes
from hpcgan.physics.calorimeter import PUBLISHED, Grid, Segmentation

SEGMENTATION = Segmentation((Grid(1, 4), Grid(2, 2), Grid(2, 1)))
# Columns of layer 0 at -180, -60, 60, 180 mm; rows and columns of layer 1 at -120, 120 mm.
IMAGES = [
    np.array([[[0, 3, 1, 0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]], np.float32),
    np.array([[[4, 2], [0, 0]], [[0, 0], [0, 8]], [[0, 0], [0, 0]]], np.float32),
    np.array([[[0], [10]], [[0], [0]], [[0], [0]]], np.float32),
]


def test_layer_energies_and_fractions() -> None:
    energies = shower_shapes.layer_energies(IMAGES)
    assert energies.tolist() == [[4, 6, 10], [0, 8, 0], [0, 0, 0]]
    assert shower_shapes.layer_fractions(energies)[:2].tolist() == [[0.2, 0.3, 0.5], [0, 1, 0]]
    assert np.isnan(shower_shapes.layer_fractions(energies)[2]).all()


def test_depths() -> None:
    energies = shower_shapes.layer_energies(IMAGES)
    np.testing.assert_array_equal(shower_shapes.depth(energies), [2, 1, np.nan])
    assert shower_shapes.depth(np.array([[3.0, 0.0, 0.0]])).tolist() == [0]
    assert shower_shapes.depth_weighted_energy(energies).tolist() == [6 + 20, 8, 0]
    np.testing.assert_array_equal(shower_shapes.shower_depth(energies), [1.3, 1, np.nan])
    # (6 + 4 * 10) / 20 - 1.3^2 = 0.61
    np.testing.assert_allclose(shower_shapes.shower_depth_width(energies), [np.sqrt(0.61), 0, np.nan], atol=1e-12)


def test_lateral_widths_know_their_axis() -> None:
    eta, phi = SEGMENTATION.layers[1].eta_centres, SEGMENTATION.layers[1].phi_centres
    first = shower_shapes.lateral_width(IMAGES[0], SEGMENTATION.layers[0].eta_centres, "eta")
    # Three quarters at -60, one at 60 mm: 120 sqrt(3/4 * 1/4).
    np.testing.assert_allclose(first, [120 * np.sqrt(3) / 4, np.nan, np.nan])
    # Columns: 4 at -120 and 2 at 120 mm; rows: all in one.
    np.testing.assert_allclose(shower_shapes.lateral_width(IMAGES[1], eta, "eta"), [240 * np.sqrt(2) / 3, 0, np.nan])
    np.testing.assert_allclose(shower_shapes.lateral_width(IMAGES[1], phi, "phi"), [0, 0, np.nan])


def test_energy_ratio_and_occupancy() -> None:
    np.testing.assert_allclose(shower_shapes.energy_ratio(IMAGES[0]), [0.5, np.nan, np.nan])
    np.testing.assert_allclose(shower_shapes.energy_ratio(IMAGES[1]), [1 / 3, 1, np.nan])
    assert shower_shapes.energy_ratio(np.full((1, 1, 1), 7.0)).tolist() == [1]
    assert shower_shapes.occupancy(IMAGES[1]).tolist() == [0.5, 0.25, 0]


def test_all_of_them() -> None:
    found = shower_shapes.shower_shapes(IMAGES, SEGMENTATION)
    assert list(found)[:5] == ["total", "depth_weighted", "fraction_0", "fraction_1", "fraction_2"]
    assert len(found) == 8 + 4 * 3
    assert all(values.shape == (3,) for values in found.values())
    assert found["total"].tolist() == [0.02, 0.008, 0]  # GeV
    assert found["depth_weighted"][0] == pytest.approx(0.026)
    assert found["width_phi_2"][0] == 0
    assert found["ratio_2"][0] == 1


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_only_energies_scale(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    images = [rng.exponential(1, (3, *shape)) * (rng.random((3, *shape)) < 0.5) for shape in PUBLISHED.shapes]
    one = shower_shapes.shower_shapes(images, PUBLISHED)
    other = shower_shapes.shower_shapes([factor * image for image in images], PUBLISHED)
    for name in one:
        scale = factor if name in ("total", "depth_weighted") else 1
        np.testing.assert_allclose(other[name], scale * one[name], rtol=1e-6, atol=1e-6)
    mirrored = shower_shapes.shower_shapes([image[:, :, ::-1] for image in images], PUBLISHED)
    for name in one:
        np.testing.assert_allclose(mirrored[name], one[name], rtol=1e-6, atol=1e-6)
    assert (one["width_eta_0"] <= 240).all()
