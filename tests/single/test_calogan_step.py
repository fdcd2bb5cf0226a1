"""CaloGAN's step, update by update, against the same written out by hand."""

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan import rng as stateless  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.methods.gan import AUXILIARY, METRICS, SATURATION, Gan, Kind  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.methods.step import is_finite_here  # noqa: E402
from hpcgan.problems.calorimeter.calogan import CaloganModel, CaloganProblem  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402

MODEL = CaloganModel(segmentation="2x8,4x4,4x2", latent_dim=5)
PROBLEM = CaloganProblem(MODEL)
RATES = {"generator": 2e-3, "discriminator": 1e-3}
PUBLISHED = {"generator_steps": 2, "discriminator_update": "apart"}
N = 4


def make(problem=PROBLEM, **training):
    gan = Gan(problem, GanSettings(batch_size=N, dtype="float64", **training), SerialComm(), seed=1)
    rng = np.random.default_rng(7)
    for network in gan.networks.values():
        for weight in network.weights:
            weight.assign(0.3 * rng.normal(size=weight.shape))
    return gan


def showers(seed=0):
    rng = np.random.default_rng(seed)
    made = {
        f"layer_{i}": 1e3 * np.maximum(rng.normal(size=(N, *shape)), 0) for i, shape in enumerate(MODEL.shapes)
    }  # fmt: skip
    return PROBLEM.encode({**made, "energy": rng.uniform(1.0, 20.0, N)})


def step(gan, number=0, real=None, **more):
    given = {"learning_rates": RATES, "samples": N * (number + 1), "attention": False, **more}
    return gan.step(number, showers() if real is None else real, gan.draws(number, 0, N), **given)


def values(gan):
    return {f"{n}/{k}": v.numpy() for n, net in gan.networks.items() for k, v in net.named.items()}


class HandAdam:
    """Algorithm 1 of Kingma and Ba in its efficient form, with the published beta1 = 0.5."""

    def __init__(self, weights, rate):
        self.weights, self.rate, self.t = weights, rate, 0
        self.m, self.v = ([np.zeros(w.shape) for w in weights] for _ in range(2))

    def apply(self, gradients):
        self.t += 1
        rate = self.rate * np.sqrt(1 - 0.999**self.t) / (1 - 0.5**self.t)
        for i, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
            g = np.asarray(gradient)
            self.m[i] = 0.5 * self.m[i] + 0.5 * g
            self.v[i] = 0.999 * self.v[i] + 0.001 * g**2
            weight.assign_sub(rate * self.m[i] / (np.sqrt(self.v[i]) + 1e-8))


@pytest.mark.usefixtures("eager")
def test_a_published_step_by_hand():
    """D on the real showers, D on generated ones, then the generator twice, on showers of other noise each.

    The loss of the generator has 0.05 times the mean |E_tot - E|, summed over the cells in NumPy. Its moving statistics
    follow its own two passes, those of the discriminator its own two.
    """
    gan, reference = make(**PUBLISHED), make(**PUBLISHED)
    real = {name: tf.constant(value) for name, value in showers().items()}
    g, d = reference.networks["generator"], reference.networks["discriminator"]
    on_d, on_g = HandAdam(d.weights, RATES["discriminator"]), HandAdam(g.weights, RATES["generator"])
    noise = [tf.constant(stateless.normal(1, stream, 0, 0, N, 5)) for stream in ("noise", "noise/0", "noise/1")]
    energy = {"energy": real["energy"]}

    def update_d(sample, target):
        with tf.GradientTape() as tape:
            logits = d(sample, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target * tf.ones_like(logits), logits))
        on_d.apply(tape.gradient(loss, d.weights))
        return float(loss), logits.numpy()

    loss_real, on_real = update_d(real, 1.0)
    fake = g(noise[0], energy, training=True, update=False)
    loss_fake, on_fake = update_d({**fake, **energy}, 0.0)
    losses, mismatches = [], []
    for latent in noise[1:]:
        with tf.GradientTape() as tape:
            made = g(latent, energy, training=True)
            logits = d({**made, **energy}, training=True, update=False)
            fooling = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.ones_like(logits), logits))
            total = tf.add_n([tf.reduce_sum(made[f"layer_{i}"], axis=[1, 2]) for i in range(3)])
            mismatch = 0.05 * tf.reduce_mean(tf.abs(total - real["energy"]))
            loss = fooling + mismatch
        on_g.apply(tape.gradient(loss, g.weights))
        by_hand = sum(made[f"layer_{i}"].numpy().sum(axis=(1, 2)) for i in range(3))
        assert float(mismatch) == pytest.approx(0.05 * np.abs(by_hand - real["energy"].numpy()).mean(), rel=1e-12)
        losses.append(float(loss))
        mismatches.append(float(mismatch))

    said = step(gan).metrics
    assert set(said) == {*METRICS, AUXILIARY, SATURATION}
    assert said["discriminator_loss"] == pytest.approx(loss_real + loss_fake, rel=1e-9)
    assert said["generator_loss"] == pytest.approx(np.mean(losses), rel=1e-9)
    assert said[AUXILIARY] == pytest.approx(np.mean(mismatches), rel=1e-9)
    assert said["real_probability"] == pytest.approx(np.mean(1 / (1 + np.exp(-on_real))), rel=1e-9)
    assert said["fake_probability"] == pytest.approx(np.mean(1 / (1 + np.exp(-on_fake))), rel=1e-9)
    assert said["nonfinite"] == 0
    expected = values(reference)
    for name, value in values(gan).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-7, atol=1e-10, err_msg=name)


