"""The table of a study: trials in every state, and files that are broken."""

import json
import os

import fake_sweeps
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.config import SweepSection
from hpcgan.errors import InputError
from hpcgan.runs.lease import Lease
from hpcgan.sweep import labels, report
from hpcgan.sweep.statistics import ranking, time_left
from hpcgan.sweep.store import Assignment, StudyDirectory
from hpcgan.sweep.table import ROW_STATES, TableReader, read_table


def test_trials_in_every_state(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    fake_sweeps.finish(study, 0, 5.0, test=(6.0, 0.5))
    fake_sweeps.finish(study, 1, 9.0, state="pruned", reason="median pruning after epoch 2", curve=[12.0, 9.0])
    fake_sweeps.finish(study, 2, None, state="failed", reason="non-finite\nat step 3")
    fake_sweeps.begin(study, 3, scores=[8.0, 4.0, 6.0])
    fake_sweeps.begin(study, 4)
    fake_sweeps.begin(study, 5, scores=[7.0])
    fake_sweeps.dead(study.runner(5))
    fake_sweeps.begin(study, 6, scores=[7.0])
    fake_sweeps.ended(study.runner(6), "interrupted", attempt=2)
    fake_sweeps.finish(study, 7, 5.5, repeat_of=0)
    lease = Lease(study.runner(3))
    try:
        table = read_table(tmp_path)
    finally:
        lease.release("done")
    rows = {r.number: r for r in table.rows}
    states = ["complete", "pruned", "failed", "running", "queued", "lost", "queued", "complete"]
    assert [r.state for r in table.rows] == states
    assert table.problems == ()
    assert (rows[0].score, rows[0].epoch, rows[0].epochs, rows[0].wanted, rows[0].seconds) == (5.0, 3, 4, 4, 60.0)
    assert rows[0].curve == ((1, 20.0), (2, 10.0), (3, 5.0), (4, 7.5))
    assert (rows[0].test_score, rows[0].test_spread, rows[0].seed) == (6.0, 0.5, 1000)
    assert (rows[1].epochs, rows[1].wanted, rows[1].score) == (2, 4, 9.0)
    assert rows[2].reason == "non-finite at step 3"
    # Three of four epochs are done; the fourth takes 60 / 15 + 1 seconds, and has just begun.
    assert (rows[3].score, rows[3].epoch, rows[3].current, rows[3].epochs, rows[3].wanted) == (4.0, 2, 6.0, 3, 4)
    assert rows[3].left_s == pytest.approx(fake_sweeps.EPOCH_S, abs=1.0)
    assert rows[3].seconds == pytest.approx(0.0, abs=5.0)
    assert (rows[3].params, rows[3].seed) == (fake_sweeps.params(3), 1003)
    assert (rows[4].attempts, rows[5].attempts, rows[6].attempts) == (0, 1, 2)
    assert "interrupted" in rows[6].reason
    assert "tries it again" in rows[5].reason
    assert rows[7].repeat_of == 0
    assert [r.number for r in table.searched()] == [0, 1, 2, 3, 4, 5, 6]
    assert table.counts(table.searched()) == {
        "complete": 1, "pruned": 1, "failed": 1, "running": 1, "queued": 2, "lost": 1, "broken": 0,
    }  # fmt: skip


def test_a_curve_is_that_of_the_attempts_that_count(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    run = fake_sweeps.begin(study, 0, scores=[9.0, 8.0, 1.0])
    fake_sweeps.epochs(run, [7.0, None, 6.0], attempt=2, first=3)  # resumed after epoch 2: the third is another
    row = read_table(tmp_path).rows[0]
    assert row.curve == ((1, 9.0), (2, 8.0), (3, 7.0), (5, 6.0))
    assert (row.epochs, row.score, row.epoch) == (5, 6.0, 5)


def test_what_is_to_come_after_the_training(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    for number in (0, 1):
        fake_sweeps.finish(study, number, 5.0, **({"test_failed": "exit code 1"} if number else {}))
        params = fake_sweeps.params(number)
        study.write_assignment(Assignment(number=number, params=params, seed=1, index=number, test=True))
    assert [(r.to_test, r.reason) for r in read_table(tmp_path).rows] == [
        (True, "its score on test events is to come"),
        (False, "no score on test events: exit code 1"),
    ]


def test_trials_that_have_ended_are_read_once_until_they_change(tmp_path, monkeypatch):
    study = fake_sweeps.study_in(tmp_path)
    fake_sweeps.finish(study, 0, 5.0)
    fake_sweeps.begin(study, 1)
    reader, read = TableReader(tmp_path), []
    whole = StudyDirectory.result
    monkeypatch.setattr(StudyDirectory, "result", lambda self, n: read.append(n) or whole(self, n))
    assert [r.score for r in reader.read().rows] == [5.0, None]
    result = fake_sweeps.finish(study, 1, 6.0)
    assert [r.score for r in reader.read().rows] == [5.0, 6.0]
    reader.read()
    assert read == [0, 1, 1]
    study.write_result(type(result)(**{**result.__dict__, "test_score": 7.0}))
    os.utime(study.result_file(1), ns=(1, 1))  # another time, however coarse the clock
    assert reader.read().rows[1].test_score == 7.0


def test_what_is_no_study(tmp_path):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file" / "below"):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"not a study \(no study.json in it\)$"):
            read_table(path)


DESCRIPTION = {"name": "x", "seed": 1, "space": {}, "sampler": "random", "pruner": "none", "identity": "ab"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "study.json: cannot be read"),
        ("[" * 100_000, r"study.json: cannot be read \(nested too deeply"),
        ("[]", "study.json: is no description of a study"),
        (json.dumps({**DESCRIPTION, "version": 3}), "version 3 of the format; this is version 2"),
        (json.dumps({"version": 2}), "study.json: .*missing"),
        (json.dumps({**DESCRIPTION, "version": 2, "colour": "red"}), "study.json: .*colour"),
        (json.dumps({**DESCRIPTION, "version": 2, "space": []}), "study.json: is no description"),
        (json.dumps({**DESCRIPTION, "version": 2, "seed": "1"}), "study.json: is no description"),
        ('{"version": 2, "name": "\\ud800"}', "study.json: cannot be read"),
    ],
)
def test_a_broken_description_is_one_line(tmp_path, content, message):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path)
    assert "\n" not in str(caught.value)


