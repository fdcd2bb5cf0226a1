"""A sweep as a notebook sees it, through its study's directory; no trial is trained."""

from __future__ import annotations

import json
import threading

import fake_sweeps
import pytest
import sweeps

from hpcgan.errors import HpcganError, InputError, Interrupted
from hpcgan.interactive import Sweep
from hpcgan.runs.directory import RunDirectory
from hpcgan.sweep.figures import overview_figure
from hpcgan.sweep.store import StudyDirectory
from hpcgan.sweep.table import read_table

pytest.importorskip("optuna")
pytest.importorskip("pandas")


@pytest.fixture
def study(tmp_path):
    """Three complete trials, one pruned, one lost, one that waits; the best one is repeated."""
    made = fake_sweeps.study_in(tmp_path / "study")
    for number, score in enumerate((9.0, 4.0, 6.0)):
        fake_sweeps.finish(made, number, score)
    fake_sweeps.finish(made, 3, 20.0, state="pruned", reason="median pruning after epoch 2", curve=[30.0, 20.0])
    fake_sweeps.begin(made, 4, scores=[12.0, 11.0])
    fake_sweeps.dead(made.runner(4))
    fake_sweeps.begin(made, 5)
    for number, score in ((6, 5.0), (7, 7.0)):
        fake_sweeps.finish(made, number, score, fake_sweeps.params(1), repeat_of=1)
    return made


def test_trials_are_a_table(study):
    table = Sweep.attach(str(study.path)).table()
    assert table["number"].tolist() == list(range(8))
    assert table["state"].tolist() == [*["complete"] * 3, "pruned", "lost", "queued", "complete", "complete"]
    assert table["score"].tolist()[:5] == [9.0, 4.0, 6.0, 20.0, 11.0]
    assert table["score"].isna().tolist()[5]
    assert table["epochs"].tolist()[:6] == [4, 4, 4, 2, 2, 0]
    assert table["seconds"].tolist()[:4] == [60.0] * 4
    for key, value in fake_sweeps.params(2).items():
        assert table[f"params.{key}"][2] == value


def test_the_best_trial_is_that_of_the_ranking(study):
    assert Sweep.attach(study.path).best == {
        "number": 1, "score": 4.0, "epoch": 3, "params": fake_sweeps.params(1), "mean": 6.0, "error": 1.0, "n": 2,
    }  # fmt: skip


def test_a_single_best_has_no_mean(tmp_path):
    made = fake_sweeps.study_in(tmp_path / "study")
    sweep = Sweep.attach(made.path)
    assert sweep.best is None
    fake_sweeps.finish(made, 0, 3.0)
    best = sweep.best
    assert (best["number"], best["score"], best["mean"], best["error"], best["n"]) == (0, 3.0, None, None, None)


def test_the_picture_shows_each_score_and_the_best_so_far(study):
    figure = Sweep.attach(study.path).plot()
    numbers, parallel = figure.axes
    lines = {line.get_label(): line for line in numbers.lines}
    assert lines["complete"].get_xydata().tolist() == [[0, 9.0], [1, 4.0], [2, 6.0]]
    assert lines["pruned"].get_xydata().tolist() == [[3, 20.0]]
    assert lines["so far"].get_xydata().tolist() == [[4, 11.0]]
    assert lines["best so far"].get_ydata().tolist() == [9.0, 4.0, 4.0]
    assert {text.get_text() for text in parallel.texts} >= {"score", "learning_rate", "filters", "label_flip"}


def test_there_is_no_picture_without_a_score_and_no_parallel_one_of_a_single_trial(tmp_path):
    made = fake_sweeps.study_in(tmp_path / "study")
    with pytest.raises(InputError, match="no trial has a score yet"):
        Sweep.attach(made.path).plot()
    fake_sweeps.finish(made, 0, 3.0)
    assert len(overview_figure(read_table(made.path)).axes) == 1


def test_the_report_and_the_training_of_a_trial(study):
    sweep = Sweep.attach(study.path)
    assert sweep.report() == study.report / "report.html"
    assert "<h1>Sweep tiny sweep</h1>" in (study.report / "report.html").read_text()
    training = sweep.trial(4)
    assert training.run.path == study.trial(4).path
    assert training.metrics()["score.total"].tolist() == [12.0, 11.0]
    with pytest.raises(InputError, match="no trial 8; the last one is 7"):
        sweep.trial(8)


@pytest.mark.parametrize(
    ("recorded", "state"), [("interrupted", "stopped"), ("done", "done"), ("failed", "failed"), ("running", "lost")]
)
def test_the_state_is_that_of_the_process_that_hands_out_trials(study, recorded, state):
    sweep = Sweep.attach(study.path)
    assert sweep.state == "not started"
    fake_sweeps.ended(RunDirectory(study.path), recorded)
    assert sweep.state == state
    assert sweep.wait(0.0) == state
    with pytest.raises(InputError, match=f"there is nothing to stop: the sweep is {state}"):
        sweep.stop()
    assert not study.stop_file.exists()


