"""Minibatch discrimination against loops, and which batch it sees."""

import math

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.networks.layers import BatchNorm, Initializer, synchronise  # noqa: E402
from hpcgan.networks.minibatch import MinibatchDiscrimination, nearness  # noqa: E402


def _loop(own, others):
    """o[i, k] = sum over j of exp(-sum over d of |own[i, k, d] - others[j, k, d]|)."""
    found = np.zeros(own.shape[:2])
    for i in range(len(own)):
        for k in range(own.shape[1]):
            for other in others:
                found[i, k] += math.exp(-sum(abs(own[i, k, d] - other[k, d]) for d in range(own.shape[2])))
    return found


def test_by_hand():
    """Two samples at a distance of 1 + 2 in the first kernel, of ln 2 in the second."""
    own = np.array([[[0.0, 5.0], [0.0, 1.0]], [[1.0, 3.0], [math.log(2), 1.0]]])
    expected = [[1 + math.exp(-3), 1.5], [1 + math.exp(-3), 1.5]]
    np.testing.assert_allclose(nearness(tf.constant(own), tf.constant(own)), expected, rtol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 7), (1, 1)])
def test_against_a_loop(n, m):
    rng = np.random.default_rng(1)
    own, others = rng.normal(size=(n, 3, 2)), rng.normal(size=(m, 3, 2))
    np.testing.assert_allclose(nearness(tf.constant(own), tf.constant(others)), _loop(own, others), rtol=1e-12)


def test_gradients_are_the_numerical_ones():
    rng = np.random.default_rng(2)
    own, others = 0.5 * rng.normal(size=(3, 2, 3)), 0.5 * rng.normal(size=(4, 2, 3))
    exact, numerical = tf.test.compute_gradient(lambda a, b: nearness(a, b) ** 2, [own, others], delta=1e-6)
    for e, n in zip(exact, numerical, strict=True):
        np.testing.assert_allclose(e, n, atol=1e-8)
        assert np.abs(e).max() > 0.1


@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_are_those_of_plain_operations(compiled):
    """First ones, also between equal samples, and those of a penalty on the gradient."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 2, 3))
    x[3] = x[1]
    x[4, 0, 2] = x[0, 0, 2]
    x, weight = tf.constant(x), tf.constant(rng.normal(size=(5, 2)))

    def plain(own, others):
        distance = tf.reduce_sum(tf.abs(own[:, None] - others[None]), axis=-1)
        return tf.reduce_sum(tf.exp(-distance), axis=1)

    def everything(function):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(weight * tf.tanh(function(x, x)))
            first = tape.gradient(loss, x)
            penalty = tf.reduce_sum(first**2)
        return first, outer.gradient(penalty, x)

    def ours():
        return everything(nearness)

    for a, b in zip((tf.function(ours) if compiled else ours)(), everything(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        assert np.abs(b).max() > 1e-3


def test_sets_of_features_have_projections_of_their_own():
    layer = MinibatchDiscrimination(Initializer(1, "float64"), "mbd", [4, 1], kernels=3, dims=2)
    rng = np.random.default_rng(4)
    for bias in layer.biases:
        bias.assign(rng.normal(size=6))
    features = [rng.normal(size=(5, 4)), rng.normal(size=(5, 1))]
    found = layer([tf.constant(f) for f in features])
    for f, kernel, bias, o in zip(features, layer.projections, layer.biases, found, strict=True):
        m = (f @ kernel.numpy() + bias.numpy()).reshape(5, 3, 2)
        np.testing.assert_allclose(o, _loop(m, m), rtol=1e-12)
    np.testing.assert_array_equal(layer.biases[0].shape, (6,))


def test_a_batch_of_equal_samples_counts_itself():
    layer = MinibatchDiscrimination(Initializer(1), "mbd", [3], kernels=2, dims=2)
    np.testing.assert_allclose(layer([tf.ones((7, 3))])[0], np.full((7, 2), 7.0))


def test_initial_weights():
    """1000 features, 10 x 10: fans 10 * 1000 and 100, so that normal features begin about 5 apart, not 15."""
    layer = MinibatchDiscrimination(Initializer(1), "mbd", [1000])
    kernel = layer.projections[0].numpy()
    bound = math.sqrt(6 / 10100)
    assert 0.999 * bound < np.abs(kernel).max() <= bound
    m = np.random.default_rng(5).normal(size=(200, 1000)) @ kernel
    distance = np.abs(m[:100] - m[100:]).reshape(100, 10, 10).sum(axis=2).mean()
    assert distance == pytest.approx(10 * 2 / math.sqrt(math.pi) * bound / math.sqrt(3) * math.sqrt(1000), rel=0.05)


class _TwoRanks:
    """A communicator of two ranks, of which the other has the same samples, one unit further in all features."""

    size = 2

    def allgather(self, tensor, name):
        return tf.concat([tensor, tensor + 1.0], axis=0)


class _Network(tf.Module):
    def __init__(self, scope):
        super().__init__("network")
        init = Initializer(1, "float64")
        self.norm = BatchNorm(init, "norm", 2)
        self.minibatch = MinibatchDiscrimination(init, "mbd", [2], kernels=3, dims=2, scope=scope)


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("others", ["local", "global"])
def test_whose_batch_it_sees_does_not_depend_on_batch_norm(scope, others):
    network, comm = _Network(scope), _TwoRanks()
    synchronise(network, comm, others)
    assert network.norm.comm is (comm if others == "global" else None)
    assert network.minibatch.comm is (comm if scope == "global" else None)
    x = tf.constant(np.random.default_rng(6).normal(size=(4, 2)))
    m = (x.numpy() @ network.minibatch.projections[0].numpy()).reshape(4, 3, 2)
    everybody = np.concatenate([m, m + 1.0]) if scope == "global" else m
    np.testing.assert_allclose(network.minibatch([x])[0], _loop(m, everybody), rtol=1e-12)


def test_one_rank_needs_no_communicator():
    class One(_TwoRanks):
        size = 1

    network = _Network("global")
    synchronise(network, One(), "global")
    assert network.norm.comm is None
    assert network.minibatch.comm is None
