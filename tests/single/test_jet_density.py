"""The density of jet images: splits over many decades, pixels that do not exist, classes; trainings of it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import jet_data
import needs
import numpy as np
import pytest
import tiny
from one_rank import eagerly
from scipy import stats
from scipy.integrate import trapezoid

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan import config  # noqa: E402
from hpcgan.commands import generate as generate_command  # noqa: E402
from hpcgan.errors import InputError, Interrupted  # noqa: E402
from hpcgan.evaluation import report  # noqa: E402
from hpcgan.evaluation.compare import EvaluationOptions  # noqa: E402
from hpcgan.networks import multiscale  # noqa: E402
from hpcgan.networks.layers import Initializer, uniform_of  # noqa: E402
from hpcgan.networks.sharing import NUMBERS, StretchedLogit  # noqa: E402
from hpcgan.networks.splits import COLUMNS, ROWS, Cells, Grid, Sight, Split  # noqa: E402
from hpcgan.problems.jet_images import files, networks_multiscale  # noqa: E402
from hpcgan.problems.jet_images.networks_multiscale import FIRST, Multiscale  # noqa: E402
from hpcgan.problems.jet_images.problem import SIDE_OF_SPLITS, JetsModel, JetsProblem  # noqa: E402
from hpcgan.runs import checkpoint as checkpoints  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402

LEAST = 1e-6
GRID = Grid(4, goes_around=False, coordinate=StretchedLogit(), bins=(16, 16), sight=Sight(per_gev=(2.0, 1e3)), sparse=1)
MODEL = JetsModel(architecture="multiscale", hidden_units=4, threshold_gev=LEAST)
PROBLEM = JetsProblem(MODEL)


@pytest.fixture(scope="module", autouse=True)
def _eager():
    """Graphs take longer to make than the few steps; `test_export.py` makes one of samples."""
    with eagerly():
        yield


def shake(network: tf.Module, by: float = 0.3) -> None:
    """Weights that are large enough to matter."""
    rng = np.random.default_rng(1)
    for variable in network.trainable_variables:
        variable.assign_add(by * rng.normal(size=variable.shape))


class Tiny(multiscale.Multiscale):
    """Images of 3 x 3 pixels within 4 x 4, whose pT is what it is."""

    def __init__(self) -> None:
        least = np.full((4, 4), np.inf)
        least[:3, 1:] = 0.5
        super().__init__(Initializer(1, "float64"), GRID, least, 8, ["signal"])
        shake(self)

    def pt(self, sample):
        return tf.pad(sample["image"], [(0, 0), (0, 1), (1, 0)])

    def encoded(self, pt):
        return {"image": pt[:, :3, 1:], "whole": pt}


@pytest.fixture(scope="module")
def network() -> Tiny:
    built = Tiny()
    built.total.log_total_pt.assign(np.full(built.total.log_total_pt.shape, 0.0))
    return built


def drawn(network: Tiny, total: float, n: int, signal: float = 1.0) -> tuple[np.ndarray, dict[str, tf.Tensor]]:
    """Whole images of a sum in GeV, padding included, and the samples."""
    table = np.zeros(network.total.log_total_pt.shape)
    table[0] = math.log(total)
    network.total.log_total_pt.assign(table)
    noise = np.random.default_rng(0).normal(size=(n, 1 + NUMBERS * 15))
    noise[:, 0] = 0.0  # a sum from the tail would be larger
    conditions = {"signal": tf.fill([n], tf.constant(signal, tf.float64))}
    sample = network(tf.constant(noise), conditions)
    return sample["whole"].numpy(), {"image": sample["image"], **conditions}


def stretched(least: float = LEAST) -> Split:
    grid = Grid(2, goes_around=False, coordinate=StretchedLogit(), bins=(16, 16))
    part = Split(Initializer(1, "float64"), "split", grid, (1, 1, ROWS), np.full((2, 1), least), 8, 0)
    shake(part)
    return part


def by_quadrature(part: Split, total: float, n: int = 40001) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First halves, their densities, and the probabilities that the first or the second half has all."""
    edge = math.asinh(math.log(total / LEAST - 1))
    x = np.sinh(np.linspace(-edge, edge, n)[1:-1])  # logits
    first, second = total / (1 + np.exp(-x)), total / (1 + np.exp(x))
    pair = np.stack([np.append(first, [total, 0.0]), np.append(second, [0.0, total])], axis=1)[..., None]
    p = np.exp(part.log_prob(tf.constant(pair), None).numpy())
    return first, p[:-2], p[-2:]


# --- a split over many decades -------------------------------------------------------------------------------------


def test_a_density_over_eight_decades_integrates_to_one():
    first, density, alone = by_quadrature(stretched(), 100.0)
    assert alone.min() > 0.05
    assert trapezoid(density, first) + alone.sum() == pytest.approx(1.0, abs=2e-3)
    assert trapezoid(density[first < 0.1], first[first < 0.1]) > 0.01  # a matter of the small shares, too


