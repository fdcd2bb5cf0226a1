"""A density of images of transverse momentum: their sum is drawn, then halved again and again until there are pixels.

`hpcgan/networks/splits.py` has the splits. There is no upsampling, no cut and no adversary: images have neither a
lattice nor streaks, because the density of every pixel is learnt under the condition of its neighbours (docs/model.md
says what that brings).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from hpcgan.networks.calibration import COUNTED, some_of
from hpcgan.networks.capabilities import Calibrated, Density
from hpcgan.networks.drawn_total import DrawnTotal
from hpcgan.networks.layers import Initializer, Tensors, stacked, uniform_of
from hpcgan.networks.sharing import NUMBERS
from hpcgan.networks.splits import ROWS, Grid, Split, joined

TAIL = 0.005
"""Share of events with the highest summed pT, which falls off exponentially there."""
KNOTS = 1025
"""Quantiles of the summed pT; the last one is a mean of the tail."""
MEASURED = 1024
"""Events, spread over the training split, by which inputs of the networks are centred and scaled."""


class Multiscale(Density, Calibrated):
    """The density of images (n, side, side), under conditions if there are any.

    A class of images says how pT in GeV comes out of an encoded sample, and the other way round.

    Parameters
    ----------
    init : Initializer
    grid : Grid
    least : (side, side) array, or (side, 1)
        pT that a lit pixel has at least, GeV; infinite where there is no pixel.
    units : int
        Of each hidden layer.
    conditions : sequence of str
        Names.
    """

    def __init__(self, init: Initializer, grid: Grid, least: np.ndarray, units: int, conditions: Sequence[str]) -> None:
        super().__init__("multiscale")
        self.conditions = tuple(conditions)
        self.total = DrawnTotal(init, "density", len(self.conditions), KNOTS, TAIL)
        full = np.broadcast_to(least, (grid.side, grid.side))
        self.splits = []
        for number, (rows, columns, axis) in enumerate(grid.splits()):
            shape = (2 * rows, columns) if axis == ROWS else (rows, 2 * columns)
            # Of the lowest threshold among the pixels of a cell.
            of_cells = full.reshape(shape[0], grid.side // shape[0], shape[1], -1).min(axis=(1, 3))
            name = f"density/split{number}"
            self.splits.append(Split(init, name, grid, (rows, columns, axis), of_cells, units, len(self.conditions)))

    @abstractmethod
    def pt(self, sample: Tensors) -> tf.Tensor:
        """PT in GeV of the pixels of encoded samples, (n, side, side)."""

    @abstractmethod
    def encoded(self, pt: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encoded samples, without their conditions, of pT (n, side, side) in GeV."""

    @property
    def constants(self) -> list[tf.Variable]:
        """The quantiles of ln(summed pT / GeV), means and scales of what the networks see, and what is frequent."""
        return [*self.total.constants, *self.tied]

    @property
    def tied(self) -> list[tf.Variable]:
        """All but the quantiles."""
        return [constant for split in self.splits for constant in split.constants]

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Measure them on the training events."""
        totals, conditions = [], []
        for batch in batches:
            totals.append(tf.reduce_sum(self.pt(batch), axis=[1, 2]).numpy())
            if self.conditions:
                conditions.append(stacked(batch, self.conditions).numpy())
        self.total.measure(totals, conditions)
        n = sum(map(len, totals))
        if self.splits[0].prior is not None:
            for split, images in joined(self.splits, self.pt(some_of(batches, n, COUNTED))):
                split.count(images)
        sample = some_of(batches, n, MEASURED)
        inputs = stacked(sample, self.conditions) if self.conditions else None
        for split, images in joined(self.splits, self.pt(sample)):
            split.measure(images, inputs)

    def log_prob(self, sample: Tensors) -> tf.Tensor:
        """Log of the density of how an event's summed pT is shared among the pixels, given that sum: (n,), nats, for
        pT in GeV.
        """
        return tf.add_n(self._log_probs(sample, lambda _: 1))

    def mean_log_prob(self, sample: Tensors) -> tf.Tensor:
        """Mean of `log_prob`, each split's from every `every`-th event of the batch: ranks that share a batch in
        multiples of `Grid.sparse` events agree with one that has it all.
        """
        return tf.add_n([tf.reduce_mean(log_p) for log_p in self._log_probs(sample, lambda split: split.every)])

    def _log_probs(self, sample: Tensors, every: Callable[[Split], int]) -> list[tf.Tensor]:
        """Of each split, from the last to the first, for every so many events."""
        conditions = stacked(sample, self.conditions) if self.conditions else None
        log_p = []
        for split, images in joined(self.splits, self.pt(sample)):
            chosen = slice(None, None, every(split))
            log_p.append(split.log_prob(images[chosen], None if conditions is None else conditions[chosen]))
        return log_p

    def __call__(
        self, noise: tf.Tensor, conditions: Tensors, training: bool = False, update: bool = False
    ) -> dict[str, tf.Tensor]:
        """Images of noise: one number for the summed pT of each, then `NUMBERS` for each cell of each split."""
        inputs = stacked(conditions, self.conditions) if self.conditions else None
        images = tf.exp(self.total(noise[:, 0], inputs))[:, None, None]
        uniforms, start = uniform_of(noise[:, 1:]), 0
        for split in self.splits:
            end = start + NUMBERS * split.rows * split.columns
            uniform = tf.reshape(uniforms[:, start:end], [-1, split.rows, split.columns, NUMBERS])
            images, start = split(images, uniform, inputs), end
        return self.encoded(images)
