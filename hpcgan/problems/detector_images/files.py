"""Image files: the published HDF5 layout, written atomically and read with checks.

Layout: group ``all_events`` with ``hist`` (N, 64, 64) float32 in MeV, axes [eta, phi], and one value an event
in ``y`` (1 signal, 0 background), ``weight``, ``mGlu`` and ``mNeu`` (GeV). Attributes of the group say how
the events were made. Files of other people may lack everything but ``hist``, use another float type, or
another compression. What they say of themselves is heeded (:mod:`hpcgan.data.claims`): energies in another unit
are converted.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgan.data import claims, storage
from hpcgan.data.claims import Conversion
from hpcgan.data.meaning import Meaning, Numbers
from hpcgan.data.storage import (
    DataFile,
    check_backed,
    find_data,
    find_group,
    open_file,
    readable,
    refuse_foreign,
    signals_held,
)
from hpcgan.errors import InputError
from hpcgan.physics.images import ETA_RANGE, N_ETA, N_PHI, PHI_RANGE

GROUP = "all_events"
IMAGES = "hist"
COLUMNS = ("y", "weight", "mGlu", "mNeu")
"""One value an event, in the order of :meth:`Writer.append`."""

MASSES = ("mGlu", "mNeu")
UNKNOWN_AS_NAN = MASSES
"""Columns that may be NaN throughout, where nobody can say: generated events of a model that knows no masses."""

COLUMN_UNITS = {"y": "1 signal, 0 background", "weight": "", "mGlu": "GeV", "mNeu": "GeV", "mu": ""}
"""Of all columns that a file may have."""

IMAGE_BYTES = N_ETA * N_PHI * 4
"""Of an image in memory."""

BYTES_PER_EVENT = 2500
"""Upper estimate of an event's size in a file (measured: about 1,120 at five percent of the pixels lit)."""

# One image a chunk: training reads events in random order, and a larger chunk would be unpacked for one image
# of it (64 random events: 2.7 ms with 1, 6.3 ms with 4, 20 ms with 16 images a chunk). Byte shuffling, which
# helps dense floats, makes these mostly-empty images 60 percent larger and slower to write.
STORAGE: dict[str, Any] = {"chunks": (1, N_ETA, N_PHI), "compression": "gzip", "compression_opts": 1}

SCAN_IMAGES = 512
"""Images in memory at a time when a file is checked (8 MB)."""


TOLERANCE = 1 / 8
"""Of a pixel: ranges whose ends are nearer to one another mean the same. So +-3.14 or +-pi is the range +-3.15 of the
published images (a tower within 0.01 of an edge may be in the next pixel), and +-3.2 is not."""


def _grid(shape: tuple[int, int]) -> dict[str, Numbers]:
    """Attributes that say which part of the detector images show, in all the ways they are called."""
    attributes = {}
    ends: tuple[float, ...] = ()
    for number, (axis, span) in enumerate((("eta", ETA_RANGE), ("phi", PHI_RANGE))):
        bins, ends = shape[number], (*ends, *span)
        near = (span[1] - span[0]) / bins * TOLERANCE
        edges = tuple(np.linspace(*span, bins + 1).tolist())
        for word in ("range", "ranges", "lim", "lims", "limit", "limits", "bounds", "extent", "window", "interval"):
            attributes[f"{axis}{word}"] = attributes[f"{word}{axis}"] = Numbers((tuple(span), edges), near)
        for word, value in zip(("min", "max", "low", "high", "lo", "hi"), span * 3):
            attributes[f"{axis}{word}"] = attributes[f"{word}{axis}"] = Numbers(((value,),), near)
        for word in ("edges", "binedges", "bins", "edge"):
            attributes[f"{axis}{word}"] = attributes[f"{word}{axis}"] = Numbers((edges, (float(bins),)), near)
        for name in (f"n{axis}", f"n{axis}bins", f"nbins{axis}", f"{axis}nbins", f"num{axis}"):
            attributes[name] = Numbers(((float(bins),),))
        for name in (f"{axis}binwidth", f"{axis}width", f"{axis}pixelsize", f"d{axis}", f"delta{axis}", f"{axis}step"):
            attributes[name] = Numbers((((span[1] - span[0]) / bins,),), 2 * near / bins)
    pixel = TOLERANCE * min((ends[1] - ends[0]) / shape[0], (ends[3] - ends[2]) / shape[1])
    for name in ("range", "ranges", "extent", "histrange", "imagerange", "imageextent", "limits", "bounds"):
        attributes[name] = Numbers((ends,), pixel, loose=True)
    size = (tuple(map(float, shape)),)
    attributes["imageshape"] = attributes["imagesize"] = Numbers(size, last=True)
    for name in ("bins", "nbins", "shape", "histbins", "gridshape"):
        attributes[name] = Numbers(size, last=True, loose=True)
    return attributes


