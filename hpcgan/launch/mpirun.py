"""The mpirun of this environment, and the command line that starts ranks under it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hpcgan.errors import HpcganError
from hpcgan.launch.process import rank_command
from hpcgan.launch.topology import OPEN_MPI_4, OPEN_MPI_5, Topology, mpi_flavour

#: mpirun of Open MPI 5 does not start where an earlier one that was killed has left its folder, and has had the process
#: number that it gets itself: "The PMIx server's listener thread failed to start". `exec` keeps the number.
_FRESH = ("sh", "-c", 'rm -rf "${TMPDIR:-${TEMP:-${TMP:-/tmp}}}/ompi.$$"; exec "$@"', "sh")


@dataclass(frozen=True)
class Mpirun:
    """An mpirun: where it is, which MPI it belongs to and what it says of itself."""

    name: ClassVar[str] = "mpirun"

    path: str
    flavour: str
    version: str

    def command(self, topology: Topology, argv: Sequence[str], module: str) -> list[str]:
        """The command line that starts `python -m module ARGV` on all ranks."""
        exported: list[str] = []
        if topology.nodes > 1 and self.flavour in (OPEN_MPI_4, OPEN_MPI_5):
            # Ranks on other nodes get no variables but those that are named.
            exported = [part for name in sorted(topology.env) for part in ("-x", name)]
        ranks = ["-np", str(topology.ranks)]
        fresh = _FRESH if self.flavour == OPEN_MPI_5 else ()
        return [*fresh, self.path, *ranks, *topology.mpirun_args, *exported, *rank_command(argv, module)]


def find_mpirun(env: Mapping[str, str] | None = None) -> Mpirun:
    """The mpirun of the MPI that this environment was built with.

    `HPCGAN_MPIRUN` decides; else the one beside this Python (the set-up puts it there, the MPI from
    PyPI as well as a site's MPI that is not on PATH); else the first on PATH.

    Raises
    ------
    HpcganError
        If there is none, or it cannot be run.
    """
    env = os.environ if env is None else env
    path: str | None = env.get("HPCGAN_MPIRUN")
    if path is None:
        beside = Path(sys.prefix) / "bin" / "mpirun"
        path = str(beside) if os.access(beside, os.X_OK) else shutil.which("mpirun", path=env.get("PATH"))
    if path is None:
        raise HpcganError("no mpirun found: run `make setup`, load your site's MPI module, or set HPCGAN_MPIRUN")
    try:
        process = subprocess.run(
            [path, "--version"],
            env={**env, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HpcganError(f"{path} cannot be run ({error}): run `make setup` or set HPCGAN_MPIRUN") from error
    text = process.stdout.decode(errors="replace").strip()
    first = text.splitlines()[0] if text else ""
    if process.returncode != 0:
        raise HpcganError(
            f"{path} --version failed ({first or process.returncode}): run `make setup` or set HPCGAN_MPIRUN"
        )
    return Mpirun(path, mpi_flavour(text), first)
