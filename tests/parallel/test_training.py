"""Training on several ranks: the same gradients, the same bits, stopped and failed together."""

import errno
import functools
import re
import shutil
import threading

import h5py
import needs
import numpy as np
import pytest
import tiny
from one_rank import averaged

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.data.pipeline import Pipeline  # noqa: E402
from hpcgan.errors import HpcganError, InputError, Interrupted  # noqa: E402
from hpcgan.evaluation.epoch import Scorer  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.sampler import Sampler  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.problems.calorimeter.calogan import CaloganModel, CaloganProblem  # noqa: E402
from hpcgan.problems.calorimeter.shares import Shares  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402
from hpcgan.problems.detector_images.spectrum import Spectrum  # noqa: E402
from hpcgan.runs import (  # noqa: E402
    checkpoint,
)
from hpcgan.runs import commands as control  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.runs.lease import attempt_state  # noqa: E402
from hpcgan.training import attempt, requests  # noqa: E402
from hpcgan.training.requests import StopRequest  # noqa: E402
from hpcgan.training.saving import Saving  # noqa: E402

pytestmark = pytest.mark.usefixtures("warm")
BATCH = 4


@pytest.fixture(scope="module")
def comm(comm_of):
    return comm_of("horovod")


def shared_folder(comm, tmp_path_factory, name):
    """A folder that all ranks know."""
    path = tmp_path_factory.mktemp(name) if comm.is_root else None
    from pathlib import Path

    return Path(comm.broadcast_json(str(path)))


@pytest.fixture(scope="module")
def data(comm, tmp_path_factory):
    folder = shared_folder(comm, tmp_path_factory, "data")
    if comm.is_root:
        tiny.write_data(folder)
    comm.barrier()
    return folder


@pytest.fixture(scope="module")
def whole(comm, data, tmp_path_factory):
    """A training of two epochs that nothing has happened to."""
    folder = shared_folder(comm, tmp_path_factory, "whole")
    _train(comm, data, folder)
    return folder


def _gradients(comm, size, first, n):
    """Averaged gradients of both networks for samples first ... first + n - 1 of a global batch."""
    problem = RpvProblem(RpvModel(filters=2, latent_dim=3, normalisation="none"))
    gan = Gan(problem, GanSettings(batch_size=n, dtype="float64"), comm, seed=1)
    everything = problem.encode({"hist": tiny.images(size * BATCH).astype(np.float64)})["hist"]
    real = {"hist": tf.constant(everything[first : first + n])}
    draws = gan.draws(0, first, n)
    with tf.GradientTape() as tape:
        fake = gan.networks["generator"](tf.constant(draws["noise"]), {}, training=True)
    d_gradients, *_ = gan.discriminator_gradients(real, fake, tf.constant(0.0, tf.float64))
    g_gradients, _ = gan.generator_gradients(fake, tape)
    return [g.numpy() for g in averaged(comm, [*d_gradients, *g_gradients], "gradients")]


@pytest.mark.world_size(2)
def test_two_ranks_have_the_gradients_of_one_with_the_whole_batch(comm):
    ours = _gradients(comm, comm.size, comm.rank * BATCH, BATCH)
    whole = _gradients(SerialComm(), comm.size, 0, comm.size * BATCH)
    for mine, theirs in zip(ours, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12 * np.abs(theirs).max())
        assert np.abs(theirs).max() > 0


@pytest.mark.world_size(3)
def test_three_ranks_too(comm):
    test_two_ranks_have_the_gradients_of_one_with_the_whole_batch(comm)


def _train(comm, data, folder, *overrides, stop=None):
    attempt.train(tiny.config(data, *overrides), RunDirectory(folder), comm, stop or StopRequest())


class VerdictAt(StopRequest):
    """Never asks to stop; when it is looked at for the n-th time, in step n, somebody has decided the run's end."""

    def __init__(self, step, run):
        self._left, self._run = step, run

    @property
    def requested(self):
        self._left -= 1
        if self._left == 0:
            self._run.verdict_file.write_text('{"reason": "too bad"}')


