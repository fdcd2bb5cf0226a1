"""What happens to a training under mpirun when something goes wrong: it ends soon, says why, and goes on later.

The rows of the table in docs/reliability.md. Where a test is marked `faults`, only `make test-faults` runs it.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import sys
import time

import jobs
import pytest
from recorded import recorded
from stopping import stop_process

from hpcgan.runs import checkpoint
from hpcgan.runs import commands as control
from hpcgan.runs.directory import RunDirectory

pytest.importorskip("horovod")

SCORING = "scoring.every_epochs=100000"  # the last epoch
ENDLESS = ("training.epochs=100000", SCORING)
BOUND = 120.0  # seconds from a fault to the end of the job, on a busy machine


@pytest.fixture(scope="module", params=["horovod", pytest.param("mpi", marks=pytest.mark.faults)])
def setting(tmp_path_factory, request):
    """What happens to the ranks does not depend on what averages their gradients."""
    return jobs.make_setting(tmp_path_factory.mktemp("faults"), backend=request.param, epochs=3)


@pytest.fixture(scope="module")
def reference(setting, tmp_path_factory):
    """An undisturbed run of three epochs on two ranks."""
    run = tmp_path_factory.mktemp("reference") / "run"
    code, output = jobs.Running(setting, jobs.train_command(run)).finish()
    assert code == 0, output
    return run


@pytest.fixture(scope="module")
def survivor(setting, tmp_path_factory):
    """A run without an end to which one thing after another happens; the last test of it compares it with another."""
    return tmp_path_factory.mktemp("survivor") / "run"


def long_training(setting, run):
    """A training that does not end by itself, after its first new checkpoint."""
    before = jobs.newest_step(run)
    job = jobs.Running(setting, jobs.train_command(run, *ENDLESS))
    jobs.wait_for_step(run, before + 1, job)
    return job


def first_complaint(output):
    """The first line of the output that is a complaint."""
    return next((line for line in output.splitlines() if re.search(r"error|rank \d|Traceback|signal", line)), "")


def fail(setting, run, phase, rank, step, *args):
    """Have one rank raise an exception in a phase of a step; the job has to end and to say so."""
    fault = json.dumps({"rank": rank, "phase": phase, "step": step})
    job = jobs.Running(setting, jobs.faulty_command(run, *args), {"HPCGAN_FAULT": fault})
    code, output = job.finish(30 + BOUND)
    assert code not in (0, 75), output
    assert f"hpcgan: rank {rank}: RuntimeError: injected fault in {phase}" in first_complaint(output), output
    assert 'raise RuntimeError(f"{TEXT}' in output  # where it was raised, too


@pytest.mark.faults
@pytest.mark.parametrize(
    ("phase", "rank", "step"),
    [
        ("data", 0, 9),
        ("data", 1, 9),
        ("discriminator", 0, 0),
        ("discriminator", 1, 0),
        ("generator", 0, 0),
        ("generator", 1, 0),
        ("step", 0, 9),
        ("step", 1, 9),
        ("scoring", 0, 10),
        ("scoring", 1, 0),
        ("samples", 0, 10),
        ("checkpoint", 0, 10),
    ],
)
def test_an_exception_on_one_rank_in_any_phase(setting, reference, tmp_path, phase, rank, step):
    run = tmp_path / "run"
    fail(setting, run, phase, rank, step)
    code, output = jobs.Running(setting, jobs.train_command(run)).finish()
    assert code == 0, output
    jobs.assert_same_end(run, reference)


@pytest.mark.faults  # of the random kills below, too
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(setting, reference, tmp_path, rank):
    run = tmp_path / "run"
    job = jobs.Running(setting, jobs.train_command(run, *ENDLESS))
    jobs.wait_for_step(run, 7, job)
    job.ranks()[rank].kill()
    code, output = job.finish(BOUND)
    assert code == 128 + signal.SIGKILL, output
    assert f"rank {rank}" in output
    assert_as_if_nothing_had_been(setting, run)


def assert_as_if_nothing_had_been(setting, run):
    """A run goes on for two epochs, after which it has the bits of another one with as many."""
    before, whole = jobs.newest_step(run), run.with_name("whole")
    for path in (run, whole):
        command = jobs.train_command(path, f"training.epochs={before // 7 + 2}", SCORING)
        code, output = jobs.Running(setting, command).finish()
        assert code == 0, output
        assert (f"resuming at step {before}" in output) == (path == run)
    jobs.assert_same_end(run, whole)


def killed_many_times(setting, run, kills, seed, ranks):
    """A training without an end, started again after each of `kills` SIGKILLs of a random rank at random times.

    Most come while rank 0 writes a checkpoint beside the steps.
    """
    chance = random.Random(seed)
    for number in range(kills):
        command = jobs.faulty_command(run, *ENDLESS, ranks=ranks)
        job = jobs.Running(setting, command, {"HPCGAN_SLOW_WRITE": "0.5"})
        if chance.random() < 0.3:  # at its start, or in its first steps
            jobs.wait_for(lambda: len(job.ranks()) == ranks)  # noqa: B023
            time.sleep(chance.uniform(0.0, 8.0))
        else:
            jobs.wait_for_step(run, jobs.newest_step(run) + 1, job)
            time.sleep(chance.uniform(0.0, 0.5))
            if chance.random() < 0.8:
                jobs.wait_for(lambda: list((run / "checkpoints").glob(".step-*.tmp")))
        alive = job.ranks()
        assert alive, f"kill {number}: the job ended by itself: {job.finish()}"
        alive[chance.choice(sorted(alive))].kill()
        code, output = job.finish(BOUND)
        assert code not in (0, 75), f"kill {number}: {output}"


@pytest.mark.faults
@pytest.mark.slow
def test_a_training_killed_twenty_times_ends_as_if_nothing_had_been(setting, tmp_path):
    killed_many_times(setting, tmp_path / "run", 20, seed=20, ranks=2)
    assert_as_if_nothing_had_been(setting, tmp_path / "run")


# --- one thing after another happens to one run -----------------------------------------------------------


def test_an_exception_on_one_rank_ends_the_job_and_is_named_first(setting, survivor):
    """Between collectives of the others, while the step is being traced; in rank 0's files."""
    start = jobs.newest_step(survivor)
    fail(setting, survivor, "discriminator", 1, 0, *ENDLESS)
    fail(setting, survivor, "checkpoint", 0, start + 10, *ENDLESS)
    assert jobs.newest_step(survivor) == start + 7


