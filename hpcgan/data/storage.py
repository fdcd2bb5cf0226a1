"""What all data files have in common: written atomically, read with distrust.

A file is HDF5 with everything in one group, whose attributes say how the data were made (``settings``), whether the
writer came to its end (``complete``), and what all values come to (``digest``). What stands in the group is a matter of
the layout (:mod:`hpcgan.data.layouts`, and those of problems).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcgan.data import attributes
from hpcgan.data.digest import ATTRIBUTE, Digest
from hpcgan.data.heaps import check_heaps
from hpcgan.errors import FailureKind, HpcganError, InputError
from hpcgan.system.files import folder_lock, is_at, sync, sync_folder

SPLITS = ("train", "val", "test")
SPLIT_EDGES = (0.0, 0.6, 0.8, 1.0)
"""Train, validation and test events: 60, 20 and 20 percent."""

CHUNK_LIMIT = 1 << 30
"""Bytes of the largest chunk that is read: HDF5 unpacks a chunk as a whole, for a single image of it."""

_PART = ".part"


def split_sizes(n_events: int, split_edges: Sequence[float] = SPLIT_EDGES) -> dict[str, int]:
    """Events of each split; they add up to `n_events`.

    Parameters
    ----------
    n_events : int
    split_edges : sequence of float
        Shares of the events at which the splits begin and end, from 0 to 1.

    Raises
    ------
    InputError
        Too few events for every split to have one.
    """
    if n_events < 5:
        raise InputError(f"{n_events} events: at least 5 are needed to fill train, validation and test")
    edges = [int(n_events * edge + 1e-9) for edge in split_edges]
    return {name: high - low for name, low, high in zip(SPLITS, edges, edges[1:])}


_CYCLE = 5


def interleaved_sizes(n: int) -> dict[str, int]:
    """Samples of each split where, of every five in a row, three go to train, one to val and one to test.

    Raises
    ------
    InputError
        Too few samples for every split to have one.
    """
    split_sizes(n)
    return {name: int(np.count_nonzero(which)) for name, which in interleave(0, n).items()}


def interleave(first: int, n: int) -> dict[str, NDArray[np.bool_]]:
    """Which of the samples first ... first + n - 1 go to each split, as `interleaved_sizes` counts them."""
    place = np.arange(first, first + n) % _CYCLE
    return {"train": place < 3, "val": place == 3, "test": place == 4}


class Sink(io.FileIO):
    """A file that takes everything HDF5 writes and remembers the first failure instead of reporting it.

    HDF5 does not survive a write that fails: the file can never be closed, and the library crashes later. So the
    failure is kept from it, and whoever writes looks at `failure` afterwards.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        offset = 0
        while self.failure is None and offset < len(view):
            try:
                offset += super().write(view[offset:]) or 0  # a nearly full disk takes a part
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


def _new_file(sink: Sink) -> h5py.File:
    """An HDF5 file whose bytes say nothing of when it was written, whatever the version of HDF5.

    The format of HDF5 1.10 has checksums on everything but the data, whose compression has its own.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, sink)
    return h5py.File(h5py.h5f.create(b"sink", fcpl=_without_time(h5py.h5p.FILE_CREATE), fapl=access))


def _without_time(kind: Any) -> Any:
    """How to create a group: HDF5 before 2.0 notes when, if it may."""
    properties = h5py.h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: no handler may run in the middle of a call HDF5 makes to a :class:`Sink`."""
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


