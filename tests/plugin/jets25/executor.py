"""Where trials of a sweep run, of one's own: as plain processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from hpcgan.config import Config
from hpcgan.sweep.executors import Executor, command
from hpcgan.sweep.store import StudyDirectory
from hpcgan.system.allocation import outside


class Plain(Executor):
    """Processes that wait for nobody."""

    def __init__(self, study: StudyDirectory, config: Config, report: Callable[[str], None]) -> None:
        super().__init__(study, config, report)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            words = command(sys.executable, str(self.study.path), number, "--parent", str(os.getpid()))
            with open(self.study.log_file(number), "ab") as log:
                self.processes[number] = subprocess.Popen(words, env=outside(os.environ), stdout=log, stderr=log)

    def poll(self) -> dict[int, int | None]:
        codes = {number: process.poll() for number, process in self.processes.items()}
        ended = {number: code for number, code in codes.items() if code is not None}
        self.processes = {number: self.processes[number] for number in codes if number not in ended}
        return ended

    def in_flight(self) -> set[int]:
        return set(self.processes)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
