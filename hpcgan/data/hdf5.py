"""Image files: the published HDF5 layout, written atomically and read with checks.

Layout: group ``all_events`` with ``hist`` (N, 64, 64) float32 in MeV, axes [eta, phi], and one value an event
in ``y`` (1 signal, 0 background), ``weight``, ``mGlu`` and ``mNeu`` (GeV). Attributes of the group say how
the events were made. Files of other people may lack everything but ``hist``, use another float type, or
another compression.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgan.errors import HpcganError, InputError
from hpcgan.physics.images import N_ETA, N_PHI

GROUP = "all_events"
IMAGES = "hist"
COLUMNS = ("y", "weight", "mGlu", "mNeu")
"""One value an event, in the order of :meth:`Writer.append`."""

COLUMN_UNITS = {"y": "1 signal, 0 background", "weight": "", "mGlu": "GeV", "mNeu": "GeV"}

SPLITS = ("train", "val", "test")
SPLIT_EDGES = (0.0, 0.6, 0.8, 1.0)
"""Train, validation and test events: 60, 20 and 20 percent."""

BYTES_PER_EVENT = 2500
"""Upper estimate of an event's size in a file (measured: about 1,120 at five percent of the pixels lit)."""

# One image a chunk: training reads events in random order, and a larger chunk would be unpacked for one image
# of it (64 random events: 2.7 ms with 1, 6.3 ms with 4, 20 ms with 16 images a chunk). Byte shuffling, which
# helps dense floats, makes these mostly-empty images 60 percent larger and slower to write.
STORAGE: dict[str, Any] = {"chunks": (1, N_ETA, N_PHI), "compression": "gzip", "compression_opts": 1}

CHUNK_LIMIT = 1 << 30
"""Bytes of the largest chunk that is read: HDF5 unpacks a chunk as a whole, for a single image of it."""

SCAN_IMAGES = 512
"""Images in memory at a time when a file is checked (8 MB)."""

_PART = ".part"


def split_sizes(n_events: int) -> dict[str, int]:
    """Events of each split; they add up to `n_events`.

    Raises
    ------
    InputError
        Too few events for every split to have one.
    """
    if n_events < 5:
        raise InputError(f"{n_events} events: at least 5 are needed to fill train, validation and test")
    edges = [int(n_events * edge + 1e-9) for edge in SPLIT_EDGES]
    return {name: high - low for name, low, high in zip(SPLITS, edges, edges[1:])}


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


class _Sink(io.FileIO):
    """A file that takes everything HDF5 writes and remembers the first failure instead of reporting it.

    HDF5 does not survive a write that fails: the file can never be closed, and the library crashes later. So the
    failure is kept from it, and whoever writes looks at `failure` afterwards.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.failure is None and done < len(view):
            try:
                done += super().write(view[done:]) or 0  # a nearly full disk takes a part
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        if self.failure is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.failure = error
        return size or 0


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: no handler may run in the middle of a call HDF5 makes to a :class:`_Sink`."""
    held: list[int] = []
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda caught, _: held.append(caught))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if held:
            signal.raise_signal(held[0])


