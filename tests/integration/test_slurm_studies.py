"""Sweeps, through killed coordinators and lost nodes, and scaling studies on a real Slurm of four nodes."""

from __future__ import annotations

import json
import re
import sys

import jobs
import pytest
import sweeps
from queued import read, show, wait_for_job

from hpcgan import records
from hpcgan.sweep.store import StudyDirectory

pytest.importorskip("horovod")


@pytest.fixture(scope="module")
def setting(outside):
    return jobs.make_setting(outside / "studies")


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
        (attempt,) = study.runner(number).attempts.glob("*.json")  # nobody started it a second time
        assert json.loads(attempt.read_text())["state"] == "done"
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


def test_a_scaling_study_is_submitted_to_two_nodes(clean, setting, outside):
    study = outside / "scaling"
    command = [
        sys.executable, "-m", "hpcgan", "scaling", "tiny.yaml", "--ranks", "1,2", "--steps", "20", "--repeats", "1",
        "--no-allreduce", "--executor", "slurm", "--nodes", "2", "--time", "10", "--out", str(study),
    ]  # fmt: skip
    code, output = jobs.Running(setting, command, {**clean.env, "HPCGAN_LAUNCHER": "srun"}).finish(60)
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
