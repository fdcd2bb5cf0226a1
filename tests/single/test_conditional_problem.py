"""The conditional problem: masses in data, networks, sampling and score, and a training from end to end."""

from __future__ import annotations

import argparse
import contextlib
import json
import warnings
from pathlib import Path

import h5py
import needs
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from pages import Page, check_numbers

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

import hpcgan  # noqa: E402
from hpcgan import config  # noqa: E402
from hpcgan.api import preflight  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.commands import evaluate as evaluate_command  # noqa: E402
from hpcgan.commands import generate as generate_command  # noqa: E402
from hpcgan.config import DataConfig  # noqa: E402
from hpcgan.data.layouts.tensor_source import TensorSource  # noqa: E402
from hpcgan.data.layouts.tensors import Writer as TensorWriter  # noqa: E402
from hpcgan.data.schema import TensorSpec  # noqa: E402
from hpcgan.data.source import SyntheticSource  # noqa: E402
from hpcgan.data.storage import Target  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.evaluation import conditions as asking  # noqa: E402
from hpcgan.evaluation import report  # noqa: E402
from hpcgan.evaluation.compare import EvaluationOptions  # noqa: E402
from hpcgan.evaluation.conditional import score_left_out  # noqa: E402
from hpcgan.evaluation.events import Loaded  # noqa: E402
from hpcgan.evaluation.sampling import load_sampler  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.sampler import Sampler  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.metrics import points as grouped  # noqa: E402
from hpcgan.metrics.observable import Observable  # noqa: E402
from hpcgan.networks import quantiles  # noqa: E402
from hpcgan.networks.layers import Initializer, Projection  # noqa: E402
from hpcgan.problems.detector_images import files as hdf5  # noqa: E402
from hpcgan.problems.detector_images import networks_dcgan as dcgan  # noqa: E402
from hpcgan.problems.detector_images import networks_detector as detector  # noqa: E402
from hpcgan.problems.detector_images.conditional import ConditionalModel, ConditionalProblem  # noqa: E402
from hpcgan.problems.detector_images.figures import ImageFigures  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402
from hpcgan.problems.events import open_split  # noqa: E402
from hpcgan.problems.figures import figures_of  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import attempt  # noqa: E402
from hpcgan.training.inputs import Inputs  # noqa: E402
from hpcgan.training.requests import StopRequest  # noqa: E402

PROBLEM = ConditionalProblem(ConditionalModel(filters=2, latent_dim=3))
DETECTOR = {
    "architecture": "detector", "filters": 2, "latent_dim": 3, "intensity": "pt", "scale_mev": 6000.0,
    "exponent": 1 / 3, "pixel_noise": True, "pooled_pt": True, "pooled_mass": True, "minibatch_stddev": True,
    "hidden_units": 4, "total_pt": "drawn",
}  # fmt: skip
POINT = {"mGlu": 1600.0, "mNeu": 850.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_conditional_data(tmp_path_factory.mktemp("data"))


def masses(*points: tuple[float, float], dtype: str = "float32") -> dict[str, np.ndarray]:
    m_glu, m_neu = np.array(points, dtype).T
    return {"mGlu": m_glu, "mNeu": m_neu}


def configuration(folder: Path, *overrides: str) -> config.Config:
    raw = {
        "problem": "conditional",
        "name": "tiny",
        "data": {"path": str(folder), "augment": ["eta_reflection", "phi_rotation"]},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"epochs": 1, "batch_size": 10, "average_half_life": 50},
        "scoring": {"events": 30},
    }
    return config.load(raw, overrides)


# --- encoding and data -------------------------------------------------------------------------------------------


def test_the_encoding_of_the_masses_by_hand():
    sample = {"hist": tiny.images(3), **masses((1400, 250), (1900, 1650), (1600, 850))}
    encoded = PROBLEM.encode(sample)
    assert encoded["mGlu"] == pytest.approx([0.0, 1.0, 0.4])
    assert encoded["mNeu"] == pytest.approx([0.0, 1.0, 600 / 1400])
    assert encoded["mGlu"].dtype == np.float32
    np.testing.assert_array_equal(encoded["hist"], RpvProblem(RpvModel()).encode({"hist": sample["hist"]})["hist"])
    assert list(PROBLEM.decode(encoded)) == ["hist"]
    assert [name for name, spec in PROBLEM.schema.items() if spec.role == "condition"] == list(PROBLEM.conditions)


def test_a_source_has_the_masses_of_its_events(folder):
    for cache in (0, 1024):
        source = PROBLEM.open(folder, "val", cache)
        read = source.read(np.array([4, 0, 4]))
        assert read["mGlu"].tolist() == [1600.0, 1400.0, 1600.0]
        assert read["mNeu"].tolist() == [850.0] * 3
        assert source.conditions()["mGlu"].tolist() == [1400.0, 1600.0, 1800.0] * 10
        source.close()
    plain = RpvProblem(RpvModel()).open(folder, "val")
    assert plain.conditions() == {}
    assert list(plain.read(np.array([0]))) == ["hist"]
    plain.close()


