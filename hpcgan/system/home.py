"""The user's own folder, where there is one. A leaf.

In a container with a user id that nobody has given a name, in a cron job and under some batch systems there is no
`HOME`. mpirun of Open MPI does not start without it, Jupyter and IPython neither, and matplotlib complains of a folder
that cannot be written. They get a place in the folder for temporary files.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import string
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from hpcgan.errors import HpcganError


def find(env: Mapping[str, str]) -> Path | None:
    """The user's folder: `HOME`, or what the system's list of users says; None if neither says anything."""
    named = env.get("HOME")
    if named:
        return Path(named).absolute()
    try:
        listed = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return Path(listed) if listed and os.path.isdir(listed) else None


def expand(path: str) -> Path:
    """A path with `~` or `~NAME` in front replaced, as a shell does.

    Raises
    ------
    HpcganError
        There is no such user, or nobody knows the folder of this one.
    """
    if not path.startswith("~"):
        return Path(path)
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        own = path == "~" or path.startswith("~/")
        raise HpcganError(f"{path}: " + ("set HOME, or write the path in full" if own else "there is no such user"))
    return Path(expanded)


def with_variables(text: str, env: Mapping[str, str]) -> str:
    """A text with `$NAME` and `${NAME}` replaced by what the environment has for them; a variable that is empty counts
    as none.

    Raises
    ------
    KeyError
        The name of a variable that is not set.
    ValueError
        A $ begins no variable.
    """
    return string.Template(text).substitute({name: value for name, value in env.items() if value})


def stand_in() -> Path:
    """A folder of this user alone among the temporary files, the same one each time where that is safe.

    Raises
    ------
    HpcganError
        There is no place for temporary files.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"hpcgan-{os.getuid()}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
        return folder if private and os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="hpcgan-"))
    except OSError as error:
        raise HpcganError(
            f"no folder for temporary files can be used ({error.strerror}): set TMPDIR to one that can be written"
        ) from None


_stand_in: Path | None = None


def provide(env: MutableMapping[str, str]) -> str | None:
    """See to it that programs which need a home folder, or a place for what they keep, have one.

    Parameters
    ----------
    env : mutable mapping
        The environment that they get: `HOME` is set if it was not. Where there is one that cannot be written, it stays,
        and matplotlib and what else keeps a cache are told of another place.

    Returns
    -------
    str or None
        One line for the user, if there is a stand-in for `HOME`.

    Raises
    ------
    HpcganError
        As `stand_in`.
    """
    global _stand_in
    folder = find(env)
    if folder is None:
        folder = _stand_in = _stand_in or stand_in()
    env["HOME"] = str(folder)
    if folder == _stand_in:
        return f"HOME is not set, and this user has no folder: {folder} was used instead; set HOME to choose another"
    if not _writable(folder):
        for name, folder_name in (("MPLCONFIGDIR", ".config/matplotlib"), ("XDG_CACHE_HOME", ".cache")):
            if name not in env and not (folder / folder_name).exists():
                env[name] = str(stand_in())
    return None


def _writable(folder: Path) -> bool:
    """Whether something can be written below a folder, which need not exist."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
