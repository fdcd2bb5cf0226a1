"""What happens to a training under mpirun when something goes wrong: it ends soon, says why, and goes on later.

The rows of the table in docs/reliability.md. Where a test is marked `faults`, only `make test-faults` runs it.
"""

from __future__ import annotations

import json
import random
import re
import signal
import sys
import time

import jobs
import pytest

from hpcgan.training import checkpoint

pytest.importorskip("horovod")

ENDLESS = "training.epochs=100000"
BOUND = 60.0  # seconds from a fault to the end of the job, on a busy machine


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return jobs.make_setting(tmp_path_factory.mktemp("faults"), epochs=3)


@pytest.fixture(scope="module")
def reference(setting, tmp_path_factory):
    """An undisturbed run of three epochs on two ranks."""
    run = tmp_path_factory.mktemp("reference") / "run"
    code, output = jobs.Running(setting, jobs.train_command(run)).finish()
    assert code == 0, output
    return run


def long_training(setting, run, *args):
    """A training that does not end by itself, after its first checkpoint."""
    job = jobs.Running(setting, jobs.train_command(run, ENDLESS, *args))
    jobs.wait_for_step(run, 7, job)
    return job


def go_on(setting, run):
    """The same training to the end of its next epoch."""
    epochs = jobs.newest_step(run) // 7 + 1
    code, output = jobs.Running(setting, jobs.train_command(run, f"training.epochs={epochs}")).finish()
    assert code == 0, output


def first_complaint(output):
    """The first line of the output that is a complaint."""
    return next((line for line in output.splitlines() if re.search(r"error|rank \d|Traceback|signal", line)), "")


@pytest.mark.parametrize(
    ("phase", "rank", "step"),
    [
        ("data", 1, 9),
        ("discriminator", 1, 0),
        ("checkpoint", 0, 10),
        pytest.param("generator", 0, 0, marks=pytest.mark.faults),
        pytest.param("scoring", 1, 0, marks=pytest.mark.faults),
        pytest.param("data", 0, 9, marks=pytest.mark.faults),
        pytest.param("discriminator", 0, 0, marks=pytest.mark.faults),
        pytest.param("generator", 1, 0, marks=pytest.mark.faults),
        pytest.param("step", 0, 9, marks=pytest.mark.faults),
        pytest.param("step", 1, 9, marks=pytest.mark.faults),
        pytest.param("scoring", 0, 10, marks=pytest.mark.faults),
        pytest.param("samples", 0, 10, marks=pytest.mark.faults),
    ],
)
def test_an_exception_on_one_rank_ends_the_job_and_is_named_first(setting, reference, tmp_path, phase, rank, step):
    run = tmp_path / "run"
    fault = json.dumps({"rank": rank, "phase": phase, "step": step})
    job = jobs.Running(setting, jobs.faulty_command(run), {"HPCGAN_FAULT": fault})
    code, output = job.finish(30 + BOUND)
    assert code not in (0, 75), output
    assert f"hpcgan: rank {rank}: RuntimeError: injected fault in {phase}" in first_complaint(output), output
    assert 'raise RuntimeError(f"{TEXT}' in output  # where it was raised, too
    code, output = jobs.Running(setting, jobs.train_command(run)).finish()
    assert code == 0, output
    jobs.assert_same_end(run, reference)


@pytest.mark.faults  # of the random kills below, too
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(setting, reference, tmp_path, rank):
    run = tmp_path / "run"
    job = jobs.Running(setting, jobs.train_command(run))
    jobs.wait_for_step(run, 7, job)
    job.ranks()[rank].kill()
    code, output = job.finish(BOUND)
    assert code == 128 + signal.SIGKILL, output
    assert f"rank {rank}" in output
    code, output = jobs.Running(setting, jobs.train_command(run)).finish()
    assert code == 0, output
    jobs.assert_same_end(run, reference)


