"""The autoregressive model of calorimeter cells: its order, its probabilities, its samples."""

import itertools

import needs
import numpy as np
import pytest
from scipy import stats

tf = needs.tensorflow()

from hpcgan import rng as streams  # noqa: E402
from hpcgan.problems.arm import network  # noqa: E402
from hpcgan.problems.arm.network import Arm  # noqa: E402
from hpcgan.problems.arm.problem import ArmModel, ArmProblem  # noqa: E402

#: Orders of 4, 6 and 6 cells; the last one has cells of two sizes along eta.
GEOMETRIES = ("eta2_phi2", "eta2_phi3", "eta1+2_phi2")


def model(**settings):
    base = {"layer": "middle", "geometries": GEOMETRIES, "categories": 4, "dense_layers": 2, "features": 2, "kernel": 2}
    return ArmModel.model_validate({**base, **settings})


def arm(seed=1, scale=0.5, **settings):
    """With weights and constants large enough to matter."""
    built = Arm(model(**settings), seed, "float64")
    rng = np.random.default_rng(seed)
    for variable in built.weights:
        variable.assign_add(scale * rng.normal(size=variable.shape))
    built.scale.assign(1.3)
    for variable in (built.log_share, built.log_first):
        variable.assign(np.log(rng.dirichlet(np.ones(built.categories), variable.shape[:-1])))
    return built


def cells_of(geometries=GEOMETRIES):
    return [geometry.n_cells for geometry in model(geometries=geometries).cells]


@pytest.mark.parametrize(
    "settings",
    [
        {"dense_layers": 1, "kernel": 1},
        {"dense_layers": 1, "kernel": 3},
        {"dense_layers": 4, "kernel": 1, "features": 3},
        {"dense_layers": 5, "kernel": 4},
        {"sees_energy": True, "first_cell": "learned"},
        {"sees_sizes": False},
    ],
    ids=["dense", "convolution", "deep", "published", "of_energies", "blind"],
)
def test_the_factor_of_a_cell_depends_on_the_cells_before_it_alone(settings):
    """The Jacobian of all log-probabilities by the numbers is strictly triangular, and full below its diagonal."""
    built = arm(scale=0.3, **settings)
    rng = np.random.default_rng(3)
    numbers = tf.constant(rng.uniform(0.0, 3.0, (5, 6)))
    geometry = tf.constant([0, 1, 2, 1, 2])
    directions = tf.constant(rng.normal(size=built.categories))  # what is summed over the categories is never all zero
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(numbers)
        logits = built.logits(
            numbers, {"geometry": geometry, "incident_energy": tf.fill([5], tf.constant(60.0, tf.float64))}
        )
        factors = tf.unstack(tf.linalg.matvec(tf.nn.log_softmax(logits), directions), axis=1)
    rows = [tape.gradient(factor, numbers, unconnected_gradients="zero") for factor in factors]
    jacobian = np.abs(np.stack(rows, axis=1))  # (n, cells, cells)
    later = np.triu(np.ones((6, 6), bool))
    np.testing.assert_array_equal(jacobian[:, later], 0.0)
    assert np.all(jacobian.max(axis=0)[~later] > 0.0)  # GELU has small derivatives, but none of zero


def test_each_masked_layer_by_itself_respects_the_order():
    built = arm(features=2, dense_layers=3)
    for kernel in [*built.dense, built.by_size]:
        rows = built._masked(kernel).numpy().reshape(6, kernel.shape[1], 6, 2)
        sees = np.abs(rows).max(axis=(1, 3)) > 0
        np.testing.assert_array_equal(sees, np.triu(np.ones((6, 6), bool)))


def test_a_cell_knows_its_own_size_and_those_before():
    wide, narrow = (Arm(model(geometries=(text,)), 1, "float64") for text in ("eta1+2_phi1", "eta2+1_phi1"))
    for a, b in zip(wide.weights, narrow.weights, strict=True):
        values = np.random.default_rng(4).normal(size=a.shape)
        a.assign(values)
        b.assign(values)
    sizes = [built.path.sizes.numpy()[0, :, 0] for built in (wide, narrow)]
    # From the centre: the cell on its left, that on its right, then the outermost one, right or left.
    np.testing.assert_array_equal(sizes, [[6.0, 3.0, 3.0], [3.0, 6.0, 3.0]])
    zeros, zero = tf.zeros([1, 3], tf.float64), tf.zeros([1], tf.int32)
    same = narrow.path.sizes.numpy().copy()
    same[0, 0] = wide.path.sizes.numpy()[0, 0]
    narrow.path.sizes = tf.constant(same)  # 6, 6, 3: differs from the other in the second size
    both = [built.logits(zeros, {"geometry": zero}).numpy()[0] for built in (wide, narrow)]
    differ = np.ptp(both, axis=0).max(axis=1)
    assert differ[0] == 0.0
    assert np.all(differ[1:] > 1e-6)


