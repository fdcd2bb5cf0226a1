"""Clusters of engines in tests: their processes, and the trainings on them."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import tiny
import yaml

from hpcgan.training import checkpoint


def engines_of(cluster):
    """Processes that a cluster consists of."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(cluster in part for part in process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_until(condition, timeout=60.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def last_checkpoint(run):
    (arrays, meta) = (found := checkpoint.load_latest(run / "checkpoints", pytest.fail)).arrays, found.meta
    return arrays, meta


def assert_same(one, other):
    (a, meta_a), (b, meta_b) = last_checkpoint(one), last_checkpoint(other)
    # Rates that were set on the way are kept beside those of the configuration.
    assert {**meta_a, "changes": None} == {**meta_b, "changes": None}
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def command_line_run(data, run, *overrides):
    """The same training in a job of two ranks, without a notebook."""
    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(tiny.config(data, *overrides).dump()))
    command = [sys.executable, "-m", "hpcgan", "train", str(file), "--run", str(run), "--ranks", "2"]
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