class Writer:
    """Streams events into one file a split; nothing appears under the final names before all are complete.

    Files grow under ``<split>.h5.part`` and are renamed together by a clean exit of the ``with`` block; an
    exception removes them, a killed process leaves only the ``.part`` files, which the next run replaces.

    Parameters
    ----------
    folder : path
        Made if missing.
    sizes : mapping of str to int
        Number of events of each split, in the order they will be appended.
    attributes : mapping
        Attributes of the group. ``settings`` (a JSON string) identifies the data.
    force : bool
        Replace existing files.
    compressed_bytes : int
        Expected bytes of an event, for the check of free space.

    Raises
    ------
    InputError
        Existing files (see :func:`check_target`), no room on the disk, a folder that cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        sizes: Mapping[str, int],
        attributes: Mapping[str, Any],
        force: bool = False,
        compressed_bytes: int = BYTES_PER_EVENT,
    ) -> None:
        self.folder = Path(folder)
        self.sizes = dict(sizes)
        self._attributes = dict(attributes)
        self._force = force
        self._bytes = compressed_bytes
        self._stack = contextlib.ExitStack()
        self._files: dict[str, h5py.File] = {}
        self._sinks: dict[str, _Sink] = {}
        self._filled = dict.fromkeys(self.sizes, 0)

    def __enter__(self) -> Writer:
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_folder_lock(self.folder))
                if not self._force:
                    _refuse_existing(self.folder, self.sizes)
                check_space(self.folder, sum(self.sizes.values()) * self._bytes)
                stack.callback(self._discard)
                with _signals_held():
                    for split, size in self.sizes.items():
                        self._files[split] = self._create(split, size)
            except OSError as error:
                raise InputError(f"{self.folder}: cannot be written ({_reason(error)})") from error
            self._stack = stack.pop_all()
        return self

    def _part(self, split: str) -> Path:
        return self.folder / f"{split}.h5{_PART}"

    def _create(self, split: str, size: int) -> h5py.File:
        # The format of HDF5 1.10 has checksums on everything but the data, whose compression has its own.
        self._sinks[split] = _Sink(self._part(split), "w+b")
        file = h5py.File(self._sinks[split], "w", libver=("v110", "v110"))
        group = file.create_group(GROUP)
        images = group.create_dataset(IMAGES, shape=(size, N_ETA, N_PHI), dtype="<f4", **STORAGE)
        images.attrs["units"] = "MeV"
        images.attrs["axes"] = "event, eta, phi"
        for name in COLUMNS:
            column = group.create_dataset(
                name, shape=(size,), dtype="<f4", chunks=(min(max(size, 1), 4096),), compression="gzip"
            )
            column.attrs["units"] = COLUMN_UNITS[name]
        for name, value in {**self._attributes, "split": split, "events": size}.items():
            group.attrs[name] = value
        group.attrs["complete"] = False
        return file

    def append(self, images: ArrayLike, y: ArrayLike, weight: ArrayLike, m_glu: ArrayLike, m_neu: ArrayLike) -> None:
        """Add the next events, which go to the splits in order.

        Parameters
        ----------
        images : (n, 64, 64) float, MeV.
        y, weight, m_glu, m_neu : (n,) float or a single value.

        Raises
        ------
        HpcganError
            The disk is full, or cannot be written.
        """
        self.append_packed(pack(images), y, weight, m_glu, m_neu)

    def append_packed(
        self, chunks: Sequence[bytes], y: ArrayLike, weight: ArrayLike, m_glu: ArrayLike, m_neu: ArrayLike
    ) -> None:
        """Add the next events, their images compressed by :func:`pack` before; otherwise as :meth:`append`."""
        columns = [np.broadcast_to(np.asarray(value), (len(chunks),)) for value in (y, weight, m_glu, m_neu)]
        done = 0
        while done < len(chunks):
            split = next((name for name, size in self.sizes.items() if self._filled[name] < size), None)
            if split is None:
                raise ValueError("more events appended than announced")
            end = min(len(chunks), done + self.sizes[split] - self._filled[split])
            self._append_to(split, chunks[done:end], [values[done:end] for values in columns])
            done = end

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
        with _signals_held():
            images = group[IMAGES].id
            for position, chunk in enumerate(chunks, at):
                images.write_direct_chunk((position, 0, 0), chunk)
            for name, values in zip(COLUMNS, columns, strict=True):
                group[name][at : at + len(chunks)] = values
        self._check_written()
        self._filled[split] = at + len(chunks)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                self._publish()

    def _publish(self) -> None:
        short = [f"{name} {self._filled[name]} of {size}" for name, size in self.sizes.items()]
        if self._filled != self.sizes:
            raise ValueError(f"fewer events appended than announced: {', '.join(short)}")
        with _signals_held():
            for file in self._files.values():
                file[GROUP].attrs["complete"] = True
                file.close()
                self._check_written()
            try:
                for split in self.sizes:
                    os.fsync(self._sinks[split].fileno())
                # The first split goes first and comes last: whoever finds train.h5 finds the others of its kind too,
                # even if the machine stops between two of these lines.
                for split in self.sizes:
                    (self.folder / f"{split}.h5").unlink(missing_ok=True)
                for split in reversed(self.sizes):
                    os.replace(self._part(split), self.folder / f"{split}.h5")
                _sync(self.folder)
            except OSError as error:
                raise self._failed(self.folder, error) from error

    def _check_written(self) -> None:
        for split, sink in self._sinks.items():
            if sink.failure is not None:
                raise self._failed(self._part(split), sink.failure)

    @staticmethod
    def _failed(path: Path, error: OSError) -> HpcganError:
        return HpcganError(f"{path}: writing failed ({_reason(error)}); nothing was kept")

    def _discard(self) -> None:
        """Close and remove what was not published."""
        with _signals_held():
            for file in self._files.values():
                with contextlib.suppress(OSError, RuntimeError, ValueError):  # what a failed sink has lost
                    file.close()
            for sink in self._sinks.values():
                with contextlib.suppress(OSError):
                    sink.close()
        for split in self.sizes:
            with contextlib.suppress(OSError):
                self._part(split).unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words on one line."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    text = " ".join(str(error).split()) or type(error).__name__
    if "No space left" in text or "errno = 28" in text:
        return os.strerror(errno.ENOSPC)
    return text if len(text) <= 160 else text[:157] + "..."


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Keep two writers out of one folder; the system releases the lock when a process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another process is writing data there") from error
        except OSError:
            pass  # a file system without locks: go on without one
        yield
    finally:
        os.close(descriptor)


def _refuse_existing(folder: Path, splits: Mapping[str, int]) -> None:
    for split in splits:
        path = folder / f"{split}.h5"
        if path.exists():
            raise InputError(f"{path}: exists already; choose another folder, or --force to replace it")


def check_target(folder: str | os.PathLike[str], settings: str, sizes: Mapping[str, int], force: bool) -> bool:
    """Whether a folder already holds the data that is about to be made.

    Parameters
    ----------
    folder : path
    settings : str
        The ``settings`` attribute of the data to be made.
    sizes : mapping of str to int
        Events by split.
    force : bool
        Existing files do not matter.

    Returns
    -------
    bool
        True: every split is there, complete and made with these settings. False: the folder is free.

    Raises
    ------
    InputError
        The folder holds other data.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    present = [folder / f"{split}.h5" for split in sizes if (folder / f"{split}.h5").exists()]
    if force or not present:
        return False
    for split, size in sizes.items():
        path = folder / f"{split}.h5"
        if not path.exists():
            raise InputError(f"{folder}: holds {present[0].name} but not {path.name}; --force replaces what is there")
        try:
            with open_images(path) as file:
                same = file.attrs.get("settings") == settings and file.n == size
                difference = "" if same else _settings_difference(file.attrs.get("settings"), settings)
        except InputError as error:
            raise InputError(f"{error}; --force replaces it") from error
        if not same:
            raise InputError(
                f"{path}: holds data made with other settings{difference}; choose another folder, or "
                "--force to replace it"
            )
    return True


