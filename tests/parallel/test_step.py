"""The whole adversarial step on several ranks, over each backend, against one rank that has all samples."""

import needs
import numpy as np
import one_rank
import pytest
import tiny
from one_rank import assert_as_one_rank, averaged, on, unless_thorough

tf = needs.tensorflow()
pytest.importorskip("horovod")

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.networks.layers import iterate_spectral_norms  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402

BATCH = 4
DCGAN = {"normalisation": "batch"}
DETECTOR = {
    "architecture": "detector", "intensity": "pt", "scale_mev": 6000.0, "exponent": 1 / 3, "pixel_noise": True,
    "pooled_pt": True, "minibatch_stddev": True, "normalisation": "batch",
}  # fmt: skip


def train(comm, model=None, *, whole=1, steps=3, dtype="float64", compression="none", compiled=False, **training):
    """Weights after some steps; `comm`'s ranks share batches of `whole` ranks' size."""
    problem = RpvProblem(RpvModel(filters=2, latent_dim=3, **(model or {"normalisation": "none"})))
    ranks = max(whole, comm.size)
    mine = ranks * BATCH // comm.size
    flip = 0.0 if training.get("loss") == "wgan_gp" else 0.3
    config = GanSettings(batch_size=mine, dtype=dtype, average_half_life=50.0, label_flip=flip, **training)
    gan = Gan(problem, config, comm, seed=1, compression=compression)
    images = tiny.images(ranks * BATCH * steps).astype(dtype)
    with unless_thorough(compiled):
        return one_rank.steps(gan, problem, comm, ({"hist": batch} for batch in np.split(images, steps)))


known = {}


def alone(model=None, **settings):
    """What one rank with all samples comes to. It does not depend on the backend, so it is worked out once."""
    key = repr((model, sorted(settings.items())))
    if key not in known:
        known[key] = train(SerialComm(), model, **settings)
    return known[key]


@pytest.mark.parametrize(
    ("size", "backend", "update"),
    [
        on(2, "mpi", "simultaneous"),
        on(3, "horovod", "alternating"),
        on(2, "horovod", "simultaneous", faults=True),
        on(3, "mpi", "alternating", faults=True),
    ],
)
def test_a_step_without_batch_statistics_is_that_of_one_rank(comm_of, size, backend, update):
    comm, settings = comm_of(backend), {"update": update, "r1": {"weight": 0.1, "every": 2}}
    ours = train(comm, compiled=update == "simultaneous", **settings)
    assert_as_one_rank(comm, ours, lambda: alone(whole=size, **settings), rtol=1e-9)


@pytest.mark.parametrize(
    ("size", "backend", "model"),
    [
        on(2, "horovod", DETECTOR),
        on(3, "mpi", DCGAN),
        on(2, "mpi", DETECTOR, faults=True),
        on(3, "horovod", DCGAN, faults=True),
    ],
    ids=["detector", "mpi-dcgan", "mpi-detector", "dcgan"],
)
def test_with_synced_batch_norm_a_step_is_that_of_one_rank(comm_of, size, backend, model):
    """Batch norm of both networks (dcgan), or of one and the minibatch statistic."""
    comm = comm_of(backend)
    ours = train(comm, model, compiled=model is DETECTOR, batch_norm="synced")
    assert_as_one_rank(comm, ours, lambda: alone(model, whole=size), rtol=1e-8)
    if backend == "horovod":
        local = train(comm, model)[0]
        assert any(not np.allclose(local[name], value, rtol=1e-4) for name, value in ours[0].items())


@pytest.mark.parametrize(
    ("size", "model", "update"),
    [on(2, DCGAN, "alternating"), on(2, DETECTOR, "alternating", faults=True), on(2, DCGAN, "simultaneous")],
    ids=["dcgan", "detector", "simultaneous"],
)
def test_both_backends_train_to_the_same_bits(comm_of, size, model, update):
    """On two ranks, in single precision."""
    found = [
        train(comm_of(backend), model, compiled=update == "alternating", dtype="float32", update=update)
        for backend in ("horovod", "mpi")
    ]
    assert found[0][1] == found[1][1]
    for name, value in found[0][0].items():
        np.testing.assert_array_equal(found[1][0][name], value, err_msg=name)


SPECTRAL = {"discriminator_normalisation": "spectral"}
COUPLED = ("minibatch_stddev",)  # what a critic with a gradient penalty must not have
CRITIC = {**{k: v for k, v in DETECTOR.items() if k not in COUPLED}, "normalisation": "none"}
WGAN = {"loss": "wgan_gp", "critic_steps": 2, "instance_noise": {"sigma": 0.1, "epochs": 1}}


