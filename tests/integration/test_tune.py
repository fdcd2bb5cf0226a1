"""`hpcgan doctor --tune`: real jobs measured, and what later jobs make of what was found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

pytest.importorskip("horovod")

from hpcgan.launch import tuned
from hpcgan.launch.mpirun import find_mpirun
from hpcgan.launch.topology import available_cores
from hpcgan.launch.tuned import Tuned
from hpcgan.scaling import tune

ROOT = Path(__file__).resolve().parents[2]


def doctor(folder, *args, **env):
    command = [sys.executable, "-m", "hpcgan", "doctor", *args]
    full = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(command, cwd=folder, env=full, capture_output=True, text=True, timeout=600)


def test_a_candidate_is_a_real_job_with_its_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "STEPS", 10)
    monkeypatch.setattr(tune, "WARM_UP", 2)
    seen = []
    launch = tune.launch

    def watched(argv, ranks, **options):
        seen.append(tuned.load(options["env"], name))
        return launch(argv, ranks, **options)

    monkeypatch.setattr(tune, "launch", watched)
    launcher, cores = find_mpirun(), available_cores()
    name = tuned.machine(cores, launcher.flavour)
    measure = tune.Trial(tiny.config("absent"), launcher, tmp_path, cores)
    settings = Tuned({"HOROVOD_CYCLE_TIME": "2"}, "core")
    assert measure(tune.Candidate("x", 2, 1, settings)) > 0
    assert seen == [settings]
    assert not (tmp_path / "work").exists()


def test_bad_input_is_one_line_and_nothing_is_measured(tmp_path):
    for args, env, said in (
        (["--rounds", "1"], {"HPCGAN_TUNED": "t.json"}, "--rounds 1: one measurement has no error"),
        ([], {"HPCGAN_TUNED": "off"}, "HPCGAN_TUNED=off: name a file in it, or unset it"),
        (["--config", "nothing.yaml"], {"HPCGAN_TUNED": "t.json"}, "nothing.yaml"),
    ):
        done = doctor(tmp_path, "--tune", *args, **env)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "t.json").write_text("{}")
    done = doctor(tmp_path, "--tune", HPCGAN_TUNED="t.json")
    assert done.returncode == 2
    assert "t.json: not written by this version of 'hpcgan doctor --tune'" in done.stderr
    assert (tmp_path / "t.json").read_text() == "{}"
