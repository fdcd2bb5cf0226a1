"""Layers' and cells' shares of the energy of showers that are matched to the training showers'."""

import needs
import numpy as np
import pytest
from scipy import stats

tf = needs.tensorflow()

from calogan_settings import CaloGan  # noqa: E402

from hpcgan import config  # noqa: E402
from hpcgan.networks.layers import Initializer  # noqa: E402
from hpcgan.problems.calorimeter.networks import Generator  # noqa: E402
from hpcgan.problems.calorimeter.shares import BINS, DARK_LEVELS, ENERGIES, KNOTS, LEVELS, STAGES, Shares  # noqa: E402

SHAPES = ((1, 4), (2, 2))
LAYERS, CELLS = 2, 8


def shares(classes=()):
    return Shares(Initializer(1, "float64"), "shares", SHAPES, classes)


def showers(n, seed, core=4.0, first=0.3, dark=0.2, nearness=0.0, classes=()):
    """Images in GeV: the first layer has a share near `first` that falls with the energy, its second cell is brighter
    the larger `core` is, and its third is dark in a share `dark` of the showers.
    """
    rng = np.random.default_rng(seed)
    energy = rng.uniform(1.0, 100.0, n)
    share = np.clip(first - 0.1 * np.log10(energy / 10.0) + 0.05 * rng.normal(size=n), 0.02, 0.9)
    cells = [rng.gamma([1.0, core, 1.0, 1.0], size=(n, 4)), rng.gamma([2.0, core, 1.0, 1.0], size=(n, 4))]
    is_dark = rng.random(n) < dark
    cells[0][is_dark, 2] = 0.0
    parts = [x / x.sum(axis=1, keepdims=True) for x in cells]
    total = energy * rng.normal(0.9, 0.01, n)
    found = {
        f"layer_{i}": (part * (s * total)[:, None]).reshape(n, *shape)
        for i, (part, s, shape) in enumerate(zip(parts, (share, 1.0 - share), SHAPES, strict=True))
    }
    found["layer_0"][is_dark, 0, 2] = -nearness * rng.exponential(1.0, is_dark.sum())
    found["energy"] = energy
    if classes:
        found["particle"] = rng.choice(classes, n)
    return found


def tensors(sample):
    return {name: tf.constant(values) for name, values in sample.items()}


def fitted(sample, classes=()):
    found = shares(classes)
    n = len(sample["energy"])
    found.fit([tensors({name: values[i::2] for name, values in sample.items()}) for i in range(2 if n > 1 else 1)])
    return found


def tables(matching, sample):
    return tf.constant(np.stack([matching.table(matching.counts(sample, point)) for point in range(matching.points)]))


def matched(matching, sample, measured=None):
    """A sample that is matched, by what was measured on itself or on another."""
    made = tables(matching, sample if measured is None else measured)
    names = [name for name in sample if not name.startswith("layer")]
    images = {name: tf.constant(sample[name]) for name in sample if name.startswith("layer")}
    found = matching(images, {name: tf.constant(sample[name]) for name in names}, made)
    return {**{name: image.numpy() for name, image in found.items()}, **{name: sample[name] for name in names}}


def split(sample):
    images = [tf.constant(np.maximum(sample[f"layer_{i}"], 0.0)) for i in range(LAYERS)]
    return shares().split(images, tf.constant(sample["energy"])).numpy()


def total(sample):
    return sum(np.maximum(sample[f"layer_{i}"], 0.0).sum(axis=(1, 2)) for i in range(LAYERS))


# --- what is measured ----------------------------------------------------------------------------------


def test_shares_by_hand():
    one = {
        "layer_0": np.array([[[1.0, 3.0, 0.0, 0.0]]]),
        "layer_1": np.array([[[2.0, 2.0], [0.0, -1e-3]]]),
        "energy": np.array([10.0]),
    }
    found = shares().split([tf.constant(one[f"layer_{i}"]) for i in range(2)], tf.constant(one["energy"])).numpy()
    np.testing.assert_allclose(found, [[0.4, 0.4, 0.25, 0.75, 0.0, 0.0, 0.5, 0.5, 0.0, -1e-3]])


