"""Trainings on a real Slurm of four nodes: time limits, lost nodes, hostile names.

The rows of the table in docs/reliability.md that need a scheduler. Where a test is marked `faults`, only
`make test-faults` runs it.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jobs
import psutil
import pytest
import sweeps
import yaml
from recorded import recorded

from hpcgan.runs import checkpoint, records
from hpcgan.sweep.store import StudyDirectory

pytest.importorskip("horovod")

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 40  # some ten seconds
ENDLESS = "training.epochs=100000"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@pytest.fixture(scope="module")
def setting(outside):
    folder = outside / "setting"
    folder.mkdir()
    return jobs.make_setting(folder, epochs=EPOCHS)


@pytest.fixture
def clean(cluster):
    """The cluster with an empty queue and all nodes up, before and after a test."""
    yield cluster
    print(cluster.account())  # which pytest shows of a test that has failed
    subprocess.run(["scancel", "-f", "-u", "root"], env=cluster.env, check=False, timeout=30)
    for node in cluster.nodes:
        if not cluster.node_runs(node):
            cluster.start_node(node)
    cluster.end_strays()
    cluster.wait_for_nodes(timeout=60)


def submit(cluster, setting, run, *args, launcher="srun", **env):
    """`hpcgan submit` of the setting's configuration, with a mark in the environment of the job."""
    command = [sys.executable, "-m", "hpcgan", "submit", "tiny.yaml", "--run", str(run), *args]
    return jobs.Running(setting, command, {**cluster.env, "HPCGAN_LAUNCHER": launcher, **env})


def submitted(job):
    """Number of a job that was submitted without --wait."""
    job.process.wait(60)
    output = job.output()
    found = re.search(r"^job (\d+): run ", output, re.MULTILINE)
    assert found, output
    return found[1]


def show(cluster, number):
    done = subprocess.run(
        ["scontrol", "show", "job", "--oneliner", number], env=cluster.env, capture_output=True, text=True, timeout=30
    )
    return dict(part.split("=", 1) for part in done.stdout.split() if "=" in part)


def wait_for_job(cluster, number, seconds, states=ENDED):
    """Until a job is in one of the states; what scontrol shows of it then."""
    seen = {}

    def there():
        seen.update(show(cluster, number))
        return seen.get("JobState") in states

    jobs.wait_for(there, seconds, lambda: f"{seen}\n{log_of(seen)}")
    return dict(seen)


def steps(cluster):
    """Steps that run, one a line."""
    command = ["squeue", "--steps", "--noheader", "--format=%i", "--sort=i"]
    return subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=30).stdout


def log_of(shown):
    path = Path(shown.get("StdOut", "/nonexistent"))
    return path.read_text(errors="replace")[-6000:] if path.is_file() else "(no log)"


def wait_for_step(run, step, seconds=90.0):
    jobs.wait_for(
        lambda: jobs.newest_step(run) >= step,
        seconds,
        lambda: "\n".join(p.read_text(errors="replace")[-3000:] for p in run.glob("slurm-*.out")),
    )


def ranks_of(mark):
    """Rank processes of a job under srun, by rank."""
    found = {}
    for process in jobs.marked(mark):
        try:
            env = process.environ()
            if "hpcgan.launch.rank_shim" in process.cmdline() and "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:
                found[int(env["SLURM_PROCID"])] = process
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def reference(cluster, setting, outside):
    """An undisturbed job on two nodes."""
    run = outside / "reference"
    job = submit(cluster, setting, run, "--nodes", "2", "--time", "10", "--wait")
    code, output = job.finish(180)
    assert code == 0, output
    assert "completed" in output
    return run


def test_a_job_on_two_nodes_trains_to_the_end(reference, cluster):
    (entry,) = records.read_lines(reference / "provenance.jsonl")
    assert entry["ranks"] == 2
    assert [e["epoch"] for e in jobs.epochs(reference)] == list(range(1, EPOCHS + 1))
    (log,) = reference.glob("slurm-*.out")
    assert "2 ranks (horovod)" in log.read_text()
    command = [sys.executable, "-m", "hpcgan", "jobs", str(reference), "--json"]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, check=True, timeout=60)
    (status,) = json.loads(done.stdout)
    assert (status["epoch"], status["epochs"], status["job"]) == (EPOCHS, EPOCHS, str(entry["slurm_job"]))
    assert status["state"] in ("done", "completed", "completing")


