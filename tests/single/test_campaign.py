"""Runs compared in one page: what it says of runs whose records are written by hand."""

from __future__ import annotations

import json

import pages
import pytest
import tiny
from pages import HOSTILE, Page

from hpcgan.commands import cli
from hpcgan.errors import InputError
from hpcgan.evaluation.campaign import compare_runs
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory


def record(run, *entries):
    with open(run.metrics_file, "w") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def epoch(number, score, time, n=20):
    values = {"losses": {"generator": 2.0 / number, "discriminator": None}, "samples_per_second": 100.0 * number}
    return records.plain(records.Epoch(
        step=15 * number, attempt=1, time=time, epoch=number, samples=60 * number, scoring_seconds=6.0,
        score=records.EpochScore(score, {"jet_pt": score}, n), best=records.Best(2.5, 1), **values,
    ))  # fmt: skip


def make(folder, *overrides, epochs=(), cores=36):
    run = RunDirectory(folder)
    run.create(tiny.config(folder / "data", *overrides))
    if epochs:
        start = {"kind": "start", "attempt": 1, "step": 0, "time": 10.0}
        begun = {"kind": "begun", "attempt": 1, "step": 1, "time": 20.0}
        record(run, start, begun, *epochs)
        run.provenance_file.write_text(json.dumps({"attempt": 1, "born": 0.0, "cores": cores}) + "\n")
    return run


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    first = make(folder / "first", epochs=[epoch(1, 2.5, 60.0), epoch(2, 3.0, 100.0)])
    score = {"score": {"mean": 2.75, "std": 0.25, "n": 20, "parts": {}}}
    (first.report / "report.json").write_text(json.dumps(score))
    second = make(folder / HOSTILE.replace("/", " "), "model.filters=3", epochs=[epoch(1, 2.5, 50.0, n=30)], cores=72)
    new = make(folder / "new", "training.epochs=7")
    return compare_runs([run.path for run in (first, second, new)], folder / "out")


def test_scores_progress_and_cost_of_each_run(report):
    first, second, new = report.data["runs"]
    assert (first["label"], first["epoch"], first["epochs"], first["samples"]) == ("first", 2, 2, 120)
    assert (first["best"], first["criterion"], first["score_n"]) == ({"score": 2.5, "epoch": 1}, "score", 20)
    assert first["test"] == {"mean": 2.75, "std": 0.25, "n": 20}
    assert first["samples_per_second"] == 150.0
    assert first["time"]["core_hours"] == pytest.approx(1.0)  # 36 cores for 100 s
    assert second["time"]["core_hours"] == pytest.approx(1.0)  # 72 cores for 50 s
    assert first["time"]["goodput"] == pytest.approx((100 - 20 - 12) / 100)
    assert (new["state"], new["epoch"], new["best"], new["test"], new["time"]) == ("not started", 0, None, None, None)


def test_what_differs_in_the_configurations(report):
    rows = {row["key"]: row["values"] for row in report.data["differences"]}
    assert rows["model.filters"] == ["2", "3", "2"]
    assert rows["training.epochs"] == ["2", "2", "7"]
    assert set(rows) == {"model.filters", "training.epochs", "data.path"}


def test_what_may_not_be_compared_is_said(report):
    assert report.data["notices"] == ["Scores at different N (20, 30): compare only those at the same N."]


def test_the_page_shows_the_numbers_of_the_json_and_needs_nothing_else(report):
    text = report.html.read_text(encoding="utf-8")
    page = Page(text)
    pages.check_numbers(page, json.loads(report.json.read_text()))
    assert page.figures == ["deciding_score", "loss_generator", "loss_discriminator", "time"]
    assert "<script" not in text
    assert all(link.startswith("data:") for link in page.links)
    assert {figure["name"] for figure in report.data["figures"]} == set(page.figures)


def test_the_command_takes_a_folder_of_runs_and_prints_a_line_a_run(tmp_path, capsys):
    make(tmp_path / "runs" / "b", epochs=[epoch(1, 2.5, 60.0)])
    make(tmp_path / "runs" / "a")
    assert cli.main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a: not started, epoch 0 of 2, no score"
    assert lines[1].startswith("b: ")
    assert lines[1].endswith("epoch 1 of 2, best score 2.50 in epoch 1, 0.6 core-hours, goodput 57%")
    assert lines[2] == f"report: {tmp_path / 'out' / 'runs.html'}"


@pytest.mark.parametrize(
    ("names", "message"),
    [(["absent"], "absent: not a run directory"), (["empty"], "is neither a run nor a folder of runs"),
     (["run", "run"], "run: is named twice")],
)  # fmt: skip
def test_what_is_no_run_is_said_in_one_line(tmp_path, capsys, names, message):
    make(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    command = ["report", *(str(tmp_path / name) for name in names), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_of_one_name_are_known_by_their_paths(tmp_path):
    runs = [make(tmp_path / place / "run").path for place in ("here", "there")]
    report = compare_runs(runs, tmp_path / "out")
    assert [row["label"] for row in report.data["runs"]] == [str(path) for path in runs]
    with pytest.raises(InputError, match="named twice"):
        compare_runs([runs[0], tmp_path / "there" / ".." / "here" / "run"], tmp_path / "out")
