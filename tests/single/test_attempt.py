"""Whole trainings in one process: resume to the bit, faults, bad data."""

import json
import shutil

import h5py
import needs
import numpy as np
import pytest
import tiny
from one_rank import unless_thorough

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402
from trackers import heard  # noqa: E402

from hpcgan.errors import HpcganError, InputError, Interrupted  # noqa: E402
from hpcgan.evaluation.epoch import Diversity, EpochScores  # noqa: E402
from hpcgan.metrics.observable import Score  # noqa: E402
from hpcgan.physics import jets  # noqa: E402
from hpcgan.problems.detector_images import files as hdf5  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvProblem  # noqa: E402
from hpcgan.runs import (  # noqa: E402
    checkpoint,
    records,
)
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.runs.goodput import time_spent  # noqa: E402
from hpcgan.runs.lease import attempt_state  # noqa: E402
from hpcgan.training import assembly  # noqa: E402

pytestmark = pytest.mark.usefixtures("warm")
TIMING = {"time", "samples_per_second", "scoring_seconds", "attempt"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def train(data, folder, *overrides, stop=None):
    return tiny.train(tiny.config(data, *overrides), folder, stop)


def scored(total, selection=None):
    """What a scorer says."""
    one, other = (None if x is None else Score(x, {"jet_pt": x}, 20, {}) for x in (total, selection))
    return EpochScores(one, other)


def final_arrays(run):
    return checkpoint.load_latest(run.checkpoints, pytest.fail)


def epochs(run):
    return [{k: v for k, v in r.items() if k not in TIMING} for r in recorded(run.metrics_file, "epoch")]


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("reference"))


def test_a_run_leaves_what_other_tools_read(reference):
    assert reference.load_config().name == "tiny"
    found = epochs(reference)
    assert [r["epoch"] for r in found] == [1, 2]
    assert [r["step"] for r in found] == [15, 30]
    assert found[-1]["samples"] == 120
    assert found[0]["score"]["n"] == 20
    assert set(found[0]["score"]["parts"]) == {"jet_multiplicity", "summed_jet_mass", "jet_pt"}
    best = min(found, key=lambda r: r["score"]["total"])
    assert checkpoint.load_best(reference.checkpoints, pytest.fail).step == best["step"]
    assert [r["outcome"] for r in recorded(reference.metrics_file, "end")] == ["done"]
    with hdf5.open_images(reference.samples / "epoch-0002.h5") as file:
        assert file.n == 4  # a batch, as it is smaller than 16
    assert any(p.name.startswith("events.out.tfevents") for p in reference.tensorboard.iterdir())


def test_a_tracked_training_is_one_run_over_an_interruption(data, tmp_path, find_trackers, eager):
    tracking = ("tracking.to=trackers:Notebook", f"tracking.uri={tmp_path}", "tracking.wait_s=300")
    with pytest.raises(Interrupted):
        train(data, tmp_path / "run", *tracking, stop=tiny.StopAt(20))
    before = heard(tmp_path)
    assert before[-1] == ["state", "interrupted"]
    run = train(data, tmp_path / "run", *tracking)
    calls = heard(tmp_path)
    assert [about for call, *about in calls if call == "begin"] == [[before[0][1]]]
    points = [about for call, *about in calls if call == "point"]
    assert [(samples, values["score/total"]) for samples, values in points] == [
        (r["samples"], r["score"]["total"]) for r in recorded(run.metrics_file, "epoch")
    ]
    assert {"losses/generator", "learning_rates/discriminator", "score/jet_pt"} <= points[0][1].keys()
    assert [about[0] for call, *about in calls if call == "file" and "samples" in about[0]] == [
        "samples/epoch-0001.h5",
        "samples/epoch-0002.h5",
    ]
    assert calls[-1] == ["state", "finished"]


def test_the_time_of_a_run_is_known_from_its_records(reference):
    """Its parts are those of one undisturbed attempt; phases and checkpoints are recorded once, and add up."""
    spent = time_spent(reference)
    ran = {part for part, seconds in spent.seconds.items() if seconds}
    assert ran == {"startup", "steps", "scoring", "checkpoint"}
    (origin,) = records.read_lines(reference.provenance_file)
    all_records = recorded(reference.metrics_file)
    assert spent.whole == pytest.approx(all_records[-1]["time"] - origin["born"])
    assert [(r["step"], r["seconds"] > 0.0) for r in all_records if r["kind"] == "checkpoint"] == [
        (15, True),
        (30, True),
    ]
    (first,) = (r for r in all_records if r["kind"] == "begun")
    assert list(first["phases"]) == ["imports", "data", "state", "scoring"]
    assert 0.0 < sum(first["phases"].values()) < first["startup_s"]
    assert spent.seconds["startup"] == pytest.approx(first["startup_s"], abs=0.1)
    assert origin["cores"] >= 1