def result_with(**changed):
    plain = {
        "number": 1, "params": {}, "seed": 1, "repeat_of": None, "attempts": 1, "state": "complete", "score": 1.0,
        "epoch": 1, "epochs": 1, "reason": None, "started": 0.0, "ended": 1.0,
    }  # fmt: skip
    return json.dumps({**plain, **changed})


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "null", "[1]", "{}", "\x00\xff",
        result_with(score=float("nan")), result_with(score="low"), result_with(score=10**400), result_with(score=True),
        result_with(state="done"), result_with(state=["complete"]), result_with(params=[1]), result_with(number=7),
        result_with(epochs=-1), result_with(seed=None), result_with(started="now"), result_with(repeat_of="0"),
        result_with(reason=3), result_with(test_score=[]), result_with(params={"a": float("inf")}),
        result_with(unknown=1), result_with().replace("1.0", "1e999"),
    ],
)  # fmt: skip
def test_a_broken_result_is_said_and_the_rest_counts(tmp_path, content):
    study = fake_sweeps.study_in(tmp_path)
    fake_sweeps.finish(study, 0, 5.0)
    fake_sweeps.begin(study, 1, scores=[3.0])
    study.result_file(1).write_text(content, encoding="latin-1")
    table = read_table(tmp_path)
    assert [(r.number, r.state) for r in table.rows] == [(0, "complete"), (1, "broken")]
    assert table.rows[1].params == fake_sweeps.params(1)
    (problem,) = table.problems
    assert str(study.result_file(1)) in problem
    assert "\n" not in problem
    assert [s.number for s in ranking(table.rows)] == [0]


