"""Spectra of lit pixels that are matched to the training events'."""

import math

import needs
import numpy as np
import pytest
import tiny
from scipy import stats

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan import config  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.errors import Interrupted  # noqa: E402
from hpcgan.evaluation.sampling import load_sampler  # noqa: E402
from hpcgan.networks.layers import Initializer  # noqa: E402
from hpcgan.problems.detector_images.networks_detector import Generator  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvModel  # noqa: E402
from hpcgan.problems.detector_images.spectrum import BINS, LEVELS, Spectrum  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import attempt  # noqa: E402

DETECTOR = {
    "architecture": "detector", "filters": 2, "latent_dim": 3, "intensity": "pt", "scale_mev": 6000.0,
    "exponent": 1 / 3, "pixel_noise": True, "total_pt": "drawn", "pixel_pt": "matched",
}  # fmt: skip
THRESHOLD = 0.4


def spectrum(threshold=THRESHOLD):
    return Spectrum(Initializer(1, "float64"), "spectrum", np.asarray(threshold))


def images(n, scale, seed, occupancy=0.2):
    """Encoded images with exponential distances to the threshold, longer ones towards |eta| = 2.5."""
    rng = np.random.default_rng(seed)
    rows = np.abs(np.arange(64) - 31.5)[:, None]
    distances = rng.exponential(scale * (1.0 + rows / 32.0), (n, 64, 64))
    return np.where(rng.random((n, 64, 64)) < occupancy, THRESHOLD + distances, 0.0)


def fitted(real):
    made = spectrum()
    fit(made, {"hist": real})
    return made


def fit(matching, *batches):
    """The batches that were handed on."""
    return list(matching.follow({name: tf.constant(values) for name, values in batch.items()} for batch in batches))


def matched(matching, made):
    table = tf.constant(matching.table(matching.counts({"hist": made}, 0))[None])
    return matching({"hist": tf.constant(made)}, {}, table)["hist"].numpy()


def test_tables_are_the_quantiles_of_lit_pixels_of_both_signs_of_eta():
    real = images(50, 0.3, 1)
    counts = spectrum().counts({"hist": real}, 0)
    assert counts.sum() == np.count_nonzero(real)
    table = spectrum().table(counts)
    assert table.shape == (32, len(LEVELS))
    for row in (0, 17, 31):
        values = real[:, [31 - row, 32 + row]]
        expected = np.quantile(values[values > 0], 1.0 - np.exp(-LEVELS[:30]))  # to one in twenty
        np.testing.assert_allclose(table[row, :30], expected, rtol=0.02)
    halves = [spectrum().counts({"hist": half}, 0) for half in (real[:20], real[20:])]
    np.testing.assert_array_equal(sum(halves), counts)


def test_intensities_beyond_the_histogram_are_in_its_outer_bins():
    real = np.zeros((1, 64, 64))
    real[0, 40, :2] = [1e-7, 1e9]
    counts = spectrum().counts({"hist": real}, 0).reshape(32, BINS)
    assert np.argwhere(counts).tolist() == [[8, 0], [8, BINS - 1]]


def test_a_spectrum_becomes_the_real_one_and_the_order_of_pixels_stays():
    matching = fitted(images(60, 0.5, 1))
    made = images(60, 0.2, 2)
    found = matched(matching, made)
    fresh = images(60, 0.5, 3)
    assert ((found > 0) == (made > 0)).all()
    assert found[found > 0].min() >= THRESHOLD
    for row in (0, 9, 31):
        place = np.s_[:, [31 - row, 32 + row]]
        before, after, real = (x[place][x[place] > 0] for x in (made, found, fresh))
        assert stats.ks_2samp(after, real).pvalue > 0.01
        assert stats.ks_2samp(before, real).pvalue < 1e-6
        order = np.argsort(before)
        assert (np.diff(after[order]) >= -1e-12).all()
    # One in a thousand, where the discriminator hardly looks.
    assert np.quantile(found[found > 0], 0.999) == pytest.approx(np.quantile(fresh[fresh > 0], 0.999), rel=0.1)


def test_what_is_right_already_hardly_moves():
    real = images(60, 0.5, 1)
    np.testing.assert_allclose(matched(fitted(real), real), real, rtol=5e-3)


