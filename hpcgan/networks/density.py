"""What training by likelihood asks of a network: a probability density that can be evaluated and sampled."""

from __future__ import annotations

from abc import abstractmethod

import tensorflow as tf

from hpcgan.networks.layers import Network, Tensors


class Density(Network):
    """A network that knows how probable a sample is, given its conditions, and makes samples as probable as it says.

    Weights are trained with :meth:`log_prob`; with a call it is a generator like any other.
    """

    @abstractmethod
    def log_prob(self, sample: Tensors) -> tf.Tensor:
        """Log of the density of each sample under its conditions, both encoded: (n,), in nats."""

    @abstractmethod
    def __call__(
        self, noise: tf.Tensor, conditions: Tensors, training: bool = False, update: bool = False
    ) -> dict[str, tf.Tensor]:
        """Encoded samples from standard normal noise (n, noise_dim) and encoded conditions."""