def test_other_broken_files(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    for number in range(6):
        fake_sweeps.finish(study, number, 5.0 + number)
    study.trial(0).metrics_file.unlink()
    study.trial(0).metrics_file.mkdir()
    study.trial(1).metrics_file.write_text(
        '{"kind": "start", "attempt": {}, "step": 1}\n{"kind": "epoch", "attempt": 1, "step": []}\n'
    )
    broken = {"kind": "epoch", "attempt": 1, "step": 1, "time": 1.0, "epoch": 1, "score": {"total": "low"}}
    study.trial(2).metrics_file.write_text(json.dumps(broken) + "\n")
    study.trial(3).config_file.write_text("training: [")
    study.assignment_file(4).write_text("{")
    study.result_file(4).unlink()
    study.assignment_file(5).write_text("[]")  # of a trial that has a result, which says all
    (study.trials / "0009").write_text("a file")
    (study.trials / "notes.txt").write_text("")
    (study.trials / "00003").mkdir()
    fake_sweeps.finish(study, 6, 4.0, repeat_of=77)
    study.goal_file.write_text('{"trials": -1, "repeats": 0, "concurrency": 1}')
    table = read_table(tmp_path)
    assert [(r.number, r.state) for r in table.rows] == [
        (0, "complete"), (1, "complete"), (2, "complete"), (3, "complete"), (4, "broken"), (5, "complete"),
        (6, "complete"),
    ]  # fmt: skip
    assert [r.curve for r in table.rows[:3]] == [(), (), ()]
    said = "\n".join(table.problems)
    assert len(table.problems) == 8
    for path, what in (
        (study.trials / "0009", "not a trial's directory"),
        (study.trial(0).metrics_file, "Is a directory"),
        (study.trial(1).metrics_file, "2 records of no sense left out"),
        (study.trial(2).metrics_file, "1 record of no sense left out"),
        (study.assignment_file(4), "cannot be read"),
        (study.assignment_file(5), "does not say what the trial is"),
        (study.result_file(6), "repeats trial 77, which is not there"),
        (study.goal_file, "does not say how much"),
    ):
        (line,) = [line for line in said.splitlines() if str(path) in line]
        assert what in line


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    study = fake_sweeps.study_in(tmp_path_factory.mktemp("study"))
    fake_sweeps.finish(study, 0, 5.0)
    fake_sweeps.begin(study, 1, scores=[3.0])
    return study


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FILES = ("result.json", "trial.json", "metrics.jsonl", "config.yaml", "runner/attempts/0001.json")


def readable(study):
    """All that is made of a table without drawing."""
    table = read_table(study.path)
    assert [r.state for r in table.rows if r.number == 0] == ["complete"]
    assert all(r.state in ROW_STATES for r in table.rows)
    json.dumps(report.reasons(table.rows), allow_nan=False)
    report.to_csv(table).encode()
    assert all("\n" not in problem for problem in table.problems)
    ranking(table.rows), table.dimensions(), time_left(table)
    for row in table.rows:
        assert all(labels.show(value).isprintable() for value in row.params.values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(FILES), st.binary(max_size=80))
def test_garbage_never_breaks_the_reader(shared, name, garbage):
    damage(shared, name, garbage)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(sorted(json.loads(result_with()))), json_values)
def test_no_value_of_a_result_breaks_the_reader(shared, key, value):
    damage(shared, "result.json", result_with(**{key: value}).encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["kind", "attempt", "step", "time", "epoch", "score"]), json_values)
def test_no_value_of_a_record_breaks_the_reader(shared, key, value):
    record = {
        "kind": "epoch",
        "attempt": 1,
        "step": 15,
        "time": 1.0,
        "epoch": 1,
        "score": {"total": 3.0},
        "samples": 60,
    }
    damage(shared, "metrics.jsonl", json.dumps({**record, key: value}).encode() + b"\n")