def test_mpirun_inside_a_job_gives_the_same_bits(clean, setting, reference, outside):
    run = outside / "mpirun"
    code, output = submit(clean, setting, run, "--nodes", "2", "--time", "10", "--wait", launcher="mpirun").finish(180)
    assert code == 0, output
    jobs.assert_same_end(run, reference)


def test_a_killed_rank_is_started_again_inside_the_job(clean, setting, reference, outside):
    run = outside / "killed"
    job = submit(clean, setting, run, "--nodes", "2", "--time", "10", "--wait")
    wait_for_step(run, 7)
    (entry,) = records.read_lines(run / "provenance.jsonl")
    # Takes all that the job has, as a step does whose end the controller has missed.
    ghost = ["srun", f"--jobid={entry['slurm_job']}", "--ntasks=2", "--nodes=2", "sleep", "600"]
    with subprocess.Popen(ghost, env=clean.env, stderr=subprocess.DEVNULL) as step:
        started = rf"\.0\b.*\n.*{entry['slurm_job']}\.1\b"
        jobs.wait_for(lambda: re.search(started, steps(clean)), 60, lambda: steps(clean))
        ranks_of(job.mark)[1].kill()
        code, output = job.finish(180)
        step.terminate()
    assert code == 0, output
    log = read(next(run.glob("slurm-*.out")))
    assert re.search(r"the ranks failed with exit code \d+; trying again in 5 s \(1 of 3", log), log
    jobs.assert_same_end(run, reference)


@pytest.mark.faults
@pytest.mark.slow
def test_a_job_with_ranks_killed_twenty_times_ends_as_if_nothing_had_been(clean, setting, outside):
    run, chance = outside / "killed-often", random.Random(1)
    job = submit(clean, setting, run, ENDLESS, "--nodes", "2", "--time", "60", "--retries", "50")
    number = submitted(job)
    for _ in range(20):
        jobs.wait_for(lambda: len(ranks_of(job.mark)) == 2, 120.0, lambda: log_of(show(clean, number)))
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0.0, 8.0))
        else:
            wait_for_step(run, jobs.newest_step(run) + 1)
            time.sleep(chance.uniform(0.0, 0.5))
        ranks = ranks_of(job.mark)
        victim = ranks[chance.choice(sorted(ranks))]
        victim.kill()
        jobs.wait_for(lambda: not victim.is_running(), 30.0)  # noqa: B023
    wait_for_step(run, jobs.newest_step(run) + 1)
    assert len(list(records.read_lines(run / "provenance.jsonl"))) > 10
    subprocess.run(["scancel", number], env=clean.env, check=True, timeout=30)
    wait_for_job(clean, number, 60)
    epochs = f"training.epochs={jobs.newest_step(run) // 7 + 3}"
    for name in ("killed-often", "whole"):
        code, output = submit(clean, setting, outside / name, epochs, "--nodes", "2", "--time", "30", "--wait").finish(
            600
        )
        assert code == 0, output
    jobs.assert_same_end(run, outside / "whole")


@pytest.mark.parametrize("which", ["batch host", pytest.param("other node", marks=pytest.mark.faults)])
def test_a_lost_node_the_job_goes_on_elsewhere_and_the_old_ranks_stop(clean, setting, outside, which):
    """Its slurmd is killed; the ranks live on, since all nodes are one machine. The queue starts the job again."""
    run = outside / f"lost-{which.split()[0]}"
    job = submit(clean, setting, run, ENDLESS, "--nodes", "2", "--time", "20")
    number = submitted(job)
    wait_for_step(run, 7)
    shown = show(clean, number)
    first, second = expand(shown["NodeList"])
    old = ranks_of(job.mark)
    assert sorted(old) == [0, 1]
    clean.kill_node(first if which == "batch host" else second)
    jobs.wait_for(lambda: show(clean, number).get("Restarts") == "1", 90.0, lambda: str(show(clean, number)))
    wait_for_job(clean, number, 90, ("RUNNING",))
    before = jobs.newest_step(run)
    # The ranks that were there before the loss are gone soon after another attempt writes.
    jobs.wait_for(lambda: not any(p.is_running() for p in old.values()), 90.0, lambda: log_of(show(clean, number)))
    wait_for_step(run, before + 7)
    attempts = list(records.read_lines(run / "provenance.jsonl"))
    assert [entry["attempt"] for entry in attempts] == list(range(1, len(attempts) + 1))
    assert len(attempts) >= 2
    # From the first record of an attempt on, no earlier one has written.
    writers = [record["attempt"] for record in recorded(run / "metrics.jsonl", replaced=True)]
    assert writers == sorted(writers)
    subprocess.run(["scancel", number], env=clean.env, check=True, timeout=30)
    assert checkpoint.load_latest(run / "checkpoints", pytest.fail) is not None


