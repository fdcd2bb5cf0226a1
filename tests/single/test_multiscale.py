"""The multiscale density: probabilities sum to one, samples follow them, turns, sums, thresholds."""

import math
from pathlib import Path

import needs
import numpy as np
import pytest
from scipy import stats

tf = needs.tensorflow()

from hpcgan import config  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.methods.nll import Likelihood  # noqa: E402
from hpcgan.networks import splits  # noqa: E402
from hpcgan.networks.drawn_total import DrawnTotal  # noqa: E402
from hpcgan.networks.layers import Initializer, uniform_of  # noqa: E402
from hpcgan.networks.sharing import BOTH, FIRST, NUMBERS, SECOND  # noqa: E402
from hpcgan.networks.splits import COLUMNS as PHI  # noqa: E402
from hpcgan.networks.splits import ROWS as ETA  # noqa: E402
from hpcgan.networks.splits import Split  # noqa: E402
from hpcgan.physics import jets  # noqa: E402
from hpcgan.problems.detector_images.conditional import ConditionalModel  # noqa: E402
from hpcgan.problems.detector_images.networks_multiscale import GRID, Multiscale  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"architecture": "multiscale", "hidden_units": 4, "intensity": "pt", "scale_mev": 6000.0, "exponent": 1 / 3}
MODEL = RpvModel(total_pt="drawn", **SETTINGS)
PROBLEM = RpvProblem(MODEL)
COSH = np.cosh(jets.image_geometry().eta)


def split(rows, columns, axis, least=0.5, seed=1):
    """With weights large enough to matter, in float64."""
    halves = rows * (2 if axis == ETA else 1)
    least = np.broadcast_to(np.asarray(least, float), halves)[:, None]
    part = Split(Initializer(seed, "float64"), "split", GRID, (rows, columns, axis), least, units=8, conditions=0)
    rng = np.random.default_rng(seed)
    for variable in part.trainable_variables:
        variable.assign_add(0.3 * rng.normal(size=variable.shape))
    return part


def pairs(rows, columns, axis, n=1, seed=0):
    """Both halves of cells, a quarter of them without momentum."""
    rng = np.random.default_rng(seed)
    halves = np.where(rng.random((2, n, rows, columns)) < 0.75, 0.5 + rng.exponential(5.0, (2, n, rows, columns)), 0.0)
    return tf.constant(np.stack(halves, axis=axis + 1).reshape(n, rows * (2 if axis == ETA else 1), -1)), halves


@pytest.fixture(scope="module")
def network():
    built = Multiscale(MODEL, 1)
    built.total.log_total_pt.assign(np.log(500.0 + 4500.0 * built.total.levels))
    return built


@pytest.fixture(scope="module")
def noise():
    return tf.constant(np.random.default_rng(0).normal(size=(3, PROBLEM.noise_dim)), tf.float32)


@pytest.fixture(scope="module")
def images(network, noise):
    """Physical units, MeV."""
    return PROBLEM.decode({"hist": network(noise, {})["hist"].numpy()})["hist"]


@pytest.mark.parametrize("axis", [ETA, PHI])
@pytest.mark.parametrize("least", [0.5, 0.2])
def test_the_probabilities_of_all_ways_to_split_sum_to_one(axis, least):
    part = split(1, 1, axis, least, seed=4)
    total, n = 7.0, 20001
    first = np.linspace(least, total - least, n)[1:-1]
    pair = np.stack([np.append(first, [0.0, total]), np.append(total - first, [total, 0.0])], axis=1)
    p = np.exp(part.log_prob(tf.constant(np.expand_dims(pair, 3 - axis)), None).numpy())
    assert p.sum() < n  # a density times nothing is no probability
    density = p[:-2].sum() * (total - 2 * least) / (n - 1)
    assert 0.05 < p[-1] < 0.95
    assert density + p[-2] + p[-1] == pytest.approx(1.0, abs=2e-3)


