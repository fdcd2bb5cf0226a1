"""The CaloChallenge's classifiers, against closed forms and against an implementation in NumPy of its own."""

import dataclasses
import math

import needs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from scipy.linalg import sqrtm
from scipy.special import expit

needs.tensorflow()

from hpcgan.calochallenge import classifier  # noqa: E402
from hpcgan.calochallenge.classifier import Protocol, classify, parts  # noqa: E402
from hpcgan.evaluation.classifier import Perceptron, train  # noqa: E402
from hpcgan.metrics.classification import Calibration  # noqa: E402
from hpcgan.metrics.frechet import resampled_fpd, sample_distance  # noqa: E402
from hpcgan.metrics.kernel import mmd2, resampled_kpd  # noqa: E402
from hpcgan.rng import permutation  # noqa: E402


def gaussian(seed, n, shift=0.0):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x[:, 0] += shift
    return x


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_two_gaussians(shift):
    """The best classifier has AUC Phi(shift / sqrt 2) and the Jensen-Shannon divergence of the two."""
    protocol = Protocol(hidden=(24, 24), learning_rate=5e-3, epochs=15)
    found = classify(gaussian(1, 4000, shift), gaussian(2, 4100), protocol)
    assert found.events == {"train": 2400, "validation": 800, "test": 800}
    error = max(found.auc_raw.error, 1e-9)
    assert found.auc_raw.value == pytest.approx(stats.norm.cdf(shift / math.sqrt(2)), abs=4 * error)
    assert found.auc.value == pytest.approx(found.auc_raw.value, abs=0.02)  # ties of the calibration

    def integrand(x):
        p, q = stats.norm.pdf(x, shift), stats.norm.pdf(x)
        return 0.5 * (p * math.log2(2 * p / (p + q)) + q * math.log2(2 * q / (p + q)))

    exact = integrate.quad(integrand, -8, 10)[0]
    assert exact - 0.06 - 3 * found.jsd.error < found.jsd.value < exact + 3 * found.jsd.error
    best = stats.norm.cdf(shift / 2)  # accuracy of the best threshold, shift / 2
    assert found.accuracy == pytest.approx(best, abs=4 * math.sqrt(best * (1 - best) / 1600))


def test_defaults_are_the_challenge_s():
    protocol = Protocol()
    assert (protocol.hidden, protocol.learning_rate, protocol.epochs) == ((2048, 2048, 2048), 2e-4, 50)
    assert [protocol.batch(n) for n in (10, 120_000)] == [1000, 1000]
    assert protocol.patience > 10**6


# --- an implementation of its own ------------------------------------------------------------------


def forward(weights, x):
    """Inputs of each layer, and the logits."""
    inputs = [x]
    for kernel, bias in weights[:-1]:
        z = inputs[-1] @ kernel + bias
        inputs.append(np.where(z > 0, z, 0.01 * z))
    return inputs, (inputs[-1] @ weights[-1][0] + weights[-1][1])[:, 0]


def gradients(weights, x, labels):
    """Of the mean binary cross-entropy, by the chain rule."""
    inputs, logits = forward(weights, x)
    delta = ((expit(logits) - labels) / len(x))[:, None]
    found = []
    for place in range(len(weights) - 1, -1, -1):
        found.append((inputs[place].T @ delta, delta.sum(axis=0)))
        if place:
            delta = (delta @ weights[place][0].T) * np.where(inputs[place] > 0, 1.0, 0.01)
    return found[::-1]


def train_in_numpy(weights, x, labels, held, held_labels, protocol, pytorch=False):
    """Adam in double precision; epoch and weights of the first one of the best accuracy.

    TensorFlow adds epsilon to the root of the second moment, PyTorch to that of the moment without its bias.
    """
    weights = list(weights)
    moments = [[(np.zeros_like(p), np.zeros_like(p)) for p in pair] for pair in weights]
    step, best, kept = 0, -1.0, None
    for epoch in range(protocol.epochs):
        order = permutation(protocol.seed, "classifier/order", epoch, len(x))
        for start in range(0, len(x), classifier.BATCH):
            chosen = order[start : start + classifier.BATCH]
            step += 1
            slopes = gradients(weights, x[chosen], labels[chosen])
            for layer, pair in enumerate(slopes):
                updated = []
                for kind, slope in enumerate(pair):
                    m, v = moments[layer][kind]
                    m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
                    moments[layer][kind] = m, v
                    unbiased = math.sqrt(1 - 0.999**step)
                    epsilon = 1e-8 * unbiased if pytorch else 1e-8
                    rate = protocol.learning_rate * unbiased / (1 - 0.9**step)
                    updated.append(weights[layer][kind] - rate * m / (np.sqrt(v) + epsilon))
                weights[layer] = tuple(updated)
        accuracy = np.mean((forward(weights, held)[1] > 0) == (held_labels > 0))
        if accuracy > best:
            best, kept = accuracy, (epoch + 1, list(weights))
    return kept