@dataclass(frozen=True)
class Target:
    """Files that are to be written: one a split, in one folder.

    Attributes
    ----------
    folder : path
        Made if missing.
    sizes : mapping of str to int
        Number of samples of each split, in the order they will be appended.
    attributes : mapping
        What the files say of themselves. ``settings`` (a JSON string) identifies the data.
    force : bool
        Replace existing files.
    """

    folder: str | os.PathLike[str]
    sizes: Mapping[str, int]
    attributes: Mapping[str, Any]
    force: bool = False

    def file(self, split: str) -> Path:
        """The file of a split."""
        return Path(self.folder) / f"{split}.h5"

    def is_there(self, opener: Callable[[Path], DataFile]) -> bool:
        """Whether the folder already holds the data that is about to be made.

        Parameters
        ----------
        opener : callable
            Opens a file of the kind that is about to be made.

        Returns
        -------
        bool
            True: every split is there, complete and made with these settings. False: the folder is free.

        Raises
        ------
        InputError
            The folder holds other data.
        """
        folder, settings = Path(self.folder), self.attributes["settings"]
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is not a folder")
        present = [path for path in map(self.file, self.sizes) if path.exists()]
        if self.force or not present:
            self._refuse_links()
            return False
        for split, size in self.sizes.items():
            path = self.file(split)
            if not path.exists():
                raise InputError(
                    f"{folder}: holds {present[0].name} but not {path.name}; --force replaces what is there"
                )
            try:
                with contextlib.closing(opener(path)) as file:
                    same = file.attrs.get("settings") == settings and file.n == size
                    difference = "" if same else settings_difference(file.attrs.get("settings"), settings)
            except InputError as error:
                raise InputError(f"{error}; --force replaces it") from error
            if not same:
                raise InputError(
                    f"{path}: holds data made with other settings{difference}; choose another folder, or "
                    "--force to replace it"
                )
        return True

    def refuse_existing(self) -> None:
        """Refuse a folder that holds one of the files, unless they are to be replaced."""
        for path in map(self.file, self.sizes):
            if path.exists() and not self.force:
                raise InputError(f"{path}: exists already; choose another folder, or --force to replace it")

    def _refuse_links(self) -> None:
        """Refuse to put files in the place of symbolic links: who has made one wants the data elsewhere."""
        for path in map(self.file, self.sizes):
            if path.is_symlink():
                raise InputError(
                    f"{path}: is a symbolic link to {os.readlink(path)}, and would be replaced by a file; remove it, "
                    "or choose another folder"
                )


Writing = TypeVar("Writing", bound="SplitWriter")
Reading = TypeVar("Reading", bound="DataFile")


