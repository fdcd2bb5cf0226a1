"""Status, report and best of a study that was never trained."""

import csv
import io
import itertools
import json
import re
import shutil

import fake_sweeps
import pages
import pytest
import tiny
import yaml
from rich.console import Console

from hpcgan import config as configuration
from hpcgan.config import SweepSection
from hpcgan.errors import InputError
from hpcgan.problems.detector_images.figures import ImageFigures
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.runs.lease import Lease
from hpcgan.sweep import figures, report, views
from hpcgan.sweep.statistics import ranking
from hpcgan.sweep.table import read_table

TRIALS = 14


def whole_study(folder):
    """Fourteen trials of which two failed and one was pruned; two are repeated, the second best turns out better."""
    study = fake_sweeps.study_in(folder, pruner="median")
    for number in range(TRIALS):
        if number in (4, 9):
            reason = f"loss or gradients became non-finite at step {number} on rank 0"
            fake_sweeps.finish(study, number, None, state="failed", reason=reason)
        elif number == 6:
            reason = "median pruning after epoch 2, best score 90.00"
            fake_sweeps.finish(study, number, 90.0, state="pruned", reason=reason, curve=[120.0, 90.0])
        else:
            fake_sweeps.finish(study, number, 10.0 + number)
    for i, score in enumerate((20.0, 24.0, 22.0)):
        fake_sweeps.finish(study, TRIALS + i, score, fake_sweeps.params(0), repeat_of=0)
    for i, score in enumerate((15.0, 13.0, 14.0)):
        test = (16.0 + i, 0.5)
        fake_sweeps.finish(study, TRIALS + 3 + i, score, fake_sweeps.params(1), repeat_of=1, test=test)
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    made = whole_study(folder)
    problem = RpvProblem(RpvModel())
    with problem.writer(made.trial(1).samples / "epoch-0003.h5", 9, {"epoch": 3}) as append:
        append({"hist": tiny.images(9)})
    return made


@pytest.fixture(scope="module")
def files(study):
    return {path.name: path for path in report.write(read_table(study.path), shuffles=20)}


def test_the_files_of_a_report(study, files):
    figures = ["repeats", "parameters", "parallel", "importance", "curves", "samples"]
    assert list(files) == ["trials.csv", "sweep.json", *(f"{name}.png" for name in figures), "report.html"]
    assert all(path.parent == study.path / "report" for path in files.values())
    page = pages.Page(files["report.html"].read_text())
    assert page.figures == figures
    pages.check_self_contained(page, files["report.html"].read_text())
    assert all(files[f"{name}.png"].read_bytes().startswith(b"\x89PNG") for name in figures)


def test_numbers_of_the_page_are_those_of_the_json(files):
    page = pages.Page(files["report.html"].read_text())
    data = json.loads(files["sweep.json"].read_text(), parse_constant=pytest.fail)
    pages.check_numbers(page, data)
    keys = {key for key, _, _ in page.data}
    assert {"ranking.0.repeats.mean", "ranking.0.repeats.error", "ranking.0.test.mean", "importance.trials"} <= keys
    assert {f"trials.{i}.attempts" for i in range(20)} <= keys


def test_texts_of_a_report_are_no_markup(files):
    pages.check_escaped(lambda data: report.page(data, []), json.loads(files["sweep.json"].read_text()))


