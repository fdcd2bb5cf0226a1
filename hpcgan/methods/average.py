"""Exponential moving average of a network's variables, over samples seen."""

from __future__ import annotations

import math

import tensorflow as tf

from hpcgan.networks.layers import Network

_RAMP = 0.05  # the half-life grows with the samples seen up to its final value (Karras et al. 2020)


def decay(half_life: float, samples: int, step_samples: int) -> float:
    """Weight of the old average in a step that brings the samples seen to `samples`."""
    half_life = min(half_life, samples * _RAMP)
    return 0.0 if half_life <= 0 else math.exp(-math.log(2.0) * step_samples / half_life)


class Average:
    """A second network that follows the first, statistics included.

    Parameters
    ----------
    source : Network
        The network that is trained.
    target : Network
        Another one of the same build; its values are overwritten by those of `source`.
    """

    def __init__(self, source: Network, target: Network) -> None:
        self.network = target
        self._pairs = [(target.named[name], variable) for name, variable in source.named.items()]
        self.reset()

    def reset(self) -> None:
        """Take over all values of the source as they are."""
        for average, theirs in self._pairs:
            average.assign(theirs)

    def update(self, momentum: tf.Tensor) -> None:
        """Average = momentum * average + (1 - momentum) * current."""
        for average, theirs in self._pairs:
            average.assign(theirs + momentum * (average - theirs))
