"""The whole adversarial step on several ranks, over each backend, against one rank that has all samples."""

import numpy as np
import pytest
import tiny

tf = pytest.importorskip("tensorflow")
pytest.importorskip("horovod")

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.config import TrainingConfig  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.problems.rpv import RpvModel, RpvProblem  # noqa: E402

BATCH = 4
DCGAN = {"normalisation": "batch"}
DETECTOR = {
    "architecture": "detector", "intensity": "pt", "scale_mev": 6000.0, "exponent": 1 / 3, "pixel_noise": True,
    "pooled_pt": True, "minibatch_stddev": True, "normalisation": "batch",
}  # fmt: skip


def train(comm, model=None, *, whole=1, steps=3, dtype="float64", compression="none", **training):
    """Weights after some steps; `comm`'s ranks share batches of `whole` ranks' size."""
    problem = RpvProblem(RpvModel(filters=2, latent_dim=3, **(model or {"normalisation": "none"})))
    ranks = max(whole, comm.size)
    mine = ranks * BATCH // comm.size
    config = TrainingConfig(batch_size=mine, dtype=dtype, average_half_life=50.0, label_flip=0.3, **training)
    gan = Gan(problem, config, comm, seed=1, compression=compression)
    first, results = comm.rank * mine, []
    for step in range(steps):
        images = tiny.images(ranks * BATCH * steps)[ranks * BATCH * step :][first : first + mine]
        real = problem.encode({"hist": images.astype(dtype)})
        draws = gan.draws(step, first, mine)
        rates = {"generator": 1e-3, "discriminator": 1e-3}
        results.append(
            gan.step(step, real, draws, learning_rates=rates, samples=step * 12 + 12, attention=False).metrics
        )
    return {f"{n}/{k}": v.numpy() for n, net in gan.networks.items() for k, v in net.named.items()}, results


def assert_close(ours, theirs, rtol):
    assert ours[0].keys() == theirs[0].keys()
    for name, value in theirs[0].items():
        np.testing.assert_allclose(ours[0][name], value, rtol=rtol, atol=rtol * np.abs(value).max(), err_msg=name)
    for mine, whole in zip(ours[1], theirs[1], strict=True):
        assert mine == pytest.approx(whole, rel=rtol, abs=1e-12)


def on(size, *values):
    """Values of a test's parameters, on a number of ranks."""
    return pytest.param(size, *values, marks=pytest.mark.world_size(size))


@pytest.mark.parametrize(("size", "update"), [on(2, "simultaneous"), on(3, "alternating")])
def test_a_step_without_batch_statistics_is_that_of_one_rank(each_comm, size, update):
    settings = {"update": update, "r1": {"weight": 0.1, "every": 2}}
    assert_close(train(each_comm, **settings), train(SerialComm(), whole=size, **settings), rtol=1e-9)


@pytest.mark.parametrize(("size", "model"), [on(2, DETECTOR), on(3, DCGAN)], ids=["2 detector", "3 dcgan"])
def test_with_synced_batch_norm_a_step_is_that_of_one_rank(each_comm, size, model):
    """Batch norm of both networks (dcgan), or of one and the minibatch statistic."""
    alone = train(SerialComm(), model, whole=size)
    assert_close(train(each_comm, model, batch_norm="synced"), alone, rtol=1e-8)
    if each_comm.backend == "horovod":
        local = train(each_comm, model)[0]
        assert any(not np.allclose(local[name], value, rtol=1e-4) for name, value in alone[0].items())


@pytest.mark.parametrize(
    ("size", "model", "update"),
    [on(2, DCGAN, "alternating"), on(2, DETECTOR, "alternating"), on(2, DCGAN, "simultaneous")],
    ids=["dcgan", "detector", "simultaneous"],
)
def test_both_backends_train_to_the_same_bits(comm_of, size, model, update):
    """On two ranks, in single precision."""
    found = [train(comm_of(backend), model, dtype="float32", update=update) for backend in ("horovod", "mpi")]
    assert found[0][1] == found[1][1]
    for name, value in found[0][0].items():
        np.testing.assert_array_equal(found[1][0][name], value, err_msg=name)


@pytest.mark.world_size(2)
def test_accumulated_gradients_on_two_ranks(each_comm):
    assert_close(train(each_comm, accumulation=2), train(SerialComm(), whole=2), rtol=1e-9)


@pytest.mark.world_size(2)
def test_gradients_in_half_precision_are_near_those_in_full(comm_of):
    half, full = (train(comm_of("horovod"), compression=c, dtype="float32") for c in ("fp16", "none"))
    differing = 0
    for name, value in full[0].items():
        np.testing.assert_allclose(half[0][name], value, atol=0.02 * max(1e-3, np.abs(value).max()), err_msg=name)
        differing += not np.array_equal(half[0][name], value)
    assert differing > 0
    with pytest.raises(InputError, match="fp16 needs Horovod"):
        train(comm_of("mpi"), compression="fp16")


@pytest.mark.world_size(2)
def test_a_gradient_that_half_precision_cannot_hold_is_noticed(comm_of):
    problem = RpvProblem(RpvModel(filters=2, latent_dim=3, normalisation="none"))
    comm = comm_of("horovod")
    gan = Gan(problem, TrainingConfig(batch_size=2), comm, seed=1, compression="fp16")
    real = {"hist": np.full((2, 64, 64), 1e8, np.float32)}
    rates = {"generator": 1e-4, "discriminator": 1e-4}
    result = gan.step(0, real, gan.draws(0, 2 * comm.rank, 2), learning_rates=rates, samples=4, attention=False)
    assert result.metrics["nonfinite"] > 0