def write(path: Path, **columns: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["all_events/hist"] = tiny.images(4)
        for name, values in columns.items():
            file[f"all_events/{name}"] = values
    return path


@pytest.mark.parametrize(
    ("m_glu", "m_neu", "message"),
    [
        ([1400, 1400, np.nan, 1400], 850, "all_events/mGlu of event 2 is nan"),
        ([np.nan] * 4, [np.nan] * 4, "mGlu, mNeu of event 0: m_gluino = nan GeV"),
        ([1400, 0, 1400, 0], 0, "mGlu, mNeu of event 0: m_neutralino = 0 GeV"),
        ([1400, 0, 1400, 0], 850, "mGlu, mNeu of event 1: m_gluino = 0 GeV: a mass must be a positive number"),
        ([1400, 1400, 1400, -1], 850, "mGlu, mNeu of event 3: m_gluino = -1 GeV"),
        (1400, [850, 850, 1500, 850], "mGlu, mNeu of event 2: m_neutralino = 1500 GeV: must be at least 4 GeV below"),
        (1400, None, "has no data set 'all_events/mNeu' \\(one number an event\\).*'hpcgan data' writes it"),
        (None, None, "has no data set 'all_events/mGlu'"),
    ],
)
def test_events_without_masses_are_refused(tmp_path, m_glu, m_neu, message):
    given = {"mGlu": m_glu, "mNeu": m_neu}
    columns = {name: np.broadcast_to(value, (4,)) for name, value in given.items() if value is not None}
    path = write(tmp_path / "x.h5", **columns)
    with pytest.raises(InputError, match=message) as error:
        checked(path)
    assert "\n" not in str(error.value)
    assert "x.h5" in str(error.value)


def checked(path):
    """As a training does it: what is readable, and what the problem takes."""
    PROBLEM.validate(path, "train")
    with contextlib.closing(PROBLEM.open(path, "train")) as source:
        PROBLEM.check_events(source)


def test_too_many_points_are_refused(tmp_path):
    with hdf5.Writer(Target(tmp_path, {"many": 101}, {})) as writer:
        writer.append(np.zeros((101, 64, 64)), 1, 1, 1000.0 + np.arange(101), 500.0)
    with pytest.raises(InputError, match=r"101 different mass points; .* takes at most 100"):
        checked(tmp_path / "many.h5")


def test_conditions_of_files_of_any_schema(tmp_path):
    schema = {"x": TensorSpec((2, 3)), "energy": TensorSpec((1,), "GeV", "condition")}
    sample = {"x": np.zeros((6, 2, 3), np.float32), "energy": np.arange(6, dtype=np.float32)[:, None]}
    with TensorWriter(Target(tmp_path, {"a": 6}, {}), schema) as writer:
        writer.append(sample)
    source = TensorSource(tmp_path / "a.h5", schema)
    assert list(source.conditions()) == ["energy"]
    np.testing.assert_array_equal(source.conditions()["energy"], sample["energy"])
    source.close()
    made = SyntheticSource(PROBLEM.schema, 40, 1)
    found = made.conditions()
    assert found["mGlu"].shape == (40,)
    assert len(set(zip(found["mGlu"].tolist(), found["mNeu"].tolist(), strict=True))) == SyntheticSource.POINTS


# --- leaving out -------------------------------------------------------------------------------------------------


def test_points_that_are_left_out(folder):
    data = DataConfig(path=folder, leave_out=[POINT])
    for split, n in (("train", 60), ("val", 20)):
        source = open_split(PROBLEM, data, split)
        assert len(source) == n
        assert set(source.conditions()["mGlu"].tolist()) == {1400.0, 1800.0}
        whole = PROBLEM.open(folder, split)
        np.testing.assert_array_equal(source.read(np.array([3, 0]))["hist"], whole.read(np.array([5, 0]))["hist"])
        source.close()
        whole.close()
    named = open_split(PROBLEM, DataConfig(path=folder, leave_out=[{"mGlu": 1400}, {"mGlu": 1800}]), "train")
    assert set(named.conditions()["mGlu"].tolist()) == {1600.0}
    named.close()


@pytest.mark.parametrize(
    ("leave_out", "message"),
    [
        ([{"mGlu": 1601.0}], "no event has mGlu=1601; there are: mGlu=1400, mNeu=850; mGlu=1600, mNeu=850; mGlu=1800"),
        ([{"mNeu": 850.0}], "data.leave_out leaves no event"),
    ],
)
def test_points_that_cannot_be_left_out(folder, tmp_path, leave_out, message):
    with pytest.raises(InputError, match=message):
        open_split(PROBLEM, DataConfig(path=folder, leave_out=leave_out), "train")
    made = configuration(folder, f"data.leave_out={json.dumps(leave_out)}")
    with pytest.raises(InputError, match=message):
        preflight(made, RunDirectory(tmp_path / "run"), 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.leave_out=[{mGl: 1600}]", "data.leave_out.0: 'mGl' is not a condition of 'conditional'; choices: mGlu"),
        ("data.leave_out=[{}]", "data.leave_out.0: name at least one of: mGlu, mNeu"),
        ("data.leave_out=[{mGlu: .nan}]", "data.leave_out.0.mGlu"),
        ("scoring.statistics=batch", "scoring.statistics=batch: batch normalisation over events of one condition"),
        ("model.conditioning=embedding", "model.conditioning: input should be 'channels' or 'projection'"),
    ],
)  # fmt: skip
def test_configurations_that_are_refused(folder, override, message):
    with pytest.raises(InputError, match=message):
        configuration(folder, override)


