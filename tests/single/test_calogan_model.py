"""The networks of CaloGAN against NumPy, layer by layer, and their known sizes."""

import math

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from calogan_settings import CaloGan  # noqa: E402

from hpcgan.networks.layers import Initializer  # noqa: E402
from hpcgan.problems.calorimeter import networks as calogan  # noqa: E402
from hpcgan.problems.calorimeter.networks import Attention, Discriminator, Generator  # noqa: E402

SHAPES = ((2, 8), (4, 4), (4, 2))  # as the published ones: rows repeated, columns averaged, then columns averaged
SMALL = CaloGan(latent_dim=5, shapes=SHAPES)


def _count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def _part(network, prefix):
    return _count(v for name, v in network.named.items() if name.startswith(prefix))


@pytest.fixture(scope="module")
def published():
    return Generator(CaloGan(), 1), Discriminator(CaloGan(), 1)


def test_the_generator_has_the_published_weights(published):
    """Known answer 29,726,376, batch-norm statistics included, layer by layer.

    An image (R, C) begins as (R + 2)(C + 2) cells of 36 channels, of 1024 latent numbers and a bias each; each of the
    2x2 kernels after the shared one takes a row and a column.
    """
    generator, _ = published
    for i, (cells, at_local, at_out) in enumerate(
        ((5 * 98, 4 * 97, 3 * 96), (14 * 14, 13 * 13, 12 * 12), (14 * 8, 13 * 7, 12 * 6))
    ):
        layer = f"generator/layer{i}"
        assert _part(generator, f"{layer}/project/") == cells * 36 * (1024 + 1)
        assert _part(generator, f"{layer}/conv/") == 2 * 2 * 36 * 16 + 16
        assert _part(generator, f"{layer}/norm/") == 4 * 16
        assert _part(generator, f"{layer}/local/") == at_local * (2 * 2 * 16 * 6 + 6)
        assert _part(generator, f"{layer}/out/") == at_out * 2 * 2 * 6
    assert _part(generator, "generator/attention1/") == 12 * 12 * (3 * 3 * 2 * 2 + 2)
    assert _part(generator, "generator/attention2/") == 12 * 6 * (3 * 3 * 2 * 2 + 2)
    parts = {"project": 29_446_200, "conv": 6_960, "norm": 192, "local": 252_720, "out": 12_096, "attention": 8_208}
    assert sum(parts.values()) == _count(generator.variables) == 29_726_376
    assert _count(generator.weights) == 29_726_376 - 3 * 2 * 16


def test_the_discriminator_has_the_published_weights(published):
    """Known answer 2,744,524, batch-norm statistics included; its logit is linear in 1863 features."""
    _, discriminator = published
    places = (
        (3 * 48, 4 * 49, 5 * 25),
        (12 * 6, 13 * 7, 14 * 4),
        (12 * 3, 13 * 4, 14 * 3),
    )
    widths = (1000, 448, 336)
    assert tuple(tower.width for tower in discriminator.towers) == widths
    for i, (first, second, third) in enumerate(places):
        layer = f"discriminator/layer{i}"
        assert _part(discriminator, f"{layer}/conv/") == 2 * 2 * 64 + 64
        assert _part(discriminator, f"{layer}/local0/") == first * (3 * 3 * 64 * 16 + 16)
        assert _part(discriminator, f"{layer}/local1/") == second * (2 * 2 * 16 * 8 + 8)
        assert _part(discriminator, f"{layer}/local2/") == third * (2 * 2 * 8 * 8 + 8)
        assert _part(discriminator, f"{layer}/norm") == 4 * (16 + 8 + 8)
        assert _part(discriminator, f"discriminator/minibatch/{i}/") == 100 * (widths[i] + 1)
        assert _part(discriminator, f"discriminator/minibatch/{3 + i}/") == 100 * (1 + 1)
    assert _part(discriminator, "discriminator/minibatch/6/") == 100 * (3 + 1)
    assert _part(discriminator, "discriminator/head/") == sum(widths) + 3 * (10 + 1 + 10) + 3 + 3 + 10 + 1 == 1863 + 1
    assert _count(discriminator.variables) == 2_744_524
    assert _count(discriminator.weights) == 2_744_524 - 3 * 2 * (16 + 8 + 8)


