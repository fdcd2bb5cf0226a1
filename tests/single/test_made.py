"""The masked autoencoder as a density: masks, normalisation, values by hand, samples."""

import math
from types import SimpleNamespace

import needs
import numpy as np
import pytest
from scipy import stats

tf = needs.tensorflow()

from hpcgan.problems.calorimeter import made  # noqa: E402
from hpcgan.problems.calorimeter.layer import NOISE_A_CELL, CaloLayerModel, CaloLayerProblem  # noqa: E402
from hpcgan.problems.calorimeter.made import Made, degrees  # noqa: E402


def config(shape=(2, 3), hidden_units=16, components=2, conditions=("energy",)):
    return SimpleNamespace(
        tensor="cells", shape=shape, conditions=conditions, hidden_units=hidden_units, components=components
    )


def network(seed=1, scale=0.5, **settings):
    """With weights and constants large enough to matter."""
    built = Made(config(**settings), seed, "float64")
    rng = np.random.default_rng(seed)
    for variable in built.weights:
        variable.assign_add(scale * rng.normal(size=variable.shape))
    built.mean_log.assign(rng.normal(size=built.cells))
    built.spread_log.assign(rng.uniform(0.5, 1.5, built.cells))
    built.lit_logit.assign(rng.normal(size=built.cells))
    return built


def images(n, shape=(2, 3), seed=0):
    rng = np.random.default_rng(seed)
    return {
        "cells": tf.constant(np.where(rng.random((n, *shape)) < 0.6, rng.lognormal(size=(n, *shape)), 0.0)),
        "energy": tf.constant(rng.uniform(-1, 1, (n, 1))),
    }


@pytest.mark.parametrize(("cells", "units"), [(6, 13), (6, 40), (144, 512), (5, 2), (1, 3)])
def test_degrees_are_ascending_and_cover_all_cells_where_there_are_units_enough(cells, units):
    found = degrees(3, cells, units)
    assert len(found) == units
    assert np.all(np.diff(found) >= 0)
    assert found[0] == 0
    assert found[-1] <= cells - 1
    if units >= 2 * cells:
        assert set(found.tolist()) == set(range(cells))
    np.testing.assert_array_equal(found, degrees(3, cells, units))
    if units > cells > 1:
        assert not np.array_equal(found, degrees(4, cells, units))


@pytest.mark.parametrize("hidden_units", [4, 60])
def test_the_factor_of_a_cell_depends_on_the_cells_before_it_alone(hidden_units):
    """The Jacobian of all parameters by the deposits is strictly triangular, and full below its diagonal."""
    built, sample = network(hidden_units=hidden_units), images(5)
    x = tf.reshape(tf.abs(sample["cells"]) + 0.1, [5, 6])  # all lit: a cell without energy has no derivative
    with tf.GradientTape() as tape:
        tape.watch(x)
        parameters = built.factors(x, sample)
    jacobian = np.abs(tape.batch_jacobian(parameters, x).numpy()).max(axis=2)  # (n, cells, cells)
    later = np.triu(np.ones((6, 6), bool))
    np.testing.assert_array_equal(jacobian[:, later], 0.0)
    if hidden_units == 60:
        assert np.all(jacobian.max(axis=0)[~later] > 1e-3)
    with tf.GradientTape() as tape:
        tape.watch(sample["energy"])
        parameters = built.factors(x, sample)
    by_energy = np.abs(tape.batch_jacobian(parameters, sample["energy"]).numpy()).max(axis=(0, 2, 3))
    assert np.all(by_energy > 1e-3)  # the first cell's, too


def test_whether_a_cell_is_lit_is_seen_by_later_cells_only():
    built, sample = network(hidden_units=60), images(1)
    x = np.ones((1, 6))
    whole = built.factors(tf.constant(x), sample).numpy()[0]
    for cell in range(6):
        dark = x.copy()
        dark[0, cell] = 0.0
        changed = np.abs(built.factors(tf.constant(dark), sample).numpy()[0] - whole).max(axis=1)
        np.testing.assert_array_equal(changed[: cell + 1], 0.0)
        assert np.all(changed[cell + 1 :] > 1e-6)


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("energy", [-1.0, 0.7])
def test_the_density_of_two_cells_integrates_to_one(components, energy):
    """Over zero and all deposits of each cell: a sum for what is dark, a quadrature in ln x for what is lit."""
    built = network(shape=(1, 2), components=components)
    logs, step = np.linspace(-20.0, 20.0, 401, retstep=True)
    lit = np.exp(logs)

    def density(first, second):
        first, second = np.broadcast_arrays(first, second)
        cells = tf.constant(np.stack([first.ravel(), second.ravel()], axis=1).reshape(-1, 1, 2))
        conditions = tf.fill([first.size, 1], tf.constant(energy, tf.float64))
        return np.exp(built.log_prob({"cells": cells, "energy": conditions}).numpy()).reshape(first.shape)

    dark = np.zeros(1)
    total = density(dark, dark)[0] + np.sum(density(lit, dark) * lit + density(dark, lit) * lit) * step
    total += np.sum(density(lit[:, None], lit[None, :]) * lit[:, None] * lit[None, :]) * step**2
    assert total == pytest.approx(1.0, abs=1e-6)


