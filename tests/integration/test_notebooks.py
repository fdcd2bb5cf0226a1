"""The notebooks, run from top to bottom on data and trainings small enough for tests, and what each cell shows.

That of weak scaling is in `test_scaling_command`, where there is a study.
"""

from __future__ import annotations

import json
import re

import jobs
import needs
import pytest
import tiny
import untrained
import yaml
from books import PRESETS, ROOT, cell, check, executed, shown
from engines import stopped_after
from recorded import recorded

needs.found("nbformat", "nbclient", "ipykernel", "ipywidgets", "horovod", "optuna")

TRIALS = PRESETS["02_sweep"]["trials"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Data, configurations, and a run that is done."""
    folder = jobs.make_setting(tmp_path_factory.mktemp("notebooks"), epochs=3)
    (folder / "configs").mkdir()
    jobs.make_sweep(folder)
    return folder


@pytest.fixture(scope="module")
def demo(setting):
    """A run like that of `make demo`, in small: it has so many events that every cell has something to do."""
    data = tiny.write_data(setting / "events", 2500)
    config = tiny.config(data, "training.epochs=3", "training.batch_size=50", "scoring.events=250")
    (setting / "demo.yaml").write_text(yaml.safe_dump(config.dump()))
    command = jobs.train_command(setting / "runs/demo", ranks=1, config="demo.yaml")
    code, output = jobs.Running(setting, command).finish()
    assert code == 0, output
    return setting / "runs/demo"


def test_every_notebook_has_a_preset():
    assert set(PRESETS) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_a_training(setting, monkeypatch):
    pytest.importorskip("ipyparallel")
    run = setting / "runs/training"
    with stopped_after(run, "resume"):
        book = executed("01_train_interactively", setting, monkeypatch)
    commands = recorded(run / "metrics.jsonl", "command")
    assert [command["name"] for command in commands] == ["pause", "set", "checkpoint", "resume", "stop"]
    assert commands[1]["learning_rates"] == [{"generator": 1e-3, "discriminator": 1e-3}] * 2  # of each rank
    best = recorded(run / "metrics.jsonl", "epoch")[-1]["best"]
    assert f"best: score {best['score']:.2f} in epoch {best['epoch']}" in shown(book, "stream")
    assert "'stopped'" in shown(book, "text/plain")
    check(book, {
        "01": [], "03": ["stdout", "html"], "05": ["widget-view+json"], "07": ["png"], "08": ["plain"], "10": ["html"],
        "12": ["plain"], "13": ["png"], "14": ["stdout", "html"], "16": [],
    })  # fmt: skip
    ((_, ranks),) = cell(book, "code-03")[1:]
    assert ranks.count("<tr>") == 3
    assert "paused" not in cell(book, "code-08")[0][1]
    given = re.findall("<td>(pause|set|checkpoint|resume)</td>", cell(book, "code-10")[0][1])
    assert given == ["pause", "set", "checkpoint", "resume"]  # the bits are compared in `test_cluster`


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
    check(book, {
        "01": [], "03": ["widget-view+json"], "05": ["plain"], "07": ["html"], "09": ["png"], "11": ["stdout"],
        "12": ["png"], "14": ["png"], "16": ["stdout"],
    })  # fmt: skip


def test_an_analysis(setting, demo, monkeypatch):
    book = executed("03_analyse_results", setting, monkeypatch)
    check(book, {
        "01": [], "02": ["stdout"], "04": ["png"], "05": ["html"], "07": ["stdout"], "08": ["html"], "09": ["png"],
        "11": ["markdown", "png"] * 4, "13": ["markdown", "png"] * 2, "15": ["html"], "17": ["html"], "19": ["stdout"],
    })  # fmt: skip
    epochs = recorded(demo / "metrics.jsonl", "epoch")
    best = epochs[-1]["best"]["epoch"]
    assert cell(book, "code-02") == [("stdout", f"done after 3 epochs, the best of which is {best}\n")]
    report = json.loads((demo / "report/report.json").read_text())
    score = report["score"]
    said = cell(book, "code-07")[0][1]
    assert f"score {score['mean']:.2f} +- {score['std']:.2f} at N=500 (2 generated samples)" in said
    assert len(report["band"]["samples"]) == 30
    captions = [text for kind, text in cell(book, "code-11") if kind == "markdown"]
    assert captions[0].startswith("Number of jets in an event.")
    written = [text for kind, text in cell(book, "code-13") if kind == "markdown"]
    assert written == [f"After epoch {n}: score {epochs[n - 1]['score']['total']:.1f}" for n in (1, 3)]
    compared = numbers(cell(book, "code-15")[0][1])
    assert list(compared) == ["best epoch", "last epoch", "best against last"]
    by_size = numbers(cell(book, "code-17")[0][1])
    assert list(by_size) == ["250", "500"]
    assert 0 < by_size["250"] <= by_size["500"]  # a poor generator scores as high as it gets
    assert setting / cell(book, "code-19")[0][1].strip() == demo / "report/report.html"


def test_a_service(setting, monkeypatch):
    needs.found("uvicorn", "starlette", "prometheus_client")
    untrained.make_run(setting / "runs/untrained", tiny.config(setting / "data"))
    book = executed("05_service", setting, monkeypatch)
    check(book, {
        "01": [], "02": ["stdout"], "04": ["html"], "06": ["stdout", "markdown", "png"], "08": ["html"], "10": ["html"],
        "11": ["png"], "13": ["html"], "15": ["stdout"], "17": ["stdout"],
    })  # fmt: skip
    assert cell(book, "code-06")[0][1] == "{'hist': (20, 64, 64)}\n"
    differences = re.findall(r"<td>([^<]+)</td>", cell(book, "code-08")[0][1])
    assert float(differences[0]) + float(differences[1]) < 1e-4 * float(differences[2])
    rates = re.findall(r"<tr>\s*<th>([13])</th>\s*<td>([^<]+)</td>", cell(book, "code-10")[0][1])
    assert [number for number, rate in rates if float(rate) > 0] == ["1", "3"]
    assert float(numbers(cell(book, "code-13")[0][1])['hpcgan_events_total{model="untrained"}']) >= 20 + 1 + 4 + 8 * 4
    refused = cell(book, "code-15")[0][1]
    assert "400: inputs: 1000000 events; this service makes at most 4096 for a request\n" in refused
    assert "takes no conditions" in refused
    assert cell(book, "code-17") == [("stdout", "exit code 0\n")]


def numbers(table):
    """The last number of each row of an HTML table, by the row's name."""
    rows = re.findall(r"<th>([^<]+)</th>\s*<td>([^<]+)</td>", table)
    return {name: float(value) for name, value in rows}
