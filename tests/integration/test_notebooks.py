"""The notebooks, run from top to bottom on data and trainings small enough for tests.

That of weak scaling is in `test_scaling_command`, where there is a study.
"""

from __future__ import annotations

import json

import jobs
import needs
import pytest
from books import PRESETS, ROOT, executed, shown
from engines import stopped_after

from hpcgan import records

needs.found("nbformat", "nbclient", "ipykernel", "ipywidgets", "horovod", "optuna")

TRIALS = PRESETS["02_sweep"]["trials"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Data, configurations, and a run that is done."""
    folder = jobs.make_setting(tmp_path_factory.mktemp("notebooks"), epochs=3)
    (folder / "configs").mkdir()
    jobs.make_sweep(folder)
    code, output = jobs.Running(folder, jobs.train_command(folder / "runs/demo", ranks=1)).finish()
    assert code == 0, output
    return folder


def test_every_notebook_has_a_preset():
    assert set(PRESETS) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_a_training(setting, monkeypatch):
    pytest.importorskip("ipyparallel")
    run = setting / "runs/training"
    with stopped_after(run, "resume"):
        book = executed("01_train_interactively", setting, monkeypatch)
    commands = records.read(run / "metrics.jsonl", "command")
    assert [command["name"] for command in commands] == ["pause", "set", "checkpoint", "resume", "stop"]
    assert commands[1]["learning_rates"] == [{"generator": 1e-3, "discriminator": 1e-3}] * 2  # of each rank
    best = records.read(run / "metrics.jsonl", "epoch")[-1]["best"]
    assert f"best: score {best['score']:.2f} in epoch {best['epoch']}" in shown(book, "stream")
    assert "'stopped'" in shown(book, "text/plain")
    assert len(shown(book, "image/png")) == 2  # samples, and the curves; the bits are compared in `test_cluster`


def test_a_sweep(setting, monkeypatch):
    book = executed("02_sweep", setting, monkeypatch)
    study = setting / "runs/study"
    results = [json.loads((study / f"trials/{n:04d}/result.json").read_text()) for n in range(TRIALS)]
    assert [result["state"] for result in results] == ["complete"] * TRIALS
    (table,) = shown(book, "text/html")
    assert table.count("<td>complete</td>") == TRIALS
    best = min(results, key=lambda result: result["score"])
    said = shown(book, "stream")
    assert f"trial {best['number']}: score {best['score']:.2f} in epoch {best['epoch']}" in said
    assert str(study / "report/report.html") in said
    assert (study / "report/report.html").is_file()
    assert "'done'" in shown(book, "text/plain")
    assert len(shown(book, "image/png")) == 3  # the sweep, the best training, its samples


def test_an_analysis(setting, monkeypatch):
    book = executed("03_analyse_results", setting, monkeypatch)
    epochs = records.read(setting / "runs/demo/metrics.jsonl", "epoch")
    said = shown(book, "stream")
    assert "tensorflow" not in said
    assert f"done after 3 epochs, the best of which is {epochs[-1]['best']['epoch']}" in said
    report = json.loads((setting / "runs/demo/report/report.json").read_text())
    score = report["score"]
    assert f"score {score['mean']:.2f} +- {score['std']:.2f} at N=20 (2 generated samples)" in said
    assert len(report["band"]["samples"]) == 30
    written = " ".join(shown(book, "text/markdown"))
    assert f"After epoch 1: score {epochs[0]['score']['total']:.1f}" in written
    assert "Number of jets in an event." in written
    # The training, the null band, four distributions, samples of two epochs.
    assert len(shown(book, "image/png")) == 8
    assert "<th>best against last</th>" in " ".join(shown(book, "text/html"))