class SplitWriter(ABC):
    """Streams samples into one file a split; nothing appears under the final names before all are complete.

    Files grow under ``<split>.h5.part`` and are renamed together by a clean exit of the ``with`` block; an
    exception removes them, a killed process leaves only the ``.part`` files, which the next run replaces.

    Parameters
    ----------
    target : Target
    group : str
        Group that holds everything, and has the attributes.
    sample_bytes : int
        Expected bytes of a sample in a file, for the check of free space.
    noun : str
        What the samples are called in messages; the attribute with their number has the same name.

    Raises
    ------
    InputError
        Existing files, no room on the disk, a folder that cannot be written.
    """

    def __init__(self, target: Target, group: str, sample_bytes: int, noun: str) -> None:
        self._target, self.folder, self.sizes = target, Path(target.folder), dict(target.sizes)
        self._group = group
        self._bytes = sample_bytes
        self._noun = noun
        self._stack = contextlib.ExitStack()
        self._files: dict[str, h5py.File] = {}
        self._sinks: dict[str, Sink] = {}
        self._filled = dict.fromkeys(self.sizes, 0)
        self._digests = {split: Digest() for split in self.sizes}

    def __enter__(self: Writing) -> Writing:
        with contextlib.ExitStack() as stack:
            try:
                for missing in reversed([path for path in (self.folder, *self.folder.parents) if not path.exists()]):
                    stack.callback(_remove_if_empty, missing)
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(folder_lock(self.folder))
                self._target.refuse_existing()
                check_space(self.folder, sum(self.sizes.values()) * self._bytes)
                stack.callback(self._discard)
                with signals_held():
                    for split, size in self.sizes.items():
                        self._files[split] = self._create(split, size)
            except OSError as error:
                raise InputError(f"{self.folder}: cannot be written ({reason(error)})") from error
            self._stack = stack.pop_all()
        return self

    def _part(self, split: str) -> Path:
        return self.folder / f"{split}.h5{_PART}"

    def _create(self, split: str, size: int) -> h5py.File:
        self._part(split).unlink(missing_ok=True)  # of a process that was killed
        self._sinks[split] = Sink(self._part(split), "x+b")
        file = _new_file(self._sinks[split])
        if self._group not in file:
            h5py.h5g.create(file.id, self._group.encode(), gcpl=_without_time(h5py.h5p.GROUP_CREATE))
        group = file[self._group]
        self._lay_out(group, size)
        which = {"split": split} if split in SPLITS else {}  # else the name of a file that somebody chose
        for name, value in {**self._target.attributes, **which, self._noun: size}.items():
            group.attrs[name] = value
        group.attrs["complete"] = False
        return file

    def note(self, **attributes: Any) -> None:
        """Add attributes to all files: what is known only after the data were made."""
        with signals_held():
            for file in self._files.values():
                file[self._group].attrs.update(attributes)
        self._check_written()

    @abstractmethod
    def _lay_out(self, group: h5py.Group, size: int) -> None:
        """Create the data sets for `size` samples."""

    def _pieces(self, n: int) -> Iterator[tuple[str, slice]]:
        """Where the next `n` samples go: (split, which of them), one split after another."""
        start = 0
        while start < n:
            split = next((name for name, size in self.sizes.items() if self._filled[name] < size), None)
            if split is None:
                raise ValueError(f"more {self._noun} appended than announced")
            end = min(n, start + self.sizes[split] - self._filled[split])
            yield split, slice(start, end)
            start = end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                self._publish()

    def _publish(self) -> None:
        short = [f"{name} {self._filled[name]} of {size}" for name, size in self.sizes.items()]
        if self._filled != self.sizes:
            raise ValueError(f"fewer {self._noun} appended than announced: {', '.join(short)}")
        with signals_held():
            for split, file in self._files.items():
                file[self._group].attrs[ATTRIBUTE] = str(self._digests[split])
                file[self._group].attrs["complete"] = True
                file.close()
                self._check_written()
            self._have_written()
            published: list[Path] = []
            try:
                # The first split goes first and comes last: whoever finds train.h5 finds the others of its kind too,
                # even if the machine stops between two of these lines.
                for split in self.sizes:
                    self._target.file(split).unlink(missing_ok=True)
                for split in reversed(self.sizes):
                    os.replace(self._part(split), self._target.file(split))
                    published.append(self._target.file(split))
            except OSError as error:
                for path in published:  # which are of no use without the others
                    with contextlib.suppress(OSError):
                        path.unlink()
                raise self._failed(self.folder, error) from error
            try:
                sync_folder(self.folder)
            except OSError as error:
                raise HpcganError(
                    f"{self.folder}: all is written, but may not outlive a crash of the machine ({reason(error)})"
                ) from error

    def _have_written(self) -> None:
        """See that everything has reached the disk, under the names that are going to be published.

        Raises
        ------
        HpcganError
            It has not; what was there before stays.
        """
        for split, sink in self._sinks.items():
            try:
                sync(sink.fileno())
            except OSError as error:
                raise self._failed(self.folder, error) from error
            if not is_at(sink.fileno(), self._part(split)):  # where there are no locks
                raise HpcganError(
                    f"{self._part(split)}: another process has written it at the same time; this one has kept nothing"
                )

    def _check_written(self) -> None:
        for split, sink in self._sinks.items():
            if sink.failure is not None:
                raise self._failed(self._part(split), sink.failure)

    def _failed(self, path: Path, error: OSError) -> HpcganError:
        state = what_is_left(map(self._target.file, self.sizes))
        return HpcganError(f"{path}: writing failed ({reason(error)}); {state}")

    def _discard(self) -> None:
        """Close and remove what was not published."""
        with signals_held():
            for file in self._files.values():
                with contextlib.suppress(OSError, RuntimeError, ValueError):  # what a failed sink has lost
                    file.close()
            for split, sink in self._sinks.items():
                with contextlib.suppress(OSError):
                    if is_at(sink.fileno(), self._part(split)):  # no other process's
                        self._part(split).unlink()
                with contextlib.suppress(OSError):
                    sink.close()