def test_other_problems_have_no_conditions(tmp_path):
    with pytest.raises(InputError, match="'mGlu' is not a condition of 'rpv'; choices: none"):
        tiny.config(tmp_path, "data.leave_out=[{mGlu: 1600}]")
    assert configuration(tmp_path, "data.leave_out=[{mGlu: 1600}]").identity()["data"]["leave_out"] == [{"mGlu": 1600}]
    configuration(tmp_path, "scoring.statistics=batch", "model.normalisation=none")  # nothing to be taken out


# --- networks ----------------------------------------------------------------------------------------------------


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def test_weights_of_the_reference_with_masses_by_hand():
    """11,278,080 and 11,032,064 without; two more rows of noise, two more input channels, or two rows of projection."""
    sizes = {"filters": 128, "latent_dim": 16}
    channels = ConditionalModel(**sizes)
    assert count(dcgan.Generator(channels, 1).weights) == 11_278_080 + 2 * 16 * 8 * 128
    assert count(dcgan.Discriminator(channels, 1).weights) == 11_032_064 + 4 * 4 * 2 * 128 == 11_036_160
    projection = ConditionalModel(conditioning="projection", **sizes)
    assert count(dcgan.Generator(projection, 1).weights) == 11_310_848
    assert count(dcgan.Discriminator(projection, 1).weights) == 11_032_064 + 2 * 4 * 4 * 8 * 128 == 11_064_832


def test_weights_of_the_detector_with_masses_by_hand():
    sizes = {**DETECTOR, "filters": 16, "latent_dim": 64, "hidden_units": 64}
    plain = RpvModel(**sizes)
    before = [count(network(plain, 1).weights) for network in (detector.Generator, detector.Discriminator)]
    # Two more inputs of the projection to 4x4x128; of the first convolution and of the hidden layer.
    channels = ConditionalModel(**sizes)
    assert count(detector.Generator(channels, 1).weights) == before[0] + 2 * 16 * 128
    assert count(detector.Discriminator(channels, 1).weights) == before[1] + 4 * 4 * 2 * 16 + 2 * 64
    # Two rows over the 16 x 129 + 2 features of the head and the 64 of the last hidden layer.
    projection = ConditionalModel(**sizes, conditioning="projection")
    assert count(detector.Discriminator(projection, 1).weights) == before[1] + 2 * (16 * 129 + 2 + 64)
    # Constants: quantiles as polynomials of six terms, and their centre.
    assert count(detector.Generator(channels, 1).constants) == 6 * 1025 + 2


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("architecture", ["dcgan", "detector"])
def test_masses_are_constant_channels(architecture, padding):
    """The first convolution is that of images with two more channels, filled with the encoded masses."""
    options = DETECTOR if architecture == "detector" else {"filters": 2}
    network = {"dcgan": dcgan, "detector": detector}[architecture].Discriminator(
        ConditionalModel(**options, phi_padding=padding), 1, "float64"
    )
    rng = np.random.default_rng(0)
    planes, levels = [tf.constant(rng.random((3, 64, 64))) for _ in range(network.downs[0].kernel.shape[2] - 2)], []
    for values in ([0.0, 0.4, 1.0], [0.2, -0.1, 0.5]):
        levels.append(tf.constant(values, tf.float64))
    filled = [tf.broadcast_to(level[:, None, None], (3, 64, 64)) for level in levels]
    expected = network.downs[0](tf.stack([*planes, *filled], axis=-1))
    np.testing.assert_allclose(network.downs[0].of_planes(planes, levels), expected, atol=1e-12)


