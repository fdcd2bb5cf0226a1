import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from hpcgan.methods import losses  # noqa: E402

REAL, FAKE = np.array([0.0, 2.0]), np.array([-1.0, 3.0])
LN = np.log


def _bce(p, label):
    return -LN(p) if label else -LN(1 - p)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("flip", "expected"),
    [
        # ln(1+e^0)/2 + ln(1+e^-2)/2 + ln(1+e^-1)/2 + ln(1+e^3)/2
        (0.0, (0.6931471806 + 0.1269280110 + 0.3132616875 + 3.0485873516) / 2),
        # real told fake: ln(1+e^0)/2 + ln(1+e^2)/2; fake told real: ln(1+e^1)/2 + ln(1+e^-3)/2
        (1.0, (0.6931471806 + 2.1269280110 + 1.3132616875 + 0.0485873516) / 2),
    ],
)
def test_bce_discriminator_by_hand(flip, expected):
    value = losses.bce_discriminator(tf.constant(REAL), tf.constant(FAKE), tf.constant(flip, tf.float64))
    assert float(value) == pytest.approx(expected, abs=1e-9)
    by_definition = np.mean(_bce(_sigmoid(REAL), flip == 0)) + np.mean(_bce(_sigmoid(FAKE), flip == 1))
    assert float(value) == pytest.approx(by_definition, abs=1e-12)


def test_bce_generator_by_hand():
    value = losses.bce_generator(tf.constant(FAKE))
    assert float(value) == pytest.approx((1.3132616875 + 0.0485873516) / 2, abs=1e-9)


def test_large_logits_do_not_overflow():
    value = losses.bce_generator(tf.constant([-1000.0, 1000.0]))
    assert float(value) == pytest.approx(500.0)


def test_r1_of_a_quadratic_critic_by_hand():
    """c(x) = |x|^2 + 3 y has the gradient (2 x, 3): the penalty is w/2 mean(4 |x|^2 + 9)."""
    x = np.arange(12.0).reshape(3, 2, 2)
    y = np.ones((3, 1))

    def critic(sample):
        return tf.reduce_sum(sample["x"] ** 2, axis=[1, 2]) + 3 * sample["y"][:, 0]

    value = losses.r1_penalty(critic, {"x": tf.constant(x), "y": tf.constant(y)}, 0.1)
    assert float(value) == pytest.approx(0.05 * np.mean(4 * np.sum(x**2, axis=(1, 2)) + 9))
