"""Images of trimmed jets: centred on the leading subjet, the second one below, the brighter side to the right.

Pixels are 0.1 x 0.1 and hold the pT of the cells in them. Rows are phi and go down, columns are eta.

An image is turned in one of two ways. `cubic`, that of the published data, bins the cells first and interpolates the
image with cubic convolution; negative values become 0, and none exceeds the brightest pixel before. Bright pixels get
a fringe of faint ones, and the image more pT. `cells` turns the cells and bins them afterwards: each keeps its pT.

References
----------
de Oliveira, Paganini, Nachman: arXiv:1701.05927, and its code; Keys, cubic convolution (a = -1/2): IEEE Trans. Acoust.
Speech Signal Process. 29 (1981) 1153.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpcgan.problems.jet_images.files import PIXEL, SIDE
from hpcgan.problems.jet_images.trimming import TrimmedJets, around

Rotation = Literal["cubic", "cells"]

Floats = NDArray[np.float64]

_MARGIN = 8
"""Empty pixels around an image: a corner of a turned image, and the four taps there, are within."""

_CENTRE = (SIDE - 1) // 2


def images_of(trimmed: TrimmedJets, rotation: Rotation = "cubic") -> NDArray[np.float32]:
    """Images of trimmed jets.

    Parameters
    ----------
    trimmed : TrimmedJets
        J of them.
    rotation : "cubic" or "cells"

    Returns
    -------
    (J, 25, 25) float32, pT in GeV.
    """
    jet, eta, phi, pt = _cells_from_axis(trimmed)
    angle = angle_to_below(downwards(trimmed))
    if rotation == "cells":
        cosine, sine = np.cos(angle)[jet], np.sin(angle)[jet]
        eta, phi = cosine * eta - sine * phi, sine * eta + cosine * phi
    images = binned(jet, eta, phi, pt, len(trimmed))
    if rotation == "cubic":
        images = turned(images, angle)
    return brighter_side_right(images).astype(np.float32)


def _cells_from_axis(trimmed: TrimmedJets) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Jet, eta and phi from the axis, and pT of each cell."""
    cells = trimmed.cells
    jet = np.repeat(np.arange(len(trimmed)), cells.sizes)
    pt = np.hypot(cells.px, cells.py)
    eta = np.arcsinh(cells.pz / pt) - trimmed.axis[jet, 0]
    return jet, eta, around(np.arctan2(cells.py, cells.px) - trimmed.axis[jet, 1]), pt


def downwards(trimmed: TrimmedJets) -> Floats:
    """(J, 2) the direction in eta and phi that is to point down: of the second subjet, else of the fainter half.

    For a jet with one subjet that is the principal axis of its cells, weighted with their pT, towards the side of their
    mean with less pT.
    """
    direction = trimmed.second.copy()
    alone = np.isnan(direction[:, 0])
    if alone.any():
        direction[alone] = _fainter_half(trimmed)[alone]
    return direction


def _fainter_half(trimmed: TrimmedJets) -> Floats:
    jet, eta, phi, pt = _cells_from_axis(trimmed)

    def mean(values: Floats) -> Floats:
        return np.bincount(jet, weights=pt * values, minlength=len(trimmed)) / total

    total = np.bincount(jet, weights=pt, minlength=len(trimmed))
    eta, phi = eta - mean(eta)[jet], phi - mean(phi)[jet]
    angle = 0.5 * np.arctan2(2 * mean(eta * phi), mean(eta**2) - mean(phi**2))
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    side = np.sign(axis[jet, 0] * eta + axis[jet, 1] * phi)
    brighter = np.bincount(jet, weights=pt * side, minlength=len(trimmed))
    return np.where(brighter > 0, -1.0, 1.0)[:, None] * axis


def angle_to_below(direction: Floats) -> Floats:
    """(J,) angles, anticlockwise, by which directions (J, 2) have to be turned to point down (towards smaller phi)."""
    return -np.pi / 2 - np.arctan2(direction[:, 1], direction[:, 0])


def binned(jet: NDArray[np.int64], eta: Floats, phi: Floats, pt: Floats, n: int) -> Floats:
    """(n, 25, 25) summed pT of cells in pixels; cells outside the image are left out."""
    column = np.floor(eta / PIXEL + SIDE / 2).astype(np.int64)
    row = SIDE - 1 - np.floor(phi / PIXEL + SIDE / 2).astype(np.int64)
    inside = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < SIDE)
    pixel = (jet * SIDE + row) * SIDE + column
    sums = np.bincount(pixel[inside], weights=pt[inside], minlength=n * SIDE * SIDE)
    return sums.astype(np.float64).reshape(n, SIDE, SIDE)


def turned(images: NDArray[Any], angle: Floats) -> Floats:
    """Images (n, 25, 25) turned anticlockwise about their central pixel by angles (n,), with cubic convolution.

    No value is below 0, or above the largest of the image before.
    """
    images = np.asarray(images, np.float64)
    down, right = np.indices((SIDE, SIDE)).reshape(2, -1) - _CENTRE
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    # Where a pixel comes from: turned back, with rows that go down.
    row = _CENTRE + cosine * down + sine * right
    column = _CENTRE - sine * down + cosine * right
    padded = np.pad(images, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))
    first_row, first_column = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    down_weights, right_weights = _cubic(row - first_row), _cubic(column - first_column)
    which = np.arange(len(images))[:, None]
    values = np.zeros(row.shape)
    for i, down_weight in enumerate(down_weights):
        for j, right_weight in enumerate(right_weights):
            taps = padded[which, first_row + (_MARGIN - 1 + i), first_column + (_MARGIN - 1 + j)]
            values += down_weight * right_weight * taps
    brightest = images.max(axis=(1, 2), initial=0.0)
    return np.clip(values, 0.0, brightest[:, None]).reshape(-1, SIDE, SIDE)


def _cubic(t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Weights of the pixels at -1, 0, 1 and 2 for a place at t, from 0 to 1."""
    return (
        t * (t * (2 - t) - 1) / 2,
        (t * t * (3 * t - 5) + 2) / 2,
        t * (t * (4 - 3 * t) + 1) / 2,
        t * t * (t - 1) / 2,
    )


def brighter_side_right(images: NDArray[Any]) -> NDArray[Any]:
    """Images (n, 25, 25), mirrored where the left half has more pT than the right one.

    The central column counts to neither.
    """
    columns = images.sum(axis=1)
    pt_left, pt_right = columns[:, :_CENTRE].sum(axis=1), columns[:, _CENTRE + 1 :].sum(axis=1)
    return np.where((pt_left > pt_right)[:, None, None], images[:, :, ::-1], images)