def test_a_model_that_does_not_see_sizes_is_blind_to_the_geometry():
    blind, seeing = (arm(sees_sizes=sees) for sees in (False, True))
    numbers = tf.constant(np.random.default_rng(5).integers(0, 4, (1, 6)), tf.float64)
    differences = [
        np.ptp([built.logits(numbers, {"geometry": tf.constant([number])}).numpy() for number in (1, 2)], axis=0).max()
        for built in (blind, seeing)
    ]
    assert differences[0] == 0.0
    assert differences[1] > 1e-3
    assert len(blind.weights) == len(seeing.weights) - 1


@pytest.mark.parametrize("settings", [{}, {"first_cell": "learned"}, {"first_cell": "learned", "sees_energy": True}])
def test_probabilities_of_all_showers_add_up_to_one(settings):
    """By enumeration, in each geometry; cells that a geometry does not have are 0 in all of them."""
    built = arm(categories=3, **settings)
    for number, cells in enumerate(cells_of()):
        showers = np.array(list(itertools.product(range(3), repeat=cells)), np.float64)
        sample = {
            "cells": tf.constant(np.pad(showers, ((0, 0), (0, 6 - cells)))),
            "geometry": tf.fill([len(showers)], tf.constant(float(number), tf.float64)),
            "incident_energy": tf.fill([len(showers)], tf.constant(20.0, tf.float64)),
        }
        log_prob = built.log_prob(sample).numpy()
        assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-12)
        assert np.ptp(log_prob) > 1.0


def test_log_probabilities_by_hand():
    """Two cells, one layer, one unit a cell: the second cell sees the number of the first and both sizes."""
    built = Arm(
        model(geometries=("eta=-240,120,240_phi1",), categories=3, dense_layers=1, features=1, kernel=2), 1, "float64"
    )
    for variable in built.weights:
        variable.assign(tf.zeros_like(variable))
    built.scale.assign(2.0)
    built.log_first.assign(np.log([[0.2, 0.3, 0.5]]))
    built.log_share.assign(np.log([0.5, 0.25, 0.25]))
    built.dense[0].assign([[[[9.0], [9.0]]], [[[9.0], [0.7]]]])  # the second input is the first cell's number
    built.by_size.assign([[[[0.01], [0.1]], [[0.0], [0.2]]], [[[9.0], [0.3]], [[9.0], [-0.1]]]])
    built.biases[0].assign([[0.05], [-0.2]])
    built.convolution.assign([[[0.4, 0.0, 0.1]], [[1.0, -1.0, 0.5]]])
    built.convolution_bias.assign([0.1, 0.2, 0.3])

    def gelu(x):
        return x * stats.norm.cdf(x)

    def by_hand(first, second):
        a = gelu(0.01 * 9.0 + 0.05)  # sizes in units of 40 mm: 9 x 12, and 3 x 12
        b = gelu(0.7 * first / 2.0 + 0.1 * 9.0 + 0.2 * 12.0 + 0.3 * 3.0 - 0.1 * 12.0 - 0.2)
        logits = np.log([0.5, 0.25, 0.25]) + np.array([0.1, 0.2, 0.3])
        logits += a * np.array([0.4, 0.0, 0.1]) + b * np.array([1.0, -1.0, 0.5])
        return np.log([0.2, 0.3, 0.5][first]) + (logits - np.log(np.exp(logits).sum()))[second]

    cases = [(0, 0), (0, 2), (1, 1), (2, 0)]
    sample = {"cells": tf.constant(cases, tf.float64), "geometry": tf.zeros([4], tf.float64)}
    # TensorFlow's GELU has the square root of 2 in single precision.
    np.testing.assert_allclose(built.log_prob(sample).numpy(), [by_hand(*case) for case in cases], rtol=1e-9)


def test_frequencies_of_samples_are_the_probabilities():
    """On four cells of three numbers, by a chi-squared test; the slow way."""
    built, n = arm(geometries=("eta2_phi2",), categories=3), 20_000
    sample = built.sample_by_passes(noise(n, 4), {"geometry": tf.zeros([n], tf.float64)})
    showers = np.array(list(itertools.product(range(3), repeat=4)), np.float64)
    grid = {"cells": tf.constant(showers), "geometry": tf.zeros([len(showers)], tf.float64)}
    expected = n * np.exp(built.log_prob(grid).numpy())
    observed = np.bincount(sample["cells"].numpy().astype(int) @ [27, 9, 3, 1], minlength=81)
    some = expected > 5
    chi2 = np.sum((observed - expected)[some] ** 2 / expected[some])
    assert some.sum() > 20
    assert chi2 < some.sum() + 5 * np.sqrt(2 * some.sum())
    assert abs(observed[~some].sum() - expected[~some].sum()) < 5 * np.sqrt(expected[~some].sum() + 1)


def noise(n, cells, seed=1):
    return tf.constant(streams.normal(seed, "test", 0, 0, n, cells))


