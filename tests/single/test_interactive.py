"""A training as a notebook sees it, through its run directory."""

import json
import os
import signal
import threading
import time

import needs
import pytest
import tiny

from hpcgan.errors import HpcganError, InputError, Interrupted
from hpcgan.interactive import attach, folder
from hpcgan.interactive.interrupts import interrupts
from hpcgan.interactive.rows import Rows
from hpcgan.interactive.session import EngineTraining
from hpcgan.interactive.training import Training
from hpcgan.runs.directory import RunDirectory
from hpcgan.system import home
from hpcgan.training.requests import StopRequest

needs.tensorflow()
pytest.importorskip("pandas")

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.training import attempt  # noqa: E402

RATES = {"generator": 0.01, "discriminator": 0.01}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def train(data, run, stop=None, *overrides):
    attempt.train(tiny.config(data, *overrides), run, SerialComm(), stop or StopRequest())


@pytest.fixture(scope="module")
def training(data, tmp_path_factory):
    """One that is done; its rates were changed on the way."""
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    with pytest.raises(Interrupted):
        train(data, run, tiny.StopAt(20))
    attach(run.path).set(0.01, wait=0)
    train(data, run)
    return attach(str(run.path))


def test_what_it_has_recorded_is_a_table(training):
    assert training.state == "done"
    assert training.epoch == 2
    epochs = training.metrics()
    assert epochs["epoch"].tolist() == [1, 2]
    assert epochs["score.total"].min() == training.best.score
    assert {"losses.generator", "losses.discriminator", "samples_per_second"} <= set(epochs.columns)
    (command,) = training.metrics("command").to_dict("records")
    assert (command["name"], command["step"], command["learning_rates"]) == ("set", 21, [RATES])
    assert training.metrics("rollback").empty
    assert training.wait(0.0) == "done"


def test_the_picture_of_the_training_shows_what_was_recorded(training):
    panels = training.plot().axes
    assert [panel.get_ylabel() for panel in panels] == ["Mean loss of an epoch", "Score (N = 20)", "Samples/s"]
    epochs = training.metrics()
    assert panels[1].get_yscale() == "log"
    assert panels[1].lines[0].get_ydata().tolist() == epochs["score.total"].tolist()
    assert panels[2].lines[0].get_ydata().tolist() == epochs["samples_per_second"].tolist()
    assert panels[0].lines[-1].get_xdata() == pytest.approx([21 / 15] * 2)  # the rates were changed


def test_generated_events_stand_beside_real_ones_if_there_are_any(data, training, tmp_path):
    titles = [axes.get_title() for axes in training.samples().axes]
    assert {"Real", "Generated"} <= set(titles)
    training.samples(1)
    with pytest.raises(InputError, match="no samples of epoch 7; there are 1 to 2"):
        training.samples(7)
    hidden = data.rename(tmp_path / "elsewhere")
    try:
        assert "Real" not in {axes.get_title() for axes in training.samples().axes}
    finally:
        hidden.rename(data)


def test_an_epoch_is_reached_when_there_are_samples_of_it(training, tmp_path, monkeypatch):
    monkeypatch.setattr(type(training), "state", "running")
    assert [training.reach(1), training.reach(2)] == ["running"] * 2
    there = training.run.samples / "epoch-0002.h5"
    hidden = there.rename(tmp_path / there.name)
    try:
        assert training.reach(1) == "running"  # long ago, whatever there is of it now
        with pytest.raises(HpcganError, match="in epoch 3 after 0 s"):
            training.reach(2, timeout=0.0)
    finally:
        hidden.rename(there)


def test_a_running_training_is_paused_changed_and_stopped_by_another_thread(data, tmp_path):
    run, failures, stop = RunDirectory(tmp_path / "run"), [], StopRequest()

    def steer():
        try:
            end = time.monotonic() + 600
            while not (run.exists and attach(run.path).state == "running") and time.monotonic() < end:
                time.sleep(0.02)
            it = attach(run.path)
            it.pause()
            assert it.state == "paused"
            it.set(generator=0.02)
            it.set(lr=0.01, discriminator=0.03)
            it.checkpoint()
            it.resume()
            assert it.state == "running"
            with pytest.raises(HpcganError, match="still running after 0 s"):
                it.wait(0.0)
            it.stop()
            assert it.wait(600.0) == "stopped"
        except BaseException as error:  # to be seen in the test's own thread
            failures.append(error)
            stop.requested = "SIGTERM"  # the training has no other end

    thread = threading.Thread(target=steer)
    thread.start()
    with pytest.raises(Interrupted):
        train(data, run, stop, "training.epochs=100000", "scoring.every_epochs=0")
    thread.join(600)
    assert not failures
    commands = attach(run.path).metrics("command")
    assert commands["name"].tolist() == ["pause", "set", "set", "checkpoint", "resume", "stop"]
    assert commands["step"].nunique() <= 2  # all but the last in the pause
    assert commands["learning_rates"][1] == [{"generator": 0.02, "discriminator": 1e-4}]
    assert commands["learning_rates"][2] == [{"generator": 0.01, "discriminator": 0.03}]


