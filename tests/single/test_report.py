"""The report: the same numbers in HTML and JSON, nothing external, sizes that are never mixed up."""

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pages
import pytest
import tiny
from pages import Page

from hpcgan.config import ScoringConfig
from hpcgan.errors import InputError, Unwritten
from hpcgan.evaluation import events, report
from hpcgan.evaluation.compare import EvaluationOptions
from hpcgan.metrics.observable import Observable, Score
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.detector_images.figures import ImageFigures
from hpcgan.problems.detector_images.rpv import RpvProblem
from hpcgan.report import training_curves
from hpcgan.report.page import render
from hpcgan.runs.goodput import PARTS, TimeSpent
from hpcgan.runs.records import Epoch, EpochScore

PHYSICS = [
    "jet_multiplicity",
    "summed_jet_mass",
    "jet_pt",
    "leading_jet_pt",
    "total_energy",
    "occupancy",
    "pixel_spectrum",
    "mean_image",
    "eta_profile",
    "phi_profile",
    "images",
]


def silent(text):
    pass


def epoch_records(n):
    parts = {"jet_multiplicity": 1.0, "summed_jet_mass": 2.0, "jet_pt": 3.0}
    return [
        Epoch(
            epoch=epoch,
            step=15 * epoch,
            samples=60 * epoch,
            losses={"discriminator": 1.2, "generator": 0.9},
            collapse={"diversity": 0.5, "nearest": 0.25, "saturation": 0.1} if epoch > 1 else {},
            score=EpochScore(6.0, parts, n) if epoch != 1 else None,
            samples_per_second=700.0 + epoch,
        )
        for epoch in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"), 300)  # 60 validation and 60 test events


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    provenance = [{"attempt": 1, "command": "hpcgan train x.yaml", "ranks": 2}]
    seconds = {**dict.fromkeys(PARTS, 0.0), "startup": 10.0, "steps": 70.0, "redone": 20.0}
    spent = TimeSpent(seconds, {"imports": 4.0, "first_step": 6.0}, attempts=2, failures=1, core_seconds=7200.0)
    return report.evaluate_sampler(
        tiny.Sampler(folder, 1.1, "tiny <run>"),
        report.History(epoch_records(50), provenance, spent),
        EvaluationOptions(3, 50, repetitions=50),
        page=tmp_path_factory.mktemp("run") / "report" / "report.html",
        log=silent,
    )


@pytest.fixture(autouse=True)
def physics_figures_are_drawn_once(monkeypatch):
    """They take seconds; `made`, built before this, has them."""
    monkeypatch.setattr(ImageFigures, "compare", lambda self, real, fake, weights: [])


@pytest.fixture(scope="module")
def page(made):
    return Page(made.html.read_text(encoding="utf-8"))


def test_json_is_what_was_returned(made):
    data = json.loads(made.json.read_text(), parse_constant=pytest.fail)
    assert data == json.loads(json.dumps(made.data))
    assert (data["schema"], data["schema_version"]) == ("hpcgan.report", 2)


def test_the_report_says_what_the_time_of_the_training_went_to(made):
    time = json.loads(made.json.read_text())["training"]["time"]
    assert (time["goodput"], time["whole_s"], time["core_hours"]) == (0.7, 100.0, 2.0)
    html = made.html.read_text(encoding="utf-8")
    assert "Goodput 70.0%" in html
    assert "2 core-hours in 2 attempts. One attempt failed." in html
    assert '<td>20.0%</td><td class="text">what no checkpoint had' in html
    assert "Paused</td>" not in html


def test_numbers_of_the_page_are_those_of_the_json(made, page):
    pages.check_numbers(page, json.loads(made.json.read_text()))
    assert len(page.data) > 60
    keys = {key for key, _, _ in page.data}
    assert {
        "score.mean",
        "score.std",
        "band.median",
        "band.p95",
        "band.p99",
        "training.checkpoint.score",
    } <= keys


def test_every_figure_is_there_and_embedded(made, page):
    names = ["null_band", *PHYSICS, "score_curve", "loss_curve", "collapse_curve"]
    assert [f["name"] for f in made.data["figures"]] == names
    assert page.figures == names
    assert len(page.images) == len(names)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)


