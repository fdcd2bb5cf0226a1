"""Pixels that are lit at random, by either calorimeter, and the scaling of what is lit."""

import math

import numpy as np
import pytest
from scipy import stats

tf = pytest.importorskip("tensorflow")

from hpcgan import config  # noqa: E402
from hpcgan.models.detector import Generator  # noqa: E402
from hpcgan.models.layers import Initializer  # noqa: E402
from hpcgan.models.pixels import Pixels, logistic  # noqa: E402
from hpcgan.physics import jets  # noqa: E402
from hpcgan.problems.base import Problems  # noqa: E402
from hpcgan.problems.rpv import RpvModel, RpvProblem  # noqa: E402

MODEL = RpvModel(
    architecture="detector",
    filters=2,
    latent_dim=3,
    intensity="pt",
    scale_mev=2000.0,
    exponent=1 / 3,
    pixel_noise=True,
    pixel_channels=4,
    total_pt="drawn",
)
COSH = np.cosh(jets.image_geometry().eta)


@pytest.fixture(scope="module")
def network():
    return Generator(MODEL, 1)


def _noise(n):
    size = (n, RpvProblem(MODEL).noise_dim)
    return np.random.default_rng(0).normal(size=size).astype(np.float32)


def _pixels():
    return Pixels(Initializer(1), "pixels", 3, MODEL.encoded_thresholds, "float32")


def test_thresholds_of_both_calorimeters():
    """0.5 GeV, and where 2 sigma of the hadronic calorimeter is: by hand in test_detector.py."""
    found = MODEL.encoded_thresholds[..., 0] ** 3 * 2.0 * COSH
    np.testing.assert_allclose(found[0], 0.5)
    np.testing.assert_allclose(found[1, [32, 20]], 3.7757, rtol=1e-4)
    np.testing.assert_allclose(found[1, [0, 63]], 4 * 0.706**2 / (1 - 4 * 0.05**2))


def test_logistic_numbers():
    normal = np.random.default_rng(1).standard_normal(20_000)
    assert stats.kstest(logistic(tf.constant(normal)).numpy(), "logistic").pvalue > 0.01
    np.testing.assert_allclose(logistic(tf.constant([0.0, 1.0, -1.0])).numpy(), [0.0, 1.66827, -1.66827], atol=1e-4)
    assert np.isfinite(logistic(tf.constant([-8.0, 8.0])).numpy()).all()


def test_pixels_are_lit_with_the_probability_of_their_logit_and_never_below_the_threshold():
    pixels = _pixels()
    pixels.lit_bias.assign([-2.0, 0.5])
    features = tf.zeros((40, 64, 64, 3))
    noise = np.random.default_rng(2).normal(size=(40, 2, 64, 64)).astype(np.float32)
    made = np.stack(pixels(features, tf.constant(noise)))
    share = (made > 0).mean(axis=(1, 2, 3))
    for found, logit in zip(share, (-2.0, 0.5), strict=True):
        p = 1 / (1 + math.exp(-logit))
        assert found == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / (40 * 4096)))
    excess = made[0] / MODEL.encoded_thresholds[0].astype(np.float32) - 1.0
    excess = excess[made[0] > 0]
    assert excess.min() >= 0.0
    # P(logistic > 2 + y) / P(logistic > 2), y in units of the spread: nearly exponential.
    spread = math.log1p(math.exp(-1.0))
    assert stats.kstest(excess, lambda y: 1.0 - (1.0 + math.exp(2.0)) / (1.0 + np.exp(2.0 + y / spread))).pvalue > 0.01


def test_the_gradient_of_the_probability_is_that_of_the_relaxed_draw():
    """With t = lit * energy and lit = sigmoid(2 (logit + noise)) backwards: dt / dlogit = 2 s (1 - s) energy."""
    pixels = _pixels()
    features, noise = tf.zeros((1, 64, 64, 3)), np.zeros((1, 2, 64, 64), np.float32)
    noise[0, :, 5, 6] = 1.0
    with tf.GradientTape() as tape:
        made = tf.stack(pixels(features, tf.constant(noise)))[:, 0, 5, 6]
    gradient = tape.gradient(made, pixels.lit_bias).numpy()
    for part, bias in enumerate((-2.0, -4.0)):
        s = 1 / (1 + math.exp(-2 * (bias + 1.66827)))
        assert gradient[part] == pytest.approx(2 * s * (1 - s) * MODEL.encoded_thresholds[part, 5, 0], rel=1e-3)
        assert float(made[part]) == 0.0  # not lit, and yet it has a gradient


def _factor(total):
    """What multiplies an encoded image so that the sum of its cubes is `total`."""
    return lambda image: tf.pow(total / (tf.reduce_sum(image**3, axis=[1, 2]) + 1e-6), 1 / 3)