@given(json_values)
def test_no_dimension_breaks_the_reader(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.json").write_text(json.dumps({**DESCRIPTION, "version": 2, "space": {"a": value}}))
    try:
        table = read_table(folder)
    except InputError:
        return
    table.dimensions()


def damage(study, name, content):
    """Read the study with another content of a file of trial 1."""
    file = study.trial(1).path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_bytes() if file.exists() else None
    file.write_bytes(content)
    try:
        readable(study)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)


# --- domains ----------------------------------------------------------------------------------------


def test_domains_follow_the_space(tmp_path):
    space = {
        **fake_sweeps.SPACE,
        "a.width": {"int": [1, 64], "log": True},
        "b.width": {"int": [2, 6], "step": 2},
        "augment": {"choice": [["x"], [], None]},
        "other": "of another format",
    }
    study = fake_sweeps.study_in(tmp_path, space)
    fake_sweeps.finish(
        study, 0, 5.0, {**fake_sweeps.params(0), "a.width": 8, "augment": ["x"], "extra.key": 3, "other": "ä"}
    )
    found = {d.key: d for d in read_table(tmp_path).dimensions()}
    assert list(found) == [*space, "extra.key"]
    rate = found["training.generator.learning_rate"]
    assert (rate.is_log, rate.low, rate.high, rate.kind == "int", rate.labels) == (True, 1e-5, 1e-2, False, ())
    assert found["model.filters"].labels == ("2", "4", "8")
    assert [found["model.filters"].place(v) for v in (4, 16, "4")] == [1.0, None, 1.0]
    assert (found["training.label_flip"].is_log, found["training.label_flip"].high) == (False, 0.2)
    assert (found["a.width"].is_log, found["a.width"].kind == "int") == (True, True)
    assert (found["b.width"].is_log, found["b.width"].low, found["b.width"].high) == (False, 2.0, 6.0)
    assert found["augment"].labels == ('["x"]', "[]", "null")
    assert found["other"].labels == ("ä",)
    assert (found["extra.key"].low, found["extra.key"].high) == (3.0, 3.0)
    assert rate.place(0.0) is None


def test_short_names_tell_keys_apart():
    keys = ["training.generator.learning_rate", "training.discriminator.learning_rate", "model.filters", "filters"]
    assert list(labels.short_names(keys).values()) == [
        "generator.learning_rate",
        "discriminator.learning_rate",
        "model.filters",
        "filters",
    ]


# --- time -------------------------------------------------------------------------------------------


def test_time_left_by_hand(tmp_path):
    """Trials take 20 s. One runs with 5 s left; two wait and two more will come, two at a time."""
    study = fake_sweeps.study_in(tmp_path)
    fake_sweeps.finish(study, 0, 5.0, seconds=30.0)
    fake_sweeps.finish(study, 1, None, state="failed", reason="x", seconds=10.0)
    fake_sweeps.begin(study, 2, scores=[8.0, 4.0, 6.0])
    fake_sweeps.begin(study, 3)
    fake_sweeps.begin(study, 4)
    study.write_goal(SweepSection(trials=6, top=1, repeats=1, concurrency=2))
    lease = Lease(study.runner(2))
    try:
        table = read_table(tmp_path)
    finally:
        lease.release("done")
    assert time_left(table) == pytest.approx(45.0, abs=1.0)
    alone = type(table)(table.study, table.description, table.rows)  # without a goal: one at a time, two wait
    assert time_left(alone) == pytest.approx(45.0, abs=1.0)


def test_time_left_of_nothing_and_of_the_unknown(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    assert time_left(read_table(tmp_path)) == 0.0
    fake_sweeps.begin(study, 0)
    assert time_left(read_table(tmp_path)) is None
    fake_sweeps.finish(study, 1, 5.0, seconds=7.0)
    assert time_left(read_table(tmp_path)) == pytest.approx(7.0)
