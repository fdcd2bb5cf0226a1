import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.networks import layers  # noqa: E402
from hpcgan.problems.detector_images.networks_dcgan import Discriminator, Generator  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel  # noqa: E402


def _count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def test_parameter_counts_of_the_reference():
    """Known answers for f = 128, nz = 16."""
    config = RpvModel(filters=128, latent_dim=16)
    generator, discriminator = Generator(config, 1), Discriminator(config, 1)
    assert _count(generator.weights) == 11_278_080
    assert _count(discriminator.weights) == 11_032_064
    assert _count(generator.variables) == 11_281_920
    assert _count(discriminator.variables) == 11_035_648


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_shapes_and_the_threshold(padding):
    config = RpvModel(filters=4, latent_dim=5, phi_padding=padding)
    made = Generator(config, 1)(tf.random.stateless_normal((3, 5), [1, 2]), {}, training=True)["hist"].numpy()
    assert made.shape == (3, 64, 64)
    assert made.max() < 1.0
    assert np.all((made == 0.0) | (made > config.encoded_threshold))
    assert Discriminator(config, 1)({"hist": tf.constant(made)}, training=True).shape == (3,)


def test_initial_weights_derive_from_seed_and_name():
    config = RpvModel(filters=4)
    one, same, other = (Discriminator(config, seed).named for seed in (1, 1, 2))
    name = "discriminator/down1/kernel"
    np.testing.assert_array_equal(one[name], same[name])
    assert not np.array_equal(one[name], other[name])
    assert not np.array_equal(one[name][..., :4, :4], one["discriminator/down2/kernel"][..., :4, :4])


def test_initial_weights_fill_the_kaiming_interval():
    init = layers.Initializer(1)
    kernel = layers.Conv2D(init, "c", 8, 64).kernel.numpy()
    bound = 1 / np.sqrt(8 * 16)
    assert np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def _loop_conv(x, kernel, stride, circular):
    """The definition: y[i, j] = sum over k, l of x[s i + k - 1, s j + l - 1] w[k, l]."""
    n, height, width, _ = x.shape
    y = np.zeros((n, height // stride, width // stride, kernel.shape[3]))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            for k in range(4):
                for m in range(4):
                    row, column = stride * i + k - 1, stride * j + m - 1
                    if circular:
                        column %= width
                    if 0 <= row < height and 0 <= column < width:
                        y[:, i, j] += x[:, row, column] @ kernel[k, m]
    return y


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_convolutions_against_a_loop(padding):
    rng = np.random.default_rng(1)
    init = layers.Initializer(1, "float64")
    x = rng.normal(size=(2, 8, 8, 3))
    down = layers.Conv2D(init, "down", 3, 5, padding=padding)
    expected = _loop_conv(x, down.kernel.numpy(), 2, padding == "circular")
    np.testing.assert_allclose(down(tf.constant(x)), expected, atol=1e-12)


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_the_transposed_convolution_is_the_adjoint(padding):
    """<conv(x), y> = <x, conv^T(y)> with the same kernel."""
    rng = np.random.default_rng(2)
    init = layers.Initializer(1, "float64")
    down = layers.Conv2D(init, "down", 3, 5, padding=padding)
    up = layers.ConvTranspose2D(init, "up", 5, 3, padding=padding)
    up.kernel.assign(down.kernel)
    x, y = rng.normal(size=(2, 8, 8, 3)), rng.normal(size=(2, 4, 4, 5))
    left = np.sum(down(tf.constant(x)).numpy() * y)
    right = np.sum(x * up(tf.constant(y)).numpy())
    assert left == pytest.approx(right, abs=1e-10)


def test_circular_networks_commute_with_rotations():
    """A rotation by 16 pixels (the networks' total stride) goes straight through."""
    config = RpvModel(filters=4, phi_padding="circular")
    network = Discriminator(config, 1, "float64")
    x = tf.random.stateless_uniform((2, 64, 64), [1, 2], dtype=tf.float64)
    features = [layers.Conv2D.__call__(network.downs[0], v[..., None]) for v in (x, tf.roll(x, 16, axis=2))]
    np.testing.assert_allclose(tf.roll(features[0], 8, axis=2), features[1], atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm_by_hand(dtype):
    init = layers.Initializer(1, dtype)
    norm = layers.BatchNorm(init, "bn", 2)
    norm.scale.assign([2.0, 1.0])
    norm.offset.assign([0.5, 0.0])
    x = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0]], dtype)
    y = norm(tf.constant(x), training=True).numpy()
    # channel 0: mean 3, variance 8/3; channel 1: mean 2, variance 8; unbiased 4 and 12
    np.testing.assert_allclose(y[:, 0], 2 * (x[:, 0] - 3) / np.sqrt(8 / 3 + 1e-5) + 0.5, rtol=1e-5)
    np.testing.assert_allclose(norm.mean, [0.3, 0.2], rtol=1e-6)
    np.testing.assert_allclose(norm.variance, [0.9 + 0.1 * 4, 0.9 + 0.1 * 12], rtol=1e-6)
    frozen = norm(tf.constant(x), training=True, update=False)
    np.testing.assert_allclose(frozen, y)
    np.testing.assert_allclose(norm.mean, [0.3, 0.2], rtol=1e-6)
    inference = norm(tf.constant(x), training=False).numpy()
    np.testing.assert_allclose(inference[:, 0], 2 * (x[:, 0] - 0.3) / np.sqrt(1.3 + 1e-5) + 0.5, rtol=1e-5)


