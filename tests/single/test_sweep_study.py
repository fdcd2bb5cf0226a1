"""The study: what is kept, what is taken up again, what is refused. Trials are made up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sweeps
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import InputError, Interrupted
from hpcgan.launch.process import Requests
from hpcgan.problems.base import problem_class
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease, attempt_state
from hpcgan.sweep import optuna_study, pruning, study, views
from hpcgan.sweep.coordinator import FRUITLESS
from hpcgan.sweep.executors.local import share_cores
from hpcgan.sweep.store import StudyDirectory
from hpcgan.sweep.table import Row, read_table
from hpcgan.system.allocation import outside

optuna = pytest.importorskip("optuna")

PRUNED = optuna.trial.TrialState.PRUNED
ROOT = Path(__file__).resolve().parents[2]
PLAN = sweeps.plan(trials=6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed study with repetitions."""
    path = tmp_path_factory.mktemp("whole") / "study"
    code, _ = sweeps.coordinate(path, sweeps.plan(trials=6, top=2, repeats=3))
    assert code == 0
    return path


def load(path):
    """The study as optuna-dashboard reads it."""
    journal = str(optuna_study.write_journal(read_table(path)))
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(journal))
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage)


# --- a study from beginning to end ----------------------------------------------------------------


def test_trials_have_the_parameters_of_their_number_and_seeds_of_their_own(whole):
    made = StudyDirectory(whole)
    search = [made.result(number) for number in range(6)]
    assert [r.params for r in search] == [sweeps.space().draw(1, index) for index in range(6)]
    assert len({r.seed for r in search}) == 6
    assert made.numbers() == list(range(12))


def test_the_best_are_repeated_with_fresh_seeds_and_the_best_mean_is_scored_on_test_events(whole):
    made = StudyDirectory(whole)
    results = [made.result(number) for number in made.numbers()]
    ranked = sorted(results[:6], key=lambda r: r.score)
    assert [r.repeat_of for r in results[6:]] == [ranked[0].number] * 3 + [ranked[1].number] * 3
    assert all(r.params == results[r.repeat_of].params for r in results[6:])
    assert len({r.seed for r in results}) == 12
    means = {n.number: sum(r.score for r in results if r.repeat_of == n.number) / 3 for n in ranked[:2]}
    winner = min(means, key=means.get)
    assert {r.number for r in results if r.test_score is not None} == {
        r.number for r in results if r.repeat_of == winner
    }


