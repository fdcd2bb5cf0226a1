"""A profile of two ranks, one of which comes last to every collective."""

import itertools
import json
import threading
import time
from pathlib import Path

import needs
import pytest
import tiny
from one_rank import eagerly

needs.tensorflow()

from hpcgan.comm.spans import compare_clocks  # noqa: E402
from hpcgan.runs import checkpoint  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import attempt  # noqa: E402
from hpcgan.training.requests import StopRequest  # noqa: E402

SMALL = ("training.epochs=1", "scoring.every_epochs=0", "training.average_half_life=0")
LATE_S = 0.05


@pytest.fixture(scope="module")
def shared(comm_of, tmp_path_factory):
    """A folder that both ranks know, with data."""
    comm = comm_of("horovod")
    folder = Path(comm.broadcast_json(str(tmp_path_factory.mktemp("profile"))))
    if comm.is_root:
        tiny.write_data(folder / "data")
    comm.barrier()
    return folder


def train(comm, shared, name, *overrides):
    """Seven steps, without graphs."""
    run = RunDirectory(shared / name)
    with eagerly():
        attempt.train(tiny.config(shared / "data", *SMALL, *overrides), run, comm, StopRequest())
    return run


@pytest.fixture(scope="module")
def reference(comm_of, shared):
    """Of two ranks, both backends have the same bits."""
    return train(comm_of("horovod"), shared, "reference")


def wait_for(what):
    end = time.monotonic() + 300.0
    while not what():
        assert time.monotonic() < end
        time.sleep(0.001)


def make_rank_1_late(comm, folder, monkeypatch):
    """Have it come to each average 50 ms after rank 0, which waits in it by then, has been seen there."""
    whole, count = comm.begin_average, itertools.count()
    if comm.is_root:
        folder.mkdir()

    def tell(sign):
        wait_for(comm.collective)
        sign.touch()

    def begin_average(tensor, name):
        sign = folder / f"{next(count)}"
        if comm.is_root:
            threading.Thread(target=tell, args=(sign,)).start()
        else:
            wait_for(sign.exists)
            time.sleep(LATE_S)
        return whole(tensor, name)

    monkeypatch.setattr(comm, "begin_average", begin_average)


@pytest.mark.world_size(2)
@pytest.mark.parametrize("backend", ["horovod", "mpi"])
def test_the_rank_that_others_wait_for_is_named_and_no_bit_is_another(comm_of, shared, reference, monkeypatch, backend):
    """Steps 3 to 6 of seven, two collectives each."""
    comm = comm_of(backend)
    make_rank_1_late(comm, shared / f"signs-{backend}", monkeypatch)
    run = train(comm, shared, backend, "profile.steps=4", "profile.after=2")
    if not comm.is_root:
        return
    ours, theirs = (checkpoint.load_latest(r.checkpoints, pytest.fail) for r in (run, reference))
    tiny.assert_same_state(ours, theirs)
    folder = run.profile / "attempt-0001"
    summary = json.loads((folder / "summary.json").read_text())
    first, second = summary["ranks"]
    assert (summary["first_step"], summary["last_step"]) == (3, 6)
    assert {c["name"]: c["count"] for c in summary["collectives"]} == {"discriminator": 4, "generator": 4}
    assert (summary["unmatched"], summary["slowest"]) == (0, 1)
    assert (first["last_in"], second["last_in"]) == (0, 8)
    error = 8 * 2 * summary["clock_error_s"]
    assert 0.0 < error < 8 * LATE_S
    assert 8 * LATE_S - error < first["seconds"]["wait"] < first["whole_s"]
    assert second["seconds"]["wait"] == 0.0
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    for rank in (0, 1):
        steps = [e["name"] for e in events if e["pid"] == rank and e["name"].startswith("step ")]
        assert steps == [f"step {n}" for n in range(3, 7)]
        assert len(list((folder / "tensorboard").glob(f"rank-{rank}/plugins/profile/*/*.xplane.pb"))) == 1


@pytest.mark.faults  # the one above, without graphs, has more to say
@pytest.mark.world_size(2)
@pytest.mark.parametrize("backend", ["horovod", "mpi"])
def test_a_profile_of_compiled_steps_changes_no_bits(comm_of, shared, backend):
    """Graphs that say when their collectives begin and end compute the same."""
    comm, runs = comm_of(backend), []
    for name in ("plain", "profiled"):
        profile = ("profile.steps=4", "profile.after=2") if name == "profiled" else ()
        runs.append(RunDirectory(shared / f"{name}-{backend}"))
        attempt.train(tiny.config(shared / "data", *SMALL, *profile), runs[-1], comm, StopRequest())
    if comm.is_root:
        plain, profiled = (checkpoint.load_latest(run.checkpoints, pytest.fail) for run in runs)
        tiny.assert_same_state(profiled, plain)
        summary = json.loads((runs[-1].profile / "attempt-0001" / "summary.json").read_text())
        assert {c["name"]: c["count"] for c in summary["collectives"]} == {"discriminator": 4, "generator": 4}


@pytest.mark.world_size(2)
def test_a_clock_that_is_ahead_is_noticed(comm_of, monkeypatch):
    """Of one machine, both clocks are the same; rank 1's is put ahead by an hour."""
    comm, now = comm_of("mpi"), time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600.0 * comm.rank)
    first, second = compare_clocks(comm)
    assert abs(first.seconds) <= first.error
    assert abs(second.seconds - 3600.0) <= second.error < 1.0
