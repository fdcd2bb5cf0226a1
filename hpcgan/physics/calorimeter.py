"""The lead / liquid-argon calorimeter of CaloGAN: geometry, cells and the medium that showers see.

A cube of 480 mm of 80 pairs of plates, each 2 mm of lead and then 4 mm of liquid argon, with z along the beam from -240
to 240 mm (Paganini, de Oliveira and Nachman, PRL 120 (2018) 042003). It is read out in three layers that end at z =
-150, 197 and 240 mm, each with a regular grid of cells over +-240 mm. Particles come in along z, on the centre.

Images have rows phi and columns eta; here phi stands for y and eta for x, both in mm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgan.errors import InputError

HALF_SIDE = 240.0
"""Half the side of the cube, and of the window that the cells cover, mm."""

LAYER_EDGES = (-240.0, -150.0, 197.0, 240.0)
"""Ends of the three readout layers along z, mm."""

N_LAYERS = 3

PLANES = 80
"""Pairs of absorber and active medium along z."""

AXES = "shower, phi (y), eta (x)"
"""Axes of the images of a layer."""

CELL_LIMIT = 100_000
"""Cells of a segmentation, at most."""


@dataclass(frozen=True)
class Material:
    """A medium; values of the Particle Data Group (Navas et al., PRD 110 (2024) 030001, Atomic and Nuclear Properties).

    Attributes
    ----------
    z, a : float
        Atomic number, and mass in g/mol.
    density : float
        g/cm^3.
    radiation_length, interaction_length, pion_interaction_length : float
        g/cm^2; the second one is that of nucleons.
    """

    z: float
    a: float
    density: float
    radiation_length: float
    interaction_length: float
    pion_interaction_length: float

    @property
    def critical_energy(self) -> float:
        """MeV: 2.66 (X0 Z / A)^1.1, which Grindhammer and Peters (hep-ex/0001020) measure energies in.

        Their constants go with this value, not with the Particle Data Group's (lead: 7.36 here, 7.43 there).
        """
        return 2.66 * (self.radiation_length * self.z / self.a) ** 1.1

    @property
    def plasma_energy(self) -> float:
        """eV: 28.816 sqrt(density Z / A) (Particle Data Group, Passage of Particles Through Matter, table 34.1)."""
        return 28.816 * float(np.sqrt(self.density * self.z / self.a))


LEAD = Material(82.0, 207.2, 11.35, 6.37, 199.6, 226.2)
LIQUID_ARGON = Material(18.0, 39.948, 1.396, 19.55, 119.7, 149.0)

SCATTERING_ENERGY = 21.2
"""E_s of the Moliere radius E_s X0 / E_c, MeV."""


@dataclass(frozen=True)
class Sampling:
    """A stack of absorber and active medium as one effective medium (Grindhammer and Peters, hep-ex/0001020).

    Lengths in mm where they are lengths. With w the share of a material in the mass of a pair of plates,

        Z_eff = sum w Z,  1/X0_eff = sum w / X0,  E_c,eff = X0_eff sum w E_c / X0,  1/R_M,eff = (1/E_s) sum w E_c / X0.

    Attributes
    ----------
    absorber, active : Material
    absorber_mm, active_mm : float
        Thickness of a plate.
    """

    absorber: Material = LEAD
    active: Material = LIQUID_ARGON
    absorber_mm: float = 2.0
    active_mm: float = 4.0

    def _mean(self, quantity: Callable[[Material], float]) -> float:
        """Mean of a quantity of the materials, weighted by mass."""
        a, b = self.absorber_mm * self.absorber.density, self.active_mm * self.active.density
        return (a * quantity(self.absorber) + b * quantity(self.active)) / (a + b)

    def _length(self, quantity: Callable[[Material], float]) -> float:
        """mm, of a length of the materials in g/cm^2, whose inverse is averaged."""
        return 10.0 / (self._mean(lambda material: 1 / quantity(material)) * self.density)

    @property
    def pitch(self) -> float:
        """Thickness of a pair of plates, mm."""
        return self.absorber_mm + self.active_mm

    @property
    def density(self) -> float:
        """g/cm^3."""
        mass = self.absorber_mm * self.absorber.density + self.active_mm * self.active.density
        return mass / self.pitch

    @property
    def z(self) -> float:
        """Effective atomic number."""
        return self._mean(lambda material: material.z)

    @property
    def radiation_length(self) -> float:
        """X0_eff, mm."""
        return self._length(lambda material: material.radiation_length)

    @property
    def _critical(self) -> float:
        """Sum of w E_c / X0, MeV cm^2/g."""
        return self._mean(lambda material: material.critical_energy / material.radiation_length)

    @property
    def critical_energy(self) -> float:
        """E_c,eff, MeV."""
        return self.radiation_length / 10.0 * self.density * self._critical

    @property
    def moliere_radius(self) -> float:
        """R_M,eff, mm."""
        return 10.0 * SCATTERING_ENERGY / (self._critical * self.density)

    @property
    def interaction_length(self) -> float:
        """mm, of nucleons: the scale of hadronic showers."""
        return self._length(lambda material: material.interaction_length)

    @property
    def pion_interaction_length(self) -> float:
        """mm: mean depth at which a pion interacts first."""
        return self._length(lambda material: material.pion_interaction_length)

    @property
    def sampling_frequency(self) -> float:
        """F_S = X0_eff / (d_a + d_p), dimensionless (hep-ex/0001020)."""
        return self.radiation_length / self.pitch

    @property
    def e_over_mip(self) -> float:
        """Signal of an electron relative to that of a minimum-ionising particle, 1 / (1 + 0.007 (Z_p - Z_a))."""
        return 1.0 / (1.0 + 0.007 * (self.absorber.z - self.active.z))


CALORIMETER = Sampling()
"""2 mm of lead and 4 mm of liquid argon: X0 15.6 mm, Moliere radius 36.8 mm, 30.8 X0 deep."""


@dataclass(frozen=True)
class Grid:
    """Equal cells of one layer over the window of +-240 mm.

    Attributes
    ----------
    n_phi, n_eta : int
        Cells along phi (y, rows of an image) and along eta (x, columns).
    """

    n_phi: int
    n_eta: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of an image: (rows phi, columns eta)."""
        return self.n_phi, self.n_eta

    @property
    def n_cells(self) -> int:
        """Cells in all."""
        return self.n_phi * self.n_eta

    @property
    def phi_centres(self) -> NDArray[np.float64]:
        """Centres of the rows along y, mm: (n_phi,)."""
        return _centres(self.n_phi)

    @property
    def eta_centres(self) -> NDArray[np.float64]:
        """Centres of the columns along x, mm: (n_eta,)."""
        return _centres(self.n_eta)

    def divides_into(self, coarser: Grid) -> bool:
        """Whether every cell of a coarser grid is a number of whole cells of this one."""
        return self.n_phi % coarser.n_phi == 0 and self.n_eta % coarser.n_eta == 0


