"""`hpcgan evaluate` and `hpcgan generate`."""

import argparse
import resource
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import pytest
import tiny

from hpcgan.commands import evaluate, generate
from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation import sample_file
from hpcgan.evaluation.compare import EvaluationOptions
from hpcgan.evaluation.distances import Options
from hpcgan.problems.detector_images.figures import ImageFigures
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.runs.directory import RunDirectory


def parse(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers())
    return parser.parse_args([module.__name__.rpartition(".")[2], *map(str, arguments)])


class Sampler:
    """Sample i of seed s is an image full of 1000 s + i."""

    problem = RpvProblem(RpvModel())
    batch_size = 6
    checkpoint = SimpleNamespace(step=40, epoch=3, score=None)

    def __init__(self):
        self.asked = []

    def sample(self, n, seed, first=0):
        assert first % self.batch_size == 0
        self.asked.append((first, n))
        values = 1000.0 * seed + first + np.arange(n, dtype=np.float32)
        return {"hist": np.broadcast_to(values[:, None, None], (n, 64, 64)).astype(np.float32)}


@pytest.fixture
def sampler(monkeypatch):
    made = Sampler()
    monkeypatch.setattr(RunDirectory, "exists", True)
    monkeypatch.setattr(generate, "_read_run", lambda run: (tiny.config(Path("data")), made.problem))
    module = ModuleType("hpcgan.evaluation.sampling")
    module.load_sampler = lambda run, checkpoint, warn, comm, batch_size: made
    monkeypatch.setitem(sys.modules, "hpcgan.evaluation.sampling", module)
    monkeypatch.setattr(sample_file, "ROUND_BYTES", 20 * 64 * 64 * 4)  # 18 images, three batches
    return made


@pytest.mark.parametrize("n", [1, 18, 19, 50])
def test_generate_in_pieces(sampler, tmp_path, n, capsys):
    out = tmp_path / "x.h5"
    assert generate.run(parse(generate, "RUN", "-n", n, "--out", out, "--seed", 2)) == 0
    assert sampler.asked == [(first, min(18, n - first)) for first in range(0, n, 18)]
    with h5py.File(out) as file:
        group = file["all_events"]
        assert group["hist"][:, 3, 5].tolist() == [2000.0 + i for i in range(n)]
        assert group["hist"].attrs["units"] == "MeV"
        assert group.attrs["events"] == n
        assert {name: group.attrs[name] for name in ("run", "step", "epoch", "seed")} == {
            "run": "RUN",
            "step": 40,
            "epoch": 3,
            "seed": 2,
        }
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]
    assert f"{n} events from epoch 3" in capsys.readouterr().out


def test_generate_refuses_to_overwrite(sampler, tmp_path):
    out = tmp_path / "x.h5"
    out.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"x.h5: exists already.*--force"):
        generate.run(parse(generate, "RUN", "-n", 3, "--out", out))
    assert out.read_bytes() == b"precious"
    assert sampler.asked == []
    generate.run(parse(generate, "RUN", "-n", 3, "--out", out, "--force"))
    assert h5py.is_hdf5(out)


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(sampler, tmp_path):
    out = tmp_path / "x.h5"
    out.write_bytes(b"precious")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # the kernel's refusal stands for a full disk
        with pytest.raises(HpcganError, match=r"writing failed|cannot be written"):
            generate.run(parse(generate, "RUN", "-n", 50, "--out", out, "--force"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert out.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-n is missing: give the number of events"),
        (["-n", "1", "--conditions", "c.npy"], "c.npy: no such file"),
        (["-n", "1", "--conditions", "c.txt"], r"c.txt: conditions are read from files that end in .h5, .csv, .npy"),
        (["-n", "1", "--out", "x.hdf5"], "ends in .h5"),
    ],
)
def test_generate_bad_arguments(sampler, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        generate.run(parse(generate, "RUN", "--out", "x.h5", *arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a run directory, or --real"),
        (["RUN", "--real", "a", "--fake", "b"], "give either a run directory, or --real"),
        (["--real", "a"], "--fake is missing"),
        (["--fake", "a"], "--real is missing"),
        (["RUN", "--problem", "rpv"], "--problem goes with --real and --fake"),
        (["--real", "a", "--fake", "b", "--split", "val"], "--split goes with a run directory"),
        (["--real", "a", "--fake", "b", "--checkpoint", "best"], "--checkpoint goes with a run directory"),
        (["--real", "a.h5", "--fake", "b.h5"], "a.h5: no such file"),
        (["RUN", "--classifier-units", "64"], "--classifier-units goes with --classifier"),
        (
            ["RUN", "--classifier", "images", "--classifier-epochs", "2"],
            "--classifier-epochs goes with --classifier features",
        ),
        (["RUN", "--classifier", "none", "--classifier", "cells"], "--classifier none goes with no other"),
    ],
)
def test_evaluate_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate.run(parse(evaluate, *arguments))


def test_a_classifier_without_tensorflow_is_refused_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match=r"--classifier needs TensorFlow: pip install 'hpcgan\[train\]'"):
        evaluate.run(parse(evaluate, "--real", "a.h5", "--fake", "b.h5", "--classifier", "both"))


