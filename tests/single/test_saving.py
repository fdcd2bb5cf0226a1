"""Checkpoints that are written beside the steps: whole trainings in one process, with a writer that is held up."""

import errno
import hashlib
import os
import shutil
import threading
import time

import needs
import pytest
import tiny

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan.data.pipeline import Pipeline  # noqa: E402
from hpcgan.errors import EnvironmentFailure, HpcganError, Interrupted  # noqa: E402
from hpcgan.runs import checkpoint  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.runs.goodput import time_spent  # noqa: E402
from hpcgan.training import saving  # noqa: E402

pytestmark = pytest.mark.usefixtures("warm")
PATIENCE = 300.0
#: Two epochs of five steps.
SMALL = ("training.batch_size=12", "scoring.every_epochs=0")
ROLLBACK = ("training.rollback.limit=2", "training.rollback.rate_factor=0.25")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def train(data, folder, *overrides, stop=None):
    return tiny.train(tiny.config(data, *SMALL, *overrides), folder, stop)


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """Checkpoints after steps 5 and 10, for which the training has waited."""
    return train(data, tmp_path_factory.mktemp("reference"), "checkpoint.beside=false")


def final(run):
    return checkpoint.load_latest(run.checkpoints, pytest.fail)


def assert_same_end(ours, theirs):
    tiny.assert_same_state(final(ours), final(theirs))
    losses = [[r["losses"] for r in recorded(run.metrics_file, "epoch")] for run in (ours, theirs)]
    assert losses[0] == losses[1]


def digest(arrays):
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


class Held:
    """A writer that is held up until the training waits for it, or takes a step.

    Parameters
    ----------
    step : int
        Whose checkpoint it is.
    until : int or None
        Number of the step, from 0, at whose beginning it goes on; None: when the training waits.
    fail : BaseException or None
        What it then raises.

    Attributes
    ----------
    log : list
        What the training has done, in order: numbers of steps, and "waiting" for the held one.
    written : list of int
        Steps in the order in which their checkpoints were written.
    at_step : dict
        What else happens at the beginning of steps.
    """

    def __init__(self, monkeypatch, step, until=None, fail=None):
        self.log, self.written, self.at_step = [], [], {}
        self._step, self._until, self._fail = step, until, fail
        self._one, self._go = threading.Lock(), threading.Event()
        self._save, self._wait, self._batches = checkpoint.save, saving._Write.wait, Pipeline.rest_of_epoch
        monkeypatch.setattr(checkpoint, "save", self._written)
        monkeypatch.setattr(saving._Write, "wait", lambda write: self._waiting(write))
        monkeypatch.setattr(Pipeline, "rest_of_epoch", lambda *args: self._numbered(*args))

    def _written(self, folder, step, arrays, meta, score):
        assert threading.current_thread() is not threading.main_thread()
        assert self._one.acquire(blocking=False), "two writers at a time"
        if step == self._step:
            before = digest(arrays)
            assert self._go.wait(PATIENCE)
            assert digest(arrays) == before  # no step has changed a byte of it
            if self._fail is not None:
                raise self._fail
        path = self._save(folder, step, arrays, meta, score)
        self.written.append(step)
        self._one.release()
        return path

    def _waiting(self, write):
        if write.step == self._step and self._until is None:
            self.log.append("waiting")
            self._go.set()
        self._wait(write)

    def _numbered(self, pipeline, epoch, position, step):
        for number, batch in enumerate(self._batches(pipeline, epoch, position, step), step):
            self.log.append(number)
            self.at_step.get(number, lambda: None)()
            if number == self._until:
                self._go.set()
                until_over(self._step)
            yield batch


def until_over(step):
    """Wait until the thread of a checkpoint has ended."""
    end = time.monotonic() + PATIENCE
    while any(thread.name == f"checkpoint of step {step}" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.001)


def test_steps_go_on_beside_a_write_and_the_next_one_waits_for_it(data, reference, tmp_path, monkeypatch):
    """The second epoch is trained while the checkpoint of the first is written; the bits are the same."""
    held = Held(monkeypatch, step=5)
    run = train(data, tmp_path)
    assert held.log == [*range(10), "waiting"]
    assert held.written == [5, 10]
    assert_same_end(run, reference)
    first, second = recorded(run.metrics_file, "checkpoint")
    assert (first["step"], second["step"]) == (5, 10)
    assert 0.0 < first["seconds"] < first["write_seconds"]  # in which five steps were taken
    assert time_spent(run).seconds["checkpoint"] == pytest.approx(first["seconds"] + second["seconds"])


def test_without_it_all_wait(data, reference, tmp_path, monkeypatch):
    held = Held(monkeypatch, step=5)
    train(data, tmp_path, "checkpoint.beside=false")
    assert held.log == [*range(5), "waiting", *range(5, 10)]
    for record in recorded(reference.metrics_file, "checkpoint"):
        assert record["seconds"] > 0.9 * record["write_seconds"] > 0.0


