import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import HpcganError
from hpcgan.runs import records


def _epochs(path):
    return [(r["epoch"], r["attempt"]) for r in records.read(path, "epoch")]


def _attempt(path, attempt, start, epochs):
    writer = records.MetricsWriter(path, attempt)
    writer.write("start", start)
    for epoch in epochs:
        writer.write("epoch", 10 * epoch, epoch=epoch)
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
    writer = records.MetricsWriter(path, 1)
    with pytest.raises(HpcganError, match=r"metrics.jsonl: cannot write: No space left on device$"):
        writer.write("epoch", 1, epoch=1)
    writer.close()  # with a buffer, this would fail, too


def test_numbers_json_lacks_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = records.MetricsWriter(path, 1)
    writer.write("epoch", 1, loss=math.nan, parts={"a": math.inf}, fine=1.5)
    writer.close()
    (record,) = records.read(path)
    assert record["loss"] is None
    assert record["parts"] == {"a": None}
    assert record["fine"] == 1.5


@given(st.binary(max_size=300))
def test_garbage_never_breaks_the_reader(tmp_path_factory, garbage):
    path = tmp_path_factory.mktemp("records") / "metrics.jsonl"
    good = json.dumps({"kind": "epoch", "attempt": 1, "step": 5, "epoch": 1}).encode()
    path.write_bytes(good + b"\n" + garbage + b"\n" + good + b"\n")
    assert len([r for r in records.read(path, "epoch") if r.get("epoch") == 1]) >= 2


def test_no_file_is_no_records(tmp_path):
    assert records.read(tmp_path / "absent.jsonl") == []
