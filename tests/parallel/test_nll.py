"""The step by likelihood on several ranks, over each backend, against one rank that has all samples."""

import functools

import needs
import numpy as np
import pytest
from one_rank import averaged, eagerly

tf = needs.tensorflow()
pytest.importorskip("horovod")

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.evaluation import held_out  # noqa: E402
from hpcgan.methods.nll import Likelihood  # noqa: E402
from hpcgan.methods.settings import LikelihoodSettings  # noqa: E402
from hpcgan.problems.calorimeter.layer import CaloLayerModel, CaloLayerProblem  # noqa: E402

BATCH, STEPS = 4, 3


def everybody(ranks, step):
    rng = np.random.default_rng(step)
    n = ranks * BATCH
    return {
        "layer_2": rng.lognormal(size=(n, 12, 6)) * (rng.random((n, 12, 6)) < 0.4),
        "energy": rng.uniform(-1, 1, (n, 1)),
    }


def train(comm, *, whole=1, compression="none", **training):
    """Gradients of the first batch, weights after some steps, and metrics."""
    problem = CaloLayerProblem(CaloLayerModel(layer="layer_2", hidden_units=10, components=2))
    ranks = max(whole, comm.size)
    mine = ranks * BATCH // comm.size
    share = slice(comm.rank * mine, (comm.rank + 1) * mine)
    settings = LikelihoodSettings(**{"batch_size": mine, "dtype": "float64", "average_half_life": 50.0, **training})
    method = Likelihood(problem, settings, comm, 1, compression=compression)
    method.calibrate(lambda: [everybody(ranks, 100)])

    def batch(step):
        return {k: v[share].astype(settings.dtype) for k, v in everybody(ranks, step).items()}

    local, _ = method.gradients({k: tf.constant(v) for k, v in batch(0).items()})
    gradients = [g.numpy() for g in averaged(comm, local, "test.gradients")]
    results = [
        method.step(
            step, batch(step), {}, learning_rates={"density": 1e-3}, samples=ranks * BATCH * (step + 1), attention=False
        ).metrics
        for step in range(STEPS)
    ]
    weights = {f"{n}/{k}": v.numpy() for n, net in method.networks.items() for k, v in net.named.items()}
    return gradients, weights, results


@functools.cache
def alone():
    """What one rank with all samples comes to, whatever the backend and the parts."""
    with eagerly():
        return train(SerialComm(), whole=2)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.world_size(2)
def test_two_ranks_with_half_the_batch_are_one_rank_with_all_of_it(each_comm, parts):
    ours = train(each_comm, accumulation=parts)
    theirs = alone()
    largest = max(np.abs(g).max() for g in theirs[0])
    assert largest > 0.01
    for mine, whole in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(mine, whole, rtol=1e-12, atol=1e-12 * largest)
    for name, value in theirs[1].items():
        np.testing.assert_allclose(ours[1][name], value, rtol=1e-9, atol=1e-9 * np.abs(value).max(), err_msg=name)
    for mine, whole in zip(ours[2], theirs[2], strict=True):
        assert mine == pytest.approx(whole, rel=1e-10)


class Showers:
    """Some, by number."""

    def __init__(self, n):
        self._all = everybody(n // BATCH, 7)

    def __len__(self):
        return len(self._all["energy"])

    def read(self, indices):
        return {name: values[indices] for name, values in self._all.items()}

    def weights(self):
        return None


class Plain:
    """A problem whose samples are encoded as they are."""

    def encode(self, sample):
        return sample


@pytest.mark.world_size(2)
@pytest.mark.parametrize("n", [20, 4])  # five batches, and one that leaves a rank without any
def test_the_loss_of_held_out_showers_does_not_depend_on_the_ranks(each_comm, n):
    problem = CaloLayerProblem(CaloLayerModel(layer="layer_2", hidden_units=10, components=2))
    method = Likelihood(problem, LikelihoodSettings(batch_size=BATCH), SerialComm(), 1)
    losses = method.held_out_losses(method.networks["density"], "float32")
    ours, alone = (
        held_out.measure("nll", losses, Plain(), Showers(n), comm, 18, BATCH) for comm in (each_comm, SerialComm())
    )
    assert ours == alone
    assert ours.n == min(n, 18)
    assert np.isfinite([ours.mean, ours.error]).all()


@pytest.mark.world_size(2)
def test_both_backends_train_to_the_same_bits(comm_of):
    """On two ranks, in single precision."""
    (_, horovod, _), (_, mpi, _) = (train(comm_of(backend), dtype="float32") for backend in ("horovod", "mpi"))
    for name, value in horovod.items():
        np.testing.assert_array_equal(mpi[name], value, err_msg=name)