def area(positive, negative):
    """Chance that a positive one is above a negative one, pair by pair."""
    difference = positive[:, None] - negative[None, :]
    return np.mean(difference > 0) + 0.5 * np.mean(difference == 0)


def test_an_implementation_in_numpy_finds_the_same(monkeypatch):
    """The same epoch, logits, AUC and divergence, but for single precision: up to 3e-6 in logits of up to 2.2.

    With epsilon where PyTorch has it the logits are others: the form matters more than the rounding.
    """
    monkeypatch.setattr(classifier, "BATCH", 100)
    protocol = Protocol(hidden=(16, 16, 16), learning_rate=1e-2, epochs=8, seed=3)
    real, fake = gaussian(5, 300, 0.8).astype(np.float32), gaussian(6, 300).astype(np.float32)
    found = classify(real, fake, protocol)
    (x0, held0, test0), (x1, held1, test1) = parts(fake, 3, "fake"), parts(real, 3, "real")
    network = Perceptron(3, protocol)
    initial = [(layer.kernel.numpy().astype(float), layer.bias.numpy().astype(float)) for layer in network.layers]

    def labels(*sides):
        return np.concatenate([np.full(len(side), float(label)) for label, side in enumerate(sides)])

    x, held = (np.concatenate(sides).astype(float) for sides in ((x0, x1), (held0, held1)))
    known = x, labels(x0, x1), held, labels(held0, held1)
    epoch, weights = train_in_numpy(initial, *known, protocol)
    assert (found.epoch, found.epochs) == (epoch, 8)
    trained = train((x0, x1), (held0, held1), protocol)
    held_logits, negative, positive = (forward(weights, side.astype(float))[1] for side in (held, test0, test1))
    for side, logits in ((held, held_logits), (test0, negative), (test1, positive)):
        assert trained(side.astype(np.float32)) == pytest.approx(logits, abs=2e-5)
    of_pytorch = train_in_numpy(initial, *known, dataclasses.replace(protocol, epochs=epoch), pytorch=True)[1]
    assert np.abs(forward(of_pytorch, held)[1] - held_logits).max() > 1e-3
    assert found.auc_raw.value == pytest.approx(area(positive, negative), abs=1e-12)
    steps = isotonic_by_pooling(expit(held_logits), labels(held0, held1))
    p, q = (np.interp(expit(side), *steps) for side in (positive, negative))
    assert found.auc.value == pytest.approx(area(p, q), abs=1e-12)
    entropy = -0.5 * (np.mean(np.log(p)) + np.mean(np.log(1 - q)))
    assert found.jsd.value == pytest.approx(1 - entropy / math.log(2), abs=1e-6)


def isotonic_by_pooling(outputs, labels, least=1e-6):
    """Pool adjacent violators, block by block; knots and clipped values."""
    knots = np.unique(outputs)
    blocks = [[labels[outputs == knot].sum(), np.sum(outputs == knot), 1] for knot in knots]
    place = 0
    while place < len(blocks) - 1:
        (k, n, width), (k1, n1, width1) = blocks[place : place + 2]
        if k / n > k1 / n1 + 1e-12:
            blocks[place : place + 2] = [[k + k1, n + n1, width + width1]]
            place = max(place - 1, 0)
        else:
            place += 1
    values = np.concatenate([np.full(width, k / n) for k, n, width in blocks])
    return knots, np.clip(values, least, 1 - least)


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 20))
def test_calibration_pools_violators(seed, n, distinct):
    rng = np.random.default_rng(seed)
    outputs, labels = rng.integers(0, distinct, n) / distinct, rng.integers(0, 2, n)
    found = Calibration.clipped(outputs, labels)
    knots, values = isotonic_by_pooling(outputs, labels)
    assert found.outputs == pytest.approx(knots)
    assert found.probabilities == pytest.approx(values, abs=1e-9)


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 20))
def test_calibration_is_that_of_scikit_learn_where_installed(seed, n, distinct):
    isotonic = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(seed)
    outputs, labels = rng.integers(0, distinct, n) / distinct, rng.integers(0, 2, n)
    peer = isotonic.IsotonicRegression(out_of_bounds="clip", y_min=1e-6, y_max=1 - 1e-6).fit(outputs, labels)
    asked = np.linspace(-0.2, 1.2, 57)
    assert Calibration.clipped(outputs, labels)(asked) == pytest.approx(peer.predict(asked), abs=1e-9)


