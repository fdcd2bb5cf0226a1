"""What CaloGAN's networks may have besides the published: the joined condition, hidden layers, R1 of the cells seen."""

from pathlib import Path

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from calogan_settings import CaloGan  # noqa: E402

from hpcgan import config  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.penalties import r1_penalty  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.problems.calorimeter.calogan import CaloganModel, CaloganProblem  # noqa: E402
from hpcgan.problems.calorimeter.networks import Discriminator, Generator, share_features  # noqa: E402

SHAPES = ((2, 4), (2, 2), (2, 1))
CELLS = "2x4,2x2,2x1"
UNITS = (0.5, 2e-3, 1e-5)


def showers(n, seed=1):
    """Images in GeV, every second cell dark, and energies; double precision."""
    rng = np.random.default_rng(seed)
    found = {
        f"layer_{i}": rng.exponential(0.3**i, (n, *shape)) * (rng.random((n, *shape)) < 0.5)
        for i, shape in enumerate(SHAPES)
    }
    return {k: tf.constant(v) for k, v in {**found, "energy": rng.uniform(1, 90, n)}.items()}


def made(network, **settings):
    return network(CaloGan(latent_dim=3, shapes=SHAPES, **settings), 1, "float64")


# --- conditioning ------------------------------------------------------------------------------------


def spread_at(network, energy):
    """Relative spread of the energy in all cells over the noise, at one energy."""
    noise = tf.constant(np.random.default_rng(2).normal(size=(400, 3)))
    images = network(noise, {"energy": tf.fill([400], tf.constant(energy, tf.float64))}, training=False)
    totals = sum(image.numpy().sum(axis=(1, 2)) for image in images.values())
    return totals.std() / totals.mean()


def test_joined_showers_of_one_gev_differ_as_those_of_a_hundred_do():
    scaled, joined = made(Generator), made(Generator, conditioning="joined")
    for network in (scaled, joined):
        rng = np.random.default_rng(3)
        for weight in network.weights:  # biases too, as after a training: without, scaled noise scales the shower
            weight.assign(rng.uniform(-0.2, 0.5, weight.shape))
    assert spread_at(scaled, 1.0) < 0.05 * spread_at(scaled, 100.0)
    assert spread_at(joined, 1.0) > 0.5 * spread_at(joined, 100.0) > 0.01


def test_joined_the_energy_takes_the_place_of_the_last_number():
    network = made(Generator, conditioning="joined")
    noise = np.random.default_rng(4).normal(size=(5, 3))
    energy = np.array([1.0, 3.0, 30.0, 60.0, 90.0])

    def images(noise, energy):
        found = network(tf.constant(noise), {"energy": tf.constant(energy)}, training=False)
        return np.concatenate([image.numpy().reshape(len(noise), -1) for image in found.values()], axis=1)

    first, other = images(noise, energy), noise.copy()
    other[:, 2] += 7.0
    np.testing.assert_array_equal(images(other, energy), first)
    assert not np.allclose(images(noise, energy[::-1].copy()), first)
    network.layers[0].project = lambda latent: seen.append(latent) or tf.zeros([5, 4 * 6 * 36], tf.float64)
    seen = []
    images(noise, energy)
    np.testing.assert_allclose(seen[0][:, :2], noise[:, :2])
    np.testing.assert_allclose(seen[0][:, 2], 2.0 * np.log(energy / 30.0))


# --- hidden layers -----------------------------------------------------------------------------------


