"""What the launcher of this process promised: the world it is supposed to be part of.

An MPI program that was started by the wrong `mpirun`, or by an `srun` that speaks another PMI than the
MPI library, does not fail: every rank comes up as rank 0 of a world of one and trains on its own. The
environment tells what was meant; `check_world` compares it with what MPI reports.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hpcgan.errors import HpcganError, InputError
from hpcgan.system.allocation import current_job, in_step, task_counts


@dataclass(frozen=True)
class World:
    """The job as its launcher describes it to one rank.

    Attributes
    ----------
    size, rank : int
        World size and this process's place in it.
    local_rank, local_size : int or None
        The same among the ranks of this node, where the launcher says so.
    launcher : str
        `mpirun` or `srun`.
    """

    size: int
    rank: int
    local_rank: int | None
    local_size: int | None
    launcher: str


# (size, rank, local rank, local size), in the order in which they are believed.
_MPIRUN = [
    [f"{mpi}_COMM_WORLD_{part}" for part in ("SIZE", "RANK", "LOCAL_RANK", "LOCAL_SIZE")] for mpi in ("OMPI", "MV2")
]
# MPICH and Intel MPI; Slurm's pmi2 plugin sets the first two as well.
_PMI = ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
_SRUN = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "")


def expected_world(env: Mapping[str, str]) -> World | None:
    """The world that the launcher promised to this process; None without a launcher.

    `OMPI_*` wins over Slurm's variables: under `mpirun` inside a Slurm job they are both there, and
    Slurm's then describe the step of mpirun's daemons. `SLURM_NTASKS` alone promises nothing, since it
    is set in every batch shell; only a step of `srun` (`in_step`) has tasks. A step of one task may be a
    launcher's or a person's shell (see `ranks_of_launcher`).

    Parameters
    ----------
    env : mapping
        The environment, usually `os.environ`.

    Raises
    ------
    HpcganError
        If a variable of the launcher is not a number, or rank and size contradict each other.
    """
    for names in _MPIRUN:
        if names[0] in env:
            return _world(env, names, "mpirun")
    step = in_step(env)
    if _PMI[0] in env and not step:
        return _world(env, _PMI, "mpirun")
    if step:
        return replace(_world(env, _SRUN, "srun"), local_size=_slurm_local_size(env))
    return None


def ranks_of_launcher(env: Mapping[str, str]) -> World | None:
    """The world of ranks this process was started into; None if it may start some itself.

    As `expected_world`, but a step of one task is none: that is what the shell of `srun --pty bash` is, and one rank
    needs no launcher.

    Raises
    ------
    HpcganError
        As `expected_world`.
    """
    world = expected_world(env)
    return None if world is not None and world.launcher == "srun" and world.size == 1 else world


def starts_ranks(ranks: int | None, env: Mapping[str, str]) -> bool:
    """Whether a command with `--ranks` starts ranks itself; else this process is the rank, or one of them.

    A line on standard error hints at the tasks of an allocation of which one is about to be used.

    Parameters
    ----------
    ranks : int or None
        Of `--ranks`.
    env : mapping
        The environment, usually `os.environ`.

    Raises
    ------
    InputError
        A launcher has started another number of ranks.
    HpcganError
        As `expected_world`.
    """
    world = ranks_of_launcher(env)
    if world is not None:
        if ranks not in (None, world.size):
            raise InputError(f"--ranks {ranks}: the launcher has already started {world.size} ranks; leave it out")
        return False
    if ranks is None:
        job = None if expected_world(env) else current_job(env)
        if job is not None and job.tasks > 1:
            hint = f"use them by --ranks {job.tasks}, or 'srun --mpi=pmix hpcgan ...'"
            text = f"hpcgan: hint: this starts one rank, and the allocation is of {job.tasks} tasks: {hint}"
            print(text, file=sys.stderr, flush=True)
        return False
    return ranks != 1


def check_world(expected: World | None, actual_size: int, actual_rank: int) -> None:
    """Refuse to go on when MPI reports another world than the launcher promised.

    Parameters
    ----------
    expected : World or None
        From `expected_world`; None (no launcher) accepts a world of one only.
    actual_size, actual_rank : int
        What MPI (or Horovod) says.

    Raises
    ------
    HpcganError
        One line with both worlds and the likely remedy.
    """
    if expected is None:
        if actual_size != 1:
            raise HpcganError(
                f"MPI reports {actual_size} ranks, but no launcher (mpirun, srun) is in the environment; "
                "start the job with --ranks, mpirun or srun, and let its variables through"
            )
        return
    if expected.size == actual_size and expected.rank == actual_rank:
        return
    if expected.size == actual_size:
        raise HpcganError(
            f"{expected.launcher} calls this process rank {expected.rank} of {expected.size}, MPI calls it "
            f"rank {actual_rank}; variables of another launcher are set: start from a clean shell"
        )
    if expected.launcher == "srun":
        remedy = "srun and the MPI library do not speak the same PMI: use `srun --mpi=pmix` or mpirun inside the job"
    else:
        remedy = (
            "this mpirun belongs to another MPI than the one Horovod was built with: use --ranks, the mpirun "
            "that `hpcgan doctor` names, or run `make setup` with the MPI you want on PATH"
        )
    raise HpcganError(
        f"{expected.launcher} started {expected.size} ranks, but MPI reports a world of {actual_size}; {remedy}"
    )


def die_with_parent() -> None:
    """Ask the kernel to kill this rank when the process that started it ends (Linux; elsewhere a no-op).

    A killed mpirun leaves its ranks running, and they would go on writing into the run directory
    beside the job that replaces them.
    """
    set_parent_death_signal(signal.SIGKILL)


def set_parent_death_signal(signum: int) -> None:
    """`prctl(PR_SET_PDEATHSIG)`: `signum` is sent to this process when its parent ends; survives exec."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, int(signum), 0, 0, 0)  # 1 is PR_SET_PDEATHSIG