@pytest.mark.parametrize(
    ("block", "settings"),
    [
        (1, {"dense_layers": 1}),
        (4, {}),
        (3, {"dense_layers": 5, "kernel": 5, "features": 1}),
        (64, {"dense_layers": 2, "kernel": 1}),
        (4, {"first_cell": "learned", "sees_energy": True}),
    ],
)
def test_incremental_samples_are_those_of_the_slow_way(monkeypatch, block, settings):
    """The same noise, several geometries in a batch; blocks that the cells fill and that they do not."""
    monkeypatch.setattr(network, "BLOCK", block)
    built = arm(categories=5, **settings)
    energies = tf.constant(np.linspace(1.0, 100.0, 60))
    conditions = {"geometry": tf.constant(np.arange(60) % 3, tf.float64), "incident_energy": energies}
    slow = built.sample_by_passes(noise(60, 6), conditions)["cells"].numpy()
    fast = built(noise(60, 6), conditions)["cells"].numpy()
    np.testing.assert_array_equal(fast, slow)
    assert len(np.unique(slow)) == 5


def test_a_single_sample_in_a_compiled_function_is_that_of_a_batch():
    built = arm()
    conditions = {"geometry": tf.constant(np.arange(3), tf.float64)}
    batch = built(noise(3, 6), conditions)["cells"].numpy()
    one = {"geometry": conditions["geometry"][1:2]}
    compiled = tf.function(built, autograph=False)(noise(3, 6)[1:2], one)
    np.testing.assert_array_equal(compiled["cells"], batch[1:2])


def test_incremental_samples_of_short_orders_end_early(monkeypatch):
    """Those of the first geometry alone are those that it has in a batch of all, and 0 beyond its cells."""
    monkeypatch.setattr(network, "BLOCK", 2)  # the first geometry has two blocks, the largest ones three
    built = arm()
    every = built(noise(30, 6), {"geometry": tf.constant(np.arange(30) % 3, tf.float64)})["cells"].numpy()
    short = built(noise(30, 6), {"geometry": tf.zeros([30], tf.float64)})["cells"].numpy()
    compiled = tf.function(built, autograph=False)(noise(30, 6), {"geometry": tf.zeros([30], tf.float64)})
    np.testing.assert_array_equal(compiled["cells"], short)
    np.testing.assert_array_equal(short[::3], every[::3])
    np.testing.assert_array_equal(short[:, 4:], 0.0)


def test_constants_by_hand():
    built = Arm(model(geometries=("eta2_phi1", "eta4_phi1", "eta1+2_phi1")), 1, "float64")
    batches = [
        {"cells": np.array([[1.0, 0, 0, 0], [3, 2, 0, 0]]), "geometry": np.array([0.0, 0.0])},
        {"cells": np.array([[0.0, 3, 2, 0]]), "geometry": np.array([1.0])},
    ]
    built.calibrate([{name: tf.constant(values) for name, values in batch.items()} for batch in batches])
    counts = np.array([3, 1, 2, 2])  # of 0, 1, 2, 3 in 2 + 2 + 4 cells
    assert built.scale.numpy() == pytest.approx(np.sqrt((1 + 2 * 4 + 2 * 9) / 8))
    np.testing.assert_allclose(np.exp(built.log_share.numpy()), (counts + 0.25) / 9)
    # First cells are on the left of the centre. The third geometry's is as large as the first one's.
    of_first, of_second = np.array([0, 1, 0, 1]), np.array([0, 0, 0, 1])
    expected = [(of_first + 0.25) / 3, (of_second + 0.25) / 2, (of_first + 0.25) / 3]
    np.testing.assert_allclose(np.exp(built.log_first.numpy()), expected)


def test_samples_come_back_in_places_of_the_image():
    """Cells that are all but certain: number i in cell i of the order."""
    problem = ArmProblem(model(geometries=("eta2_phi2",), categories=4, dense_layers=1, features=1, kernel=1))
    built = Arm(problem.model, 1, "float64")
    for variable in built.weights:
        variable.assign(tf.zeros_like(variable))
    built.log_first.assign([[0.0, -99.0, -99.0, -99.0]])
    built.convolution.assign([[[0.0, 100.0, 200.0, 300.0]]])
    built.convolution_bias.assign([0.0, -50.0, -200.0, -450.0])  # unit u: highest is the number u rounded
    built.biases[0].assign([[0.0], [1.0], [2.0], [3.0]])
    sample = built(noise(3, 4), {"geometry": tf.zeros([3], tf.float64)})["cells"].numpy()
    np.testing.assert_array_equal(sample, [[0.0, 1.0, 3.0, 2.0]] * 3)  # left and right of a row, then back above


def test_the_energy_of_the_particle_is_seen_from_the_first_cell_on():
    built = arm(first_cell="learned", sees_energy=True)
    numbers = tf.zeros([2, 6], tf.float64)
    conditions = {"geometry": tf.zeros([2], tf.float64), "incident_energy": tf.constant([5.0, 80.0], tf.float64)}
    logits = built.logits(numbers, conditions).numpy()
    assert np.all(np.abs(logits[1] - logits[0]).max(axis=1) > 1e-3)
    with pytest.raises(ValueError, match=r"model.sees_energy needs model.first_cell=learned"):
        model(sees_energy=True)
