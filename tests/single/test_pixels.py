"""Pixels that are lit at random, by either calorimeter, and the scaling of what is lit."""

import math

import needs
import numpy as np
import pytest
from scipy import stats

tf = needs.tensorflow()

from hpcgan import config  # noqa: E402
from hpcgan.networks.layers import Initializer  # noqa: E402
from hpcgan.physics import jets  # noqa: E402
from hpcgan.problems.detector_images.networks_detector import Generator  # noqa: E402
from hpcgan.problems.detector_images.pixels import Pixels, logistic  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402

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
    return Pixels(Initializer(1), "pixels", 3, MODEL.encoded_thresholds, 3.0, MODEL.linear_to_pt, "float32")


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
    pixels.lit_bias.assign(np.repeat([[-2.0], [0.5]], 32, axis=1))
    features = tf.zeros((40, 64, 64, 3))
    noise = np.random.default_rng(2).normal(size=(40, 2, 64, 64)).astype(np.float32)
    lit, above = (np.stack(found) for found in pixels.draws(features, tf.constant(noise)))
    assert np.unique(lit).tolist() == [0.0, 1.0]
    for found, logit in zip(lit.mean(axis=(1, 2, 3)), (-2.0, 0.5), strict=True):
        p = 1 / (1 + math.exp(-logit))
        assert found == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / (40 * 4096)))
    assert not above[lit == 0].any()
    for part in range(2):  # however probable it is that a pixel is lit
        found = above[part][lit[part] > 0]
        assert stats.kstest(found, stats.expon(scale=math.log1p(math.exp(-1.5))).cdf).pvalue > 0.01
    made = pixels.image(tf.unstack(tf.constant(lit)), tf.unstack(tf.constant(above))).numpy()
    lowest = np.broadcast_to(MODEL.encoded_thresholds[0], made.shape)
    assert (made[made > 0] > 0.99999 * lowest[made > 0]).all()


def test_distances_are_exponential_however_probable_a_pixel_is():
    pixels = _pixels()
    bias = np.full((2, 32), 1.0)
    bias[:, 9] = -3.0
    pixels.lit_bias.assign(bias)
    noise = np.random.default_rng(6).normal(size=(200, 2, 64, 64)).astype(np.float32)
    lit, above = (np.stack(found) for found in pixels.draws(tf.zeros((200, 64, 64, 3)), tf.constant(noise)))
    for row in (0, 9, 20):
        for side in (31 - row, 32 + row):
            found = above[:, :, side][lit[:, :, side] > 0]
            expected = stats.expon(scale=math.log1p(math.exp(-1.5)))
            assert stats.kstest(found, expected.cdf).pvalue > 0.01
    noise[:] = 9.0  # far beyond what is ever drawn
    assert np.isfinite(pixels(tf.zeros((2, 64, 64, 3)), tf.constant(noise[:2]))).all()


def test_every_eta_has_numbers_of_its_own_alike_on_both_sides():
    pixels = _pixels()
    pixels.lit_bias.assign(np.where(np.arange(32) == 3, 9.0, -30.0) * np.ones((2, 1)))
    pixels.spread_bias.assign(np.where(np.arange(32) == 3, 2.0, -30.0) * np.ones((2, 1)))
    lit, above = pixels.draws(tf.zeros((1, 64, 64, 3)), tf.zeros((1, 2, 64, 64)))
    for part in range(2):
        assert np.unique(np.argwhere(lit[part][0].numpy() > 0)[:, 0]).tolist() == [28, 35]
        np.testing.assert_allclose(
            above[part][0].numpy()[[28, 35]], math.log(2.0) * math.log1p(math.exp(2.0)), rtol=1e-3
        )


def test_the_gradient_of_the_probability_is_that_of_the_relaxed_draw():
    """With t = lit * energy and lit = sigmoid(2 (logit + noise)) backwards: dt / dlogit = 2 s (1 - s) energy."""
    pixels = _pixels()
    features, noise = tf.zeros((1, 64, 64, 3)), np.full((1, 2, 64, 64), -9.0, np.float32)
    noise[0, :, 40, 6] = [1.0, -0.5]
    with tf.GradientTape() as tape:
        made = pixels(features, tf.constant(noise))[0, 40, 6]
    gradient = tape.gradient(made, pixels.lit_bias).numpy()
    assert float(made) == 0.0  # not lit, and yet it has a gradient
    for part, margin in enumerate((-2.0 + 1.66827, -4.0 - 0.80692)):
        s = 1 / (1 + math.exp(-2 * margin))
        assert gradient[part, 8] == pytest.approx(2 * s * (1 - s) * MODEL.encoded_thresholds[part, 40, 0], rel=1e-3)


def test_energies_of_both_calorimeters_add_up():
    pixels = _pixels()
    shape = (1, 64, 64)
    lit, above = [tf.ones(shape), tf.ones(shape)], [tf.fill(shape, 0.3), tf.fill(shape, 0.2)]
    thresholds = MODEL.encoded_thresholds
    expected = np.cbrt((thresholds[0] + 0.3) ** 3 + (thresholds[1] + 0.2) ** 3)
    np.testing.assert_allclose(pixels.image(lit, above)[0].numpy(), np.broadcast_to(expected, (64, 64)), rtol=1e-5)
    with tf.GradientTape() as tape:
        tape.watch(lit[1])
        made = pixels.image(lit, above)
    gradient = tape.gradient(made, lit[1]).numpy()  # what it is more than with the other one alone
    np.testing.assert_allclose(gradient[0], np.broadcast_to(expected - thresholds[0] - 0.3, (64, 64)), rtol=1e-4)


