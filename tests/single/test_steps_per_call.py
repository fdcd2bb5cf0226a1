"""Several steps in one call: the bits of single steps, an early end where the engine has to look, and how many."""

import needs
import numpy as np
import pytest
import tiny

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan import config as configuration  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.config import LikelihoodConfig, TrainingConfig  # noqa: E402
from hpcgan.data.generators import make_data_set  # noqa: E402
from hpcgan.data.pipeline import Pipeline  # noqa: E402
from hpcgan.errors import HpcganError, InputError, Interrupted  # noqa: E402
from hpcgan.methods.base import StepInput  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.nll import Likelihood  # noqa: E402
from hpcgan.problems.calorimeter import generate as calo_generate  # noqa: E402
from hpcgan.problems.calorimeter.generate import Beam  # noqa: E402
from hpcgan.problems.calorimeter.layer import CaloLayerModel, CaloLayerProblem  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402
from hpcgan.runs import (  # noqa: E402
    checkpoint,
)
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import assembly, pace  # noqa: E402
from hpcgan.training.pace import Pace  # noqa: E402
from hpcgan.training.requests import StopRequest  # noqa: E402

N = 4  # samples of a batch
TIMING = {"time", "samples_per_second", "scoring_seconds", "attempt"}


# --- a method ----------------------------------------------------------------------------------------


def variables(method):
    owners = (*method.networks.values(), *method.optimizers.values())
    return [variable for owner in owners for variable in owner.named.values()]


def in_calls(method, inputs, sizes, **options):
    """Results, lengths of calls that are given so many steps, and final values; the method is put back afterwards."""
    before, results, lengths, left = [v.numpy() for v in variables(method)], [], [], list(inputs)
    while left:
        found = method.steps(left[:sizes], **options)
        results += found
        lengths.append(len(found))
        del left[: len(found)]
    after = [v.numpy() for v in variables(method)]
    for variable, value in zip(variables(method), before, strict=True):
        variable.assign(value)
    return results, lengths, after


def assert_same_values(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
    ("settings", "lengths"),
    [
        ({"r1": {"weight": 0.1, "every": 3}}, [1, 2, 1, 2, 1]),
        ({"critic_steps": 3, "generator_steps": 2, "discriminator_update": "apart"}, [2, 1, 2, 1, 1]),
        # Over after half of the steps.
        pytest.param({"instance_noise": {"sigma": 0.1, "epochs": 0.5}}, [4, 3], marks=pytest.mark.faults),
    ],
    ids=["penalties", "turns", "noise"],
)
def test_a_call_takes_steps_of_one_kind_with_the_bits_of_single_ones(settings, lengths):
    config = TrainingConfig(batch_size=N, average_half_life=50.0, label_flip=0.3, steps_per_call="auto", **settings)
    gan = Gan(RpvProblem(RpvModel(filters=2, latent_dim=3)), config, SerialComm(), seed=1)
    rng = np.random.default_rng(0)
    inputs = [
        StepInput(
            step,
            {"hist": (rng.random((N, 64, 64)) * (rng.random((N, 64, 64)) < 0.05)).astype("f4")},
            gan.draws(step, 0, N),
            {"generator": 1e-3 / (step + 1), "discriminator": 2e-3 / (step + 1)},
            N * (step + 1),
            step / 8,
        )
        for step in range(7)
    ]
    together = in_calls(gan, inputs, 7)
    single = in_calls(gan, inputs, 1)
    assert together[1] == lengths
    assert single[1] == [1] * 7
    assert [r.metrics for r in together[0]] == [r.metrics for r in single[0]]
    assert_same_values(together[2], single[2])
    traces = [repeated._loop.experimental_get_tracing_count() for repeated in gan._repeated.values()]
    assert sum(traces) == 2  # one of each kind, however many steps


@pytest.fixture(scope="module")
def density():
    problem = CaloLayerProblem(CaloLayerModel(layer="layer_2", hidden_units=6, components=1))
    method = Likelihood(problem, LikelihoodConfig(batch_size=N, steps_per_call="auto"), SerialComm(), 1)
    method.calibrate(lambda: [showers(100)])
    return method


def showers(seed):
    rng = np.random.default_rng(seed)
    cells = rng.lognormal(size=(N, 12, 6)) * (rng.random((N, 12, 6)) < 0.4)
    return {"layer_2": cells.astype("f4"), "energy": rng.uniform(-1, 1, (N, 1)).astype("f4")}


