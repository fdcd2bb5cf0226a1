"""Unshared convolution: every place of an image has a kernel of its own.

Tensors here have the cells first, (h, w, n, c): what is done at each place is then a matrix product of the samples'
channels with that place's kernel, on blocks that lie together in memory, and cutting and padding images moves whole
blocks. Batch norm and activations, which ask only for channels last, are as for (n, h, w, c).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

from hpcgan.networks.layers import Initializer

Pair = tuple[int, int]
Initial = Literal["he_uniform", "glorot_uniform", "glorot_normal"]
Fans = Literal["layer", "geometric"]


def cells_first(x: tf.Tensor) -> tf.Tensor:
    """(n, h, w, ...) -> (h, w, n, ...)."""
    return tf.transpose(x, [1, 2, 0, *range(3, x.shape.rank)])


def samples_first(x: tf.Tensor) -> tf.Tensor:
    """(h, w, n, ...) -> (n, h, w, ...)."""
    return tf.transpose(x, [2, 0, 1, *range(3, x.shape.rank)])


def pad_cells(x: tf.Tensor, before: Pair, after: Pair) -> tf.Tensor:
    """Zeros around the first two axes."""
    margins = list(zip(before, after, strict=True))
    return tf.pad(x, margins + [(0, 0)] * (x.shape.rank - 2))


def patches(x: tf.Tensor, kernel: Pair) -> tf.Tensor:
    """What a kernel sees at each of its places: (h, w, n, c) -> (h', w', n, kernel cells * c), VALID, stride 1.

    Kernel cells run row by row, channels within them, as in a flattened (kernel rows, kernel columns, c).
    """
    height, width = (places(x.shape[axis], kernel[axis], 1) for axis in (0, 1))
    corners = itertools.product(range(kernel[0]), range(kernel[1]))
    return tf.concat([x[i : i + height, j : j + width] for i, j in corners], axis=-1)


def places(cells: int, kernel: int, stride: int) -> int:
    """Places of a kernel that lie within so many cells in a row."""
    return (cells - kernel) // stride + 1


def locally_connected(x: tf.Tensor, kernel: tf.Tensor, size: Pair, stride: Pair) -> tf.Tensor:
    """Unshared convolution, VALID: (h, w, n, c), (h', w', kernel cells * c, f) -> (h', w', n, f).

    y[p, n] = sum over the cells k of the kernel of x[stride p + k, n] K[p, k], with gradients of any order in either
    argument. Kernel cells run row by row, channels within them. The stride is no larger than the kernel.

    A layer has fewer outputs than inputs as a rule. So it is not the inputs that are collected at each place, of which
    every cell would be copied for each place that sees it, but at each cell its contributions to all places that see
    it, in one product, and the places add them up; the gradients likewise.
    """
    height, width = (-(-x.shape[axis] // stride[axis]) for axis in (0, 1))
    rows, columns = kernel.shape[0], kernel.shape[1]
    outputs = kernel.shape[3]
    # Cells that lie alike to the places see the same cells of their kernels: (u, v) strides away, kernel cell number k.
    phases = [
        [
            (i * size[1] + j, i // stride[0], j // stride[1])
            for i, j in itertools.product(range(a, size[0], stride[0]), range(b, size[1], stride[1]))
        ]
        for a, b in itertools.product(range(stride[0]), range(stride[1]))
    ]

    def to_cells(z: tf.Tensor, u: int, v: int) -> tf.Tensor:
        return pad_cells(z, (u, v), (height - u - rows, width - v - columns))

    def to_places(z: tf.Tensor, u: int, v: int) -> tf.Tensor:
        return z[u : u + rows, v : v + columns]

    def weights(kernel: tf.Tensor) -> list[tf.Tensor]:
        pieces = tf.split(kernel, size[0] * size[1], axis=2)
        return [tf.concat([to_cells(pieces[k], u, v) for k, u, v in phase], axis=3) for phase in phases]

    @tf.custom_gradient
    def connected(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, object]:
        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_cells, by_kernel = [], {}
            for phase, cells, weight in zip(phases, _cells_of(x, stride), weights(kernel), strict=True):
                seen = tf.concat([to_cells(upstream, u, v) for _, u, v in phase], axis=3)
                by_cells.append(tf.matmul(seen, weight, transpose_b=True))
                parts = tf.split(tf.matmul(cells, seen, transpose_a=True), len(phase), axis=3)
                by_kernel.update({k: to_places(part, u, v) for (k, u, v), part in zip(phase, parts, strict=True)})
            ordered = [by_kernel[k] for k in range(len(by_kernel))]
            return _whole(by_cells, stride)[: x.shape[0], : x.shape[1]], tf.concat(ordered, axis=2)

        terms = []
        for phase, cells, weight in zip(phases, _cells_of(x, stride), weights(kernel), strict=True):
            parts = tf.split(tf.matmul(cells, weight), len(phase), axis=3)
            terms += [to_places(part, u, v) for (_, u, v), part in zip(phase, parts, strict=True)]
        return tf.ensure_shape(tf.add_n(terms), [rows, columns, None, outputs]), backward

    return connected(x, kernel)


def _cells_of(x: tf.Tensor, stride: Pair) -> list[tf.Tensor]:
    """x[a::stride[0], b::stride[1]] for all a, b, zeros behind where cells are missing.

    By copying whole blocks: slices with a stride go through every single number.
    """
    if stride == (1, 1):
        return [x]
    height, width = (-(-x.shape[axis] // stride[axis]) for axis in (0, 1))
    x = pad_cells(x, (0, 0), (height * stride[0] - x.shape[0], width * stride[1] - x.shape[1]))
    x = tf.reshape(x, [height, stride[0], width * stride[1], tf.shape(x)[2], x.shape[3]])
    cells = []
    for row in tf.unstack(x, axis=1):
        cells += tf.unstack(tf.reshape(row, [height, width, stride[1], tf.shape(x)[3], x.shape[4]]), axis=2)
    return cells


def _whole(parts: Sequence[tf.Tensor], stride: Pair) -> tf.Tensor:
    """The image of which `parts` are `_cells_of`."""
    if stride == (1, 1):
        return parts[0]
    height, width, channels = parts[0].shape[0], parts[0].shape[1], parts[0].shape[3]
    samples, across = tf.shape(parts[0])[2], stride[1]
    rows = [
        tf.reshape(tf.stack(parts[a * across : (a + 1) * across], axis=2), [height, width * across, samples, channels])
        for a in range(stride[0])
    ]
    return tf.reshape(tf.stack(rows, axis=1), [height * stride[0], width * across, samples, channels])


class LocallyConnected2D(tf.Module):
    """A kernel of its own at every place, VALID: (h, w, n, inputs) -> (h', w', n, outputs).

    Parameters
    ----------
    init : Initializer
    name : str
    cells : (int, int)
        Height and width of the image.
    inputs, outputs : int
        Channels.
    kernel, stride : (int, int)
        The stride is no larger than the kernel.
    initial : {"he_uniform", "glorot_uniform", "glorot_normal"}
        Of the weights, with the fans that Keras gives this layer: its kernel is one array (h' w', kernel cells *
        inputs, outputs), and as for any kernel of more than two axes the first counts as a receptive field. So
        fan_in = h' w' * kernel cells * inputs and fan_out = h' w' * outputs, h' w' times what a place has, and weights
        begin smaller by the root of that: 20 times for a layer of 388 places.
    fans : "layer" or "geometric"
        The fans of `initial` are those; or both are the root of the number of weights, as Keras 1 has them.
    bias : sequence of float, optional
        Initial bias of each output, at all places; None: no bias.

    Raises
    ------
    ValueError
        The kernel has no place in the image, or the stride jumps over cells.
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        cells: Pair,
        inputs: int,
        outputs: int,
        *,
        kernel: Pair,
        stride: Pair = (1, 1),
        initial: Initial = "glorot_uniform",
        fans: Fans = "layer",
        bias: Sequence[float] | None = None,
    ) -> None:
        super().__init__(name.replace("/", "_"))
        if any(k > n for k, n in zip(kernel, cells, strict=True)):
            raise ValueError(f"{name}: a kernel of {kernel} does not fit into {cells} cells")
        if any(s > k for s, k in zip(stride, kernel, strict=True)):
            raise ValueError(f"{name}: a stride of {stride} leaves cells out between kernels of {kernel}")
        self.size, self.stride = kernel, stride
        height, width = places(cells[0], kernel[0], stride[0]), places(cells[1], kernel[1], stride[1])
        seen = kernel[0] * kernel[1] * inputs
        self.kernel = initialised(
            init,
            f"{name}/kernel",
            (height, width, seen, outputs),
            fans_of((height * width, seen, outputs), fans),
            initial,
        )
        self.bias: tf.Variable | None = None
        if bias is not None:
            self.bias = init.constant(f"{name}/bias", (height, width, outputs), 0.0)
            self.bias.assign(np.broadcast_to(bias, (height, width, outputs)))

    @property
    def places(self) -> Pair:
        """(h', w')."""
        return self.kernel.shape[0], self.kernel.shape[1]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        y = locally_connected(x, tf.convert_to_tensor(self.kernel), self.size, self.stride)
        return y if self.bias is None else y + self.bias[:, :, None]


