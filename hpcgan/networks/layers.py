"""Shared layers, written against plain TensorFlow.

`tf.Module`s rather than Keras layers: the same code runs on the Keras 2 and Keras 3 lines of TensorFlow,
every variable has a name of its own for the checkpoint, and initial weights derive from (seed, name)
so that all ranks hold the same bits without asking one another. Tensors are NHWC; for detector images H
is eta and W is phi.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf
from scipy.special import ndtr, ndtri

from hpcgan import rng
from hpcgan.comm.base import Comm

Tensors = Mapping[str, tf.Tensor]
Padding = Literal["zero", "circular"]
Upsampling = Literal["transposed", "nearest"]

#: Standard deviation of a standard normal variable that is cut at -2 and 2.
_STDDEV_CUT_AT_TWO = math.sqrt(1.0 - 4.0 * math.exp(-2.0) / math.sqrt(2.0 * math.pi) / math.erf(math.sqrt(2.0)))


class Initializer:
    """Draws initial weights from (seed, variable name).

    Parameters
    ----------
    seed : int
    dtype : str
        `float32` or `float64`.
    """

    def __init__(self, seed: int, dtype: str = "float32") -> None:
        self.seed = seed
        self.dtype = dtype

    def kaiming_uniform(self, name: str, shape: tuple[int, ...], fan_in: float) -> tf.Variable:
        """Uniform within +-1/sqrt(fan_in): He et al. (arXiv:1502.01852) with a = sqrt(5), as PyTorch does."""
        bound = 1.0 / math.sqrt(fan_in)
        return self._symmetric(name, shape, bound)

    def he_uniform(self, name: str, shape: tuple[int, ...], fan_in: float, gain: float) -> tf.Variable:
        """Uniform of variance gain / fan_in: gain 2 before a rectifier (He et al. 2015, eq. 10), else 1."""
        return self._symmetric(name, shape, math.sqrt(3.0 * gain / fan_in))

    def glorot_uniform(self, name: str, shape: tuple[int, ...], fan_in: float, fan_out: float) -> tf.Variable:
        """Uniform of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 16)."""
        return self._symmetric(name, shape, math.sqrt(6.0 / (fan_in + fan_out)))

    def glorot_normal(self, name: str, shape: tuple[int, ...], fan_in: float, fan_out: float) -> tf.Variable:
        """Normal of variance 2 / (fan_in + fan_out), cut at two standard deviations of the uncut one, as in Keras."""
        tail = float(ndtr(-2.0))
        draws = ndtri(tail + (1.0 - 2.0 * tail) * self._uniform(name, shape))
        stddev = math.sqrt(2.0 / (fan_in + fan_out)) / _STDDEV_CUT_AT_TWO
        return tf.Variable(draws * stddev, name=name, dtype=self.dtype)

    def normal(self, name: str, shape: tuple[int, ...], stddev: float) -> tf.Variable:
        """Normal around zero: 0.02 everywhere in the DCGAN of Radford et al. (arXiv:1511.06434)."""
        draws = rng.normal(self.seed, f"init/{name}", 0, 0, 1, int(np.prod(shape))).reshape(shape)
        return tf.Variable(draws * stddev, name=name, dtype=self.dtype)

    def direction(self, name: str, length: int) -> tf.Variable:
        """A random direction: a vector of norm one, which no gradient changes."""
        draws = rng.normal(self.seed, f"init/{name}", 0, 0, 1, length)[0]
        return tf.Variable(draws / np.linalg.norm(draws), name=name, dtype=self.dtype, trainable=False)

    def kernel(
        self,
        name: str,
        shape: tuple[int, ...],
        fan_in: float,
        *,
        stddev: float | None = None,
        gain: float | None = None,
        fan_out: float | None = None,
    ) -> tf.Variable:
        """Of a layer: normal with `stddev`, He's with `gain`, Glorot's uniform one with `fan_out`, or as PyTorch's."""
        if stddev is not None:
            return self.normal(name, shape, stddev)
        if gain is not None:
            return self.he_uniform(name, shape, fan_in, gain)
        if fan_out is not None:
            return self.glorot_uniform(name, shape, fan_in, fan_out)
        return self.kaiming_uniform(name, shape, fan_in)

    def constant(self, name: str, shape: tuple[int, ...], value: float, trainable: bool = True) -> tf.Variable:
        """All entries the same."""
        return tf.Variable(np.full(shape, value), name=name, dtype=self.dtype, trainable=trainable)

    def _symmetric(self, name: str, shape: tuple[int, ...], bound: float) -> tf.Variable:
        draws = self._uniform(name, shape)
        return tf.Variable((2.0 * draws - 1.0) * bound, name=name, dtype=self.dtype)

    def _uniform(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(self.seed, f"init/{name}", 0, 0, 1, int(np.prod(shape))).reshape(shape)


class Batches:
    """Encoded samples of the whole training split as tensors, read anew each time that they are gone through.

    Parameters
    ----------
    batches : callable
        Gives the samples batch by batch.
    dtype : str
    """

    def __init__(self, batches: Callable[[], Iterable[Mapping[str, np.ndarray]]], dtype: str) -> None:
        self._batches, self._dtype = batches, dtype

    def __iter__(self) -> Iterator[Mapping[str, tf.Tensor]]:
        for batch in self._batches():
            yield {name: tf.constant(values, self._dtype) for name, values in batch.items()}


class Network(tf.Module):
    """A module whose variables can be listed by name.

    Calls take `training` (batch statistics instead of moving ones) and `update` (whether the moving
    statistics follow the batch).
    """

    def pair(self, real: Tensors, fake: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """A discriminator's logits of both: separate passes, since batch norm must not mix them."""
        return self(real, training=True), self(fake, training=True)

    @property
    def weights(self) -> list[tf.Variable]:
        """Variables that gradients change."""
        return list(self.trainable_variables)

    @property
    def statistics(self) -> list[tf.Variable]:
        """Variables that follow the data: moving averages of the layers that look at a batch as a whole."""
        layers = [module for module in self.submodules if isinstance(module, BatchStatistic)]
        return [variable for layer in layers for variable in layer.non_trainable_variables]

    @property
    def named(self) -> dict[str, tf.Variable]:
        """All variables by name.

        Raises
        ------
        ValueError
            Two variables share a name: the checkpoint could not tell them apart.
        """
        variables: dict[str, tf.Variable] = {}
        for variable in self.variables:
            name = variable.name.removesuffix(":0")
            if name in variables:
                raise ValueError(f"two variables are named '{name}'")
            variables[name] = variable
        return variables


def uniform_of(normal: tf.Tensor) -> tf.Tensor:
    """The uniform numbers, 0 to 1, that standard normal ones stand for."""
    return 0.5 * tf.math.erfc(-normal / math.sqrt(2.0))


def unfused_leaky_relu(x: tf.Tensor, slope: float) -> tf.Tensor:
    """For after a bias: with `tf.nn.leaky_relu` there TensorFlow's remapper fails, and says so in every training."""
    return tf.maximum(float(np.float32(slope)) * x, x)  # the op's slope is of single precision, whatever x is


def wrap_phi(x: tf.Tensor, width: int) -> tf.Tensor:
    """Extend the phi axis (the third) by `width` columns of the other edge on both sides."""

    @tf.custom_gradient
    def wrap(x: tf.Tensor) -> tuple[tf.Tensor, object]:
        def backward(upstream: tf.Tensor) -> tf.Tensor:
            # By concatenation: the generic gradient of the slices pads each to full size and adds them.
            first = upstream[:, :, width : 2 * width] + upstream[:, :, -width:]
            last = upstream[:, :, -2 * width : -width] + upstream[:, :, :width]
            return tf.concat([first, upstream[:, :, 2 * width : -2 * width], last], axis=2)

        return tf.concat([x[:, :, -width:], x, x[:, :, :width]], axis=2), backward

    return wrap(x)


def _cut_phi(x: tf.Tensor, width: int) -> tf.Tensor:
    """Take `width` columns off both sides of the phi axis."""

    @tf.custom_gradient
    def cut(x: tf.Tensor) -> tuple[tf.Tensor, object]:
        def backward(upstream: tf.Tensor) -> tf.Tensor:
            return tf.pad(upstream, [[0, 0], [0, 0], [width, width], [0, 0]])

        return x[:, :, width:-width], backward

    return cut(x)


#: Up to so many channels `transposed_to_few` is the faster way (a third of the time for 1, four fifths for 16).
_FEW = 16


def transposed_to_few(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`conv2d_transpose` of stride 2 with SAME padding, to a few channels.

    (n, h, w, i), (s, s, c, i) -> (n, 2h, 2w, c), s = 4 or 5. TensorFlow's kernel is made for many channels, and reaches
    a thirtieth of the machine's speed for one. Here each place between input pixels makes the 2x2 output pixels
    around it in one ordinary convolution to 4c channels: of stride 1 and half the kernel's size, since an output pixel
    takes every other row of the kernel. Output row 2a - 1 + p, p in {0, 1}, takes kernel row 2u + p from input row
    a - u. The gradient is the ordinary one.
    """

    @tf.custom_gradient
    def folded(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, object]:
        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.nn.conv2d(upstream, kernel, 2, "SAME"), _kernel_gradient(upstream, kernel, x)

        size, channels, inputs = kernel.shape[0], kernel.shape[2], kernel.shape[3]
        height, width, half = x.shape[1], x.shape[2], (size + 1) // 2
        whole = tf.pad(kernel, [[0, 2 * half - size]] * 2 + [[0, 0]] * 2)
        parts = tf.reverse(tf.reshape(whole, [half, 2, half, 2, channels, inputs]), [0, 2])
        parts = tf.reshape(tf.transpose(parts, [0, 2, 5, 1, 3, 4]), [half, half, inputs, 4 * channels])
        margin = [half - 1, 1]
        z = tf.nn.conv2d(x, parts, 1, [[0, 0], margin, margin, [0, 0]])
        z = tf.reshape(z, [-1, height + 1, width + 1, 2, 2 * channels])
        z = tf.reshape(tf.transpose(z, [0, 1, 3, 2, 4]), [-1, 2 * height + 2, 2 * width + 2, channels])
        return z[:, 1:-1, 1:-1], backward

    return folded(x, kernel)


def convolve_few(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`conv2d` of stride 2 with SAME padding, of a few channels: its gradient by `transposed_to_few`.

    (n, h, w, c), (s, s, c, o) -> (n, h / 2, w / 2, o), s = 4 or 5.
    """

    @tf.custom_gradient
    def convolved(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, object]:
        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return transposed_to_few(upstream, kernel), _kernel_gradient(x, kernel, upstream)

        return tf.nn.conv2d(x, kernel, 2, "SAME"), backward

    return convolved(x, kernel)


def _kernel_gradient(large: tf.Tensor, kernel: tf.Tensor, small: tf.Tensor) -> tf.Tensor:
    """Gradient of the kernel of a convolution from `large` to `small`, stride 2, SAME."""
    return tf.raw_ops.Conv2DBackpropFilter(
        input=large, filter_sizes=kernel.shape, out_backprop=small, strides=[1, 2, 2, 1], padding="SAME"
    )


class SpectralNorm(tf.Module):
    """A kernel over its largest singular value (Miyato et al. 2018, arXiv:1802.05957, eq. 8 and algorithm 1).

    The kernel is a matrix K of all its axes but the last against the last, the outputs. Its largest singular value is
    taken as sigma = |K u| with a direction u of the outputs, which each power iteration replaces by that of K^T v,
    v = K u / |K u|. Gradients take u for a constant; the derivative of |K u| is then v u^T, that of v^T K u with v
    constant, too. A call takes the u there is, `iterate` moves it.

    Parameters
    ----------
    init : Initializer
    kernel : (..., outputs) tf.Variable
    """

    def __init__(self, init: Initializer, kernel: tf.Variable) -> None:
        name = kernel.name.removesuffix(":0")
        super().__init__(f"spectral_norm_{name}".replace("/", "_"))
        self.of = kernel
        outputs = kernel.shape[-1]
        self.direction = init.direction(f"{name}/direction", outputs)

    def _matrix(self) -> tf.Tensor:
        return tf.reshape(self.of, [-1, self.of.shape[-1]])

    def sigma(self) -> tf.Tensor:
        """The largest singular value, as far as the iterations have come."""
        return tf.norm(tf.linalg.matvec(self._matrix(), tf.stop_gradient(self.direction.read_value())))

    def iterate(self) -> None:
        """One power iteration."""
        matrix = self._matrix()
        v = tf.linalg.l2_normalize(tf.linalg.matvec(matrix, self.direction), epsilon=_TINY)
        u = tf.linalg.matvec(matrix, v, transpose_a=True)
        self.direction.assign(tf.linalg.l2_normalize(u, epsilon=_TINY))

    def __call__(self) -> tf.Tensor:
        return self.of / self.sigma()


_TINY = 1e-30  # squared norms of nothing


def spectral_norms(network: tf.Module) -> list[SpectralNorm]:
    """Those of all kernels of a network. Their directions follow the weights alone: equal on all ranks as they are."""
    return [module for module in network.submodules if isinstance(module, SpectralNorm)]


def iterate_spectral_norms(network: tf.Module) -> None:
    """One power iteration of each: to be called once before each update of the network."""
    for norm in spectral_norms(network):
        norm.iterate()


class _WithKernel(tf.Module):
    """A layer with a kernel, which `spectral` has divided by its spectral norm."""

    kernel: tf.Variable
    spectral: SpectralNorm | None

    def _normalised_kernel(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.kernel) if self.spectral is None else self.spectral()


class Dense(_WithKernel):
    """Matrix multiplication with optional bias: (n, inputs) -> (n, outputs).

    To begin with, the kernel is normal with `stddev` and Glorot's uniform one with `glorot`, and the bias then zero.
    With `spectral` the kernel is divided by its spectral norm.
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        fan_in: int | None = None,
        stddev: float | None = None,
        spectral: bool = False,
        glorot: bool = False,
    ) -> None:
        super().__init__(name.replace("/", "_"))
        fan_in, fan_out = fan_in or inputs, outputs if glorot else None
        self.kernel = init.kernel(f"{name}/kernel", (inputs, outputs), fan_in, stddev=stddev, fan_out=fan_out)
        self.bias: tf.Variable | None = None
        if bias and (glorot or stddev is not None):
            self.bias = init.constant(f"{name}/bias", (outputs,), 0.0)
        elif bias:
            self.bias = init.kaiming_uniform(f"{name}/bias", (outputs,), fan_in)
        self.spectral = SpectralNorm(init, self.kernel) if spectral else None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        y = tf.matmul(x, self._normalised_kernel())
        return y if self.bias is None else y + self.bias


class Projection(_WithKernel):
    """What a discriminator's features say of the conditions: c^T V phi(x), (n, c), (n, features) -> (n,).

    Miyato and Koyama (arXiv:1802.05637), eq. 3, for conditions that are numbers: the exact form where the conditions
    are normal around a function of the sample. With `spectral` V is divided by its spectral norm.
    """

    def __init__(self, init: Initializer, name: str, conditions: int, features: int, *, spectral: bool = False) -> None:
        super().__init__(name.replace("/", "_"))
        self.kernel = init.kaiming_uniform(f"{name}/kernel", (conditions, features), features)
        self.spectral = SpectralNorm(init, self.kernel) if spectral else None

    def __call__(self, conditions: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.matmul(conditions, self._normalised_kernel()) * features, axis=1)


def stacked(tensors: Mapping[str, tf.Tensor], names: Sequence[str]) -> tf.Tensor:
    """Scalar conditions (n,) of the given names as (n, number of names)."""
    return tf.stack([tensors[name] for name in names], axis=1)


class Conv2D(_WithKernel):
    """Convolution of stride 2, 4x4 as a rule, that halves the size.

    With `padding="circular"`, which needs an even kernel, the phi axis is continued periodically, eta always with
    zeros. `gain` switches from the reference's initialisation to He's, `stddev` to normal weights; a bias begins at 0.
    With `spectral` the kernel is divided by its spectral norm.
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 4,
        stride: int = 2,
        padding: Padding = "zero",
        gain: float | None = None,
        stddev: float | None = None,
        bias: bool = False,
        spectral: bool = False,
    ) -> None:
        super().__init__(name.replace("/", "_"))
        shape, fan_in = (kernel, kernel, inputs, outputs), inputs * kernel * kernel
        self.kernel = init.kernel(f"{name}/kernel", shape, fan_in, stddev=stddev, gain=gain)
        self.bias = init.constant(f"{name}/bias", (outputs,), 0.0) if bias else None
        self.size, self.stride, self.padding = kernel, stride, padding
        self.spectral = SpectralNorm(init, self.kernel) if spectral else None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        kernel = self._normalised_kernel()
        if self.padding == "zero":
            y = self._with_zeros(x, kernel)
        else:
            margin = (self.size - self.stride) // 2
            x = tf.pad(wrap_phi(x, margin), [[0, 0], [margin, margin], [0, 0], [0, 0]])
            y = tf.nn.conv2d(x, kernel, self.stride, "VALID")
        return y if self.bias is None else tf.nn.bias_add(y, self.bias)

    def of_planes(self, planes: Sequence[tf.Tensor], levels: Sequence[tf.Tensor] = ()) -> tf.Tensor:
        """The same for channels that come one by one, each (n, h, w), or (1, h, w) if all samples have it alike.

        Faster than stacking few channels, and what all samples have alike is convolved once. `levels`, (n,) each, are
        channels that are constant over the image; they come last.
        """
        if self.padding != "zero":
            shape = tf.shape(planes[0])
            whole = [*planes, *(level[:, None, None] for level in levels)]
            return self(tf.stack([tf.broadcast_to(plane, shape) for plane in whole], axis=-1))
        kernels = tf.split(self._normalised_kernel(), len(planes) + len(levels), axis=2)
        parts = [self._with_zeros(plane[..., None], k) for plane, k in zip(planes, kernels)]
        ones = tf.ones([1, *planes[0].shape[1:], 1], planes[0].dtype)
        for level, k in zip(levels, kernels[len(planes) :]):
            parts.append(level[:, None, None, None] * self._with_zeros(ones, k))
        y = functools.reduce(tf.add, parts)
        return y if self.bias is None else tf.nn.bias_add(y, self.bias)

    def _with_zeros(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.stride == 2 and x.shape[-1] <= _FEW and self.size in (4, 5):
            return convolve_few(x, kernel)
        return tf.nn.conv2d(x, kernel, self.stride, "SAME")


class ConvTranspose2D(tf.Module):
    """Transposed convolution of stride 2, 4x4 as a rule: doubles the size (`Conv2D` backwards).

    With `upsampling="nearest"` it is the nearest-neighbour enlargement followed by a 3x3 convolution, which
    treats even and odd pixels alike where a free 4x4 kernel imprints a lattice (Odena et al. 2016,
    doi:10.23915/distill.00003). That is the same transposed convolution with a 4x4 kernel made of the 3x3 one.
    """

    def __init__(
        self,
        init: Initializer,
        name: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 4,
        padding: Padding = "zero",
        upsampling: Upsampling = "transposed",
        gain: float | None = None,
        stddev: float | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__(name.replace("/", "_"))
        size = 3 if upsampling == "nearest" else kernel
        shape = (size, size, outputs, inputs)
        # What an output pixel really sums over, or the fan of the reference's framework: its transposed weight is
        # (in, out, k, k).
        terms = 9 if upsampling == "nearest" else 4
        fan_in = outputs * size * size if gain is None else inputs * terms
        self.kernel = init.kernel(f"{name}/kernel", shape, fan_in, stddev=stddev, gain=gain)
        self.bias = init.constant(f"{name}/bias", (outputs,), 0.0) if bias else None
        self.outputs, self.padding, self.upsampling = outputs, padding, upsampling

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if self.padding == "circular":
            x = wrap_phi(x, 1)
        n, height, width = tf.shape(x)[0], x.shape[1], x.shape[2]
        size = [n, 2 * height, 2 * width, self.outputs]
        kernel = self._whole_kernel()
        if self.outputs <= _FEW and kernel.shape[0] in (4, 5):
            y = transposed_to_few(x, kernel)
        else:
            y = tf.nn.conv2d_transpose(x, kernel, size, 2, "SAME")
        y = _cut_phi(y, 2) if self.padding == "circular" else y
        return y if self.bias is None else tf.nn.bias_add(y, self.bias)

    def _whole_kernel(self) -> tf.Tensor:
        if self.upsampling == "transposed":
            return tf.convert_to_tensor(self.kernel)
        rows = tf.pad(self.kernel, [[0, 1], [0, 0], [0, 0], [0, 0]]) + tf.pad(
            self.kernel, [[1, 0], [0, 0], [0, 0], [0, 0]]
        )
        return tf.pad(rows, [[0, 0], [0, 1], [0, 0], [0, 0]]) + tf.pad(rows, [[0, 0], [1, 0], [0, 0], [0, 0]])


class BatchStatistic(tf.Module):
    """A layer that looks at a batch as a whole: at the rank's own, or after `synchronise` at that of all ranks.

    Attributes
    ----------
    comm : Comm or None
        Way to the other ranks, if it sees theirs.
    scope : "local", "global" or None
        What the layer sees whatever holds for the others; None: as they.
    """

    comm: Comm | None = None
    scope: Literal["local", "global"] | None = None


def synchronise(network: tf.Module, comm: Comm, scope: Literal["local", "global"] = "global") -> None:
    """Let the layers of a network that look at a batch as a whole see that of all ranks.

    Parameters
    ----------
    network : tf.Module
    comm : Comm
    scope : "local" or "global"
        Of the layers that have none of their own.
    """
    for module in network.submodules:
        if isinstance(module, BatchStatistic) and (module.scope or scope) == "global" and comm.size > 1:
            module.comm = comm


class MinibatchStddev(BatchStatistic):
    """Adds one constant channel: the mean standard deviation of the features over the batch.

    Karras et al. (arXiv:1710.10196), section 3. A batch that holds several groups is cut into equal parts, each of
    which gets its own.
    """

    def __call__(self, x: tf.Tensor, groups: int) -> tf.Tensor:
        channels = []
        for part in tf.split(x, groups):
            if self.comm is None:
                variance = tf.math.reduce_variance(part, axis=0)
            else:
                mean = self.comm.allreduce(tf.reduce_mean(part, axis=0), f"{self.name}.mean")
                variance = self.comm.allreduce(tf.reduce_mean(tf.square(part - mean), axis=0), f"{self.name}.variance")
            deviation = tf.reduce_mean(tf.sqrt(variance + 1e-8))
            channels.append(tf.fill(tf.concat([tf.shape(part)[:3], [1]], 0), deviation))
        return tf.concat([x, tf.concat(channels, axis=0)], axis=-1)


class BatchNorm(BatchStatistic):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy, arXiv:1502.03167).

    Training uses the statistics of the batch; moving averages follow them as
    new = momentum * old + (1 - momentum) * batch, with the unbiased variance.
    """

    def __init__(
        self, init: Initializer, name: str, channels: int, *, momentum: float = 0.9, epsilon: float = 1e-5
    ) -> None:
        super().__init__(name.replace("/", "_"))
        self.scale = init.constant(f"{name}/scale", (channels,), 1.0)
        self.offset = init.constant(f"{name}/offset", (channels,), 0.0)
        self.mean = init.constant(f"{name}/moving_mean", (channels,), 0.0, trainable=False)
        self.variance = init.constant(f"{name}/moving_variance", (channels,), 1.0, trainable=False)
        self.momentum, self.epsilon = momentum, epsilon

    def __call__(self, x: tf.Tensor, training: bool, update: bool = True) -> tf.Tensor:
        if not training:
            factor = self.scale * tf.math.rsqrt(self.variance + self.epsilon)
            return x * factor + (self.offset - self.mean * factor)
        y, mean, variance = self._normalise(x)
        if update:
            self.mean.assign(self.momentum * self.mean + (1.0 - self.momentum) * mean)
            self.variance.assign(self.momentum * self.variance + (1.0 - self.momentum) * variance)
        return y

    def _normalise(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if self.comm is not None:
            return self._normalise_over_ranks(x, self.comm)
        if x.dtype == tf.float32:
            images = x if x.shape.rank == 4 else x[:, None, None, :]
            y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=images,
                scale=self.scale,
                offset=self.offset,
                mean=tf.constant([], tf.float32),
                variance=tf.constant([], tf.float32),
                epsilon=self.epsilon,
                is_training=True,
            )
            return tf.reshape(y, tf.shape(x)), mean, variance
        mean, variance = _moments(x, list(range(x.shape.rank - 1)))  # the fused kernel knows no float64
        count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
        y = (x - mean) * tf.math.rsqrt(variance + self.epsilon) * self.scale + self.offset
        mean, variance = (tf.reshape(moment, [-1]) for moment in (mean, variance))
        return y, mean, variance * count / tf.maximum(count - 1.0, 1.0)

    def _normalise_over_ranks(self, x: tf.Tensor, comm: Comm) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        axes = list(range(x.shape.rank - 1))
        # Both moments in one collective. They are taken about the moving mean, the same on all ranks and near the
        # batch's, so that nothing large cancels in the variance.
        about = tf.stop_gradient(self.mean.read_value())
        shifted = x - about
        moments = tf.stack([tf.reduce_mean(shifted, axes), tf.reduce_mean(tf.square(shifted), axes)])
        first, second = tf.unstack(comm.allreduce(moments, f"{self.name}.moments"))
        variance = tf.maximum(second - tf.square(first), 0.0)
        y = (shifted - first) * tf.math.rsqrt(variance + self.epsilon) * self.scale + self.offset
        count = tf.cast(tf.size(x) // x.shape[-1] * comm.size, x.dtype)
        return y, about + first, variance * count / tf.maximum(count - 1.0, 1.0)


def _moments(x: tf.Tensor, axes: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance over some axes, which are kept with length one.

    Not `tf.nn.moments`: it takes the mean for a constant in the variance, which is right for first derivatives but not
    for the second ones that penalties on a gradient need.
    """
    mean = tf.reduce_mean(x, axes, keepdims=True)
    return mean, tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=True)


class LayerNorm(tf.Module):
    """Layer normalisation of each sample by itself, over all axes but the first (Ba et al. 2016, arXiv:1607.06450).

    Scale and offset are those of a channel, as in the critics of Gulrajani et al. (arXiv:1704.00028).
    """

    def __init__(self, init: Initializer, name: str, channels: int, *, epsilon: float = 1e-5) -> None:
        super().__init__(name.replace("/", "_"))
        self.scale = init.constant(f"{name}/scale", (channels,), 1.0)
        self.offset = init.constant(f"{name}/offset", (channels,), 0.0)
        self.epsilon = epsilon

    def __call__(self, x: tf.Tensor, training: bool, update: bool = True) -> tf.Tensor:
        mean, variance = _moments(x, list(range(1, x.shape.rank)))
        return (x - mean) * tf.math.rsqrt(variance + self.epsilon) * self.scale + self.offset


class Identity(tf.Module):
    """No normalisation."""

    def __call__(self, x: tf.Tensor, training: bool, update: bool = True) -> tf.Tensor:
        return x


def normalisation(init: Initializer, name: str, channels: int, kind: str) -> BatchNorm | LayerNorm | Identity:
    """What normalises the features of a layer: `batch`, `layer`, or nothing (`none`, and `spectral`, of weights)."""
    if kind == "batch":
        return BatchNorm(init, name, channels)
    return LayerNorm(init, name, channels) if kind == "layer" else Identity()
