"""The panel of a training: widgets, driven as a front end would, without one."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import needs
import psutil
import pytest
import tiny
from recorded import recorded

from hpcgan.errors import Interrupted
from hpcgan.interactive import attach
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease
from hpcgan.training.requests import StopRequest

pytest.importorskip("ipywidgets")

from hpcgan.interactive import figure_process, live_panel
from hpcgan.interactive.training_dashboard import TrainingDashboard

PNG = b"\x89PNG"


pytestmark = pytest.mark.usefixtures("warm")
panels: list[TrainingDashboard] = []  # those of this test


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


def png(widget):
    return bytes(widget.value)


def enabled(panel):
    return {name for name, button in panel.buttons.items() if not button.disabled}


@pytest.fixture
def opened(monkeypatch):
    """Panels, closed in the end, which draw without a rest."""
    monkeypatch.setattr(live_panel, "REST", 0)
    with contextlib.ExitStack() as stack:

        def make(run, every=0.05):
            panel = TrainingDashboard(run, attach(run.path).attempt_state, every)
            panels.append(panel)
            stack.callback(panel.close)
            return panel

        yield make
    panels.clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(data, tmp_path):
    """A directory in which nothing has been trained."""
    made = RunDirectory(tmp_path / "run")
    made.create(tiny.config(data))
    return made


class Played:
    """A training of which there are only the records."""

    def __init__(self, run):
        self._lease = Lease(run)
        self.metrics = records.Writer(run.metrics_file, self._lease.attempt)
        self.metrics.write(records.Start(step=0, ranks=1, samples=0))

    def epoch(self, number, score=None):
        self.metrics.write(records.Epoch(
            step=15 * number, epoch=number, losses={"generator": 1.0 / number, "discriminator": 2.0},
            score=score and records.EpochScore(score, {"jet_pt": score}, 20),
            best=score and records.Best(score, number, 15 * number),
            learning_rates={"generator": 1e-4, "discriminator": 1e-4}, samples_per_second=1234.0,
        ))  # fmt: skip

    def answer(self, run, refused=None, paused=False):
        """Obey the command that waits."""
        poll(lambda: list(run.commands.glob("*.json")))
        (path,) = run.commands.glob("*.json")
        self.metrics.write(records.Command(step=15, id=path.stem, name="pause", refused=refused, paused=paused))
        path.unlink()

    def end(self, state):
        self.metrics.close()
        self._lease.release(state)


@pytest.fixture
def played(run):
    training = Played(run)
    yield training
    training.end("interrupted")


@contextlib.contextmanager
def trained(data, run, *overrides):
    """A real training in a thread, which leaves some of the core to what is tested."""
    from hpcgan.comm.base import SerialComm
    from hpcgan.training import attempt

    class Resting(StopRequest):
        """Looked at in every step."""

        def __init__(self):
            self.asked = None

        @property
        def requested(self):
            time.sleep(0.02)
            return self.asked

    stop = Resting()

    def train():
        with contextlib.suppress(Interrupted):
            attempt.train(tiny.config(data, *overrides), run, SerialComm(), stop)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        yield
    finally:
        stop.asked = "SIGTERM"
        thread.join(600)


@pytest.mark.slow
def test_a_training_is_watched_and_commanded_by_buttons(data, run, opened):
    needs.tensorflow()
    panel = opened(run)
    assert "not started" in panel.header.value
    assert "the first epoch that is done" in panel._note.value
    assert (png(panel.curves), panel.curves.layout.display, enabled(panel)) == (b"", "none", set())
    endless = ("training.epochs=100000", "scoring.every_epochs=0")
    with trained(data, run, *endless):
        poll(lambda: "running" in panel.header.value and "of 100000" in panel.header.value)
        assert enabled(panel) == {"pause", "checkpoint", "stop", "set"}
        poll(lambda: png(panel.curves).startswith(PNG) and png(panel.samples).startswith(PNG))
        pictures = {png(panel.curves), png(panel.samples)}
        assert panel.curves.layout.display == ""
        assert panel._note.layout.display == "none"
        poll(lambda: not {png(panel.curves), png(panel.samples)} & pictures)
        seen = panel.progress.value
        poll(lambda: panel.progress.value > seen)

        panel.buttons["pause"].click()
        poll(lambda: "pause: obeyed by all ranks at step" in panel.status.value)
        assert "paused" in panel.header.value
        assert enabled(panel) == {"resume", "checkpoint", "stop", "set"}
        assert panel.rates["generator"].placeholder == "0.0002"

        panel.rates["generator"].value = " 2e-3 "
        panel.buttons["set"].click()
        poll(lambda: "set generator=0.002: obeyed by all ranks at step" in panel.status.value)
        assert [field.value for field in panel.rates.values()] == ["", ""]
        assert [field.placeholder for field in panel.rates.values()] == ["0.002", "0.0001"]

        panel.buttons["checkpoint"].click()
        poll(lambda: "checkpoint: obeyed" in panel.status.value)
        panel.buttons["resume"].click()
        poll(lambda: "running" in panel.header.value)
        panel.buttons["stop"].click()
        poll(lambda: "stopped" in panel.header.value)
        poll(lambda: "stop: obeyed" in panel.status.value)
        assert enabled(panel) == set()
    obeyed = recorded(run.metrics_file, "command")
    assert [r["name"] for r in obeyed] == ["pause", "set", "checkpoint", "resume", "stop"]
    assert obeyed[1]["rates"] == {"generator": 2e-3}
    pictures = {png(panel.curves)}
    with trained(data, run, *endless):  # the same panel shows what goes on
        poll(lambda: "running" in panel.header.value and "attempt 2" in panel.header.value)
        poll(lambda: png(panel.curves) not in pictures)
    poll(lambda: "interrupted" in panel.header.value)
    assert panel.alive  # it may be started once more
    assert "cannot" not in panel.status.value


def test_a_training_that_has_ended_is_drawn_and_then_left_alone(data, run, opened):
    needs.tensorflow()
    with trained(data, run):
        poll(lambda: attach(run.path).state == "done")
    panel = opened(run)
    poll(lambda: not panel.alive)
    assert panel._figure_process._process is None
    best = attach(run.path).best
    for text in (
        "done",
        "epoch <b>2</b> of 2",
        "step <b>30</b>",
        f"<b>{best.score:.2f}</b> (epoch {best.epoch})",
    ):
        assert text in panel.header.value
    assert (panel.progress.value, panel.progress.max, panel.progress.bar_style) == (2.0, 2.0, "success")
    assert png(panel.curves).startswith(PNG)
    assert png(panel.samples).startswith(PNG)
    assert "Samples after epoch 2." in panel._caption.value
    assert panel.status.value == ""
    assert enabled(panel) == set()
    panel.buttons["pause"].click()  # as if it had ended between two looks
    assert "the training has ended (done); there is nothing to pause" in panel.status.value
    assert not list(run.path.glob("commands/*"))


def test_what_is_no_learning_rate_is_a_line_and_no_command(run, played, opened):
    panel = opened(run)
    for value, text in (
        ("5", "set generator=5.0: a learning rate is above 0 and at most 1"),
        ("-1e-4", "a learning rate is above 0 and at most 1"),
        ("nan", "a learning rate is above 0 and at most 1"),
        ("1e-4x", "1e-4x&#x27; is no learning rate for the generator; write it as 1e-4"),
        ("", "needs a learning rate"),
    ):
        panel.rates["generator"].value = value
        panel.buttons["set"].click()
        assert text in panel.status.value
        assert panel.rates["generator"].value == value  # to be mended
    assert not list(run.path.glob("commands/*"))


def test_answers_are_shown_when_they_come(run, played, opened):
    panel = opened(run)
    poll(lambda: "running" in panel.header.value)
    panel.buttons["pause"].click()
    assert "pause: sent, waiting for the answer" in panel.status.value
    played.answer(run, refused="not <b>now</b>")
    poll(lambda: "pause: refused, not &lt;b&gt;now&lt;/b&gt;" in panel.status.value)
    assert "running" in panel.header.value
    panel.buttons["pause"].click()
    played.answer(run, paused=True)
    poll(lambda: "pause: obeyed by all ranks at step 15" in panel.status.value)
    assert "paused" in panel.header.value
    panel.buttons["resume"].click()
    played.end("done")
    poll(lambda: "resume: not obeyed, the training is done" in panel.status.value)
    poll(lambda: not panel.alive)


def test_a_command_that_was_not_obeyed_before_the_end_waits_for_the_next_start(run, played, opened):
    panel = opened(run)
    panel.buttons["checkpoint"].click()
    played.end("interrupted")
    poll(lambda: "checkpoint: sent, obeyed when the training is started again" in panel.status.value)
    again = Played(run)
    try:
        again.answer(run)
        poll(lambda: "checkpoint: obeyed by all ranks at step 15" in panel.status.value)
    finally:
        again.end("failed")
    poll(lambda: "failed" in panel.header.value)
    assert panel.progress.bar_style == "danger"


def test_what_cannot_be_read_is_said_and_tried_again(run, played, opened):
    panel = opened(run)
    played.epoch(1)
    poll(lambda: "epoch <b>1</b>" in panel.header.value)
    aside = run.metrics_file.rename(run.path / "aside")
    run.metrics_file.mkdir()
    poll(lambda: "cannot refresh, trying again: IsADirectoryError" in panel.status.value)
    assert panel.alive
    run.metrics_file.rmdir()
    played.epoch(2, score=3.25)  # into the file that was moved
    aside.rename(run.metrics_file)
    poll(lambda: "epoch <b>2</b>" in panel.header.value)
    assert "best score <b>3.25</b> (epoch 2)" in panel.header.value
    assert "goodput <b>" in panel.header.value
    assert "cannot refresh" not in panel.status.value


def test_a_broken_line_costs_that_line(run, played, opened):
    panel = opened(run)
    with open(run.metrics_file, "ab") as file:
        file.write(b'{"kind": "epoch", "att\n{"kind": "epoch", "attempt": 1, "step": 3}\n')
    poll(lambda: "1 record of metrics.jsonl cannot be used" in panel.status.value)
    played.epoch(1)
    poll(lambda: "epoch <b>1</b>" in panel.header.value)


def test_a_picture_that_cannot_be_drawn_is_said_and_the_next_one_is_drawn(run, played, opened):
    panel = opened(run)
    played.metrics.write(records.Epoch(step=15, epoch=0, samples_per_second=1.0))
    poll(lambda: "curves: ZeroDivisionError: division by zero" in panel.status.value)
    assert png(panel.curves) == b""
    os.kill(panel._figure_process._process.pid, 9)
    played.epoch(2)
    poll(lambda: "curves: the process that draws has ended (exit code -9)" in panel.status.value)
    run.metrics_file.write_text("")
    played.epoch(1)
    poll(lambda: png(panel.curves).startswith(PNG))
    assert "curves:" not in panel.status.value


def test_closing_it_leaves_nothing_behind(run, played, opened):
    panel = opened(run)
    played.epoch(1)
    poll(lambda: png(panel.curves))
    drawer = psutil.Process(panel._figure_process._process.pid)
    widgets = [panel.box, *panel.box.children]
    assert all(widget.comm is not None for widget in widgets)
    panel.close()
    assert not panel.alive
    assert not drawer.is_running()
    assert all(widget.comm is None for widget in widgets)
    assert not [t for t in threading.enumerate() if t.name.startswith("hpcgan-panel")]
    played.epoch(2)
    panel.buttons["stop"].click()  # nobody can; it must not matter
    panel.close()


def test_a_drawing_that_never_ends_does_not_hold_up_the_rest(run, played, opened, tmp_path, monkeypatch):
    (tmp_path / "stuck").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "stuck").chmod(0o755)
    monkeypatch.setattr(figure_process.sys, "executable", str(tmp_path / "stuck"))
    panel = opened(run)
    played.epoch(1)
    poll(lambda: panel._figure_process._process is not None)
    stuck = psutil.Process(panel._figure_process._process.pid)
    played.epoch(2)
    poll(lambda: "epoch <b>2</b>" in panel.header.value)
    panel.close()
    assert not panel.alive
    assert not stuck.is_running()


KILLED = """
import os, sys
from pathlib import Path
with open(sys.argv[2], "a") as file:
    print("this script runs", file=file)
