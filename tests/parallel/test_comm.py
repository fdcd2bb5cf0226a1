"""Collectives over real ranks: values, gradients, bits, and what happens when a rank leaves."""

from __future__ import annotations

import math

import needs
import numpy as np
import pytest
from one_rank import averaged

tf = needs.tensorflow()
pytest.importorskip("horovod")

ANY = [pytest.param(n, marks=pytest.mark.world_size(n)) for n in (1, 2, 3, 4)]
SEVERAL = [pytest.param(n, marks=pytest.mark.world_size(n)) for n in (2, 3)]


@pytest.fixture
def comm(each_comm):
    return each_comm


@pytest.mark.parametrize("size", ANY)
def test_world(comm, size):
    assert (comm.size, comm.local_size) == (size, size)
    assert comm.rank == comm.local_rank
    assert comm.gather_json(comm.rank) == (list(range(size)) if comm.is_root else None)


# --- on the host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ANY)
def test_gather_array_keeps_dtype_shape_and_bits(comm, size):
    def make(rank):
        rng = np.random.default_rng(rank)
        return [
            rng.normal(size=(rank + 1, 3)),
            rng.integers(-(2**62), 2**62, rank),  # empty on rank 0
            rng.random((2, rank)) < 0.5,
            np.float32([np.nan, -0.0, np.inf]),
            np.zeros((0, 5), np.float16),
            np.array(rank, np.uint64) + np.uint64(2**63),
            np.array(["µ", "τ" * rank]),
            np.asfortranarray(rng.normal(size=(3, 4))),
            np.array([(1, 2.5)], [("n", ">i4"), ("x", "<f8")]),
        ]

    for index, array in enumerate(make(comm.rank)):
        gathered = comm.gather_array(array)
        assert (gathered is not None) == comm.is_root
        for rank, got in enumerate(gathered or []):
            wanted = make(rank)[index]
            assert got.dtype == wanted.dtype
            assert got.shape == wanted.shape
            assert got.tobytes() == np.asarray(wanted).tobytes()


@pytest.mark.world_size(2)
def test_gather_array_in_several_rounds(comm, monkeypatch):
    monkeypatch.setattr(f"hpcgan.comm.{comm.backend}._CHUNK", 1000)
    sizes = [10, 4321]
    gathered = comm.gather_array(np.arange(sizes[comm.rank]))
    for size, got in zip(sizes, gathered or []):
        np.testing.assert_array_equal(got, np.arange(size))


@pytest.mark.world_size(2)
def test_objects_are_refused_not_pickled(comm):
    with pytest.raises(ValueError, match="pickle"):
        comm.gather_array(np.array([{}], object))
    comm.barrier()


@pytest.mark.parametrize("size", SEVERAL)
def test_json(comm, size):
    mine = {"rank": comm.rank, "text": "π" * 100 * comm.rank, "x": 0.1 + 0.2, "none": None, "nan": math.nan}
    gathered = comm.gather_json(mine)
    if comm.is_root:
        assert [g["rank"] for g in gathered] == list(range(size))
        assert [len(g["text"]) for g in gathered] == [100 * rank for rank in range(size)]
        assert gathered[1]["x"] == 0.1 + 0.2
        assert math.isnan(gathered[1]["nan"])
    everywhere = comm.broadcast_json({"from": comm.rank, "list": [1, [2]]})
    assert everywhere == {"from": 0, "list": [1, [2]]}
    assert comm.broadcast_json("" if comm.is_root else object()) == ""


@pytest.mark.parametrize("size", SEVERAL)
def test_broadcast_variables(comm, size, monkeypatch):
    monkeypatch.setattr(f"hpcgan.comm.{comm.backend}._CHUNK", 100)  # several rounds
    dtypes = (tf.float32, tf.float64, tf.float16, tf.int64, tf.uint64, tf.bool)

    def make(rank):
        rng = np.random.default_rng(rank)
        return [tf.Variable(tf.cast(rng.normal(size=(3, index + 1)) * 4, d)) for index, d in enumerate(dtypes)] + [
            tf.Variable(float(rank), dtype=tf.float32)
        ]

    variables = make(comm.rank)
    comm.broadcast_variables(variables)
    for got, wanted in zip(variables, make(0)):
        assert got.numpy().tobytes() == wanted.numpy().tobytes()
    comm.broadcast_variables([])


