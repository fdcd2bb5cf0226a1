"""Records of a growing run, read as they come: the same as when all of them are read at once."""

import json

import numpy as np
import pytest

from hpcgan.runs.records import Checkpoint, Epoch, Reader, Record


def epoch(attempt, step, number, rate=100.0):
    return {"kind": "epoch", "attempt": attempt, "step": step, "epoch": number, "best": None,
            "samples_per_second": rate, "losses": {"generator": 1.0}}  # fmt: skip


def step(attempt, number, time, samples=None):
    return {"kind": "step", "attempt": attempt, "step": number, "time": time, "epoch": number / 10,
            "samples": 4 * number if samples is None else samples}  # fmt: skip


def command(attempt, number, name="pause", **more):
    return {"kind": "command", "attempt": attempt, "step": number, "id": f"{attempt}-{number}", "name": name,
            "rates": {}, "refused": None, "paused": name == "pause", **more}  # fmt: skip


def history(rng):
    """Lines of several attempts, each from somewhere before the end of the last; some end in the middle of a line."""
    lines, now = [], 0
    for attempt in range(1, rng.integers(2, 5)):
        now = int(rng.integers(0, now + 1))
        lines.append(json.dumps({"kind": "start", "attempt": attempt, "step": now}) + "\n")
        for _ in range(rng.integers(1, 12)):
            now += int(rng.integers(1, 6))
            made = [step(attempt, now, float(now)), epoch(attempt, now, now // 5), command(attempt, now)]
            lines.append(json.dumps(made[rng.integers(0, 3)]) + "\n")
        if rng.random() < 0.5:  # the writer was killed; the next one closes the line
            lines.append('{"kind": "epoch", "atte\n')
    return "".join(lines).encode()


@pytest.mark.parametrize("seed", range(20))
def test_it_knows_what_reading_all_would_find(tmp_path, seed):
    rng = np.random.default_rng(seed)
    content, path = history(rng), tmp_path / "metrics.jsonl"
    reader, written = Reader(path), 0
    while written < len(content):
        written = min(len(content), written + int(rng.integers(1, 400)))
        append(path, content[:written])
        reader.read()
        whole = content[: content[:written].rfind(b"\n") + 1]
        (tmp_path / "whole").write_bytes(whole)
        whole = [json.loads(line) for line in whole.splitlines() if not line.endswith(b"atte")]
        left = [r for r in whole if not replaced(r, whole)]
        for one in (reader, Reader(tmp_path / "whole").read()):
            assert [(r.kind, r.attempt, r.step) for r in one.of(Record)] == keys(left)
            assert reader.step == (left[-1]["step"] if left else 0)
        everything = Reader(tmp_path / "whole", replaced=True).read()
        assert [(r.kind, r.attempt, r.step) for r in everything.of(Record)] == keys(whole)
    assert reader.unusable == 0


def append(path, content):
    with open(path, "ab") as file:
        file.write(content[file.tell() :])


def keys(entries):
    return [(r["kind"], r["attempt"], r["step"]) for r in entries]


def replaced(record, entries):
    """Whether a later attempt started before it."""
    starts = [r["step"] for r in entries if r["kind"] == "start" and r["attempt"] > record["attempt"]]
    return record["kind"] != "start" and any(record["step"] > step for step in starts)


def write(path, *entries, mode="a"):
    with open(path, mode) as file:
        file.write("".join(json.dumps(entry) + "\n" for entry in entries))


def test_no_line_is_read_twice(tmp_path, monkeypatch):
    path, parsed = tmp_path / "metrics.jsonl", []
    take = Reader._take
    monkeypatch.setattr(Reader, "_take", lambda self, line: parsed.append(line) or take(self, line))
    write(path, *(step(1, n, float(n)) for n in range(1, 1001)))
    reader = Reader(path)
    reader.read()
    assert len(parsed) == 1000
    reader.read()
    assert len(parsed) == 1000
    write(path, epoch(1, 1001, 100), step(1, 1002, 2000.0))
    reader.read()
    assert len(parsed) == 1002
    assert (reader.step, reader.epochs_done) == (1002, 100.2)


def test_a_file_that_is_another_one_is_read_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = Reader(path)
    reader.read()  # there is none
    assert reader.step == 0
    write(path, epoch(1, 10, 1), epoch(1, 20, 2))
    reader.read()
    write(path, epoch(1, 11, 1), mode="w")  # shorter
    reader.read()
    assert [r.step for r in reader.of(Epoch)] == [11]
    write(tmp_path / "other", *(epoch(1, 10 + n, n) for n in range(1, 4)))
    (tmp_path / "other").rename(path)  # longer, but another file
    reader.read()
    assert [r.step for r in reader.of(Epoch)] == [11, 12, 13]
    path.unlink()
    reader.read()
    assert (reader.of(Epoch), reader.step, reader.epochs_done) == ([], 0, 0.0)


def test_a_rate_is_that_of_two_steps_with_nothing_between_or_of_the_last_epoch(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = Reader(path)

    def rate(*entries):
        write(path, *entries)
        reader.read()
        return reader.rate

    assert rate(step(1, 50, 10.0)) is None
    assert rate(step(1, 100, 12.0)) == 100.0  # 200 samples in 2 s
    assert rate(command(1, 120), step(1, 150, 99.0)) == 100.0  # it was paused in between
    assert rate(step(1, 200, 100.0)) == 200.0
    assert rate(epoch(1, 210, 1, rate=170.0)) == 170.0
    assert rate({"kind": "start", "attempt": 2, "step": 205}) is None
    assert (reader.step, reader.epochs_done) == (205, 0.0)  # the epoch is done once more


def test_a_checkpoint_that_was_written_beside_steps_is_of_an_earlier_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    saved = {"kind": "checkpoint", "attempt": 1, "step": 40, "seconds": 0.1}
    write(path, step(1, 50, 10.0), saved)
    reader = Reader(path).read()
    assert (reader.step, reader.last.step) == (50, 40)
    write(path, {"kind": "start", "attempt": 2, "step": 40})
    assert reader.read().step == 40
    assert [r.step for r in reader.of(Checkpoint)] == [40]


def test_whether_it_is_paused_is_in_the_last_command(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = Reader(path)
    assert not reader.paused
    write(path, command(1, 10))
    reader.read()
    assert reader.paused
    assert reader.outcome("1-10").name == "pause"
    assert reader.outcome("1-11") is None
    write(path, command(1, 11, "resume"))
    reader.read()
    assert not reader.paused


def test_records_that_lack_something_do_not_count(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, {"kind": "epoch", "attempt": 1, "step": 3}, {"kind": "step", "attempt": "one", "step": 4},
          {"kind": "command", "attempt": 1, "step": 5, "rates": None, "name": "set"}, ["no", "record"])  # fmt: skip
    with open(path, "ab") as file:
        file.write(b"\xff\xfe torn\n")
    write(path, epoch(1, 10, 1))
    reader = Reader(path)
    reader.read()
    assert reader.unusable == 3
    assert [r.epoch for r in reader.of(Epoch)] == [1]
