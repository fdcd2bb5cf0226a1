"""ONNX models of every problem, run by ONNX Runtime in a process that can import neither hpcgan nor TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import documents
import needs
import numpy as np
import one_rank
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

tf = needs.tensorflow()
needs.found("onnx", "tf2onnx", "onnxruntime")

from export_cases import CASES, N, conditions_of, make_run  # noqa: E402

from hpcgan import rng  # noqa: E402
from hpcgan.commands.cli import main  # noqa: E402
from hpcgan.errors import HpcganError  # noqa: E402
from hpcgan.evaluation import onnx_export, onnx_par04, onnx_random  # noqa: E402
from hpcgan.evaluation.conditions import each  # noqa: E402
from hpcgan.evaluation.export import request  # noqa: E402
from hpcgan.evaluation.sampling import load_sampler  # noqa: E402
from hpcgan.networks.layers import Initializer  # noqa: E402
from hpcgan.networks.sharing import Logit  # noqa: E402
from hpcgan.networks.splits import ROWS, Grid, Split  # noqa: E402
from hpcgan.physics.calorimeter import PUBLISHED  # noqa: E402
from hpcgan.problems.calorimeter.mesh import mesh_of  # noqa: E402
from hpcgan.problems.calorimeter.shares import Shares  # noqa: E402
from hpcgan.problems.detector_images.spectrum import Spectrum  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
#: The others take long to convert; `--faults` has them.
QUICK = ("rpv", "conditional", "matched calogan", "arm by boxes", "calogan by likelihood")
DRAWN = ("conditional", "rpv")
CHOSEN = [name for name in CASES if name != "rpv in float64" and (one_rank.thorough or name in QUICK)]

PLAIN = """
import json, sys
sys.modules["hpcgan"] = sys.modules["tensorflow"] = None  # as where they are not installed
import numpy as np, onnxruntime
for model, sent, made in json.loads(sys.argv[1]):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(sent) as archive:
        fed = {tensor.name: archive[tensor.name] for tensor in session.get_inputs()}
    names = [tensor.name for tensor in session.get_outputs()]
    np.savez(made, **dict(zip(names, session.run(names, fed))))
"""


def run_plainly(tasks):
    """Have another process run models: (model, file of what is sent, file of what is made)."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, json.dumps([[str(path) for path in task] for task in tasks])],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """For each case: its folder, the run's sampler, the description, and what the run makes."""
    folder = tmp_path_factory.mktemp("onnx")
    data = tiny.write_conditional_data(folder / "data")
    found, tasks = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Spectrum, "samples", 4 * N)
        patch.setattr(Shares, "samples", 4 * N)
        for number, name in enumerate(CHOSEN):
            place = folder / str(number)
            place.mkdir()
            run = make_run(place / "run", name, data)
            made = load_sampler(run.path)
            said = onnx_export.export(made, run.path, place / "given")
            asked = conditions_of(made.problem)
            np.savez(place / "sent.npz", **request(made, N, 5, asked), seed=5, samples=N)
            expected = made.sample(N, 5, conditions=each(asked) if asked else None)
            kinds = ["given", *(["drawn"] if name in DRAWN else [])]
            if name in DRAWN:
                onnx_export.export(made, run.path, place / "drawn", "drawn")
            tasks += [(place / kind / "model.onnx", place / "sent.npz", place / f"{kind}.npz") for kind in kinds]
            found[name] = (place, made, said, expected)
    run_plainly(tasks)
    return found


def assert_same(place, kind, expected, conditions, rtol=1e-5):
    with np.load(place / f"{kind}.npz") as archive:
        made = dict(archive)
    assert made.keys() == expected.keys() - set(conditions)
    for tensor, values in made.items():
        wanted = expected[tensor]
        assert values.dtype == wanted.dtype
        np.testing.assert_allclose(values, wanted, rtol=0, atol=rtol * np.abs(wanted).max())
        assert len({row.tobytes() for row in values}) == N


@pytest.mark.parametrize("name", CHOSEN)
def test_onnx_runtime_makes_what_the_run_makes(exported, name):
    place, made, _, expected = exported[name]
    assert_same(place, "given", expected, made.problem.conditions)


