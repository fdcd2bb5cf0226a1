"""A method of one's own: the mean image of generated samples is brought to that of the real ones."""

from __future__ import annotations

import functools
from collections.abc import Hashable

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.methods.base import ATTENTION, NONFINITE, LossCurve
from hpcgan.methods.step import Local, Update, UpdateMethod, in_parts
from hpcgan.networks.layers import Tensors

LOSS = "difference"


class Moments(UpdateMethod):
    """A generator that learns the mean image."""

    sampled = "generator"
    losses = (LossCurve(LOSS, LOSS, "mean"),)
    metrics = (LOSS, NONFINITE, ATTENTION)

    def draws(self, step: int, first: int, n: int) -> dict[str, np.ndarray]:
        noise = rng.normal(self._seed, "noise", step, first, n, self._problem.noise_dim)
        return {"noise": noise.astype(self._training.dtype)}

    def updates(self, real: Tensors, draws: Tensors, kept: tf.Tensor, kind: Hashable) -> list[Update]:
        collect = functools.partial(in_parts, self._training.accumulation, self._local, real, draws)
        return [Update("generator", LOSS, collect, "generator", after=functools.partial(self.follow, kept))]

    def _local(self, real: Tensors, draws: Tensors) -> Local:
        generator = self.networks["generator"]
        with tf.GradientTape() as tape:
            fake = generator(draws["noise"], {}, training=True)
            means = [tf.reduce_mean(real[name], 0) - tf.reduce_mean(fake[name], 0) for name in fake]
            difference = tf.add_n([tf.reduce_sum(tf.square(mean)) for mean in means])
        return Local(tape.gradient(difference, generator.weights), {LOSS: difference})
