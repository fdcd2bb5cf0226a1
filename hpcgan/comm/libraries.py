"""Shared libraries that this process has loaded, as Linux says."""

from __future__ import annotations

import ctypes
import os

_MAPS = "/proc/self/maps"
_DELETED = " (deleted)"


def loaded(name: str, maps: bytes | None = None) -> list[str]:
    """Paths of the loaded files whose names begin with `name`, each once, in order.

    Parameters
    ----------
    name : str
        E.g. `libmpi.so`.
    maps : bytes, optional
        What `/proc/self/maps` says, by default of this process.

    Returns
    -------
    list of str
        A path may have spaces, at its end as well. Of a file that was deleted or replaced since it was loaded, it is
        the path that the file had.
    """
    if maps is None:
        with open(_MAPS, "rb") as file:
            maps = file.read()
    paths = {path for line in maps.split(b"\n") if (path := _path(line)) is not None}
    return sorted(path for path in paths if os.path.basename(path).startswith(name))


def _path(line: bytes) -> str | None:
    """The file of a line `address permissions offset device inode   path`; None for memory that is no file's."""
    fields = line.split(maxsplit=5)
    if len(fields) < 6 or not fields[5].startswith(b"/"):
        return None
    path = os.fsdecode(fields[5].replace(b"\\012", b"\n"))  # all that Linux escapes
    if path.endswith(_DELETED) and not os.path.lexists(path):
        path = path.removesuffix(_DELETED)
    return path


def loaded_mpi() -> dict[str, str | None]:
    """Path and version of the libmpi in this process, as `mpi_library` and `mpi_version`; MPI need not have started."""
    paths = loaded("libmpi.so")
    if not paths:
        return {"mpi_library": None, "mpi_version": None}
    # Longer than MPI_MAX_LIBRARY_VERSION_STRING.
    text, length = ctypes.create_string_buffer(8192), ctypes.c_int(0)
    ctypes.CDLL(paths[0]).MPI_Get_library_version(text, ctypes.byref(length))
    return {"mpi_library": paths[0], "mpi_version": text.value.decode(errors="replace").split(",")[0].strip()}