def test_projection_by_hand():
    layer = Projection(Initializer(1, "float64"), "p", 2, 3)
    layer.kernel.assign([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]])
    conditions, features = (
        tf.constant([[1.0, 0.0], [0.5, 2.0]], tf.float64),
        tf.constant([[1.0, 1.0, 1.0]] * 2, tf.float64),
    )
    assert layer(conditions, features).numpy().tolist() == [6.0, 3.0]
    assert np.abs(Projection(Initializer(1), "q", 2, 400).kernel.numpy()).max() <= 1 / 20


@pytest.mark.parametrize("architecture", ["dcgan", "detector"])
@pytest.mark.parametrize("conditioning", ["channels", "projection"])
def test_networks_heed_the_masses(architecture, conditioning):
    options = DETECTOR if architecture == "detector" else {"filters": 2, "latent_dim": 3}
    problem = ConditionalProblem(ConditionalModel(**options, conditioning=conditioning))
    module = {"dcgan": dcgan, "detector": detector}[architecture]
    generator, critic = module.Generator(problem.model, 1), module.Discriminator(problem.model, 1)
    noise = tf.constant(np.random.default_rng(0).normal(size=(4, problem.noise_dim)).astype(np.float32))
    light, heavy = (
        {k: tf.constant(v) for k, v in problem.encode_conditions(masses(*[point] * 4)).items()}
        for point in ((1400, 850), (1800, 250))
    )
    images = [generator(noise, given, training=False)["hist"].numpy() for given in (light, heavy)]
    assert not np.allclose(*images)
    real = {"hist": tf.constant(problem.encode({"hist": tiny.images(4), **masses(*[(1, 1)] * 4)})["hist"])}
    logits = [critic({**real, **given}, training=False).numpy() for given in (light, heavy)]
    assert not np.allclose(*logits)
    if conditioning == "projection":  # the difference is linear in the masses, and nothing else
        middle = {k: (light[k] + heavy[k]) / 2 for k in light}
        between = critic({**real, **middle}, training=False).numpy()
        np.testing.assert_allclose(between, np.mean(logits, axis=0), rtol=1e-4, atol=1e-5)
    together = critic.pair({**real, **light}, {**real, **heavy})
    apart = [critic({**real, **given}, training=True, update=False).numpy() for given in (light, heavy)]
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)


def test_quantiles_as_functions_of_conditions():
    """Values u + a(c), u uniform: the quantiles are those of u plus a polynomial, which the fit finds everywhere."""
    rng, knots = np.random.default_rng(1), np.linspace(0, 1, 5)
    grid = np.array([(x, y) for x in (0.0, 0.4, 1.0) for y in (0.0, 0.5, 0.7)])

    def shift(c):
        return 2.0 + 3.0 * c[:, 0] - c[:, 1] + 0.5 * c[:, 0] ** 2 + 2.0 * c[:, 0] * c[:, 1]

    conditions = np.repeat(grid, 101, axis=0)
    values = np.tile(np.linspace(0, 1, 101), 9) + shift(conditions)
    order = rng.permutation(len(values))
    table, centre = quantiles.fit(values[order], conditions[order], knots)
    assert table.shape == (6, 5)
    new = np.array([[0.2, 0.6], [1.4, -0.3]])
    np.testing.assert_allclose(quantiles.terms(new - centre) @ table, knots + shift(new)[:, None], atol=1e-9)


def test_what_the_points_do_not_determine_is_left_alone():
    """Two values of the first condition: a line. One value of the second: no dependence on it."""
    conditions = np.repeat([[0.0, 0.4], [1.0, 0.4]], 50, axis=0)
    table, centre = quantiles.fit(np.repeat([1.0, 3.0], 50), conditions, np.linspace(0, 1, 3))
    asked = np.array([[0.0, 0.4], [1.0, 0.4], [0.5, 0.4], [0.5, 7.0], [2.0, 0.0]])
    np.testing.assert_allclose((quantiles.terms(asked - centre) @ table)[:, 1], [1.0, 3.0, 2.0, 2.0, 5.0], atol=1e-9)
    with pytest.raises(InputError, match="there are 201 different ones, at most 200"):
        quantiles.fit(np.zeros(201), np.arange(201.0)[:, None], np.linspace(0, 1, 3))


def test_drawn_momentum_is_that_of_the_mass_point(folder):
    """Energies of the tiny events are proportional to the gluino mass, and so is the summed pT that is drawn."""
    problem = ConditionalProblem(ConditionalModel(**DETECTOR))
    generator = detector.Generator(problem.model, 1)
    source = problem.open(folder, "train")
    encoded = Inputs(None, problem, {"train": source}, None).encoded(at_once=32)
    generator.calibrate({k: tf.constant(v) for k, v in batch.items()} for batch in encoded)
    events = source.read(np.arange(90))
    source.close()
    noise = np.random.default_rng(0).normal(size=(600, problem.noise_dim)).astype(np.float32)
    sampler_noise = tf.constant(noise)
    for m_glu in (1400.0, 1600.0, 1800.0):
        here = events["hist"][events["mGlu"] == m_glu]
        pt = (here / problem.model.per_energy / np.cosh(0)).sum(axis=(1, 2)) / 1e5
        asked = {k: tf.constant(v) for k, v in problem.encode_conditions(masses(*[(m_glu, 850)] * 600)).items()}
        made = generator(sampler_noise, asked, training=True, update=False)["hist"]
        totals = generator._total(made).numpy()
        lit = totals > 0
        assert lit.mean() > 0.9
        assert np.median(totals[lit]) == pytest.approx(np.median(pt), rel=0.05)


