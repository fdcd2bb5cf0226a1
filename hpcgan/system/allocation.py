"""What Slurm's variables say of the job around this process, and environments without what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpcgan.errors import HpcganError

#: Variables of Slurm that are a site's or a user's configuration, and say nothing of a job.
CONFIGURATION = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS", "SLURM_DEBUG_FLAGS")

# What launchers tell their ranks. Settings of Open MPI that a user makes (OMPI_MCA_btl ...) look much like those that
# its launcher makes for its own ranks.
_OF_LAUNCHERS = re.compile(
    r"OMPI_(?!MCA_|ALLOW_RUN_AS_ROOT)|OMPI_MCA_(orte_|ess|pmix|plm|initial_|num_procs|mpi_oversubscribe)"
    r"|PMIX_|PMI_|PMI2_|PRTE_|OPAL_|MV2_|HYDRA_|HYDI_|MPI_LOCAL|MPIR_|ALPS_|SRUN_|HPCGAN_TERMINAL$"
)
_OF_SLURM = re.compile(r"SLURMD?_")
# What srun says of one step and its tasks; the rest describes the allocation, which mpirun and srun need.
_OF_STEP = re.compile(
    r"SLURM_(STEP|SRUN_|PTY_|LAUNCH_NODE|CPU_BIND|MEM_BIND|TASK_PID|PROCID|LOCALID|NODEID|GTIDS|MPI_TYPE|DISTRIBUTION"
    r"|EXPORT_ENV|UMASK|OVERCOMMIT)"
)
# Numbers of steps from here on are Slurm's own: the batch script, and the shell that `salloc` opens.
_OWN_STEPS = 2**32 - 16


@dataclass(frozen=True)
class CurrentJob:
    """The job this process runs in.

    Attributes
    ----------
    id : str
        What `scontrol` and `squeue` call it: `12`, or for an element of an array `12_3`. The number in
        SLURM_JOB_ID is no name for an element: that of one element is the number of the whole array, and to
        queue it again would queue all elements again.
    restarts : int
        How often Slurm has queued it again.
    nodes, tasks : int
    """

    id: str
    restarts: int
    nodes: int
    tasks: int


def current_job(env: Mapping[str, str]) -> CurrentJob | None:
    """The job whose batch script, step or interactive shell this is; None outside of one.

    Raises
    ------
    HpcganError
        Slurm's variables contradict one another.
    """
    if "SLURM_JOB_ID" not in env:
        return None
    element = [env.get(name, "") for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")]
    tasks = env.get("SLURM_NTASKS", "")
    if not tasks:  # only --ntasks-per-node was given, in some versions
        try:
            tasks = str(sum(task_counts(env.get("SLURM_TASKS_PER_NODE", "1"))))
        except ValueError as error:
            raise HpcganError(f"SLURM_TASKS_PER_NODE: {error}") from None
    return CurrentJob(
        id="_".join(element) if all(element) else env["SLURM_JOB_ID"],
        restarts=_number("SLURM_RESTART_COUNT", env.get("SLURM_RESTART_COUNT", "0")),
        nodes=_number("SLURM_JOB_NUM_NODES", env.get("SLURM_JOB_NUM_NODES", "1")),
        tasks=_number("SLURM_NTASKS", tasks),
    )


def in_step(env: Mapping[str, str]) -> bool:
    """Whether this process is a task of an `srun` step, be it a shell (`srun --pty bash`).

    The shell that `salloc` opens on a node of its allocation is a step by name only: others can be started beside it.
    """
    if not all(name in env for name in ("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")):
        return False
    step = env["SLURM_STEP_ID"]
    return not (re.fullmatch(r"\d+", step) and int(step) >= _OWN_STEPS)


def outside(env: Mapping[str, str]) -> dict[str, str]:
    """An environment as it would be outside of every job: without what launchers and Slurm say of this one.

    What stays of Slurm is `CONFIGURATION`.
    """
    return {
        name: value
        for name, value in env.items()
        if not _OF_LAUNCHERS.match(name) and (name in CONFIGURATION or not _OF_SLURM.match(name))
    }


def between_steps(env: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a launcher starts ranks of its own from within a step, in the same allocation.

    Variables of the step would make MPI take the new ranks for tasks of that one, and srun wait until that has ended.
    """
    if not in_step(env):
        return {k: v for k, v in env.items() if k != "SLURM_EXPORT_ENV"}  # of `sbatch --export`: mpirun's srun obeys it
    variables = {k: v for k, v in env.items() if not (_OF_STEP.match(k) or _OF_LAUNCHERS.match(k))}
    return {**variables, "SLURM_OVERLAP": "1"}


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise HpcganError(f"{name}={text!r} in the environment is not a number")
    return int(text)


def task_counts(text: str) -> list[int]:
    """Tasks of each node from Slurm's short form, `2(x3),1` -> [2, 2, 2, 1].

    Raises
    ------
    ValueError
        Another form.
    """
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a list like 2(x3),1")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts
