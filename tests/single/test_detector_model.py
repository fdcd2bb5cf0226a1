"""The detector architecture: its symmetries, its threshold, and what each option adds."""

import math

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.config import TrainingConfig  # noqa: E402
from hpcgan.data import hdf5  # noqa: E402
from hpcgan.methods import gan as gan_module  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.models.detector import Discriminator, Generator, _mass, _minibatch_stddev  # noqa: E402
from hpcgan.physics import jets  # noqa: E402
from hpcgan.problems.rpv import RpvModel, RpvProblem  # noqa: E402

FULL = {
    "architecture": "detector",
    "filters": 2,
    "latent_dim": 3,
    "intensity": "pt",
    "scale_mev": 6000.0,
    "exponent": 1 / 3,
    "pixel_noise": True,
    "pooled_pt": True,
    "minibatch_stddev": True,
}


def _model(**changes):
    return RpvModel(**{**FULL, **changes})


def _noise(model, n=4, dtype="float32"):
    problem = RpvProblem(model)
    return tf.constant(np.random.default_rng(0).normal(size=(n, problem.noise_dim)).astype(dtype))


def _count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def test_parameter_counts():
    model = _model(filters=16, latent_dim=64)
    # project 64*4*4*128; transposed convolutions 16*(128*64+64*32+32*16+16*1); batch norm and noise
    # strengths (2+1)*(128+64+32+16); one bias
    assert _count(Generator(model, 1).weights) == 131_072 + 16 * 10_768 + 3 * 240 + 1
    # convolutions 16*(3*16+16*32+32*64+64*128) and their biases; 1x1 of the sums; head 16*129+2 and bias
    assert _count(Discriminator(model, 1).weights) == 16 * 10_800 + 240 + 2 * 240 + 2066 + 1
    # the means of 129 channels, of the encoded image and two logarithms to 8 units with a bias, those to the logit
    hidden = _count(Discriminator(_model(filters=16, latent_dim=64, hidden_units=8), 1).weights)
    assert hidden == 16 * 10_800 + 240 + 2 * 240 + 2066 + 1 + 132 * 8 + 8 + 8


def test_a_hidden_layer_sees_the_spread_of_a_sum():
    """One event with little and one with much momentum look to a linear head like two in the middle."""
    amounts = np.array([0.5, 1.5, 1.0, 1.0], np.float32)
    images = np.zeros((4, 64, 64), np.float32)
    images[:, 30:34, 30:34] = amounts[:, None, None]

    def spread(network):
        for variable in (*network.biases, *(down.kernel for down in network.downs)):
            variable.assign(tf.zeros_like(variable))  # leaves the sums alone
        logits = network({"hist": tf.constant(images)}, training=True).numpy()
        return logits[0] + logits[1] - logits[2] - logits[3]

    plain = {"exponent": 1.0, "minibatch_stddev": False, "pooled_pt": False}  # exponent 1: sums are linear
    assert spread(Discriminator(_model(**plain), 1)) == pytest.approx(0.0, abs=1e-5)
    network = Discriminator(_model(**plain, hidden_units=1), 1)
    kernel, bias, out = network.hidden
    kernel.assign(tf.one_hot([kernel.shape[0] - 3], kernel.shape[0], axis=0))  # the mean of the encoded image
    bias.assign([-16 / 4096 * 20.0])  # a kink at the middle
    out.assign([[1.0]])
    # 0.5 times the sum's deviation on one side, with slope 1, and as much on the other, with slope 0.2
    assert spread(network) == pytest.approx(0.5 * 16 / 4096 * 20.0 * (1 - 0.2), rel=1e-4)


def test_without_pooled_pt_the_hidden_layer_sees_the_sum_of_squares_of_pixels():
    """One hot pixel and its momentum spread over many: the same total, other squares."""
    images = np.zeros((2, 64, 64), np.float32)
    images[0, 32, 32] = 1.0
    images[1, 32, 30:34] = 0.25
    network = Discriminator(_model(exponent=1.0, minibatch_stddev=False, pooled_pt=False, hidden_units=1), 1)
    for variable in (*network.biases, *(down.kernel for down in network.downs), network.head):
        variable.assign(tf.zeros_like(variable))
    kernel, _, out = network.hidden
    kernel.assign(tf.one_hot([kernel.shape[0] - 1], kernel.shape[0], axis=0))
    out.assign([[1.0]])
    one, four = network({"hist": tf.constant(images)}, training=True).numpy()
    pt2 = _model(exponent=1.0).linear_to_pt[32, 0] ** 2
    slope = [1.0 if v > 0 else 0.2 for v in (np.log(pt2 + 0.1), np.log(pt2 / 4 + 0.1))]
    assert one == pytest.approx(slope[0] * np.log(pt2 + 0.1), rel=1e-4)
    assert four == pytest.approx(slope[1] * np.log(pt2 / 4 + 0.1), rel=1e-4)