# --- steps and sampling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditioning", ["channels", "projection"])
def test_gradients_with_masses_are_those_of_numerical_differentiation(conditioning):
    problem = ConditionalProblem(ConditionalModel(filters=2, latent_dim=3, conditioning=conditioning))
    gan = Gan(problem, GanSettings(batch_size=3, dtype="float64"), SerialComm(), 1)
    sample = {
        "hist": tiny.images(3).astype(np.float64),
        **masses((1400, 850), (1600, 250), (1800, 850), dtype="float64"),
    }
    real = {k: tf.constant(v) for k, v in problem.encode(sample).items()}
    draws = {k: tf.constant(v) for k, v in gan.draws(0, 0, 3).items()}
    conditions = gan._conditions(real)
    assert set(conditions) == {"mGlu", "mNeu"}

    def losses():
        with tf.GradientTape() as tape:
            fake = gan._generate(conditions, draws, update=False)
        d_gradients, d_loss, *_ = gan.discriminator_gradients(real, fake, tf.constant(0.0, tf.float64))
        g_gradients, g_losses = gan.generator_gradients(fake, tape)
        return d_gradients, d_loss, g_gradients, g_losses["generator_loss"]

    found = losses()
    rng, h = np.random.default_rng(3), 1e-8
    for name, gradients, which in (("discriminator", found[0], 1), ("generator", found[2], 3)):
        weights = gan.networks[name].weights
        direction = [rng.normal(size=w.shape) for w in weights]
        values = []
        for sign in (1, -2):
            for w, d in zip(weights, direction, strict=True):
                w.assign_add(sign * h * d)
            values.append(float(losses()[which]))
        for w, d in zip(weights, direction, strict=True):
            w.assign_add(h * d)
        analytic = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, direction, strict=True))
        assert analytic == pytest.approx((values[0] - values[1]) / (2 * h), rel=5e-4)


@pytest.mark.usefixtures("eager")
def test_a_penalised_step_with_masses():
    gan = Gan(PROBLEM, GanSettings(batch_size=3, r1={"weight": 0.1, "every": 2}), SerialComm(), 1)
    sample = {"hist": tiny.images(3), **masses((1400, 850), (1600, 250), (1800, 850))}
    rates = {"generator": 2e-4, "discriminator": 1e-4}
    for step in range(2):
        result = gan.step(
            step, PROBLEM.encode(sample), gan.draws(step, 0, 3), learning_rates=rates, samples=3, attention=False
        )
        assert result.finite_here


def sampler() -> Sampler:
    gan = Gan(PROBLEM, GanSettings(batch_size=4), SerialComm(), seed=1)
    return Sampler(PROBLEM, gan.networks["generator"], statistics="moving", batch_size=4)


def test_a_batch_has_the_conditions_it_was_asked_for():
    drawing = sampler()
    asked = masses((1400, 850), (1800, 850), (1600, 250), (1600, 850))
    made = drawing.batch(1, "sample", 0, 0, asked)
    assert {k: v.shape for k, v in made.items()} == {"hist": (4, 64, 64), "mGlu": (4,), "mNeu": (4,)}
    np.testing.assert_array_equal(made["mGlu"], asked["mGlu"])
    swapped = drawing.batch(1, "sample", 0, 0, {k: np.roll(v, 1) for k, v in asked.items()})
    again = drawing.batch(1, "sample", 0, 0, {k: np.where([1, 0, 1, 1], v, 900) for k, v in asked.items()})
    assert not np.array_equal(made["hist"][0], swapped["hist"][0])
    np.testing.assert_array_equal(made["hist"][[0, 2, 3]], again["hist"][[0, 2, 3]])  # each by itself
    assert not np.array_equal(made["hist"][1], again["hist"][1])