def test_ranks_are_killed_at_random_times(setting, survivor):
    """Rank 1 at its start; rank 0 in the middle of an epoch, while it writes the checkpoint of the one before."""
    killed_many_times(setting, survivor, 2, seed=3, ranks=2)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.faults)])
def test_a_stopped_rank_is_named_with_the_collective_the_others_wait_in(setting, survivor, rank):
    before = jobs.newest_step(survivor)
    command = jobs.faulty_command(survivor, *ENDLESS, "comm.timeout_s=300")
    job = jobs.Running(setting, command, {"HPCGAN_PATIENCE": "0.05"})
    jobs.wait_for_step(survivor, before + 1, job)
    stop_process(job.ranks()[rank].pid)
    code, output = job.finish(15 + BOUND)
    assert code not in (0, 75), output
    (line,) = [line for line in output.splitlines() if "no progress for 15 s" in line]
    assert re.search(rf"rank {rank} does not answer .*; rank {1 - rank} is waiting in '[\w .]+' \(", line), line


@pytest.mark.faults  # test_attempt.py has another writer, test_jobs.py a launcher that is killed
def test_another_writer_is_refused_and_a_killed_launcher_leaves_nothing_behind(setting, survivor):
    """The run is paused meanwhile: the fewer its epochs, the sooner the last test has repeated them."""
    job = long_training(setting, survivor)
    control.send(RunDirectory(survivor), "pause", {})
    jobs.wait_for(lambda: [r["paused"] for r in recorded(survivor / "metrics.jsonl", "command")] == [True])
    code, output = jobs.Running(setting, jobs.train_command(survivor, *ENDLESS, ranks=1)).finish()
    assert code == 2, output
    assert re.search(r"process \d+ on .* is at work in it \(attempt \d+\)", output), output
    before = jobs.newest_step(survivor)
    control.send(RunDirectory(survivor), "resume", {})
    jobs.wait_for_step(survivor, before + 1, job)  # it has taken no harm
    job.process.kill()
    job.finish(BOUND)  # fails if a rank, or mpirun, lives on