def test_bad_input_is_one_line(training, tmp_path):
    with pytest.raises(InputError, match=r"absent: not a run directory"):
        attach(tmp_path / "absent")
    with pytest.raises(InputError, match="the training has ended"):
        training.pause()
    with pytest.raises(InputError, match="command 'set' needs a learning rate"):
        training.set()
    with pytest.raises(InputError, match="a learning rate is above 0"):
        training.set(lr=-1.0)
    with pytest.raises(
        InputError, match="kind 'epochs': choose one of start, begun, step, epoch, command, checkpoint, rollback, end"
    ):
        training.metrics("epochs")
    (tmp_path / "config.yaml").write_text((training.run.path / "config.yaml").read_text())
    fresh = attach(tmp_path)
    assert fresh.state == "not started"
    assert fresh.best is None
    for picture in (fresh.plot, fresh.samples):
        with pytest.raises(InputError, match="no epoch is done yet"):
            picture()
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"kind": "epoch"}) + "\ntorn")
    assert fresh.metrics().empty


def test_a_resumed_training_of_this_kernel_starts_until_its_ranks_do_whatever_it_was_before(training):
    """Its run directory says `done`, of the attempt before: a panel that believed it would not look again."""
    resumed = EngineTraining.__new__(EngineTraining)
    Training.__init__(resumed, training.run)
    resumed._over, resumed._error = threading.Event(), None
    assert (resumed.state, resumed.epoch) == ("starting", 2)
    resumed._over.set()
    assert resumed.state == "done"


def test_the_end_of_an_epoch_that_was_all_there_was_to_do_after_a_resume_has_no_rate(data, tmp_path, capsys):
    run = RunDirectory(tmp_path)
    with pytest.raises(Interrupted):
        train(data, run, tiny.StopAt(15))  # in the last step of the first epoch
    capsys.readouterr()
    train(data, run)
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch "))
    assert first.startswith("epoch 1/2  ")
    assert "samples/s" not in first
    assert "samples/s" in second
    rates = attach(tmp_path).metrics()["samples_per_second"]
    assert rates.isna().tolist() == [True, False]
    attach(tmp_path).plot()


def test_errors_in_a_notebook_are_one_line(tmp_path, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.user_ns["where"] = tmp_path
    capsys.readouterr()
    shell.run_cell("from hpcgan.interactive import attach\nattach(where)")
    said = capsys.readouterr()
    assert (said.out + said.err).strip() == f"InputError: {tmp_path}: not a run directory (no config.yaml in it)"
    shell.run_line_magic("load_ext", "hpcgan.interactive")
    shell.run_line_magic("hpcgan", "traceback")
    shown = capsys.readouterr().out
    assert shown.startswith("Traceback (most recent call last):")
    assert "in read_config" in shown
    shell.run_line_magic("hpcgan", "attach nowhere")  # the magic's own errors, too
    capsys.readouterr()
    shell.run_line_magic("hpcgan", "traceback")
    assert "in _attach" in capsys.readouterr().out


def test_rows_are_a_list_that_is_shown_as_a_table():
    rows = Rows([{"rank": 0, "host": "<n1>", "mean": 0.5}, {"rank": 10, "host": None}], ("rank", "host"))
    assert repr(rows) == "rank  host\n0     <n1>\n10"
    assert rows._repr_html_().count("<tr>") == 3
    assert "<td>&lt;n1&gt;</td>" in rows._repr_html_()
    assert [row["rank"] for row in rows] == [0, 10]
    assert repr(Rows(none="nothing")) == "nothing"


@pytest.mark.parametrize(("change", "alive"), [
    ({}, True),
    ({"pid": 2**22 + 1}, False),
    ({"started": "1"}, False),  # another process has got its number
    ({"boot": "of yesterday"}, False),
    ({"boot": "of yesterday", "machine": "another one"}, None),  # two hosts may have the same name
    ({"host": "of another name"}, True),  # the same kernel, in another container
    ({"host": "elsewhere", "boot": "another"}, None),
    ({"space": "pid:[1]"}, None),  # a container
])  # fmt: skip
def test_whether_a_process_lives_is_only_said_where_its_number_means_something(change, alive):
    me = folder.describe(os.getpid())
    assert folder.lives({**me, **change}) is alive
    assert folder.lives(None) is False


def test_an_interrupt_waits_for_what_must_not_be_torn_and_later_ones_only_hurry():
    done = []

    def torn():
        with interrupts() as guard:
            try:
                with guard.hold():
                    signal.raise_signal(signal.SIGINT)
                    done.append("held")
            except KeyboardInterrupt:
                assert not guard.hurry
                signal.raise_signal(signal.SIGINT)
                assert guard.hurry
                done.append("cleaned up")
                raise

    def whole():
        with interrupts(held=True) as guard:
            signal.raise_signal(signal.SIGINT)
            assert guard.hurry
            done.append("whole")

    for work in (torn, whole):
        with pytest.raises(KeyboardInterrupt):
            work()
    assert done == ["held", "cleaned up", "whole"]


def test_clusters_of_a_user_without_a_home_are_among_the_temporary_files(monkeypatch, tmp_path):
    monkeypatch.delenv("HPCGAN_CLUSTERS", raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(home.pwd, "getpwuid", lambda number: {}[number])
    monkeypatch.setattr(home, "_stand_in", None)
    monkeypatch.setattr(home.tempfile, "gettempdir", lambda: str(tmp_path))
    assert folder.clusters() == tmp_path / f"hpcgan-{os.getuid()}" / ".hpcgan" / "clusters"
