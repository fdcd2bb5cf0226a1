import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.methods import losses, penalties  # noqa: E402

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
    value = losses.LOSSES["bce"].discriminator(tf.constant(REAL), tf.constant(FAKE), tf.constant(flip, tf.float64))
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

    value = penalties.r1_penalty(critic, {"x": tf.constant(x), "y": tf.constant(y)}, 0.1)
    assert float(value) == pytest.approx(0.05 * np.mean(4 * np.sum(x**2, axis=(1, 2)) + 9))


def test_smoothed_bce_by_hand():
    """What is told real gets -0.9 ln p - 0.1 ln(1 - p): of its mean logit, 1 here, a tenth more."""
    smoothed = losses.LOSSES["bce"].smoothed(0.1).discriminator
    for flip, plain in ((0.0, 4.1819242307), (1.0, 4.1819242307)):
        value = smoothed(tf.constant(REAL), tf.constant(FAKE), tf.constant(flip, tf.float64))
        assert float(value) == pytest.approx(plain / 2 + 0.1, abs=1e-9)
    p = _sigmoid(REAL)
    by_definition = np.mean(-0.9 * LN(p) - 0.1 * LN(1 - p)) + np.mean(_bce(_sigmoid(FAKE), False))
    value = smoothed(tf.constant(REAL), tf.constant(FAKE), tf.constant(0.0, tf.float64))
    assert float(value) == pytest.approx(by_definition, abs=1e-12)


CRITIC_REAL, CRITIC_FAKE = [0.5, 2.0], [-1.5, 0.25]


@pytest.mark.parametrize(
    ("name", "smoothing", "flip", "expected"),
    [
        ("wgan_gp", 0.0, 0.0, -0.625 - 1.25),
        # (0.5 + 0) / 2 + (0 + 1.25) / 2
        ("hinge", 0.0, 0.0, 0.25 + 0.625),
        # (1.5 + 3) / 2 + (2.5 + 0.75) / 2
        ("hinge", 0.0, 1.0, 2.25 + 1.625),
        # half of: (0.25 + 1) / 2 + (2.25 + 0.0625) / 2
        ("least_squares", 0.0, 0.0, (0.625 + 1.15625) / 2),
        # targets swapped, half of: (0.25 + 4) / 2 + (6.25 + 0.5625) / 2
        ("least_squares", 0.0, 1.0, (2.125 + 3.40625) / 2),
        # real target 0.8, half of: (0.09 + 1.44) / 2 + as above
        ("least_squares", 0.2, 0.0, (0.765 + 1.15625) / 2),
        # fake target 0.8, half of: (0.25 + 4) / 2 + (5.29 + 0.3025) / 2
        ("least_squares", 0.2, 1.0, (2.125 + 2.79625) / 2),
    ],
)
def test_other_discriminator_losses_by_hand(name, smoothing, flip, expected):
    loss = losses.LOSSES[name].smoothed(smoothing)
    real, fake = (tf.constant(values, tf.float64) for values in (CRITIC_REAL, CRITIC_FAKE))
    assert float(loss.discriminator(real, fake, tf.constant(flip, tf.float64))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    # least squares: half of (6.25 + 0.5625) / 2
    ("name", "expected"),
    [("wgan_gp", 0.625), ("hinge", 0.625), ("least_squares", 1.703125)],
)
def test_other_generator_losses_by_hand(name, expected):
    value = losses.LOSSES[name].generator(tf.constant(CRITIC_FAKE, tf.float64))
    assert float(value) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bce", [0.5, 0.8807970780, 0.0474258732, 0.0179862100]),
        ("hinge", [0.5, 1.0, 0.0, 0.0]),
        ("least_squares", [0.0, 1.0, 0.0, 0.0]),
        ("wgan_gp", [0.0, 2.0, -3.0, -4.0]),
    ],
)
def test_how_far_a_sample_is_taken_for_real_by_hand(name, expected):
    belief = losses.LOSSES[name].belief(tf.constant([0.0, 2.0, -3.0, -4.0], tf.float64))
    np.testing.assert_allclose(belief, expected, atol=1e-9)


def test_probabilities_of_a_critic_follow_from_the_difference_of_its_means():
    """W = 4: sigmoid(+-2); a constant added to the critic changes nothing."""
    for shift in (0.0, 100.0):
        real, fake = losses.wgan_probabilities(tf.constant(3.0 + shift), tf.constant(-1.0 + shift))
        assert (float(real), float(fake)) == pytest.approx((0.8807970780, 0.1192029220))


def test_the_gradient_penalty_of_a_quadratic_critic_by_hand():
    """c = |x|^2 / 2 + y^2 / 2 has the gradient (x, y): norms at the points between are 5, 5 and 1."""

    def critic(sample):
        return 0.5 * tf.reduce_sum(sample["x"] ** 2, axis=1) + 0.5 * sample["y"] ** 2

    real = {"x": [[6.0, 0.0], [12.0, 0.0], [1.0, 0.0]], "y": [8.0, 16.0, 0.0]}
    fake = {"x": [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], "y": [0.0, 0.0, 0.0]}
    real, fake = ({k: tf.constant(v, tf.float64) for k, v in sample.items()} for sample in (real, fake))
    epsilon = tf.constant([0.5, 0.25, 0.7], tf.float64)
    value = penalties.gradient_penalty(critic, real, fake, epsilon, 10.0)
    assert float(value) == pytest.approx(10.0 * (16.0 + 16.0 + 0.0) / 3, rel=1e-12)


def test_a_critic_without_any_gradient_has_a_penalty_with_one():
    """The root of the squared norm has none at zero: (0 - 1)^2, and finite derivatives."""
    w = tf.Variable(0.0, dtype=tf.float64)
    x = {"x": tf.ones([2, 3], tf.float64)}
    with tf.GradientTape() as tape:
        value = penalties.gradient_penalty(
            lambda s: w * tf.reduce_sum(s["x"], axis=1), x, x, tf.zeros([2], tf.float64), 1.0
        )
    assert float(value) == pytest.approx(1.0, abs=1e-5)
    assert np.isfinite(tape.gradient(value, w))


@pytest.mark.parametrize(
    ("name", "smoothing"),
    [("bce", 0.0), ("bce", 0.2), ("hinge", 0.0), ("least_squares", 0.0), ("least_squares", 0.2)],
)
def test_labels_flipped_sample_by_sample(name, smoothing):
    """Means over samples, each with the loss of its own label."""
    loss, real, fake = losses.LOSSES[name].smoothed(smoothing), np.array([0.7, -1.5, 2.0]), np.array([-0.3, 1.1, 0.4])
    flips = np.array([1.0, 0.0, 1.0])
    each = []
    for x, y, flip in zip(real, fake, flips, strict=True):
        each.append(float(loss.discriminator(tf.constant([x]), tf.constant([y]), tf.constant(flip))))
    value = float(loss.discriminator(tf.constant(real), tf.constant(fake), tf.constant(flips)))
    assert value == pytest.approx(np.mean(each), rel=1e-12)
    unflipped = float(loss.discriminator(tf.constant(real), tf.constant(fake), tf.constant(0.0, tf.float64)))
    assert abs(value - unflipped) > 0.05