def test_samples_follow_it_and_their_likelihood_is_minus_the_entropy():
    part, n, total = stretched(), 20000, 100.0
    normal = np.random.default_rng(2).normal(size=(n, 1, 1, NUMBERS))
    images = part(tf.fill([n, 1, 1], tf.constant(total, tf.float64)), uniform_of(tf.constant(normal)), None)
    first, second = images.numpy()[..., 0].T
    x, density, alone = by_quadrature(part, total)
    for is_dark, p in ((second == 0, alone[0]), (first == 0, alone[1])):
        assert abs(is_dark.mean() - p) < 4 * math.sqrt(p * (1 - p) / n)
    cumulative = np.append(0.0, np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(x)))
    both = first[(first > 0) & (second > 0)]
    assert stats.kstest(both, lambda at: np.interp(at, x, cumulative / cumulative[-1])).pvalue > 1e-3
    negative_entropy = trapezoid(density * np.log(density), x) + np.sum(alone * np.log(alone))
    log_p = part.log_prob(images, None).numpy()
    assert abs(log_p.mean() - negative_entropy) < 4 * log_p.std() / math.sqrt(n)


def test_the_smaller_half_keeps_its_digits():
    x = tf.constant(np.arcsinh([-25.0, -3.0, 0.0, 3.0, 25.0]), tf.float32)
    first, second = (share.numpy() for share in StretchedLogit().shares(x))
    expected = 1 / (1 + np.exp([25.0, 3.0, 0.0, -3.0, -25.0]))
    np.testing.assert_allclose(first, expected, rtol=1e-4)
    np.testing.assert_allclose(second, expected[::-1], rtol=1e-4)


# --- pixels that do not exist, and classes -------------------------------------------------------------------------


def test_of_one_pixel_the_nine_probabilities_sum_to_one_and_have_the_entropy_of_samples(network):
    """0.9 GeV cannot be shared by two pixels of 0.5."""
    images = 0.9 * np.eye(9).reshape(9, 3, 3)
    log_p = network.log_prob({"image": tf.constant(images), "signal": tf.ones([9], tf.float64)}).numpy()
    p = np.exp(log_p)
    assert p.sum() == pytest.approx(1.0, rel=1e-9)
    assert p.min() > 1e-4
    n = 4000
    _, sample = drawn(network, 0.9, n)
    shares = (sample["image"].numpy() > 0).mean(axis=0).ravel()
    assert np.all(np.abs(shares - p) < 4.5 * np.sqrt(p * (1 - p) / n))
    of_samples = network.log_prob(sample).numpy()
    assert abs(of_samples.mean() - np.sum(p * log_p)) < 4 * of_samples.std() / math.sqrt(n)


def test_what_is_no_pixel_is_never_lit_and_costs_nothing(network):
    for total in (0.1, 0.9, 5.0, 300.0):
        whole, sample = drawn(network, total, 300)
        assert np.all(whole[:, 3] == 0)
        assert np.all(whole[:, :, 0] == 0)
        np.testing.assert_allclose(whole.sum(axis=(1, 2)), total, rtol=1e-9)
        assert np.isfinite(network.log_prob(sample).numpy()).all()
    # In a cell whose lower half is no pixel there is no choice, however little it has.
    halve_rows = next(split for split in network.splits if (split.rows, split.axis) == (2, ROWS))
    for pt in (0.9, 0.1):
        images = tf.constant([[[0, 0], [0, 0], [0, pt], [0, 0]]], tf.float64)
        log_p = halve_rows.log_prob(images, tf.ones([1, 1], tf.float64)).numpy()
        assert log_p[0] == pytest.approx(0.0, abs=1e-12)


def test_columns_do_not_go_around_and_places_matter():
    part = Split(Initializer(1, "float64"), "split", GRID, (4, 2, COLUMNS), np.full((4, 4), 0.5), 8, 0)
    shake(part)
    halves = np.random.default_rng(0).uniform(0.6, 3.0, (1, 4, 4))
    first, second = part.halves(tf.constant(halves))
    whole = first + second
    reach = part._reach
    widened = part._widened(whole, *reach).numpy()
    assert widened.shape == (1, 4 + 2 * reach[0], 2 + 2 * reach[1])
    assert widened.sum() == pytest.approx(halves.sum())  # zeros beyond the edges
    mirrored = part.log_prob(tf.constant(halves[:, :, [2, 3, 0, 1]]), None)
    assert not np.allclose(part.log_prob(tf.constant(halves), None), mirrored, rtol=1e-4)
    assert len(Cells.where(whole > 0).event) == 8