def killed_many_times(setting, run, kills, seed, ranks):
    """A training without an end, started again after each of `kills` SIGKILLs of a random rank at random times."""
    chance = random.Random(seed)
    for number in range(kills):
        job = jobs.Running(setting, jobs.train_command(run, ENDLESS, ranks=ranks))
        if chance.random() < 0.3:  # at its start, or in its first steps
            jobs.wait_for(lambda: len(job.ranks()) == ranks, 60.0)  # noqa: B023
            time.sleep(chance.uniform(0.0, 8.0))
        else:
            jobs.wait_for_step(run, jobs.newest_step(run) + 1, job)
            time.sleep(chance.uniform(0.0, 0.5))
        alive = job.ranks()
        assert alive, f"kill {number}: the job ended by itself: {job.finish()}"
        alive[chance.choice(sorted(alive))].kill()
        code, output = job.finish(BOUND)
        assert code not in (0, 75), f"kill {number}: {output}"


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=[pytest.mark.faults, pytest.mark.slow])])
def test_a_training_killed_at_random_times_ends_as_if_nothing_had_been(setting, tmp_path, kills):
    killed_many_times(setting, tmp_path / "killed", kills, seed=kills, ranks=2)
    epochs = f"training.epochs={jobs.newest_step(tmp_path / 'killed') // 7 + 3}"
    for run in ("killed", "whole"):
        code, output = jobs.Running(setting, jobs.train_command(tmp_path / run, epochs)).finish(600)
        assert code == 0, output
    jobs.assert_same_end(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_is_named_with_the_collective_the_others_wait_in(setting, tmp_path, rank):
    run = tmp_path / "run"
    job = long_training(setting, run, "comm.timeout_s=20")
    jobs.stop(job.ranks()[rank])
    stopped = time.monotonic()
    code, output = job.finish(BOUND)
    assert code not in (0, 75), output
    assert time.monotonic() - stopped < 20 + 25
    (line,) = [line for line in output.splitlines() if "no progress for 20 s" in line]
    assert re.search(rf"rank {rank} does not answer .*; rank {1 - rank} is waiting in '[\w .]+' \(", line), line
    go_on(setting, run)


def test_a_killed_launcher_leaves_nothing_behind(setting, tmp_path):
    run = tmp_path / "run"
    job = long_training(setting, run)
    job.process.kill()
    job.finish(BOUND)  # fails if a rank, or mpirun, lives on
    go_on(setting, run)


def test_another_writer_is_refused_while_a_run_is_alive(setting, tmp_path):
    run = tmp_path / "run"
    job = long_training(setting, run)
    code, output = jobs.Running(setting, jobs.train_command(run, ENDLESS)).finish()
    assert code == 2, output
    assert re.search(r"process \d+ on .* is at work in it \(attempt 1\)", output), output
    job.process.terminate()
    assert job.finish()[0] == 75


def test_ranks_from_one_to_three_see_the_same_curve_with_a_fixed_global_batch(tmp_path):
    """4, then 2, then 3 ranks, each time in the middle of an epoch, against one rank all the way."""
    setting = jobs.make_setting(
        tmp_path, epochs=4, global_batch_size=12, label_flip=0.0, average_half_life=0.0, dtype="float64"
    )
    steps = ("model.normalisation=none", "scoring.statistics=moving", "training.rollback.limit=0")
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    code, output = jobs.Running(setting, jobs.train_command(whole, *steps, ranks=1)).finish()
    assert code == 0, output
    for ranks, stop in ((4, 3), (2, 8)):
        fault = {"HPCGAN_STOP_AT": str(stop)}
        code, output = jobs.Running(setting, jobs.faulty_command(pieces, *steps, ranks=ranks), fault).finish()
        assert code == 75, output
        assert f"stopped on request at step {stop}," in output
    code, output = jobs.Running(setting, jobs.train_command(pieces, *steps, ranks=3)).finish()
    assert code == 0, output
    assert "on this number of ranks" not in output  # the global batch is what it was
    ours, theirs = (checkpoint.load_latest(run / "checkpoints", pytest.fail) for run in (pieces, whole))
    assert ours.step == theirs.step == 20
    for name, array in theirs.arrays.items():
        assert ours.arrays[name] == pytest.approx(array, rel=1e-6, abs=1e-9), name


def test_no_rank_of_another_world_is_let_in(setting, tmp_path):
    """A rank that MPI knows nothing of, as `srun --mpi=pmi2` makes them with Open MPI."""
    env = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}
    command = [sys.executable, "-m", "hpcgan", "train", "tiny.yaml", "--run", str(tmp_path / "run")]
    code, output = jobs.Running(setting, command, env).finish()
    assert code != 0
    assert "2" in output
    assert "--mpi" in output, output
    assert not (tmp_path / "run").exists()