@pytest.mark.parametrize("name", DRAWN)
def test_a_model_that_draws_makes_the_events_of_the_seed(exported, name):
    """Those of `hpcgan.generate`, however they are cut into requests, symmetries included."""
    place, made, _, expected = exported[name]
    assert_same(place, "drawn", expected, made.problem.conditions)
    model = onnx_export.session(place / "drawn" / "model.onnx")
    asked = conditions_of(made.problem)
    parts = []
    for first, end in ((0, 2), (2, N)):
        fed = {"seed": np.array(5), "first": np.array(first), **{k: v[first:end] for k, v in asked.items()}}
        fed |= {} if asked else {"samples": np.array(end - first)}
        parts.append(model.run(["hist"], fed)[0])
    np.testing.assert_allclose(np.concatenate(parts), expected["hist"], rtol=0, atol=1e-5 * expected["hist"].max())


def test_what_a_model_says(exported):
    import onnx

    place, made, said, _ = exported["conditional"]
    model = onnx.load(place / "given" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["problem"] == "conditional"
    assert float(about["validation_score"]) == 2.5
    assert about["output.hist.unit"] == "MeV"
    assert json.loads(about["output.hist.axes"]) == ["eta", "phi"]
    assert about["input.mGlu.unit"] == "GeV"
    assert json.loads(about["input.mGlu.trained_range"]) == [1400.0, 1800.0]
    assert about["input.noise.distribution"] == "standard normal"
    assert json.loads((place / "given" / "hpcgan.json").read_text()) == said
    shapes = {
        tensor.name: [dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim]
        for tensor in (*model.graph.input, *model.graph.output)
    }
    assert shapes["hist"] == ["n", 64, 64]
    assert shapes["noise"] == ["n", made.problem.noise_dim]
    assert shapes["mGlu"] == ["n"]
    drawn = json.loads((place / "drawn" / "hpcgan.json").read_text())
    assert set(drawn["inputs"]) == {"seed", "first", "mGlu", "mNeu"}


def test_batches_of_any_size(exported):
    place, made, _, expected = exported["conditional"]
    model = onnx_export.session(place / "given" / "model.onnx")
    sent = request(made, N, 5, conditions_of(made.problem))
    (one,) = model.run(None, {name: values[3:4] for name, values in sent.items()})
    np.testing.assert_allclose(one[0], expected["hist"][3], rtol=0, atol=1e-5 * expected["hist"].max())
    (more,) = model.run(None, {name: np.concatenate([values] * 3) for name, values in sent.items()})
    np.testing.assert_allclose(more[-1], expected["hist"][-1], rtol=0, atol=1e-5 * expected["hist"].max())


def test_the_code_of_the_documentation(exported, tmp_path, monkeypatch, capsys):
    """Python's, on the model that draws."""
    (code,) = [block.text for block in documents.blocks(ROOT / "docs" / "onnx.md") if block.language == "python"]
    place = exported["conditional"][0]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "drawn").symlink_to(place / "drawn")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(code, scope)
    assert scope["made"].shape == (256, 64, 64)
    assert scope["made"].min() >= 0.0
    assert capsys.readouterr().out == 'MeV ["eta", "phi"] 2.5\n'


# --- parts --------------------------------------------------------------------------------------------------------


def on_runtime(tmp_path, function, **arrays):
    """What ONNX Runtime makes of a function of tensors."""
    specs = {name: tf.TensorSpec([None, *array.shape[1:]], array.dtype, name) for name, array in arrays.items()}
    traced = tf.function(lambda **inputs: {"y": function(**inputs)}, autograph=False).get_concrete_function(**specs)
    model = onnx_export.converted(traced, list(arrays), "a function")
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    return onnx_export.session(tmp_path / "f.onnx").run(None, arrays)[0]


@pytest.mark.parametrize(
    ("function", "reference", "low", "high"),
    [
        (tf.math.erfc, special.erfc, -9.0, 9.0),
        (tf.math.expm1, np.expm1, -20.0, 20.0),
        (tf.math.log1p, np.log1p, -0.999, 1e4),
        (tf.sigmoid, special.expit, -80.0, 30.0),
        (tf.math.asinh, np.arcsinh, -80.0, 80.0),
        (tf.sinh, np.sinh, -20.0, 20.0),
    ],
    ids=["erfc", "expm1", "log1p", "sigmoid", "asinh", "sinh"],
)
def test_functions_keep_their_digits(tmp_path, function, reference, low, high):
    """To a few units of single precision, relative: tails and small numbers are what they are for."""
    tiny_ones = np.geomspace(1e-12, 1e-2, 200)
    x = np.concatenate([np.linspace(low, high, 4001), tiny_ones, -tiny_ones]).astype(np.float32)
    made = on_runtime(tmp_path, function, x=x)
    wanted = reference(x.astype(np.float64))
    assert made.dtype == np.float32
    normal = np.abs(wanted) > np.finfo(np.float32).tiny
    np.testing.assert_allclose(made[normal], wanted[normal], rtol=1e-6)


