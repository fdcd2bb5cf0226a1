"""What happens to a training while its data are copied to nodes' own storage, under mpirun and on a real Slurm."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import jobs
import pytest
import yaml
from recorded import recorded
from slurm_cluster import SlurmCluster
from stopping import stop_process

pytest.importorskip("horovod")

BOUND = 120.0  # seconds from a fault to the end of the job, on a busy machine


@pytest.fixture(scope="module")
def setting(outside: Path) -> Path:
    folder = outside / "staging"
    folder.mkdir()
    return jobs.make_setting(folder, epochs=1)


def copied(folder: Path) -> list[str]:
    """Whole copies, and what is half."""
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".h5", ".tmp"))


def while_it_copies(setting: Path, run: Path, local: Path, *args: str) -> jobs.Running:
    """A training of two ranks that has begun to copy the first file."""
    env = {"HPCGAN_SLOW_COPY": "0.5"}
    job = jobs.Running(setting, jobs.faulty_command(run, f"data.stage={local}", *args), env)

    def begun() -> bool:
        if job.process.poll() is not None:
            pytest.fail(f"ended before it copied: {job.finish()[1]}")
        return any(name.endswith(".tmp") for name in copied(local))

    jobs.wait_for(begun, message=job.output)
    return job


def goes_on(setting: Path, run: Path, local: Path) -> None:
    """The same command copies what is missing, and trains."""
    code, output = jobs.Running(setting, jobs.train_command(run, f"data.stage={local}")).finish()
    assert code == 0, output
    assert "data copied to 1 node (" in output
    assert copied(local) == ["train.h5", "val.h5"]


def test_a_rank_that_is_killed_while_it_copies(setting: Path, tmp_path: Path) -> None:
    run, local = tmp_path / "run", tmp_path / "local"
    job = while_it_copies(setting, run, local)
    job.ranks()[0].kill()
    code, output = job.finish(BOUND)
    assert code == 128 + signal.SIGKILL, output
    assert "rank 0" in output
    (half,) = copied(local)
    assert half.endswith(".tmp")
    goes_on(setting, run, local)


@pytest.mark.parametrize("rank", [None, 1], ids=["launcher", "rank 1"])
def test_a_signal_while_data_are_copied(setting: Path, tmp_path: Path, rank: int | None) -> None:
    run, local = tmp_path / "run", tmp_path / "local"
    job = while_it_copies(setting, run, local)
    (job.process if rank is None else job.ranks()[rank]).send_signal(signal.SIGTERM)
    code, output = job.finish(BOUND)
    assert code == 75, output
    assert "stopped on request while data were copied" in output
    assert copied(local) == []
    if rank is None:
        goes_on(setting, run, local)


@pytest.mark.faults
def test_a_rank_that_stops_while_it_copies_is_named(setting: Path, tmp_path: Path) -> None:
    job = while_it_copies(setting, tmp_path / "run", tmp_path / "local", "comm.timeout_s=8")
    stop_process(job.ranks()[0].pid)
    code, output = job.finish(BOUND)
    assert code == 1, output
    assert re.search(r"no progress for 8 s: rank 0 does not", output), output


# --- on a real Slurm --------------------------------------------------------------------------------------


def submit(cluster: SlurmCluster, setting: Path, run: Path, *args: str) -> tuple[int, str, dict[str, Any]]:
    """`hpcgan submit --wait` of two nodes with two ranks each: exit code, log of the job, and its provenance."""
    command = [sys.executable, "-m", "hpcgan", "submit", "tiny.yaml", *args, "--run", str(run), "--nodes", "2"]
    command += ["--ranks-per-node", "2", "--threads", "1", "--time", "10", "--retries", "0", "--wait"]
    job = jobs.Running(setting, command, {**cluster.env, "HPCGAN_LAUNCHER": "srun"})
    code, output = job.finish(400)
    log = "\n".join(path.read_text(errors="replace") for path in run.glob("slurm-*.out"))
    starts = recorded(run / "metrics.jsonl", "start", replaced=True) if (run / "metrics.jsonl").exists() else [{}]
    return code, f"{output}\n{log}", starts[-1]


@pytest.fixture
def two_nodes(cluster: SlurmCluster) -> Any:
    """The cluster with its queue empty and idle."""
    cluster.wait_for_nodes(timeout=120)
    yield cluster
    cluster.wait_for_nodes(timeout=120)


def test_a_job_on_two_nodes_copies_to_each(two_nodes: SlurmCluster, setting: Path, outside: Path) -> None:
    """By a variable that each node has for itself, as $TMPDIR is one; the command line does not expand it."""
    run, local = outside / "two", outside / "local"
    code, output, start = submit(two_nodes, setting, run, f"data.stage={local}/$SLURMD_NODENAME")
    assert code == 0, output
    assert start["ranks"] == 4
    copies = {copy["node"]: copy for copy in start["copies"]}
    assert len(copies) == 2
    size = sum((setting / "data" / name).stat().st_size for name in ("train.h5", "val.h5"))
    for node, copy in copies.items():
        assert node in two_nodes.nodes
        assert copy["copied_bytes"] == size
        assert Path(copy["folder"]).parent.parent == local / node
        assert copied(local / node) == ["train.h5", "val.h5"]
    assert "data copied to 2 nodes (" in output

    # the same weights as without copies
    code, output, start = submit(two_nodes, setting, outside / "plain")
    assert code == 0, output
    jobs.assert_same_end(run, outside / "plain")


def test_nodes_with_a_folder_of_the_same_name(two_nodes: SlurmCluster, setting: Path, outside: Path) -> None:
    """Each node has a /tmp of its own: the same name, and another place."""
    code, output, start = submit(
        two_nodes, setting, outside / "tmp", "data.stage=/tmp/hpcgan stage", "data.stage_keep=false"
    )
    assert code == 0, output
    assert len({copy["node"] for copy in start["copies"]}) == 2
    for copy in start["copies"]:
        private = two_nodes.folder / "tmp" / copy["node"] / "hpcgan stage"
        assert private.is_dir()
        assert copied(private) == []


def test_a_node_that_cannot_copy(two_nodes: SlurmCluster, setting: Path, outside: Path) -> None:
    """One line names it; the ranks of the other node end, too."""
    local = outside / "half"
    local.mkdir()
    names = two_nodes.nodes
    for name in names[1:]:
        (local / name).write_text("a file in place of the folder")
    code, output, start = submit(two_nodes, setting, outside / "fails", f"data.stage={local}/$SLURMD_NODENAME")
    assert code == 2, output
    lines = [line for line in output.splitlines() if "data.stage" in line and "cannot be written" in line]
    assert len(lines) >= 1, output
    assert re.search(r"rank [0-3]: data\.stage: \S+/half/(n\d) on node \1 cannot be written", lines[0]), lines
    assert start == {}


def test_a_sweep_copies_once(two_nodes: SlurmCluster, setting: Path, outside: Path) -> None:
    """Trials of a node find what the first of them has copied."""
    local, study = outside / "sweep local", outside / "study"
    file = jobs.make_sweep(setting)
    raw = yaml.safe_load(file.read_text())
    raw["data"]["stage"] = f"{local}/$JOB_SCRATCH"
    file.write_text(yaml.safe_dump(raw))
    command = jobs.sweep_command(study, "--trials", "2", "--concurrency", "2", "--ranks", "1")
    code, output = jobs.Running(setting, command, {"JOB_SCRATCH": "x"}).finish()
    assert code == 0, output
    starts = [recorded(path, "start")[0] for path in sorted(study.glob("trials/*/metrics.jsonl"))]
    sizes = [copy["copied_bytes"] for start in starts for copy in start["copies"]]
    assert len(sizes) == 2
    assert sorted(size > 0 for size in sizes) == [False, True]
    assert len({copy["folder"] for start in starts for copy in start["copies"]}) == 1
    assert copied(local) == ["train.h5", "val.h5"]
