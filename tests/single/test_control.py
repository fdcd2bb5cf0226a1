"""Commands to a training, through its run directory: what is sent, obeyed once, recorded, and kept over restarts."""

import functools
import json

import needs
import numpy as np
import pytest
import tiny
from recorded import recorded

from hpcgan.commands.cli import main
from hpcgan.errors import HpcganError, InputError, Interrupted, Stopped
from hpcgan.runs import commands as control
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.goodput import time_spent
from hpcgan.runs.lease import attempt_state
from hpcgan.training.requests import StopRequest

needs.tensorflow()

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.runs import checkpoint  # noqa: E402
from hpcgan.training import attempt, requests  # noqa: E402

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Rank 0 looks for commands in every step, and in a pause a hundred times a second."""
    monkeypatch.setattr(requests, "Inbox", functools.partial(control.Inbox, every=0.0))
    monkeypatch.setattr(requests, "PAUSED_S", 0.01)


class At(StopRequest):
    """Does something when it is looked at for the n-th time: in step n, of which a pause has many."""

    def __init__(self, **deeds):
        self.looks, self._deeds = 0, {int(k.removeprefix("look_")): deed for k, deed in deeds.items()}

    @property
    def requested(self):
        self.looks += 1
        return self._deeds[self.looks]() if self.looks in self._deeds else None


def sending(run, name, **rates):
    def deed():
        control.send(run, name, rates)

    return deed


def train(data, run, stop=None, *overrides):
    attempt.train(tiny.config(data, *overrides), run, SerialComm(), stop or StopRequest())


def assert_same_end(ours, theirs):
    ours, theirs = (checkpoint.load_latest(run.checkpoints, pytest.fail) for run in (ours, theirs))
    assert ours.step == theirs.step
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("reference"))
    train(data, run)
    return run


SCHEDULE = (
    "training.schedule.changes="
    "[{step: 5, rates: {generator: 0.01}}, {step: 20, rates: {generator: 3.0e-4, discriminator: 0.02}}]"
)


@pytest.fixture(scope="module")
def scheduled(data, tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("scheduled"))
    train(data, run, None, SCHEDULE)
    return run


def test_a_change_of_the_configuration_has_no_id(data):
    change = tiny.config(data, SCHEDULE).dump()["training"]["schedule"]["changes"][0]
    assert change == {"step": 5, "rates": {"generator": 0.01}}
    with pytest.raises(InputError, match=r"training\.schedule\.changes\.0.*id"):
        tiny.config(data, "training.schedule.changes=[{step: 5, rates: {generator: 0.01}, id: mine}]")


@pytest.mark.parametrize("stops", [[], [5], [9]], ids=str)
def test_rates_that_were_set_are_those_of_a_schedule_to_the_bit(data, scheduled, reference, tmp_path, stops):
    """Also when the training was stopped in the step of the command, or after it."""
    run = RunDirectory(tmp_path / "run")
    first, second = {"generator": 0.01}, {"generator": 3e-4, "discriminator": 0.02}
    deeds = {"look_5": sending(run, "set", **first)}
    if not stops:
        train(data, run, At(**deeds, look_20=sending(run, "set", **second)))
    for step in stops:

        def both():
            control.send(run, "set", first)
            return "SIGTERM"

        deeds = {"look_5": both} if step == 5 else {**deeds, f"look_{step}": lambda: "SIGTERM"}
        with pytest.raises(Interrupted):
            train(data, run, At(**deeds))
        train(data, run, At(**{f"look_{20 - step}": sending(run, "set", **second)}))
    assert_same_end(run, scheduled)
    found = recorded(run.metrics_file, "command")
    assert [(r["step"], r["name"], r["rates"], r["refused"]) for r in found] == [
        (5, "set", first, None),
        (20, "set", second, None),
    ]
    assert [r["learning_rates"] for r in found] == [
        [{"generator": 0.01, "discriminator": 1e-4}],
        [{"generator": 3e-4, "discriminator": 0.02}],
    ]
    assert not list(run.commands.iterdir())
    last = checkpoint.load_latest(reference.checkpoints, pytest.fail).arrays
    ours = checkpoint.load_latest(run.checkpoints, pytest.fail).arrays
    assert any(not np.array_equal(ours[name], last[name]) for name in last)


def test_a_pause_outlives_a_restart_and_changes_nothing(data, reference, tmp_path, monkeypatch, capsys):
    run, beats = RunDirectory(tmp_path / "run"), []
    monkeypatch.setattr(SerialComm, "beat", lambda self, what, may_take=0.0: beats.append(what))
    with pytest.raises(Interrupted):
        train(data, run, At(look_3=sending(run, "pause"), look_13=lambda: "SIGTERM"))
    assert checkpoint.steps(run.checkpoints)[-1] == 3  # the other looks were in the pause
    assert attempt_state(run) == "interrupted"
    assert beats.count("the end of the pause at step 3") == 10  # with each look: no watchdog takes it for a stall
    stop = At(look_7=sending(run, "resume"))
    capsys.readouterr()
    train(data, run, stop)
    assert f"paused by a command, until hpcgan control {run.path} resume\n" in capsys.readouterr().out
    assert stop.looks == 7 + 27
    assert_same_end(run, reference)
    found = recorded(run.metrics_file, "command")
    assert [(r["name"], r["step"], r["paused"]) for r in found] == [("pause", 3, True), ("resume", 3, False)]
    spent, metrics = time_spent(run), recorded(run.metrics_file)
    pause, resume = (r["time"] for r in found)
    end, start = (
        next(r["time"] for r in metrics if r["kind"] == kind and r["attempt"] == n)
        for kind, n in (("end", 1), ("start", 2))
    )
    waited = (end - pause) + (resume - start)
    saved = sum(r["seconds"] for r in metrics if r["kind"] == "checkpoint" and r["step"] == 3)
    assert spent.seconds["paused"] == pytest.approx(waited - saved, abs=saved + 0.05)  # one of them is after the pause


def test_a_stop_is_for_good_until_somebody_starts_it_again(data, reference, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(Stopped, match="stopped by a command at step 4, checkpoint written"):
        train(data, run, At(look_4=sending(run, "stop")))
    assert attempt_state(run) == "stopped"
    assert [r["outcome"] for r in recorded(run.metrics_file, "end")] == ["stopped"]
    train(data, run)
    assert_same_end(run, reference)


def test_a_command_that_was_sent_before_is_obeyed_and_a_checkpoint_is_one(data, reference, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(data, run, At(look_4=lambda: "SIGTERM"))
    sent = control.send(run, "checkpoint")
    assert control.outcome(run, sent) is None
    with pytest.raises(HpcganError, match=rf"does not run \(interrupted\), and obeys when .* withdraw {sent}"):
        control.wait(run, sent, 0.0)
    train(data, run)
    assert control.wait(run, sent, 0.0).step == 5
    assert_same_end(run, reference)
    with pytest.raises(InputError, match=r"the training has ended \(done\); there is nothing to pause"):
        control.send(run, "pause")


def test_a_command_is_obeyed_once_though_the_training_was_killed_before_its_file_was_gone(data, tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "run")

    def killed(self, ids):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(control.Inbox, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            train(data, run, At(look_5=sending(run, "set", generator=0.01)))
    assert len(list(run.commands.iterdir())) == 1
    train(data, run)
    (change,) = checkpoint.load_latest(run.checkpoints, pytest.fail).meta["commanded"]["changes"]
    assert (change["step"], change["rates"]) == (5, {"generator": 0.01})
    assert not list(run.commands.iterdir())


BAD = {
    "0.json": "no JSON",
    "1.json": '{"name": "set", "rates": {"generator": 1e300}}',
    "2.json": '{"name": "explode"}',
    "3.json": "[]",
    "4.json": '{"name": "set", "rates": [1]}',
    "5.json": '{"name": "set", "rates": {"generator": NaN}}',
    "6.json": '{"name": ["set"]}',
    "7.json": '{"name": "pause", "rates": {"generator": 1e-4}}',
    "8.json": '{"name": "set", "rates": {"critic": 1e-4}}',
}


def test_what_is_no_command_is_refused_and_the_training_goes_on(data, reference, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.commands.mkdir(parents=True)
    for name, text in BAD.items():
        (run.commands / name).write_text(text)
    (run.commands / ".half.json.tmp").write_text("being written")
    (run.commands / "9.json").write_bytes(b"\xff")
    train(data, run)
    assert_same_end(run, reference)
    found = recorded(run.metrics_file, "command")
    assert [r["id"] for r in found] == [str(i) for i in range(10)]
    assert all(r["refused"] for r in found)
    assert [p.name for p in run.commands.iterdir()] == [".half.json.tmp"]
    with pytest.raises(InputError, match="a learning rate is above 0 and at most 1"):
        control.wait(run, "1", 0.0)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["absent", "pause"], "absent: not a run directory"),
        (["run", "halt"], "command 'halt': choose one of pause, resume, set, checkpoint, stop"),
        (["run", "set"], "needs a learning rate, e.g. generator=1e-4"),
        (["run", "set", "generator"], "'generator': write it as generator=1e-4"),
        (["run", "set", "generator=fast"], "'generator=fast': write it as generator=1e-4"),
        (["run", "set", "generator=-1"], "set generator=-1.0: a learning rate is above 0 and at most 1"),
        (["run", "set", "critic=1e-4"], "set critic: choose one of generator, discriminator"),
        (["run", "stop", "generator=1e-4"], "command 'stop' takes no learning rates"),
        (["ended", "stop"], "the training has ended (done); there is nothing to stop"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line_and_nothing_is_sent(reference, tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: run\nmethod: gan\n")
    (tmp_path / "ended").symlink_to(reference.path)
    assert main(["control", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run" / "commands").exists()


def test_without_waiting_the_command_is_left_for_the_training(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("name: run\nmethod: gan\n")
    assert main(["control", str(tmp_path), "set", "generator=1e-4", "--wait", "0"]) == 0
    assert "set: sent to" in capsys.readouterr().out
    (file,) = (tmp_path / "commands").iterdir()
    assert json.loads(file.read_text())["rates"] == {"generator": 1e-4}


def test_a_command_that_came_too_late_is_said_at_once_and_taken_away(data, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(data, run, At(look_4=lambda: "SIGTERM"))
    sent = control.send(run, "pause")
    (run.commands / f"{sent}.json").rename(tmp_path / "held")
    train(data, run)
    (tmp_path / "held").rename(run.commands / f"{sent}.json")  # as if written after the last look
    with pytest.raises(HpcganError, match=r"the training has ended \(done\) before it could obey"):
        control.wait(run, sent, 60.0)
    assert list(run.commands.iterdir()) == []


@pytest.fixture
def idle(tmp_path):
    """The directory of a run that is stopped."""
    run = RunDirectory(tmp_path / "my run")
    run.attempts.mkdir(parents=True)
    run.config_file.write_text("name: run\nmethod: gan\n")
    (run.attempts / "0001.json").write_text(json.dumps({"state": "stopped"}))
    return run


def test_a_command_to_a_stopped_run_says_when_it_acts_and_can_be_withdrawn(idle, capsys):
    path = str(idle.path)
    assert main(["control", path, "set", "generator=1e-4"]) == 1
    said = capsys.readouterr().err
    (sent,) = [p.stem for p in idle.commands.glob("*.json")]
    assert "the training does not run (stopped), and obeys when it is started again" in said
    assert f"hpcgan control '{path}' withdraw {sent}" in said
    assert said.count("\n") == 1
    assert main(["control", path, "pause", "--wait", "0"]) == 0
    assert "sent to" in (said := capsys.readouterr().out)
    assert "withdraw" in said
    assert main(["control", path, "waiting"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{sent}  set generator=0.0001  waits"
    assert second.endswith("pause  waits")
    assert main(["control", path, "withdraw", sent]) == 0
    assert capsys.readouterr().out == f"{sent}  set generator=0.0001  withdrawn\n"
    assert main(["control", path, "withdraw", sent]) == 2
    assert f"no command {sent} waits" in capsys.readouterr().err
    assert main(["control", path, "withdraw"]) == 0
    assert not list(idle.commands.glob("*.json"))
    assert main(["control", path, "waiting"]) == 0
    assert "no command waits" in capsys.readouterr().out[-30:]


def test_what_was_obeyed_cannot_be_withdrawn(idle):
    sent = control.send(idle, "checkpoint")
    record = {"kind": "command", "attempt": 1, "step": 7, "id": sent, "name": "checkpoint"}
    idle.metrics_file.write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match="was obeyed at step 7"):
        control.withdraw(idle, [sent])
    assert control.withdraw(idle) == []


def test_ctrl_c_while_waiting_says_that_the_command_stays(idle, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "wait", interrupt)
    assert main(["control", str(idle.path), "pause"]) == 130
    assert "withdraw" in capsys.readouterr().err
    assert len(list(idle.commands.glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["puase"], "pause"), (["withdrawn"], "withdraw"), (["Set"], "set"), (["set", "genrator=1e-4"], "generator")],
)
def test_what_was_meant_by_a_wrong_command(idle, words, meant, capsys):
    assert main(["control", str(idle.path), *words]) == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1e-4", "1.5", "nan", "inf", "1e400", "-inf"])
def test_a_rate_that_a_command_may_not_set_is_none_of_a_configuration_either(idle, rate, capsys):
    assert main(["control", str(idle.path), "set", f"generator={rate}"]) == 2
    assert "above 0 and at most 1" in capsys.readouterr().err
    yaml = rate.replace("inf", ".inf").replace("nan", ".nan")
    for item in (f"generator.learning_rate={yaml}", f"schedule.changes=[{{step: 1, rates: {{generator: {yaml}}}}}]"):
        with pytest.raises(InputError, match=r"training\."):
            tiny.config(idle.path, f"training.{item}")


def test_the_largest_rate_is_one_of_both(idle):
    assert tiny.config(idle.path, "training.generator.learning_rate=1").training.generator.learning_rate == 1
    control.check("set", {"generator": 1.0}, ("generator",))
