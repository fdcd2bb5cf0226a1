"""Campaigns of faults: against a counting process, whose promises can be broken, and against trainings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import jobs
import pytest

from hpcgan.chaos import faults, verdict, verdict_search
from hpcgan.chaos.campaign import Campaign, Limits
from hpcgan.chaos.plan import plan
from hpcgan.chaos.venue import Venue
from hpcgan.runs import records
from hpcgan.sweep.store import StudyDirectory

HERE = Path(__file__).parent
COUNTING = Venue(["counting"], [], faults.LOCAL, module="hpcgan.launch.rank_shim")


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parents[1]}")


class KilledLate(faults.Signal):
    """Once there is a checkpoint to go on from."""

    def ready(self, scene):
        return scene.subject.seen()["checkpoint"] > 0 and super().ready(scene)


def campaign(folder, kinds, failures, mtbf=1.0, patience=60.0):
    """A campaign against the counting process, and its verdict."""
    lines: list[str] = []
    kinds = faults.choose(kinds, faults.LOCAL)
    running = Campaign(COUNTING, plan(kinds, failures, mtbf, seed=3), folder, Limits(1.0, patience), lines.append)
    return judged(running, folder), lines


def judged(running, folder):
    """The verdict on a campaign, once it has been run."""
    running.go_undisturbed(folder / "reference")
    running.run()
    return judgement(running, folder)


def judgement(running, folder):
    return verdict.judge(
        running.subjects, folder / "reference", verdict.OF_TRAININGS, running.findings, running.log_file
    )


KINDS = ("kill-rank", "stop-rank", "term-rank", "full-disk", "cut-checkpoint", "flip-checkpoint", "torn-record",
         "stale-files")  # fmt: skip


@pytest.mark.usefixtures("counting")
def test_what_keeps_its_promises_passes(tmp_path):
    result, lines = campaign(tmp_path, KINDS, failures=6, mtbf=0.8)
    assert result.holds, result.plain()
    assert len(lines) == 6
    assert sum(row["injected"] for row in result.faults.values()) == 6
    assert 0.0 < result.disturbed < result.undisturbed <= 1.0
    entries = records.read_lines(tmp_path / "campaign.jsonl")
    assert [e["number"] for e in entries if e["event"] == "fault"] == [1, 2, 3, 4, 5, 6]
    hits = [number for e in entries if e["event"] == "end" for number in e["faults"]]
    assert hits == [1, 2, 3, 4, 5, 6]
    assert all(e["target"] for e in entries if e["event"] == "fault")


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize(
    ("fault", "check", "text"),
    [
        ("forgets", "same bits", "run-01: array w"),
        pytest.param("skips", "nothing lost", "run-01: epoch 7 is recorded 0 times", marks=pytest.mark.faults),
        pytest.param("litters", "nothing left behind", "run-01: litter is left", marks=pytest.mark.faults),
        pytest.param("gives up", "ended by faults only", "run-01, attempt 2 ended with exit code 1 though nothing",
                     marks=pytest.mark.faults),
    ],
)  # fmt: skip
def test_what_breaks_a_promise_is_named(tmp_path, monkeypatch, fault, check, text):
    kinds = [KilledLate("kill-rank", "rank", signal.SIGKILL)]
    running = Campaign(COUNTING, plan(kinds, 1, 0.1, seed=3), tmp_path, Limits(1.0, 60.0), lambda _: None)
    running.go_undisturbed(tmp_path / "reference")
    monkeypatch.setenv("COUNTING_FAULT", fault)
    running.run()
    result = judgement(running, tmp_path)
    assert not result.holds
    (broken,) = [c for c in result.checks if c.name == check]
    assert any(problem.startswith(text) for problem in broken.problems), broken.problems


@pytest.mark.usefixtures("counting")
def test_a_training_that_hangs_ends_the_campaign(tmp_path, monkeypatch):
    """Stopped for an hour, and nobody watches."""
    kinds = faults.choose(["stop-rank"], faults.LOCAL)
    running = Campaign(COUNTING, plan(kinds, 1, 0.3, seed=3), tmp_path, Limits(1e5, 2.0), lambda _: None)
    running.run()
    assert running.findings.gave_up == "run-01 recorded nothing for 2 s and did not end"


class Late(faults.DamagedCheckpoint):
    """By the time it strikes, the training has ended by itself."""

    def ready(self, scene):
        while scene.processes():
            time.sleep(0.05)
        return super().ready(scene)


@pytest.mark.usefixtures("counting")
def test_what_is_done_before_it_can_be_killed_is_not_damaged(tmp_path):
    running = Campaign(
        COUNTING, plan([Late("cut-checkpoint", True)], 1, 0.5, seed=3), tmp_path, Limits(1.0, 60.0), print
    )
    result = judged(running, tmp_path)
    assert result.holds, result.plain()
    assert result.faults == {}
    runs = [run for subject in running.subjects for run in subject.trainings]
    assert all(len(faults.intact_checkpoints(run.checkpoints)) == 2 for run in runs)


@pytest.mark.usefixtures("counting")
def test_a_fault_that_finds_nothing_to_hit_is_skipped(tmp_path):
    """There is no mpirun: each training that passes takes one fault along."""
    result, lines = campaign(tmp_path, ["kill-mpirun"], failures=1, mtbf=0.01)
    assert result.holds
    assert lines == ["fault 1: kill-mpirun has found nothing to hit: skipped"]
    assert [e["event"] for e in records.read_lines(tmp_path / "campaign.jsonl")].count("skipped") == 1


def chaos(setting, out, *args, config="tiny.yaml"):
    command = [sys.executable, "-m", "hpcgan", "chaos", config, "--out", str(out), *args]
    return jobs.Running(setting, command)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return jobs.make_setting(tmp_path_factory.mktemp("chaos"), epochs=3)


def test_a_training_is_killed_and_judged(setting, tmp_path):
    """The command from end to end, on one rank."""
    code, output = chaos(
        setting, tmp_path / "out", "--ranks", "1", "--failures", "1", "--mtbf", "4", "--faults", "kill-rank"
    ).finish()
    assert code == 0, output
    result = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert result["holds"]
    assert result["faults"] == {"kill-rank": {"injected": 1, "ended": 1}}
    assert "same bits" in output


def test_a_search_is_killed_and_judged(setting, tmp_path):
    """Its coordinator and all its trials at once, then a trial."""
    jobs.make_sweep(setting, "search.yaml", epochs=2)
    options = ("--trials", "2", "--concurrency", "2", "--failures", "2", "--mtbf", "3", "--seed", "2")
    code, output = chaos(
        setting, tmp_path / "out", *options, "--faults", "kill-all,kill-trial", config="search.yaml"
    ).finish()
    assert code == 0, output
    result = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert result["holds"]
    assert sum(row["injected"] for row in result["faults"].values()) == 2
    assert set(result["checks"]) >= {"searched to the end", "same results", "same bits", "nothing lost"}
    study = StudyDirectory(tmp_path / "out" / "run-01")
    scores = [study.result(number).score for number in study.numbers()]
    assert len(set(scores)) == 2
    # What is not so is found.
    file = study.result_file(1)
    file.write_text(file.read_text().replace(f'"score": {scores[1]!r}', '"score": 1.0'))
    reference = tmp_path / "out" / "reference"
    assert verdict_search.other_results(study.path, reference) == ["trial 1 has another score"]
    assert verdict_search.unended(study.path, reference) == []
    file.unlink()
    shutil.copytree(study.trial(0).path, study.trial(2).path)
    assert verdict_search.unended(study.path, reference) == ["trial 1 has no result", "trial 2 is one too many"]
    assert verdict_search.unended(reference, study.path) == ["trial 2 is missing"]


@pytest.mark.faults
@pytest.mark.slow
def test_ten_faults_of_all_kinds_change_nothing_of_a_search(tmp_path):
    setting = jobs.make_setting(tmp_path, epochs=40)
    jobs.make_sweep(setting, epochs=40)
    options = ("comm.timeout_s=30", "--trials", "6", "--concurrency", "2", "--failures", "10", "--mtbf", "12")
    code, output = chaos(setting, tmp_path / "out", *options, config="sweep.yaml").finish()
    assert code == 0, output
    result = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert sum(row["injected"] for row in result["faults"].values()) == 10


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2])
def test_ten_faults_of_all_kinds_change_nothing(tmp_path, ranks):
    pytest.importorskip("horovod")
    setting = jobs.make_setting(tmp_path, epochs=100)
    options = ("comm.timeout_s=30", "--ranks", str(ranks), "--failures", "10", "--mtbf", "12", "--seed", "7")
    code, output = chaos(setting, tmp_path / "out", *options).finish()
    assert code == 0, output
    result = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert sum(row["injected"] for row in result["faults"].values()) == 10


def test_what_cannot_be_is_refused_before_anything_starts(setting, tmp_path):
    for args, text in (
        (("--faults", "kill-rnk"), "--faults kill-rnk: choose of kill-rank, "),
        (("--slurm",), "--slurm: kills daemons of Slurm, so it works only on a cluster whose"),
        (("training.epochs=no",), "training.epochs"),
        (("--trials", "2"), "has no section 'search'"),
        (("--concurrency", "2"), "--concurrency: is about the trials of a search"),
    ):
        environment = {"SLURM_CONF": ""} if "SLURM_CONF" in os.environ else None
        command = [sys.executable, "-m", "hpcgan", "chaos", "tiny.yaml", "--out", str(tmp_path / "new"), *args]
        code, output = jobs.Running(setting, command, environment).finish()
        assert code == 2, output
        assert text in output
        assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    code, output = chaos(setting, tmp_path / "old").finish()
    assert code == 2
    assert "is not empty; name a new folder with --out" in output
