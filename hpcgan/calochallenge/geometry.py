"""Where the voxels of a shower are: cylinders in r and alpha, as the CaloChallenge's binning files have them, or cells.

A binning file is XML: a ``Bin`` for each particle (`name`), with a ``Layer`` for each layer of the calorimeter: its
number `id`, the edges of its radial bins `r_edges` in mm, separated by commas, and the number `n_bin_alpha` of its bins
in the angle alpha. A layer with a single edge has no voxels. Voxels come layer after layer, in a layer angle after
angle, at an angle from the inside out. Angles begin at -pi. A voxel stands for the point in the middle of its bins,
eta = r cos alpha and phi = r sin alpha, in mm (CaloChallenge, arXiv:2410.21611, and its public `XMLHandler.py`).
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import CELL_LIMIT, Segmentation

#: Bytes of a binning file, at most: that of data set 3 has 7 kB.
SIZE_LIMIT = 1 << 20

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """The voxels of one layer.

    Attributes
    ----------
    number : int
        Of the layer in the calorimeter.
    eta, phi : (voxels,) arrays
        Middles of the voxels, mm.
    centred : bool
        Whether the layer has centres and widths of energy: the challenge leaves out layers with a single bin in alpha.
    """

    number: int
    eta: Array
    phi: Array
    centred: bool

    @classmethod
    def of_cylinder(cls, number: int, edges: Sequence[float], angles: int) -> Layer:
        """Rings between edges (mm), each cut into `angles` equal bins."""
        radii = np.asarray(edges, np.float64)
        radii = 0.5 * (radii[:-1] + radii[1:])
        alpha = (np.arange(angles) + 0.5) * (2.0 * math.pi / angles) - math.pi
        eta, phi = (np.outer(part, radii).reshape(-1) for part in (np.cos(alpha), np.sin(alpha)))
        return cls(number, eta, phi, angles > 1)

    @property
    def n_voxels(self) -> int:
        """Voxels of the layer."""
        return len(self.eta)


@dataclass(frozen=True)
class Geometry:
    """The voxels of a shower.

    Attributes
    ----------
    title : str
        What reports call it.
    layers : tuple of Layer
        Those with voxels, in the order of the voxels.
    least_mev : float
        Where the histograms of energies begin, MeV.
    window_mm : float
        The histograms of centres of energy end at + and - this, those of widths at 0 and this.
    wide : tuple of int
        Numbers of layers whose centres are within 500 and widths within 400 mm instead (those of a hadron calorimeter).
    energies : tuple of float
        Edges of ranges of the incident energy that have a histogram of the response each, MeV.
    narrow : int
        The first of these ranges in which the response is looked at from 0.9 to 1.1 instead of from 0.4 to 1.4.
    """

    title: str
    layers: tuple[Layer, ...]
    least_mev: float
    window_mm: float = 100.0
    wide: tuple[int, ...] = ()
    energies: tuple[float, ...] = ()
    narrow: int = 1 << 30

    @property
    def n_voxels(self) -> int:
        """Voxels of all layers."""
        return sum(layer.n_voxels for layer in self.layers)

    @property
    def slices(self) -> list[slice]:
        """Where the voxels of each layer stand."""
        ends = np.cumsum([0, *(layer.n_voxels for layer in self.layers)]).tolist()
        return [slice(*pair) for pair in itertools.pairwise(ends)]


#: Incident energies of data set 1 are powers of two from 256 MeV to 4 TeV.
POWERS = tuple(2.0**power for power in range(8, 24))
#: Where the histograms of energies begin, MeV. Of data sets 2 and 3: 0.5 keV over the sampling fraction 0.033.
LEAST_OF_SET_1, LEAST_OF_SILICON = 10.0, 0.5e-3 / 0.033


def _edges(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def _equal(layers: int, rings: int, angles: int) -> list[tuple[int, list[float], int]]:
    edges = [41.85 / rings * ring for ring in range(rings + 1)]
    return [(number, edges, angles) for number in range(layers)]


_PRESAMPLER, _BACK = _edges("0,5,10,30,50,100,200,400,600"), _edges("0,50,100,200,400,600")
_TILES = "0,10,20,30,50,80,100,130,160,200,250,300,350,400"
#: The published binnings by their numbers of voxels: number, edges and angles of each layer that has some.
PUBLISHED: dict[int, tuple[str, list[tuple[int, list[float], int]]]] = {
    368: (
        "CaloChallenge data set 1, photons",
        [
            (0, _PRESAMPLER, 1),
            (1, _edges("0,2,4,6,8,10,12,15,20,30,40,50,70,90,120,150,200"), 10),
            (2, _edges("0,2,5,10,15,20,25,30,40,50,60,80,100,130,160,200,250,300,350,400"), 10),
            (3, _BACK, 1),
            (12, _edges("0,100,200,400,1000,2000"), 1),
        ],
    ),
    533: (
        "CaloChallenge data set 1, pions",
        [
            (0, _PRESAMPLER, 1),
            (1, _edges("0,1,4,7,10,15,30,50,90,150,200"), 10),
            (2, _edges("0,5,10,20,30,50,80,130,200,300,400"), 10),
            (3, _BACK, 1),
            (12, _edges(f"{_TILES},1000,2000"), 10),
            (13, _edges(f"{_TILES},600,1000,2000"), 10),
            (14, _edges("0,50,100,150,200,250,300,400,600,1000,2000"), 1),
        ],
    ),
    6480: ("CaloChallenge data set 2", _equal(45, 9, 16)),
    40500: ("CaloChallenge data set 3", _equal(45, 18, 50)),
}


@functools.cache
def published(voxels: int) -> Geometry | None:
    """That of the challenge's data set with so many voxels; None if there is none."""
    if voxels not in PUBLISHED:
        return None
    title, layers = PUBLISHED[voxels]
    return _geometry(title, tuple(Layer.of_cylinder(*layer) for layer in layers), voxels)