def test_beyond_the_last_quantile_pixels_move_as_much_as_it_does():
    matching, made = fitted(images(60, 0.5, 1)), images(60, 0.2, 2)
    table = matching.table(matching.counts({"hist": made}, 0))
    probe = np.zeros((1, 64, 64))
    probe[0, 32, 5], probe[0, 31, 6] = 50.0, 60.0
    found = matching({"hist": tf.constant(probe)}, {}, tf.constant(table))["hist"].numpy()
    shift = matching.real.numpy()[0, -1] - table[0, -1]
    np.testing.assert_allclose([found[0, 32, 5], found[0, 31, 6]], [50.0 + shift, 60.0 + shift])
    assert np.count_nonzero(found) == 2


def test_rows_without_light_on_either_side_stay_as_they_are():
    made = np.zeros((4, 64, 64))
    made[:, 40, 3] = 0.7
    dark = np.zeros((4, 64, 64))
    for real in (dark, made):
        np.testing.assert_allclose(matched(fitted(real), made), made, rtol=5e-3)
    assert not matched(fitted(made), dark).any()
    unseen = tf.constant(spectrum().table(spectrum().counts({"hist": dark}, 0)))
    np.testing.assert_array_equal(fitted(made)({"hist": tf.constant(made)}, {}, unseen)["hist"], made)


def test_the_network_measures_it_and_no_gradient_changes_it():
    model = RpvModel(**DETECTOR)
    network, plain = Generator(model, 1), Generator(model.model_copy(update={"pixel_pt": "free"}), 1)
    assert plain.matching is None
    name = "generator/spectrum/quantiles"
    assert network.named.keys() - plain.named.keys() == {name}
    assert not any(weight.name.startswith(name) for weight in network.weights)
    real = images(20, 0.5, 1).astype(np.float32)
    network.calibrate({"hist": tf.constant(part)} for part in (real[:15], real[15:]))
    counts = network.matching.counts({"hist": real}, 0)
    np.testing.assert_allclose(network.named[name].numpy(), network.matching.table(counts), rtol=1e-6)


def by_pileup(values=(-1.0, 0.0, 1.0)):
    return Spectrum(Initializer(1, "float64"), "spectrum", np.asarray(THRESHOLD), "mu", values)


def of_points(scales, seed, n=40):
    """Images of all points, n each, and their condition."""
    made = np.concatenate([images(n, scale, seed + i) for i, scale in enumerate(scales)])
    return {"hist": made, "mu": np.repeat(np.linspace(-1.0, 1.0, len(scales)), n)}


def tables(matching, made):
    return np.stack([matching.table(matching.counts(made, point)) for point in range(matching.points)])


def test_with_a_condition_each_point_has_spectra_of_its_own():
    matching, real, made = by_pileup(), of_points([0.2, 0.4, 0.8], 1), of_points([0.5, 0.5, 0.5], 11)
    assert matching.points == 3
    asked = [matching.conditions(point, 5, 4)["mu"].tolist() for point in range(3)]
    assert asked == [[-1.0] * 4, [0.0] * 4, [1.0] * 4]
    assert spectrum().conditions(0, 5, 4) == {}
    handed_on = fit(matching, real, of_points([0.2, 0.4, 0.8], 1))
    np.testing.assert_array_equal(handed_on[0]["hist"], real["hist"])
    whole = tables(matching, made)
    alone = spectrum()
    for number in range(3):
        here = np.s_[40 * number : 40 * (number + 1)]
        one = alone.table(alone.counts({"hist": made["hist"][here]}, 0))
        np.testing.assert_array_equal(whole[number], one)
        fit(alone, {"hist": real["hist"][here]})
        part = {"hist": tf.constant(made["hist"][here])}
        found = matching(part, {"mu": tf.constant(made["mu"][here])}, tf.constant(whole))["hist"].numpy()
        np.testing.assert_allclose(found, alone(part, {}, tf.constant(one))["hist"], rtol=1e-12)


