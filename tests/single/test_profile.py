"""A profile: clocks that are compared, the parts of each rank's time worked out on paper, and a whole training."""

import json

import needs
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.comm.base import SerialComm
from hpcgan.comm.spans import ClockOffset, compare_clocks, offset
from hpcgan.report.page import render
from hpcgan.runs import checkpoint
from hpcgan.runs.directory import RunDirectory
from hpcgan.training.profile_summary import PARTS, RankTimes, summarise, text, trace, verdict

# --- clocks --------------------------------------------------------------------------------------------------------


def test_a_barrier_bounds_what_a_clock_is_ahead():
    """Rank 1 is 5 s ahead. It comes 0.2 s after rank 0 and leaves 0.1 s after it; then the other way round."""
    first = [(10.0, 10.3), (20.2, 20.4)]
    other = [(15.2, 15.4), (25.0, 25.3)]
    # 15.2 - 10.3 = 4.9 <= x <= 15.4 - 10.0 = 5.4; 25.0 - 20.4 = 4.6 <= x <= 25.3 - 20.2 = 5.1
    found = offset(first, other)
    assert (found.seconds, found.error) == (pytest.approx(5.0), pytest.approx(0.1))


LATE = st.floats(0.0, 2.0)


@given(st.floats(-1e5, 1e5), st.lists(st.tuples(LATE, LATE, LATE, LATE), min_size=1, max_size=20))
def test_what_it_is_ahead_is_within_the_error_whatever_barriers_take(ahead, rounds):
    first, other, now = [], [], 1000.0
    for come, comes, leave, leaves in rounds:
        together = now + max(come, comes)  # nobody leaves before
        first.append((now + come, together + leave))
        other.append((now + comes + ahead, together + leaves + ahead))
        now += 10.0
    found = offset(first, other)
    assert abs(found.seconds - ahead) <= found.error + 1e-9
    assert found.error <= 4.0


def test_one_rank_has_one_clock():
    (found,) = compare_clocks(SerialComm())
    assert abs(found.seconds) <= found.error < 1.0


# --- parts of the time ---------------------------------------------------------------------------------------------


def rank(node, fetches, steps, spans):
    return RankTimes.read({"node": node, "fetches": fetches, "steps": steps, "spans": spans})


def two_ranks():
    """Two steps of 4 s with a collective each; rank 1 comes 1 s late to the first one, and fetches for 1 s."""
    one = rank("a", [(0, 0.5), (5, 5.5)], [(0.5, 4.5), (5.5, 9.5)], [("g", 2, 2, 4), ("g", 8, 8, 9)])
    two = rank("b", [(0, 1), (5, 5.5)], [(1, 5), (5.5, 9.5)], [("g", 3, 3, 4.25), ("g", 7.5, 7.5, 9)])
    return [one, two]


def test_the_parts_of_each_rank_and_the_slowest():
    found = summarise(two_ranks(), clock_error=0.01)
    one, two = found["ranks"]
    # Of rank 0, 2 to 3 is wait, 3 to 4 and 8 to 9 communication; of rank 1, 3 to 4.25, 8 to 9, and 7.5 to 8 is wait.
    assert one["seconds"] == {"compute": 5.0, "wait": 1.0, "communication": 2.0, "input": 1.0, "other": 0.5}
    assert two["seconds"] == {"compute": 5.25, "wait": 0.5, "communication": 2.25, "input": 1.5, "other": 0.0}
    assert sum(one["fractions"].values()) == pytest.approx(1.0)
    assert (one["whole_s"], one["step_ms"], one["node"]) == (9.5, 4000.0, "a")
    assert [(row["last_in"], row["waited_for_s"]) for row in (one, two)] == [(1, 0.5), (1, 1.0)]
    assert found["slowest"] == 1
    sentence = verdict(found)
    assert sentence.startswith(
        "rank 1 (b) is the slowest: last in 1 of 2 collectives, for which each other rank waited "
    )
    assert sentence.endswith("waited 1.00 s (11% of the time)")
    assert found["collectives"] == [{"name": "g", "count": 2, "wait_s": 0.75, "communication_s": 2.125}]


