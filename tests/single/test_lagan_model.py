"""The networks of jet images: their known sizes, LAGAN's against NumPy, and what the discriminator tells of classes."""

import math
from pathlib import Path

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan.networks import stateless  # noqa: E402
from hpcgan.problems.jet_images.networks_discriminator import FLIPS, Discriminator  # noqa: E402
from hpcgan.problems.jet_images.networks_generator import Generator  # noqa: E402
from hpcgan.problems.jet_images.problem import JetsModel  # noqa: E402

SLOPE = float(np.float32(0.3))


def _count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def _part(network, prefix):
    return _count(v for name, v in network.named.items() if name.startswith(prefix))


def test_the_generator_has_the_published_weights():
    """Known answer 3,587,072, batch-norm statistics included, layer by layer."""
    generator = Generator(JetsModel(), 1)
    parts = {
        "embedding": 2 * 200,
        "project": 6272 * (200 + 1),
        "conv": 5 * 5 * 128 * 64 + 64,
        "norm0": 4 * 64,
        "local0": 14 * 14 * (5 * 5 * 64 * 6 + 6),
        "norm1": 4 * 6,
        "local1": 26 * 26 * (3 * 3 * 6 * 6 + 6),
        "out": 25 * 25 * 2 * 2 * 6,
    }
    assert {name: _part(generator, f"generator/{name}") for name in parts} == parts
    assert _count(generator.variables) == sum(parts.values()) == 3_587_072


def test_the_discriminator_has_the_published_weights():
    """Known answer 1,399,034, batch-norm statistics and both heads included."""
    discriminator = Discriminator(JetsModel(), 1)
    parts = {
        "conv": 5 * 5 * 32 + 32,
        "local0": 13 * 13 * (5 * 5 * 32 * 8 + 8),
        "local1": 13 * 13 * (5 * 5 * 8 * 8 + 8),
        "local2": 7 * 7 * (3 * 3 * 8 * 8 + 8),
        "norm": 3 * 4 * 8,
        "minibatch": 72 * 200 + 200,
        "head": 92 + 1,
        "class": 92 + 1,
    }
    assert {name: _part(discriminator, f"discriminator/{name}") for name in parts} == parts
    assert _count(discriminator.variables) == sum(parts.values()) == 1_399_034


def test_initial_weights():
    """Those of Keras 1: an array of three axes has the root of its size for both fans."""
    named = {**Generator(JetsModel(), 1).named, **Discriminator(JetsModel(), 1).named}

    def bound(name, variance):
        largest = np.abs(named[name].numpy()).max()
        assert 0.98 * math.sqrt(3 * variance) < largest <= math.sqrt(3 * variance) * (1 + 1e-6), name

    bound("generator/project/kernel", 2 / (200 + 6272))
    bound("generator/conv/kernel", 2 / (25 * 128))
    bound("generator/local0/kernel", 2 / math.sqrt(196 * 1600 * 6))
    bound("generator/local1/kernel", 2 / math.sqrt(676 * 54 * 6))
    bound("discriminator/conv/kernel", 2 / (25 * 33))
    bound("discriminator/local1/kernel", 1 / math.sqrt(169 * 200 * 8))
    bound("discriminator/minibatch/0/kernel", 1 / math.sqrt(20 * 72 * 10))
    assert named["generator/out/kernel"].numpy().std() == pytest.approx((625 * 24) ** -0.25, rel=0.03)
    assert named["generator/embedding"].numpy().std() == pytest.approx(math.sqrt(2 / 202), rel=0.1)
    for name, variable in named.items():
        if name.endswith("/bias"):
            assert not np.any(variable), name


FC_G = 200 * 256 + 256 + 256 * 512 + 512 + 512 * 625 + 625 + 625 * 625 + 625
DCGAN_G = 6272 * 201 + (25 * 128 * 64 + 64) + 4 * 64 + (25 * 64 * 32 + 32) + 4 * 32 + (9 * 32 * 8 + 8) + (4 * 8 + 1)
FC_D = 625 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 128 + 128
DCGAN_D = 25 * 32 + 32 + 25 * 32 * 64 + 64 + 25 * 64 * 128 + 128 + 9 * 128 * 256 + 256 + 4 * (64 + 128 + 256)


def _both_heads(width):
    return 200 * (width + 1) + 2 * (width + 20 + 1)