def test_tables_are_how_often_a_cell_is_dark_and_the_quantiles_of_what_it_is_else():
    real = showers(12_000, 1, dark=0.3)
    matching = fitted(real)
    edges = np.quantile(real["energy"], np.arange(1, BINS) / BINS)
    np.testing.assert_allclose(matching.edges.numpy()[0], edges, rtol=0.01)
    mine = np.digitize(real["energy"], edges) == 4
    expected = split(real)[mine]
    table = matching.real.numpy()[4]
    assert table.shape == (LAYERS + STAGES * CELLS, 1 + KNOTS)
    lit = table[:, 1 + len(DARK_LEVELS) :]
    for layer in range(LAYERS):
        np.testing.assert_allclose(lit[layer, :70], np.quantile(expected[:, layer], LEVELS[:70]), rtol=0.03)
        assert lit[layer, -1] == pytest.approx(expected[:, layer].max(), rel=0.015)
        assert table[layer, 0] == 0.0
    several = np.sum(mine) // 500
    assert several == 4  # stages, of which cells have quantiles of their own
    stages = np.quantile(expected[:, 0], np.arange(1, several) / several)
    np.testing.assert_allclose(matching.stages.numpy()[4, 0, : several - 1], stages, rtol=0.02)
    for stage in range(several):
        cell = expected[np.digitize(expected[:, 0], stages) == stage, LAYERS + 2]
        row = LAYERS + stage * CELLS + 2
        assert table[row, 0] == pytest.approx(np.mean(cell == 0), abs=0.01)
        np.testing.assert_allclose(lit[row][:40], np.quantile(cell[cell > 0], LEVELS[:40]), rtol=0.05, atol=1e-3)
    assert (table[LAYERS + several * CELLS :] == 0).all()


def test_histograms_add_up_and_do_not_depend_on_the_size_of_a_batch():
    real = showers(3000, 1)
    matching = fitted(real)
    parts = [{name: values[i : i + 700] for name, values in real.items()} for i in range(0, 3000, 700)]
    for point in (0, 5):
        whole = matching.counts(real, point)
        np.testing.assert_array_equal(sum(matching.counts(part, point) for part in parts), whole)
        assert whole.sum() == 1000 * (LAYERS + CELLS)  # bins share some, since there are few


def test_a_network_is_measured_at_energies_all_over_a_bin():
    real = showers(9000, 1)
    matching = fitted(real)
    assert matching.points == BINS
    order = np.sort(real["energy"])
    for point in range(BINS):
        asked = matching.conditions(point, 0, ENERGIES)["energy"]
        low, high = order[point * 1500], order[point * 1500 + 1499]
        assert (asked[0], asked[-1]) == (low, high)
        np.testing.assert_allclose(asked, np.linspace(low, high, ENERGIES), atol=2.0)
    parts = [matching.conditions(2, first, 50)["energy"] for first in (0, 50)]
    np.testing.assert_array_equal(np.concatenate(parts), matching.conditions(2, 0, 100)["energy"])


# --- what is done about it -----------------------------------------------------------------------------


def test_shares_become_the_real_ones_and_the_energy_in_all_cells_stays():
    matching = fitted(showers(20_000, 1))
    made = showers(20_000, 2, core=2.0, first=0.4, dark=0.4, nearness=1e-4)
    found, fresh = matched(matching, made), split(showers(20_000, 3))
    np.testing.assert_allclose(total(found), total(made), rtol=1e-12)
    before, after = split(made), split(found)
    for column in range(LAYERS):
        assert stats.ks_2samp(after[:, column], fresh[:, column]).pvalue > 0.01
        assert stats.ks_2samp(before[:, column], fresh[:, column]).pvalue < 1e-6
    for column in range(LAYERS, LAYERS + CELLS):  # not exactly: cells of a layer add up to 1
        far, near = (stats.ks_2samp(x[:, column], fresh[:, column]).statistic for x in (before, after))
        assert near < 0.05
        assert near < max(0.25 * far, 0.02)
    # The energy tells of the shares what it does in the training showers.
    real = showers(20_000, 4)
    slopes = [np.polyfit(np.log(x["energy"]), split(x)[:, 0], 1)[0] for x in (real, found)]
    assert slopes[1] == pytest.approx(slopes[0], rel=0.05)


def test_what_is_right_already_hardly_moves():
    real = showers(20_000, 1)
    before, after = split(real), split(matched(fitted(real), real))
    np.testing.assert_allclose(after, before, atol=0.01)
    np.testing.assert_array_equal(after == 0, before == 0)