def test_a_rank_is_not_blamed_for_what_clocks_may_be_wrong_by():
    assert summarise(two_ranks(), clock_error=0.3)["slowest"] is None
    alike = [rank("a", [(0, 1)], [(1, 9)], [("g", 2, 2, 4), ("h", 6, 6, 8)]),
             rank("b", [(0, 1)], [(1, 9)], [("g", 3, 3, 4), ("h", 5.1, 5.1, 8)])]  # fmt: skip
    found = summarise(alike, clock_error=0.0)
    assert verdict(found) == "no rank is clearly slower than the others"  # 1.0 s and 0.9 s


def test_one_rank_waits_for_nobody():
    found = summarise([rank("a", [(0, 1)], [(1, 3)], [])], clock_error=0.0)
    assert found["ranks"][0]["seconds"] == {
        "compute": 2.0, "wait": 0.0, "communication": 0.0, "input": 1.0, "other": 0.0,
    }  # fmt: skip
    assert verdict(found) == "one rank, which waits for nobody"


def test_collectives_outside_of_steps_are_no_part_of_them_and_unmatched_ones_are_left_out():
    one, two = two_ranks()
    score = ("score", 5.1, 5.1, 5.2)  # between the steps
    one = rank("a", one.fetches, one.steps, [("g", 2, 2, 4), score, ("g", 8, 8, 9)])
    forgotten = ("g", 0.0, 0.0, 0.1)  # by rank 0
    two = rank("b", two.fetches, two.steps, [forgotten, ("g", 3, 3, 4.25), score, ("g", 7.5, 7.5, 9)])
    found = summarise([one, two], clock_error=0.01)
    plain = summarise(two_ranks(), clock_error=0.01)
    assert [row["seconds"] for row in found["ranks"]] == [row["seconds"] for row in plain["ranks"]]
    assert found["unmatched"] == 1


def test_times_by_the_clock_of_rank_0():
    """Ahead by 100 s at the first batch and by 101 s at the end of the last step, 9.5 s later by rank 0's clock."""
    one, two = two_ranks()
    stretch = 1.0 / 9.5

    def ahead(times):
        return times + 100.0 + stretch * times

    shown = RankTimes(two.node, ahead(two.fetches), ahead(two.steps), two.names, ahead(two.spans))
    back = shown.by_clock(ClockOffset(100.0, 0.0), ClockOffset(101.0, 0.0))
    for ours, theirs in ((back.fetches, two.fetches), (back.steps, two.steps), (back.spans, two.spans)):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    still = RankTimes(two.node, two.fetches + 100.0, two.steps + 100.0, two.names, two.spans + 100.0)
    back = still.by_clock(ClockOffset(100.0, 0.0), ClockOffset(100.0, 0.0))
    np.testing.assert_array_equal(back.spans, two.spans)
    assert summarise([one, back], 0.01) == summarise([one, two], 0.01)


def test_the_trace_has_all_ranks_on_one_axis():
    events = trace(two_ranks(), first_step=21)["traceEvents"]
    names = [(e["pid"], e["args"]["name"]) for e in events if e["name"] == "process_name"]
    assert names == [(0, "rank 0 (a)"), (1, "rank 1 (b)")]
    spans = {(e["pid"], e["name"], e["ts"]): (e["tid"], e["dur"], e["cat"]) for e in events if e["ph"] == "X"}
    assert spans[0, "step 21", 0.5e6] == (0, 4e6, "step")
    assert spans[1, "step 22", 5.5e6] == (0, 4e6, "step")
    assert spans[1, "input", 0.0] == (0, 1e6, "input")
    assert spans[0, "wait: g", 2e6] == (1, 1e6, "wait")
    assert spans[0, "g", 3e6] == (1, 1e6, "communication")
    assert spans[1, "g", 3e6] == (1, 1.25e6, "communication")
    assert (1, "wait: g", 3e6) not in spans


def test_the_page_names_the_slowest_rank_and_every_part():
    about = {"title": "Profile of <x>", "run": "r", "created": "2026-01-02T03:04:05+00:00", "versions": {"hpcgan": "1"}}
    summary = {**about, **summarise(two_ranks(), 0.01), "notices": ["The clocks of the ranks were compared."]}
    page = render("profile.html.j2", summary, [], summary["notices"], parts=PARTS, verdict=verdict(summary))
    assert "Rank 1 (b) is the slowest" in page
    assert "Profile of &lt;x&gt;" in page
    for part, what in PARTS.items():
        assert what in page
        assert f"{part}: " in text(summary)
    assert 'data-key="ranks.1.fractions.wait">5.3%' in page
    lines = text(summary).splitlines()
    assert lines[2].startswith("rank 1 (b) is the slowest")
    assert [line.split()[3:] for line in lines if line[:2] in ("0 ", "1 ")] == [
        ["52.6%", "10.5%", "21.1%", "10.5%", "5.3%"], ["55.3%", "5.3%", "23.7%", "15.8%", "0.0%"],
    ]  # fmt: skip


