"""Start the ranks of a job, on this machine or inside an allocation, and see it to its end."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any, Protocol

from hpcgan.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, InputError
from hpcgan.launch import tuned
from hpcgan.launch.process import GRACE, STOP_SIGNALS, Job, Requests, handling
from hpcgan.launch.srun import here
from hpcgan.launch.topology import Topology, available_cores, plan
from hpcgan.launch.world import expected_world
from hpcgan.system import failure, home
from hpcgan.system.allocation import between_steps
from hpcgan.system.failure import Failure

#: Seconds in which a job's record may still appear: shared file systems show files of another node late.
PATIENCE = 5.0


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


def launch(
    argv: Sequence[str],
    ranks: int,
    *,
    launcher: Launcher | None = None,
    nodes: int | None = None,
    module: str = "hpcgan",
    threads: int | None = None,
    grace: float = GRACE,
    timeout: float | None = None,
    stdout: IO[Any] | int | None = None,
    stderr: IO[Any] | int | None = None,
    env: Mapping[str, str] | None = None,
    report: Callable[[str], None] | None = None,
    requests: Requests | None = None,
    recorded: Callable[[], int | None] | None = None,
    unrecorded: str = "",
) -> int:
    """Run `python -m module ARGV` on `ranks` ranks and return the job's exit code.

    SIGTERM, SIGINT, SIGHUP and SIGUSR1 sent to this process ask the ranks to stop (SIGUSR1); a second
    SIGINT, or ranks that have not ended after `grace` seconds, end the job the hard way. Signals are
    handled only when called from the main thread, and their handlers are put back at the end.

    Parameters
    ----------
    argv : sequence of str
        Arguments of the module.
    ranks : int
        World size.
    launcher : Launcher, optional
        What starts the ranks; by default this environment's mpirun, or inside a Slurm allocation what suits it best.
    nodes : int, optional
        Nodes they are spread over; by default those that the launcher takes here.
    module : str
        What `python -m` runs.
    threads : int, optional
        Compute threads of a rank; by default cores over ranks.
    grace : float
        Seconds for the ranks to end after they were asked to. With 0 the job is ended at once: for
        commands that have nothing to save.
    timeout : float, optional
        Seconds after which the job is ended.
    stdout, stderr
        As in `subprocess.Popen`; by default those of this process.
    env : mapping, optional
        Environment to start from, by default this process's.
    report : callable, optional
        Takes one line for the user; by default printed to stderr.
    requests : Requests, optional
        Where requests to stop are kept, for a caller that goes on afterwards: one made before counts.
    recorded : callable, optional
        The exit code that the job itself has recorded, 0 or 75; None if it recorded none. A launcher that says 0 is
        not believed without (see `hpcgan.launch.outcome`).
    unrecorded : str
        What to say of a record that is missing.

    Returns
    -------
    int
        The exit code of the first rank that ended with a non-zero one, else 0; 128 + n if the job was
        ended the hard way after signal n, or the launcher itself by it. With `recorded`, 1 in place of a 0 that the
        job has not recorded, and 75 if that is what it has.

    Raises
    ------
    InputError
        If `ranks` or `threads` is below one, this process already is one rank of several, or the file of tuned
        settings cannot be read.
    HpcganError
        If there is no working mpirun.
    JobTimeout
        If the job did not end within `timeout`.
    """
    base = dict(os.environ if env is None else env)
    report = _print if report is None else report
    if ranks < 1:
        raise InputError(f"--ranks must be at least 1, not {ranks}")
    world = expected_world(base)
    if world is not None and world.size > 1:
        raise InputError(
            f"--ranks starts a job of its own, but this process already is rank {world.rank} of {world.size} "
            f"under {world.launcher}: leave --ranks out"
        )
    requests = Requests(report) if requests is None else requests
    note = home.provide(base)  # mpirun does not start without
    # A signal from now on is a request, also while mpirun is being started.
    with handling(STOP_SIGNALS, requests.ask):
        if launcher is None:
            launcher, width = here(base, ranks)
            nodes = width if nodes is None else nodes
        nodes = 1 if nodes is None else nodes
        cores = available_cores()
        measured = tuned.load(base, tuned.machine(cores, launcher.flavour))
        topology = plan(ranks, cores, nodes, flavour=launcher.flavour, threads=threads, tuned=measured)
        for warning in topology.warnings:
            report(f"hpcgan: warning: {warning}")
        if failure.VARIABLE in base:  # for ranks on other nodes, too
            topology = replace(topology, env={**topology.env, failure.VARIABLE: base[failure.VARIABLE]})
        full = topology.environment(between_steps(base))
        full.setdefault("HPCGAN_TERMINAL", "1" if stdout is None and sys.stdout and sys.stdout.isatty() else "0")
        full.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
        job = Job(launcher.command(topology, argv, module), full, stdout, stderr)
        try:
            code = job.wait(requests, grace, timeout)
            if code not in (EXIT_DONE, EXIT_INTERRUPTED) and job.death is not None:
                failure.tell(Failure("environment", job.death), full)  # unless the rank itself has said why
            if note is not None:
                report(f"hpcgan: note: {note}")
        finally:
            job.end()  # whatever went wrong here, no rank outlives it
    if recorded is None or code == EXIT_BAD_INPUT:
        return code
    end = time.monotonic() + PATIENCE
    while (found := recorded()) is None and code == EXIT_DONE and time.monotonic() < end:
        time.sleep(PATIENCE / 25)
    if found == EXIT_INTERRUPTED:
        return EXIT_INTERRUPTED
    if code == EXIT_DONE and found is None:
        report(f"hpcgan: error: {launcher.name} ended with exit code {code}, but {unrecorded}")
        return EXIT_FAILED
    return code


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
