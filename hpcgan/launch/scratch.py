"""A folder for what mpirun and its ranks share on one machine, which goes with the job, or else with the next one.

Open MPI keeps a session folder among the temporary files, and 16 MB of shared memory a rank in /dev/shm, named after
the job. Both are removed by mpirun at the end. When mpirun is killed, or all processes of a job at once (out of memory,
`scancel --signal=KILL`), nobody removes them: shared memory fills up, and a later job of the same name cannot start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hpcgan.system.files import Locked, file_lock

PREFIX = "hpcgan-mpi-"
_LOCK = "lock"
_TRIES = 5


def place() -> Path:
    """Where such folders are: where Open MPI has its shared memory, else among the temporary files."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[dict[str, str]]:
    """Have a folder for a job of Open MPI 5 during a block.

    The lock of a file in it is held meanwhile, which the system releases however this process ends. Folders of this
    user whose lock nobody holds are removed first.

    Parameters
    ----------
    parent : Path
        Where it is made, usually `place()`.

    Yields
    ------
    dict of str to str
        Variables that make mpirun and its ranks use it; none if there cannot be one.
    """
    sweep(parent)
    with contextlib.ExitStack() as stack:
        folder = _made(parent, stack)
        if folder is None:
            yield {}
            return
        try:
            yield {"PRTE_MCA_prte_tmpdir_base": str(folder), "OMPI_MCA_btl_sm_backing_directory": str(folder)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> list[Path]:
    """Remove the folders of this user whose jobs are gone; which these were."""
    removed = []
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError, Locked):
            if folder.lstat().st_uid != os.getuid():
                continue
            with file_lock(folder / _LOCK, warning=lambda _: None) as has_locks:
                if has_locks:
                    shutil.rmtree(folder)
                    removed.append(folder)
    return removed


def _made(parent: Path, stack: contextlib.ExitStack) -> Path | None:
    """A new folder whose lock is held; None if none can be made, or locked."""
    for _ in range(_TRIES):
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            has_locks = stack.enter_context(file_lock(folder / _LOCK, warning=lambda _: None))
        except (OSError, Locked):  # no room, or it was swept before it was locked
            continue
        if has_locks:
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # nobody could tell that it is in use
        return None
    return None
