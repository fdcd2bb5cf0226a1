"""SavedModels of every problem, run by plain TensorFlow in a process that cannot import hpcgan."""

import json
import os
import subprocess
import sys
from pathlib import Path

import needs
import numpy as np
import pytest
import tiny

tf = needs.tensorflow()

from export_cases import CASES, IMAGE, N, conditions_of, make_run  # noqa: E402

from hpcgan.commands.cli import main  # noqa: E402
from hpcgan.data.schema import TensorSpec  # noqa: E402
from hpcgan.errors import HpcganError, InputError  # noqa: E402
from hpcgan.evaluation import export as exporting  # noqa: E402
from hpcgan.evaluation.conditions import each  # noqa: E402
from hpcgan.evaluation.sampling import load_sampler  # noqa: E402
from hpcgan.problems.calorimeter.shares import Shares  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvProblem  # noqa: E402
from hpcgan.problems.detector_images.spectrum import Spectrum  # noqa: E402

PLAIN = """
import json, sys
sys.modules["hpcgan"] = None  # as where it is not installed
import numpy as np, tensorflow as tf
for folder in json.loads(sys.argv[1]):
    with np.load(folder + "/sent.npz") as sent:
        model = tf.saved_model.load(folder + "/model/1")
        made = model.signatures["serving_default"](**{name: tf.constant(sent[name]) for name in sent.files})
    np.savez(folder + "/made.npz", **{name: tensor.numpy() for name, tensor in made.items()})
assert not [name for name in sys.modules if name.startswith("hpcgan.")]
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """For each case: what plain TensorFlow makes of a model and a request, and what the run makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Spectrum, "samples", 4 * N)
        patch.setattr(Shares, "samples", 4 * N)
        yield _exported(tmp_path_factory)


def _exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    data = tiny.write_conditional_data(folder / "data")
    found = {}
    for number, name in enumerate(CASES):
        place = folder / str(number)
        place.mkdir()
        run = make_run(place / "run", name, data)
        made = load_sampler(run.path)
        said = exporting.export(made, run.path, place / "model" / "1")
        asked = conditions_of(made.problem)
        sent = exporting.request(made, N, 5, asked)
        np.savez(place / "sent.npz", **sent)
        expected = load_sampler(run.path, batch_size=N).sample(N, 5, conditions=each(asked) if asked else None)
        found[name] = (place, made, said, expected)
    folders = json.dumps([str(place) for place, *_ in found.values()])
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, folders],
        capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("name", CASES)
def test_plain_tensorflow_makes_what_the_run_makes(exported, name):
    place, made, _, expected = exported[name]
    with np.load(place / "made.npz") as archive:
        given = dict(archive)
    assert given.keys() == expected.keys() - set(made.problem.conditions)
    for tensor, values in given.items():
        wanted = expected[tensor]
        assert values.dtype == wanted.dtype
        np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
        assert len({row.tobytes() for row in values}) == N
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", CASES)
def test_the_description_is_that_of_the_signature(exported, name):
    place, made, said, expected = exported[name]
    written = json.loads((place / "model" / "1" / "assets.extra" / "hpcgan.json").read_text())
    assert written == said
    assert (written["problem"], written["step"], written["epoch"], written["validation_score"]) == (
        made.problem.name, 40, 3, 2.5,
    )  # fmt: skip
    assert written["noise_dim"] == written["inputs"]["noise"]["shape"][1] == made.problem.noise_dim
    assert written["weights"].endswith("_average")
    for tensor, spec in written["outputs"].items():
        assert [N, *spec["shape"][1:]] == list(expected[tensor].shape)
        assert spec["unit"] == made.problem.schema[tensor].unit
    with np.load(place / "sent.npz") as sent:
        assert set(sent.files) == written["inputs"].keys()
        for tensor in sent.files:
            assert written["inputs"][tensor]["dtype"] == str(sent[tensor].dtype)
            assert written["inputs"][tensor]["shape"] == [None, *sent[tensor].shape[1:]]


def test_masses_are_described_with_unit_and_range(exported):
    _, _, said, _ = exported["conditional"]
    assert said["inputs"]["mGlu"] == {
        "shape": [None], "dtype": "float32", "unit": "GeV", "trained_range": [1400.0, 1800.0],
    }  # fmt: skip
    assert said["inputs"]["symmetries"]["operations"] == IMAGE
    assert exported["rpv"][2]["inputs"] == {
        "noise": {"shape": [None, 3], "dtype": "float32", "distribution": "standard normal"}
    }