@pytest.mark.world_size(2)
def test_a_verdict_ends_all_ranks_after_the_epoch_in_which_it_came(comm, data, whole, tmp_path_factory):
    """Epochs are 7 steps. Each rank returns, none waits for another; started again, the run is still ended."""
    run = RunDirectory(shared_folder(comm, tmp_path_factory, "verdict"))
    stop = VerdictAt(10 if comm.is_root else 1000, run)
    for _ in range(2):
        best = attempt.train(tiny.config(data, "training.epochs=5"), run, comm, stop)
        assert best["epoch"] <= 2
        assert comm.broadcast_json(comm.gather_json(best)) == [best] * 2
    if comm.is_root:
        found = recorded(run.metrics_file)
        assert [r["epoch"] for r in found if r["kind"] == "epoch"] == [1, 2]
        assert [r["outcome"] for r in found if r["kind"] == "end"] == ["pruned", "pruned"]
        assert attempt_state(run) == "pruned"
        assert checkpoint.steps(run.checkpoints)[-1] == 14
        ours, theirs = (checkpoint.load_latest(p / "checkpoints", pytest.fail) for p in (run.path, whole))
        for name, array in theirs.arrays.items():
            np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)


class CommandsAt(StopRequest):
    """Never asks to stop; sends commands when it is looked at for the n-th time, in a pause as in a step."""

    def __init__(self, run, sent):
        self._left, self._run, self._sent = 0, run, sent

    @property
    def requested(self):
        self._left += 1
        for name, rates in self._sent.get(self._left, []):
            control.send(self._run, name, rates)


@pytest.mark.world_size(2)
@pytest.mark.parametrize("backend", ["mpi", pytest.param("horovod", marks=pytest.mark.faults)])
def test_commands_reach_all_ranks_in_the_same_step(comm_of, data, tmp_path_factory, monkeypatch, backend):
    """A pause, rates that are set in it, more rates later: the bits are those of a schedule with the same rates."""
    comm = comm_of(backend)
    monkeypatch.setattr(requests, "Inbox", functools.partial(control.Inbox, every=0.0))
    monkeypatch.setattr(requests, "PAUSED_S", 0.01)
    run = RunDirectory(shared_folder(comm, tmp_path_factory, f"commands-{backend}"))
    whole = shared_folder(comm, tmp_path_factory, f"scheduled-{backend}")
    sent = {3: [("pause", {})], 8: [("set", {"generator": 0.01})], 12: [("resume", {})],
            17: [("set", {"generator": 3e-4, "discriminator": 0.02})]}  # fmt: skip
    attempt.train(tiny.config(data), run, comm, CommandsAt(run, sent if comm.is_root else {}))
    changes = "[{step: 3, rates: {generator: 0.01}}, {step: 8, rates: {generator: 3.0e-4, discriminator: 0.02}}]"
    _train(comm, data, whole, f"training.schedule.changes={changes}")
    if not comm.is_root:
        return
    found = recorded(run.metrics_file, "command")
    assert [(r["name"], r["step"]) for r in found] == [("pause", 3), ("set", 3), ("resume", 3), ("set", 8)]
    rates = {"generator": 3e-4, "discriminator": 0.02}
    assert found[1]["learning_rates"] == [{"generator": 0.01, "discriminator": 1e-4}] * 2  # of both ranks
    assert found[3]["learning_rates"] == [rates] * 2
    ours, theirs = (checkpoint.load_latest(p / "checkpoints", pytest.fail) for p in (run.path, whole))
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)


@pytest.fixture(scope="module")
def interrupted(comm, data, tmp_path_factory):
    """A run after 3 steps and after 7: one rank is asked to stop, each time another one, in an epoch and at its end."""
    run, stages = shared_folder(comm, tmp_path_factory, "pieces"), shared_folder(comm, tmp_path_factory, "stages")
    for rank, steps, reached in ((1, 3, 3), (0, 4, 7)):
        with pytest.raises(Interrupted, match="checkpoint written"):
            _train(comm, data, run, stop=tiny.StopAt(steps) if comm.rank == rank else None)
        if comm.is_root:
            shutil.copytree(run, stages / str(reached))
        comm.barrier()
    return stages


def assert_whole(run, whole):
    """A run has the bits, the counters and the scores of the one that nothing has happened to."""
    ours, theirs = (checkpoint.load_latest(f / "checkpoints", pytest.fail) for f in (run, whole))
    assert ours.step == theirs.step == 14
    assert ours.meta == theirs.meta
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)
    scores = [[r["score"] for r in recorded(f / "metrics.jsonl", "epoch")] for f in (run, whole)]
    assert scores[0] == scores[1]


