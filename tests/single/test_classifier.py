"""Classifier tests between samples whose best classifier is known."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from hpcgan.evaluation import classifier
from hpcgan.evaluation.classifier import Settings, classifier_test, train

SMALL = Settings(hidden=(24, 24), learning_rate=5e-3, epochs=12, patience=4)


def gaussian(seed, n, shift=0.0):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x[:, 0] += shift
    return x


def test_two_gaussians():
    """The best classifier has AUC Phi(shift / sqrt 2) and the Jensen-Shannon divergence of the two."""
    found = classifier_test(gaussian(1, 4000, 1.5), gaussian(2, 4100), SMALL)
    assert found.events == {"train": 2400, "validation": 800, "test": 800}
    assert found.auc.value == pytest.approx(stats.norm.cdf(1.5 / math.sqrt(2)), abs=4 * found.auc.error)
    assert found.auc.error < 0.011

    def integrand(x):
        p, q = stats.norm.pdf(x, 1.5), stats.norm.pdf(x)
        return 0.5 * (p * math.log2(2 * p / (p + q)) + q * math.log2(2 * q / (p + q)))

    exact = integrate.quad(integrand, -8, 10)[0]
    assert exact - 0.03 - 3 * found.jsd.error < found.jsd.value < exact + 3 * found.jsd.error
    assert 1 <= found.epoch <= found.epochs <= 12


def test_nothing_to_tell():
    """Two samples of one distribution: AUC one half within its error, no divergence."""
    found = classifier_test(gaussian(3, 3000), gaussian(4, 3000), SMALL)
    assert found.auc_null_error == pytest.approx(math.sqrt(1201 / (12 * 600 * 600)))
    assert found.auc.value == pytest.approx(0.5, abs=4 * found.auc_null_error)
    assert found.jsd.value < 3 * found.jsd.error
    assert found.jsd.value > -0.05


def test_disjoint_samples_are_told_apart():
    found = classifier_test(gaussian(5, 500, 12.0), gaussian(6, 500), SMALL)
    assert (found.auc.value, found.auc.error) == (1.0, 0.0)
    # Calibration on 100 events of each class stays 1/102 away from certainty.
    assert 0.97 < found.jsd.value <= 1 + math.log2(1 - 1 / 102) + 1e-12


def test_the_same_seed_gives_the_same_numbers():
    a, b = gaussian(7, 300, 0.5), gaussian(8, 300)
    assert classifier_test(a, b, SMALL) == classifier_test(a, b, SMALL)
    assert classifier_test(a, b, SMALL) != classifier_test(a, b, Settings(**{**vars(SMALL), "seed": 1}))


def test_the_kept_epoch_is_the_best_on_validation_events():
    """40 training events and a network that learns them by heart: the loss on others rises after a few epochs."""
    settings = Settings(hidden=(64, 64), learning_rate=2e-2, epochs=40, patience=6)
    x, validation = (gaussian(9, 20, 1.0), gaussian(10, 20)), (gaussian(11, 300, 1.0), gaussian(12, 300))
    found = train(x, validation, settings)
    assert found.epochs == found.epoch + 6 < 40
    logits = found(np.concatenate(validation))
    loss = np.mean(np.logaddexp(0, np.concatenate([logits[:300], -logits[300:]])))  # class 0 comes first
    assert loss == pytest.approx(found.validation_cost)
    longer = train(x, validation, Settings(**{**vars(settings), "patience": 40}))
    assert longer.epochs == 40
    assert (longer.epoch, longer.validation_cost) == (found.epoch, found.validation_cost)


def test_the_network_is_that_of_the_challenge():
    network = classifier.Perceptron(10, Settings())
    assert [tuple(layer.kernel.shape) for layer in network.layers] == [
        (10, 2048),
        (2048, 2048),
        (2048, 2048),
        (2048, 1),
    ]
    assert sum(int(np.prod(v.shape)) for v in network.weights) == 10 * 2048 + 2 * 2048**2 + 2048 + 3 * 2048 + 1
    tiny = classifier.Perceptron(2, Settings(hidden=(1,)))
    for variable, value in zip((tiny.layers[0].kernel, tiny.layers[0].bias), ([[1.0], [1.0]], [0.0])):
        variable.assign(value)
    tiny.layers[1].kernel.assign([[2.0]])
    tiny.layers[1].bias.assign([1.0])
    assert tiny(np.array([[1.0, 2.0], [-1.0, -2.0]], np.float32)).numpy() == pytest.approx([7.0, 1 - 0.06])


def test_small_samples_get_enough_updates():
    assert [Settings().batch(n) for n in (100_000, 16_000, 320, 10)] == [1000, 500, 32, 32]


def test_progress_is_told(monkeypatch):
    monkeypatch.setattr(classifier, "SPEAK_EVERY_S", 0.0)
    told = []
    classifier_test(gaussian(13, 40), gaussian(14, 40), Settings(hidden=(4,), epochs=2), told.append, "cells")
    assert [text.split(",")[0] for text in told] == ["cells: epoch 1 of at most 2", "cells: epoch 2 of at most 2"]
