"""A job that has lost nodes goes on with the ranks that are left: how many, and what Slurm's variables then say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcgan.config import JobSection
from hpcgan.errors import EXIT_INTERRUPTED, InputError
from hpcgan.launch import slurm, supervise
from hpcgan.launch.elastic import Elastic
from hpcgan.launch.remaining import Remaining, ranks_that_share
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.allocation import CurrentJob


@pytest.mark.parametrize(
    ("batch", "available", "least", "parts", "ranks"),
    [
        (64, 8, 1, 1, 8),
        (64, 7, 1, 1, 4),  # 7, 6 and 5 do not divide 64
        (64, 7, 5, 1, None),
        (64, 7, 4, 1, 4),
        (60, 7, 2, 1, 6),
        (60, 7, 2, 4, 5),  # each rank's batch of 12 in four parts; of 6 ranks, a batch of 10 has no four parts
        (7, 6, 2, 1, None),
        (7, 6, 1, 1, 1),
        (64, 0, 1, 1, None),
    ],
)
def test_the_largest_number_of_ranks_that_shares_the_batch(batch, available, least, parts, ranks):
    assert ranks_that_share(batch, available, least, parts) == ranks


ENV = {"SLURM_TASKS_PER_NODE": "2(x2),1", "SLURM_JOB_CPUS_PER_NODE": "4(x3)", "SLURM_JOB_NODELIST": "n[1-3]"}


def test_what_remains_of_an_allocation():
    left = Remaining.of(ENV, ["n1", "n2", "n3"], ["n3", "n1"])
    assert (left.tasks, left.lost, left.available) == ({"n1": 2, "n3": 1}, ("n2",), 3)
    assert left.environment(2) == {
        "SLURM_JOB_NODELIST": "n1,n3",
        "SLURM_NODELIST": "n1,n3",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NPROCS": "2",
        "SLURM_TASKS_PER_NODE": "2,1",
        "SLURM_JOB_CPUS_PER_NODE": "4,4",
    }
    assert Remaining.of({}, ["n1", "n2"], ["n1"]).available == 1  # nothing is said of tasks


class Settings:
    """What of a configuration counts."""

    def __init__(self, batch, accumulation=1):
        self.training = type("Training", (), {"global_batch_size": batch, "accumulation": accumulation})


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """A scontrol that knows the job's nodes, and writes down what it is told; without a file it does not answer."""
    (tmp_path / "scontrol").write_text(
        f"""#!/bin/sh
case "$2" in
hostnames) case "$3" in "n[1-3]") printf 'n1\\nn2\\nn3\\n';; "n[1,3]") printf 'n1\\nn3\\n';; *) echo "$3";; esac;;
*) [ "$1" = show ] && {{ cat {tmp_path}/job || exit 1; }} || echo "$@" >> {tmp_path}/told;;
esac
"""
    )
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def have(text):
        (tmp_path / "job").write_text(f"JobId=7 JobState=RUNNING Requeue=1 ReqNodeList=n9 NodeList={text} NumNodes=1\n")

    have.told = tmp_path / "told"
    have.job = tmp_path / "job"
    return have


def elastic(lines, least=2, batch=12, ranks=5):
    return Elastic(Settings(batch), CurrentJob("7", 0, 3, ranks), ranks, least, ENV, lines.append)


def test_a_lost_node_is_said_once_and_the_ranks_that_are_left_go_on(nodes):
    lines: list[str] = []
    it = elastic(lines)
    nodes("n[1-3]")
    assert it.look()
    assert it.world is None
    nodes("n[1,3]")
    assert it.look()
    assert it.look()
    assert lines == [
        "job 7 has lost n2: going on with 3 of 5 ranks and the same global batch of 12; "
        "with all again when the job is queued again"
    ]
    assert (it.world.ranks, it.world.nodes, it.world.env["SLURM_JOB_NODELIST"]) == (3, 2, "n1,n3")
    nodes("n3")
    assert not it.look()
    assert lines[1] == (
        "job 7 has lost n1, n2: no number of ranks from --min-ranks 2 to 1 shares training.global_batch_size=12 evenly"
    )


def test_a_controller_that_does_not_answer_changes_nothing(nodes):
    lines: list[str] = []
    it = elastic(lines)
    assert it.look()
    assert it.world is None
    (line,) = lines
    assert line.startswith("warning: whether the job has lost nodes is not known (scontrol")
    nodes("(null)")
    assert it.look()


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="--min-ranks: the global batch would change with the ranks; set training"):
        elastic([], batch=None)
    with pytest.raises(InputError, match="--min-ranks 6: the job has 5 ranks"):
        elastic([], least=6)
    with pytest.raises(ValueError, match=r"job.min_ranks=3: the job has 2 ranks"):
        JobSection(nodes=2, min_ranks=3)


def test_without_room_the_job_goes_back_into_the_queue(nodes, tmp_path, monkeypatch):
    """After a failure of its ranks, which cost it a node."""
    monkeypatch.setattr(supervise, "REQUEUE_TIMEOUT", 0.0)
    monkeypatch.setattr(supervise, "BACKOFF", 0.0)
    nodes("n[1-3]")
    lines: list[str] = []
    it, starts = elastic(lines), []

    def start(requests):
        starts.append(it.world)
        nodes("n[1,3]" if len(starts) == 1 else "n3")
        return 1

    supervisor = supervise.Supervisor(
        start, RunDirectory(tmp_path / "run"), JobSection(), CurrentJob("7", 0, 3, 5), lines.append, it.look
    )
    assert supervisor.supervise() == EXIT_INTERRUPTED
    assert [None if world is None else world.ranks for world in starts] == [None, 3]
    assert lines[-1] == "job 7 goes back into the queue"
    assert nodes.told.read_text() == "requeue 7\n"


def test_the_script_of_such_a_job_stays_when_a_node_goes():
    program = slurm.Program(["train", "c.yaml"], python="python", folder=Path("/tmp"))
    text = slurm.render(JobSection(nodes=2, min_ranks=1), "rpv", program)
    assert "#SBATCH --no-kill\n" in text
    assert " supervise --requeues 100 --retries 3 --min-ranks 1 -- train c.yaml\n" in text
    assert "no-kill" not in slurm.render(JobSection(nodes=2), "rpv", program)
