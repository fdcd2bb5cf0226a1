"""The networks of CaloGAN (Paganini, de Oliveira and Nachman 2018, PRL 120, 042003; arXiv:1712.10321).

Showers in a calorimeter of several layers with grids of their own: each layer has its own generator, whose image may
take over parts of the layer before, and its own tower in the discriminator, which sees besides what physicists would
look at: energies, lit cells, and how they spread over the batch. Energies in the cells and of the incident particle
are in GeV. What is not set here is as in Keras: Glorot-uniform weights, zero biases, batch norm with an epsilon of
1e-3, a slope of 0.3 of the leaky ReLU.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from hpcgan.networks.capabilities import Auxiliary, Calibrated, Matched, OwnCoordinates
from hpcgan.networks.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Initializer,
    Projection,
    Tensors,
    unfused_leaky_relu,
)
from hpcgan.networks.local import (
    LocallyConnected2D,
    Pair,
    SharedConv2D,
    cells_first,
    pad_cells,
    samples_first,
)
from hpcgan.networks.minibatch import MinibatchDiscrimination
from hpcgan.problems.calorimeter.response import Response
from hpcgan.problems.calorimeter.shares import Shares
from hpcgan.problems.calorimeter.showers import (
    ENERGY,
    PARTICLE,
    class_numbers,
    energies_and_classes,
    images_of,
    layer_energies,
    layer_name,
    one_hot,
)

if TYPE_CHECKING:
    from hpcgan.problems.calorimeter.calogan import CaloganModel

SLOPE = 0.3  # of the leaky ReLU
HIDDEN_SLOPE = 0.2  # of that behind the discriminator's hidden layers
MOMENTUM, EPSILON = 0.99, 1e-3  # of batch norm
ENERGY_SCALE = 100.0  # GeV: the highest of the published showers
LAYER_SCALE = 10.0  # GeV
WELL, OUTSIDE = 5.0, 10.0  # GeV by which the summed energy may be off, and what is counted when it is
EMBEDDING_SPREAD = 0.1  # of the initial entries of a class's vector around 1
HIGHEST = 20.0  # encoded: half a million of the mean lit cell
MIDDLE = 30.0  # GeV: energies are told as logarithms of their ratio to it
NO_SHARE = 1e-3  # of the energy: where the logarithm of a layer's ends
LEAST_ENERGY = 1e-12  # GeV: below it a shower has none
DIM = 1e-3  # of the mean lit cell: where the logarithm begins, below it cells are linear
NO_CARRY = -10.0  # initial bias of what a cell takes over from the layer before: e^-10 of it


# --- energies ------------------------------------------------------------------------------------------


def energy_mismatch(sample: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Mean over the batch of |E_tot - E|, GeV, E_tot being the energy in all cells and E that of the particle.

    The auxiliary loss of the generator, in the published training with a weight of 0.05.

    Parameters
    ----------
    sample : mapping of str to tensor
        `layer_<i>` (n, rows, columns) for i from 0 on, and `energy` (n,) or (n, 1), in GeV.
    """
    total = tf.reduce_sum(layer_energies(images_of(sample)), axis=1)
    return tf.reduce_mean(tf.abs(total - _column(sample[ENERGY])[:, 0]))


def _column(energy: tf.Tensor) -> tf.Tensor:
    """One number a sample, (n,) or (n, 1), as (n, 1)."""
    return tf.reshape(energy, [-1, 1])


def log_energy(energy: tf.Tensor) -> tf.Tensor:
    """ln(E / 30 GeV), between -3.4 and 1.2 for the published energies."""
    return tf.math.log(energy / MIDDLE)