@pytest.mark.faults
def test_a_job_goes_on_with_the_nodes_that_are_left_and_with_all_after_the_next_requeue(clean, setting, outside):
    """`--min-ranks`: the node of rank 1 is lost, rank 0 goes on with the same global batch in the same job."""
    run = outside / "fewer"
    batch = "training.global_batch_size=8"
    job = submit(clean, setting, run, ENDLESS, batch, "--nodes", "2", "--time", "20", "--min-ranks", "1")
    number = submitted(job)
    wait_for_step(run, 7, 400)
    first, second = expand(show(clean, number)["NodeList"])
    clean.kill_node(second)

    def ranks():
        return [entry["ranks"] for entry in records.read_lines(run / "provenance.jsonl")]

    jobs.wait_for(lambda: ranks()[-1] == 1, 400, lambda: log_of(show(clean, number)))
    wait_for_step(run, jobs.newest_step(run) + 7, 400)
    shown = show(clean, number)
    assert (shown["NodeList"], shown["Restarts"]) == (first, "0")
    lost = f"job {number} has lost {second}: going on with 1 of 2 ranks and the same global batch of 8"
    assert log_of(shown).count(lost) == 1
    clean.start_node(second)
    subprocess.run(["scontrol", "requeue", number], env=clean.env, check=True, timeout=30)
    jobs.wait_for(lambda: ranks()[-1] == 2, 400, lambda: log_of(show(clean, number)))
    wait_for_step(run, jobs.newest_step(run) + 7, 400)
    assert "on this number of ranks" not in log_of(show(clean, number))  # the global batch is what it was
    seen = [(r["step"], r["samples"]) for r in recorded(run / "metrics.jsonl", "epoch")]
    assert [(step, samples) for step, samples in seen] == [(7 * (i + 1), 56 * (i + 1)) for i in range(len(seen))]
    subprocess.run(["scancel", number], env=clean.env, check=True, timeout=30)


@pytest.mark.faults
@pytest.mark.slow
def test_a_campaign_of_faults_on_slurm_changes_nothing(clean, setting, outside):
    """Processes, files, daemons and orders about the job (`hpcgan chaos --slurm`)."""
    out = outside / "chaos"
    words = ["tiny.yaml", "job.nodes=2", "job.time=30", "comm.timeout_s=30", "--slurm", "--out", str(out)]
    command = [sys.executable, "-m", "hpcgan", "chaos", *words, "--failures", "10", "--mtbf", "20", "--seed", "3"]
    code, output = jobs.Running(setting, command, {**clean.env, "HPCGAN_LAUNCHER": "srun"}).finish(3000)
    assert code == 0, output
    faults = json.loads((out / "verdict.json").read_text())["faults"]
    assert sum(row["injected"] for row in faults.values()) == 10


def expand(nodes):
    """Names from Slurm's short form n[1-2]."""
    match = re.fullmatch(r"n\[(\d)[-,](\d)\]", nodes)
    assert match, nodes
    return f"n{match[1]}", f"n{match[2]}"


