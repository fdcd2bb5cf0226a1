"""`hpcgan train` as users start it: several ranks, signals, resume, bad input, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny
import yaml

from hpcgan import records
from hpcgan.training import checkpoint

pytest.importorskip("horovod")

LONG = "training.epochs=400"  # far longer than the test lets it run


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A folder with data and a configuration in it."""
    folder = tmp_path_factory.mktemp("setting")
    tiny.write_data(folder / "data")
    raw = tiny.config(folder / "data").dump()
    raw["scoring"]["every_epochs"] = 0
    raw["training"]["epochs"] = 3
    (folder / "tiny.yaml").write_text(yaml.safe_dump(raw))
    return folder


def start(setting, *args, launcher=(), env=None):
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", "hpcgan", "train", "tiny.yaml", *args],
        cwd=setting,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, timeout=120):
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"no end within {timeout} s:\n{output}")
    return process.returncode, output


def wait_for_step(run: Path, step: int, timeout=90):
    """Until the metrics stream shows that a step is done."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if any(r["step"] >= step for r in records.read(run / "metrics.jsonl", "step")):
            return
        time.sleep(0.05)
    pytest.fail(f"{run} did not reach step {step} in {timeout} s")


def ranks_of(process):
    """The rank processes of a running job, by rank."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            rank = child.environ().get("OMPI_COMM_WORLD_RANK")
            if rank is not None and "hpcgan" in child.cmdline():
                found[int(rank)] = child
        except psutil.Error:
            continue
    return found


def arrays(run: Path):
    return checkpoint.load_latest(run / "checkpoints", pytest.fail).arrays


@pytest.mark.parametrize(
    ("number", "whom"),
    [(signal.SIGINT, "launcher"), (signal.SIGUSR1, 0), (signal.SIGTERM, 1)],
    ids=["INT-launcher", "USR1-rank0", "TERM-rank1"],
)
def test_a_signal_stops_both_ranks_with_a_checkpoint(setting, tmp_path, number, whom):
    run = tmp_path / "run"
    process = start(setting, LONG, "--ranks", "2", "--run", str(run))
    wait_for_step(run, 50)
    if whom == "launcher":
        process.send_signal(number)
    else:
        ranks_of(process)[whom].send_signal(number)
    code, output = finish(process)
    assert code == 75, output
    assert "run the same command to resume" in output
    assert "Traceback" not in output
    (step,) = checkpoint.steps(run / "checkpoints")[-1:]
    assert checkpoint.load_latest(run / "checkpoints", pytest.fail).meta["samples"] == step * 8


def command(setting, run, *words):
    """`hpcgan control`, which has to succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "hpcgan", "control", str(run), *words],
        cwd=setting, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_running_job_is_paused_changed_and_stopped_from_outside(setting, tmp_path):
    run = tmp_path / "run"
    process = start(setting, LONG, "--ranks", "2", "--run", str(run))
    wait_for_step(run, 50)
    assert "pause: obeyed by all ranks at step" in command(setting, run, "pause")
    sizes = []
    for _ in range(2):
        sizes.append((run / "metrics.jsonl").stat().st_size)
        time.sleep(3)
    assert sizes[0] == sizes[1]
    command(setting, run, "set", "generator=1e-5")
    command(setting, run, "resume")
    wait_for_step(run, max(r["step"] for r in records.read(run / "metrics.jsonl")) + 1)
    command(setting, run, "stop")
    code, output = finish(process)
    assert code == 75, output
    assert "Traceback" not in output
    found = records.read(run / "metrics.jsonl", "command")
    assert [r["name"] for r in found] == ["pause", "set", "resume", "stop"]
    assert found[1]["learning_rates"] == [{"generator": 1e-5, "discriminator": 1e-4}] * 2


def test_an_interrupted_run_goes_on_to_the_same_bits(setting, tmp_path):
    run = tmp_path / "run"
    process = start(setting, LONG, "--ranks", "2", "--run", str(run))
    wait_for_step(run, 50)
    process.terminate()
    code, output = finish(process)
    assert code == 75, output
    assert "run the same command to resume" in output
    stopped = checkpoint.steps(run / "checkpoints")[-1]
    more = f"training.epochs={stopped // 7 + 2}"
    for folder, message in ((run, f"resuming at step {stopped}"), (tmp_path / "whole", "")):
        code, output = finish(start(setting, more, "--ranks", "2", "--run", str(folder)))
        assert code == 0, output
        assert message in output
    ours, theirs = arrays(run), arrays(tmp_path / "whole")
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_a_bare_mpirun_trains_the_same_run(setting, tmp_path):
    mpirun = Path(sys.executable).with_name("mpirun")
    launcher = [str(mpirun) if mpirun.exists() else "mpirun", "-np", "2", "--bind-to", "none"]
    if os.geteuid() == 0:
        launcher.append("--allow-run-as-root")
    code, output = finish(start(setting, "--run", str(tmp_path / "bare"), launcher=launcher))
    assert code == 0, output
    code, output = finish(start(setting, "--ranks", "2", "--run", str(tmp_path / "own")))
    assert code == 0, output
    ours, theirs = arrays(tmp_path / "bare"), arrays(tmp_path / "own")
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    attempts = [json.loads(line) for line in (tmp_path / "own" / "provenance.jsonl").read_text().splitlines()]
    assert [(a["ranks"], a["backend"]) for a in attempts] == [(2, "horovod")]


def test_the_default_directory_is_name_and_hash(setting):
    code, output = finish(start(setting, "training.epochs=1"))
    assert code == 0, output
    (run,) = (setting / "runs").iterdir()
    assert run.name.startswith("tiny-")
    assert f"run: runs/{run.name}" in output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["training.epoch=3"], "unknown key 'training.epoch'; did you mean 'epochs'"),
        (["data.path=absent"], "absent/train.h5: no such file"),
        (["training.batch_size=64", "--ranks", "2"], "60 events are fewer than a global batch of 128"),
        (["--ranks", "0"], "--ranks 0: give at least 1"),
        (["model.filters=0"], "model.filters: input should be greater than or equal to 1"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(setting, tmp_path, args, message):
    run = tmp_path / "run"
    code, output = finish(start(setting, *args, "--run", str(run)))
    assert code == 2
    assert message in output
    assert len(output.strip().splitlines()) == 1
    assert not run.exists()


def test_dry_run_prints_the_resolved_configuration(setting):
    code, output = finish(start(setting, "--dry-run", "training.epochs=9"))
    assert code == 0
    assert yaml.safe_load(output)["training"]["epochs"] == 9


def test_killed_ranks_end_the_job_and_the_run_resumes(setting, tmp_path):
    run = tmp_path / "run"
    process = start(setting, LONG, "--ranks", "2", "--run", str(run))
    wait_for_step(run, 50)
    ranks = ranks_of(process)
    ranks[1].kill()
    code, output = finish(process)
    assert code not in (0, 75), output
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in ranks.values())
    before = checkpoint.steps(run / "checkpoints")[-1]
    code, output = finish(start(setting, f"training.epochs={before // 7 + 1}", "--ranks", "2", "--run", str(run)))
    assert code == 0, output
    assert f"resuming at step {before}" in output