def of_density(steps):
    return [StepInput(n, showers(n), {}, {"density": 1e-2 / (n + 1)}, N * (n + 1)) for n in range(steps)]


def test_a_number_that_is_not_finite_ends_a_call_and_nothing_is_updated_after_it(density):
    inputs = of_density(5)
    inputs[2].real["layer_2"][1] = np.nan
    results, lengths, _ = in_calls(density, inputs[:3], 1)
    assert lengths == [1, 1, 1]
    before = [v.numpy() for v in variables(density)]
    found = density.steps(inputs)
    after = [v.numpy() for v in variables(density)]
    assert [r.metrics["nonfinite"] for r in found] == [0.0, 0.0, 1.0]
    assert [r.is_finite for r in found] == [True, True, False]
    assert [r.finite_here for r in found] == [True, True, False]
    for variable, value in zip(variables(density), before, strict=True):
        variable.assign(value)
    assert_same_values(after, in_calls(density, inputs[:3], 3)[2])
    assert [r.metrics["nll"] for r in results[:2]] == [r.metrics["nll"] for r in found[:2]]


def test_a_word_of_a_rank_and_a_loss_above_the_limit_end_a_call(density):
    inputs = of_density(4)
    results, lengths, _ = in_calls(density, inputs, 4)
    assert lengths == [4]
    losses = [r.metrics["nll"] for r in results]
    assert len(set(losses)) == 4
    _, lengths, _ = in_calls(density, inputs, 4, attention=True)
    assert lengths == [1, 1, 1, 1]
    worst = int(np.argmax(losses))
    _, lengths, _ = in_calls(density, inputs, 4, loss_above=float(np.nextafter(losses[worst], -np.inf)))
    assert lengths == [n for n in (worst + 1, 3 - worst) if n]  # after the worst one
    assert in_calls(density, inputs, 4, loss_above=losses[worst])[1] == [4]  # equal is not above


# --- how many ----------------------------------------------------------------------------------------


def test_calls_grow_to_what_fits_into_half_a_second():
    found, many = [], Pace("auto")
    for _ in range(6):
        found.append(many.steps(1))
        many.took(found[-1], found[-1] * 0.0309)
    assert found == [1, 2, 4, 8, 16, 16]  # 0.5 s / 30.9 ms
    many.took(16, 20.0)  # something was traced
    assert many.steps(1) == 1


