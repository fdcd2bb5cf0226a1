"""Plots: what is drawn is what was given, and matplotlib is left as it was."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import image
from scipy import stats

from hpcgan.metrics.observable import Observable
from hpcgan.report import plots

EXTENT = (-2.5, 2.5, -3.15, 3.15)
AXES = ("eta", "phi")


def points(axes):
    """x, y and lower and upper error of the error-bar points of an axes."""
    (container,) = axes.containers
    line, _, (bars,) = container.lines
    segments = np.array([s[:, 1] for s in bars.get_segments()])
    x, y = line.get_data()
    return x, y, y - segments[:, 0], segments[:, 1] - y


def ratio_axes(figure):
    return next(axes for axes in figure.axes if axes.get_ylabel() == "Gen. / real")


@pytest.fixture(autouse=True)
def untouched():
    before = dict(mpl.rcParams)
    yield
    from matplotlib import pyplot as plt

    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_ratio_and_its_error():
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    real = Observable(np.repeat([0.5, 1.5], [60, 40]))
    fake = Observable(np.repeat([0.5, 1.5], [20, 30]))
    figure = plots.histogram_ratio(real, fake, "x", edges=edges)
    x, y, low, high = points(ratio_axes(figure))
    assert x.tolist() == [0.5, 1.5]
    assert y == pytest.approx([(20 / 50) / (60 / 100), (30 / 50) / (40 / 100)])
    # Clopper-Pearson for 20 of 80: p in [low, high] central 68.27%, ratio p / (1 - p), times 100 / 50.
    tail = stats.norm.cdf(-1)
    p = np.array([stats.beta.ppf(tail, 20, 61), stats.beta.ppf(1 - tail, 21, 60)])
    limits = p / (1 - p) * 2
    assert [y[0] - low[0], y[0] + high[0]] == pytest.approx(limits)


def test_errors_of_several_entries_an_event():
    """Four equal entries an event carry the relative error of the events, in both panels."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=300)
    edges = np.linspace(-2, 2, 9)
    single = plots.histogram_ratio(Observable(values), Observable(values), "x", edges=edges)
    counts = np.full(300, 4)
    repeated = Observable(np.repeat(values, 4), counts)
    clustered = plots.histogram_ratio(repeated, repeated, "x", entries="Jets", edges=edges)
    for panel in (0, 1):
        _, y1, low1, high1 = points(single.axes[panel])
        _, y4, low4, high4 = points(clustered.axes[panel])
        np.testing.assert_allclose([low4 / y4, high4 / y4], [low1 / y1, high1 / y1])


def test_the_same_sample_has_ratio_one():
    sample = Observable(np.random.default_rng(2).exponential(100, 500), unit="GeV")
    figure = plots.histogram_ratio(sample, sample, "Mass", log_y=True)
    _, y, _, _ = points(ratio_axes(figure))
    np.testing.assert_allclose(y, 1.0)
    assert ratio_axes(figure).get_xlabel() == "Mass [GeV]"


@pytest.mark.parametrize("log", [False, True])
def test_nothing_to_draw(log):
    empty = Observable(np.zeros(0), np.zeros(5, int))
    full = Observable(np.ones(5))
    for real, fake in ((empty, full), (full, empty), (empty, empty)):
        plots.png(plots.histogram_ratio(real, fake, "x", log_y=log), dpi=40)


def test_images_stand_upright():
    """The pixel [eta high, phi low] is drawn right and below."""
    images = np.zeros((2, 64, 64))
    images[:, 60, 3] = 7.0
    figure = plots.mean_images(images, images, EXTENT, "GeV", AXES)
    drawn = figure.axes[0].images[0]
    assert drawn.get_extent() == list(EXTENT)
    assert drawn.origin == "lower"
    assert drawn.get_array()[3, 60] == 7.0  # rows run along phi
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == AXES
    plots.png(figure, dpi=40)


def test_mean_images_difference():
    rng = np.random.default_rng(3)
    real, fake = rng.normal(10, 1, (200, 8, 8)), rng.normal(12, 1, (100, 8, 8))
    figure = plots.mean_images(real, fake, EXTENT, "GeV", AXES)
    relative, pull = (figure.axes[i].images[0].get_array() for i in (2, 3))
    assert np.mean(relative) == pytest.approx(0.2, abs=0.01)
    assert np.mean(pull) == pytest.approx(2 / np.sqrt(1 / 200 + 1 / 100), rel=0.05)


@pytest.mark.parametrize("n", [0, 2, 12])
def test_image_grid(n):
    images = np.zeros((n, 64, 64))
    images[:, ::7, ::5] = np.linspace(500, 1e6, 130).reshape(10, 13)
    figure = plots.image_grid(images, images[:1], EXTENT, "MeV", AXES)
    assert sum(len(axes.images) for axes in figure.axes) == min(n, 9) + min(n, 1)
    plots.png(figure, dpi=40)


