"""What a data file holds: counts, settings, units, ranges, validity, and a picture."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcgan import weights
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import Sample, Schema, TensorSpec, sample_bytes
from hpcgan.data.storage import open_file, readable
from hpcgan.errors import InputError, Unwritten
from hpcgan.physics.images import ETA_RANGE, N_ETA, N_PHI, PHI_RANGE
from hpcgan.physics.pileup import PIXELS
from hpcgan.problems.calorimeter import files as calo
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.pileup import files as pool

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_EVENTS = 5
PICTURE_VALUES = 200_000
"""Values in a histogram, at most."""


def describe(path: str | os.PathLike[str], picture: str | os.PathLike[str] | None = None) -> str:
    """Describe a file after reading all of it.

    Parameters
    ----------
    path : path
    picture : path, optional
        Where to save a PNG of the first events and the mean image.

    Returns
    -------
    str
        Several lines of text.

    Raises
    ------
    InputError
        The file cannot be used (see `validate` of its layout).
    Unwritten
        The picture cannot be written.
    """
    path = Path(path)
    if tensors.holds_tensors(path):
        tensors.validate(path)
        return _describe_tensors(path, picture)
    if calo.holds_showers(path):
        calo.validate(path)
        return _describe_tensors(path, picture, tensors.ROOT)
    if pool.holds_pool(path):
        return _describe_pool(path, picture)
    kind = _to_import(path)
    if kind is not None:
        raise InputError(f"{path}: {kind}; hpcgan data import makes a data set of it")
    hdf5.validate(path)
    with hdf5.open_images(path) as file:
        total: NDArray[np.float64] = np.zeros(file.read(slice(0, 1)).shape[1:])
        energy, lit, brightest = [], [], 0.0
        for images in file.chunks():
            total += images.sum(axis=0, dtype=np.float64)
            energy.append(images.sum(axis=(1, 2), dtype=np.float64))
            lit.append(np.count_nonzero(images, axis=(1, 2)))
            brightest = max(brightest, float(images.max()))
        lines = [f"{path}: {file.n} events, {os.path.getsize(path) / 1e6:.1f} MB, readable and valid"]
        rows, columns = total.shape
        units = "MeV" if file.unit.said else "units not stated (MeV?)"
        converted = "" if file.unit.trivial else f" ({file.unit.said} in the file)"
        lines.append(f"  images            {rows} x {columns} [eta, phi], {units}{converted}")
        lines.append(_line("energy", np.concatenate(energy) / 1e6, "TeV an event"))
        lines.append(_line("occupancy", np.concatenate(lit), f"pixels of {total.size}"))
        lines.append(f"  brightest         {brightest:.4g} MeV in a pixel")
        lines += _columns(file)
        lines += [
            f"  {_short(name):<18}{_short(value)}" for name, value in sorted(file.attrs.items()) if name not in _SAID
        ]
        if picture is not None:
            with _keeping(lines):
                save_picture(file.read(slice(0, PICTURE_EVENTS)), total / file.n, path.name, picture)
            lines.append(f"  picture           {picture}")
    return "\n".join(lines)


def _to_import(path: Path) -> str | None:
    """What a file is that can be imported but is no data set itself; None for others."""
    with open_file(path) as file, readable(path, "the list of data sets"):
        present = set(file.keys())
    if {"cell", "deposit"} <= present:
        return "holds Geant4 showers"
    return "is a CaloChallenge file" if "incident_energies" in present else None


_SAID = {"units", "image_shape", "events", "samples", "showers"}


def _describe_pool(path: Path, picture: str | os.PathLike[str] | None) -> str:
    with pool.open_pool(path) as file:
        file.announce()
        events, mu, attributes = file.read(), file.mu, file.attrs
    owner = np.repeat(np.arange(len(events)), events.counts)
    energy = np.bincount(owner, events.energy, len(events)).astype(np.float64)
    lines = [
        f"{path}: pool of {len(events)} events, {os.path.getsize(path) / 1e6:.1f} MB, readable and valid",
        f"  images            {N_ETA} x {N_PHI} [eta, phi], sparse, MeV",
        _line("energy", energy / 1e3, "GeV an event"),
        _line("occupancy", events.counts, f"pixels of {PIXELS}"),
        f"  brightest         {float(events.energy.max(initial=0.0)):.4g} MeV in a pixel",
    ]
    lines += [f"  {_short(name):<18}{_short(value)}" for name, value in sorted(attributes.items()) if name not in _SAID]
    if picture is not None:
        k = min(mu or 1, len(events))
        sums = events.sums(np.arange(len(events) // k * k).reshape(-1, k)[:PICTURE_EVENTS])
        mean = np.bincount(events.pixel, events.energy, PIXELS).reshape(N_ETA, N_PHI) * (k / len(events))
        with _keeping(lines):
            save_picture(sums, mean, f"{path.name}: sums of {k}", picture)
        lines.append(f"  picture           {picture}")
    return "\n".join(lines)


def _describe_tensors(path: Path, picture: str | os.PathLike[str] | None, group: str = tensors.GROUP) -> str:
    with tensors.open_tensors(path, group=group) as file:
        found = {name: _Moments(spec.shape) for name, spec in file.schema.items()}
        for _, sample in file.pieces():
            for name, values in sample.items():
                found[name].add(values)
        lines = [f"{path}: {file.n} samples, {os.path.getsize(path) / 1e6:.1f} MB, readable and valid"]
        lines += [_tensor_line(name, spec, found[name]) for name, spec in file.schema.items()]
        of_samples = file.per_sample("weight") if "weight" in file.columns() else None
        if of_samples is not None:
            lines.append(f"  weights           {weights.described(of_samples)}")
        lines += [
            f"  {_short(name):<18}{_short(value)}" for name, value in sorted(file.attrs.items()) if name not in _SAID
        ]
        if picture is not None:
            some = file.read(slice(0, max(PICTURE_EVENTS, PICTURE_VALUES * 4 // sample_bytes(file.schema))))
            means = {name: moments.total / file.n for name, moments in found.items()}
            with _keeping(lines):
                save_tensors_picture(some, means, file.schema, path.name, picture)
            lines.append(f"  picture           {picture}")
    return "\n".join(lines)


def _tensor_line(name: str, spec: TensorSpec, moments: _Moments) -> str:
    shape = " x ".join(str(length) for length in spec.shape) or "number"
    spread = f"{moments.mean:.4g} +- {moments.deviation:.4g} ({moments.low:.4g} to {moments.high:.4g})"
    zeros = f", {moments.zeros:.1%} zero" if moments.zeros else ""
    return f"  {name:<18}{shape}, {spec.unit or 'dimensionless'}, {spread}{zeros}"


class _Moments:
    """Mean, spread and range of a tensor, piece by piece."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total: NDArray[np.float64] = np.zeros(shape)
        self.low, self.high = np.inf, -np.inf
        self._n, self._squares, self._zero = 0, 0.0, 0

    def add(self, values: NDArray[np.float32]) -> None:
        exact = values.astype(np.float64)
        self.total += exact.sum(axis=0)
        self._squares += float(np.sum(exact**2))
        self._n += exact.size
        self._zero += exact.size - int(np.count_nonzero(exact))
        self.low, self.high = min(self.low, float(exact.min())), max(self.high, float(exact.max()))

    @property
    def mean(self) -> float:
        return float(self.total.sum()) / self._n

    @property
    def deviation(self) -> float:
        return float(np.sqrt(max(self._squares / self._n - self.mean**2, 0.0)))

    @property
    def zeros(self) -> float:
        return self._zero / self._n


