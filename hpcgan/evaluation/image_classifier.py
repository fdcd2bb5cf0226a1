"""A convolutional classifier that tells generated images from real ones. Needs TensorFlow."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.data.schema import Sample
from hpcgan.evaluation.classifier import (
    LEAST,
    Judge,
    Judgement,
    Log,
    Training,
    judge_repeatedly,
    mean_of,
    spread_of,
)
from hpcgan.metrics import points
from hpcgan.metrics.classification import auc
from hpcgan.metrics.observable import Estimate, Observable
from hpcgan.networks.layers import BatchNorm, Dense, Initializer, wrap_phi
from hpcgan.problems.base import Problem

#: Events an update, at most, and updates an epoch, at least.
BATCH_SIZE, UPDATES = 64, 64
#: The layers halve an image until its shorter side has fewer pixels than twice this.
LEAST_SIDE = 8
#: Quantiles of what pixels hold, of those that hold something, at which the planes turn from linear to logarithmic.
TURNS = (0.05, 0.5, 0.95)
#: Quantiles of the same between which pixels are counted: a sharp edge of a spectrum is no matter of slopes.
EDGES = (0.002, 0.01, 0.03, 0.06, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96, 0.99)
#: Events whose pixels set the scales, at most.
SCALE_EVENTS = 2048
#: Share of the generated events of the test, those that look least real, that `Suspects` has, and their number at most.
SUSPECTS, MOST_SUSPECTS = 0.1, 64
#: Trainings between real and generated events; between real and real there is one.
TRAININGS = 3


@dataclass(frozen=True)
class Frame:
    """Where the images and the conditions of a problem's events lie in a row of inputs.

    Attributes
    ----------
    problem : Problem
    names, conditions : tuple of str
        Tensors: the images, all of `shape`, then the conditions.
    shape : (int, int)
        Rows and columns.
    periodic : (bool, bool)
        Whether rows and columns go around.
    """

    problem: Problem
    names: tuple[str, ...]
    conditions: tuple[str, ...]
    shape: tuple[int, int]
    periodic: tuple[bool, bool]

    @classmethod
    def of(cls, problem: Problem) -> Frame:
        """That of a problem whose samples are images.

        Raises
        ------
        ValueError
            There are none, or they differ in shape.
        """
        names = tuple(problem.images)
        kinds = {(problem.schema[name].shape, tuple(problem.images[name])) for name in names}
        if len(kinds) != 1:
            raise ValueError(f"images of {len(kinds)} kinds: a classifier takes those of one shape")
        ((rows, columns), (around_rows, around_columns)) = kinds.pop()
        conditions = tuple(name for name, spec in problem.schema.items() if spec.role == "condition")
        return cls(problem, names, conditions, (rows, columns), (around_rows, around_columns))

    @property
    def cells(self) -> int:
        """Pixels of an image."""
        return math.prod(self.shape)

    @property
    def inputs(self) -> int:
        """Numbers of a row."""
        specs = (self.problem.schema[name] for name in self.conditions)
        return len(self.names) * self.cells + sum(math.prod(spec.shape) for spec in specs)

    def rows(self, sample: Sample) -> np.ndarray:
        """All images of each event, then its conditions: (n, inputs) float32, as they stand.

        Raises
        ------
        ValueError
            Values that are not finite.
        """
        n = len(sample[self.names[0]])
        rows = np.concatenate(
            [sample[name].reshape(n, -1) for name in (*self.names, *self.conditions)], axis=1, dtype=np.float32
        )
        if not np.all(np.isfinite(rows)):
            raise ValueError("images: values that are not finite")
        return rows

    def point_conditions(self, rows: np.ndarray) -> dict[str, Observable]:
        """Conditions of rows, (n,) each, of which there are points with many events each."""
        conditions, start = {}, len(self.names) * self.cells
        for name in self.conditions:
            numbers = math.prod(self.problem.schema[name].shape)
            if name in self.problem.point_conditions and numbers == 1:
                conditions[name] = Observable(rows[:, start].astype(np.float64), condition=True)
            start += numbers
        return conditions

    def permute(self, rows: np.ndarray, symmetries: Sequence[str], draws: np.ndarray) -> np.ndarray:
        """Rows after random symmetry operations, as `Problem.permutations` has them."""
        changed = rows.copy()
        for name, order in self.problem.permutations(symmetries, draws).items():
            if name in self.names:
                first = self.names.index(name) * self.cells
                image = slice(first, first + self.cells)
                changed[:, image] = np.take_along_axis(rows[:, image], order, axis=1)
        return changed


@dataclass(frozen=True)
class Scales:
    """What brings planes of images and conditions to a size of about one.

    Attributes
    ----------
    turns : (turns, images) array
        Magnitudes at which a plane turns from linear to logarithmic.
    edges : (edges, images) array
        Magnitudes between which pixels are counted.
    sizes : (turns, images), lit : (images,) arrays
        Root mean square of each plane over all pixels, and of whether a pixel is lit.
    mean, spread : (conditions,) arrays
    """

    turns: np.ndarray
    edges: np.ndarray
    sizes: np.ndarray
    lit: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, frame: Frame) -> Scales:
        """Those of events, (n, inputs)."""
        some = rows[:: max(1, -(-len(rows) // SCALE_EVENTS))]
        images = np.abs(some[:, : len(frame.names) * frame.cells].reshape(-1, len(frame.names), frame.cells))
        turns, edges = np.ones((len(TURNS), len(frame.names))), np.ones((len(EDGES), len(frame.names)))
        for i in range(len(frame.names)):
            lit = images[:, i][images[:, i] > 0]
            if lit.size:
                turns[:, i], edges[:, i] = np.quantile(lit, TURNS), np.quantile(lit, EDGES)
        # A single plane at a time: together they would be several times the events.
        squares = [np.square(np.log1p(images / turn[:, None])).mean(axis=(0, 2), dtype=np.float64) for turn in turns]
        conditions = rows[:, len(frame.names) * frame.cells :].astype(np.float64)
        spread = conditions.std(axis=0)
        return cls(
            turns=turns,
            edges=edges,
            sizes=_not_zero(np.sqrt(squares)),
            lit=_not_zero(np.sqrt((images > 0).mean(axis=(0, 2)))),
            mean=conditions.mean(axis=0),
            spread=_not_zero(spread),
        )


def _not_zero(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, 1.0)


@dataclass(frozen=True)
class ImageTraining(Training):
    """A network of `ImageNetwork` and its training.

    The learning rate falls to zero with the epochs as a cosine does; all epochs are trained.

    Attributes
    ----------
    frame : Frame
    channels : tuple of int
        Of the convolutions, from the first on; further ones have as many as the last.
    units : int
        Of the fully connected layer below the logit.
    """

    frame: Frame = dataclasses.field(kw_only=True)
    learning_rate: float = 4e-3
    epochs: int = 4
    channels: tuple[int, ...] = (8, 16, 32, 48, 64)
    units: int = 64

    def network(self, rows: np.ndarray) -> Judge:
        return ImageNetwork(self, Scales.of(rows, self.frame))

    def batch(self, n: int) -> int:
        return min(BATCH_SIZE, max(8, n // UPDATES))

    def rate(self, progress: float) -> float:
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


class Convolution(tf.Module):
    """A 3x3 convolution with rectifier: (n, rows, columns, i) -> (n, rows / stride, columns / stride, o).

    An axis that goes around is continued by its other end, another one with zeros.
    """

    def __init__(self, init: Initializer, name: str, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(name.replace("/", "_"))
        self.kernel = init.kernel(f"{name}/kernel", (3, 3, inputs, outputs), 9 * inputs, gain=2.0)
        self.bias = init.constant(f"{name}/bias", (outputs,), 0.0)
        self.stride = stride

    def __call__(self, x: tf.Tensor, periodic: tuple[bool, bool]) -> tf.Tensor:
        if periodic[0]:
            x = tf.concat([x[:, -1:], x, x[:, :1]], axis=1)
        if periodic[1]:
            x = wrap_phi(x, 1)
        margins = [[0, 0] if goes_around else [1, 1] for goes_around in periodic]
        y = tf.nn.conv2d(x, self.kernel, self.stride, [[0, 0], *margins, [0, 0]])
        return tf.nn.relu(tf.nn.bias_add(y, self.bias))


class ImageNetwork(Judge):
    """Convolutions; means of all layers and maxima of the last over the image, normalised; two fully connected layers.

    The planes of an image are log(1 + |x| / s) with the sign of x, for three magnitudes s (`TURNS`), and whether x is
    not zero. Of an axis that does not go around the network also sees the distance from the centre, on all pixels and
    on lit ones: what a detector does to an event depends on it. The distance has a sign, too, where no mirror of the
    problem reflects the axis: the two ends of such an axis differ.

    Parameters
    ----------
    settings : ImageTraining
    scales : Scales
    """

    chunk: ClassVar[int] = 256

    def __init__(self, settings: ImageTraining, scales: Scales) -> None:
        super().__init__("image_classifier")
        self.frame, self.scales, self.seed = settings.frame, scales, settings.seed
        self.inputs = self.frame.inputs
        self.place = _places(self.frame)
        images, places = len(self.frame.names), self.place.shape[-1]
        halvings = max(0, int(math.log2(min(self.frame.shape) / LEAST_SIDE)))
        strides = [1, *[2] * halvings, 1]
        widths = [settings.channels[min(i, len(settings.channels) - 1)] for i in range(len(strides))]
        inputs = [(len(TURNS) + 1) * images + (images + 1) * places, *widths[:-1]]
        init = Initializer(settings.seed)
        self.convolutions = [
            Convolution(init, f"image_classifier/{i}", *sizes)
            for i, sizes in enumerate(zip(inputs, widths, strides, strict=True))
        ]
        counts = (len(EDGES) + 1) * images * (1 + places)
        pooled = sum(widths) + widths[-1] + counts + len(scales.mean)
        self.norm = BatchNorm(init, "image_classifier/norm", pooled)
        self.hidden = Dense(init, "image_classifier/hidden", pooled, settings.units)
        self.output = Dense(init, "image_classifier/output", settings.units, 1)

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.of_planes(self.planes(x), self.summary(x), training)

    def images(self, x: tf.Tensor) -> tf.Tensor:
        """The images of rows, (n, rows, columns, images)."""
        images = tf.reshape(
            x[:, : len(self.frame.names) * self.frame.cells], [-1, len(self.frame.names), self.frame.cells]
        )
        return tf.reshape(tf.transpose(images, [0, 2, 1]), [-1, *self.frame.shape, len(self.frame.names)])

    def planes(self, x: tf.Tensor) -> tf.Tensor:
        """What the convolutions see of the images, (n, rows, columns, planes)."""
        images = self.images(x)
        magnitude, sign = tf.abs(images), tf.sign(images)
        planes = [
            sign * tf.math.log1p(magnitude / _constant(turn)) / _constant(size)
            for turn, size in zip(self.scales.turns, self.scales.sizes, strict=True)
        ]
        return tf.concat([*planes, tf.abs(sign) / _constant(self.scales.lit)], axis=-1)

    def summary(self, x: tf.Tensor) -> tf.Tensor:
        """Conditions in units of their spread, and the spectrum of the lit pixels, (n, numbers).

        The spectrum is the share of pixels below, between and above the edges: of all pixels alike, and with the
        distances from the centre as weights. (Shares above each edge would say the same, but are so much alike that
        what they differ by is learned slowly.)
        """
        values = x[:, len(self.frame.names) * self.frame.cells :]
        numbers = [(values - _constant(self.scales.mean)) / _constant(self.scales.spread)]
        magnitude = tf.abs(self.images(x))
        place = _constant(self.place)
        above = tf.cast(magnitude > 0, tf.float32)
        for edge in (*self.scales.edges, np.full_like(self.scales.lit, np.inf)):
            higher = tf.cast(magnitude > _constant(edge), tf.float32)
            inside, above = above - higher, higher
            numbers.append(tf.reduce_mean(inside, axis=[1, 2]))
            numbers += [tf.reduce_mean(inside * place[..., i : i + 1], axis=[1, 2]) for i in range(place.shape[-1])]
        return tf.concat(numbers, axis=1)

    def of_planes(self, planes: tf.Tensor, summary: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (n,)."""
        place = _constant(self.place)
        lit = planes[..., -len(self.frame.names) :]
        parts = [planes, tf.broadcast_to(place, [tf.shape(planes)[0], *self.place.shape])]
        parts += [lit * place[..., i : i + 1] for i in range(self.place.shape[-1])]
        y = tf.concat(parts, axis=-1)
        pooled = [summary]
        for convolution in self.convolutions:
            y = convolution(y, self.frame.periodic)
            pooled.append(tf.reduce_mean(y, axis=[1, 2]))
        pooled.append(tf.reduce_max(y, axis=[1, 2]))
        # Means over an image differ little from event to event: what they differ by is brought to the size of one.
        hidden = tf.nn.relu(self.hidden(self.norm(tf.concat(pooled, axis=1), training)))
        return tf.squeeze(self.output(hidden), axis=1)

    def augment(self, rows: np.ndarray, epoch: int, events: np.ndarray) -> np.ndarray:
        symmetries = self.frame.problem.symmetries
        if not symmetries:
            return rows
        last = int(events.max()) + 1
        draws = rng.uniform(self.seed, "classifier/symmetries", epoch, 0, last, len(symmetries))[events]
        return self.frame.permute(rows, symmetries, draws)

    def orientations(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Rows with each choice of the problem's `mirrors`."""
        problem = self.frame.problem
        columns = [list(problem.symmetries).index(name) for name in problem.mirrors]
        for choice in itertools.product((0.75, 0.25), repeat=len(columns)):  # below one half: done
            draws = np.full((len(rows), len(problem.symmetries)), 0.75)
            draws[:, columns] = choice
            yield self.frame.permute(rows, problem.mirrors, draws) if min(choice, default=1.0) < 0.5 else rows

    def attention(self, x: np.ndarray) -> np.ndarray:
        """Where in an event its logit comes from, (n, rows, columns): |sum over planes of gradient x plane|."""
        maps = []
        for start in range(0, len(x), self.chunk):
            rows = tf.constant(x[start : start + self.chunk], tf.float32)
            planes = self.planes(rows)
            with tf.GradientTape() as tape:
                tape.watch(planes)
                logits = self.of_planes(planes, self.summary(rows))
            products = tape.gradient(logits, planes) * planes
            maps.append(tf.abs(tf.reduce_sum(products, axis=-1)).numpy())
        return np.concatenate(maps)


def _constant(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.float32)


def _places(frame: Frame) -> np.ndarray:
    """Where a pixel is, (rows, columns, places).

    For each axis that does not go around the distance from the centre, 0 to 1, and unless a mirror of the problem
    reflects the axis, the distance with its sign, too.
    """
    grids = np.meshgrid(*(2.0 * (np.arange(n) + 0.5) / n - 1.0 for n in frame.shape), indexing="ij")
    planes = []
    for grid, goes_around in zip(grids, frame.periodic, strict=True):
        if not goes_around:
            planes += [np.abs(grid)] if _is_reflected(grid, frame) else [np.abs(grid), grid]
    return np.stack(planes, axis=-1) if planes else np.zeros((*frame.shape, 0))


def _is_reflected(grid: np.ndarray, frame: Frame) -> bool:
    """Whether the mirrors of the problem change an image that holds this (rows, columns)."""
    if not frame.problem.mirrors:
        return False
    row = np.zeros((1, frame.inputs))
    row[0, : frame.cells] = grid.reshape(-1)
    every = np.full((1, len(frame.problem.symmetries)), 0.25)  # below one half: done
    return not np.array_equal(frame.permute(row, frame.problem.mirrors, every), row)


@dataclass(frozen=True)
class Suspects:
    """Where a classifier looks, in the first of an event's images.

    Attributes
    ----------
    real : (rows, columns) array
        Mean of the real events of the test.
    events : (k, rows, columns) array
        Generated events of the test that look least real, the least first.
    attention : (k, rows, columns) array
        Of each, as `ImageNetwork.attention` has it.
    """

    real: np.ndarray
    events: np.ndarray
    attention: np.ndarray


def image_test(
    samples: Sequence[Sample], settings: ImageTraining, trainings: int = TRAININGS, log: Log = lambda text: None
) -> tuple[dict[str, Any], Suspects]:
    """Train classifiers between real and generated images, and one between real and real.

    Parameters
    ----------
    samples : (real, generated) or (real, generated, more real) Samples
        In physical units. Without more real events there is nothing to hold the numbers against.
    settings : ImageTraining
    trainings : int
        Between real and generated events, with seeds from `settings.seed` on.
    log : callable
        Hears of progress.

    Returns
    -------
    dict, Suspects
        Numbers as JSON-able types, as of `ClassifierTest`, with `aucs`, `auc_spread`, `inputs` and `null`, and
        `points`, the AUC of the same classifiers for the test events of each point of the conditions; and where the
        first classifier looks.

    Raises
    ------
    ValueError
        Too few events, or values that are not finite.
    """
    frame = settings.frame
    real, fake, *more = (frame.rows(sample) for sample in samples)
    repeated, judgements = judge_repeatedly(real, fake, settings, trainings, log, "classifier on images")
    first, against, between_real = judgements[0], None, None
    if more and len(more[0]) >= LEAST:
        null, (between_real,) = judge_repeatedly(
            real, more[0], settings, 1, log, "classifier on images, real against real"
        )
        against = dataclasses.asdict(null.mean)
    numbers = {
        **dataclasses.asdict(repeated.mean),
        "aucs": list(repeated.aucs),
        "auc_spread": repeated.auc_spread,
        "inputs": frame.inputs,
        "null": against,
        "points": _at_points(frame, judgements, between_real),
    }
    network = first.classifier.network
    assert isinstance(network, ImageNetwork)
    count = min(MOST_SUSPECTS, max(1, round(SUSPECTS * len(first.fake))))
    least_real = first.fake[np.argsort(first.fake_logits, kind="stable")[:count]]
    return numbers, Suspects(
        real=_first_image(first.real, frame).mean(axis=0),
        events=_first_image(least_real, frame),
        attention=network.attention(least_real),
    )


def _at_points(frame: Frame, judgements: Sequence[Judgement], between_real: Judgement | None) -> list[dict[str, Any]]:
    """The AUC for the test events of each point of the conditions that has at least `LEAST` on either side.

    The classifiers are those of all events, which see the conditions: so many events as all points have together train
    them, but a point counts by its share.
    """
    rows = []
    at = frame.point_conditions(judgements[0].real)
    for point in points.sizes(at) if at else ():
        areas = [_auc_at(frame, judgement, point) for judgement in judgements]
        estimates = [area for area in areas if area is not None]
        if len(estimates) < len(areas):
            continue
        aucs = [area.value for area in estimates]
        null = None if between_real is None else _auc_at(frame, between_real, point)
        rows.append(
            {
                "conditions": points.described(at, point),
                "auc": dataclasses.asdict(mean_of(estimates)),
                "aucs": aucs,
                "auc_spread": spread_of(aucs),
                "null": None if null is None else dataclasses.asdict(null),
            }
        )
    return rows


def _auc_at(frame: Frame, judgement: Judgement, point: points.Point) -> Estimate | None:
    """None where a side has too few test events of the point."""
    real, fake = (
        logits[points.events_of(frame.point_conditions(rows), point)]
        for rows, logits in ((judgement.real, judgement.real_logits), (judgement.fake, judgement.fake_logits))
    )
    return auc(real, fake) if min(len(real), len(fake)) >= LEAST else None


def _first_image(rows: np.ndarray, frame: Frame) -> np.ndarray:
    return rows[:, : frame.cells].reshape(-1, *frame.shape)
