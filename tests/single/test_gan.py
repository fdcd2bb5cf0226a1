"""The adversarial step against hand-made computations, and its bookkeeping."""

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.config import AdamConfig  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.methods import average  # noqa: E402
from hpcgan.methods.adam import Adam  # noqa: E402
from hpcgan.methods.gan import METRICS, SATURATION, Gan  # noqa: E402
from hpcgan.methods.sampler import Sampler  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.problems.detector_images.conditional import ConditionalModel, ConditionalProblem  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402

RATES = {"generator": 2e-4, "discriminator": 1e-4}


def _gan(seed=1, comm=None, model=None, **training):
    problem = RpvProblem(RpvModel(filters=2, latent_dim=3, **(model or {})))
    return Gan(problem, GanSettings(batch_size=4, **training), comm or SerialComm(), seed)


def test_a_problem_that_does_not_encode_its_conditions_is_told_so():
    gan = Gan(ConditionalProblem(ConditionalModel(filters=2, latent_dim=3)), GanSettings(batch_size=4), SerialComm(), 1)
    with pytest.raises(InputError, match="'conditional': its encode has to return the conditions, too: mGlu, mNeu"):
        _step(gan)


def _real(n=4, dtype="float32"):
    rng = np.random.default_rng(0)
    return {"hist": (rng.random((n, 64, 64)) * (rng.random((n, 64, 64)) < 0.05)).astype(dtype)}


def _values(gan):
    return {k: v.numpy() for n in gan.networks.values() for k, v in n.named.items()}


def _step(gan, step=0, real=None, attention=False):
    return gan.step(
        step, real or _real(), gan.draws(step, 0, 4), learning_rates=RATES, samples=4 * (step + 1), attention=attention
    )


def test_adam_by_hand():
    """Two steps of Kingma and Ba's algorithm 1 in its efficient form, written out."""
    w = tf.Variable([1.0, -2.0], dtype=tf.float64, name="w")
    adam = Adam("g", {"w": w}, AdamConfig(beta1=0.5, beta2=0.9, epsilon=1e-8))
    expected, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t, gradient in enumerate(([0.1, -0.3], [0.2, 0.4]), start=1):
        adam.apply([tf.constant(gradient, tf.float64)], tf.constant(0.01, tf.float64))
        m = 0.5 * m + 0.5 * np.array(gradient)
        v = 0.9 * v + 0.1 * np.array(gradient) ** 2
        rate = 0.01 * np.sqrt(1 - 0.9**t) / (1 - 0.5**t)
        expected = expected - rate * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(w.numpy(), expected, rtol=1e-9)


@pytest.mark.usefixtures("eager")
def test_first_losses_are_those_of_the_initial_networks():
    gan = _gan(label_flip=0.0)
    networks = _gan(label_flip=0.0).networks  # the same weights, untouched
    draws, real = gan.draws(0, 0, 4), _real()
    fake = networks["generator"](tf.constant(draws["noise"]), {}, training=True)
    logits_real = networks["discriminator"](real, training=True).numpy()
    logits_fake = networks["discriminator"](fake, training=True).numpy()
    expected = np.mean(np.log1p(np.exp(-logits_real))) + np.mean(np.log1p(np.exp(logits_fake)))
    result = _step(gan, real=real)
    assert set(result.metrics) == {*METRICS, SATURATION}
    assert result.metrics["discriminator_loss"] == pytest.approx(expected, rel=1e-5)
    assert result.metrics["real_probability"] == pytest.approx(np.mean(1 / (1 + np.exp(-logits_real))), rel=1e-5)
    assert result.finite_here


def test_gradients_are_those_of_numerical_differentiation():
    gan = _gan(dtype="float64")
    real = {k: tf.constant(v) for k, v in _real(dtype="float64").items()}
    noise = tf.constant(gan.draws(0, 0, 4)["noise"])
    generator, discriminator = gan.networks["generator"], gan.networks["discriminator"]
    flip = tf.constant(0.0, tf.float64)

    def losses():
        with tf.GradientTape(persistent=True) as tape:
            fake = generator(noise, {}, training=True, update=False)
        d_gradients, d_loss, *_ = gan.discriminator_gradients(real, fake, flip)
        g_gradients, g_loss = gan.generator_gradients(fake, tape)
        return d_gradients, d_loss, g_gradients, g_loss["generator_loss"]

    d_gradients, _, g_gradients, _ = losses()
    rng, h = np.random.default_rng(3), 1e-8  # small: ReLU has kinks
    for network, gradients, which in ((discriminator, d_gradients, 1), (generator, g_gradients, 3)):
        direction = [rng.normal(size=w.shape) for w in network.weights]
        values = []
        for sign in (1, -1):
            for w, d in zip(network.weights, direction, strict=True):
                w.assign_add(sign * h * d)
            values.append(float(losses()[which]))
            for w, d in zip(network.weights, direction, strict=True):
                w.assign_sub(sign * h * d)
        numerical = (values[0] - values[1]) / (2 * h)
        analytic = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, direction, strict=True))
        assert analytic == pytest.approx(numerical, rel=2e-4)


@pytest.mark.usefixtures("eager")
def test_both_networks_their_statistics_and_nothing_else_change_in_a_step():
    gan = _gan(average_half_life=100.0)
    before = _values(gan)
    _step(gan)
    changed = {name for name, value in _values(gan).items() if not np.array_equal(value, before[name])}
    assert changed == set(before)