def _remove_if_empty(folder: Path) -> None:
    """A folder that was made for data which then were not."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def what_is_left(files: Iterable[Path]) -> str:
    """What to say of files that were to be written, or replaced, and were not."""
    earlier_files = [path.name for path in files if path.exists()]
    return (
        f"nothing was written, {' and '.join(earlier_files)} of before stay as they were"
        if earlier_files
        else "nothing was kept"
    )


def reason(error: BaseException) -> str:
    """What went wrong, in a few words on one line."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    text = " ".join(str(error).split()) or type(error).__name__
    if "No space left" in text or "errno = 28" in text:
        return os.strerror(errno.ENOSPC)
    return text if len(text) <= 160 else text[:157] + "..."


class DataFile:
    """An open data file.

    Attributes
    ----------
    path : Path
    n : int
        Number of samples.
    group : str
        Name of the group that holds everything.
    """

    def __init__(self, path: Path, file: h5py.File, group: str, n: int) -> None:
        self.path = path
        self.n = n
        self._file = file
        self.group = group
        self._group: h5py.Group = file[group]

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the group as plain values (empty for files of other people that have none)."""
        with readable(self.path, f"attributes of {self.group}"):
            return attributes.read(self._group)

    def text(self, name: str) -> str:
        """An attribute of the group that is text, "" where there is none.

        Raises
        ------
        InputError
            It is something else.
        """
        return attributes.text(self.attrs.get(name, ""), self._whose(name))

    def number(self, name: str) -> float | None:
        """An attribute of the group that is one number, None where there is none; otherwise as `text`."""
        value = self.attrs.get(name)
        return None if value is None else attributes.number(value, self._whose(name))

    def _whose(self, name: str) -> str:
        return f"{self.path}: attribute {name} of {self.group.strip('/') or 'the file'}"

    @property
    def complete(self) -> bool:
        """False for a file whose writer was interrupted; files of other people count as complete."""
        with readable(self.path, f"attributes of {self.group}"):
            flag = attributes.single(attributes.read(self._group).get("complete", True))
        if not isinstance(flag, (bool, int)):
            raise InputError(f"{self._whose('complete')} is {attributes.show(flag)}, neither true nor false")
        return bool(flag)

    def columns(self) -> list[str]:
        """Names of the data sets of the group with one number a sample: weights, labels, masses."""
        with readable(self.path, f"the list of data sets of {self.group}"):
            columns = []
            for name in list(self._group.keys()):
                refuse_foreign(self.path, self._group, name, self._place(name))
                data = self._group[name]
                if isinstance(data, h5py.Dataset) and data.dtype.kind in "fiub" and self._fits(data):
                    columns.append(name)
            return columns

    def per_sample(self, name: str) -> NDArray[np.float64] | None:
        """(N,) one number a sample; None if the file has no such data set.

        Raises
        ------
        InputError
            A data set that does not hold one number a sample.
        """
        where = self._place(name)
        with readable(self.path, where):
            if name not in list(self._group.keys()):
                return None
            refuse_foreign(self.path, self._group, name, where)
            data = self._group[name]
            if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "fiub" or not self._fits(data):
                raise InputError(f"{self.path}: {where} does not hold one number for each of {self.n} samples")
            return np.asarray(data[:], np.float64).reshape(-1)

    def _fits(self, data: h5py.Dataset) -> bool:
        return data.shape in ((self.n,), (self.n, 1))

    def _place(self, name: str) -> str:
        return name if self.group == "/" else f"{self.group}/{name}"

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self: Reading) -> Reading:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def to_import(files: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files whose events are to be joined, as paths.

    Raises
    ------
    InputError
        None at all, or one that is named twice.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise InputError("no file to import")
    resolved = [path.resolve() for path in paths]
    for i, path in enumerate(resolved):
        if path in resolved[:i]:
            raise InputError(f"{paths[i]}: named twice")
    return paths


def settings_difference(stored: Any, current: str) -> str:
    """The first setting that differs, for a message."""
    try:
        old, new = json.loads(stored), json.loads(current)
        for key in new:
            if old.get(key) != new[key] and key != "detector":
                return f" ({key}: {json.dumps(old.get(key))}, asked for {json.dumps(new[key])})"
    except (TypeError, ValueError, AttributeError):
        pass
    return ""


class NoRoom(InputError):
    """The disk has no room for what is to be written: bad input, as another disk would do, but no fault of a trial."""

    kind: FailureKind = "environment"


def check_space(
    folder: str | os.PathLike[str], needed_bytes: int, remedy: str = "choose another disk or fewer events"
) -> None:
    """Refuse a job the disk has no room for.

    Raises
    ------
    NoRoom
        Less than `needed_bytes` free.
    """
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if free < needed_bytes:
        raise NoRoom(
            f"{folder}: about {needed_bytes / 1e6:.3g} MB are needed and {free / 1e6:.3g} MB are free; {remedy}"
        )


@contextlib.contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn the many errors HDF5 raises on damaged files into one that names the place."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}: {what} cannot be read ({reason(error)}); the file is damaged") from error


def refuse_foreign(path: Path, group: h5py.Group, name: str, where: str) -> None:
    """Refuse what a data file must not do: have other files, of whoever reads it, opened in its place."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise InputError(f"{path}: {where} is a link to another file ({link.filename!r}); copy the data into this one")
    if isinstance(link, h5py.SoftLink) and group.get(name) is None:  # `in` is true of it
        raise InputError(f"{path}: {where} is a link to {link.path}, which the file does not hold; copy the data there")
    node = group[name]
    if isinstance(node, h5py.Dataset):
        _refuse_unknown_filters(path, node, where)
        if node.external:
            raise InputError(f"{path}: {where} keeps its data in another file ({node.external[0][0]!r}); copy it in")
        if node.is_virtual:
            raise InputError(
                f"{path}: {where} is a virtual data set, a view of other files; copy the data into this one"
            )
        if node.chunks is not None and np.prod(node.chunks) * node.dtype.itemsize > CHUNK_LIMIT:
            raise InputError(
                f"{path}: {where} is stored in chunks of {np.prod(node.chunks) * node.dtype.itemsize >> 20} MiB, "
                f"each read as a whole; store it in chunks below {CHUNK_LIMIT >> 20} MiB"
            )


