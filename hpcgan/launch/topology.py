"""Threads, binding and MPI settings of a job: the one place that knows them.

What the user has set in the environment goes before the defaults here.

Measured on two cores (64x64 DCGAN step, Horovod over Open MPI 5): one rank a core reaches 0.94 of two
isolated processes when idle MPI progress threads yield their core and nothing is bound; with Open
MPI's defaults it is 0.63, because a progress thread spins on the core that computes. A rank may set
the `OMPI_MCA_*` variables itself as long as that happens before MPI starts, so a bare `mpirun` gets
the same treatment (`rank_environment`); only the binding is mpirun's own.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcgan.errors import InputError
from hpcgan.launch.world import expected_world

OPEN_MPI_5 = "Open MPI 5"
OPEN_MPI_4 = "Open MPI 4"
MPICH = "MPICH"
INTEL = "Intel MPI"
UNKNOWN = "unknown MPI"

# Set unless the user has set them. Horovod warns after the first time and gives up after the second,
# which must outlast everything that one rank does while the others wait (a report, a slow disk).
_HOROVOD = {
    "HOROVOD_STALL_CHECK_TIME_SECONDS": "300",
    "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "1800",
    # Two groups that happen to be ready in the same millisecond are not merged into one buffer: the
    # order of summation, and with it the last bit, would depend on timing on more than two ranks.
    "HOROVOD_DISABLE_GROUP_FUSION": "1",
    # Horovod as `tools/setup.sh` builds it sleeps until there is work, at most so many milliseconds; others do not know
    # the variable, and look every `HOROVOD_CYCLE_TIME`.
    "HOROVOD_IDLE_CYCLE_TIME": "100",
}
_OPEN_MPI = {"OMPI_MCA_mpi_yield_when_idle": "1"}
_INTEL = {"I_MPI_PIN": "0", "I_MPI_THREAD_YIELD": "2"}
_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "2"}


@dataclass(frozen=True)
class Topology:
    """How a job of `ranks` ranks is laid out on `nodes` nodes.

    Attributes
    ----------
    ranks, nodes : int
        World size, and nodes.
    cores : int
        Cores of a node that this process may use.
    threads : int
        Compute threads of a rank, at least one.
    flavour : str
        The MPI that mpirun belongs to.
    env : dict
        Variables that the launcher sets for all ranks.
    mpirun_args : tuple of str
        Options of mpirun, without `-np`.
    """

    ranks: int
    nodes: int
    cores: int
    threads: int
    flavour: str
    env: dict[str, str]
    mpirun_args: tuple[str, ...]

    @property
    def ranks_per_node(self) -> int:
        """The largest number of ranks on one node."""
        return math.ceil(self.ranks / self.nodes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about this layout."""
        ranks, threads, cores = self.ranks_per_node, self.threads, self.cores
        if ranks * threads <= cores:
            return ()
        return (
            f"{ranks} ranks x {threads} thread{'s' if threads > 1 else ''} share {cores} "
            f"core{'s' if cores > 1 else ''}: this works, but slower than one rank a core",
        )

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with the job's variables; what the user set for Horovod or MPI stays as it is."""
        env = dict(base)
        for name, value in self.env.items():
            if name in _OURS or name not in env:
                env[name] = value
        return env


# These follow from the layout, so a value that lies around in a shell profile does not count.
_OURS = {
    "OMP_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "HPCGAN_THREADS",
    "OMPI_ALLOW_RUN_AS_ROOT",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
}


