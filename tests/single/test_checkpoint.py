import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import HpcganError, InputError
from hpcgan.runs import checkpoint

ARRAYS = {"network/g/w": np.arange(12.0).reshape(3, 4), "optimizer/g/power": np.array(0.5, np.float32)}


def _save(folder, step, score=None, shift=0.0):
    return checkpoint.save(folder, step, {k: v + v.dtype.type(shift) for k, v in ARRAYS.items()}, {"step": step}, score)


def test_what_is_saved_is_loaded(tmp_path):
    _save(tmp_path, 7, 3.25)
    found = checkpoint.load_latest(tmp_path, pytest.fail)
    assert (found.step, found.meta, found.score) == (7, {"step": 7}, 3.25)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


def test_none_yet(tmp_path):
    assert checkpoint.load_latest(tmp_path / "absent", pytest.fail) is None
    with pytest.raises(InputError, match="no checkpoint yet"):
        checkpoint.load_best(tmp_path, pytest.fail)


def test_the_best_is_the_lowest_score_and_survives_pruning(tmp_path):
    for step, score in ((1, 9.0), (2, 2.0), (3, 5.0), (4, None), (5, 7.0)):
        _save(tmp_path, step, score)
    checkpoint.prune(tmp_path, keep=2, best=2)
    assert checkpoint.steps(tmp_path) == [2, 4, 5]
    assert checkpoint.load_best(tmp_path, pytest.fail).step == 2


def test_without_scores_the_latest_is_the_best(tmp_path):
    for step in (1, 2):
        _save(tmp_path, step)
    assert checkpoint.load_best(tmp_path, pytest.fail).step == 2


def _files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


@given(data=st.data())
def test_any_flipped_bit_or_cut_is_detected_and_the_one_before_is_used(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoints")
    _save(folder, 1)
    newest = _save(folder, 2, shift=1.0)
    file = data.draw(st.sampled_from(_files(newest)))
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    file.write_bytes(content)
    warnings = []
    assert checkpoint.load_latest(folder, warnings.append).step == 1
    assert len(warnings) == 1
    assert "step-000000002" in warnings[0]


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
    for step in (1, 2):
        (_save(tmp_path, step) / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="none of the 2 checkpoints is intact"):
        checkpoint.load_latest(tmp_path, lambda _: None)


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_a_file_system_that_refuses_leaves_the_previous_one(tmp_path, monkeypatch, call):
    _save(tmp_path, 1)

    def refuse(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "mkdir":
        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    else:
        monkeypatch.setattr(os, call, refuse)
    with pytest.raises(HpcganError, match=r"No space left on device.*earlier checkpoints are intact"):
        _save(tmp_path, 2)
    with pytest.raises(HpcganError, match="no earlier one"):
        _save(tmp_path.with_name(f"{tmp_path.name}-other"), 2)
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path) == [1]
    assert checkpoint.load_latest(tmp_path, pytest.fail).step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]


def test_an_array_file_that_needs_pickle_is_refused(tmp_path):
    path = _save(tmp_path, 1)
    np.savez(path / "arrays.npz", evil=np.array([{"a": 1}], dtype=object))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.pop("self")
    manifest["bytes"] = (path / "arrays.npz").stat().st_size
    manifest["sha256"] = checkpoint.sha256(path / "arrays.npz")
    manifest["self"] = checkpoint._self_hash(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.BrokenCheckpoint, match="unreadable"):
        checkpoint.load(path)


def test_saving_a_step_again_replaces_it(tmp_path):
    _save(tmp_path, 3)
    _save(tmp_path, 3, shift=1.0)
    assert checkpoint.steps(tmp_path) == [3]
    assert checkpoint.load(checkpoint.path_of(tmp_path, 3)).arrays["network/g/w"][0, 0] == 1.0


def test_killed_at_any_write_fsync_or_rename_a_whole_checkpoint_is_loaded(tmp_path):
    """Also where the same step is saved a second time, over the only checkpoint there is."""
    script = Path(__file__).with_name("killed_writer.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    for again in (False, True):
        mine = [d for d in deaths if d["again"] == again]
        assert mine.pop()["done"]
        calls = {d["call"] for d in mine}
        assert {"write", "fsync", "rename", "mkdir"} <= calls
        assert sum(d["call"] == "write" for d in mine) > 4
        # Everything before the rename leaves the old one, everything after it the new one; never a mixture.
        states = [(d["step"], tuple(d["values"].values())) for d in mine]
        new = (1 if again else 2, (2.0, 2.0))
        assert set(states) == {(1, (1.0, 1.0)), new}
        assert states == sorted(states)
        assert not any(d["warnings"] for d in mine)
        assert all(d["left"] == ["step-000000003"] for d in mine)


def test_a_step_saved_twice_falls_back_to_its_first_version(tmp_path):
    _save(tmp_path, 3)
    second = _save(tmp_path, 3, shift=1.0)
    (second / "arrays.npz").write_bytes(b"")
    warnings = []
    found = checkpoint.load_latest(tmp_path, warnings.append)
    assert found.arrays["network/g/w"][0, 0] == 0.0
    assert len(warnings) == 1
    _save(tmp_path, 4)
    checkpoint.prune(tmp_path, keep=1, best=None)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000004"]


def test_there_is_no_pointer_that_could_be_stale(tmp_path):
    """The newest is found by its name: whatever else lies there is not looked at."""
    for step in (1, 2):
        _save(tmp_path, step)
    for name in ("latest", "step-abc", "step-9", ".step-5.0123.tmp", "step-000000009.bak"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-000000011").write_text("a file")
    (tmp_path / "best").symlink_to("step-000000001")
    assert checkpoint.steps(tmp_path) == [1, 2]
    assert checkpoint.load_latest(tmp_path, pytest.fail).step == 2
    (tmp_path / "step-000000012").mkdir()  # named like one, but empty
    warnings = []
    assert checkpoint.load_latest(tmp_path, warnings.append).step == 2
    assert "step-000000012" in warnings[0]
