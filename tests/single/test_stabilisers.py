"""Penalties through whole discriminators, spectral norm, instance noise and the turns of the generator."""

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.methods import average, instance_noise, penalties  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.settings import GanSettings, InstanceNoiseConfig  # noqa: E402
from hpcgan.networks import layers  # noqa: E402
from hpcgan.problems.cosmo.problem import CosmoModel, CosmoProblem  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402

RATES = {"generator": 1e-3, "discriminator": 1e-3}
DETECTOR = {
    "architecture": "detector", "intensity": "pt", "scale_mev": 6000.0, "exponent": 1 / 3, "pixel_noise": True,
    "pooled_pt": True, "pooled_mass": True, "hidden_units": 3, "upsampling": "nearest",
}  # fmt: skip


def rpv(**model):
    return RpvProblem(RpvModel(filters=2, latent_dim=3, **model))


def make(problem, symmetries=(), **training):
    return Gan(problem, GanSettings(batch_size=4, **training), SerialComm(), 1, symmetries)


def some(problem, dtype, seed=0):
    """Sparse real samples, as the networks see them."""
    rng = np.random.default_rng(seed)
    (name, spec), = problem.schema.items()  # fmt: skip
    return {name: (rng.random((4, *spec.shape)) * (rng.random((4, *spec.shape)) < 0.2)).astype(dtype)}


def step(gan, problem, number=0, **settings):
    dtype = gan._config.dtype
    return gan.step(
        number, some(problem, dtype, number), gan.draws(number, 0, 4), learning_rates=RATES, samples=4 * number + 4,
        attention=False, **settings,
    ).metrics  # fmt: skip


def values(network):
    return {name: variable.numpy() for name, variable in network.named.items()}


# --- the gradient penalty ----------------------------------------------------------------------------------

CRITICS = {
    "dcgan": rpv(discriminator_normalisation="none"),
    "dcgan with batch norm": rpv(),  # which a configuration would refuse; as second derivatives go, it is one, too
    "circular dcgan with layer norm": rpv(phi_padding="circular", discriminator_normalisation="layer"),
    "dcgan with spectral norm": rpv(discriminator_normalisation="spectral"),
    "detector": rpv(**DETECTOR),
    "circular detector with spectral norm": rpv(
        **DETECTOR, phi_padding="circular", discriminator_normalisation="spectral"
    ),
    "cosmo": CosmoProblem(CosmoModel(side=64, filters=2, latent_dim=3, discriminator_normalisation="layer")),
}


@pytest.mark.parametrize("problem", CRITICS.values(), ids=CRITICS.keys())
def test_the_gradient_of_the_penalised_loss_is_the_numerical_one(problem):
    """In float64: the derivative of the critic's loss plus penalty along random directions of its weights."""
    gan = make(problem, loss="wgan_gp", dtype="float64", gradient_penalty={"weight": 3.0})
    critic = gan.networks["discriminator"]
    for number, bias in enumerate(w for w in critic.weights if "bias" in w.name):
        bias.assign(np.random.default_rng(number).normal(0.0, 0.1, bias.shape))  # at 0, empty pixels are on a kink
    real, fake = ({k: tf.constant(v) for k, v in some(problem, "float64", seed).items()} for seed in (1, 2))
    flip, epsilon = tf.constant(0.0, tf.float64), tf.constant([0.1, 0.4, 0.7, 0.9], tf.float64)
    gradients, *_ = gan.discriminator_gradients(real, fake, flip, epsilon=epsilon)
    plain, *_ = gan.discriminator_gradients(real, fake, flip)
    share = [float(tf.norm(g - p) / tf.norm(g)) for g, p in zip(gradients, plain, strict=True) if tf.norm(g) > 0]
    assert max(share) > 1e-3  # the penalty is a part of what is compared

    @tf.function(autograph=False)
    def objective():
        on_real, on_fake = critic(real, training=True, update=False), critic(fake, training=True, update=False)
        penalty = penalties.gradient_penalty(
            lambda sample: critic(sample, training=True, update=False), real, fake, epsilon, 3.0
        )
        return tf.reduce_mean(on_fake) - tf.reduce_mean(on_real) + penalty

    # All weights of a layer at once; h is small since leaky ReLU has kinks, which many activations can cross.
    rng, h = np.random.default_rng(3), 1e-8
    for weight, gradient in zip(critic.weights, gradients, strict=True):
        direction, found = rng.normal(size=weight.shape), []
        for sign in (1, -2):
            weight.assign_add(sign * h * direction)
            found.append(float(objective()))
        weight.assign_add(h * direction)
        numerical = (found[0] - found[1]) / (2 * h)
        analytic = float(tf.reduce_sum(gradient * direction))
        assert analytic == pytest.approx(numerical, rel=1e-5, abs=1e-6), weight.name


