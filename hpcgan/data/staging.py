"""Copies of data files on a node's own storage, made once for all that run there: whole, checked, or not at all.

Below the folder that `data.stage` names, a user has one folder, the *store*. In it each set of files has a folder that
is named by what the files hold (:mod:`hpcgan.data.identity`): other data never take the place of those that somebody
reads. A copy appears by one rename, after it has reached the disk and was read again. Beside it stands what it was then
(size, time, fingerprint), so one that was cut off, replaced or written to since is noticed, and made anew.

Locks of files say who does what: whoever reads a set holds its lock together with others, whoever copies holds the
store's. The system releases them when a process dies, so neither leaves anything behind that has to be waited for.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgan.data.identity import identify
from hpcgan.errors import EnvironmentFailure, HpcganError, InputError
from hpcgan.system.files import NOT_THE_USERS, Locked, file_lock, sync, sync_folder, write_atomic
from hpcgan.system.home import with_variables
from hpcgan.system.liveness import Identity

KEY = "data.stage"

PIECE = 8 << 20
"""Bytes that are copied at a time."""

SYNC_EVERY = 32
"""Pieces after which what was copied goes to the disk, so that no single wait for it is long."""

NAME_LENGTH = 16
"""Hexadecimal digits of a set's name."""

POLL_S = 0.2
"""Between two looks whether another process has done with copying."""

#: File systems that the nodes of a cluster share, as the kernel calls them.
SHARED = {"nfs", "nfs4", "lustre", "gpfs", "ceph", "cifs", "smb3", "afs", "panfs", "pvfs2", "glusterfs", "9p", "wekafs"}
SHARED |= {"beegfs", "beegfs_nodev", "gfs2", "ocfs2", "fuse.glusterfs", "fuse.sshfs", "fuse.ceph", "fuse.dfs"}

_COPYING = ".copying"


@dataclass(frozen=True)
class Original:
    """A file of which there is to be a copy.

    Attributes
    ----------
    path : Path
    name : str
        Its path within the copies' folder.
    fingerprint : str
        What it must hold (`hpcgan.data.identity`).
    """

    path: Path
    name: str
    fingerprint: str


def node_name(env: Mapping[str, str]) -> str:
    """What messages call this node: Slurm's name of it, or the host's."""
    return env.get("SLURMD_NODENAME") or socket.gethostname()


def expanded(setting: str, env: Mapping[str, str], key: str = KEY) -> Path:
    """The folder that a setting names on this node, with the values of this node's variables.

    Raises
    ------
    InputError
        A variable is not set, a $ begins none, or there is no such user.
    """
    try:
        place = with_variables(setting, env)
    except KeyError as error:
        raise InputError(
            f"{key}: ${error.args[0]} of '{setting}' is not set on node {node_name(env)}; name a folder, or a variable "
            "that every rank has"
        ) from None
    except ValueError:
        raise InputError(f"{key}: '{setting}': '$' must begin a variable, as $TMPDIR or ${{TMPDIR}}") from None
    try:
        return Path(place).expanduser().absolute()
    except RuntimeError as error:  # the home of a user that there is not
        raise InputError(f"{key}: '{setting}' on node {node_name(env)}: {error}") from None


def size_text(size: int) -> str:
    """Bytes, as a person reads them."""
    unit, scale = next((unit for unit in (("GB", 1e9), ("MB", 1e6)) if size >= unit[1]), ("kB", 1e3))
    return f"{size / scale:.3g} {unit}"