def test_requests_as_functions_of_the_number():
    turns = asking.each(asking.of_points(PROBLEM, [POINT, {"mGlu": 1400, "mNeu": 250}]))
    assert turns(0, 3)["mGlu"].tolist() == [1600, 1400, 1600]
    assert turns(3, 2)["mNeu"].tolist() == [250, 850]
    assert turns(0, 1)["mGlu"].dtype == np.float32
    available = masses(*[(1400, 850)] * 3, (1800, 850))
    drawn = asking.from_random_events(available, seed=5)
    np.testing.assert_array_equal(np.concatenate([drawn(0, 7)["mGlu"], drawn(7, 993)["mGlu"]]), drawn(0, 1000)["mGlu"])
    share = np.mean(drawn(0, 4000)["mGlu"] == 1800)
    assert share == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))
    assert not np.array_equal(drawn(0, 100)["mGlu"], asking.from_random_events(available, seed=6)(0, 100)["mGlu"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mGlu", "write it as NAME=NUMBER"),
        ("mGlu=", "write it as NAME=NUMBER"),
        ("=3", "write it as NAME=NUMBER"),
        ("mGlu=nan,mNeu=850", "write it as NAME=NUMBER"),
        ("mGlu=1600,mGlu=1600", "'mGlu' is given twice"),
        ("mGlu=1600", "--condition mGlu=1600: mNeu is missing"),
        ("mGl=1600,mNeu=850", "'mGl' is not a condition of problem 'conditional'; did you mean 'mGlu'?"),
        ("energy=1,mGlu=1600,mNeu=850", "'energy' is not a condition.*the conditions are: mGlu, mNeu"),
        ("mGlu=850,mNeu=1600", "--condition mGlu=850,mNeu=1600: m_neutralino = 1600 GeV: must be at least 4 GeV below"),
        ("mGlu=0,mNeu=850", "m_gluino = 0 GeV: a mass must be a positive number"),
        ("mGlu=-1400,mNeu=850", "m_gluino = -1400 GeV"),
    ],
)
def test_bad_conditions_on_the_command_line(text, message):
    with pytest.raises(InputError, match=message.replace("?", "\\?")) as error:
        asking.of_points(PROBLEM, [asking.parse(text)], "--condition")
    assert "\n" not in str(error.value)


@given(st.text(max_size=30))
def test_any_text_is_a_point_or_refused(text):
    try:
        point = asking.parse(text)
    except InputError:
        return
    assert all(np.isfinite(value) for value in point.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mGlu": 1600.0}, "conditions: mNeu is missing"),
        ({"mGlu": "heavy", "mNeu": 850.0}, "'mGlu' does not hold numbers"),
        ({"mGlu": np.ones((3, 2)), "mNeu": 850.0}, r"'mGlu' has shape \(3, 2\); needed is \(n\)"),
        ({"mGlu": np.full(3, 1600.0), "mNeu": np.full(2, 850.0)}, "'mNeu' has 2 values, another condition has 3"),
        ({"mGlu": [1600.0, 800.0], "mNeu": 850.0}, "m_neutralino = 850 GeV"),
        ({"mGlu": [], "mNeu": []}, "has shape"),
    ],
)
def test_bad_arrays_of_conditions(values, message):
    with pytest.raises(InputError, match=message):
        asking.of_arrays(PROBLEM, values)


def test_a_number_stands_for_all_events():
    found = asking.of_arrays(PROBLEM, {"mGlu": [1400, 1600, 1800], "mNeu": 850})
    assert found["mNeu"].tolist() == [850.0] * 3
    assert found["mGlu"].dtype == np.float32
    with pytest.raises(InputError, match="the generator of problem 'rpv' takes no conditions"):
        asking.of_arrays(RpvProblem(RpvModel()), {"mGlu": 1400})


# --- figures -----------------------------------------------------------------------------------------------------


def test_the_figure_has_a_panel_for_each_neutralino_and_a_colour_for_each_gluino():
    """Seven gluino masses at one neutralino mass: five of them are shown, the first and the last included."""
    points = [(1200.0 + 100 * i, 850.0) for i in range(7)] + [(1400.0, 250.0)]
    which = np.arange(80) % 8
    observed = {
        "summed_jet_mass": Observable(500.0 + 10.0 * np.arange(80), unit="GeV"),
        "mGlu": Observable(np.array(points)[which, 0], condition=True),
        "mNeu": Observable(np.array(points)[which, 1], condition=True),
    }
    ((name, caption, figure),) = figures_of(PROBLEM).points(observed, observed, [{"mGlu": 1400.0, "mNeu": 250.0}])
    assert name == "mass_dependence"
    assert "real events as points" in caption
    light, heavy = figure.axes
    assert [text.get_text() for text in light.get_legend().get_texts()] == [r"$m_{\tilde g}$ = 1400 GeV, left out"]
    names = [text.get_text() for text in heavy.get_legend().get_texts()]
    assert len(names) == 5
    assert "1200" in names[0]
    assert "1800" in names[-1]
    points_drawn = {a: [line for line in a.get_lines() if line.get_marker() == "o"] for a in figure.axes}
    assert len({tuple(line.get_color()) for line in points_drawn[heavy]}) == 5
    assert points_drawn[light][0].get_ydata().sum() == pytest.approx(1.0)  # fractions of events
    assert light.get_xlabel() == "Summed jet mass [GeV]"
    few = figures_of(PROBLEM).points(observed, {k: o.take(np.arange(80)[which == 7]) for k, o in observed.items()}, [])
    assert len(few[0][2].axes) == 1  # only what both sides have