from hpcgan.interactive.figure_process import FigureProcess
from hpcgan.interactive.figures import curves
from hpcgan.runs.directory import RunDirectory
drawing = FigureProcess()
png, _ = drawing.draw(curves, RunDirectory(Path(sys.argv[1])), "Loss")
assert png.startswith(b"\\x89PNG")
assert "matplotlib" not in sys.modules
print(drawing._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_process_that_draws_ends_with_a_kernel_that_is_killed_and_runs_nothing_of_it(run, played, tmp_path):
    played.epoch(1)
    script, runs = tmp_path / "script.py", tmp_path / "runs"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(run.path), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    poll(lambda: not psutil.pid_exists(int(done.stdout)) or psutil.Process(int(done.stdout)).status() == "zombie")
    assert runs.read_text() == "this script runs\n"


class Shell(SimpleNamespace):
    """What IPython has in a notebook, as far as it is asked here."""

    kernel = "one"
    execution_count = 3


@pytest.fixture
def notebook(monkeypatch):
    """The shell, and what was displayed."""
    shell, shown = Shell(), []
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("IPython.display.display", shown.append)
    return shell, shown


def test_in_a_notebook_it_is_displayed_once_a_cell_and_there_is_one_of_a_run(run, played, notebook):
    shell, shown = notebook
    first = attach(run.path).dashboard()
    first._ipython_display_()  # it was the cell's last value
    assert shown == [first.box]
    shell.execution_count += 1
    first._ipython_display_()
    assert shown == [first.box, first.box]
    second = attach(run.path).dashboard()
    assert shown[2:] == [second.box]
    assert not first.alive
    assert second.alive
    second.close()
    assert run.path not in live_panel._open


def test_without_ipywidgets_there_is_the_picture_and_what_to_install(run, played, notebook, monkeypatch, capsys):
    _, shown = notebook
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert attach(run.path).dashboard() is None
    assert "pip install 'hpcgan[interactive]'" in capsys.readouterr().out
    assert shown == []  # no epoch is done yet, which is said
    played.epoch(1)
    assert attach(run.path).dashboard() is None
    assert capsys.readouterr().out == "The dashboard needs ipywidgets: pip install 'hpcgan[interactive]'\n"
    (image,) = shown
    assert image.data.startswith(PNG)


def test_outside_a_notebook_it_says_so(run, played, capsys):
    played.epoch(1)
    assert attach(run.path).dashboard() is None
    assert capsys.readouterr().out.startswith("The dashboard needs a notebook: pip install 'hpcgan[interactive]'")
    assert not [t for t in threading.enumerate() if t.name.startswith("hpcgan-panel")]