def test_cells_follow_what_they_are_at_a_share_of_their_layer():
    """The second cell has a tenth of a faint layer and nine tenths of a bright one; the network mixes them up."""

    def of(n, seed, mixed):
        sample = showers(n, seed, dark=0.0)
        bright = split(sample)[:, 0] > np.median(split(sample)[:, 0])
        if mixed:
            bright = np.random.default_rng(seed + 50).random(n) < 0.5
        middle = np.where(bright, 0.9, 0.1) + 0.02 * np.random.default_rng(seed + 51).normal(size=n)
        energy = sample["layer_0"].sum(axis=(1, 2))
        other = (1 - middle) / 3
        sample["layer_0"] = np.stack([other, middle, other, other], axis=1)[:, None] * energy[:, None, None]
        return sample

    matching = fitted(of(20_000, 1, mixed=False))
    before, after = (split(x) for x in (of(20_000, 5, mixed=True), matched(matching, of(20_000, 5, mixed=True))))
    assert np.corrcoef(before[:, 0], before[:, LAYERS + 1])[0, 1] == pytest.approx(0.0, abs=0.03)
    real = split(of(20_000, 9, mixed=False))
    wanted, got = (np.corrcoef(x[:, 0], x[:, LAYERS + 1])[0, 1] for x in (real, after))
    assert got == pytest.approx(wanted, abs=0.05)


def test_where_too_few_cells_are_lit_those_nearest_to_it_are():
    real = showers(12_000, 1, dark=0.3)
    matching = fitted(real)
    made = showers(12_000, 2, dark=0.8, nearness=1e-6)
    cell = made["layer_0"][:, 0, 2]
    found = matched(matching, made)
    lit = found["layer_0"][:, 0, 2] > 0
    assert lit.mean() == pytest.approx(0.7, abs=0.01)
    assert lit[cell > 0].all()
    # The bins of the energy and the stages have cuts of their own.
    assert stats.ks_2samp(cell[(cell < 0) & lit], cell[(cell < 0) & ~lit]).statistic > 0.8
    unknown = matched(matching, showers(12_000, 2, dark=0.8))  # none is nearer than another
    assert np.mean(unknown["layer_0"][:, 0, 2] > 0) == pytest.approx(0.2, abs=0.01)
    assert all((found[f"layer_{i}"] >= 0).all() for i in range(LAYERS))
    # And where too many are, the faintest are not.
    found = matched(fitted(showers(12_000, 1, dark=0.8)), real)
    assert np.mean(found["layer_0"][:, 0, 2] > 0) == pytest.approx(0.2, abs=0.01)


def test_brighter_than_any_that_was_measured_moves_as_much_as_the_brightest():
    matching, made = fitted(showers(12_000, 1)), showers(12_000, 2, core=1.0)
    probe = {name: values[:1].copy() for name, values in made.items()}
    probe["energy"][:] = 60.0
    probe["layer_0"][:] = 60.0 * 0.9 * np.array([0.0, 0.9, 0.1, 0.0])
    probe["layer_1"][:] = 60.0 * 0.1 / 4
    found = split(matched(matching, probe, made))
    point = np.digitize(60.0, matching.edges.numpy()[0])
    last = [table.numpy()[point, 0, -1] for table in (matching.real, tables(matching, made))]
    rest = [table.numpy()[point, 1] for table in (tables(matching, made), matching.real)]
    second = np.interp(np.interp(0.1, rest[0][1 + len(DARK_LEVELS) :], LEVELS), LEVELS, rest[1][1 + len(DARK_LEVELS) :])
    expected = np.array([0.9 + last[0] - last[1], second])
    np.testing.assert_allclose(found[0, :2], expected / expected.sum(), rtol=1e-6)


def test_showers_and_layers_without_energy_stay_without():
    matching, made = fitted(showers(6000, 1)), showers(6000, 2)
    made["layer_0"][:2], made["layer_1"][1:3] = 0.0, 0.0
    made["layer_0"][0] = -1e-6  # dark, however near
    found = matched(matching, made)
    assert not found["layer_0"][:2].any()
    assert not found["layer_1"][1:3].any()
    np.testing.assert_allclose(found["layer_1"][0].sum(), made["layer_1"][0].sum())
    np.testing.assert_allclose(found["layer_0"][2].sum(), made["layer_0"][2].sum())
    assert all(np.isfinite(found[f"layer_{i}"]).all() for i in range(LAYERS))


