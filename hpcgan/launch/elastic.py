"""The ranks of a job that may lose nodes: as many as there is room for, with the same global batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hpcgan.config import Config
from hpcgan.errors import HpcganError, InputError
from hpcgan.launch import slurm
from hpcgan.launch.remaining import Remaining, ranks_that_share
from hpcgan.system.allocation import CurrentJob


@dataclass(frozen=True)
class World:
    """Fewer ranks than the job began with.

    Attributes
    ----------
    ranks, nodes : int
    env : dict of str to str
        What Slurm's variables are to say.
    """

    ranks: int
    nodes: int
    env: dict[str, str]


class Elastic:
    """What is left of a job, looked at before each start of its ranks.

    Parameters
    ----------
    config : Config
        What is trained.
    job : CurrentJob
    ranks, least : int
        Of the whole job, and at least.
    env : mapping
        Of the job's script.
    report : callable
        Takes a line for the log.

    Attributes
    ----------
    world : World or None
        What is to be started; None: all ranks.

    Raises
    ------
    InputError
        The global batch depends on the number of ranks, or `least` is more than all.
    """

    def __init__(
        self,
        config: Config,
        job: CurrentJob,
        ranks: int,
        least: int,
        env: Mapping[str, str],
        report: Callable[[str], None] = lambda line: print(f"hpcgan: {line}", file=sys.stderr, flush=True),
    ) -> None:
        self._batch, self._parts = global_batch(config), config.training.accumulation
        if least > ranks:
            raise InputError(f"--min-ranks {least}: the job has {ranks} ranks")
        self._job, self._ranks, self._least, self._env, self._report = job, ranks, least, env, report
        self._told: tuple[str, ...] = ()
        self.world: World | None = None

    def look(self) -> bool:
        """Whether there is room for enough ranks; says so when nodes were lost since the last look."""
        try:
            at_start = slurm.hostnames(self._env.get("SLURM_JOB_NODELIST", ""))
            remaining = Remaining.of(self._env, at_start, slurm.nodes_of(self._job.id))
        except HpcganError as error:  # a controller that is being restarted: the job is what it was
            self._report(f"warning: whether the job has lost nodes is not known ({error})")
            return True
        if not remaining.lost:
            return True
        available = min(remaining.available, self._ranks)
        ranks = ranks_that_share(self._batch, available, self._least, self._parts)
        is_news, self._told = remaining.lost != self._told, remaining.lost
        lost = f"job {self._job.id} has lost {', '.join(remaining.lost)}"
        if ranks is None:
            self._report(
                f"{lost}: no number of ranks from --min-ranks {self._least} to {available} shares "
                f"training.global_batch_size={self._batch} evenly"
            )
            return False
        if is_news:
            self._report(
                f"{lost}: going on with {ranks} of {self._ranks} ranks and the same global batch of {self._batch}; "
                "with all again when the job is queued again"
            )
        self.world = World(ranks, min(len(remaining.tasks), ranks), remaining.environment(ranks))
        return True


def global_batch(config: Config) -> int:
    """The global batch, which must not depend on the number of ranks.

    Raises
    ------
    InputError
        It does.
    """
    if config.training.global_batch_size is None:
        raise InputError(
            "--min-ranks: the global batch would change with the ranks; set training.global_batch_size to "
            "training.batch_size times all ranks"
        )
    return config.training.global_batch_size