def test_samples_follow_the_density():
    part, n, total = split(1, 1, ETA), 20000, 7.0
    normal = tf.constant(np.random.default_rng(1).normal(size=(n, 1, 1, 2)))
    first, second = part(tf.fill([n, 1, 1], tf.constant(total, tf.float64)), uniform_of(normal), None).numpy()[..., 0].T
    np.testing.assert_allclose(first + second, total, rtol=1e-12)
    grid = np.linspace(0.5, 6.5, 2001)[1:-1]
    pair = np.stack([np.append(grid, [0.0, total]), np.append(total - grid, [total, 0.0])], axis=1)[..., None]
    p = np.exp(part.log_prob(tf.constant(pair), None).numpy())
    for where, expected in ((second == 0, p[-1]), (first == 0, p[-2])):
        assert abs(where.mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
    both = first[(first > 0) & (second > 0)]
    cumulative = np.cumsum(p[:-2]) / p[:-2].sum()
    assert stats.kstest(both, lambda x: np.interp(x, grid, cumulative)).pvalue > 1e-3


@pytest.mark.parametrize("axis", [ETA, PHI])
def test_a_cell_depends_on_the_halves_of_cells_of_earlier_turns_alone(axis):
    part = split(4, 4, axis)
    images, _ = pairs(4, 4, axis)
    first, second = part.halves(images)
    whole = first + second
    cells = splits.Cells.where(whole > 0)
    turns = part._turn(cells.row.numpy(), cells.column.numpy())
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        answers = part.answers(part._view(whole, first, second), cells, None).intervals[:, 0]
    jacobian = tape.jacobian(answers, [first, second])
    sees = sum(np.abs(part.numpy()) for part in jacobian)[:, 0]  # (cells, rows, columns)
    rows, columns = np.indices((4, 4))
    turn_of = part._turn(rows, columns)
    for cell, turn in enumerate(turns):
        assert np.all(sees[cell][turn_of >= turn] == 0)
        if turn:  # some of all earlier ones that are near
            near = np.abs(rows - cells.row.numpy()[cell]) <= GRID.sight.radius
            earlier = (turn_of < turn) & near & (whole.numpy()[0] > 0)
            assert np.all(sees[cell][earlier] > 0)


def test_splitting_at_once_is_as_one_after_the_other():
    """What a sample's halves are drawn with is what the density says of them."""
    part = split(2, 2, ETA)
    images, _ = pairs(2, 2, ETA, n=6)
    whole = tf.add_n(part.halves(images))
    normal = tf.constant(np.random.default_rng(2).normal(size=(6, 2, 2, 2)))
    drawn = part(whole, uniform_of(normal), None)
    np.testing.assert_allclose(tf.add_n(part.halves(drawn)).numpy(), whole.numpy(), rtol=1e-12)
    log_p = part.log_prob(drawn, None).numpy()
    assert np.isfinite(log_p).all()
    # The first number of a cell decides on the way: far down it is the first, far up both, wherever that is allowed.
    least_way = part(whole, uniform_of(tf.constant(np.full((6, 2, 2, 2), -9.0))), None).numpy()
    assert np.all(least_way[:, 1::2] == 0)
    most = part(whole, uniform_of(tf.constant(np.full((6, 2, 2, 2), 9.0))), None)
    first, second = (half.numpy() for half in part.halves(most))
    is_wide = whole.numpy() > 1.001
    assert np.all((first > 0)[is_wide] & (second > 0)[is_wide])


def test_the_image_goes_around_in_phi():
    part = split(8, 8, PHI)
    images, _ = pairs(8, 8, PHI, n=2)
    turned = tf.roll(images, 4, axis=2)  # two cells: the turns stay
    np.testing.assert_allclose(part.log_prob(images, None), part.log_prob(turned, None), rtol=1e-10)
    shifted = tf.roll(images, 2, axis=1)
    assert not np.allclose(part.log_prob(images, None), part.log_prob(shifted, None), rtol=1e-4)


def test_what_the_thresholds_forbid_counts_as_the_nearest_that_they_allow():
    part = split(1, 1, ETA, [0.5, 2.0])
    forbidden, nearest = ([[[0.4], [1.9]]], [[[0.0], [2.3]]])
    values = [part.log_prob(tf.constant(pair, tf.float64), None).numpy()[0] for pair in (forbidden, nearest)]
    assert values[0] == values[1]
    assert math.exp(values[0]) < 1
    small = tf.constant([[[0.0], [1.0]]], tf.float64)  # too little for the second half
    assert part.log_prob(small, None).numpy()[0] == pytest.approx(0.0, abs=1e-12)  # the first, surely
    tiny = tf.constant([[[0.1], [0.0]]], tf.float64)  # for either
    assert part.log_prob(tiny, None).numpy()[0] == pytest.approx(0.0, abs=1e-12)


def test_ways_are_told_apart():
    assert (FIRST, SECOND, BOTH) == (0, 1, 2)


def test_splits_alternate_from_one_cell_to_all_pixels():
    shapes = GRID.splits()
    assert len(shapes) == 12
    assert shapes[:3] == [(1, 1, ETA), (2, 1, PHI), (2, 2, ETA)]
    assert shapes[-1] == (64, 32, PHI)
    cells = sum(rows * columns for rows, columns, _ in shapes)
    assert 1 + NUMBERS * cells == PROBLEM.noise_dim == 1 + 2 * 4095


def test_an_event_has_the_drawn_momentum_and_pixels_above_the_threshold(network, noise, images):
    assert images.shape == (3, 64, 64)
    total = (images / COSH[:, None]).sum(axis=(1, 2)) / 1e3
    u = stats.norm.cdf(noise.numpy()[:, 0])
    np.testing.assert_allclose(total, 500.0 + 4500.0 * u, rtol=1e-4)
    assert images[images > 0].min() > 499.9
    assert (images > 0).sum(axis=(1, 2)).min() > 3


def test_samples_are_possible_events(network, noise, images):
    encoded = PROBLEM.encode({"hist": images})
    log_p = network.log_prob({"hist": tf.constant(encoded["hist"], tf.float32)}).numpy()
    assert np.isfinite(log_p).all()
    empty = network.log_prob({"hist": tf.zeros([1, 64, 64])}).numpy()
    assert empty.tolist() == [0.0]  # no momentum to share


def test_calibration_measures_the_summed_momentum():
    built = Multiscale(MODEL, 1)
    images = np.zeros((200, 64, 64), np.float32)
    totals = np.linspace(1000.0, 3000.0, 200)  # GeV
    images[:, 20, 7] = totals * 1e3 * COSH[20]
    encoded = PROBLEM.encode({"hist": images})["hist"]
    built.calibrate([{"hist": tf.constant(part, tf.float32)} for part in np.split(encoded, 4)])
    quantiles = np.exp(built.total.log_total_pt.numpy())
    expected = [1000.0, 1000.0 + 2000.0 * 0.995 * 512 / 1023, 2990.0, 3000.0 - 10.0 / np.e]
    np.testing.assert_allclose(quantiles[[0, 512, 1023, 1024]], expected, rtol=1e-3)


@pytest.mark.parametrize("conditions", [0, 1])
def test_summed_momentum_has_no_largest_value(conditions):
    total = DrawnTotal(Initializer(1, "float64"), "density", conditions, 1025, tail=0.005)
    levels = (np.arange(100_000) + 0.5) / 100_000
    sums = 1000.0 - 200.0 * np.log1p(-levels)  # exponential above 1 TeV
    at = np.full((len(sums), 1), 0.3)
    total.measure([sums], [at] if conditions else [])
    z = np.array([-8.0, -1.0, 0.0, 2.0, 2.5758, 2.5759, 3.0, 4.0, 6.0, 9.0])
    inputs = tf.constant(at[: len(z)]) if conditions else None
    drawn = np.exp(total(tf.constant(z), inputs).numpy())
    np.testing.assert_allclose(drawn, 1000.0 - 200.0 * stats.norm.logsf(z), rtol=2e-3)
    assert drawn[-1] > 2.0 * sums.max()
    assert (np.diff(drawn) > 0).all()


def test_inputs_are_centred_and_scaled_by_real_events():
    part, (images, halves) = split(4, 4, ETA), pairs(4, 4, ETA, n=500)
    part.measure(tf.zeros_like(images), None)  # nothing to measure: as they are
    assert (part.mean.numpy() == 0).all()
    before = part.log_prob(images, None).numpy()
    part.measure(images, None)
    cells = splits.Cells.where(tf.constant(halves.sum(0) > 0))
    view = part._view(tf.constant(halves.sum(0)), *map(tf.constant, halves))
    seen = tf.concat(part._features(view, cells, None), axis=1)
    scaled = ((seen - part.mean) * part.scale).numpy()
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-9)
    spread = scaled.std(axis=0)
    assert spread.max() < 1.0
    assert np.median(spread) > 0.8
    # The same numbers, if the weights are those of inputs as they are.
    hidden = part.hidden.numpy() / part.scale.numpy()[:, None]
    part.hidden_bias.assign_add(np.tile(part.mean.numpy() @ part.hidden.numpy(), (4, 1)))
    part.hidden.assign(hidden)
    np.testing.assert_allclose(part.log_prob(images, None).numpy(), before, rtol=1e-9)


