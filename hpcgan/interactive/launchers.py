"""How ipyparallel starts the controller and the engines of a cluster; `folder` says how they are ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipyparallel.cluster.launcher import EngineLauncher, LocalControllerLauncher, LocalProcessLauncher
from traitlets import Integer, Unicode, default

from hpcgan.errors import InputError
from hpcgan.launch import slurm
from hpcgan.launch.topology import plan
from hpcgan.suggest import choose, did_you_mean

#: What engines can be: ranks of an mpirun here, or of a Slurm job.
ENGINES = ("mpi", "slurm")
#: Options of `Cluster.start`, and those that it hands to the job.
OPTIONS = ("engines", "n", "nodes", "threads", "time", "site", "address", "timeout", "idle", "report")
_OURS = ("name", "nodes", "ranks_per_node", "time", "threads", "array", "signal_s", "requeues", "retries")
JOB = tuple(name for name in slurm.JobSpec.model_fields if name not in _OURS)


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
    _check_count("n", n, "at least 1 engine")
    for name, value in (("threads", threads), ("nodes", nodes)):
        if value is not None:
            _check_count(name, value, "at least 1")
    for name in options:
        if name not in JOB:
            raise InputError(f"unknown option '{name}'{choose(name, (*OPTIONS, *JOB), 'options here')}")
    if engines == "mpi":
        if nodes not in (None, 1) or options:
            given = ", ".join(sorted(options)) or f"nodes={nodes}"
            raise InputError(f"{given}: only for engines='slurm'; 'mpi' starts them on this machine")
        layout = plan(n, threads=threads)
        settings = {"threads": threads or 0}
        return Wanted(LocalEngines, settings, cores=layout.cores, warnings=layout.warnings)
    nodes = n if nodes is None else nodes
    if n % nodes:
        raise InputError(f"n={n}, nodes={nodes}: the engines must be spread evenly over the nodes")
    spec = slurm.job_spec(
        name="hpcgan-engines", nodes=nodes, ranks_per_node=n // nodes, threads=threads, time=time,
        **options,
    )  # fmt: skip
    own = slurm.site_file(Path(site) if site is not None else None, "site")

    def script(failure_file: str, arguments: list[str]) -> str:
        own_threads = ["--threads", str(threads)] if threads else []
        argv = [*own_threads, "--failure-file", failure_file, "--", *arguments]
        return slurm.render(
            spec, argv, python=sys.executable, folder=Path.cwd(), site=own, supervised=False, warned=True,
            module="hpcgan.interactive.engines",
        )  # fmt: skip

    return Wanted(SlurmEngines, {}, nodes, script)


def _check_count(name: str, value: object, wanted: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}={value!r}: give {wanted}")
