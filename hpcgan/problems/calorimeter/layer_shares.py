"""How the layers of a calorimeter share a shower's energy: each in turn has its part of what those before left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hpcgan.networks.layers import Initializer
from hpcgan.networks.sharing import NUMBERS
from hpcgan.networks.splits import COLUMNS, Grid, Split

Seen = Callable[[tf.Tensor], tf.Tensor]
"""What a network knows of showers in whose first layers there are energies (n, layers): (n, numbers)."""


@dataclass(frozen=True)
class Sharing:
    """How.

    Attributes
    ----------
    layers : int
    grid : Grid
        Of a split into two.
    least_gev : float
        That a layer with energy has at least.
    units : int
        Of either hidden layer of a network.
    numbers : int
        That the first network knows of a shower; each of the others knows two more.
    """

    layers: int
    grid: Grid
    least_gev: float
    units: int
    numbers: int


class LayerShares(tf.Module):
    """The density of the energies of all layers (n, layers) in GeV, given their sum.

    Parameters
    ----------
    init : Initializer
    name : str
    how : Sharing
    """

    def __init__(self, init: Initializer, name: str, how: Sharing) -> None:
        super().__init__(name.replace("/", "_"))
        least = np.full((1, 2), how.least_gev)
        self.splits = [
            Split(init, f"{name}{i}", how.grid, (1, 1, COLUMNS), least, how.units, how.numbers + 2 * i)
            for i in range(how.layers - 1)
        ]

    @property
    def noise(self) -> int:
        """Uniform numbers that a shower takes."""
        return NUMBERS * len(self.splits)

    @property
    def constants(self) -> list[tf.Variable]:
        """Means and scales of what the networks see, and what is frequent."""
        return [constant for split in self.splits for constant in split.constants]

    def count(self, of_layers: tf.Tensor) -> None:
        """Set what is frequent to what is so in such showers."""
        for i, split in enumerate(self.splits):
            split.count(_pair(of_layers, i))

    def measure(self, of_layers: tf.Tensor, seen: Seen) -> None:
        """Set means and scales to those of such showers."""
        for i, split in enumerate(self.splits):
            split.measure(_pair(of_layers, i), seen(of_layers[:, :i]))

    def log_prob(self, of_layers: tf.Tensor, seen: Seen) -> list[tf.Tensor]:
        """Logarithms of factors of the density, (n,) each, in nats."""
        return [split.log_prob(_pair(of_layers, i), seen(of_layers[:, :i])) for i, split in enumerate(self.splits)]

    def __call__(self, total: tf.Tensor, seen: Seen, uniforms: tf.Tensor) -> tf.Tensor:
        """Energies (n, layers) of sums (n,), drawn by uniform numbers (n, `noise`)."""
        of_layers = tf.zeros_like(total)[:, None][:, :0]
        for i, split in enumerate(self.splits):
            uniform = tf.reshape(uniforms[:, NUMBERS * i : NUMBERS * (i + 1)], [-1, 1, 1, NUMBERS])
            pair = split(total[:, None, None], uniform, seen(of_layers))
            of_layers, total = tf.concat([of_layers, pair[:, 0, :1]], axis=1), pair[:, 0, 1]
        return tf.concat([of_layers, total[:, None]], axis=1)


def _pair(of_layers: tf.Tensor, layer: int) -> tf.Tensor:
    """Energies (n, layers) of a layer and of those behind it together, as an image (n, 1, 2)."""
    return tf.stack([of_layers[:, layer], tf.reduce_sum(of_layers[:, layer + 1 :], axis=1)], axis=1)[:, None]
