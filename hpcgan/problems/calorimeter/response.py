"""The response of a calorimeter, measured on training showers: what share of a particle's energy its cells hold.

A GAN learns the sum over hundreds of cells to some ten per cent, where Geant4 has a spread of parts of a per cent for
photons. The response depends on one number, the energy, so that a table has it from the training showers themselves.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from hpcgan.networks.layers import Initializer

BINS = 16  # of the energy
KNOTS = 129  # quantiles from 0 to 1 in each
LEAST = 1e-6  # response of a shower without energy in the cells, whose logarithm there is not


class Response(tf.Module):
    """Quantiles of ln(energy in all cells / energy of the particle) as functions of the particle's energy.

    Between the medians of the bins quantiles are interpolated linearly in ln(energy), beyond the outer ones they stay
    what they are. Classes have tables of their own; without any, there is 1.
    """

    def __init__(self, init: Initializer, name: str, classes: int = 1) -> None:
        super().__init__(name.replace("/", "_"))
        self.table = init.constant(f"{name}/log_response", (classes, BINS, KNOTS), 0.0, trainable=False)
        self.log_energy = init.constant(f"{name}/log_energy", (classes, BINS), 0.0, trainable=False)

    @property
    def constants(self) -> list[tf.Variable]:
        """What `fit` sets."""
        return [self.table, self.log_energy]

    def fit(self, totals: np.ndarray, energies: np.ndarray, classes: np.ndarray) -> None:
        """Measure the tables on showers: summed and particle's energies (n,), and number of the class (n,)."""
        response = np.log(np.maximum(totals / energies, LEAST))
        table, centres = np.zeros(self.table.shape), np.zeros(self.log_energy.shape)
        for i in range(len(table)):
            of_class = np.flatnonzero(classes == i)
            order = of_class[np.argsort(energies[of_class], kind="stable")]
            for j in range(BINS if len(order) else 0):
                # Of few showers, bins share some.
                part = order[j * len(order) // BINS : -(-(j + 1) * len(order) // BINS)]
                table[i, j] = np.quantile(response[part], np.linspace(0.0, 1.0, KNOTS))
                centres[i, j] = np.median(np.log(energies[part]))
        self.table.assign(table)
        self.log_energy.assign(centres)

    def __call__(self, normal: tf.Tensor, energy: tf.Tensor, classes: tf.Tensor | None = None) -> tf.Tensor:
        """The response, (n,), that standard normal numbers (n,) stand for at energies (n,), of classes (n,) if any."""
        which = tf.zeros_like(energy, tf.int32) if classes is None else classes
        quantile = 0.5 * tf.math.erfc(-normal / math.sqrt(2.0)) * (KNOTS - 1)
        centres = tf.gather(self.log_energy, which)  # (n, bins)
        log_energy = tf.math.log(energy)
        bins = tf.clip_by_value(
            tf.reduce_sum(tf.cast(centres <= log_energy[:, None], tf.int32), axis=1) - 1, 0, BINS - 2
        )
        low, high = (tf.gather(centres, bins + i, batch_dims=1) for i in (0, 1))
        across = tf.clip_by_value((log_energy - low) / tf.maximum(high - low, 1e-6), 0.0, 1.0)
        knot = tf.minimum(tf.cast(quantile, tf.int32), KNOTS - 2)
        along = quantile - tf.cast(knot, quantile.dtype)
        table = tf.convert_to_tensor(self.table)  # for ONNX: of a variable that is gathered no constant can be made
        corners = [tf.gather_nd(table, tf.stack([which, bins + i, knot + k], axis=1)) for i in (0, 1) for k in (0, 1)]
        below, above = (a + along * (b - a) for a, b in (corners[:2], corners[2:]))
        return tf.exp(below + across * (above - below))