def test_log_likelihoods_by_hand():
    """Two cells, a log-normal each; the second one's mean and logit depend on the first and on the energy."""
    built = Made(config(shape=(1, 2), hidden_units=2, components=1), 1, "float64")
    np.testing.assert_array_equal(built.degrees, [0, 1])
    for variable in built.weights:
        variable.assign(tf.zeros_like(variable))
    built.mean_log.assign([0.5, -1.0])
    built.spread_log.assign([2.0, 0.5])
    built.lit_logit.assign([0.3, -0.2])
    built.hidden.assign([[[0.0, 0.7], [0.0, 0.25]], [[9.0, 9.0], [9.0, 9.0]]])  # lit, then t; the last cell is masked
    built.by_condition.assign([[1.5, 0.0]])
    built.output.assign(
        [[[0.1, 0.0, 0.2, 0.0], [0.0, 0.0, 0.4, 0.0]], [[9.0, 9.0, 9.0, 9.0], [1.0, 0.0, 2.0, 0.0]]]
    )  # the unit of degree 1 is not seen by the first cell
    width = math.log(2.0) + 0.01

    def by_hand(first, second, energy):
        h0, h1 = max(1.5 * energy, 0.0), 0.0
        total, logit = 0.0, 0.3 + 0.1 * h0
        if first > 0:
            t = (math.log(first) - 0.5) / 2.0
            h1 = max(0.7 + 0.25 * t, 0.0)
            total += math.log(1 / (1 + math.exp(-logit)))
            total += stats.lognorm(s=2.0 * width, scale=math.exp(0.5 + 2.0 * 0.2 * h0)).logpdf(first)
        else:
            total += math.log(1 / (1 + math.exp(logit)))
        logit, mean = -0.2 + h1, 0.4 * h0 + 2.0 * h1
        if second > 0:
            total += math.log(1 / (1 + math.exp(-logit)))
            total += stats.lognorm(s=0.5 * width, scale=math.exp(-1.0 + 0.5 * mean)).logpdf(second)
        else:
            total += math.log(1 / (1 + math.exp(logit)))
        return total

    cases = [(0.0, 0.0, 0.4), (3.0, 0.0, 0.4), (0.0, 0.8, -0.5), (0.02, 5.0, 1.0)]
    cells = tf.constant([[[a, b]] for a, b, _ in cases], tf.float64)
    energy = tf.constant([[e] for *_, e in cases], tf.float64)
    found = built.log_prob({"cells": cells, "energy": energy}).numpy()
    np.testing.assert_allclose(found, [by_hand(*case) for case in cases], rtol=1e-12)


def test_the_unit_of_the_deposits_moves_the_log_likelihood_by_its_logarithm():
    """p(x) dx: with deposits in units half as large, ln 2 less for each lit cell, if the constants follow."""
    built, sample = network(), images(4)
    before = built.log_prob(sample).numpy()
    built.mean_log.assign_add(np.full(6, math.log(2.0)))
    after = built.log_prob({**sample, "cells": 2.0 * sample["cells"]}).numpy()
    lit = np.count_nonzero(sample["cells"].numpy(), axis=(1, 2))
    np.testing.assert_allclose(after, before - lit * math.log(2.0), rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "cells", "trained"),
    [
        # 2 D H + H + H + D H (1 + 3 K) + D (1 + 3 K) with H = 512, K = 3, one condition
        ("layer_0", 288, 294_912 + 1_024 + 1_474_560 + 2_880),
        ("layer_1", 144, 147_456 + 1_024 + 737_280 + 1_440),
        ("layer_2", 72, 73_728 + 1_024 + 368_640 + 720),
    ],
)
def test_numbers_of_weights(layer, cells, trained):
    problem = CaloLayerProblem(CaloLayerModel(layer=layer))
    built = Made(problem.model, 1)
    assert sum(int(np.prod(w.shape)) for w in built.weights) == trained
    assert [v.name for v in built.constants] == ["mean_log:0", "spread_log:0", "lit_logit:0"]
    assert not built.statistics
    assert len(built.named) == len(built.weights) + 3
    assert problem.noise_dim == NOISE_A_CELL * cells == made.NUMBERS * cells


