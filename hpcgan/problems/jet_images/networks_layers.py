"""What the networks of jet images share."""

from __future__ import annotations

import tensorflow as tf

from hpcgan.networks.layers import Initializer
from hpcgan.networks.local import Fans

SLOPE = 0.3  # of the leaky ReLU
MOMENTUM, EPSILON = 0.99, 1e-3  # of batch norm
FANS: Fans = "geometric"  # of kernels with three axes


class ValidConv2D(tf.Module):
    """Convolution without padding, with a bias: (n, h, w, inputs) -> (n, h', w', outputs).

    Parameters
    ----------
    init : Initializer
    name : str
    shape : (int, int, int, int)
        Rows and columns of the kernel, inputs, outputs.
    stride : int
    gain : float, optional
        He-uniform weights with it, else Glorot-uniform ones.
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        shape: tuple[int, int, int, int],
        *,
        stride: int = 1,
        gain: float | None = None,
    ) -> None:
        super().__init__(name.replace("/", "_"))
        cells = shape[0] * shape[1]
        fans = (cells * shape[2], cells * shape[3])
        self.kernel = init.kernel(f"{name}/kernel", shape, fans[0], gain=gain, fan_out=fans[1])
        self.bias = init.constant(f"{name}/bias", (shape[3],), 0.0)
        self.stride = stride

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.bias_add(tf.nn.conv2d(x, self.kernel, self.stride, "VALID"), self.bias)
