"""CaloGAN's discriminator on several ranks, over each backend, against one rank that has all samples."""

import functools

import needs
import numpy as np
import one_rank
import pytest
from one_rank import assert_as_one_rank, averaged, on, unless_thorough

tf = needs.tensorflow()
pytest.importorskip("horovod")

from calogan_settings import CaloGan  # noqa: E402

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.networks.layers import Initializer, synchronise  # noqa: E402
from hpcgan.networks.minibatch import MinibatchDiscrimination  # noqa: E402
from hpcgan.problems.calorimeter.calogan import CaloganModel, CaloganProblem  # noqa: E402
from hpcgan.problems.calorimeter.networks import Discriminator  # noqa: E402

BATCH = 3
SHAPES = ((2, 8), (4, 4), (4, 2))


@pytest.mark.parametrize(
    ("size", "backend", "compiled"),
    [
        on(2, "mpi", True),
        on(3, "horovod", False),
        on(2, "horovod", True, faults=True),
        on(2, "horovod", False, faults=True),
        on(2, "mpi", False, faults=True),
        on(3, "horovod", True, faults=True),
        on(3, "mpi", True, faults=True),
        on(3, "mpi", False, faults=True),
    ],
)
def test_nearness_to_the_samples_of_all_ranks(comm_of, size, backend, compiled):
    """Outputs, gradients, and those of a penalty on the gradient; whatever holds for batch norm."""
    comm, rng = comm_of(backend), np.random.default_rng(1)
    everybody = [rng.normal(size=(size * BATCH, width)) for width in (4, 1)]
    mine = slice(comm.rank * BATCH, (comm.rank + 1) * BATCH)

    def layer(scope):
        made = MinibatchDiscrimination(Initializer(1, "float64"), "mbd", [4, 1], kernels=3, dims=2, scope=scope)
        holder = tf.Module()
        holder.layer = made
        synchronise(holder, comm, "local")
        return made

    def everything(layer, features, average):
        with tf.GradientTape() as outer:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(features)
                near = tf.concat([tf.tanh(o) for o in layer(features)], axis=1)
                # Of the kind of a mean over the batch; each sample has a weight of its own.
                loss = tf.reduce_mean(tf.reduce_sum(near**3, axis=1) * tf.sin(features[0][:, 0]))
            by_features = tape.gradient(loss, features)
            slope = by_features[0] * tf.cast(tf.shape(near)[0], tf.float64)
            penalty = tf.reduce_mean(tf.reduce_sum(slope**2, axis=1))
        weights = layer.projections  # the biases are in none of the differences
        first = average([loss, *tape.gradient(loss, weights)], "t.first")
        second = average(outer.gradient(penalty, weights), "t.second")
        return near, by_features, first, second

    def on_ranks(scope):
        parallel, features = layer(scope), [tf.constant(f[mine]) for f in everybody]
        function = functools.partial(everything, parallel, features, functools.partial(averaged, comm))
        return (tf.function(function, autograph=False) if compiled else function)()

    alone = MinibatchDiscrimination(Initializer(1, "float64"), "mbd", [4, 1], kernels=3, dims=2)
    whole = everything(alone, [tf.constant(f) for f in everybody], lambda tensors, name: tensors)
    near, by_features, first, second = on_ranks("global")
    np.testing.assert_allclose(near, whole[0][mine], rtol=1e-12)
    for ours, theirs in zip(by_features, whole[1], strict=True):
        # What all losses feel of a feature; the whole loss is their mean.
        np.testing.assert_allclose(ours / size, theirs[mine], rtol=1e-9, atol=1e-12)
    for ours, theirs in zip([*first, *second], [*whole[2], *whole[3]], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)
        assert np.abs(theirs).max() > 1e-4
    assert not np.allclose(on_ranks("local")[0], whole[0][mine], rtol=1e-3)


def discriminator():
    config = CaloGan(latent_dim=5, shapes=SHAPES, minibatch_discrimination="global")
    made = Discriminator(config, 1, "float64")
    draws = np.random.default_rng(3)
    for weight in made.weights:
        weight.assign(0.3 * draws.normal(size=weight.shape))
    return made


def showers(size):
    """Those of all ranks."""
    rng = np.random.default_rng(2)
    made = {f"layer_{i}": np.maximum(rng.normal(size=(size * BATCH, *s)), 0) for i, s in enumerate(SHAPES)}
    return {**made, "energy": rng.uniform(1, 20, (size * BATCH, 1))}


def slopes(network, sample, average):
    """Logits, and gradients of a loss by images and, averaged, by weights."""
    images = {name: value for name, value in sample.items() if name != "energy"}
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = network({**sample, **images}, training=True)
        loss = tf.reduce_mean(tf.nn.softplus(-logits))
    by_weights, by_images = tape.gradient(loss, [network.weights, images])
    return logits, by_images, average(by_weights, "t.weights")