def test_the_factor_is_the_largest_with_which_what_passes_is_not_too_much():
    """Compared with trying every number of passing pixels, in the order in which they pass their thresholds."""
    pixels, rng = _pixels(), np.random.default_rng(3)
    thresholds = MODEL.encoded_thresholds.astype(np.float64)
    parts = thresholds[0] * rng.uniform(0.8, 1.3, (3, 64, 64)) * (rng.random((3, 64, 64)) < 0.2)
    for made, total in zip(parts.astype("f4").astype(np.float64), (20.0, 40.0, 90.0), strict=True):
        value, at = made[made > 0], (thresholds[0] / np.where(made > 0, made, 1.0))[made > 0]
        order = np.argsort(at)
        at, summed = at[order], np.cumsum(value[order] ** 3)
        # With the first k lit this is the factor, unless the next one passes before.
        possible = np.minimum(np.cbrt(total / summed), np.append(at[1:], np.inf))
        exact = possible[possible >= at].max()
        both = [tf.constant(made[None].astype("f4")), tf.zeros((1, 64, 64))]
        found = float(pixels._factor(both, _factor(total))[0])
        assert exact * 0.95 < found <= exact * (1 + 1e-5)
        scaled = pixels.scaled(both, _factor(total)).numpy()[0].astype(np.float64)
        assert (scaled**3).sum() == pytest.approx(total, rel=1e-4)
        assert (scaled[scaled > 0] > 0.99999 * np.broadcast_to(thresholds[0], (64, 64))[scaled > 0]).all()


def test_images_without_contrast_or_light():
    """All pixels pass at one factor: just below it there are none, just above it too many. Nothing stays nothing."""
    pixels = _pixels()
    flat = np.zeros((2, 64, 64), np.float32)
    flat[0] = 1.1 * MODEL.encoded_thresholds[0]
    with tf.GradientTape() as tape:
        parts = tf.constant(flat)
        tape.watch(parts)
        made = pixels.scaled([parts, tf.zeros_like(parts)], _factor(3.0))
    assert float(tf.reduce_sum(made[0] ** 3)) <= 3.0 * (1 + 1e-5)
    assert not made[1].numpy().any()
    assert np.isfinite(tape.gradient(made, parts).numpy()).all()


def test_generated_events_have_the_drawn_total_and_gradients(network):
    network.log_total_pt.assign(np.log(np.linspace(1.0, 4.0, MODEL.total_pt_knots)))
    noise = _noise(16)
    with tf.GradientTape() as tape:
        made = network(tf.constant(noise), {}, training=True)["hist"]
        loss = tf.reduce_sum(tf.square(made))
    energies = RpvProblem(MODEL).decode({"hist": made.numpy()})["hist"]
    share = [0.5 * (1.0 + math.erf(float(z) / math.sqrt(2.0))) for z in noise[:, 0]]
    totals = np.sum(energies / COSH[:, None], axis=(1, 2), dtype=np.float64) / 1e5
    np.testing.assert_allclose(totals, 1.0 + 3.0 * np.array(share), rtol=1e-4)
    assert energies[energies > 0].min() > 499.9
    gradients = dict(zip([w.name for w in network.weights], tape.gradient(loss, network.weights), strict=True))
    assert all(np.isfinite(g).all() for g in gradients.values())
    for part in ("last/kernel", "lit_bias", "spread_bias"):
        assert (np.abs(gradients[f"generator/pixels/{part}:0"]) > 0).all(), part


def test_every_pixel_has_noise_of_its_own(network):
    """Of the features, which moves its neighbours by a 3x3 kernel, and of whether it is lit, which moves no other."""
    noise = np.repeat(_noise(1), 3, axis=0)
    last, features = 2 * 4096, 3 * 4096
    noise[1, -features + 64 * 20 + 33] += 3.0  # pixel (20, 33)
    noise[2, -last + 64 * 20 + 33] = 9.0 - noise[2, -last + 64 * 20 + 33]
    assert noise.shape[1] == 3 + 16 + 64 + 256 + 1024 + features
    x = tf.constant(np.random.default_rng(4).normal(size=(1, 64, 64, 4)).astype(np.float32))
    drawn = tf.reshape(tf.constant(noise[:, -last:]), (3, 2, 64, 64))
    made = np.stack(network.pixels(tf.repeat(x, 3, axis=0), drawn))
    np.testing.assert_array_equal(made[:, 0], made[:, 1])
    assert np.argwhere(made[:, 2] != made[:, 0]).tolist() == [[0, 20, 33]]


def test_parameter_counts():
    """A layer to 4 channels instead of 1, its batch norm and noise, and two 3x3 kernels to two parts with biases."""

    def count(model):
        return sum(int(np.prod(v.shape)) for v in Generator(model, 1).weights)

    plain = MODEL.model_copy(update={"pixel_channels": 0})
    assert count(MODEL) - count(plain) == 16 * 2 * (4 - 1) + 3 * 4 + 9 * 4 * 4 + 4 - 1


def test_without_noise_images_it_is_refused():
    with pytest.raises(ValueError, match=r"model\.pixel_channels needs model\.pixel_noise=true"):
        RpvModel(**{**MODEL.model_dump(), "pixel_noise": False})


def test_runs_without_it_keep_the_names_that_they_had_before_there_was_such_a_key():
    raw = {"problem": "rpv", "data": {"path": "data"}, "model": MODEL.model_dump()}
    raw["model"].pop("pixel_channels")
    assert "pixel_channels" not in config.load(raw, Problems()).identity()["model"]
    with_it = config.load(raw, Problems(), ["model.pixel_channels=4"])
    assert with_it.identity()["model"]["pixel_channels"] == 4