# --- the whole way -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> RunDirectory:
    """Trained for an epoch without one of the points, which is scored, too."""
    run = RunDirectory(tmp_path_factory.mktemp("run") / "run")
    made = configuration(folder, 'data.leave_out=[{"mGlu": 1600, "mNeu": 850}]')
    attempt.train(made, run, SerialComm(), StopRequest())
    return run


def test_the_record_of_a_training_has_scores_by_point(run):
    (record,) = recorded(run.metrics_file, "epoch")
    assert record["samples"] == 60  # two of three points of 90
    assert record["score"]["n"] == 20
    found = record["score"]["details"]["points"]
    assert [p["conditions"]["mGlu"] for p in found] == [1400.0, 1800.0]
    assert [p["n"] for p in found] == [10, 10]
    assert record["score"]["total"] == pytest.approx(np.mean([p["total"] for p in found]))
    with hdf5.open_images(run.samples / "epoch-0001.h5") as file:
        assert file.column("mGlu").tolist() == [1400.0, 1800.0] * 5


def generate(run, out, *options):
    parser = argparse.ArgumentParser()
    generate_command.add_parser(parser.add_subparsers())
    return generate_command.run(parser.parse_args(["generate", str(run.path), "--out", str(out), *map(str, options)]))


def test_generate_at_given_points(run, tmp_path, capsys):
    points = ["--condition", "mGlu=1400,mNeu=850", "--condition", "mGlu=1500,mNeu=850"]  # one of them was never trained
    assert generate(run, tmp_path / "a.h5", "-n", 25, *points) == 0
    assert generate(run, tmp_path / "b.h5", "-n", 12, *points) == 0
    assert "warning" not in capsys.readouterr().err
    with hdf5.open_images(tmp_path / "a.h5") as a, hdf5.open_images(tmp_path / "b.h5") as b:
        assert a.column("mGlu").tolist() == [1400.0, 1500.0] * 12 + [1400.0]
        assert a.attrs["conditions"] == "mGlu=1400,mNeu=850; mGlu=1500,mNeu=850"
        np.testing.assert_array_equal(a.read(slice(0, 12)), b.read())
    PROBLEM.validate(tmp_path / "a.h5", "test")
    assert generate(run, tmp_path / "c.h5", "-n", 3, "--condition", "mGlu=2000,mNeu=850") == 0
    assert "warning: mGlu=2000 GeV is outside the training data's 1400 to 1800 GeV" in capsys.readouterr().err
    with pytest.raises(InputError, match="mNeu is missing"):
        generate(run, tmp_path / "d.h5", "-n", 3, "--condition", "mGlu=2000")
    assert not (tmp_path / "d.h5").exists()


def test_generate_as_in_the_training_data(run, folder, tmp_path):
    assert generate(run, tmp_path / "a.h5", "-n", 40) == 0
    with hdf5.open_images(tmp_path / "a.h5") as a:
        assert set(a.column("mGlu").tolist()) == {1400.0, 1800.0}  # not the point that was left out
        assert a.attrs["conditions"] == f"those of random training events of {folder}"
        expected = load_sampler(run.path).sample(23, 1)
        np.testing.assert_array_equal(a.read(slice(0, 23)), expected["hist"])
        np.testing.assert_array_equal(a.column("mGlu")[:23], expected["mGlu"])


