"""A discrete autoregressive model of the cells of many geometries (Liu et al. 2022: D+D ARM).

The cells of a shower are in the order of a spiral from the centre (:mod:`hpcgan.problems.arm.geometry`), each with a
whole number k_i, the rounded square root of its energy. The probability of a shower is the product of one factor a
cell,

    P(k | geometry) = prod_i P(k_i | k_1 ... k_(i-1), sizes of the cells 1 ... i),

all of which come from one pass of the network: masked dense layers (MADE: Germain et al. 2015, arXiv:1502.03509) with
some units for each cell, GELU, then a convolution along the order that sees a cell and those before it, and a softmax
over the numbers. In its first layer the units of a cell see the numbers of all cells before it, and the sizes of these
and of the cell itself: a cell's own size is known before its energy. In further layers, and in the convolution, they
see the units of the same cells. So a factor depends on the cells before alone.

The number of the first cell has the histogram of the training showers in its geometry; a geometry without any takes
that of the geometry whose first cell is nearest in area. Shorter orders end earlier: the cells that a geometry does not
have are 0, with probability one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from hpcgan.networks.capabilities import Calibrated, Density
from hpcgan.networks.layers import Initializer, Tensors
from hpcgan.problems.arm.files import CELLS, GEOMETRY, INCIDENT, widest
from hpcgan.problems.arm.geometry import parts
from hpcgan.problems.calorimeter.networks import log_energy

if TYPE_CHECKING:
    from hpcgan.problems.arm.geometry import Geometry
    from hpcgan.problems.arm.problem import ArmModel

UNIT_MM = 40.0
"""Of cell sizes as the network sees them: a cell of the 12 x 12 geometry."""

BLOCK = 64
"""Cells of a block: in sampling, each cell changes those of its block, and a block all that come later at once."""


class Path:
    """The orders of the cells of several geometries, as tables with a row for each.

    Attributes
    ----------
    order : (geometries, C) int32
        Place in the image, row after row, of each cell of the order; beyond the cells of a geometry the places go on.
    place : (geometries, C) int32
        The inverse: where in the order a place of the image is.
    exists : (geometries, C) bool
        Whether the geometry has so many cells.
    sizes : (geometries, C, 2)
        Of each cell of the order along eta and phi, in units of `UNIT_MM`; 0 where there is none.
    """

    def __init__(self, geometries: Sequence[Geometry], dtype: str) -> None:
        cells = widest(geometries)
        order = np.tile(np.arange(cells, dtype=np.int32), (len(geometries), 1))
        sizes = np.zeros((len(geometries), cells, 2))
        for row, geometry in enumerate(geometries):
            order[row, : geometry.n_cells] = geometry.spiral
            sizes[row, : geometry.n_cells] = geometry.sizes[geometry.spiral] / UNIT_MM
        counts = np.array([geometry.n_cells for geometry in geometries])
        self.counts = tf.constant(counts, tf.int32)
        self.order = tf.constant(order)
        self.place = tf.constant(np.argsort(order, axis=1).astype(np.int32))
        self.exists = tf.constant(np.arange(cells) < counts[:, None])
        self.sizes = tf.constant(sizes, dtype)
        self.areas = np.prod(sizes[:, 0], axis=1)


class Arm(Density, Calibrated):
    """The probability of the cells of a shower in its geometry."""

    def __init__(self, config: ArmModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("arm")
        init = Initializer(seed, dtype)
        geometries = [parts(geometry, config.layer)[0].geometry for geometry in config.cells]
        self.path = Path(geometries, dtype)
        self.cells, self.categories, self.features = widest(config.cells), config.categories, config.features
        numbers = np.arange(self.cells)
        self._sees = tf.constant((numbers[:, None] <= numbers)[:, None, :, None], dtype)  # (cells, 1, cells, 1)
        self._seen = numbers + 1.0  # cells that those of each cell see
        self.is_first_learned = config.first_cell == "learned"
        self.by_energy: tf.Variable | None = None
        if config.sees_energy:
            self.by_energy = init.he_uniform("dense_1/energy", (self.cells * config.features,), 1.0, 0.1)
        self.by_size = self._kernel(init, "dense_1/sizes", 2, 3) if config.sees_sizes else None
        widths = [1, *[config.features] * (config.depth - 1)]
        self.dense = [
            self._kernel(init, f"dense_{layer + 1}/kernel", width, 3 if layer == 0 and config.sees_sizes else width)
            for layer, width in enumerate(widths)
        ]
        self.biases = [
            init.constant(f"dense_{layer + 1}/bias", (self.cells, config.features), 0.0) for layer in range(len(widths))
        ]
        fan_in = config.kernel * config.features
        self.convolution = init.normal(
            "convolution/kernel", (config.kernel, config.features, config.categories), 0.1 / math.sqrt(fan_in)
        )
        self.convolution_bias = init.constant("convolution/bias", (config.categories,), 0.0)
        uniform = -math.log(config.categories)
        shape = (len(config.cells), config.categories)
        self.scale = init.constant("scale", (), 1.0, trainable=False)
        self.log_share = init.constant("log_share", shape[1:], uniform, trainable=False)
        self.log_first = init.constant("log_first", shape, uniform, trainable=False)

    def _kernel(self, init: Initializer, name: str, inputs: int, fan_in: int) -> tf.Variable:
        """Weights (cells, inputs, cells, features), He's for the inputs that the mask leaves."""
        kernel = init.he_uniform(name, (self.cells, inputs, self.cells, self.features), 1.0, 2.0)
        kernel.assign(kernel / np.sqrt(fan_in * self._seen)[:, None])
        return kernel

    # --- constants ---------------------------------------------------------------------------------

    @property
    def constants(self) -> list[tf.Variable]:
        """Root mean square of the numbers; logarithms of the shares of each, and of the first cell's, by geometry."""
        return [*self.tied, self.log_first]

    @property
    def tied(self) -> list[tf.Variable]:
        """All but the histograms of the first cell."""
        return [self.scale, self.log_share]

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        shares = np.zeros(self.categories)
        first = np.zeros(self.log_first.shape)
        exists, order = self.path.exists.numpy(), self.path.order.numpy()
        for batch in batches:
            cells = np.asarray(batch[CELLS]).astype(np.int64)
            geometry = np.asarray(batch[GEOMETRY]).astype(np.int64).reshape(-1)
            # Places of an image are the first ones of a row, as cells of the order are.
            shares += np.bincount(cells[exists[geometry]], minlength=self.categories)
            np.add.at(first, (geometry, cells[np.arange(len(cells)), order[geometry, 0]]), 1.0)
        square = float(shares @ np.arange(self.categories) ** 2.0) / max(shares.sum(), 1.0)
        self.scale.assign(math.sqrt(square) or 1.0)
        self.log_share.assign(_log_shares(shares))
        trained = np.flatnonzero(first.sum(axis=1))
        if trained.size:
            distance = np.abs(np.log(self.path.areas[:, None] / self.path.areas[trained]))
            self.log_first.assign(_log_shares(first[trained[distance.argmin(axis=1)]]))

    # --- the probability ---------------------------------------------------------------------------

    def logits(self, numbers: tf.Tensor, conditions: Tensors) -> tf.Tensor:
        """Of each cell in the order, (n, cells) numbers and their conditions -> (n, cells, categories).

        Those of the first cell mean nothing, unless it is learned.
        """
        before = tf.pad(numbers[:, :-1], [[0, 0], [1, 0]]) / self.scale
        x = tf.matmul(before, self._masked(self.dense[0])) + self._from_conditions(conditions)
        for kernel, bias in zip(self.dense[1:], self.biases[1:]):
            x = tf.matmul(_gelu(x), self._masked(kernel)) + tf.reshape(bias, [-1])
        x = tf.reshape(_gelu(x), [-1, self.cells, self.features])
        x = tf.pad(x, [[0, 0], [self.convolution.shape[0] - 1, 0], [0, 0]])
        return tf.nn.conv1d(x, self.convolution, 1, "VALID") + self.convolution_bias + self.log_share

    def log_prob(self, sample: Tensors) -> tf.Tensor:
        geometry = self._geometry(sample)
        numbers = tf.gather(sample[CELLS], tf.gather(self.path.order, geometry), batch_dims=1)
        labels = tf.cast(numbers, tf.int32)
        each = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self.logits(numbers, sample))
        each = tf.where(tf.gather(self.path.exists, geometry), each, tf.zeros_like(each))
        if self.is_first_learned:
            return tf.reduce_sum(each, axis=1)
        log_first = tf.gather(tf.gather(self.log_first, geometry), labels[:, 0], batch_dims=1)
        return log_first + tf.reduce_sum(each[:, 1:], axis=1)

    # --- sampling ----------------------------------------------------------------------------------

    def __call__(
        self, noise: tf.Tensor, conditions: Tensors, training: bool = False, update: bool = False
    ) -> dict[str, tf.Tensor]:
        """Samples cell by cell, (n, cells) normal numbers -> (n, cells): see :meth:`sample_by_passes`.

        What comes before the activations of all layers is kept. A cell's number adds what it changes in the later cells
        of its block, layer after layer, and the cells of a block together what they change in later blocks. All
        together that is about as many multiplications as one pass takes. It ends with the longest order asked for.
        """
        n, geometry = tf.shape(noise)[0], self._geometry(conditions)
        uniforms = _uniform(tf.transpose(noise))
        exists = tf.transpose(tf.gather(self.path.exists, geometry))
        blocks = -(-self.cells // BLOCK)
        extra = blocks * BLOCK - self.cells
        uniforms, exists = (tf.pad(x, [[0, extra], [0, 0]]) for x in (uniforms, exists))
        kernels = [self._in_blocks(kernel, extra) for kernel in self.dense]
        log_first = tf.gather(self.log_first, geometry)
        window, features = self.convolution.shape[0], self.features
        begin = [tf.reshape(self._from_conditions(conditions), [n, self.cells, features])]
        begin = [tf.transpose(begin[0], [1, 0, 2]), *(tf.tile(bias[:, None], [1, n, 1]) for bias in self.biases[1:])]
        sums = [tf.reshape(tf.pad(x, [[0, extra], [0, 0], [0, 0]]), [blocks, BLOCK, n, features]) for x in begin]
        last = tf.reshape(self.convolution, [window * features, -1])

        # Rows of tensors are replaced, rather than written to arrays: what ONNX has loops for, too.
        def of_block(
            b: tf.Tensor, sums: list[tf.Tensor], latest: tf.Tensor, number: tf.Tensor, values: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor]:
            within = [kernel[b, :, :, b] for kernel in kernels]  # (BLOCK, inputs, BLOCK, features)
            within = [tf.transpose(kernel, [0, 2, 1, 3]) for kernel in within]
            inputs = [tf.zeros([BLOCK, n, kernel.shape[2]], noise.dtype) for kernel in kernels]

            def of_cell(
                t: tf.Tensor,
                own: list[tf.Tensor],
                inputs: list[tf.Tensor],
                latest: tf.Tensor,
                number: tf.Tensor,
                of_cells: tf.Tensor,
            ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor]:
                x = number[:, None] / self.scale
                cell, own, inputs = b * BLOCK + t, list(own), list(inputs)
                for layer, kernel in enumerate(within):
                    inputs[layer] = _with_row(inputs[layer], t, x)
                    own[layer] += tf.matmul(x[None], kernel[t])
                    x = _gelu(own[layer][t])
                latest = tf.concat([latest[:, features:], x], axis=1)
                logits = tf.matmul(latest, last) + self.convolution_bias + self.log_share
                if not self.is_first_learned:
                    logits = tf.where(cell == 0, log_first, logits)
                number = _draw(logits, uniforms[cell])
                number = tf.where(exists[cell], number, tf.zeros_like(number))
                return t + 1, own, inputs, latest, number, _with_row(of_cells, t, number)

            _, _, inputs, latest, number, of_cells = tf.while_loop(
                lambda t, *_: t < BLOCK,
                of_cell,
                (tf.constant(0), [s[b] for s in sums], inputs, latest, number, tf.zeros([BLOCK, n], noise.dtype)),
                parallel_iterations=1,
            )
            changes = [tf.einsum("bni,bikjf->kjnf", x, kernel[b]) for x, kernel in zip(inputs, kernels)]
            return (
                b + 1,
                [s + tf.ensure_shape(change, s.shape) for s, change in zip(sums, changes)],
                latest,
                number,
                _with_row(values, b, of_cells),
            )

        *_, values = tf.while_loop(
            lambda b, *_: b * BLOCK < tf.reduce_max(tf.gather(self.path.counts, geometry)),
            of_block,
            (
                tf.constant(0),
                sums,
                tf.zeros([n, window * features], noise.dtype),
                tf.zeros([n], noise.dtype),
                tf.zeros([blocks, BLOCK, n], noise.dtype),  # orders that end early leave the rest
            ),
            parallel_iterations=1,
        )
        numbers = tf.transpose(tf.reshape(values, [blocks * BLOCK, n]))[:, : self.cells]
        return self._as_images(tf.ensure_shape(numbers, [None, self.cells]), geometry)

    def sample_by_passes(self, noise: tf.Tensor, conditions: Tensors) -> dict[str, tf.Tensor]:
        """The same samples of the same noise by one pass of the whole network for each cell: simple, and slow.

        A cell has the number whose interval of the cumulative distribution holds the uniform number that the cell's
        normal one stands for.
        """
        geometry, uniforms = self._geometry(conditions), _uniform(noise)
        exists, numbers = tf.gather(self.path.exists, geometry), tf.zeros_like(noise)
        for cell in range(self.cells):
            logits = self.logits(numbers, conditions)[:, cell]
            if cell == 0 and not self.is_first_learned:
                logits = tf.gather(self.log_first, geometry)
            number = tf.where(exists[:, cell], _draw(logits, uniforms[:, cell]), 0.0)
            numbers = tf.concat([numbers[:, :cell], number[:, None], numbers[:, cell + 1 :]], axis=1)
        return self._as_images(numbers, geometry)

    # --- parts -------------------------------------------------------------------------------------

    @staticmethod
    def _geometry(conditions: Tensors) -> tf.Tensor:
        return tf.cast(tf.reshape(conditions[GEOMETRY], [-1]), tf.int32)

    def _as_images(self, numbers: tf.Tensor, geometry: tf.Tensor) -> dict[str, tf.Tensor]:
        """From the order to places of images."""
        return {CELLS: tf.gather(numbers, tf.gather(self.path.place, geometry), batch_dims=1)}

    def _masked(self, kernel: tf.Variable) -> tf.Tensor:
        """As a matrix (cells * inputs, cells * features)."""
        return tf.reshape(kernel * self._sees, [kernel.shape[0] * kernel.shape[1], -1])

    def _from_conditions(self, conditions: Tensors) -> tf.Tensor:
        """What the first layer has of them, (n, cells * features)."""
        x = tf.gather(self._from_sizes(), self._geometry(conditions))
        if self.by_energy is None:
            return x
        return x + log_energy(tf.reshape(conditions[INCIDENT], [-1, 1])) * self.by_energy

    def _from_sizes(self) -> tf.Tensor:
        """What the first layer has of the sizes, and its bias: (geometries, cells * features)."""
        bias, sizes = tf.reshape(self.biases[0], [-1]), tf.reshape(self.path.sizes, [-1, 2 * self.cells])
        if self.by_size is None:
            return tf.tile(bias[None], [len(sizes), 1])
        return tf.matmul(sizes, self._masked(self.by_size)) + bias

    def _in_blocks(self, kernel: tf.Variable, extra: int) -> tf.Tensor:
        """(blocks, BLOCK, inputs, blocks, BLOCK, features), masked; as (b, :, :, b') for the cells of two blocks."""
        padded = tf.pad(kernel * self._sees, [[0, extra], [0, 0], [0, extra], [0, 0]])
        blocks = padded.shape[0] // BLOCK
        return tf.reshape(padded, [blocks, BLOCK, kernel.shape[1], blocks, BLOCK, self.features])


def _log_shares(counts: np.ndarray) -> np.ndarray:
    """Logarithms of shares along the last axis, of counts to which one is added that all categories share."""
    categories = counts.shape[-1]
    return np.log((counts + 1.0 / categories) / (counts.sum(axis=-1, keepdims=True) + 1.0))


def _draw(logits: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Numbers (n,) of the categories (n, categories) whose interval of the cumulative distribution holds `uniforms`."""
    upto = tf.cumsum(tf.nn.softmax(logits), axis=1)[:, :-1]
    return tf.reduce_sum(tf.cast(uniforms[:, None] >= upto, uniforms.dtype), axis=1)


def _gelu(x: tf.Tensor) -> tf.Tensor:
    """GELU (Hendrycks and Gimpel, arXiv:1606.08415); `tf.nn.gelu` is written otherwise on some TensorFlows."""
    return 0.5 * x * (1.0 + tf.math.erf(x / math.sqrt(2.0)))


def _with_row(x: tf.Tensor, row: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """A tensor in which a row is replaced."""
    return tf.tensor_scatter_nd_update(x, [[row]], values[None])


def _uniform(normal: tf.Tensor) -> tf.Tensor:
    """Uniform numbers of standard normal ones."""
    return 0.5 * (1.0 + tf.math.erf(normal / math.sqrt(2.0)))
