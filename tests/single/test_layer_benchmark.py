"""Counting floating-point operations in benchmarks/layers.py."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import needs
import numpy as np
import pytest


@pytest.fixture(scope="module")
def layers():
    path = Path(__file__).parents[2] / "benchmarks" / "layers.py"
    spec = importlib.util.spec_from_file_location("benchmark_layers", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_flops_by_hand(layers):
    # 2x2 outputs of one channel, each a sum over 4x4 pixels of one: 64 multiply-adds
    assert layers.convolution_flops((1, 2, 2, 1), (4, 4, 1, 1)) == 128
    # the published discriminator's second layer on 64 images, f = 16
    assert layers.convolution_flops((64, 16, 16, 32), (4, 4, 16, 32)) == 268_435_456
    assert layers.product_flops(2, 3, 5) == 60


@pytest.mark.parametrize(
    ("kind", "shapes", "result"),
    [
        ("Conv2D", ((2, 8, 8, 3), (4, 4, 3, 5)), (2, 4, 4, 5)),
        ("Conv2DBackpropInput", ((4, 4, 3, 5), (2, 4, 4, 5)), (2, 8, 8, 3)),
        ("Conv2DBackpropFilter", ((2, 8, 8, 3), (2, 4, 4, 5)), (4, 4, 3, 5)),
    ],
)
def test_a_convolution_and_its_gradients_need_the_same(layers, kind, shapes, result):
    work = layers.Work("layer", "role", kind, shapes, result, ())
    assert work.flops == 2 * (2 * 4 * 4 * 5) * (4 * 4 * 3)


@pytest.mark.parametrize(
    ("shapes", "options", "result"),
    [
        (((2, 3), (3, 5)), (False, False), (2, 5)),
        (((3, 2), (3, 5)), (True, False), (2, 5)),
        (((2, 3), (5, 3)), (False, True), (2, 5)),
    ],
)
def test_a_product_with_either_factor_transposed(layers, shapes, options, result):
    assert layers.Work("layer", "role", "MatMul", shapes, result, options).flops == 60


def test_the_whole_step_of_the_reference(layers):
    """The graph has every pass of every layer and nothing else."""
    tf = needs.tensorflow()
    from hpcgan.comm.base import SerialComm
    from hpcgan.methods.gan import Gan, Kind
    from hpcgan.methods.settings import GanSettings
    from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem

    n, f, latent_dim = 2, 4, 3
    problem = RpvProblem(RpvModel(filters=f, latent_dim=latent_dim))
    gan = Gan(problem, GanSettings(batch_size=n), SerialComm(), 1)
    function = gan.compiled(Kind(penalise=False, update_generator=True)).get_concrete_function(
        {"hist": tf.zeros((n, 64, 64))},
        {k: tf.constant(v) for k, v in gan.draws(0, 0, n).items()},
        {"generator": tf.constant(0.0), "discriminator": tf.constant(0.0)},
        tf.constant(0.0),
        tf.constant(0.0),
    )
    works = layers.step_work(function, n)
    calls = Counter()
    for work, number in works.items():
        calls[work.layer, work.role] += number
    found = {}
    for (layer, role), number in calls.items():
        found.setdefault(layer, {})[role] = number
    forward, inputs, weights = "forward", "input gradient", "weight gradient"
    # D(real), D(fake) and, for the generator, D(fake) again, without gradients of the weights
    for i in range(1, 4):
        assert found.pop(f"discriminator/down{i}/kernel") == {forward: 3, inputs: 3, weights: 2}
    assert found.pop("discriminator/down0/kernel") == {forward: 3, inputs: 1, weights: 2}
    assert found.pop("discriminator/head/kernel") == {forward: 3, inputs: 3, weights: 2}
    for i in range(4):
        assert found.pop(f"generator/up{i}/kernel") == {forward: 1, inputs: 1, weights: 1}
    assert found.pop("generator/project/kernel") == {forward: 1, weights: 1}
    assert found.pop("batch norm") == {forward: 13, "gradients": 13}
    assert not found
    # the outermost layers have 32x32 places, 4x4 pixels and f channels; all others the same product
    outer, inner = 2 * n * 32 * 32 * f * 16, 2 * n * 16 * 16 * 2 * f * f * 16
    dense = 2 * n * 16 * 8 * f * (2 * latent_dim + 8)
    assert sum(work.flops * number for work, number in works.items()) == 9 * outer + 33 * inner + dense
    assert np.all([work.flops > 0 for work in works if work.layer != "batch norm"])