def assert_same_end(ours, theirs):
    """Weights, optimizers, counters, and the records of all epochs."""
    tiny.assert_same_state(final_arrays(ours), final_arrays(theirs))
    assert epochs(ours) == epochs(theirs)


@pytest.mark.usefixtures("cold")
@pytest.mark.parametrize("stops", [[1, 14], pytest.param([7, 13, 9], marks=pytest.mark.faults)], ids=str)
def test_an_interrupted_run_ends_with_the_same_bits(data, reference, tmp_path, stops):
    """In the first step and at the end of an epoch; in the middle of one, of the next, and before the last step."""
    for step in stops:
        with pytest.raises(Interrupted, match="checkpoint written"):
            train(data, tmp_path, stop=tiny.StopAt(step))
    assert final_arrays(RunDirectory(tmp_path)).step == sum(stops)
    assert_same_end(train(data, tmp_path), reference)


@pytest.mark.usefixtures("cold")
def test_checkpoints_in_the_middle_of_epochs_change_no_bits_and_are_gone_on_from(data, reference, tmp_path):
    run = train(data, tmp_path / "run", "checkpoint.every=1e-9", "checkpoint.keep=100", "checkpoint.beside=false")
    assert checkpoint.steps(run.checkpoints) == list(range(1, 31))
    assert_same_end(run, reference)
    for step in range(8, 31):  # as if it had been killed before the eighth was written
        shutil.rmtree(checkpoint.path_of(run.checkpoints, step))
    often = ("checkpoint.every=auto", "checkpoint.mtbf=1e-9", "checkpoint.beside=false")
    assert_same_end(train(data, run.path, *often), reference)
    assert recorded(run.metrics_file, "start")[-1]["step"] == 7
    assert checkpoint.steps(run.checkpoints)[-2:] == [29, 30]  # every step again: failures come faster than checkpoints


#: Epochs of five steps.
LARGE = "training.batch_size=12"
DETECTOR = (
    LARGE,
    "model.architecture=detector",
    "model.intensity=pt",
    "model.scale_mev=6000",
    "model.exponent=0.3333333333333333",
    "model.pixel_noise=true",
    "model.total_pt=drawn",
    "model.pooled_pt=true",
    "model.pooled_mass=true",
    "model.hidden_units=3",
    "training.r1.weight=0.05",
    "training.r1.every=4",
    "training.augment_generated=true",
)


def killed_in_the_second_epoch(run, folder):
    """A run directory as a training of two epochs that was killed after the first checkpoint leaves it."""
    shutil.copytree(run.path, folder)
    copies = RunDirectory(folder).checkpoints
    first, last = checkpoint.steps(copies)
    assert last == 2 * first
    shutil.rmtree(checkpoint.path_of(copies, last))
    return folder


@pytest.mark.usefixtures("cold")
def test_a_killed_run_of_the_detector_model_ends_with_the_same_bits(data, tmp_path):
    """Its generator has a constant measured from the data, which must come from the checkpoint."""
    with unless_thorough():
        reference = train(data, tmp_path / "whole", *DETECTOR)
        run = train(data, killed_in_the_second_epoch(reference, tmp_path / "run"), *DETECTOR)
    whole = final_arrays(reference)
    assert_same_end(run, reference)
    names = [name for name in whole.arrays if name.endswith("log_total_pt")]
    assert names == ["network/generator/generator/log_total_pt", "network/generator_average/generator/log_total_pt"]
    with hdf5.open_images(data / "train.h5") as file:
        totals = np.sum(file.read(slice(0, file.n)) / np.cosh(jets.image_geometry().eta)[:, None], axis=(1, 2))
    for name in names:
        assert np.exp(whole.arrays[name][[0, -1]]) == pytest.approx([totals.min() / 1e5, totals.max() / 1e5], rel=1e-4)


CRITIC = (
    LARGE,
    "training.loss=wgan_gp",
    "training.label_flip=0",
    "training.critic_steps=2",
    "training.instance_noise={sigma: 0.2, epochs: 1.5}",
    "model.discriminator_normalisation=spectral",
)


