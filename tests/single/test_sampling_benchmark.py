"""The arithmetic, table and plot of benchmarks/sampling.py."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def sampling():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        spec = importlib.util.spec_from_file_location("benchmark_sampling", BENCHMARKS / "sampling.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module
        for name in ("benchmark_sampling", "together"):
            sys.modules.pop(name, None)


def test_batch_sizes(sampling):
    assert sampling.batch_sizes(4096) == [1, 4, 16, 64, 256, 1024, 4096]
    assert sampling.batch_sizes(100) == [1, 4, 16, 64, 100]
    assert sampling.batch_sizes(1) == [1]


def test_a_row_by_hand(sampling):
    # Batches of 64 in 32, 16 and 64 ms: 500, 250 and 1000 us a sample; 2,000 samples/s at the median.
    row = sampling.row(2, 64, [0.032, 0.016, 0.064], simulation=400.0, reference=2.5)
    assert (row.us_per_sample, row.us_min, row.us_max) == pytest.approx((500.0, 250.0, 1000.0))
    assert (row.samples_per_s, row.samples_per_s_core) == pytest.approx((2000.0, 1000.0))
    assert row.over_simulation == pytest.approx(5.0)
    assert row.over_reference == pytest.approx(400.0)  # 2,000 against 2.5 on each of two cores
    alone = sampling.row(1, 1, [0.5], None, None)
    assert (alone.samples_per_s, alone.over_simulation, alone.over_reference) == (2.0, None, None)


def test_table_and_plot(sampling, tmp_path):
    rows = [
        sampling.row(cores, size, [size / (100.0 * cores)], 50.0 * cores, 2.5) for cores in (1, 2) for size in (1, 4)
    ]
    sampling.write(tmp_path, rows, {1: 50.0, 2: 100.0}, ("Geant4", 2.5), {"title": "rpv: x", "problem": "rpv"})
    with (tmp_path / "sampling.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(line["cores"], line["batch_size"]) for line in table] == [("1", "1"), ("1", "4"), ("2", "1"), ("2", "4")]
    assert {float(line["over_simulation"]) for line in table} == {2.0}
    assert {float(line["over_reference"]) for line in table} == {40.0}
    said = json.loads((tmp_path / "sampling.json").read_text())
    assert said["rows"][3]["samples_per_s"] == pytest.approx(200.0)
    assert said["simulation_samples_per_s"] == {"1": 50.0, "2": 100.0}
    assert said["reference"] == {"name": "Geant4", "samples_per_s_core": 2.5}
    assert (tmp_path / "sampling.png").read_bytes().startswith(b"\x89PNG")
    figure = sampling.figure(rows, {1: 50.0}, ("Geant4", 2.5), "title")
    lines = {text.get_text() for text in figure.legends[0].get_texts()}
    assert lines == {
        "generator, 1 core", "generator, 2 cores", "simulation, 1 core", "Geant4, 1 core", "Geant4, 2 cores",
    }  # fmt: skip
    levels = sorted(line.get_ydata()[0] for line in figure.axes[0].get_lines() if line.get_linestyle() in ("--", ":"))
    assert levels == pytest.approx([20_000.0, 200_000.0, 400_000.0])


def test_a_class_of_jets_is_simulated_by_itself(sampling, monkeypatch):
    from hpcgan.problems.jet_images import generate, processes

    blocks = []
    monkeypatch.setattr(processes, "tables", lambda seed: "")
    monkeypatch.setattr(generate.JetImages, "make", lambda self, block, advance: blocks.append(block))
    for condition, names, number in (
        ({"signal": 1.0}, ["wprime"], 7), ({"signal": 0.0}, ["dijets"], 7), ({}, ["dijets", "wprime"], 14),
    ):  # fmt: skip
        blocks.clear()
        assert sampling.SIMULATIONS["jets"](None, None, 0, condition)(7) == number
        assert sorted(block.process.name for block in blocks) == names


def test_every_problem_has_a_simulation(sampling):
    from hpcgan.problems.discovery import PROBLEMS

    assert set(PROBLEMS.names()) <= set(sampling.SIMULATIONS)
    assert set(sampling.BY_CONDITION) <= set(PROBLEMS.names())
