"""Training by likelihood: one density, updated by the gradient of the mean negative log-likelihood of the batch.

Autoregressive models, flows and whatever else is a :class:`hpcgan.networks.capabilities.Density` under the name
`density` among the networks of a problem. The loss is a mean over the rank's own batch and has no term across samples,
so the average over equally large ranks is that of one rank with all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import cast

import numpy as np
import tensorflow as tf

from hpcgan.config import Config
from hpcgan.data.schema import Sample
from hpcgan.methods.base import ATTENTION, NONFINITE, LossCurve
from hpcgan.methods.settings import LikelihoodSettings
from hpcgan.methods.step import Local, Update, UpdateMethod, in_parts
from hpcgan.networks.capabilities import Density
from hpcgan.networks.layers import Network, Tensors

NAME, LOSS = "density", "nll"
#: Averaged over all ranks in every step, in this order; the first is in nats an event, for the units of the encoding.
METRICS = (LOSS, NONFINITE, ATTENTION)


class Likelihood(UpdateMethod):
    """A density, its optimizer, and the step.

    Attributes
    ----------
    networks : dict of str to Network
        `density` and, with averaging, `density_average`.
    optimizers : dict of str to Adam
    """

    sampled = NAME
    losses = (LossCurve(LOSS, LOSS, "NLL"),)
    metrics = METRICS

    def draws(self, step: int, first: int, n: int) -> dict[str, np.ndarray]:
        """None: a step takes no random numbers."""
        return {}

    @classmethod
    def held_out_losses(cls, network: Network, dtype: str) -> Callable[[Sample], np.ndarray]:
        """Negative log-likelihoods."""
        log_prob = tf.function(cast(Density, network).log_prob, autograph=False)
        return lambda sample: -log_prob({name: tf.constant(x, dtype) for name, x in sample.items()}).numpy()

    @classmethod
    def symmetries(cls, config: Config) -> tuple[str, ...]:
        """Those under which the density saw real samples: what it has not learnt of them, its samples have."""
        return tuple(config.data.augment) if cast(LikelihoodSettings, config.training).augment_generated else ()

    def updates(self, real: Tensors, draws: Tensors, momentum: tf.Tensor, kind: Hashable) -> list[Update]:
        """One, of the density."""
        collect = functools.partial(in_parts, self._training.accumulation, self._local, real, draws)
        return [Update(NAME, LOSS, collect, NAME, after=functools.partial(self.follow, momentum))]

    def _local(self, real: Tensors, draws: Tensors) -> Local:
        gradients, nll = self.gradients(real)
        return Local(gradients, {LOSS: nll})

    def gradients(self, real: Tensors) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Gradients on this rank, and the mean negative log-likelihood of its samples."""
        density = cast(Density, self.networks[NAME])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(density.weights)
            nll = -density.mean_log_prob(real)
        return tape.gradient(nll, density.weights), nll