def test_jobs_of_an_array_checkpoint_before_the_limit_and_queue_again_until_they_are_done(clean, setting, outside):
    """`sbatch --array`, a limit of a minute, a signal in it: every element is requeued and ends by itself.

    The training has no end until the signal has come, however quick the machine; the requeued job is told one. The
    signal comes 10 to 40 s after the beginning: Slurm looks every 30 s and sends what is due before the next look. One
    that comes at once ends the shell, which has not become the supervisor yet.
    """
    script, target = outside / "array.sh", outside / "epochs"
    script.write_text(
        f"""#!/bin/bash
#SBATCH --array=0-1
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=1
#SBATCH --signal=B:USR1@20
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={outside}/array-%a.out
epochs=100000
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then
    until [ -s {target} ]; do sleep 0.2; done
    epochs=$(cat {target})
fi
cd {setting}
exec {sys.executable} -m hpcgan supervise -- train tiny.yaml training.epochs=$epochs seed=$SLURM_ARRAY_TASK_ID \\
    --run {outside}/array-$SLURM_ARRAY_TASK_ID
"""
    )
    env = {**clean.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sbatch", "--parsable", str(script)], env=env, capture_output=True, text=True, timeout=30)
    number = done.stdout.strip()
    assert number, done.stderr
    logs = [outside / f"array-{element}.out" for element in (0, 1)]
    for element, log in enumerate(logs):
        jobs.wait_for(lambda: "goes back into the queue" in read(log), 400, lambda: read(log)[-6000:])  # noqa: B023
        # Seen once; with a minute's limit a busy machine would need many rounds.
        longer = ["scontrol", "update", f"JobId={number}_{element}", "TimeLimit=30"]
        subprocess.run(longer, env=clean.env, check=True, timeout=30)
    epochs = max(jobs.newest_step(outside / f"array-{element}") for element in (0, 1)) // 15 + 20
    target.write_text(str(epochs))
    for element, log in enumerate(logs):
        run = outside / f"array-{element}"
        wait_for_job(clean, f"{number}_{element}", 300)
        assert show(clean, f"{number}_{element}")["JobState"] == "COMPLETED", read(log)
        assert "resuming at step" in read(log)
        steps = [r["step"] for r in recorded(run / "metrics.jsonl", "epoch")]
        assert steps == [15 * (i + 1) for i in range(epochs)]
    whole = jobs.Running(setting, jobs.train_command(outside / "alone", f"training.epochs={epochs}", "seed=1", ranks=1))
    code, output = whole.finish(300)
    assert code == 0, output
    jobs.assert_same_end(outside / "array-1", outside / "alone")


def read(path):
    return path.read_text(errors="replace") if path.is_file() else ""


def test_a_preempted_job_checkpoints_queues_again_and_ends_the_same(clean, setting, reference, outside):
    run = outside / "preempted"
    job = submit(clean, setting, run, ENDLESS, "--nodes", "4", "--time", "20")
    number = submitted(job)
    wait_for_step(run, 7)
    urgent = ["srun", "--partition=urgent", "--nodes=4", "--exclusive", "sleep", "1"]
    done = subprocess.run(urgent, env=clean.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    jobs.wait_for(lambda: show(clean, number).get("Restarts") == "1", 60, lambda: str(show(clean, number)))
    jobs.wait_for(lambda: "resuming at step" in log_of(show(clean, number)), 120, lambda: log_of(show(clean, number)))
    subprocess.run(["scancel", number], env=clean.env, check=True, timeout=30)


def test_a_job_that_fails_every_time_stops_after_its_retries(clean, setting, outside):
    run = outside / "hopeless"
    job = submit(
        clean, setting, run, "training.r1.weight=1e300", "--nodes", "2", "--time", "10", "--retries", "1",
        "--wait",
    )  # fmt: skip
    code, output = job.finish(180)
    assert code == 1, output
    log = read(next(run.glob("slurm-*.out")))
    # A rank may leave the fence at the end of MPI_Init and send before another has made the communicator, which ends
    # that one: a rare fault of Open MPI 5 (github.com/open-mpi/ompi/issues/12495), and a failure like any other.
    in_mpi = log.count("(PMPI_Init_thread+") + log.count("(MPI_Init_thread+")
    assert log.count("became non-finite at step") == 2 - in_mpi >= 1, log
    assert "(1 of 1 without a new checkpoint)" in log
    assert "giving up after 2 failures in a row" in log
    assert show(clean, re.search(r"job (\d+)", output)[1])["JobState"] == "FAILED"


def test_a_sweep_on_four_nodes_gives_the_table_of_one_machine_though_its_coordinator_is_killed(clean, setting, outside):
    """Three trials of two ranks on two nodes each, two at a time; the second coordinator finds them in the queue."""
    jobs.make_sweep(setting, epochs=12)
    options = ("--trials", "3", "--ranks", "2")
    study = StudyDirectory(outside / "sweep")
    command = jobs.sweep_command(
        study.path, *options, "--executor", "slurm", "--concurrency", "2", "--nodes", "2", "--time", "10"
    )
    job = jobs.Running(setting, command, {**clean.env, "HPCGAN_LAUNCHER": "srun"})
    jobs.wait_for(lambda: jobs.newest_step(study.trial(0).path) > 0 or job.process.poll() is not None, 120)
    job.process.kill()
    job.process.wait()
    output = job.output()
    assert re.search(r"job \d+: 3 trials, 2 at a time", output), output
    code, output = jobs.Running(setting, command, {**clean.env, "HPCGAN_LAUNCHER": "srun"}).finish(240)
    assert code == 0, output
    assert "still running: trial" in output
    nodes = set()
    for number in range(3):
        attempts = [json.loads(path.read_text()) for path in sorted(study.runner(number).attempts.glob("*.json"))]
        states = [attempt["state"] for attempt in attempts]
        # Nobody started it a second time.
        assert states == ["done"], f"{attempts}\n{read(study.log_file(number))[-4000:]}\n{output}"
        (entry,) = records.read_lines(study.trial(number).provenance_file)
        assert entry["ranks"] == 2
        assert "_" in str(entry["slurm_job"])
        nodes |= set(show(clean, str(entry["slurm_job"])).get("NodeList", "").split())
    (submitted,) = records.read_lines(study.jobs_file)
    assert submitted["numbers"] == [0, 1, 2]
    code, output = jobs.Running(
        setting, jobs.sweep_command(outside / "sweep-here", *options, "--concurrency", "1")
    ).finish(240)
    assert code == 0, output
    assert sweeps.table(study.path) == sweeps.table(outside / "sweep-here")


def test_a_lost_node_a_sweep_goes_on(clean, setting, outside):
    """The trial's node is lost: Slurm queues its element again, which goes on from the checkpoint."""
    jobs.make_sweep(setting, "lost.yaml", epochs=100000)
    study = StudyDirectory(outside / "sweep-lost")
    options = ("--trials", "1", "--executor", "slurm", "--concurrency", "1", "--time", "20")
    job = jobs.Running(setting, jobs.sweep_command(study.path, *options, config="lost.yaml"), clean.env)
    jobs.wait_for(lambda: jobs.newest_step(study.trial(0).path) >= 15, 120)
    (submitted,) = records.read_lines(study.jobs_file)
    element = f"{submitted['job']}_0"
    clean.kill_node(show(clean, element)["NodeList"])
    jobs.wait_for(lambda: show(clean, element).get("Restarts") == "1", 90.0, lambda: str(show(clean, element)))
    jobs.wait_for(
        lambda: len(records.read_lines(study.trial(0).provenance_file)) > 1, 120.0, lambda: read(study.log_file(0))
    )
    job.process.terminate()
    code, output = job.finish(120)
    assert code == 75, output
    assert "was lost" not in output
    assert jobs.newest_step(study.trial(0).path) > 15


def test_hostile_names_are_names(clean, setting, outside):
    """Of the run directory and the working directory; nothing in them is run, split or expanded."""
    folder = outside / "a b'c\"d;$(touch pwned)&`touch pwned` *?"
    folder.mkdir()
    shutil.copytree(setting / "data", folder / "data dir")
    shutil.copy(setting / "tiny.yaml", folder / "tiny.yaml")
    run = folder / "run $(touch pwned) %j %% é"
    args = ("data.path=data dir", "training.epochs=1", "--time", "10", "--wait")
    code, output = submit(clean, folder, run, *args).finish(120)
    assert code == 0, output
    assert jobs.newest_step(run) == 15
    assert list(run.glob("slurm-*.out"))
    assert not list(outside.rglob("pwned"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("new\nline", "a name with a line break"),
        ("back\\slash", "sbatch cannot write its log there"),
        ("tab\there", "a name with a line break or another control character"),
    ],
)
def test_names_that_sbatch_cannot_take_are_refused(clean, setting, outside, name, said):
    run = outside / name
    code, output = submit(clean, setting, run, "--time", "10").finish(60)
    assert code == 2, output
    assert said in output
    assert not run.exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--partition", "nope"], "sbatch: .*partition"),
        (["--nodelist", "n9"], "sbatch: .*(node|n9)"),
    ],
    ids=["partition", "node"],
)
def test_what_the_cluster_does_not_have_is_said_in_seconds(clean, setting, outside, args, said):
    run = outside / "refused"
    begin = time.monotonic()
    code, output = submit(clean, setting, run, "--time", "10", *args).finish(60)
    assert code == 1, output
    assert re.search(said, output), output
    assert output.count("\n") == 1
    assert time.monotonic() - begin < 30
    assert not run.exists()