def test_constants_are_those_of_the_data():
    built = Made(config(shape=(1, 3)), 1, "float64")
    x = np.array([[[1.0, 0.0, 0.0]], [[math.e, 0.0, 5.0]], [[math.e**2, 0.0, 0.0]], [[0.0, 0.0, 0.0]]])
    built.calibrate(iter([{"cells": tf.constant(x[:3])}, {"cells": tf.constant(x[3:])}]))
    np.testing.assert_allclose(built.mean_log, [1.0, 0.0, math.log(5.0)])
    np.testing.assert_allclose(built.spread_log, [math.sqrt(2 / 3), 1.0, 1.0])
    np.testing.assert_allclose(built.lit_logit, np.log([3.5 / 1.5, 0.5 / 4.5, 1.5 / 3.5]))


def test_samples_are_those_of_one_cell_after_the_other():
    """Against a loop in Python that runs the whole network for each cell."""
    built, n = network(components=3), 40
    noise = np.random.default_rng(5).normal(size=(n, 18))
    energy = tf.constant(np.linspace(-1, 1, n)[:, None])
    found = tf.function(lambda z, c: built(z, c))(tf.constant(noise), {"energy": energy})["cells"].numpy()
    x, normal = np.zeros((n, 6)), noise.reshape(n, 6, 3)
    for d in range(6):
        logit, weights, means, widths = (
            p[:, d].numpy() for p in built._split(built.factors(tf.constant(x), {"energy": energy}), built.lit_logit)
        )
        lit = stats.norm.cdf(normal[:, d, 0]) < 1 / (1 + np.exp(-logit))
        share = np.exp(weights) / np.exp(weights).sum(axis=1, keepdims=True)
        which = (stats.norm.cdf(normal[:, d, 1])[:, None] >= np.cumsum(share, axis=1)[:, :-1]).sum(axis=1)
        t = np.take_along_axis(means, which[:, None], 1)[:, 0]
        t += np.take_along_axis(widths, which[:, None], 1)[:, 0] * normal[:, d, 2]
        x[:, d] = np.where(lit, np.exp(built.mean_log.numpy()[d] + built.spread_log.numpy()[d] * t), 0.0)
    assert 0.1 < np.mean(x > 0) < 0.9
    np.testing.assert_allclose(found.reshape(n, 6), x, rtol=1e-9)


def test_samples_are_as_probable_as_the_density_says():
    """Shares of the four patterns of two cells, and the mean log-likelihood, against the integral of the density."""
    built, n = network(shape=(1, 2), scale=0.3), 40_000
    rng = np.random.default_rng(2)
    energy = tf.constant(np.full((n, 1), 0.3))
    x = built(tf.constant(rng.normal(size=(n, 6))), {"energy": energy})["cells"].numpy()[:, 0]
    logs, step = np.linspace(-15.0, 15.0, 301, retstep=True)
    axis, weight = np.concatenate([[0.0], np.exp(logs)]), np.concatenate([[1.0], np.exp(logs) * step])
    first, second = (a.ravel() for a in np.meshgrid(axis, axis, indexing="ij"))
    cells = tf.constant(np.stack([first, second], axis=1).reshape(-1, 1, 2))
    log_p = built.log_prob({"cells": cells, "energy": tf.fill([first.size, 1], tf.constant(0.3, tf.float64))}).numpy()
    p = np.exp(log_p) * np.outer(weight, weight).ravel()
    assert p.sum() == pytest.approx(1.0, abs=1e-6)
    for a in (False, True):
        for b in (False, True):
            share = p[((first > 0) == a) & ((second > 0) == b)].sum()
            found = np.mean(((x[:, 0] > 0) == a) & ((x[:, 1] > 0) == b))
            assert share > 0.02
            assert found == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))
    of_samples = built.log_prob({"cells": tf.constant(x[:, None]), "energy": energy}).numpy()
    assert of_samples.mean() == pytest.approx(np.sum(p * log_p), abs=4 * of_samples.std() / math.sqrt(n))


def test_an_outlier_ends_at_ten_spreads():
    built = network(shape=(1, 1), components=1)
    built.lit_logit.assign([50.0])
    noise = tf.constant([[0.0, 0.0, 1e6], [0.0, 0.0, -1e6]], tf.float64)
    x = built(noise, {"energy": tf.zeros([2, 1], tf.float64)})["cells"].numpy().ravel()
    t = (np.log(x) - built.mean_log.numpy()[0]) / built.spread_log.numpy()[0]
    np.testing.assert_allclose(t, [10.0, -10.0])


def test_a_density_without_conditions():
    built = Made(config(conditions=()), 1)
    assert built.by_condition is None
    made_of_noise = built(tf.zeros([3, 18]), {})["cells"]
    assert made_of_noise.shape == (3, 2, 3)
    assert built.log_prob({"cells": made_of_noise}).shape == (3,)