def test_what_the_json_holds(files):
    data = json.loads(files["sweep.json"].read_text())
    assert (data["schema"], data["schema_version"]) == ("hpcgan.sweep", 1)
    assert (data["name"], data["sampler"], data["pruner"], data["space"]) == (
        "tiny sweep", "random", "median", fake_sweeps.SPACE,
    )  # fmt: skip
    assert data["config"]["problem"] == "rpv"
    assert data["search"] == {
        "complete": 11, "pruned": 1, "failed": 2, "running": 0, "queued": 0, "lost": 0, "broken": 0, "total": 14,
    }  # fmt: skip
    assert data["repeats"]["total"] == data["repeats"]["complete"] == 6
    first, second, third = data["ranking"][:3]
    assert (first["number"], first["repeats"]["mean"], first["repeats"]["n"], first["score"]) == (1, 14.0, 3, 11.0)
    assert first["repeats"]["error"] == pytest.approx(1 / 3**0.5)
    assert (first["test"]["mean"], first["test"]["n"]) == (17.0, 3)
    assert (second["number"], second["repeats"]["mean"], second["tied"]) == (0, 22.0, False)
    assert (third["number"], third["repeats"], third["score"]) == (2, None, 12.0)
    assert [t["number"] for t in data["trials"]] == list(range(20))
    assert data["trials"][1]["curve"] == [[1, 44.0], [2, 22.0], [3, 11.0], [4, 16.5]]
    assert data["seconds"] == 1200.0
    assert data["importance"]["trials"] == 11
    assert data["reasons"] == [
        {"state": "failed", "reason": "loss or gradients became non-finite at step 4 on rank 0", "trials": [4, 9]},
        {"state": "pruned", "reason": "median pruning after epoch 2, best score 90.00", "trials": [6]},
    ]
    assert data["problems"] == []


def test_what_the_csv_holds(files):
    lines = list(csv.DictReader(io.StringIO(files["trials.csv"].read_text())))
    assert [line["number"] for line in lines] == [str(n) for n in range(20)]
    assert list(lines[0]) == [
        "number", "state", "repeat_of", "seed", *(f"params.{key}" for key in fake_sweeps.SPACE),
        "score", "epoch", "epochs", "wanted", "attempts", "seconds", "test_score", "test_spread", "reason",
    ]  # fmt: skip
    assert (
        float(lines[5]["params.training.generator.learning_rate"])
        == fake_sweeps.params(5)["training.generator.learning_rate"]
    )
    assert (lines[5]["score"], lines[5]["epoch"], lines[5]["seconds"], lines[5]["repeat_of"]) == (
        "15.0", "3", "60.0", "",
    )  # fmt: skip
    assert (lines[4]["state"], lines[4]["score"]) == ("failed", "")
    assert lines[4]["reason"].endswith("at step 4 on rank 0")
    assert (lines[17]["repeat_of"], lines[17]["test_score"]) == ("1", "16.0")


def test_the_page_says_what_matters(files):
    text = " ".join(re.sub(r"<[^>]+>", "", files["report.html"].read_text()).split())
    for sentence in (
        "Trial 1 leads with 14.00 ± 0.58, the mean of 3 repetitions with fresh seeds. The score that selected it was "
        "11.00. A single best of many (11 here) is biased low",
        "better than the other repeated trials beyond the spread between seeds",
        "On test events, which selected nothing, it scores 17.00 ± 0.58 (3 seeds).",
        "Of 14 trials that ended, 2 (14%) failed and 1 (7%) was pruned; the reasons are below.",
        "It rests on 11 complete trials of the search, of which the best 5 are compared with all.",
        "Real events are not shown",
        "log-uniform 1e-05 … 0.01",
    ):
        assert sentence in text


def test_the_same_study_gives_the_same_csv(study, files):
    assert report.to_csv(read_table(study.path)) == files["trials.csv"].read_text()


def test_real_events_are_beside_the_generated_ones_where_the_data_are(study, tmp_path, monkeypatch):
    copy = shutil.copytree(study.path, tmp_path / "copy")
    file = copy / "trials" / "0001" / "config.yaml"
    plain = yaml.safe_load(file.read_text())
    plain["data"]["path"] = str(tiny.write_data(tmp_path / "data", 60))
    file.write_text(yaml.safe_dump(plain))
    seen = []
    monkeypatch.setattr(
        ImageFigures, "singles", lambda self, real, fake: seen.append((len(real["hist"]), len(fake["hist"])))
    )
    report.build(read_table(copy), shuffles=2)
    assert seen == [(9, 9)]