FILTERS = {
    4: "szip",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
    32040: "htj2k",
}
"""Registered filters of HDF5 that an HDF5 may lack, by their numbers."""


def _refuse_unknown_filters(path: Path, data: h5py.Dataset, where: str) -> None:
    """Refuse data that are packed with a filter which neither HDF5 nor hdf5plugin, if it is installed, has."""
    pipeline = data.id.get_create_plist()
    for place in range(pipeline.get_nfilters()):
        number, flags, _, called = pipeline.get_filter(place)
        if h5py.h5z.filter_avail(number):
            continue
        if flags & h5py.h5z.FLAG_OPTIONAL and not _is_applied(data, place):
            continue  # who wrote the file lacked it, too
        # hdf5plugin has HDF5 know its filters when it is imported.
        with contextlib.suppress(Exception):  # missing, or built for another h5py
            importlib.import_module("hdf5plugin")
        if h5py.h5z.filter_avail(number):
            continue
        own = " ".join(called.decode("utf-8", "replace").split(";")[0].split())[:40]
        name = FILTERS.get(number, own or "unknown")
        raise InputError(
            f"{path}: {where} is compressed with the filter {name} (HDF5 filter {number}), which is not here; "
            "pip install hdf5plugin (or set HDF5_PLUGIN_PATH to the folder of the filter), or repack the file where it "
            "can be read: h5repack -f GZIP=1 IN.h5 OUT.h5"
        )


