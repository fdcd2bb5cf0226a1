"""Generators of jet images: LAGAN's, and those it was compared with (arXiv:1701.05927).

What is not set here is as in Keras 1: Glorot-uniform weights, zero biases, batch norm with an epsilon of 1e-3 and a
momentum of 0.99, a slope of 0.3 of the leaky ReLU. All end in a ReLU, for images of which most pixels are dark.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import tensorflow as tf

from hpcgan.networks.layers import BatchNorm, Conv2D, ConvTranspose2D, Dense, Initializer, Network, unfused_leaky_relu
from hpcgan.networks.local import LocallyConnected2D, Pair, cells_first, pad_cells, samples_first
from hpcgan.problems.jet_images.files import IMAGE, SIDE, SIGNAL
from hpcgan.problems.jet_images.networks_layers import EPSILON, FANS, MOMENTUM, SLOPE, ValidConv2D

if TYPE_CHECKING:
    from hpcgan.problems.jet_images.problem import JetsModel

START: Pair = (7, 7)
CHANNELS = 128  # of the first image
CLASSES = 2


def twice(x: tf.Tensor) -> tf.Tensor:
    """Every cell as 2 x 2: (h, w, n, c) -> (2h, 2w, n, c)."""
    return tf.repeat(tf.repeat(x, 2, axis=0), 2, axis=1)


class Body(tf.Module):
    """Latent vectors (n, latent_dim) to images (n, 25, 25), not negative."""

    def __call__(self, latent: tf.Tensor, training: bool, update: bool) -> tf.Tensor:
        raise NotImplementedError


class LocatedBody(Body):
    """LAGAN: layers with weights of their own at every place.

    7 x 7 of 128 channels, convolved 5 x 5 to 64 and enlarged; 5 x 5 to 6 at each of the 14 x 14 places and enlarged;
    3 x 3 to 6 (26 x 26 places) and 2 x 2 to 1 (25 x 25).
    """

    def __init__(self, init: Initializer, name: str, latent_dim: int) -> None:
        super().__init__(name.replace("/", "_"))
        self.project = Dense(init, f"{name}/project", latent_dim, START[0] * START[1] * CHANNELS, glorot=True)
        self.conv = Conv2D(init, f"{name}/conv", CHANNELS, 64, kernel=5, stride=1, gain=2, bias=True)
        self.norms = [
            BatchNorm(init, f"{name}/norm{i}", channels, momentum=MOMENTUM, epsilon=EPSILON)
            for i, channels in enumerate((64, 6))
        ]
        self.first, self.second = (
            LocallyConnected2D(
                init,
                f"{name}/local{i}",
                cells,
                inputs,
                6,
                kernel=kernel,
                initial="he_uniform",
                fans=FANS,
                bias=[0.0] * 6,
            )
            for i, (cells, inputs, kernel) in enumerate((((18, 18), 64, (5, 5)), ((28, 28), 6, (3, 3))))
        )
        self.last = LocallyConnected2D(
            init, f"{name}/out", (26, 26), 6, 1, kernel=(2, 2), initial="glorot_normal", fans=FANS
        )

    def __call__(self, latent: tf.Tensor, training: bool, update: bool) -> tf.Tensor:
        x = tf.reshape(self.project(latent), [-1, *START, CHANNELS])
        x = self.norms[0](unfused_leaky_relu(self.conv(x), SLOPE), training, update)
        x = self.first(pad_cells(twice(cells_first(x)), (2, 2), (2, 2)))
        x = twice(self.norms[1](unfused_leaky_relu(x, SLOPE), training, update))
        x = self.last(unfused_leaky_relu(self.second(x), SLOPE))
        return samples_first(tf.nn.relu(x[..., 0]))


class ConvolvedBody(Body):
    """DCGAN: the same by convolutions: transposed ones 5 x 5 to 14 x 14 and 28 x 28, then 3 x 3 and 2 x 2."""

    def __init__(self, init: Initializer, name: str, latent_dim: int) -> None:
        super().__init__(name.replace("/", "_"))
        self.project = Dense(init, f"{name}/project", latent_dim, START[0] * START[1] * CHANNELS, glorot=True)
        sizes = ((CHANNELS, 64), (64, 32))
        self.ups = [
            ConvTranspose2D(init, f"{name}/up{i}", inputs, outputs, kernel=5, gain=2, bias=True)
            for i, (inputs, outputs) in enumerate(sizes)
        ]
        self.norms = [
            BatchNorm(init, f"{name}/norm{i}", outputs, momentum=MOMENTUM, epsilon=EPSILON)
            for i, (_, outputs) in enumerate(sizes)
        ]
        self.conv = ValidConv2D(init, f"{name}/conv", (3, 3, 32, 8), gain=2)
        self.last = ValidConv2D(init, f"{name}/out", (2, 2, 8, 1), gain=2)

    def __call__(self, latent: tf.Tensor, training: bool, update: bool) -> tf.Tensor:
        x = tf.reshape(self.project(latent), [-1, *START, CHANNELS])
        for up, norm in zip(self.ups, self.norms, strict=True):
            x = norm(unfused_leaky_relu(up(x), SLOPE), training, update)
        x = self.last(unfused_leaky_relu(self.conv(x), SLOPE))
        return tf.nn.relu(x[..., 0])


class ConnectedBody(Body):
    """The same by layers of 256, 512, 625 and 625 units, each of which sees all of the layer before."""

    def __init__(self, init: Initializer, name: str, latent_dim: int) -> None:
        super().__init__(name.replace("/", "_"))
        widths = (latent_dim, 256, 512, SIDE * SIDE, SIDE * SIDE)
        self.layers = [
            Dense(init, f"{name}/dense{i}", inputs, outputs, glorot=True)
            for i, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        ]

    def __call__(self, latent: tf.Tensor, training: bool, update: bool) -> tf.Tensor:
        x = latent
        for layer in self.layers[:-1]:
            x = unfused_leaky_relu(layer(x), SLOPE)
        return tf.reshape(tf.nn.relu(self.layers[-1](x)), [-1, SIDE, SIDE])


class HybridBody(Body):
    """The mean of the images of a `ConnectedBody` and a `ConvolvedBody`."""

    def __init__(self, init: Initializer, name: str, latent_dim: int) -> None:
        super().__init__(name.replace("/", "_"))
        self.connected = ConnectedBody(init, f"{name}/connected", latent_dim)
        self.convolved = ConvolvedBody(init, f"{name}/convolved", latent_dim)

    def __call__(self, latent: tf.Tensor, training: bool, update: bool) -> tf.Tensor:
        return 0.5 * (self.connected(latent, training, update) + self.convolved(latent, training, update))


BODIES: Mapping[str, Callable[[Initializer, str, int], Body]] = {
    "lagan": LocatedBody,
    "dcgan": ConvolvedBody,
    "fc": ConnectedBody,
    "hybrid": HybridBody,
}


class Generator(Network):
    """Noise (n, latent_dim), `signal` (n,) -> `image` (n, 25, 25), encoded and not negative.

    The latent vector is the noise times a vector of the class.
    """

    def __init__(self, config: JetsModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("generator")
        init = Initializer(seed, dtype)
        shape = (CLASSES, config.latent_dim)
        self.embedding = init.glorot_normal("generator/embedding", shape, *shape)
        self.body = BODIES[config.architecture](init, "generator", config.latent_dim)

    def __call__(
        self, noise: tf.Tensor, conditions: Mapping[str, tf.Tensor], training: bool, update: bool = True
    ) -> dict[str, tf.Tensor]:
        signal = conditions[SIGNAL]
        of_class = tf.matmul(tf.stack([1.0 - signal, signal], axis=1), self.embedding)
        return {IMAGE: self.body(noise * of_class, training, update)}
