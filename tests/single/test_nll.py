"""Training by likelihood: the step against hand-made computations, a known entropy, the registry of methods."""

import math
from typing import ClassVar

import needs
import numpy as np
import pytest

tf = needs.tensorflow()

from hpcgan import config as configuration  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.config import METHODS, settings_of  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.methods.base import method_class  # noqa: E402
from hpcgan.methods.nll import METRICS, Likelihood  # noqa: E402
from hpcgan.methods.sampler import make_sampler  # noqa: E402
from hpcgan.methods.settings import LikelihoodSettings  # noqa: E402
from hpcgan.problems.base import problem_class  # noqa: E402
from hpcgan.problems.calorimeter.layer import CaloLayerModel, CaloLayerProblem  # noqa: E402
from hpcgan.problems.discovery import PROBLEMS  # noqa: E402

RATES = {"density": 1e-2}


class TinyModel(CaloLayerModel):
    """A row of four cells."""

    shape: ClassVar = (1, 4)


def likelihood(hidden_units=24, components=1, model=TinyModel, **training):
    problem = CaloLayerProblem(model(layer="layer_2", hidden_units=hidden_units, components=components))
    return Likelihood(problem, LikelihoodSettings(batch_size=8, **training), SerialComm(), 1)


def encoded(n, seed=0, dtype="float32", shape=(1, 4)):
    rng = np.random.default_rng(seed)
    return {
        "layer_2": (rng.lognormal(size=(n, *shape)) * (rng.random((n, *shape)) < 0.5)).astype(dtype),
        "energy": rng.uniform(-1, 1, (n, 1)).astype(dtype),
    }


def values(method):
    return {f"{n}/{k}": v.numpy() for n, net in method.networks.items() for k, v in net.named.items()}


def step(method, number=0, real=None, attention=False):
    real = real or encoded(8)
    return method.step(number, real, {}, learning_rates=RATES, samples=8 * (number + 1), attention=attention)


def test_the_loss_is_the_mean_of_the_initial_network_and_its_gradient_that_of_numerical_differentiation():
    method, real = likelihood(dtype="float64"), encoded(8, dtype="float64")
    density = method.networks["density"]
    expected = -np.mean(density.log_prob(real).numpy())
    gradients, nll = method.gradients({k: tf.constant(v) for k, v in real.items()})
    assert float(nll) == pytest.approx(expected, rel=1e-12)
    direction = [np.random.default_rng(1).normal(size=w.shape) for w in density.weights]
    found, h = [], 1e-7
    for sign in (1, -1):
        for w, d in zip(density.weights, direction, strict=True):
            w.assign_add(sign * h * d)
        found.append(-np.mean(density.log_prob(real).numpy()))
        for w, d in zip(density.weights, direction, strict=True):
            w.assign_sub(sign * h * d)
    analytic = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, direction, strict=True))
    assert analytic == pytest.approx((found[0] - found[1]) / (2 * h), rel=1e-5)
    result = step(method, real=real)
    assert tuple(result.metrics) == METRICS
    assert result.metrics["nll"] == pytest.approx(expected, rel=1e-12)
    assert result.finite_here


def test_constants_stay_and_weights_move_but_those_that_are_masked():
    method = likelihood(average_half_life=100.0)
    before = values(method)
    for number in range(2):
        step(method, number)
    after = values(method)
    constants = {"mean_log", "spread_log", "lit_logit"}
    for name, value in after.items():
        assert np.array_equal(value, before[name]) == (name.split("/", 1)[1] in constants), name
    seen = np.arange(4)[:, None] < method.networks["density"].degrees
    moved = (after["density/hidden/kernel"] != before["density/hidden/kernel"]).any(axis=1)
    assert not moved[~seen].any()