@pytest.mark.world_size(2)
def test_rank_0_decides_when_a_checkpoint_is_due_and_both_write_it_at_the_same_step(
    comm, data, whole, tmp_path_factory
):
    run = shared_folder(comm, tmp_path_factory, "due")
    _train(comm, data, run, "checkpoint.every=1e-9", "checkpoint.keep=100", "checkpoint.beside=false")
    if comm.is_root:
        assert checkpoint.steps(run / "checkpoints") == list(range(1, 15))
        assert_whole(run, whole)


@pytest.mark.world_size(2)
@pytest.mark.parametrize("backend", ["horovod", "mpi"])
def test_checkpoints_beside_the_steps_change_no_bits_and_one_that_fails_ends_both_ranks(
    comm_of, data, whole, tmp_path_factory, monkeypatch, backend
):
    """Rank 0 writes that of step 3 until step 6 begins; that of step 10 fails when step 12 begins."""
    comm = comm_of(backend)
    run = shared_folder(comm, tmp_path_factory, f"beside-{backend}")
    save, batches, go = checkpoint.save, Pipeline.rest_of_epoch, {3: threading.Event(), 10: threading.Event()}
    reached = [0]

    def held(folder, step, *args):
        assert step not in go or go[step].wait(300.0)
        if step == 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(folder, step, *args)

    def opening(self, epoch, position, step):
        for number, batch in enumerate(batches(self, epoch, position, step), step):
            reached[0] = number
            if number in (5, 11):
                go[3 if number == 5 else 10].set()
            yield batch

    def due(self):  # before steps 3 and 10, and after them
        if self._write is not None and self._write.step == 7:  # of the epoch's end: slower than steps
            self._write.wait()
            self.look()
        return self._pace is not None and self._write is None and self._state.counters.step in (2, 3, 9, 10)

    monkeypatch.setattr(checkpoint, "save", held)
    monkeypatch.setattr(Pipeline, "rest_of_epoch", opening)
    monkeypatch.setattr(Saving, "due", due)
    with pytest.raises(HpcganError, match="No space left on device") as error:
        _train(comm, data, run)
    assert error.value.collective
    assert comm.broadcast_json(comm.gather_json(reached[0])) == [reached[0]] * 2
    assert reached[0] in (11, 12, 13)
    if comm.is_root:
        assert [r["step"] for r in recorded(run / "metrics.jsonl", "checkpoint")] == [3, 7]
    monkeypatch.undo()
    _train(comm, data, run)
    if comm.is_root:
        assert_whole(run, whole)


def copied(comm, run, tmp_path_factory):
    """A copy of a run that all ranks know."""
    copy = shared_folder(comm, tmp_path_factory, "copy") / "run"
    if comm.is_root:
        shutil.copytree(run, copy)
    comm.barrier()
    return copy


@pytest.mark.faults  # the one below is harder
@pytest.mark.usefixtures("cold")
@pytest.mark.world_size(2)
def test_an_interrupted_run_of_two_ranks_ends_with_the_same_bits(comm, data, whole, interrupted, tmp_path_factory):
    run = copied(comm, interrupted / "7", tmp_path_factory)
    _train(comm, data, run)
    if comm.is_root:
        assert_whole(run, whole)


@pytest.mark.faults  # of steps over both there is a test in test_step.py, of commands over mpi4py one above
@pytest.mark.world_size(2)
def test_a_training_over_mpi4py_ends_with_the_same_bits(comm_of, data, whole, tmp_path_factory):
    """Scores, checkpoints and an interruption included: it goes on over the other backend."""
    horovod, mpi = comm_of("horovod"), comm_of("mpi")
    pieces = shared_folder(horovod, tmp_path_factory, "mpi")
    with pytest.raises(Interrupted):
        _train(mpi, data, pieces, stop=tiny.StopAt(5))
    _train(mpi, data, pieces)
    if horovod.is_root:
        ours, theirs = (checkpoint.load_latest(f / "checkpoints", pytest.fail) for f in (pieces, whole))
        assert ours.meta == theirs.meta
        for name, array in theirs.arrays.items():
            np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)