def test_share_features_by_hand():
    """5 and 15 of 25 GeV."""
    logarithms, fractions, energy = share_features(tf.constant([[5.0, 15.0]]), tf.constant([[25.0]]))
    np.testing.assert_allclose(logarithms, [[np.log(0.201) / 3, np.log(0.601) / 3]], rtol=1e-6)
    np.testing.assert_allclose(fractions, [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(energy, [[np.log(25 / 30)]], rtol=1e-6)
    dark = share_features(tf.zeros([1, 2]), tf.constant([[25.0]]))
    assert all(np.isfinite(feature).all() for feature in dark)


def test_hidden_layers_against_numpy():
    plain, network = made(Discriminator), made(Discriminator, discriminator_hidden=(6, 5))
    sample = showers(7)
    features = network.features(sample, training=True).numpy()
    published = plain.features(sample, training=True).numpy()
    np.testing.assert_array_equal(features[:, : published.shape[1]], published)
    assert features.shape[1] == published.shape[1] + 2 * 3 + 1
    weights = network.named
    x = features
    for i, width in enumerate((6, 5)):
        x = x @ weights[f"discriminator/hidden{i}/kernel"].numpy() + weights[f"discriminator/hidden{i}/bias"].numpy()
        assert x.shape[1] == width
        x = np.where(x > 0, x, float(np.float32(0.2)) * x)
    logits = x @ weights["discriminator/head/kernel"].numpy() + weights["discriminator/head/bias"].numpy()
    np.testing.assert_allclose(network(sample, training=True), logits[:, 0], rtol=1e-12)


def test_hidden_layers_see_what_a_linear_head_cannot():
    """Whether layers 0 and 1 go together, the mixture of each being the same in both samples."""
    rng = np.random.default_rng(5)
    n = 256
    part, flip = rng.uniform(0.2, 0.8, n), rng.permutation(n)

    def sample(first, second):
        images = {"layer_0": first, "layer_1": second, "layer_2": np.full(n, 0.01)}
        shaped = {
            name: np.broadcast_to(value[:, None, None] / np.prod(shape), (n, *shape)).copy()
            for (name, value), shape in zip(images.items(), SHAPES, strict=True)
        }
        return {k: tf.constant(v) for k, v in {**shaped, "energy": np.full(n, 2.0)}.items()}

    real, fake = sample(part, part), sample(part, part[flip])

    def separation(**settings):
        """Sum of the shares that are told right, after steps of what follows the features."""
        network = made(Discriminator, **settings)
        features = [network.features(sample, training=True) for sample in (real, fake)]
        weights = [w for w in network.weights if "hidden" in w.name or "head" in w.name]
        network.features = lambda sample, *_: sample

        @tf.function(autograph=False)
        def step():
            with tf.GradientTape() as tape:
                logits = [network(seen, training=True) for seen in features]
                loss = tf.reduce_mean(tf.nn.softplus(-logits[0]) + tf.nn.softplus(logits[1]))
            for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
                weight.assign_sub(0.02 * gradient)
            return logits

        for _ in range(200):
            first, second = step()
        return float(np.mean(first.numpy() > 0) + np.mean(second.numpy() < 0))

    assert separation(discriminator_hidden=(32,)) > separation() + 0.1


# --- R1 ----------------------------------------------------------------------------------------------


def encoding():
    network = made(Discriminator, cell_encoding="log")
    network.cells.unit.assign(UNITS)
    return network


def test_coordinates_are_the_cells_seen_and_lead_back():
    sample = {k: v for k, v in showers(4).items() if k != "energy"}
    seen, back = encoding().coordinates(sample)
    for (name, image), unit in zip(sample.items(), UNITS, strict=True):
        np.testing.assert_allclose(seen[name], np.log1p(image.numpy() / unit), rtol=1e-12)
        np.testing.assert_allclose(back(seen)[name], image, rtol=1e-9, atol=1e-15)
    plain, same = made(Discriminator).coordinates(sample)
    assert plain is sample
    assert same(plain) is plain


def test_r1_is_taken_with_respect_to_the_logarithms():
    """By the chain rule d/d ln(1 + E / E_0) = (E + E_0) d/dE, cell by cell."""
    model = CaloganModel(latent_dim=2, segmentation=CELLS, cell_encoding="log")
    training = GanSettings(batch_size=6, dtype="float64", r1={"weight": 0.7, "every": 3})
    gan = Gan(CaloganProblem(model), training, SerialComm(), 1)
    network, sample = gan.networks["discriminator"], showers(6)
    network.cells.unit.assign(UNITS)
    images = {k: v for k, v in sample.items() if k != "energy"}
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(network({**sample, **images}, training=True, update=False))
    slopes = tape.gradient(total, images)
    squares = sum(
        np.sum((slopes[name].numpy() * (image.numpy() + unit)) ** 2, axis=(1, 2))
        for (name, image), unit in zip(images.items(), UNITS, strict=True)
    )
    expected = 3 * 0.5 * 0.7 * squares.mean()
    assert float(gan._r1(sample)) == pytest.approx(expected, rel=1e-9)
    in_gev = r1_penalty(lambda there: network({**sample, **there}, training=True, update=False), images, 0.7)
    assert float(in_gev) > 1e3 * expected  # what it would be of a network that sees a millionth of a GeV


# --- configuration -----------------------------------------------------------------------------------


def test_the_recipe_has_them_and_the_published_model_has_not():
    recipe = config.load(Path("configs/calogan.yaml"))
    assert recipe.model.conditioning == "joined"
    assert recipe.model.discriminator_hidden == (256, 128)
    assert recipe.training.r1.weight > 0
    published = config.load(Path("configs/calogan_reference.yaml")).model
    defaults = type(published).model_fields
    for key in ("conditioning", "discriminator_hidden"):
        assert getattr(published, key) == defaults[key].default


@pytest.mark.parametrize("widths", ["[0]", "[5000]", "[many]", "7"])
def test_hidden_layers_of_no_width(widths):
    with pytest.raises(InputError, match=r"model\.discriminator_hidden"):
        config.load(Path("configs/calogan.yaml"), [f"model.discriminator_hidden={widths}"])