@pytest.mark.usefixtures("cold", "eager")
def test_a_killed_run_of_a_critic_ends_with_the_same_bits(data, tmp_path):
    """Between two turns of the generator; instance noise and power iterations go on where they were, noise ends."""
    reference = train(data, tmp_path / "whole", *CRITIC)
    whole = final_arrays(reference)
    run = train(data, killed_in_the_second_epoch(reference, tmp_path / "run"), *CRITIC)
    assert sum(name.endswith("/direction") for name in whole.arrays) == 5
    assert_same_end(run, reference)
    for epoch in epochs(run):
        assert 0.0 < epoch["collapse"]["diversity"] < 5.0
        assert -1.0 <= epoch["collapse"]["saturation"] <= 1.0


def test_the_same_command_after_the_end_does_nothing(data, reference):
    before = final_arrays(reference).meta
    train(data, reference.path)
    assert final_arrays(reference).meta == before
    assert len(epochs(reference)) == 2


def test_more_epochs_go_on_from_the_end(data, tmp_path):
    train(data, tmp_path, "training.epochs=1")
    run = train(data, tmp_path, "training.epochs=2")
    assert final_arrays(run).step == 30
    assert run.load_config().training.epochs == 2


def test_a_damaged_checkpoint_falls_back_says_so_and_ends_the_same(data, reference, tmp_path, capsys):
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(reference.path, run.path)
    with open(checkpoint.path_of(run.checkpoints, 30) / "arrays.npz", "r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00\xff")
    train(data, run.path)
    assert "step-000000030" in capsys.readouterr().err
    assert recorded(run.metrics_file, "start")[-1]["step"] == 15
    assert_same_end(run, reference)


def test_another_configuration_is_refused_and_nothing_changes(data, reference):
    before = sorted((p, p.stat().st_mtime_ns) for p in reference.path.rglob("*"))
    with pytest.raises(InputError, match=r"another configuration \(model.filters: 2 there, 4 now\).*--run"):
        train(data, reference.path, "model.filters=4")
    assert sorted((p, p.stat().st_mtime_ns) for p in reference.path.rglob("*")) == before


