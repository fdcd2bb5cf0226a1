"""Lognormal convergence maps: spectrum, one-point distribution, determinism; the estimator on known fields."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from hpcgan.physics import lognormal
from hpcgan.physics.lognormal import FIELD, FUNDAMENTAL, LognormalMaps, band_powers, convergence_power, power_spectrum


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    """400 maps of 64 x 64 pixels."""
    return LognormalMaps(64).make(seed=7, first=0, n=400)


def ring_mean(modes: np.ndarray) -> np.ndarray:
    """Mean over each ring of a quantity of the modes (N, N), in the order of `numpy.fft.fft2`: (N/2,)."""
    side = modes.shape[-1]
    ring, counts, _ = lognormal._rings(side)
    return np.bincount(ring, modes.ravel(), side // 2 + 2)[1:-1] / counts


# --- the maps ----------------------------------------------------------------------------------------------------


def test_the_mean_spectrum_is_the_target(maps):
    """In each of the 32 rings within its error, which is taken from the scatter of the maps."""
    _, power = power_spectrum(maps)
    target = ring_mean(LognormalMaps(64).target)
    pull = (power.mean(axis=0) - target) / (power.std(axis=0, ddof=1) / np.sqrt(len(maps)))
    assert np.abs(pull).max() < 3.7  # 32 rings: passed by chance in all but 0.7%
    # Rings of one lognormal map are correlated, so the chi2 scatters more than that of 32 independent ones.
    assert 10 < np.sum(pull**2) < 65
    relative = power.mean(axis=0) / target - 1
    assert np.abs(relative[4:]).max() < 0.05  # and the errors are small enough to say something


def test_a_spectrum_that_is_off_by_a_tenth_would_be_noticed(maps):
    _, power = power_spectrum(maps * np.float32(np.sqrt(1.1)))
    target = ring_mean(LognormalMaps(64).target)
    pull = (power.mean(axis=0) - target) / (power.std(axis=0, ddof=1) / np.sqrt(len(maps)))
    assert np.sum(pull**2) > 200


def test_the_spectrum_of_full_size_maps():
    """Band by band, 24 maps."""
    found = band_powers(LognormalMaps(256).make(3, 0, 24))
    assert list(found) == [(104, 208), (312, 831), (935, 2702), (2806, 8314), (8418, 13302)]
    ell = lognormal.multipoles(256)
    target = LognormalMaps(256).target * ell * (ell + 1) / (2 * np.pi)
    ring = np.rint(ell / FUNDAMENTAL)
    for (low, high), values in list(found.items())[1:]:
        inside = (ring >= round(low / FUNDAMENTAL)) & (ring <= round(high / FUNDAMENTAL))
        error = values.std(ddof=1) / np.sqrt(24)
        # l (l + 1) of the ring's mean instead of each mode's own moves these means by less than half a percent.
        assert abs(values.mean() - target[inside].mean()) < 3.5 * error + 0.005 * values.mean()
        assert error < 0.1 * values.mean()


def test_the_pixels_are_shifted_lognormal(maps):
    """Widely spaced pixels are nearly independent; mean, variance and skewness in closed form."""
    model = LognormalMaps(64)
    pixels = maps[:, ::16, ::16].ravel().astype(np.float64)  # 6400, correlations below 0.02
    gaussian = np.log1p(pixels / model.shift) / model.sigma + model.sigma / 2
    assert stats.kstest(gaussian, "norm").pvalue > 0.01
    assert pixels.min() > -model.shift
    assert model.sigma == pytest.approx(0.3871, abs=1e-4)
    w = np.exp(model.sigma**2)
    assert model.variance == pytest.approx(model.shift**2 * (w - 1))
    assert abs(pixels.mean()) < 4 * np.sqrt(model.variance / 6400)
    # Fourth moment of the lognormal: the relative error of a variance is sqrt((kurtosis + 2) / n).
    kurtosis = w**4 + 2 * w**3 + 3 * w**2 - 6
    assert abs(pixels.var() / model.variance - 1) < 4 * np.sqrt((kurtosis + 2) / 6400)
    skewness = (w + 2) * np.sqrt(w - 1)  # 1.278
    assert stats.skew(pixels) == pytest.approx(skewness, abs=0.3)
    assert stats.kstest(pixels / pixels.std(), "norm").pvalue < 1e-6  # a Gaussian would be noticed


def test_a_map_is_a_function_of_seed_and_index():
    model = LognormalMaps(32)
    whole = model.make(5, 0, 7)
    assert np.array_equal(whole[3:5], model.make(5, 3, 2))
    assert np.array_equal(whole[6:], model.make(5, 6, 1))
    assert not np.array_equal(whole, model.make(6, 0, 7))
    assert len({one.tobytes() for one in whole}) == 7
    assert whole.dtype == np.float32
    neighbours = np.corrcoef(whole.reshape(7, -1))
    assert np.abs(neighbours[np.triu_indices(7, 1)]).max() < 0.4


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="even number"):
        LognormalMaps(33)
    with pytest.raises(ValueError, match=r"shift 0\.001: too small"):
        LognormalMaps(64, shift=0.001)


# --- the estimator -----------------------------------------------------------------------------------------------


def test_white_noise_has_the_power_of_its_variance():
    noise = np.random.default_rng(1).normal(0, 0.3, (200, 32, 32))
    ell, power = power_spectrum(noise)
    expected = FIELD**2 * 0.3**2 / 32**2
    counts = np.bincount(np.rint(lognormal.multipoles(32) / FUNDAMENTAL).astype(int).ravel())[1:17]
    # A Gaussian mode has an exponential distribution of power, and opposite modes are the same.
    error = expected / np.sqrt(200 * counts / 2)
    assert np.abs((power.mean(axis=0) - expected) / error).max() < 4
    assert power.shape == (200, 16)
    assert np.abs(ell / FUNDAMENTAL - np.arange(1, 17)).max() < 0.25
    assert counts[:2].tolist() == [8, 12]  # the four neighbours and the four at sqrt 2; then those from 1.5 to 2.5


def test_a_plane_wave_is_in_one_ring():
    side, amplitude, k = 64, 0.02, 5
    x = np.arange(side) / side * FIELD
    wave = np.broadcast_to(amplitude * np.cos(k * FUNDAMENTAL * x), (1, side, side))
    _, power = power_spectrum(wave)
    modes = np.count_nonzero(np.rint(lognormal.multipoles(side) / FUNDAMENTAL) == k)
    assert power[0, k - 1] == pytest.approx(2 * FIELD**2 * amplitude**2 / 4 / modes)
    assert np.delete(power[0], k - 1) == pytest.approx(0, abs=1e-20)


# --- the target --------------------------------------------------------------------------------------------------

OMEGA_M, H, SIGMA_8, N_S, OMEGA_B, Z_SOURCE, HUBBLE_MPC = 0.26, 0.72, 0.798, 0.96, 0.0428, 1.0, 2997.92458


def _linear(k):
    """Dimensionless linear power today, k in h/Mpc (Bardeen et al. 1986, eq. G3; Sugiyama 1995)."""

    def unnormalised(k):
        q = k / (OMEGA_M * H * np.exp(-OMEGA_B * (1 + np.sqrt(2 * H) / OMEGA_M)))
        series = 1 + 3.89 * q + (16.1 * q) ** 2 + (5.46 * q) ** 3 + (6.71 * q) ** 4
        return k ** (3 + N_S) * (np.log(1 + 2.34 * q) / (2.34 * q)) ** 2 / np.sqrt(series)

    x = 8 * k
    window = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    return unnormalised(k) * SIGMA_8**2 / integrate.trapezoid(unnormalised(k) * window**2, np.log(k))


def _growth(z):
    """Linear growth (Carroll, Press and Turner 1992, eq. 29), and Omega_m at z."""
    expansion = OMEGA_M * (1 + z) ** 3 + 1 - OMEGA_M
    m, v = OMEGA_M * (1 + z) ** 3 / expansion, (1 - OMEGA_M) / expansion
    return 2.5 * m / (m ** (4 / 7) - v + (1 + m / 2) * (1 + v / 70)) / (1 + z), m


def _nonlinear(k, linear, omega):
    """Smith et al. (2003), eqs. C9 to C18, flat universe."""
    log_k = np.log(k)

    def variance(log_r):
        return integrate.trapezoid(linear * np.exp(-((k * np.exp(log_r)) ** 2)), log_k)

    low, high = np.log(1e-4), np.log(1e2)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if variance(middle) > 1 else (low, middle)
    y = k * np.exp(low)
    gauss = linear * np.exp(-(y**2))
    first = integrate.trapezoid(2 * y**2 * gauss, log_k)
    n = first - 3
    c = first**2 + integrate.trapezoid((4 * y**2 - 4 * y**4) * gauss, log_k)
    a_n = 10 ** (1.4861 + 1.8369 * n + 1.6762 * n**2 + 0.7940 * n**3 + 0.1670 * n**4 - 0.6206 * c)
    b_n = 10 ** (0.9463 + 0.9466 * n + 0.3084 * n**2 - 0.9400 * c)
    c_n = 10 ** (-0.2807 + 0.6669 * n + 0.3214 * n**2 - 0.0793 * c)
    gamma = 0.8649 + 0.2989 * n + 0.1631 * c
    alpha, beta = 1.3884 + 0.3700 * n - 0.1452 * n**2, 0.8291 + 0.9854 * n + 0.3401 * n**2
    mu, nu = 10 ** (-3.5442 + 0.1908 * n), 10 ** (0.9589 + 1.2857 * n)
    quasi = linear * (1 + linear) ** beta / (1 + alpha * linear) * np.exp(-y / 4 - y**2 / 8)
    halo = a_n * y ** (3 * omega**-0.0307)
    halo /= 1 + b_n * y ** (omega**-0.0585) + (c_n * omega**0.0743 * y) ** (3 - gamma)
    return quasi + halo / (1 + mu / y + nu / y**2)


def test_the_target_is_close_to_a_universe():
    """Limber integral of the nonlinear matter power for sources at z = 1."""
    k = np.geomspace(1e-4, 1e3, 3000)
    today = _linear(k)
    ell = np.geomspace(90, 19000, 40)
    z = np.linspace(0, Z_SOURCE, 401)
    chi = integrate.cumulative_trapezoid(1 / np.sqrt(OMEGA_M * (1 + z) ** 3 + 1 - OMEGA_M), z, initial=0) * HUBBLE_MPC
    terms, at = [], np.arange(4, 400, 8)
    for i in at:
        growth, omega = _growth(z[i])
        power = _nonlinear(k, today * (growth / _growth(0.0)[0]) ** 2, omega)
        wave = ell / chi[i]
        spectrum = np.exp(np.interp(np.log(wave), np.log(k), np.log(power))) * 2 * np.pi**2 / wave**3
        terms.append((1 + z[i]) ** 2 * (1 - chi[i] / chi[-1]) ** 2 * spectrum)
    integral = integrate.trapezoid(np.array(terms), chi[at], axis=0) * (1.5 * OMEGA_M / HUBBLE_MPC**2) ** 2
    ratio = convergence_power(ell) / integral
    assert np.abs(ratio - 1).max() < 0.06