@pytest.mark.parametrize(
    ("architecture", "generator", "discriminator"),
    [
        ("dcgan", 400 + DCGAN_G, DCGAN_D + _both_heads(2304)),
        ("fc", 400 + FC_G, FC_D + _both_heads(128)),
        ("hybrid", 400 + FC_G + DCGAN_G, FC_D + DCGAN_D + _both_heads(2432)),
    ],
)
def test_the_comparisons_have_the_published_weights(architecture, generator, discriminator):
    """Layer by layer, and as docs/jets.md says."""
    model = JetsModel(architecture=architecture)
    page = (Path(__file__).parents[2] / "docs" / "jets.md").read_text()
    assert f"| {generator:,}, {discriminator:,} |" in page
    assert _count(Generator(model, 1).variables) == generator
    assert _count(Discriminator(model, 1).variables) == discriminator


# --- the definitions in NumPy --------------------------------------------------------------------------


def _scattered(network, seed):
    """All weights drawn anew, so that no bias is 0 and no scale 1, with features of the order of 1."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        shape = tuple(variable.shape)
        fan = np.prod(shape[2:-1] if len(shape) == 4 and shape[0] > 5 else shape[:-1]) or 1
        variable.assign(rng.normal(size=shape) * (0.5 if len(shape) == 1 else 1.0 / math.sqrt(fan)))
    return network


def _leaky(x):
    return np.where(x > 0, x, SLOPE * x)


def _weights(network, name):
    return [network.named[f"{name}/{part}"].numpy() for part in ("kernel", "bias")]


def _same(x, network, name):
    """Shared 5 x 5 kernel with zeros around, of (n, h, w, c)."""
    kernel, bias = _weights(network, name)
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
    return bias + sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(5) for j in range(5))


def _local(x, network, name, size, stride=1, margin=0):
    """Unshared convolution of (n, h, w, c), place by place."""
    x = np.pad(x, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    kernel = network.named[f"{name}/kernel"].numpy()
    bias = network.named[f"{name}/bias"].numpy() if f"{name}/bias" in network.named else 0.0
    y = np.zeros((len(x), *kernel.shape[:2], kernel.shape[3]))
    for p in range(kernel.shape[0]):
        for q in range(kernel.shape[1]):
            seen = x[:, stride * p : stride * p + size, stride * q : stride * q + size]
            y[:, p, q] = seen.reshape(len(x), -1) @ kernel[p, q]
    return y + bias


def _norm(x, network, name):
    scale, offset = (network.named[f"{name}/{part}"].numpy() for part in ("scale", "offset"))
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-3) * scale + offset


def test_the_generator_against_numpy():
    generator = _scattered(Generator(JetsModel(latent_dim=3), 1, "float64"), 1)
    noise, signal = np.random.default_rng(2).normal(size=(3, 3)), np.array([0.0, 1.0, 1.0])
    kernel, bias = _weights(generator, "generator/project")
    latent = noise * generator.embedding.numpy()[signal.astype(int)]
    x = (latent @ kernel + bias).reshape(3, 7, 7, 128)
    x = _norm(_leaky(_same(x, generator, "generator/conv")), generator, "generator/norm0")
    x = _leaky(_local(x.repeat(2, axis=1).repeat(2, axis=2), generator, "generator/local0", 5, margin=2))
    x = _norm(x, generator, "generator/norm1").repeat(2, axis=1).repeat(2, axis=2)
    x = _leaky(_local(x, generator, "generator/local1", 3))
    expected = np.maximum(_local(x, generator, "generator/out", 2)[..., 0], 0.0)
    image = generator(tf.constant(noise), {"signal": tf.constant(signal)}, training=True)["image"]
    assert 0.1 < np.mean(expected > 0) < 0.9
    np.testing.assert_allclose(image, expected, rtol=1e-10, atol=1e-12)


def _sample(n=4, seed=3):
    rng = np.random.default_rng(seed)
    images = np.maximum(rng.normal(size=(n, 25, 25)), 0.0)
    return {"image": tf.constant(images), "signal": tf.constant(np.arange(n) % 2, tf.float64)}


def _near(features, network):
    kernel, bias = (network.named[f"discriminator/minibatch/0/{part}"].numpy() for part in ("kernel", "bias"))
    m = (features @ kernel + bias).reshape(len(features), 20, 10)
    return np.exp(-np.abs(m[:, None] - m[None]).sum(axis=3)).sum(axis=1)


def test_the_discriminator_against_numpy():
    """Both logits, without dropout: nothing says what to draw it by."""
    discriminator = _scattered(Discriminator(JetsModel(), 1, "float64"), 4)
    sample = _sample()
    x = _leaky(_same(sample["image"].numpy()[..., None], discriminator, "discriminator/conv"))
    for i, (size, stride, margin) in enumerate(((5, 2, 2), (5, 1, 2), (3, 2, 1))):
        x = _leaky(_local(x, discriminator, f"discriminator/local{i}", size, stride, margin))
        x = _norm(x, discriminator, f"discriminator/norm{i}")
    features = x[:, :6, :6].reshape(4, 3, 2, 3, 2, 8).mean(axis=(2, 4)).reshape(4, 72)
    features = np.concatenate([_near(features, discriminator), features], axis=1)
    real, of_class = (
        (features @ kernel + bias)[:, 0]
        for kernel, bias in (_weights(discriminator, f"discriminator/{head}") for head in ("head", "class"))
    )
    logits, loss = discriminator.judge(sample, "real", training=True)
    np.testing.assert_allclose(logits, real, rtol=1e-9)
    sign = 1 - 2 * sample["signal"].numpy()
    assert float(loss) == pytest.approx(np.log1p(np.exp(sign * of_class)).mean(), rel=1e-9)
    np.testing.assert_allclose(discriminator(sample, training=True, update=False), real, rtol=1e-9)


@pytest.mark.parametrize("architecture", ["lagan", "dcgan", "fc", "hybrid"])
def test_all_architectures_make_and_judge_images(architecture):
    """Gradients reach every weight, and no image of the batch is like another."""
    model = JetsModel(architecture=architecture, latent_dim=4)
    generator, discriminator = Generator(model, 1), Discriminator(model, 1)
    noise = tf.constant(np.random.default_rng(5).normal(size=(6, 4)), tf.float32)
    signal = tf.constant([0.0, 1.0] * 3)
    source = tf.constant(stateless.source(1, "test", 0, 0, 6))
    with tf.GradientTape() as tape:
        image = generator(noise, {"signal": signal}, training=True)["image"]
        logits, of_class = discriminator.judge(
            {"image": 30.0 * image, "signal": signal, stateless.RANDOM: source}, "generator", training=True
        )
        loss = tf.reduce_mean(tf.nn.softplus(-logits)) + of_class
    assert image.shape == (6, 25, 25)
    assert float(tf.reduce_min(image)) >= 0.0
    assert len(np.unique(image.numpy().sum(axis=(1, 2)))) == 6
    for variable, gradient in zip(
        [*generator.weights, *discriminator.weights], tape.gradient(loss, [*generator.weights, *discriminator.weights])
    ):
        assert gradient is not None, variable.name
        assert np.all(np.isfinite(gradient)), variable.name


@pytest.mark.parametrize("architecture", ["lagan", "dcgan", "fc"])
def test_dropout_is_that_of_the_whole_batch_on_any_rank(architecture):
    """Without batch statistics, the images that the second of two ranks has give what they give in the whole batch."""
    discriminator = Discriminator(JetsModel(architecture=architecture), 1)
    images = tf.constant(np.random.default_rng(6).exponential(size=(8, 25, 25)), tf.float32)
    source = tf.constant(stateless.source(3, "random/real", 17, 0, 8))
    own = tf.constant(stateless.source(3, "random/real", 17, 5, 3))
    np.testing.assert_array_equal(source[5:], own)
    for norm in getattr(discriminator.tower, "norms", []):
        norm.__class__ = type("Moving", (type(norm),), {"__call__": lambda self, x, training, update: x})
    whole = discriminator.tower(images, source, True, False)
    np.testing.assert_allclose(discriminator.tower(images[5:], own, True, False), whole[5:], rtol=1e-4, atol=1e-5)
    other = tf.constant(stateless.source(3, "random/real", 18, 0, 8))
    assert not np.allclose(discriminator.tower(images, other, True, False), whole, rtol=1e-2)


def test_classes_of_generated_images_are_told_wrongly_now_and_then():
    model = JetsModel(architecture="fc", class_flip=(0.25, 1.0))
    discriminator = Discriminator(model, 1, "float64")
    sample = _sample(400)
    source = stateless.source(1, "test", 0, 0, 400)
    sample[stateless.RANDOM] = tf.constant(source)
    plain = {name: sample[name] for name in ("image", "signal")}
    np.testing.assert_array_equal(discriminator._told(sample, "real"), sample["signal"])
    np.testing.assert_array_equal(discriminator._told(plain, "generator"), sample["signal"])
    np.testing.assert_array_equal(discriminator._told(sample, "generator"), 1 - sample["signal"])
    flipped = np.flatnonzero(discriminator._told(sample, "fake") != sample["signal"])
    uniforms = stateless.uniform(tf.constant(source), FLIPS, 1, tf.float64)[:, 0]
    np.testing.assert_array_equal(flipped, np.flatnonzero(uniforms < 0.25))
    assert 60 < len(flipped) < 140
