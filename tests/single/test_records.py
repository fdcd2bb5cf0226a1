import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import EnvironmentFailure
from hpcgan.runs import records
from hpcgan.runs.records import Epoch, EpochScore
from hpcgan.system.failure import Failure


def _epochs(path):
    return [(r.epoch, r.attempt) for r in records.read(path, Epoch)]


def _attempt(path, attempt, start, epochs):
    writer = records.Writer(path, attempt)
    writer.write(records.Start(step=start))
    for epoch in epochs:
        writer.write(Epoch(step=10 * epoch, epoch=epoch))
    writer.close()


def test_a_later_attempt_replaces_what_lies_beyond_its_start(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _attempt(path, 1, 0, [1, 2, 3])
    _attempt(path, 2, 20, [3, 4])  # resumed from step 20: epoch 3 is done again
    assert _epochs(path) == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_an_attempt_that_starts_earlier_replaces_several(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _attempt(path, 1, 0, [1, 2])
    _attempt(path, 2, 20, [3])
    _attempt(path, 3, 10, [2])
    assert _epochs(path) == [(1, 1), (2, 3)]


def test_a_torn_last_line_is_dropped_and_not_continued(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _attempt(path, 1, 0, [1, 2])
    path.write_bytes(path.read_bytes()[:-7])
    _attempt(path, 2, 10, [2])
    assert _epochs(path) == [(1, 1), (2, 2)]


def test_a_full_disk_is_one_line_and_nothing_is_kept_for_later(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    writer = records.Writer(path, 1)
    with pytest.raises(EnvironmentFailure, match=r"metrics.jsonl: cannot write: No space left on device$"):
        writer.write(Epoch(step=1, epoch=1))
    writer.close()  # with a buffer, this would fail, too


def test_numbers_json_lacks_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = records.Writer(path, 1)
    score = EpochScore(math.nan, {"a": math.inf})
    writer.write(Epoch(step=1, epoch=1, losses={"generator": math.nan}, score=score, samples_per_second=1.5))
    writer.close()
    line = json.loads(path.read_text())
    assert (line["losses"], line["score"]["total"], line["score"]["parts"]) == ({"generator": None}, None, {"a": None})
    (record,) = records.read(path, Epoch)
    assert record.losses == {"generator": None}
    assert record.deciding is None
    assert math.isnan(record.score.total)
    assert math.isnan(record.score.parts["a"])
    assert record.samples_per_second == 1.5


def test_the_selection_decides_where_there_is_one():
    score, selection = EpochScore(3.0), EpochScore(8.0)
    assert Epoch(step=1, epoch=1, score=score).deciding == 3.0
    assert Epoch(step=1, epoch=1, score=score, selection=selection).deciding == 8.0
    assert Epoch(step=1, epoch=1, score=score, selection=EpochScore(math.inf)).deciding is None
    assert Epoch(step=1, epoch=1).deciding is None


@pytest.mark.parametrize(
    "record",
    [
        records.Start(step=3, ranks=2, samples=12),
        records.Begun(step=4, startup_s=3.5, phases={"imports": 2.5}),
        records.Step(step=5, samples=20, epoch=0.25, metrics={"loss": 1.0, "bad": None}),
        Epoch(step=15, epoch=1, samples=60, losses={"generator": 1.5}, probabilities={"real": 0.5},
              collapse={"diversity": None}, score=EpochScore(3.0, {"jet_pt": 3.0}, 20, {"ks": [0.1]}), is_best=True,
              best=records.Best(3.0, 1, 15), learning_rates={"generator": 1e-4}, samples_per_second=100.0,
              scoring_seconds=2.0),
        records.Command(step=7, id="1-a", name="set", rates={"generator": 1e-4}, learning_rates=[{"generator": 1e-4}]),
        records.Checkpoint(step=7, seconds=0.25),
        records.Rollback(step=8, reason="a loss of 9", to_step=5, count=1),
        records.End(step=9, outcome="failed", failure=Failure("environment", "no space", 1)),
    ],
    ids=lambda record: record.kind,
)  # fmt: skip
def test_a_record_is_read_as_it_was_written(tmp_path, record):
    path = tmp_path / "metrics.jsonl"
    writer = records.Writer(path, 3)
    written = writer.write(record)
    writer.close()
    assert (written.attempt, written.step) == (3, record.step)
    assert list(json.loads(path.read_text()))[:4] == ["kind", "attempt", "step", "time"]
    assert records.read(path, type(record)) == [written]


@pytest.mark.parametrize(
    ("outcome", "failure", "cause"),
    [
        ("done", None, "finished"),
        ("pruned", None, "finished"),
        ("interrupted", None, "requested"),
        ("stopped", None, "requested"),
        ("failed", Failure("user", "x"), "user"),
        ("failed", Failure("environment", "x"), "environment"),
        ("failed", None, "training"),
    ],
)
def test_an_end_says_of_what_kind_it_was(outcome, failure, cause):
    assert records.End(step=1, outcome=outcome, failure=failure).cause == cause


@given(st.binary(max_size=300))
def test_garbage_never_breaks_the_reader(tmp_path_factory, garbage):
    path = tmp_path_factory.mktemp("records") / "metrics.jsonl"
    good = json.dumps({"kind": "epoch", "attempt": 1, "step": 5, "epoch": 1}).encode()
    path.write_bytes(good + b"\n" + garbage + b"\n" + good + b"\n")
    assert len([r for r in records.read(path, Epoch) if r.epoch == 1]) >= 2


def test_no_file_is_no_records(tmp_path):
    assert records.read(tmp_path / "absent.jsonl", Epoch) == []


def test_provenance_survives_a_torn_line(tmp_path):
    path = tmp_path / "provenance.jsonl"
    assert records.read_lines(path) == []
    path.write_text('{"attempt": 1}\n{"attempt": 2}\n{"atte')
    assert records.read_lines(path) == [{"attempt": 1}, {"attempt": 2}]