def test_a_run_goes_on_with_the_same_data_wherever_they_lie(data, reference, tmp_path, monkeypatch):
    shutil.copytree(data, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    run = train("data", tmp_path / "run", "training.epochs=1")
    (tmp_path / "link").symlink_to("data")
    with pytest.raises(Interrupted):
        train("link", run.path, stop=tiny.StopAt(5))
    (tmp_path / "data").rename(tmp_path / "moved")
    train(tmp_path / "moved", run.path)
    assert_same_end(run, reference)
    said = [json.loads(line)["data"] for line in run.provenance_file.read_text().splitlines()]
    assert [entry.pop("path") for entry in said] == [str(tmp_path / name) for name in ("data", "link", "moved")]
    assert said[0] == said[1] == said[2]
    assert list(said[0]) == ["train", "val", "test"]


def test_other_data_are_refused_and_nothing_changes(data, reference, tmp_path):
    """The score of the best epoch is of other events otherwise."""
    before = sorted((p, p.stat().st_mtime_ns) for p in reference.path.rglob("*"))
    shutil.copytree(data, tmp_path / "data")
    with h5py.File(tmp_path / "data" / "val.h5", "r+") as file:
        file["all_events/hist"][7] *= 2
    message = r"data/val.h5: holds other data than .* \(other values of all_events/hist\); give the data that it was"
    with pytest.raises(InputError, match=message):
        train(tmp_path / "data", reference.path, "training.epochs=3")
    assert sorted((p, p.stat().st_mtime_ns) for p in reference.path.rglob("*")) == before


def test_another_test_split_is_no_reason_to_stop(data, reference, tmp_path, capsys):
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(reference.path, run.path)
    shutil.copytree(data, tmp_path / "data")
    with h5py.File(tmp_path / "data" / "test.h5", "r+") as file:
        file["all_events/hist"][7] *= 2
    train(tmp_path / "data", run.path)
    assert "data/test.h5: holds other data than when the run began" in capsys.readouterr().err


ROLLBACK = ("training.rollback.limit=2", "training.rollback.rate_factor=0.25")


def test_non_finite_input_stops_the_run_and_keeps_the_last_checkpoint(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step == 20)
    with pytest.raises(HpcganError, match="non-finite at step 21 on rank 0"):
        train(data, tmp_path)
    run = RunDirectory(tmp_path)
    assert final_arrays(run).step == 15
    (end,) = recorded(run.metrics_file, "end")
    assert (end["outcome"], end["failure"]["kind"], end["step"]) == ("failed", "training", 21)
    assert "non-finite at step 21 on rank 0" in end["failure"]["text"]
    monkeypatch.undo()
    assert final_arrays(train(data, tmp_path)).step == 30


def test_a_bad_step_goes_back_to_the_best_state_and_on_with_lower_rates(data, reference, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step == 20)
    run = train(data, tmp_path, *ROLLBACK)
    (record,) = recorded(run.metrics_file, "rollback")
    assert (record["step"], record["to_step"], record["count"]) == (21, 15, 1)
    assert "non-finite at step 21 on rank 0" in record["reason"]
    first, second = epochs(run)
    assert first == epochs(reference)[0]
    assert second["step"] == 30
    for name, rate in first["learning_rates"].items():
        assert second["learning_rates"][name] == pytest.approx(0.25 * rate)
    end = final_arrays(run)
    assert end.meta["rollbacks"] == 1
    assert all(np.isfinite(array).all() for array in end.arrays.values())


def test_an_interrupted_run_with_a_rollback_ends_with_the_same_bits(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step == 20)
    whole = final_arrays(train(data, tmp_path / "whole", *ROLLBACK))
    for stop in (19, 5):  # before and after the rollback
        with pytest.raises(Interrupted):
            train(data, tmp_path / "run", *ROLLBACK, stop=tiny.StopAt(stop))
    tiny.assert_same_state(final_arrays(train(data, tmp_path / "run", *ROLLBACK)), whole)


def test_rollbacks_are_bounded_also_across_a_resume(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step in (16, 18, 24))
    for _ in range(2):
        with pytest.raises(HpcganError, match=r"non-finite at step 25 on rank 0.*2 rollbacks are all"):
            train(data, tmp_path, *ROLLBACK)
    assert [r["count"] for r in recorded(RunDirectory(tmp_path).metrics_file, "rollback")] == [1, 2]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step == 3)
    with pytest.raises(HpcganError, match=r"non-finite at step 4 on rank 0.*no checkpoint yet"):
        train(data, tmp_path, *ROLLBACK)


def test_a_spike_of_the_loss_goes_back_and_the_training_recovers(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: step == 20, value=1e4)  # batch norm would hide it
    run = train(data, tmp_path, *ROLLBACK, "training.rollback.loss_above=20", "model.normalisation=none")
    (record,) = recorded(run.metrics_file, "rollback")
    assert (record["step"], record["to_step"], record["count"]) == (21, 15, 1)
    assert "a loss of " in record["reason"]
    for epoch in epochs(run):
        assert all(0.5 < loss < 2.0 for loss in epoch["losses"].values())  # the spike is no part of the second
    assert final_arrays(run).meta["rollbacks"] == 1


def test_a_spike_before_the_first_checkpoint_ends_the_run(data, tmp_path):
    with pytest.raises(HpcganError, match=r"a loss of .* at step 1 .*loss_above: 0.001.*no checkpoint yet"):
        train(data, tmp_path, *ROLLBACK, "training.rollback.loss_above=0.001")


def test_a_collapse_of_the_score_goes_back_to_the_best_epoch(data, tmp_path, monkeypatch):
    totals = iter([10.0, 14.0, 31.0, 9.0])
    monkeypatch.setattr(assembly.Scorer, "__call__", lambda *_: scored(next(totals)))
    run = train(data, tmp_path, *ROLLBACK, "training.rollback.score_factor=3", "training.epochs=4")
    (record,) = recorded(run.metrics_file, "rollback")
    assert (record["step"], record["to_step"]) == (45, 15)
    assert "a score of 31 after epoch 3, 3.1 times the best" in record["reason"]
    found = {s: checkpoint.load(checkpoint.path_of(run.checkpoints, s)) for s in checkpoint.steps(run.checkpoints)}
    assert {s: c.score for s, c in found.items()} == {45: None, 60: 9.0}
    assert epochs(run)[-1]["best"] == {"score": 9.0, "epoch": 4, "step": 60}