def _centres(n: int) -> NDArray[np.float64]:
    return np.asarray((np.arange(n) + 0.5) * (2.0 * HALF_SIDE / n) - HALF_SIDE, np.float64)


@dataclass(frozen=True)
class Segmentation:
    """The cells of all three layers.

    Attributes
    ----------
    layers : tuple of Grid
        From the front of the calorimeter to its back.
    """

    layers: tuple[Grid, ...]

    def __post_init__(self) -> None:
        if len(self.layers) != N_LAYERS:
            raise InputError(f"segmentation {self}: {len(self.layers)} layers instead of {N_LAYERS}")
        if any(grid.n_phi < 1 or grid.n_eta < 1 for grid in self.layers):
            raise InputError(f"segmentation {self}: a layer without cells")
        if self.n_cells > CELL_LIMIT:
            raise InputError(f"segmentation {self}: {self.n_cells} cells, at most {CELL_LIMIT} are possible")

    def __str__(self) -> str:
        """As `parse` reads it: rows x columns of each layer."""
        return ",".join(f"{grid.n_phi}x{grid.n_eta}" for grid in self.layers)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Shapes of the images of the layers."""
        return tuple(grid.shape for grid in self.layers)

    @property
    def n_cells(self) -> int:
        """Cells of all layers together."""
        return sum(grid.n_cells for grid in self.layers)

    def divides_into(self, coarser: Segmentation) -> bool:
        """Whether the cells of a coarser segmentation are sums of cells of this one."""
        return all(own.divides_into(other) for own, other in zip(self.layers, coarser.layers, strict=True))

    def coarsen(self, images: Sequence[NDArray[Any]], to: Segmentation) -> list[NDArray[Any]]:
        """Sum the cells of images into those of a coarser segmentation.

        Parameters
        ----------
        images : sequence of (n, n_phi, n_eta) arrays
            One a layer.
        to : Segmentation

        Returns
        -------
        list of (n, n_phi, n_eta) arrays
            Of the same type; sums are made in double precision.

        Raises
        ------
        InputError
            Cells of `to` that are not sums of cells of this segmentation.
        """
        if not self.divides_into(to):
            raise InputError(f"segmentation {to}: its cells are not sums of those of {self}")
        coarse = []
        for image, own, other in zip(images, self.layers, to.layers, strict=True):
            blocks = image.reshape(
                len(image), other.n_phi, own.n_phi // other.n_phi, other.n_eta, own.n_eta // other.n_eta
            )
            with np.errstate(over="ignore"):  # infinite then, as whoever sums beyond a type's range must expect
                coarse.append(blocks.sum(axis=(2, 4), dtype=np.float64).astype(image.dtype))
        return coarse

    def flatten(self, images: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Cells of all layers in a row, layer after layer, row after row: (n, n_cells)."""
        return np.concatenate([image.reshape(len(image), math.prod(image.shape[1:])) for image in images], axis=1)

    def unflatten(self, cells: ArrayLike) -> list[NDArray[Any]]:
        """Images of the layers from cells in a row: the inverse of `flatten`."""
        rows = np.asarray(cells)
        ends = np.cumsum([grid.n_cells for grid in self.layers])
        parts = np.split(rows, ends[:-1], axis=1)
        return [part.reshape(len(rows), *grid.shape) for part, grid in zip(parts, self.layers, strict=True)]