def test_the_page_needs_nothing_else(made, page):
    text = made.html.read_text(encoding="utf-8")
    pages.check_self_contained(page, text)
    assert "<title>tiny &lt;run&gt;" in text


def test_texts_of_a_report_are_no_markup(made):
    names = report.sample_distances.NAMES
    pages.check_escaped(
        lambda data: render(
            "evaluation.html.j2", data, [], data["notices"], distance_titles=names, parts_of_time=PARTS
        ),
        made.data,
    )


def test_score_is_that_of_the_problem(made, folder):
    """Recomputed here in file order, which does not matter at N = all events."""
    sampler = tiny.Sampler(folder, 1.1, "tiny <run>")
    full = report.evaluate_sampler(
        sampler,
        report.History(),
        EvaluationOptions(2, 60, repetitions=2),
        page=made.html.with_name("full.html"),
        log=silent,
    )
    with h5py.File(folder / "test.h5") as file:
        real = sampler.problem.observables({"hist": file["all_events/hist"][:]})
    expected = [sampler.problem.score(real, sampler.problem.observables(sampler.sample(60, seed))) for seed in (1, 2)]
    score = full.data["score"]
    assert [s["total"] for s in score["samples"]] == [s.total for s in expected]
    assert score["mean"] == pytest.approx(np.mean([s.total for s in expected]))
    assert score["std"] == pytest.approx(np.std([s.total for s in expected], ddof=1))
    assert score["n"] == 60
    assert full.data["training"]["epochs"] == 0
    assert [f["name"] for f in full.data["figures"]] == ["null_band"]


def test_what_the_record_holds(made):
    data = made.data
    assert data["score"]["n"] == data["band"]["n"] == 50
    assert data["notices"] == []
    assert data["band"]["pool"] == 120
    assert data["fake"]["seeds"] == [1, 2, 3]
    assert data["training"]["checkpoint"] == {
        "epoch": 2,
        "step": 30,
        "samples": 120,
        "score": 12.5,
        "score_n": 50,
        "criterion": "score",
    }
    assert data["training"]["samples_per_second"] == 702.0
    assert [c["epoch"] for c in data["training"]["curves"]] == [1, 2, 3]
    assert data["distances"]["jet_pt"]["wasserstein"] > 0
    assert data["timing"]["total_s"] > 0


def test_a_small_split_is_scored_at_its_own_size(folder, tmp_path):
    made = report.evaluate_sampler(
        tiny.Sampler(folder, 1.1, "tiny <run>"),
        report.History(epoch_records(50)),
        EvaluationOptions(1, repetitions=5),
        page=tmp_path / "report.html",
        log=silent,
    )
    score = made.data["score"]
    assert (score["n"], score["requested"], score["std"]) == (60, 4096, None)
    assert made.data["band"]["n"] == 60
    assert made.data["notices"] == [
        "Scored at N=60 instead of 4096: the test split has 60 events. Not comparable with scores at another N."
    ]
    assert "at N=60" in report.summary(made)


def test_the_band_is_never_held_against_another_size(folder, tmp_path):
    """All 60 real events score 60 generated ones, but only two samples of 30 make a band."""
    fake = tmp_path / "fake.h5"
    write(fake, tiny.images(150, seed=5))
    made = report.compare_files(folder / "test.h5", fake, EvaluationOptions(repetitions=20), log=silent)
    data = made.data
    assert data["score"]["n"] == 60
    assert len(data["score"]["samples"]) == 2  # 150 events hold two samples of 60
    assert data["band"]["n"] == data["against_band"]["n"] == 30
    assert "The null band is at N=30" in data["notices"][1]
    band, held = np.array(data["band"]["samples"]), [s["total"] for s in data["against_band"]["samples"]]
    assert data["against_band"]["share_above"] == pytest.approx(np.mean([np.mean(band >= h) for h in held]))
    assert "generated against real at N=30" in report.summary(made)
    keys = {key for key, _, _ in Page(made.html.read_text()).data}
    assert {"against_band.mean", "against_band.parts.jet_pt.mean"} <= keys
    assert made.html == tmp_path / "fake-report" / "report.html"