def test_a_class_has_its_own_sums_shares_and_likelihood(network):
    built = Tiny()
    rng = np.random.default_rng(0)
    images = rng.uniform(0.6, 2.0, (400, 3, 3)) * np.where(np.arange(400) % 2, 3.0, 1.0)[:, None, None]
    signal = (np.arange(400) % 2).astype(float)
    sample = {"image": tf.constant(images), "signal": tf.constant(signal)}
    built.calibrate([sample])
    medians = np.exp(built.total(tf.zeros([2], tf.float64), tf.constant([[0.0], [1.0]], tf.float64)).numpy())
    sums = images.sum(axis=(1, 2))
    np.testing.assert_allclose(medians, [np.median(sums[signal == c]) for c in (0, 1)], rtol=1e-2)
    assert not np.allclose(
        built.log_prob(sample), built.log_prob({**sample, "signal": 1.0 - sample["signal"]}), rtol=1e-3
    )
    of_class = [drawn(network, 20.0, 50, signal)[0] for signal in (0.0, 1.0)]
    assert not np.allclose(*of_class)


# --- jets ----------------------------------------------------------------------------------------------------------


def test_an_image_lies_in_the_middle_and_what_is_below_the_threshold_is_dark():
    network = Multiscale(MODEL, 1)
    image = np.zeros((1, 25, 25), np.float32)
    image[0, 12, 12], image[0, 0, 24], image[0, 24, 0] = 200.0, 2 * LEAST, 0.5 * LEAST
    pt = network.pt(
        {k: tf.constant(v) for k, v in PROBLEM.encode({"image": image, "signal": np.ones(1)}).items()}
    ).numpy()
    lit = {(15, 15): 200.0, (FIRST, 27): 2 * LEAST}
    assert {(int(r), int(c)) for r, c in np.argwhere(pt[0])} == set(lit)
    assert [pt[0][at] for at in lit] == pytest.approx(list(lit.values()), rel=1e-6)
    np.testing.assert_allclose(
        PROBLEM.decode({"image": network.encoded(tf.constant(pt))["image"].numpy()})["image"],
        image * (image > LEAST),
        rtol=1e-6,
    )
    assert networks_multiscale.GRID.side == SIDE_OF_SPLITS
    cells = sum(rows * columns for rows, columns, _ in networks_multiscale.GRID.splits())
    assert PROBLEM.noise_dim == 1 + NUMBERS * cells == 1 + 2 * 1023


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hidden_units=0"], "needs model.hidden_units"),
        (["model.threshold_gev=0"], "set model.threshold_gev"),
        (["model.dropout=0.1"], "model.dropout is of a generator and a discriminator.*leave it out"),
        (["model.architecture=fc"], "model.hidden_units needs model.architecture=multiscale"),
        (["model.architecture=fc", "model.hidden_units=0"], "trains density, but this model has generator and discr"),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides, message):
    with pytest.raises(InputError, match=message) as error:
        config.load(Path("configs/jets.yaml"), overrides)
    assert "\n" not in str(error.value)


# --- a training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jet_data.write(tmp_path_factory.mktemp("data") / "jets")


def configuration(folder: Path, *overrides: str) -> config.Config:
    small = ["training.epochs=2", "training.batch_size=30", "model.hidden_units=4", "scoring.events=20"]
    cadence = ["scoring.every_epochs=1", f"data.path={folder}"]
    return config.load(Path("configs/jets.yaml"), [*small, *cadence, *overrides])


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> RunDirectory:
    return tiny.train(configuration(folder), tmp_path_factory.mktemp("run") / "run")


def test_the_epoch_is_chosen_by_the_likelihood_of_held_out_jets(run):
    records = recorded(run.metrics_file, "epoch")
    assert [record["selected_by"] for record in records] == ["held_out"] * 2
    assert all(math.isfinite(record["held_out"]["mean"]) for record in records)
    assert set(records[0]["losses"]) == {"nll"}


def test_stopped_and_resumed_it_ends_with_the_same_bits(run, folder, tmp_path):
    with pytest.raises(Interrupted):
        tiny.train(configuration(folder), tmp_path / "again", tiny.StopAt(3))
    again = tiny.train(configuration(folder), tmp_path / "again")
    ours, theirs = (checkpoints.load(checkpoints.path_of(r.checkpoints, 4)) for r in (again, run))
    tiny.assert_same_state(ours, theirs)


def test_generate_by_class(run, tmp_path):
    parser = argparse.ArgumentParser()
    generate_command.add_parser(parser.add_subparsers())
    out = tmp_path / "w.h5"
    args = parser.parse_args(["generate", str(run.path), "--out", str(out), "-n", "5", "--condition", "signal=1"])
    assert generate_command.run(args) == 0
    files.validate(out)
    with files.open_jets(out) as file:
        sample = file.read()
    assert sample["signal"].tolist() == [1.0] * 5
    assert np.all(sample["image"].sum(axis=(1, 2)) > 100.0)


def test_evaluate(run, tmp_path):
    page = report.evaluate_run(run.path, EvaluationOptions(2, repetitions=20), out=tmp_path, log=lambda text: None)
    assert {"jet_mass", "jet_pt", "tau21", "lit_pixels"} <= set(page.data["distances"])