@pytest.mark.world_size(3)
def test_broadcast_to_other_variables_is_refused_on_all_ranks(comm):
    from hpcgan.errors import HpcganError

    variables = [tf.Variable(1.0 * comm.rank), tf.Variable(tf.zeros(3 + comm.rank // 2))]
    with pytest.raises(HpcganError, match="rank 2 holds other variables than rank 0, from number 1 on"):
        comm.broadcast_variables(variables)
    with pytest.raises(HpcganError, match=r"rank 1 .* from number 1 on: none instead"):
        comm.broadcast_variables(variables[:1] if comm.rank == 1 else [tf.Variable(0.0), tf.Variable(0.0)])
    assert variables[0].numpy() == comm.rank


@pytest.mark.world_size(2)
def test_barrier_waits(comm):
    import time

    comm.barrier()
    started = time.monotonic()
    if comm.is_root:
        time.sleep(1.0)
    comm.barrier()
    assert time.monotonic() - started > 0.9


# --- in the step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ANY)
def test_an_average_is_of_any_shape_and_dtype(comm, size):
    shapes = [(), (3,), (2, 0), (2, 3, 4)]

    def make(rank):
        rng = np.random.default_rng(rank)
        return [rng.normal(size=s).astype(t) for s in shapes for t in (np.float32, np.float64)]

    mean = [np.mean([make(r)[i] for r in range(size)], axis=0) for i in range(2 * len(shapes))]
    eager = averaged(comm, [tf.constant(a) for a in make(comm.rank)], "t.eager")

    @tf.function
    def compiled(*tensors):
        return averaged(comm, tensors, "t.compiled")

    for got in (eager, compiled(*[tf.constant(a) for a in make(comm.rank)])):
        for index, (tensor, wanted) in enumerate(zip(got, mean)):
            assert tensor.dtype == make(0)[index].dtype
            assert tensor.shape == wanted.shape
            np.testing.assert_allclose(tensor.numpy(), wanted, rtol=1e-6)


@pytest.mark.world_size(4)
def test_averages_give_all_ranks_the_same_bits_every_time(comm):
    rng = np.random.default_rng(comm.rank)
    tensors = [tf.constant(rng.normal(size=n) * 10.0 ** (n % 7), tf.float32) for n in (1000, 7, 4096, 33)]

    @tf.function
    def step(a):
        return averaged(comm, a, "t.bits.a"), averaged(comm, a[::-1], "t.bits.b")

    seen = set()
    for _ in range(20):
        first, second = step(tensors)
        seen.add(tuple(t.numpy().tobytes() for t in (*first, *second)))
    assert len(seen) == 1
    mine = b"".join(next(iter(seen)))
    gathered = comm.gather_array(np.frombuffer(mine, np.uint8))
    assert gathered is None or len({g.tobytes() for g in gathered}) == 1


@pytest.mark.parametrize("size", SEVERAL)
def test_an_average_that_is_begun_and_finished_later(comm, size):
    first, second = (tf.constant([x + comm.rank, 1.0]) for x in (0.0, 10.0))
    finish = comm.begin_average(first, "t.first"), comm.begin_average(second, "t.second")
    mean = (size - 1) / 2
    np.testing.assert_array_equal(finish[0](), [mean, 1.0])
    np.testing.assert_array_equal(finish[1](), [10.0 + mean, 1.0])

    @tf.function
    def in_a_graph(x, y):
        first, second = comm.begin_average(x, "t.graph.first"), comm.begin_average(y, "t.graph.second")
        return second(), first()

    for _ in range(3):
        later, earlier = in_a_graph(first, second)
        np.testing.assert_array_equal(earlier, [mean, 1.0])
        np.testing.assert_array_equal(later, [10.0 + mean, 1.0])


@pytest.mark.world_size(2)
def test_both_backends_give_the_same_bits(comm_of):
    """On two ranks; on more, the order of the summands is the MPI library's."""
    rng = np.random.default_rng(comm_of("mpi").rank)
    tensors = [tf.constant(rng.normal(size=n) * 10.0 ** (n % 7), tf.float32) for n in (1000, 7, 4096, 33)]
    found = [[t.numpy().tobytes() for t in averaged(comm_of(b), tensors, "t.both")] for b in ("horovod", "mpi")]
    assert found[0] == found[1]


@pytest.mark.world_size(2)
def test_integers_are_not_averaged(comm):
    with pytest.raises(TypeError, match=r"t\.int: the tensor is int64"):
        comm.begin_average(tf.constant(1, tf.int64), "t.int")


@pytest.mark.world_size(2)
def test_one_name_twice_in_a_graph(comm):
    @tf.function
    def both(x):
        # Independent of each other, so both may be in flight at once.
        return (
            comm.allreduce(x, "t.same"),
            comm.allreduce(2 * x, "t.same"),
            comm.allgather(x, "t.same.gather"),
        )

    for _ in range(10):
        one, two, gathered = both(tf.constant([float(comm.rank)]))
        assert (one.numpy(), two.numpy()) == (0.5, 1.0)
        np.testing.assert_array_equal(gathered, [0, 1])


def _loss(x, theta, mean_over_ranks, gather):
    """A loss of one rank's samples that uses statistics of everybody's, like a batch norm."""
    y = tf.tanh(tf.linalg.matmul(x, theta))
    mean = mean_over_ranks(tf.reduce_mean(y, axis=0))
    variance = mean_over_ranks(tf.reduce_mean(y**2, axis=0)) - mean**2
    z = (y - mean) / tf.sqrt(variance + 0.1)
    others = gather(z)
    distance = tf.reduce_sum(tf.exp(-((z[:, None] - others[None]) ** 2)), axis=(1, 2))
    return tf.reduce_mean(tf.reduce_sum(z**3, axis=1) + 0.3 * distance)


@pytest.mark.parametrize("size", SEVERAL)
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_those_of_one_rank_with_the_whole_batch(comm, size, compiled):
    """The semantics stated in hpcgan/comm/collectives.py, first and second derivatives, in float64."""
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(size * 5, 3))
    theta = tf.Variable(rng.normal(size=(3, 2)))
    x = tf.constant(batch[comm.rank * 5 : (comm.rank + 1) * 5])

    def gradients(samples, mean_over_ranks, gather, average):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                loss = _loss(samples, theta, mean_over_ranks, gather)
            (first,) = average(tape.gradient(loss, [theta]), "t.first")
            # A penalty on a gradient: differentiates the collectives' gradients.
            with tf.GradientTape() as inner:
                inner.watch(samples)
                again = _loss(samples, theta, mean_over_ranks, gather)
            slope = inner.gradient(again, samples)
            # Each row's slope of the mean over all rows is one over their number smaller.
            penalty = tf.reduce_mean(tf.reduce_sum((slope * tf.cast(tf.shape(samples)[0], slope.dtype)) ** 2, axis=1))
        (second,) = average(outer.gradient(penalty, [theta]), "t.second")
        return loss, first, second

    def parallel():
        def average(tensors, name):
            return averaged(comm, tensors, name)

        return gradients(x, lambda v: comm.allreduce(v, "t.mean"), lambda v: comm.allgather(v, "t.gather"), average)

    loss, first, second = (tf.function(parallel) if compiled else parallel)()
    whole = gradients(tf.constant(batch), lambda v: v, lambda v: v, lambda tensors, name: tensors)
    mean_loss = comm.allreduce(loss, "t.loss")
    np.testing.assert_allclose(mean_loss, whole[0], rtol=1e-12)
    np.testing.assert_allclose(first, whole[1], rtol=1e-10)
    np.testing.assert_allclose(second, whole[2], rtol=1e-9)
    assert np.abs(whole[1]).max() > 1e-3
    assert np.abs(whole[2]).max() > 1e-3


@pytest.mark.world_size(3)
def test_gradient_of_allgather_with_unequal_rows(comm):
    x = tf.Variable(np.arange(comm.rank + 1.0))
    weight = tf.constant(np.arange(6.0) * (comm.rank + 1))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weight * comm.allgather(x, "t.unequal") ** 2)
    start = [0, 1, 3][comm.rank]
    # The sum of the ranks' weights is (1 + 2 + 3) times arange.
    wanted = 2 * x.numpy() * 6 * np.arange(6.0)[start : start + comm.rank + 1]
    np.testing.assert_allclose(tape.gradient(loss, x), wanted)