class Store:
    """The folder of this user's copies on this node. It need not be there.

    Parameters
    ----------
    setting : str
        `data.stage`.
    env : mapping, optional
        By default `os.environ`.

    Attributes
    ----------
    node : str
    path : Path

    Raises
    ------
    InputError
        A variable is not set.
    """

    def __init__(self, setting: str, env: Mapping[str, str] | None = None, key: str = KEY) -> None:
        env = os.environ if env is None else env
        self.node = node_name(env)
        self._folder, self._key = expanded(setting, env, key), key
        self.path = self._folder / f"hpcgan-data-{os.geteuid()}"

    def make(self) -> None:
        """Make the folder, if it is not there.

        Raises
        ------
        InputError
            It cannot be made or written, or is somebody else's.
        """
        remedy = "name a folder of the nodes' own storage that can be written, or leave it out"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            self._check_owner(remedy)
            os.close(os.open(self.path / _COPYING, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            failure = EnvironmentFailure if error.errno in NOT_THE_USERS else InputError
            raise failure(
                f"{self._key}: {self._folder} on node {self.node} cannot be written ({error.strerror}); {remedy}"
            ) from None

    def _check_owner(self, remedy: str) -> None:
        """Refuse what somebody who lies in wait has put there, such as a link to another folder."""
        status = self.path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise InputError(f"{self._key}: {self.path} on node {self.node} is not your own; {remedy}")

    @property
    def is_there(self) -> bool:
        """Whether there is such a folder.

        Raises
        ------
        InputError
            It is somebody else's, or no folder.
        """
        try:
            self._check_owner("look at what it is, and remove it yourself")
        except FileNotFoundError:
            return False
        return True

    @property
    def place(self) -> list[str | int]:
        """The same for all processes that see the same folder of the same machine."""
        machine, status = Identity.own(), self.path.stat()
        return [machine.boot or machine.host, status.st_dev, status.st_ino]

    def doubt(self, original: Path) -> str | None:
        """Why copies here may gain nothing, for a warning; None where nothing speaks against them."""
        kind, place = _file_system(self.path), f"{self._key}: {self._folder} on node {self.node} is"
        if kind in SHARED:
            return f"{place} on a file system that nodes share ({kind}), and no storage of the node's own"
        with contextlib.suppress(OSError):
            if self.path.stat().st_dev == original.stat().st_dev:
                return f"{place} on the file system on which the data are"
        return None

    def sets(self) -> list[str]:
        """Names of the sets of copies that there are, the one that was not used for longest first."""
        locks = []
        for lock in self.path.glob(f"{'[0-9a-f]' * NAME_LENGTH}.lock"):
            with contextlib.suppress(OSError):  # it has just been removed
                locks.append((lock.stat().st_mtime_ns, lock.stem))
        return [name for _, name in sorted(locks)]

    def remove(self, name: str, *, unlocked: bool = False) -> int | None:
        """Remove a set of copies that nobody reads; the bytes that it had, or None if somebody does.

        Where there are no locks, nobody knows; it goes only if it may go `unlocked`.
        """
        lock, folder = self.path / f"{name}.lock", self.path / name
        try:
            with file_lock(lock) as is_locked:
                if not is_locked and not unlocked:
                    return None
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                if folder.exists():
                    shutil.rmtree(folder)
                (self.path / f"{name}.json").unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
        except Locked:
            return None
        return size

    def make_room(self, needed: int) -> None:
        """Check that there is room, and remove copies that nobody reads where there is not.

        Raises
        ------
        InputError
            The storage is smaller than that.
        EnvironmentFailure
            Too much of it is taken.
        """
        free, whole = self._free()
        for name in self.sets() if whole >= needed else ():
            if free >= needed:
                break
            with contextlib.suppress(OSError):
                self.remove(name)
            free, _ = self._free()
        if free < needed:
            text = (
                f"{self._key}: {self._folder} on node {self.node}: the data need {size_text(needed)} and "
                f"{size_text(free)} of {size_text(whole)} are free; "
            )
            if whole < needed:
                raise InputError(f"{text}name a folder of a larger file system, or leave {self._key} out")
            raise EnvironmentFailure(f"{text}make room, name another folder, or leave {self._key} out")

    def _free(self) -> tuple[int, int]:
        """Bytes that are free, and all."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


class Copies:
    """The copies of a set of files in a store.

    Parameters
    ----------
    store : Store
    originals : sequence of Original

    Attributes
    ----------
    name : str
        Of the set: what the files hold, and what they are called.
    folder : Path
    size : int
        Bytes that `make` has to copy, known when it has begun.
    """

    def __init__(self, store: Store, originals: Sequence[Original]) -> None:
        self._store, self._originals = store, originals
        content = json.dumps(sorted([original.name, original.fingerprint] for original in originals))
        self.name = hashlib.sha256(content.encode()).hexdigest()[:NAME_LENGTH]
        self.folder = store.path / self.name
        self.size = 0
        self._manifest = store.path / f"{self.name}.json"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody removes the copies, or makes room at their cost."""
        lock = self._store.path / f"{self.name}.lock"
        with contextlib.ExitStack() as stack:
            while True:
                self._store.make()  # somebody may have removed it since
                try:
                    stack.enter_context(file_lock(lock, shared=True))
                    break
                except (Locked, FileNotFoundError):  # of whoever removes copies right now
                    time.sleep(POLL_S)
                except OSError as error:
                    raise self._failure(error, "cannot be made") from None
            with contextlib.suppress(OSError):
                os.utime(lock)
            yield

    def missing(self) -> list[Original]:
        """Those of which there is no whole copy, as it was made."""
        entries = self._entries()
        return [original for original in self._originals if not self._is_whole(original, entries.get(original.name))]

    def make(self) -> Generator[int, None, None]:
        """Copy what is missing, bit by bit, and yield the bytes that are copied; to be `held`.

        One process copies at a time; while another one does, this one waits. Closed before its end, it leaves whole
        copies, and nothing else.

        Raises
        ------
        HpcganError
            There is no room, or a file cannot be copied, has changed or holds something else; it names the node.
        """
        while missing := self.missing():
            with contextlib.ExitStack() as stack:
                try:
                    is_locked = stack.enter_context(file_lock(self._store.path / _COPYING))
                except Locked:
                    time.sleep(POLL_S)
                    yield 0
                    continue
                if missing := self.missing():  # else somebody has made them in the meantime
                    yield from self._make(missing, is_locked)
                return

    def _make(self, originals: Sequence[Original], is_locked: bool) -> Iterator[int]:
        if is_locked:  # nobody else copies: these are of processes that were killed
            for torn in self.folder.rglob(".*.tmp"):
                with contextlib.suppress(OSError):
                    torn.unlink()
        with self._named("cannot be copied"):
            self.size = sum(original.path.stat().st_size for original in originals)
        self._store.make_room(self.size)
        done = 0
        for original in originals:
            for done_of_file in self._copy(original):
                yield done + done_of_file
            done += (self.folder / original.name).stat().st_size

    def _copy(self, original: Original) -> Iterator[int]:
        target = self.folder / original.name
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        where = f"{original.path} on node {self._store.node}"
        with self._named("cannot be read"):
            before, holds = original.path.stat(), identify(original.path).fingerprint
        if holds != original.fingerprint:
            raise InputError(f"{where}: holds other data than rank 0 reads; all ranks need the same files")
        try:
            with self._named("cannot be copied"):
                target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                with self._named("cannot be copied"):
                    source = stack.enter_context(open(original.path, "rb", buffering=0))
                    copy = stack.enter_context(open(temporary, "wb", buffering=0))
                copied = hashlib.blake2b()
                yield from self._pieces(source, copied, _into(copy))
                with self._named("cannot be copied"):
                    sync(copy.fileno())
            with contextlib.ExitStack() as stack:
                with self._named("cannot be read again"):
                    copy = stack.enter_context(open(temporary, "rb", buffering=0))
                    _forget(copy)  # what is on the disk counts, not what is in memory
                reread = hashlib.blake2b()
                for _ in self._pieces(copy, reread):
                    yield before.st_size
            if reread.digest() != copied.digest():
                raise EnvironmentFailure(f"{where}: its copy {target} is not what was read; see to that disk")
            with self._named("cannot be copied"):
                after = original.path.stat()
                if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns) or not _holds(
                    temporary, original.fingerprint
                ):
                    raise EnvironmentFailure(f"{where}: changed while it was copied; try again when nobody writes it")
                temporary.chmod(0o400)
                os.replace(temporary, target)
                sync_folder(target.parent)
                self._note(original, reread.hexdigest())
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _pieces(
        self, file: io.FileIO, checksum: Any, take: Callable[[memoryview], None] = lambda piece: None
    ) -> Iterator[int]:
        """Read a file piece by piece, and yield how far it is read."""
        buffer, done = memoryview(bytearray(PIECE)), 0
        while True:
            with self._named("cannot be copied"):
                length = file.readinto(buffer)
                piece = buffer[:length]
                if not length:
                    return
                take(piece)
            checksum.update(piece)
            done += length
            yield done

    def _note(self, original: Original, checksum: str) -> None:
        """Write down what a copy is."""
        status = (self.folder / original.name).stat()
        entry = {"size": status.st_size, "time": status.st_mtime_ns, "blake2b": checksum}
        entries = {**self._entries(), original.name: {**entry, "fingerprint": original.fingerprint}}
        write_atomic(self._manifest, json.dumps(entries, indent=1) + "\n")

    def _entries(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def _is_whole(self, original: Original, entry: Any) -> bool:
        path = self.folder / original.name
        try:
            status = path.stat()
            unchanged = (entry["size"], entry["time"]) == (status.st_size, status.st_mtime_ns)
        except (OSError, KeyError, TypeError):
            return False
        return unchanged and _holds(path, original.fingerprint)

    @contextlib.contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """What fails around the copying, with the name of the node."""
        try:
            yield
        except OSError as error:
            raise self._failure(error, what) from None

    def _failure(self, error: OSError, what: str) -> EnvironmentFailure:
        where = error.filename or self.folder
        return EnvironmentFailure(
            f"{KEY}: {where} on node {self._store.node} {what} ({error.strerror}); name another folder, or leave it out"
        )


@dataclass(frozen=True)
class Removal:
    """Sets of copies that were removed, their bytes, and sets that were left to those who read them."""

    removed: int
    size: int
    in_use: int


def unstage(setting: str, env: Mapping[str, str] | None = None) -> tuple[Store, Removal]:
    """Remove the copies of this user below a folder that nobody reads.

    Raises
    ------
    InputError
        A variable is not set, or the folder is not this user's own.
    EnvironmentFailure
        They cannot be removed.
    """
    store = Store(setting, env, "DIR")
    if not store.is_there:
        return store, Removal(0, 0, 0)
    try:
        sizes = [store.remove(name, unlocked=True) for name in store.sets()]
        removed = [size for size in sizes if size is not None]
        if len(removed) == len(sizes) and store.path.is_dir():
            with contextlib.suppress(Locked), file_lock(store.path / _COPYING):
                (store.path / _COPYING).unlink()
                with contextlib.suppress(OSError):  # somebody has begun to use it
                    store.path.rmdir()
    except OSError as error:
        raise EnvironmentFailure(f"{error.filename or store.path}: cannot be removed: {error.strerror}") from None
    return store, Removal(len(removed), sum(removed), len(sizes) - len(removed))


def _holds(path: Path, fingerprint: str) -> bool:
    """Whether a file holds what it should."""
    try:
        return identify(path).fingerprint == fingerprint
    except HpcganError:  # damaged
        return False


def _into(copy: io.FileIO) -> Callable[[memoryview], None]:
    """Writes pieces, and has them reach the disk from time to time."""
    count = 0

    def write(piece: memoryview) -> None:
        nonlocal count
        while piece:
            piece = piece[copy.write(piece) :]
        count += 1
        if count % SYNC_EVERY == 0:
            sync(copy.fileno())

    return write


def _forget(file: io.FileIO) -> None:
    """Have the system read a file from the disk again."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _file_system(path: Path) -> str:
    """The kind of file system on which a file is, as the kernel calls it; "" where that cannot be known."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for mount in mounts:
        place, _, kind = mount.partition(" - ")
        if place.split()[2] == number:
            return kind.split()[0]
    return ""
