"""Files with a data set a tensor, as a layout: those of :mod:`hpcgan.data.layouts.tensors`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcgan import weights
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import Layout
from hpcgan.data.layouts.describe import PICTURE_EVENTS, attribute_lines, headline, keeping, save
from hpcgan.data.layouts.tensors import TensorFile
from hpcgan.data.schema import Sample, Schema, TensorSpec, sample_bytes

PICTURE_VALUES = 200_000
"""Values in a histogram, at most."""


class TensorLayout(Layout):
    """A data set a tensor, in the group `samples`: the layout of every problem that does not say otherwise."""

    title: ClassVar[str] = "samples"
    group = tensors.GROUP

    def recognises(self, file: h5py.File) -> bool:
        return self.group in file

    def open(self, path: Path) -> TensorFile:
        return tensors.open_tensors(path, group=self.group)

    def validate(self, path: Path) -> None:
        tensors.validate(path, group=self.group)

    def describe(self, path: Path, picture: str | os.PathLike[str] | None = None) -> str:
        self.validate(path)
        with tensors.open_tensors(path, group=self.group) as file:
            return _described(file, picture)


SAMPLES = TensorLayout()


def _described(file: TensorFile, picture: str | os.PathLike[str] | None) -> str:
    """What an open file holds; as `Layout.describe`."""
    moments = {name: _Moments(spec.shape) for name, spec in file.schema.items()}
    for _, sample in file.pieces():
        for name, values in sample.items():
            moments[name].add(values)
    lines = [headline(file.path, f"{file.n} samples")]
    lines += [_tensor_line(name, spec, moments[name]) for name, spec in file.schema.items()]
    of_samples = file.per_sample("weight") if "weight" in file.columns() else None
    if of_samples is not None:
        lines.append(f"  weights           {weights.described(of_samples)}")
    lines += attribute_lines(file.attrs)
    if picture is not None:
        some = file.read(slice(0, max(PICTURE_EVENTS, PICTURE_VALUES * 4 // sample_bytes(file.schema))))
        means = {name: of_tensor.total / file.n for name, of_tensor in moments.items()}
        with keeping(lines):
            _save_tensors_picture(some, means, file.schema, file.path.name, picture)
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


def _save_tensors_picture(
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
                range_of = values[:3] if column < 3 else image
                norm: Normalize
                positive = range_of[range_of > 0]
                if values.min() >= 0 and positive.size:  # intensities, many of them zero
                    norm = LogNorm(float(np.quantile(positive, 0.01)), max(float(positive.max()), 1e-30) * 1.001)
                    image = np.where(image > 0, image, np.nan)
                else:
                    low, high = (float(v) for v in np.quantile(range_of, [0.005, 0.995]))
                    norm = Normalize(low, max(high, low + 1e-30))
                mesh = axes.imshow(image, origin="lower", aspect="auto", interpolation="nearest", norm=norm)
                axes.set_title(text)
                figure.colorbar(mesh, ax=axes, label=label)
        axes = figure.add_subplot(len(schema), 5, 5 * row + 5)
        axes.hist(values.ravel()[:PICTURE_VALUES], bins=60, histtype="stepfilled", color="#4d4d4d", alpha=0.6, log=True)
        axes.set(title="values", xlabel=label)
    save(figure, path)