def test_broken_files_are_said_in_the_report_and_the_rest_counts(study, tmp_path):
    copy = shutil.copytree(study.path, tmp_path / "copy")
    (copy / "trials" / "0003" / "result.json").write_text("{ torn")
    (copy / "trials" / "0001" / "samples" / "epoch-0003.h5").write_text("no HDF5")
    (copy / "config.yaml").write_text("a: .nan")
    files = {path.name: path for path in report.write(read_table(copy), shuffles=2)}
    data = json.loads(files["sweep.json"].read_text())
    assert (data["search"]["broken"], data["search"]["complete"], len(data["problems"])) == (1, 10, 3)
    page = files["report.html"].read_text()
    for name in ("0003/result.json", "epoch-0003.h5", "copy/config.yaml"):
        assert sum(name in problem for problem in data["problems"]) == 1
        assert name in page
    assert "samples.png" not in files


def test_a_study_without_repeats_says_that_its_best_is_biased(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    for number in range(3):
        fake_sweeps.finish(study, number, 10.0 + number, test=(14.0, 0.25) if number == 0 else None)
    fake_sweeps.begin(study, 3)
    made, figures = report.build(read_table(tmp_path))
    assert made["summary"][0].startswith("Trial 0 has the lowest score, 10.00, the single best of 3. A single best of")
    assert "biased" in made["summary"][0]
    assert made["summary"][1] == (
        "On test events, which selected nothing, trial 0 scores 14.00 ± 0.25 between generated samples."
    )
    assert made["notices"] == ["The sweep has not ended: 1 queued. This is how it stands."]
    assert "say nothing yet" in made["importance"]["reason"]
    assert [figure.name for figure in figures] == ["parameters", "parallel", "curves"]


def test_a_study_without_anything(tmp_path):
    fake_sweeps.study_in(tmp_path)
    files = {path.name: path for path in report.write(read_table(tmp_path))}
    assert list(files) == ["trials.csv", "sweep.json", "report.html"]
    assert "there is no winner yet" in files["report.html"].read_text()


def test_ties_and_lost_repeats_are_said(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    for number in range(4):
        fake_sweeps.finish(study, number, 10.0 + number)
    scores = {0: (11.0, 13.0), 1: (11.5, 13.5), 2: (9.0, None), 3: (15.0,)}
    number = 3
    for repeated, values in scores.items():
        for score in values:
            state = "failed" if score is None else "complete"
            fake_sweeps.finish(study, number := number + 1, score, repeat_of=repeated, state=state)
    lines = report.build(read_table(tmp_path), shuffles=2)[0]["summary"]
    assert "Trial 0 leads with 12.00 ± 1.00, the mean of 2 repetitions" in lines[0]
    assert "Trial 1 cannot be told from trial 0: the difference of the means is within" in lines[1]
    assert "Trials 3 and 2: too few repetitions to say" in lines[2]
    assert lines[3] == "Trial 2 had a lower mean, but not every repetition came to a score."


HOSTILE = "<b>$x_{1$ [red]\\frac</b>\x1b[31m"


def test_hostile_names_stay_text(tmp_path, capsys):
    space = {"a.$b$_c": {"choice": ["<i>$\\alpha", "plain"]}, "n": {"uniform": [0, 1]}}
    study = fake_sweeps.study_in(tmp_path, space, name=HOSTILE + "\n- injected: 1")
    for number in range(12):
        values = {"a.$b$_c": space["a.$b$_c"]["choice"][number % 2], "n": number / 12}
        fake_sweeps.finish(study, number, 5.0 + number % 2 + number, values)
    fake_sweeps.finish(study, 12, None, {"n": 0.5}, state="failed", reason=HOSTILE)
    files = {path.name: path for path in report.write(read_table(tmp_path))}
    page = files["report.html"].read_text()
    pages.check_self_contained(pages.Page(page), page)
    assert "<b>$x" not in page
    assert "<i>" not in page
    assert "\x1b" not in page
    assert views.status(tmp_path, once=True) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[red]" in said
    assert yaml.safe_load(views.best(tmp_path))["problem"] == "rpv"


def test_a_report_that_cannot_be_written(tmp_path):
    fake_sweeps.study_in(tmp_path)
    (tmp_path / "report").write_text("")
    with pytest.raises(InputError, match="report: cannot write the report: "):
        report.write(read_table(tmp_path))


# --- best -------------------------------------------------------------------------------------------


def test_best_is_the_configuration_that_was_trained(study):
    text = views.best(study.path)
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert head[0] == f"# Trial 1 of the sweep 'tiny sweep' ({study.path})."
    assert any("14.00 ± 0.58" in line and "biased" in line for line in head)
    expected = tiny.config(
        study.path / "absent", "training.epochs=4", *(f"{k}={json.dumps(v)}" for k, v in fake_sweeps.params(1).items())
    )
    assert configuration.load(yaml.safe_load(text)) == expected


def test_best_of_a_trial_whose_directory_is_gone(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    fake_sweeps.finish(study, 0, 5.0)
    study.trial(0).config_file.unlink()
    found = configuration.load(yaml.safe_load(views.best(tmp_path)))
    assert found.model.filters == fake_sweeps.params(0)["model.filters"]
    assert found.training.generator.learning_rate == fake_sweeps.params(0)["training.generator.learning_rate"]


def test_best_of_nothing(tmp_path):
    study = fake_sweeps.study_in(tmp_path)
    fake_sweeps.finish(study, 0, 5.0, state="pruned", reason="x")
    with pytest.raises(InputError, match=r"no trial has been trained to the end and scored: there is no winner yet$"):
        views.best(tmp_path)


@pytest.mark.parametrize("show", [read_table, views.best, lambda path: views.status(path, once=True)])
def test_what_is_no_study_is_one_line(tmp_path, show):
    with pytest.raises(InputError, match=r"not a study \(no study.json in it\)$"):
        show(tmp_path)


# --- status -----------------------------------------------------------------------------------------


def test_status_in_plain_lines(tmp_path, capsys):
    study = fake_sweeps.study_in(tmp_path)
    for number in range(8):
        fake_sweeps.finish(study, number, 18.0 - number)
    fake_sweeps.finish(study, 8, 25.0, state="pruned", reason="median pruning after epoch 2, best score 25.00")
    fake_sweeps.finish(study, 9, None, state="failed", reason="loss became non-finite")
    fake_sweeps.begin(study, 10, scores=[8.0, 4.0, 6.0])
    fake_sweeps.begin(study, 11)
    study.result_file(3).write_text("{")
    study.write_goal(SweepSection(trials=20, repeats=0, concurrency=2))
    lease = Lease(study.runner(10))
    try:
        assert views.status(tmp_path, once=False) == 0  # no terminal: once
    finally:
        lease.release("done")
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == f"tiny sweep: random search, pruning: none, seed 1, {tmp_path}"
    assert lines[1] == "12 of 20 trials: 7 complete, 1 pruned, 1 failed, 1 running, 1 queued, 1 broken"
    assert lines[2] == "best so far: trial 7, 11.00 (a single best of many is biased)"
    # A trial takes 60 s: the running one has 5 left, then four of the nine to come; five go to the other place.
    assert lines[3] == "time left: 0:05:00"
    assert lines[4].split() == ["trial", "state", "epoch", "score", "best", "time", "left", "parameters", "why"]
    rows = [line.split() for line in lines[5:17]]
    assert rows[0][:6] == ["10", "running", "3/4", "6.00", "4.00", "@2"]
    assert "filters=4" in rows[0]
    assert [row[0] for row in rows] == ["10", "7", "6", "5", "4", "2", "3", "9", "11", "8", "1", "0"]
    assert [row[1] for row in rows[6:10]] == ["broken", "failed", "queued", "pruned"]
    assert rows[7][-3:] == ["loss", "became", "non-finite"]
    assert lines[17].startswith(f"cannot be read: {study.result_file(3)}")
    assert len(lines) == 18
    assert "\x1b" not in said


def test_time_left_of_a_sweep_that_nobody_works_on(tmp_path, capsys):
    study = fake_sweeps.study_in(tmp_path)
    fake_sweeps.finish(study, 0, 5.0)
    views.status(tmp_path, once=True)
    assert "time left: none, all trials have ended" in capsys.readouterr().out
    fake_sweeps.begin(study, 1)
    fake_sweeps.dead(study.runner(1))
    views.status(tmp_path, once=True)
    said = capsys.readouterr().out
    assert "time left: nobody works on it; the sweep's command goes on with it" in said
    assert re.search(r"^ +1 +lost", said, re.MULTILINE)


def on_terminal(monkeypatch, height=14):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, height=height, markup=False, highlight=False,
        legacy_windows=False,
    )  # fmt: skip
    monkeypatch.setattr(views, "open_console", lambda: console)
    return console


def test_status_follows_a_study_on_a_terminal_until_it_ends(tmp_path, monkeypatch):
    study, console = fake_sweeps.study_in(tmp_path), on_terminal(monkeypatch)
    for number in range(9):
        fake_sweeps.finish(study, number, 18.0 - number)
    fake_sweeps.begin(study, 9, scores=[8.0])
    lease, looks = Lease(study.runner(9)), []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            fake_sweeps.finish(study, 9, 3.0)
            lease.release("done")

    monkeypatch.setattr(views.time, "sleep", sleep)
    assert views.status(tmp_path, once=False) == 0
    said = console.file.getvalue()
    assert looks == [views.REFRESH_S] * 2
    assert "running" in said
    assert "... and 6 more; --once shows all" in said
    last = said[said.rindex("tiny sweep:") :]
    assert "10 trials: 10 complete" in last
    assert "best so far: trial 9, 3.00" in last


def test_status_on_a_terminal_ends_when_it_is_interrupted(tmp_path, monkeypatch):
    study, console = fake_sweeps.study_in(tmp_path), on_terminal(monkeypatch)
    fake_sweeps.begin(study, 0, scores=[8.0])
    lease = Lease(study.runner(0))

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(views.time, "sleep", interrupt)
    try:
        assert views.status(tmp_path, once=False) == 0
    finally:
        lease.release("done")
    assert "running" in console.file.getvalue()


def test_status_shows_the_mean_of_repeats(study, capsys):
    views.status(study.path, once=True)
    said = capsys.readouterr().out
    assert "20 trials (6 of them repetitions): 17 complete, 1 pruned, 2 failed" in said
    assert "best: trial 1, 14.00 ± 0.58 over 3 repetitions" in said
    assert "complete (repeats 1)" in said


@pytest.mark.parametrize("low", [1e-5, 3.3e-5, 1.5e-4, 8e-4])
def test_labels_of_learning_rates_do_not_overlap(tmp_path, monkeypatch, low):
    """Three panels side by side, from a factor of 1.5 to one of 1000."""
    keys = ["training.generator.learning_rate", "training.discriminator.learning_rate", "training.generator.epsilon"]
    for factor in (1.5, 2.5, 5, 29, 35, 60, 100, 1000):
        space = {key: {"log_uniform": [low, factor * low]} for key in keys}
        monkeypatch.setattr(fake_sweeps, "SPACE", space)
        study = fake_sweeps.study_in(tmp_path / str(factor), space)
        for number in range(3):
            values = dict.fromkeys(keys, low * factor ** (number / 2))
            fake_sweeps.finish(study, number, 9.0 + number, values)
        table = read_table(study.path)
        drawn = figures.parameter_figure(table, ranking(table.rows))
        drawn.canvas.draw()
        labels = []
        for axes in drawn.axes:
            left, right = axes.get_xlim()
            ticks = [*axes.xaxis.get_major_ticks(), *axes.xaxis.get_minor_ticks()]
            mine = [tick.label1 for tick in ticks if tick.label1.get_text() and left <= tick.get_loc() <= right]
            assert len(mine) >= 2
            labels += mine
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2)), factor
