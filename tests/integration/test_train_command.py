"""`hpcgan train` as users start it: several ranks, signals, commands, resume, bad input, exit codes.

The tests of interruptions have one run in common, which each goes on with from wherever it stands.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jobs
import numpy as np
import pytest
import yaml
from recorded import recorded

from hpcgan.commands.cli import main
from hpcgan.runs import checkpoint, records

pytest.importorskip("horovod")

ENDLESS = "training.epochs=100000"
STEPS = 7  # of an epoch on two ranks


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A folder with data and a configuration in it, of a training that is not scored."""
    folder = jobs.make_setting(tmp_path_factory.mktemp("setting"))
    raw = yaml.safe_load((folder / "tiny.yaml").read_text())
    raw["scoring"]["every_epochs"] = 0
    (folder / "tiny.yaml").write_text(yaml.safe_dump(raw))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("interrupted") / "run"


def go_on(setting, run):
    """The step that a run stands at, and a training on two ranks that has come further."""
    before = jobs.newest_step(run)
    job = jobs.Running(setting, jobs.train_command(run, ENDLESS))
    jobs.wait_for_step(run, before + 1, job)
    return before, job


def assert_interrupted(job, run, before):
    """It ended in order, having begun where the run stood before."""
    code, output = job.finish()
    assert code == 75, output
    assert "Traceback" not in output
    assert (f"resuming at step {before}" in output) == (before > 0)
    found = checkpoint.load_latest(run / "checkpoints", pytest.fail)
    assert found.step > before
    assert found.meta["samples"] == found.step * 8
    return output


@pytest.mark.faults  # of the next test, and of `test_jobs`
@pytest.mark.parametrize(
    ("number", "whom"),
    [(signal.SIGTERM, 1), (signal.SIGINT, None), (signal.SIGUSR1, 0)],
    ids=["TERM-rank1", "INT-launcher", "USR1-rank0"],
)
def test_a_signal_stops_both_ranks_with_a_checkpoint(setting, run, number, whom):
    before, job = go_on(setting, run)
    (job.process if whom is None else job.ranks()[whom]).send_signal(number)
    assert "run the same command to resume" in assert_interrupted(job, run, before)


