"""A masked autoencoder as density of sparse images (MADE: Germain et al. 2015, arXiv:1502.03509).

The cells of an image are put in order, row by row, and the density is the product of one factor a cell, each under the
condition of the cells before: p(x | c) = prod_d p(x_d | x_1 ... x_(d-1), c). All factors come from one pass of a
network with one hidden layer, of whose weights masks leave only those that respect the order (equations 8 and 9 of the
paper): a hidden unit of degree m sees the cells 1 ... m and is seen by the factors of the cells after m. Degrees run
from 0, whose units see the conditions c alone, to D - 1.

A factor is that of a deposit that is zero with a probability of its own, and otherwise log-normal, or a mixture of K
log-normals:

    P(x_d = 0) = 1 - q_d,    p(x_d) = q_d sum_k w_dk N(t_d; mu_dk, sigma_dk) / (s_d x_d)  for x_d > 0,

with t_d = (ln x_d - m_d) / s_d. Mean m_d and standard deviation s_d of the logarithms of a cell's deposits are
constants that the network measures on the training split, as is the share of samples with a deposit, at which q_d
begins. So this is a density over x_d >= 0 with respect to a point of weight one at zero and length above, in the unit
of x_d, and its integral over all images is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.networks.capabilities import Calibrated, Density
from hpcgan.networks.layers import Initializer, Tensors

if TYPE_CHECKING:
    from hpcgan.problems.calorimeter.layer import CaloLayerModel

NUMBERS = 3
"""Standard normal numbers for a cell: whether there is a deposit, which component it has, and its logarithm."""

LEAST_WIDTH = 0.01
"""Of a component, in units of the cell's s_d: a density that piled up on one value would have no bound."""

FARTHEST = 10.0
"""Samples have |t_d| of at most this. What one cell has, the next ones see: an outlier would breed larger ones."""

_LEAST_SPREAD = 0.05  # of ln x_d, where a cell has next to no deposits in the training split
_UNIT_WIDTH = math.log(math.expm1(1.0 - LEAST_WIDTH))  # what softplus and LEAST_WIDTH make 1 of


def degrees(seed: int, cells: int, units: int) -> np.ndarray:
    """Degrees of the hidden units: (units,) whole numbers from 0 to cells - 1, ascending.

    One random number in each of `units` equal parts of [0, cells), rounded down: with at least twice as many units as
    cells every degree occurs. The first one is 0, so that the first cell knows of the conditions.
    """
    u = rng.uniform(seed, "made/degrees", 0, 0, 1, units)[0]
    numbers = np.minimum((cells * (np.arange(units) + u) / units).astype(np.int64), cells - 1)
    numbers[0] = 0
    return numbers