def test_two_variables_of_one_name_are_refused():
    class Twice(layers.Network):
        def __init__(self):
            super().__init__("twice")
            init = layers.Initializer(1)
            self.a, self.b = layers.Dense(init, "same", 2, 2), layers.Dense(init, "same", 2, 2)

    with pytest.raises(ValueError, match="two variables are named 'same/bias'"):
        Twice().named  # noqa: B018


def test_nearest_upsampling_is_enlarging_and_a_three_by_three_convolution():
    rng = np.random.default_rng(5)
    layer = layers.ConvTranspose2D(layers.Initializer(1, "float64"), "up", 3, 2, upsampling="nearest", gain=2)
    x = rng.normal(size=(2, 4, 4, 3))
    enlarged = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    kernel = np.transpose(layer.kernel.numpy()[::-1, ::-1], (0, 1, 3, 2))  # a transposed kernel runs backwards
    expected = tf.nn.conv2d(enlarged, kernel, 1, "SAME").numpy()
    np.testing.assert_allclose(layer(tf.constant(x)), expected, atol=1e-12)


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize(
    ("shape", "few"), [((3, 8, 6, 5), 1), ((1, 1, 1, 2), 2), ((2, 16, 32, 1), 1), ((2, 3, 4, 7), 3)]
)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_convolutions_of_few_channels_are_the_ordinary_ones(shape, few, size, direction):
    """Values, gradients, and the gradient of a penalty on a gradient, in float64."""
    rng = np.random.default_rng(4)
    n, h, w, many = shape
    kernel = tf.constant(rng.normal(size=(size, size, few, many)))
    x = tf.constant(rng.normal(size=shape if direction == "up" else (n, 2 * h, 2 * w, few)))

    def everything(convolution):
        with tf.GradientTape() as outer:
            outer.watch([x, kernel])
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                y = tf.tanh(convolution(x, kernel))
                loss = tf.reduce_sum(y**3)
            first = tape.gradient(loss, [x, kernel])
            penalty = tf.reduce_sum(first[0] ** 2)
        return [y, *first, *outer.gradient(penalty, [x, kernel])]

    if direction == "up":
        ours, ordinary = layers.transposed_to_few, lambda x, k: tf.nn.conv2d_transpose(x, k, [n, 2 * h, 2 * w, few], 2)
    else:
        ours, ordinary = layers.convolve_few, lambda x, k: tf.nn.conv2d(x, k, 2, "SAME")
    for a, b in zip(everything(ours), everything(ordinary), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