# --- commands -------------------------------------------------------------------------------------


def test_a_trial_is_pruned_once_and_only_before_its_end(study):
    sweep = Sweep.attach(study.path)
    sweep.prune(4)
    written = study.trial(4).verdict_file.read_text()
    assert json.loads(written) == {"reason": "pruned by hand after epoch 2", "epoch": 2}
    with pytest.raises(InputError, match="trial 4: shall end already"):
        sweep.prune(4)
    assert study.trial(4).verdict_file.read_text() == written
    sweep.prune(5)
    assert json.loads(study.trial(5).verdict_file.read_text())["epoch"] == 0
    for number, state in ((0, "complete"), (3, "pruned")):
        with pytest.raises(InputError, match=f"trial {number}: is {state}; only trials that run or wait"):
            sweep.prune(number)
    with pytest.raises(InputError, match="no trial 8"):
        sweep.prune(8)


def test_of_two_who_decide_at_once_one_does(study):
    barrier, decided = threading.Barrier(8), []

    def decide(who):
        barrier.wait()
        if study.write_verdict(4, f"by {who}", 2):
            decided.append(who)

    threads = [threading.Thread(target=decide, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decided) == 1
    assert json.loads(study.trial(4).verdict_file.read_text())["reason"] == f"by {decided[0]}"
    assert not list(study.trial(4).path.glob(".verdict*"))


def test_a_coordinator_records_a_trial_that_was_pruned_by_hand(tmp_path):
    """Its pruner is none, and the verdict comes from somebody else."""
    path = tmp_path / "study"
    executor = sweeps.FakeExecutor(StudyDirectory(path), 1)
    whole_poll = executor.poll

    def poll():
        if executor._flying == [1]:
            Sweep.attach(path).prune(1)
            executor._fates = {1: [{"state": "pruned", "score": None, "epoch": None, "epochs": 0, "reason": "by hand"}]}
        return whole_poll()

    executor.poll = poll
    code, _ = sweeps.coordinate(path, sweeps.plan(trials=3), executor)
    assert code == 0
    assert [row[4] for row in sweeps.table(path)] == ["complete", "pruned", "complete"]
    result = StudyDirectory(path).result(1)
    assert (result.state, result.reason) == ("pruned", "by hand")
    assert sweeps.coordinate(path, sweeps.plan(trials=3))[0] == 0


def test_whoever_sees_the_directory_stops_a_sweep(tmp_path):
    path, said, failures = tmp_path / "study", [], []
    executor = sweeps.FakeExecutor(StudyDirectory(path), 1)

    def stop(it):
        if len(it.started) < 2 or failures:
            return
        try:
            with pytest.raises(HpcganError, match="has been asked to stop, but trials still write checkpoints"):
                Sweep.attach(path).stop(wait=0.01)
        except BaseException as error:
            failures.append(error)
        it._fates = {n: ["stopped"] for n in range(9)}

    executor.at_poll = stop
    with pytest.raises(Interrupted):
        sweeps.coordinate(path, sweeps.plan(trials=5), executor, said=said)
    assert not failures
    assert Sweep.attach(path).state == "stopped"
    assert executor.started == [0, 1]  # what was stopped is not started again
    assert sum("somebody asks all trials to stop" in line for line in said) == 1
    assert sweeps.coordinate(path, sweeps.plan(trials=5))[0] == 0
    sweeps.coordinate(tmp_path / "undisturbed", sweeps.plan(trials=5))
    assert sweeps.table(path) == sweeps.table(tmp_path / "undisturbed")


# --- starting -------------------------------------------------------------------------------------


def test_what_the_command_refuses_is_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text("problem: rpv\ndata: {path: absent}\nsearch: {model.filters: {choice: [1]}}\n")
    for given, message in (
        ({"trials": 0, "out": "study"}, "^sweep.trials=0: input should be greater than or equal to 1"),
        (
            {"trials": 1, "executor": "loca"},
            "^executor 'loca' does not exist; choose one of: ipyparallel, local, slurm, or",
        ),
        ({"trails": 1}, r"^unknown option 'trails'; did you mean 'trials'\?"),
        ({"trials": 1, "job": {"partition": "a b"}}, "^job.partition='a b': not a name that Slurm knows"),
        ({"trials": 1}, "^absent/train.h5: no such file; make it with"),
        ({"trials": 1, "overrides": ["model.filtres=3"]}, "unknown key 'model.filtres'; did you mean 'filters'"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            Sweep.start("sweep.yaml", **given)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(InputError, match=r"no\.yaml: cannot read the configuration"):
        Sweep.start("no.yaml", trials=1)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
    assert capfd.readouterr() == ("", "")


def test_bad_directories_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"not a study \(no study.json in it\)"):
        Sweep.attach(tmp_path)