@pytest.mark.parametrize(
    ("size", "model", "training"),
    [
        on(2, {"normalisation": "none", "discriminator_normalisation": "layer"}, WGAN),
        on(2, {**CRITIC, **SPECTRAL}, {"loss": "wgan_gp"}),
        on(
            2,
            {"normalisation": "none", **SPECTRAL},
            {"loss": "hinge", "accumulation": 2, "critic_steps": 2},
            faults=True,
        ),
        on(3, {"normalisation": "none", **SPECTRAL}, {**WGAN, "critic_steps": 3, "update": "simultaneous"}),
        on(3, {"normalisation": "none"}, {"loss": "least_squares", "label_smoothing": 0.1}),
    ],
    ids=["dcgan-layer", "detector-spectral", "dcgan-hinge", "dcgan-spectral-3", "least-squares-3"],
)
def test_a_step_with_stabilisers_is_that_of_one_rank(comm, size, model, training):
    """Weights, power iterations and metrics after several steps; each event has its own noise and its own epsilon."""
    whole = {**training, "accumulation": 2 * size} if "accumulation" in training else training
    steps = 3 if "accumulation" in training else 4
    ours = train(comm, model, steps=steps, **training)
    assert_as_one_rank(comm, ours, lambda: alone(model, whole=size, steps=steps, **whole), rtol=1e-9)


@pytest.mark.parametrize(
    ("size", "model"),
    [
        on(2, {"discriminator_normalisation": "none"}),
        on(3, {**SPECTRAL}),
        on(2, {**CRITIC, **SPECTRAL, "pooled_mass": True, "hidden_units": 3}),
        on(3, {**CRITIC, "pooled_mass": True, "hidden_units": 3}),
    ],
    ids=["dcgan", "dcgan-spectral-3", "detector-spectral", "detector-3"],
)
def test_gradients_of_a_penalised_critic_are_those_of_one_rank(comm, size, model):
    """Averaged over the ranks, to 12 digits of the largest."""

    def gradients(over, ranks, first, n):
        problem = RpvProblem(RpvModel(filters=2, latent_dim=3, **model))
        gan = Gan(problem, GanSettings(batch_size=n, dtype="float64", loss="wgan_gp"), over, seed=1)
        everything = problem.encode({"hist": tiny.images(2 * ranks * BATCH).astype(np.float64)})["hist"]
        real, fake = everything[: ranks * BATCH], everything[ranks * BATCH :]
        real, fake = ({"hist": tf.constant(part[first : first + n])} for part in (real, fake))
        epsilon = tf.constant(gan.draws(0, first, n)["epsilon"])
        iterate_spectral_norms(gan.networks["discriminator"])
        found, *_ = gan.discriminator_gradients(real, fake, tf.constant(0.0, tf.float64), epsilon=epsilon)
        return [g.numpy() for g in averaged(over, found, "penalised")]

    ours = gradients(comm, size, comm.rank * BATCH, BATCH)
    if comm.is_root:
        whole = gradients(SerialComm(), size, 0, size * BATCH)
        largest = max(np.abs(theirs).max() for theirs in whole)
        assert largest > 0
        for mine, theirs in zip(ours, whole, strict=True):  # a critic's bias has none but noise
            np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12 * largest)
    comm.barrier()


@pytest.mark.world_size(3)
def test_directions_of_spectral_norms_are_the_same_bits_on_all_ranks(comm):
    """They are in no average, which of three equal numbers is not always that number."""
    weights, _ = train(comm, {"normalisation": "none", **SPECTRAL}, dtype="float32", steps=4)
    mine = {name: value.tobytes().hex() for name, value in weights.items() if name.endswith("direction")}
    assert len(mine) == 5
    assert comm.broadcast_json(comm.gather_json(mine)) == [mine] * 3


@pytest.mark.world_size(2)
def test_accumulated_gradients_on_two_ranks(comm_of):
    """Over mpi4py; over Horovod there is one with stabilisers."""
    comm = comm_of("mpi")
    assert_as_one_rank(comm, train(comm, accumulation=2), lambda: alone(whole=2), rtol=1e-9)


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
    gan = Gan(problem, GanSettings(batch_size=2), comm, seed=1, compression="fp16")
    real = {"hist": np.full((2, 64, 64), 1e8, np.float32)}
    rates = {"generator": 1e-4, "discriminator": 1e-4}
    result = gan.step(0, real, gan.draws(0, 2 * comm.rank, 2), learning_rates=rates, samples=4, attention=False)
    assert result.metrics["nonfinite"] > 0
