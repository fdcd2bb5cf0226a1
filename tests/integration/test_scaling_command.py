"""`hpcgan scaling` as users start it: a real study on one and two ranks, resumed, with a point that fails."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import jobs
import pytest
import tiny
from books import check, executed, shown

pytest.importorskip("horovod")

ROOT = Path(__file__).resolve().parents[2]


def scaling(folder, *args):
    command = [sys.executable, "-m", "hpcgan", "scaling", *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=jobs.PATIENCE)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def study_of(folder, *args):
    settings = ("--mode", "strong", "--repeats", "1", "--steps", "20", "--warm-up", "3", "--synthetic-data")
    return scaling(folder, "tiny.yaml", *settings, "--out", "study", *args)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study of a tiny training on one and two ranks, with a gradient penalty now and then."""
    made = tmp_path_factory.mktemp("scaling")
    config = tiny.config("absent", "training.r1={weight: 0.1, every: 5}")
    (made / "tiny.yaml").write_text(config.to_yaml())
    done = study_of(made, "--ranks", "1,2")
    assert done.returncode == 0, done.stderr
    (made / "stdout").write_text(done.stdout)
    return made


def points(folder):
    return json.loads((folder / "study" / "study.json").read_text())["points"]


def test_the_table_is_that_of_the_files(folder):
    one, two = points(folder)
    assert [(p["ranks"], p["comm"], p["backend"], p["batch_size"]) for p in (one, two)] == [
        (1, "auto", "serial", 4),
        (2, "auto", "horovod", 2),
    ]
    assert one["efficiency"] == {"value": 1.0, "error": 0.0}
    assert two["efficiency"]["value"] == pytest.approx(two["rate"]["value"] / (2 * one["rate"]["value"]))
    assert two["efficiency"]["value"] > 0.0  # how large depends on what else the machine does
    table = (folder / "stdout").read_text()
    assert table.startswith("tiny: strong scaling, 4 samples over all ranks, ")
    assert f"{two['efficiency']['value']:.3f}" in table
    lines = list(csv.DictReader((folder / "study" / "points.csv").read_text().splitlines()))
    assert [line["ranks"] for line in lines] == ["1", "2"]
    for name in ("scaling.png", "report.html"):
        assert (folder / "study" / name).stat().st_size > 1000


def test_each_rank_has_times_of_its_own_for_every_step(folder):
    measured = json.loads((folder / "study" / "points" / "auto-2-0.json").read_text())["ranks_measured"]
    assert [rank["rank"] for rank in measured] == [0, 1]
    for rank in measured:
        for kind in ("real", "local"):
            assert [len(block["step_s"]) for block in rank["blocks"][kind]] == [10, 10]
            for block in rank["blocks"][kind]:
                assert all(t > 0 for t in block["step_s"])
                total = sum(block["step_s"]) + sum(block["wait_s"])
                assert total <= block["seconds"] + 1e-5
                assert total == pytest.approx(block["seconds"], rel=0.2)
    assert measured[0]["blocks"]["real"][0]["step_s"] != measured[1]["blocks"]["real"][0]["step_s"]
    # Ranks begin together and end in a collective: their clocks agree on a block's length.
    lengths = [sum(block["seconds"] for block in rank["blocks"]["real"]) for rank in measured]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.2)


def test_the_parts_add_up(folder):
    for point in points(folder):
        parts = {name: value["value"] for name, value in point["parts"].items()}
        step = parts.pop("step")
        assert sum(parts.values()) == pytest.approx(step)
        assert parts["compute"] > 0
        assert parts["imbalance"] >= 0
        assert 0 <= parts["input"] < step


def test_bare_collectives_were_timed_and_the_model_takes_them(folder):
    measured = json.loads((folder / "study" / "allreduce" / "auto-2.json").read_text())["ranks_measured"]
    assert sorted(map(int, measured[0]["times_s"])) == [1024 * 4**k for k in range(9)]
    assert min(measured[1]["times_s"][str(64 << 20)]) > min(measured[1]["times_s"]["1024"])
    done = scaling(folder, "model", "study", "--nodes", "1..4", "--interconnect", "measured")
    assert done.returncode == 0, done.stderr
    model = json.loads((folder / "study" / "model-measured.json").read_text())
    assert model["parameters"]["beta_s_per_byte"] > 0
    assert (folder / "study" / "model-measured.png").is_file()


def test_a_notebook_shows_a_study_that_is_measured(folder, monkeypatch):
    for name in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(name)
    kept = sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "study" / "points").iterdir())
    book = executed("04_weak_scaling", folder, monkeypatch)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "study" / "points").iterdir()) == kept
    (two,) = (point for point in points(folder) if point["ranks"] == 2)
    (table,) = shown(book, "text/html")
    assert f"{two['efficiency']['value']:.3f}".rstrip("0") in table
    said = shown(book, "stream")
    assert "2 of 2 points are measured already" in said
    assert "A model, not a measurement." in said
    assert str(folder / "study" / "report.html") in said
    check(book, {
        "01": [], "02": ["stdout"], "04": ["html"], "06": ["png"], "08": ["stdout", "png"], "10": ["stdout"],
    })  # fmt: skip


def test_a_backend_that_cannot_start_is_a_failed_point_and_the_rest_is_not_measured_again(folder):
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "study" / "points").iterdir()}
    done = study_of(folder, "--ranks", "2", "--comm", "auto,serial")
    assert done.returncode == 1
    assert "1 of 2 points are measured already" in done.stderr
    reason = "comm.backend: serial, but mpirun started 2 ranks; use auto, or start one process"
    assert f"failed: 2 ranks (serial): {reason}" in done.stdout
    assert [p["ranks"] for p in points(folder)] == [1, 2]
    assert reason in (folder / "study" / "report.html").read_text()
    for name, time in kept.items():
        assert (folder / "study" / "points" / name).stat().st_mtime_ns == time
    assert not (folder / "study" / "work").exists()


def test_another_configuration_or_setting_does_not_go_into_the_same_folder(folder):
    for args, message in (
        (("model.filters=3",), "study: holds a study of another configuration"),
        (("--steps", "30"), "study: holds a study with other settings (steps 20 there, 30 now)"),
    ):
        done = study_of(folder, "--ranks", "1", *args)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_study_that_is_being_measured_is_left_alone(folder):
    from hpcgan.runs.directory import RunDirectory
    from hpcgan.runs.lease import Lease

    before = sorted(path.name for path in (folder / "study" / "points").iterdir())
    lease = Lease(RunDirectory(folder / "study"))
    try:
        done = study_of(folder, "--ranks", "1,2,4")
    finally:
        lease.release("done")
    assert done.returncode == 2
    assert "is at work in it" in done.stderr
    assert done.stderr.count("hpcgan: error") == 1
    assert sorted(path.name for path in (folder / "study" / "points").iterdir()) == before