def test_what_was_dark_when_the_network_was_measured_stays_as_it_is():
    real, made = showers(6000, 1), showers(6000, 2)
    dark = {name: values.copy() for name, values in made.items()}
    dark["layer_1"][:] = 0.0
    found = matched(fitted(real), made, dark)
    before, after = (x["layer_1"] / x["layer_1"].sum(axis=(1, 2), keepdims=True) for x in (made, found))
    np.testing.assert_allclose(after, before, rtol=1e-12)


def test_each_class_has_tables_of_its_own():
    classes = (22.0, 211.0)
    real = showers(12_000, 1, classes=classes)
    other = showers(12_000, 2, first=0.6, classes=classes)
    for i in range(LAYERS):
        pick = real["particle"] == 211.0
        real[f"layer_{i}"][pick] = other[f"layer_{i}"][pick] * (real["energy"] / other["energy"])[pick][:, None, None]
    matching = fitted(real, classes)
    assert matching.points == 2 * BINS
    assert matching.conditions(BINS + 1, 0, 2)["particle"].tolist() == [211.0, 211.0]
    made = showers(12_000, 5, classes=classes)
    found = split(matched(matching, made))[:, 0]
    for number, expected in ((22.0, split(real)), (211.0, split(real))):
        mean = found[made["particle"] == number].mean()
        assert mean == pytest.approx(expected[real["particle"] == number, 0].mean(), rel=0.03)


@pytest.mark.parametrize("n", [1, 7, 400])
def test_few_showers_are_enough(n):
    matching = fitted(showers(n, 1))
    found = matched(matching, showers(50, 2))
    assert all(np.isfinite(found[f"layer_{i}"]).all() for i in range(LAYERS))
    np.testing.assert_allclose(total(found), total(showers(50, 2)), rtol=1e-12)


def test_energies_that_are_a_few_values():
    real = showers(6000, 1)
    real["energy"] = np.random.default_rng(1).choice([1.0, 2.0, 4.0, 64.0], 6000)
    matching = fitted(real)
    for point in range(BINS):
        assert set(matching.conditions(point, 0, 100)["energy"]) <= {1.0, 2.0, 4.0, 64.0}
    found = matched(matching, {**showers(6000, 2), "energy": np.full(6000, 3.0)})
    assert all(np.isfinite(found[f"layer_{i}"]).all() for i in range(LAYERS))


# --- in the network ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["linear", "log"])
def test_the_generator_hands_over_how_far_dark_cells_are_from_being_lit(encoding):
    model = CaloGan(latent_dim=3, shapes=SHAPES, cell_encoding=encoding, cell_energies="matched", total_energy="drawn")
    network = Generator(model, 1, "float64")
    real = tensors(showers(500, 1))
    network.calibrate([real])
    assert {name for name in network.named if "/shares/" in name} == {
        f"generator/shares/{name}" for name in ("tables", "energies", "edges", "stages")
    }
    assert not any("shares" in weight.name for weight in (*network.weights, *network.statistics))
    noise = tf.constant(np.random.default_rng(2).normal(size=(40, 3)))
    given = {"energy": tf.constant(np.linspace(1.0, 90.0, 40))}
    called, handed = network(noise, given, training=False), network.before_matching(noise, given, training=False)
    for name, image in called.items():
        np.testing.assert_array_equal(np.maximum(handed[name], 0.0), image)
        below = handed[name].numpy()[image.numpy() == 0]
        assert len(np.unique(below)) > 0.9 * len(below) > 0
    free = Generator(CaloGan(latent_dim=3, shapes=SHAPES, cell_encoding=encoding), 1, "float64")
    assert free.matching is None
    assert min(image.numpy().min() for image in free.before_matching(noise, given, training=False).values()) == 0.0


def test_calibration_reads_the_showers_again():
    model = CaloGan(latent_dim=3, shapes=SHAPES, cell_encoding="log", cell_energies="matched")
    network, alone = Generator(model, 1, "float64"), shares()
    real = [tensors(showers(300, seed)) for seed in (1, 2)]
    network.calibrate(real)
    alone.fit(real)
    np.testing.assert_array_equal(network.shares.real, alone.real)


def test_runs_without_it_have_other_names_and_can_be_started_from():
    raw = {"problem": "calogan", "data": {"path": "data"}}
    matching = config.load(raw, ["model.cell_energies=matched"])
    assert matching.identity()["model"]["cell_energies"] == "matched"
    assert "cell_energies" in type(matching.model).indifferent
