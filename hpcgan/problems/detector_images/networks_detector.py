"""A GAN for 64x64 calorimeter images that knows more of the detector than a DCGAN.

What differs from `hpcgan.problems.detector_images.networks_dcgan` (docs/model.md says why, and what was measured): phi
is periodic; the generator gets noise at every resolution, as showers fluctuate at every scale; its output is a
rectified power of the transverse momentum, whose gradient passes through the threshold; the discriminator sees the
linear scale, too, and sums of transverse momentum over growing windows, as jets do; it has no batch norm, which would
couple the events of a batch, but a statistic of the batch at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from hpcgan.networks.capabilities import Calibrated, Matched
from hpcgan.networks.drawn_total import DrawnTotal
from hpcgan.networks.layers import (
    Conv2D,
    ConvTranspose2D,
    Initializer,
    MinibatchStddev,
    Projection,
    SpectralNorm,
    normalisation,
    stacked,
)
from hpcgan.problems.detector_images.pixels import PARTS, Pixels, to_power
from hpcgan.problems.detector_images.spectrum import Spectrum

if TYPE_CHECKING:
    from hpcgan.problems.detector_images.rpv import RpvModel

SUMS = 23  # entries of `Discriminator.sums`
_NOISE_STRENGTH = 0.3  # of each channel at the start; trained


class Generator(Calibrated, Matched):
    """Noise (n, noise_dim) -> {"hist": (n, 64, 64)} encoded intensities.

    The first `latent_dim` numbers make the 4x4 start; with `pixel_noise` the others are one image of noise
    before each transposed convolution, added to every channel with a strength of its own (Karras et al.,
    arXiv:1812.04948).

    With `total_pt: drawn` the first latent number also fixes the event's summed transverse momentum, as the
    quantile of the training events' that it stands for, and the image is scaled to it: the network says how an
    event's momentum is shared among the pixels, the training sample how much there is. The table of quantiles is
    a constant of the network, so it is in every checkpoint. With conditions, which are more entries of the latent
    vector, the quantiles are functions of them (`hpcgan.networks.quantiles`).

    With `pixel_pt: matched` the spectrum of pixels is matched to the training events' (`spectrum.py`).

    With `pixel_channels` there is one more layer, at full resolution, with noise of its own, and its pixels are lit at
    random (`hpcgan.problems.detector_images.pixels`).
    """

    def __init__(self, config: RpvModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("generator")
        init = Initializer(seed, dtype)
        widths = [8 * config.filters, 4 * config.filters, 2 * config.filters, config.filters]
        self.latent_dim, self.conditions = config.latent_dim, config.conditions
        inputs = config.latent_dim + len(self.conditions)
        self.project = init.he_uniform("generator/project", (inputs, 16 * widths[0]), inputs, 1)
        last = [config.pixel_channels] if config.pixel_channels else []
        layers = list(enumerate([*widths, *last]))
        self.norms = [normalisation(init, f"generator/norm{i}", w, config.normalisation) for i, w in layers]
        self.ups = [
            ConvTranspose2D(
                init,
                f"generator/up{i}",
                a,
                b,
                padding="circular",
                upsampling=config.upsampling,
                gain=2 if i < 3 or last else 1,
            )
            for i, (a, b) in enumerate(zip(widths, [*widths[1:], *(last or [1])], strict=True))
        ]
        self.strengths = (
            [init.constant(f"generator/noise{i}", (w,), _NOISE_STRENGTH) for i, w in layers]
            if config.pixel_noise
            else []
        )
        self.pixels = (
            Pixels(
                init,
                "generator/pixels",
                last[0],
                config.encoded_thresholds,
                1.0 / config.exponent,
                config.linear_to_pt,
                dtype,
            )
            if config.pixel_channels
            else None
        )
        self.bias = None if config.pixel_channels else init.constant("generator/bias", (), 0.0)
        self.threshold = tf.constant(config.encoded_threshold, dtype)
        self.power, self.to_pt = 1.0 / config.exponent, tf.constant(config.linear_to_pt, dtype)
        matched = config.pixel_pt == "matched"
        self.spectrum = (
            Spectrum(init, "generator/spectrum", config.encoded_threshold, *config.spectrum_condition)
            if matched
            else None
        )
        self.total = (
            DrawnTotal(init, "generator", len(self.conditions), config.total_pt_knots)
            if config.total_pt == "drawn"
            else None
        )

    @property
    def constants(self) -> list[tf.Variable]:
        """The quantiles of ln(summed pT / 100 GeV), if it is drawn, where they are expanded in the conditions, and the
        spectrum of pixels to be matched.
        """
        total = [] if self.total is None else self.total.constants
        return total if self.spectrum is None else [*total, self.spectrum.real]

    @property
    def matching(self) -> Spectrum | None:
        return self.spectrum

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Set the quantiles to those of the training events; one without energy counts as 0.1 MeV."""
        sums, conditions = [], []
        for batch in batches if self.spectrum is None else self.spectrum.follow(batches):
            sums.append(self._total(batch["hist"]).numpy())
            if self.conditions:
                conditions.append(stacked(batch, self.conditions).numpy())
        if self.total is not None:  # else only the spectrum is measured, as events go by
            self.total.measure(sums, conditions)

    def __call__(
        self, noise: tf.Tensor, conditions: Mapping[str, tf.Tensor], training: bool, update: bool = True
    ) -> dict[str, tf.Tensor]:
        latent = noise[:, : self.latent_dim]
        inputs = stacked(conditions, self.conditions) if self.conditions else None
        x = tf.matmul(latent if inputs is None else tf.concat([latent, inputs], axis=1), self.project)
        x = tf.reshape(x, [-1, 4, 4, x.shape[1] // 16])
        start = self.latent_dim
        for i, norm in enumerate(self.norms):
            if self.strengths:
                size = x.shape[1]
                pixels = tf.reshape(noise[:, start : start + size * size], [-1, size, size, 1])
                x = x + pixels * self.strengths[i]
                start += size * size
            x = tf.nn.relu(norm(x, training, update))
            x = self.ups[i](x) if i < len(self.ups) else x
        log_total = None if self.total is None else self.total(noise[:, 0], inputs)
        if self.pixels is not None:
            planes = tf.reshape(noise[:, start:], [-1, PARTS, *x.shape[1:3]])
            return {"hist": self.pixels(x, planes, None if log_total is None else tf.exp(log_total))}
        t = tf.nn.relu(x[..., 0] + self.bias)
        if log_total is None:
            return {"hist": self._cut(t)}
        # Twice: the threshold takes a little away. The second factor is never below one, so all that passed the
        # threshold stays above it.
        return {"hist": self._scale(self._cut(self._scale(t, log_total)), log_total)}

    def _cut(self, t: tf.Tensor) -> tf.Tensor:
        """Zero under the threshold, but with the gradient of the identity: a pixel can come back."""
        below = tf.where(t > self.threshold, tf.zeros_like(t), t)
        return t - tf.stop_gradient(below)

    def _total(self, t: tf.Tensor) -> tf.Tensor:
        """Summed pT in 100 GeV of encoded images."""
        return tf.reduce_sum(to_power(t, self.power) * self.to_pt, axis=[1, 2])

    def _scale(self, t: tf.Tensor, log_total: tf.Tensor) -> tf.Tensor:
        """All energies of an image times one factor, so that the summed pT is exp(log_total) 100 GeV."""
        # An empty image stays empty.
        factor = tf.exp((log_total - tf.math.log(self._total(t) + 1e-6)) / self.power)
        return t * factor[:, None, None]


class Discriminator(Calibrated):
    """{"hist": (n, 64, 64)} encoded -> logits (n,). With spectral norm every kernel has it.

    Conditions are constant channels of the image and inputs of the hidden layers, or projected on all that the logit is
    made of: the features of the head and the last hidden layer.
    """

    def __init__(self, config: RpvModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("discriminator")
        init = Initializer(seed, dtype)
        spectral = config.discriminator_normalisation == "spectral"
        widths = [config.filters, 2 * config.filters, 4 * config.filters, 8 * config.filters]
        self.power, self.to_pt = 1.0 / config.exponent, tf.constant(config.linear_to_pt, dtype)
        self.eta = tf.constant(np.broadcast_to(config.absolute_eta, (1, 64, 64)), dtype)
        self.channels, self.projected = config.channel_conditions, config.projected_conditions
        self.downs = [
            Conv2D(init, f"discriminator/down{i}", a, b, padding=config.phi_padding, gain=2, spectral=spectral)
            for i, (a, b) in enumerate(zip([3 + len(self.channels), *widths[:-1]], widths, strict=True))
        ]
        self.biases = [init.constant(f"discriminator/bias{i}", (w,), 0.0) for i, w in enumerate(widths)]
        self.windows = Windows(config.light_cone if config.pooled_mass or config.hidden_units else None, dtype)
        self.pooled_mass = config.pooled_mass
        inputs = 4 if config.pooled_mass else 2
        self.pooled = (
            [init.he_uniform(f"discriminator/pooled{i}", (1, 1, inputs, w), inputs, 1) for i, w in enumerate(widths)]
            if config.pooled_pt
            else []
        )
        self.minibatch = MinibatchStddev("minibatch_stddev") if config.minibatch_stddev else None
        last = widths[-1] + int(config.minibatch_stddev)
        features = 16 * last + 2
        self.head = init.he_uniform("discriminator/head", (features, 1), features, 1)
        self.head_bias = init.constant("discriminator/head_bias", (), 0.0)
        # A head that is linear in the features of 4x4 places compares means of what is counted over the image,
        # such as jets or total momentum, but not their spread; hidden layers on the sums do.
        units = config.hidden_units
        inputs = last + SUMS + len(self.channels)
        self.hidden = (
            [
                init.he_uniform("discriminator/hidden", (inputs, units), inputs, 2),
                init.constant("discriminator/hidden_bias", (units,), 0.0),
                init.he_uniform("discriminator/hidden2", (units, units), units, 2),
                init.constant("discriminator/hidden2_bias", (units,), 0.0),
                init.he_uniform("discriminator/hidden_out", (units, 1), units, 1),
            ]
            if units
            else []
        )
        self.projection = (
            Projection(init, "discriminator/projection", len(self.projected), features + units, spectral=spectral)
            if self.projected
            else None
        )
        self.sums_scale = (
            [
                init.constant("discriminator/sums_mean", (SUMS,), 0.0, trainable=False),
                init.constant("discriminator/sums_deviation", (SUMS,), 1.0, trainable=False),
            ]
            if units
            else []
        )
        kernels = [*self.pooled, self.head, *self.hidden[::2]]
        self.spectral = {kernel.name: SpectralNorm(init, kernel) for kernel in kernels} if spectral else {}

    def _kernel(self, variable: tf.Variable) -> tf.Tensor:
        """A kernel of a layer written out below, over its spectral norm if it has one."""
        norm = self.spectral.get(variable.name)
        return variable if norm is None else norm()

    @property
    def constants(self) -> list[tf.Variable]:
        """Mean and standard deviation of the sums of real events."""
        return list(self.sums_scale)

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Measure the sums of the training events."""
        if self.sums_scale:
            sums = np.concatenate([self.sums(batch["hist"]).numpy() for batch in batches]).astype(np.float64)
            self.sums_scale[0].assign(sums.mean(axis=0))
            self.sums_scale[1].assign(np.maximum(sums.std(axis=0), 1e-3))

    def sums(self, t: tf.Tensor) -> tf.Tensor:
        """What is summed over an image, (n, SUMS); mostly logarithms, as a few events have many times the others'.

        The encoded intensity and its lower part (which counts lit pixels), the transverse momentum in four bands
        of |eta|, and for windows of 2, 4, 8 and 16 pixels a side their squared momenta (large when few jets hold
        the momentum), their masses, squared masses, and how many are hard.
        """
        pt = to_power(t, self.power) * self.to_pt
        return self._sums(t, pt, self.windows(pt))

    def _sums(self, t: tf.Tensor, pt: tf.Tensor, windows: Sequence[Sequence[tf.Tensor]]) -> tf.Tensor:
        bands = tf.reshape(tf.reduce_sum(pt, axis=2), [-1, 8, 8])
        bands = tf.reduce_sum(bands + tf.reverse(bands, [1, 2]), axis=2)[:, :4]
        features = [
            tf.reduce_mean(t, axis=[1, 2]),
            tf.reduce_mean(tf.minimum(t, 0.5), axis=[1, 2]),
            _log(tf.reduce_sum(pt, axis=[1, 2])),
            *tf.unstack(_log(bands), axis=1),
        ]
        for window in windows:
            momentum, mass = window[0], _mass(window[1:])
            features += [
                _log(tf.reduce_sum(tf.square(momentum), axis=[1, 2])),
                _log(tf.reduce_sum(mass, axis=[1, 2])),
                _log(tf.reduce_sum(tf.square(mass), axis=[1, 2])),
                tf.reduce_sum(momentum / (momentum + 1.0), axis=[1, 2]),
            ]
        return tf.stack(features, axis=1)

    def pair(self, real: Mapping[str, tf.Tensor], fake: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits of both, in one pass, which is faster than two and the same."""
        seen = ("hist", *self.channels, *self.projected)
        both = {name: tf.concat([real[name], fake[name]], axis=0) for name in seen}
        logits = self(both, training=True, groups=2)
        half = tf.shape(real["hist"])[0]
        return logits[:half], logits[half:]

    def __call__(
        self, sample: Mapping[str, tf.Tensor], training: bool, update: bool = True, groups: int = 1
    ) -> tf.Tensor:
        t = sample["hist"]
        pt = to_power(t, self.power) * self.to_pt  # in units of 100 GeV
        windows = self.windows(pt) if self.pooled or self.hidden else []
        levels = [sample[name] for name in self.channels]
        x = t
        for i, (down, bias) in enumerate(zip(self.downs, self.biases, strict=True)):
            x = (down(x) if i else down.of_planes([t, pt, self.eta], levels)) + bias
            if self.pooled:
                # Sums in the first layers, halved from layer to layer later on, keep the numbers near one.
                window = [component * (1.0, 1.0, 0.5, 0.25)[i] for component in windows[i]]
                sums = [window[0], _mass(window[1:])] if self.pooled_mass else window[:1]
                both = tf.stack([*sums, *(tf.math.log1p(10.0 * s) for s in sums)], axis=-1)
                x = x + tf.nn.conv2d(both, self._kernel(self.pooled[i]), 1, "SAME")
            x = tf.nn.leaky_relu(x, 0.2)
        if self.minibatch is not None:
            x = self.minibatch(x, groups)
        total = tf.reduce_sum(pt, axis=[1, 2]) / 27.7 * 3.0
        mean = tf.reduce_mean(t, axis=[1, 2]) * 20.0
        flat = tf.reshape(x, [-1, self.head.shape[0] - 2])
        features = tf.concat([flat, total[:, None], mean[:, None]], axis=1)
        logits = tf.matmul(features, self._kernel(self.head))[:, 0] + self.head_bias
        if self.hidden:
            kernel, bias, kernel2, bias2, out = self.hidden
            mean, deviation = self.sums_scale
            sums = (self._sums(t, pt, windows) - mean) / deviation
            columns = [level[:, None] for level in levels]
            y = tf.concat([tf.reduce_mean(x, axis=[1, 2]) * 4.0, sums, *columns], axis=1)
            y = tf.nn.leaky_relu(tf.matmul(y, self._kernel(kernel)) + bias, 0.2)
            y = tf.nn.leaky_relu(tf.matmul(y, self._kernel(kernel2)) + bias2, 0.2)
            logits += tf.matmul(y, self._kernel(out))[:, 0]
            features = tf.concat([features, y], axis=1) if self.projected else features
        if self.projection is not None:
            logits += self.projection(stacked(sample, self.projected), features)
        return logits


def _log(x: tf.Tensor) -> tf.Tensor:
    return tf.math.log(x + 0.1)


def _mass(momenta: Sequence[tf.Tensor]) -> tf.Tensor:
    """Invariant mass of summed (E + pz, E - pz, px, py), tensors of one shape.

    m^2 = (E + pz)(E - pz) - px^2 - py^2: in these components nothing large cancels at high |eta|, as it would in
    E^2 - pz^2.
    """
    plus, minus, px, py = momenta
    square = plus * minus - px * px - py * py
    return tf.sqrt(tf.nn.relu(square) + 1e-4)  # 1 GeV: the root has no gradient at zero


class Windows:
    """Momenta summed over windows of 2, 4, 8 and 16 pixels a side.

    Sums over two by two are matrix products here, of two rows of an image with a constant matrix. They cost many times
    the operations, but a fraction of the time: pooling kernels and operations on a last axis of length 5 are slow.

    Parameters
    ----------
    light_cone : (64, 64, 4) array, optional
        (E + pz, E - pz, px, py) over pT of the pixels; without it only pT is summed.
    dtype : str
    """

    def __init__(self, light_cone: np.ndarray | None, dtype: str) -> None:
        weights = np.ones((64, 64, 1))
        if light_cone is not None:
            weights = np.concatenate([weights, light_cone], axis=2)
        components = weights.shape[2]
        # Weights of a pair of rows are those of the middle pair times one factor a component and pair of rows:
        # exp(+-eta), at equidistant eta, or no function of eta at all.
        pairs = weights.reshape(32, 2, 64, components)
        middle, factors = pairs[16], pairs[:, 0, 0] / pairs[16, 0, 0]
        np.testing.assert_allclose(pairs, middle * factors[:, None, None], rtol=1e-9, atol=1e-12)
        columns = np.arange(64)
        first = np.zeros((2, 64, components, 32))
        first[:, columns, :, columns // 2] = np.swapaxes(middle, 0, 1)
        self._factors = tf.constant(np.broadcast_to(factors[..., None], (32, components, 32)), dtype)
        self._matrices = [tf.constant(first.reshape(128, components * 32), dtype)]
        for width in (32, 16, 8):
            matrix = np.zeros((2, components, width, components, width // 2))
            for component in range(components):
                matrix[:, component, np.arange(width), component, np.arange(width) // 2] = 1.0
            self._matrices.append(tf.constant(matrix.reshape(2 * components * width, -1), dtype))
        self._components = components

    def __call__(self, pt: tf.Tensor) -> list[list[tf.Tensor]]:
        """(n, 64, 64) -> for 32, 16, 8, 4 windows a side: pT and the light cone, each (n, windows, windows)."""
        levels: list[list[tf.Tensor]] = []
        x = pt
        for matrix in self._matrices:
            side = 32 >> len(levels)
            x = tf.matmul(tf.reshape(x, [-1, matrix.shape[0]]), matrix)
            x = tf.reshape(x, [-1, side, self._components, side])
            if not levels:
                x = x * self._factors
            levels.append(tf.unstack(x, axis=2))
        return levels