def plan(
    ranks: int,
    cores: int | None = None,
    nodes: int = 1,
    *,
    flavour: str = OPEN_MPI_5,
    threads: int | None = None,
    as_root: bool | None = None,
) -> Topology:
    """Lay out `ranks` ranks: threads of a rank, environment, options of mpirun.

    Parameters
    ----------
    ranks : int
        World size.
    cores : int, optional
        Usable cores of a node; by default those of this process.
    nodes : int
        Number of nodes.
    flavour : str
        From `mpi_flavour`.
    threads : int, optional
        Compute threads of a rank; by default the cores are shared out evenly.
    as_root : bool, optional
        Whether the job runs as root, which Open MPI refuses unless told otherwise.

    Raises
    ------
    InputError
        If a number is below one.
    """
    for name, value in (("ranks", ranks), ("nodes", nodes), ("cores", cores), ("threads", threads)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    cores = available_cores() if cores is None else cores
    as_root = os.geteuid() == 0 if as_root is None else as_root
    threads = max(1, cores // math.ceil(ranks / nodes)) if threads is None else threads
    env = {
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "HPCGAN_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        **_TENSORFLOW,
        **_HOROVOD,
    }
    args: tuple[str, ...] = ()
    if flavour in (OPEN_MPI_4, OPEN_MPI_5):
        env.update(_OPEN_MPI)
        if as_root:
            env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        # Open MPI counts physical cores as slots, not the hardware threads that `cores` counts, so more
        # ranks than slots must always be allowed.
        oversubscribe = ("--map-by", ":OVERSUBSCRIBE") if flavour == OPEN_MPI_5 else ("--oversubscribe",)
        args = ("--bind-to", "none", *oversubscribe)
    elif flavour == MPICH:
        args = ("-bind-to", "none")
    elif flavour == INTEL:
        env.update(_INTEL)
    return Topology(ranks, nodes, cores, threads, flavour, env, args)


def rank_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that a rank still has to set for itself before MPI, Horovod and TensorFlow start.

    Empty under `hpcgan ... --ranks`, which has set them all; under a bare `mpirun` or `srun` it holds
    the defaults that nobody has set.
    """
    settings = {**_TENSORFLOW, **_HOROVOD, **_OPEN_MPI}
    return {name: value for name, value in settings.items() if name not in env}


def threads_from_env(env: Mapping[str, str], cores: int | None = None) -> int:
    """Compute threads of this rank: `HPCGAN_THREADS`, else its share of the cores it may use.

    Raises
    ------
    InputError
        If `HPCGAN_THREADS` is not a positive number.
    """
    text = env.get("HPCGAN_THREADS")
    if text is not None:
        if not re.fullmatch(r"[1-9]\d*", text.strip()):
            raise InputError(f"HPCGAN_THREADS={text!r} is not a positive number")
        return int(text)
    cores = available_cores() if cores is None else cores
    world = expected_world(env)
    if world is None:
        return cores
    share = env.get("SLURM_CPUS_PER_TASK", "") if world.launcher == "srun" else ""
    if re.fullmatch(r"[1-9]\d*", share):
        return min(int(share), cores)
    return max(1, cores // (world.local_size or world.size))


def mpi_flavour(version_text: str) -> str:
    """The MPI implementation behind the output of `mpirun --version`."""
    version = re.search(r"Open ?MPI\)?\s+v?(\d+)\.", version_text)
    if version:
        return OPEN_MPI_5 if int(version[1]) >= 5 else OPEN_MPI_4
    if "Intel(R) MPI" in version_text:
        return INTEL
    if "HYDRA" in version_text or "mpich" in version_text.lower():
        return MPICH
    return UNKNOWN


def available_cores(root: Path = Path("/")) -> int:
    """Cores this process may really use: its CPU affinity, cut by the quota of its control groups.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are looked up; another one in tests.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # pragma: no cover - not Linux
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(root)
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def _cgroup_quota(root: Path) -> float | None:
    """The smallest CPU quota among this process's control groups (versions 1 and 2), in cores."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            top, quota_of = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            top, quota_of = root / "sys/fs/cgroup" / controllers, _quota_v1
            if not top.is_dir():
                top = root / "sys/fs/cgroup/cpu"
        else:
            continue
        group = top / path.strip("/")
        while True:
            quota = quota_of(group)
            if quota is not None:
                quotas.append(quota)
            if group == top or top not in group.parents:
                break
            group = group.parent
    return min(quotas, default=None)


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
