"""What a campaign does to a training in a Slurm job: to its daemons, and to the job."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from hpcgan.chaos import daemons
from hpcgan.chaos.faults import FILES, Fault, Scene, Seen, Signal, signals
from hpcgan.errors import HpcganError
from hpcgan.launch import run_status, slurm
from hpcgan.runs.directory import RunDirectory

#: A daemon that was killed is away for so long at most, s: longer than Slurm waits for a slurmd on a test cluster.
LONGEST_AWAY_S = 30.0


@dataclass(frozen=True)
class KilledDaemon:
    """A daemon of Slurm is killed, and started again after a while."""

    name: str
    daemon: str
    between: bool = False

    def ready(self, scene: Scene) -> bool:
        """Whether one lives, and a training is at work."""
        return bool(scene.of_role("supervisor")) and bool(self._living())

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Kill one."""
        living = self._living()
        if not living:
            return None
        victim, away_s = living[int(chance.random() * len(living))], chance.uniform(0.0, LONGEST_AWAY_S)
        stopped = victim.kill()
        if stopped is None:
            return None
        scene.later(away_s, stopped.start)
        return {"daemon": self.daemon, "node": victim.node, "pid": victim.identity.pid, "away_s": round(away_s, 3)}

    def _living(self) -> list[daemons.Daemon]:
        return [daemon for daemon in daemons.own_daemons(os.environ) if daemon.name == self.daemon]


@dataclass(frozen=True)
class Order:
    """An order to Slurm about the job: to queue it again, or to cancel it."""

    name: str
    order: Callable[[str], None]
    between: bool = False

    def ready(self, scene: Scene) -> bool:
        """Whether the job runs."""
        return bool(scene.of_role("supervisor"))

    def strike(self, scene: Scene, chance: random.Random) -> Seen | None:
        """Give it; None if the controller does not answer, or the job has just ended."""
        try:
            jobs = run_status.living(RunDirectory(scene.subject.path))
            running = [entry.job for entry in jobs if entry.state == "RUNNING"]
            if not running:
                return None
            self.order(running[-1])
        except HpcganError:
            return None
        return {"job": running[-1]}


#: What can happen to a training in a job, by name.
SLURM: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        *signals("rank", "supervisor"),
        Signal("kill-srun", "srun", signal.SIGKILL),
        KilledDaemon("kill-slurmd", daemons.NODE),
        KilledDaemon("kill-slurmctld", daemons.CONTROLLER),
        Order("requeue-job", slurm.requeue),
        Order("cancel-job", lambda job: slurm.cancel([job])),
        *FILES,
    )
}
