"""Choose the `Comm` of this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from hpcgan.comm.base import Comm, SerialComm
from hpcgan.errors import InputError
from hpcgan.launch.world import expected_world
from hpcgan.suggest import did_you_mean

Backend = Literal["auto", "horovod", "serial", "mpi"]
BACKENDS: tuple[Backend, ...] = ("auto", "horovod", "serial", "mpi")


def resolve_backend(backend: str, env: Mapping[str, str]) -> str:
    """The backend that `auto` stands for here, and a check of the others; imports nothing.

    Raises
    ------
    InputError
        If the name is unknown, or `serial` is asked for in one of several ranks, where each of them
        would train on its own and write into the same run directory.
    """
    if backend not in BACKENDS:
        hint = did_you_mean(str(backend), BACKENDS)
        raise InputError(f"comm.backend: unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}{hint}")
    world = expected_world(env)
    size = 1 if world is None else world.size
    if backend == "auto":
        return "horovod" if size > 1 else "serial"
    if backend == "serial" and world is not None and size > 1:
        raise InputError(
            f"comm.backend: serial, but {world.launcher} started {size} ranks; use auto, or start one process"
        )
    return backend


def make_comm(backend: str = "auto") -> Comm:
    """The communicator of this process.

    Parameters
    ----------
    backend : {'auto', 'horovod', 'serial', 'mpi'}
        `auto` is serial without a launcher or in a world of one, else Horovod.

    Raises
    ------
    InputError
        See `resolve_backend`.
    HpcganError
        If the backend is not installed, or MPI reports another world than the launcher promised.
    """
    chosen = resolve_backend(backend, os.environ)
    if chosen == "serial":
        return SerialComm()
    if chosen == "horovod":
        from hpcgan.comm.horovod import HorovodComm

        return HorovodComm()
    from hpcgan.comm.mpi import MpiComm

    return MpiComm()
