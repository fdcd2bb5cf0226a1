"""Several steps in one call on several ranks, over each backend: the same bits, and all end at the same step."""

import needs
import numpy as np
import pytest

needs.tensorflow()
pytest.importorskip("horovod")

from hpcgan.config import LikelihoodConfig  # noqa: E402
from hpcgan.methods.base import StepInput  # noqa: E402
from hpcgan.methods.nll import Likelihood  # noqa: E402
from hpcgan.problems.calorimeter.layer import CaloLayerModel, CaloLayerProblem  # noqa: E402

BATCH, STEPS = 4, 6


def showers(rank, step):
    rng = np.random.default_rng([rank, step])
    cells = rng.lognormal(size=(BATCH, 12, 6)) * (rng.random((BATCH, 12, 6)) < 0.4)
    return {"layer_2": cells.astype("f4"), "energy": rng.uniform(-1, 1, (BATCH, 1)).astype("f4")}


def train(comm, most, *, bad=None, attention_at=None):
    """Metrics, calls and final weights of this rank, which gives at most so many steps to a call."""
    problem = CaloLayerProblem(CaloLayerModel(layer="layer_2", hidden_units=6, components=1))
    config = LikelihoodConfig(batch_size=BATCH, average_half_life=50.0, steps_per_call="auto")
    method = Likelihood(problem, config, comm, 1)
    method.calibrate(lambda: [showers(0, 100)])
    results, calls = [], []
    while len(results) < STEPS:
        done = len(results)
        inputs = [
            StepInput(n, showers(comm.rank, n), {}, {"density": 1e-2 / (n + 1)}, comm.size * BATCH * (n + 1))
            for n in range(done, min(done + most, STEPS))
        ]
        for given in inputs:
            if given.step == bad:
                given.real["layer_2"][0] = np.inf
        found = method.steps(inputs, attention=done == attention_at)
        results += found
        calls.append(len(found))
        if not found[-1].is_finite:
            break
    weights = {f"{n}/{k}": v.numpy() for n, net in method.networks.items() for k, v in net.named.items()}
    return [r.metrics for r in results], calls, weights, results[-1].finite_here


@pytest.mark.world_size(2)
def test_ranks_that_plan_different_numbers_of_steps_take_the_same_ones(each_comm):
    comm = each_comm
    metrics, calls, weights, _ = train(comm, 1)
    assert calls == [1] * STEPS
    for most in (4, 4 - comm.rank):
        found = train(comm, most)
        assert found[0] == metrics
        assert found[1] == ([4, 2] if most == 4 else [3, 3])
        for name, value in weights.items():
            np.testing.assert_array_equal(found[2][name], value, err_msg=name)


@pytest.mark.world_size(2)
def test_a_word_of_one_rank_ends_the_calls_of_all(each_comm):
    """Rank 1 begins its second call at step 2 and says something: rank 0, with a plan for all steps, hears it."""
    comm = each_comm
    found = train(comm, 2 if comm.rank else STEPS, attention_at=2 if comm.rank else None)
    assert found[1] == ([2, 1, 2, 1] if comm.rank else [3, 3])
    assert [m["attention"] for m in found[0]] == [0.0, 0.0, 0.5, 0.0, 0.0, 0.0]


@pytest.mark.world_size(2)
def test_an_infinity_on_one_rank_ends_the_calls_of_all(each_comm):
    comm = each_comm
    metrics, calls, _, finite_here = train(comm, STEPS, bad=3 if comm.rank else None)
    assert calls == [4]
    assert [m["nonfinite"] for m in metrics] == [0.0, 0.0, 0.0, 0.5]
    assert finite_here == (comm.rank == 0)