@functools.cache
def of_one_rank(size):
    """`slopes` on one rank that has the whole batch, and the batch norm's statistics after it."""
    network = discriminator()
    found = slopes(network, {k: tf.constant(v) for k, v in showers(size).items()}, lambda tensors, name: tensors)
    return found, network.statistics


@pytest.mark.faults  # of what the whole step below needs
@pytest.mark.parametrize(("size", "backend"), [on(n, backend) for n in (2, 3) for backend in ("horovod", "mpi")])
def test_the_discriminator_is_that_of_one_rank_with_the_whole_batch(comm_of, size, backend):
    """With synced batch norm and the nearness over all ranks: logits, gradients of weights and images, statistics."""
    comm, parallel = comm_of(backend), discriminator()
    mine = slice(comm.rank * BATCH, (comm.rank + 1) * BATCH)
    synchronise(parallel, comm, "global")
    sample = {name: tf.constant(value[mine]) for name, value in showers(size).items()}
    compiled = tf.function(lambda: slopes(parallel, sample, functools.partial(averaged, comm)), autograph=False)
    logits, by_images, by_weights = compiled()
    whole, statistics = of_one_rank(size)
    np.testing.assert_allclose(logits, whole[0][mine], rtol=1e-9)
    for name, gradient in by_images.items():
        np.testing.assert_allclose(gradient / size, whole[1][name][mine], rtol=1e-7, atol=1e-10)
    for weight, ours, theirs in zip(parallel.weights, by_weights, whole[2], strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9 * max(scale, 1e-3), err_msg=weight.name)
    for ours, theirs in zip(parallel.statistics, statistics, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


PUBLISHED = {"generator_steps": 2, "discriminator_update": "apart"}
RECIPE = {"discriminator_update": "apart", "r1": {"weight": 0.5, "every": 2}}
ADDED = {"cell_encoding": "log", "conditioning": "joined", "discriminator_hidden": (6,)}


def whole_steps(comm, size, scope="global", steps=2, training=PUBLISHED, **added):
    """Weights, statistics and metrics after steps; the ranks share batches of `size` * BATCH."""
    model = CaloganModel(segmentation="2x8,4x4,4x2", latent_dim=5, minibatch_discrimination=scope, **added)
    problem, mine = CaloganProblem(model), size * BATCH // comm.size
    training = {**training, "batch_norm": "synced"}
    config = GanSettings(batch_size=mine, dtype="float64", average_half_life=50.0, label_flip=0.3, **training)
    gan, rng = Gan(problem, config, comm, seed=1), np.random.default_rng(4)
    # As they are drawn first, all generated cells hold nothing to speak of, and the nearness of all pairs is 1.
    for network in (gan.networks["generator"], gan.networks["discriminator"]):
        for weight in network.weights:
            weight.assign(0.3 * rng.normal(size=weight.shape))

    def batch():
        made = {f"layer_{i}": 1e3 * np.maximum(rng.normal(size=(size * BATCH, *s)), 0) for i, s in enumerate(SHAPES)}
        return {**made, "energy": rng.uniform(1, 20, size * BATCH)}

    return one_rank.steps(gan, problem, comm, (batch() for _ in range(steps)))


@pytest.mark.parametrize(
    ("size", "backend", "compiled"),
    [
        on(2, "horovod", False),
        on(3, "mpi", False, faults=True),
        on(2, "horovod", True, faults=True),
        on(2, "mpi", True, faults=True),
        on(3, "horovod", False, faults=True),
    ],
)
def test_the_whole_step_is_that_of_one_rank_with_the_whole_batch(comm_of, size, backend, compiled):
    """Discriminator on real and on generated showers, generator twice: to nine digits, with the nearness over all."""
    comm = comm_of(backend)
    with unless_thorough(compiled):
        ours = whole_steps(comm, size)
        assert all(metrics["auxiliary_loss"] > 0.1 for metrics in ours[1])
        if backend == "mpi" and not compiled:
            local, head = whole_steps(comm, size, "local")[0], "discriminator/discriminator/head/kernel"
            assert not np.allclose(local[head], ours[0][head], rtol=1e-4)
    assert_as_one_rank(comm, ours, lambda: whole_steps(SerialComm(), size), rtol=1e-9, floor=1e-3)


@pytest.mark.parametrize(
    ("size", "backend"),
    [
        on(2, "horovod"),
        on(3, "mpi", faults=True),
    ],
)
def test_the_whole_step_of_the_recipe_is_that_of_one_rank(comm_of, size, backend):
    """R1 of cells as they are seen, through batch norm and the nearness over all ranks."""
    comm = comm_of(backend)
    with unless_thorough():
        ours = whole_steps(comm, size, steps=1, training=RECIPE, **ADDED)
    alone = functools.partial(whole_steps, SerialComm(), size, steps=1, training=RECIPE, **ADDED)
    assert_as_one_rank(comm, ours, alone, rtol=1e-8, floor=1e-3)
