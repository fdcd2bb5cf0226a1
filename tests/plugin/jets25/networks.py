"""Networks for 25 x 25 images: two layers each."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from hpcgan.networks.layers import Dense, Initializer, Network
from jets25.problem import SCALE_GEV, SIDE, Jets25Model


class Generator(Network):
    """Noise (n, latent_dim) -> {"jet": (n, 25, 25)} encoded."""

    def __init__(self, config: Jets25Model, seed: int, dtype: str = "float32") -> None:
        super().__init__("generator")
        init = Initializer(seed, dtype)
        self.hidden = Dense(init, "generator/hidden", config.latent_dim, 8 * config.filters)
        self.pixels = Dense(init, "generator/pixels", 8 * config.filters, SIDE * SIDE)
        self.threshold = tf.constant((config.threshold_gev / SCALE_GEV) ** 0.5, dtype)

    def __call__(
        self, noise: tf.Tensor, conditions: Mapping[str, tf.Tensor], training: bool, update: bool = True
    ) -> dict[str, tf.Tensor]:
        x = tf.sigmoid(self.pixels(tf.nn.relu(self.hidden(noise))))
        x = tf.reshape(x, [-1, SIDE, SIDE])
        return {"jet": tf.where(x > self.threshold, x, tf.zeros_like(x))}


class Discriminator(Network):
    """{"jet": (n, 25, 25)} encoded -> logits (n,)."""

    def __init__(self, config: Jets25Model, seed: int, dtype: str = "float32") -> None:
        super().__init__("discriminator")
        init = Initializer(seed, dtype)
        self.hidden = Dense(init, "discriminator/hidden", SIDE * SIDE, 8 * config.filters)
        self.head = Dense(init, "discriminator/head", 8 * config.filters, 1)

    def __call__(self, sample: Mapping[str, tf.Tensor], training: bool, update: bool = True) -> tf.Tensor:
        x = tf.reshape(sample["jet"], [-1, SIDE * SIDE])
        return self.head(tf.nn.leaky_relu(self.hidden(x), 0.2))[:, 0]
