"""Trials as elements of Slurm job arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hpcgan.config import JobSection
from hpcgan.errors import HpcganError
from hpcgan.launch import slurm
from hpcgan.runs import records
from hpcgan.sweep.store import StudyDirectory

#: Elements of one array: Slurm takes 1000 unless a site has set MaxArraySize.
MOST = 1000
#: Seconds that the controller has to say what is in the queue before a coordinator gives up.
PATIENCE = 300.0


class SlurmExecutor:
    """One array for all trials that are handed in together, of which Slurm runs so many at a time.

    Trials go on when this process ends; the next coordinator finds them in the queue.

    Parameters
    ----------
    study : StudyDirectory
    job : JobSection
        Of an element.
    name : str
        Of the arrays.
    concurrency : int
        Elements that may run at a time.
    report : callable
        Takes one line for the user.
    every : float
        Seconds between looks at the queue.
    """

    slots: int | None = None

    def __init__(
        self,
        study: StudyDirectory,
        job: JobSection,
        name: str,
        concurrency: int,
        report: Callable[[str], None],
        every: float = 5.0,
    ) -> None:
        self._study, self._job, self._name = study, job, name
        self._concurrency, self._report = concurrency, report
        self.every = every
        self._elements: dict[str, int] = {}  # what squeue calls an element: the trial's number
        self._missed: set[str] = set()
        self._silent = ""

    def script(self, numbers: Sequence[int]) -> str:
        """The batch script of an array for some trials."""
        argv = [str(self._study.path.absolute()), "--of", ",".join(str(n) for n in numbers)]
        return slurm.render(
            self._job,
            self._name,
            slurm.Program(argv, "hpcgan.sweep.trial"),
            site=slurm.site_file(self._job),
            ending="requeued",
            array=f"0-{len(numbers) - 1}%{self._concurrency}",
        )

    def start(self, numbers: Sequence[int]) -> None:
        """Submit an array."""
        folder = self._study.path / "jobs"
        folder.mkdir(exist_ok=True)
        for first in range(0, len(numbers), MOST):
            part = list(numbers[first : first + MOST])
            script = self.script(part)
            job = slurm.submit(script, folder, "slurm-%A_%a.out")
            records.append(self._study.jobs_file, {"job": job, "time": time.time(), "numbers": part, "script": script})
            self._elements.update({f"{job}_{i}": number for i, number in enumerate(part)})
            self._report(f"job {job}: {len(part)} trial{'s' * (len(part) > 1)}, {self._concurrency} at a time")
            if reason := slurm.obstacle(job):
                self._report(
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
                for entry in records.read_lines(self._study.jobs_file)
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

    def close(self) -> None:
        """Nothing is left open."""

    def _cancel(self, waiting_only: bool) -> None:
        try:
            slurm.cancel(sorted({element.split("_")[0] for element in self._elements}), waiting_only=waiting_only)
        except HpcganError as error:
            self._report(str(error))

    def _queue(self, elements: list[str]) -> dict[str, slurm.QueueEntry] | None:
        """What of these is in the queue; None while the controller does not answer."""
        try:
            found = slurm.queue(elements)
        except HpcganError as error:
            if str(error) != self._silent:
                self._silent = str(error)
                self._report(f"{error}; waiting for it")
            return None
        self._silent = ""
        return found
