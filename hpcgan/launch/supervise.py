"""See a training to its end: through failures, time limits and preemption, without a person.

Inside a Slurm allocation the supervisor takes the place of the batch shell. Slurm tells it that the time is
nearly up (`--signal=B:USR1`); it asks the ranks for a checkpoint, and when they have written it, puts the job
back into the queue. Ranks that fail are started again from the last checkpoint, as long as new checkpoints show
that it is worth it. Outside of Slurm it does the same but for the queue.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpcgan.config import JobSection
from hpcgan.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, HpcganError
from hpcgan.launch import slurm
from hpcgan.launch.process import STOP_SIGNALS, Requests, handling
from hpcgan.launch.run_status import Shares
from hpcgan.runs import checkpoint
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state
from hpcgan.system.allocation import CurrentJob

#: Seconds before the first retry, more before each one after it: what was wrong may pass.
BACKOFF = 5.0
#: The longest of these waits.
LONGEST_BACKOFF = 120.0
#: Seconds for which Slurm is asked again when it does not take a job back; the limit is this near at most.
PATIENCE = 30.0
#: Seconds after `scontrol requeue` in which Slurm ends this process.
REQUEUE_TIMEOUT = 120.0


@dataclass
class Supervisor:
    """The rules by which a job goes on.

    Parameters
    ----------
    start : callable
        Runs the ranks to their end; their exit code. Takes SIGTERM, SIGINT, SIGUSR1 and SIGHUP for a request to
        stop with a checkpoint, and keeps it in the `Requests` it is given (`hpcgan.launch.launcher.launch`).
    run : RunDirectory
        What the ranks train.
    limits : JobSection
        `retries`: failures in a row without a new checkpoint that are tried again; `requeues`: how often the job may
        go back into the queue.
    job : CurrentJob or None
        The Slurm job this is the batch script of.
    report : callable
        Takes a line for the log.
    has_room : callable
        Asked before each start: whether the nodes that are left are enough. If not, the job goes back into the queue.
    """

    start: Callable[[Requests], int]
    run: RunDirectory
    limits: JobSection
    job: CurrentJob | None = None
    report: Callable[[str], None] = lambda line: print(f"hpcgan: {line}", file=sys.stderr, flush=True)
    has_room: Callable[[], bool] = lambda: True

    def supervise(self) -> int:
        """Until there is nothing left to do here; the exit code."""
        self._shares = None if self.job is None else Shares(self.run, self.job.id)
        if self.job is not None and self.job.restarts > self.limits.requeues:
            self.report(
                f"error: Slurm has restarted job {self.job.id} {self.job.restarts} times, more than --requeues "
                f"{self.limits.requeues}: giving up; the last checkpoint stays, submit again to go on"
            )
            return EXIT_FAILED
        requests = Requests(self.report)
        with handling(STOP_SIGNALS, requests.ask):
            return self._supervise(requests)

    def _supervise(self, requests: Requests) -> int:
        failures = 0
        while True:
            if not self.has_room():
                return self._later(EXIT_FAILED)
            before = checkpoint.newest_step(self.run.checkpoints)
            code = self.start(requests)
            if code in (EXIT_DONE, EXIT_BAD_INPUT) or (
                code == EXIT_INTERRUPTED and attempt_state(self.run) == "stopped"  # by a command, which ends the run
            ):
                return code
            # What counts is whether this process was asked to stop. An exit code does not tell: when a rank is
            # lost, Slurm ends the others by SIGTERM, and that is what srun reports.
            if code == EXIT_INTERRUPTED or requests.pending():
                return code if requests.hurry else self._later(code)
            failures = 1 if checkpoint.newest_step(self.run.checkpoints) > before else failures + 1
            if failures > self.limits.retries:
                self.report(
                    f"error: giving up after {failures} failure{'s' * (failures > 1)} in a row without a new "
                    f"checkpoint (exit code {code}, cause above)"
                )
                return EXIT_FAILED
            wait = min(BACKOFF * failures, LONGEST_BACKOFF)
            self.report(
                f"the ranks failed with exit code {code}; trying again in {wait:.0f} s "
                f"({failures} of {self.limits.retries} without a new checkpoint)"
            )
            end = time.monotonic() + wait
            while time.monotonic() < end:
                if requests.pending():
                    return self._later(EXIT_INTERRUPTED)
                time.sleep(0.1)

    def _later(self, code: int) -> int:
        """Stopped on request: back into the queue, unless the job was meant to end."""
        job = self.job
        if job is None:
            return code
        if job.restarts >= self.limits.requeues:
            self.report(
                f"job {job.id} was queued {job.restarts} times (--requeues {self.limits.requeues}): "
                "stopping here, submit again to go on"
            )
            return EXIT_INTERRUPTED
        end = time.monotonic() + PATIENCE
        requested = told = False
        while True:
            try:
                state = slurm.job_state(job.id)
                if state is None or state.state not in (*slurm.UNFINISHED, "PREEMPTED"):
                    return EXIT_INTERRUPTED  # cancelled, say: it must not go back into the queue
                news = "checkpoint written; " * (code == EXIT_INTERRUPTED)
                if not state.requeue:
                    self.report(f"{news}job {job.id} ends here, as it was asked to")
                    return EXIT_INTERRUPTED
                if state.state != "PREEMPTED" and not requested:
                    requested = True
                    if self._shares is not None and (reason := self._shares.hopeless()) is not None:
                        self.report(f"error: {reason}")
                        return EXIT_FAILED
                if not told:  # before Slurm is asked, which may end this process before it hears the answer
                    told = True
                    self.report(f"{news}job {job.id} goes back into the queue")
                slurm.requeue(job.id)
                break
            except HpcganError as error:  # a controller that is being restarted answers again soon
                if time.monotonic() > end:
                    self.report(f"error: cannot queue again ({error}); submit again to go on")
                    return EXIT_INTERRUPTED
                time.sleep(PATIENCE / 15)
        # Slurm ends this process. To leave by itself would end the job before it is queued.
        time.sleep(REQUEUE_TIMEOUT)
        return EXIT_INTERRUPTED
