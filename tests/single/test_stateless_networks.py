"""Random numbers within the compiled step: functions of seed, step and global number of the sample."""

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.networks import stateless  # noqa: E402


def _uniform(first, n, numbers=10, step=3, stream=0, dtype="float32", seed=1):
    source = stateless.source(seed, "random/real", step, first, n)
    return stateless.uniform(tf.constant(source), stream, numbers, tf.as_dtype(dtype)).numpy()


@pytest.mark.parametrize("numbers", [1, 4, 10, 4097])
@pytest.mark.parametrize("first", [0, 3, 2**40])
def test_a_rank_draws_its_rows_of_the_whole(numbers, first):
    whole = _uniform(first, 7, numbers)
    for begin, end in ((0, 3), (3, 7), (6, 7)):
        np.testing.assert_array_equal(_uniform(first + begin, end - begin, numbers), whole[begin:end])


def test_parts_of_a_batch_draw_their_rows():
    """As `training.accumulation` cuts them, in the compiled step."""
    source = tf.constant(stateless.source(1, "random/fake", 2, 5, 6))
    part = tf.function(lambda rows: stateless.uniform(rows, 1, 9, tf.float32))
    np.testing.assert_array_equal(tf.concat([part(source[:4]), part(source[4:])], 0), part(source))


def test_steps_streams_and_seeds_are_independent():
    draws = [
        _uniform(0, 50, 200),
        _uniform(0, 50, 200, step=4),
        _uniform(0, 50, 200, stream=1),
        _uniform(0, 50, 200, seed=2),
        _uniform(50, 50, 200),
    ]
    flat = np.array([draw.ravel() for draw in draws])
    correlation = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(correlation).max() < 5 / np.sqrt(flat.shape[1])
    assert len(np.unique(flat)) > 0.99 * flat.size


def test_they_are_uniform_and_the_same_in_double_precision():
    draws = _uniform(0, 100, 100)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    np.testing.assert_allclose(np.quantile(draws, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.015)
    np.testing.assert_array_equal(_uniform(0, 100, 100, dtype="float64"), draws.astype(np.float64))


def test_dropout():
    """A quarter is dropped, and the mean stays; without a source nothing is."""
    source = tf.constant(stateless.source(1, "random/real", 0, 0, 20))
    x = tf.ones([20, 5, 20])
    dropped = stateless.dropout(x, source, 0, 0.25).numpy()
    np.testing.assert_allclose(np.unique(dropped), [0.0, 4 / 3], rtol=1e-6)
    assert np.mean(dropped == 0) == pytest.approx(0.25, abs=0.04)
    assert stateless.dropout(x, None, 0, 0.25) is x
    assert stateless.dropout(x, source, 0, 0.0) is x
