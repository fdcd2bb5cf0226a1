"""What a trial makes of a training's end, and how Slurm's arrays are told their trials. Nothing is trained."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import sweeps

from hpcgan.config import JobSection, SweepSection
from hpcgan.errors import InputError
from hpcgan.launch import slurm
from hpcgan.launch.outcome import end_after
from hpcgan.launch.process import Requests
from hpcgan.runs import records
from hpcgan.runs.lease import FencedError, Lease, attempt_state
from hpcgan.sweep import study as studies
from hpcgan.sweep import trial
from hpcgan.sweep.executors import EXECUTORS, Executor
from hpcgan.sweep.executors import slurm as slurm_executor
from hpcgan.sweep.executors.slurm import SlurmExecutor
from hpcgan.sweep.store import Assignment, StudyDirectory
from hpcgan.system.failure import VARIABLE, Failure, tell


@pytest.fixture
def study(tmp_path):
    made = StudyDirectory(tmp_path / "a study")
    space = sweeps.space()
    with studies.opened(made, sweeps.describe(space), space.base, print):
        assignment = Assignment(number=4, params=space.draw(1, 4), seed=77, index=4)
        made.trial(4).create(space.config(assignment.params, 77))
        made.write_assignment(assignment)
    return made


def trained(study, scores, outcome=None, failure=None, selection=()):
    """A training that recorded so many epochs, and its end."""
    writer = records.Writer(study.trial(4).metrics_file, 1)
    for epoch, score in enumerate(scores, start=1):
        total = None if score is None else records.EpochScore(score)
        selected = records.EpochScore(selection[epoch - 1]) if selection else None
        writer.write(records.Epoch(step=9 * epoch, epoch=epoch, score=total, selection=selected))
    if outcome:
        writer.write(records.End(step=99, outcome=outcome, failure=failure))
    writer.close()


def told(study, failure):
    """What the training told whoever had started it."""
    trial.failure_file(study, 4).parent.mkdir(exist_ok=True)
    tell(failure, {VARIABLE: str(trial.failure_file(study, 4))})


def judged(study, code, before=0):
    return trial.judge(study, study.assignment(4), 2, 0.0, code, end_after(study.trial(4), before))


def test_a_training_that_ended_is_complete_with_its_best_epoch(study):
    trained(study, [9.0, 4.0, 5.0], "done")
    result = judged(study, 0)
    assert (result.state, result.score, result.epoch, result.epochs) == ("complete", 4.0, 2, 3)
    assert (result.number, result.seed, result.attempts) == (4, 77, 2)
    assert result.params == sweeps.space().draw(1, 4)


def test_trials_are_ranked_by_what_selects_epochs(study):
    trained(study, [9.0, 4.0, 5.0], "done", selection=[30.0, 40.0, 20.0])
    result = judged(study, 0)
    assert (result.score, result.epoch) == (20.0, 3)


def test_a_training_that_was_ended_early_is_pruned_with_the_reason(study):
    trained(study, [9.0, 8.0], "pruned")
    study.trial(4).verdict_file.write_text('{"reason": "median pruning after epoch 2", "epoch": 2}')
    result = judged(study, 0)
    assert (result.state, result.epochs, result.reason) == ("pruned", 2, "median pruning after epoch 2")


def test_one_that_was_ended_by_hand_before_its_first_epoch_is_pruned_too(study):
    trained(study, [], "pruned")
    study.trial(4).verdict_file.write_text('{"reason": "pruned by hand after epoch 0", "epoch": 0}')
    result = judged(study, 0)
    assert (result.state, result.score, result.epochs) == ("pruned", None, 0)
    assert result.reason == "pruned by hand after epoch 0"


def test_a_training_without_a_finite_score_failed(study):
    trained(study, [None, float("inf"), None], "done")
    assert (judged(study, 0).state, judged(study, 0).reason) == ("failed", "no epoch has a finite score")


@pytest.mark.parametrize(
    ("code", "failure", "reason"),
    [
        (1, Failure("training", "loss became non-finite at step 7"), "loss became non-finite at step 7"),
        (1, Failure("training", "KeyError: 'x'", 1), "rank 1: KeyError: 'x'"),
        (1, None, "the training ended with exit code 1"),
        (2, Failure("user", "none of the 2 checkpoints is intact"), "none of the 2 checkpoints is intact"),
    ],
)
def test_a_failure_that_is_the_trials_own_is_its_result(study, code, failure, reason):
    trained(study, [9.0], "failed", failure)
    result = judged(study, code)
    assert (result.state, result.score, result.reason) == ("failed", 9.0, reason)


def test_what_is_refused_before_there_is_an_attempt_is_the_trials_result(study):
    trained(study, [9.0])
    assert judged(study, 2).reason == "the training ended with exit code 2"
    told(study, Failure("user", "60 events are fewer than a global batch of 128"))
    result = judged(study, 2)
    assert (result.state, result.score) == ("failed", 9.0)
    assert result.reason == "60 events are fewer than a global batch of 128"


@pytest.mark.parametrize(
    ("code", "outcome", "recorded", "heard"),
    [
        (75, "interrupted", None, None),
        (137, None, None, None),
        (1, None, None, Failure("environment", "rank 1 does not answer", 0)),
        (1, None, None, Failure("training", "KeyError: 'x'", 1)),  # one rank's alone: it may have been its node's
        (2, None, None, Failure("environment", "runs/x: process 7 on n1 is at work in it (attempt 2)")),
        (1, "failed", Failure("environment", "runs/x/metrics.jsonl: cannot write: No space left on device"), None),
    ],
)
def test_an_end_that_says_nothing_of_the_trial_is_no_result(study, code, outcome, recorded, heard):
    trained(study, [9.0], outcome, recorded)
    if heard is not None:
        told(study, heard)
    assert judged(study, code) is None


def test_what_earlier_attempts_left_does_not_count(study):
    trained(study, [9.0], "failed", Failure("training", "old"))
    assert judged(study, 1, before=1) is None
    assert judged(study, 2, before=1).reason == "the training ended with exit code 2"


def runs(study, requests=None):
    return trial.Trial(study, 4, requests or Requests(print)).run()


def test_a_trial_that_has_ended_is_not_run_again(study):
    trained(study, [9.0], "done")
    study.write_result(sweeps.result_of(study, 4))
    assert runs(study) == 0
    assert not study.runner(4).attempts.exists()


def test_a_trial_that_somebody_runs_is_refused(study):
    lease = Lease(study.runner(4))
    with pytest.raises(FencedError):
        runs(study)
    lease.release("done")


def test_a_stop_before_the_training_has_begun_is_a_stop(study):
    requests = Requests(print)
    requests.ask(15, None)
    assert runs(study, requests) == 75
    assert attempt_state(study.runner(4)) == "interrupted"


def test_an_unknown_trial_is_one_line(study):
    with pytest.raises(InputError, match="there is no trial 5"):
        trial.Trial(study, 5, Requests(print)).run()


# --- arrays ---------------------------------------------------------------------------------------


def executor(study, **fields):
    sections = {"sweep": SweepSection(ranks=2, concurrency=3), "job": JobSection(**fields)}
    return SlurmExecutor(study, sweeps.base().model_copy(update=sections), print)


def test_an_array_has_an_element_a_trial_and_a_limit(study, tmp_path, monkeypatch):
    (tmp_path / "work dir").mkdir()
    monkeypatch.chdir(tmp_path / "work dir")
    script = executor(study, partition="main").script([4, 7, 9])
    for line in ("--array=0-2%3", "--signal=B:USR1@120", "--requeue", "--ntasks-per-node=2", "--partition=main"):
        assert f"#SBATCH {line}\n" in script
    assert f"cd '{tmp_path}/work dir'\n" in script
    assert script.splitlines()[-1].endswith(f"-m hpcgan.sweep.trial '{study.path}' --of 4,7,9")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=True).returncode == 0


def test_an_element_knows_its_trial():
    assert trial._number("", "4,7,9", {"SLURM_ARRAY_TASK_ID": "1"}) == 7
    assert trial._number("12", None, {}) == 12
    for element in ("3", "", "x"):
        with pytest.raises(InputError, match="is no element of 3"):
            trial._number("", "4,7,9", {"SLURM_ARRAY_TASK_ID": element})


def test_trials_have_ended_when_the_queue_has_missed_them_twice(study, monkeypatch):
    """And not while the controller does not answer."""
    made = executor(study)
    monkeypatch.setattr(slurm, "submit", lambda *_: "12")
    monkeypatch.setattr(slurm, "obstacle", lambda _: "")
    made.start([4, 7])
    answers = [{"12_0", "12_1"}, {"12_1"}, None, {"12_1"}, set(), {"12_1"}, set(), set()]

    def queue(elements):
        answer = answers.pop(0)
        if answer is None:
            raise studies.HpcganError("squeue: no answer")
        return {e: slurm.QueueEntry(e, "RUNNING", "", None) for e in answer if e in elements}

    monkeypatch.setattr(slurm, "queue", queue)
    assert [made.poll() for _ in range(8)] == [{}, {}, {}, {4: None}, {}, {}, {}, {7: None}]
    again = executor(study)
    answers.append({"12_1"})
    assert again.in_flight() == {7}


def test_a_controller_that_does_not_answer_at_first_is_asked_again_for_what_is_in_the_queue(study, monkeypatch):
    """To take its silence for an empty queue would start the trials in it a second time."""
    made = executor(study)
    made.every = 0.0
    monkeypatch.setattr(slurm, "submit", lambda *_: "12")
    monkeypatch.setattr(slurm, "obstacle", lambda _: "")
    made.start([4, 7])
    answers = iter([None, None, {"12_1"}])

    def queue(elements):
        answer = next(answers)
        if answer is None:
            raise studies.HpcganError("squeue: no answer")
        return {e: slurm.QueueEntry(e, "PENDING", "", None) for e in answer}

    monkeypatch.setattr(slurm, "queue", queue)
    fresh = executor(study)
    fresh.every = 0.0
    assert fresh.in_flight() == {7}

    def silent(elements):
        raise studies.HpcganError("squeue: no answer")

    monkeypatch.setattr(slurm, "queue", silent)
    monkeypatch.setattr(slurm_executor, "PATIENCE", 0.0)
    other = executor(study)
    other.every = 0.0
    with pytest.raises(studies.HpcganError, match="cannot be found out: squeue: no answer"):
        other.in_flight()


@pytest.mark.parametrize("outcome", [None, "failed", "interrupted"])
def test_an_exit_code_of_0_without_the_record_of_an_end_is_no_result(study, outcome):
    trained(study, [9.0], outcome)
    assert judged(study, 0) is None


def test_ranks_that_nodes_cannot_share_evenly_are_refused(study):
    with pytest.raises(InputError, match="--ranks 2: cannot be spread evenly over --nodes 3"):
        executor(study, nodes=3)


# --- executors by name ----------------------------------------------------------------------------


class InThisProcess(Executor):
    """Of a test: it runs nothing."""

    def start(self, numbers):
        pass

    def poll(self):
        return {}

    def in_flight(self):
        return set()


def test_executors_are_found_by_name_and_by_place():
    assert EXECUTORS.names() == ["ipyparallel", "local", "slurm"]
    assert EXECUTORS.get("slurm") is SlurmExecutor
    assert EXECUTORS.get(f"{__name__}:InThisProcess") is InThisProcess
    with pytest.raises(InputError, match=r"executor 'slrum' does not exist; choose one of: .*did you mean 'slurm'"):
        EXECUTORS.get("slrum")
    with pytest.raises(InputError, match="is no class of a"):
        EXECUTORS.get("pathlib:Path")


def test_an_executor_says_its_own_defaults(study, monkeypatch):
    monkeypatch.setattr("hpcgan.sweep.executors.local.available_cores", lambda: 12)
    local, two_ranks = EXECUTORS.get("local"), SweepSection(ranks=2)
    assert (local.default_concurrency(two_ranks), local.default_threads(two_ranks)) == (6, 1)
    assert local.default_threads(SweepSection(ranks=2, concurrency=2)) == 3
    for plain in (InThisProcess, EXECUTORS.get("slurm")):
        assert (plain.default_concurrency(two_ranks), plain.default_threads(two_ranks)) == (4, 1)
    sections = {"sweep": SweepSection(ranks=2, concurrency=4), "job": JobSection(threads=2)}
    crowded = local(study, sweeps.base().model_copy(update=sections), print)
    assert crowded.warnings() == [
        "4 trials x 2 ranks x 2 threads share 12 cores: this works, but slower than one thread a core"
    ]
    with pytest.raises(InputError, match="--print: --executor local has no batch script"):
        crowded.script([0])


def test_the_executor_of_the_documentation_runs_trials(study, monkeypatch):
    """On one that has a result, which ends at once."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "sweep.md").read_text()
    (code,) = re.findall(r"```python\n(# my_site\.py.*?)```", page, flags=re.DOTALL)
    module = types.ModuleType("my_site")
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, "my_site", module)
    study.write_result(sweeps.result_of(study, 4))
    nice = EXECUTORS.get("my_site:Nice")(study, sweeps.base(), print)
    assert (nice.concurrency, nice.every) == (2, 1.0)
    study.trial(5).path.mkdir()
    nice.start([4, 5])
    assert nice.in_flight() == {4, 5}
    ended: dict[int, int] = {}
    while nice.in_flight():
        ended.update(nice.poll())
        time.sleep(0.05)
    assert ended == {4: 0, 5: 2}
    assert "there is no trial 5" in study.log_file(5).read_text()


def test_a_batch_script_is_asked_for_without_a_cluster(study):
    """Engines have none, and nobody needs to answer for that to be said."""
    engines = EXECUTORS.get("ipyparallel")(study, sweeps.base("sweep.executor=ipyparallel"), print)
    with pytest.raises(InputError, match="--print: --executor ipyparallel has no batch script"):
        engines.script([0])
    engines.close()
