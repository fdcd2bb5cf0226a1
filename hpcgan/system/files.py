"""Primitives of files on file systems of all sorts: whole writes, exclusive names, locks. A leaf.

Network and user-space file systems lack one thing or the other: locks, links, the sync of a folder. What is lacking is
told apart from what fails, and is gone around, here and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hpcgan.errors import InputError

#: What a file system answers that does not know an operation, or for this kind of file.
_UNKNOWN = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}
#: More such answers: to links (EPERM: FAT, FUSE; EMLINK: one name a file; EXDEV, EACCES: AFS, BeeGFS), to the sync of a
#: folder (EBADF, EISDIR: CIFS; EACCES, EPERM: a folder that may be written but not listed), and to locks (EBADF: NFS,
#: which locks what is open for writing; ENOLCK: no lock service).
_LINKS = _UNKNOWN | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}
_SYNC = _UNKNOWN | {errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}
_LOCKS = _UNKNOWN | {errno.ENOLCK, errno.EBADF}
#: A full disk or quota, or a file system that fails: not the fault of who asked, and it can pass.
NOT_THE_USERS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)

LOCK_FILE = ".hpcgan.lock"

# Folders without locks of which this process has said so: a training writes into one after every epoch.
_told: set[Path] = set()


def warn(text: str) -> None:
    """One line on standard error."""
    print(f"hpcgan: warning: {text}", file=sys.stderr, flush=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    whole = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()


def sync(descriptor: int) -> None:
    """Have the content of a file reach the disk, where the file system knows how to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise


def sync_folder(path: Path) -> None:
    """Have the names in a folder reach the disk, where the file system knows how to.

    Without it, a machine that stops at once may forget the newest names; nothing else depends on it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _SYNC:
            raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file as a whole: readers and crashes see the old content or the new, nothing between."""
    with _written(path, data) as temporary:
        os.replace(temporary, path)
        sync_folder(path.parent)


def write_once(path: Path, data: bytes | str) -> bool:
    """Write a file unless it is there already; of several who try at the same time, one gets True.

    The file appears as a whole, by a link. Where there are no links it appears empty, exclusively, and is replaced by
    the whole one: for a moment, or for ever if the writer is killed in that moment, readers see an empty file. They
    take it for one that is being written.
    """
    with _written(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # An answer of NFS that was lost is asked for again, and the second one says what the first one did.
            return os.stat(temporary).st_nlink > 1
        except OSError as error:
            if error.errno not in _LINKS:
                raise
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            except FileExistsError:
                return False
            os.replace(temporary, path)
        sync_folder(path.parent)
    return True


@contextlib.contextmanager
def _written(path: Path, data: bytes | str) -> Iterator[Path]:
    """A temporary file beside `path` with this content, which goes if it is still there in the end."""
    payload = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            sync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # which would hide the error that brought us here
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_lock(folder: Path, warning: Callable[[str], None] = warn) -> Iterator[None]:
    """Keep two writers out of one folder; the system releases the lock when a process dies.

    The lock is that of the folder, else (NFS) of a file in it, which goes with the lock. Without locks one goes on,
    and a line says so.

    Raises
    ------
    InputError
        Another process has the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        missing = _lock(descriptor, folder)
        if missing is None:
            yield
            return
    finally:
        os.close(descriptor)
    path = folder / LOCK_FILE
    with file_lock(path, warning=warning):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def file_lock(path: Path, *, shared: bool = False, warning: Callable[[str], None] = warn) -> Iterator[bool]:
    """Hold the lock of a file, alone or with others; the system releases it when a process dies.

    The file is made where it is not there. It may be removed by who holds its lock alone. Without locks one goes on,
    and a line says so.

    Returns
    -------
    bool
        Of the context: whether there are locks.

    Raises
    ------
    Locked
        Another process has the lock, or has just removed the file.
    """
    folder = path.parent
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        missing = _lock(descriptor, folder, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        if missing is not None and folder.resolve() not in _told:
            _told.add(folder.resolve())
            warning(f"{folder}: this file system has no locks ({os.strerror(missing)}); write into it once at a time")
        if missing is None and not is_at(descriptor, path):  # removed by the one who had it while this one opened it
            raise Locked(folder)
        yield missing is None
    finally:
        os.close(descriptor)


class Locked(InputError):
    """Another process has the lock of a folder, or of a file in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: another process is writing data there")


def _lock(descriptor: int, folder: Path, operation: int = fcntl.LOCK_EX) -> int | None:
    """Take a lock; the error that says that there are none, or None.

    Raises
    ------
    Locked
        Another process has it.
    """
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise Locked(folder) from error
        if error.errno not in _LOCKS:
            raise
        return error.errno
    return None


def version(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from one that replaces it, and from itself when it was changed; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one of this name, and not one that somebody has put there since."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def refusal(folder: Path) -> str | None:
    """Why no file can be made in a folder (or where it is to be made), in a few words; None if one can.

    A file is made and taken away: neither its permissions nor the user's number say it of every file system.
    """
    parent = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    probe = parent / f".hpcgan-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as error:
        return os.strerror(error.errno) if error.errno is not None else str(error)
    with contextlib.suppress(OSError):
        probe.unlink()
    return None