def test_a_job_that_the_cluster_will_never_start_is_taken_with_a_warning(clean, setting, outside):
    job = submit(clean, setting, outside / "never", "--time", "10", "--nodes", "5")
    job.process.wait(60)
    output = job.output()
    assert job.process.returncode == 0, output
    assert re.search(r"warning: job \d+ waits for Partition\w+: .* 'scancel \d+'", output), output


def test_srun_with_another_pmi_is_refused_with_the_reason(clean, setting, outside):
    """Open MPI under `srun --mpi=pmi2`: each rank comes up as rank 0 of 1."""
    run = outside / "singletons"
    command = ["srun", "--mpi=pmi2", "--nodes=2", "--ntasks=2", sys.executable, "-m", "hpcgan", "train", "tiny.yaml"]
    code, output = jobs.Running(setting, [*command, "--run", str(run)], clean.env).finish(120)
    assert code != 0
    assert "srun started 2 ranks, but MPI reports a world of 1" in output, output
    assert "srun --mpi=pmix" in output
    assert not run.exists()


def allocation(cluster, setting, script, *options, **env):
    """A script in the shell of `salloc`."""
    command = ["salloc", "--time=20", *options, "sh", "-c", script]
    return jobs.Running(setting, command, {**cluster.env, **env})


HPCGAN = f"{sys.executable} -m hpcgan"