def test_optuna_sees_the_same_trials_with_their_distributions(whole):
    found = load(whole)
    made = StudyDirectory(whole)
    assert len(found.trials) == 12
    for trial in found.trials:
        result = made.result(trial.number)
        assert trial.params == result.params
        assert trial.value == result.score
        assert trial.user_attrs["seed"] == result.seed
        assert set(trial.distributions) == set(sweeps.SEARCH)
    rate = found.trials[0].distributions["training.generator.learning_rate"]
    assert (rate.low, rate.high, rate.log) == (1e-5, 1e-2, True)
    importance = optuna.importance.get_param_importances(
        found, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    assert set(importance) == set(sweeps.SEARCH)


def test_run_again_it_does_nothing_and_with_more_trials_it_goes_on(tmp_path):
    path = tmp_path / "study"
    sweeps.coordinate(path, PLAN.model_copy(update={"trials": 3}))
    before = sweeps.table(path)
    executor = sweeps.FakeExecutor(StudyDirectory(path))
    assert sweeps.coordinate(path, PLAN.model_copy(update={"trials": 3}), executor)[0] == 0
    assert executor.started == []
    assert sweeps.coordinate(path, PLAN, executor)[0] == 0
    assert executor.started == [3, 4, 5]
    sweeps.coordinate(tmp_path / "other", PLAN)
    assert sweeps.table(path) == sweeps.table(tmp_path / "other")
    assert sweeps.table(path)[:3] == before


def test_trials_after_repetitions_have_the_place_in_the_search_they_would_have_without(tmp_path):
    path = tmp_path / "study"
    sweeps.coordinate(path, sweeps.plan(trials=2, top=1, repeats=2))
    sweeps.coordinate(path, sweeps.plan(trials=3, top=1, repeats=2))
    third = next(r for r in sweeps.table(path)[4:] if r[3] is None)
    assert third[1] == sweeps.space().draw(1, 2)
    assert third[2] == sweeps.describe(sweeps.space(), seed=1).trial_seed(2)


@pytest.mark.parametrize("slots", [1, 2, 5, None])
def test_no_more_trials_at_a_time_than_there_is_room_for_and_always_the_same_table(tmp_path, slots):
    executor = sweeps.FakeExecutor(StudyDirectory(tmp_path / "s"), slots)
    sweeps.coordinate(tmp_path / "s", PLAN, executor)
    assert executor.most == (slots or 6) if slots != 5 else executor.most <= 5
    sweeps.coordinate(tmp_path / "t", PLAN)
    assert sweeps.table(tmp_path / "s") == sweeps.table(tmp_path / "t")


def test_a_grid_is_tried_in_its_order(tmp_path):
    search = sweeps.space({"model.filters": {"choice": [1, 2]}, "model.latent_dim": {"int": [2, 3]}})
    sweeps.coordinate(tmp_path / "s", sweeps.plan(trials=4), search=search, sampler="grid")
    assert [row[1] for row in sweeps.table(tmp_path / "s")] == search.grid()


def test_conditions_hold_for_every_sampler(tmp_path):
    search = sweeps.space(
        {
            "model.filters": {"choice": [1, 2]},
            "training.label_flip": {"uniform": [0.0, 0.2], "when": {"model.filters": 2}},
            "data.augment": {"choice": [[], ["eta_reflection"]]},
        }
    )
    for sampler in ("random", "tpe"):
        path = tmp_path / sampler
        sweeps.coordinate(path, sweeps.plan(trials=12), search=search, sampler=sampler)
        rows = sweeps.table(path)
        assert {("training.label_flip" in row[1]) for row in rows} == {True, False}
        assert all(("training.label_flip" in row[1]) == (row[1]["model.filters"] == 2) for row in rows)
        assert {str(row[1]["data.augment"]) for row in rows} == {"[]", "['eta_reflection']"}
        assert [set(t.params) for t in load(path).trials] == [set(row[1]) for row in rows]


# --- samplers of Optuna's -------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "nsgaii"])
def test_a_study_stopped_between_trials_asks_for_the_same_as_one_that_went_through(tmp_path, sampler):
    """One trial at a time: what a sampler asks for depends on what it has been told."""
    for path, stops in ((tmp_path / "a", (14,)), (tmp_path / "b", (3, 4, 11, 14))):
        for trials in stops:
            executor = sweeps.FakeExecutor(StudyDirectory(path), 1)
            sweeps.coordinate(path, sweeps.plan(trials=trials), executor, sampler=sampler)
    rows = sweeps.table(tmp_path / "a")
    assert rows == sweeps.table(tmp_path / "b")
    assert len({str(row[1]) for row in rows}) == 14


def test_random_search_and_pruning_need_no_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert sweeps.coordinate(tmp_path / "s", sweeps.plan(trials=3), pruner="median")[0] == 0
    with pytest.raises(InputError, match=r"Optuna is not installed: pip install 'hpcgan\[sweep\]'"):
        optuna_study.check_sampler("tpe")


def test_tpe_learns(tmp_path):
    """It ends nearer to the best learning rate (1e-3) than random search began."""
    sweeps.coordinate(
        tmp_path / "s", sweeps.plan(trials=40), sweeps.FakeExecutor(StudyDirectory(tmp_path / "s"), 1), sampler="tpe"
    )
    scores = [row[5] for row in sweeps.table(tmp_path / "s")]
    assert sum(scores[-10:]) / 10 < 0.6 * sum(scores[:10]) / 10


def test_values_that_do_not_go_together_are_failed_trials_with_the_reason(tmp_path):
    search = sweeps.space(
        {"scoring.weights": {"choice": ["average", "current"]}, "training.average_half_life": {"choice": [0, 50]}}
    )
    with pytest.raises(InputError, match=r"scoring.weights=average needs training.average_half_life"):
        study.check_draws(search, sweeps.describe(search), 20)
    sweeps.coordinate(tmp_path / "s", sweeps.plan(trials=12), search=search, sampler="tpe")
    failed = [r for r in map(StudyDirectory(tmp_path / "s").result, range(12)) if r.state == "failed"]
    assert failed
    assert all("needs training.average_half_life" in r.reason for r in failed)


@pytest.mark.parametrize(("name", "message"), [("tpr", "choose one of random, grid, "), ("basega", "choose one of")])
def test_unknown_samplers(name, message):
    with pytest.raises(InputError, match=message):
        optuna_study.check_sampler(name)


# --- trials that do not end -----------------------------------------------------------------------


def test_lost_trials_are_tried_again_a_bounded_number_of_times_then_recorded(tmp_path):
    path, said = tmp_path / "s", []
    executor = sweeps.FakeExecutor(StudyDirectory(path), 2, {1: ["lost", "lost", "complete"], 2: ["lost"]})
    code, _ = sweeps.coordinate(path, PLAN.model_copy(update={"trials": 4, "retries": 2}), executor, said=said)
    assert code == 0
    assert executor.started.count(1) == 3
    assert executor.started.count(2) == 3
    result = StudyDirectory(path).result(2)
    assert (result.state, result.score) == ("failed", None)
    assert result.reason == "lost 3 times, the last time with exit code -9"
    assert any("trial 1 was lost (exit code -9); 2 of 2 retries" in line for line in said)
    trials = load(path).trials
    assert [t.state.name for t in trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert StudyDirectory(path).assignment(1).lost == 2


def test_losses_are_counted_through_coordinators(tmp_path):
    path = tmp_path / "s"
    for left in (2, 1):
        executor = sweeps.FakeExecutor(StudyDirectory(path), 1, {0: ["lost"]})
        requests = Requests(lambda _: None)

        def once(it, requests=requests):
            if len(it.started) > 1:
                requests.ask(15, None)

        executor.at_poll = once
        with pytest.raises(Interrupted):
            sweeps.coordinate(path, sweeps.plan(trials=1, retries=3), executor, requests=requests)
        assert len(executor.started) == 2
        assert left
    assert StudyDirectory(path).assignment(0).lost == 2


def test_stops_are_no_losses_unless_nothing_is_trained_between_them(tmp_path):
    path = tmp_path / "s"
    fates = {0: ["stopped"] * (FRUITLESS - 1) + ["complete"], 1: ["stopped"]}
    executor = sweeps.FakeExecutor(StudyDirectory(path), 2, fates)
    sweeps.coordinate(path, sweeps.plan(trials=2, retries=0), executor)
    made = StudyDirectory(path)
    assert made.result(0).state == "complete"
    assert made.assignment(0).lost == 0
    assert (made.result(1).state, executor.started.count(1)) == ("failed", FRUITLESS)


def test_failed_trials_keep_their_score_and_reason(tmp_path):
    path = tmp_path / "s"
    fate = {"state": "failed", "reason": "loss became non-finite at step 7", "score": 12.5}
    code, coordinator = sweeps.coordinate(
        path, PLAN, sweeps.FakeExecutor(StudyDirectory(path), 2, {0: [fate], 3: [{**fate, "score": None}]})
    )
    assert code == 0
    trials = load(path).trials
    assert trials[0].state.name == trials[3].state.name == "FAIL"
    assert trials[0].user_attrs["score"] == 12.5
    assert "non-finite" in trials[0].user_attrs["reason"]
    assert {standing.number for standing in coordinator.ranking()} == {1, 2, 4, 5}


def test_a_study_of_which_nothing_came_fails(tmp_path):
    fate = {"state": "failed", "reason": "collapsed", "score": None}
    executor = sweeps.FakeExecutor(StudyDirectory(tmp_path / "s"), 2, {number: [fate] for number in range(6)})
    assert sweeps.coordinate(tmp_path / "s", PLAN.model_copy(update={"repeats": 2}), executor)[0] == 1


def test_a_trained_trial_that_cannot_be_scored_on_test_events_stays_what_it_is(tmp_path):
    path = tmp_path / "s"
    executor = sweeps.FakeExecutor(StudyDirectory(path), 2, {2: ["complete", "lost"]})
    code, coordinator = sweeps.coordinate(path, sweeps.plan(trials=1, top=1, repeats=2, retries=1), executor)
    assert code == 0
    made = StudyDirectory(path)
    assert made.result(2).state == "complete"
    assert made.result(2).test_score is None
    assert "lost" in made.result(2).test_failed
    assert made.result(1).test_score == 5.0
    assert coordinator.ranking()[0].number == 0


def test_a_repetition_that_fails_puts_its_trial_behind_the_others(tmp_path):
    path = tmp_path / "s"
    sweeps.coordinate(tmp_path / "t", sweeps.plan(trials=4))
    best = sorted(sweeps.table(tmp_path / "t"), key=lambda row: row[5])[0][0]
    executor = sweeps.FakeExecutor(StudyDirectory(path), 2, {4: [{"state": "failed", "score": None, "reason": "NaN"}]})
    _, coordinator = sweeps.coordinate(path, sweeps.plan(trials=4, top=2, repeats=2), executor)
    assert StudyDirectory(path).result(4).repeat_of == best
    assert coordinator.ranking()[0].number != best


def test_a_smaller_top_has_the_same_winner_for_everybody(tmp_path):
    """Trial 0 has the best score of its own, trial 1 the better mean over repetitions."""
    path = tmp_path / "s"
    scores = dict(enumerate((1.0, 2.0, 3.0, 5.0, 5.0, 3.0, 3.0)))
    fates = {number: [{"score": score}] for number, score in scores.items()}
    for top in (2, 1):
        executor = sweeps.FakeExecutor(StudyDirectory(path), 2, fates)
        code, coordinator = sweeps.coordinate(path, sweeps.plan(trials=3, top=top, repeats=2), executor)
        assert code == 0
        assert coordinator.ranking()[0].number == 1
        assert {n for n in range(7) if StudyDirectory(path).result(n).test_score is not None} == {5, 6}
        assert views.summary(path)[-1].startswith("winner: trial 1; on test events score 5.00")
        assert views.best(path).startswith("# Trial 1 of the sweep")
    assert executor.started == []


# --- one coordinator, killed whenever ------------------------------------------------------------


def test_a_second_coordinator_is_refused(tmp_path):
    path, refused = tmp_path / "s", []
    executor = sweeps.FakeExecutor(StudyDirectory(path))

    def another(_):
        with pytest.raises(InputError, match=r"another sweep is at work on this study.*process"):
            sweeps.coordinate(path, PLAN)
        refused.append(True)

    executor.at_poll = another
    assert sweeps.coordinate(path, PLAN, executor)[0] == 0
    assert refused


def test_a_coordinator_killed_at_any_call_leaves_a_study_that_goes_on_to_the_same_table(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    script = Path(__file__).with_name("killed_coordinator.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "5"], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) > 20
    assert [t["killed"] for t in told] == [True] * (len(told) - 1) + [False]
    for entry in told:
        assert entry["table"] == told[-1]["table"], entry["call"]
        assert entry["entered"] == 4, entry["call"]


def test_a_trial_that_somebody_still_runs_is_waited_for_not_started_again(tmp_path):
    path = tmp_path / "s"
    requests = Requests(lambda _: None)
    first = sweeps.FakeExecutor(StudyDirectory(path), 1, {0: ["lost"]})
    first.at_poll = lambda it: it.started and requests.ask(15, None)
    with pytest.raises(Interrupted):
        sweeps.coordinate(path, sweeps.plan(trials=1), first, requests=requests)
    made = StudyDirectory(path)
    lease = Lease(made.runner(0))  # an engine that an earlier coordinator left behind
    said, looks = [], []
    second = sweeps.FakeExecutor(made, 1)

    def end(_):
        looks.append(made.result(0))
        if len(looks) == 3:
            made.write_result(sweeps.result_of(made, 0, attempts=7))
            lease.release("done")

    second.at_poll = end
    assert sweeps.coordinate(path, sweeps.plan(trials=1), second, said=said)[0] == 0
    assert second.started == []
    assert made.result(0).attempts == 7
    assert "still running: trial 0" in said


def test_a_stop_ends_with_75_and_goes_on(tmp_path):
    path, requests = tmp_path / "s", Requests(lambda _: None)
    executor = sweeps.FakeExecutor(StudyDirectory(path))

    def stop(it):
        if len(it.started) >= 4:
            requests.ask(15, None)

    executor.at_poll = stop
    with pytest.raises(Interrupted) as raised:
        sweeps.coordinate(path, PLAN, executor, requests=requests)
    assert raised.value.exit_code == 75
    assert StudyDirectory(path).stop_file.exists()
    assert attempt_state(RunDirectory(path)) == "interrupted"
    assert sweeps.coordinate(path, PLAN)[0] == 0
    assert not StudyDirectory(path).stop_file.exists()
    sweeps.coordinate(tmp_path / "t", PLAN)
    assert sweeps.table(path) == sweeps.table(tmp_path / "t")


# --- files that are gone or damaged ---------------------------------------------------------------


@pytest.fixture
def damaged(whole, tmp_path):
    path = tmp_path / "study"
    shutil.copytree(whole, path)
    return path


def goes_on(path, whole, said, trials=6):
    executor = sweeps.FakeExecutor(StudyDirectory(path))
    assert sweeps.coordinate(path, sweeps.plan(trials=trials, top=2, repeats=3), executor, said=said)[0] == 0
    assert sweeps.table(path) == sweeps.table(whole)
    found = [(t.number, t.params, t.value, t.state) for t in load(path).trials]
    assert found == [(t.number, t.params, t.value, t.state) for t in load(whole).trials]
    return executor


@given(st.dictionaries(st.integers(0, 11), st.sampled_from(["result", "assignment", "directory"]), max_size=5))
def test_whatever_is_deleted_the_study_goes_on_to_the_same_table(whole, tmp_path_factory, deleted):
    path = tmp_path_factory.mktemp("any") / "study"
    shutil.copytree(whole, path)
    study_there = StudyDirectory(path)
    for number, what in deleted.items():
        if what == "directory":
            shutil.rmtree(study_there.trial(number).path)
        else:
            (study_there.result_file if what == "result" else study_there.assignment_file)(number).unlink()
    executor = sweeps.FakeExecutor(study_there)
    assert sweeps.coordinate(path, sweeps.plan(trials=6, top=2, repeats=3), executor)[0] == 0
    assert sweeps.table(path) == sweeps.table(whole)
    assert set(executor.started) >= {number for number, what in deleted.items() if what != "assignment"}


def test_optunas_journal_is_written_on_request_and_nothing_goes_by_it(damaged, whole):
    shutil.rmtree(damaged / "report", ignore_errors=True)
    sweeps.coordinate(damaged, sweeps.plan(trials=6, top=2, repeats=3))
    assert not list(damaged.rglob("*journal*"))
    journal = optuna_study.write_journal(read_table(damaged))
    before = load(damaged).trials
    journal.write_text("damaged")
    executor = sweeps.FakeExecutor(StudyDirectory(damaged))
    assert sweeps.coordinate(damaged, sweeps.plan(trials=6, top=2, repeats=3), executor)[0] == 0
    assert executor.started == []
    assert [t.params for t in load(damaged).trials] == [t.params for t in before]


def test_a_result_that_was_deleted_is_run_again(damaged, whole):
    StudyDirectory(damaged).result_file(2).unlink()
    assert goes_on(damaged, whole, []).started == [2]


def test_a_directory_that_was_deleted_is_run_again(damaged, whole):
    shutil.rmtree(StudyDirectory(damaged).trial(3).path)
    assert goes_on(damaged, whole, []).started == [3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "{", r"0002/result.json: cannot be read .*delete it to run trial 2 again"),
        ("result.json", "[]", r"0002/result.json: is no result"),
        ("result.json", '{"number": 2}', r"0002/result.json: is no result"),
        ("trial.json", "{}", r"0002/trial.json: does not say what the trial is .*delete the directory of trial 2"),
        ("trial.json", "", r"0002/trial.json: cannot be read"),
    ],
)
def test_a_broken_trial_is_named_with_the_remedy(damaged, name, content, message):
    (StudyDirectory(damaged).trial(2).path / name).write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        sweeps.coordinate(damaged, PLAN)
    assert "\n" not in str(raised.value)


# --- another study --------------------------------------------------------------------------------


def test_a_study_of_something_else_is_refused_naming_the_difference(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    for kwargs, message in (
        ({"seed": 2}, "seed: 1 there, 2 now"),
        ({"sampler": "tpe"}, "sampler: 'random' there, 'tpe' now"),
        ({"pruner": "median"}, "pruner: 'none' there, 'median' now"),
        (
            {"search": sweeps.space({**sweeps.SEARCH, "model.filters": {"choice": [1, 2]}})},
            r"search.model.filters.choice: \[1, 2, 3\] there, \[1, 2\] now",
        ),
        ({"search": sweeps.space(sweeps.SEARCH, "training.epochs=9")}, "training.epochs: 2 there, 9 now"),
    ):
        with pytest.raises(InputError, match=f"holds another study .{message}.; give another directory with --out"):
            sweeps.coordinate(whole, PLAN, **kwargs)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_what_changes_no_score_may_change(damaged):
    changed = sweeps.space(
        sweeps.SEARCH,
        "comm.timeout_s=5",
        "checkpoint.keep=3",
        "data.cache_mb=7",
        "profile.steps=3",
        "data.stage=$TMPDIR",
    )
    assert sweeps.coordinate(damaged, PLAN, search=changed)[0] == 0


def test_a_run_is_no_study(tmp_path):
    RunDirectory(tmp_path / "run").create(sweeps.base())
    with pytest.raises(InputError, match="holds a run, not a study"):
        sweeps.coordinate(tmp_path / "run", PLAN)


# --- pruning --------------------------------------------------------------------------------------


def epochs_of(study_directory, number, scores):
    """Epoch records of a training as it would write them."""
    metrics = study_directory.trial(number).metrics_file
    with open(metrics, "w") as file:
        for epoch, score in enumerate(scores, start=1):
            record = {"kind": "epoch", "attempt": 1, "step": 10 * epoch, "time": time.time(), "epoch": epoch}
            file.write(json.dumps({**record, "score": {"total": score}, "best": None}) + "\n")


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_bad_trials_get_a_verdict_once_and_good_ones_do_not(tmp_path, pruner):
    path, search = tmp_path / "s", sweeps.space(sweeps.SEARCH, "training.epochs=9")
    made = StudyDirectory(path)
    executor = sweeps.FakeExecutor(made, 1)
    level = {n: 10.0 + n for n in range(6)}
    level.update({6: 50.0, 7: 5.0})
    whole_poll = executor.poll
    pending = {}

    def poll():
        """Each trial is seen training twice before it ends; a verdict ends it."""
        (number,) = executor._flying or (None,)
        if number is None:
            return {}
        looks = pending[number] = pending.get(number, 0) + 1
        if looks < 3 and not made.trial(number).verdict_file.exists():
            epochs_of(made, number, [level[number]] * 4 * looks)
            return {}
        pruned = made.trial(number).verdict_file.exists()
        fate = {"score": level[number], "state": "pruned" if pruned else "complete", "epochs": 4 * looks}
        executor._fates = {number: [fate]}
        return whole_poll()

    executor.poll = poll
    said = []
    sweeps.coordinate(path, sweeps.plan(trials=8), executor, search=search, pruner=pruner, said=said)
    states = {row[0]: row[4] for row in sweeps.table(path)}
    assert states[6] == "pruned"
    assert states[0] == states[7] == "complete"
    verdict = json.loads(made.trial(6).verdict_file.read_text())
    assert verdict["reason"].startswith(f"{pruner} pruning after epoch ")
    assert sum("trial 6 shall end" in line for line in said) == 1
    trials = load(path).trials
    assert trials[6].state.name == "PRUNED"
    assert trials[6].value == 50.0


@pytest.mark.parametrize(("pruner", "epochs"), [("median", 9), ("median", 3), ("halving", 9), ("halving", 27)])
def test_verdicts_are_those_of_optunas_pruners(pruner, epochs):
    """Twelve trials one after the other, each judged after each epoch."""
    made = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4)),
        "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, epochs // 9), reduction_factor=3),
    }[pruner]
    rng, rows, verdicts = np.random.default_rng(3), [], []
    optunas = optuna.create_study(direction="minimize", pruner=made)
    for number in range(12):
        trial, curve, verdict = optunas.ask(), [], None
        level = rng.uniform(0, 10)
        for epoch in range(1, epochs):
            curve.append((epoch, level + rng.normal()))
            row = Row(number=number, state="running", params={}, curve=tuple(curve), wanted=epochs)
            verdict = pruning.verdict(pruner, row, [*rows, row], epoch - 1)
            trial.report(curve[-1][1], epoch)
            assert (verdict is not None) == trial.should_prune()
            if verdict is not None:
                assert f"after epoch {epoch}, best score {min(score for _, score in curve):.2f}" in verdict
                break
        state = "complete" if verdict is None else "pruned"
        optunas.tell(trial, curve[-1][1] if verdict is None else None, None if verdict is None else PRUNED)
        rows.append(Row(number=number, state=state, params={}, curve=tuple(curve), wanted=epochs))
        verdicts.append(state)
    assert len(set(verdicts)) == 2


