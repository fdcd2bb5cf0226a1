"""The parts of a campaign of faults: what is drawn, whom it hits, what it does to files, what the verdict sees."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hpcgan.chaos import daemons, faults, processes, slurm_faults, verdict
from hpcgan.chaos.faults import Scene
from hpcgan.chaos.plan import plan
from hpcgan.chaos.processes import MARK, marked, role_of
from hpcgan.chaos.subject import Training
from hpcgan.errors import InputError
from hpcgan.runs import checkpoint, records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease
from hpcgan.system.liveness import Identity


def drawn_plan(seed, failures=400):
    kinds = faults.choose([], faults.LOCAL)
    return [(p.after_s, p.fault.name, p.chance.random()) for p in plan(kinds, failures, 20.0, seed)]


def test_a_seed_says_when_which_fault_comes():
    one = drawn_plan(1)
    assert one == drawn_plan(1)
    assert one[:10] == drawn_plan(1, failures=10)  # a longer campaign begins as a shorter one
    assert one != drawn_plan(2)
    waits = np.array([after_s for after_s, _, _ in one])
    # An exponential distribution has mean and standard deviation 20 s; 400 draws have it to 1 s each.
    assert waits.mean() == pytest.approx(20.0, abs=4.0)
    assert waits.std() == pytest.approx(20.0, abs=5.0)
    assert {name for _, name, _ in one} == set(faults.LOCAL)


def test_a_fault_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"--faults kill-rnk: choose of kill-rank, .*did you mean 'kill-rank'\?"):
        faults.choose(["kill-rnk"], faults.LOCAL)
    assert {"kill-slurmd", "kill-slurmctld", "requeue-job"} <= set(slurm_faults.SLURM) - set(faults.LOCAL)


@pytest.mark.parametrize(
    ("argv", "env", "role"),
    [
        ("python -m hpcgan train c.yaml --run r --ranks 2", {}, ("launcher", None)),
        ("python -m hpcgan train c.yaml --run r", {}, ("rank", 0)),
        ("python -m hpcgan supervise -- train c.yaml", {}, ("supervisor", None)),
        ("/opt/bin/mpirun -np 2 sh -c x python -m hpcgan.launch.rank_shim hpcgan", {}, ("mpirun", None)),
        ("srun --ntasks=2 sh -c x", {}, ("srun", None)),
        ("python -m hpcgan.launch.rank_shim hpcgan train", {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"},
         ("rank", 3)),
        ("python -m hpcgan.launch.rank_shim hpcgan train",
         {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, ("rank", 1)),
        ("python -m hpcgan sweep c.yaml --trials 3", {}, ("coordinator", None)),
        ("python -m hpcgan.sweep.trial study 1 --cores 0", {}, ("trial", None)),
        ("python -m hpcgan submit c.yaml --wait", {}, ("other", None)),
        ("grep --text", {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, ("other", None)),
    ],
)  # fmt: skip
def test_roles(argv, env, role):
    assert role_of(tuple(argv.split()), env) == role


def test_a_rank_under_srun_is_known_by_what_proc_says(tmp_path):
    """Its variables end in an empty one there."""
    mark = secrets.token_hex(8)
    (tmp_path / "waiter.py").write_text("print('up', flush=True); input()")
    world = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", MARK: mark}
    env = {**os.environ, **world, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "hpcgan.launch.rank_shim", "waiter"]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        assert [(p.role, p.rank) for p in marked(mark)] == [("rank", 1)]
        process.communicate(b"\n")


@pytest.fixture
def ranks(tmp_path):
    """Two processes that look like ranks of a campaign and write a file when told to, and one of somebody else."""
    mark = secrets.token_hex(8)
    program = "import sys; print('up', flush=True); sys.stdin.readline(); "
    program += "f = open(sys.argv[1], 'w'); f.write('x'); f.flush()"
    (tmp_path / "writer.py").write_text(program)
    started = []
    for rank, own in ((0, mark), (1, mark), (0, "another")):
        env = {**os.environ, MARK: own, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(rank)}
        env["PYTHONPATH"] = f"{tmp_path}:{env.get('PYTHONPATH', '')}"
        command = [sys.executable, "-m", "hpcgan.launch.rank_shim", "writer", str(tmp_path / f"{rank}-{own}")]
        started.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL))  # fmt: skip
    for process in started:
        assert process.stdout.readline() == b"up\n"
    yield mark, started
    for process in started:
        process.kill()
        process.communicate()


def of_runs(problems_of, run, reference):
    return problems_of(run.path, reference.path)


def scene_of(run, mark, later=None):
    return Scene(Training(run.path), lambda: marked(mark), lambda s, action: later.append(action), longest_stop=1.0)


def comes_to(pid, expected):
    end = time.monotonic() + 30
    while not expected(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_faults_hit_processes_of_the_campaign_only(ranks, tmp_path):
    mark, (first, second, stranger) = ranks
    assert [(p.pid, p.role, p.rank) for p in marked(mark)] == [(first.pid, "rank", 0), (second.pid, "rank", 1)]
    later: list = []
    scene = scene_of(RunDirectory(tmp_path), mark, later)
    assert faults.LOCAL["full-disk"].strike(scene, random.Random(1))["pid"] == first.pid
    first.stdin.write(b"\n")
    first.stdin.flush()
    assert first.wait(30) == 1  # of an OSError
    assert (tmp_path / f"0-{mark}").stat().st_size == 0
    assert faults.LOCAL["stop-rank"].strike(scene, random.Random(1))["rank"] == 1
    comes_to(second.pid, lambda state: state == "T")  # a signal takes its time, on another core
    later[0]()
    comes_to(second.pid, lambda state: state != "T")
    assert faults.LOCAL["kill-rank"].strike(scene, random.Random(1))["pid"] == second.pid
    assert second.wait(30) == -signal.SIGKILL
    assert marked(mark) == []
    assert not faults.LOCAL["kill-rank"].ready(scene)
    assert later[0]() is False  # the process of that number is gone
    assert stranger.poll() is None


def test_shared_memory_that_a_process_maps_is_known():
    memory = Path("/dev/shm") / f"hpcgan-test-{os.getpid()}"
    program = f"import mmap; f = open({str(memory)!r}, 'wb+'); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096); "
    program += "print('up', flush=True); input()"
    mark = secrets.token_hex(8)
    with subprocess.Popen([sys.executable, "-c", program], env={**os.environ, MARK: mark}, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == b"up\n"
            assert processes.outside_files(marked(mark)) == {memory}
        finally:
            process.kill()
            memory.unlink(missing_ok=True)


# --- files ------------------------------------------------------------------------------------------------


def make_run(folder, epochs=3, weights=1.0):
    """A run of epochs of two steps that is done."""
    run = RunDirectory(folder)
    for path in (run.path, run.checkpoints, run.attempts):
        path.mkdir(parents=True, exist_ok=True)
    run.config_file.write_text("training: {epochs: 3}\n")
    lease = Lease(run)
    writer = records.Writer(run.metrics_file, lease.attempt)
    writer.write(records.Start(step=0))
    for epoch in range(1, epochs + 1):
        writer.write(records.Epoch(step=2 * epoch, epoch=epoch, losses={"d": epoch * weights}))
        checkpoint.save(run.checkpoints, 2 * epoch, {"w": np.full(9, weights * epoch)}, {"n": epoch}, None)
    writer.write(records.Step(step=2 * epochs + 1, samples=1, epoch=epochs + 0.5))
    writer.write(records.End(step=2 * epochs, outcome="done"))
    writer.close()
    lease.release("done")
    return run


@pytest.mark.parametrize("name", ["cut-checkpoint", "flip-checkpoint"])
def test_a_damaged_checkpoint_is_noticed_and_an_intact_one_stays(tmp_path, name):
    run = make_run(tmp_path)
    fault, scene = faults.LOCAL[name], scene_of(run, "none")
    for newest in (4, 2):
        assert fault.ready(scene)
        assert fault.strike(scene, random.Random(newest))["file"].startswith(f"checkpoints/step-00000000{newest + 2}")
        warnings: list[str] = []
        assert checkpoint.load_latest(run.checkpoints, warnings.append).step == newest
        assert warnings
    assert not fault.ready(scene)
    assert fault.strike(scene, random.Random(1)) is None


def test_a_torn_record_is_none_that_a_checkpoint_holds(tmp_path):
    run = make_run(tmp_path)
    scene, before = scene_of(run, "none"), run.metrics_file.read_bytes()
    last = before.splitlines(keepends=True)[-1]
    assert "added" in faults.LOCAL["torn-record"].strike(scene, random.Random(1))
    after = run.metrics_file.read_bytes()
    assert after.startswith(before)
    assert last.startswith(after[len(before) :])
    run.metrics_file.write_bytes(before[: -len(last)])  # the last record now is of a step beyond the checkpoint
    assert "cut" in faults.LOCAL["torn-record"].strike(scene, random.Random(1))
    assert len(records.read(run.metrics_file, records.Epoch)) == 3
    assert records.read(run.metrics_file, records.Step) == []


def test_a_lease_of_a_process_that_nobody_can_look_up(tmp_path):
    run = make_run(tmp_path)
    fault, scene = faults.LOCAL["lease"], scene_of(run, "none")
    file = run.attempts / "0001.json"
    contents = set()
    for seed in range(20):
        contents.add(fault.strike(scene, random.Random(seed))["content"])
        holder = json.loads(file.read_text() or '{"state": "running"}')
        assert holder["state"] == "running"
    assert contents == {"empty", "another host"}


def test_files_in_the_making_lie_about_until_the_next_attempt(tmp_path):
    run = make_run(tmp_path)
    names = faults.LOCAL["stale-files"].strike(scene_of(run, "none"), random.Random(1))["files"]
    assert len(names) == 3
    assert all((run.path / name).exists() for name in names)
    Lease(run).release("done")
    checkpoint.prune(run.checkpoints, 2, None)
    assert not any((run.path / name).exists() for name in names)


# --- verdict ----------------------------------------------------------------------------------------------


def test_the_same_is_the_same(tmp_path):
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other")
    assert of_runs(verdict.different_bits, one, other) == []
    assert of_runs(verdict.lost_epochs, one, other) == []
    assert of_runs(verdict.stray_files, one, other) == []


def test_what_differs_is_named(tmp_path):
    reference = make_run(tmp_path / "reference")
    assert of_runs(verdict.different_bits, make_run(tmp_path / "a", weights=2.0), reference) == ["array w"]
    assert of_runs(verdict.different_bits, make_run(tmp_path / "b", epochs=2), reference) == [
        "the newest checkpoint is of step 4, not 6"
    ]
    assert of_runs(verdict.lost_epochs, make_run(tmp_path / "c", epochs=2), reference) == [
        "epoch 3 is recorded 0 times"
    ]
    twice = make_run(tmp_path / "d")
    lines = twice.metrics_file.read_text().splitlines(keepends=True)
    twice.metrics_file.write_text("".join([*lines[:2], lines[1], *lines[2:]]))
    assert of_runs(verdict.lost_epochs, twice, reference) == ["epoch 1 is recorded 2 times"]
    other = make_run(tmp_path / "e", weights=2.0)
    assert of_runs(verdict.lost_epochs, other, reference)[0] == "epoch 1 has another losses"
    (other.attempts / "0001.beat").touch()
    (other.checkpoints / "step-000000004-1").mkdir()  # saved again: as others
    assert of_runs(verdict.stray_files, other, reference) == ["attempts/0001.beat is left"]
    damaged = make_run(tmp_path / "f")
    (checkpoint.path_of(damaged.checkpoints, 6) / "arrays.npz").write_bytes(b"")
    problems = of_runs(verdict.different_bits, damaged, reference)
    assert len(problems) == 2
    assert "does not match its checksum" in problems[0]


def test_faults_are_counted_by_kind():
    entries = [
        {"event": "fault", "number": 1, "fault": "stop-rank"},
        {"event": "fault", "number": 2, "fault": "kill-rank"},
        {"event": "end", "code": 137, "faults": [1, 2]},
        {"event": "fault", "number": 3, "fault": "stop-rank"},
        {"event": "end", "code": 0, "faults": [3]},
    ]
    assert verdict.by_kind(entries) == {
        "kill-rank": {"injected": 1, "ended": 1},
        "stop-rank": {"injected": 2, "ended": 0},
    }


def test_daemons_of_others_are_left_alone(monkeypatch):
    assert daemons.own_daemons({}) == []
    assert daemons.own_daemons({"SLURM_CONF": "/nonexistent/slurm.conf"}) == []
    with pytest.raises(InputError, match="works only on a cluster whose slurmctld and slurmd are yours"):
        daemons.check_own({"SLURM_CONF": "/nonexistent/slurm.conf"})
    own = [daemons.Daemon(Identity.own(), name, (), {}, Path()) for name in (daemons.CONTROLLER, daemons.NODE)]
    monkeypatch.setattr(daemons, "own_daemons", lambda env: own)
    monkeypatch.setattr(daemons.slurm, "queue_length", lambda: 3)
    with pytest.raises(InputError, match="the cluster has 3 jobs in its queue"):
        daemons.check_own({})