def test_generate_from_python(run):
    several = hpcgan.generate(run.path, conditions={"mGlu": np.linspace(1400, 1800, 13), "mNeu": 850.0})
    assert several["hist"].shape == (13, 64, 64)
    assert several["mGlu"] == pytest.approx(np.linspace(1400, 1800, 13))
    first = hpcgan.generate(run.path, 1, conditions=[{"mGlu": 1400, "mNeu": 850}])
    np.testing.assert_array_equal(first["hist"][0], several["hist"][0])
    turns = hpcgan.generate(run.path, 5, conditions=[{"mGlu": 1400, "mNeu": 850}, POINT])
    assert turns["mGlu"].tolist() == [1400, 1600, 1400, 1600, 1400]
    with pytest.warns(UserWarning, match="mNeu=100 GeV is outside the training data's 850 to 850 GeV"):
        hpcgan.generate(run.path, 2, conditions={"mGlu": 1400, "mNeu": 100})
    for arguments, message in (
        ({}, "n is missing"),
        ({"n": 3, "conditions": {"mGlu": [1400, 1500], "mNeu": 850}}, "conditions: there are 2, n is 3"),
        ({"n": 3, "conditions": []}, "give at least one point"),
        ({"n": 3, "conditions": [{"mGlu": 1400}]}, "mNeu is missing"),
        ({"n": 0}, "n=0: give at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            hpcgan.generate(run.path, **arguments)


def test_without_the_training_data_conditions_must_be_given(run, tmp_path):
    moved = RunDirectory(tmp_path / "moved")
    tiny_copy = run.config_file.read_text().replace(str(run.load_config().data.path), str(tmp_path / "gone"))
    moved.path.mkdir()
    moved.config_file.write_text(tiny_copy)
    moved.checkpoints.symlink_to(run.checkpoints)
    with pytest.raises(InputError, match=r"gone/train.h5: no such file"):
        hpcgan.generate(moved.path, 2)
    with pytest.warns(UserWarning, match="no telling whether this is an extrapolation"):
        hpcgan.generate(moved.path, 2, conditions=[POINT])


@pytest.mark.usefixtures("undrawn")
def test_evaluate_a_run_with_a_point_left_out(run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = report.evaluate_run(run.path, EvaluationOptions(2, repetitions=20), out=tmp_path, log=lambda text: None)
    data = made.data
    assert data["score"]["n"] == data["band"]["n"] == 20  # of the trained points
    rows = data["points"]
    assert [(row["conditions"]["mGlu"], row["trained"], row["n"]) for row in rows] == [
        (1400.0, True, 10),
        (1800.0, True, 10),
        (1600.0, False, 10),
    ]
    assert np.mean([row["score"]["mean"] for row in rows[:2]]) == pytest.approx(data["score"]["mean"])
    nearest = rows[2]["nearest"]
    assert nearest["conditions"] == {"mGlu": 1400.0, "mNeu": 850.0}
    assert (nearest["real"]["samples"], nearest["generated"]["samples"]) == (2, 2)
    assert list(data["distances"]) == ["jet_multiplicity", "summed_jet_mass", "jet_pt"]
    assert "mass_dependence" in [figure["name"] for figure in data["figures"]]
    text = report.summary(made)
    assert "score at each point:\n  at mGlu=1400, mNeu=850: " in text
    assert "at mGlu=1600, mNeu=850:" in text
    assert text.count(" at N=10 (real: 95% below ") == 3
    assert "left out of the training" in text
    assert "instead of it, nearest trained mGlu=1400, mNeu=850" in text
    page = Page(made.html.read_text())
    check_numbers(page, json.loads(made.json.read_text()))
    keys = {key for key, _, _ in page.data}
    assert {"points.0.score.mean", "points.2.band.p95", "points.2.nearest.real.mean"} <= keys


def test_a_point_left_out_without_events_for_a_band_is_said(run, folder):
    """All events of the point are in the training split, which is scored on request."""
    drawing = load_sampler(run.path)
    observed = {}
    for split in ("train", "val", "test"):
        source = drawing.problem.open(folder, split)
        observed[split] = drawing.problem.observables(source.read(np.arange(12)))
        source.close()
    apart = {split: grouped.take(found, grouped.events_of(found, (1400.0, 850.0))) for split, found in observed.items()}
    loaded = {
        split: Loaded(None, np.arange(12), observed["train"] if split == "train" else apart[split], 12)
        for split in apart
    }
    trained = apart["train"]
    made = score_left_out(drawing, loaded, "train", [POINT], trained, trained, EvaluationOptions(1, repetitions=2))
    assert made.rows == []
    assert made.notices == ["Not scored at mGlu=1600, mNeu=850: too few real events for a null band."]


@pytest.mark.usefixtures("few_repetitions")
def test_evaluate_files_with_masses(run, folder, tmp_path, monkeypatch, capsys):
    options = ["--condition", "mGlu=1600,mNeu=850", "--condition", "mGlu=1900,mNeu=850"]
    generate(run, tmp_path / "fake.h5", "-n", 36, *options)
    monkeypatch.setattr(ImageFigures, "compare", lambda self, real, fake, weights: [])
    parser = argparse.ArgumentParser()
    evaluate_command.add_parser(parser.add_subparsers())
    files = ["--real", str(folder / "test.h5"), "--fake", str(tmp_path / "fake.h5"), "--problem", "conditional"]
    assert evaluate_command.run(parser.parse_args(["evaluate", *files])) == 0
    found = json.loads((tmp_path / "fake-report" / "report.json").read_text())
    assert found["score"]["n"] == 10  # real events of the one point that both have
    assert found["band"]["n"] == 5
    assert [row["conditions"] for row in found["points"]] == [POINT]
    assert "Generated events at mGlu=1900, mNeu=850 are left out: the other side has none." in found["notices"]
    with pytest.raises(InputError, match="has no data set 'all_events/mGlu'"):
        report.compare_files(
            folder / "test.h5", write(tmp_path / "none.h5"), problem="conditional", log=lambda text: None
        )
