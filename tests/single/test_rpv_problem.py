import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import InputError
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem


def _images(n=5, seed=0):
    rng = np.random.default_rng(seed)
    hit = rng.random((n, 64, 64)) < 0.045
    return {"hist": (hit * rng.exponential(2e4, (n, 64, 64))).astype(np.float32)}


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_decoding_undoes_encoding(exponent):
    problem = RpvProblem(RpvModel(exponent=exponent))
    sample = _images()
    encoded = problem.encode(sample)
    assert encoded["hist"].dtype == np.float32
    np.testing.assert_allclose(problem.decode(encoded)["hist"], sample["hist"], rtol=2e-6)
    assert encoded["hist"].max() == pytest.approx((sample["hist"].max() / 4e6) ** exponent, rel=1e-5)


def test_the_threshold_is_encoded_like_a_pixel():
    problem = RpvProblem(RpvModel(exponent=0.5, threshold_mev=500.0))
    pixel = problem.encode({"hist": np.full((1, 64, 64), 500.0, np.float32)})["hist"][0, 0, 0]
    assert problem.model.encoded_threshold == pytest.approx(pixel)


def _augment(sample, symmetries, *draws):
    problem = RpvProblem(RpvModel())
    return problem.augment(sample, symmetries, np.array(draws))["hist"]


def test_each_symmetry_by_hand():
    sample = _images(1)
    image = sample["hist"][0]
    everything = RpvProblem.symmetries
    np.testing.assert_array_equal(_augment(sample, everything, [0.9, 0.9, 0.0])[0], image)
    np.testing.assert_array_equal(_augment(sample, ["eta_reflection"], [0.1, 0.1, 0.5])[0], image[::-1])
    np.testing.assert_array_equal(_augment(sample, ["phi_reflection"], [0.1, 0.1, 0.5])[0], image[:, ::-1])
    np.testing.assert_array_equal(
        _augment(sample, ["phi_rotation"], [0.1, 0.1, 3.5 / 64])[0], np.roll(image, -3, axis=1)
    )


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3))
def test_augmentation_keeps_every_pixel(draws):
    sample = _images(1)
    changed = _augment(sample, RpvProblem.symmetries, draws)
    np.testing.assert_array_equal(np.sort(changed, axis=None), np.sort(sample["hist"], axis=None))


def test_augmentation_does_not_change_what_jets_see():
    """The symmetries are those of the detector: multiplicity, mass and pT stay (phi wraps around)."""
    problem = RpvProblem(RpvModel())
    sample = _images(4, seed=1)
    sample["hist"] *= 20
    changed = {"hist": _augment(sample, RpvProblem.symmetries, *[[0.1, 0.9, 0.3]] * 4)}
    before, after = problem.observables(sample), problem.observables(changed)
    for name in before:
        np.testing.assert_allclose(np.sort(before[name].values), np.sort(after[name].values), rtol=1e-4)
    assert before["jet_multiplicity"].values.sum() > 0


def test_a_missing_split_is_named_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"train.h5: no such file; make it with 'hpcgan data rpv"):
        RpvProblem(RpvModel()).open(tmp_path, "train")


@pytest.mark.parametrize("architecture", ["dcgan", "detector"])
def test_each_architecture_has_its_networks(architecture):
    pytest.importorskip("tensorflow")
    for place in RpvProblem(RpvModel(architecture=architecture)).networks.values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
