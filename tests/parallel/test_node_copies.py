"""Data on nodes' own storage, by several ranks: one of each node copies, what happens to one happens to all."""

from __future__ import annotations

import time
from pathlib import Path

import needs
import pytest
import tiny

needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan.data import staging  # noqa: E402
from hpcgan.errors import HpcganError, InputError, Interrupted  # noqa: E402
from hpcgan.runs import checkpoint  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import attempt  # noqa: E402
from hpcgan.training.requests import StopRequest  # noqa: E402
from hpcgan.training.staged import staged  # noqa: E402

pytestmark = pytest.mark.usefixtures("warm")
STAGE = "data.stage=$NODE_SCRATCH"


@pytest.fixture
def folder(each_comm, tmp_path):
    """One that all ranks know."""
    return Path(each_comm.broadcast_json(str(tmp_path)))


@pytest.fixture
def data(each_comm, folder):
    if each_comm.is_root:
        tiny.write_data(folder / "data")
    each_comm.barrier()
    return folder / "data"


@pytest.fixture
def node(each_comm, folder, monkeypatch):
    """Ranks 0 and 1 are on one node, rank 2 on another, each node with a folder of its own."""
    name = f"n{each_comm.rank // 2 + 1}"
    monkeypatch.setenv("SLURMD_NODENAME", name)
    monkeypatch.setenv("NODE_SCRATCH", str(folder / name))
    return name


@pytest.fixture
def copied(monkeypatch):
    """Which files this rank has copied."""
    names = []
    whole = staging.Copies._copy

    def copy(self, original):
        names.append(original.name)
        return whole(self, original)

    monkeypatch.setattr(staging.Copies, "_copy", copy)
    return names


@pytest.mark.world_size(3)
def test_one_rank_of_each_node_copies(each_comm, data, node, copied, folder):
    with staged(tiny.config(data, STAGE), each_comm) as place:
        assert place.config.data.path.parent.parent == folder / node
        assert sorted(path.name for path in place.config.data.path.iterdir()) == ["train.h5", "val.h5"]
        everybody = each_comm.gather_json(copied)
        if each_comm.is_root:
            assert everybody == [["train.h5", "val.h5"], [], ["train.h5", "val.h5"]]
            assert [copy.node for copy in place.copies] == ["n1", "n2"]
            assert all(copy.copied_bytes for copy in place.copies)
        assert place.source is not None
        assert set(place.source.files) == {"train", "val", "test"}
    with staged(tiny.config(data, STAGE), each_comm) as place:
        assert [copy.copied_bytes for copy in place.copies] == [0, 0] * each_comm.is_root


@pytest.mark.world_size(2)
def test_a_training_on_copies_has_the_bits_of_one_without(each_comm, data, node, folder):
    """The copy of one node only goes at the end, and not before both ranks have done with it."""
    weights = []
    for name, overrides in (("plain", ()), ("copied", (STAGE, "data.stage_keep=false"))):
        run = RunDirectory(folder / name)
        config = tiny.config(data, "training.epochs=1", *overrides)
        attempt.train(config, run, each_comm, StopRequest())
        if each_comm.is_root:
            weights.append(
                {k: v.tobytes() for k, v in checkpoint.load_latest(run.checkpoints, pytest.fail).arrays.items()}
            )
    if each_comm.is_root:
        assert weights[0] == weights[1]
        (start,) = recorded(folder / "copied" / "metrics.jsonl", "start")
        assert [copy["node"] for copy in start["copies"]] == ["n1"]
        assert list((folder / "n1").rglob("*.h5")) == []
    each_comm.barrier()


@pytest.mark.world_size(3)
@pytest.mark.parametrize("fault", ["unset", "unwritable", "torn"])
def test_a_node_that_cannot_copy_ends_all_ranks_by_its_name(each_comm, data, node, folder, monkeypatch, fault):
    if node == "n2":
        if fault == "unset":
            monkeypatch.delenv("NODE_SCRATCH")
        elif fault == "unwritable":
            monkeypatch.setenv("NODE_SCRATCH", "/proc/hpcgan")
        else:
            monkeypatch.setattr(staging, "_into", lambda copy: lambda piece: copy.write(bytes(len(piece))))
    error = HpcganError if fault == "torn" else InputError
    with pytest.raises(error, match=r"rank 2: .* on node n2") as caught:
        attempt.train(tiny.config(data, STAGE), RunDirectory(folder / "run"), each_comm, StopRequest())
    assert caught.value.collective
    assert caught.value.kind == ("environment" if fault == "torn" else "user")
    assert not (folder / "run" / "config.yaml").exists()
    texts = each_comm.gather_json(str(caught.value))
    assert texts is None or texts == texts[:1] * 3
    assert list(folder.rglob("*.tmp")) == []


@pytest.mark.world_size(3)
def test_a_signal_to_a_rank_that_waits_stops_all(each_comm, data, node, folder, monkeypatch):
    slow = staging._into

    def slowly(copy):
        write = slow(copy)

        def write_slowly(piece):
            time.sleep(0.1)
            write(piece)

        return write_slowly

    monkeypatch.setattr(staging, "PIECE", 4096)
    monkeypatch.setattr(staging, "_into", slowly)
    began = time.monotonic()

    def is_stopped():
        return each_comm.rank == 1 and time.monotonic() - began > 0.5

    with (
        pytest.raises(Interrupted, match="while data were copied") as caught,
        staged(tiny.config(data, STAGE), each_comm, is_stopped),
    ):
        pytest.fail("there was nothing to wait for")
    assert caught.value.collective
    each_comm.barrier()
    assert [path for path in (folder / node).rglob("*") if path.suffix in (".tmp", ".h5")] == []
    monkeypatch.undo()