def meaning(shape: tuple[int, int] = (N_ETA, N_PHI)) -> Meaning:
    """Of detector images of a size."""
    return Meaning("MeV", ("eta", "phi"), numbers=_grid(shape))


MOST_TEV = 100.0
"""Energy of an event of detector images at most, where a file's unit is converted: that of the largest collider that
was ever planned. Whoever writes MeV and says GeV has a thousand times more than there is."""


def check_plausible(energy_mev: NDArray[np.floating[Any]], conversion: Conversion, where: str, first: int) -> None:
    """Refuse a unit that the numbers themselves contradict.

    Parameters
    ----------
    energy_mev : (n,) float
        Energy of each event, after the conversion.
    conversion : Conversion
    where : str
        What the message begins with: file and data set.
    first : int
        Number of the first event.

    Raises
    ------
    InputError
    """
    bad = np.flatnonzero(energy_mev > MOST_TEV * 1e6)
    if bad.size and conversion.times > 1:
        raise InputError(
            f"{where}: attribute units says {conversion.text}, but event {first + bad[0]} would have "
            f"{energy_mev[bad[0]] / 1e6:.4g} TeV, more than any collision; correct the attribute"
        )


def pack(images: ArrayLike) -> list[bytes]:
    """Compress images as the files hold them, one chunk each, for :meth:`Writer.append_packed`.

    Any HDF5 program reads the result through the usual gzip filter. Looking for runs of equal bytes only, which is all
    there is in mostly-empty images, makes them a sixth smaller than ordinary deflation, in less time.

    Parameters
    ----------
    images : (n, 64, 64) float, MeV.

    Returns
    -------
    list of bytes
    """
    packed = []
    for image in np.asarray(images).astype("<f4", copy=False):
        if image.shape != (N_ETA, N_PHI):
            raise ValueError(f"an image of shape {image.shape} instead of ({N_ETA}, {N_PHI})")
        compressor = zlib.compressobj(STORAGE["compression_opts"], strategy=zlib.Z_RLE)
        packed.append(compressor.compress(image.tobytes()) + compressor.flush())
    return packed


class Writer(storage.SplitWriter):
    """Streams images into one file a split (see :class:`hpcgan.data.storage.SplitWriter`).

    Parameters
    ----------
    target : Target
    compressed_bytes : int
        Expected bytes of an event, for the check of free space.
    extra : sequence of str
        Columns after `COLUMNS`, out of `COLUMN_UNITS`.

    Raises
    ------
    InputError
        As the base class.
    """

    def __init__(
        self, target: storage.Target, compressed_bytes: int = BYTES_PER_EVENT, extra: Sequence[str] = ()
    ) -> None:
        self._columns = (*COLUMNS, *extra)
        super().__init__(target, GROUP, compressed_bytes, "events")

    def _lay_out(self, group: h5py.Group, size: int) -> None:
        images = group.create_dataset(IMAGES, shape=(size, N_ETA, N_PHI), dtype="<f4", **STORAGE)
        images.attrs["units"] = "MeV"
        images.attrs["axes"] = "event, eta, phi"
        for name in self._columns:
            column = group.create_dataset(
                name, shape=(size,), dtype="<f4", chunks=(min(max(size, 1), 4096),), compression="gzip"
            )
            column.attrs["units"] = COLUMN_UNITS[name]

    def append(
        self,
        images: ArrayLike,
        y: ArrayLike,
        weight: ArrayLike,
        m_glu: ArrayLike,
        m_neu: ArrayLike,
        *extra: ArrayLike,
    ) -> None:
        """Add the next events, which go to the splits in order.

        Parameters
        ----------
        images : (n, 64, 64) float, MeV.
        y, weight, m_glu, m_neu, *extra : (n,) float or a single value.

        Raises
        ------
        HpcganError
            The disk is full, or cannot be written.
        """
        self.append_packed(pack(images), y, weight, m_glu, m_neu, *extra)

    def append_packed(
        self,
        chunks: Sequence[bytes],
        y: ArrayLike,
        weight: ArrayLike,
        m_glu: ArrayLike,
        m_neu: ArrayLike,
        *extra: ArrayLike,
    ) -> None:
        """Add the next events, their images compressed by :func:`pack` before; otherwise as :meth:`append`."""
        columns = [np.broadcast_to(np.asarray(value), (len(chunks),)) for value in (y, weight, m_glu, m_neu, *extra)]
        for split, which in self._pieces(len(chunks)):
            self._append_to(split, chunks[which], [values[which] for values in columns])

    def append_to(self, split: str, images: ArrayLike, *columns: ArrayLike) -> None:
        """Add events to one split, which must have room for them; arguments as in :meth:`append`."""
        chunks = pack(images)
        if len(chunks) > self.sizes[split] - self._filled[split]:
            raise ValueError(f"more events appended to {split} than announced")
        if chunks:
            self._append_to(split, chunks, [np.broadcast_to(np.asarray(value), (len(chunks),)) for value in columns])

    def _append_to(self, split: str, chunks: Sequence[bytes], columns: Sequence[NDArray[Any]]) -> None:
        at = self._filled[split]
        group = self._files[split][GROUP]
        with signals_held():
            images = group[IMAGES].id
            self._digests[split].add_packed(IMAGES, chunks)
            for position, chunk in enumerate(chunks, at):
                images.write_direct_chunk((position, 0, 0), chunk)
            for name, values in zip(self._columns, columns, strict=True):
                group[name][at : at + len(chunks)] = values
                self._digests[split].add(name, np.asarray(values, np.float32))
        self._check_written()
        self._filled[split] = at + len(chunks)


