"""Start the ranks of a job, on this machine or inside an allocation, and see it to its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol

from hpcgan.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, InputError
from hpcgan.launch import scratch
from hpcgan.launch.process import GRACE, STOP_SIGNALS, Job, Requests, handling
from hpcgan.launch.srun import here
from hpcgan.launch.topology import OPEN_MPI_5, Topology, available_cores, plan
from hpcgan.launch.world import expected_world
from hpcgan.system import failure, home
from hpcgan.system.allocation import between_steps
from hpcgan.system.failure import Failure

#: Seconds in which a job's record may still appear: shared file systems show files of another node late.
PATIENCE = 5.0


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Launcher(Protocol):
    """What starts ranks: mpirun or srun."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def flavour(self) -> str:
        """The MPI that its ranks speak (`topology`)."""
        ...

    def command(self, topology: Topology, argv: Sequence[str], module: str) -> list[str]:
        """The command line that starts `python -m module ARGV` on all ranks."""
        ...


@dataclass(frozen=True)
class Place:
    """Where the ranks of a job run.

    Attributes
    ----------
    launcher : Launcher, optional
        What starts the ranks; by default this environment's mpirun, or inside a Slurm allocation what suits it best.
    nodes : int, optional
        Nodes they are spread over; by default those that the launcher takes here.
    threads : int, optional
        Compute threads of a rank; by default cores over ranks.
    env : mapping, optional
        Environment to start from, by default this process's.
    """

    launcher: Launcher | None = None
    nodes: int | None = None
    threads: int | None = None
    env: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Watch:
    """How a job is seen to its end.

    Attributes
    ----------
    grace : float
        Seconds for the ranks to end after they were asked to. With 0 the job is ended at once: for
        commands that have nothing to save.
    timeout : float, optional
        Seconds after which the job is ended.
    stdout, stderr
        As in `subprocess.Popen`; by default those of this process.
    report : callable
        Takes one line for the user; by default printed to stderr.
    requests : Requests, optional
        Where requests to stop are kept, for a caller that goes on afterwards: one made before counts.
    """

    grace: float = GRACE
    timeout: float | None = None
    stdout: IO[Any] | int | None = None
    stderr: IO[Any] | int | None = None
    report: Callable[[str], None] = _print
    requests: Requests | None = None


@dataclass(frozen=True)
class Record:
    """What a job itself records of its end. A launcher that says 0 is not believed without (`hpcgan.launch.outcome`).

    Attributes
    ----------
    read : callable
        The exit code that was recorded, 0 or 75; None if none was.
    missing : str
        What to say of a record that is missing.
    """

    read: Callable[[], int | None]
    missing: str


def launch(
    argv: Sequence[str],
    ranks: int,
    *,
    module: str = "hpcgan",
    place: Place = Place(),
    watch: Watch = Watch(),
    record: Record | None = None,
) -> int:
    """Run `python -m module ARGV` on `ranks` ranks and return the job's exit code.

    SIGTERM, SIGINT, SIGHUP and SIGUSR1 sent to this process ask the ranks to stop (SIGUSR1); a second
    SIGINT, or ranks that have not ended after `watch.grace` seconds, end the job the hard way. Signals are
    handled only when called from the main thread, and their handlers are put back at the end.

    Parameters
    ----------
    argv : sequence of str
        Arguments of the module.
    ranks : int
        World size.
    module : str
        What `python -m` runs.
    place : Place
    watch : Watch
    record : Record, optional

    Returns
    -------
    int
        The exit code of the first rank that ended with a non-zero one, else 0; 128 + n if the job was
        ended the hard way after signal n, or the launcher itself by it. With `record`, 1 in place of a 0 that the
        job has not recorded, and 75 if that is what it has.

    Raises
    ------
    InputError
        If `ranks` or `place.threads` is below one, or this process already is one rank of several.
    HpcganError
        If there is no working mpirun.
    JobTimeout
        If the job did not end within `watch.timeout`.
    """
    base = dict(os.environ if place.env is None else place.env)
    if ranks < 1:
        raise InputError(f"--ranks must be at least 1, not {ranks}")
    world = expected_world(base)
    if world is not None and world.size > 1:
        raise InputError(
            f"--ranks starts a job of its own, but this process already is rank {world.rank} of {world.size} "
            f"under {world.launcher}: leave --ranks out"
        )
    requests = Requests(watch.report) if watch.requests is None else watch.requests
    note = home.provide(base)  # mpirun does not start without
    # A signal from now on is a request, also while mpirun is being started.
    with handling(STOP_SIGNALS, requests.ask):
        launcher, width = (place.launcher, None) if place.launcher is not None else here(base, ranks)
        topology = plan(
            ranks, available_cores(), place.nodes or width or 1, flavour=launcher.flavour, threads=place.threads
        )
        for warning in topology.warnings:
            watch.report(f"hpcgan: warning: {warning}")
        if failure.VARIABLE in base:  # for ranks on other nodes, too
            topology = replace(topology, env={**topology.env, failure.VARIABLE: base[failure.VARIABLE]})
        with _own_folder(launcher, topology) as variables:
            topology = replace(topology, env={**topology.env, **variables})
            full = _environment(topology, base, watch)
            command = launcher.command(topology, argv, module)
            below = launcher.name == "mpirun" and topology.nodes == 1
            job = Job(command, full, watch.stdout, watch.stderr, ranks_below=below)
            try:
                code = job.wait(requests, watch.grace, watch.timeout)
                if code not in (EXIT_DONE, EXIT_INTERRUPTED) and (death := job.death()) is not None:
                    failure.tell(Failure("environment", death), full)  # unless the rank itself has said why
                if note is not None:
                    watch.report(f"hpcgan: note: {note}")
            finally:
                job.end()  # whatever went wrong here, no rank outlives it
    if record is None or code == EXIT_BAD_INPUT:
        return code
    return _as_recorded(code, record, launcher.name, watch.report)


def _own_folder(launcher: Launcher, topology: Topology) -> contextlib.AbstractContextManager[dict[str, str]]:
    """A folder for mpirun on this machine; on others, nobody could remove it."""
    if launcher.name == "mpirun" and launcher.flavour == OPEN_MPI_5 and topology.nodes == 1:
        return scratch.scratch(scratch.place())
    return contextlib.nullcontext({})


def _environment(topology: Topology, base: Mapping[str, str], watch: Watch) -> dict[str, str]:
    env = topology.environment(between_steps(base))
    env.setdefault("HPCGAN_TERMINAL", "1" if watch.stdout is None and sys.stdout and sys.stdout.isatty() else "0")
    env.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
    return env


def _as_recorded(code: int, record: Record, launcher: str, report: Callable[[str], None]) -> int:
    """The exit code of a job whose launcher ended with `code`."""
    end = time.monotonic() + PATIENCE
    while (recorded := record.read()) is None and code == EXIT_DONE and time.monotonic() < end:
        time.sleep(PATIENCE / 25)
    if recorded == EXIT_INTERRUPTED:
        return EXIT_INTERRUPTED
    if code == EXIT_DONE and recorded is None:
        report(f"hpcgan: error: {launcher} ended with exit code {code}, but {record.missing}")
        return EXIT_FAILED
    return code