def test_the_selection_chooses_the_epoch_and_the_score_stays(data, tmp_path, monkeypatch, capsys):
    totals = iter([(10.0, 7.0), (20.0, 3.0), (8.0, 5.0)])
    monkeypatch.setattr(assembly.Scorer, "__call__", lambda *_: scored(*next(totals)))
    run = train(data, tmp_path, "scoring.quantities=[occupancy]", "training.epochs=3", "checkpoint.keep=3")
    assert [(e["score"]["total"], e["selection"]["total"], e["is_best"]) for e in epochs(run)] == [
        (10.0, 7.0, True),
        (20.0, 3.0, True),
        (8.0, 5.0, False),
    ]
    assert epochs(run)[-1]["best"] == {"score": 3.0, "epoch": 2, "step": 30}
    assert checkpoint.load_best(run.checkpoints, pytest.fail).step == 30
    lines = [line for line in capsys.readouterr().out.splitlines() if "score 20.00" in line]
    assert "score 20.00 at N=20 (jet_pt 20.00)  selection 3.00 (jet_pt 3.00)  best  left" in lines[0]


def test_other_quantities_select_another_epoch(data, reference, tmp_path):
    """The training is the same, and so are its scores; parts that both have are the same as well."""
    run = train(data, tmp_path, "scoring.quantities=[jet_pt, occupancy, eta_correlation_1]")
    selected, plain = epochs(run), epochs(reference)
    assert [e["score"] for e in selected] == [e["score"] for e in plain]
    assert [e["losses"] for e in selected] == [e["losses"] for e in plain]
    assert {e["selection"] for e in plain} == {None}
    for epoch in selected:
        selection = epoch["selection"]
        assert set(selection["parts"]) == {"jet_pt", "occupancy", "eta_correlation_1"}
        assert selection["parts"]["jet_pt"] == epoch["score"]["parts"]["jet_pt"]
        assert selection["total"] == pytest.approx(sum(selection["parts"].values()))
        assert selection["n"] == epoch["score"]["n"] == 20
    totals = [e["selection"]["total"] for e in selected]
    best = selected[int(np.argmin(totals))]
    assert selected[-1]["best"] == {"score": min(totals), "epoch": best["epoch"], "step": best["step"]}
    assert checkpoint.load_best(run.checkpoints, pytest.fail).score == min(totals)


def test_a_collapse_of_the_diversity_goes_back_to_the_best_epoch(data, tmp_path, monkeypatch):
    """Not in the second epoch, as the best so far, the first, was no more diverse; in the fourth, 0.2 after 0.9."""
    totals, diversities = iter([10.0, 14.0, 9.0, 11.0]), iter([0.1, 0.2, 0.9, 0.2])
    monkeypatch.setattr(assembly.Scorer, "__call__", lambda *_: scored(next(totals)))
    monkeypatch.setattr(assembly.DiversityMeter, "__call__", lambda *_: Diversity(pairs=next(diversities), nearest=0.5))
    run = train(data, tmp_path, *ROLLBACK, "training.rollback.diversity_below=0.5", "training.epochs=4")
    (record,) = recorded(run.metrics_file, "rollback")
    assert (record["step"], record["to_step"]) == (60, 45)
    assert (
        "a diversity of 0.2 of generated samples after epoch 4 (training.rollback.diversity_below: 0.5)"
        in (record["reason"])
    )
    assert [e["collapse"]["diversity"] for e in epochs(run)] == [0.1, 0.2, 0.9, 0.2]
    assert final_arrays(run).meta["best"]["diversity"] == 0.9


def test_an_epoch_of_bad_steps_alone_has_no_losses(data, tmp_path, monkeypatch):
    tiny.spoil(monkeypatch, lambda step: 15 <= step < 30)
    run = train(data, tmp_path, "training.rollback.limit=15")
    assert epochs(run)[1]["losses"] == {"discriminator": None, "generator": None}
    assert final_arrays(run).meta["rollbacks"] == 15


def test_another_global_batch_is_announced_and_one_that_is_fixed_is_kept(data, tmp_path, capsys):
    train(data, tmp_path / "1", "training.epochs=1", "training.global_batch_size=6")
    run = RunDirectory(tmp_path / "1")
    assert final_arrays(run).meta["under_way"]["global_batch"] == 6
    assert final_arrays(run).step == 10
    assert "global batch" not in capsys.readouterr().out
    train(data, tmp_path / "2", "training.epochs=1")
    shutil.copytree(tmp_path / "2", tmp_path / "3")
    for folder, before, now in (("2", 8, 4), ("3", 4, 4)):
        path = checkpoint.path_of(RunDirectory(tmp_path / folder).checkpoints, 15)
        stored = checkpoint.load(path)
        meta = {**stored.meta, "under_way": {**stored.meta["under_way"], "global_batch": before}}
        checkpoint.save(path.parent, stored.step, stored.arrays, meta, stored.score)
        train(data, tmp_path / folder)
        said = f"the global batch was {before} and is {now}" in capsys.readouterr().out
        assert said == (before != now)