def test_a_cancelled_allocation_ends_with_a_checkpoint_and_its_code(clean, setting, outside):
    run, code = outside / "salloc", outside / "salloc-code"
    script = f"{HPCGAN} train tiny.yaml {ENDLESS} --run {run} --ranks 2; echo $? > {code}"
    job = allocation(clean, setting, script, "--ntasks=2")
    wait_for_step(run, 7)
    (number,) = re.findall(r"Granted job allocation (\d+)", job.output())
    subprocess.run(["scancel", number], env=clean.env, check=True, timeout=30)
    _, output = job.finish(120)
    assert code.read_text() == "75\n", output
    ends = [r["outcome"] for r in recorded(run / "metrics.jsonl", replaced=True) if r["kind"] == "end"]
    assert ends == ["interrupted"]


def test_ranks_in_the_shell_of_a_step_of_one_task(clean, setting, outside):
    """As in that of `srun --pty bash`; and not in one of several tasks."""
    run, made = outside / "step", outside / "step.h5"
    script = f"{HPCGAN} train tiny.yaml training.epochs=1 --run {run} --ranks 2 && "
    script += f"{HPCGAN} generate {run} -n 8 --out {made} --ranks 2"
    command = ["srun", "--ntasks=1", "--cpus-per-task=2", "sh", "-c", script]
    code, output = jobs.Running(setting, command, clean.env).finish(240)
    assert code == 0, output
    assert "2 ranks (horovod)" in output
    assert made.is_file()
    command = ["srun", "--ntasks=2", "sh", "-c", f"{HPCGAN} train tiny.yaml --run {run}-2 --ranks 4"]
    code, output = jobs.Running(setting, command, clean.env).finish(120)
    assert code == 2
    assert "the launcher has already started 2 ranks" in output


def test_a_job_submitted_from_within_an_allocation_is_what_was_asked_for(clean, setting, outside):
    """The memory of the allocation's CPUs, and SBATCH_* of the environment, are not the job's."""
    run = outside / "inside"
    words = f"{HPCGAN} submit tiny.yaml training.epochs=1 --run {run} --time 10 --mem 500M --partition main"
    words += " --sbatch '--comment=mine --nice=3' --wait"
    sbatch_env = {
        "SBATCH_PARTITION": "nope",
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_ARRAY_INX": "0-3",
        "SBATCH_NO_REQUEUE": "1",
    }
    job = allocation(clean, setting, words, "--ntasks=1", "--mem-per-cpu=200", **sbatch_env)
    code, output = job.finish(240)
    assert code == 0, output
    shown = show(clean, re.search(r"^job (\d+): run ", output, re.MULTILINE)[1])
    assert (shown["JobState"], shown["Partition"], shown["TimeLimit"]) == ("COMPLETED", "main", "00:10:00")
    assert (shown["Requeue"], shown["Comment"]) == ("1", "mine")
    assert "ArrayJobId" not in shown


