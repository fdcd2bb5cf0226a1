"""The CaloChallenge's classifiers: how they are trained, chosen, calibrated and tested. Needs TensorFlow.

From the challenge's public `evaluate.py` (github.com/CaloChallenge/homepage, code/), unless said otherwise:

- an input layer and two more of the same width, leaky rectifiers of slope 0.01, no dropout, one logit; weights begin as
  PyTorch's. The script's widths are 512 by default, those of arXiv:2410.21611 are 2048;
- Adam (0.9, 0.999) at 2e-4, binary cross-entropy, batches of 1000 in a new order each epoch, the last one smaller, 50
  epochs; an accuracy of 1 on the second part of the showers ends the training;
- 60% of the showers train, the next 20% choose the epoch (the first of the highest accuracy) and calibrate, the last
  20% test. Parts are cut by rounding down. The tables had other parts for data set 1, which the script does not tell;
- calibration is an isotonic regression on the probabilities, clipped to 1e-6 ... 1 - 1e-6, linear between its knots;
- AUC and divergence are those of the calibrated probabilities: steps of the regression are ties of the AUC.

Numbers here are in single precision, the script's in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit

from hpcgan import rng
from hpcgan.evaluation.classifier import Classifier, Settings, comparable, train
from hpcgan.metrics.classification import Calibration, auc, jensen_shannon
from hpcgan.metrics.observable import Estimate

#: Events an update.
BATCH = 1000
#: Shares of each class for training, and for the choice of the epoch and the calibration.
SHARES = (0.6, 0.2)

Log = Callable[[str], None]


@dataclass(frozen=True)
class Protocol(Settings):
    """How a classifier of the challenge is trained; `patience` is that of no training."""

    patience: int = 1 << 30
    least_cost: ClassVar[float] = -1.0

    def batch(self, n: int) -> int:
        return BATCH

    def cost(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Minus the accuracy, at a probability of one half."""
        return -float(np.mean((logits > 0) == (labels > 0)))


@dataclass(frozen=True)
class Result:
    """What one training comes to.

    Attributes
    ----------
    auc : Estimate
        Of the calibrated probabilities, with DeLong's error.
    auc_raw : Estimate
        Of the logits.
    jsd : Estimate
        Jensen-Shannon divergence in bits, 1 - BCE / ln 2.
    accuracy : float
        Of the showers that choose the epoch.
    epoch, epochs : int
        The epoch that was chosen, and epochs trained.
    events : dict of str to int
        Showers of each class for `train`, `validation` and `test`.
    """

    auc: Estimate
    auc_raw: Estimate
    jsd: Estimate
    accuracy: float
    epoch: int
    epochs: int
    events: dict[str, int]


def classify(
    real: np.ndarray, fake: np.ndarray, protocol: Protocol, log: Log = lambda text: None, label: str = "classifier"
) -> Result:
    """Train a classifier and test it.

    Parameters
    ----------
    real, fake : (n, inputs), (m, inputs) arrays
        The larger sample is cut to the size of the smaller one.
    protocol : Protocol
        Its seed is that of initial weights, parts and order.
    log, label
        As of `hpcgan.evaluation.classifier.train`.

    Raises
    ------
    ValueError
        Less than ten showers of a class, or inputs that differ in number.
    """
    n = comparable([real, fake])
    (train0, chosen0, test0), (train1, chosen1, test1) = (
        parts(sample[:n], protocol.seed, name) for name, sample in (("fake", fake), ("real", real))
    )
    classifier = train((train0, train1), (chosen0, chosen1), protocol, log, label)
    return judged(classifier, (chosen0, chosen1), (test0, test1), len(train0))


def judged(
    classifier: Classifier,
    chosen: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    trained: int,
) -> Result:
    """What a classifier says of generated and real showers, in this order, that calibrate and that test."""
    held = np.concatenate([np.zeros(len(chosen[0])), np.ones(len(chosen[1]))])
    calibration = Calibration.clipped(expit(classifier(np.concatenate(chosen))), held)
    fake, real = (classifier(side) for side in test)
    fake_p, real_p = (calibration(expit(logits)) for logits in (fake, real))
    return Result(
        auc=auc(real_p, fake_p),
        auc_raw=auc(real, fake),
        jsd=jensen_shannon(real_p, fake_p),
        accuracy=-classifier.validation_cost,
        epoch=classifier.epoch,
        epochs=classifier.epochs,
        events={"train": trained, "validation": len(chosen[0]), "test": len(test[0])},
    )


def parts(sample: np.ndarray, seed: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Showers for training, for choice and calibration, and for the test, drawn at random."""
    order = rng.permutation(seed, f"calochallenge/{name}", 0, len(sample))
    first = int(len(sample) * SHARES[0])
    second = first + int(len(sample) * SHARES[1])
    return sample[order[:first]], sample[order[first:second]], sample[order[second:]]