def test_curves_show_the_band_only_at_its_own_size(made):
    band = {**made.data["band"], "n": 50}
    legends = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_curves, "embed", lambda name, caption, figure, group: legends.append(figure.legends[0]))
        for n in (50, 49):
            training_curves.training_figures(epoch_records(n), 2, band, "Loss")
    shown = [[t.get_text() for t in legend.get_texts()] for legend in legends]
    assert sum("real against real" in text for text in shown[0]) == 2
    assert sum("real against real" in text for text in shown[2]) == 0
    assert "checkpoint (epoch 2)" in shown[0]


def test_a_file_against_itself(folder, tmp_path):
    made = report.compare_files(
        folder / "test.h5", folder / "test.h5", EvaluationOptions(events=60, repetitions=5), out=tmp_path, log=silent
    )
    assert made.data["score"]["mean"] == 0.0
    assert made.data["notices"][0] == "Real and generated events are the same file."


def test_another_split_is_labelled(folder, tmp_path):
    made = report.evaluate_sampler(
        tiny.Sampler(folder, 1.1, "tiny <run>"),
        report.History(),
        EvaluationOptions(1, 30, repetitions=5),
        page=tmp_path / "report.html",
        split="val",
        log=silent,
    )
    assert "not a held-out score" in made.data["notices"][0]


def write(path, images):
    with h5py.File(path, "w") as file:
        file["all_events/hist"] = images


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: np.where(x > 1e5, np.nan, x), "fake.h5.*not finite"),
        (lambda x: -x, "fake.h5.*negative"),
        (lambda x: x[:1], "fake.h5: 1 events are too few"),
        (lambda x: x[:, :32], r"fake.h5.*shape \(20, 32, 64\)"),
    ],
)
def test_bad_files(folder, tmp_path, spoil, message):
    write(tmp_path / "fake.h5", spoil(tiny.images(20)))
    with pytest.raises(InputError, match=message):
        report.compare_files(folder / "test.h5", tmp_path / "fake.h5", log=silent)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fake.h5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fake": Path("none.h5")}, "none.h5: no such file"),
        ({"problem": "rvp"}, "problem 'rvp' does not exist; choose one of:.*rpv"),
    ],
)
def test_bad_arguments(folder, tmp_path, arguments, message):
    good = {"real": folder / "test.h5", "fake": folder / "val.h5", "out": tmp_path / "out"}
    with pytest.raises(InputError, match=message):
        report.compare_files(**{**good, **arguments}, log=silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples: 0 is too few, give at least 1"),
        ({"events": 1}, "events: 1 is too few, give at least 2"),
        ({"repetitions": 0}, "repetitions: 0 is too few, give at least 1"),
    ],
)
def test_too_few_of_something(arguments, message):
    with pytest.raises(InputError, match=message):
        EvaluationOptions(**arguments)


def test_an_unwritable_folder(folder, tmp_path):
    (tmp_path / "file").write_text("")
    files = folder / "test.h5", folder / "val.h5"
    with pytest.raises(InputError, match="cannot write the report: Not a directory; name another folder with --out"):
        report.compare_files(*files, out=tmp_path / "file" / "x", log=silent)
    taken = tmp_path / "taken"  # while the report is made
    with pytest.raises(Unwritten, match="cannot write the report") as found:
        report.compare_files(
            *files, options=EvaluationOptions(repetitions=2), out=taken, log=lambda text: taken.touch()
        )
    assert found.value.output.startswith("score ")


class Identity:
    """A problem whose score shows which events it was given."""

    def observables(self, sample):
        return {"id": Observable(sample["id"])}

    def score(self, real, fake):
        n = real["id"].n_events
        return Score(float(real["id"].values.sum()), {"id": 0.0}, n)