def test_the_first_epoch_of_the_highest_accuracy_counts():
    protocol = Protocol()
    logits, labels = np.array([2.0, -1.0, 0.5, -3.0]), np.array([1.0, 0.0, 0.0, 0.0])
    assert protocol.cost(logits, labels) == -0.75
    assert protocol.cost(-logits, labels) == -0.25
    far = train((gaussian(7, 60), gaussian(8, 60, 30.0)), (gaussian(9, 20), gaussian(10, 20, 30.0)), small(40))
    assert far.validation_cost == -1.0
    assert far.epoch == far.epochs < 40  # nothing is better than an accuracy of 1


def small(epochs):
    return Protocol(hidden=(8,), learning_rate=5e-2, epochs=epochs)


def test_parts_are_cut_as_the_challenge_s():
    sample = np.arange(1009)[:, None]
    found = parts(sample, 1, "real")
    assert [len(part) for part in found] == [605, 201, 203]  # int(605.4), int(201.8), the rest
    assert sorted(np.concatenate(found)[:, 0]) == list(range(1009))
    assert not np.array_equal(found[0], parts(sample, 2, "real")[0])
    assert classify(gaussian(1, 50), gaussian(2, 50), small(2)) == classify(gaussian(1, 50), gaussian(2, 50), small(2))
    with pytest.raises(ValueError, match="9 events are too few"):
        classify(gaussian(1, 9), gaussian(2, 50), small(2))


# --- distances as the package jetnet has them --------------------------------------------------------


def test_resampled_fpd_is_that_of_its_definition():
    """As `jetnet.evaluation.fpd`: general square roots, draws with replacement, `curve_fit` with bounds."""
    x, y = gaussian(11, 300), gaussian(12, 320, 0.4)
    sizes = (1 / np.linspace(1 / 40, 1 / 200, 10)).astype("int32")
    rng = np.random.default_rng(42)
    means = []
    for size in sizes:
        values = []
        for _ in range(5):
            a, b = x[rng.choice(300, size=size)], y[rng.choice(320, size=size)]
            first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
            root = np.real(sqrtm(first @ second))
            shift = a.mean(axis=0) - b.mean(axis=0)
            values.append(shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(root))
        means.append(np.mean(values))
    fitted, covariance = optimize.curve_fit(
        lambda n, a, b: a + b * n, 1 / sizes, means, bounds=([0, 0], [np.inf, np.inf])
    )
    found = resampled_fpd(x, y, sizes=(40, 200), batches=5)
    assert found.value == pytest.approx(fitted[0], rel=1e-4)
    assert found.error == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-4)


def test_resampled_fpd_ends_at_the_distance_of_the_samples():
    """With replacement the bias of the samples at hand stays, and nothing is below zero."""
    x, y = gaussian(13, 200), gaussian(14, 200)
    found = resampled_fpd(x, y, batches=10)
    assert found.value == pytest.approx(sample_distance(x, y), rel=0.05)  # over seeds: 0.6 to 1.2%
    assert resampled_fpd(x, x, sizes=(50, 400), batches=5).value >= 0.0
    for function in (resampled_fpd, resampled_kpd):
        with pytest.raises(ValueError, match="cannot be compared"):
            function(x, y[:, :2])


def test_resampled_kpd_is_that_of_its_definition():
    """As `jetnet.evaluation.kpd`: batches with replacement from seeds 42, 1042 ...; half of an interquantile range."""
    x, y = gaussian(15, 100), gaussian(16, 90, 0.5)
    values = []
    for number in range(10):
        rng = np.random.default_rng(42 + 1000 * number)
        values.append(mmd2(x[rng.choice(100, size=40)], y[rng.choice(90, size=40)]))
    found = resampled_kpd(x, y, batch=40)
    assert found.value == pytest.approx(np.median(values))
    assert found.error == pytest.approx(stats.iqr(values, rng=(16.275, 83.725)) / 2)
