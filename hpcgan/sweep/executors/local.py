"""Trials as processes of this machine, each on cores of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from hpcgan.config import Config, SweepSection
from hpcgan.launch.topology import available_cores
from hpcgan.sweep.executors import Executor, command
from hpcgan.sweep.store import StudyDirectory
from hpcgan.system.allocation import outside


class LocalExecutor(Executor):
    """Trials end, with a checkpoint, when this process does, however that happens."""

    def __init__(self, study: StudyDirectory, config: Config, report: Callable[[str], None]) -> None:
        super().__init__(study, config, report)
        self._cores = share_cores(self.concurrency)
        self._running: dict[int, tuple[subprocess.Popen[bytes], int]] = {}  # number: process, slot

    @classmethod
    def default_concurrency(cls, sweep: SweepSection) -> int:
        """As many as there are cores for their ranks."""
        return max(1, available_cores() // (sweep.ranks or 1))

    @classmethod
    def default_threads(cls, sweep: SweepSection) -> int:
        """All cores, shared out to the ranks of the trials that run at a time."""
        concurrency = sweep.concurrency or cls.default_concurrency(sweep)
        return max(1, available_cores() // concurrency // (sweep.ranks or 1))

    def warnings(self) -> list[str]:
        """More threads than cores."""
        cores, ranks, threads = available_cores(), self.config.sweep.ranks or 1, self.config.job.threads or 1
        if self.concurrency * ranks * threads <= cores:
            return []
        return [
            f"{self.concurrency} trials x {ranks} ranks x {threads} threads share {cores} cores: this works, but "
            "slower than one thread a core"
        ]

    def start(self, numbers: Sequence[int]) -> None:
        """Start a process for each."""
        for number in numbers:
            busy_slots = {slot for _, slot in self._running.values()}
            slot = next(i for i in range(len(self._cores)) if i not in busy_slots)
            cores = ",".join(str(core) for core in self._cores[slot])
            options = ("--cores", cores, "--parent", str(os.getpid()))
            with open(self.study.log_file(number), "ab") as log:
                process = subprocess.Popen(
                    command(sys.executable, str(self.study.path), number, *options),
                    env=outside(os.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the coordinator, which asks them to stop
                )
            self._running[number] = (process, slot)

    def poll(self) -> dict[int, int | None]:
        """Exit codes of processes that have ended."""
        ended = {n: process.returncode for n, (process, _) in self._running.items() if process.poll() is not None}
        for number in ended:
            del self._running[number]
        return dict(ended)

    def in_flight(self) -> set[int]:
        """Those of this process."""
        return set(self._running)

    def stop(self) -> None:
        """SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, which takes their ranks along."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process, _ in self._running.values():
            process.send_signal(number)


def share_cores(slots: int, cores: Sequence[int] | None = None) -> list[list[int]]:
    """Cores of each slot: disjoint and all equally many, or, where there are fewer cores than slots, one each in turn.

    Parameters
    ----------
    slots : int
    cores : sequence of int, optional
        By default those that this process may use.
    """
    if cores is None:
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        cores = list(allowed)[: available_cores()]
    each = len(cores) // slots
    if each == 0:
        return [[cores[slot % len(cores)]] for slot in range(slots)]
    return [list(cores[slot * each : (slot + 1) * each]) for slot in range(slots)]