def test_the_mean_of_a_batch_is_estimated_without_bias_and_alike_on_shares_of_it(network):
    rng = np.random.default_rng(0)
    events = np.where(rng.random((16, 64, 64)) < 0.03, rng.uniform(0.45, 3.0, (16, 64, 64)), 0.0).astype(np.float32)

    def mean(part):
        return float(network.mean_log_prob({"hist": tf.constant(part)}))

    assert mean(events) == pytest.approx(np.mean([mean(events[:8]), mean(events[8:])]), rel=1e-5)
    every = float(tf.reduce_mean(network.log_prob({"hist": tf.constant(events)})))
    estimates = [mean(np.roll(events, shift, axis=0)) for shift in range(8)]
    assert np.mean(estimates) == pytest.approx(every, rel=1e-5)
    assert np.std(estimates) > 1e-4 * abs(every)  # not the mean itself


def test_a_step_up_the_gradient_makes_real_events_more_probable():
    part = split(4, 4, ETA)
    images, _ = pairs(4, 4, ETA, n=32)
    with tf.GradientTape() as tape:
        before = tf.reduce_mean(part.log_prob(images, None))
    gradients = tape.gradient(before, part.trainable_variables)
    assert not any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
    for variable, gradient in zip(part.trainable_variables, gradients, strict=True):
        variable.assign_add(1e-5 * gradient)
    after = tf.reduce_mean(part.log_prob(images, None))
    norm = sum(float(tf.reduce_sum(gradient**2)) for gradient in gradients)
    assert float(after - before) == pytest.approx(1e-5 * norm, rel=0.05)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hidden_units=0"], "needs model.hidden_units"),
        (["model.total_pt=free"], "set model.total_pt=drawn"),
        (["model.pixel_noise=true"], "model.pixel_noise needs model.architecture=detector"),
        (["model.filters=32"], "model.filters is of a generator and a discriminator.*leave it out"),
        (
            ["model.architecture=detector"],
            "trains density, but this model has generator and discriminator: set method: gan",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides, message):
    with pytest.raises(InputError, match=message) as error:
        config.load(ROOT / "configs/rpv.yaml", overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("augments", [True, False])
def test_samples_have_the_symmetries_of_the_events_it_was_trained_on(augments):
    loaded = config.load(ROOT / "configs/rpv.yaml", [f"training.augment_generated={str(augments).lower()}"])
    assert Likelihood.symmetries(loaded) == (RpvProblem.symmetries if augments else ())


def test_the_adversarial_method_has_no_networks_here(tmp_path):
    model = "{architecture: multiscale, hidden_units: 4, total_pt: drawn}"
    (tmp_path / "gan.yaml").write_text(f"problem: rpv\ndata: {{path: nowhere}}\nmodel: {model}\n")
    with pytest.raises(
        InputError, match="trains generator and discriminator, but this model has density: set method: nll"
    ):
        config.load(tmp_path / "gan.yaml", [])


def test_conditions_change_the_density_and_the_sum():
    model = ConditionalModel(total_pt="drawn", **SETTINGS)
    built = Multiscale(model, 1)
    rng = np.random.default_rng(0)
    image = np.where(rng.random((2, 64, 64)) < 0.03, rng.uniform(0.2, 1.0, (2, 64, 64)), 0.0)

    points = [{"mGlu": np.full(2, value), "mNeu": np.full(2, 0.5)} for value in (-0.5, 0.5)]
    built.calibrate(
        [
            {
                "hist": tf.constant(scale ** (1 / 3) * image, tf.float32),
                **{k: tf.constant(v, tf.float32) for k, v in p.items()},
            }
            for scale, p in zip((1.0, 2.0), points, strict=True)
        ]
    )
    for variable in built.weights:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    of_both = [
        built.log_prob(
            {"hist": tf.constant(image, tf.float32), **{k: tf.constant(v, tf.float32) for k, v in p.items()}}
        )
        for p in points
    ]
    assert not np.allclose(*of_both, rtol=1e-4)
    inputs = [tf.constant(np.stack([p["mGlu"], p["mNeu"]], axis=1), tf.float32) for p in points]
    sums = [np.exp(built.total(tf.constant([0.0, 1.0]), x).numpy()) for x in inputs]
    np.testing.assert_allclose(sums[1], 2.0 * sums[0], rtol=1e-3)
