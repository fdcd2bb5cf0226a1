"""Jet images from PYTHIA: classes, selection, blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcgan.data.generators import make_data_set
from hpcgan.data.schema import Sample
from hpcgan.data.storage import SPLITS, Target
from hpcgan.errors import HpcganError, InputError
from hpcgan.physics import pythia
from hpcgan.problems.jet_images import files, generate, processes, trimming, veto, windows
from hpcgan.problems.jet_images.generate import JetGenerator, JetImages, in_turns


class SmallBlocks(JetImages):
    """Two blocks of either class in a dozen of images."""

    block = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("jets") / "one"
    assert make_data_set(SmallBlocks(13, seed=5), out)
    return out


def whole(folder: Path) -> Sample:
    parts = []
    for split in SPLITS:
        files.validate(folder / f"{split}.h5")
        with files.open_jets(folder / f"{split}.h5") as file:
            parts.append(file.read())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_every_jet_passes_and_classes_take_turns(folder: Path) -> None:
    sample = whole(folder)
    assert set(sample) == {"image", "signal", *files.COLUMNS}
    assert sample["signal"].tolist() == [1, 0] * 6 + [1]
    assert ((sample["jet_pt"] > 250) & (sample["jet_pt"] < 300)).all()
    assert ((sample["jet_mass"] > 60) & (sample["jet_mass"] < 100)).all()
    assert (np.abs(sample["jet_eta"]) < 2).all()
    assert (np.diff([sample[f"tau_{i}"] for i in (1, 2, 3)], axis=0) <= 1e-6).all()  # more axes, smaller distances
    assert len(np.unique(sample["jet_pt"])) == 13


def test_the_image_is_of_the_jet(folder: Path) -> None:
    """Interpolation changes the summed pT by some percent, and the second subjet is below."""
    sample = whole(folder)
    assert sample["image"].sum(axis=(1, 2)) == pytest.approx(sample["jet_pt"], rel=0.4)
    assert (sample["image"][:, 13:].sum(axis=(1, 2)) > sample["image"][:, :12].sum(axis=(1, 2))).mean() > 0.7
    assert (sample["image"][:, :, 13:].sum(axis=(1, 2)) >= sample["image"][:, :, :12].sum(axis=(1, 2))).all()


def test_processes_change_no_byte(folder: Path, tmp_path: Path) -> None:
    make_data_set(SmallBlocks(13, seed=5), tmp_path, jobs=2)
    for split in SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (folder / f"{split}.h5").read_bytes()


def test_the_files_say_what_passed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(folder / "test.h5") as file:
        attributes = dict(file.attrs)
    assert attributes["problem"] == "jets"
    for name in ("wprime", "dijets"):
        events, efficiency = attributes[f"{name}_events"], attributes[f"{name}_efficiency"]
        assert events >= processes.BATCH_EVENTS
        assert events * efficiency == pytest.approx(round(events * efficiency))
        assert 6 / events <= efficiency < 1
    assert attributes["wprime_efficiency"] > attributes["dijets_efficiency"]
    assert "Beams:eCM = 14000.0" in json.loads(attributes["settings"])["pythia_settings"]


def test_the_share_that_passes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def batch(n: int, passed: int, events: int) -> generate.Selection:
        columns = {name: np.zeros(n, np.float32) for name in (files.SIGNAL, *files.COLUMNS)}
        return generate.Selection({files.IMAGE: np.zeros((n, 25, 25), np.float32), **columns}, events, passed)

    blocks = [generate.Block(process, i, 3, "") for i in range(2) for process in generate.CLASSES]
    results = [batch(3, 4, 10), batch(3, 3, 100), batch(3, 5, 20), batch(3, 5, 300)]
    data_set = JetImages(12)
    with data_set.writer(Target(tmp_path, {"train": 12}, {})) as writer:
        data_set.write(writer, iter(zip(blocks, results, strict=True)))
    # Of binomial numbers: 9 of 30 and 8 of 400, sqrt(k (1 - k / n)) / n.
    assert capsys.readouterr().err.splitlines() == [
        "wprime: 9 of 30 events pass, 30.00% +- 8.37%",
        "dijets: 8 of 400 events pass, 2.00% +- 0.70%",
    ]


def test_a_block_depends_on_seed_class_and_number() -> None:
    seeds = {
        processes.pythia_seed(seed, process.describe(), index)
        for seed in (1, 2)
        for process in generate.CLASSES
        for index in range(5)
    }
    assert len(seeds) == 20
    assert all(1 <= seed <= pythia.SEED_MAX for seed in seeds)


@pytest.mark.parametrize("n", [10, 11, 499, 500, 501, 1003])
def test_half_of_the_images_are_of_either_class(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "tables", lambda seed: "")
    tasks = JetImages(n).tasks()
    sizes = [sum(task.n for task in tasks if task.process.label == label) for label in (1, 0)]
    assert sizes == [n - n // 2, n // 2]
    assert [task.index for task in tasks] == sorted(task.index for task in tasks)
    assert len({(task.process.label, task.index) for task in tasks}) == len(tasks)
    assert max(task.n for task in tasks) <= JetImages.block


def test_taking_turns() -> None:
    samples = [{"signal": np.full(n, label), "image": np.arange(n) + 10 * label} for label, n in ((1, 3), (0, 2))]
    joined = in_turns(samples)
    assert joined["signal"].tolist() == [1, 0, 1, 0, 1]
    assert joined["image"].tolist() == [10, 0, 11, 1, 12]


def test_the_windows() -> None:
    """A jet at each border of the selection, and one within."""
    pt, mass, eta = np.array([(275, 80, 0), (249.9, 80, 0), (300.1, 80, 0), (275, 59.9, 0), (275, 100.1, 0),
                              (275, 80, 2.01), (275, 80, -1.99)]).T  # fmt: skip
    pz = pt * np.sinh(eta)
    momentum = np.stack([pt, np.zeros(7), pz, np.sqrt(pt**2 + pz**2 + mass**2)], axis=1)
    nowhere = np.zeros((7, 2))
    some = trimming.TrimmedJets(momentum, nowhere, nowhere, None)
    assert windows.passes(some).tolist() == [True, False, False, False, False, False, True]


def test_too_few_and_other_options() -> None:
    with pytest.raises(InputError, match="9 images: at least 10 are needed"):
        make_data_set(JetImages(9), "nowhere")
    assert JetGenerator(rotation="cells").data_set(20, 3) == JetImages(20, 3, "cells")
    assert JetImages(20, 3).settings() != JetImages(20, 3, "cells").settings()


def test_a_process_without_such_jets_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "MOST_EVENTS", 5)
    block = generate.Block(processes.SIGNAL, 0, 1, "")
    empty = pythia.Particles(np.zeros(0, int), np.zeros(0, int), (np.zeros(0),) * 4, (), 10)
    batch = processes.Batch(empty, 10)
    monkeypatch.setattr(processes, "events", lambda *_: iter([batch] * 9))
    with pytest.raises(HpcganError, match="0 wprime jets that pass in 10 events"):
        JetImages(10).make(block, lambda n: None)


def test_the_veto_loses_no_jet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that are only watched: each whose jet passes would have gone on, and most others would not."""
    hooks = veto.hooks()
    answers: list[bool] = []
    stop = type(hooks).doVetoPT

    def watch(self: Any, place: int, event: Any) -> bool:
        answers.append(not stop(self, place, event))
        return False

    monkeypatch.setattr(type(hooks), "doVetoPT", watch)
    passed, goes_on = [], []
    for particles in pythia.events(processes.BACKGROUND, 3, 400, 1, processes.tables(1), hooks):
        sample = generate.sample_of(particles, processes.BACKGROUND.label, "cells")
        passed.append(bool(len(sample["signal"])))
        goes_on.append(answers[-1])  # PYTHIA begins an event anew now and then, when it fails
    assert len(goes_on) == 400 <= hooks.events == len(answers) < 410
    assert 2 <= sum(passed) < 20
    assert all(goes_on[number] for number in np.flatnonzero(passed))
    assert 0.1 < np.mean(goes_on) < 0.3


def test_events_that_were_stopped_are_counted_and_do_not_come() -> None:
    batches = processes.events(processes.BACKGROUND, 4, processes.tables(1))
    first, second = next(batches), next(batches)
    for batch in (first, second):
        assert batch.particles.n_events == processes.BATCH_EVENTS
        assert 3 * processes.BATCH_EVENTS < batch.begun < 15 * processes.BATCH_EVENTS
    signal = next(processes.events(processes.SIGNAL, 4, processes.tables(1)))
    assert signal.begun == signal.particles.n_events == processes.BATCH_EVENTS