def test_encoding_pt_undoes_itself_and_the_threshold_is_one_of_energy():
    model = _model()
    problem = RpvProblem(model)
    images = np.random.default_rng(1).exponential(5e3, (2, 64, 64)).astype(np.float32)
    encoded = problem.encode({"hist": images})
    np.testing.assert_allclose(problem.decode(encoded)["hist"], images, rtol=5e-6)
    row = 60
    expected = (images[0, row, 7] / np.cosh(jets.image_geometry().eta[row]) / 6000.0) ** (1 / 3)
    assert encoded["hist"][0, row, 7] == pytest.approx(expected, rel=1e-5)
    made = Generator(model, 1)(_noise(model, 16), {}, training=True)
    energies = problem.decode({"hist": made["hist"].numpy()})["hist"]
    assert energies[energies > 0].min() > 499.9
    assert (energies == 0).any()


def test_the_generator_commutes_with_rotations_of_its_noise():
    """Rotating every noise image (and the 4x4 start) rotates the event: phi has no edge."""
    model = _model(normalisation="none")
    network = Generator(model, 1, "float64")
    noise = _noise(model, 2, "float64").numpy()
    start = tf.matmul(noise[:, :3], network.project).numpy().reshape(2, 4, 4, 16)

    def event(quarter):
        pieces, at = [noise[:, :3]], 3
        for size in (4, 8, 16, 32):
            image = noise[:, at : at + size * size].reshape(2, size, size)
            pieces.append(np.roll(image, quarter * size // 4, axis=2).reshape(2, -1))
            at += size * size
        rolled = np.roll(start, quarter, axis=2).reshape(2, -1)
        # a latent vector whose projection is the rolled start: change the projection instead
        saved = network.project.numpy()
        identity = np.linalg.lstsq(noise[:, :3], rolled, rcond=None)[0]
        network.project.assign(identity)
        made = network(tf.constant(np.concatenate(pieces, axis=1)), {}, training=True)["hist"].numpy()
        network.project.assign(saved)
        return made

    np.testing.assert_allclose(event(1), np.roll(event(0), 16, axis=2), atol=1e-9)


def test_the_gradient_passes_the_threshold_but_not_the_rectifier():
    model = _model(threshold_mev=1e9)  # everything is below it
    network = Generator(model, 1)
    with tf.GradientTape() as tape:
        made = network(_noise(model), {}, training=True)["hist"]
        total = tf.reduce_sum(made * tf.ones_like(made))
    assert float(tf.reduce_max(made)) == 0.0
    assert float(tape.gradient(total, network.bias)) > 0


def test_both_batches_in_one_pass_are_two_passes():
    model = _model()
    network = Discriminator(model, 1, "float64")
    rng = np.random.default_rng(2)
    real, fake = ({"hist": tf.constant(rng.random((4, 64, 64)))} for _ in range(2))
    together = network.pair(real, fake)
    apart = network(real, training=True), network(fake, training=True)
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_minibatch_stddev_by_hand():
    x = np.zeros((4, 1, 1, 2))
    x[:, 0, 0, 0] = [1.0, 3.0, 0.0, 0.0]
    x[:, 0, 0, 1] = [5.0, 5.0, 2.0, 4.0]
    found = _minibatch_stddev(tf.constant(x), 2).numpy()[:, 0, 0, 0]
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 0.5], atol=1e-3)
    whole = _minibatch_stddev(tf.constant(x), 1).numpy()
    expected = np.mean([np.std([1, 3, 0, 0]), np.std([5, 5, 2, 4])])
    np.testing.assert_allclose(whole, np.full((4, 1, 1, 1), expected), atol=1e-3)


def test_without_minibatch_stddev_events_do_not_see_each_other():
    network = Discriminator(_model(minibatch_stddev=False), 1, "float64")
    x = np.random.default_rng(3).random((3, 64, 64))
    whole = network({"hist": tf.constant(x)}, training=True).numpy()
    alone = [network({"hist": tf.constant(x[i : i + 1])}, training=True).numpy()[0] for i in range(3)]
    np.testing.assert_allclose(whole, alone, rtol=1e-10)