def test_places_in_a_table(tmp_path):
    generator = np.random.default_rng(3)
    table = np.sort(generator.integers(0, 40, (6, 97)), axis=1).astype(np.float32)
    x = np.concatenate([table[:, :20], generator.uniform(-5, 45, (6, 50)).astype(np.float32)], axis=1)
    made = on_runtime(tmp_path, lambda table, x: tf.searchsorted(table, x, side="right"), table=table, x=x)
    wanted = np.stack([np.searchsorted(row, values, side="right") for row, values in zip(table, x, strict=True)])
    np.testing.assert_array_equal(made, wanted)


def test_a_split_of_the_likelihood_models(tmp_path):
    """Cells that are found by a mask, turn after turn in a loop of the graph: where momentum is, and how much."""
    grid = Grid(4, True, Logit())
    init = Initializer(3, "float32")
    part = Split(init, "split", grid, (2, 2, ROWS), np.full((4, 2), 0.5), 8, 0)
    generator = np.random.default_rng(4)
    whole = (generator.exponential(5.0, (N, 2, 2)) * (generator.random((N, 2, 2)) < 0.8)).astype(np.float32)
    uniform = generator.random((N, 2, 2, 2)).astype(np.float32)
    made = on_runtime(tmp_path, lambda whole, uniform: part(whole, uniform, None), whole=whole, uniform=uniform)
    wanted = part(tf.constant(whole), tf.constant(uniform), None).numpy()
    assert 0 < np.count_nonzero(wanted) < wanted.size
    np.testing.assert_array_equal(made > 0, wanted > 0)
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_alike():
    """Zeros in both say nothing, and what is no number is off."""
    exact = np.array([0.0] * 96 + [1.0, 2.0, 3.0, 4.0])
    assert onnx_export.share_alike(exact.copy(), exact) == 1.0
    assert onnx_export.share_alike(np.where(exact == 2.0, 2.0001, exact), exact) == 0.75
    assert onnx_export.share_alike(np.where(exact == 2.0, 2.00003, exact), exact) == 1.0
    assert onnx_export.share_alike(np.where(exact == 2.0, np.nan, exact), exact) == 0.75


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A model of the generator of random numbers alone."""
    import onnx
    from onnx import TensorProto, helper

    to = onnx_random.Nodes("draw/")
    made = {
        "words": (onnx_random.words(to, "seed", "sample", "first", "n", 5), TensorProto.UINT64, 5),
        "uniform": (onnx_random.uniform(to, "seed", "sample/symmetries", "first", "n", 3), TensorProto.DOUBLE, 3),
        "normal": (onnx_random.normal(to, "seed", "sample", "first", "n", 7), TensorProto.DOUBLE, 7),
    }
    for name, (tensor, _, _) in made.items():
        to("Identity", tensor, name=name)
    graph = helper.make_graph(
        to.nodes, "numbers",
        [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("seed", "first", "n")],
        [helper.make_tensor_value_info(name, dtype, ["n", dim]) for name, (_, dtype, dim) in made.items()],
        list(to.constants.values()),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("numbers") / "numbers.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", onnx_export.OPSET)], ir_version=9), path)
    return onnx_export.session(path)


@given(seed=st.integers(0, 2**63 - 1), first=st.integers(0, 2**40), n=st.integers(0, 5))
def test_random_numbers_are_those_of_hpcgan(numbers, seed, first, n):
    fed = {"seed": np.array(seed), "first": np.array(first), "n": np.array(n)}
    words, uniform, normal = numbers.run(["words", "uniform", "normal"], fed)
    np.testing.assert_array_equal(words, rng._words(seed, "sample", 0, first, n, 5))
    np.testing.assert_array_equal(uniform, rng.uniform(seed, "sample/symmetries", 0, first, n, 3))
    np.testing.assert_allclose(normal, rng.normal(seed, "sample", 0, first, n, 7), rtol=1e-13, atol=1e-14)


# --- what is refused ----------------------------------------------------------------------------------------------


def test_operations_that_onnx_does_not_have_are_named(tmp_path):
    x = np.ones(3, np.float32)
    with pytest.raises(HpcganError, match="a function cannot be exported to ONNX, which has no BesselI0e"):
        on_runtime(tmp_path, tf.math.bessel_i0e, x=x)


def test_what_onnx_runtime_does_not_run_is_said(tmp_path):
    """It has no convolution in double precision."""
    kernel = np.ones((3, 3, 1, 2))
    with pytest.raises(HpcganError, match=r"ONNX Runtime does not run the model: .*NOT_IMPLEMENTED"):
        on_runtime(tmp_path, lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"), x=np.ones((2, 4, 4, 1)))


def test_another_model_never_leaves_the_house(exported, tmp_path, monkeypatch):
    made = exported["rpv"][1]
    # Code that does something else on an array than on a tensor.
    monkeypatch.setattr(
        type(made.problem), "decode",
        lambda self, sample: {"hist": sample["hist"] * np.float32(1.0 + isinstance(sample["hist"], np.ndarray))},
    )  # fmt: skip
    with pytest.raises(HpcganError, match="the model gives another 'hist'"):
        onnx_export.export(made, Path("run"), tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_the_command(exported, tmp_path, capsys, monkeypatch):
    run = str(exported["rpv"][0] / "run")
    out = tmp_path / "model"
    assert main(["export", run, "--format", "onnx", "--noise", "drawn", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"{out}: rpv, epoch 3, generator_average, model.onnx, opset 18" in shown
    assert "input  seed () int64 of the random numbers" in shown
    assert "output hist (n, 64, 64) float32 MeV" in shown
    assert sorted(path.name for path in out.iterdir()) == ["hpcgan.json", "model.onnx"]
    assert main(["export", run, "--format", "onnx", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", run, "--noise", "drawn", "--out", str(tmp_path / "x")]) == 2
    assert "--noise drawn needs --format onnx" in capsys.readouterr().err
    assert main(["export", run, "--format", "par04", "--out", str(tmp_path / "x")]) == 2
    assert "problem 'rpv': Geant4's example Par04 takes showers of one particle" in capsys.readouterr().err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name))
    assert main(["export", run, "--format", "onnx", "--out", str(tmp_path / "x")]) == 2
    assert "--format onnx needs tf2onnx: pip install 'hpcgan[onnx]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# --- Geant4's example Par04 -----------------------------------------------------------------------------------------


def test_a_mesh_keeps_energy_and_places():
    mesh = mesh_of(PUBLISHED)
    for name, across in mesh.across.items():
        np.testing.assert_allclose(across.sum(axis=1), 1.0)
        assert mesh.along[name].sum() == pytest.approx(1.0)
    # 90, 347 and 43 mm in steps of 10: the middle layer begins with the tenth and ends within the 44th.
    assert np.flatnonzero(mesh.along["layer_1"]).tolist() == list(range(9, 44))
    assert mesh.along["layer_1"][43] == pytest.approx(7 / 347)
    # Row 6 and column 6 of 12 x 12 cells of 40 mm: x and y from 0 to 40 mm, so the sectors from 180 to 270 degrees of
    # those that begin at -180.
    cell = mesh.across["layer_1"][6 * 12 + 6].reshape(mesh.cells[:2])
    assert cell[:, 25:37].sum() > 0.95
    assert cell[5:].sum() == 0.0  # beyond 57 mm
    corner = mesh.across["layer_1"][0].reshape(mesh.cells[:2])
    assert corner[-1].sum() == pytest.approx(1.0)


@pytest.mark.faults
def test_par04_model_and_macro(exported, tmp_path):
    place, made, _, expected = exported["matched calogan"]
    said = onnx_par04.export(made, place / "run", tmp_path / "model")
    model = onnx_export.session(tmp_path / "model" / "model.onnx")
    (tensor,) = model.get_inputs()
    latent = made.problem.noise_dim + len(made.problem.symmetries)
    assert tensor.shape == ["n", latent + 4]
    # As the example does it: one shower a call, energies over that of the particle.
    sent = request(made, N, 5, conditions_of(made.problem))
    vector = np.zeros((N, latent + 4), np.float32)
    vector[:, : made.problem.noise_dim] = sent["noise"]
    vector[:, made.problem.noise_dim : latent] = special.ndtri(sent["symmetries"])
    vector[:, latent], vector[:, latent + 3] = sent["energy"] / 1024.0, 1.0
    single = np.concatenate([model.run(None, {tensor.name: row[None]})[0] for row in vector])
    energies = single * sent["energy"][:, None] * 1e3
    total = sum(expected[f"layer_{i}"].sum(axis=(1, 2)) for i in range(3))
    np.testing.assert_allclose(energies.sum(axis=1), total, rtol=1e-4)
    rho, phi, z = made.problem.mesh.cells
    depth = energies.reshape(N, rho, phi, z).sum(axis=(1, 2))
    np.testing.assert_allclose(depth[:, :9].sum(axis=1), expected["layer_0"].sum(axis=(1, 2)), rtol=1e-4, atol=1e-2)
    macro = (tmp_path / "model" / "par04.mac").read_text()
    assert f"/Par04/inference/setSizeLatentVector {latent}\n" in macro
    assert f"/Par04/inference/setModelPathName {tmp_path / 'model' / 'model.onnx'}\n" in macro
    assert f"/Par04/inference/setNbOfPhiCells {phi}\n" in macro
    assert said["outputs"]["energies"]["shape"] == [None, rho * phi * z]


# --- C++ --------------------------------------------------------------------------------------------------------


def test_the_program_in_cplusplus_prints_the_events(exported, tmp_path):
    """Compiled against the headers of ONNX Runtime, where they are, and linked with the library of the package."""
    import onnxruntime

    include = os.environ.get("HPCGAN_ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime")
    if not (Path(include) / "onnxruntime_cxx_api.h").is_file() or shutil.which("g++") is None:
        pytest.skip(f"no g++, or no headers of ONNX Runtime in {include} (HPCGAN_ONNXRUNTIME_INCLUDE)")
    source = ROOT / "docs" / "print_showers.cpp"
    assert len(source.read_text().splitlines()) <= 100
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    (tmp_path / library.name).symlink_to(library)
    (tmp_path / re.sub(r"\.so\..*", ".so.1", library.name)).symlink_to(library)
    program = tmp_path / "print_showers"
    subprocess.run(
        ["g++", "-std=c++17", "-Wall", source, "-I", include, tmp_path / library.name, f"-Wl,-rpath,{tmp_path}",
         "-o", program],
        check=True, timeout=300,
    )  # fmt: skip
    place, made, _, _ = exported["rpv"]
    lines = subprocess.run(
        [program, place / "drawn" / "model.onnx", "1000", "5"], capture_output=True, text=True, check=True, timeout=300
    ).stdout.splitlines()
    assert len(lines) == 1000
    images = made.sample(1000, 5)["hist"]
    for number in (0, 99, 100, 999):
        said, tensor, total, unit, _, lit = lines[number].split()
        assert (int(said), tensor, unit) == (number, "hist", "MeV")
        assert float(total) == pytest.approx(images[number].sum(dtype=np.float64), rel=1e-4)
        assert int(lit) == np.count_nonzero(images[number])
    failed = subprocess.run([program, "nothing.onnx", "1", "1"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("print_showers: ")


@pytest.mark.faults
@pytest.mark.parametrize("name", ["rpv", "conditional"])
def test_the_real_generators_are_exported_as_they_are(tmp_path, name):
    """The likelihood models that come with the package, event by event and in score, on noise that was given.

    Random choices at a boundary may fall the other way: an event in which one does is another one of the same density.
    One or two in a hundred events are off by more than 1e-5 of the largest cell.
    """
    run, n = Path(f"pretrained:{name}"), 64
    made = load_sampler(run, batch_size=n)
    onnx_export.export(made, run, tmp_path / "model")
    asked = None
    if name == "conditional":
        asked = {"mGlu": np.linspace(1400, 1800, n, dtype=np.float32), "mNeu": np.full(n, 850, np.float32)}
    np.savez(tmp_path / "sent.npz", **request(made, n, 3, asked))
    run_plainly([(tmp_path / "model" / "model.onnx", tmp_path / "sent.npz", tmp_path / "made.npz")])
    with np.load(tmp_path / "made.npz") as archive:
        given = archive["hist"]
    exact, other = (made.sample(n, seed, conditions=each(asked) if asked else None)["hist"] for seed in (3, 4))
    off = np.abs(given - exact).max(axis=(1, 2)) / exact.max()
    assert np.mean(off <= 1e-5) >= 0.9
    assert onnx_export.share_alike(given, exact) >= 0.99
    assert onnx_export.share_alike(other, exact) < 0.1
    problem, more = made.problem, asked or {}
    reference = problem.observables({"hist": other, **more})
    ours, theirs = (problem.score(reference, problem.observables({"hist": hist, **more})) for hist in (given, exact))
    assert ours.total == pytest.approx(theirs.total, rel=1e-3)