def test_a_folder_without_a_run(tmp_path):
    for command in (evaluate, generate):
        options = ["-n", 1, "--out", tmp_path / "x.h5"] if command is generate else []
        with pytest.raises(InputError, match="nothing: not a run directory"):
            command.run(parse(command, tmp_path / "nothing", *options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few_repetitions")
def test_evaluate_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ImageFigures, "compare", lambda self, real, fake, weights: [])
    folder = tiny.write_data(tmp_path / "data", 100)
    arguments = [
        "--real",
        folder / "train.h5",
        "--fake",
        folder / "test.h5",
        "--events",
        20,
        "--out",
        tmp_path / "out",
    ]
    assert evaluate.run(parse(evaluate, *arguments)) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("score ")
    for text in (
        "jet multiplicity",
        "summed jet mass",
        "jet pt",
        "real against real at N=20: median",
        "report.html",
    ):
        assert text in shown.out
    assert "reading" in shown.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def test_evaluate_passes_the_options_of_a_run_on(monkeypatch):
    from hpcgan.evaluation import report

    seen = {}
    monkeypatch.setattr(report, "evaluate_run", lambda run, chosen, **more: seen.update(more, run=run, options=chosen))
    monkeypatch.setattr(report, "summary", lambda made: "done")
    options = [
        "--checkpoint",
        "latest",
        "--split",
        "val",
        "--samples",
        2,
        "--events",
        100,
        "--out",
        "somewhere",
        "--data",
        "elsewhere",
        "--no-distances",
        "--classifier",
        "both",
        "--classifier-units",
        64,
    ]
    evaluate.run(parse(evaluate, "runs/x", *options))
    del seen["log"]
    assert seen == {
        "data": Path("elsewhere"),
        "run": Path("runs/x"),
        "checkpoint": "latest",
        "split": "val",
        "options": EvaluationOptions(
            samples=2,
            events=100,
            distances=Options(distances=False, classifier=("features", "cells"), units=64, epochs=50),
        ),
        "out": Path("somewhere"),
    }
    evaluate.run(parse(evaluate, "runs/x"))
    assert seen["options"].events is None
    assert seen["options"].distances == Options(distances=True, classifier=None, units=2048, epochs=50)
    evaluate.run(parse(evaluate, "runs/x", "--classifier", "cells", "--classifier-epochs", 7))
    assert seen["options"].distances == Options(classifier=("cells",), epochs=7)
    for words, inputs in ((["none"], ()), (["images", "both"], ("features", "cells", "images"))):
        evaluate.run(parse(evaluate, "runs/x", *(part for word in words for part in ("--classifier", word))))
        assert seen["options"].distances == Options(classifier=inputs)
