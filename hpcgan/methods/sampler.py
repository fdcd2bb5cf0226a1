"""Samples of a network that makes them of noise, whatever it was trained by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.comm.base import Comm, SerialComm
from hpcgan.config import Config
from hpcgan.data.schema import Sample
from hpcgan.methods.base import method_class
from hpcgan.networks.capabilities import matching_of, unmatched
from hpcgan.networks.layers import Network
from hpcgan.problems.base import Problem

AT_ONCE = 128
"""Samples at a time by which a network is measured, at least, unless those of a batch depend on one another."""


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
    seed : int
        Of the samples by which a network is measured whose samples are matched to the training events
        (`hpcgan.networks.capabilities.Matched`): a function of the weights and of nothing else.
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
        seed: int = 1,
    ) -> None:
        self._problem, self._dtype, self._seed = problem, dtype, seed
        self._symmetries = tuple(symmetries)
        self.batch_size = batch_size
        self._measured_in = batch_size if statistics == "batch" else max(batch_size, AT_ONCE)
        self._compiled, self._compiled_to_measure = (
            tf.function(
                lambda noise, conditions: unmatched(network, noise, conditions, statistics == "batch"),
                autograph=False,
                reduce_retracing=True,
            )
            for _ in range(2)
        )
        self._matching = matching_of(network)
        self._matched = None if self._matching is None else tf.function(self._matching, autograph=False)
        self._table: tf.Variable | None = None

    def measure(self, comm: Comm | None = None) -> None:
        """Measure what the network makes, where that is needed; to be called when its weights have changed.

        Parameters
        ----------
        comm : Comm, optional
            Ranks that share the work; the outcome does not depend on how many they are.
        """
        matching = self._matching
        if matching is None:
            return
        comm = comm or SerialComm()
        n = self._measured_in
        batches, network = range(-(-matching.samples // n)), self._compiled
        if n != self.batch_size:  # else TensorFlow would build one for any number of samples, which is slower
            network = self._compiled_to_measure
        tables = []
        for point in range(matching.points):
            own_counts = np.zeros(1, np.int64)  # of a rank without a batch
            for index in batches:
                # Batches of all points are dealt out in turn.
                if (point * len(batches) + index) % comm.size != comm.rank:
                    continue
                conditions = matching.conditions(point, index * n, n)
                inputs = {name: tf.constant(values, self._dtype) for name, values in conditions.items()}
                outputs = network(self._noise(self._seed, "spectrum", point, index, n), inputs)
                rest = matching.samples - index * n  # the same samples whatever the size of a batch
                sample = {name: tensor.numpy()[:rest] for name, tensor in {**outputs, **inputs}.items()}
                own_counts = own_counts + matching.counts(sample, point)
            shares = comm.gather_array(own_counts)
            if shares is not None:
                tables.append(matching.table(sum(shares, start=np.zeros(1, np.int64))))
        shape = comm.broadcast_json(np.shape(tables))
        if self._table is None:
            self._table = tf.Variable(tf.zeros(shape, self._dtype), trainable=False)
        if tables:
            self._table.assign(tables)
        comm.broadcast_variables([self._table])

    @property
    def table(self) -> tf.Variable | None:
        """What a `Matching` has to know of the network, measured if it was not; None where there is none."""
        if self._matched is not None and self._table is None:
            self.measure()
        return self._table

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
        n = self.batch_size
        return self.at(np.full(n, seed), index * n + np.arange(n), stream, step, conditions)

    def at(
        self, seeds: np.ndarray, indices: np.ndarray, stream: str, step: int, conditions: Sample | None = None
    ) -> Sample:
        """Samples of any seeds and numbers side by side, in physical units.

        Parameters
        ----------
        seeds, indices : (batch_size,) int64
            Of each sample: its seed, and its number in the sequence of that seed.
        stream, step
            What the noise derives from besides.
        conditions : Sample, optional
            As of `batch`.
        """
        values_by_name = conditions or {}
        stretches = rng.runs(seeds, indices)

        def of_stretches(draw: Callable[..., np.ndarray], name: str, columns: int) -> np.ndarray:
            return np.concatenate([draw(seed, name, step, first, n, columns) for seed, first, n in stretches])

        inputs = {k: tf.constant(v, self._dtype) for k, v in self._problem.encode_conditions(values_by_name).items()}
        noise = tf.constant(of_stretches(rng.normal, stream, self._problem.noise_dim), self._dtype)
        encoded = self._compiled(noise, inputs)
        if self._matched is not None:
            encoded = self._matched(encoded, inputs, self.table)
        sample = {k: v.numpy() for k, v in encoded.items()}
        if self._symmetries:
            draws = of_stretches(rng.uniform, f"{stream}/symmetries", len(self._problem.symmetries))
            sample = self._problem.augment(sample, self._symmetries, draws)
        return {**self._problem.decode(sample), **values_by_name}

    def _noise(self, seed: int, stream: str, step: int, index: int, n: int) -> tf.Tensor:
        return tf.constant(rng.normal(seed, stream, step, index * n, n, self._problem.noise_dim), self._dtype)


def make_sampler(config: Config, problem: Problem, network: Network, batch_size: int | None = None) -> Sampler:
    """Sampler of a run's network, with the run's settings; of `training.batch_size` samples at a time by default."""
    return Sampler(
        problem,
        network,
        statistics=config.scoring.statistics,
        batch_size=batch_size or config.training.batch_size,
        symmetries=method_class(config.method).symmetries(config),
        dtype=config.training.dtype,
        seed=config.seed,
    )
