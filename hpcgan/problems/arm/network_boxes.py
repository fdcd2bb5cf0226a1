"""A density of showers in any geometry, of one layer or of the whole calorimeter.

The energy in all cells is drawn: from the quantiles of the training showers, or from the response at the particle's
energy. Of the whole calorimeter it is shared by the layers, one after the other, and each layer is of
:class:`hpcgan.problems.arm.network_layer.LayerBoxes`, which knows the energies of all layers and the cells of those
before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from hpcgan.networks.calibration import COUNTED, some_of
from hpcgan.networks.capabilities import Calibrated, Density
from hpcgan.networks.drawn_total import quantile_at
from hpcgan.networks.layers import Initializer, Tensors, uniform_of
from hpcgan.networks.sharing import StretchedLogit
from hpcgan.networks.splits import Grid, Sight
from hpcgan.problems.arm.files import CELLS, GEOMETRY, INCIDENT, widest
from hpcgan.problems.arm.geometry import layers_of, parts
from hpcgan.problems.arm.network_layer import BINS, FAINT_GEV, PER_GEV, LayerBoxes, Showers
from hpcgan.problems.calorimeter.layer_shares import LayerShares, Seen, Sharing
from hpcgan.problems.calorimeter.networks import log_energy
from hpcgan.problems.calorimeter.response import Response

if TYPE_CHECKING:
    from hpcgan.problems.arm.geometry import Geometry
    from hpcgan.problems.arm.problem import ArmModel

KNOTS = 1025
"""Quantiles of the energy in all cells."""
MEASURED = 256
"""Showers, spread over the training split, by which what the networks see is centred and scaled."""
PART = 32
"""Showers at a time in calibration."""
SHARES = Grid(
    side=2,
    goes_around=False,
    coordinate=StretchedLogit(),
    bins=(BINS, BINS),
    sight=Sight(radius=1, per_gev=PER_GEV),
    sparse=1,
    prior=True,
)
"""How layers share the energy."""


class _Layer:
    """One layer of the model: which cells of a shower it has, in which of its own geometries.

    Attributes
    ----------
    gather : (geometries, cells) tensor
        For each geometry of the model the cells of the layer among all of a shower; beyond them, one that is none.
    scatter : (geometries, all cells) tensor
        The inverse.
    number : (geometries,) tensor
        Of the layer's own geometry.
    """

    def __init__(self, config: ArmModel, place: int) -> None:
        of_model = [parts(geometry, config.layer)[place] for geometry in config.cells]
        self.geometries: list[Geometry] = list(dict.fromkeys(part.geometry for part in of_model))
        cells, every = widest(self.geometries), widest(config.cells)
        gather, scatter = np.full((len(of_model), cells), every), np.full((len(of_model), every), cells)
        for row, part in enumerate(of_model):
            gather[row, : part.geometry.n_cells] = np.arange(part.cells.start, part.cells.stop)
            scatter[row, part.cells] = np.arange(part.geometry.n_cells)
        self.gather, self.scatter = tf.constant(gather, tf.int32), tf.constant(scatter, tf.int32)
        self.number = tf.constant([self.geometries.index(part.geometry) for part in of_model], tf.int32)

    def of(self, cells: tf.Tensor, geometry: tf.Tensor) -> tf.Tensor:
        """Its cells, out of all (n, cells)."""
        return tf.gather(tf.pad(cells, [[0, 0], [0, 1]]), tf.gather(self.gather, geometry), batch_dims=1)

    def among_all(self, cells: tf.Tensor, geometry: tf.Tensor) -> tf.Tensor:
        """All cells, of which its own have energy."""
        return tf.gather(tf.pad(cells, [[0, 0], [0, 1]]), tf.gather(self.scatter, geometry), batch_dims=1)


class Boxwise(Density, Calibrated):
    """The density of the cells of showers in GeV, given their sum, in any geometry."""

    def __init__(self, config: ArmModel, seed: int, dtype: str = "float32") -> None:
        super().__init__("boxes")
        init, units = Initializer(seed, dtype), config.hidden_units
        self.least = config.least_gev
        self.response: Response | None = None
        self.quantiles: tf.Variable | None = None
        if config.sees_energy:
            self.response = Response(init, "boxes/response")
        else:
            self.quantiles = init.constant("boxes/energy", (KNOTS,), 0.0, trainable=False)
        names = layers_of(config.layer)
        self.of_layers = [_Layer(config, place) for place in range(len(names))]
        numbers = 1 + (2 if config.sees_energy else 0)
        self.shares = LayerShares(init, "boxes/share", Sharing(len(names), SHARES, self.least, units, numbers))
        numbers += 2 * len(names) if len(names) > 1 else 0
        self.layers = [
            LayerBoxes(init, config, name, of.geometries, numbers, names[:i])
            for i, (name, of) in enumerate(zip(names, self.of_layers, strict=True))
        ]

    # --- constants -------------------------------------------------------------------------------------------------

    @property
    def constants(self) -> list[tf.Variable]:
        """What is measured of energies, means and scales of what networks see, and what is frequent."""
        return [*([self.quantiles] if self.response is None else self.response.constants), *self.tied]

    @property
    def tied(self) -> list[tf.Variable]:
        """All but what is measured of energies."""
        return [*self.shares.constants, *(constant for layer in self.layers for constant in layer.constants)]

    def calibrate(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Measure them on the training showers."""
        totals, energies = [], []
        for batch in batches:
            totals.append(tf.reduce_sum(self._lit(batch[CELLS]), axis=1).numpy())
            if self.response is not None:
                energies.append(batch[INCIDENT].numpy().reshape(-1))
        total = np.concatenate(totals)
        if self.quantiles is not None:
            self.quantiles.assign(np.quantile(total, np.linspace(0.0, 1.0, KNOTS)))
        if self.response is not None:
            self.response.fit(total, np.concatenate(energies), np.zeros(len(total), np.int64))
        counted, measured = (some_of(batches, len(total), n) for n in (COUNTED, MEASURED))
        self.shares.count(self._energies(counted))
        self.shares.measure(self._energies(measured), self._seen(measured))
        for i, layer in enumerate(self.layers):
            layer.count(self._showers(i, some, ()) for some in _parts(counted))
            layer.measure(self._showers(i, some, self._before(i, some)) for some in _parts(measured))

    # --- the density -----------------------------------------------------------------------------------------------

    def log_prob(self, sample: Tensors) -> tf.Tensor:
        """Log of the density of how a shower's energy is shared among the cells, given that energy: (n,), in nats, for
        GeV.
        """
        log_p = self.shares.log_prob(self._energies(sample), self._seen(sample))
        before: tuple[tf.Tensor, ...] = ()
        for i, layer in enumerate(self.layers):
            of_layer, image = layer.log_prob(self._showers(i, sample, before))
            log_p, before = [*log_p, of_layer], (*before, image)
        return tf.add_n(log_p)

    def _showers(self, layer: int, sample: Tensors, before: tuple[tf.Tensor, ...]) -> Showers:
        """What a layer sees of showers, given the images of the layers before."""
        cells, geometry, of = self._lit(sample[CELLS]), self._geometry(sample), self.of_layers[layer]
        numbers = self._of_all(sample, self._energies(sample))
        return Showers(of.of(cells, geometry), tf.gather(of.number, geometry), numbers, before)

    def _before(self, layer: int, sample: Tensors) -> tuple[tf.Tensor, ...]:
        """The images of the layers before."""
        return tuple(of.image(self._showers(i, sample, ())) for i, of in enumerate(self.layers[:layer]))

    def __call__(
        self, noise: tf.Tensor, conditions: Tensors, training: bool = False, update: bool = False
    ) -> dict[str, tf.Tensor]:
        """Showers of noise: a number for the energy, then two for each share of a layer and for each box."""
        geometry, total = self._geometry(conditions), self._drawn_energy(noise[:, 0], conditions)
        uniforms, start = uniform_of(noise[:, 1:]), self.shares.noise
        of_layers = self.shares(total, lambda before: self._numbers(conditions, total, before), uniforms[:, :start])
        numbers = self._of_all(conditions, of_layers)
        images: list[tf.Tensor] = []
        cells = []
        for layer, of, energy in zip(self.layers, self.of_layers, tf.unstack(of_layers, axis=1), strict=True):
            showers = Showers(energy[:, None], tf.gather(of.number, geometry), numbers, tuple(images))
            of_layer, image = layer(energy, showers, uniforms[:, start : start + layer.noise])
            images.append(image)
            cells.append(of.among_all(of_layer, geometry))
            start += layer.noise
        return {CELLS: tf.add_n(cells)}

    # --- parts -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _geometry(conditions: Tensors) -> tf.Tensor:
        return tf.cast(tf.reshape(conditions[GEOMETRY], [-1]), tf.int32)

    def _lit(self, cells: tf.Tensor) -> tf.Tensor:
        return tf.where(cells >= self.least, cells, tf.zeros_like(cells))

    def _energies(self, sample: Tensors) -> tf.Tensor:
        """Of the layers, (n, layers)."""
        cells, geometry = self._lit(sample[CELLS]), self._geometry(sample)
        return tf.stack([tf.reduce_sum(of.of(cells, geometry), axis=1) for of in self.of_layers], axis=1)

    def _drawn_energy(self, normal: tf.Tensor, conditions: Tensors) -> tf.Tensor:
        """In all cells, GeV."""
        if self.response is None:
            total = quantile_at(self.quantiles, uniform_of(normal))
        else:
            energy = tf.reshape(conditions[INCIDENT], [-1])
            total = energy * self.response(normal, energy)
        return tf.where(total >= self.least, total, tf.zeros_like(total))

    def _seen(self, sample: Tensors) -> Seen:
        """What networks know of showers."""
        total = tf.reduce_sum(self._energies(sample), axis=1)
        return lambda of_layers: self._numbers(sample, total, of_layers)

    def _numbers(self, conditions: Tensors, total: tf.Tensor, of_layers: tf.Tensor) -> tf.Tensor:
        """What networks know of showers with energies (n,), in some of whose layers there are (n, layers)."""
        numbers = [_log(total)]
        if self.response is not None:
            energy = tf.reshape(conditions[INCIDENT], [-1])
            numbers += [log_energy(energy), _log(total) - _log(energy)]
        columns = tf.stack(numbers, axis=1)
        shares = _log(of_layers) - numbers[0][:, None]
        return tf.concat([columns, shares, tf.cast(of_layers > 0, shares.dtype)], axis=1)

    def _of_all(self, conditions: Tensors, of_layers: tf.Tensor) -> tf.Tensor:
        """The same when the energies of all layers (n, layers) are drawn: of several, shares are told."""
        shares = of_layers if len(self.layers) > 1 else of_layers[:, :0]
        return self._numbers(conditions, tf.reduce_sum(of_layers, axis=1), shares)


def _parts(sample: Tensors) -> Iterator[dict[str, tf.Tensor]]:
    """Some showers at a time."""
    for begin in range(0, len(sample[CELLS]), PART):
        yield {name: values[begin : begin + PART] for name, values in sample.items()}


def _log(energy: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.maximum(energy, FAINT_GEV))