class CellEncoding(tf.Module):
    """Energies in the cells as the convolutions of the networks have them, of `cell_encoding: log`.

    A cell in the core of a shower has 10 GeV, half of the lit cells have less than a hundredth of the mean, those of
    the last layer a thousandth of that, and batch norm's epsilon is 1e-3: in GeV neither such a layer nor a halo can be
    seen. Here a cell is ln(1 + E / E_0), E_0 being a thousandth of the mean lit cell of its layer in the training
    showers: from 0 for a dark one to 10.
    """

    def __init__(self, init: Initializer, name: str, layers: int) -> None:
        super().__init__(name.replace("/", "_"))
        self.unit = init.constant(f"{name}/unit", (layers,), DIM, trainable=False)

    def encode(self, image: tf.Tensor, layer: int) -> tf.Tensor:
        """GeV -> what a convolution sees."""
        return tf.math.log1p(image / self.unit[layer])

    def energies(self, image: tf.Tensor, layer: int) -> tf.Tensor:
        """What a network makes, not negative -> GeV."""
        return self.unit[layer] * tf.math.expm1(tf.minimum(image, HIGHEST))

    def fit(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> Iterator[Mapping[str, tf.Tensor]]:
        """Measure the units on training showers, which are handed on."""
        sums, lit = np.zeros(self.unit.shape), np.zeros(self.unit.shape)
        for batch in batches:
            for i, image in enumerate(images_of(batch)):
                sums[i] += np.sum(image.numpy(), dtype=np.float64)
                lit[i] += np.count_nonzero(image.numpy())
            yield batch
        self.unit.assign(DIM * np.where(sums > 0, sums / np.maximum(lit, 1), 1.0))


# --- generator -----------------------------------------------------------------------------------------


class LayerGenerator(tf.Module):
    """Latent vectors (n, latent_dim) -> energies before the final ReLU (rows, columns, n, 1)."""

    def __init__(self, init: Initializer, name: str, latent_dim: int, shape: Pair) -> None:
        super().__init__(name.replace("/", "_"))
        rows, columns = self.start = (shape[0] + 2, shape[1] + 2)
        self.project = Dense(init, f"{name}/project", latent_dim, rows * columns * 36, glorot=True)
        self.conv = Conv2D(init, f"{name}/conv", 36, 16, kernel=2, stride=1, gain=2, bias=True)
        self.norm = BatchNorm(init, f"{name}/norm", 16, momentum=MOMENTUM, epsilon=EPSILON)
        self.local = LocallyConnected2D(
            init, f"{name}/local", self.start, 16, 6, kernel=(2, 2), initial="he_uniform", bias=[0.0] * 6
        )
        self.out = LocallyConnected2D(
            init, f"{name}/out", self.local.places, 6, 1, kernel=(2, 2), initial="glorot_normal"
        )

    def __call__(self, latent: tf.Tensor, training: bool, update: bool) -> tf.Tensor:
        x = tf.reshape(self.project(latent), [-1, *self.start, 36])
        x = self.norm(unfused_leaky_relu(self.conv(x), SLOPE), training, update)
        return self.out(tf.nn.leaky_relu(self.local(cells_first(x)), SLOPE))


class Attention(tf.Module):
    """What a layer takes over from the one before: two images (rows, columns, n, 1) -> one.

    At every cell the weighted mean of both, with weights (a softmax) that the cell's surroundings in both images
    decide. To begin with the second has a weight of e^-10.
    """

    def __init__(self, init: Initializer, name: str, shape: Pair) -> None:
        super().__init__(name.replace("/", "_"))
        padded = (shape[0] + 2, shape[1] + 2)
        self.local = LocallyConnected2D(init, name, padded, 2, 2, kernel=(3, 3), bias=[0.0, NO_CARRY])

    def __call__(self, primary: tf.Tensor, carry: tf.Tensor) -> tf.Tensor:
        both = tf.concat([primary, carry], axis=-1)
        first, second = tf.split(self.local(pad_cells(both, (1, 1), (1, 1))), 2, axis=-1)
        return primary + tf.sigmoid(second - first) * (carry - primary)  # a softmax over two


def resize(x: tf.Tensor, shape: Pair) -> tf.Tensor:
    """An image (rows, columns, n, c) on another grid: cells repeated, or averaged, by whole factors.

    Raises
    ------
    ValueError
        The numbers of rows or of columns are no multiples of each other.
    """
    for axis, cells in enumerate(shape):
        old = x.shape[axis]
        if cells % old == 0:
            x = tf.repeat(x, cells // old, axis=axis) if cells > old else x
        elif old % cells == 0:
            split = [*x.shape[:axis], cells, old // cells, *x.shape[axis + 1 : 2], tf.shape(x)[2], x.shape[3]]
            x = tf.reduce_mean(tf.reshape(x, split), axis=axis + 1)
        else:
            raise ValueError(f"a grid of {tuple(x.shape[:2])} does not fit on one of {shape}: no whole factors")
    return x


class Generator(Calibrated, Matched, Auxiliary):
    """Noise (n, latent_dim), `energy` (n,) in GeV -> `layer_<i>` (n, rows, columns), energies in GeV, not negative.

    The latent vector is the noise times energy / 100 GeV and, of several classes, times a vector of the class, as LAGAN
    has it (`particle` (n,) is another condition then); to begin with its entries are near 1. Noise that is scaled to a
    hundredth has next to no effect, so showers of 1 GeV are all but the same; with `conditioning: joined` the noise
    is as it is, and 2 ln(energy / 30 GeV) in place of its last number. A layer after the first
    takes over from the one before, on its own grid, through `Attention`; the last operation is a ReLU.

    With `total_energy: drawn` the first number of the noise also fixes the response, as the quantile of the training
    showers' that it stands for at this energy, and the images are scaled to it: the network says how the energy is
    shared among layers and cells, the training sample how much of it there is. The published network leaves it free.
    With `cell_energies: matched` samples are to go through `matching` before they are used.
    """

    def __init__(self, config: CaloganModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("generator")
        init = Initializer(seed, dtype)
        self.shapes: list[Pair] = [(rows, columns) for rows, columns in config.shapes]
        self.energy_mismatch = config.energy_mismatch
        self.classes, self.embedding = tuple(config.classes), None
        self.is_joined = config.conditioning == "joined"
        has_response = config.total_energy == "drawn"
        if self.classes:
            shape = (len(self.classes), config.latent_dim)
            self.embedding = init.normal("generator/embedding", shape, EMBEDDING_SPREAD)
            self.embedding.assign_add(tf.ones_like(self.embedding))
        self.response = Response(init, "generator/response", max(1, len(self.classes))) if has_response else None
        log = config.cell_encoding == "log"
        self.cells = CellEncoding(init, "generator/cells", len(self.shapes)) if log else None
        matched = config.cell_energies == "matched"
        self.shares = Shares(init, "generator/shares", self.shapes, self.classes) if matched else None
        self.layers = [
            LayerGenerator(init, f"generator/layer{i}", config.latent_dim, shape) for i, shape in enumerate(self.shapes)
        ]
        self.attentions = [
            Attention(init, f"generator/attention{i}", shape) for i, shape in enumerate(self.shapes[1:], start=1)
        ]

    def __call__(
        self, noise: tf.Tensor, conditions: Mapping[str, tf.Tensor], training: bool, update: bool = True
    ) -> dict[str, tf.Tensor]:
        return self._showers(self._images(noise, conditions, training, update), noise, conditions)

    def before_matching(self, noise: tf.Tensor, conditions: Tensors, training: bool) -> dict[str, tf.Tensor]:
        """As a call, but dark cells have negative energies: the less, the farther they are from being lit."""
        images = self._images(noise, conditions, training, update=False)
        showers = self._showers(images, noise, conditions)
        for i, image in enumerate(images if self.shares is not None else ()):
            unit = 1.0 if self.cells is None else self.cells.unit[i]
            showers[layer_name(i)] = tf.where(image > 0, showers[layer_name(i)], unit * image)
        return showers

    def _images(self, noise: tf.Tensor, conditions: Tensors, training: bool, update: bool) -> list[tf.Tensor]:
        """What the final ReLU and the scale of energies are applied to, (n, rows, columns) of each layer."""
        energy = _column(conditions[ENERGY])
        if self.is_joined:
            latent = tf.concat([noise[:, :-1], 2.0 * log_energy(energy)], axis=1)
        else:
            latent = noise * (energy / ENERGY_SCALE)
        if self.embedding is not None:
            latent *= tf.matmul(one_hot(conditions[PARTICLE], self.classes), self.embedding)
        images = [layer(latent, training, update) for layer in self.layers]
        for i, attention in enumerate(self.attentions, start=1):
            images[i] = attention(images[i], resize(images[i - 1], self.shapes[i]))
        return [samples_first(image[..., 0]) for image in images]

    def _showers(self, images: Sequence[tf.Tensor], noise: tf.Tensor, conditions: Tensors) -> dict[str, tf.Tensor]:
        showers = [tf.nn.relu(image) for image in images]
        if self.cells is not None:
            showers = [self.cells.energies(shower, i) for i, shower in enumerate(showers)]
        if self.response is not None:
            energy = _column(conditions[ENERGY])[:, 0]
            which = class_numbers(conditions[PARTICLE], self.classes) if self.classes else None
            total = energy * self.response(noise[:, 0], energy, which)
            # A shower without any energy stays without. What others have may be MeV: only shares are trained.
            factor = total / tf.maximum(tf.reduce_sum(layer_energies(showers), axis=1), LEAST_ENERGY)
            showers = [shower * factor[:, None, None] for shower in showers]
        return {layer_name(i): shower for i, shower in enumerate(showers)}

    @property
    def constants(self) -> list[tf.Variable]:
        """Of the training showers: the response, if it is drawn, units of the cells, if they have any, and shares that
        are to be matched.
        """
        units = [] if self.cells is None else [self.cells.unit]
        tables = [module for module in (self.response, self.shares) if module is not None]
        return [*units, *(variable for module in tables for variable in module.constants)]

    @property
    def matching(self) -> Shares | None:
        return self.shares

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Measure the response of the training showers, the units of the cells and the shares."""
        showers = batches if self.cells is None else self.cells.fit(batches)
        if self.response is not None:
            self.response.fit(*energies_and_classes(showers, self.classes))
        else:
            collections.deque(showers, maxlen=0)  # the units are measured as showers go by
        if self.shares is not None:
            self.shares.fit(batches)

    @property
    def has_auxiliary_loss(self) -> bool:
        return self.energy_mismatch > 0

    def auxiliary_loss(self, tensors: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The weighted `energy_mismatch`."""
        return self.energy_mismatch * energy_mismatch(tensors)


# --- discriminator -------------------------------------------------------------------------------------


class Tower(tf.Module):
    """Image (n, rows, columns) -> features (n, `width`) of locally connected layers."""

    def __init__(self, init: Initializer, name: str, shape: Pair) -> None:
        super().__init__(name.replace("/", "_"))
        self.conv = SharedConv2D(init, f"{name}/conv", 1, 64, kernel=(2, 2))
        self.locals: list[LocallyConnected2D] = []
        self.norms: list[BatchNorm] = []
        cells, inputs = shape, 64
        for i, (outputs, kernel, stride) in enumerate(((16, (3, 3), (1, 2)), (8, (2, 2), (1, 1)), (8, (2, 2), (1, 2)))):
            padded = (cells[0] + 2, cells[1] + 2)
            layer = LocallyConnected2D(
                init, f"{name}/local{i}", padded, inputs, outputs, kernel=kernel, stride=stride, bias=[0.0] * outputs
            )
            self.locals.append(layer)
            self.norms.append(BatchNorm(init, f"{name}/norm{i}", outputs, momentum=MOMENTUM, epsilon=EPSILON))
            cells, inputs = layer.places, outputs
        self.width = cells[0] * cells[1] * inputs

    def __call__(self, image: tf.Tensor, training: bool, update: bool) -> tf.Tensor:
        x = tf.nn.leaky_relu(self.conv(cells_first(image)[..., None]), SLOPE)
        for local, norm in zip(self.locals, self.norms, strict=True):
            x = norm(tf.nn.leaky_relu(local(pad_cells(x, (1, 1), (1, 1))), SLOPE), training, update)
        return tf.reshape(samples_first(x), [-1, self.width])


class Discriminator(Calibrated, OwnCoordinates):
    """`layer_<i>` (n, rows, columns) and `energy` (n,), in GeV -> logits (n,).

    Linear in, for each layer: the features of its `Tower`, the tanh of their nearness to those of the other samples
    (`MinibatchDiscrimination`), the share of lit cells and the tanh of its nearness; and besides: E_l / 10 of each
    layer, E_tot / 100, |E_tot - E|, 10 where that is above 5, and the tanh of the nearness of the E_l. The share of lit
    cells and the step at 5 GeV have no gradient. Of several classes each has weights of its own besides those of all
    (`Projection` of Miyato and Koyama).

    Linear, it cannot compare what it sees: whether a shower is as wide as it should be at this energy, or one layer
    goes with another. With `discriminator_hidden` there are layers in between, with a leaky ReLU (slope 0.2), and more
    features: logarithms of the layers' shares of the particle's energy, their fractions of the total, and the
    logarithm of the energy.
    """

    def __init__(self, config: CaloganModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("discriminator")
        init = Initializer(seed, dtype)
        self.towers = [Tower(init, f"discriminator/layer{i}", shape) for i, shape in enumerate(config.shapes)]
        layers = len(self.towers)
        self.cells = CellEncoding(init, "discriminator/cells", layers) if config.cell_encoding == "log" else None
        self.minibatch = MinibatchDiscrimination(
            init,
            "discriminator/minibatch",
            [*(tower.width for tower in self.towers), *[1] * layers, layers],
            scope=config.minibatch_discrimination,
        )
        near = self.minibatch.shape[0]
        inputs = sum(tower.width + near + 1 + near for tower in self.towers) + layers + 3 + near
        self.tells_shares = bool(config.discriminator_hidden)
        inputs += 2 * layers + 1 if self.tells_shares else 0
        widths = [inputs, *config.discriminator_hidden]
        self.hidden = [
            Dense(init, f"discriminator/hidden{i}", fan_in, fan_out, glorot=True)
            for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths))
        ]
        self.head = Dense(init, "discriminator/head", widths[-1], 1, glorot=True)
        self.classes, self.projection = tuple(config.classes), None
        if self.classes:
            self.projection = Projection(init, "discriminator/projection", len(self.classes), inputs)

    @property
    def constants(self) -> list[tf.Variable]:
        """The units of the cells, if they have any."""
        return [] if self.cells is None else [self.cells.unit]

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Measure the units of the cells."""
        for _ in self.cells.fit(batches) if self.cells is not None else ():
            pass

    def coordinates(self, tensors: Tensors) -> tuple[Tensors, Callable[[Tensors], Tensors]]:
        """The cells as the convolutions see them."""
        cells = self.cells
        if cells is None:
            return tensors, lambda point: point
        numbers = {layer_name(i): i for i in range(len(self.towers))}
        seen = {name: cells.encode(image, numbers[name]) for name, image in tensors.items()}
        return seen, lambda point: {name: cells.energies(image, numbers[name]) for name, image in point.items()}

    def features(self, sample: Mapping[str, tf.Tensor], training: bool, update: bool = True) -> tf.Tensor:
        """What the logit is linear in, (n, features), in the order of the class's description."""
        images = [sample[layer_name(i)] for i in range(len(self.towers))]
        inputs = images if self.cells is None else [self.cells.encode(image, i) for i, image in enumerate(images)]
        seen = [tower(image, training, update) for tower, image in zip(self.towers, inputs, strict=True)]
        lit = [occupancy(image) for image in images] if self.cells is None else [near_occupancy(x) for x in inputs]
        energies = layer_energies(images)
        near = [tf.tanh(o) for o in self.minibatch([*seen, *lit, energies])]
        layers = len(images)
        features = []
        for i in range(layers):
            features += [seen[i], near[i], lit[i], near[layers + i]]
        energy = _column(sample[ENERGY])
        shares = share_features(energies, energy) if self.tells_shares else []
        return tf.concat([*features, energy_features(energies, energy), near[-1], *shares], axis=1)

    def __call__(self, sample: Mapping[str, tf.Tensor], training: bool, update: bool = True) -> tf.Tensor:
        features = self.features(sample, training, update)
        x = features
        for layer in self.hidden:
            x = unfused_leaky_relu(layer(x), HIDDEN_SLOPE)
        logits = self.head(x)[:, 0]
        if self.projection is not None:
            logits += self.projection(one_hot(sample[PARTICLE], self.classes), features)
        return logits


def occupancy(image: tf.Tensor) -> tf.Tensor:
    """Share of the cells with energy, (n, rows, columns) -> (n, 1); without a gradient."""
    return tf.reduce_mean(tf.cast(image > 0, image.dtype), axis=[1, 2])[:, None]


def near_occupancy(cells: tf.Tensor) -> tf.Tensor:
    """The same of encoded cells with a gradient, (n, rows, columns) -> (n, 1): a cell counts as its hyperbolic tangent.

    The discriminator tells showers apart by a number that has no gradient, and the generator learns nothing of it.
    """
    return tf.reduce_mean(tf.tanh(cells), axis=[1, 2])[:, None]


def share_features(energies: tf.Tensor, energy: tf.Tensor) -> list[tf.Tensor]:
    """Of energies of the layers (n, layers) and of the particle (n, 1), GeV: what `discriminator_hidden` adds."""
    total = tf.reduce_sum(energies, axis=1, keepdims=True)
    return [tf.math.log(energies / energy + NO_SHARE) / 3.0, energies / (total + 1e-6), log_energy(energy)]


def energy_features(energies: tf.Tensor, energy: tf.Tensor) -> tf.Tensor:
    """Energies of the layers (n, layers) and of the particle (n, 1), GeV -> (n, layers + 3).

    E_l / 10, E_tot / 100, |E_tot - E|, and 10 where that is above 5 GeV, which has no gradient.
    """
    total = tf.reduce_sum(energies, axis=1, keepdims=True)
    off = tf.abs(total - energy)
    outside = OUTSIDE * tf.cast(off > WELL, off.dtype)
    return tf.concat([energies / LAYER_SCALE, total / ENERGY_SCALE, off, outside], axis=1)
