"""The detector architecture: its symmetries, its threshold, and what each option adds."""

import math

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.data.storage import Target  # noqa: E402
from hpcgan.methods import permute  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.networks.layers import MinibatchStddev  # noqa: E402
from hpcgan.physics import jets  # noqa: E402
from hpcgan.problems.detector_images import files as hdf5  # noqa: E402
from hpcgan.problems.detector_images.networks_detector import Discriminator, Generator, Windows, _mass  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402
from hpcgan.training.inputs import Inputs  # noqa: E402

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
    # the means of 129 channels and 23 sums to 8 units with a bias, to 8 more, to the logit
    hidden = _count(Discriminator(_model(filters=16, latent_dim=64, hidden_units=8), 1).weights)
    assert hidden == 16 * 10_800 + 240 + 2 * 240 + 2066 + 1 + (129 + 23) * 8 + 8 + 8 * 8 + 8 + 8
    masses = _count(Discriminator(_model(filters=16, latent_dim=64, pooled_mass=True), 1).weights)
    assert masses == 16 * 10_800 + 240 + 4 * 240 + 2066 + 1  # momentum and mass of a window, plain and logarithm


def test_hidden_layers_see_the_spread_of_a_sum():
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
    kernel, bias, kernel2, _, out = network.hidden
    kernel.assign(tf.one_hot([kernel.shape[0] - 23], kernel.shape[0], axis=0))  # the mean of the encoded image
    middle = 16 / 4096
    network.sums_scale[0].assign(tf.one_hot(0, 23) * middle)
    network.sums_scale[1].assign(tf.ones(23) * 0.05)
    bias.assign([0.0])  # a kink at the middle
    kernel2.assign([[1.0]])
    out.assign([[1.0]])
    # half the middle over the deviation on one side with slope 1, on the other with 0.2 twice, layer after layer
    assert spread(network) == pytest.approx(0.5 * middle / 0.05 * (1 - 0.2**2), rel=1e-4)


