"""How ipyparallel starts the controller and the engines of a cluster; `folder` says how they are ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipyparallel.cluster.launcher import EngineLauncher, LocalControllerLauncher, LocalProcessLauncher
from traitlets import Integer, Unicode, default

from hpcgan.config import JobSection, flags
from hpcgan.errors import InputError
from hpcgan.launch import slurm
from hpcgan.launch.topology import plan
from hpcgan.suggest import did_you_mean

#: What engines can be: ranks of an mpirun here, or of a Slurm job.
ENGINES = ("mpi", "slurm")
#: The key of `job:` that follows from the number of engines and nodes: another value is refused.
DECIDED = "ranks_per_node"
#: Keys of `job:` that jobs of engines do not heed.
UNHEEDED = ("requeues", "retries")


class _KeepsOutput(LocalProcessLauncher):
    """A process whose output stays in `output_file`, since it says why the process ended."""

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
    failure_file = Unicode(help="Where it is told why they ended, if they failed.").tag(to_dict=True)

    def find_args(self) -> list[str]:
        """The command line of the launcher."""
        threads = ["--threads", str(self.threads)] if self.threads else []
        command = [sys.executable, "-m", "hpcgan.interactive.engines", "--ranks", str(self.n), *threads]
        return [*command, "--failure-file", self.failure_file, "--", *self.engine_args]

    def start(self, n: int) -> None:
        """Start them."""
        self.n = n
        super().start()


class SlurmEngines(EngineLauncher):
    """Ranks of one Slurm job."""

    script = Unicode(help="Text for sbatch.")
    folder = Unicode(help="Where the job's output goes.")
    job_id = Unicode()

    def find_args(self) -> list[str]:
        """What starts them."""
        return ["sbatch"]

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

    def _log_output(self, stop_data: Any = None) -> None:
        pass


@dataclass(frozen=True)
class EngineSet:
    """How the engines of a cluster are started.

    Attributes
    ----------
    launcher : type
        What starts them.
    settings : dict
        Of the launcher.
    nodes : int or None
        Of their job.
    script : callable or None
        Text of their job for sbatch, from the file for a failure and the arguments of an engine.
    cores : int or None
        Of this machine, that they share.
    warnings : tuple of str
        What the user should know of this layout.
    """

    launcher: type
    settings: dict[str, Any]
    nodes: int | None = None
    script: Callable[[str, list[str]], str] | None = None
    cores: int | None = None
    warnings: tuple[str, ...] = ()


def engine_set(engines: str, n: int, job: JobSection) -> EngineSet:
    """What starts `n` engines of a kind, checked.

    Raises
    ------
    InputError
        One line that names the option.
    """
    if engines not in ENGINES:
        raise InputError(f"engines '{engines}': choose one of {', '.join(ENGINES)}{did_you_mean(engines, ENGINES)}")
    if type(n) is not int or n < 1:
        raise InputError(f"n={n!r}: give at least 1 engine")
    if engines == "mpi":
        options = job.model_dump(exclude_defaults=True)
        threads = options.pop("threads", None)
        if options.get("nodes") == 1:
            del options["nodes"]
        if options:
            names = ", ".join(f"nodes={job.nodes}" if name == "nodes" else name for name in sorted(options))
            raise InputError(f"{names}: only for engines='slurm'; 'mpi' starts them on this machine")
        layout = plan(n, threads=threads)
        return EngineSet(LocalEngines, {"threads": threads or 0}, cores=layout.cores, warnings=layout.warnings)
    nodes = job.nodes or n
    if n % nodes:
        raise InputError(f"n={n}, nodes={nodes}: the engines must be spread evenly over the nodes")
    if job.ranks_per_node not in (None, n // nodes):
        raise InputError(f"ranks_per_node={job.ranks_per_node}: is not n={n} over nodes={nodes}; leave it out")
    job = flags.section("job", JobSection, job, nodes=nodes, ranks_per_node=n // nodes)
    site = slurm.site_file(job)

    def script(failure_file: str, arguments: list[str]) -> str:
        threads = ["--threads", str(job.threads)] if job.threads else []
        argv = [*threads, "--failure-file", failure_file, "--", *arguments]
        program = slurm.Program(argv, "hpcgan.interactive.engines")
        return slurm.render(job, "hpcgan-engines", program, site=site, ending="warned")

    return EngineSet(SlurmEngines, {}, nodes, script)