def test_events_are_drawn_at_random_but_reproducibly():
    assert events.choose(5, 100).tolist() == events.choose(5, 100).tolist()
    assert not np.array_equal(events.choose(50, 100), np.arange(50))
    assert sorted(events.choose(100, 100)) == list(range(100))


def test_observables_in_pieces_keep_their_order():
    source = SimpleNamespace(path=Path("x.h5"), read=lambda indices: {"id": indices * 2}, weights=lambda: None)
    found = events.observables_of(Identity(), source, np.arange(3000)[::-1])
    assert found["id"].values.tolist() == (np.arange(3000)[::-1] * 2).tolist()


def test_tiny_is_in_the_published_layout(folder):
    with hdf5.open_images(folder / "test.h5") as file:
        assert file.n == 60


# --- beside the score ------------------------------------------------------------------------------------------------


def test_quantities_beside_the_score(made, page):
    data = made.data
    more = data["more_scores"]
    assert list(more["quantities"]) == list(RpvProblem.more_quantities)
    assert (more["n"], more["splits"], data["selection"]) == (50, 50, None)
    # A tenth brighter, otherwise alike.
    means = more["quantities"]["total_energy"]["means"]
    assert means["generated"] / means["real"] == pytest.approx(1.1, abs=0.1)
    assert more["quantities"]["occupancy"]["mean"] < 10
    assert set(data["score"]["parts"]) == set(RpvProblem.quantities)  # never added
    assert data["score"]["mean"] == pytest.approx(sum(part["mean"] for part in data["score"]["parts"].values()))
    assert not {f for f in data["sample_distances"]["features"] if f.startswith(RpvProblem.more_quantities)}
    keys = {key for key, _, _ in page.data}
    assert {f"more_scores.quantities.{name}.band.p95" for name in RpvProblem.more_quantities} <= keys


def test_largest_values_of_a_report(made):
    rows = {row["name"]: row for row in made.data["tails"]}
    assert list(rows) == ["jet_pt", "pixel_energies", "total_pt"]
    pixels = rows["pixel_energies"]
    assert pixels["events"] == {"real": 120, "generated": 150}
    lit = 120 * 4096 * 0.03
    assert pixels["expected"]["value"] == pytest.approx(150 / 120 * 0.001 * lit, rel=0.3)
    assert pixels["ratio"]["value"] == pytest.approx(1.4, abs=0.4)  # energies are a tenth higher
    assert pixels["beyond_training"] is rows["jet_pt"]["beyond_training"] is None
    beyond = rows["total_pt"]["beyond_training"]
    assert beyond["events"] == 180
    assert beyond["generated"]["expected"] == pytest.approx(150 / 181)
    assert beyond["real"]["value"] <= 5


def test_the_terminal_hears_of_them_in_two_lines(made):
    lines = report.summary(made).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("beside the score, at N=50: "))
    assert lines[first].endswith("of 15 quantities above 95% of real")
    assert lines[first + 1].startswith("  farthest, -ln p")
    assert lines[first + 2].startswith("beyond 99.9% of real values: jet pt ")


def test_a_selection_is_scored_on_held_out_events(made, folder):
    sampler = tiny.Sampler(folder, 1.1, "tiny <run>")
    sampler.config.scoring = ScoringConfig(quantities=["jet_pt", "occupancy"])
    selected = report.evaluate_sampler(
        sampler,
        report.History(),
        EvaluationOptions(3, 50, repetitions=5),
        page=made.html.with_name("s.html"),
        log=silent,
    )
    assert selected.data["score"]["samples"] == made.data["score"]["samples"]
    of_sample = [
        score["parts"]["jet_pt"] + occupancy
        for score, occupancy in zip(
            made.data["score"]["samples"], made.data["more_scores"]["quantities"]["occupancy"]["samples"], strict=True
        )
    ]
    assert selected.data["selection"]["samples"] == pytest.approx(of_sample)
    assert "selection " in report.summary(selected)
    text = selected.html.read_text()
    pages.check_numbers(Page(text), json.loads(selected.json.read_text()))
    assert "selected by Jet pt, Occupancy" in text
    assert "on validation events" in text