def _settings_difference(found: Any, wanted: str) -> str:
    """The first setting that differs, for a message."""
    try:
        old, new = json.loads(found), json.loads(wanted)
        for key in new:
            if old.get(key) != new[key] and key != "detector":
                return f" ({key}: {json.dumps(old.get(key))}, asked for {json.dumps(new[key])})"
    except (TypeError, ValueError, AttributeError):
        pass
    return ""


def check_space(folder: str | os.PathLike[str], needed_bytes: int) -> None:
    """Refuse a job the disk has no room for.

    Raises
    ------
    InputError
        Less than `needed_bytes` free.
    """
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if free < needed_bytes:
        raise InputError(
            f"{folder}: about {needed_bytes / 1e6:.3g} MB are needed and {free / 1e6:.3g} MB are free; "
            "choose another disk or fewer events"
        )


class ImageFile:
    """An open image file; made by :func:`open_images`.

    Attributes
    ----------
    path : Path
    n : int
        Number of events.
    """

    def __init__(self, path: Path, file: h5py.File, images: h5py.Dataset) -> None:
        self.path = path
        self.n = int(images.shape[0])
        self._file = file
        self._images = images
        self._group: h5py.Group = file[GROUP]

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the group (empty for files of other people that have none)."""
        with _readable(self.path, f"attributes of {GROUP}"):
            return {
                name: value.item() if isinstance(value, np.generic) else value
                for name, value in self._group.attrs.items()
            }

    @property
    def complete(self) -> bool:
        """False for a file whose writer was interrupted; files of other people count as complete."""
        with _readable(self.path, f"attributes of {GROUP}"):
            return "complete" not in self._group.attrs or bool(self._group.attrs["complete"])

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
        with _readable(self.path, f"{GROUP}/{IMAGES}"):
            if isinstance(which, slice):
                start, stop, step = which.indices(self.n)
                if step == 1:
                    return images[start:stop].astype(np.float32, copy=False)
                which = np.arange(start, stop, step)
            indices = np.asarray(which, dtype=np.int64)
            if indices.size and (indices.min() < -self.n or indices.max() >= self.n):
                raise IndexError(f"{self.path}: event {indices.max()} of {self.n}")
            # One read an event: h5py's fancy indexing needs sorted unique indices and is five times slower.
            out = np.empty((indices.size, *images.shape[1:]), dtype=np.float32)
            for position, index in enumerate(indices % max(self.n, 1)):
                out[position] = images[int(index)]
            return out

    def _column(self, name: str) -> NDArray[np.float32] | None:
        with _readable(self.path, f"{GROUP}/{name}"):
            if name not in self._group:
                return None
            dataset = self._group[name]
            if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
                raise InputError(f"{self.path}: {GROUP}/{name} does not hold numbers")
            if dataset.shape not in ((self.n,), (self.n, 1)):
                raise InputError(
                    f"{self.path}: {GROUP}/{name} has shape {dataset.shape} but {GROUP}/{IMAGES} has {self.n} events"
                )
            return dataset[:].astype(np.float32).reshape(-1)

    @property
    def y(self) -> NDArray[np.float32] | None:
        """(N,) label: 1 signal, 0 background; None if the file has none."""
        return self._column("y")

    @property
    def weight(self) -> NDArray[np.float32] | None:
        """(N,) event weight; None if the file has none."""
        return self._column("weight")

    @property
    def mGlu(self) -> NDArray[np.float32] | None:
        """(N,) gluino mass, GeV; None if the file has none."""
        return self._column("mGlu")

    @property
    def mNeu(self) -> NDArray[np.float32] | None:
        """(N,) neutralino mass, GeV; None if the file has none."""
        return self._column("mNeu")

    def chunks(self, size: int = SCAN_IMAGES) -> Iterator[NDArray[np.float32]]:
        """All images, some at a time."""
        for start in range(0, self.n, size):
            yield self.read(slice(start, start + size))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ImageFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextlib.contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """Turn the many errors HDF5 raises on damaged files into one that names the place."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}: {what} cannot be read ({_reason(error)}); the file is damaged") from error


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
        size. The contents are not scanned; :func:`validate` does that.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an HDF5 file")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise InputError(f"{path}: may not be read (permission denied)") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a readable HDF5 file ({_reason(error)})") from error
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        with _readable(path, f"{GROUP}/{IMAGES}"):
            images = _find_images(path, file, image_shape)
            opened = ImageFile(path, file, images)
        if not opened.complete:
            raise InputError(f"{path}: unfinished (its writer was interrupted); generate it again")
        stack.pop_all()
    return opened


