"""The templates of `slurm/` as users submit them, on a real Slurm of four nodes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jobs
import pytest
import yaml
from queued import read, wait_for_job

pytest.importorskip("horovod")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def setting(outside):
    return jobs.make_setting(outside / "templates")


@pytest.fixture
def clone(outside, setting, request):
    """A folder like a clone with an environment, in which the configuration is small: the templates work from it."""
    folder = outside / f"clone-{request.node.name}"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, command in {
        "hpcgan": f'{sys.executable} -m hpcgan "$@"',
        "python": f'{sys.executable} "$@"',
        "ipcontroller": f'{sys.executable} -m ipyparallel.controller "$@"',
        "ipengine": f'{sys.executable} -m ipyparallel.engine "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (programs / name).chmod(0o755)
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    (folder / "configs").mkdir()
    raw = yaml.safe_load((ROOT / "configs" / "rpv.yaml").read_text())
    raw["training"].update(epochs=1, batch_size=4)
    (folder / "configs" / "rpv.yaml").write_text(yaml.safe_dump(raw))
    return folder


def sbatch(cluster, clone, template, *options, **settings):
    """Submit a template from the clone, with other values for some of the settings at its top."""
    script = clone / "slurm" / template
    text = script.read_text()
    for name, value in settings.items():
        text, found = re.subn(rf"^{name}=(\([^)]*\)|\S+)", f"{name}={value}", text, flags=re.MULTILINE)
        assert found == 1, name
    script.write_text(text)
    env = {**cluster.env, "PYTHONPATH": str(ROOT)}
    command = ["sbatch", "--parsable", *options, f"slurm/{template}"]
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_template_generates_its_data_and_trains(clean, clone):
    number = sbatch(clean, clone, "train_rpv.sh", EVENTS=100, GLOBAL_BATCH=16)
    shown = wait_for_job(clean, number, 240)
    log = read(clone / f"train_rpv-{number}.out")
    assert shown["JobState"] == "COMPLETED", log
    assert "4 ranks (horovod)" in log
    assert (clone / "data" / "rpv" / "test.h5").is_file()
    (run,) = (clone / "runs").iterdir()
    assert jobs.newest_step(run) == 3


def test_the_template_of_arrays_trains_a_line_an_element(clean, clone, setting):
    (clone / "slurm" / "trials.txt").write_text("# a comment\nmodel.filters=2\nmodel.filters=3 training.batch_size=6\n")
    number = sbatch(
        clean, clone, "sweep_array.sh", "--array=1-3", "--ntasks-per-node=1", DATA=setting / "data",
        CONFIG=setting / "tiny.yaml",
    )  # fmt: skip
    for element, end in ((1, "COMPLETED"), (2, "COMPLETED"), (3, "FAILED")):
        shown = wait_for_job(clean, f"{number}_{element}", 240)
        assert shown["JobState"] == end, read(clone / f"sweep-{number}_{element}.out")
    assert "trials.txt has no line 3: submit with --array=1-N" in read(clone / f"sweep-{number}_3.out")
    found = {p.name: yaml.safe_load((p / "config.yaml").read_text()) for p in (clone / "runs" / "sweep").iterdir()}
    assert {k: (c["model"]["filters"], c["training"]["batch_size"]) for k, c in found.items()} == {
        "1": (2, 4), "2": (3, 6),
    }  # fmt: skip


def test_the_template_of_scaling_prints_a_table(clean, clone, setting):
    number = sbatch(
        clean, clone, "scaling.sh", RANKS="(1 2)", STEPS=20, REPEATS=1, DATA=setting / "data",
        CONFIG=setting / "tiny.yaml",
    )  # fmt: skip
    shown = wait_for_job(clean, number, 240)
    log = read(clone / f"scaling-{number}.out")
    assert shown["JobState"] == "COMPLETED", log
    lines = [line.split() for line in log.splitlines()]
    assert ["ranks", "backend", "samples/s", "efficiency"] in [line[:4] for line in lines], log
    first, second = (next(line for line in lines if line[:2] == [ranks, "auto"]) for ranks in ("1", "2"))
    assert first[4] == "1.000"
    assert 0.05 < float(second[4]) < 3.0
    assert float(second[4]) == pytest.approx(float(second[3]) / float(first[3]) / 2, abs=0.02)
    (study,) = (clone / "runs").iterdir()
    assert (study / "report.html").is_file()
    (two,) = [p for p in json.loads((study / "study.json").read_text())["points"] if p["ranks"] == 2]
    assert two["parts"]["step"]["value"] > 0


def test_the_template_of_engines_gives_one_mpi_world(clean, clone):
    ipyparallel = pytest.importorskip("ipyparallel")
    number = sbatch(clean, clone, "ipyparallel.sh")
    log = clone / f"ipyparallel-{number}.out"
    file = clone / "runs" / f"ipython-{number}" / "security" / "ipcontroller-client.json"
    jobs.wait_for(file.is_file, 90, lambda: read(log))
    assert file.stat().st_mode & 0o077 == 0  # it holds a key
    with ipyparallel.Client(connection_info=str(file), timeout=60) as client:
        jobs.wait_for(lambda: len(client) == 4, 90, lambda: read(log))

        view = client[:]
        code = "from mpi4py.MPI import COMM_WORLD as w; found = w.rank, w.size, w.allreduce(w.rank)"
        view.execute(code, block=True)
        assert sorted(view["found"]) == [(rank, 4, 6) for rank in range(4)]
    subprocess.run(["scancel", number], env=clean.env, check=True, timeout=30)
    wait_for_job(clean, number, 60)
