"""Clusters of engines that are the ranks of a job on a real Slurm of four nodes, and trainings on them."""

import os
import signal
import subprocess
from pathlib import Path

import jobs
import pytest
import tiny
from books import executed, shown
from engines import ENDLESS, a_little_further, assert_same, engines_of, last_step, stopped_after, wait_until
from recorded import recorded

from hpcgan.errors import HpcganError, InputError
from hpcgan.runs import checkpoint

pytest.importorskip("horovod")
pytest.importorskip("ipyparallel")

from hpcgan.interactive import Cluster


@pytest.fixture(autouse=True)
def slurm(cluster, outside, monkeypatch):
    """This process as a user's on the login node, with an empty queue before and after."""
    for name, value in cluster.env.items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("HPCGAN_CLUSTERS", str(outside / "clusters"))
    yield cluster
    left = queue()
    subprocess.run(["scancel", "-f", "-u", "root"], check=False, timeout=30)
    wait_until(lambda: not queue())
    cluster.wait_for_nodes(timeout=60)
    assert left == []


@pytest.fixture(scope="module")
def data(outside):
    return tiny.write_data(outside / "cluster-data")


def queue():
    """Jobs that wait or run."""
    done = subprocess.run(
        ["squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%i %T"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_rates_set_on_two_nodes_give_the_bits_of_a_training_that_had_them_from_the_start(data, outside):
    told = []
    with Cluster.start("slurm", 2, time="10", report=told.append) as cluster:
        assert [row["host"] for row in cluster.ranks] == ["n1", "n2"]
        assert [row["mean"] for row in cluster.ranks] == [0.5, 0.5]
        job = queue()[0]
        assert f"job {job}: running" in told
        session = cluster.session()
        training = session.train(tiny.config(data, *ENDLESS), run=outside / "steered")
        wait_until(lambda: training.state == "running")
        training.pause()
        training.set(lr=0.01)
        training.resume()
        training.stop()
        assert training.wait(60) == "stopped"
        short = a_little_further(outside / "steered")
        assert session.train(tiny.config(data, *ENDLESS, short), run=outside / "steered").wait(120) == "done"
        commands = training.metrics("command").set_index("name")
        assert commands.loc["set", "learning_rates"] == [{"generator": 0.01, "discriminator": 0.01}] * 2
        step = int(commands.loc["set", "step"])
        change = f"training.schedule.changes=[{{step: {step}, rates: {{generator: 0.01, discriminator: 0.01}}}}]"
        scheduled = session.train(tiny.config(data, *ENDLESS, short, change), run=outside / "scheduled")
        assert scheduled.wait(120) == "done"
        assert_same(outside / "steered", outside / "scheduled")
    assert engines_of(cluster.id) == []


def test_the_notebook_of_a_training_on_two_nodes(data, outside, monkeypatch):
    folder = outside / "notebook"
    folder.mkdir()
    jobs.make_setting(folder, epochs=100000)
    preset = {
        "root": ".", "config": "tiny.yaml", "overrides": [], "run": "run", "engines": "slurm", "n": 2,
        "job": {"nodes": 2, "time": "10"}, "rate": 1e-3,
    }  # fmt: skip
    (folder / "configs").mkdir()
    with stopped_after(folder / "run", "resume"):
        book = executed("01_train_interactively", folder, monkeypatch, preset)
    said = shown(book, "stream")
    assert "2 ranks on 2 nodes" in said
    assert "n1" in " ".join(shown(book, "text/plain"))
    assert "n2" in " ".join(shown(book, "text/plain"))
    commands = recorded(folder / "run/metrics.jsonl", "command")
    assert [command["name"] for command in commands] == ["pause", "set", "checkpoint", "resume", "stop"]
    assert commands[1]["learning_rates"] == [{"generator": 1e-3, "discriminator": 1e-3}] * 2  # of each rank

    short = a_little_further(folder / "run")
    rates = "{generator: 1.0e-3, discriminator: 1.0e-3}"
    change = f"training.schedule.changes=[{{step: {commands[1]['step']}, rates: {rates}}}]"
    with Cluster.start("slurm", 2, time="10") as cluster:
        monkeypatch.chdir(folder)
        session = cluster.session()
        assert session.train("tiny.yaml", [short], run="run").wait(120) == "done"
        assert session.train("tiny.yaml", [short, change], run="scheduled").wait(120) == "done"
    assert_same(folder / "run", folder / "scheduled")


def test_a_job_that_cannot_be_is_a_line_and_leaves_nothing(outside):
    with pytest.raises(HpcganError, match="invalid partition specified: absent"):
        Cluster.start("slurm", 2, partition="absent")
    # Slurm's first word for too many nodes, and what it says a second later, when it has gone through its queue.
    said = r"does not start job \d+ as it was asked for \((PartitionConfig|PartitionNodeLimit)\)"
    with pytest.raises(InputError, match=said):
        Cluster.start("slurm", 5)
    for folder in (outside / "clusters").iterdir():
        assert engines_of(folder.name) == []


def test_a_queue_is_waited_for_no_longer_than_wished(outside):
    busy = subprocess.run(
        ["sbatch", "--parsable", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 300"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    told = []
    try:
        with pytest.raises(
            HpcganError, match=r"0 of 2 engines came within 6 s; job \d+ was pending.* and is cancelled"
        ):
            Cluster.start("slurm", 2, timeout=6.0, report=told.append)
        wait_until(lambda: queue() == [busy, "RUNNING"])
    finally:
        subprocess.run(["scancel", busy], check=True)
    assert any("pending" in line for line in told)


def test_the_time_limit_of_the_job_leaves_a_training_that_goes_on(data, outside):
    config = tiny.config(data, *ENDLESS)
    with Cluster.start("slurm", 2, time="10") as cluster:
        training = cluster.session().train(config, run=outside / "limited")
        wait_until(lambda: training.epoch >= 1)
        # What Slurm does two minutes before the limit.
        subprocess.run(["scancel", "--signal=USR1", "--batch", queue()[0]], check=True)
        assert training.wait(60) == "interrupted"
        wait_until(lambda: cluster.state == "lost" and not queue())
    step = last_step(outside / "limited")
    with Cluster.start("slurm", 2, time="10") as cluster:
        training = cluster.session().train(config, run=outside / "limited")
        wait_until(lambda: training.state == "running" and training.metrics("start")["step"].iloc[-1] == step)
    assert training.wait(60) == "interrupted"  # by the end of its cluster
    assert last_step(outside / "limited") > step


def test_a_rank_that_dies_on_a_node_is_named(data, outside):
    with Cluster.start("slurm", 2, time="10") as cluster:
        training = cluster.session().train(tiny.config(data, *ENDLESS), run=outside / "died")
        wait_until(lambda: checkpoint.steps(outside / "died" / "checkpoints"))
        os.kill(cluster.ranks[1]["pid"], signal.SIGKILL)
        with pytest.raises(HpcganError, match=r"rank 1 on n2\b.*: Killed"):
            training.wait(90)
        assert training.state == "lost"
        assert last_step(outside / "died") >= 7


def test_another_kernel_finds_a_cluster_in_the_queue_and_ends_it(outside):
    first = Cluster.start("slurm", 2, time="10")
    first.close()
    with Cluster.connect() as second:
        assert second.id == first.id
        assert second.ranks == first.ranks
        assert Path(second.connection_file).is_file()
    assert engines_of(first.id) == []