def test_between_points_quantiles_are_interpolated_and_beyond_them_they_are_the_last():
    matching, real, made = by_pileup((-1.0, 1.0)), of_points([0.2, 0.6], 1, 150), of_points([0.5, 0.5], 11, 150)
    fit(matching, real)
    table = tf.constant(tables(matching, made))
    fresh, mean = images(60, 0.5, 21), images(60, 0.4, 31)  # of exponentials, halfway is one with the mean scale

    def at(value):
        given = {"mu": tf.constant(np.full(60, value))}
        return matching({"hist": tf.constant(fresh)}, given, table)["hist"].numpy()

    for row in (0, 9, 31):
        place = np.s_[:, [31 - row, 32 + row]]
        halfway, expected = (x[place][x[place] > 0] for x in (at(0.0), mean))
        assert stats.ks_2samp(halfway, expected).pvalue > 0.01
    np.testing.assert_array_equal(at(-3.0), at(-1.0))
    np.testing.assert_array_equal(at(2.0), at(1.0))


def test_a_row_that_is_dark_at_one_point_is_taken_from_the_nearer():
    real = of_points([0.5, 0.5], 1)
    real["hist"][:40, 50] = real["hist"][:40, 13] = 0.0
    matching = by_pileup((-1.0, 1.0))
    fit(matching, real)
    made = of_points([0.2, 0.2], 11)
    table = tf.constant(tables(matching, made))
    probe = {"hist": tf.constant(made["hist"][:2])}
    near_dark, near_lit = (
        matching(probe, {"mu": tf.constant([value] * 2, tf.float64)}, table)["hist"].numpy()[:, 50]
        for value in (-0.5, 0.5)
    )
    np.testing.assert_array_equal(near_dark, made["hist"][:2, 50])
    lit = made["hist"][:2, 50] > 0
    assert (near_lit[lit] > made["hist"][:2, 50][lit]).all()


def test_conditions_of_the_data_are_refused_and_so_is_the_authors_network():
    with pytest.raises(ValueError, match=r"model\.pixel_pt needs model\.architecture=detector"):
        RpvModel(pixel_pt="matched")
    raw = {"problem": "conditional", "data": {"path": "data"}, "model": DETECTOR}
    with pytest.raises(Exception, match=r"model\.pixel_pt=matched needs to know what conditions.*mGlu, mNeu"):
        config.load(raw)


def test_runs_with_it_have_other_names():
    raw = {"problem": "rpv", "data": {"path": "data"}, "model": {**DETECTOR, "pixel_pt": "free"}}
    assert config.load(raw, ["model.pixel_pt=matched"]).identity()["model"]["pixel_pt"] == "matched"


@pytest.mark.usefixtures("eager")
def test_a_training_scores_and_stores_what_is_generated_from_it_later(tmp_path, monkeypatch):
    """Epochs with and without scoring; a run that goes on has the same; one without it can be started from."""
    monkeypatch.setattr(Spectrum, "samples", 24)
    data = tiny.write_data(tmp_path / "data")
    more = [f"model.{key}={value}" for key, value in DETECTOR.items()]
    made = tiny.config(data, *more, "scoring.every_epochs=2", "training.batch_size=12", "training.epochs=3")

    def train(folder, stop=None, settings=made):
        run = RunDirectory(tmp_path / folder)
        attempt.train(settings, run, SerialComm(), stop or attempt.StopRequest())
        return run

    whole = train("whole")
    with pytest.raises(Interrupted):
        train("again", tiny.StopAt(6))
    again = train("again")
    for epoch in (1, 2, 3):
        stored = [(run.samples / f"epoch-{epoch:04d}.h5").read_bytes() for run in (whole, again)]
        assert stored[0] == stored[1]
    scores = [[r["score"] for r in recorded(run.metrics_file, "epoch")] for run in (whole, again)]
    assert scores[0] == scores[1]
    assert scores[0][0] is None
    sampler = load_sampler(whole.path)
    assert np.ptp(sampler.network.matching.real.numpy()[16]) > 0
    found = sampler.sample(24, 5)["hist"]
    energies = found / np.cosh(np.linspace(-2.5, 2.5, 129)[1::2])[:, None]
    assert found[found > 0].min() > 499.9
    assert math.isfinite(energies.sum())
    free = tiny.config(data, *more, "model.pixel_pt=free", "training.batch_size=12", "training.epochs=1")
    train("free", settings=free)
    started = tiny.config(data, *more, f"training.start_from={tmp_path / 'free'}", "training.epochs=1")
    assert load_sampler(train("started", settings=started).path).network.matching is not None