class SharedConv2D(tf.Module):
    """The ordinary convolution of stride 1 with SAME padding and a bias, cells first, for few channels in.

    (h, w, n, inputs) -> (h, w, n, outputs). Glorot-uniform weights, zero bias. As everywhere in TensorFlow the odd one
    of the padded rows and columns is the last.
    """

    def __init__(self, init: Initializer, name: str, inputs: int, outputs: int, *, kernel: Pair) -> None:
        super().__init__(name.replace("/", "_"))
        self.size, cells = kernel, kernel[0] * kernel[1]
        shape = (*kernel, inputs, outputs)
        self.kernel = init.glorot_uniform(f"{name}/kernel", shape, cells * inputs, cells * outputs)
        self.bias = init.constant(f"{name}/bias", (outputs,), 0.0)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        extra = [size - 1 for size in self.size]
        before = (extra[0] // 2, extra[1] // 2)
        x = pad_cells(x, before, (extra[0] - before[0], extra[1] - before[1]))
        seen = patches(x, self.size)
        kernel = tf.reshape(self.kernel, [seen.shape[3], self.kernel.shape[3]])
        y = tf.matmul(tf.reshape(seen, [-1, seen.shape[3]]), kernel)
        y = tf.nn.bias_add(y, self.bias)
        return tf.reshape(y, [seen.shape[0], seen.shape[1], -1, kernel.shape[1]])


def fans_of(shape: tuple[int, int, int], fans: Fans) -> tuple[float, float]:
    """Fans of a kernel (places, inputs, outputs): with the places as a receptive field, or both alike."""
    if fans == "geometric":
        return (math.sqrt(math.prod(shape)),) * 2
    return shape[0] * shape[1], shape[0] * shape[2]


def initialised(
    init: Initializer, name: str, shape: tuple[int, ...], fans: tuple[float, float], initial: Initial
) -> tf.Variable:
    """A variable with weights of the named distribution; `fans` are (fan_in, fan_out)."""
    if initial == "he_uniform":
        return init.he_uniform(name, shape, fans[0], 2)
    draw: Callable[[str, tuple[int, ...], float, float], tf.Variable] = getattr(init, initial)
    return draw(name, shape, *fans)
