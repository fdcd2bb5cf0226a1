"""The density of calorimeter showers: their energy is drawn, shared by the layers, and halved until there are cells.

As the density of detector images (`hpcgan/networks/multiscale.py`), but for what a shower has besides: several layers
with grids of their own, of which the later ones depend on the images of those before. A layer is split knowing the
particle's energy, the energies of all layers, the images of the layers before on its own grid, and what a small network
of its own makes of them.

Grids are no powers of two. A layer lies in the middle of one that is; cells beyond the layer's edge do not exist. Cells
of a shower span six decades, so a share is a matter of its logit's asinh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from hpcgan.networks.calibration import COUNTED, some_of
from hpcgan.networks.capabilities import Calibrated, Density
from hpcgan.networks.layers import Dense, Initializer, Tensors, uniform_of
from hpcgan.networks.local import Pair
from hpcgan.networks.sharing import NUMBERS, StretchedLogit
from hpcgan.networks.splits import COLUMNS, ROWS, Grid, Sight, Split, joined
from hpcgan.problems.calorimeter.grids import equal_cells, margins, overlap, padded
from hpcgan.problems.calorimeter.layer_shares import LayerShares, Sharing
from hpcgan.problems.calorimeter.networks import log_energy
from hpcgan.problems.calorimeter.response import Response
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

GRID = Grid(
    side=0,  # each layer has its own
    goes_around=False,
    coordinate=StretchedLogit(),
    bins=(512, 256),
    sight=Sight(radius=1, per_gev=(1.0e3, 3.0, 1.0e5), whole=16),
    sparse=1,
    prior=True,
)
CONTEXT = (64, 32)
"""Units of the network that looks at the images of the layers before as a whole."""
LEAST_SHARE = 1e-6
"""Of the particle's energy: where the logarithm of a layer's ends."""
MEASURED = 2048
"""Showers, spread over the training split, by which inputs of the networks are centred and scaled."""


class LayerSplits(tf.Module):
    """The density of one layer's image (n, rows, columns) in GeV, given its energy.

    Parameters
    ----------
    init : Initializer
    name : str
    shapes : sequence of (rows, columns)
        Cells of the layers before, and of this one, which is the last.
    least : float
        Energy of a lit cell at least, GeV.
    units : int
        Of each hidden layer.
    numbers : int
        What the networks know of a shower besides.
    """

    def __init__(
        self, init: Initializer, name: str, shapes: Sequence[Pair], least: float, units: int, numbers: int
    ) -> None:
        super().__init__(name.replace("/", "_"))
        self.shape, before = shapes[-1], shapes[:-1]
        sides = (padded(self.shape[0]), padded(self.shape[1]))
        self.margins = [[0, 0], *(list(margins(cells)) for cells in self.shape)]
        grid = replace(GRID, side=max(sides), sight=replace(GRID.sight, guides=len(before)))
        cells = np.pad(np.full(self.shape, least), self.margins[1:], constant_values=np.inf)
        self.overlaps = [
            tuple(
                tf.constant(overlap(equal_cells(old), equal_cells(new)), init.dtype)
                for old, new in zip(sides_of_old, self.shape, strict=True)
            )
            for sides_of_old in before
        ]
        self.context: list[Dense] = []
        if before:
            widths = (sum(rows * columns for rows, columns in before), *CONTEXT)
            self.context = [
                Dense(init, f"{name}/context{i}", widths[i], widths[i + 1], glorot=True) for i in range(len(CONTEXT))
            ]
            numbers += CONTEXT[-1]
        self.splits = []
        for number, (rows, columns, axis) in enumerate(halvings(sides)):
            shape = (2 * rows, columns) if axis == ROWS else (rows, 2 * columns)
            of_cells = cells.reshape(shape[0], sides[0] // shape[0], shape[1], -1).min(axis=(1, 3))
            self.splits.append(
                Split(init, f"{name}/split{number}", grid, (rows, columns, axis), of_cells, units, numbers)
            )

    def log_prob(self, image: tf.Tensor, before: Sequence[tf.Tensor], numbers: tf.Tensor) -> tf.Tensor:
        """Log of the density of images (n, rows, columns), given their sums, the images of the layers before and
        numbers (n, numbers): (n,).
        """
        image, guides, numbers = tf.pad(image, self.margins), self._guides(before), self._numbers(before, numbers)
        walk = zip(joined(self.splits, image), guides, strict=True)
        return tf.add_n([split.log_prob(halves, numbers, guide) for (split, halves), guide in walk])

    def count(self, image: tf.Tensor) -> None:
        """Set the priors of all splits to what is frequent in such showers."""
        for split, halves in joined(self.splits, tf.pad(image, self.margins)):
            split.count(halves)

    def measure(self, image: tf.Tensor, before: Sequence[tf.Tensor], numbers: tf.Tensor) -> None:
        """Set means and scales of what the networks see to those of such showers."""
        image, guides, numbers = tf.pad(image, self.margins), self._guides(before), self._numbers(before, numbers)
        for (split, halves), guide in zip(joined(self.splits, image), guides, strict=True):
            split.measure(halves, numbers, guide)

    def __call__(
        self, energy: tf.Tensor, before: Sequence[tf.Tensor], numbers: tf.Tensor, uniform: tf.Tensor
    ) -> tf.Tensor:
        """Images of layers with energies (n,), drawn by uniform numbers (n, 2 for each cell that is split)."""
        guides, numbers = self._guides(before), self._numbers(before, numbers)
        image, start = energy[:, None, None], 0
        for split, guide in zip(self.splits, reversed(guides), strict=True):
            end = start + NUMBERS * split.rows * split.columns
            of_cells = tf.reshape(uniform[:, start:end], [-1, split.rows, split.columns, NUMBERS])
            image, start = split(image, of_cells, numbers, guide), end
        row, column = (margin[0] for margin in self.margins[1:])
        return image[:, row : row + self.shape[0], column : column + self.shape[1]]

    def _guides(self, before: Sequence[tf.Tensor]) -> list[tf.Tensor | None]:
        """The layers before on the cells of each split, from the last to the first."""
        if not before:
            return [None] * len(self.splits)
        images = [
            tf.einsum("ri,nij,cj->nrc", rows, image, columns)
            for image, (rows, columns) in zip(before, self.overlaps, strict=True)
        ]
        guide, guides = tf.pad(tf.stack(images, axis=-1), [*self.margins, [0, 0]]), []
        for split in reversed(self.splits):
            guide = tf.add_n(split.halves(guide))
            guides.append(guide)
        return guides

    def _numbers(self, before: Sequence[tf.Tensor], numbers: tf.Tensor) -> tf.Tensor:
        if not before:
            return numbers
        cells = tf.concat([tf.reshape(image, [-1, image.shape[1] * image.shape[2]]) for image in before], axis=1)
        x = 0.25 * tf.math.log1p(GRID.sight.per_gev[0] * cells)
        for layer in self.context:
            x = tf.nn.silu(layer(x))
        return tf.concat([numbers, x], axis=1)


class Multiscale(Density, Calibrated):
    """The density of showers `layer_<i>` (n, rows, columns) in GeV, given the particle's energy and its class."""

    def __init__(self, config: CaloganModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("multiscale")
        init = Initializer(seed, dtype)
        shapes, units, least = config.shapes, config.hidden_units, 1e-3 * config.threshold_mev
        self.classes, self.least = tuple(config.classes), least
        inputs = 2 + len(self.classes)
        self.response = Response(init, "density/response", max(1, len(self.classes)))
        how = Sharing(len(shapes), replace(GRID, side=2), least, units, inputs)
        self.shares = LayerShares(init, "density/share", how)
        self.layers = [
            LayerSplits(init, f"density/layer{i}", shapes[: i + 1], least, units, inputs + 2 * len(shapes))
            for i in range(len(shapes))
        ]

    @property
    def constants(self) -> list[tf.Variable]:
        """The response, means and scales of what the networks see, and what is frequent."""
        return [*self.response.constants, *self.tied]

    @property
    def tied(self) -> list[tf.Variable]:
        """All but the response."""
        splits = [split for layer in self.layers for split in layer.splits]
        return [*self.shares.constants, *(constant for split in splits for constant in split.constants)]

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Measure them on the training showers."""
        totals, energies, which = energies_and_classes(batches, self.classes, self._images)
        self.response.fit(totals, energies, which)
        images = self._images(some_of(batches, len(totals), COUNTED))
        self.shares.count(layer_energies(images))
        for layer, image in zip(self.layers, images, strict=True):
            layer.count(image)
        sample = some_of(batches, len(totals), MEASURED)
        images = self._images(sample)
        of_layers, inputs = layer_energies(images), self._known(sample, images)
        self.shares.measure(of_layers, lambda before: self._numbers(inputs, sample, before))
        numbers = self._numbers(inputs, sample, of_layers)
        for i, layer in enumerate(self.layers):
            layer.measure(images[i], images[:i], numbers)

    def log_prob(self, sample: Tensors) -> tf.Tensor:
        """Log of the density of how a shower's energy is shared among layers and cells, given that energy: (n,), nats,
        for GeV.
        """
        images = self._images(sample)
        of_layers, inputs = layer_energies(images), self._known(sample, images)
        log_p = self.shares.log_prob(of_layers, lambda before: self._numbers(inputs, sample, before))
        numbers = self._numbers(inputs, sample, of_layers)
        log_p += [layer.log_prob(images[i], images[:i], numbers) for i, layer in enumerate(self.layers)]
        return tf.add_n(log_p)

    def __call__(
        self, noise: tf.Tensor, conditions: Tensors, training: bool = False, update: bool = False
    ) -> dict[str, tf.Tensor]:
        """Showers of noise: a number for the energy, then `NUMBERS` for each share of a layer and each split cell."""
        energy = tf.reshape(conditions[ENERGY], [-1])
        which = class_numbers(conditions[PARTICLE], self.classes) if self.classes else None
        total = energy * self.response(noise[:, 0], energy, which)
        total = tf.where(total < self.least, tf.zeros_like(total), total)
        inputs, uniforms = self._known_of(conditions, total), uniform_of(noise[:, 1:])
        start = self.shares.noise
        of_layers = self.shares(total, lambda before: self._numbers(inputs, conditions, before), uniforms[:, :start])
        images: list[tf.Tensor] = []
        numbers = self._numbers(inputs, conditions, of_layers)
        for layer, sum_of_cells in zip(self.layers, tf.unstack(of_layers, axis=1), strict=True):
            end = start + NUMBERS * sum(split.rows * split.columns for split in layer.splits)
            images.append(layer(sum_of_cells, images, numbers, uniforms[:, start:end]))
            start = end
        return {layer_name(i): image for i, image in enumerate(images)}

    def _images(self, sample: Tensors) -> list[tf.Tensor]:
        return [tf.where(image >= self.least, image, tf.zeros_like(image)) for image in images_of(sample)]

    def _known(self, sample: Tensors, images: Sequence[tf.Tensor]) -> tf.Tensor:
        return self._known_of(sample, tf.reduce_sum(layer_energies(images), axis=1))

    def _known_of(self, conditions: Tensors, total: tf.Tensor) -> tf.Tensor:
        """What networks see of showers with so much energy in all cells (n,) before anything is shared: (n, inputs)."""
        energy = tf.reshape(conditions[ENERGY], [-1])
        response = tf.math.log(tf.maximum(total / energy, LEAST_SHARE))
        inputs = tf.stack([log_energy(energy), response], axis=1)
        return tf.concat([inputs, one_hot(conditions[PARTICLE], self.classes)], axis=1) if self.classes else inputs

    def _numbers(self, inputs: tf.Tensor, conditions: Tensors, of_layers: tf.Tensor) -> tf.Tensor:
        """And that of layers with energies (n, layers): the logarithm of their shares, and which have any."""
        shares = of_layers / tf.reshape(conditions[ENERGY], [-1, 1])
        logs = tf.math.log(tf.maximum(shares, LEAST_SHARE))
        return tf.concat([inputs, logs, tf.cast(of_layers > 0, logs.dtype)], axis=1)


def halvings(sides: Pair) -> list[tuple[int, int, int]]:
    """Rows, columns and axis of each split of a grid with sides that are powers of two, from the whole to cells.

    In turns, rows first, until one side is done.
    """
    splits, rows, columns = [], 1, 1
    while (rows, columns) != tuple(sides):
        if rows < sides[0] and (rows <= columns or columns == sides[1]):
            splits.append((rows, columns, ROWS))
            rows *= 2
        else:
            splits.append((rows, columns, COLUMNS))
            columns *= 2
    return splits
