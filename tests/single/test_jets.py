"""Jets of images: known answers and the definition's limits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import InputError
from hpcgan.physics import jets


def pixel_momentum(i: int, j: int, mev: float) -> np.ndarray:
    """Four-momentum of a pixel in GeV, written out from the definition."""
    eta = -2.5 + (i + 0.5) * 5 / 64
    phi = -np.pi + (j + 0.5) * 2 * np.pi / 64
    e = mev / 1000
    return np.array([e * np.cos(phi) / np.cosh(eta), e * np.sin(phi) / np.cosh(eta), e * np.tanh(eta), e])


def mass(p: np.ndarray) -> float:
    return float(np.sqrt(max(p[3] ** 2 - p[0] ** 2 - p[1] ** 2 - p[2] ** 2, 0)))


THREE_JETS = {
    "first": [(32, 10, 4e5), (34, 12, 2e5), (30, 9, 1e5)],
    "second": [(20, 32, 3e5), (22, 35, 3e5)],
    "third": [(40, 55, 3.5e5)],
}


def three_jet_image() -> np.ndarray:
    image = np.zeros((64, 64), dtype=np.float32)
    for pixels in THREE_JETS.values():
        for i, j, mev in pixels:
            image[i, j] = mev
    return image


def test_hand_made_event() -> None:
    found = jets.cluster(three_jet_image()[None])
    sums = [np.sum([pixel_momentum(*pixel) for pixel in pixels], axis=0) for pixels in THREE_JETS.values()]
    sums.sort(key=lambda p: -np.hypot(p[0], p[1]))
    assert found.counts.tolist() == [3]
    np.testing.assert_allclose(found.pt, [np.hypot(p[0], p[1]) for p in sums], rtol=1e-6)
    np.testing.assert_allclose(found.mass, [mass(p) for p in sums], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.eta, [np.arcsinh(p[2] / np.hypot(p[0], p[1])) for p in sums], rtol=1e-6)
    np.testing.assert_allclose(found.phi, [np.arctan2(p[1], p[0]) for p in sums], rtol=1e-6)
    np.testing.assert_allclose(found.summed_mass, [sum(map(mass, sums))], rtol=1e-5)


def test_jet_across_the_phi_seam() -> None:
    image = np.zeros((1, 64, 64), dtype=np.float32)
    image[0, 32, 0] = image[0, 32, 63] = 1.5e5  # neighbours on the circle, 150 GeV each
    found = jets.cluster(image)
    assert found.counts.tolist() == [1]
    np.testing.assert_allclose(found.pt, 300 / np.cosh(5 / 128) * np.cos(np.pi / 64), rtol=1e-6)


def test_distance_decides() -> None:
    """Anti-kt with R = 1 joins two equal pixels closer than 1 and keeps those farther apart."""
    for columns, jets_expected in ((10, 1), (11, 2)):  # 10 * 2 pi / 64 = 0.98, 11 * 2 pi / 64 = 1.08
        image = np.zeros((1, 64, 64), dtype=np.float32)
        image[0, 32, 20] = image[0, 32, 20 + columns] = 5e5
        assert jets.cluster(image).counts.tolist() == [jets_expected]


def test_thresholds() -> None:
    cosh = np.cosh(5 / 128)
    image = np.zeros((6, 64, 64), dtype=np.float32)
    image[0, 32, 32] = 199.9e3 * cosh  # below 200 GeV
    image[1, 32, 32] = 200.1e3 * cosh
    image[2, 6, 32] = 5e6  # eta = -1.99
    image[3, 5, 32] = 5e6  # eta = -2.07
    image[4, 32, 32] = image[5, 32, 32] = 5e5
    image[4, 32, 33] = 99.0 * cosh  # below 100 MeV: ignored
    image[5, 32, 33] = 101.0 * cosh
    found = jets.cluster(image)
    assert found.counts.tolist() == [0, 1, 1, 0, 1, 1]
    pt = found.leading_pt()
    assert pt[4] == pytest.approx(5e2 / cosh, rel=1e-9)
    assert pt[5] > pt[4] + 0.09


def test_empty_images_and_none() -> None:
    found = jets.cluster(np.zeros((3, 64, 64), dtype=np.float32))
    assert found.counts.tolist() == [0, 0, 0]
    assert found.summed_mass.tolist() == [0, 0, 0]
    assert found.pt.shape == (0,)
    none = jets.cluster(np.zeros((0, 64, 64), dtype=np.float32))
    assert [len(values) for values in (none.counts, none.summed_mass, none.pt)] == [0, 0, 0]
    assert none.summed_mass.dtype == none.pt.dtype == np.float64


def test_empty_images_between_others() -> None:
    images = np.zeros((5, 64, 64), dtype=np.float32)
    images[1] = images[4] = three_jet_image()
    found = jets.cluster(images)
    assert found.counts.tolist() == [0, 3, 0, 0, 3]
    assert found.event.tolist() == [1, 1, 1, 4, 4, 4]
    assert found.summed_mass[1] == found.summed_mass[4] > 0
    assert found.leading_pt(3).tolist() == [0] * 5


def test_channel_axis_is_accepted() -> None:
    image = three_jet_image()
    for shape in ((1, 64, 64, 1), (1, 1, 64, 64)):
        np.testing.assert_array_equal(jets.cluster(image.reshape(shape)).pt, jets.cluster(image[None]).pt)


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 64), (64, 64), (2, 64, 64, 3)])
def test_wrong_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="shape"):
        jets.cluster(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    image = np.zeros((2, 64, 64))
    image[1, 3, 4] = value
    with pytest.raises(InputError, match="not finite"):
        jets.cluster(image)


def test_negative_pixels_do_nothing() -> None:
    image = three_jet_image()[None].copy()
    image[0, 60, 60] = -1e5
    np.testing.assert_array_equal(jets.cluster(image).pt, jets.cluster(three_jet_image()[None]).pt)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    images = np.where(rng.random((20, 64, 64)) < 0.04, rng.exponential(1e4, (20, 64, 64)), 0).astype(np.float32)
    whole = jets.cluster(images)
    monkeypatch.setattr(jets, "CHUNK_IMAGES", 7)
    parts = jets.cluster(images)
    for name in ("counts", "pt", "eta", "phi", "mass"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


@given(shift=st.integers(1, 63), seed=st.integers(0, 20))
def test_rotation_in_phi_changes_nothing(shift: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.where(rng.random((1, 64, 64)) < 0.03, rng.exponential(2e4, (1, 64, 64)), 0)
    here, there = jets.cluster(image), jets.cluster(np.roll(image, shift, axis=2))
    np.testing.assert_allclose(here.pt, there.pt, rtol=1e-9)
    np.testing.assert_allclose(here.mass, there.mass, rtol=1e-6, atol=1e-4)


def test_geometry() -> None:
    geometry = jets.image_geometry()
    assert geometry.eta[0] == pytest.approx(-2.5 + 5 / 128)
    assert geometry.phi[0] == pytest.approx(-np.pi + np.pi / 64)
    assert geometry.phi[-1] == pytest.approx(np.pi - np.pi / 64)
    norm = geometry.px**2 + geometry.py**2 + geometry.pz**2
    np.testing.assert_allclose(norm, 1, rtol=1e-12)  # massless


def test_nothing_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    jets.cluster(three_jet_image()[None])
    assert capfd.readouterr().out == ""


def test_clustering_prints_nothing() -> None:
    """FastJet's banner would end up between the lines of every rank."""
    code = (
        "import numpy as np; from hpcgan.physics import jets; i = np.zeros((1, 64, 64), np.float32);"
        "i[0, 30:34, 30:34] = 1e5; print(jets.cluster(i).counts[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
