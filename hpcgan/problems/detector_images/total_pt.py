"""The summed transverse momentum of an event, drawn from that of the training events."""

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
    """

    def __init__(self, init: Initializer, name: str, conditions: int, knots: int) -> None:
        super().__init__(f"{name}_total_pt")
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
        knots = np.linspace(0.0, 1.0, self.log_total_pt.shape[-1])
        if self.centre is None:
            self.log_total_pt.assign(np.log(np.maximum(np.quantile(sums, knots), 1e-6)))
            return
        table, centre = fit(np.log(np.maximum(sums, 1e-6)), np.concatenate(conditions).astype(np.float64), knots)
        self.log_total_pt.assign(table)
        self.centre.assign(centre)

    def __call__(self, normal: tf.Tensor, inputs: tf.Tensor | None) -> tf.Tensor:
        """The ln(summed pT / unit) that standard normal numbers stand for, (n,), under conditions (n, c)."""
        log_total = _quantile(self.log_total_pt, normal)
        if inputs is None:
            return log_total
        # (terms, n): a quantile is a sum over the terms in the conditions
        return tf.reduce_sum(log_total * tf.transpose(_terms(inputs - self.centre)), axis=0)


def _terms(x: tf.Tensor) -> tf.Tensor:
    """`hpcgan.networks.quantiles.terms` of (n, c)."""
    columns = tf.unstack(x, axis=1)
    products = [a * b for i, a in enumerate(columns) for b in columns[i:]]
    return tf.stack([tf.ones_like(columns[0]), *columns, *products], axis=1)


def _quantile(table: tf.Tensor, normal: tf.Tensor) -> tf.Tensor:
    """The quantile that a standard normal number stands for, from a table of equidistant ones: of each row, if many."""
    last = table.shape[-1] - 1
    place = uniform_of(normal) * last
    below = tf.minimum(tf.cast(place, tf.int32), last - 1)
    fraction = place - tf.cast(below, place.dtype)
    return (1.0 - fraction) * tf.gather(table, below, axis=-1) + fraction * tf.gather(table, below + 1, axis=-1)