def test_initial_weights(published):
    """Keras's: its fans are those of a whole locally connected layer, its normal distribution is cut."""
    generator, discriminator = published
    named = {**generator.named, **discriminator.named}

    def bound(name, variance):
        largest = np.abs(named[name].numpy()).max()
        assert 0.98 * math.sqrt(3 * variance) < largest <= math.sqrt(3 * variance) * (1 + 1e-6), name

    bound("generator/layer2/project/kernel", 2 / (1024 + 4032))
    bound("generator/layer1/conv/kernel", 2 / (4 * 36))
    bound("generator/layer0/local/kernel", 2 / (388 * 64))
    bound("generator/attention1/kernel", 2 / (144 * (18 + 2)))
    bound("discriminator/layer0/conv/kernel", 2 / (4 * (1 + 64)))
    bound("discriminator/layer0/local0/kernel", 2 / (144 * (576 + 16)))
    bound("discriminator/minibatch/1/kernel", 2 / (10 * 448 + 100))
    bound("discriminator/head/kernel", 2 / (1863 + 1))
    assert named["generator/layer0/out/kernel"].numpy().std() == pytest.approx(math.sqrt(2 / (288 * 25)), rel=0.03)
    np.testing.assert_array_equal(named["generator/attention2/bias"], np.broadcast_to([0.0, -10.0], (12, 6, 2)))
    for name, variable in named.items():
        if name.endswith("/bias") and "attention" not in name:
            assert not np.any(variable), name


# --- the definitions in NumPy --------------------------------------------------------------------------


def _leaky(x):
    return np.where(x > 0, x, float(np.float32(0.3)) * x)  # TensorFlow's slope is single precision in any


def _local(x, network, name, size, stride=(1, 1)):
    """Unshared convolution of (n, h, w, c)."""
    kernel = network.named[f"{name}/kernel"].numpy()
    rows, columns, seen, outputs = kernel.shape
    y = np.zeros((len(x), rows, columns, outputs))
    for p in range(rows):
        for q in range(columns):
            top, left = stride[0] * p, stride[1] * q
            y[:, p, q] = x[:, top : top + size[0], left : left + size[1]].reshape(len(x), seen) @ kernel[p, q]
    return y + network.named[f"{name}/bias"].numpy() if f"{name}/bias" in network.named else y


def _same_2x2(x, network, name):
    """Shared 2x2 kernel, zeros below and on the right."""
    kernel, bias = (network.named[f"{name}/{part}"].numpy() for part in ("kernel", "bias"))
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
    terms = [padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(2) for j in range(2)]
    return sum(terms) + bias


def _norm(x, network, name):
    """Batch norm in training."""
    scale, offset = (network.named[f"{name}/{part}"].numpy() for part in ("scale", "offset"))
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-3) * scale + offset


def _pad(x):
    return np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])


def _near(f, network, name):
    kernel, bias = (network.named[f"{name}/{part}"].numpy() for part in ("kernel", "bias"))
    m = (f @ kernel + bias).reshape(len(f), 10, 10)
    return np.tanh(np.exp(-np.abs(m[:, None] - m[None]).sum(axis=3)).sum(axis=1))


