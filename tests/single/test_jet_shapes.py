"""Leading jets and their tau_21: closed forms of jets of a few pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tiny

from hpcgan.errors import InputError
from hpcgan.physics import jets
from hpcgan.physics.jet_shapes import leading_jets

Pixel = tuple[int, int, float]
LEFT: list[Pixel] = [(32, 20, 3e5), (33, 20, 1e5)]
RIGHT: list[Pixel] = [(32, 26, 2e5), (31, 27, 1.5e5)]


def image(pixels: Sequence[Pixel]) -> np.ndarray:
    """(1, 64, 64) MeV."""
    made = np.zeros((1, 64, 64), np.float32)
    for i, j, energy in pixels:
        made[0, i, j] = energy
    return made


def momenta(pixels: Sequence[Pixel]) -> np.ndarray:
    """(k, 4) px, py, pz, E of massless pixels in GeV."""
    i, j, energy = np.array(pixels).T
    eta, phi, e = -2.5 + (i + 0.5) * 5 / 64, -np.pi + (j + 0.5) * 2 * np.pi / 64, energy / 1000
    return np.stack([e * np.cos(phi) / np.cosh(eta), e * np.sin(phi) / np.cosh(eta), e * np.tanh(eta), e], axis=1)


def direction(p: np.ndarray) -> np.ndarray:
    """Rapidity and azimuth."""
    return np.stack([0.5 * np.log((p[..., 3] + p[..., 2]) / (p[..., 3] - p[..., 2])), np.arctan2(p[..., 1], p[..., 0])])


def tau(subjets: Sequence[Sequence[Pixel]]) -> float:
    """From its definition, with the axes of these subjets; R = 1, away from the seam in phi."""
    whole = momenta([pixel for subjet in subjets for pixel in subjet])
    axes = np.stack([direction(momenta(subjet).sum(axis=0)) for subjet in subjets], axis=1)  # (2, N)
    distances = np.sqrt(np.sum((direction(whole)[:, :, None] - axes[:, None, :]) ** 2, axis=0))
    pt = np.hypot(whole[:, 0], whole[:, 1])
    return float(np.sum(pt * distances.min(axis=1)) / np.sum(pt))


def test_two_prongs_of_two_pixels() -> None:
    found = leading_jets(image(LEFT + RIGHT))
    assert found.counts.tolist() == [1]
    expected = tau([LEFT, RIGHT]) / tau([LEFT + RIGHT])
    assert 0.1 < expected < 0.4
    assert found.tau21 == pytest.approx([expected], rel=1e-5)


def test_the_farther_apart_the_prongs_the_smaller() -> None:
    values = [leading_jets(image([*LEFT, *((i, j + by, e) for i, j, e in RIGHT)])).tau21[0] for by in (-3, -1, 1, 3)]
    assert values == sorted(values, reverse=True)


def test_energy_about_one_axis_is_no_two_prongs() -> None:
    """Two of the eight pixels around a bright one get an axis at most: the others are as far off as before."""
    ring = [(32 + di, 30 + dj, 5e4) for di in (-1, 0, 1) for dj in (-1, 0, 1) if (di, dj) != (0, 0)]
    assert leading_jets(image([(32, 30, 4e5), *ring])).tau21[0] > 0.6


@pytest.mark.parametrize("pixels", [[(32, 20, 3e5)], [(32, 20, 3e5), (34, 25, 2e5)]])
def test_one_and_two_pixels_have_none(pixels: list[Pixel]) -> None:
    found = leading_jets(image(pixels))
    assert found.counts.tolist() == [1]
    assert found.tau21 == pytest.approx([0.0], abs=1e-9)


def test_it_is_the_hardest_jet_that_passes() -> None:
    soft, forward = [(32, 50, 2.5e5)], [(5, 40, 9e6)]  # eta = -2.07
    both = leading_jets(image([*LEFT, *RIGHT, *soft, *forward]))
    alone = leading_jets(image([*LEFT, *RIGHT]))
    assert both.pt == pytest.approx(alone.pt, rel=1e-6)
    assert both.tau21 == pytest.approx(alone.tau21, rel=1e-6)


def test_jets_are_those_of_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    images = tiny.images(30, seed=3)
    images[[0, 7, 29]] = 0.0
    images[11] *= 1e-3  # pixels, but no jet
    clustered, found = jets.cluster(images), leading_jets(images)
    assert found.counts.tolist() == (clustered.counts > 0).astype(int).tolist()
    np.testing.assert_array_equal(found.pt, clustered.leading_pt()[clustered.counts > 0])
    monkeypatch.setattr(jets, "CHUNK_IMAGES", 7)
    parts = leading_jets(images)
    for name in ("counts", "pt", "tau21"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(found, name))


def test_rotation_and_reflection_change_nothing() -> None:
    images = tiny.images(12, seed=4)
    here = leading_jets(images)
    for changed in (np.roll(images, 23, axis=2), images[:, :, ::-1], images[:, ::-1]):
        there = leading_jets(changed)
        np.testing.assert_allclose(there.pt, here.pt, rtol=1e-6)
        np.testing.assert_allclose(there.tau21, here.tau21, rtol=1e-4, atol=1e-5)
    assert np.all((here.tau21 >= 0) & (here.tau21 <= 1.2))


def test_the_pt_cut() -> None:
    images = image([(32, 20, 5e4), (33, 22, 2e4)])
    assert leading_jets(images).counts.tolist() == [0]
    assert leading_jets(images, 20.0).counts.tolist() == [1]


def test_none_and_nonsense() -> None:
    none = leading_jets(np.zeros((0, 64, 64), np.float32))
    assert [len(x) for x in (none.counts, none.pt, none.tau21)] == [0, 0, 0]
    empty = leading_jets(np.zeros((2, 64, 64), np.float32))
    assert empty.counts.tolist() == [0, 0]
    with pytest.raises(InputError, match="not finite"):
        leading_jets(np.full((1, 64, 64), np.nan))
