"""A sum over a sample, as the transverse momentum of an event is one, drawn from that of the training events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from hpcgan.networks.layers import Initializer, uniform_of
from hpcgan.networks.quantiles import fit, terms


class DrawnTotal(tf.Module):
    """A table of quantiles of ln(summed pT / unit), and where they are expanded in the conditions, if there are any.

    Parameters
    ----------
    init : Initializer
    name : str
        Of the network that it is a part of.
    conditions : int
        Numbers on which quantiles depend.
    knots : int
        Quantiles.
    tail : float
        Probability of the highest sums, which fall off exponentially from where they begin, without an end; 0: no sum
        is above the largest of the training events.
    """

    def __init__(self, init: Initializer, name: str, conditions: int, knots: int, tail: float = 0.0) -> None:
        super().__init__(f"{name}_total_pt")
        self._tail = tail
        self.levels = np.linspace(0.0, 1.0, knots)
        if tail:  # the last quantile is a mean excess above where the tail begins, if that is exponential
            self.levels = np.append(np.linspace(0.0, 1.0 - tail, knots - 1), 1.0 - tail / np.e)
        shape = (terms(np.zeros((1, conditions))).shape[1], knots) if conditions else (knots,)
        self.log_total_pt = init.constant(f"{name}/log_total_pt", shape, 0.0, trainable=False)
        self.centre = init.constant(f"{name}/centre", (conditions,), 0.0, trainable=False) if conditions else None

    @property
    def constants(self) -> list[tf.Variable]:
        """What is measured on the training events."""
        return [self.log_total_pt] if self.centre is None else [self.log_total_pt, self.centre]

    def measure(self, totals: Sequence[np.ndarray], conditions: Sequence[np.ndarray]) -> None:
        """Set the quantiles to those of summed pT in batches (n,), under conditions (n, c).

        An event without energy counts as a millionth of the unit.
        """
        sums = np.concatenate(totals).astype(np.float64)
        if self.centre is None:
            self.log_total_pt.assign(np.log(np.maximum(np.quantile(sums, self.levels), 1e-6)))
            return
        table, centre = fit(np.log(np.maximum(sums, 1e-6)), np.concatenate(conditions).astype(np.float64), self.levels)
        self.log_total_pt.assign(table)
        self.centre.assign(centre)

    def __call__(self, normal: tf.Tensor, inputs: tf.Tensor | None) -> tf.Tensor:
        """The ln(summed pT / unit) that standard normal numbers stand for, (n,), under conditions (n, c)."""

        def at(quantiles: tf.Tensor) -> tf.Tensor:
            """Of each event, (n,), of what the table has for it: a sum over the terms in the conditions, if any."""
            if inputs is None:
                return quantiles
            return tf.reduce_sum(quantiles * tf.transpose(_terms(inputs - self.centre)), axis=0)  # (terms, n)

        if not self._tail:
            return at(quantile_at(self.log_total_pt, uniform_of(normal)))
        above = uniform_of(-normal)  # not 1 - uniform_of(normal), of which single precision leaves nothing
        is_beyond = above < self._tail
        place = tf.minimum(uniform_of(normal) / (1.0 - self._tail), 1.0)
        begin, mean = (at(self.log_total_pt[..., column, None]) for column in (-2, -1))
        excess = tf.math.log(self._tail / tf.where(is_beyond, above, self._tail)) * (tf.exp(mean) - tf.exp(begin))
        return tf.where(
            is_beyond, tf.math.log(tf.exp(begin) + excess), at(quantile_at(self.log_total_pt[..., :-1], place))
        )


def _terms(x: tf.Tensor) -> tf.Tensor:
    """`hpcgan.networks.quantiles.terms` of (n, c)."""
    columns = tf.unstack(x, axis=1)
    products = [a * b for i, a in enumerate(columns) for b in columns[i:]]
    return tf.stack([tf.ones_like(columns[0]), *columns, *products], axis=1)


def quantile_at(table: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """The quantile that a uniform number stands for, from a table of equidistant ones: of each row, if many."""
    last = table.shape[-1] - 1
    place = uniform * last
    below = tf.minimum(tf.cast(place, tf.int32), last - 1)
    fraction = place - tf.cast(below, place.dtype)
    return (1.0 - fraction) * tf.gather(table, below, axis=-1) + fraction * tf.gather(table, below + 1, axis=-1)
