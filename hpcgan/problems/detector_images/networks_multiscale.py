"""The density of calorimeter images: an event's transverse momentum is drawn, and shared by ever smaller cells.

Twelve splits, alternating between eta and phi, from 1x1 to 64x64; phi goes around. The threshold of the calorimeter is
what a lit pixel has at least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from hpcgan.networks import multiscale
from hpcgan.networks.layers import Initializer, Tensors
from hpcgan.networks.sharing import Logit
from hpcgan.networks.splits import Grid
from hpcgan.problems.detector_images.pixels import to_power

if TYPE_CHECKING:
    from hpcgan.problems.detector_images.rpv import RpvModel

GRID = Grid(side=64, goes_around=True, coordinate=Logit(), sparse=8)


class Multiscale(multiscale.Multiscale):
    """The density of images (n, 64, 64), encoded, under conditions if there are any."""

    def __init__(self, config: RpvModel, seed: int, dtype: str = "float32") -> None:
        super().__init__(
            Initializer(seed, dtype), GRID, config.least_pt_gev[:, None], config.hidden_units, config.conditions
        )
        self.power = 1.0 / config.exponent
        self.to_gev = tf.constant(config.linear_to_pt * config.pt_unit_mev / 1e3, dtype)

    def pt(self, sample: Tensors) -> tf.Tensor:
        return to_power(sample["hist"], self.power) * self.to_gev

    def encoded(self, pt: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"hist": tf.pow(pt / self.to_gev, 1.0 / self.power)}