def test_second_derivatives_through_the_fused_batch_norm():
    """Which is for float32 only: R1's gradient there is that of float64, where batch norm is written out."""
    found = []
    for dtype in ("float32", "float64"):
        gan = make(rpv(), dtype=dtype, r1={"weight": 1.0, "every": 1})
        real, fake = ({k: tf.constant(v) for k, v in some(rpv(), dtype, seed).items()} for seed in (1, 2))
        gradients, *_ = gan.discriminator_gradients(real, fake, tf.constant(0.0, dtype), penalise=True)
        found.append([g.numpy() for g in gradients])
    for single, double in zip(*found, strict=True):
        np.testing.assert_allclose(single, double, atol=2e-4 * np.abs(double).max())


def test_the_points_between_are_drawn_once_a_sample_and_ranks_draw_what_one_rank_does():
    gan = make(CRITICS["dcgan"], loss="wgan_gp", instance_noise={"sigma": 0.1})
    whole, share = gan.draws(3, 0, 8), gan.draws(3, 4, 4)
    assert whole["epsilon"].shape == (8,)
    assert len(np.unique(whole["epsilon"])) == 8
    assert ((whole["epsilon"] >= 0) & (whole["epsilon"] < 1)).all()
    for name in ("epsilon", "noise", "instance_noise/real/hist", "instance_noise/fake/hist"):
        np.testing.assert_array_equal(whole[name][4:], share[name], err_msg=name)
    assert not np.array_equal(whole["epsilon"], gan.draws(4, 0, 8)["epsilon"])
    assert not np.array_equal(whole["instance_noise/real/hist"], whole["instance_noise/fake/hist"])
    assert "epsilon" not in make(rpv()).draws(3, 0, 8)


# --- spectral norm -----------------------------------------------------------------------------------------


def kernels():
    init = layers.Initializer(1, "float64")
    return [
        layers.Conv2D(init, "conv", 3, 5, spectral=True),
        layers.Conv2D(init, "circular", 3, 5, padding="circular", gain=2, bias=True, spectral=True),
        layers.Dense(init, "dense", 7, 4, spectral=True),
        layers.Dense(init, "head", 7, 1, stddev=0.02, spectral=True),
    ]


@pytest.mark.parametrize("layer", kernels(), ids=lambda layer: layer.name)
def test_sigma_is_the_largest_singular_value(layer):
    for _ in range(300):
        layer.spectral.iterate()
    matrix = layer.kernel.numpy().reshape(-1, layer.kernel.shape[-1])
    assert float(layer.spectral.sigma()) == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-9)
    normalised = layer.spectral().numpy().reshape(matrix.shape)
    assert np.linalg.svd(normalised, compute_uv=False)[0] == pytest.approx(1.0, rel=1e-9)


def test_the_gradient_takes_the_singular_vectors_for_constants():
    """Of sum(A W / sigma): A / sigma - sum(A W) / sigma^2 v u^T, with v = W u / |W u|, before any convergence."""
    layer = layers.Dense(layers.Initializer(1, "float64"), "dense", 7, 4, spectral=True)
    a = np.random.default_rng(0).normal(size=(7, 4))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(a * layer.spectral())
    w, u = layer.kernel.numpy(), layer.spectral.direction.numpy()
    v, sigma = w @ u / np.linalg.norm(w @ u), v_w_u(w, u)
    expected = a / sigma - np.sum(a * w) / sigma**2 * np.outer(v, u)
    np.testing.assert_allclose(tape.gradient(total, layer.kernel), expected, rtol=1e-12)
    assert float(total) == pytest.approx(np.sum(a * w) / sigma, rel=1e-12)


def v_w_u(w, u):
    v = w @ u / np.linalg.norm(w @ u)
    return v @ w @ u