@pytest.mark.usefixtures("cold")
@pytest.mark.world_size(2)
def test_what_another_rank_sees_in_the_run_directory_does_not_matter(comm, data, whole, interrupted, tmp_path_factory):
    """Rank 1 looks into a stale copy, with a checkpoint of another step: all go on from what rank 0 read."""
    run, stale = (copied(comm, interrupted / step, tmp_path_factory) for step in ("7", "3"))
    _train(comm, data, run if comm.is_root else stale)
    if comm.is_root:
        assert_whole(run, whole)
        assert checkpoint.steps(stale / "checkpoints") == [3]


@pytest.mark.world_size(2)
def test_rollbacks_are_decided_by_all_ranks_together(comm, data, tmp_path_factory, monkeypatch):
    folder = shared_folder(comm, tmp_path_factory, "rollback")
    tiny.spoil(monkeypatch, lambda step: step == 9 and comm.rank == 1)
    _train(comm, data, folder, "training.rollback.limit=1")  # ends with a check that all ranks hold the same bits
    if comm.is_root:
        (record,) = recorded(folder / "metrics.jsonl", "rollback")
        assert (record["step"], record["to_step"]) == (10, 7)
        assert "on rank 1" in record["reason"]
        assert checkpoint.load_latest(folder / "checkpoints", pytest.fail).meta["rollbacks"] == 1


@pytest.mark.world_size(2)
def test_a_nan_on_one_rank_stops_all_and_is_named(comm, data, tmp_path_factory, monkeypatch):
    folder = shared_folder(comm, tmp_path_factory, "nan")
    tiny.spoil(monkeypatch, lambda step: step == 9 and comm.rank == 1)
    with pytest.raises(HpcganError, match="non-finite at step 10 on rank 1; all ranks stopped"):
        _train(comm, data, folder)
    if comm.is_root:
        assert checkpoint.steps(folder / "checkpoints") == [7]


@pytest.mark.world_size(2)
def test_a_rank_that_went_astray_is_noticed_before_a_checkpoint(comm, data, tmp_path_factory, monkeypatch):
    folder = shared_folder(comm, tmp_path_factory, "astray")
    step = Gan.step

    def astray(self, *args, **kwargs):
        result = step(self, *args, **kwargs)
        if comm.rank == 1:
            self.networks["generator"].weights[0].assign_add(1e-7 * tf.ones_like(self.networks["generator"].weights[0]))
        return result

    monkeypatch.setattr(Gan, "step", astray)
    with pytest.raises(HpcganError, match=r"ranks \[1\] hold other weights than rank 0 at step 7"):
        _train(comm, data, folder)
    if comm.is_root:
        assert checkpoint.steps(folder / "checkpoints") == []


@pytest.mark.world_size(2)
def test_bad_input_that_one_rank_sees_is_an_input_error_on_all(comm, data, tmp_path_factory):
    folder = shared_folder(comm, tmp_path_factory, "absent")
    path = data if comm.rank == 0 else data / "not-there"
    with pytest.raises(InputError, match=r"rank 1: .*not-there/train.h5: no such file"):
        attempt.train(tiny.config(path), RunDirectory(folder / "run"), comm, StopRequest())
    assert not (folder / "run").exists()


@pytest.mark.world_size(2)
def test_a_run_of_one_rank_goes_on_with_two(comm, data, tmp_path_factory):
    folder = shared_folder(comm, tmp_path_factory, "grown")
    if comm.is_root:
        with pytest.raises(Interrupted):
            _train(SerialComm(), data, folder, stop=tiny.StopAt(6))  # 24 of 60 samples
    comm.barrier()
    _train(comm, data, folder)
    if comm.is_root:
        first = recorded(folder / "metrics.jsonl", "epoch")[0]
        assert first["samples"] == 24 + 4 * 8  # the rest of the epoch, no sample twice
        assert first["step"] == 6 + 4


@pytest.mark.world_size(3)
def test_ranks_that_share_the_measurement_of_a_spectrum_find_the_same(comm, monkeypatch):
    monkeypatch.setattr(Spectrum, "samples", 5 * BATCH)  # batches are not alike on all ranks
    detector = {"architecture": "detector", "latent_dim": 3, "filters": 2, "pixel_noise": True, "pixel_pt": "matched"}
    problem = RpvProblem(RpvModel(**detector))
    network = Gan(problem, GanSettings(batch_size=BATCH), SerialComm(), seed=1).networks["generator"]
    ours, alone = (Sampler(problem, network, statistics="moving", batch_size=BATCH) for _ in range(2))
    ours.measure(comm)
    np.testing.assert_array_equal(ours.table, alone.table)
    assert np.ptp(alone.table) > 0


