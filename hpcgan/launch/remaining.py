"""What is left of an allocation that has lost nodes, and how many ranks go on in it.

Slurm takes a lost node out of a job that was submitted with `--no-kill`, and lets the job's script go on if the script
does not run there. What the script's environment says of the allocation is then out of date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcgan.system.allocation import task_counts


def ranks_that_share(batch: int, available: int, least: int, parts: int = 1) -> int | None:
    """The largest number of ranks that a global batch can be cut for.

    Parameters
    ----------
    batch : int
        `training.global_batch_size`.
    available : int
        Ranks that there is room for.
    least : int
        Ranks below which it is not worth it.
    parts : int
        `training.accumulation`: equal parts of each rank's batch.

    Returns
    -------
    int or None
        None if no number from `least` to `available` divides the batch.
    """
    fitting = (ranks for ranks in range(available, max(least, 1) - 1, -1) if batch % (ranks * parts) == 0)
    return next(fitting, None)


@dataclass(frozen=True)
class Remaining:
    """The nodes that a job still has.

    Attributes
    ----------
    tasks : dict of str to int
        Tasks of each, in Slurm's order.
    cpus : dict of str to int
        CPUs of each.
    lost : tuple of str
        Nodes that the job had at its start and has no more.
    """

    tasks: dict[str, int]
    cpus: dict[str, int]
    lost: tuple[str, ...]

    @classmethod
    def of(cls, env: Mapping[str, str], at_start: Sequence[str], now: Sequence[str]) -> Remaining:
        """What remains of a job.

        Parameters
        ----------
        env : mapping
            Of the batch script: tasks and CPUs of each node at the start.
        at_start, now : sequence of str
            Names of the nodes.
        """
        tasks = _by_node(at_start, env.get("SLURM_TASKS_PER_NODE", ""))
        cpus = _by_node(at_start, env.get("SLURM_JOB_CPUS_PER_NODE", ""))
        alive = [node for node in at_start if node in set(now)]
        lost = tuple(node for node in at_start if node not in set(now))
        return cls({node: tasks[node] for node in alive}, {node: cpus[node] for node in alive}, lost)

    @property
    def available(self) -> int:
        """Ranks that there is room for."""
        return sum(self.tasks.values())

    def environment(self, ranks: int) -> dict[str, str]:
        """What Slurm's variables would say of an allocation of these nodes alone, to srun and mpirun."""
        nodes, count = ",".join(self.tasks), str(len(self.tasks))
        return {
            **dict.fromkeys(("SLURM_JOB_NODELIST", "SLURM_NODELIST"), nodes),
            **dict.fromkeys(("SLURM_JOB_NUM_NODES", "SLURM_NNODES"), count),
            **dict.fromkeys(("SLURM_NTASKS", "SLURM_NPROCS"), str(ranks)),
            "SLURM_TASKS_PER_NODE": ",".join(map(str, self.tasks.values())),
            "SLURM_JOB_CPUS_PER_NODE": ",".join(map(str, self.cpus.values())),
        }


def _by_node(nodes: Sequence[str], text: str) -> dict[str, int]:
    """Numbers of Slurm's short form by node; 1 where it says nothing of a node."""
    try:
        counts = task_counts(text)
    except ValueError:
        counts = []
    return {node: counts[i] if i < len(counts) else 1 for i, node in enumerate(nodes)}