def test_layers_divide_by_sigma():
    plain, normal = (layers.Conv2D(layers.Initializer(1, "float64"), "c", 3, 5, spectral=s) for s in (False, True))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    sigma = float(normal.spectral.sigma())
    np.testing.assert_allclose(normal(x), plain(x) / sigma, rtol=1e-12, atol=1e-14)
    planes = [tf.constant(x[..., i]) for i in range(3)]
    np.testing.assert_allclose(normal.of_planes(planes), plain(x) / sigma, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("model", "training"),
    [
        pytest.param({}, {}, id="dcgan"),
        pytest.param({}, {"accumulation": 2}, id="dcgan accumulation"),
        pytest.param({}, {"critic_steps": 2}, id="dcgan critic", marks=pytest.mark.faults),
        pytest.param(DETECTOR, {}, id="detector", marks=pytest.mark.faults),
        pytest.param(DETECTOR, {"accumulation": 2}, id="detector accumulation", marks=pytest.mark.faults),
        pytest.param(DETECTOR, {"critic_steps": 2}, id="detector critic"),
    ],
)
def test_a_step_is_one_power_iteration_of_every_kernel(model, training):
    """At the weights before the update, with penalties, parts and the generator's update or not; none elsewhere."""
    problem = rpv(**model, discriminator_normalisation="spectral")
    gan = make(problem, dtype="float64", r1={"weight": 0.1, "every": 1}, **training)
    network = gan.networks["discriminator"]
    norms = layers.spectral_norms(network)
    assert len(norms) == (5 if not model else 4 + 4 + 1 + 3)
    directions = [norm.direction for norm in norms]
    assert not {v.ref() for v in directions} & {v.ref() for v in (*network.weights, *network.statistics)}
    expected = []
    for norm in norms:
        w = norm.of.numpy().reshape(-1, norm.of.shape[-1])
        u = w.T @ (w @ norm.direction.numpy())
        expected.append(u / np.linalg.norm(u))
    step(gan, problem)
    for norm, u in zip(norms, expected, strict=True):
        np.testing.assert_allclose(norm.direction, u, rtol=1e-10, atol=1e-13, err_msg=norm.name)
    before = values(network)
    for training_mode in (True, False):
        network(some(problem, "float64"), training=training_mode)
    assert all(np.array_equal(before[v.name[:-2]], v) for v in directions)


def test_layer_norm_by_hand():
    """Each sample by itself, over its 2 x 1 places and 2 channels: mean 3, variance 5."""
    norm = layers.LayerNorm(layers.Initializer(1, "float64"), "ln", 2)
    norm.scale.assign([2.0, 1.0])
    norm.offset.assign([0.5, 0.0])
    x = np.array([[[[0.0, 2.0]], [[4.0, 6.0]]], [[[7.0, 7.0]], [[7.0, 7.0]]]])
    y = norm(tf.constant(x), training=True).numpy()
    by = np.sqrt(5 + 1e-5)
    np.testing.assert_allclose(y[0, :, 0], [[-6 / by + 0.5, -1 / by], [2 / by + 0.5, 3 / by]], rtol=1e-12)
    np.testing.assert_allclose(y[1, :, 0], [[0.5, 0.0]] * 2, atol=1e-12)
    np.testing.assert_array_equal(norm(tf.constant(x[:1]), training=False).numpy()[0], y[0])


# --- instance noise ----------------------------------------------------------------------------------------


def test_instance_noise_fades_out_linearly():
    config = GanSettings(epochs=60, instance_noise=InstanceNoiseConfig(sigma=0.2, epochs=10))
    assert [instance_noise.sigma(config, e) for e in (0.0, 2.5, 5.0, 10.0, 12.0)] == pytest.approx(
        [0.2, 0.15, 0.1, 0.0, 0.0]
    )
    whole = GanSettings(epochs=60, instance_noise=InstanceNoiseConfig(sigma=0.2))
    assert instance_noise.sigma(whole, 30.0) == pytest.approx(0.1)