def test_sums_by_hand():
    """Two pixels of known momentum, in one 16x16 window, but in no smaller one."""
    geometry, model = jets.image_geometry(), _model(exponent=1.0, scale_mev=1e5, hidden_units=1)  # t is pT in 100 GeV
    image = np.zeros((1, 64, 64))
    image[0, 32, 16], image[0, 47, 31] = 2.0, 3.0
    sums = Discriminator(model, 1, "float64").sums(tf.constant(image)).numpy()[0]
    assert sums.shape == (23,)
    d_eta, d_phi = geometry.eta[47] - geometry.eta[32], geometry.phi[31] - geometry.phi[16]
    m2 = 2 * 2.0 * 3.0 * (np.cosh(d_eta) - np.cos(d_phi))
    floor = 1e-4  # of the squared mass of a single pixel
    empty = {size: (64 // size) ** 2 - 2 for size in (2, 4, 8)}
    expected = [5.0 / 4096, 2 * 0.5 / 4096, np.log(5.1), np.log(0.1), np.log(0.1), np.log(3.1), np.log(2.1)]
    for size in (2, 4, 8):
        n = empty[size] + 2
        expected += [np.log(13.1), np.log(n * np.sqrt(floor) + 0.1), np.log(n * floor + 0.1), 2 / 3 + 3 / 4]
    expected += [np.log(25.1), np.log(np.sqrt(m2 + floor) + 15 * np.sqrt(floor) + 0.1), np.log(m2 + 16 * floor + 0.1)]
    expected += [5 / 6]
    np.testing.assert_allclose(sums, expected, rtol=1e-6)


def test_the_scale_of_the_sums_is_measured_from_real_events():
    model = _model(hidden_units=4)
    network = Discriminator(model, 1, "float64")
    batches = [{"hist": tf.constant(np.random.default_rng(i).random((5, 64, 64)))} for i in range(3)]
    whole = np.concatenate([network.sums(batch["hist"]).numpy() for batch in batches])
    network.calibrate(iter(batches))
    np.testing.assert_allclose(network.sums_scale[0], whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(network.sums_scale[1], np.maximum(whole.std(axis=0), 1e-3), rtol=1e-9)
    assert {v.name for v in network.constants}.isdisjoint({v.name for v in (*network.weights, *network.statistics)})


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
    found = MinibatchStddev()(tf.constant(x), 2).numpy()[:, 0, 0, 2]
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 0.5], atol=1e-3)
    whole = MinibatchStddev()(tf.constant(x), 1).numpy()
    np.testing.assert_array_equal(whole[..., :2], x)
    expected = np.mean([np.std([1, 3, 0, 0]), np.std([5, 5, 2, 4])])
    np.testing.assert_allclose(whole[..., 2:], np.full((4, 1, 1, 1), expected), atol=1e-3)


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
    inverse = permute.inverse(order)
    x = np.random.default_rng(4).random((2, 64, 64))
    weights = np.random.default_rng(5).random((2, 64, 64))
    v = tf.Variable(x)
    with tf.GradientTape() as tape:
        y = permute._reorder(v, tf.constant(order), tf.constant(inverse))
        total = tf.reduce_sum(y * weights)
    expected = problem.augment({"hist": x}, problem.symmetries, np.array([[0.1, 0.1, 0.3], [0.9, 0.9, 0.0]]))
    np.testing.assert_array_equal(y, expected["hist"])
    back = np.take_along_axis(weights.reshape(2, -1), inverse, axis=1).reshape(2, 64, 64)
    np.testing.assert_array_equal(tape.gradient(total, v), back)
    assert float(np.sum(back * x)) == pytest.approx(float(total))


@pytest.mark.usefixtures("eager")
def test_the_penalty_comes_every_few_steps_and_changes_the_update():
    def weights_after(steps, weight):
        config = GanSettings(batch_size=4, r1={"weight": weight, "every": 2}, augment_generated=True, label_flip=0.0)
        problem = RpvProblem(_model())
        gan = Gan(problem, config, SerialComm(), 1, problem.symmetries)
        real = {"hist": np.random.default_rng(0).random((4, 64, 64)).astype(np.float32)}
        rates = {"generator": 1e-4, "discriminator": 1e-4}
        for step in steps:
            gan.step(step, real, gan.draws(step, 0, 4), learning_rates=rates, samples=4, attention=False)
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
    network.total.log_total_pt.assign(table)
    noise = _noise(model, 32)
    energies = problem.decode({"hist": network(noise, {}, training=True)["hist"].numpy()})["hist"]
    share = [0.5 * (1.0 + math.erf(float(z) / math.sqrt(2.0))) for z in noise.numpy()[:, 0]]
    np.testing.assert_allclose(_totals(energies), 5.0 + 40.0 * np.array(share), rtol=1e-4)
    assert energies[energies > 0].min() > 499.9
    assert (energies == 0).any()


def test_a_drawn_total_at_the_ends_of_its_table():
    model = _model(total_pt="drawn")
    network = Generator(model, 1)
    network.total.log_total_pt.assign(np.log(np.linspace(5.0, 45.0, model.total_pt_knots)))
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
    problem = RpvProblem(_model(total_pt="drawn"))
    images = np.zeros((600, 64, 64), np.float32)  # more than one reading of 512
    images[:, 10, 20] = np.linspace(1e5, 7e5, 600)
    images[0] = 0.0  # an event without energy
    with hdf5.Writer(Target(tmp_path, {"train": 600}, {"settings": "{}"})) as writer:
        writer.append(images, 1.0, 1.0, 1400.0, 850.0)
    network = Generator(problem.model, 1)
    with Inputs(None, problem, {"train": problem.open(tmp_path, "train")}, None) as inputs:
        network.calibrate({k: tf.constant(v) for k, v in batch.items()} for batch in inputs.encoded())
    table, cosh = network.total.log_total_pt.numpy(), np.cosh(jets.image_geometry().eta[10])
    assert np.exp(table[-1]) == pytest.approx(7.0 / cosh, rel=1e-5)
    assert np.exp(table[512]) == pytest.approx(4.0 / cosh, rel=1e-3)
    assert table[0] == pytest.approx(np.log(1e-6))
    assert Generator(_model(), 1).constants == []


def test_constants_are_set_in_all_networks_and_never_averaged():
    problem = RpvProblem(_model(total_pt="drawn", hidden_units=2))
    gan = Gan(problem, GanSettings(batch_size=4, average_half_life=50.0), SerialComm(), 1)
    images = np.random.default_rng(0).random((20, 64, 64)).astype(np.float32)
    gan.calibrate(lambda: iter([{"hist": images[:12]}, {"hist": images[12:]}]))
    tables = [gan.networks[name].named["generator/log_total_pt"].numpy() for name in ("generator", "generator_average")]
    np.testing.assert_array_equal(*tables)
    assert np.ptp(tables[0]) > 0
    assert gan.networks["discriminator"].sums_scale[1].numpy().max() < 1.0
    for network, statistics in (("generator", 8), ("generator_average", 8), ("discriminator", 0)):
        # mean and variance of four batch norms
        assert len(gan.networks[network].statistics) == statistics


def test_the_mass_of_windows_by_hand():
    """Two massless pixels: m^2 = 2 pt1 pt2 (cosh(d_eta) - cos(d_phi)); one alone has none but the floor of 1 GeV."""
    geometry, model = jets.image_geometry(), _model()
    for (i, j), (k, m) in (((3, 5), (10, 60)), ((60, 5), (63, 6)), ((31, 0), (32, 63))):
        image = np.zeros((64, 64, 1), np.float32)
        image[i, j], image[k, m] = 2.0, 5.0  # pT in 100 GeV
        momenta = np.sum(image * model.light_cone, axis=(0, 1), dtype=np.float64).astype(np.float32)
        square = np.cosh(geometry.eta[i] - geometry.eta[k]) - np.cos(geometry.phi[j] - geometry.phi[m])
        mass = float(_mass([tf.constant(momentum) for momentum in momenta]))
        assert mass == pytest.approx(math.sqrt(20.0 * square), rel=1e-3)
    alone = [tf.constant(momentum, tf.float32) for momentum in 3.0 * model.light_cone[0, 7]]  # at the largest |eta|
    assert float(_mass(alone)) == pytest.approx(0.01, abs=0.01)


@pytest.mark.parametrize("with_mass", [False, True])
def test_windows_are_sums_over_their_pixels(with_mass):
    light_cone = _model().light_cone
    pt = np.random.default_rng(3).exponential(size=(3, 64, 64))
    weights = np.concatenate([np.ones((64, 64, 1)), light_cone], axis=2) if with_mass else np.ones((64, 64, 1))
    found = Windows(light_cone if with_mass else None, "float64")(tf.constant(pt))
    for window, size in zip(found, (2, 4, 8, 16), strict=True):
        n = 64 // size
        pixels = (pt[..., None] * weights).reshape(3, n, size, n, size, -1)
        np.testing.assert_allclose(np.stack(window, axis=-1), pixels.sum(axis=(2, 4)), rtol=1e-9, atol=1e-9)


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
