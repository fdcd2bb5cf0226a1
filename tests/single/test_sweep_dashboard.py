"""The panel of a sweep: widgets, driven as a front end would, without one."""

from __future__ import annotations

import contextlib
import json
import sys
import time

import fake_sweeps
import pytest

from hpcgan.interactive import Sweep
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease

pytest.importorskip("ipywidgets")
pytest.importorskip("optuna")

from hpcgan.interactive import figure_process, live_panel
from hpcgan.interactive.sweep_dashboard import SweepDashboard

PNG = b"\x89PNG"


panels: list[SweepDashboard] = []  # those of this test


def poll(condition, timeout=600.0):
    """Until it holds, and no panel is in the middle of showing something new."""
    end = time.monotonic() + timeout
    while True:
        with contextlib.ExitStack() as stack:
            for panel in panels:
                stack.enter_context(panel._lock)
            if condition():
                return
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


@pytest.fixture
def study(tmp_path):
    """Of a sweep that is at work: one trial complete, one that trains, one that waits."""
    made = fake_sweeps.study_in(tmp_path / "a <study>")
    fake_sweeps.finish(made, 0, 9.0)
    fake_sweeps.begin(made, 1, scores=[12.0])
    fake_sweeps.begin(made, 2)
    lease, trial = Lease(RunDirectory(made.path)), Lease(made.runner(1))
    made.lease, made.trial_lease = lease, trial
    yield made
    for held in (lease, trial):
        with contextlib.suppress(OSError):
            held.release("interrupted")


@pytest.fixture
def opened(monkeypatch):
    """Panels, closed in the end, which draw without a rest."""
    monkeypatch.setattr(live_panel, "REST", 0)
    with contextlib.ExitStack() as stack:

        def make(study, every=0.05):
            panel = SweepDashboard(study.path, every)
            panels.append(panel)
            stack.callback(panel.close)
            return panel

        yield make
    panels.clear()


def test_it_shows_what_comes_and_ends_with_the_sweep(study, opened):
    panel = opened(study)
    assert "running" in panel.header.value
    assert "3 trials: 1 complete, 1 running, 1 queued" in panel.header.value
    assert "best so far: trial 0, 9.00" in panel.header.value
    assert "a &lt;study&gt;" in panel.header.value
    poll(lambda: bytes(panel.picture.value).startswith(PNG))
    assert panel.picture.layout.display == ""
    first = bytes(panel.picture.value)
    fake_sweeps.finish(study, 2, 3.0, state="complete")
    poll(lambda: "best so far: trial 2, 3.00" in panel.header.value)
    poll(lambda: bytes(panel.picture.value) != first)
    study.trial_lease.release("failed")
    fake_sweeps.finish(study, 1, None, state="failed", reason="loss became <non-finite>")
    poll(lambda: "loss became &lt;non-finite&gt;" in panel.trials.value)
    study.lease.release("done")
    poll(lambda: not panel.alive)
    assert "done" in panel.header.value
    assert panel.prune.disabled
    assert panel.stop.disabled
    assert panel._figure_process._process is None


def test_trials_are_listed_with_their_parameters_the_leading_one_bold(study, opened):
    panel = opened(study)
    rows = panel.trials.value.split("<tr ")[1:]
    assert len(rows) == 3
    running, leading, waiting = rows
    assert "<td>1</td><td>running</td><td>1/4</td><td>12.00</td><td>12.00 @1</td>" in running
    assert "font-weight:bold" in leading
    assert "font-weight:bold" not in running + waiting
    for value in fake_sweeps.params(0).values():
        assert f"<td>{value:.3g}</td>" in leading
    for name in ("learning_rate", "filters", "label_flip"):
        assert f"<th>{name}</th>" in panel.trials.value


def test_the_table_scrolls_and_a_new_look_leaves_it_where_it_is(study, opened):
    """What scrolls is the widget, which stays; what is in it is replaced by every look."""
    panel = opened(study)
    assert (panel.trials.layout.overflow, panel.trials.layout.max_height) == ("auto", "26em")
    assert "overflow" not in panel.trials.value


def test_buttons_prune_and_stop_and_say_what_is_wrong_in_one_line(study, opened):
    panel = opened(study)
    panel.number.value = 1
    panel.prune.click()
    assert "trial 1 ends before its next epoch" in panel.status.value
    assert json.loads(study.trial(1).verdict_file.read_text())["reason"] == "pruned by hand after epoch 1"
    panel.prune.click()
    assert "trial 1: shall end already" in panel.status.value
    assert "color:#B3261E" in panel.status.value
    panel.number.value = 7
    panel.prune.click()
    assert "no trial 7; the last one is 2" in panel.status.value
    assert not study.stop_file.exists()
    panel.stop.click()
    assert study.stop_file.exists()
    assert "asked to stop" in panel.status.value
    assert "color:#B3261E" not in panel.status.value


def test_what_cannot_be_read_is_said_and_tried_again(study, opened, monkeypatch):
    panel = opened(study)
    whole = panel._reader.read

    def broken():
        raise OSError(5, "Input/output error\nand more")

    monkeypatch.setattr(panel._reader, "read", broken)
    poll(lambda: "cannot refresh, trying again: OSError: [Errno 5] Input/output error" in panel.status.value)
    assert "and more" not in panel.status.value
    assert panel.alive
    monkeypatch.setattr(panel._reader, "read", whole)
    poll(lambda: "cannot refresh" not in panel.status.value)


def test_a_picture_that_cannot_be_drawn_is_said_and_the_table_goes_on(study, opened, monkeypatch):
    def broken(*_):
        raise ValueError("no ink")

    monkeypatch.setattr(figure_process.FigureProcess, "draw", broken)
    panel = opened(study)
    poll(lambda: "picture: ValueError: no ink" in panel.status.value)
    fake_sweeps.finish(study, 2, 3.0)
    poll(lambda: "best so far: trial 2, 3.00" in panel.header.value)
    assert "no ink" in panel.status.value
    assert panel.alive


def test_there_is_one_panel_of_a_study_and_closing_it_ends_its_thread(study, opened):
    first = opened(study)
    second = opened(study)
    assert not first.alive
    assert second.alive
    second.close()
    assert not second.alive
    assert live_panel._open == {}
    assert not study.stop_file.exists()


def test_without_widgets_there_is_a_line_and_the_plain_things(study, capsys, monkeypatch):
    sweep = Sweep.attach(study.path)
    assert sweep.dashboard() is None  # there is no kernel here
    assert "The dashboard needs a notebook" in capsys.readouterr().out
    shown = []
    monkeypatch.setattr("IPython.get_ipython", object)
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert sweep.dashboard() is None
    assert capsys.readouterr().out == "The dashboard needs ipywidgets: pip install 'hpcgan[interactive]'\n"
    assert shown[0]["number"].tolist() == [0, 1, 2]
    assert bytes(shown[1].data).startswith(PNG)