def test_options_need_their_architecture():
    with pytest.raises(ValueError, match=r"model.pooled_pt needs model.architecture=detector"):
        RpvModel(pooled_pt=True)


def test_reordering_and_its_gradient():
    problem = RpvProblem(_model())
    order = problem.permutations(problem.symmetries, np.array([[0.1, 0.1, 0.3], [0.9, 0.9, 0.0]]))["hist"]
    inverse = gan_module._inverse(order)
    x = np.random.default_rng(4).random((2, 64, 64))
    weights = np.random.default_rng(5).random((2, 64, 64))
    v = tf.Variable(x)
    with tf.GradientTape() as tape:
        y = gan_module._reorder(v, tf.constant(order), tf.constant(inverse))
        total = tf.reduce_sum(y * weights)
    expected = problem.augment({"hist": x}, problem.symmetries, np.array([[0.1, 0.1, 0.3], [0.9, 0.9, 0.0]]))
    np.testing.assert_array_equal(y, expected["hist"])
    back = np.take_along_axis(weights.reshape(2, -1), inverse, axis=1).reshape(2, 64, 64)
    np.testing.assert_array_equal(tape.gradient(total, v), back)
    assert float(np.sum(back * x)) == pytest.approx(float(total))


def test_the_penalty_comes_every_few_steps_and_changes_the_update():
    def weights_after(steps, weight):
        config = TrainingConfig(batch_size=4, r1={"weight": weight, "every": 2}, augment_generated=True, label_flip=0.0)
        problem = RpvProblem(_model())
        gan = Gan(problem, config, SerialComm(), 1, problem.symmetries)
        real = {"hist": np.random.default_rng(0).random((4, 64, 64)).astype(np.float32)}
        rates = {"generator": 1e-4, "discriminator": 1e-4}
        for step in steps:
            gan.step(step, real, gan.draws(step, 0, 4), learning_rates=rates, samples=4, stop=False)
        return gan.networks["discriminator"].weights[0].numpy()

    assert not np.array_equal(weights_after([0], 10.0), weights_after([0], 0.0))
    np.testing.assert_array_equal(weights_after([1], 10.0), weights_after([1], 0.0))


def _totals(images):
    """Summed pT in 100 GeV of images in MeV."""
    return np.sum(images / np.cosh(jets.image_geometry().eta)[:, None], axis=(1, 2), dtype=np.float64) / 1e5


@pytest.mark.parametrize("intensity", ["pt", "energy"])
def test_a_drawn_total_is_met_by_every_event(intensity):
    model = _model(total_pt="drawn", intensity=intensity)
    problem = RpvProblem(model)
    network = Generator(model, 1)
    table = np.log(np.linspace(5.0, 45.0, model.total_pt_knots))
    network.log_total_pt.assign(table)
    noise = _noise(model, 32)
    energies = problem.decode({"hist": network(noise, {}, training=True)["hist"].numpy()})["hist"]
    share = [0.5 * (1.0 + math.erf(float(z) / math.sqrt(2.0))) for z in noise.numpy()[:, 0]]
    np.testing.assert_allclose(_totals(energies), 5.0 + 40.0 * np.array(share), rtol=1e-4)
    assert energies[energies > 0].min() > 499.9
    assert (energies == 0).any()


def test_a_drawn_total_at_the_ends_of_its_table():
    model = _model(total_pt="drawn")
    network = Generator(model, 1)
    network.log_total_pt.assign(np.log(np.linspace(5.0, 45.0, model.total_pt_knots)))
    noise = _noise(model, 3).numpy()
    noise[:, 0] = [-9.0, 0.0, 9.0]
    made = RpvProblem(model).decode({"hist": network(tf.constant(noise), {}, training=True)["hist"].numpy()})["hist"]
    np.testing.assert_allclose(_totals(made), [5.0, 25.0, 45.0], rtol=1e-4)


def test_nothing_to_share_out_stays_nothing_and_has_finite_gradients():
    model = _model(total_pt="drawn", threshold_mev=1e12)
    network = Generator(model, 1)
    with tf.GradientTape() as tape:
        made = network(_noise(model), {}, training=True)["hist"]
        total = tf.reduce_sum(made)
    assert float(tf.reduce_max(made)) == 0.0
    assert all(np.isfinite(g).all() for g in tape.gradient(total, network.weights) if g is not None)


