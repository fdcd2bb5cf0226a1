"""Outcomes of logits against NumPy."""

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.networks import outcomes  # noqa: E402


@pytest.fixture(params=[3, 16, 64, 100])
def logits(request):
    return 3.0 * np.random.default_rng(request.param).normal(size=(500, request.param))


def test_the_probability_of_an_outcome(logits):
    which = np.arange(500) % logits.shape[1]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = outcomes.log_prob(tf.constant(logits), tf.constant(which, tf.int32))
    np.testing.assert_allclose(found, np.log(p[np.arange(500), which]), rtol=1e-12, atol=1e-12)


def test_a_uniform_number_stands_for_an_outcome_and_a_place_within_it(logits):
    uniform = np.random.default_rng(1).uniform(size=500)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    upto = np.cumsum(p, axis=1)
    expected = np.array([np.searchsorted(row[:-1], u, side="right") for row, u in zip(upto, uniform, strict=True)])
    below = np.where(expected > 0, upto[np.arange(500), expected - 1], 0.0)
    which, within = outcomes.draw(tf.constant(logits), tf.constant(uniform))
    np.testing.assert_array_equal(which, expected)
    np.testing.assert_allclose(within, (uniform - below) / p[np.arange(500), expected], atol=1e-9)


def test_drawing_by_hand():
    logits = tf.math.log(tf.constant([[0.2, 0.3, 0.5]] * 4))
    which, within = outcomes.draw(logits, tf.constant([0.1, 0.35, 0.5, 0.99]))
    assert which.numpy().tolist() == [0, 1, 2, 2]
    np.testing.assert_allclose(within, [0.5, 0.5, 0.0, 0.98], atol=1e-6)


def test_ends_and_outcomes_that_cannot_be(logits):
    logits = np.where(np.arange(logits.shape[1]) == 1, logits, -1e9)
    for uniform in (0.0, 0.5, 1.0 - 1e-12):
        which, within = outcomes.draw(tf.constant(logits), tf.constant(np.full(500, uniform)))
        assert set(which.numpy()) == {1}
        np.testing.assert_allclose(within, uniform, atol=1e-9)
