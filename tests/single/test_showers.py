"""Parametrised showers: formulas against numbers worked out by hand, simulation against closed forms and Geant4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid
from scipy.special import gammainc

from hpcgan.errors import InputError
from hpcgan.physics import electromagnetic, hadronic, showers
from hpcgan.physics.calorimeter import CALORIMETER, FINE, PUBLISHED, Grid, Segmentation
from hpcgan.physics.shower_shapes import layer_energies, shower_shapes
from hpcgan.physics.showers import THRESHOLD, simulate
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.calorimeter.importing import open_reader

DATA = Path(__file__).parents[1] / "data"
LN_8 = np.array([np.exp(8.0) * 8.970878283e-3])  # an energy with ln y = 8


# --- formulas ----------------------------------------------------------------------------------------------------


def test_homogeneous_longitudinal_moments() -> None:
    found = electromagnetic.longitudinal(LN_8)
    assert found.ln_t[0] == pytest.approx(np.log(7.188))
    assert found.ln_alpha[0] == pytest.approx(np.log(0.81 + (0.458 + 2.26 / 69.364729) * 8))
    assert np.exp(found.ln_alpha[0]) == pytest.approx(4.73465, abs=1e-5)
    assert found.sigma_t[0] == pytest.approx(1 / 8.68)
    assert found.sigma_alpha[0] == pytest.approx(1 / 6.30)
    assert found.rho[0] == pytest.approx(0.521)


def test_sampling_longitudinal_moments() -> None:
    found = electromagnetic.longitudinal(LN_8, "active")
    # F_S = 2.597938, 1 - e = 0.309392: T = 7.188 - 0.211706 - 0.213481, alpha = 4.734651 - 0.183222
    assert np.exp(found.ln_t[0]) == pytest.approx(6.762813, abs=1e-5)
    assert np.exp(found.ln_alpha[0]) == pytest.approx(4.551429, abs=1e-5)
    assert found.sigma_t[0] == pytest.approx(1 / 7.5)
    assert found.sigma_alpha[0] == pytest.approx(1 / 5.5)
    assert found.rho[0] == pytest.approx(0.6)


def test_radial_profile_by_hand() -> None:
    tau = np.array([[1.0]])
    found = electromagnetic.radial(np.exp([3.0]), tau)
    assert found.core[0, 0] == pytest.approx(0.124442, abs=1e-6)
    assert found.tail[0, 0] == pytest.approx(0.704969, abs=2e-6)
    assert found.p[0, 0] == pytest.approx(0.873093, abs=2e-6)
    sampled = electromagnetic.radial(np.exp([3.0]), tau, "active")
    early = np.exp(-1) / 2.597938
    assert sampled.core[0, 0] == pytest.approx(0.124442 - 0.0203 * 0.309392 + 0.0397 * early, abs=1e-6)
    assert sampled.tail[0, 0] == pytest.approx(0.704969 - 0.14 * 0.309392 - 0.495 * early, abs=2e-6)
    assert sampled.p[0, 0] == pytest.approx(0.873093 + 0.309392 * (0.348 - 0.642 / 2.597938), abs=2e-6)


def test_numbers_of_spots() -> None:
    assert electromagnetic.spots(np.array([1.0, 50.0])) == pytest.approx(
        93 * np.log(69.364729) * np.array([1, 50**0.876])
    )
    assert electromagnetic.spots(np.array([1.0, 50.0]), "active") == pytest.approx(
        10.3 / 0.11 * np.array([1, 50**0.959])
    )


@pytest.mark.parametrize("recorded", electromagnetic.RECORDED)
def test_shapes_have_the_moments_asked_for(recorded: electromagnetic.Recorded) -> None:
    n = 40_000
    shape = electromagnetic.draw_shapes(np.full(n, LN_8[0]), np.random.default_rng(1), recorded)
    wanted = electromagnetic.longitudinal(LN_8, recorded)
    t, alpha = np.log(shape.t_max), np.log(shape.alpha)
    for values, mean, sigma in (
        (t, wanted.ln_t[0], wanted.sigma_t[0]),
        (alpha, wanted.ln_alpha[0], wanted.sigma_alpha[0]),
    ):
        assert abs(values.mean() - mean) < 4 * sigma / np.sqrt(n)
        assert values.std() == pytest.approx(sigma, rel=0.02)
    assert np.corrcoef(t, alpha)[0, 1] == pytest.approx(wanted.rho[0], abs=0.02)
    # tau is 1 at the maximum of the mean shower: <t> = T alpha / (alpha - 1)
    mean = np.exp(wanted.ln_alpha[0])
    centre = shape.alpha / shape.beta
    assert shape.tau(centre[:, None])[:, 0] == pytest.approx(np.full(n, mean / (mean - 1)))


def test_photons_convert() -> None:
    depth, share = electromagnetic.convert(np.ones(100_000), np.random.default_rng(2))
    assert stats.kstest(depth, stats.expon(scale=9 / 7).cdf).pvalue > 1e-3

    def cumulative(x: np.ndarray) -> np.ndarray:
        return 9 / 7 * (x - 2 / 3 * x**2 + 4 / 9 * x**3)

    assert cumulative(np.array(1.0)) == pytest.approx(1)
    assert stats.kstest(share, cumulative).pvalue > 1e-3


def test_landau_has_its_known_quantiles() -> None:
    """Quantiles of Landau's distribution as CERNLIB's RANLAN tabulates them: the median is 1.3558."""
    values = hadronic.landau((400_000,), np.random.default_rng(3))
    assert np.median(values) == pytest.approx(1.3558, abs=0.015)
    # P(lambda < 0) and P(lambda < 5), from the integral of the characteristic function.
    t = np.linspace(1e-6, 30, 400_000)
    for edge in (-1.0, 0.0, 5.0):
        phase = edge * t + t * np.log(t)
        share = 0.5 + trapezoid(np.exp(-np.pi / 2 * t) * np.sin(phase) / t, t) / np.pi
        assert (values < edge).mean() == pytest.approx(share, abs=0.004)
    density, edges = np.histogram(values, np.arange(-2, 3, 0.1))
    assert abs(edges[density.argmax()] + 0.05 - hadronic.LANDAU_MODE) < 0.2


def test_ionisation_of_a_pion_that_goes_through() -> None:
    """Minimum ionisation is 1.122 and 1.508 MeV cm^2/g, so 271 MeV on average without its relativistic rise."""
    n = 20_000
    path = np.tile([[90.0, 347.0, 43.0]], (n, 1))
    lost = hadronic.ionisation(np.full(n, 50.0), path, np.random.default_rng(4)).sum(axis=1)
    # by hand: xi = 0.153537 (82/207.2 22.7 + 18/39.948 5.584) 8 = 14.127 MeV for 480 mm ...
    xi = 0.153537 * (82 / 207.2 * 11.35 * 16 + 18 / 39.948 * 1.396 * 32)
    log_lead, log_argon = (np.log(2 * 0.511 / (plasma * 1e-6) ** 2) for plasma in (61.07, 22.85))
    share = 82 / 207.2 * 11.35 * 16 * 0.153537 / xi
    # ... and a most probable loss of xi (ln xi + share-weighted logarithms + 0.2).
    peak = xi * (np.log(xi) + share * log_lead + (1 - share) * log_argon + 0.2)
    median = (peak + xi * (1.3558 + 0.22278)) / 1000
    assert np.median(lost) == pytest.approx(median, rel=0.01)
    assert 0.27 < np.median(lost) < 0.40
    nothing = hadronic.ionisation(np.full(2, 50.0), np.zeros((2, 3)), np.random.default_rng(4))
    assert (nothing == 0).all()
    slow = hadronic.ionisation(np.full(n, 0.2), path, np.random.default_rng(4)).sum(axis=1)
    assert slow.max() <= 0.2 * (1 + 1e-12)


@pytest.mark.parametrize(("energy", "mean"), [(1.0, 0.0), (5.0, 0.2153), (50.0, 0.4817), (100.0, 0.5425)])
def test_electromagnetic_fraction(energy: float, mean: float) -> None:
    n = 50_000
    drawn = hadronic.draw_em_fraction(np.full(n, energy), np.random.default_rng(5))
    assert hadronic.mean_em_fraction(np.array([energy]))[0] == pytest.approx(mean, abs=2e-4)
    assert drawn.mean() == pytest.approx(mean, abs=5 * max(drawn.std(), 1e-9) / np.sqrt(n) + 1e-4)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    if energy == 50:
        # 1 - f = (1 - n0/10) 0.5183 / (2/3), n0 binomial(10, 1/3)
        assert hadronic.secondaries() == 10
        assert drawn.std() == pytest.approx(np.sqrt(10 * 2 / 9) / 10 * 0.5183 * 1.5, rel=0.02)


# --- the simulation ----------------------------------------------------------------------------------------------


def total(made: showers.Showers) -> np.ndarray:
    return layer_energies(made.layers).sum(axis=1) + made.overflow.sum(axis=1, dtype=np.float64)


def test_energy_is_conserved_but_for_what_leaks_behind() -> None:
    energy = np.full(300, 50.0)
    share = total(simulate("eplus", energy, np.random.default_rng(1))) / 50_000
    assert share.max() <= 1 + 1e-6
    assert share.std() < 0.003  # lead and argon together: no sampling fluctuations
    behind = 1 - gammainc(5.04, (5.04 - 1) / 7.81 * 480 / CALORIMETER.radiation_length)
    assert 1 - share.mean() == pytest.approx(behind, abs=1e-3)


def test_sampling_fluctuations_of_the_argon() -> None:
    n, energy = 1500, 20.0
    share = total(simulate("eplus", np.full(n, energy), np.random.default_rng(2), PUBLISHED, "active")) / energy / 1000
    assert share.std() == pytest.approx(0.11 / np.sqrt(energy), rel=0.08)
    assert share.mean() == pytest.approx(1, abs=4 * share.std() / np.sqrt(n) + 1e-3)


def test_mean_longitudinal_profile() -> None:
    """Mean layer energies: the integral of the gamma density over each layer, averaged over shapes of their own."""
    n = 3000
    made = simulate("eplus", np.full(n, 50.0), np.random.default_rng(3))
    found = (layer_energies(made.layers) + made.overflow) / 50_000
    shape = electromagnetic.draw_shapes(np.full(n, 50.0), np.random.default_rng(4))
    ends = np.array([0.0, 90.0, 437.0, 480.0]) / CALORIMETER.radiation_length
    wanted = np.diff(gammainc(shape.alpha[:, None], shape.beta[:, None] * ends), axis=1)
    error = np.hypot(found.std(axis=0), wanted.std(axis=0)) / np.sqrt(n)
    assert (np.abs(found.mean(axis=0) - wanted.mean(axis=0)) < 4 * error + 2e-5).all()
    assert found.std(axis=0) == pytest.approx(wanted.std(axis=0), rel=0.15)


def test_radial_distribution_of_spots() -> None:
    """Inside a square of half side a: (4 / pi) s arctan(s), s = a / sqrt(a^2 + R^2), exactly."""
    n, radius = 300_000, 100.0
    segmentation = Segmentation((Grid(4, 4), Grid(1, 1), Grid(1, 1)))
    canvas = showers._Canvas(1, segmentation)
    showers._scatter(
        canvas,
        0,
        np.zeros(n, np.int32),
        np.full(n, radius, np.float32),
        np.full(n, 1 / n, np.float32),
        np.random.default_rng(5),
    )
    made = canvas.finish()
    for half, share in ((240, made.layers[0].sum()), (120, made.layers[0][0, 1:3, 1:3].sum())):
        s = half / np.hypot(half, radius)
        wanted = 4 / np.pi * s * np.arctan(s)
        assert share == pytest.approx(wanted, abs=5 * np.sqrt(wanted * (1 - wanted) / n))
    assert made.overflow[0, 0] == pytest.approx(1 - made.layers[0].sum(), abs=1e-5)
    image = made.layers[0][0]
    assert image == pytest.approx(image.T, abs=0.003)
    assert image == pytest.approx(image[::-1], abs=0.003)


def test_the_border_of_the_window() -> None:
    canvas = showers._Canvas(2, Segmentation((Grid(2, 3), Grid(1, 1), Grid(1, 1))))
    x = np.array([-240.0, -240.1, 239.9, 240.0, 0.0, 0.0, 1e9])
    y = np.array([-1.0, 0.0, 1.0, 0.0, 240.5, -1e6, 1e9])
    canvas.add(0, np.array([0, 0, 1, 1, 1, 0, 1], np.int32), x, y, 2.0 ** np.arange(7))
    made = canvas.finish()
    assert made.layers[0].tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 4]]]  # rows phi, columns eta
    assert made.overflow.tolist() == [[2 + 32, 0, 0], [8 + 16 + 64, 0, 0]]


@pytest.mark.parametrize("particle", showers.PARTICLES)
def test_one_shower_in_two_segmentations(particle: str) -> None:
    """The cells do not touch the random numbers: fine cells add up to the coarse ones."""
    energy = np.concatenate([np.linspace(1, 100, 9), np.full(200, 0.3)])
    fine = simulate(particle, energy, np.random.default_rng(6), FINE)
    coarse = simulate(particle, energy, np.random.default_rng(6), PUBLISHED)
    for image, other in zip(FINE.coarsen(fine.layers, PUBLISHED), coarse.layers, strict=True):
        np.testing.assert_allclose(image, other, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(fine.overflow, coarse.overflow, rtol=1e-5)


@pytest.mark.parametrize("particle", showers.PARTICLES)
def test_showers_are_what_files_may_hold(particle: str) -> None:
    energy = np.geomspace(0.1, 1000, 40)
    made = simulate(particle, energy, np.random.default_rng(7))
    assert [image.shape for image in made.layers] == [(40, *shape) for shape in PUBLISHED.shapes]
    calo.check_sample(calo.to_sample(made.layers, energy, made.overflow), "simulated")
    assert all(np.isfinite(image).all() for image in made.layers)
    assert (total(made) <= 1000 * energy * (1 + 1e-5)).all()
    lit = np.concatenate([image[image > 0] for image in made.layers])
    assert lit.min() > THRESHOLD / 1e5  # a share of a step of at least the threshold


def test_pions() -> None:
    n = 4000
    made = simulate("piplus", np.full(n, 50.0), np.random.default_rng(8))
    seen = total(made) / 1000
    through = seen < 0.6  # an ionising track and no more
    # exp(-480 / 435) = 33% do not interact; some interact in the last centimetres
    passing = np.exp(-480 / CALORIMETER.pion_interaction_length)
    assert passing < through.mean() < passing + 0.05
    assert np.median(seen[through]) == pytest.approx(0.33, abs=0.05)
    # Nothing but the track in layer 0 for those that interact behind it, 81%.
    first = layer_energies(made.layers)[:, 0] / 1000
    assert (first < 0.12).mean() == pytest.approx(np.exp(-90 / CALORIMETER.pion_interaction_length), abs=0.03)
    assert seen.max() < 50
    electrons = simulate("eplus", np.full(200, 50.0), np.random.default_rng(9))
    wide, narrow = (shower_shapes(part.layers, PUBLISHED)["width_eta_1"] for part in (made, electrons))
    assert np.nanmedian(wide[~through]) > np.nanmedian(narrow)


def test_batches_hold_every_shower_once() -> None:
    energy = np.array([1000.0, 700.0, 700.0, 700.0, 5000.0, *[1.0] * 100])
    assert [(part.start, part.stop) for part in showers._batches(energy)] == [
        (0, 1),
        (1, 3),
        (3, 4),
        (4, 5),
        (5, 69),
        (69, 105),
    ]


def test_nothing_to_do_and_bad_input() -> None:
    assert simulate("gamma", np.zeros(0), np.random.default_rng(1)).overflow.shape == (0, 3)
    for arguments, message in (
        (("muon", np.ones(1)), "particle 'muon': use one of gamma, eplus, piplus"),
        (("gamma", np.array([1.0, 0.0])), "above 0 GeV"),
        (("gamma", np.array([np.nan])), "above 0 GeV"),
    ):
        with pytest.raises(InputError, match=message):
            simulate(*arguments, np.random.default_rng(1))
    with pytest.raises(InputError, match="not parametrised"):
        simulate("piplus", np.ones(1), np.random.default_rng(1), PUBLISHED, "active")
    with pytest.raises(InputError, match="recorded 'lead'"):
        simulate("gamma", np.ones(1), np.random.default_rng(1), PUBLISHED, "lead")  # type: ignore[arg-type]


# --- Geant4 ------------------------------------------------------------------------------------------------------


def geant4(particle: str) -> tuple[np.ndarray, list[np.ndarray]]:
    with open_reader(DATA / f"geant4_{particle}.h5") as reader:
        parts = [
            (s[calo.ENERGY][:, 0], reader.segmentation.coarsen(calo.images(s), PUBLISHED)) for s in reader.pieces()
        ]
    return np.concatenate([e for e, _ in parts]), [np.concatenate(layer) for layer in zip(*(i for _, i in parts))]


@pytest.mark.parametrize("particle", ["gamma", "eplus"])
def test_against_geant4(particle: str) -> None:
    """Agreement and disagreement as docs/calo_data.md has them, so that neither changes unnoticed."""
    energy, images = geant4(particle)
    real = shower_shapes(images, PUBLISHED)
    made_images = simulate(particle, np.tile(energy.astype(float), 3), np.random.default_rng(10)).layers
    made = shower_shapes(made_images, PUBLISHED)

    def ratio(name: str) -> float:
        return float(np.nanmean(made[name]) / np.nanmean(real[name]))

    assert ratio("total") == pytest.approx(0.997, abs=0.002)
    assert 0.82 < ratio("fraction_0") < 1.0  # 0.93 for the full sample; 400 showers know it to 4%
    assert ratio("fraction_1") == pytest.approx(1.015, abs=0.015)
    assert np.nanstd(made["fraction_0"]) == pytest.approx(np.nanstd(real["fraction_0"]), rel=0.15)
    assert ratio("shower_depth_width") == pytest.approx(0.975, abs=0.03)
    assert ratio("width_eta_1") == pytest.approx(1.107, abs=0.02)
    assert ratio("width_phi_1") == pytest.approx(1.107, abs=0.02)
    assert 0.8 < ratio("occupancy_1") < 0.95


def test_what_is_recorded_matters() -> None:
    """Deposits of lead and argon come later than the signal of the argon; Geant4 lies between, nearer to the former."""
    energy, images = geant4("eplus")
    many = np.tile(energy.astype(float), 4)
    shares = [
        float(
            np.mean(
                shower_shapes(simulate("eplus", many, np.random.default_rng(11), PUBLISHED, kind).layers, PUBLISHED)[
                    "fraction_0"
                ]
            )
        )
        for kind in electromagnetic.RECORDED
    ]
    real = float(np.mean(shower_shapes(images, PUBLISHED)["fraction_0"]))
    assert shares[0] < real < shares[1]