PUBLISHED = Segmentation((Grid(3, 96), Grid(12, 12), Grid(12, 6)))
"""That of the published CaloGAN data: cells of 160 x 5, 40 x 40 and 40 x 80 mm (phi x eta)."""

FINE = Segmentation((Grid(48, 192), Grid(48, 48), Grid(24, 24)))
"""That of the Geant4 sample: the published one, and those of the geometry-aware model, are sums of its cells."""

NAMED = {"published": PUBLISHED, "fine": FINE}

_GRID = re.compile(r"(\d{1,6})\s*[xX]\s*(\d{1,6})")


def parse_segmentation(text: str) -> Segmentation:
    """Segmentation from its name or from rows x columns (phi x eta) of each layer, as in ``3x96,12x12,12x6``.

    Raises
    ------
    InputError
        Neither, or not three layers, or too many cells.
    """
    if text in NAMED:
        return NAMED[text]
    grids = []
    for part in text.split(","):
        match = _GRID.fullmatch(part.strip())
        if match is None:
            raise InputError(
                f"segmentation '{text}': use {', '.join(NAMED)}, or rows x columns (phi x eta) of each layer, "
                f"for example {PUBLISHED}"
            )
        grids.append(Grid(int(match[1]), int(match[2])))
    return Segmentation(tuple(grids))