def _line(name: str, values: NDArray[Any], unit: str) -> str:
    spread = f"{values.mean():.4g} +- {values.std():.2g}"
    return f"  {name:<18}{spread} {unit} ({values.min():.4g} to {values.max():.4g})"


def _columns(file: hdf5.ImageFile) -> list[str]:
    lines = []
    for name in hdf5.COLUMNS:
        values = getattr(file, name)
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
    m_glu, m_neu = file.mGlu, file.mNeu
    if m_glu is not None and m_neu is not None and m_glu.any() and np.isfinite([m_glu, m_neu]).all():
        points, counts = np.unique(np.stack([m_glu, m_neu]), axis=1, return_counts=True)
        shown = [f"({points[0, i]:g}, {points[1, i]:g}): {counts[i]}" for i in range(min(points.shape[1], 12))]
        more = f" and {points.shape[1] - 12} more" if points.shape[1] > 12 else ""
        lines.append(f"  masses            (mGlu, mNeu): events  {'; '.join(shown)}{more}")
    return lines


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}... ({len(text)} characters)"


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
    _save(figure, path)


def save_tensors_picture(
    samples: Sample,
    means: Mapping[str, NDArray[np.float64]],
    schema: Schema,
    title: str,
    path: str | os.PathLike[str],
) -> None:
    """Save a PNG with a row for each tensor: three samples and the mean where it is an image; a histogram of values.

    Parameters
    ----------
    samples : Sample
        The first samples.
    means : mapping of str to array
        Mean of each tensor over all samples.
    schema : Schema
    title : str
    path : path

    Raises
    ------
    Unwritten
        The picture cannot be written there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3 * 5, 3.0 * len(schema) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for row, (name, spec) in enumerate(schema.items()):
        values, label = samples[name], f"{name} [{spec.unit}]" if spec.unit else name
        if len(spec.shape) == 2 and min(spec.shape) > 1:
            panels = [*((image, f"sample {i}") for i, image in enumerate(values[:3])), (means[name], "mean of all")]
            for column, (image, text) in enumerate(panels):
                axes = figure.add_subplot(len(schema), 5, 5 * row + column + 1)
                shown = values[:3] if column < 3 else image
                norm: Normalize
                positive = shown[shown > 0]
                if values.min() >= 0 and positive.size:  # intensities, many of them zero
                    norm = LogNorm(float(np.quantile(positive, 0.01)), max(float(positive.max()), 1e-30) * 1.001)
                    image = np.where(image > 0, image, np.nan)
                else:
                    low, high = (float(v) for v in np.quantile(shown, [0.005, 0.995]))
                    norm = Normalize(low, max(high, low + 1e-30))
                mesh = axes.imshow(image, origin="lower", aspect="auto", interpolation="nearest", norm=norm)
                axes.set_title(text)
                figure.colorbar(mesh, ax=axes, label=label)
        axes = figure.add_subplot(len(schema), 5, 5 * row + 5)
        axes.hist(values.ravel()[:PICTURE_VALUES], bins=60, histtype="stepfilled", color="#4d4d4d", alpha=0.6, log=True)
        axes.set(title="values", xlabel=label)
    _save(figure, path)


@contextlib.contextmanager
def _keeping(lines: Sequence[str]) -> Iterator[None]:
    """What was found out is not lost with a picture of it."""
    try:
        yield
    except Unwritten as error:
        raise Unwritten(str(error), "\n".join(lines)) from error


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    try:
        figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    except OSError as error:
        raise Unwritten(
            f"{path}: the picture cannot be written ({error.strerror}); use --picture FILE.png or --no-picture", ""
        ) from error