@pytest.mark.usefixtures("eager")
def test_the_generator_step_leaves_the_statistics_of_the_discriminator_alone():
    gan = _gan()
    with tf.GradientTape() as tape:
        fake = gan.networks["generator"](tf.constant(gan.draws(0, 0, 4)["noise"]), {}, training=True)
    before = [s.numpy() for s in gan.networks["discriminator"].statistics]
    gan.generator_gradients(fake, tape)
    for old, new in zip(before, gan.networks["discriminator"].statistics, strict=True):
        np.testing.assert_array_equal(old, new)


def test_two_runs_of_the_same_seed_are_the_same_bits():
    runs = []
    for _ in range(2):
        gan = _gan(average_half_life=50.0, label_flip=0.5)
        for step in range(3):
            _step(gan, step)
        runs.append(_values(gan))
    for name, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][name], err_msg=name)


def test_a_wish_to_stop_and_a_nan_come_back_in_the_metrics():
    gan = _gan()
    assert _step(gan, attention=True).metrics["attention"] == 1.0
    real = _real()
    real["hist"][2, 5, 5] = np.nan
    result = _step(gan, 1, real=real)
    assert not result.finite_here
    assert result.metrics["nonfinite"] > 0


def test_label_flip_is_one_draw_a_batch_at_the_given_rate():
    gan = _gan(label_flip=0.3)
    flips = np.array([gan.draws(step, 0, 4)["flip"] for step in range(3000)])
    assert set(np.unique(flips)) == {0.0, 1.0}
    assert flips.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 3000))
    assert gan.draws(7, 0, 4)["flip"] == gan.draws(7, 64, 4)["flip"]  # the same for every rank


def test_label_flips_of_samples_are_those_of_the_global_batch():
    gan = _gan(label_flip=0.3, label_flip_unit="sample")
    whole = gan.draws(5, 0, 3000)["flip"]
    assert set(np.unique(whole)) == {0.0, 1.0}
    assert whole.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 3000))
    np.testing.assert_array_equal(gan.draws(5, 100, 50)["flip"], whole[100:150])
    assert np.any(gan.draws(6, 0, 3000)["flip"] != whole)


def test_averaging_keeps_half_after_a_half_life():
    assert average.decay(1000.0, 10**6, 1000) == pytest.approx(0.5)
    assert average.decay(1000.0, 10**6, 500) == pytest.approx(0.5**0.5)
    assert average.decay(1000.0, 2000, 50) == pytest.approx(0.5**0.5)  # ramp: 5% of the samples seen
    assert average.decay(0.0, 100, 50) == 0.0


@pytest.mark.usefixtures("eager")
def test_the_average_follows_the_generator():
    gan = _gan(average_half_life=100.0)
    current, averaged = gan.networks["generator"].named, gan.networks["generator_average"].named
    start = {k: v.numpy() for k, v in averaged.items()}
    gan.step(0, _real(), gan.draws(0, 0, 4), learning_rates=RATES, samples=2000, attention=False)
    kept = 0.5 ** (4 / 100)
    for name, value in averaged.items():
        expected = kept * start[name] + (1 - kept) * current[name].numpy()
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_the_sampler_makes_events_in_physical_units_and_the_same_ones_again():
    gan = _gan()
    problem = RpvProblem(RpvModel(filters=2, latent_dim=3))
    sampler = Sampler(problem, gan.networks["generator"], statistics="moving", batch_size=8)
    first, again, other = (sampler.batch(1, "score", 0, i)["hist"] for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (8, 64, 64)
    assert first.dtype == np.float32
    assert first.max() > 1e5  # MeV, not encoded
    assert np.all((first == 0) | (first > 499.9))


def test_batch_statistics_differ_from_moving_ones():
    gan = _gan()
    problem = RpvProblem(RpvModel(filters=2, latent_dim=3))
    images = [
        Sampler(problem, gan.networks["generator"], statistics=s, batch_size=8).batch(1, "score", 0, 0)["hist"]
        for s in ("moving", "batch")
    ]
    assert not np.allclose(*images)


@pytest.mark.usefixtures("eager")
def test_a_batch_in_parts_gives_the_gradients_of_the_whole():
    """Without batch norm, in which each part would see itself only."""
    found = []
    for accumulation in (1, 2):
        gan = _gan(
            model={"normalisation": "none"}, dtype="float64", accumulation=accumulation, average_half_life=50.0,
            r1={"weight": 0.1, "every": 2},
        )  # fmt: skip
        metrics = [_step(gan, step, _real(dtype="float64")).metrics for step in range(3)]
        found.append((_values(gan), metrics))
    for values, metrics in found[1:]:
        for name, value in found[0][0].items():
            np.testing.assert_allclose(values[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
        for mine, whole in zip(metrics, found[0][1], strict=True):
            assert mine == pytest.approx(whole, rel=1e-9, abs=1e-12)


@pytest.mark.usefixtures("eager")
def test_a_simultaneous_update_takes_the_generator_gradient_at_the_old_discriminator():
    """The generator after one step does not depend on the discriminator's rate; alternating, it does."""
    for update, same in (("simultaneous", True), ("alternating", False)):
        values = []
        for rate in (1e-4, 1e-1):
            gan = _gan(update=update)
            rates = {"generator": 2e-4, "discriminator": rate}
            gan.step(0, _real(), gan.draws(0, 0, 4), learning_rates=rates, samples=4, attention=False)
            values.append({k: v.numpy() for k, v in gan.networks["generator"].named.items()})
        assert all(np.array_equal(values[0][k], values[1][k]) for k in values[0]) == same


def test_nothing_is_traced_again_after_the_first_steps():
    gan = _gan(average_half_life=50.0, r1={"weight": 0.1, "every": 2})
    for step in range(6):
        _step(gan, step)
    counts = {kind: compiled.experimental_get_tracing_count() for kind, compiled in gan._compiled.items()}
    assert counts == {(False, True): 1, (True, True): 1}