def test_what_a_kill_in_the_middle_of_a_write_leaves_is_gone_on_from(data, reference, tmp_path, monkeypatch):
    """The files of that moment, copied: the new checkpoint has no name yet, the training is at a later step."""
    run, killed = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "killed")
    with pytest.raises(Interrupted):
        train(data, run.path, stop=tiny.StopAt(3))
    whole, reached = os.fsync, threading.Event()

    def held(descriptor):
        writer = threading.current_thread().name == "checkpoint of step 5"
        if writer and "arrays.npz" in os.readlink(f"/proc/self/fd/{descriptor}"):
            assert reached.wait(PATIENCE)
        whole(descriptor)

    def kill():
        while not list(run.checkpoints.glob(".step-5.*.tmp/arrays.npz")):
            time.sleep(0.001)
        shutil.copytree(run.path, killed.path)
        reached.set()

    monkeypatch.setattr(os, "fsync", held)
    Held(monkeypatch, step=None).at_step[7] = kill
    train(data, run.path)
    monkeypatch.undo()
    assert checkpoint.steps(killed.checkpoints) == [3]
    assert recorded(killed.metrics_file, "checkpoint")[-1]["step"] == 3
    assert_same_end(train(data, killed.path), reference)
    assert recorded(killed.metrics_file, "start")[-1]["step"] == 3
    assert list(killed.checkpoints.glob(".*")) == []
    assert_same_end(run, reference)


FULL = EnvironmentFailure("the folder: cannot write the checkpoint (No space left on device); there is no earlier one")


def test_a_write_that_fails_ends_the_training_after_the_next_step(data, tmp_path, monkeypatch):
    held = Held(monkeypatch, step=5, until=7, fail=FULL)
    with pytest.raises(HpcganError, match="cannot write the checkpoint") as error:
        train(data, tmp_path)
    assert (str(error.value), error.value.kind) == (str(FULL), "environment")
    assert held.log == [*range(8)]  # that step itself tells all ranks
    (end,) = recorded(RunDirectory(tmp_path).metrics_file, "end")
    assert (end["outcome"], end["step"]) == ("failed", 8)
    assert end["failure"] == {"kind": "environment", "text": str(FULL), "rank": None}
    assert recorded(RunDirectory(tmp_path).metrics_file, "checkpoint") == []


@pytest.mark.parametrize(
    ("step", "fail", "message"),
    [
        (5, OSError(errno.EIO, "Input/output error"), "Input/output error"),  # heard of before the next one
        (10, FULL, "cannot write the checkpoint"),  # the last one
        (5, RuntimeError("a mistake"), "a mistake"),
    ],
    ids=["before the next", "the last", "no failure that is foreseen"],
)
def test_a_write_that_fails_is_heard_of_when_it_is_waited_for(data, tmp_path, monkeypatch, step, fail, message):
    Held(monkeypatch, step=step, fail=fail)
    with pytest.raises(RuntimeError if isinstance(fail, RuntimeError) else HpcganError, match=message):
        train(data, tmp_path)
    (end,) = recorded(RunDirectory(tmp_path).metrics_file, "end")
    assert (end["outcome"], end["step"]) == ("failed", 10)
    assert checkpoint.steps(RunDirectory(tmp_path).checkpoints) == ([5] if step == 10 else [])


def test_a_stop_waits_for_the_write_under_way(data, reference, tmp_path, monkeypatch):
    held = Held(monkeypatch, step=5)
    with pytest.raises(Interrupted, match="stopped on request at step 8, checkpoint written"):
        train(data, tmp_path, stop=tiny.StopAt(8))
    assert held.log == [*range(8), "waiting"]
    assert held.written == [5, 8]
    assert_same_end(train(data, tmp_path), reference)


def test_a_rollback_waits_for_the_checkpoint_that_it_goes_back_to(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step == 7)
    held = Held(monkeypatch, step=5)
    run = train(data, tmp_path, *ROLLBACK)
    assert held.log == [*range(8), "waiting", 8, 9]
    (record,) = recorded(run.metrics_file, "rollback")
    assert (record["step"], record["to_step"]) == (8, 5)


def test_an_error_of_the_training_waits_for_the_write(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step == 7)
    Held(monkeypatch, step=5)
    with pytest.raises(HpcganError, match="non-finite at step 8 on rank 0; all ranks stopped, the last checkpoint is"):
        train(data, tmp_path)
    run = RunDirectory(tmp_path)
    assert final(run).step == 5
    assert [r["kind"] for r in recorded(run.metrics_file)[-2:]] == ["checkpoint", "end"]


@pytest.mark.parametrize("fail", [None, FULL, RuntimeError("a mistake")], ids=["whole", "full", "mistake"])
def test_another_error_is_not_hidden_by_the_write_nor_hides_it(data, tmp_path, monkeypatch, capsys, fail):
    """As an exception of one rank, or Ctrl-C twice."""

    def interrupt():
        raise KeyboardInterrupt

    Held(monkeypatch, step=5, fail=fail).at_step[7] = interrupt
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path)
    run, printed = RunDirectory(tmp_path), capsys.readouterr().err
    assert (str(fail) in printed) == (fail is not None)
    assert [r["step"] for r in recorded(run.metrics_file, "checkpoint")] == ([5] if fail is None else [])
    assert checkpoint.steps(run.checkpoints) == ([5] if fail is None else [])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint of")]


def test_none_is_due_while_one_is_written(data, reference, tmp_path, monkeypatch):
    """The interval counts from the end of the write: `checkpoint.every` never makes the training wait."""
    held = Held(monkeypatch, step=1, until=4)
    run = train(data, tmp_path, "checkpoint.every=1e-9", "checkpoint.keep=100")
    assert held.log == [*range(10)]
    assert held.written[:2] == [1, 5]
    assert_same_end(run, reference)