def test_what_is_above_the_thresholds_makes_up_the_total():
    """Two pixels at known places, by hand; a total that they cannot have without going below, or far above."""
    pixels = _pixels()
    lit, above = np.zeros((2, 4, 64, 64), np.float32), np.zeros((2, 4, 64, 64), np.float32)
    lit[0, :3, 32, 5] = lit[1, :3, 10, 7] = 1.0
    above[0, :3, 32, 5], above[1, :3, 10, 7] = 0.4, 0.1
    weight = float(MODEL.linear_to_pt[0, 0])
    low = np.array([MODEL.encoded_thresholds[0, 32, 0], MODEL.encoded_thresholds[1, 10, 0]]) ** 3
    more = np.array([(low[0] ** (1 / 3) + 0.4) ** 3, (low[1] ** (1 / 3) + 0.1) ** 3]) - low
    totals = weight * np.array([low.sum() + 1.7 * more.sum(), 0.9 * low.sum(), low.sum() + 100.0 * more.sum(), 1.0])
    made = pixels.image(
        tf.unstack(tf.constant(lit)), tf.unstack(tf.constant(above)), tf.constant(totals.astype(np.float32))
    ).numpy()
    found = made.astype(np.float64)[:, [32, 10], [5, 7]] ** 3
    np.testing.assert_allclose(found[0], low + 1.7 * more, rtol=1e-4)
    np.testing.assert_allclose(
        found[1], (low + 0.02 * more) * totals[1] / weight / (low + 0.02 * more).sum(), rtol=1e-4
    )
    np.testing.assert_allclose(
        found[2], (low + 50.0 * more) * totals[2] / weight / (low + 50.0 * more).sum(), rtol=1e-4
    )
    assert not made[3].any()  # without light there is none
    assert np.count_nonzero(made) == 6


def test_generated_events_have_the_drawn_total_and_gradients():
    network = Generator(MODEL, 1)
    network.pixels.lit_bias.assign(np.repeat([[-4.0], [-7.0]], 32, axis=1))  # few enough to need more than their least
    network.total.log_total_pt.assign(np.log(np.linspace(8.0, 11.0, MODEL.total_pt_knots)))
    noise = _noise(16)
    with tf.GradientTape() as tape:
        made = network(tf.constant(noise), {}, training=True)["hist"]
        loss = tf.reduce_sum(tf.square(made))
    energies = RpvProblem(MODEL).decode({"hist": made.numpy()})["hist"]
    share = [0.5 * (1.0 + math.erf(float(z) / math.sqrt(2.0))) for z in noise[:, 0]]
    totals = np.sum(energies / COSH[:, None], axis=(1, 2), dtype=np.float64) / 1e5
    np.testing.assert_allclose(totals, 8.0 + 3.0 * np.array(share), rtol=1e-4)
    assert energies[energies > 0].min() > 499.9
    gradients = dict(zip([w.name for w in network.weights], tape.gradient(loss, network.weights), strict=True))
    assert all(np.isfinite(g).all() for g in gradients.values())
    for part in ("last/kernel", "lit_bias", "spread_bias"):
        assert (np.abs(gradients[f"generator/pixels/{part}:0"]) > 0).any(), part


def test_every_pixel_has_noise_of_its_own(network):
    """Of the features, which moves its neighbours by a 3x3 kernel, and of whether it is lit, which moves no other."""
    noise = np.repeat(_noise(1), 3, axis=0)
    last, features = 2 * 4096, 3 * 4096
    noise[1, -features + 64 * 20 + 33] += 3.0  # pixel (20, 33)
    noise[2, -last + 64 * 20 + 33] = 9.0 - noise[2, -last + 64 * 20 + 33]
    assert noise.shape[1] == 3 + 16 + 64 + 256 + 1024 + features
    x = tf.constant(np.random.default_rng(4).normal(size=(1, 64, 64, 4)).astype(np.float32))
    drawn = tf.reshape(tf.constant(noise[:, -last:]), (3, 2, 64, 64))
    made = network.pixels(tf.repeat(x, 3, axis=0), drawn).numpy()
    np.testing.assert_array_equal(made[0], made[1])
    assert np.argwhere(made[2] != made[0]).tolist() == [[20, 33]]


def test_parameter_counts():
    """A layer to 4 channels instead of 1, its batch norm and noise, two 3x3 kernels to two parts, biases of |eta|."""

    def count(model):
        return sum(int(np.prod(v.shape)) for v in Generator(model, 1).weights)

    plain = MODEL.model_copy(update={"pixel_channels": 0})
    assert count(MODEL) - count(plain) == 16 * 2 * (4 - 1) + 3 * 4 + 9 * 4 * 4 + 4 * 32 - 1


def test_without_noise_images_it_is_refused():
    with pytest.raises(ValueError, match=r"model\.pixel_channels needs model\.pixel_noise=true"):
        RpvModel(**{**MODEL.model_dump(), "pixel_noise": False})


def test_runs_with_it_have_other_names():
    raw = {"problem": "rpv", "data": {"path": "data"}, "model": MODEL.model_dump()}
    raw["model"].pop("pixel_channels")
    with_it = config.load(raw, ["model.pixel_channels=4"])
    assert with_it.identity()["model"]["pixel_channels"] == 4
