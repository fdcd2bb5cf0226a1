"""Jobs of the tests in the queue of their Slurm: submitted, looked at, waited for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jobs

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


def submit(cluster, setting, run, *args, launcher="srun", **env):
    """`hpcgan submit` of the setting's configuration, with a mark in the environment of the job."""
    command = [sys.executable, "-m", "hpcgan", "submit", "tiny.yaml", "--run", str(run), *args]
    return jobs.Running(setting, command, {**cluster.env, "HPCGAN_LAUNCHER": launcher, **env})


def show(cluster, number):
    done = subprocess.run(
        ["scontrol", "show", "job", "--oneliner", number], env=cluster.env, capture_output=True, text=True, timeout=30
    )
    return dict(part.split("=", 1) for part in done.stdout.split() if "=" in part)


def wait_for_job(cluster, number, seconds, states=ENDED):
    """Until a job is in one of the states; what scontrol shows of it then."""
    seen = {}

    def there():
        seen.update(show(cluster, number))
        return seen.get("JobState") in states

    jobs.wait_for(there, seconds, lambda: f"{seen}\n{log_of(seen)}")
    return dict(seen)


def log_of(shown):
    path = Path(shown.get("StdOut", "/nonexistent"))
    return path.read_text(errors="replace")[-6000:] if path.is_file() else "(no log)"


def read(path):
    return path.read_text(errors="replace") if path.is_file() else ""