def _refuse_foreign(path: Path, group: h5py.Group, name: str, where: str) -> None:
    """Refuse what a data file must not do: have other files, of whoever reads it, opened in its place."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise InputError(f"{path}: {where} is a link to another file ({link.filename!r}); copy the data into this one")
    found = group[name]
    if isinstance(found, h5py.Dataset):
        if found.external:
            raise InputError(f"{path}: {where} keeps its data in another file ({found.external[0][0]!r}); copy it in")
        if found.is_virtual:
            raise InputError(
                f"{path}: {where} is a virtual data set, a view of other files; copy the data into this one"
            )
        if found.chunks is not None and np.prod(found.chunks) * found.dtype.itemsize > CHUNK_LIMIT:
            raise InputError(
                f"{path}: {where} is stored in chunks of {np.prod(found.chunks) * found.dtype.itemsize >> 20} MiB, "
                f"each read as a whole; store it in chunks below {CHUNK_LIMIT >> 20} MiB"
            )


def _find_images(path: Path, file: h5py.File, image_shape: tuple[int, int]) -> h5py.Dataset:
    # `get` would hide damage as absence; membership tests read only the links.
    if GROUP in list(file.keys()):
        _refuse_foreign(path, file, GROUP, GROUP)
    if GROUP not in file or not isinstance(file[GROUP], h5py.Group):
        raise InputError(f"{path}: has no group '{GROUP}' (it holds: {_names(file)})")
    group = file[GROUP]
    present = list(group.keys())
    for name in (IMAGES, *COLUMNS):
        if name in present:
            _refuse_foreign(path, group, name, f"{GROUP}/{name}")
    if IMAGES not in group or not isinstance(group[IMAGES], h5py.Dataset):
        raise InputError(f"{path}: has no data set '{GROUP}/{IMAGES}' (the group holds: {_names(group)})")
    images = group[IMAGES]
    if images.dtype.kind not in "fiu":
        raise InputError(f"{path}: {GROUP}/{IMAGES} does not hold numbers (type {images.dtype})")
    if images.ndim != 3 or images.shape[1:] != image_shape:
        raise InputError(
            f"{path}: {GROUP}/{IMAGES} has shape {images.shape}; needed are images of "
            f"{image_shape[0]} x {image_shape[1]}, (N, {image_shape[0]}, {image_shape[1]})"
        )
    if images.shape[0] == 0:
        raise InputError(f"{path}: {GROUP}/{IMAGES} holds no events")
    # A damaged header can claim any number of events; no compression packs more than some ten thousand to
    # one.
    if images.size * images.dtype.itemsize > 100_000 * (images.id.get_storage_size() + 4096):
        raise InputError(f"{path}: {GROUP}/{IMAGES} claims {images.shape[0]} events but holds no data for them")
    return images


def _names(group: h5py.Group) -> str:
    names = [str(name) for name in list(group.keys())[:8]]
    return ", ".join(names) or "nothing"


def validate(path: str | os.PathLike[str], image_shape: tuple[int, int] = (N_ETA, N_PHI)) -> None:
    """Read a whole file, some images at a time, and refuse it if anything in it is wrong.

    Raises
    ------
    InputError
        As :func:`open_images`, and for damaged data, values that are not finite, negative energies, columns
        of another length or with values that are not finite. The message names file, data set and event.
    """
    with open_images(path, image_shape) as file:
        for name in COLUMNS:
            values = getattr(file, name)
            if values is not None and not np.isfinite(values).all():
                event = int(np.flatnonzero(~np.isfinite(values))[0])
                raise InputError(f"{path}: {GROUP}/{name} of event {event} is {values[event]}")
        first = 0
        for images in file.chunks():
            check_images(images, f"{path}: {GROUP}/{IMAGES}", first)
            first += len(images)


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
