"""Cells of CaloGAN as logarithms of energies."""

import math

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from calogan_settings import CaloGan  # noqa: E402

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.networks.layers import Initializer  # noqa: E402
from hpcgan.problems.calorimeter.calogan import CaloganModel, CaloganProblem  # noqa: E402
from hpcgan.problems.calorimeter.networks import CellEncoding, Discriminator, Generator, near_occupancy  # noqa: E402

SHAPES = ((2, 4), (2, 2), (2, 1))
SMALL = CaloGan(latent_dim=3, shapes=SHAPES, cell_encoding="log")


def _showers(n, seed=1):
    """A layer has a thousandth of the one before; half of the cells are dark."""
    rng = np.random.default_rng(seed)
    found = {
        f"layer_{i}": rng.exponential(1e-3**i, (n, *shape)) * (rng.random((n, *shape)) < 0.5)
        for i, shape in enumerate(SHAPES)
    }
    return {k: tf.constant(v, tf.float32) for k, v in {**found, "energy": rng.uniform(1, 9, n)}.items()}


def test_by_hand():
    """Mean lit cells of 4, 2 and (in the dark) 1 GeV."""
    cells = CellEncoding(Initializer(1), "cells", 3)
    images = [np.zeros((2, *shape), np.float32) for shape in SHAPES]
    images[0][0, 0, :2], images[1][1, 1, 1] = [3.0, 5.0], 2.0
    batch = {f"layer_{i}": tf.constant(image) for i, image in enumerate(images)}
    assert list(cells.fit([batch])) == [batch]
    np.testing.assert_allclose(cells.unit.numpy(), [4e-3, 2e-3, 1e-3])
    energies = tf.constant([0.0, 4e-3, 4.0])
    encoded = [0.0, math.log(2.0), math.log(1001.0)]
    np.testing.assert_allclose(cells.encode(energies, 0), encoded, rtol=1e-6)
    np.testing.assert_allclose(cells.energies(tf.constant(encoded), 0), energies, rtol=1e-5)
    assert np.isfinite(cells.energies(tf.constant([1e6]), 0)).all()
    assert near_occupancy(cells.encode(tf.constant([[[0.0, 4e-3], [0.0, 1e3]]]), 0)).numpy() == pytest.approx(0.4)


def test_lit_cells_have_a_gradient():
    """What is lit of a shower changes the logit, and by how much it should is known."""
    network = Discriminator(SMALL, 1)
    for weight in network.weights:
        if "head" not in weight.name:
            weight.assign(tf.zeros_like(weight))
    showers = _showers(8)
    with tf.GradientTape() as tape:
        tape.watch(showers)
        logits = network(showers, training=True)
    assert (np.abs(tape.gradient(logits, showers["layer_2"]).numpy()) > 0).any()


def test_the_units_are_those_of_all_batches_and_both_networks_and_the_average_have_them():
    model = CaloganModel(latent_dim=2, segmentation="2x4,2x2,2x1", cell_encoding="log")
    gan = Gan(CaloganProblem(model), GanSettings(batch_size=4, average_half_life=50.0), SerialComm(), 1)
    parts = [{k: v.numpy() for k, v in _showers(20, seed).items()} for seed in (1, 2)]
    gan.calibrate(lambda: iter(parts))
    both = np.concatenate([part["layer_1"] for part in parts])
    for name, network in gan.networks.items():
        unit = network.named[f"{name.removesuffix('_average')}/cells/unit"].numpy()
        assert unit[1] == pytest.approx(1e-3 * both[both > 0].mean(), rel=1e-5)
        assert unit[2] == pytest.approx(1e-9, rel=0.5)


def test_with_a_drawn_total_both_are_measured():
    network = Generator(CaloGan(latent_dim=3, shapes=SHAPES, cell_encoding="log", total_energy="drawn"), 1)
    network.calibrate(iter([_showers(50)]))
    assert len(network.constants) == 3
    assert all(np.ptp(constant.numpy()) > 0 for constant in network.constants)


def test_the_generator_makes_logarithms_in_these_units_with_gradients():
    network, linear = Generator(SMALL, 1), Generator(CaloGan(latent_dim=3, shapes=SHAPES), 1)
    network.cells.unit.assign([2.0, 1e-3, 1e-6])
    noise = tf.constant(np.random.default_rng(3).normal(size=(8, 3)).astype(np.float32))
    conditions = {"energy": tf.constant(np.linspace(1.0, 90.0, 8, dtype=np.float32))}
    with tf.GradientTape() as tape:
        made = network(noise, conditions, training=True)
        loss = tf.add_n([tf.reduce_sum(image) for image in made.values()])
    plain = linear(noise, conditions, training=True)  # of the same initial weights
    for (name, image), unit in zip(made.items(), (2.0, 1e-3, 1e-6), strict=True):
        np.testing.assert_allclose(image, unit * np.expm1(plain[name].numpy()), rtol=1e-5, atol=1e-7 * unit)
    assert all(np.isfinite(g).all() for g in tape.gradient(loss, network.weights) if g is not None)


def test_the_discriminator_sees_a_layer_with_a_millionth_of_the_energy():
    """What its tower has of it changes the logit as much as in a layer of GeV; energies stay in GeV."""
    network = Discriminator(SMALL, 1)
    showers = _showers(64)
    network.calibrate(iter([showers]))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(showers)
        logits = tf.reduce_sum(network(showers, training=True) ** 2)
    for i in range(3):
        gradient = tape.gradient(logits, showers[f"layer_{i}"]).numpy()
        assert np.isfinite(gradient).all()
        assert 0.01 < np.abs(gradient * showers[f"layer_{i}"].numpy()).mean() < 100.0


def test_the_published_model_has_none():
    assert Discriminator(CaloGan(latent_dim=3, shapes=SHAPES), 1).constants == []
