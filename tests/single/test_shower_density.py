"""The density of calorimeter showers: layers that know the layers before, cells that do not exist, a training of it."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import needs
import numpy as np
import pytest
import tiny
from one_rank import eagerly

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan import config  # noqa: E402
from hpcgan.data.generators import make_data_set  # noqa: E402
from hpcgan.errors import InputError, Interrupted  # noqa: E402
from hpcgan.evaluation import report  # noqa: E402
from hpcgan.evaluation.compare import EvaluationOptions  # noqa: E402
from hpcgan.networks.sharing import NUMBERS  # noqa: E402
from hpcgan.networks.splits import COLUMNS, ROWS  # noqa: E402
from hpcgan.physics.calorimeter import parse_segmentation  # noqa: E402
from hpcgan.problems.calorimeter import generate as calo_generate  # noqa: E402
from hpcgan.problems.calorimeter.calogan import QUANTITIES, CaloganModel, CaloganProblem  # noqa: E402
from hpcgan.problems.calorimeter.generate import Beam  # noqa: E402
from hpcgan.problems.calorimeter.grids import equal_cells, margins, overlap, padded  # noqa: E402
from hpcgan.problems.calorimeter.networks_multiscale import Multiscale, halvings  # noqa: E402
from hpcgan.runs import checkpoint as checkpoints  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402

CELLS = "3x6,3x3,1x3"
LEAST = 1e-5  # GeV


@pytest.fixture(scope="module", autouse=True)
def _eager():
    """Graphs take longer to make than the few steps; `test_export.py` makes one of samples."""
    with eagerly():
        yield


def density(dtype: str = "float64", particles: tuple[str, ...] = ("gamma",)) -> Multiscale:
    """With weights that are large enough to matter."""
    model = CaloganModel(architecture="multiscale", hidden_units=4, segmentation=CELLS, particles=particles)
    network, rng = Multiscale(model, 1, dtype), np.random.default_rng(1)
    for variable in network.trainable_variables:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    return network


@pytest.fixture(scope="module")
def network() -> Multiscale:
    return density()


def showers(n: int, seed: int = 0) -> dict[str, tf.Tensor]:
    """With cells from LEAST to some GeV, one in two dark."""
    rng, shapes = np.random.default_rng(seed), parse_segmentation(CELLS).shapes
    energies = [
        LEAST * np.exp(rng.uniform(0.0, 12.0, (n, *shape))) * rng.integers(0, 2, (n, *shape)) for shape in shapes
    ]
    sample = {f"layer_{i}": tf.constant(image) for i, image in enumerate(energies)}
    return {**sample, "energy": tf.constant(rng.uniform(5.0, 50.0, n))}


def of_energy(network: Multiscale, total: float, n: int, energy: float = 10.0) -> dict[str, np.ndarray]:
    """Samples with so much energy in all cells."""
    network.response.table.assign(np.full(network.response.table.shape, math.log(total / energy)))
    cells = sum(padded(rows) * padded(columns) - 1 for rows, columns in parse_segmentation(CELLS).shapes)
    noise = np.random.default_rng(0).normal(size=(n, 1 + NUMBERS * (2 + cells)))
    made = network(tf.constant(noise), {"energy": tf.fill([n], tf.constant(energy, tf.float64))})
    return {name: image.numpy() for name, image in made.items()}


# --- grids -----------------------------------------------------------------------------------------------------------


def test_cells_lie_in_the_middle_of_a_grid_of_a_power_of_two():
    assert [padded(n) for n in (1, 2, 3, 12, 16, 96)] == [1, 2, 4, 16, 16, 128]
    assert [margins(n) for n in (1, 3, 6, 12, 96)] == [(0, 0), (0, 1), (1, 1), (2, 2), (16, 16)]
    assert halvings((2, 8)) == [(1, 1, ROWS), (2, 1, COLUMNS), (2, 2, COLUMNS), (2, 4, COLUMNS)]
    assert halvings((4, 2)) == [(1, 1, ROWS), (2, 1, COLUMNS), (2, 2, ROWS)]
    for sides in itertools.product((1, 2, 8, 32), repeat=2):
        assert sum(rows * columns for rows, columns, _ in halvings(sides)) == sides[0] * sides[1] - 1


def test_energy_on_another_grid_is_shared_by_overlap():
    two, three, four = map(equal_cells, (2, 3, 4))
    np.testing.assert_allclose(overlap(two, three), [[2 / 3, 0], [1 / 3, 1 / 3], [0, 2 / 3]], atol=1e-15)
    np.testing.assert_array_equal(overlap(four, two), [[1, 1, 0, 0], [0, 0, 1, 1]])
    np.testing.assert_array_equal(overlap([-4, 0, 2], [-4, -1, 2]), [[0.75, 0], [0.25, 1]])
    for old, new in itertools.product((1, 3, 12, 96), repeat=2):
        np.testing.assert_allclose(overlap(equal_cells(old), equal_cells(new)).sum(axis=0), 1.0, rtol=1e-12)


def test_as_much_noise_as_cells_are_split():
    model = CaloganModel(architecture="multiscale", hidden_units=4)
    assert CaloganProblem(model).noise_dim == 1 + 2 * (2 + (4 * 128 - 1) + (16 * 16 - 1) + (16 * 8 - 1)) == 1791


# --- the density -----------------------------------------------------------------------------------------------------


def test_where_one_cell_is_lit_probabilities_of_all_cells_sum_to_one(network):
    """What cannot be shared by two cells is in one of the 30."""
    total, shapes = 1.5 * LEAST, parse_segmentation(CELLS).shapes
    sizes = [rows * columns for rows, columns in shapes]
    one_of = total * np.eye(sum(sizes))
    parts = np.split(one_of, np.cumsum(sizes)[:-1], axis=1)
    sample = {
        f"layer_{i}": tf.constant(part.reshape(-1, *shape))
        for i, (part, shape) in enumerate(zip(parts, shapes, strict=True))
    }
    log_p = network.log_prob({**sample, "energy": tf.fill([sum(sizes)], tf.constant(10.0, tf.float64))}).numpy()
    p = np.exp(log_p)
    assert p.sum() == pytest.approx(1.0, rel=1e-9)
    assert np.sum(p > 1e-3) > 15
    n = 4000
    made = of_energy(network, total, n)
    shares = np.concatenate([(made[f"layer_{i}"] > 0).mean(axis=0).ravel() for i in range(3)])
    assert np.all(np.abs(shares - p) < 4.5 * np.sqrt(p * (1 - p) / n))


def test_samples_have_the_energy_that_is_drawn_in_cells_that_exist(network):
    for total in (0.3 * LEAST, 3 * LEAST, 1e-3, 9.0):
        made = of_energy(network, total, 200)
        assert [made[f"layer_{i}"].shape[1:] for i in range(3)] == [(3, 6), (3, 3), (1, 3)]
        cells = np.concatenate([image.reshape(200, -1) for image in made.values()], axis=1)
        np.testing.assert_allclose(cells.sum(axis=1), total if total > LEAST else 0.0, rtol=1e-9)
        assert cells[cells > 0].min(initial=1.0) >= 0.999 * LEAST
        sample = {name: tf.constant(image) for name, image in made.items()}
        log_p = network.log_prob({**sample, "energy": tf.fill([200], tf.constant(10.0, tf.float64))}).numpy()
        assert np.isfinite(log_p).all()


def test_a_layer_knows_the_images_before_and_not_those_behind(network):
    sample = showers(40)
    images = [sample[f"layer_{i}"] for i in range(3)]
    known = network._numbers(
        network._known(sample, images), sample, tf.stack([tf.reduce_sum(x, [1, 2]) for x in images], 1)
    )
    mirrored = [image[:, :, ::-1] for image in images]  # as much energy, elsewhere
    for i, layer in enumerate(network.layers):
        as_it_is = layer.log_prob(images[i], images[:i], known).numpy()
        for j in range(i):
            before = [mirrored[k] if k == j else images[k] for k in range(i)]
            assert not np.allclose(layer.log_prob(images[i], before, known), as_it_is, rtol=1e-4)
    parts = [layer.log_prob(images[i], images[:i], known) for i, layer in enumerate(network.layers)]
    whole = network.log_prob({**sample, "layer_2": mirrored[2]}) - network.log_prob(sample)
    expected = network.layers[2].log_prob(mirrored[2], images[:2], known) - parts[2]
    np.testing.assert_allclose(whole, expected, rtol=1e-8, atol=1e-8)


def test_what_is_below_the_threshold_is_dark(network):
    sample = showers(20)
    faint = {name: tf.where(x > 0, x, 0.5 * LEAST) if name.startswith("layer") else x for name, x in sample.items()}
    np.testing.assert_allclose(network.log_prob(faint), network.log_prob(sample), rtol=1e-12)


def test_a_prior_has_what_is_frequent_place_by_place(network):
    """Of a first split by rows: 3 of 4 cells go to the upper half, all to one interval where both have some."""
    split = network.layers[1].splits[0]
    assert (split.rows, split.columns, split.axis) == (1, 1, ROWS)
    upper, lower = np.array([1.0, 1.0, 1.0, 0.0, 0.5, 0.5]), np.array([0.0, 0.0, 0.0, 1.0, 0.5, 0.5])
    split.count(tf.constant(np.stack([upper, lower], axis=1)[..., None]))
    prior = split.prior.numpy()[0]
    seen = np.array(
        [3.0, 1.0, 2.0]
    )  # besides, half a cell as in all places, of which half a cell in 6.5 is what none has
    np.testing.assert_allclose(np.exp(prior[:3]), (seen + 0.5 * (seen + 0.5 / 3) / 6.5) / 6.5, rtol=1e-9)
    assert np.exp(prior[3:]).sum() == pytest.approx(1.0)
    middle = split.bins // 2  # of halves with as much
    assert np.argmax(prior[3:]) in (middle - 1, middle)
    unseen = np.delete(prior[3:], np.argmax(prior[3:]))
    np.testing.assert_allclose(np.exp(unseen), 0.5 * 0.5 / split.bins / 2.5 / 2.5, rtol=1e-9)
    split.prior.assign(tf.zeros_like(split.prior))


def test_a_prior_does_not_mix_the_sides(network):
    """Of two columns that are split, the left has its momentum in the right half and the right in the left."""
    split = network.layers[0].splits[3]
    assert (split.rows, split.columns, split.axis) == (4, 2, COLUMNS)
    images = np.zeros((50, 4, 4))
    images[:, :3, 1:3] = 1.0
    split.count(tf.constant(images))
    ways = np.exp(split.prior.numpy()[:, :3]).reshape(4, 2, 3)
    np.testing.assert_allclose(ways[:3, 0, 1], (50.0 + 0.25) / 50.5, rtol=1e-3)
    np.testing.assert_allclose(ways[:3, 1, 0], (50.0 + 0.25) / 50.5, rtol=1e-3)
    split.prior.assign(tf.zeros_like(split.prior))


def test_particles_have_their_own_response_and_likelihood():
    built, sample = density(particles=("gamma", "eplus")), showers(400)
    particle = np.where(np.arange(400) % 2, 22.0, -11.0)
    bright = tf.constant(np.where(particle == 22.0, 1.0, 0.1))
    sample |= {name: sample[name] * bright[:, None, None] for name in ("layer_0", "layer_1", "layer_2")}
    sample["particle"] = tf.constant(particle)
    built.calibrate([sample])
    energy = tf.constant([20.0, 20.0], tf.float64)
    of_classes = built.response(tf.zeros([2], tf.float64), energy, tf.constant([0, 1])).numpy()
    assert of_classes[0] / of_classes[1] == pytest.approx(10.0, rel=0.5)
    other = {**sample, "particle": tf.constant(-11.0 + 22.0 - particle)}
    assert not np.allclose(built.log_prob(sample), built.log_prob(other), rtol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hidden_units=0"], "needs model.hidden_units"),
        (["model.threshold_mev=0"], "model.threshold_mev"),
        (["model.latent_dim=10"], "model.latent_dim is of a generator and a discriminator.*leave it out"),
        (["model.architecture=calogan"], "model.hidden_units needs model.architecture=multiscale"),
        (
            ["model.architecture=calogan", "model.hidden_units=0"],
            "trains density, but this model has generator and discr",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides, message):
    with pytest.raises(InputError, match=message) as error:
        config.load(Path("configs/calogan_nll.yaml"), overrides)
    assert "\n" not in str(error.value)


# --- a training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "gamma"
    beam = Beam("gamma", (2.0, 20.0), parse_segmentation(CELLS))
    make_data_set(calo_generate.ShowerSet(beam, 100), out)
    return out


def configuration(folder: Path) -> config.Config:
    small = ["training.epochs=2", "training.batch_size=30", "model.hidden_units=4", "scoring.events=20"]
    cadence = ["scoring.every_epochs=1", f"data.path={folder}", f"model.segmentation={CELLS}"]
    return config.load(Path("configs/calogan_nll.yaml"), [*small, *cadence])


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> RunDirectory:
    return tiny.train(configuration(folder), tmp_path_factory.mktemp("run") / "run")


def test_the_epoch_is_chosen_by_the_likelihood_of_held_out_showers(run):
    records = recorded(run.metrics_file, "epoch")
    assert [record["selected_by"] for record in records] == ["held_out"] * 2
    assert all(math.isfinite(record["held_out"]["mean"]) for record in records)
    assert set(records[0]["score"]["parts"]) == set(QUANTITIES)


def test_stopped_and_resumed_it_ends_with_the_same_bits(run, folder, tmp_path):
    with pytest.raises(Interrupted):
        tiny.train(configuration(folder), tmp_path / "again", tiny.StopAt(3))
    again = tiny.train(configuration(folder), tmp_path / "again")
    ours, theirs = (checkpoints.load(checkpoints.path_of(r.checkpoints, 4)) for r in (again, run))
    tiny.assert_same_state(ours, theirs)


@pytest.mark.faults  # two minutes without graphs
def test_evaluate(run, tmp_path):
    page = report.evaluate_run(run.path, EvaluationOptions(2, repetitions=20), out=tmp_path, log=lambda text: None)
    assert set(QUANTITIES) <= set(page.data["distances"])
