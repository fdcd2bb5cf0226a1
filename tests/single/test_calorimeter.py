"""The calorimeter: effective medium against closed forms, segmentations and their sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import (
    CALORIMETER,
    FINE,
    HALF_SIDE,
    LAYER_EDGES,
    LEAD,
    LIQUID_ARGON,
    PLANES,
    PUBLISHED,
    Grid,
    Sampling,
    Segmentation,
    parse_segmentation,
)


def test_the_cube_is_filled() -> None:
    assert PLANES * CALORIMETER.pitch == 2 * HALF_SIDE == 480
    assert (LAYER_EDGES[0], LAYER_EDGES[-1]) == (-HALF_SIDE, HALF_SIDE)


def test_materials() -> None:
    """2.66 (X0 Z / A)^1.1 by hand; plasma energies as the Particle Data Group lists them: 61.07 and 22.85 eV."""
    assert LEAD.critical_energy == pytest.approx(2.66 * (6.37 * 82 / 207.2) ** 1.1)
    assert LEAD.critical_energy == pytest.approx(7.3553, abs=1e-4)
    assert LIQUID_ARGON.critical_energy == pytest.approx(29.127, abs=1e-3)
    assert LEAD.plasma_energy == pytest.approx(61.07, abs=0.01)
    assert LIQUID_ARGON.plasma_energy == pytest.approx(22.85, abs=0.01)


def test_effective_medium_by_hand() -> None:
    # 22.7 and 5.584 g/cm^2 (times 0.1) in a pair of plates: shares of 0.802574 and 0.197426 of the mass.
    lead, argon = 0.802574, 0.197426
    assert CALORIMETER.density == pytest.approx(28.284 / 6)
    assert CALORIMETER.z == pytest.approx(82 * lead + 18 * argon, rel=1e-5)
    per_length = lead / 6.37 + argon / 19.55
    assert CALORIMETER.radiation_length == pytest.approx(10 / per_length / 4.714, rel=1e-5)
    assert CALORIMETER.radiation_length == pytest.approx(15.588, abs=0.001)
    mixed = lead * 7.35532 / 6.37 + argon * 29.12717 / 19.55
    assert CALORIMETER.critical_energy == pytest.approx(mixed / per_length, rel=1e-5)
    assert CALORIMETER.critical_energy == pytest.approx(8.9709, abs=1e-4)
    assert CALORIMETER.moliere_radius == pytest.approx(212 / mixed / 4.714, rel=1e-5)
    assert CALORIMETER.moliere_radius == pytest.approx(36.837, abs=0.001)
    assert CALORIMETER.interaction_length == pytest.approx(10 / (lead / 199.6 + argon / 119.7) / 4.714, rel=1e-5)
    assert CALORIMETER.pion_interaction_length == pytest.approx(10 / (lead / 226.2 + argon / 149.0) / 4.714, rel=1e-5)
    assert CALORIMETER.sampling_frequency == pytest.approx(15.58763 / 6, rel=1e-5)
    assert CALORIMETER.e_over_mip == pytest.approx(1 / 1.448)


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_plates_of_one_material_are_that_material(absorber_mm: float, active_mm: float) -> None:
    block = Sampling(LEAD, LEAD, absorber_mm, active_mm)
    assert block.z == pytest.approx(82)
    assert block.radiation_length == pytest.approx(10 * 6.37 / 11.35)
    assert block.critical_energy == pytest.approx(LEAD.critical_energy)
    assert block.moliere_radius == pytest.approx(21.2 / LEAD.critical_energy * 10 * 6.37 / 11.35)
    assert block.e_over_mip == 1


def test_published_segmentation() -> None:
    assert PUBLISHED.shapes == ((3, 96), (12, 12), (12, 6))
    assert PUBLISHED.n_cells == 504
    assert FINE.n_cells == 12096
    assert FINE.divides_into(PUBLISHED)
    assert not PUBLISHED.divides_into(FINE)
    first = PUBLISHED.layers[0]
    assert first.phi_centres.tolist() == [-160, 0, 160]  # rows of 160 mm along y
    assert first.eta_centres[[0, 47, 48, 95]].tolist() == [-237.5, -2.5, 2.5, 237.5]  # columns of 5 mm along x


def test_sums_of_cells_keep_rows_and_columns_apart() -> None:
    fine = Segmentation((Grid(4, 2), Grid(2, 6), Grid(1, 1)))
    coarse = Segmentation((Grid(2, 1), Grid(2, 3), Grid(1, 1)))
    images = [np.arange(8.0).reshape(1, 4, 2), np.arange(12.0).reshape(1, 2, 6), np.array([[[5.0]]])]
    first, second, third = fine.coarsen(images, coarse)
    assert first.tolist() == [[[0 + 1 + 2 + 3], [4 + 5 + 6 + 7]]]
    assert second.tolist() == [[[1, 5, 9], [13, 17, 21]]]
    assert third.tolist() == [[[5]]]
    with pytest.raises(InputError, match=r"4x1,2x3,1x1: its cells are not sums of those of 2x1,2x3,1x1"):
        coarse.coarsen([first, second, third], Segmentation((Grid(4, 1), Grid(2, 3), Grid(1, 1))))


grids = st.builds(Grid, st.integers(1, 5), st.integers(1, 5))


@st.composite
def nested(draw: st.DrawFn) -> tuple[Segmentation, Segmentation]:
    """A segmentation and a coarser one."""
    coarse = draw(st.tuples(grids, grids, grids))
    fine = tuple(Grid(g.n_phi * draw(st.integers(1, 4)), g.n_eta * draw(st.integers(1, 4))) for g in coarse)
    return Segmentation(fine), Segmentation(coarse)


@given(nested(), st.integers(0, 2**32 - 1))
def test_coarsening_loses_nothing(pair: tuple[Segmentation, Segmentation], seed: int) -> None:
    fine, coarse = pair
    images = [np.random.default_rng(seed).integers(0, 100, (2, *shape)).astype(float) for shape in fine.shapes]
    summed = fine.coarsen(images, coarse)
    for image, before, grid, mine in zip(summed, images, coarse.layers, fine.layers, strict=True):
        assert image.shape[1:] == grid.shape
        np.testing.assert_array_equal(image.sum(axis=(1, 2)), before.sum(axis=(1, 2)))
        # Centres of gravity of what is even over a coarse cell stay where they were.
        assert grid.eta_centres.mean() == pytest.approx(mine.eta_centres.mean(), abs=1e-9)
    assert all(np.array_equal(a, b) for a, b in zip(fine.coarsen(images, fine), images, strict=True))


@given(st.tuples(grids, grids, grids), st.integers(1, 3))
def test_cells_in_a_row(layers: tuple[Grid, ...], n: int) -> None:
    segmentation = Segmentation(layers)
    cells = np.arange(n * segmentation.n_cells).reshape(n, -1)
    images = segmentation.unflatten(cells)
    assert [image.shape[1:] for image in images] == list(segmentation.shapes)
    assert images[1][0, 0, 0] == layers[0].n_cells  # layer after layer
    np.testing.assert_array_equal(segmentation.flatten(images), cells)
    assert parse_segmentation(str(segmentation)) == segmentation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "use published, fine, or rows x columns"),
        ("3x96", "1 layers instead of 3"),
        ("3x96,12x12,12", "use published"),
        ("3x96,12x12,-1x6", "use published"),
        ("0x96,12x12,12x6", "a layer without cells"),
        ("1000x1000,1x1,1x1", "1000002 cells, at most 100000"),
        ("3x96,12x12,12x6,1x1", "4 layers instead of 3"),
    ],
)
def test_bad_segmentations(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_segmentation(text)
    assert "\n" not in str(error.value)


def test_named_segmentations() -> None:
    assert parse_segmentation("published") == parse_segmentation("3x96, 12X12 ,12x6") == PUBLISHED
    assert parse_segmentation("fine") == FINE
