"""The Markdown table of several reports: benchmarks/distances_table.py."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from hpcgan.errors import InputError

FILE = Path(__file__).parents[2] / "benchmarks" / "distances_table.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_distances_table", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop(spec.name)


def area(value, spread=None):
    return {
        "auc": {"value": value, "error": 0.01},
        "auc_spread": spread,
        "null": {"auc": {"value": 0.5, "error": 0.02}},
    }


def distance(value):
    return {"mean": value, "std": 0.25, "null": {"mean": 0.01, "std": 0.002}}


def report(fpd=1.5, auc=0.8):
    tests = [
        {"trained_on": first, "tested_on": second, "auc": {"value": value, "error": 0.01}, "auc_spread": 0.005}
        for first, second, value in (("real", "real", 0.9), ("generated", "real", auc), ("other_real", "real", 0.89))
    ]
    pair = {"first": {"kind": 0.0}, "second": {"kind": 1.0}, "tests": tests}
    mass = {
        "unit": "GeV", "ks": {"value": 0.125}, "wasserstein": 2.0, "wasserstein_error": 0.5, "separation": None,
        "reference": {"ks": 0.02, "wasserstein": 0.3, "separation": None},
        "score": {"mean": 12.0, "std": 1.0, "band": {"p95": 3.0}},
    }  # fmt: skip
    measured = {
        "numbers": {"fpd": distance(fpd)}, "memorisation": {"z": -0.5}, "classifier": {"images": area(auc, 0.03)},
        "between_conditions": {"pairs": [pair]},
    }  # fmt: skip
    of_point = {"numbers": {"fpd": distance(fpd)}, "memorisation": None, "classifier": {}}
    point = {"conditions": {"kind": 1.0}, "n": 50, "quantities": {"jet_mass": mass}, "sample_distances": of_point}
    judged = {**area(auc, 0.03), "null": {"value": 0.5, "error": 0.02}}
    return {
        "schema": "hpcgan.report", "problem": "classes", "band": {"n": 100, "pool": 400, "p95": 6.0},
        "against_band": {"mean": 20.0, "std": None}, "sample_distances": measured,
        "by_point": [{**point, "classifier": judged}],
        "measurements": {"mean_images": {"w": 0.25}, "mean_images_by_chance": {"w": 0.02}, "other": 1.0},
    }  # fmt: skip


def test_a_row_a_number_and_a_column_a_report(script):
    lines = script.table({"ours": report(), "theirs": report(3.0, 0.95)}).splitlines()
    assert lines[:2] == ["| events | number | real against real | ours | theirs |", "|---|---|---|---|---|"]
    assert lines[2:] == [
        "| all, N = 100 | score | 95% below 6 | 20 | 20 |",
        "| all, N = 100 | FPD | 0.01 ± 0.002 | 1.5 ± 0.25 | 3 ± 0.25 |",
        "| all, N = 100 | memorisation, z | 0 ± 1 | -0.5 | -0.5 |",
        "| all, N = 100 | AUC on images | 0.500 ± 0.020 | 0.800 ± 0.010, 0.030 | 0.950 ± 0.010, 0.030 |",
        "| kind=1, N = 50 | jet mass: -ln p | 95% below 3 | 12 ± 1 | 12 ± 1 |",
        "| kind=1, N = 50 | jet mass: KS | 0.02 | 0.125 | 0.125 |",
        "| kind=1, N = 50 | jet mass: Wasserstein [GeV] | 0.3 | 2 ± 0.5 | 2 ± 0.5 |",
        "| kind=1, N = 50 | jet mass: separation | – | – | – |",
        "| kind=1, N = 50 | FPD | 0.01 ± 0.002 | 1.5 ± 0.25 | 3 ± 0.25 |",
        "| kind=1, N = 50 | AUC on images | 0.500 ± 0.020 | 0.800 ± 0.010, 0.030 | 0.950 ± 0.010, 0.030 |",
        "| w | mean images: share that differs | 0.02 | 0.25 | 0.25 |",
        "| kind=0 and kind=1 | AUC of classes, trained on real, tested on real | 0.890 ± 0.010, 0.005 "
        "| 0.900 ± 0.010, 0.005 | 0.900 ± 0.010, 0.005 |",
        "| kind=0 and kind=1 | AUC of classes, trained on generated, tested on real | 0.890 ± 0.010, 0.005 "
        "| 0.800 ± 0.010, 0.005 | 0.950 ± 0.010, 0.005 |",
    ]


def test_what_a_report_lacks_is_empty(script):
    bare = copy.deepcopy(report())
    bare["sample_distances"], bare["by_point"], bare["measurements"] = None, [], {}
    lines = script.table({"bare": bare, "ours": report()}).splitlines()
    assert "| all, N = 100 | FPD | 0.01 ± 0.002 |  | 1.5 ± 0.25 |" in lines
    assert len(lines) == len(script.table({"ours": report()}).splitlines())


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"problem": "others"}, "b: problem others, but a has classes: these cannot be compared"),
        ({"band": {"n": 50, "pool": 400, "p95": 6.0}}, "b: N 50, but a has 100"),
        ({"band": {"n": 100, "pool": 300, "p95": 6.0}}, "b: number of real events 300, but a has 400"),
    ],
)
def test_what_cannot_be_compared_is_refused(script, part, message):
    with pytest.raises(InputError, match=message):
        script.table({"a": report(), "b": {**report(), **part}})


def test_the_command(script, tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps(report()))
    assert script.main([f"ours={tmp_path / 'report.json'}"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("| ours |")
    (tmp_path / "other.json").write_text("[1]")
    for name in ("other.json", "none.json"):
        assert script.main([f"ours={tmp_path / name}"]) == 2
        assert f"{name}: no report of hpcgan evaluate" in capsys.readouterr().err
