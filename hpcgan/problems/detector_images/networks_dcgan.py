"""The DCGAN for 64x64 whole-detector images (Farrell et al. 2019, section 4; Radford et al. arXiv:1511.06434)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorflow as tf

from hpcgan.networks.layers import (
    Conv2D,
    ConvTranspose2D,
    Dense,
    Initializer,
    Network,
    Projection,
    normalisation,
    stacked,
)

if TYPE_CHECKING:
    from hpcgan.problems.detector_images.rpv import RpvModel


class Generator(Network):
    """Noise (n, latent_dim) -> {"hist": (n, 64, 64)} encoded intensities.

    A stride-1 transposed convolution to 4x4x8f (on a 1x1 input the same as a dense layer), then four
    stride-2 ones to 64x64x1; batch norm and ReLU between, at the end a sigmoid and a threshold under which
    pixels become exactly zero. Conditions are more entries of the noise.
    """

    def __init__(self, config: RpvModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("generator")
        init = Initializer(seed, dtype)
        widths = [8 * config.filters, 4 * config.filters, 2 * config.filters, config.filters]
        self.conditions = config.conditions
        inputs, outputs = config.latent_dim + len(self.conditions), 16 * widths[0]
        # fan of a transposed convolution in the reference's framework: outputs * k * k
        self.project = Dense(init, "generator/project", inputs, outputs, bias=False, fan_in=outputs)
        self.norms = [normalisation(init, f"generator/norm{i}", w, config.normalisation) for i, w in enumerate(widths)]
        self.ups = [
            ConvTranspose2D(init, f"generator/up{i}", a, b, padding=config.phi_padding)
            for i, (a, b) in enumerate(zip(widths, [*widths[1:], 1], strict=True))
        ]
        self.threshold = tf.constant(config.encoded_threshold, dtype)

    def __call__(
        self, noise: tf.Tensor, conditions: Mapping[str, tf.Tensor], training: bool, update: bool = True
    ) -> dict[str, tf.Tensor]:
        if self.conditions:
            noise = tf.concat([noise, stacked(conditions, self.conditions)], axis=1)
        x = tf.reshape(self.project(noise), [-1, 4, 4, self.project.kernel.shape[1] // 16])
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(tf.nn.relu(norm(x, training, update)))
        x = tf.sigmoid(x[..., 0])
        return {"hist": tf.where(x > self.threshold, x, tf.zeros_like(x))}


class Discriminator(Network):
    """{"hist": (n, 64, 64)} encoded -> logits (n,).

    Four stride-2 convolutions f, 2f, 4f, 8f (normalised from the second on, leaky ReLU 0.2) and one over
    the remaining 4x4. With spectral norm every kernel has it, and the convolutions have biases. Conditions are constant
    channels of the image, or projected on what the last convolution sees.
    """

    def __init__(self, config: RpvModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("discriminator")
        init = Initializer(seed, dtype)
        widths = [config.filters, 2 * config.filters, 4 * config.filters, 8 * config.filters]
        kind = config.discriminator_normalisation or config.normalisation
        spectral = kind == "spectral"
        self.channels, self.projected = config.channel_conditions, config.projected_conditions
        self.downs = [
            Conv2D(init, f"discriminator/down{i}", a, b, padding=config.phi_padding, bias=spectral, spectral=spectral)
            for i, (a, b) in enumerate(zip([1 + len(self.channels), *widths[:-1]], widths, strict=True))
        ]
        self.norms = [normalisation(init, f"discriminator/norm{i + 1}", w, kind) for i, w in enumerate(widths[1:])]
        self.head = Dense(init, "discriminator/head", 16 * widths[-1], 1, bias=False, spectral=spectral)
        self.projection = (
            Projection(init, "discriminator/projection", len(self.projected), 16 * widths[-1], spectral=spectral)
            if self.projected
            else None
        )

    def __call__(self, sample: Mapping[str, tf.Tensor], training: bool, update: bool = True) -> tf.Tensor:
        x = sample["hist"][..., None]
        for i, down in enumerate(self.downs):
            if i == 0 and self.channels:
                x = down.of_planes([sample["hist"]], [sample[name] for name in self.channels])
            else:
                x = down(x)
            if i > 0:
                x = self.norms[i - 1](x, training, update)
            x = tf.nn.leaky_relu(x, 0.2)
        features = tf.reshape(x, [-1, self.head.kernel.shape[0]])
        logits = self.head(features)[:, 0]
        if self.projection is not None:
            logits += self.projection(stacked(sample, self.projected), features)
        return logits