def command(capsys, run, *words):
    """`hpcgan control`, which has to succeed."""
    assert main(["control", str(run), *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.faults  # test_notebooks.py and test_cluster.py stop trainings of two ranks by a command
def test_a_command_stops_both_ranks_with_a_checkpoint(setting, run, capsys):
    before, job = go_on(setting, run)
    assert "stop: obeyed by all ranks" in command(capsys, run, "stop")
    assert_interrupted(job, run, before)
    assert recorded(run / "metrics.jsonl", "command")[-1]["name"] == "stop"


def test_a_running_job_is_paused_and_changed_from_outside_and_stopped_by_a_signal_to_one_rank(setting, run, capsys):
    metrics = run / "metrics.jsonl"
    before, job = go_on(setting, run)
    sent = len(recorded(metrics, "command"))
    pause = [sys.executable, "-m", "hpcgan", "control", str(run), "pause"]
    done = subprocess.run(pause, cwd=setting, capture_output=True, text=True, timeout=jobs.PATIENCE, check=True)
    assert "pause: obeyed by all ranks at step" in done.stdout
    epochs = len(recorded(metrics, "epoch"))
    time.sleep(1.5)  # several epochs of a training that goes on
    assert len(recorded(metrics, "epoch")) == epochs
    command(capsys, run, "set", "generator=1e-5")
    command(capsys, run, "resume")
    jobs.wait_for_step(run, jobs.newest_step(run) + 1, job)
    job.ranks()[1].send_signal(signal.SIGTERM)
    assert "run the same command to resume" in assert_interrupted(job, run, before)
    found = recorded(metrics, "command")[sent:]
    assert [r["name"] for r in found] == ["pause", "set", "resume"]
    assert found[1]["learning_rates"] == [{"generator": 1e-5, "discriminator": 1e-4}] * 2


def test_under_a_bare_mpirun_it_goes_on_to_the_bits_of_a_run_that_nothing_has_happened_to(setting, run):
    """That one is in the default directory, its rates are those that were set on the way."""
    if not run.exists():  # none of the tests above was selected
        _, job = go_on(setting, run)
        job.process.terminate()
        job.finish()
    before = jobs.newest_step(run)
    more = f"training.epochs={before // STEPS + 2}"
    mpirun = Path(sys.executable).with_name("mpirun")
    launcher = [str(mpirun) if mpirun.exists() else "mpirun", "-np", "2", "--bind-to", "none"]
    if os.geteuid() == 0:
        launcher.append("--allow-run-as-root")
    bare = [*launcher, sys.executable, "-m", "hpcgan", "train", "tiny.yaml", more, "--run", str(run)]
    code, output = jobs.Running(setting, bare).finish()
    assert code == 0, output
    assert f"resuming at step {before}" in output

    commands = [record for record in recorded(run / "metrics.jsonl", "command") if record["rates"]]
    changes = [{"step": record["step"], "rates": record["rates"]} for record in commands]
    own = [sys.executable, "-m", "hpcgan", "train", "tiny.yaml", more, f"training.schedule.changes={changes}"]
    code, output = jobs.Running(setting, [*own, "--ranks", "2"]).finish()
    assert code == 0, output
    (whole,) = (setting / "runs").iterdir()
    assert whole.name.startswith("tiny-")
    assert f"run: runs/{whole.name}" in output
    (attempt,) = records.read_lines(whole / "provenance.jsonl")
    assert (attempt["ranks"], attempt["backend"]) == (2, "horovod")
    ours, theirs = (checkpoint.load_latest(path / "checkpoints", pytest.fail) for path in (run, whole))
    assert ours.step == theirs.step == (before // STEPS + 2) * STEPS
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["training.epoch=3"], "unknown key 'training.epoch'; did you mean 'epochs'"),
        (["training.batch_size=64", "--ranks", "2"], "60 events are fewer than a global batch of 128"),
        (["model.filters=0"], "model.filters: input should be greater than or equal to 1"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(setting, tmp_path, monkeypatch, capfd, args, message):
    monkeypatch.chdir(setting)
    run = tmp_path / "run"
    assert main(["train", "tiny.yaml", *args, "--run", str(run)]) == 2
    out, err = capfd.readouterr()
    assert message in err
    assert len((out + err).strip().splitlines()) == 1
    assert not run.exists()


def test_the_process_says_the_same(setting, tmp_path):
    job = jobs.Running(setting, jobs.train_command(tmp_path / "run", "data.path=absent"))
    code, output = job.finish()
    assert code == 2
    assert "absent/train.h5: no such file" in output
    assert len(output.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_dry_run_prints_the_resolved_configuration(setting, monkeypatch, capsys):
    monkeypatch.chdir(setting)
    assert main(["train", "tiny.yaml", "--dry-run", "training.epochs=9"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["training"]["epochs"] == 9


@pytest.mark.parametrize("ranks", ["1", "2"])
@pytest.mark.parametrize(
    ("shell", "reason"),
    [("| head -1", "Broken pipe"), (">/dev/full", "No space left on device"), (">&-", "it is closed")],
)
def test_a_training_does_not_die_of_its_progress_lines(setting, tmp_path, shell, reason, ranks):
    words = [sys.executable, "-m", "hpcgan", "train", "tiny.yaml", "--ranks", ranks, "--run", str(tmp_path / "run")]
    command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *words, "training.epochs=2"]
    done = subprocess.run(command, cwd=setting, capture_output=True, text=True, timeout=jobs.PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert f"hpcgan: warning: standard output is gone ({reason}); the training goes on, see" in done.stderr
    assert "Traceback" not in done.stderr
    assert recorded(tmp_path / "run" / "metrics.jsonl", "end")[-1]["outcome"] == "done"


def test_a_terminal_that_goes_away_is_a_request_to_stop(setting, tmp_path):
    run = tmp_path / "run"
    pid, terminal = os.forkpty()
    if pid == 0:
        os.chdir(setting)
        words = ["-m", "hpcgan", "train", "tiny.yaml", "--run", str(run), ENDLESS]
        os.execv(sys.executable, [sys.executable, *words])
    os.set_blocking(terminal, False)
    end = time.monotonic() + jobs.PATIENCE
    while not (run / "metrics.jsonl").exists() or not recorded(run / "metrics.jsonl", "step"):
        assert time.monotonic() < end
        try:
            os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.05)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    assert checkpoint.load_latest(run / "checkpoints", pytest.fail).step > 0