def _is_applied(data: h5py.Dataset, place: int) -> bool:
    """Whether a chunk went through a filter of the pipeline that is allowed to be left out."""
    if data.chunks is None or not data.id.get_num_chunks():
        return False
    if not hasattr(data.id, "chunk_iter"):  # older HDF5, which takes a time for each chunk that grows with their number
        return not data.id.get_chunk_info(0).filter_mask >> place & 1
    return bool(data.id.chunk_iter(lambda chunk: True if not chunk.filter_mask >> place & 1 else None))


def names(group: h5py.Group) -> str:
    names = [" ".join(attributes.plain(str(name)).split()) for name in list(group.keys())[:8]]
    return ", ".join(names) or "nothing"


def open_file(path: Path) -> h5py.File:
    """Open a file for reading, on file systems without locks, too.

    HDF5 takes a lock that keeps readers and writers apart. Where there are none, there is nothing to ask; where there
    are, a file that is being written is refused.

    Raises
    ------
    InputError
        No such file, a folder, not HDF5, cut short, may not be read, being written, a heap without end.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an HDF5 file")
    try:
        check_heaps(path)
        try:
            return h5py.File(path, "r")
        except OSError as error:
            if "locking flag values" in str(error):  # this process has it open without a lock already
                return _open_unlocked(path, error)
            if "unable to lock file" not in str(error):
                raise
            if error.errno in LOCKED:
                raise InputError(
                    f"{path}: another program is writing to it ({reason(error)}); wait for its end, or set "
                    "HDF5_USE_FILE_LOCKING=FALSE if there is none"
                ) from error
            return _open_unlocked(path, error)
    except PermissionError as error:
        raise InputError(f"{path}: may not be read (permission denied)") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a readable HDF5 file ({reason(error)})") from error


LOCKED = (errno.EAGAIN, errno.EACCES)
"""What a file system says of a file that somebody else has locked. Anything else means that it has no locks."""


def _open_unlocked(path: Path, error: OSError) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except ValueError:  # an HDF5 that has no such option
        raise InputError(
            f"{path}: the file system has no locks ({reason(error)}); set HDF5_USE_FILE_LOCKING=FALSE to read it"
        ) from error


def find_group(path: Path, file: h5py.File, name: str) -> h5py.Group:
    """A group at the top of a file.

    Raises
    ------
    InputError
        There is none, or it is in another file.
    """
    if name in list(file.keys()):  # `get` would hide damage as absence
        refuse_foreign(path, file, name, name)
    if name not in file or not isinstance(file[name], h5py.Group):
        raise InputError(f"{path}: has no group '{name}' (it holds: {names(file)})")
    return file[name]


def find_data(path: Path, group: h5py.Group, name: str, kinds: str = "fiu") -> h5py.Dataset:
    """A data set with numbers of these kinds, of NumPy.

    Raises
    ------
    InputError
        There is none, it is in another file, or holds something else.
    """
    inside = group.name.strip("/")
    where = f"{inside}/{name}" if inside else name
    if name in list(group.keys()):
        refuse_foreign(path, group, name, where)
    if name not in group or not isinstance(group[name], h5py.Dataset):
        holder = "the group" if inside else "the file"
        raise InputError(f"{path}: has no data set '{where}' ({holder} holds: {names(group)})")
    data = group[name]
    if data.dtype.kind not in kinds:
        numbers = "numbers" if "f" in kinds else "whole numbers"
        remedy = f"store it as {'float32' if 'f' in kinds else 'int64'}"
        raise InputError(f"{path}: {where} does not hold {numbers} (type {data.dtype}); {remedy}")
    return data


def check_backed(path: Path, data: h5py.Dataset, where: str) -> None:
    """Refuse a data set that claims more samples than it can hold.

    A damaged header can claim any number of events; no compression packs more than some ten thousand to one.
    """
    if data.size * data.dtype.itemsize > 100_000 * (data.id.get_storage_size() + 4096):
        raise InputError(f"{path}: {where} claims {data.shape[0]} events but holds no data for them")