@pytest.mark.parametrize(("asked", "most"), [("auto", 64), (5, 5), (1, 1), (1000, 1000)])
def test_calls_are_bounded_by_what_is_asked_for(asked, most):
    many = Pace(asked)
    for _ in range(20):
        many.took(many.steps(1), 0.0)
    assert many.steps(1) == most
    assert many.steps(pace.CALL_BYTES // 3) == min(3, most)
    assert many.steps(2 * pace.CALL_BYTES) == 1


# --- the configuration -------------------------------------------------------------------------------


def config(data, *overrides):
    """Two epochs of 15 steps."""
    raw = {
        "problem": "calo_layer",
        "name": "tiny",
        "data": {"path": str(data)},
        "model": {"layer": "layer_2", "hidden_units": 8, "components": 2},
        "training": {"epochs": 2, "batch_size": N, "average_half_life": 50, "schedule": {"decay": "cosine"}},
        "scoring": {"every_epochs": 0},
    }
    return configuration.load(raw, overrides)


@pytest.mark.parametrize("value", ["0", "-3", "2.5", "fast", "true", "[2]", "null"])
def test_what_is_no_number_of_steps_is_refused_in_one_line(value):
    with pytest.raises(InputError) as error:
        config("data", f"training.steps_per_call={value}")
    assert "training.steps_per_call: take a whole number from 1 on, or auto, got" in str(error.value)
    assert "\n" not in str(error.value)
    assert "more)" not in str(error.value)


def test_runs_differ_by_whether_a_call_takes_several_steps_but_not_by_how_many():
    several = {config("data", f"training.steps_per_call={value}").identity_hash() for value in ("2", "7", "auto")}
    assert len(several) == 1
    assert config("data", "training.steps_per_call=1").identity() == config("data").identity()
    assert config("data").identity_hash() not in several


def test_without_several_steps_there_is_no_loop():
    method = Likelihood(CaloLayerProblem(CaloLayerModel(layer="layer_2")), LikelihoodConfig(), SerialComm(), 1)
    inputs = of_density(3)
    assert [len(method.steps(inputs[n:])) for n in range(3)] == [1, 1, 1]
    assert method._repeated._loop.experimental_get_tracing_count() == 0
    assert method._compiled.experimental_get_tracing_count() == 1


# --- the engine --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data_set(calo_generate.ShowerSet(Beam("gamma", (1.0, 5.0)), 100, 3), folder)
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Lengths of all calls, which time does not bound here."""
    lengths, whole = [], Likelihood.steps

    def counted(self, inputs, **options):
        lengths.append(len(inputs))
        return whole(self, inputs, **options)

    monkeypatch.setattr(Likelihood, "steps", counted)
    monkeypatch.setattr(pace, "CALL_S", 1e9)
    return lengths


def train(data, folder, *overrides, stop=None):
    run = RunDirectory(folder)
    assembly.train(config(data, *overrides), run, SerialComm(), stop or StopRequest())
    return run


def end(run):
    """State and records, without times."""
    found = checkpoint.load_latest(run.checkpoints, pytest.fail)
    kinds = ("step", "epoch", "rollback")
    said = [{k: v for k, v in r.items() if k not in TIMING} for kind in kinds for r in recorded(run.metrics_file, kind)]
    return found.meta, said, found.arrays


def assert_same_end(ours, theirs):
    assert ours[:2] == theirs[:2]
    assert ours[2].keys() == theirs[2].keys()
    for name, array in theirs[2].items():
        np.testing.assert_array_equal(ours[2][name], array, err_msg=name)


def spoil(monkeypatch, bad):
    """A NaN in the batch of one step."""
    whole = Pipeline._batch

    def batch(self, order, epoch, position, step):
        real, draws = whole(self, order, epoch, position, step)
        if step == bad:
            real["layer_2"] = np.where(np.arange(N)[:, None, None] == 1, np.nan, real["layer_2"])
        return real, draws

    monkeypatch.setattr(Pipeline, "_batch", batch)


def test_a_training_ends_with_the_same_bits_however_it_is_cut(data, tmp_path, calls, monkeypatch):
    """Stopped in an epoch's middle, once within a longer plan, and gone on with other numbers of steps."""
    monkeypatch.setattr("hpcgan.training.loop.RECORD_EVERY", 4)
    single = end(train(data, tmp_path / "single"))
    assert calls == [1] * 30
    assert [r["step"] for r in single[1] if r["kind"] == "step"] == [4, 8, 12, 16, 20, 24, 28]
    calls.clear()
    assert_same_end(end(train(data, tmp_path / "auto", "training.steps_per_call=auto")), single)
    assert calls == [1, 2, 4, 8, 15]  # never beyond an epoch's end
    run, calls[:] = tmp_path / "cut", []
    for many, look, step in (("auto", 3, 4), (3, 2, 6), ("auto", 5, 16)):
        with pytest.raises(Interrupted, match=f"at step {step}, checkpoint written"):
            train(data, run, f"training.steps_per_call={many}", stop=tiny.StopAt(look))
    assert calls == [1, 2, 4, 1, 2, 1, 2, 4, 2, 15]
    assert_same_end(end(train(data, run, "training.steps_per_call=5")), single)


def test_a_bad_step_within_a_call_is_named_and_the_same_state_is_put_back(data, tmp_path, calls, monkeypatch):
    spoil(monkeypatch, 20)
    with pytest.raises(HpcganError, match="non-finite at step 21 on rank 0; all ranks stopped"):
        train(data, tmp_path / "stopped", "training.steps_per_call=auto")
    assert calls == [1, 2, 4, 8, 15]
    assert checkpoint.steps(RunDirectory(tmp_path / "stopped").checkpoints) == [15]
    ends = []
    for many in ("1", "auto"):
        calls.clear()
        run = train(data, tmp_path / many, f"training.steps_per_call={many}", "training.rollback.limit=1")
        ends.append(end(run))
    assert calls == [1, 2, 4, 8, 15, 9]  # the batches behind the bad one are used in the next call
    assert [(r["step"], r["to_step"]) for r in ends[0][1] if r["kind"] == "rollback"] == [(21, 15)]
    assert_same_end(ends[1], ends[0])
