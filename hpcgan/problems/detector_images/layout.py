"""Detector images as a layout: what `hpcgan data info` says of them, and their picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcgan import weights
from hpcgan.data.layouts import describe as lines_of
from hpcgan.data.layouts.base import Layout
from hpcgan.data.layouts.describe import PICTURE_EVENTS, line
from hpcgan.physics.images import ETA_RANGE, PHI_RANGE
from hpcgan.problems.detector_images import files


class ImageLayout(Layout):
    """The published layout: images and one value an event in `all_events`."""

    title: ClassVar[str] = "detector images"
    group = files.GROUP
    problem: ClassVar[str | None] = "rpv"

    def recognises(self, file: h5py.File) -> bool:
        return self.group in file

    def open(self, path: Path) -> files.ImageFile:
        return files.open_images(path)

    def validate(self, path: Path) -> None:
        files.validate(path)

    def describe(self, path: Path, picture: str | os.PathLike[str] | None = None) -> str:
        self.validate(path)
        with files.open_images(path) as file:
            return _described(file, picture)


IMAGES = ImageLayout()


def _described(file: files.ImageFile, picture: str | os.PathLike[str] | None) -> str:
    """What an open file holds; as `Layout.describe`."""
    total: NDArray[np.float64] = np.zeros(file.read(slice(0, 1)).shape[1:])
    energy, lit, brightest = [], [], 0.0
    for images in file.chunks():
        total += images.sum(axis=0, dtype=np.float64)
        energy.append(images.sum(axis=(1, 2), dtype=np.float64))
        lit.append(np.count_nonzero(images, axis=(1, 2)))
        brightest = max(brightest, float(images.max()))
    lines = [lines_of.headline(file.path, f"{file.n} events")]
    rows, columns = total.shape
    units = "MeV" if file.unit.text else "units not stated (MeV?)"
    converted = "" if file.unit.trivial else f" ({file.unit.text} in the file)"
    lines.append(f"  images            {rows} x {columns} [eta, phi], {units}{converted}")
    lines.append(line("energy", np.concatenate(energy) / 1e6, "TeV an event"))
    lines.append(line("occupancy", np.concatenate(lit), f"pixels of {total.size}"))
    lines.append(f"  brightest         {brightest:.4g} MeV in a pixel")
    lines += _columns(file) + lines_of.attribute_lines(file.attrs)
    if picture is not None:
        with lines_of.keeping(lines):
            save_picture(file.read(slice(0, PICTURE_EVENTS)), total / file.n, file.path.name, picture)
        lines.append(f"  picture           {picture}")
    return "\n".join(lines)


def _columns(file: files.ImageFile) -> list[str]:
    lines = []
    for name in files.COLUMNS:
        values = file.column(name)
        if values is None:
            lines.append(f"  {name:<18}not in the file")
            continue
        if np.isnan(values).all():
            lines.append(f"  {name:<18}not known")
            continue
        distinct, counts = np.unique(values, return_counts=True)
        if name == "weight" and weights.counting(values) is not None:
            text = weights.described(values)
        elif len(distinct) <= 12:
            text = ", ".join(f"{value:g} ({count})" for value, count in zip(distinct, counts))
        else:
            text = f"{len(distinct)} values, {distinct[0]:g} to {distinct[-1]:g}"
        lines.append(f"  {name:<18}{text}")
    m_glu, m_neu = (file.column(name) for name in files.MASSES)
    if m_glu is not None and m_neu is not None and m_glu.any() and np.isfinite([m_glu, m_neu]).all():
        points, counts = np.unique(np.stack([m_glu, m_neu]), axis=1, return_counts=True)
        cells = [f"({points[0, i]:g}, {points[1, i]:g}): {counts[i]}" for i in range(min(points.shape[1], 12))]
        more = f" and {points.shape[1] - 12} more" if points.shape[1] > 12 else ""
        lines.append(f"  masses            (mGlu, mNeu): events  {'; '.join(cells)}{more}")
    return lines


def save_picture(
    events: NDArray[np.float32], mean: NDArray[np.float64], title: str, path: str | os.PathLike[str]
) -> None:
    """Save a PNG with some events and the mean image.

    Parameters
    ----------
    events : (n, 64, 64) float, MeV
    mean : (64, 64) float, MeV
    title : str
    path : path

    Raises
    ------
    Unwritten
        The picture cannot be written there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    panels = [*((image, f"event {i}") for i, image in enumerate(events)), (mean, "mean of all events")]
    columns = 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    brightest = max(float(events.max()) * 1e-3, 1.0)
    for index, (image, label) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        is_mean = index == len(panels) - 1
        gev = np.asarray(image, dtype=np.float64) * 1e-3
        top = max(float(gev.max()), 0.2) if is_mean else brightest
        low = max(top * 1e-3, 1e-6) if is_mean else 0.1
        mesh = axes.imshow(
            np.where(gev > 0, gev, np.nan).T,  # phi upwards, eta to the right
            origin="lower",
            extent=(*ETA_RANGE, *PHI_RANGE),
            aspect="auto",
            interpolation="nearest",
            norm=LogNorm(min(low, top / 2), top),
            cmap="viridis",
        )
        axes.set(title=label, xlabel=r"$\eta$", ylabel=r"$\phi$")
        figure.colorbar(mesh, ax=axes, label="energy [GeV]")
    lines_of.save(figure, path)
