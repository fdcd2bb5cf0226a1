"""What some networks can do besides: a network derives from its capabilities, and methods look for them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import tensorflow as tf

from hpcgan.networks.layers import Network, Tensors

#: What an update of a step is on: the discriminator's on real or on generated samples, or the generator's.
Origin = Literal["real", "fake", "generator"]


class Calibrated(Network):
    """Measures constants on the training events before it is trained; these are in every checkpoint."""

    @property
    @abstractmethod
    def constants(self) -> list[tf.Variable]:
        """Variables that `calibrate` sets once, and that never change afterwards; none where nothing is measured."""

    @property
    def tied(self) -> list[tf.Variable]:
        """Those of the constants that go with the weights: a training that starts from another one's weights takes
        them along, and measures only the others anew. By default none.
        """
        return []

    @abstractmethod
    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Set the constants from the training data.

        Parameters
        ----------
        batches : iterable of mapping of str to tensor
            Encoded samples of the whole training split, read anew each time that it is gone through.
        """


class Matching(tf.Module):
    """Maps generated values from the network's distribution, which is measured, to that of the training events.

    Both distributions are measured at some points of the conditions: one entry a point on the first axis of a table.

    Attributes
    ----------
    real : tf.Variable
        The table of the training events, which `follow` sets.
    samples : int
        By how many the network is measured at each point.
    """

    real: tf.Variable
    samples = 4096

    @property
    @abstractmethod
    def points(self) -> int:
        """Number of points, at least 1."""

    @abstractmethod
    def conditions(self, point: int, first: int, n: int) -> Mapping[str, np.ndarray]:
        """Encoded conditions, (n,) each, of samples first ... first + n - 1 at a point; empty where there are none."""

    @abstractmethod
    def counts(self, sample: Mapping[str, np.ndarray], point: int) -> np.ndarray:
        """Histograms of those encoded samples that are at a point, all in one array; these may be added up."""

    @abstractmethod
    def table(self, counts: np.ndarray) -> np.ndarray:
        """What of the network's own distribution at a point has to be known, out of histograms of what it makes."""

    @abstractmethod
    def __call__(self, sample: Tensors, conditions: Tensors, generated_table: tf.Tensor) -> Tensors:
        """Encoded samples of a network with these tables, for their encoded conditions."""

    def follow(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> Iterator[Mapping[str, tf.Tensor]]:
        """Measure the training events, encoded, which are handed on."""
        totals: list[np.ndarray] = []
        for batch in batches:
            arrays = {name: tensor.numpy() for name, tensor in batch.items()}
            for point in range(self.points):
                counts = self.counts(arrays, point)
                if point < len(totals):
                    totals[point] += counts
                else:
                    totals.append(counts)
            yield batch
        self.real.assign(np.stack([self.table(counts) for counts in totals]).reshape(self.real.shape))


class Matched(Network):
    """Has samples go through a `Matching` before they are used, but not in training."""

    @property
    @abstractmethod
    def matching(self) -> Matching | None:
        """What they go through; None: nothing."""

    def before_matching(self, noise: tf.Tensor, conditions: Tensors, training: bool) -> Tensors:
        """What `matching` takes: samples as a call makes them, which may have more to tell them apart by."""
        return self(noise, conditions, training=training, update=False)


class Auxiliary(Network):
    """A generator that may be trained on a loss of its own, besides what the discriminator says."""

    @property
    @abstractmethod
    def has_auxiliary_loss(self) -> bool:
        """Whether it is."""

    @abstractmethod
    def auxiliary_loss(self, tensors: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What is added to the generator's loss: a mean over the samples, with its weight.

        Parameters
        ----------
        tensors : mapping of str to tensor
            Generated samples as the discriminator sees them, without noise, and their conditions.
        """


class AuxiliaryClassifier(Network):
    """A discriminator that learns to tell the conditions of samples, as the generator learns to make them tellable.

    Odena, Olah and Shlens 2017 (arXiv:1610.09585).
    """

    @abstractmethod
    def judge(
        self, sample: Tensors, origin: Origin, training: bool, update: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What a call gives, (n,), and the loss of telling the conditions: a mean over the samples, with its weight.

        Parameters
        ----------
        sample : mapping of str to tensor
            With its conditions.
        origin : "real", "fake" or "generator"
            What is trained: the discriminator on real or on generated samples, or the generator.
        training, update : bool
            As of a call.
        """


class Randomised(Network):
    """A discriminator that draws random numbers of its own in training, as dropout does.

    What it is shown then has the entry `RANDOM` besides, which `hpcgan.networks.stateless` makes numbers of. Where that
    is missing (in penalties, and outside of training) it draws none.
    """


class Density(Network):
    """Knows how probable a sample is, given its conditions, and makes samples as probable as it says.

    This is what training by likelihood asks for. Weights are trained with :meth:`mean_log_prob`; with a call it is a
    generator like any other.
    """

    @abstractmethod
    def log_prob(self, sample: Tensors) -> tf.Tensor:
        """Log of the density of each sample under its conditions, both encoded: (n,), in nats."""

    def mean_log_prob(self, sample: Tensors) -> tf.Tensor:
        """Mean of :meth:`log_prob` over a batch, or an estimate of it without bias that costs less: a scalar.

        An estimate must not depend on the place of a sample in the batch by more than what comes out alike when ranks
        share the batch: equally large shares, of a size that the class states, have the mean of the whole.
        """
        return tf.reduce_mean(self.log_prob(sample))

    @abstractmethod
    def __call__(
        self, noise: tf.Tensor, conditions: Tensors, training: bool = False, update: bool = False
    ) -> dict[str, tf.Tensor]:
        """Encoded samples from standard normal noise (n, noise_dim) and encoded conditions."""


class OwnCoordinates(Network):
    """A discriminator whose gradient R1 takes with respect to other numbers than a sample's.

    A squared norm of gradients adds up what must be alike: a network that looks at logarithms of numbers over five
    orders of magnitude has the gradient taken with respect to these.
    """

    @abstractmethod
    def coordinates(self, tensors: Tensors) -> tuple[Tensors, Callable[[Tensors], Tensors]]:
        """Real samples without their conditions where the gradient is taken, and the way back."""


def measured_anew(network: Network) -> list[tf.Variable]:
    """What a network measures on the training events, whatever weights it starts from."""
    if not isinstance(network, Calibrated):
        return []
    tied = {variable.ref() for variable in network.tied}
    return [variable for variable in network.constants if variable.ref() not in tied]


def matching_of(network: Network) -> Matching | None:
    """What samples of a network go through before they are used, if there is anything."""
    return network.matching if isinstance(network, Matched) else None


def unmatched(network: Network, noise: tf.Tensor, conditions: Tensors, training: bool) -> Tensors:
    """Samples of a network, before they are matched."""
    if isinstance(network, Matched):
        return network.before_matching(noise, conditions, training)
    samples: Tensors = network(noise, conditions, training=training, update=False)
    return samples