class Made(Density, Calibrated):
    """The density of one image of sparse positive deposits under conditions."""

    def __init__(self, config: CaloLayerModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("made")
        init = Initializer(seed, dtype)
        self.tensor, self.shape, self.conditions = config.tensor, config.shape, config.conditions
        cells, units, components = math.prod(config.shape), config.hidden_units, config.components
        self.cells, self.components = cells, components
        self.degrees = degrees(seed, cells, units)
        numbers = np.arange(cells)
        self._sees = tf.constant(numbers[:, None, None] < self.degrees, dtype)  # (cells, 1, units)
        self._is_seen = tf.constant(self.degrees[:, None, None] <= numbers[:, None], dtype)  # (units, cells, 1)
        outputs = 1 + 3 * components
        fan_in = 2 * cells + len(config.conditions)
        self.hidden = init.kaiming_uniform("hidden/kernel", (cells, 2, units), fan_in)
        self.by_condition = (
            init.kaiming_uniform("hidden/conditions", (len(config.conditions), units), len(config.conditions))
            if config.conditions
            else None
        )
        self.hidden_bias = init.constant("hidden/bias", (units,), 0.0)
        self.output = init.normal("output/kernel", (units, cells, outputs), 0.1 / math.sqrt(units))
        self.output_bias = init.constant("output/bias", (cells, outputs), 0.0)
        apart = np.linspace(-1.0, 1.0, components) if components > 1 else np.zeros(1)  # equal ones would stay equal
        begin = [np.zeros(1 + components), apart, np.full(components, _UNIT_WIDTH)]
        self.output_bias.assign(np.broadcast_to(np.concatenate(begin), (cells, outputs)))
        self.mean_log = init.constant("mean_log", (cells,), 0.0, trainable=False)
        self.spread_log = init.constant("spread_log", (cells,), 1.0, trainable=False)
        self.lit_logit = init.constant("lit_logit", (cells,), 0.0, trainable=False)

    # --- constants ---------------------------------------------------------------------------------

    @property
    def constants(self) -> list[tf.Variable]:
        return [self.mean_log, self.spread_log, self.lit_logit]

    @property
    def tied(self) -> list[tf.Variable]:
        return self.constants

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Mean and standard deviation of the logarithm of each cell's deposits, and the logit of the share with one."""
        n, lit, sums, squares = 0, np.zeros(self.cells), np.zeros(self.cells), np.zeros(self.cells)
        for batch in batches:
            x = np.asarray(batch[self.tensor], np.float64).reshape(-1, self.cells)
            some = x > 0
            logs = np.log(np.where(some, x, 1.0))
            n, lit = n + len(x), lit + some.sum(axis=0)
            sums, squares = sums + logs.sum(axis=0), squares + (logs**2).sum(axis=0)
        mean = sums / np.maximum(lit, 1)
        variance = np.maximum(squares / np.maximum(lit, 1) - mean**2, 0.0)
        self.mean_log.assign(mean)
        self.spread_log.assign(np.where(lit > 1, np.maximum(np.sqrt(variance), _LEAST_SPREAD), 1.0))
        self.lit_logit.assign(np.log((lit + 0.5) / (n - lit + 0.5)))

    # --- the density -------------------------------------------------------------------------------

    def factors(self, x: tf.Tensor, conditions: Tensors) -> tf.Tensor:
        """Parameters of each cell's factor: (n, cells), conditions -> (n, cells, 1 + 3 K).

        The logit of q_d relative to its beginning; logits of the weights, means and widths (before softplus) of the
        components.
        """
        lit = self._lit(x)
        features = tf.reshape(self._features(lit, self._standardised(x, lit)), [-1, 2 * self.cells])
        kernel = tf.reshape(self.hidden * self._sees, [2 * self.cells, -1])
        hidden = tf.nn.relu(tf.matmul(features, kernel) + self._from_conditions(conditions, tf.shape(x)[0]))
        output = tf.reshape(self.output * self._is_seen, [kernel.shape[1], -1])
        return tf.reshape(tf.matmul(hidden, output), [-1, *self.output_bias.shape]) + self.output_bias

    def log_prob(self, sample: Tensors) -> tf.Tensor:
        x = tf.reshape(sample[self.tensor], [-1, self.cells])
        lit, parameters = self._lit(x), self.factors(x, sample)
        t = self._standardised(x, lit)
        lit_logit, weights, means, widths = self._split(parameters, self.lit_logit)
        z = (t[:, :, None] - means) / widths
        each = tf.nn.log_softmax(weights) - 0.5 * z * z - tf.math.log(widths) - 0.5 * math.log(2.0 * math.pi)
        of_deposit = tf.reduce_logsumexp(each, axis=2) - tf.math.log(self.spread_log * tf.where(lit, x, 1.0))
        log_factors = tf.where(lit, of_deposit - tf.nn.softplus(-lit_logit), -tf.nn.softplus(lit_logit))
        return tf.reduce_sum(log_factors, axis=1)

    # --- sampling ----------------------------------------------------------------------------------

    def __call__(
        self, noise: tf.Tensor, conditions: Tensors, training: bool = False, update: bool = False
    ) -> dict[str, tf.Tensor]:
        """Samples cell by cell in their order, (n, NUMBERS * cells) -> (n, rows, columns).

        The hidden layer is kept before its activation and only gets what each new cell adds to it, so that all cells
        together cost about one pass of the network.
        """
        n = tf.shape(noise)[0]
        normal = tf.transpose(tf.reshape(noise, [n, self.cells, NUMBERS]), [1, 2, 0])
        hidden_kernel = self.hidden * self._sees
        output_kernel = tf.transpose(self.output * self._is_seen, [1, 0, 2])
        biases, lit_logits = tf.convert_to_tensor(self.output_bias), tf.convert_to_tensor(self.lit_logit)
        mean_log, spread_log = tf.convert_to_tensor(self.mean_log), tf.convert_to_tensor(self.spread_log)

        def draw(d: tf.Tensor, hidden: tf.Tensor, cells: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            parameters = tf.matmul(tf.nn.relu(hidden), output_kernel[d]) + biases[d]
            lit_logit, weights, means, widths = self._split(parameters, lit_logits[d])
            lit = _uniform(normal[d, 0]) < tf.sigmoid(lit_logit)
            upto = tf.cumsum(tf.nn.softmax(weights), axis=1)[:, :-1]
            which = tf.reduce_sum(tf.cast(_uniform(normal[d, 1])[:, None] >= upto, tf.int32), axis=1)
            t = tf.gather(means, which, batch_dims=1) + tf.gather(widths, which, batch_dims=1) * normal[d, 2]
            t = tf.where(lit, tf.clip_by_value(t, -FARTHEST, FARTHEST), 0.0)
            x = tf.where(lit, tf.exp(mean_log[d] + spread_log[d] * t), 0.0)
            hidden += tf.matmul(self._features(lit, t), hidden_kernel[d])
            return d + 1, hidden, cells.write(d, x)

        begin = self._from_conditions(conditions, n)
        values = tf.TensorArray(noise.dtype, self.cells, element_shape=[None])
        _, _, values = tf.while_loop(
            lambda d, *_: d < self.cells, draw, (tf.constant(0), begin, values), parallel_iterations=1
        )
        return {self.tensor: tf.reshape(tf.transpose(values.stack()), [n, *self.shape])}

    # --- parts -------------------------------------------------------------------------------------

    @staticmethod
    def _lit(x: tf.Tensor) -> tf.Tensor:
        """Whether there is a deposit. One that is none (negative, not a number) counts, so that the loss shows it."""
        return tf.not_equal(x, 0.0)

    def _standardised(self, x: tf.Tensor, lit: tf.Tensor) -> tf.Tensor:
        """t_d, 0 where there is no deposit."""
        return tf.where(lit, (tf.math.log(tf.where(lit, x, 1.0)) - self.mean_log) / self.spread_log, 0.0)

    @staticmethod
    def _features(lit: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """What the hidden layer sees of each cell: whether there is a deposit, and its logarithm; (..., 2)."""
        return tf.stack([tf.cast(lit, t.dtype), t], axis=-1)

    def _from_conditions(self, conditions: Tensors, n: tf.Tensor) -> tf.Tensor:
        """What the hidden layer has before it sees any cell: (n, units)."""
        if self.by_condition is None:
            return tf.tile(self.hidden_bias[None], [n, 1])
        inputs = tf.concat([tf.reshape(conditions[name], [n, 1]) for name in self.conditions], axis=1)
        return tf.matmul(inputs, self.by_condition) + self.hidden_bias

    def _split(self, parameters: tf.Tensor, lit_logit: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Logit of q_d, logits of the weights, means, and widths."""
        more, weights, means, widths = tf.split(parameters, [1, *[self.components] * 3], axis=-1)
        return more[..., 0] + lit_logit, weights, means, tf.nn.softplus(widths) + LEAST_WIDTH


def _uniform(normal: tf.Tensor) -> tf.Tensor:
    """Uniform numbers of standard normal ones."""
    return 0.5 * (1.0 + tf.math.erf(normal / math.sqrt(2.0)))