def test_noise_of_each_update_is_its_own_and_a_function_of_the_sample_number():
    gan = make(**PUBLISHED)
    whole, later = gan.draws(3, 0, 8), gan.draws(3, 4, 4)
    names = ["noise", "noise/0", "noise/1"]
    assert [name for name in whole if name.startswith("noise")] == names
    for name in names:
        np.testing.assert_array_equal(whole[name][4:], later[name])
    assert len({whole[name].tobytes() for name in names}) == 3
    assert [name for name in make().draws(3, 0, 4) if name.startswith("noise")] == ["noise"]
    turns = make(**PUBLISHED, critic_steps=2)
    assert "noise/0" not in turns.draws(0, 0, 4)
    assert "noise/0" in turns.draws(1, 0, 4)


@pytest.mark.usefixtures("eager")
def test_without_the_mismatch_there_is_no_such_metric():
    gan = make(CaloganProblem(MODEL.model_copy(update={"energy_mismatch": 0.0})), **PUBLISHED)
    assert set(step(gan).metrics) == {*METRICS, SATURATION}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("training", [{}, {"critic_steps": 2}, {"accumulation": 2}], ids=str)
def test_the_mismatch_goes_with_every_kind_of_step(training):
    gan = make(**training)
    found = [step(gan, number).metrics for number in range(2)]
    assert all(np.isfinite(list(metrics.values())).all() and metrics[AUXILIARY] > 0.01 for metrics in found)
    if "critic_steps" in training:  # generated showers are the discriminator's, before any update of the generator
        draws, real = gan.draws(0, 0, N), showers()
        made = make().networks["generator"](tf.constant(draws["noise"]), {"energy": real["energy"]}, training=True)
        total = sum(made[f"layer_{i}"].numpy().sum(axis=(1, 2)) for i in range(3))
        assert found[0][AUXILIARY] == pytest.approx(0.05 * np.abs(total - real["energy"]).mean(), rel=1e-9)


RPV = RpvProblem(RpvModel(filters=2, latent_dim=3, normalisation="none"))


def images():
    rng = np.random.default_rng(0)
    return {"hist": rng.random((N, 64, 64)) * (rng.random((N, 64, 64)) < 0.05)}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("loss", ["bce", "hinge", "least_squares"])
def test_the_steps_are_those_of_any_problem_also_in_parts(loss):
    """Without batch norm a batch in parts gives the gradients of the whole; the average follows the last update."""
    found = []
    for accumulation in (1, 2):
        settings = {
            **PUBLISHED,
            "loss": loss,
            "accumulation": accumulation,
            "average_half_life": 50.0,
            "label_flip": 0.4,
        }
        gan = make(RPV, **settings, r1={"weight": 0.1, "every": 2}, label_smoothing=0.0 if loss == "hinge" else 0.1)
        metrics = [step(gan, number, images()).metrics for number in range(2)]
        found.append((values(gan), metrics))
    for name, value in found[0][0].items():
        np.testing.assert_allclose(found[1][0][name], value, rtol=1e-8, atol=1e-11, err_msg=name)
    for mine, whole in zip(found[1][1], found[0][1], strict=True):
        assert mine == pytest.approx(whole, rel=1e-8, abs=1e-12)


@pytest.mark.usefixtures("eager")
def test_updates_that_are_not_finite_are_counted():
    spoilt = images()
    spoilt["hist"][1, 5, 5] = np.nan
    result = step(make(RPV, **PUBLISHED), 0, spoilt)
    assert result.metrics["nonfinite"] == 4  # the discriminator's on real events, and all that follow
    assert not result.finite_here


def test_only_the_origin_of_a_bad_step_is_to_blame():
    """By whether this rank's contribution to each update was finite, and the share of ranks whose was not."""

    def blamed(*updates):
        bad, finite = zip(*updates, strict=True)
        return not bool(is_finite_here([tf.constant(f) for f in finite], [tf.constant(b) for b in bad]))

    well = (0.0, True)
    assert not blamed(well, well, well, well)
    assert blamed(well, well, well, (0.5, False))
    assert not blamed(well, well, well, (0.5, True))  # another rank's
    assert not blamed(well, (0.5, True), (1.0, False), (1.0, False))  # what another rank began
    assert blamed((0.5, False), (1.0, False), (1.0, False), (1.0, False))
    assert blamed(well, (0.5, False), (1.0, False), (1.0, False))


def test_losses_are_sums_over_updates_of_the_discriminator_and_means_over_those_of_the_generator():
    gan = make(RPV, **PUBLISHED)
    totals = {"discriminator_loss": 3.0, "generator_loss": 4.0, "belief_in_real": 0.7, "belief_in_fake": 0.2}
    metrics = gan.summary({**totals, "nonfinite": 0.5}, Kind(penalise=False, update_generator=True))
    assert (metrics["discriminator_loss"], metrics["generator_loss"], metrics["nonfinite"]) == (3.0, 2.0, 0.5)
    metrics = gan.summary(totals, Kind(penalise=False, update_generator=False))
    assert (metrics["generator_loss"], metrics["real_probability"], metrics["fake_probability"]) == (4.0, 0.7, 0.2)


@pytest.mark.usefixtures("eager")
def test_a_wish_is_heard_once():
    assert step(make(RPV, **PUBLISHED), 0, images(), attention=True).metrics["attention"] == 1.0