@pytest.mark.parametrize("linear", [False, True])
def test_image_grid_without_real_images_has_no_place_for_them(linear):
    images = np.random.default_rng(6).exponential(1e4, (5, 16, 16))
    figure = plots.image_grid(images[:0], images, EXTENT, "MeV", AXES, side=2, linear=linear)
    panels = [axes for axes in figure.axes if axes.images]
    assert [np.array_equal(a.images[0].get_array(), i.T) for a, i in zip(panels, images)] == [True] * 4
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["Generated"]
    plots.png(figure, dpi=40)


def test_image_grid_of_dense_images():
    images = np.random.default_rng(6).normal(size=(4, 16, 16))
    figure = plots.image_grid(images, images[:1], EXTENT, "", AXES, linear=True)
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(shown) == 5
    assert np.array_equal(shown[0].get_array(), images[0].T)
    assert shown[0].norm.vmin == pytest.approx(np.quantile(images, 0.01))
    plots.png(figure, dpi=40)


def test_spectrum():
    """Ratio of the means with the error of a quotient of means; the band holds two thirds of the real ones."""
    rng = np.random.default_rng(7)
    x = np.geomspace(100, 10000, 8)
    real, fake = rng.normal(10, 1, (400, 8)) / x, rng.normal(11, 1, (100, 8)) / x
    figure = plots.spectrum_ratio(x, real, fake, "l", "C")
    at, y, low, _ = points(ratio_axes(figure))
    assert at == pytest.approx(x)
    assert y == pytest.approx(1.1, abs=0.04)
    assert low == pytest.approx(1.1 * np.hypot(0.1 / 20, 1 / 11 / 10), rel=0.2)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    at_first = band[np.isclose(band[:, 0], 100), 1] * 100
    assert at_first.min() == pytest.approx(9, abs=0.2)
    assert at_first.max() == pytest.approx(11, abs=0.2)
    plots.png(plots.spectrum_ratio(x, real, np.zeros((1, 8)), "l", "C"), dpi=40)


def test_profile():
    rng = np.random.default_rng(4)
    real, fake = rng.normal(10, 1, (400, 6)), rng.normal(11, 1, (100, 6))
    figure = plots.profile_ratio(np.linspace(-3, 3, 7), real, fake, "eta", "Energy")
    _, y, low, _ = points(ratio_axes(figure))
    assert y == pytest.approx(1.1, abs=0.04)
    assert low == pytest.approx(1.1 * np.hypot(0.1 / 20, 1 / 11 / 10), rel=0.2)


def test_curves_leave_gaps():
    figure = plots.curves(
        np.arange(4.0), {"a": [1, None, 3, float("nan")]}, "x", "y", mark=(2.0, "best"), levels={"95%": 1.5}
    )
    (panel,) = figure.axes
    assert np.isnan(panel.lines[0].get_ydata()).tolist() == [False, True, False, True]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "95%", "best"]


def test_null_distribution_shows_every_score():
    band = np.random.default_rng(5).gamma(3, size=300)
    figure = plots.null_distribution(band.tolist(), [4.0, 5.0, 700.0], 4096)
    positions = [line.get_xdata()[0] for line in figure.axes[0].lines]
    assert positions == [4.0, 5.0, 700.0]
    low, high = figure.axes[0].get_xlim()
    assert low == 0.0
    assert high > 700


def test_png_is_that_of_matplotlib():
    with mpl.rc_context(plots.STYLE):
        expected = io.BytesIO()
        plots.curves(np.arange(3.0), {"a": [1, 2, 3]}, "x", "y").savefig(
            expected, format="png", dpi=90, metadata={"Software": None}
        )
    assert plots.png(plots.curves(np.arange(3.0), {"a": [1, 2, 3]}, "x", "y"), dpi=90) == expected.getvalue()


def test_png_is_reproducible():
    figure = plots.curves(np.arange(3.0), {"a": [1, 2, 3]}, "x", "y")
    first = plots.png(figure)
    assert plots.png(plots.curves(np.arange(3.0), {"a": [1, 2, 3]}, "x", "y")) == first
    assert image.imread(io.BytesIO(first)).shape[2] == 4


def test_epochs_are_whole_numbers_and_the_same_ones_in_every_panel():
    lines = {"score": [None, 3.0, None]}
    for epochs, expected in (([1], [1]), ([1, 2, 3], [1, 2, 3])):
        panels = [("Loss", {"g": [1.0] * len(epochs)}, False), ("Score", lines, False)]
        drawn = plots.progress(epochs, panels[: len(epochs)])
        for panel in drawn.axes:
            low, high = panel.get_xlim()
            assert [tick for tick in panel.get_xticks() if low <= tick <= high] == expected
