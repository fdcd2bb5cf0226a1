"""Unshared convolution against loops, numerical gradients and Keras's fans."""

import math

import needs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

tf = needs.tensorflow()

from hpcgan.networks import local  # noqa: E402
from hpcgan.networks.layers import Initializer  # noqa: E402
from hpcgan.networks.local import LocallyConnected2D, SharedConv2D  # noqa: E402


def _loop(x, kernel, size, stride):
    """The definition, (h, w, n, c), (h', w', kernel cells * c, f) -> (h', w', n, f)."""
    rows, columns, seen, outputs = kernel.shape
    cells = kernel.reshape(rows, columns, *size, seen // (size[0] * size[1]), outputs)
    y = np.zeros((rows, columns, x.shape[2], outputs))
    for p in range(rows):
        for q in range(columns):
            for i in range(size[0]):
                for j in range(size[1]):
                    y[p, q] += x[stride[0] * p + i, stride[1] * q + j] @ cells[p, q, i, j]
    return y


def _case(rng, cells, channels, outputs, size, stride, samples=3):
    places = [(n - k) // s + 1 for n, k, s in zip(cells, size, stride, strict=True)]
    x = rng.normal(size=(*cells, samples, channels))
    return x, rng.normal(size=(*places, size[0] * size[1] * channels, outputs))


CASES = [
    ((5, 8), 4, 3, (3, 3), (1, 2)),  # as in the discriminator: more channels than outputs, columns left over
    ((4, 7), 2, 3, (2, 2), (1, 1)),
    ((6, 5), 3, 1, (2, 2), (1, 2)),
    ((5, 5), 1, 2, (3, 2), (3, 2)),
    ((7, 9), 2, 2, (3, 4), (2, 3)),
    ((2, 3), 2, 2, (2, 3), (1, 1)),  # one place
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_a_loop(case):
    x, kernel = _case(np.random.default_rng(1), *case)
    y = local.locally_connected(tf.constant(x), tf.constant(kernel), *case[3:])
    np.testing.assert_allclose(y, _loop(x, kernel, *case[3:]), rtol=1e-12, atol=1e-12)


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_any_geometry_against_a_loop_and_its_adjoint(cells, size, stride, channels, outputs, samples):
    """<y, L x> = <L^T y, x>, where the gradient with respect to x is L^T."""
    size = tuple(min(k, n) for k, n in zip(size, cells, strict=True))
    stride = tuple(min(s, k) for s, k in zip(stride, size, strict=True))
    rng = np.random.default_rng(2)
    x, kernel = _case(rng, cells, channels, outputs, size, stride, samples)
    given_x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given_x)
        y = local.locally_connected(given_x, tf.constant(kernel), size, stride)
    np.testing.assert_allclose(y, _loop(x, kernel, size, stride), atol=1e-12)
    other = rng.normal(size=y.shape)
    back = tape.gradient(y, given_x, output_gradients=tf.constant(other))
    assert back.shape == x.shape
    assert np.sum(other * y.numpy()) == pytest.approx(np.sum(back.numpy() * x), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_the_numerical_ones(case):
    x, kernel = _case(np.random.default_rng(3), *case, samples=2)

    @tf.function  # for speed: it is called for every entry
    def function(x, kernel):
        return tf.tanh(local.locally_connected(x, kernel, *case[3:]))

    exact, numerical = tf.test.compute_gradient(function, [x, kernel], delta=1e-5)
    for e, n in zip(exact, numerical, strict=True):
        np.testing.assert_allclose(e, n, atol=1e-8)
        assert np.abs(e).max() > 0.1


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_second_derivatives_are_those_of_plain_operations(case, compiled):
    """Those of a penalty on the gradient, in both arguments, as gradient penalties need them."""
    x, kernel = (tf.constant(array) for array in _case(np.random.default_rng(4), *case))
    size, stride = case[3:]

    def plain(x, kernel):
        images = tf.transpose(x, [2, 0, 1, 3])
        seen = tf.image.extract_patches(images, [1, *size, 1], [1, *stride, 1], [1, 1, 1, 1], "VALID")
        return tf.einsum("nhwk,hwkf->hwnf", seen, kernel)

    def everything(function):
        with tf.GradientTape() as outer:
            outer.watch([x, kernel])
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                loss = tf.reduce_sum(tf.tanh(function(x, kernel)) ** 3)
            first = tape.gradient(loss, [x, kernel])
            penalty = tf.reduce_sum(first[0] ** 2) + tf.reduce_sum(first[1] ** 4)
        return [*first, *outer.gradient(penalty, [x, kernel])]

    def ours():
        return everything(lambda x, kernel: local.locally_connected(x, kernel, size, stride))

    found = (tf.function(ours) if compiled else ours)()
    for a, b in zip(found, everything(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_patches_by_hand():
    """Kernel cells row by row, channels within them."""
    image = np.arange(1.0, 10.0).reshape(3, 3)
    x = tf.constant(np.stack([image, -image], axis=-1)[:, :, None])  # one sample of two channels
    seen = local.patches(x, (2, 2)).numpy()
    assert seen.shape == (2, 2, 1, 8)
    assert seen[0, 1, 0].tolist() == [2, -2, 3, -3, 5, -5, 6, -6]
    assert local.patches(x, (2, 1)).numpy()[1, 2, 0].tolist() == [6, -6, 9, -9]


def test_a_layer_has_a_bias_at_every_place():
    layer = LocallyConnected2D(Initializer(1, "float64"), "a/b", (3, 4), 2, 3, kernel=(2, 2), bias=[0.0, 1.0, -10.0])
    assert layer.places == (2, 3)
    np.testing.assert_array_equal(layer.bias, np.broadcast_to([0.0, 1.0, -10.0], (2, 3, 3)))
    layer.bias.assign(np.arange(18.0).reshape(2, 3, 3))
    x = np.random.default_rng(5).normal(size=(3, 4, 5, 2))
    expected = _loop(x, layer.kernel.numpy(), (2, 2), (1, 1)) + layer.bias.numpy()[:, :, None]
    np.testing.assert_allclose(layer(tf.constant(x)), expected, atol=1e-12)
    assert LocallyConnected2D(Initializer(1), "c", (3, 4), 2, 3, kernel=(2, 2)).bias is None


def test_batches_of_any_size_in_one_compiled_function():
    layer = LocallyConnected2D(Initializer(1, "float64"), "l", (4, 6), 2, 3, kernel=(3, 3), stride=(1, 2))
    compiled = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec([4, 6, None, 2], tf.float64)])
    for samples in (1, 4):
        x = np.random.default_rng(6).normal(size=(4, 6, samples, 2))
        np.testing.assert_allclose(compiled(x), _loop(x, layer.kernel.numpy(), (3, 3), (1, 2)), atol=1e-12)


@pytest.mark.parametrize(
    ("cells", "kernel", "stride", "complaint"),
    [((2, 9), (3, 3), (1, 1), "does not fit"), ((9, 9), (2, 2), (1, 3), "leaves cells out")],
)
def test_impossible_geometries_are_refused(cells, kernel, stride, complaint):
    with pytest.raises(ValueError, match=f"^g/l: .*{complaint}"):
        LocallyConnected2D(Initializer(1), "g/l", cells, 1, 1, kernel=kernel, stride=stride)


def test_initial_weights_have_the_fans_of_keras():
    """20 x 30 places of 2 x 2 x 5 weights for 4 outputs: fans 600 * 20 and 600 * 4."""

    def weights(initial):
        return LocallyConnected2D(Initializer(1), "l", (21, 31), 5, 4, kernel=(2, 2), initial=initial).kernel.numpy()

    for initial, variance in (("he_uniform", 2 / 12000), ("glorot_uniform", 2 / 14400)):
        bound = math.sqrt(3 * variance)
        assert 0.999 * bound < np.abs(weights(initial)).max() <= bound
        assert weights(initial).std() == pytest.approx(math.sqrt(variance), rel=0.01)
    normal = weights("glorot_normal")
    assert normal.std() == pytest.approx(math.sqrt(2 / 14400), rel=0.01)
    # Cut at two standard deviations of the uncut distribution, which is wider by 1 / 0.87962566.
    cut = 2 * math.sqrt(2 / 14400) / 0.87962566
    assert 0.99 * cut < np.abs(normal).max() <= cut
    # A normal distribution, not a uniform one: 68.27% - 2 tails of 2.275% within one sigma, of what is left.
    within = np.mean(np.abs(normal) < cut / 2)
    assert within == pytest.approx(0.6827 / 0.9545, abs=0.01)


@pytest.mark.parametrize(("kernel", "inputs"), [((2, 2), 1), ((3, 2), 2), ((1, 4), 1)])
def test_the_shared_convolution_is_the_ordinary_one(kernel, inputs):
    layer = SharedConv2D(Initializer(1, "float64"), "s", inputs, 3, kernel=kernel)
    layer.bias.assign([0.5, 0.0, -1.0])
    x = tf.constant(np.random.default_rng(7).normal(size=(2, 4, 5, inputs)))
    weights = [layer.kernel, layer.bias]

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            loss = tf.reduce_sum(y**3)
        return [y, *tape.gradient(loss, [x, *weights])]

    ours = gradients(lambda x: local.samples_first(layer(local.cells_first(x))))
    ordinary = gradients(lambda x: tf.nn.conv2d(x, layer.kernel, 1, "SAME") + layer.bias)
    for a, b in zip(ours, ordinary, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_cells_first_and_back():
    x = np.random.default_rng(8).normal(size=(2, 3, 4, 5))
    there = local.cells_first(tf.constant(x))
    assert there.shape == (3, 4, 2, 5)
    assert there[1, 2, 0, 3].numpy() == x[0, 1, 2, 3]
    np.testing.assert_array_equal(local.samples_first(there), x)
    padded = local.pad_cells(there, (1, 0), (0, 2)).numpy()
    assert padded.shape == (4, 6, 2, 5)
    np.testing.assert_array_equal(padded[1:, :4], there)
    assert np.count_nonzero(padded) == x.size
