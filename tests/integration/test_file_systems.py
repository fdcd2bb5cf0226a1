"""Every command that writes, on file systems that lack something, or take nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml

HERE = Path(__file__).parent


def hpcgan(*args, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", "hpcgan", *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no C compiler")
    made = tmp_path_factory.mktemp("lacking") / "lacking.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, HERE / "lacking.c", "-ldl"], check=True)
    return made


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """A folder with data and configurations, on an ordinary file system."""
    folder = tmp_path_factory.mktemp("configured")
    raw = tiny.config(tiny.write_data(folder / "data"), "training.epochs=1", "scoring.events=8").dump()
    (folder / "run.yaml").write_text(yaml.safe_dump(raw))
    searched = {**raw, "search": {"training.label_flip": {"uniform": [0.0, 0.1]}}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(searched))
    return folder


@pytest.fixture(scope="module")
def trained(configured):
    done = hpcgan("train", "run.yaml", "--run", "run", cwd=configured)
    assert done.returncode == 0, done.stderr
    return configured / "run"


WRITING = {
    "train": ("train", "run.yaml", "--run", "{out}/run"),
    "generate": ("generate", "{out}/trained", "-n", "8", "--out", "{out}/made.h5"),
    "evaluate": ("evaluate", "{out}/trained", "--samples", "1", "--no-distances"),
    "data": ("data", "cosmo", "--side", "32", "--maps", "5", "--jobs", "1", "--out", "{out}/cosmo"),
    "showers": ("data", "calo", "--particle", "gamma", "--events", "5", "--jobs", "1", "--out", "{out}/showers"),
    "sweep": ("sweep", "sweep.yaml", "--trials", "1", "--concurrency", "1", "--out", "{out}/study"),
}


@pytest.mark.parametrize("command", WRITING)
def test_what_a_file_system_lacks_is_done_without(tmp_path, configured, trained, library, command):
    shutil.copytree(trained, tmp_path / "trained")
    env = {"LD_PRELOAD": str(library), "LACKING_IN": str(tmp_path), "LACKING": "locks,dirsync,links"}
    args = [part.format(out=tmp_path) for part in WRITING[command]]
    done = hpcgan(*args, cwd=configured, env=env)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("hpcgan: warning:")]
    assert len(warnings) == (command in ("train", "generate", "data", "showers")), done.stderr
    assert all("this file system has no locks (No locks available)" in line for line in warnings)
    if command == "train":  # and goes on
        done = hpcgan(*args, "training.epochs=2", cwd=configured, env=env)
        assert done.returncode == 0, done.stderr
        assert "resuming at step 15" in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".tmp", ".part", ".lock", ".beat"))]


def test_a_run_that_may_only_be_read(disk, configured, trained, tmp_path):
    run = disk.path / "run"
    shutil.copytree(trained, run)
    before = sorted(run.rglob("*"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    done = hpcgan("evaluate", run, "--samples", "1", "--no-distances", cwd=configured)
    assert done.returncode == 2
    said = f"{run}/report: cannot write the report: Read-only file system; name another folder with --out"
    assert done.stderr.splitlines() == [f"hpcgan: error: {said}"]
    assert not done.stdout
    for args in (
        ("evaluate", run, "--samples", "1", "--no-distances", "--out", tmp_path / "report"),
        ("generate", run, "-n", "4", "--out", tmp_path / "x.h5"),
        ("jobs", disk.path),
    ):
        done = hpcgan(*args, cwd=configured)
        assert done.returncode == 0, done.stderr
    for args, message in (
        (("train", "run.yaml", "--run", run, "training.epochs=2"), f"{run}: cannot write"),
        (("control", run, "stop"), "the training has ended (done)"),
        (
            ("generate", run, "-n", "4", "--out", run / "x.h5"),
            "x.h5: cannot be written",
        ),
        (("data", "cosmo", "--side", "32", "--maps", "5", "--out", disk.path / "c"), "Read-only file system"),
    ):
        done = hpcgan(*args, cwd=configured)
        assert done.returncode in (1, 2)
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(run.rglob("*")) == before
