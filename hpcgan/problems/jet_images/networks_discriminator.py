"""Discriminators of jet images, which also tell the class: LAGAN's, and those it was compared with (arXiv:1701.05927).

What is not set here is as in Keras 1, see `networks_generator`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import tensorflow as tf

from hpcgan.networks.capabilities import AuxiliaryClassifier, Origin, Randomised
from hpcgan.networks.layers import BatchNorm, Conv2D, Dense, Initializer, Tensors, unfused_leaky_relu
from hpcgan.networks.local import LocallyConnected2D, SharedConv2D, cells_first, pad_cells, samples_first
from hpcgan.networks.minibatch import MinibatchDiscrimination
from hpcgan.networks.stateless import RANDOM, dropout, uniform
from hpcgan.problems.jet_images.files import IMAGE, SIDE, SIGNAL
from hpcgan.problems.jet_images.networks_layers import EPSILON, FANS, MOMENTUM, SLOPE, ValidConv2D

if TYPE_CHECKING:
    from hpcgan.problems.jet_images.problem import JetsModel

KERNELS, DIMS = 20, 10  # of minibatch discrimination
#: Streams of random numbers: of the layers of images, of layers that see all of the layer before, and of flips.
LAYERS, CONNECTED, FLIPS = 0, 100, 200


class Tower(tf.Module):
    """Images (n, 25, 25) to features (n, `width`); `random` is what numbers of dropout are drawn by."""

    width: int

    def __init__(self, name: str, rate: float) -> None:
        super().__init__(name.replace("/", "_"))
        self.rate = rate

    def __call__(self, image: tf.Tensor, random: tf.Tensor | None, training: bool, update: bool) -> tf.Tensor:
        raise NotImplementedError


class LocatedTower(Tower):
    """LAGAN: a shared 5 x 5 convolution to 32 channels, then three layers with weights of their own at every place.

    5 x 5 of stride 2 to 13 x 13 places of 8 channels, 5 x 5, 3 x 3 of stride 2 to 7 x 7, of which means of 2 x 2 are 72
    features. Each has a leaky ReLU, batch norm but the first, and dropout.
    """

    width = 72

    def __init__(self, init: Initializer, name: str, rate: float) -> None:
        super().__init__(name, rate)
        self.conv = SharedConv2D(init, f"{name}/conv", 1, 32, kernel=(5, 5))
        shapes = (((29, 29), 32, (5, 5), (2, 2)), ((17, 17), 8, (5, 5), (1, 1)), ((15, 15), 8, (3, 3), (2, 2)))
        self.locals = [
            LocallyConnected2D(
                init, f"{name}/local{i}", cells, inputs, 8, kernel=kernel, stride=stride, fans=FANS, bias=[0.0] * 8
            )
            for i, (cells, inputs, kernel, stride) in enumerate(shapes)
        ]
        self.norms = [BatchNorm(init, f"{name}/norm{i}", 8, momentum=MOMENTUM, epsilon=EPSILON) for i in range(3)]

    def __call__(self, image: tf.Tensor, random: tf.Tensor | None, training: bool, update: bool) -> tf.Tensor:
        x = unfused_leaky_relu(self.conv(cells_first(image)[..., None]), SLOPE)
        x = self._dropout(x, random, 0)
        for i, (local, norm) in enumerate(zip(self.locals, self.norms, strict=True), start=1):
            margin = (local.size[0] // 2, local.size[1] // 2)
            x = norm(unfused_leaky_relu(local(pad_cells(x, margin, margin)), SLOPE), training, update)
            x = self._dropout(x, random, i)
        rows, columns = x.shape[0] // 2, x.shape[1] // 2
        cells = tf.reshape(x[: 2 * rows, : 2 * columns], [rows, 2, columns, 2, -1, x.shape[3]])
        return tf.reshape(samples_first(tf.reduce_mean(cells, axis=[1, 3])), [-1, self.width])

    def _dropout(self, x: tf.Tensor, random: tf.Tensor | None, layer: int) -> tf.Tensor:
        """Of x (h, w, n, c): numbers are drawn sample by sample."""
        if random is None or self.rate == 0.0:
            return x
        ones = tf.ones([tf.shape(x)[2], x.shape[0] * x.shape[1] * x.shape[3]], x.dtype)
        mask = tf.reshape(dropout(ones, random, LAYERS + layer, self.rate), [-1, x.shape[0], x.shape[1], x.shape[3]])
        return x * cells_first(mask)


class ConvolvedTower(Tower):
    """DCGAN: convolutions 5 x 5 to 32, 64 (stride 2), 128 and 3 x 3 to 256 (stride 2) channels, means of 2 x 2."""

    width = 3 * 3 * 256

    def __init__(self, init: Initializer, name: str, rate: float) -> None:
        super().__init__(name, rate)
        self.convs: list[Conv2D | ValidConv2D] = []
        for i, (inputs, outputs, stride) in enumerate(((1, 32, 1), (32, 64, 2), (64, 128, 1))):
            gain = 2.0 * inputs / (inputs + outputs)  # that of Glorot's weights: the kernel's size cancels
            place = f"{name}/conv{i}"
            self.convs.append(Conv2D(init, place, inputs, outputs, kernel=5, stride=stride, gain=gain, bias=True))
        self.convs.append(ValidConv2D(init, f"{name}/conv3", (3, 3, 128, 256), stride=2))
        self.norms = [
            BatchNorm(init, f"{name}/norm{i}", channels, momentum=MOMENTUM, epsilon=EPSILON)
            for i, channels in enumerate((64, 128, 256))
        ]

    def __call__(self, image: tf.Tensor, random: tf.Tensor | None, training: bool, update: bool) -> tf.Tensor:
        x = image[..., None]
        for i, conv in enumerate(self.convs):
            x = unfused_leaky_relu(conv(x), SLOPE)
            x = self.norms[i - 1](x, training, update) if i else x
            x = dropout(x, random, LAYERS + i, self.rate)
        return tf.reshape(tf.nn.avg_pool2d(x, 2, 2, "VALID"), [-1, self.width])


class ConnectedTower(Tower):
    """Layers of 1024, 512 and 128 units, each of which sees all of the layer before."""

    width = 128

    def __init__(self, init: Initializer, name: str, rate: float) -> None:
        super().__init__(name, rate)
        widths = (SIDE * SIDE, 1024, 512, self.width)
        self.layers = [
            Dense(init, f"{name}/dense{i}", inputs, outputs, glorot=True)
            for i, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        ]

    def __call__(self, image: tf.Tensor, random: tf.Tensor | None, training: bool, update: bool) -> tf.Tensor:
        x = tf.reshape(image, [-1, SIDE * SIDE])
        for i, layer in enumerate(self.layers):
            x = dropout(unfused_leaky_relu(layer(x), SLOPE), random, CONNECTED + i, self.rate)
        return x


class HybridTower(Tower):
    """The features of a `ConnectedTower` and those of a `ConvolvedTower`."""

    width = ConnectedTower.width + ConvolvedTower.width

    def __init__(self, init: Initializer, name: str, rate: float) -> None:
        super().__init__(name, rate)
        self.connected = ConnectedTower(init, f"{name}/connected", rate)
        self.convolved = ConvolvedTower(init, f"{name}/convolved", rate)

    def __call__(self, image: tf.Tensor, random: tf.Tensor | None, training: bool, update: bool) -> tf.Tensor:
        towers = (self.connected, self.convolved)
        return tf.concat([tower(image, random, training, update) for tower in towers], axis=1)


TOWERS: Mapping[str, Callable[[Initializer, str, float], Tower]] = {
    "lagan": LocatedTower,
    "dcgan": ConvolvedTower,
    "fc": ConnectedTower,
    "hybrid": HybridTower,
}


class Discriminator(AuxiliaryClassifier, Randomised):
    """`image` (n, 25, 25), encoded -> logits (n,) of being real; `judge` also tells the class.

    Both logits are linear in the features of a tower and their nearness to those of the other images of the batch
    (`MinibatchDiscrimination`). The class, `signal`, is not shown to it. In training the classes of generated images
    are told wrongly with the probabilities `class_flip`.
    """

    def __init__(self, config: JetsModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("discriminator")
        init = Initializer(seed, dtype)
        self.tower = TOWERS[config.architecture](init, "discriminator", config.dropout)
        self.minibatch = MinibatchDiscrimination(
            init,
            "discriminator/minibatch",
            [self.tower.width],
            kernels=KERNELS,
            dims=DIMS,
            scope=config.minibatch_discrimination,
            fans=FANS,
        )
        inputs = KERNELS + self.tower.width
        self.head = Dense(init, "discriminator/head", inputs, 1, glorot=True)
        self.class_head = Dense(init, "discriminator/class", inputs, 1, glorot=True)
        self.class_weight, self.class_flip = config.class_weight, config.class_flip

    def features(self, sample: Tensors, training: bool, update: bool = True) -> tf.Tensor:
        """What both logits are linear in, (n, 20 + width of the tower)."""
        seen = self.tower(sample[IMAGE], sample.get(RANDOM) if training else None, training, update)
        return tf.concat([*self.minibatch([seen]), seen], axis=1)

    def __call__(self, sample: Tensors, training: bool, update: bool = True) -> tf.Tensor:
        return self.head(self.features(sample, training, update))[:, 0]

    def judge(
        self, sample: Tensors, origin: Origin, training: bool, update: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor]:
        features = self.features(sample, training, update)
        of_class = self.class_head(features)[:, 0]
        truth = self._told(sample, origin)
        loss = tf.reduce_mean(tf.nn.softplus((1.0 - 2.0 * truth) * of_class))
        return self.head(features)[:, 0], self.class_weight * loss

    def _told(self, sample: Tensors, origin: Origin) -> tf.Tensor:
        """The classes (n,) as they are told in training, 0 or 1."""
        signal, random = sample[SIGNAL], sample.get(RANDOM)
        rate = {"real": 0.0, "fake": self.class_flip[0], "generator": self.class_flip[1]}[origin]
        if random is None or rate == 0.0:
            return signal
        flipped = uniform(random, FLIPS, 1, signal.dtype)[:, 0] < rate
        return tf.where(flipped, 1.0 - signal, signal)