FULL = r"(?i)no space left on device|MB are needed and .* MB are free"


@pytest.mark.parametrize("pages", [0, 4, *(pytest.param(n, marks=pytest.mark.faults) for n in (1, 2, 3, 6, 8, 12, 16))])
def test_a_disk_that_fills_up_stops_the_run_in_one_line_and_nothing_is_lost(data, reference, disk, pages):
    """Whatever is written when the space ends: records, TensorBoard's, samples, a checkpoint."""
    folder = disk.path / "run"
    with pytest.raises(Interrupted):
        train(data, folder, stop=tiny.StopAt(7))
    disk.fill(left=pages)
    with pytest.raises(HpcganError, match=FULL) as error:
        train(data, folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    assert error.value.kind == "environment"
    disk.empty()
    assert_same_end(train(data, folder), reference)


def test_a_beginning_that_fails_has_an_end_that_says_whose_failure_it_was(data, tmp_path):
    (tmp_path / "tensorboard").write_text("no folder")
    with pytest.raises(HpcganError, match="tensorboard: cannot write") as error:
        train(data, tmp_path)
    (end,) = recorded(RunDirectory(tmp_path).metrics_file, "end")
    assert (end["outcome"], end["failure"]) == (
        "failed", {"kind": "environment", "text": str(error.value), "rank": None}
    )  # fmt: skip
    assert attempt_state(RunDirectory(tmp_path)) == "failed"


def test_a_disk_without_room_for_checkpoints_is_refused_at_the_start(data, disk):
    disk.fill(left=2)
    with pytest.raises(
        InputError, match=r"about [\d.]+ MB are needed and [\d.]+ MB are free; make room for checkpoints"
    ):
        train(data, disk.path / "run")
    assert not (disk.path / "run").exists()
    disk.empty()


def test_a_test_split_that_is_missing_is_told_of_at_the_start(tmp_path, capsys):
    folder = tiny.write_data(tmp_path / "data")
    (folder / "test.h5").rename(tmp_path / "test.h5")
    train(folder, tmp_path / "run", "training.epochs=1")
    assert "test.h5: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["samples", "checkpoint"])
def test_a_disk_that_is_full_when_an_epoch_ends(data, reference, disk, monkeypatch, what):
    owner, name = {"samples": (RpvProblem, "writer"), "checkpoint": (checkpoint, "save")}[what]
    whole, folder = getattr(owner, name), disk.path / "run"

    def filling(*args, **kwargs):
        disk.fill()
        return whole(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, filling)
        with pytest.raises(HpcganError, match=FULL) as error:
            train(data, folder)
    assert str(folder) in str(error.value)
    assert error.value.kind == "environment"
    disk.empty()
    assert epochs(train(data, folder)) == epochs(reference)


@pytest.mark.parametrize(
    ("split", "value", "message"),
    [("train", np.nan, "train.h5.*not finite"), ("val", -1.0, "val.h5.*negative")],
)
def test_spoiled_data_are_refused_with_nothing_written(tmp_path, split, value, message):
    folder = tiny.write_data(tmp_path / "data")
    with h5py.File(folder / f"{split}.h5", "r+") as file:
        file["all_events/hist"][5, 3, 3] = value
    with pytest.raises(InputError, match=message):
        train(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fewer_events_than_a_batch(data, tmp_path):
    with pytest.raises(InputError, match=r"train.h5: 60 events are fewer than a global batch of 64"):
        train(data, tmp_path / "run", "training.batch_size=64")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_cut_into_equal_parts(data, tmp_path):
    with pytest.raises(InputError, match=r"training.accumulation: 3 parts of a rank's batch of 4"):
        train(data, tmp_path / "run", "training.accumulation=3")
    assert not (tmp_path / "run").exists()


def test_a_second_training_in_the_same_directory_is_refused(data, tmp_path):
    from hpcgan.runs.lease import Lease

    lease = Lease(RunDirectory(tmp_path))
    with pytest.raises(HpcganError, match="is at work in it"):
        train(data, tmp_path)
    lease.release("done")
