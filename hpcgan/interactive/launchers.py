"""How ipyparallel starts, watches and ends the engines of a cluster."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipyparallel.cluster.launcher import EngineLauncher, LocalControllerLauncher, LocalProcessLauncher, NotRunning
from traitlets import Integer, Unicode, default

from hpcgan.errors import HpcganError, InputError
from hpcgan.launch import slurm
from hpcgan.suggest import choose, did_you_mean

#: What engines can be: ranks of an mpirun here, or of a Slurm job.
ENGINES = ("mpi", "slurm")
#: What `Cluster.start` takes by name, of the cluster and of its job.
OPTIONS = (
    "nodes", "threads", "time", "site", "address", "timeout", "idle", "report", "partition", "account", "qos",
    "reservation", "constraint", "gpus_per_node", "mem", "nodelist", "exclude",
)  # fmt: skip
#: Seconds that engines have to end: one that trains writes a checkpoint.
STOP_S = 60


class _KeepsOutput(LocalProcessLauncher):
    """A process whose output stays in `output_file`, since it says why the process ended."""

    def get_output(self, remove: bool = False) -> str:
        """What it printed so far."""
        self._output = None
        return str(super().get_output(remove=False))

    def _log_output(self, stop_data: Any = None) -> None:
        pass  # whoever waits for the process says what matters of it


class Controller(_KeepsOutput, LocalControllerLauncher):
    """The controller, on this machine."""

    @default("controller_cmd")
    def _default_controller_cmd(self) -> list[str]:
        return [sys.executable, "-m", "hpcgan.interactive.controller"]


class LocalEngines(_KeepsOutput, EngineLauncher):
    """Ranks of one mpirun on this machine."""

    threads = Integer(0, help="Compute threads of an engine; 0: its share of the cores.").tag(to_dict=True)
    stop_seconds_until_kill = STOP_S

    def find_args(self) -> list[str]:
        """The command line of the launcher."""
        threads = ["--threads", str(self.threads)] if self.threads else []
        command = [sys.executable, "-m", "hpcgan.interactive.engines", "--ranks", str(self.n), *threads]
        return [*command, "--", *self.engine_args]

    def start(self, n: int) -> None:
        """Start them."""
        self.n = n
        super().start()


class SlurmEngines(EngineLauncher):
    """Ranks of one Slurm job."""

    script = Unicode(help="Text for sbatch.")
    folder = Unicode(help="Where the job's output goes.").tag(to_dict=True)
    job_id = Unicode().tag(to_dict=True)

    def find_args(self) -> list[str]:
        """What starts them."""
        return ["sbatch"]

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> SlurmEngines:
        """One that another process has submitted.

        Raises
        ------
        NotRunning
            Its job has ended.
        """
        made: SlurmEngines = super().from_dict(d, **kwargs)
        found = slurm.job_state(made.job_id)
        if found is None or found.state not in slurm.PRESENT:
            raise NotRunning(f"job {made.job_id}")
        return made

    def start(self, n: int) -> str:
        """Submit the job; its number.

        Raises
        ------
        HpcganError
            sbatch refuses: what it says.
        """
        self.n = n
        self.job_id = slurm.submit(self.script, Path(self.folder), "engines-%j.log")
        self.notify_start(self.job_id)
        return self.job_id

    async def stop(self) -> None:
        """Let the engines end, which write a checkpoint if they train; cancel the job if they do not, or wait yet.

        Raises
        ------
        HpcganError
            Slurm refuses, or the job is still there long after it was cancelled.
        """
        if self.state != "running":
            return
        found = slurm.job_state(self.job_id)
        if found is not None and found.state == "RUNNING":
            slurm.ask_to_stop(self.job_id)
            await self._gone(STOP_S)
        if self.poll() is None:
            slurm.cancel([self.job_id])
            if not await self._gone(STOP_S):
                raise HpcganError(f"job {self.job_id} is still there {STOP_S} s after it was cancelled: see 'squeue'")
        self.notify_stop({"job_id": self.job_id})

    async def _gone(self, within: float) -> bool:
        """Whether the job ends in that time."""
        end = time.monotonic() + within
        while self.poll() is None:
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.5)
        return True

    def poll(self) -> str | None:
        """How the job ended; None as long as it may run."""
        found = slurm.job_state(self.job_id)
        return "unknown" if found is None else None if found.state in slurm.PRESENT else str(found)

    def signal(self, sig: int) -> None:
        """Engines of a job are asked through their run directories, and ended by `stop`."""
        raise NotImplementedError("use Cluster.stop()")

    def get_output(self, remove: bool = False) -> str:
        """What they printed; never removed."""
        try:
            return (Path(self.folder) / f"engines-{self.job_id}.log").read_text(errors="replace")
        except OSError:
            return ""

    def _log_output(self, stop_data: Any = None) -> None:
        pass


@dataclass(frozen=True)
class Wanted:
    """Engines that somebody has asked for.

    Attributes
    ----------
    launcher : type
        What starts them.
    settings : dict
        Of the launcher.
    nodes : int or None
        Of their job.
    script : callable or None
        Text of their job for sbatch, from the arguments of an engine.
    """

    launcher: type
    settings: dict[str, Any]
    nodes: int | None = None
    script: Callable[[list[str]], str] | None = None


def wanted(
    engines: str, n: int, nodes: int | None, threads: int | None, time: str, site: Path | str | None,
    options: dict[str, Any],
) -> Wanted:  # fmt: skip
    """What was asked for, checked.

    Raises
    ------
    InputError
        One line that names the option.
    """
    if engines not in ENGINES:
        raise InputError(f"engines '{engines}': choose one of {', '.join(ENGINES)}{did_you_mean(engines, ENGINES)}")
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"{name}: a cluster has no such option{choose(name, OPTIONS)}")
    if n < 1:
        raise InputError(f"n={n}: give at least 1 engine")
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads}: give at least 1")
    if engines == "mpi":
        if nodes not in (None, 1) or options:
            given = ", ".join(sorted(options)) or f"nodes={nodes}"
            raise InputError(f"{given}: only for engines='slurm'; 'mpi' starts them on this machine")
        return Wanted(LocalEngines, {"threads": threads or 0})
    nodes = n if nodes is None else nodes
    if nodes < 1 or n % nodes:
        raise InputError(f"n={n}, nodes={nodes}: the engines must be spread evenly over the nodes")
    spec = slurm.job_spec(
        name="hpcgan-engines", nodes=nodes, ranks_per_node=n // nodes, threads=threads, time=time,
        **options,
    )  # fmt: skip
    own = slurm.site_file(Path(site) if site is not None else None, "site")

    def script(arguments: list[str]) -> str:
        argv = [*(["--threads", str(threads)] if threads else []), "--", *arguments]
        return slurm.render(
            spec, argv, python=sys.executable, folder=Path.cwd(), site=own, supervised=False, warned=True,
            module="hpcgan.interactive.engines",
        )  # fmt: skip

    return Wanted(SlurmEngines, {}, nodes, script)