@pytest.mark.faults
def test_a_lease_that_nobody_can_look_up_is_watched_longer_than_the_watchdog_waits(setting, reference, tmp_path):
    """The holder is of another kernel: rank 0 watches it for 35 s, the others wait for rank 0."""
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    shutil.rmtree(checkpoint.path_of(run / "checkpoints", jobs.newest_step(run)))
    holder = json.loads((run / "attempts" / "0001.json").read_text())
    holder["process"]["boot"] = "another"
    (run / "attempts" / "0001.json").write_text(json.dumps({**holder, "state": "running"}))
    _, output = jobs.Running(setting, jobs.train_command(run, "comm.timeout_s=25")).finish()
    assert "waiting up to 35 s" in output
    assert [r["attempt"] for r in recorded(run / "metrics.jsonl", "start")] == [1, 2], output
    code, output = jobs.Running(setting, jobs.train_command(run)).finish()  # a first step may take longer than 25 s
    assert code == 0, output
    jobs.assert_same_end(run, reference)


def test_it_ends_as_if_nothing_had_been(setting, survivor):
    if not survivor.exists():  # none of the tests above was selected
        killed_many_times(setting, survivor, 1, seed=2, ranks=2)
    assert_as_if_nothing_had_been(setting, survivor)


# ----------------------------------------------------------------------------------------------------------


STATELESS = (
    *("training.global_batch_size=12", "training.label_flip=0.0", "training.average_half_life=0.0"),
    *("training.dtype=float64", "model.normalisation=none", "scoring.statistics=moving", "training.rollback.limit=0"),
)


@pytest.fixture(scope="module")
def one_rank(setting, tmp_path_factory):
    """A run of two epochs of five steps on one rank, with a global batch that is fixed."""
    run = tmp_path_factory.mktemp("one") / "run"
    code, output = jobs.Running(setting, jobs.train_command(run, *STATELESS, "training.epochs=2", ranks=1)).finish()
    assert code == 0, output
    return run


def ends_as_on_one_rank(setting, run, one_rank):
    """A run goes on, on three ranks, to where that of one rank ended."""
    code, output = jobs.Running(setting, jobs.train_command(run, *STATELESS, "training.epochs=2", ranks=3)).finish()
    assert code == 0, output
    assert "on this number of ranks" not in output  # the global batch is what it was
    ours, theirs = (checkpoint.load_latest(path / "checkpoints", pytest.fail) for path in (run, one_rank))
    assert ours.step == theirs.step == 10
    for name, array in theirs.arrays.items():
        assert ours.arrays[name] == pytest.approx(array, rel=1e-6, abs=1e-9), name


@pytest.mark.faults  # parallel/test_training.py has one rank's run go on with two
def test_ranks_from_one_to_three_see_the_same_curve_with_a_fixed_global_batch(setting, one_rank, tmp_path):
    """Three ranks go on from the checkpoint that one rank has written after the first epoch."""
    run = tmp_path / "run"
    shutil.copytree(one_rank, run)
    shutil.rmtree(checkpoint.path_of(run / "checkpoints", 10))
    ends_as_on_one_rank(setting, run, one_rank)


@pytest.mark.faults
def test_four_two_and_three_ranks_see_the_same_curve_with_a_fixed_global_batch(setting, one_rank, tmp_path):
    """Each stopped in the middle of an epoch."""
    run = tmp_path / "run"
    for ranks, stop in ((4, 3), (2, 8)):
        command = jobs.faulty_command(run, *STATELESS, "training.epochs=2", ranks=ranks)
        code, output = jobs.Running(setting, command, {"HPCGAN_STOP_AT": str(stop)}).finish()
        assert code == 75, output
        assert f"stopped on request at step {stop}," in output
    ends_as_on_one_rank(setting, run, one_rank)


def test_no_rank_of_another_world_is_let_in(setting, tmp_path):
    """A rank that MPI knows nothing of, as `srun --mpi=pmi2` makes them with Open MPI."""
    env = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}
    command = [sys.executable, "-m", "hpcgan", "train", "tiny.yaml", "--run", str(tmp_path / "run")]
    code, output = jobs.Running(setting, command, env).finish()
    assert code != 0
    assert "2" in output
    assert "--mpi" in output, output
    assert not (tmp_path / "run").exists()