class ImageFile(DataFile):
    """An open image file; made by :func:`open_images`.

    Attributes
    ----------
    path : Path
    n : int
        Number of events.
    unit : Conversion
        Of the energies.
    """

    def __init__(self, path: Path, file: h5py.File, images: h5py.Dataset, unit: Conversion) -> None:
        super().__init__(path, file, GROUP, int(images.shape[0]))
        self._images = images
        self.unit = unit
        self._masses: dict[str, Conversion] = {}

    def read(self, which: slice | ArrayLike = slice(None)) -> NDArray[np.float32]:
        """Images by slice, or by indices in any order, repeats included.

        Parameters
        ----------
        which : slice or (k,) int
            Negative indices count from the end.

        Returns
        -------
        (k, 64, 64) float32, MeV.

        Raises
        ------
        InputError
            The file is damaged there.
        IndexError
            An index out of range.
        """
        images = self._images
        # What is beyond float32 becomes infinite, and is refused.
        with readable(self.path, f"{GROUP}/{IMAGES}"), np.errstate(over="ignore"):
            if isinstance(which, slice):
                start, stop, step = which.indices(self.n)
                if step == 1:
                    return self._in_mev(images[start:stop], start).astype(np.float32, copy=False)
                which = np.arange(start, stop, step)
            indices = np.asarray(which, dtype=np.int64)
            if indices.size and (indices.min() < -self.n or indices.max() >= self.n):
                raise IndexError(f"{self.path}: event {indices.max()} of {self.n}")
            # One read an event: h5py's fancy indexing needs sorted unique indices and is five times slower.
            out = np.empty((indices.size, *images.shape[1:]), dtype=np.float32)
            for position, index in enumerate(indices % max(self.n, 1)):
                out[position] = self._in_mev(images[int(index)], int(index))
            return out

    def _in_mev(self, images: NDArray[Any], first: int) -> NDArray[Any]:
        if self.unit.trivial:
            return images
        converted = np.asarray(self.unit(images))
        energy = converted.sum(axis=(-2, -1)).reshape(-1)
        check_plausible(energy, self.unit, f"{self.path}: {GROUP}/{IMAGES}", first)
        return converted

    def announce(self) -> None:
        """Say on standard error, once in a process, what is converted: energies, and masses that were read."""
        claims.announce(self.path, f"{GROUP}/{IMAGES}", self.unit, "MeV")
        for name, unit in self._masses.items():
            claims.announce(self.path, f"{GROUP}/{name}", unit, "GeV")

    def column(self, name: str) -> NDArray[np.float32] | None:
        """(N,) one number an event; None if the file has no such column."""
        with readable(self.path, f"{GROUP}/{name}"):
            if name not in self._group:
                return None
            dataset = self._group[name]
            if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
                raise InputError(f"{self.path}: {GROUP}/{name} does not hold numbers")
            if dataset.shape not in ((self.n,), (self.n, 1)):
                raise InputError(
                    f"{self.path}: {GROUP}/{name} has shape {dataset.shape} but {GROUP}/{IMAGES} has {self.n} events"
                )
            unit = Conversion()
            if name in MASSES:
                unit = self._masses[name] = claims.conversion_of_column(self.path, dataset, Meaning("GeV"))
            with np.errstate(over="ignore"):
                return unit(dataset[:]).astype(np.float32).reshape(-1)

    def chunks(self, size: int = SCAN_IMAGES) -> Iterator[NDArray[np.float32]]:
        """All images, some at a time."""
        for start in range(0, self.n, size):
            yield self.read(slice(start, start + size))