@pytest.mark.usefixtures("eager")
def test_instance_noise_is_on_real_and_fake_samples_of_both_updates():
    """Losses of a step are those of the networks on noisy samples, worked out from the draws."""
    problem = rpv(normalisation="none")
    gan, same = (
        make(problem, dtype="float64", update="simultaneous", epochs=10, instance_noise={"sigma": 0.5})
        for _ in range(2)
    )
    draws, (generator, discriminator) = gan.draws(0, 0, 4), (same.networks["generator"], same.networks["discriminator"])
    fake = generator(draws["noise"], {}, training=True)["hist"] + 0.5 * 0.8 * draws["instance_noise/fake/hist"]
    real = some(problem, "float64")["hist"] + 0.5 * 0.8 * draws["instance_noise/real/hist"]
    assert np.std(draws["instance_noise/real/hist"]) == pytest.approx(1.0, abs=0.03)  # 16384 numbers: 0.0055
    on_real, on_fake = (discriminator({"hist": x}, training=True).numpy() for x in (real, fake))
    found = step(gan, problem, epochs=2.0)  # 0.8 of it are left
    assert found["discriminator_loss"] == pytest.approx(
        np.mean(np.log1p(np.exp(-on_real))) + np.mean(np.log1p(np.exp(on_fake))), rel=1e-10
    )
    assert found["generator_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-on_fake))), rel=1e-10)


@pytest.mark.usefixtures("eager")
def test_after_its_end_there_is_no_noise_and_none_is_drawn():
    problem = rpv()
    gan, plain = make(problem, epochs=2, instance_noise={"sigma": 0.5, "epochs": 1}), make(problem, epochs=2)
    for number in range(3):
        ours, theirs = step(gan, problem, number, epochs=1.0 + number), step(plain, problem, number)
        assert ours == theirs
    assert gan.draws(3, 0, 4).keys() == plain.draws(3, 0, 4).keys()
    for name, value in values(plain.networks["generator"]).items():
        np.testing.assert_array_equal(gan.networks["generator"].named[name], value, err_msg=name)


# --- turns -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_the_generator_is_updated_in_every_third_step(accumulation):
    gan = make(rpv(), critic_steps=3, average_half_life=100.0, accumulation=accumulation)
    changed = []
    for number in range(7):
        before = {name: values(network) for name, network in gan.networks.items()}
        metrics = step(gan, rpv(), number)
        assert np.isfinite(list(metrics.values())).all()
        changed.append(
            {
                owner
                for owner, network in gan.networks.items()
                for name, variable in network.named.items()  # statistics, too
                if not np.array_equal(variable, before[owner][name])
            }
        )
    every, third = {"discriminator"}, {"discriminator", "generator", "generator_average"}
    assert changed == [every, every, third, every, every, third, every]


@pytest.mark.usefixtures("eager")
def test_a_step_without_the_generator_is_the_discriminators_part_of_one_with():
    """The discriminator's update comes first; the generator's loss is then that of the same samples before it."""
    with_generator, without = make(rpv()), make(rpv(), critic_steps=2)
    networks = make(rpv()).networks
    fake = networks["generator"](with_generator.draws(0, 0, 4)["noise"], {}, training=True)
    logits = networks["discriminator"](fake, training=True).numpy()
    both, alone = step(with_generator, rpv()), step(without, rpv())
    for name in ("discriminator_loss", "real_probability", "fake_probability", "saturation"):
        assert alone[name] == pytest.approx(both[name], rel=1e-6), name
    assert alone["generator_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-logits))), rel=1e-5)
    for name, value in values(with_generator.networks["discriminator"]).items():
        np.testing.assert_allclose(without.networks["discriminator"].named[name], value, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("eager")
def test_the_average_counts_the_samples_of_all_steps_between():
    """Three steps of four samples: 0.5^(12 / 100) of the average is kept."""
    gan = make(rpv(), critic_steps=3, average_half_life=100.0)
    start = values(gan.networks["generator"])
    for number in range(3):
        gan.step(
            number, some(rpv(), "float32", number), gan.draws(number, 0, 4), learning_rates=RATES, samples=10000,
            attention=False,
        )  # fmt: skip
    kept = average.decay(100.0, 10000, 12)
    assert kept == pytest.approx(0.5**0.12)
    for name, value in values(gan.networks["generator"]).items():
        averaged = gan.networks["generator_average"].named[name].numpy()
        np.testing.assert_allclose(averaged, kept * start[name] + (1 - kept) * value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", ["bce", "wgan_gp", "hinge", "least_squares"])
def test_every_loss_goes_with_r1_and_is_lowered(loss):
    """Updates of the discriminator alone, on the same samples, every second one with R1."""
    problem = CRITICS["dcgan"]
    gan = make(problem, loss=loss, critic_steps=100, r1={"weight": 0.01, "every": 2})
    real, draws = some(problem, "float32"), gan.draws(0, 0, 4)
    found = [gan.step(n, real, draws, learning_rates=RATES, samples=4, attention=False).metrics for n in range(8)]
    assert found[-1]["discriminator_loss"] < found[0]["discriminator_loss"]
    for metrics in found:
        assert 0.0 <= metrics["fake_probability"] <= 1.0
        assert metrics["saturation"] == metrics["real_probability"] - metrics["fake_probability"]
