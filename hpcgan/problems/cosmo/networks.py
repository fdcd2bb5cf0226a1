"""The DCGAN for convergence maps (CosmoGAN, Mustafa et al. 2019, arXiv:1706.02390; Radford et al. arXiv:1511.06434)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorflow as tf

from hpcgan.networks.layers import BatchNorm, Conv2D, ConvTranspose2D, Dense, Initializer, Network, normalisation

if TYPE_CHECKING:
    from hpcgan.problems.cosmo.problem import CosmoModel

KERNEL = 5
STDDEV = 0.02  # of the initial weights (Radford et al., section 4)


class Generator(Network):
    """Noise (n, latent_dim) -> {"kappa": (n, side, side)} encoded maps within (-1, 1).

    A dense layer to (side/16)^2 x 8f, then four transposed 5x5 convolutions of stride 2 with 4f, 2f, f and 1 channels;
    batch norm and ReLU before each of them, tanh at the end. Only the last has a bias: batch norm takes the others'.
    """

    def __init__(self, config: CosmoModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("generator")
        init = Initializer(seed, dtype)
        self.start = config.side // 16
        widths = [8 * config.filters, 4 * config.filters, 2 * config.filters, config.filters]
        inputs, outputs = config.latent_dim, self.start**2 * widths[0]
        self.project = Dense(init, "generator/project", inputs, outputs, bias=False, stddev=STDDEV)
        self.norms = [BatchNorm(init, f"generator/norm{i}", width) for i, width in enumerate(widths)]
        self.ups = [
            ConvTranspose2D(init, f"generator/up{i}", a, b, kernel=KERNEL, stddev=STDDEV, bias=i == 3)
            for i, (a, b) in enumerate(zip(widths, [*widths[1:], 1], strict=True))
        ]

    def __call__(
        self, noise: tf.Tensor, conditions: Mapping[str, tf.Tensor], training: bool, update: bool = True
    ) -> dict[str, tf.Tensor]:
        channels = self.project.kernel.shape[1] // self.start**2
        x = tf.reshape(self.project(noise), [-1, self.start, self.start, channels])
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(tf.nn.relu(norm(x, training, update)))
        return {"kappa": tf.tanh(x[..., 0])}


class Discriminator(Network):
    """{"kappa": (n, side, side)} encoded -> logits (n,).

    Four 5x5 convolutions of stride 2 with f, 2f, 4f and 6f channels (normalised from the second on, leaky ReLU 0.2) and
    a dense layer. The first convolution and the dense layer have biases; the others, too, where no layer follows that
    has an offset. With spectral norm every kernel has it.
    """

    def __init__(self, config: CosmoModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("discriminator")
        init = Initializer(seed, dtype)
        widths = [config.filters, 2 * config.filters, 4 * config.filters, 6 * config.filters]
        kind = config.discriminator_normalisation
        biased, spectral = kind in ("none", "spectral"), kind == "spectral"
        self.downs = [
            Conv2D(
                init, f"discriminator/down{i}", a, b, kernel=KERNEL, stddev=STDDEV, bias=biased or i == 0,
                spectral=spectral,
            )
            for i, (a, b) in enumerate(zip([1, *widths[:-1]], widths, strict=True))
        ]  # fmt: skip
        self.norms = [normalisation(init, f"discriminator/norm{i + 1}", w, kind) for i, w in enumerate(widths[1:])]
        inputs = (config.side // 16) ** 2 * widths[-1]
        self.head = Dense(init, "discriminator/head", inputs, 1, stddev=STDDEV, spectral=spectral)

    def __call__(self, sample: Mapping[str, tf.Tensor], training: bool, update: bool = True) -> tf.Tensor:
        x = sample["kappa"][..., None]
        for i, down in enumerate(self.downs):
            x = down(x)
            if i > 0:
                x = self.norms[i - 1](x, training, update)
            x = tf.nn.leaky_relu(x, 0.2)
        return self.head(tf.reshape(x, [-1, self.head.kernel.shape[0]]))[:, 0]