def open_images(path: str | os.PathLike[str], image_shape: tuple[int, int] = (N_ETA, N_PHI)) -> ImageFile:
    """Open an image file; use it in a ``with`` statement.

    Parameters
    ----------
    path : path
    image_shape : (int, int)
        The size the images must have.

    Returns
    -------
    ImageFile

    Raises
    ------
    InputError
        No such file, not HDF5, cut short, unfinished, without ``all_events/hist``, or with images of another
        size, or that say they have another grid, or a unit that is not one of energy. The contents are not scanned;
        :func:`validate` does that.
    """
    path = Path(path)
    file = open_file(path)
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        with readable(path, f"{GROUP}/{IMAGES}"):
            images = _find_images(path, file, image_shape)
            opened = ImageFile(
                path, file, images, claims.conversions(path, {IMAGES: (images, meaning(image_shape))})[IMAGES]
            )
        if not opened.complete:
            raise InputError(f"{path}: unfinished (its writer was interrupted); generate it again")
        stack.pop_all()
    return opened


def _find_images(path: Path, file: h5py.File, image_shape: tuple[int, int]) -> h5py.Dataset:
    group = find_group(path, file, GROUP)
    for name in COLUMN_UNITS:
        if name in list(group.keys()):
            refuse_foreign(path, group, name, f"{GROUP}/{name}")
    images = find_data(path, group, IMAGES)
    if images.ndim != 3 or images.shape[1:] != image_shape:
        raise InputError(
            f"{path}: {GROUP}/{IMAGES} has shape {images.shape}; needed are images of "
            f"{image_shape[0]} x {image_shape[1]}, (N, {image_shape[0]}, {image_shape[1]})"
        )
    if images.shape[0] == 0:
        raise InputError(f"{path}: {GROUP}/{IMAGES} holds no events")
    check_backed(path, images, f"{GROUP}/{IMAGES}")
    return images


def validate(path: str | os.PathLike[str]) -> None:
    """Read a whole file, some images at a time, and refuse it if anything in it is wrong.

    Raises
    ------
    InputError
        As :func:`open_images`, and for damaged data, values that are not finite, negative energies, columns
        of another length or with values that are not finite. The message names file, data set and event.
    """
    with open_images(path) as file:
        for name in COLUMN_UNITS:
            values = file.column(name)
            if name in UNKNOWN_AS_NAN and values is not None and np.isnan(values).all():
                continue
            if values is not None and not np.isfinite(values).all():
                event = int(np.flatnonzero(~np.isfinite(values))[0])
                raise InputError(f"{path}: {GROUP}/{name} of event {event} is {values[event]}")
        first = 0
        for images in file.chunks():
            check_images(images, f"{path}: {GROUP}/{IMAGES}", first)
            first += len(images)
        file.announce()


def check_images(images: NDArray[Any], where: str, first: int = 0) -> None:
    """Refuse images with values that are not finite or negative.

    Parameters
    ----------
    images : (n, ...) float
    where : str
        What the message calls them.
    first : int
        Number of the first event, for the message.

    Raises
    ------
    InputError
    """
    if not images.size:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        if images.min() >= 0 and np.isfinite(images.max()):  # NaN fails both
            return
    flat = images.reshape(len(images), -1)
    bad = ~np.isfinite(flat)
    kind = "not finite (NaN or infinite)" if bad.any() else "negative"
    bad = bad if bad.any() else flat < 0
    event = int(np.flatnonzero(bad.any(axis=1))[0])
    value = flat[event][bad[event]][0]
    raise InputError(f"{where}: event {first + event} holds an energy that is {kind}: {value:g}")
