"""Classifiers that tell generated events from real ones: training and test of any network. Needs TensorFlow."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

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


class Judge(Network):
    """The network of a classifier: rows of inputs (n, inputs) to logits (n,); in `training` it may look at the batch.

    Attributes
    ----------
    inputs : int
        Numbers of an event.
    chunk : int
        Rows at a time where nothing is learned from them.
    """

    inputs: int
    chunk: ClassVar[int] = 4096

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        raise NotImplementedError

    def augment(self, rows: np.ndarray, epoch: int, events: np.ndarray) -> np.ndarray:
        """Rows as an epoch of the training shows them; `events` (n,) are their numbers."""
        return rows

    def orientations(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Rows in all the ways that an event may lie: its logit is the mean over them. The first are as they came."""
        yield rows


@dataclass(frozen=True)
class Training:
    """How a classifier is trained; a subclass says which network.

    Attributes
    ----------
    learning_rate : float
        Of Adam (0.9, 0.999).
    epochs : int
        At most.
    patience : int
        Epochs without a lower cost of the validation events after which training ends.
    seed : int
        Of initial weights, splits and order.
    """

    #: A cost that no epoch can be below: one that reaches it ends the training.
    least_cost: ClassVar[float] = -np.inf

    learning_rate: float = 2e-4
    epochs: int = 50
    patience: int = 10
    seed: int = 0

    def network(self, rows: np.ndarray) -> Judge:
        """An untrained network for inputs as those of the training events, (n, inputs)."""
        raise NotImplementedError

    def batch(self, n: int) -> int:
        """Events an update for `n` training events."""
        return min(BATCH_SIZE, max(32, n // UPDATES))

    def rate(self, progress: float) -> float:
        """Learning rate after that share of the longest training."""
        return self.learning_rate

    def cost(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """What the logits (n,) of the validation events come to: the epoch with the lowest cost counts."""
        return _cross_entropy(logits, labels)


@dataclass(frozen=True)
class Settings(Training):
    """Fully connected layers and their training. The defaults are those of the CaloChallenge (arXiv:2410.21611).

    Attributes
    ----------
    hidden : tuple of int
        Units of the layers below the output.
    """

    hidden: tuple[int, ...] = (2048, 2048, 2048)

    def network(self, rows: np.ndarray) -> Judge:
        return Perceptron(rows.shape[1], self)


class Perceptron(Judge):
    """Fully connected layers with leaky rectifiers."""

    def __init__(self, inputs: int, settings: Settings) -> None:
        super().__init__("classifier")
        init = Initializer(settings.seed)
        widths = [inputs, *settings.hidden, 1]
        self.inputs = inputs
        self.layers = [Dense(init, f"classifier/{i}", *pair) for i, pair in enumerate(itertools.pairwise(widths))]

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        for layer in self.layers[:-1]:
            x = tf.nn.leaky_relu(layer(x), SLOPE)
        return tf.squeeze(self.layers[-1](x), axis=1)


class Classifier:
    """A trained classifier.

    Attributes
    ----------
    network : Judge
    epoch : int
        The epoch, from 1, whose weights these are: that of the lowest cost of the validation events.
    epochs : int
        Epochs trained.
    validation_cost : float
        That cost (`Training.cost`, by default the binary cross-entropy), of events as they lie.
    """

    def __init__(self, network: Judge, epoch: int, epochs: int, validation_cost: float) -> None:
        self.network, self.epoch, self.epochs, self.validation_cost = network, epoch, epochs, validation_cost
        self._logits = _logits_of(network)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Logits of class 1 for rows of inputs, (n,) float64: the mean over the ways that an event may lie."""
        chunk = self.network.chunk
        return np.concatenate([self._of_rows(x[i : i + chunk]) for i in range(0, len(x), chunk)])

    def _of_rows(self, rows: np.ndarray) -> np.ndarray:
        logits: np.ndarray = np.mean([self._logits(way) for way in self.network.orientations(rows)], axis=0)
        return logits


def train(
    x: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: Training,
    log: Log = lambda text: None,
    label: str = "classifier",
) -> Classifier:
    """Train a classifier to tell two samples apart.

    The same arguments give the same classifier on the same machine.

    Parameters
    ----------
    x, validation : pairs of (n, inputs) arrays
        Events of class 0 and of class 1, of scale about 1 unless the network scales them; equal numbers.
    settings : Training
    log : callable
        Hears of progress, every 15 seconds.
    label : str
        What progress calls this.
    """
    inputs = np.concatenate(x).astype(np.float32, copy=False)
    labels = _labels(x)
    held = np.concatenate(validation).astype(np.float32, copy=False)
    held_labels = _labels(validation)
    network = settings.network(inputs)
    trained = {name: variable for name, variable in network.named.items() if variable.trainable}
    adam = Adam("adam", trained, AdamConfig(learning_rate=settings.learning_rate, beta1=0.9, beta2=0.999))
    logits = _logits_of(network)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, network.inputs], tf.float32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([], tf.float32),
        ]
    )
    def update(batch: tf.Tensor, target: tf.Tensor, rate: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=network(batch, training=True))
            loss = tf.reduce_mean(losses)
        adam.apply(tape.gradient(loss, list(trained.values())), rate)

    size = settings.batch(len(inputs))
    best, best_epoch, epoch = np.inf, 0, 0
    best_weights = [variable.numpy() for variable in network.variables]
    spoke = time.monotonic()
    while epoch < settings.epochs and epoch - best_epoch < settings.patience and best > settings.least_cost:
        order = rng.permutation(settings.seed, "classifier/order", epoch, len(inputs))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rate = settings.rate((epoch + start / len(order)) / settings.epochs)
            batch = network.augment(inputs[chosen], epoch, chosen)
            update(tf.constant(batch), tf.constant(labels[chosen]), tf.constant(rate, tf.float32))
        epoch += 1
        cost = settings.cost(logits(held), held_labels)
        if cost < best:
            best, best_epoch = cost, epoch
            best_weights = [variable.numpy() for variable in network.variables]
        if time.monotonic() - spoke > SPEAK_EVERY_S:
            spoke = time.monotonic()
            log(f"{label}: epoch {epoch} of at most {settings.epochs}, lowest cost {best:.4f} in epoch {best_epoch}")
    for variable, value in zip(network.variables, best_weights, strict=True):
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


@dataclass(frozen=True)
class Judgement:
    """A classifier and what it says of the events of the test.

    Attributes
    ----------
    classifier : Classifier
    fake, real : (n, inputs) arrays
        The events.
    fake_logits, real_logits : (n,) arrays
    test : ClassifierTest
    """

    classifier: Classifier
    fake: np.ndarray
    real: np.ndarray
    fake_logits: np.ndarray
    real_logits: np.ndarray
    test: ClassifierTest


def judge(
    real: np.ndarray,
    fake: np.ndarray,
    settings: Training,
    log: Log = lambda text: None,
    label: str = "classifier",
) -> Judgement:
    """Train a classifier on 60% of real and of generated events and test it on 20% (arXiv:2410.21611).

    The other 20% choose the epoch and calibrate the probabilities (isotonic regression), which the divergence needs;
    the AUC is that of the logits.

    Parameters
    ----------
    real, fake : (n, inputs), (m, inputs) arrays
        Features, cells or images; the larger sample is cut to the size of the smaller one.
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
    test = ClassifierTest(
        events={"train": len(train0), "validation": len(validation0), "test": len(test0)},
        epoch=classifier.epoch,
        epochs=classifier.epochs,
        auc=auc(positive, negative),
        auc_null_error=auc_null_error(len(test1), len(test0)),
        jsd=jensen_shannon(calibration(positive), calibration(negative)),
    )
    return Judgement(classifier, test0, test1, negative, positive, test)


def classifier_test(
    real: np.ndarray,
    fake: np.ndarray,
    settings: Training,
    log: Log = lambda text: None,
    label: str = "classifier",
) -> ClassifierTest:
    """The numbers of `judge`."""
    return judge(real, fake, settings, log, label).test


@dataclass(frozen=True)
class RepeatedTest:
    """Several trainings that differ in their seed: in initial weights, order and split.

    Attributes
    ----------
    mean : ClassifierTest
        `auc` and `jsd` are means, with the error of one training; `epoch` and `epochs` the largest.
    aucs : tuple of float
        Of each training.
    """

    mean: ClassifierTest
    aucs: tuple[float, ...]

    @classmethod
    def of(cls, tests: list[ClassifierTest]) -> RepeatedTest:
        """What trainings on the same events come to."""
        mean = ClassifierTest(
            events=tests[0].events,
            epoch=max(test.epoch for test in tests),
            epochs=max(test.epochs for test in tests),
            auc=mean_of([test.auc for test in tests]),
            auc_null_error=tests[0].auc_null_error,
            jsd=mean_of([test.jsd for test in tests]),
        )
        return cls(mean, tuple(test.auc.value for test in tests))

    @property
    def auc_spread(self) -> float | None:
        """Standard deviation of the AUC over the trainings; None of a single one."""
        return spread_of(self.aucs)


def spread_of(values: Sequence[float]) -> float | None:
    """Standard deviation over trainings; None of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def mean_of(estimates: list[Estimate]) -> Estimate:
    """Mean value, with the error of one: trainings share most of their events."""
    return Estimate(
        float(np.mean([estimate.value for estimate in estimates])),
        float(np.sqrt(np.mean([estimate.error**2 for estimate in estimates]))),
    )


def judge_repeatedly(
    real: np.ndarray,
    fake: np.ndarray,
    settings: Training,
    trainings: int,
    log: Log = lambda text: None,
    label: str = "classifier",
) -> tuple[RepeatedTest, list[Judgement]]:
    """`judge` with the seeds `seed` ... `seed + trainings - 1`: what they come to, and each of them."""
    judgements: list[Judgement] = []
    for i in range(trainings):
        text = label if trainings == 1 else f"{label}, training {i + 1} of {trainings}"
        judgements.append(judge(real, fake, dataclasses.replace(settings, seed=settings.seed + i), log, text))
    return RepeatedTest.of([judgement.test for judgement in judgements]), judgements


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


def _logits_of(network: Judge) -> Callable[[np.ndarray], np.ndarray]:
    """Logits (n,) float64 of rows as they come."""
    compiled = tf.function(network, input_signature=[tf.TensorSpec([None, network.inputs], tf.float32)])

    def logits(x: np.ndarray) -> np.ndarray:
        starts = range(0, len(x), network.chunk)
        rows = [compiled(tf.constant(x[i : i + network.chunk], tf.float32)).numpy() for i in starts]
        return np.concatenate(rows).astype(np.float64)

    return logits


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0.0, np.where(labels > 0, -logits, logits))))
