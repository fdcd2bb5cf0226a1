"""FPD, KPD, precision, recall, density, coverage: closed forms, sums by hand, and what published code finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifolds import expected_coverage

from hpcgan.metrics import neighbours
from hpcgan.metrics.frechet import extrapolate, fpd, fpd_value, frechet_distance, sample_distance
from hpcgan.metrics.kernel import kpd, mmd2
from hpcgan.metrics.manifold import Manifold, manifold
from hpcgan.metrics.neighbours import distance_blocks, nearest_distance, neighbour_radius


def points(n, shift):
    """(n, 3) skewed, correlated points that need no random generator: the golden lattice, transformed."""
    i = np.arange(1, n + 1)[:, None]
    u = (i * np.array([0.754877666246693, 0.569840290998053, 0.618033988749895]) + shift) % 1.0
    columns = np.log(u[:, 0] / (1 - u[:, 0])), 3 * u[:, 1] ** 2 - u[:, 0], u[:, 2] - 0.5 + 0.3 * u[:, 1]
    return np.stack(columns, axis=1)


X, Y = points(400, 0.0), 1.2 * points(300, 0.137) + 0.1


# --- Frechet ---------------------------------------------------------------------------------------


def test_frechet_distance_of_commuting_covariances():
    """Sum of (m1 - m2)^2 and (s1 - s2)^2 along the common axes, whatever their direction."""
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    s1, s2 = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.1])
    m1, m2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    cov1, cov2 = (axes @ np.diag(s**2) @ axes.T for s in (s1, s2))
    assert frechet_distance(m1, cov1, m2, cov2) == pytest.approx(5 + np.sum((s1 - s2) ** 2))


def test_frechet_distance_of_two_dimensions():
    """For 2 x 2 matrices tr M^(1/2) = sqrt(tr M + 2 sqrt(det M)): here M = C1 C2 has trace 9 and determinant 9."""
    cov1, cov2 = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    trace, det = np.trace(cov1 @ cov2), np.linalg.det(cov1 @ cov2)
    assert (trace, det) == (8.0, pytest.approx(9.0))
    zero = np.zeros(2)
    assert frechet_distance(zero, cov1, zero, cov2) == pytest.approx(4 + 4 - 2 * np.sqrt(8 + 2 * 3))


def test_frechet_distance_of_singular_covariances():
    """A line against a plane: a product of rank 1, where the square root of a general matrix goes wrong."""
    zero = np.zeros(3)
    line, plane = np.diag([4.0, 0.0, 0.0]), np.diag([1.0, 9.0, 0.0])
    assert frechet_distance(zero, line, zero, plane) == pytest.approx((2 - 1) ** 2 + 9)
    doubled = np.repeat(np.random.default_rng(2).normal(size=(50, 1)), 4, axis=1)  # one number as four features
    assert sample_distance(doubled, doubled) == pytest.approx(0.0, abs=1e-6)  # the root of what rounding leaves
    assert sample_distance(doubled, doubled + 0.5) == pytest.approx(4 * 0.25, abs=1e-6)


def test_frechet_distance_is_that_of_jetnet():
    """`_calculate_frechet_distance` of jetnet 0.2.5 for the same points."""
    assert sample_distance(X, Y) == pytest.approx(0.2690899847874615, rel=1e-9)


def test_extrapolation_is_that_of_jetnet():
    """A `scipy.optimize.curve_fit` with bounds: intercept 0.20727473 +- 0.00431464."""
    found = extrapolate(np.array([40, 50, 80, 100]), np.array([0.31, 0.29, 0.262, 0.246]))
    assert found.value == pytest.approx(0.20727473, abs=1e-7)
    assert found.error == pytest.approx(0.00431464, abs=1e-7)
    exact = extrapolate(np.array([10, 20, 40]), 0.5 + 3 / np.array([10, 20, 40]))
    assert (exact.value, exact.error) == (pytest.approx(0.5), pytest.approx(0.0, abs=1e-12))


def test_bias_of_a_finite_sample_is_as_documented_and_goes_away():
    """(2 d + d (d + 1) / 2) / n for two standard normal samples; zero after the extrapolation."""
    n, d, repetitions = 400, 4, 60
    rng = np.random.default_rng(3)
    pairs = [(rng.normal(size=(n, d)), rng.normal(size=(n, d))) for _ in range(repetitions)]
    plain = [sample_distance(a, b) for a, b in pairs]
    assert np.mean(plain) == pytest.approx((2 * d + d * (d + 1) / 2) / n, rel=0.1)
    values = [fpd_value(a, b, batches=5) for a, b in pairs]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(repetitions)
    assert abs(np.mean(values)) < 0.2 * np.mean(plain)


def test_fpd_of_two_gaussians_with_an_honest_error():
    """Shift 0.5 and widths 1 against 1.5: 0.25 + 0.25. The error is the scatter over independent samples."""
    rng = np.random.default_rng(4)
    found = []
    for i in range(25):
        a, b = rng.normal(size=(300, 2)), rng.normal(size=(320, 2)) * [1.0, 1.5] + [0.5, 0.0]
        found.append(fpd(a, b, batches=5, seed=i))
    values, errors = np.array([[e.value, e.error] for e in found]).T
    assert values.mean() == pytest.approx(0.5, abs=4 * values.std() / 5)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(), rel=0.4)


def test_fpd_agrees_with_jetnet():
    """jetnet 0.2.5 found 0.12950 +- 0.00086 (fit only) for 50,000 of these; exactly it is 0.3^2 + 0.2^2 = 0.13."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(50_000, 4)), rng.normal(size=(50_000, 4))
    b[:, 0] += 0.3
    b[:, 1] *= 1.2
    assert fpd_value(a, b, batches=2) == pytest.approx(0.13, abs=0.01)