def test_a_generator_that_comes_with_the_package_says_its_ranges_without_its_training_events(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sampler = load_sampler(Path("pretrained:conditional"))
    masses = {name: tf.TensorSpec([None], tf.float32) for name in ("mGlu", "mNeu")}
    inputs = exporting.describe(sampler, Path("pretrained:conditional"), masses, {})["inputs"]
    assert [inputs[name]["trained_range"] for name in ("mGlu", "mNeu")] == [[1400.0, 1800.0], [850.0, 850.0]]


def test_batch_statistics_are_said(exported):
    assert exported["rpv of batch statistics"][2]["statistics"] == "batch"
    assert exported["rpv of batch statistics"][2]["batch_size"] == N
    assert exported["rpv"][2]["statistics"] == "moving"
    assert "batch_size" not in exported["rpv"][2]


def test_batches_of_any_size_and_the_samples_of_generate(exported):
    """One sample at a time gives the same as all of them, and with the seed's numbers what `hpcgan.generate` gives."""
    place, made, _, _ = exported["detector"]
    function = tf.saved_model.load(str(place / "model" / "1")).signatures["serving_default"]
    sent = exporting.request(made, 2 * N + 1, 1)
    whole = function(**{k: tf.constant(v) for k, v in sent.items()})["hist"].numpy()
    single = function(**{k: tf.constant(v[8:9]) for k, v in sent.items()})["hist"].numpy()
    np.testing.assert_allclose(single[0], whole[8], rtol=1e-4, atol=1e-6 * whole.max())
    sampler = load_sampler(place / "run")
    assert sampler.batch_size == N
    made_here = sampler.sample(2 * N + 1, 1)["hist"]
    np.testing.assert_allclose(whole, made_here, rtol=1e-4, atol=1e-6 * whole.max())
    assert function(**{k: tf.constant(v[:0]) for k, v in sent.items()})["hist"].shape == (0, 64, 64)


def test_the_command(exported, tmp_path, capsys):
    place = exported["rpv of batch statistics"][0]
    out = tmp_path / "models" / "rpv" / "1"
    assert main(["export", str(place / "run"), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert f"{out}: rpv, epoch 3, generator_average, signature serving_default" in shown.out
    assert "input  noise (n, 3) float32 standard normal" in shown.out
    assert "output hist (n, 64, 64) float32 MeV" in shown.out
    assert f"warning: this run generates with the statistics of batches of {N}" in shown.err
    assert [p.name for p in out.parent.iterdir()] == ["1"]
    assert main(["export", str(place / "run"), "--out", str(out)]) == 2
    assert "1: exists already; give --out a folder that does not" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "not a run directory" in capsys.readouterr().err
    blocked = tmp_path / "file"
    blocked.write_text("precious")
    assert main(["export", str(place / "run"), "--out", str(blocked / "1")]) == 2
    assert f"{blocked} is not a folder" in capsys.readouterr().err
    assert blocked.read_text() == "precious"


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(exported, tmp_path, monkeypatch):
    made = exported["rpv"][1]
    monkeypatch.setattr(RpvProblem, "decode", lambda self, sample: {"hist": np.arctan(sample["hist"])})
    with pytest.raises(HpcganError, match=r"problem 'rpv' cannot be exported: np\.arctan is not known"):
        exporting.export(made, Path("run"), tmp_path / "1")
    # Code that does something else on an array than on a tensor is found out by comparison.
    monkeypatch.setattr(
        RpvProblem, "decode",
        lambda self, sample: {"hist": sample["hist"] * np.float32(1.0 + isinstance(sample["hist"], np.ndarray))},
    )  # fmt: skip
    with pytest.raises(HpcganError, match="the model gives another 'hist'"):
        exporting.export(made, Path("run"), tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_a_condition_may_not_have_the_name_of_the_noise(exported, monkeypatch, tmp_path):
    made = exported["rpv"][1]
    schema = {**made.problem.schema, "noise": TensorSpec((), role="condition")}
    monkeypatch.setattr(RpvProblem, "schema", property(lambda self: schema))
    with pytest.raises(HpcganError, match="a condition is named 'noise'"):
        exporting.export(made, Path("run"), tmp_path / "1")


def test_an_existing_folder_is_never_touched(exported, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        exporting.export(exported["rpv"][1], Path("run"), tmp_path)
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists already"):
        exporting.export(exported["rpv"][1], Path("run"), dangling)
