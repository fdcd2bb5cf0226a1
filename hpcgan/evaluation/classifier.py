"""Classifiers that tell generated events from real ones. Needs TensorFlow."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.config import AdamConfig
from hpcgan.methods.adam import Adam
from hpcgan.metrics.classification import Calibration, auc, auc_null_error, jensen_shannon
from hpcgan.metrics.observable import Estimate
from hpcgan.networks.layers import Dense, Initializer, Network

#: Of the leaky rectifiers, for negative inputs.
SLOPE = 0.01
#: Events an update, at most, and updates an epoch, at least: small samples are cut into smaller batches, of 32 or more.
BATCH_SIZE, UPDATES = 1000, 32
#: Shares of each class for training, choice of the epoch and calibration, and the test.
SPLIT = (0.6, 0.2, 0.2)
#: Least events of a class: one for training, two each for the other parts.
LEAST = 10
SPEAK_EVERY_S = 15.0

Log = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """Network and training of a classifier. The defaults are those of the CaloChallenge (arXiv:2410.21611).

    Attributes
    ----------
    hidden : tuple of int
        Units of the fully connected layers below the output.
    learning_rate : float
        Of Adam (0.9, 0.999).
    epochs : int
        At most.
    patience : int
        Epochs without a lower loss on the validation events after which training ends.
    seed : int
        Of initial weights, splits and order.
    """

    hidden: tuple[int, ...] = (2048, 2048, 2048)
    learning_rate: float = 2e-4
    epochs: int = 50
    patience: int = 10
    seed: int = 0

    def batch(self, n: int) -> int:
        """Events an update for `n` training events."""
        return min(BATCH_SIZE, max(32, n // UPDATES))


class Perceptron(Network):
    """Fully connected layers with leaky rectifiers: (n, inputs) -> (n,) logits."""

    def __init__(self, inputs: int, settings: Settings) -> None:
        super().__init__("classifier")
        init = Initializer(settings.seed)
        widths = [inputs, *settings.hidden, 1]
        self.layers = [Dense(init, f"classifier/{i}", *pair) for i, pair in enumerate(itertools.pairwise(widths))]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        for layer in self.layers[:-1]:
            x = tf.nn.leaky_relu(layer(x), SLOPE)
        return tf.squeeze(self.layers[-1](x), axis=1)


class Classifier:
    """A trained classifier.

    Attributes
    ----------
    epoch : int
        The epoch, from 1, whose weights these are: that of the lowest loss on validation events.
    epochs : int
        Epochs trained.
    validation_loss : float
        Binary cross-entropy of that epoch.
    """

    def __init__(self, network: Perceptron, epoch: int, epochs: int, validation_loss: float) -> None:
        self.epoch, self.epochs, self.validation_loss = epoch, epochs, validation_loss
        self._logits = _compiled_logits(network)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Logits of class 1 for rows of inputs, (n,) float64."""
        return _logits(self._logits, x)


def train(
    x: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: Settings,
    log: Log = lambda text: None,
    label: str = "classifier",
) -> Classifier:
    """Train a classifier to tell two samples apart.

    The same arguments give the same classifier on the same machine.

    Parameters
    ----------
    x, validation : pairs of (n, inputs) arrays
        Events of class 0 and of class 1, of scale about 1; equal numbers.
    settings : Settings
    log : callable
        Hears of progress, every 15 seconds.
    label : str
        What progress calls this.
    """
    inputs = np.concatenate(x).astype(np.float32)
    labels = _labels(x)
    held = np.concatenate(validation).astype(np.float32)
    held_labels = _labels(validation)
    network = Perceptron(inputs.shape[1], settings)
    adam = Adam("adam", network.named, AdamConfig(learning_rate=settings.learning_rate, beta1=0.9, beta2=0.999))
    logits = _compiled_logits(network)
    rate = tf.constant(settings.learning_rate, tf.float32)

    @tf.function(
        input_signature=[tf.TensorSpec([None, inputs.shape[1]], tf.float32), tf.TensorSpec([None], tf.float32)]
    )
    def update(batch: tf.Tensor, target: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=network(batch))
            loss = tf.reduce_mean(losses)
        adam.apply(tape.gradient(loss, network.weights), rate)

    size = settings.batch(len(inputs))
    best, best_epoch, epoch = np.inf, 0, 0
    best_weights = [variable.numpy() for variable in network.weights]
    spoke = time.monotonic()
    while epoch < settings.epochs and epoch - best_epoch < settings.patience:
        order = rng.permutation(settings.seed, "classifier/order", epoch, len(inputs))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            update(tf.constant(inputs[chosen]), tf.constant(labels[chosen]))
        epoch += 1
        loss = _cross_entropy(_logits(logits, held), held_labels)
        if loss < best:
            best, best_epoch = loss, epoch
            best_weights = [variable.numpy() for variable in network.weights]
        if time.monotonic() - spoke > SPEAK_EVERY_S:
            spoke = time.monotonic()
            log(f"{label}: epoch {epoch} of at most {settings.epochs}, lowest loss {best:.4f} in epoch {best_epoch}")
    for variable, value in zip(network.weights, best_weights, strict=True):
        variable.assign(value)
    return Classifier(network, best_epoch, epoch, float(best))