def test_fpd_is_reproducible_and_refuses_what_it_cannot_do():
    a, b = X[:100], Y[:90]
    assert fpd(a, b, batches=2, groups=5).value == fpd_value(a, b, batches=2)
    assert fpd_value(a, b, seed=1) == fpd_value(a, b, seed=1) != fpd_value(a, b, seed=2)
    for function, n in ((fpd, 39), (fpd_value, 4)):
        with pytest.raises(ValueError, match=f"{n} events are too few"):
            function(a[:n], b)
        with pytest.raises(ValueError, match="cannot be compared"):
            function(a, b[:, :2])


# --- kernel ----------------------------------------------------------------------------------------


def test_mmd_is_the_sum_over_pairs():
    x, y = X[:9], Y[:7]

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b)) / len(a) + 1) ** 4

    within = [
        sum(kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    across = sum(kernel(a, b) for a in x for b in y) / 63
    assert mmd2(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_mmd_is_that_of_jetnet(monkeypatch):
    """`_mmd_poly_quadratic_unbiased` of jetnet 0.2.5 for the same points; and in blocks."""
    assert mmd2(X, Y) == pytest.approx(25.900776151189845, rel=1e-9)
    monkeypatch.setattr("hpcgan.metrics.kernel.BLOCK", 7)
    assert mmd2(X, Y) == pytest.approx(25.900776151189845, rel=1e-9)


def test_kpd_closed_form():
    """One feature: (x y + 1)^4 = sum_j C(4, j) x^j y^j, so MMD^2 = sum_j C(4, j) (E x^j - E y^j)^2."""
    m, n = 0.5, 6000
    moments = np.array([m, 1 + m**2, m**3 + 3 * m, m**4 + 6 * m**2 + 3]) - [0, 1, 0, 3]
    expected = np.sum([4, 6, 4, 1] * moments**2)
    rng = np.random.default_rng(6)
    found = kpd(rng.normal(size=(n, 1)), rng.normal(size=(n, 1)) + m)
    assert found.value == pytest.approx(expected, abs=3 * 0.4 * found.error)
    assert found.error < 0.25 * expected


def test_kpd_of_one_distribution_is_zero():
    rng = np.random.default_rng(7)
    found = kpd(rng.normal(size=(4000, 3)), rng.normal(size=(4000, 3)))
    assert abs(found.value) < 2 * found.error < 0.2


def test_batches_of_the_kpd(monkeypatch):
    """Ten, of half the smaller sample or of 5000 events, none twice in a batch."""
    taken = []
    monkeypatch.setattr("hpcgan.metrics.kernel.mmd2", lambda a, b: taken.append((a, b)) or float(len(taken)))
    rows = np.arange(53.0)[:, None]
    found = kpd(rows, -rows[:41])
    assert found.value == 5.5
    assert found.error == pytest.approx(9 * 0.6745 / 2)  # quantiles of 1 ... 10 are linear
    assert len(taken) == 10
    for batch in (batch for pair in taken for batch in pair):
        assert len(batch) == len(np.unique(batch)) == 20
    taken.clear()
    kpd(np.zeros((12_000, 1)), np.zeros((12_000, 1)))
    assert [len(batch) for pair in taken for batch in pair] == [5000] * 20


def test_error_of_the_kpd_is_that_of_the_sample():
    rng = np.random.default_rng(11)
    found = [kpd(rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 0.5, seed=i) for i in range(60)]
    values = [f.value for f in found]
    assert np.mean([f.error for f in found]) == pytest.approx(np.std(values), rel=0.3)


def test_kpd_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="3 events are too few for a kernel physics distance"):
        kpd(X[:3], Y)
    with pytest.raises(ValueError, match="1 events are too few"):
        mmd2(X[:1], Y)
    with pytest.raises(ValueError, match="cannot be compared"):
        mmd2(X, Y[:, :2])


# --- neighbours, precision and the rest ------------------------------------------------------------


def test_neighbours_by_hand():
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_radius(x, 1).tolist() == [1, 1, 2, 4]
    assert neighbour_radius(x, 2).tolist() == [3, 2, 3, 6]
    assert nearest_distance(np.array([[2.2], [6.0]]), x) == pytest.approx([0.8, 1.0])
    assert neighbour_radius(np.array([[1.0], [1.0], [5.0]]), 1).tolist() == [0, 0, 4]  # a twin counts
    with pytest.raises(ValueError, match="4 events have no 4 neighbours"):
        neighbour_radius(x, 4)


@pytest.mark.parametrize("columns", [3, neighbours.EXACT_COLUMNS + 1])
def test_blocks_are_all_distances_in_little_memory(monkeypatch, columns):
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 8 * columns * 10)
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(23, columns)), rng.normal(size=(11, columns)).astype(np.float32)
    y[0] = x[5]
    blocks = list(distance_blocks(x, y))
    assert max(rows.stop - rows.start for rows, _ in blocks) <= max(10, 10 * columns // 11)
    assert [rows.start for rows, _ in blocks][1:] == [rows.stop for rows, _ in blocks][:-1]
    expected = np.array([[np.sqrt(np.sum((a - b) ** 2)) for b in y] for a in x])
    assert np.concatenate([found for _, found in blocks]) == pytest.approx(expected, abs=1e-6)


def test_manifold_by_hand():
    """k = 1 on a line. Real 0, 1, 3, 7 with radii 1, 1, 2, 4; generated 0.5, 2, 20 with radii 1.5, 1.5, 18.

    0.5 lies in the balls of 0 and 1; 2 in that of 3 only (1 is 1 away: outside the open ball of 1); 20 in none. The
    ball of 7 is (3, 11), with no generated event in it. That of 20 is (2, 38); 0, 1, 3 are within 1.5 of 0.5 or 2.
    """
    real, fake = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([[0.5], [2.0], [20.0]])
    assert manifold(real, fake, k=1) == Manifold(precision=2 / 3, recall=1.0, density=(2 + 1 + 0) / 3, coverage=3 / 4)


PRDC = {"precision": 0.9733333333333334, "recall": 1.0, "density": 0.8986666666666667, "coverage": 0.98}


@pytest.mark.parametrize("block", [64 << 20, 300 * 8 * 3])
def test_manifold_is_that_of_prdc(monkeypatch, block):
    """`compute_prdc` of prdc 0.2 with 5 neighbours for the same points, here also in blocks of 3 rows."""
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block)
    assert vars(manifold(X, Y)) == pytest.approx(PRDC, rel=1e-12)


