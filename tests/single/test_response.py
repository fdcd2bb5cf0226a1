"""The response of training showers: tables of quantiles over the energy of the particle."""

import needs
import numpy as np
from scipy import stats

tf = needs.tensorflow()

from calogan_settings import CaloGan  # noqa: E402

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.networks.layers import Initializer  # noqa: E402
from hpcgan.problems.calorimeter.calogan import CaloganModel, CaloganProblem  # noqa: E402
from hpcgan.problems.calorimeter.networks import Generator, class_numbers  # noqa: E402
from hpcgan.problems.calorimeter.response import BINS, KNOTS, Response  # noqa: E402

SMALL = {"latent_dim": 3, "shapes": ((2, 4), (2, 2), (2, 1)), "total_energy": "drawn"}


def _response(totals, energies, classes=None):
    found = Response(Initializer(1, "float64"), "response", 1 if classes is None else max(classes) + 1)
    found.fit(totals, energies, np.zeros(len(energies), int) if classes is None else np.asarray(classes))
    return found


def test_a_response_that_is_a_power_of_the_energy_is_met_at_every_energy_and_kept_outside():
    energies = np.exp(np.linspace(0.0, np.log(100.0), 16 * 200 + 1))
    found = _response(0.9 * energies * (energies / 10.0) ** 0.05, energies)
    asked = np.array([2.0, 10.0, 33.0, 80.0])
    made = found(tf.zeros(4, tf.float64), tf.constant(asked)).numpy()
    np.testing.assert_allclose(made, 0.9 * (asked / 10.0) ** 0.05, rtol=1e-4)
    first, last = np.exp(found.log_energy.numpy()[0, [0, -1]])
    beyond = found(tf.zeros(2, tf.float64), tf.constant([0.01, 1000.0], tf.float64)).numpy()
    np.testing.assert_allclose(beyond, 0.9 * (np.array([first, last]) / 10.0) ** 0.05, rtol=1e-4)


def test_drawn_responses_have_the_distribution_of_the_training_showers():
    rng = np.random.default_rng(1)
    energies = rng.uniform(1.0, 100.0, 40_000)
    response = 0.8 + 0.3 / np.sqrt(energies) * rng.standard_normal(energies.size)
    found = _response(response * energies, energies)
    asked = rng.uniform(30.0, 60.0, 4000)
    made = found(tf.constant(rng.standard_normal(asked.size)), tf.constant(asked)).numpy()
    pull = (made - 0.8) / (0.3 / np.sqrt(asked))
    assert stats.kstest(pull, "norm").pvalue > 0.01
    assert np.all(np.diff(found(tf.constant(np.linspace(-4.0, 4.0, 50)), tf.constant(np.full(50, 50.0)))) >= 0)


def test_each_class_has_its_own_response():
    energies = np.tile(np.linspace(1.0, 100.0, 500), 2)
    labels = np.repeat([0, 1], 500)
    found = _response(np.where(labels == 0, 0.5, 0.75) * energies, energies, labels)
    made = found(tf.constant([0.3, -0.3], tf.float64), tf.constant([20.0, 20.0], tf.float64), tf.constant([1, 0]))
    np.testing.assert_allclose(made.numpy(), [0.75, 0.5], rtol=1e-12)
    np.testing.assert_array_equal(class_numbers(tf.constant([211.0, 22.0, -11.0]), (22.0, -11.0, 211.0)), [2, 0, 1])


def test_few_showers_and_dark_ones():
    found = _response(np.array([0.0, 3.0]), np.array([1.0, 4.0]))  # fewer than there are bins
    assert np.isfinite(found.table.numpy()).all()
    assert found.table.shape == (1, BINS, KNOTS)
    made = found(tf.zeros(2, tf.float64), tf.constant([1.0, 4.0], tf.float64)).numpy()
    np.testing.assert_allclose(made, [1e-6, 0.75], rtol=1e-6)


def test_generated_showers_have_the_drawn_energy_and_gradients_stay_finite():
    network = Generator(CaloGan(**SMALL), 1)
    rng = np.random.default_rng(2)
    energies = rng.uniform(1.0, 100.0, 800).astype(np.float32)
    shares = {f"layer_{i}": rng.random((800, *shape)).astype(np.float32) for i, shape in enumerate(SMALL["shapes"])}
    total = sum(share.sum(axis=(1, 2)) for share in shares.values())
    real = {k: v * (0.9 * energies / total)[:, None, None] for k, v in shares.items()}
    network.calibrate(
        [{**{k: tf.constant(v[i::2]) for k, v in real.items()}, "energy": tf.constant(energies[i::2])} for i in (0, 1)]
    )
    noise = tf.constant(rng.standard_normal((6, 3)).astype(np.float32))
    asked = tf.constant([1.0, 5.0, 20.0, 50.0, 100.0, 150.0])
    with tf.GradientTape() as tape:
        made = network(noise, {"energy": asked}, training=True)
        loss = tf.reduce_sum(tf.square(made["layer_0"]))
    summed = sum(tf.reduce_sum(image, axis=[1, 2]).numpy() for image in made.values())
    np.testing.assert_allclose(summed, 0.9 * asked.numpy(), rtol=1e-6)
    # Nothing trains the network's own scale, which may be anything.
    for weight in network.weights:
        if "/out/" in weight.name:
            weight.assign(weight * 1e-6)
    scaled = network(noise, {"energy": asked}, training=True)
    for name, image in made.items():
        np.testing.assert_allclose(scaled[name], image, rtol=1e-4, atol=1e-6)
    assert all(np.isfinite(g).all() for g in tape.gradient(loss, network.weights) if g is not None)


def test_constants_are_no_statistics_and_the_average_has_them():
    model = CaloganModel(latent_dim=2, segmentation="2x4,2x2,2x1", total_energy="drawn")
    gan = Gan(CaloganProblem(model), GanSettings(batch_size=4, average_half_life=50.0), SerialComm(), 1)
    rng = np.random.default_rng(3)
    batch = {f"layer_{i}": rng.random((20, *shape)).astype(np.float32) for i, shape in enumerate(SMALL["shapes"])}
    gan.calibrate(lambda: iter([{**batch, "energy": rng.uniform(1, 9, 20).astype(np.float32)}]))
    tables = [
        gan.networks[k].named["generator/response/log_response"].numpy() for k in ("generator", "generator_average")
    ]
    np.testing.assert_array_equal(*tables)
    assert np.ptp(tables[0]) > 0
    assert len(gan.networks["generator"].statistics) == 6  # mean and variance of a batch norm a layer


def test_the_published_model_draws_nothing():
    assert Generator(CaloGan(latent_dim=3, shapes=SMALL["shapes"]), 1).constants == []
