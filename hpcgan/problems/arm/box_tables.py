"""Boxes of several geometries of one layer (:mod:`hpcgan.problems.arm.boxes`) as tables of TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hpcgan.physics.calorimeter import Grid
from hpcgan.problems.arm.boxes import FAR, NEAR_ACROSS, NEAR_ALONG, boxes_of
from hpcgan.problems.arm.files import widest
from hpcgan.problems.arm.geometry import Geometry

WINDOWS = 2 * NEAR_ALONG * (2 * NEAR_ACROSS + 1) + (len(FAR) - 1) ** 2
"""Around each box."""


class Some(NamedTuple):
    """Some boxes of a batch of showers, (m,) each: the shower, and the number in `Tables`."""

    shower: tf.Tensor
    number: tf.Tensor

    def where(self, mask: tf.Tensor) -> Some:
        """Those of a mask (m,)."""
        return Some(*(tf.boolean_mask(x, mask) for x in self))


class View(NamedTuple):
    """What is known of a layer around boxes: images of energies below and left of each place, all in one row; where in
    it that of each box begins, (m,); and how many places of it a place and a step of the box's own layer are.
    """

    images: tf.Tensor
    begins: tf.Tensor
    origin: tf.Tensor
    step: tf.Tensor


class Tables:
    """Boxes of several geometries as tables with a row for each geometry, which shorter ones fill with zeros.

    Attributes
    ----------
    boxes : int
        Of the geometry with most.
    stages : int
    root : (geometries,) tensor
        What has all energy at first: the first box, or, of a geometry with one cell, that cell.
    """

    def __init__(self, geometries: Sequence[Geometry], fine: Grid, dtype: str) -> None:
        each = [boxes_of(geometry, fine) for geometry in geometries]
        self.fine, self.boxes = fine, max(len(boxes.stage) for boxes in each)
        self.cells = widest(geometries)
        used = np.unique(np.concatenate([boxes.stage for boxes in each]))
        self.stages = len(used)
        stages = [np.searchsorted(used, boxes.stage) for boxes in each]
        counts = np.array([np.bincount(stage, minlength=self.stages) for stage in stages])
        self.start = tf.constant(np.cumsum(counts, axis=1) - counts, tf.int32)
        self.root = tf.constant(np.where(counts.sum(axis=1) > 0, 0, self.boxes), tf.int32)
        self.count, self.most = tf.constant(counts, tf.int32), int(counts.max(initial=1))
        self.stage = self._flat(stages, tf.int32)
        # Of two halves, cells come behind all boxes of the geometry with most.
        self.halves = self._flat(
            [np.where(b.halves >= len(b.stage), b.halves - len(b.stage) + self.boxes, b.halves) for b in each], tf.int32
        )
        self.step, self.origin, self.lengths, self.margins = (
            self._flat([getattr(boxes.frames, name) for boxes in each], tf.int32)
            for name in ("step", "origin", "lengths", "margins")
        )
        self.features = self._flat([boxes.features for boxes in each], dtype)
        kinds, which = np.unique(np.concatenate([boxes.kind for boxes in each]), axis=0, return_inverse=True)
        self.kinds = kinds
        ends = np.cumsum([len(boxes.stage) for boxes in each])[:-1]
        self.kind = self._flat(np.split(which.reshape(-1), ends), tf.int32)
        self.is_box = tf.constant(np.arange(self.boxes) < np.array([len(boxes.stage) for boxes in each])[:, None])
        sums = [np.tril(np.ones((n + 1, n)), -1) for n in (fine.n_phi, fine.n_eta)]
        ramps = [np.maximum(np.arange(n + 1)[:, None] - np.arange(n + 1), 0.0) for n in (fine.n_phi, fine.n_eta)]
        self._sums, self._ramps = ([tf.constant(x, tf.float64) for x in both] for both in (sums, ramps))
        # What is before each stage; TensorFlow's cumsum is slower.
        self.before = tf.constant(np.tril(np.ones((self.stages, self.stages)), -1), tf.float64)
        self.edges = (fine.n_phi + 1, fine.n_eta + 1)
        self.places = self.edges[0] * self.edges[1]
        self.place = tf.constant(np.stack([_places(geometry, fine, self.cells) for geometry in geometries]), tf.int32)

    def _flat(self, values: Sequence[np.ndarray], dtype: str | tf.DType) -> tf.Tensor:
        """(geometries * boxes, ...)."""
        padded = [np.pad(x, [(0, self.boxes - len(x)), *[(0, 0)] * (x.ndim - 1)]) for x in values]
        return tf.constant(np.concatenate(padded), dtype)

    # --- images of places, rows of edges phi and columns of edges eta -----------------------------------------------

    def sums(self, cells: tf.Tensor, geometry: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Energy of cells (n, cells) below and left of each place, and how many cells with energy: each in one row, in
        double precision. A cell is where its first corner is.
        """
        padded = tf.pad(cells, [[0, 0], [0, 1]])
        image = tf.gather(padded, tf.gather(self.place, geometry), batch_dims=1)
        image = tf.reshape(tf.cast(image, tf.float64), [-1, self.fine.n_phi, self.fine.n_eta])
        energies, numbers = (
            tf.reshape(tf.matmul(self._sums[0], tf.matmul(x, self._sums[1], transpose_b=True)), [-1])
            for x in (image, tf.cast(image > 0, tf.float64))
        )
        return energies, numbers

    def even(self, total: tf.Tensor) -> tf.Tensor:
        """The image of corners (n, places) of energies (n,) that are spread evenly over the window.

        An image of corners has the differences along both axes of the energy in each of the finest cells.
        """
        image = np.zeros(self.edges)
        image[0, 0] = image[-1, -1] = 1.0
        image[0, -1] = image[-1, 0] = -1.0
        return tf.cast(total, tf.float64)[:, None] * (image.reshape(1, -1) / self.fine.n_cells)

    def integrated(self, corners: tf.Tensor) -> tf.Tensor:
        """Energy below and left of each place, of images of corners (..., places)."""
        image = tf.reshape(corners, [-1, *self.edges])
        across = tf.matmul(image, self._ramps[1], transpose_b=True)
        return tf.reshape(tf.matmul(self._ramps[0], across), tf.shape(corners))

    def of_halves(self, boxes: Some) -> tuple[tf.Tensor, tf.Tensor]:
        """Places of the corners of both halves, (m, 3, 2), and the sign of the orientation of the frame, (m, 1)."""
        step = tf.gather(self.step, boxes.number)
        cut, along, across = tf.unstack(tf.gather(self.lengths, boxes.number), axis=1)
        zero = tf.zeros_like(cut)
        first = step[:, :1] * tf.stack([zero, cut, along], axis=1)
        second = step[:, 1:] * tf.stack([zero, across], axis=1)
        place = tf.gather(self.origin, boxes.number)[:, None, None] + first[:, :, None] + second[:, None]
        return place, tf.cast(tf.sign(step[:, :1] * step[:, 1:]), tf.float64)

    def changes(self, boxes: Some, first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Where an image of corners changes when boxes are split, (m, 6), and by how much."""
        place, sign = self.of_halves(boxes)
        cut, along, across = tf.unstack(tf.cast(tf.gather(self.lengths, boxes.number), tf.float64), axis=1)
        a, b = tf.cast(first, tf.float64), tf.cast(second, tf.float64)
        before, a, b = (a + b) / (along * across), a / (cut * across), b / ((along - cut) * across)
        change = tf.stack([a - before, b - a, before - b], axis=1) * sign
        change = tf.stack([change, -change], axis=2)
        return tf.reshape(place, [-1, 6]), tf.reshape(change, [-1, 6])

    def changed(self, corners: tf.Tensor, boxes: Some, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """The images of corners (n, places) when boxes are split."""
        place, change = self.changes(boxes, first, second)
        index = tf.stack([tf.repeat(boxes.shower, place.shape[1]), tf.reshape(place, [-1])], axis=1)
        return tf.tensor_scatter_nd_add(corners, index, tf.reshape(change, [-1]))

    def windows(self, view: View, boxes: Some) -> tf.Tensor:
        """Energies in `WINDOWS` around boxes, (m, windows), as far as they are known."""
        step = tf.gather(view.step, boxes.number)
        margins = tf.gather(self.margins, boxes.number)
        cut, along, across = tf.unstack(tf.gather(self.lengths, boxes.number), axis=1)
        half, far = tf.maximum(1, along // 2), np.array(FAR)
        halves, boxes_across = np.arange(-NEAR_ALONG, NEAR_ALONG + 1), np.arange(-NEAR_ACROSS, NEAR_ACROSS + 2)
        grids = ((cut[:, None] + half[:, None] * halves, boxes_across), (along[:, None] * far, far))
        origin = (view.begins + tf.gather(view.origin, boxes.number))[:, None, None]
        sign = tf.cast(tf.sign(step[:, :1] * step[:, 1:]), tf.float64)
        sums = []
        for of_along, of_across in grids:
            first = tf.clip_by_value(of_along, -margins[:, :1], margins[:, 1:2]) * step[:, :1]
            second = tf.clip_by_value(across[:, None] * of_across, -margins[:, 2:3], margins[:, 3:]) * step[:, 1:]
            corners = tf.gather(view.images, origin + first[:, :, None] + second[:, None])
            windows = corners[:, 1:, 1:] - corners[:, :-1, 1:] - corners[:, 1:, :-1] + corners[:, :-1, :-1]
            sums.append(tf.reshape(windows, [-1, windows.shape[1] * windows.shape[2]]) * sign)
        return tf.maximum(tf.concat(sums, axis=1), 0.0)

    def places_in(self, finer: Grid) -> tuple[tf.Tensor, tf.Tensor]:
        """`origin` and `step` in images of another layer, whose finest cells are parts of this one's."""
        rows, columns = finer.n_phi // self.fine.n_phi, finer.n_eta // self.fine.n_eta
        stride = finer.n_eta + 1
        row, column = self.origin // self.edges[1], self.origin % self.edges[1]
        is_row = tf.abs(self.step) == self.edges[1]
        step = tf.sign(self.step) * tf.where(is_row, rows * stride, columns)
        return row * rows * stride + column * columns, step


def _places(geometry: Geometry, fine: Grid, none: int) -> np.ndarray:
    """For each of the finest cells the cell that has its lower left corner there; `none` where there is none."""
    rows, columns = (
        np.flatnonzero(np.isin(np.linspace(-1.0, 1.0, n + 1)[:-1].round(9), (np.array(edges) / edges[-1]).round(9)))
        for edges, n in ((geometry.phi_edges, fine.n_phi), (geometry.eta_edges, fine.n_eta))
    )
    image = np.full((fine.n_phi, fine.n_eta), none)
    image[np.ix_(rows, columns)] = np.arange(geometry.n_cells).reshape(geometry.shape)
    return image.reshape(-1)