def test_a_run_has_one_job_which_is_shown_and_ended(clean, setting, outside):
    """A second is refused; --again queues behind the first; the one that waits is cancelled, the other checkpoints."""

    def of_run(*words):
        done = subprocess.run([sys.executable, "-m", "hpcgan", "jobs", str(run), *words], env=clean.env,
                              capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
        return done.stdout

    def state():
        return json.loads(of_run("--json"))[0]

    run = outside / "one job"
    first = submitted(submit(clean, setting, run, ENDLESS, "--nodes", "2", "--time", "10"))
    code, output = submit(clean, setting, run, ENDLESS, "--nodes", "2", "--time", "10").finish(60)
    assert code == 2, output
    assert f"job {first} of this run is " in output
    second = submitted(submit(clean, setting, run, ENDLESS, "--nodes", "2", "--time", "10", "--again"))
    assert show(clean, second)["Dependency"].startswith(f"afterany:{first}")
    wait_for_step(run, 7)
    assert (state()["job"], state()["state"]) == (first, "running")
    assert f"slurm-{first}.out" in of_run("--log")
    said = of_run("--cancel")
    assert f"job {second} was waiting" in said
    assert f"job {first} is asked to write a checkpoint" in said
    wait_for_job(clean, first, 120)
    assert show(clean, second)["JobState"] == "CANCELLED"
    assert show(clean, first)["Restarts"] == "0"
    assert f"job {first} ends here" in of_run("--log")
    assert state()["state"] == "interrupted"
    assert "cancelled before the training began" in state()["reason"]


@pytest.fixture
def clone(outside, setting, request):
    """A folder like a clone with an environment, in which the configuration is small: the templates work from it."""
    folder = outside / f"clone-{request.node.name}"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, command in {
        "hpcgan": f'{sys.executable} -m hpcgan "$@"',
        "python": f'{sys.executable} "$@"',
        "ipcontroller": f'{sys.executable} -m ipyparallel.controller "$@"',
        "ipengine": f'{sys.executable} -m ipyparallel.engine "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (programs / name).chmod(0o755)
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    (folder / "configs").mkdir()
    raw = yaml.safe_load((ROOT / "configs" / "rpv.yaml").read_text())
    raw["training"].update(epochs=1, batch_size=4)
    (folder / "configs" / "rpv.yaml").write_text(yaml.safe_dump(raw))
    return folder


def sbatch(cluster, clone, template, *options, **settings):
    """Submit a template from the clone, with other values for some of the settings at its top."""
    script = clone / "slurm" / template
    text = script.read_text()
    for name, value in settings.items():
        text, found = re.subn(rf"^{name}=(\([^)]*\)|\S+)", f"{name}={value}", text, flags=re.MULTILINE)
        assert found == 1, name
    script.write_text(text)
    env = {**cluster.env, "PYTHONPATH": str(ROOT)}
    command = ["sbatch", "--parsable", *options, f"slurm/{template}"]
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_template_generates_its_data_and_trains(clean, clone):
    number = sbatch(clean, clone, "train_rpv.sh", EVENTS=100, GLOBAL_BATCH=16)
    shown = wait_for_job(clean, number, 240)
    log = read(clone / f"train_rpv-{number}.out")
    assert shown["JobState"] == "COMPLETED", log
    assert "4 ranks (horovod)" in log
    assert (clone / "data" / "rpv" / "test.h5").is_file()
    (run,) = (clone / "runs").iterdir()
    assert jobs.newest_step(run) == 3


def test_the_template_of_arrays_trains_a_line_an_element(clean, clone, setting):
    (clone / "slurm" / "trials.txt").write_text("# a comment\nmodel.filters=2\nmodel.filters=3 training.batch_size=6\n")
    number = sbatch(
        clean, clone, "sweep_array.sh", "--array=1-3", "--ntasks-per-node=1", DATA=setting / "data",
        CONFIG=setting / "tiny.yaml",
    )  # fmt: skip
    for element, end in ((1, "COMPLETED"), (2, "COMPLETED"), (3, "FAILED")):
        shown = wait_for_job(clean, f"{number}_{element}", 240)
        assert shown["JobState"] == end, read(clone / f"sweep-{number}_{element}.out")
    assert "trials.txt has no line 3: submit with --array=1-N" in read(clone / f"sweep-{number}_3.out")
    found = {p.name: yaml.safe_load((p / "config.yaml").read_text()) for p in (clone / "runs" / "sweep").iterdir()}
    assert {k: (c["model"]["filters"], c["training"]["batch_size"]) for k, c in found.items()} == {
        "1": (2, 4), "2": (3, 6),
    }  # fmt: skip


def test_the_template_of_scaling_prints_a_table(clean, clone, setting):
    number = sbatch(
        clean, clone, "scaling.sh", RANKS="(1 2)", STEPS=20, REPEATS=1, DATA=setting / "data",
        CONFIG=setting / "tiny.yaml",
    )  # fmt: skip
    shown = wait_for_job(clean, number, 240)
    log = read(clone / f"scaling-{number}.out")
    assert shown["JobState"] == "COMPLETED", log
    lines = [line.split() for line in log.splitlines()]
    assert ["ranks", "backend", "samples/s", "efficiency"] in [line[:4] for line in lines], log
    first, second = (next(line for line in lines if line[:2] == [ranks, "auto"]) for ranks in ("1", "2"))
    assert first[4] == "1.000"
    assert 0.05 < float(second[4]) < 3.0
    assert float(second[4]) == pytest.approx(float(second[3]) / float(first[3]) / 2, abs=0.02)
    (study,) = (clone / "runs").iterdir()
    assert (study / "report.html").is_file()
    (two,) = [p for p in json.loads((study / "study.json").read_text())["points"] if p["ranks"] == 2]
    assert two["parts"]["step"]["value"] > 0


def test_the_template_of_a_service_answers_until_it_is_cancelled(clean, clone):
    from hpcgan.serve.client import Client, ServiceError

    number = sbatch(clean, clone, "serve.sh", WORKERS=1)
    log = clone / f"serve-{number}.out"
    folder = clone / "runs" / f"serve-{number}"
    jobs.wait_for((folder / "address.json").is_file, 120, lambda: read(log))
    assert (folder / "token").stat().st_mode & 0o077 == 0
    url = json.loads((folder / "address.json").read_text())["url"]
    with contextlib.closing(Client(url, (folder / "token").read_text().strip())) as client:
        assert client.generate("rpv", seed=1, events=3)["hist"].shape == (3, 64, 64)
    with contextlib.closing(Client(url)) as stranger, pytest.raises(ServiceError, match="401"):
        stranger.generate("rpv", seed=1)
    subprocess.run(["scancel", "--batch", "--signal=TERM", number], env=clean.env, check=True, timeout=30)
    shown = wait_for_job(clean, number, 120)
    assert shown["JobState"] == "COMPLETED", read(log)
    assert not (folder / "address.json").exists()


def test_the_template_of_engines_gives_one_mpi_world(clean, clone):
    ipyparallel = pytest.importorskip("ipyparallel")
    number = sbatch(clean, clone, "ipyparallel.sh")
    log = clone / f"ipyparallel-{number}.out"
    file = clone / "runs" / f"ipython-{number}" / "security" / "ipcontroller-client.json"
    jobs.wait_for(file.is_file, 90, lambda: read(log))
    assert file.stat().st_mode & 0o077 == 0  # it holds a key
    with ipyparallel.Client(connection_info=str(file), timeout=60) as client:
        jobs.wait_for(lambda: len(client) == 4, 90, lambda: read(log))

        view = client[:]
        code = "from mpi4py.MPI import COMM_WORLD as w; found = w.rank, w.size, w.allreduce(w.rank)"
        view.execute(code, block=True)
        assert sorted(view["found"]) == [(rank, 4, 6) for rank in range(4)]
    subprocess.run(["scancel", number], env=clean.env, check=True, timeout=30)
    wait_for_job(clean, number, 60)


def test_a_scaling_study_is_submitted_to_two_nodes(clean, setting, outside):
    study = outside / "scaling"
    command = [
        sys.executable, "-m", "hpcgan", "scaling", "tiny.yaml", "--ranks", "1,2", "--steps", "20", "--repeats", "1",
        "--no-allreduce", "--executor", "slurm", "--nodes", "2", "--time", "10", "--out", str(study),
    ]  # fmt: skip
    submission = jobs.Running(setting, command, {**clean.env, "HPCGAN_LAUNCHER": "srun"})
    code, output = submission.process.wait(60), submission.output()  # its mark lives on in the job
    assert code == 0, output
    number = re.fullmatch(r"job (\d+): study .*, log .*/slurm-\1\.out", output.strip())[1]
    shown = wait_for_job(clean, number, 240)
    log = read(study / f"slurm-{number}.out")
    assert shown["JobState"] == "COMPLETED", log
    assert shown["NumNodes"] == "2"
    points = json.loads((study / "study.json").read_text())["points"]
    assert [(point["ranks"], point["backend"]) for point in points] == [(1, "serial"), (2, "horovod")], log
    measured = json.loads((study / "points" / "auto-2-0.json").read_text())["ranks_measured"]
    assert [rank["rank"] for rank in measured] == [0, 1]
    assert (study / "report.html").is_file()
