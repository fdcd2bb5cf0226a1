"""The processes that a campaign has started, by a mark in their environment: nobody else's are ever touched."""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcgan.errors import HpcganError
from hpcgan.launch.world import expected_world
from hpcgan.system.liveness import Identity

#: In the environment of every process of a campaign; a job of Slurm hands it on to its ranks.
MARK = "HPCGAN_CHAOS"

Role = Literal["rank", "launcher", "supervisor", "coordinator", "trial", "mpirun", "srun", "other"]
"""`launcher` is `hpcgan train --ranks N`, `mpirun` and `srun` are what it starts the ranks with. `coordinator` is
`hpcgan sweep`, a `trial` is what it starts for each trial.
"""

_SHARED_MEMORY = "/dev/shm/"
_RANK_MODULE = "hpcgan.launch.rank_shim"
_TRIAL_MODULE = "hpcgan.sweep.trial"
_COMMANDS: dict[str, Role] = {"supervise": "supervisor", "sweep": "coordinator"}


@dataclass(frozen=True)
class Process:
    """A living process of a campaign.

    Attributes
    ----------
    identity : Identity
        Tells the process from a later one of the same number.
    role : Role
    rank : int or None
        Of a rank.
    argv : tuple of str
    """

    identity: Identity
    role: Role
    rank: int | None
    argv: tuple[str, ...]

    @property
    def pid(self) -> int:
        """Its number."""
        return self.identity.pid

    def send(self, signum: int) -> bool:
        """Send a signal; whether the process was still there."""
        if not self.identity.lives():
            return False
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            return False
        return True

    def limit_files(self) -> bool:
        """Have every write to a file fail from now on, as on a full disk; whether the process was still there."""
        if not self.identity.lives():
            return False
        try:
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, hard))
        except ProcessLookupError:
            return False
        return True

    def plain(self) -> dict[str, object]:
        """For a log."""
        values: dict[str, object] = {"role": self.role, "pid": self.pid}
        return values if self.rank is None else {**values, "rank": self.rank}


def marked(mark: str) -> list[Process]:
    """The living processes of a campaign on this machine, ranks in their order; zombies are none."""
    line = f"{MARK}={mark}".encode()
    processes = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            if line in variables:
                argv = tuple(os.fsdecode(word) for word in (entry / "cmdline").read_bytes().split(b"\0")[:-1])
                identity = Identity.of(int(entry.name))
                if argv and identity.started:
                    role, rank = role_of(argv, _environment(variables))
                    processes.append(Process(identity, role, rank, argv))
    return sorted(processes, key=lambda p: (p.role, -1 if p.rank is None else p.rank, p.pid))


def role_of(argv: tuple[str, ...], env: Mapping[str, str]) -> tuple[Role, int | None]:
    """What a process is, and which rank.

    Parameters
    ----------
    argv : tuple of str
        Its command line.
    env : mapping
        Its environment, which says the rank.
    """
    program = Path(argv[0]).name
    if program in ("mpirun", "mpiexec", "prterun", "orterun"):
        return "mpirun", None
    if program == "srun":
        return "srun", None
    if argv[1:3] == ("-m", _RANK_MODULE):
        with contextlib.suppress(HpcganError):
            world = expected_world(env)
            return "rank", 0 if world is None else world.rank
    if argv[1:3] == ("-m", _TRIAL_MODULE):
        return "trial", None
    if argv[1:3] == ("-m", "hpcgan") and argv[3:4] and argv[3] in _COMMANDS:
        return _COMMANDS[argv[3]], None
    if argv[1:4] == ("-m", "hpcgan", "train"):
        return ("launcher", None) if "--ranks" in argv else ("rank", 0)
    return "other", None


def _environment(variables: list[bytes]) -> dict[str, str]:
    pairs = (os.fsdecode(variable).partition("=") for variable in variables if variable)  # the last one is empty
    return {name: value for name, _, value in pairs}


def outside_files(processes: list[Process]) -> set[Path]:
    """What processes have outside of the run directory, which nobody removes when all of them are killed.

    That is shared memory, and the session folder of each mpirun.
    """
    files = {folder / f"ompi.{p.pid}" for p in processes if p.role == "mpirun" for folder in _session_folders(p)}
    for process in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines()
            files |= {Path(line.split(maxsplit=5)[-1]) for line in lines if f" {_SHARED_MEMORY}" in line}
    return {file for file in files if file.exists()}


def _session_folders(mpirun: Process) -> list[Path]:
    """Where an mpirun may have its session folder."""
    folders = [Path(tempfile.gettempdir())]
    with contextlib.suppress(OSError):
        env = _environment(Path(f"/proc/{mpirun.pid}/environ").read_bytes().split(b"\0"))
        folders += [Path(env[name]) for name in ("PRTE_MCA_prte_tmpdir_base", "TMPDIR") if name in env]
    return folders
