"""Slurm's daemons on this machine, of a cluster that is the user's own: killed, and started again as they were."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcgan.errors import InputError
from hpcgan.launch import slurm
from hpcgan.system.liveness import Identity

CONTROLLER, NODE = "slurmctld", "slurmd"


@dataclass(frozen=True)
class Daemon:
    """A daemon that lives.

    Attributes
    ----------
    identity : Identity
    name : str
        `CONTROLLER` or `NODE`.
    argv : tuple of str
    env : mapping of str to str
    folder : Path
        Its working directory.
    """

    identity: Identity
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path

    @property
    def node(self) -> str | None:
        """The node of a slurmd, where its command line says so."""
        return self.argv[self.argv.index("-N") + 1] if "-N" in self.argv[:-1] else None

    def kill(self) -> Stopped | None:
        """Kill it as a crash would; None if it has ended already."""
        pid = self.identity.pid
        if not self.identity.lives():
            return None
        try:
            stopped = Stopped(
                self, os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
            )
            os.kill(pid, signal.SIGKILL)
        except OSError:
            return None
        return stopped


@dataclass(frozen=True)
class Stopped:
    """A daemon that was killed, with what it takes to start it again: its view of the file systems, and its log."""

    daemon: Daemon
    mounts: int
    log: int

    def start(self) -> None:
        """Start it again. A controller remembers its jobs: it is not told to clear its state."""
        argv = [word for word in self.daemon.argv if not (self.daemon.name == CONTROLLER and word == "-c")]
        enter = [
            shutil.which("nsenter") or "nsenter",
            f"--mount=/proc/self/fd/{self.mounts}",
            f"--wd={self.daemon.folder}",
        ]
        subprocess.Popen(
            [*enter, *argv],
            env=dict(self.daemon.env),
            cwd=self.daemon.folder,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=(self.mounts,),
            start_new_session=True,
        )
        os.close(self.mounts)
        os.close(self.log)


def own_daemons(env: Mapping[str, str]) -> list[Daemon]:
    """The daemons on this machine of the cluster that `SLURM_CONF` names, if they are this user's."""
    conf = env.get("SLURM_CONF")
    found_daemons = []
    for entry in Path("/proc").iterdir():
        if not conf or not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            name = (entry / "comm").read_text().strip()
            if name not in (CONTROLLER, NODE) or entry.stat().st_uid != os.getuid():
                continue
            pairs = (os.fsdecode(pair).partition("=") for pair in (entry / "environ").read_bytes().split(b"\0")[:-1])
            variables = {key: value for key, _, value in pairs}
            argv = tuple(os.fsdecode(word) for word in (entry / "cmdline").read_bytes().split(b"\0")[:-1])
            identity = Identity.of(int(entry.name))
            if variables.get("SLURM_CONF") == conf and argv and identity.started:
                found_daemons.append(Daemon(identity, name, argv, variables, Path(os.readlink(entry / "cwd"))))
    return sorted(found_daemons, key=lambda daemon: (daemon.name, daemon.node or "", daemon.identity.pid))


def check_own(env: Mapping[str, str]) -> None:
    """Refuse a cluster that is not the user's own and idle.

    Raises
    ------
    InputError
        Its daemons are not this user's, on this machine, or it has jobs.
    HpcganError
        Slurm does not answer.
    """
    names = {daemon.name for daemon in own_daemons(env)}
    if names != {CONTROLLER, NODE}:
        raise InputError(
            "--slurm: kills daemons of Slurm, so it works only on a cluster whose slurmctld and slurmd are yours, run "
            "on this machine and were started with the SLURM_CONF that is set here; without --slurm, faults are those "
            "of ranks on this machine"
        )
    if shutil.which("nsenter") is None:
        raise InputError("--slurm: daemons that were killed are started again by nsenter: install util-linux")
    if (jobs := slurm.queue_length()) > 0:
        raise InputError(f"--slurm: the cluster has {jobs} jobs in its queue, which would be disturbed; wait for them")
