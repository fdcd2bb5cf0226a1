"""The density of the cells of one layer in any geometry, given their sum: boxes are halved until they are cells.

:mod:`hpcgan.problems.arm.boxes` says which boxes a geometry has. One network says for all of them, in all geometries,
how the energy of a box is shared by its halves (:mod:`hpcgan.networks.sharing`). It knows where the box is, how large
it is, its energy, and how much energy is around it, as far as boxes are split by then: the energy of a box that is not
yet split counts as spread evenly over it. It also knows what the layers before have there. Nothing that it knows
depends on which cells a geometry has elsewhere, so it can be asked for geometries that no training shower had.

The symmetries of showers at right angles, reflections and the exchange of the two axes, are those of the description of
a box, and hold exactly but for boxes in the middle and the order in which boxes are split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from hpcgan.networks import sharing
from hpcgan.networks.layers import Initializer
from hpcgan.networks.sharing import NUMBERS, WAYS, Answers, StretchedLogit
from hpcgan.networks.splits import FREQUENCIES, LEAST_SPREAD
from hpcgan.problems.arm.box_tables import WINDOWS, Some, Tables, View
from hpcgan.problems.arm.boxes import FEATURES
from hpcgan.problems.arm.geometry import FINEST

if TYPE_CHECKING:
    from hpcgan.problems.arm.geometry import Geometry
    from hpcgan.problems.arm.problem import ArmModel

COORDINATE = StretchedLogit()
BINS = 128
"""Intervals of a share's coordinate."""
PER_GEV = (1.0e3, 3.0, 1.0e5)
"""An energy is seen as ln(1 + energy times each of them), in GeV."""
FAINT_GEV = 1.0e-5


class Showers(NamedTuple):
    """Of a batch: energies of the layer's cells (n, cells) in GeV, the number of the layer's geometry (n,), what else
    is known (n, numbers), and images of the layers before, each in one row (`Tables.integrated`).
    """

    cells: tf.Tensor
    geometry: tf.Tensor
    numbers: tf.Tensor
    before: Sequence[tf.Tensor] = ()