def process_age() -> float:
    """Seconds since this process began (Linux; elsewhere 0)."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, AttributeError):
        return 0.0


def stdout_is_terminal(env: Mapping[str, str] | None = None) -> bool:
    """Whether what this process prints is read on a terminal.

    Under Open MPI `sys.stdout.isatty()` is true in every rank, even when mpirun writes to a file,
    since mpirun gives its ranks a pseudo-terminal. `hpcgan ... --ranks N` passes the truth on in
    `HPCGAN_TERMINAL`; under any other launcher the output counts as a log.
    """
    env = os.environ if env is None else env
    setting = env.get("HPCGAN_TERMINAL")
    if setting is not None:
        return setting == "1"
    if ranks_of_launcher(env) is not None:
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def _world(env: Mapping[str, str], names: Sequence[str], launcher: str) -> World:
    size_name, rank_name, *of_node = names
    size, rank = _number(env, size_name), _number(env, rank_name)
    if size is None or rank is None:
        raise HpcganError(f"{size_name} is set without {rank_name}: the environment of {launcher} is incomplete")
    if not 0 <= rank < size:
        raise HpcganError(f"{rank_name}={rank} does not fit {size_name}={size}: start from a clean shell")
    local_rank, local_size = (_number(env, name) for name in of_node)
    return World(size, rank, local_rank, local_size, launcher)


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d+", text.strip()):
        raise HpcganError(f"{name}={text!r} in the environment is not a number; unset it or start from a clean shell")
    return int(text)


def _slurm_local_size(env: Mapping[str, str]) -> int | None:
    """Tasks of this step on this node, from a list like `2(x3),1`."""
    node = _number(env, "SLURM_NODEID")
    text = env.get("SLURM_STEP_TASKS_PER_NODE", "")
    if node is None or not text:
        return None
    try:
        counts = task_counts(text)
    except ValueError:
        return None
    return counts[node] if node < len(counts) else None