def test_halving_looks_at_the_first_score_from_a_look_on():
    """Scored every second epoch of 9: looks after epochs 1 and 3 are at the scores of epochs 2 and 4."""
    better = Row(number=0, state="running", params={}, curve=((2, 1.0), (4, 1.0)), wanted=9)
    for curve, epoch in (((2, 3.0),), 2), (((2, 0.5), (4, 3.0)), 4):
        row = Row(number=1, state="running", params={}, curve=curve, wanted=9)
        assert f"after epoch {epoch}" in pruning.verdict("halving", row, [better, row], 0)
    late = Row(number=1, state="running", params={}, curve=((2, 0.5), (6, 9.0)), wanted=9)
    assert pruning.verdict("halving", late, [], 2) is None


# --- executors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "cores", "shares"),
    [
        (2, [0, 1], [[0], [1]]),
        (2, [0, 1, 4, 5, 6], [[0, 1], [4, 5]]),
        (3, [2, 3], [[2], [3], [2]]),
        (1, [0, 1, 2], [[0, 1, 2]]),
    ],
)
def test_cores_are_shared_out_disjointly_while_there_are_enough(slots, cores, shares):
    assert share_cores(slots, cores) == shares


def test_what_launchers_say_of_this_process_is_not_told_to_trials():
    gone = {
        "OMPI_COMM_WORLD_RANK": "1", "OMPI_MCA_ess": "x", "PMIX_RANK": "1", "PMI_RANK": "0", "PMI2_X": "1",
        "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "PRTE_X": "1", "MPI_LOCALRANKID": "0", "MV2_COMM_WORLD_RANK": "1",
    }  # fmt: skip
    kept = {"PATH": "/bin", "OMPI_ALLOW_RUN_AS_ROOT": "1", "SLURM_CONF": "/etc/slurm.conf", "HOME": "/", "I_MPI_X": "1",
            "OMPI_MCA_btl": "tcp"}  # fmt: skip
    assert outside({**gone, **kept}) == kept


def test_the_registry_is_the_one_of_the_command():
    assert problem_class("rpv")
