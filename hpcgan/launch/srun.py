"""srun as the launcher of ranks inside a Slurm allocation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hpcgan.errors import HpcganError, InputError
from hpcgan.launch import slurm
from hpcgan.launch.mpirun import Mpirun, find_mpirun
from hpcgan.launch.process import rank_command
from hpcgan.launch.topology import INTEL, MPICH, OPEN_MPI_4, OPEN_MPI_5, Topology
from hpcgan.suggest import did_you_mean
from hpcgan.system.allocation import current_job, in_step

LAUNCHERS = ("auto", "srun", "mpirun")


@dataclass(frozen=True)
class Srun:
    """srun with the process management interface that the MPI library speaks."""

    name: ClassVar[str] = "srun"

    path: str
    flavour: str
    mpi: str

    def command(self, topology: Topology, argv: Sequence[str], module: str) -> list[str]:
        """The command line that starts `python -m module ARGV` on all ranks."""
        options = [
            f"--ntasks={topology.ranks}",
            f"--nodes={topology.nodes}",
            f"--mpi={self.mpi}",
            "--kill-on-bad-exit=1",  # a rank that dies takes the others along, who would wait for it
            "--export=ALL",
            "--unbuffered",
        ]
        if "SLURM_CPUS_PER_TASK" in os.environ:  # srun inherits it no more since Slurm 22.05
            options.append(f"--cpus-per-task={os.environ['SLURM_CPUS_PER_TASK']}")
        return [self.path, *options, *rank_command(argv, module)]


def choose(name: str, env: Mapping[str, str]) -> Srun | Mpirun:
    """The launcher inside an allocation.

    srun where it speaks what the MPI library does (Open MPI: pmix; MPICH and Intel MPI: pmi2), since Slurm then
    sees every rank; else mpirun, and so in the shell of a step (`srun --pty bash`), which has no tasks to give away.

    Parameters
    ----------
    name : str
        `srun`, `mpirun` or `auto`.
    env : mapping
        `HPCGAN_SRUN_MPI` names what `srun --mpi` shall be, where the site's is another one.

    Raises
    ------
    InputError
        Another name.
    HpcganError
        There is no such launcher here.
    """
    if name not in LAUNCHERS:
        raise InputError(f"launcher '{name}': choose one of {', '.join(LAUNCHERS)}{did_you_mean(name, LAUNCHERS)}")
    mpirun = find_mpirun(env)
    if name == "mpirun" or (name == "auto" and in_step(env)):
        return mpirun
    path = shutil.which("srun", path=env.get("PATH"))
    mpi = env.get("HPCGAN_SRUN_MPI") or _common(mpirun.flavour) if path else None
    if path and mpi:
        return Srun(path, mpirun.flavour, mpi)
    if name == "srun":
        reason = f"it speaks no PMI that {mpirun.flavour} does" if path else "no srun found"
        raise HpcganError(f"srun cannot start the ranks ({reason}): use mpirun, or name one in HPCGAN_SRUN_MPI")
    return mpirun


def here(env: Mapping[str, str], ranks: int) -> tuple[Srun | Mpirun, int]:
    """The launcher of some ranks where this process is, and the nodes it spreads them over.

    Inside an allocation that has a task for each of them it is what `choose` says: under srun a cancelled job's ranks
    write a checkpoint, which the daemons of mpirun leave them no time for. Else mpirun.

    Raises
    ------
    InputError
        HPCGAN_LAUNCHER is another name.
    HpcganError
        There is none.
    """
    job = current_job(env)
    if job is None or in_step(env) or not 1 < ranks <= job.tasks:
        return find_mpirun(env), 1
    return choose(env.get("HPCGAN_LAUNCHER", "auto"), env), min(job.nodes, ranks)


def _common(flavour: str) -> str | None:
    """What both srun and the MPI library speak."""
    spoken = {OPEN_MPI_4: ("pmix",), OPEN_MPI_5: ("pmix",), MPICH: ("pmix", "pmi2"), INTEL: ("pmi2",)}
    offered = slurm.srun_mpi_types()
    return next((name for name in spoken.get(flavour, ()) if name in offered), None)
