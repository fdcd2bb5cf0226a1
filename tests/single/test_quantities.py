"""Quantities of images beside the jets: answers of images made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from hpcgan import config
from hpcgan.errors import InputError
from hpcgan.metrics.ks import ks_score
from hpcgan.problems.conditions import Conditions
from hpcgan.problems.detector_images import quantities
from hpcgan.problems.detector_images.quantities import SCORED, TAILS, more_observables
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.problems.pileup.problem import PileupModel, PileupProblem

RPV = RpvProblem(RpvModel())
COSH = np.cosh(-2.5 + (np.arange(64) + 0.5) * 5 / 64)
OF_IMAGES = (*quantities.SUMS, *quantities.PIXELS, *quantities.SHARES, *quantities.CORRELATIONS)


def empty(n: int = 1) -> np.ndarray:
    return np.zeros((n, 64, 64), np.float32)


def measured(images: np.ndarray, *names: str) -> dict[str, list[float]]:
    return {name: o.values.tolist() for name, o in more_observables(images, names, 200.0).items()}


def test_sums_by_hand() -> None:
    images = empty(2)
    images[0, 10, 3], images[0, 40, 5] = 2000.0, 500.0
    found = measured(images, "total_pt", "occupancy", "total_energy")
    assert list(found) == ["total_pt", "occupancy", "total_energy"]
    assert found["occupancy"] == [2.0, 0.0]
    assert found["total_energy"] == pytest.approx([2.5, 0.0])
    assert found["total_pt"] == pytest.approx([2.0 / COSH[10] + 0.5 / COSH[40], 0.0])


def test_pixel_energies() -> None:
    images = empty(3)
    images[0] = 1000.0
    images[2, 1, 2] = 7500.0
    found = more_observables(images, ["pixel_energy", "pixel_energies"], 200.0)
    assert found["pixel_energies"].counts.tolist() == [4096, 0, 1]
    assert found["pixel_energies"].values[-1] == 7.5
    assert found["pixel_energy"].counts.tolist()[:2] == [64, 0]  # 8 x 8 sites
    assert set(found["pixel_energy"].values[:64]) == {1.0}


def test_momentum_in_bands_of_eta() -> None:
    images = empty(3)
    for row, pt in ((31, 1.0), (32 + 8, 2.0), (15, 3.0), (63, 4.0)):  # |eta| bands 1 to 4, of 8 rows a side each
        images[0, row, 7] = pt * COSH[row]
    images[1, 24, :5] = 100.0
    found = more_observables(images, quantities.SHARES, 200.0)
    assert [found[name].values.tolist() for name in quantities.SHARES] == [
        pytest.approx(values) for values in ([0.1, 1.0], [0.2, 0.0], [0.3, 0.0], [0.4, 0.0])
    ]
    assert {tuple(found[name].counts.tolist()) for name in quantities.SHARES} == {(1, 1, 0)}  # none without momentum


def test_shares_sum_to_one() -> None:
    found = more_observables(tiny.images(20), quantities.SHARES, 200.0)
    np.testing.assert_allclose(np.sum([found[name].values for name in quantities.SHARES], axis=0), 1.0, rtol=1e-12)


def test_a_checkerboard() -> None:
    """Each row has 32 of 64 pixels: chance makes 16 pairs with another row, and 32 * 31 / 63 within it."""
    i, j = np.indices((64, 64))
    found = measured((i + j)[None] % 2 * np.float32(1000.0), *quantities.CORRELATIONS)
    assert found["eta_correlation_1"] == found["phi_correlation_1"] == [0.0]
    assert found["eta_correlation_2"] == found["eta_correlation_4"] == pytest.approx([2.0])
    assert found["phi_correlation_2"] == found["phi_correlation_4"] == pytest.approx([63 / 31])


def test_a_lattice() -> None:
    """Every fourth pixel of every fourth row: neighbours at a distance of 4 only."""
    images = empty()
    images[0, ::4, ::4] = 1000.0
    found = measured(images, *quantities.CORRELATIONS)
    assert found["eta_correlation_4"] == pytest.approx([4.0])
    assert found["phi_correlation_4"] == pytest.approx([63 / 15])
    assert found["phi_correlation_1"] == found["phi_correlation_2"] == [0.0]
    assert found["eta_correlation_1"] == found["eta_correlation_2"] == []  # no two rows are so near


@pytest.mark.parametrize("first", [20, 60])  # across the seam, too
def test_a_streak_along_phi(first: int) -> None:
    images = empty()
    images[0, 30, (first + np.arange(8)) % 64] = 1000.0
    found = measured(images, *quantities.CORRELATIONS)
    for distance in quantities.DISTANCES:
        assert found[f"phi_correlation_{distance}"] == pytest.approx([(8 - distance) * 63 / 56])
        assert found[f"eta_correlation_{distance}"] == []


def test_a_streak_along_eta() -> None:
    images = empty()
    images[0, 20:28, 50] = 1000.0
    found = measured(images, *quantities.CORRELATIONS)
    for distance in quantities.DISTANCES:
        assert found[f"eta_correlation_{distance}"] == pytest.approx([64.0])
        assert found[f"phi_correlation_{distance}"] == []


def test_independent_pixels_are_not_correlated() -> None:
    """Whatever their profile in eta: a mean of 1, within five standard errors."""
    rng = np.random.default_rng(5)
    profile = np.linspace(0.005, 0.12, 64)[:, None]
    images = (rng.random((1500, 64, 64)) < profile).astype(np.float32) * 900.0
    for name, observable in more_observables(images, quantities.CORRELATIONS, 200.0).items():
        error = observable.values.std() / np.sqrt(len(observable.values))
        assert error < 0.01
        assert observable.mean == pytest.approx(1.0, abs=5 * error), name


def test_symmetries_of_the_detector_change_nothing() -> None:
    images = tiny.images(6, seed=2)
    names = [name for name in OF_IMAGES if name != "pixel_energy"]  # another lattice
    here = more_observables(images, names, 200.0)
    for changed in (np.roll(images, 11, axis=2), images[:, :, ::-1], images[:, ::-1]):
        there = more_observables(changed, names, 200.0)
        for name in names:
            np.testing.assert_allclose(np.sort(there[name].values), np.sort(here[name].values), rtol=1e-6)


def test_nothing_is_computed_that_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantities, "leading", lambda *_: pytest.fail("jets were clustered"))
    names = ["pixel_energy", "occupancy", "phi_correlation_4"]
    assert list(more_observables(tiny.images(2), names, 200.0)) == names
    assert more_observables(tiny.images(2), [], 200.0) == {}


def test_of_no_images() -> None:
    found = more_observables(empty(0), [*OF_IMAGES, *quantities.LEADING], 200.0)
    assert {o.n_events for o in found.values()} == {0}
    assert {len(o.values) for o in found.values()} == {0}


def test_pieces_make_the_whole() -> None:
    """It does not matter on which rank an image is."""
    images, names = tiny.images(9), [*OF_IMAGES, *quantities.LEADING]
    whole = more_observables(images, names, 200.0)
    parts = [more_observables(piece, names, 200.0) for piece in (images[:4], images[4:])]
    for name in names:
        np.testing.assert_array_equal(np.concatenate([part[name].values for part in parts]), whole[name].values)


def test_streaks_are_seen_and_the_same_is_not() -> None:
    """Images whose pixels have moved to the next to another one: as many, as bright, and found out at once."""
    rng = np.random.default_rng(1)
    plain = [np.where(rng.random((400, 64, 64)) < 0.04, 2000.0, 0.0).astype(np.float32) for _ in range(2)]
    streaks = np.where(rng.random((400, 64, 32)) < 0.04, 2000.0, 0.0).astype(np.float32).repeat(2, axis=2)
    real, same, other = (more_observables(x, SCORED[:-2], 200.0) for x in (*plain, streaks))
    names = ["occupancy", "phi_correlation_1", "eta_correlation_1"]
    assert max(ks_score(real, same, names).parts.values()) < 7.0
    parts = ks_score(real, other, names).parts
    assert parts["phi_correlation_1"] > 200.0
    assert parts["eta_correlation_1"] > parts["occupancy"]


def test_the_score_is_that_of_the_paper_alone() -> None:
    images = {"hist": tiny.images(8)}
    assert set(RPV.observables(images)) == {"jet_multiplicity", "summed_jet_mass", "jet_pt"}
    assert RPV.more_quantities == SCORED
    assert not set(SCORED) & set(RPV.quantities)
    assert RPV.quantity_names == [*RPV.quantities, *SCORED]
    assert list(RPV.more_observables(images, ["total_pt"])) == ["total_pt"]


def test_pileup_has_each_once() -> None:
    pileup = PileupProblem(PileupModel())
    assert "occupancy" not in pileup.more_quantities
    assert sorted(pileup.quantity_names) == sorted({*pileup.quantities, *SCORED})
    assert set(TAILS) <= {*pileup.quantities, *pileup.more_observables({"hist": empty()}, ["pixel_energies"])}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[jet_pt, ocupancy]", r"scoring.quantities: 'ocupancy' is no quantity of 'rpv'; choices: jet_multiplicity, "),
        ("[jet_pt, ocupancy]", r"did you mean 'occupancy'"),
        ("[total_pt]", r"'total_pt' is no quantity of 'rpv'"),
        ("[jet_pt, jet_pt]", r"scoring.quantities: name each only once"),
        ("[]", r"scoring.quantities"),
        ("jet_pt", r"scoring.quantities"),
    ],
)
def test_quantities_that_are_refused(tmp_path, value: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        tiny.config(tmp_path, f"scoring.quantities={value}")
    assert "\n" not in str(refused.value)


def test_conditions_are_no_quantities(tmp_path) -> None:
    assert issubclass(RpvProblem, Conditions)
    raw = {**tiny.config(tmp_path).dump(), "problem": "conditional", "scoring": {"quantities": ["mGlu"]}}
    with pytest.raises(InputError, match="'mGlu' is no quantity of 'conditional'"):
        config.load(raw)