def _scattered(network, seed):
    """The network with all its weights drawn anew, so that no bias is 0, no scale 1 and no image dark."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    return network


def _sample(seed, n=4):
    rng = np.random.default_rng(seed)
    sample = {f"layer_{i}": np.maximum(rng.normal(size=(n, *shape)), 0.0) for i, shape in enumerate(SHAPES)}
    sample["energy"] = rng.uniform(1.0, 20.0, (n, 1))
    return sample


def _noise(n):
    return tf.constant(np.random.default_rng(n).normal(size=(n, SMALL.latent_dim)))


def _tensors(sample):
    return {name: tf.constant(value) for name, value in sample.items()}


def test_the_generator_against_numpy():
    generator = _scattered(Generator(SMALL, 1, "float64"), 1)
    rng = np.random.default_rng(2)
    noise, energy = rng.normal(size=(3, 5)), np.array([[10.0], [50.0], [80.0]])
    latent = noise * energy / 100
    images = []
    for i, (rows, columns) in enumerate(SHAPES):
        layer = f"generator/layer{i}"
        kernel, bias = (generator.named[f"{layer}/project/{part}"].numpy() for part in ("kernel", "bias"))
        x = (latent @ kernel + bias).reshape(3, rows + 2, columns + 2, 36)
        x = _norm(_leaky(_same_2x2(x, generator, f"{layer}/conv")), generator, f"{layer}/norm")
        x = _leaky(_local(x, generator, f"{layer}/local", (2, 2)))
        images.append(_local(x, generator, f"{layer}/out", (2, 2))[..., 0])
        if i == 0:
            continue
        before = images[i - 1]
        if i == 1:  # (2, 8) -> (4, 8) -> (4, 4)
            before = before[:, [0, 0, 1, 1]]
        carry = before.reshape(3, rows, columns, 2).mean(axis=3)
        both = np.stack([images[i], carry], axis=-1)
        score = np.exp(_local(_pad(both), generator, f"generator/attention{i}", (3, 3)))
        images[i] = np.sum(both * score / score.sum(axis=-1, keepdims=True), axis=-1)
    made = generator(tf.constant(noise), {"energy": tf.constant(energy)}, training=True)
    assert list(made) == ["layer_0", "layer_1", "layer_2"]
    for i, image in enumerate(images):
        expected = np.maximum(image, 0.0)
        assert 0.1 < np.mean(expected > 0) < 0.9
        np.testing.assert_allclose(made[f"layer_{i}"], expected, rtol=1e-9, atol=1e-12)


def test_the_features_of_the_discriminator_against_numpy():
    discriminator = _scattered(Discriminator(SMALL, 1, "float64"), 3)
    sample = _sample(4)
    expected = []
    for i in range(3):
        image, layer = sample[f"layer_{i}"], f"discriminator/layer{i}"
        x = _leaky(_same_2x2(image[..., None], discriminator, f"{layer}/conv"))
        for j, (size, stride) in enumerate((((3, 3), (1, 2)), ((2, 2), (1, 1)), ((2, 2), (1, 2)))):
            x = _leaky(_local(_pad(x), discriminator, f"{layer}/local{j}", size, stride))
            x = _norm(x, discriminator, f"{layer}/norm{j}")
        seen = x.reshape(4, -1)
        lit = np.mean(image > 0, axis=(1, 2))[:, None]
        expected += [
            seen,
            _near(seen, discriminator, f"discriminator/minibatch/{i}"),
            lit,
            _near(lit, discriminator, f"discriminator/minibatch/{3 + i}"),
        ]
    energies = np.stack([sample[f"layer_{i}"].sum(axis=(1, 2)) for i in range(3)], axis=1)
    total = energies.sum(axis=1, keepdims=True)
    off = np.abs(total - sample["energy"])
    near = _near(energies, discriminator, "discriminator/minibatch/6")
    expected = np.concatenate([*expected, energies / 10, total / 100, off, 10.0 * (off > 5.0), near], axis=1)
    found = discriminator.features(_tensors(sample), training=True)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
    kernel, bias = (discriminator.named[f"discriminator/head/{part}"].numpy() for part in ("kernel", "bias"))
    logits = discriminator(_tensors(sample), training=True)
    np.testing.assert_allclose(logits, (expected @ kernel + bias)[:, 0], rtol=1e-8)


def test_energy_features_by_hand():
    """6 GeV in the cells: 4 GeV off one particle, exactly 5 off the next, 6 off the third, and 5.5 above the last."""
    energies = np.repeat([[1.0, 2.0, 3.0]], 4, axis=0)
    found = calogan.energy_features(tf.constant(energies), tf.constant([[10.0], [11.0], [12.0], [0.5]], tf.float64))
    common = [0.1, 0.2, 0.3, 0.06]
    expected = [[*common, 4.0, 0.0], [*common, 5.0, 0.0], [*common, 6.0, 10.0], [*common, 5.5, 10.0]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_occupancy_by_hand_and_without_a_gradient():
    image = tf.constant([[[0.0, 1.0], [2.0, 3.0]], [[0.0, 0.0], [0.0, 1e-30]]])
    with tf.GradientTape() as tape:
        tape.watch(image)
        lit = calogan.occupancy(image)
    np.testing.assert_array_equal(lit, [[0.75], [0.25]])
    assert tape.gradient(lit, image) is None


def test_energy_mismatch_and_its_gradient_by_hand():
    """3 GeV too much in the first shower, 1 too little in the second: the mean is 2, and a cell moves half of one."""
    layers = {
        "layer_0": tf.constant([[[1.0, 2.0]], [[3.0, 0.0]]]),
        "layer_1": tf.constant([[[4.0]], [[6.0]]]),
    }
    energy = tf.constant([[4.0], [10.0]])
    with tf.GradientTape() as tape:
        tape.watch(list(layers.values()))
        loss = calogan.energy_mismatch({**layers, "energy": energy})
    assert loss.numpy() == 2.0
    first, second = tape.gradient(loss, list(layers.values()))
    np.testing.assert_array_equal(first, [[[0.5, 0.5]], [[-0.5, -0.5]]])
    np.testing.assert_array_equal(second, [[[0.5]], [[-0.5]]])


def test_attention_begins_with_next_to_nothing_of_the_layer_before():
    attention = Attention(Initializer(1, "float64"), "a", (2, 3))
    primary, carry = tf.constant(np.full((2, 3, 4, 1), 2.0)), tf.constant(np.full((2, 3, 4, 1), 5.0))
    attention.local.kernel.assign(tf.zeros_like(attention.local.kernel))
    share = math.exp(-10) / (1 + math.exp(-10))
    np.testing.assert_allclose(attention(primary, carry), np.full((2, 3, 4, 1), 2 + 3 * share), rtol=1e-12)
    attention.local.bias.assign(tf.zeros_like(attention.local.bias))
    np.testing.assert_allclose(attention(primary, carry), np.full((2, 3, 4, 1), 3.5), rtol=1e-12)


def test_carries_of_the_published_layers():
    """(3, 96): rows four times, then means of 8 columns; (12, 12): means of 2 columns. One sample, one channel."""
    first = np.arange(288.0).reshape(3, 96)
    carried = calogan.resize(tf.constant(first[:, :, None, None]), (12, 12)).numpy()[:, :, 0, 0]
    assert carried.shape == (12, 12)
    np.testing.assert_array_equal(carried[:4, 0], [3.5] * 4)
    np.testing.assert_array_equal(carried[4:8, 1], [96 + 11.5] * 4)
    second = np.arange(144.0).reshape(12, 12)
    carried = calogan.resize(tf.constant(second[:, :, None, None]), (12, 6)).numpy()[:, :, 0, 0]
    np.testing.assert_array_equal(carried, second.reshape(12, 6, 2).mean(axis=2))
    rows = calogan.resize(tf.constant(second[:, :, None, None]), (3, 12)).numpy()[:, :, 0, 0]
    np.testing.assert_array_equal(rows, second.reshape(3, 4, 12).mean(axis=1))
    with pytest.raises(ValueError, match=r"a grid of \(12, 12\) does not fit on one of \(12, 5\)"):
        calogan.resize(tf.constant(second[:, :, None, None]), (12, 5))


def test_the_latent_vector_is_the_noise_times_the_energy():
    generator = _scattered(Generator(SMALL, 1, "float64"), 5)
    noise, energy = _noise(3), tf.constant([[8.0], [16.0], [64.0]], tf.float64)
    one = generator(noise, {"energy": energy}, training=True)
    two = generator(2 * noise, {"energy": energy / 2}, training=True)
    other = generator(noise, {"energy": energy / 2}, training=True)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
        assert not np.allclose(one[name], other[name])


def test_statistics_move_only_when_they_should():
    sample = _tensors(_sample(6))
    generator, discriminator = (_scattered(Network(SMALL, 1, "float64"), 7) for Network in (Generator, Discriminator))
    noise = _noise(4)

    def make(training, update):
        return generator(noise, sample, training=training, update=update)["layer_0"].numpy()

    def judge(training, update):
        return discriminator(sample, training=training, update=update).numpy()

    for network, call in ((generator, make), (discriminator, judge)):
        before = [s.numpy() for s in network.statistics]
        by_moving = call(False, True)
        by_batch = call(True, False)
        for statistic, old in zip(network.statistics, before, strict=True):
            np.testing.assert_array_equal(statistic, old)
        assert not np.allclose(by_batch, by_moving)
        np.testing.assert_allclose(call(True, True), by_batch)  # of the batch, whatever the moving ones are
        for statistic, old in zip(network.statistics, before, strict=True):
            assert not np.array_equal(statistic, old)
            # 0.99 of the old ones, which are 0 and 1, and 0.01 of the batch's
            assert np.all(np.abs(statistic.numpy() - 0.99 * old) > 0)
        assert not np.allclose(call(False, True), by_moving)


def test_momentum_of_the_moving_statistics():
    discriminator = _scattered(Discriminator(SMALL, 1, "float64"), 8)
    tower = discriminator.towers[0]
    image = tf.constant(_sample(9)["layer_0"])
    x = _leaky(_same_2x2(image.numpy()[..., None], discriminator, "discriminator/layer0/conv"))
    x = _leaky(_local(_pad(x), discriminator, "discriminator/layer0/local0", (3, 3), (1, 2)))
    tower(image, training=True, update=True)
    np.testing.assert_allclose(tower.norms[0].mean, 0.01 * x.mean(axis=(0, 1, 2)), rtol=1e-9)


def test_samples_of_a_batch_see_each_other_only_through_statistics_of_the_batch():
    """Without training, that is with moving statistics, only the nearness connects them."""
    discriminator = _scattered(Discriminator(SMALL, 1, "float64"), 10)
    sample = _sample(11)
    changed = {name: value.copy() for name, value in sample.items()}
    changed["layer_1"][3] *= 3.0
    one, other = (discriminator.features(_tensors(s), training=False).numpy()[:3] for s in (sample, changed))
    # the nearness of features and energies, 10 columns each; the share of lit cells is the same
    end = one.shape[1]
    widths = [tower.width for tower in discriminator.towers]
    second = widths[0] + 21 + widths[1]
    near = [*range(second, second + 10), *range(end - 10, end)]
    differing = np.flatnonzero(np.any(one != other, axis=0))
    assert set(differing) <= set(near)
    assert len(differing) > 0


def test_batches_of_any_size_in_one_compiled_function():
    generator, discriminator = Generator(SMALL, 1, "float64"), Discriminator(SMALL, 1, "float64")
    spec = [tf.TensorSpec([None, 5], tf.float64), tf.TensorSpec([None, 1], tf.float64)]

    @tf.function(input_signature=spec)
    def both(noise, energy):
        made = generator(noise, {"energy": energy}, training=True, update=False)
        return made, discriminator({**made, "energy": energy}, training=True, update=False)

    for n in (2, 5):
        noise, energy = _noise(n), tf.constant(np.full((n, 1), 50.0))
        made, logits = both(noise, energy)
        alone = generator(noise, {"energy": energy}, training=True, update=False)
        assert logits.shape == (n,)
        for i, shape in enumerate(SHAPES):
            assert made[f"layer_{i}"].shape == (n, *shape)
            np.testing.assert_allclose(made[f"layer_{i}"], alone[f"layer_{i}"], atol=1e-12)


def test_pairs_are_separate_passes():
    discriminator = _scattered(Discriminator(SMALL, 1, "float64"), 12)
    real, fake = _tensors(_sample(13)), _tensors(_sample(14))
    on_real, on_fake = discriminator.pair(real, fake)
    np.testing.assert_array_equal(on_real, discriminator(real, training=True))
    np.testing.assert_array_equal(on_fake, discriminator(fake, training=True))


def test_every_weight_gets_a_gradient():
    generator, discriminator = (_scattered(Network(SMALL, 1, "float64"), 15) for Network in (Generator, Discriminator))
    sample = _tensors(_sample(16))
    with tf.GradientTape(persistent=True) as tape:
        made = generator(_noise(4), sample, training=True)
        # Logits of such weights are large: nothing that saturates.
        loss = tf.reduce_mean(tf.sin(discriminator({**made, "energy": sample["energy"]}, training=True)))
    for network in (generator, discriminator):
        for weight, gradient in zip(network.weights, tape.gradient(loss, network.weights), strict=True):
            if "minibatch" in weight.name and "bias" in weight.name:  # in none of the differences
                np.testing.assert_allclose(gradient, np.zeros(100), atol=1e-12)
            else:
                assert np.abs(gradient).max() > 1e-12, weight.name


@pytest.mark.parametrize("scope", ["local", "global"])
def test_the_configuration_says_whose_batch_the_nearness_is_of(scope):
    discriminator = Discriminator(CaloGan(latent_dim=5, shapes=SHAPES, minibatch_discrimination=scope), 1)
    assert discriminator.minibatch.scope == scope


def test_initial_weights_derive_from_seed_and_name():
    one, same, other = (Generator(SMALL, seed).named for seed in (1, 1, 2))
    for name in ("generator/layer1/project/kernel", "generator/layer0/out/kernel"):
        np.testing.assert_array_equal(one[name], same[name])
        assert not np.array_equal(one[name], other[name])
    assert not np.array_equal(one["generator/layer0/conv/kernel"].numpy(), one["generator/layer1/conv/kernel"].numpy())
