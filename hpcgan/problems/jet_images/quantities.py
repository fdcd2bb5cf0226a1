"""What is measured of a jet image: its pixels are massless particles at the places of their centres.

With the transverse momentum pT_i in pixel i at (eta_i, phi_i), the image's jet is the sum of

    p_i = pT_i (cos phi_i, sin phi_i, sinh eta_i, cosh eta_i),

nothing is clustered or cut. Its mass and pT, and tau_2 / tau_1 about the exclusive kt subjets of the pixels
(`hpcgan.physics.jet_shapes.tau21`), are what LAGAN is judged by (de Oliveira, Paganini and Nachman 2017,
arXiv:1701.05927, section 5). Eta and phi are those of the image, whose centre is at 0: a jet's own place in the
detector is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgan.metrics.observable import Observable
from hpcgan.physics.jet_shapes import tau21
from hpcgan.physics.jets import Particles
from hpcgan.problems.jet_images.files import HALF_SIDE, PIXEL, SIDE

SCORED = ("jet_mass", "jet_pt", "tau21")
"""What the score adds up: what the paper compares."""
MORE = ("pixel_pt",)
TAILS = ("jet_mass", "jet_pt", "pixel_pt")


class Directions(NamedTuple):
    """Momenta of pixels of unit pT, (625,) float64 each, row after row."""

    px: NDArray[np.float64]
    py: NDArray[np.float64]
    pz: NDArray[np.float64]
    e: NDArray[np.float64]


@lru_cache(maxsize=1)
def directions() -> Directions:
    """Rows are phi from the largest down, columns eta from the smallest up."""
    centres = -HALF_SIDE + (np.arange(SIDE) + 0.5) * PIXEL
    phi, eta = (grid.ravel() for grid in np.meshgrid(centres[::-1], centres, indexing="ij"))
    components = (np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta))
    for component in components:
        component.flags.writeable = False
    return Directions(*components)


def observables(images: np.ndarray) -> dict[str, Observable]:
    """`jet_mass`, `jet_pt` (GeV), `tau21` and `lit_pixels`, one value an image; tau_21 of those with lit pixels.

    Parameters
    ----------
    images : (n, 25, 25) array
        pT in GeV.
    """
    flat = images.reshape(len(images), SIDE * SIDE).astype(np.float64)
    px, py, pz, e = (flat @ component for component in directions())
    lit = np.count_nonzero(flat > 0, axis=1)
    squared = e * e - px * px - py * py - pz * pz
    return {
        "jet_mass": Observable(np.sqrt(np.maximum(squared, 0.0)), unit="GeV"),
        "jet_pt": Observable(np.hypot(px, py), unit="GeV"),
        "tau21": Observable(tau21(particles_of(images)), (lit > 0).astype(np.int64)),
        "lit_pixels": Observable(lit.astype(np.float64)),
    }


def more_observables(images: np.ndarray, names: Sequence[str]) -> dict[str, Observable]:
    """`pixel_pt` of images (n, 25, 25) in GeV, one value a lit pixel, if it is named."""
    if "pixel_pt" in names:
        lit = images > 0
        return {"pixel_pt": Observable(images[lit], np.count_nonzero(lit, axis=(1, 2)), "GeV")}
    return {}


def particles_of(images: np.ndarray) -> Particles:
    """The lit pixels of images (n, 25, 25) in GeV."""
    flat = images.reshape(len(images), SIDE * SIDE)
    image, pixel = np.nonzero(flat > 0)
    pt = flat[image, pixel].astype(np.float64)
    sizes = np.bincount(image, minlength=len(flat))
    filled = np.flatnonzero(sizes)
    px, py, pz, e = (pt * component[pixel] for component in directions())
    return Particles(filled, sizes[filled], px, py, pz, e)
