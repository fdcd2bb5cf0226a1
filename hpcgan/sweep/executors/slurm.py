"""Trials as elements of Slurm job arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hpcgan.config import Config, JobSection, flags
from hpcgan.errors import HpcganError, InputError
from hpcgan.launch import slurm
from hpcgan.runs import records
from hpcgan.sweep.executors import Executor
from hpcgan.sweep.store import StudyDirectory

#: Elements of one array: Slurm takes 1000 unless a site has set MaxArraySize.
MOST = 1000
#: Seconds that the controller has to say what is in the queue before a coordinator gives up.
PATIENCE = 300.0


class SlurmExecutor(Executor):
    """One array for all trials that are handed in together, of which Slurm runs so many at a time.

    Trials go on when this process ends; the next coordinator finds them in the queue.

    Raises
    ------
    InputError
        The ranks of a trial cannot be spread over the nodes of its job.
    """

    queues = True

    def __init__(self, study: StudyDirectory, config: Config, report: Callable[[str], None]) -> None:
        super().__init__(study, config, report)
        self.every = 5.0
        ranks, nodes = config.sweep.ranks or 1, config.job.nodes or 1
        if ranks % nodes:
            raise InputError(f"--ranks {ranks}: cannot be spread evenly over --nodes {nodes}")
        self._job = flags.section("job", JobSection, config.job, ranks_per_node=ranks // nodes)
        self._elements: dict[str, int] = {}  # what squeue calls an element: the trial's number
        self._missed: set[str] = set()
        self._silent = ""

    def script(self, numbers: Sequence[int]) -> str:
        """The batch script of an array for some trials."""
        argv = [str(self.study.path.absolute()), "--of", ",".join(str(n) for n in numbers)]
        return slurm.render(
            self._job,
            f"sweep-{self.config.name}"[:64],
            slurm.Program(argv, "hpcgan.sweep.trial"),
            site=slurm.site_file(self._job),
            ending="requeued",
            array=f"0-{len(numbers) - 1}%{self.concurrency}",
        )

    def start(self, numbers: Sequence[int]) -> None:
        """Submit an array."""
        folder = self.study.path / "jobs"
        folder.mkdir(exist_ok=True)
        for first in range(0, len(numbers), MOST):
            part = list(numbers[first : first + MOST])
            script = self.script(part)
            job = slurm.submit(script, folder, "slurm-%A_%a.out")
            records.append(self.study.jobs_file, {"job": job, "time": time.time(), "numbers": part, "script": script})
            self._elements.update({f"{job}_{i}": number for i, number in enumerate(part)})
            self.report(f"job {job}: {len(part)} trial{'s' * (len(part) > 1)}, {self.concurrency} at a time")
            if reason := slurm.obstacle(job):
                self.report(
                    f"warning: job {job} waits for {reason}: the cluster as it is may never start it; "
                    f"take it back with 'scancel {job}'"
                )

    def poll(self) -> dict[int, int | None]:
        """Trials whose element is in the queue no more.

        A shared file system may show their results later than Slurm says that they have ended, so they count when
        they were missed twice.
        """
        queued = self._queue(list(self._elements))
        if queued is None:
            return {}
        missing = {element for element in self._elements if element not in queued}
        ended = {element: self._elements[element] for element in missing & self._missed}
        self._missed = missing - set(ended)
        for element in ended:
            del self._elements[element]
        return dict.fromkeys(ended.values())

    def in_flight(self) -> set[int]:
        """Trials in the queue, whichever coordinator submitted them.

        Raises
        ------
        HpcganError
            The controller does not answer for `PATIENCE` seconds: what it would have said must not be guessed, or
            trials that wait in the queue would be handed in again.
        """
        if not self._elements:
            known = {
                f"{entry['job']}_{i}": number
                for entry in records.read_lines(self.study.jobs_file)
                if isinstance(entry.get("numbers"), list) and "job" in entry
                for i, number in enumerate(entry["numbers"])
            }
            end = time.monotonic() + PATIENCE
            while (queued := self._queue(list(known))) is None:
                if time.monotonic() > end:
                    raise HpcganError(f"which trials are in the queue cannot be found out: {self._silent}")
                time.sleep(self.every)
            self._elements = {element: known[element] for element in queued}
        return set(self._elements.values())

    def stop(self) -> None:
        """Take what waits out of the queue; what runs sees the study's stop file."""
        self._cancel(waiting_only=True)

    def kill(self) -> None:
        """Cancel all."""
        self._cancel(waiting_only=False)

    def _cancel(self, waiting_only: bool) -> None:
        try:
            slurm.cancel(sorted({element.split("_")[0] for element in self._elements}), waiting_only=waiting_only)
        except HpcganError as error:
            self.report(str(error))

    def _queue(self, elements: list[str]) -> dict[str, slurm.QueueEntry] | None:
        """What of these is in the queue; None while the controller does not answer."""
        try:
            queued = slurm.queue(elements)
        except HpcganError as error:
            if str(error) != self._silent:
                self._silent = str(error)
                self.report(f"{error}; waiting for it")
            return None
        self._silent = ""
        return queued
