"""The density of jet images: an image's transverse momentum is drawn, and shared by ever smaller cells.

Images of 25 x 25 pixels lie in the middle of 32 x 32, so that the central pixel is the last of the upper left quarter;
pixels beyond an image's edge do not exist. Pixels span many decades, since cubic interpolation surrounds bright ones
with faint ones: a share is a matter of its logit's asinh, and the network sees pT on several scales.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from hpcgan.networks import multiscale
from hpcgan.networks.layers import Initializer, Tensors
from hpcgan.networks.sharing import StretchedLogit
from hpcgan.networks.splits import Grid, Sight
from hpcgan.problems.jet_images.files import IMAGE, SIDE, SIGNAL

if TYPE_CHECKING:
    from hpcgan.problems.jet_images.problem import JetsModel

GRID = Grid(
    side=32,
    goes_around=False,
    coordinate=StretchedLogit(),
    bins=(128, 64),
    sight=Sight(radius=3, per_gev=(2.0, 1.0e3, 1.0e7)),
    sparse=1,
    prior=True,
)
FIRST = (GRID.side - SIDE) // 2
"""Row and column of the image's first pixel."""
EDGES = [(0, 0)] + [(FIRST, GRID.side - SIDE - FIRST)] * 2


class Multiscale(multiscale.Multiscale):
    """The density of images (n, 25, 25), encoded, for jets of either class."""

    def __init__(self, config: JetsModel, seed: int, dtype: str = "float32") -> None:
        least = np.pad(np.full((SIDE, SIDE), config.threshold_gev), EDGES[1:], constant_values=np.inf)
        super().__init__(Initializer(seed, dtype), GRID, least, config.hidden_units, [SIGNAL])
        self.threshold, self.scale, self.power = config.threshold_gev, config.scale_gev, 1.0 / config.exponent

    def pt(self, sample: Tensors) -> tf.Tensor:
        pt = self.scale * (sample[IMAGE] if self.power == 1.0 else tf.pow(sample[IMAGE], self.power))
        return tf.pad(tf.where(pt >= self.threshold, pt, tf.zeros_like(pt)), EDGES)

    def encoded(self, pt: tf.Tensor) -> dict[str, tf.Tensor]:
        image = pt[:, FIRST : FIRST + SIDE, FIRST : FIRST + SIDE] / self.scale
        return {IMAGE: image if self.power == 1.0 else tf.pow(image, 1.0 / self.power)}