def test_the_table_is_measured_from_the_training_events(tmp_path):
    model = _model(total_pt="drawn")
    problem = RpvProblem(model)
    images = np.zeros((600, 64, 64), np.float32)  # more than one reading of 512
    images[:, 10, 20] = np.linspace(1e5, 7e5, 600)
    images[0] = 0.0  # an event without energy
    with hdf5.Writer(tmp_path, {"train": 600}, {"settings": "{}"}) as writer:
        writer.append(images, 1.0, 1.0, 1400.0, 850.0)
    source = problem.open(tmp_path, "train")
    table = problem.calibration(source)["generator/log_total_pt"]
    source.close()
    cosh = np.cosh(jets.image_geometry().eta[10])
    assert np.exp(table[-1]) == pytest.approx(7.0 / cosh, rel=1e-6)
    assert np.exp(table[512]) == pytest.approx(4.0 / cosh, rel=1e-3)
    assert table[0] == pytest.approx(np.log(1e-6))
    assert RpvProblem(_model()).calibration(source) == {}


def test_constants_are_set_in_both_generators_and_never_averaged():
    problem = RpvProblem(_model(total_pt="drawn"))
    gan = Gan(problem, TrainingConfig(batch_size=4, average_half_life=50.0), SerialComm(), 1)
    table = np.linspace(1.0, 3.0, 1025)
    gan.calibrate({"generator/log_total_pt": table})
    for name in ("generator", "generator_average"):
        network = gan.networks[name]
        np.testing.assert_allclose(network.named["generator/log_total_pt"], table, rtol=1e-6)
        assert all("total" not in v.name for v in (*network.statistics, *network.weights))
        assert len(network.statistics) == 8  # mean and variance of four batch norms
    for wrong in ({}, {"generator/log_total_pt": table, "other": table}):
        with pytest.raises(ValueError, match="the networks have constants"):
            gan.calibrate(wrong)


def test_the_mass_of_windows_by_hand():
    """Two massless pixels: m^2 = 2 pt1 pt2 (cosh(d_eta) - cos(d_phi)); one alone has none but the floor of 1 GeV."""
    geometry, model = jets.image_geometry(), _model()
    for (i, j), (k, m) in (((3, 5), (10, 60)), ((60, 5), (63, 6)), ((31, 0), (32, 63))):
        image = np.zeros((1, 64, 64, 1), np.float32)
        image[0, i, j], image[0, k, m] = 2.0, 5.0  # pT in 100 GeV
        momenta = np.sum(image * model.light_cone, axis=(1, 2), dtype=np.float64).astype(np.float32)
        square = np.cosh(geometry.eta[i] - geometry.eta[k]) - np.cos(geometry.phi[j] - geometry.phi[m])
        assert float(_mass(tf.constant(momenta))[0, 0]) == pytest.approx(math.sqrt(20.0 * square), rel=1e-3)
    alone = tf.constant((3.0 * model.light_cone[0, 7]).astype(np.float32)[None])  # at the largest |eta|
    assert float(_mass(alone)[0, 0]) == pytest.approx(0.01, abs=0.01)


def test_the_discriminator_with_masses_sees_what_sums_of_momentum_cannot():
    """Momentum moved within every window, a quarter of it from its middle to an edge."""
    images = np.zeros((2, 64, 64), np.float32)
    images[:, 40, 24] = 1.0
    images[0, 40, 25] = images[1, 47, 31] = 0.5  # one 16x16 window, and one 8x8 window
    plain = {"exponent": 1.0, "minibatch_stddev": False, "intensity": "pt"}

    def logits(**changes):
        network = Discriminator(_model(**plain, **changes), 1, "float64")
        for variable in (*network.biases, *(down.kernel for down in network.downs), *network.pooled[:2]):
            variable.assign(tf.zeros_like(variable))  # the windows of 8x8 and 16x16 pixels are left
        return network({"hist": tf.constant(images, "float64")}, training=True).numpy()

    same, other = logits(), logits(pooled_mass=True)
    assert same[0] == pytest.approx(same[1], rel=1e-9)
    assert abs(other[0] - other[1]) > 1e-3


def test_masses_need_windows():
    with pytest.raises(ValueError, match=r"model.pooled_mass needs model.pooled_pt=true"):
        _model(pooled_pt=False, pooled_mass=True)