class LayerBoxes(tf.Module):
    """The density of a layer's cells.

    Parameters
    ----------
    init : Initializer
    config : ArmModel
    layer : str
    geometries : sequence of Geometry
        Of the layer.
    numbers : int
        What is known of a shower besides.
    before : sequence of str
        The layers before.
    """

    def __init__(
        self,
        init: Initializer,
        config: ArmModel,
        layer: str,
        geometries: Sequence[Geometry],
        numbers: int,
        before: Sequence[str] = (),
    ) -> None:
        super().__init__(f"boxes_{layer}")
        name, units = f"boxes/{layer}", config.hidden_units
        self.least, self.tables = config.least_gev, Tables(geometries, FINEST[layer], init.dtype)
        self._before = [(FINEST[other], *self.tables.places_in(FINEST[other])) for other in before]
        inputs = FEATURES + len(PER_GEV) * (WINDOWS * (1 + len(before)) + 1) + 2 + numbers + 2 * len(FREQUENCIES)
        self.mean = init.constant(f"{name}/mean", (inputs,), 0.0, trainable=False)
        self.scale = init.constant(f"{name}/scale", (inputs,), 1.0, trainable=False)
        kinds = len(self.tables.kinds)
        self.prior = init.constant(f"{name}/prior", (kinds, WAYS + BINS), 0.0, trainable=False)
        self.hidden = init.he_uniform(f"{name}/hidden", (inputs, units), inputs, 2)
        self.hidden_bias = init.constant(f"{name}/hidden_bias", (units,), 0.0)
        self.hidden2 = init.he_uniform(f"{name}/hidden2", (units, units), units, 2)
        self.hidden2_bias = init.constant(f"{name}/hidden2_bias", (units,), 0.0)
        self.out = init.normal(f"{name}/out", (units, WAYS + BINS), 0.1 / math.sqrt(units))
        self.out_bias = init.constant(f"{name}/out_bias", (WAYS + BINS,), 0.0)

    @property
    def noise(self) -> int:
        """Uniform numbers that a shower takes."""
        return NUMBERS * self.tables.boxes

    # --- constants -------------------------------------------------------------------------------------------------

    @property
    def constants(self) -> list[tf.Variable]:
        """Mean and scale of what the network sees, and what is frequent, by kind of box."""
        return [self.mean, self.scale, self.prior]

    def count(self, batches: Iterable[Showers]) -> None:
        """Set the prior to what is frequent in showers; a kind of box that they have not has that of the nearest."""
        seen = []
        for showers in batches:
            boxes, first, second = self.split(showers)
            way, interval = sharing.seen(COORDINATE, self._bounds(first + second), first, second, BINS)
            seen.append([x.numpy() for x in (tf.gather(self.tables.kind, boxes.number), way, interval)])
        kind, way, interval = (np.concatenate(x) for x in zip(*seen, strict=True))
        prior = sharing.log_shares(len(self.tables.kinds), BINS, kind, way, interval)
        self.prior.assign(prior[_nearest(self.tables.kinds, np.unique(kind))])

    def measure(self, batches: Iterable[Showers]) -> None:
        """Set mean and scale to those of what the network sees of showers, unless all are empty."""
        count, total, squares = 0, np.zeros(self.mean.shape), np.zeros(self.mean.shape)
        for showers in batches:
            boxes, first, second = self.split(showers)
            view = self._views(self._known(showers, boxes, first, second), boxes, showers)
            x = self.features(view, boxes, first + second, self._total(showers), showers).numpy().astype(np.float64)
            count, total, squares = count + len(x), total + x.sum(axis=0), squares + (x**2).sum(axis=0)
        if count:
            mean = total / count
            self.mean.assign(mean)
            self.scale.assign(1.0 / (np.sqrt(np.maximum(squares / count - mean**2, 0.0)) + LEAST_SPREAD))

    # --- the density -----------------------------------------------------------------------------------------------

    def log_prob(self, showers: Showers) -> tuple[tf.Tensor, tf.Tensor]:
        """Log of the density of the cells given their sum, (n,) in nats for GeV, and their image for layers behind."""
        boxes, first, second = self.split(showers)
        view = self._views(self._known(showers, boxes, first, second), boxes, showers)
        whole = first + second
        answers = self.answers(self.features(view, boxes, whole, self._total(showers), showers), boxes, whole)
        log_p = sharing.log_prob(COORDINATE, answers, first, second)
        log_p = tf.math.unsorted_segment_sum(log_p, boxes.shower, tf.shape(showers.cells)[0])
        return log_p, self._finished(showers, boxes, first, second)

    def image(self, showers: Showers) -> tf.Tensor:
        """The image of showers for the layers behind."""
        return self._finished(showers, *self.split(showers))

    def __call__(self, total: tf.Tensor, showers: Showers, uniform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Cells (n, cells) of layers with energies (n,) that uniform numbers (n, `noise`) stand for, and their image
        for the layers behind. The cells of `showers` do not count.
        """
        tables = self.tables
        uniforms = tf.reshape(uniform, [-1, NUMBERS])
        width = tables.boxes + tables.cells
        energy = total[:, None] * tf.one_hot(tf.gather(tables.root, showers.geometry), width, dtype=total.dtype)
        first_of, count_of = (tf.gather(x, showers.geometry) for x in (tables.start, tables.count))

        def of_stage(stage: tf.Tensor, energy: tf.Tensor, corners: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            slot = tf.range(tables.most)
            box = tf.minimum(first_of[:, stage, None] + slot, tables.boxes - 1)
            is_split = (slot < count_of[:, stage, None]) & (tf.gather(energy, box, batch_dims=1) > 0)
            shower, of_slot = tf.unstack(tf.cast(tf.where(is_split), tf.int32), axis=1)
            which = tf.gather_nd(box, tf.stack([shower, of_slot], axis=1))
            boxes = Some(shower, tf.gather(showers.geometry, shower) * tables.boxes + which)
            whole = tf.gather_nd(energy, tf.stack([shower, which], axis=1))
            now = tf.reshape(tables.integrated(corners), [-1]), shower * tables.places
            x = self.features(self._views(now, boxes, showers), boxes, whole, total, showers)
            of_way, of_share = tf.unstack(tf.gather(uniforms, shower * tables.boxes + which), axis=1)
            first, second = sharing.draw(COORDINATE, self.answers(x, boxes, whole), whole, of_way, of_share)
            halves = tf.gather(tables.halves, boxes.number)
            index = tf.reshape(tf.stack([tf.tile(shower[:, None], [1, 2]), halves], axis=2), [-1, 2])
            energy = tf.tensor_scatter_nd_update(energy, index, tf.reshape(tf.stack([first, second], axis=1), [-1]))
            return stage + 1, energy, tables.changed(corners, boxes, first, second)

        _, energy, corners = tf.while_loop(
            lambda stage, *_: stage < tables.stages,
            of_stage,
            (tf.constant(0), energy, tables.even(total)),
            parallel_iterations=1,
        )
        return energy[:, tables.boxes :], tf.reshape(tables.integrated(corners), [-1])

    # --- parts -----------------------------------------------------------------------------------------------------

    def split(self, showers: Showers) -> tuple[Some, tf.Tensor, tf.Tensor]:
        """All boxes of showers that have energy, and what either half has."""
        tables, geometry = self.tables, showers.geometry
        energies, numbers = tables.sums(showers.cells, geometry)
        shower = tf.tile(tf.range(tf.shape(geometry)[0])[:, None], [1, tables.boxes])
        every = Some(shower, geometry[:, None] * tables.boxes + tf.range(tables.boxes)).where(
            tf.gather(tables.is_box, geometry)
        )
        place, sign = tables.of_halves(every)
        index = every.shower[:, None, None] * tables.places + place
        counts, parts = (_between(tf.gather(x, index)) * sign for x in (numbers, energies))
        # Differences of sums of energies are not quite zero where there are none.
        is_lit = tf.reduce_any(counts > 0.5, axis=1)
        parts = tf.cast(tf.where(counts > 0.5, parts, tf.zeros_like(parts)), showers.cells.dtype)
        first, second = tf.unstack(tf.boolean_mask(parts, is_lit), axis=1)
        return every.where(is_lit), first, second

    @staticmethod
    def _total(showers: Showers) -> tf.Tensor:
        return tf.reduce_sum(showers.cells, axis=1)

    def _known(self, showers: Showers, boxes: Some, first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What is known of the layer before each stage, as `Tables.integrated`, in one row; where each box's begins."""
        tables, n = self.tables, tf.shape(showers.cells)[0]
        image = boxes.shower * tables.stages + tf.gather(tables.stage, boxes.number)
        place, change = tables.changes(boxes, first, second)
        index = tf.reshape(image[:, None] * tables.places + place, [-1, 1])
        changes = tf.scatter_nd(index, tf.reshape(change, [-1]), tf.reshape(n * tables.stages * tables.places, [1]))
        changes = tf.matmul(tables.before, tf.reshape(changes, [n, tables.stages, tables.places]))
        corners = changes + tables.even(self._total(showers))[:, None]
        return tf.reshape(tables.integrated(corners), [-1]), image * tables.places

    def _finished(self, showers: Showers, boxes: Some, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """The same of whole layers."""
        corners = self.tables.changed(self.tables.even(self._total(showers)), boxes, first, second)
        return tf.reshape(self.tables.integrated(corners), [-1])

    def _views(self, itself: tuple[tf.Tensor, tf.Tensor], boxes: Some, showers: Showers) -> list[View]:
        """Of the layer itself, then of those before."""
        views = [View(*itself, self.tables.origin, self.tables.step)]
        for image, (grid, origin, step) in zip(showers.before, self._before, strict=True):
            views.append(View(image, boxes.shower * (grid.n_phi + 1) * (grid.n_eta + 1), origin, step))
        return views

    def _bounds(self, whole: tf.Tensor) -> sharing.Bounds:
        least = tf.fill(tf.shape(whole), tf.constant(self.least, whole.dtype))
        return sharing.bounds_of(COORDINATE, whole, (least, least))

    def features(
        self, views: Sequence[View], boxes: Some, whole: tf.Tensor, total: tf.Tensor, showers: Showers
    ) -> tf.Tensor:
        """What the network sees of boxes with energies (m,) in layers with energies (n,)."""
        log_whole, log_total = (tf.math.log(tf.maximum(x, FAINT_GEV)) for x in (whole, tf.gather(total, boxes.shower)))
        phases = log_whole[:, None] * tf.constant(FREQUENCIES, whole.dtype)
        windows = [tf.cast(self.tables.windows(view, boxes), whole.dtype) for view in views]
        energies = tf.concat([*windows, whole[:, None]], axis=1)
        return tf.concat(
            [
                tf.gather(self.tables.features, boxes.number),
                *(tf.math.log1p(per_gev * energies) for per_gev in PER_GEV),
                tf.stack([log_whole, log_whole - log_total], axis=1),
                tf.gather(showers.numbers, boxes.shower),
                tf.sin(phases),
                tf.cos(phases),
            ],
            axis=1,
        )

    def answers(self, x: tf.Tensor, boxes: Some, whole: tf.Tensor) -> Answers:
        """What the network says of boxes with energies (m,), of which it sees x (m, inputs)."""
        # (x - mean) * scale, at the cost of the weights' number instead of the inputs'.
        hidden = self.hidden * self.scale[:, None]
        bias = self.hidden_bias - tf.linalg.matvec(hidden, self.mean, transpose_a=True)
        x = tf.nn.silu(tf.matmul(x, hidden) + bias)
        x = tf.nn.silu(tf.matmul(x, self.hidden2) + self.hidden2_bias)
        kind = tf.gather(self.tables.kind, boxes.number)
        ways, intervals = (
            tf.matmul(x, self.out[:, which]) + self.out_bias[which] + tf.gather(self.prior[:, which], kind)
            for which in (slice(WAYS), slice(WAYS, None))
        )
        return sharing.answers_of(self._bounds(whole), ways, intervals)


def _between(corners: tf.Tensor) -> tf.Tensor:
    """What lies between corners (m, 3, 2) of sums: of either half (m, 2)."""
    return corners[:, 1:, 1] - corners[:, :-1, 1] - corners[:, 1:, 0] + corners[:, :-1, 0]


def _nearest(kinds: np.ndarray, of_training: np.ndarray) -> np.ndarray:
    """For each kind of box itself, or the nearest that training showers have."""
    if not len(of_training):
        return np.arange(len(kinds))
    distance = np.abs(kinds[:, None] - kinds[None, of_training]).sum(axis=2)
    return np.asarray(of_training[distance.argmin(axis=1)])