@given(st.integers(0, 2**32), st.integers(8, 40), st.integers(8, 40), st.integers(1, 6), st.integers(1, 4))
def test_manifold_is_that_of_prdc_where_installed(seed, n, m, k, d):
    prdc = pytest.importorskip("prdc")
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(n, d)), 1.5 * rng.normal(size=(m, d))
    assert vars(manifold(real, fake, k)) == pytest.approx(prdc.compute_prdc(real, fake, k))


def test_expectations_for_one_distribution():
    """Density 1 and coverage as in the paper, whose own example is 0.969 for k = 5 and equal large samples."""
    assert expected_coverage(10**6, 10**6) == pytest.approx(1 - 2**-5, abs=1e-5)
    assert expected_coverage(2, 3, 1) == pytest.approx(1 - 1 / 4)  # of 4 others, the nearest is the real one
    rng = np.random.default_rng(9)
    found = [manifold(rng.normal(size=(300, 3)), rng.normal(size=(200, 3))) for _ in range(40)]
    assert np.mean([f.coverage for f in found]) == pytest.approx(expected_coverage(300, 200), abs=0.01)
    assert np.mean([f.density for f in found]) == pytest.approx(1.0, abs=0.03)


def test_what_goes_wrong_shows_in_the_right_number():
    """A generator that makes one of two modes is precise, and does not cover; one that makes junk besides, covers."""
    rng = np.random.default_rng(10)
    modes = np.where(rng.random((600, 1)) < 0.5, 0.0, 50.0) + rng.normal(size=(600, 2))
    one = manifold(modes, rng.normal(size=(600, 2)))
    assert one.precision > 0.85
    assert one.coverage < 0.6
    assert one.recall < 0.6
    junk = manifold(modes, np.concatenate([modes + 0.01, rng.normal(size=(600, 2)) + 500.0]))
    assert junk.precision == pytest.approx(0.5, abs=0.02)
    assert junk.coverage > 0.95
