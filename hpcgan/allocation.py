"""What Slurm's variables say of the job around this process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpcgan.errors import HpcganError


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