@dataclass(frozen=True)
class ClassifierTest:
    """How well a classifier tells generated events from real ones.

    Attributes
    ----------
    events : dict of str to int
        Events of each class for `train`, `validation` and `test`.
    epoch, epochs : int
        Epoch that was chosen, and epochs trained.
    auc : Estimate
        Area under the ROC curve for real as the positive class: 0.5 for indistinguishable samples, 1 for
        ones that are told apart without a mistake.
    auc_null_error : float
        Standard deviation of the AUC around 0.5 of a classifier that knows nothing.
    jsd : Estimate
        Jensen-Shannon divergence in bits, (ln 2 - BCE) / ln 2 of the calibrated classifier: 0 to 1. A lower bound.
    """

    events: dict[str, int]
    epoch: int
    epochs: int
    auc: Estimate
    auc_null_error: float
    jsd: Estimate


def classifier_test(
    real: np.ndarray,
    fake: np.ndarray,
    settings: Settings,
    log: Log = lambda text: None,
    label: str = "classifier",
) -> ClassifierTest:
    """Train a classifier on 60% of real and of generated events and test it on 20% (arXiv:2410.21611).

    The other 20% choose the epoch and calibrate the probabilities (isotonic regression), which the divergence needs;
    the AUC is that of the logits.

    Parameters
    ----------
    real, fake : (n, inputs), (m, inputs) arrays
        Features or cells, of scale about 1; the larger sample is cut to the size of the smaller one.
    settings, log, label
        As for `train`.

    Raises
    ------
    ValueError
        Less than ten events of a class, or inputs that differ in number.
    """
    n = comparable([real, fake])
    parts = [split(sample[:n], settings.seed, name) for name, sample in (("fake", fake), ("real", real))]
    (train0, validation0, test0), (train1, validation1, test1) = parts
    classifier = train((train0, train1), (validation0, validation1), settings, log, label)
    calibration = Calibration.fit(
        classifier(np.concatenate([validation0, validation1])), _labels((validation0, validation1))
    )
    negative, positive = classifier(test0), classifier(test1)
    return ClassifierTest(
        events={"train": len(train0), "validation": len(validation0), "test": len(test0)},
        epoch=classifier.epoch,
        epochs=classifier.epochs,
        auc=auc(positive, negative),
        auc_null_error=auc_null_error(len(test1), len(test0)),
        jsd=jensen_shannon(calibration(positive), calibration(negative)),
    )


def split(sample: np.ndarray, seed: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Events for training, for the choice of the epoch and calibration, and for the test: the shares `SPLIT`."""
    order = rng.permutation(seed, f"classifier/split/{name}", 0, len(sample))
    first, second = round(SPLIT[0] * len(sample)), round((SPLIT[0] + SPLIT[1]) * len(sample))
    return sample[order[:first]], sample[order[first:second]], sample[order[second:]]


def comparable(samples: list[np.ndarray]) -> int:
    """The number of events that all samples have.

    Raises
    ------
    ValueError
        Inputs that differ in number, or fewer than ten events.
    """
    inputs = {sample.shape[1:] for sample in samples}
    if len(inputs) != 1:
        raise ValueError(f"inputs of shapes {sorted(inputs)} cannot be compared")
    n = min(len(sample) for sample in samples)
    if n < LEAST:
        raise ValueError(f"{n} events are too few for a classifier")
    return n


def _labels(samples: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.full(len(sample), label, np.float32) for label, sample in enumerate(samples)])


def _compiled_logits(network: Perceptron) -> Callable[[tf.Tensor], tf.Tensor]:
    inputs = network.layers[0].kernel.shape[0]
    return tf.function(network, input_signature=[tf.TensorSpec([None, inputs], tf.float32)])


def _logits(compiled: Callable[[tf.Tensor], tf.Tensor], x: np.ndarray, chunk: int = 4096) -> np.ndarray:
    rows = [compiled(tf.constant(x[i : i + chunk], tf.float32)).numpy() for i in range(0, len(x), chunk)]
    return np.concatenate(rows).astype(np.float64)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0.0, np.where(labels > 0, -logits, logits))))
