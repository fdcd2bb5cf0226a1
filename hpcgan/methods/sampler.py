"""Samples of a network that makes them of noise, whatever it was trained by."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from hpcgan import stateless
from hpcgan.config import Config
from hpcgan.data.schema import Sample
from hpcgan.methods.base import method_class
from hpcgan.models.layers import Network
from hpcgan.problems.base import Problem


class Sampler:
    """Draws samples from a network that makes them of noise; needs no training state.

    Parameters
    ----------
    problem : Problem
    network : Network
        A generator, or whatever takes (noise, conditions) as one does.
    statistics : "moving" or "batch"
        What batch normalisation uses. Batches are cut at multiples of `batch_size` of the global sample
        index, so that the result does not depend on who draws which batch.
    batch_size : int
    symmetries : sequence of str
        Applied at random to each sample: those under which the discriminator saw generated samples, since
        what was trained is the distribution after them.
    dtype : str
    """

    def __init__(
        self,
        problem: Problem,
        network: Network,
        *,
        statistics: str,
        batch_size: int,
        symmetries: Sequence[str] = (),
        dtype: str = "float32",
    ) -> None:
        self._problem, self._network, self._dtype = problem, network, dtype
        self._symmetries = tuple(symmetries)
        self.batch_size = batch_size
        self._compiled = tf.function(
            lambda noise, conditions: network(noise, conditions, training=statistics == "batch", update=False),
            autograph=False,
            reduce_retracing=True,
        )

    def batch(self, seed: int, stream: str, step: int, index: int, conditions: Sample | None = None) -> Sample:
        """The samples of batch number `index` of a stream, in physical units.

        Parameters
        ----------
        seed, stream, step, index
            What the noise derives from.
        conditions : Sample, optional
            Of each of the `batch_size` samples, in physical units, where the problem has any; they are part of the
            result.
        """
        n, asked = self.batch_size, conditions or {}
        noise = stateless.normal(seed, stream, step, index * n, n, self._problem.noise_dim)
        given = {k: tf.constant(v, self._dtype) for k, v in self._problem.encode_conditions(asked).items()}
        encoded = self._compiled(tf.constant(noise, self._dtype), given)
        sample = {k: v.numpy() for k, v in encoded.items()}
        if self._symmetries:
            columns = len(self._problem.symmetries)
            draws = stateless.uniform(seed, f"{stream}/symmetries", step, index * n, n, columns)
            sample = self._problem.augment(sample, self._symmetries, draws)
        return {**self._problem.decode(sample), **asked}


def make_sampler(config: Config, problem: Problem, network: Network, batch_size: int | None = None) -> Sampler:
    """Sampler of a run's network, with the run's settings; of `training.batch_size` samples at a time by default."""
    return Sampler(
        problem,
        network,
        statistics=config.scoring.statistics,
        batch_size=batch_size or config.training.batch_size,
        symmetries=method_class(config.method).symmetries(config),
        dtype=config.training.dtype,
    )