# --- a training ----------------------------------------------------------------------------------------------------

SMALL = ("training.batch_size=12", "scoring.every_epochs=0", "training.average_half_life=0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def train(data, folder, *overrides):
    needs.tensorflow()
    return tiny.train(tiny.config(data, *SMALL, *overrides), folder)


def end(run):
    return checkpoint.load_latest(run.checkpoints, pytest.fail)


@pytest.fixture(scope="module")
def reference(data, warm, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("reference"))


@pytest.mark.usefixtures("warm")
def test_a_profile_over_two_epochs_changes_no_bits(data, reference, tmp_path, capsys):
    """Of steps 3 to 8 of ten."""
    run = train(data, tmp_path, "profile.steps=6", "profile.after=2")
    tiny.assert_same_state(end(run), end(reference))
    folder = run.profile / "attempt-0001"
    assert f"profile of steps 3 to 8: one rank, which waits for nobody; see {folder}/summary.html" in (
        " ".join(capsys.readouterr().out.split())
    )
    summary = json.loads((folder / "summary.json").read_text())
    (row,) = summary["ranks"]
    assert sum(row["seconds"].values()) == pytest.approx(row["whole_s"])
    assert 0.0 < row["seconds"]["compute"] < row["whole_s"]
    assert row["seconds"]["input"] > 0.0
    assert row["seconds"]["other"] > 0.0  # the end of the first epoch
    assert (summary["first_step"], summary["last_step"]) == (3, 8)
    names = [e["name"] for e in json.loads((folder / "trace.json").read_text())["traceEvents"]]
    assert [name for name in names if name.startswith("step ")] == [f"step {n}" for n in range(3, 9)]
    (traced,) = (folder / "tensorboard").glob("rank-0/plugins/profile/*/*.xplane.pb")
    assert traced.stat().st_size > 1000
    assert (folder / "summary.txt").read_text().startswith("Profile of tiny, steps 3 to 8, 1 rank (serial)\n")


@pytest.mark.usefixtures("warm")
def test_a_profile_ends_with_the_training_at_the_latest(data, tmp_path, capsys):
    run = train(data, tmp_path, "profile.steps=100", "profile.after=8")
    assert json.loads((run.profile / "attempt-0001" / "summary.json").read_text())["last_step"] == 10
    run = train(data, tmp_path, "profile.steps=2", "training.epochs=3")
    assert "no profile: the training ended before its step 21 (profile.after: 20)" in capsys.readouterr().out
    assert [path.name for path in run.profile.iterdir()] == ["attempt-0001"]


@pytest.mark.usefixtures("warm")
def test_a_profile_that_cannot_be_written_does_not_end_the_training(data, reference, tmp_path, capsys):
    (tmp_path / "profile").write_text("no folder")
    run = train(data, tmp_path, "profile.steps=1", "profile.after=1")
    tiny.assert_same_state(end(run), end(reference))
    assert "profile/attempt-0001: cannot write the profile: " in capsys.readouterr().err


@pytest.mark.usefixtures("warm")
def test_an_error_in_a_profile_leaves_no_trace_running(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step == 3)
    with pytest.raises(Exception, match="non-finite at step 4"):
        train(data, tmp_path / "run", "profile.steps=5", "profile.after=2")
    monkeypatch.undo()
    assert not RunDirectory(tmp_path / "run").profile.exists()
    run = train(data, tmp_path / "other", "profile.steps=1", "profile.after=1")  # TensorFlow has one at a time
    assert json.loads((run.profile / "attempt-0001" / "summary.json").read_text())["notices"] == []


def test_a_profile_is_no_part_of_what_a_run_is(data):
    assert tiny.config(data).identity_hash() == tiny.config(data, "profile.steps=50").identity_hash()