def _geometry(title: str, layers: tuple[Layer, ...], voxels: int) -> Geometry:
    """With the histograms that the challenge's scripts have for the data set of so many voxels.

    Other binnings have those of data set 1 but for what is about its incident energies and its hadron calorimeter.
    """
    if voxels in (6480, 40500):
        return Geometry(title, layers, LEAST_OF_SILICON, window_mm=30.0)
    if voxels not in PUBLISHED:
        return Geometry(title, layers, LEAST_OF_SET_1)
    return Geometry(title, layers, LEAST_OF_SET_1, 100.0, (12, 13), POWERS, 4 if voxels == 368 else 1 << 30)


def of_segmentation(cells: Segmentation) -> Geometry:
    """The cells of CaloGAN's calorimeter, row after row: eta is x, phi is y; every layer has centres and widths.

    The challenge has no histograms for them. Here they are those of data set 1, and energies begin at 0.01 MeV.
    """
    layers = []
    for number, grid in enumerate(cells.layers):
        phi, eta = np.meshgrid(grid.phi_centres, grid.eta_centres, indexing="ij")
        layers.append(Layer(number, eta.reshape(-1), phi.reshape(-1), grid.n_cells > 1))
    return Geometry(f"CaloGAN, {cells} cells", tuple(layers), 0.01)


class _Builder(ElementTree.TreeBuilder):
    """Refuses what a binning has no use for: a document type, in which entities that grow without end are declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a document type, which a binning file has not")


def read_binning(path: Path, voxels: int) -> Geometry:
    """The geometry of a binning file for showers of so many voxels.

    Raises
    ------
    InputError
        No such file, too large, no XML, with a document type, without layers, with numbers that cannot be, or no
        particle in it has so many voxels.
    """
    counts: dict[str, int] = {}
    for bins in _root(path).iter("Bin"):
        name = bins.get("name", "")[:40]
        layers = tuple(layer for element in bins.iter("Layer") if (layer := _layer(path, element)) is not None)
        if len({layer.number for layer in layers}) < len(layers):
            raise InputError(f"{path}: two layers of '{name}' have one id")
        counts[name] = sum(layer.n_voxels for layer in layers)
        if counts[name] == voxels:
            return _geometry(f"{path.name}, {name}" if name else path.name, layers, voxels)
    if not counts:
        raise InputError(f"{path}: has no <Bin> with layers; needed is a binning file of the CaloChallenge")
    held = ", ".join(f"{count} voxels ('{name}')" for name, count in counts.items())
    raise InputError(f"{path}: is a binning of {held}, the showers have {voxels} voxels")


def _root(path: Path) -> ElementTree.Element:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > SIZE_LIMIT:
        raise InputError(f"{path}: is larger than {SIZE_LIMIT >> 20} MiB, which no binning file is")
    try:
        return ElementTree.fromstring(content, ElementTree.XMLParser(target=_Builder()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: no binning file: {error}") from None


def _layer(path: Path, element: ElementTree.Element) -> Layer | None:
    """A layer, None of one without voxels."""
    words = {name: element.get(name, "").strip() for name in ("id", "r_edges", "n_bin_alpha")}
    where = f"{path}: layer {words['id'][:20]!r}"
    for name in ("id", "n_bin_alpha"):
        if not re.fullmatch(r"[0-9]{1,6}", words[name]):
            raise InputError(f"{where}: {name} is {words[name][:40]!r}, needed is a whole number")
    try:
        edges = _edges(words["r_edges"])
    except ValueError:
        raise InputError(f"{where}: r_edges is {words['r_edges'][:40]!r}, needed are numbers, in mm") from None
    rising = all(before < after for before, after in itertools.pairwise(edges))
    if not rising or not all(0 <= edge < math.inf for edge in edges):
        raise InputError(f"{where}: r_edges must rise from 0 or more, and be finite: {words['r_edges'][:40]!r}")
    angles = int(words["n_bin_alpha"])
    if len(edges) == 1:
        return None
    if not 1 <= angles * (len(edges) - 1) <= CELL_LIMIT:
        raise InputError(f"{where}: {len(edges) - 1} x {angles} voxels, possible are 1 to {CELL_LIMIT}")
    return Layer.of_cylinder(int(words["id"]), edges, angles)