def test_the_average_begins_at_what_was_calibrated_and_follows():
    method = likelihood(average_half_life=100.0)
    method.calibrate(lambda: [encoded(50)])
    current, averaged = (method.networks[name].named for name in ("density", "density_average"))
    assert np.all(averaged["mean_log"].numpy() == current["mean_log"].numpy())
    assert np.any(averaged["mean_log"].numpy() != 0)
    start = {k: v.numpy() for k, v in averaged.items()}
    method.step(0, encoded(8), {}, learning_rates=RATES, samples=4000, attention=False)
    kept = 0.5 ** (8 / 100)
    for name, value in averaged.items():
        expected = kept * start[name] + (1 - kept) * current[name].numpy()
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_a_batch_in_parts_is_the_step_of_the_whole():
    found = []
    for parts in (1, 4):
        method = likelihood(dtype="float64", accumulation=parts)
        metrics = [step(method, i, encoded(8, i, "float64")).metrics for i in range(3)]
        found.append((values(method), metrics))
    for name, value in found[0][0].items():
        np.testing.assert_allclose(found[1][0][name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    for mine, whole in zip(found[1][1], found[0][1], strict=True):
        assert mine == pytest.approx(whole, rel=1e-9)


def test_two_runs_of_the_same_seed_are_the_same_bits_and_traced_once():
    runs = []
    for _ in range(2):
        method = likelihood(average_half_life=50.0)
        for number in range(3):
            step(method, number, encoded(8, number))
        assert method.compiled(()).experimental_get_tracing_count() == 1
        runs.append(values(method))
    for name, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][name], err_msg=name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_wish_to_stop_and_a_deposit_that_is_none_come_back_in_the_metrics(bad):
    method = likelihood()
    assert step(method, attention=True).metrics["attention"] == 1.0
    real = encoded(8)
    real["layer_2"][2, 0, 3] = bad
    result = step(method, 1, real)
    assert not result.finite_here
    assert result.metrics["nonfinite"] == 1.0


# --- a distribution that is known ------------------------------------------------------------------

#: A chain: a cell is lit with P[whether the last one was], ln x is normal around half of the last one's with width S.
P, S, CELLS = (0.4, 0.8), 0.5, 4


def chain(n, seed):
    """(n, 4) deposits."""
    rng = np.random.default_rng(seed)
    x, lit, log = np.zeros((n, CELLS)), np.zeros(n, bool), np.zeros(n)
    for d in range(CELLS):
        lit = rng.random(n) < np.where(lit, P[1], P[0])
        log = np.where(lit, 0.5 * log + S * rng.normal(size=n), 0.0)
        x[:, d] = np.where(lit, np.exp(log), 0.0)
    return x


def log_density_of_chain(x):
    total, lit, log = np.zeros(len(x)), np.zeros(len(x), bool), np.zeros(len(x))
    for d in range(CELLS):
        p, mean = np.where(lit, P[1], P[0]), 0.5 * log
        lit = x[:, d] > 0
        log = np.log(np.where(lit, x[:, d], 1.0))
        of_deposit = -0.5 * ((log - mean) / S) ** 2 - math.log(S * math.sqrt(2 * math.pi)) - log
        total += np.where(lit, np.log(p) + of_deposit, np.log(1 - p))
    return total


def entropy_of_chain():
    """Sum over the cells of h(p) + P(lit) (1/2 ln(2 pi e S^2) + E[ln x | lit]), and E[ln x] = 0 by symmetry."""
    total, lit = 0.0, 0.0
    for _ in range(CELLS):
        for p, share in ((P[1], lit), (P[0], 1 - lit)):
            total -= share * (p * math.log(p) + (1 - p) * math.log(1 - p))
        lit = lit * P[1] + (1 - lit) * P[0]
        total += lit * 0.5 * math.log(2 * math.pi * math.e * S**2)
    return total


def test_a_fit_comes_to_the_entropy_of_what_it_was_fitted_to():
    """On samples that it has not seen: not below the entropy, and above it by a few hundredths of a nat at most."""
    n, batch = 20_000, 400
    test = chain(n, 99)
    true = -log_density_of_chain(test)
    assert true.mean() == pytest.approx(entropy_of_chain(), abs=4 * true.std() / math.sqrt(n))

    def as_sample(x):
        return {"layer_2": x.astype(np.float32)[:, None], "energy": np.zeros((len(x), 1), np.float32)}

    method = likelihood(hidden_units=32, average_half_life=40_000.0)
    method.calibrate(lambda: [as_sample(chain(n, 0))])
    for number in range(800):
        method.step(
            number,
            as_sample(chain(batch, 1000 + number)),
            {},
            learning_rates={"density": 1e-2 * (1 - number / 800)},
            samples=batch * (number + 1),
            attention=False,
        )
    fitted = -method.networks["density_average"].log_prob(as_sample(test)).numpy()
    divergence = fitted - true  # its mean is that of Kullback and Leibler
    error = divergence.std() / math.sqrt(n)
    assert -4 * error < divergence.mean() < 0.03 + 4 * error
    assert error < 0.01
    assert fitted.mean() == pytest.approx(entropy_of_chain(), abs=0.03 + 4 * true.std() / math.sqrt(n))
    made = method.networks["density_average"](
        tf.constant(np.random.default_rng(3).normal(size=(n, 3 * CELLS)), tf.float32), {"energy": tf.zeros([n, 1])}
    )["layer_2"].numpy()[:, 0]
    np.testing.assert_allclose((made > 0).mean(axis=0), (test > 0).mean(axis=0), atol=0.03)
    both = [x[(x[:, 0] > 0) & (x[:, 1] > 0)] for x in (made, test)]
    slopes = [np.polyfit(np.log(x[:, 0]), np.log(x[:, 1]), 1)[0] for x in both]
    assert slopes == pytest.approx([0.5, 0.5], abs=0.06)


# --- where a method stands ---------------------------------------------------------------------------

BASE = {"problem": "calo_layer", "data": {"path": "data/calo/gamma"}}


def test_every_method_has_settings_and_every_problem_has_a_method():
    for name in METHODS.names():
        settings, cls = settings_of(name), method_class(name)
        assert set(settings.networks) == settings().optimizers.keys() == settings().updates.keys()
        assert cls.sampled in settings.networks
    for name in PROBLEMS.names():
        assert problem_class(name).methods
        assert set(problem_class(name).methods) <= set(METHODS.names())


def test_the_problem_names_the_method_and_the_method_the_settings():
    config = configuration.load(BASE)
    assert config.method == "nll"
    assert isinstance(config.training, LikelihoodSettings)
    assert configuration.load(config.dump()) == config
    assert config.identity()["method"] == "nll"
    adversarial = configuration.load({"problem": "rpv", "data": {"path": "x"}})
    assert adversarial.method == "gan"
    assert configuration.load({**BASE, "method": "nll"}) == config
    whole = configuration.schema("calo_layer")["properties"]
    assert "density" in whole["training"]["properties"]
    assert "generator" not in whole["training"]["properties"]
    assert "generator" in configuration.schema("rpv")["properties"]["training"]["properties"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=nlll"], "method 'nlll' does not exist.*; did you mean 'nll'"),
        (
            ["method=flow-matching"],
            "method 'flow-matching' does not exist; choose one of: gan, nll, or package",
        ),
        (["method=[nll]"], "method '\\['nll'\\]' does not exist"),
        (["method=gan"], "method 'gan' does not train the networks of problem 'calo_layer'; choose one of: nll"),
        (["problem=cosmo", "method=nll"], "does not train the networks of problem 'cosmo'; choose one of: gan"),
        (["training.loss=bce"], "unknown key 'training.loss'; the keys here are: .*density"),
        (["training.generator.learning_rate=1e-4"], "unknown key 'training.generator'"),
        (["training.density.learning_rat=1"], "unknown key 'training.density.learning_rat'; did you mean"),
        (["training.densty.learning_rate=1"], "unknown key 'training.densty'; did you mean 'density'"),
        (["training.schedule.changes=[{step: 3, generator: 0.1}]"], "training.schedule.changes.0.*generator|missing"),
        (
            ["training.schedule.changes=[{step: 3, rates: {generator: 0.1}}]"],
            "training.schedule.changes.0.rates: 'generator' is not trained; choose one of: density",
        ),
        (["scoring.weights=average"], "needs training.average_half_life"),
        (["model.layer=layer_3"], "model.layer: input should be 'layer_0', 'layer_1' or 'layer_2'"),
        (["model.hidden_units=0"], "model.hidden_units: .*greater than or equal to 1"),
    ],
)
def test_bad_settings_name_the_key_and_the_remedy(overrides, message):
    with pytest.raises(InputError, match=message) as error:
        configuration.load(BASE, overrides)
    assert "\n" not in str(error.value)


def test_samples_are_functions_of_seed_stream_and_number():
    method = likelihood(model=CaloLayerModel)
    problem = CaloLayerProblem(CaloLayerModel(layer="layer_2", hidden_units=24, components=1))
    config = configuration.load({**BASE, "model": {"layer": "layer_2"}, "training": {"batch_size": 8}})
    sampler = make_sampler(config, problem, method.networks["density"])
    asked = {"energy": np.full((8, 1), 30.0, np.float32)}
    first, again, other = (sampler.batch(1, "score", 0, i, asked) for i in (0, 0, 1))
    np.testing.assert_array_equal(first["layer_2"], again["layer_2"])
    assert not np.array_equal(first["layer_2"], other["layer_2"])
    assert first["layer_2"].shape == (8, 12, 6)
    assert first["layer_2"].dtype == np.float32
    assert first["layer_2"].min() >= 0
    np.testing.assert_array_equal(first["energy"], asked["energy"])
