"""Clusters of engines in tests: their processes, and the trainings on them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

import jobs
import psutil
import pytest
import tiny
import yaml
from recorded import recorded

from hpcgan.runs import checkpoint
from hpcgan.runs import commands as control
from hpcgan.runs.directory import RunDirectory

#: A training that no machine is quick enough to finish before a test has done with it.
ENDLESS = ("training.epochs=100000", "scoring.every_epochs=0")


@contextlib.contextmanager
def stopped_after(run, obeyed):
    """Another process, which has a training stop as soon as it has obeyed a command of that name."""
    given_up = threading.Event()

    def watch():
        while not given_up.wait(0.1):
            if any(command["name"] == obeyed for command in recorded(run / "metrics.jsonl", "command")):
                control.send(RunDirectory(run), "stop", {})
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        given_up.set()
        watcher.join()


def a_little_further(run):
    """As override: an end two epochs (of 7 steps on two ranks) after the one that a training was stopped in."""
    return f"training.epochs={jobs.newest_step(run) // 7 + 2}"


def engines_of(cluster):
    """Processes that a cluster consists of."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(cluster in part for part in process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_until(condition):
    jobs.wait_for(condition)


def last_step(run):
    """Step of the newest checkpoint, which must be whole."""
    return checkpoint.load_latest(run / "checkpoints", pytest.fail).meta["step"]


def assert_same(one, other):
    # Rates that were set on the way are kept beside those of the configuration.
    jobs.assert_same_state(one, other, but=["commanded"])


def command_line_run(data, run, *overrides):
    """The same training in a job of two ranks, without a notebook."""
    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(tiny.config(data, *overrides).dump()))
    command = [sys.executable, "-m", "hpcgan", "train", str(file), "--run", str(run), "--ranks", "2"]
    subprocess.run(command, check=True, timeout=jobs.PATIENCE, stdout=subprocess.DEVNULL)