@pytest.mark.world_size(3)
def test_ranks_that_share_the_measurement_of_showers_find_the_same(comm, monkeypatch):
    monkeypatch.setattr(Shares, "samples", 5 * BATCH)
    model = CaloganModel(segmentation="2x4,2x2,2x1", latent_dim=3, cell_encoding="log", cell_energies="matched")
    problem = CaloganProblem(model)
    network = Gan(problem, GanSettings(batch_size=BATCH), SerialComm(), seed=1).networks["generator"]
    rng = np.random.default_rng(1)
    batch = {f"layer_{i}": rng.exponential(0.5, (60, *shape)) for i, shape in enumerate(model.shapes)}
    batch["energy"] = rng.uniform(1.0, 90.0, 60)
    network.calibrate([{name: tf.constant(values, tf.float32) for name, values in batch.items()}])
    ours, alone = (Sampler(problem, network, statistics="moving", batch_size=BATCH) for _ in range(2))
    ours.measure(comm)
    np.testing.assert_array_equal(ours.table, alone.table)
    assert all(np.ptp(table) > 0 for table in alone.table.numpy())


@pytest.mark.world_size(3)
@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2.0, 20)], ids=["plain", "weighted"])
def test_the_score_does_not_depend_on_the_number_of_ranks(comm, data, weights, monkeypatch):
    problem = RpvProblem(RpvModel(filters=2, latent_dim=3))
    source = problem.open(data, "val")
    monkeypatch.setattr(source, "weights", lambda: weights)
    gan = Gan(problem, GanSettings(batch_size=BATCH), SerialComm(), seed=1)
    sampler = Sampler(problem, gan.networks["generator"], statistics="moving", batch_size=BATCH)

    def generate(epoch, index, conditions):
        assert conditions == {}
        made = sampler.batch(1, "score", epoch, index)
        return {"hist": made["hist"] * np.float32(0.2)}

    ours, alone = (Scorer(problem, source, c, 18, BATCH, samples=2)(generate, 1) for c in (comm, SerialComm()))
    assert ours == alone
    assert ours.selection is None
    ours = ours.score
    assert ours.n == 18
    assert ours.total == pytest.approx(np.mean(ours.details["samples"]))
    assert ours.total == pytest.approx(sum(ours.parts.values()))
    single = Scorer(problem, source, comm, 18, BATCH)(generate, 1).score
    assert single.total == ours.details["samples"][0]
    quantities = ["jet_pt", "pixel_energy", "eta_correlation_1"]
    selecting, by_itself = (
        Scorer(problem, source, c, 18, BATCH, 2, quantities)(generate, 1) for c in (comm, SerialComm())
    )
    assert selecting == by_itself
    assert selecting.score == ours
    assert list(selecting.selection.parts) == quantities
    assert selecting.selection.parts["jet_pt"] == ours.parts["jet_pt"]


@pytest.mark.world_size(2)
def test_ranks_that_read_different_files_are_named_and_nothing_is_written(comm, data, tmp_path_factory):
    """As nodes do whose local copies are not of the same age."""
    folder = shared_folder(comm, tmp_path_factory, "run") / "run"
    mine = tmp_path_factory.mktemp(f"node{comm.rank}") / "data"
    shutil.copytree(data, mine)
    run = RunDirectory(folder)
    if comm.rank == 1:
        with h5py.File(mine / "val.h5", "r+") as file:
            file["all_events/hist"][3] *= 2
    with pytest.raises(InputError) as error:
        attempt.train(tiny.config(mine), run, comm, StopRequest())
    assert re.match(
        r"rank 1: .*/val.h5 on \S+: holds other data than rank 0 reads \(other values of ", str(error.value)
    )
    comm.barrier()
    assert not folder.exists()
    if comm.rank == 1:
        shutil.copy(data / "val.h5", mine / "val.h5")
    attempt.train(tiny.config(mine, "training.epochs=1"), run, comm, StopRequest())  # the same, each from its own place
    assert len(recorded(run.metrics_file, "epoch")) == 1
