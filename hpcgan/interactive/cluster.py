"""A cluster of IPython engines that are the ranks of one MPI job, on this machine or in a Slurm job.

Controller and engines are ipyparallel's; its controller runs here, encrypted and with a random key. Its own cluster is
not used: engines are started otherwise (`engine_set`, `engines`), and nothing of them is left behind.
"""

from __future__ import annotations

import contextlib
import math
import socket
import sys
import threading
import time as clock
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcgan.config import JobSection, flags
from hpcgan.errors import HpcganError, InputError
from hpcgan.interactive import folder as folders
from hpcgan.interactive import processes, ranks
from hpcgan.interactive.cluster_client import FAILURE, RANKS, ClusterClient, cause, connect_client, root_cause
from hpcgan.interactive.engine_set import UNHEEDED, EngineSet, engine_set
from hpcgan.interactive.folder import clusters
from hpcgan.interactive.interrupts import Interrupts, interrupts
from hpcgan.interactive.processes import until
from hpcgan.interactive.rows import Rows
from hpcgan.interactive.session import Session
from hpcgan.launch import slurm
from hpcgan.system.last_words import last_words

#: Seconds for which engines are waited for by default: on this machine, and in a queue.
LOCAL_TIMEOUT, QUEUE_TIMEOUT = 180.0, 1800.0
#: Seconds in which the controller must be up.
CONTROLLER_TIMEOUT = 60.0
#: Characters of the engines' output that stay with an error.
KEPT = 4000
#: What is shown of clusters.
LIST = ("id", "where", "kind", "ranks", "state", "since", "idle")


class Cluster(ClusterClient):
    """Engines that train; made by `start` or `connect`."""

    def __init__(self, folder: Path, about: folders.About, report: Callable[[str], None]) -> None:
        super().__init__(folder, about)
        self._report = report
        self._ending, self._ended = threading.RLock(), False

    # --- making one --------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        engines: str = "mpi",
        n: int = 2,
        *,
        job: JobSection | Mapping[str, Any] | None = None,
        address: str | None = None,
        timeout: float | None = None,
        idle: float = 600.0,
        report: Callable[[str], None] = print,
        **options: Any,
    ) -> Cluster:
        """Start a controller here and `n` engines, wait for them, and check that they are one MPI world.

        Parameters
        ----------
        engines : "mpi" or "slurm"
            Ranks of an mpirun on this machine, or of a Slurm job.
        n : int
            Engines, which are ranks.
        job : JobSection or mapping, optional
            The job, as the section `job:` of a configuration: `nodes` (by default one a rank), `threads` (by default a
            rank's share of the cores, or what the site gives), `time`, `partition`, `site` ... Before its limit, a
            training that runs writes a checkpoint.
        address : str, optional
            Name or address of this machine as compute nodes reach it; by default its host name.
        timeout : float, optional
            Seconds for which the engines are waited for; by default 3 minutes here, 30 in a queue.
        idle : float
            Seconds without a notebook and without work after which the cluster ends by itself.
        report : callable
            Takes a line for the user.
        **options
            Keys of the job, before those in `job`: `nodes=2, time="2:00:00"`.

        Raises
        ------
        InputError
            Options that make no job, ipyparallel is not installed, or Slurm will never start such a job.
        HpcganError
            The engines did not come, or are not one world.
        KeyboardInterrupt
            It was interrupted. As after an error, neither a process nor a folder is left.
        """
        _need_ipyparallel()
        others = ("engines", "n", "job", "address", "timeout", "idle", "report")
        if engines == "slurm" and (unheeded := [key for key in UNHEEDED if key in options]):
            raise InputError(f"{', '.join(unheeded)}: a job of engines has no such option")
        starter = engine_set(engines, n, flags.section("job", JobSection, job, others, **options))
        _check_seconds("idle", idle)
        if timeout is not None:
            _check_seconds("timeout", timeout)
        folders.tidy(own=False)
        limit = (LOCAL_TIMEOUT if engines == "mpi" else QUEUE_TIMEOUT) if timeout is None else timeout
        cluster: Cluster | None = None
        try:
            with interrupts() as guard:
                try:
                    with guard.hold():
                        cluster = cls(*folders.make({"kind": engines, "n": n}), report)
                    cluster._bring_up(starter, address, idle, limit, guard)
                except BaseException as error:
                    if cluster is not None:
                        cluster._give_up(error, guard)
                    raise
        except KeyboardInterrupt:  # also one that came when all was up
            if cluster is not None:
                cluster.stop()
            raise
        return cluster

    @classmethod
    def connect(
        cls, cluster: str | None = None, *, timeout: float = 30.0, report: Callable[[str], None] = print
    ) -> Cluster:
        """A cluster that another kernel, or an earlier life of this one, has started.

        Parameters
        ----------
        cluster : str, optional
            Its `id`; by default the newest one.
        timeout : float
            Seconds in which its controller must answer.
        report : callable
            Takes a line for the user.

        Raises
        ------
        InputError
            There is none, or none of that name; what is left of one that has ended is removed.
        HpcganError
            It does not answer.
        """
        _need_ipyparallel()
        before = folders.existing()
        folders.tidy(own=True)
        remaining = [folder for folder in before if folder.is_dir()]
        running = [folder.name for folder in remaining if _can_be_reached(folders.read(folder))]
        if cluster is not None and cluster not in running:
            names = ", ".join(running) or "none"
            why = _why_not(clusters() / cluster, [folder.name for folder in before])
            raise InputError(f"{clusters()}: no cluster '{cluster}' runs{why}; there is {names}")
        if not running:
            raise InputError(f"{clusters()}: no cluster of yours runs; Cluster.start() makes one")
        folder = clusters() / (running[-1] if cluster is None else cluster)
        connected = cls(folder, folders.read(folder), report)
        try:
            connected._client = connect_client(folder, timeout)
            if len(connected.client.ids) < connected.size:
                cause_of_end = connected.cause() or "no cause in its log"
                raise HpcganError(f"cluster {connected.id}: its engines have ended ({cause_of_end})")
        except BaseException:
            connected.close()
            raise
        return connected

    @staticmethod
    def list() -> Rows:
        """Your clusters, a row each, the newest one last; what is left of those that have ended is removed.

        Returns
        -------
        Rows
            `id`, `where` (host of the controller, and nodes), `kind`, `ranks`, `state` (`starting`, `ready`, `busy`,
            `lost`: the controller has gone, its ranks end; `unknown`: it is on another host), `since`, `idle`
            (seconds without a notebook and without work).

        Raises
        ------
        InputError
            The place of clusters cannot be read.
        """
        folders.tidy(own=True)
        rows = [_row(folder) for folder in folders.existing()]
        return Rows(rows, LIST, none="no cluster of yours runs; Cluster.start() makes one")

    def _bring_up(
        self, starter: EngineSet, address: str | None, idle: float, timeout: float, guard: Interrupts
    ) -> None:
        n, layout = starter.n, starter.layout
        for warning in () if layout is None else layout.warnings:
            self._report(f"warning: {warning}")
        with guard.hold():
            self._start_controller(address, idle)
        until(lambda: self._can_connect() or folders.controller_lives(self._about) is False, CONTROLLER_TIMEOUT, 0.05)
        if not self._can_connect():
            raise HpcganError(f"the controller did not start: {last_words(self._controller_said())}")
        self._client = connect_client(self._folder, CONTROLLER_TIMEOUT)
        with guard.hold():
            self._start_engines(starter)
        self._await_engines(n, timeout, None if layout is None else layout.cores)
        self._accept(n, starter.nodes)
        self._note(ranks=list(self.ranks))
        hosts = len({rank["host"] for rank in self.ranks})
        self._report(f"cluster {self.id}: {n} rank{'s' * (n > 1)} on {hosts} node{'s' * (hosts > 1)}")

    def _start_controller(self, address: str | None, idle: float) -> None:
        is_remote = self.kind == "slurm"
        arguments = [
            f"--profile-dir={self._folder}",
            f"--cluster-id={self.id}",
            f"--ip={'*' if is_remote else '127.0.0.1'}",
            f"--location={address or (socket.gethostname() if is_remote else '127.0.0.1')}",
            "--IPController.enable_curve=True",
            f"--Controller.idle={float(idle)}",
            f"--Controller.folder={self._folder}",
            "--log-level=WARN",
        ]
        process = processes.start("hpcgan.interactive.controller", arguments, self._controller_log)
        self._note(controller=folders.describe(process.pid))

    def _can_connect(self) -> bool:
        """Whether the controller has written where clients and engines reach it."""
        return all(folders.read(file.parent, file.name) for file in (self.connection_file, self.engine_file))

    def _start_engines(self, starter: EngineSet) -> None:
        own = [f"--IPEngine.url_file={self.engine_file}", f"--profile-dir={self._folder}",
               "--mpi", "--IPEngine.max_heartbeat_misses=10", "--log-level=WARN"]  # fmt: skip
        self._note(engines=starter.start(self._folder, ["--failure-file", str(self._folder / FAILURE), "--", *own]))

    def _await_engines(self, n: int, timeout: float, cores: int | None) -> None:
        """Until they have registered, telling how the queue stands."""
        end, last_look = clock.monotonic() + timeout, -math.inf
        state, last_report = "started", ""
        while (registered := len(self.client.ids)) < n:
            now = clock.monotonic()
            if self.kind == "slurm" and now - last_look > 2.0:
                last_look, state = now, self._queue_state()
                if state != last_report:
                    last_report = state
                    self._report(f"job {self._job}: {state}")
            self._check_parts()
            if now > end:
                raise HpcganError(
                    f"{registered} of {n} engines came within {timeout:g} s{self._too_slow(n, cores, state)}"
                )
            clock.sleep(0.1)

    def _too_slow(self, n: int, cores: int | None, state: str) -> str:
        """What may be done if engines did not come in time."""
        if self.kind == "slurm":
            return f"; job {self._job} was {state} and is cancelled: give a longer timeout= or ask for less"
        output = f": {last_words(self.log())}" if self.log().strip() else ""
        few = f" or start fewer: this machine has {cores} core{'s' * (cores != 1)} for {n} engines" if cores else ""
        return f"; give a longer timeout={few if cores is not None and cores < n else ''}{output}"

    def _check_parts(self) -> None:
        """An `HpcganError` if controller or engines have ended, as far as they run on this machine."""
        if folders.engines_live(self._about) is False:
            raise HpcganError(f"the engines ended at once: {self.cause() or last_words(self.log())}")
        if folders.controller_lives(self._about) is False:
            raise HpcganError(f"the controller has ended: {last_words(self._controller_said())}")

    def _queue_state(self) -> str:
        """How the job stands; an `InputError` if Slurm will not start it as it is, an `HpcganError` if it has ended."""
        job = self._job
        try:
            status = slurm.job_state(job)
        except HpcganError as error:  # the controller is busy or restarts: asked again
            return str(error)
        if status is None or status.state not in slurm.PRESENT:
            reason = self.cause() or last_words(self.log())
            raise HpcganError(f"job {job} ended ({status or 'unknown'}) before its engines came: {reason}")
        if status.state == "PENDING" and (obstacle := slurm.obstacle(job, within=0.0)):
            raise InputError(f"Slurm does not start job {job} as it was asked for ({obstacle}); it is cancelled")
        return str(status)

    def _accept(self, n: int, nodes: int | None) -> None:
        """Check that the engines are the ranks of one world, over the nodes that were asked for."""
        view = self._client[:]  # type: ignore[index]
        view.block = False
        result = view.apply_async(ranks.describe)
        descriptions = self._answers(result, "the check of the ranks")
        rows = [{**row, "engine": engine} for row, engine in zip(descriptions, view.targets)]
        rows.sort(key=lambda row: row["rank"])
        if [row["rank"] for row in rows] != list(range(n)) or {row["size"] for row in rows} != {n}:
            raise HpcganError(
                f"the engines are not one MPI world of {n} ranks: {[(r['rank'], r['size']) for r in rows]}"
            )
        if {row["mean"] for row in rows} != {(n - 1) / 2}:
            raise HpcganError(f"an allreduce of {n} ranks gave {[row['mean'] for row in rows]}, not {(n - 1) / 2}")
        hosts = {row["host"] for row in rows}
        if nodes is not None and len(hosts) != nodes:
            raise HpcganError(f"the job has {nodes} nodes, but its ranks run on {', '.join(sorted(hosts))}")
        self.ranks = Rows(rows, RANKS)
        self.settle()

    def _answers(self, result: Any, what: str, timeout: float = 300.0) -> Sequence[Any]:
        """Results of all engines; an `HpcganError` with the cause if one failed or died, or there are none in time."""
        import ipyparallel

        end = clock.monotonic() + timeout
        try:
            while not result.ready() and clock.monotonic() < end:
                result.wait(0.5)
                self._check_parts()
            answers: Sequence[Any] = result.get(0)
            return answers
        except (TimeoutError, ipyparallel.error.TimeoutError):
            raise HpcganError(f"{what}: no answer from the engines in {timeout:.0f} s") from None
        except ipyparallel.error.IPythonError as error:
            raise HpcganError(f"{what} failed: {self.cause() or root_cause(error)}") from None

    # --- using and ending it -----------------------------------------------------------------------

    def session(self) -> Session:
        """What trains on it."""
        return Session(self)

    def stop(self) -> None:
        """End the engines, their job and the controller, and remove the folder; once more does nothing.

        A training that runs writes a checkpoint first; for a minute it is waited for. An interrupt (Ctrl-C) ends the
        wait, and everything.

        Raises
        ------
        HpcganError
            Slurm does not end the job, and the rest has ended; or the controller runs on another host, and does not
            answer.
        KeyboardInterrupt
            It was interrupted; nothing is left all the same.
        """
        with self._ending, interrupts(held=True) as guard:
            self._end(lambda: guard.hurry)

    def _end(self, hurry: Callable[[], bool]) -> None:
        if self._ended:
            return
        if folders.controller_lives(self._about) is None:
            self.close()
            self._end_from_afar()
        else:
            try:
                folders.end_engines(self._about, hurry)
            finally:
                self.close()  # not before: a training that stops is followed to its end
                folders.end_process(self._about.get("controller"), folders.CONTROLLER_S, hurry)
        self._ended = True
        folders.remove(self._folder)

    def _end_from_afar(self) -> None:
        """Have the controller end all of it, which nobody here can."""
        with contextlib.suppress(OSError):
            (self._folder / "stop").touch()
        limit = 2 * folders.STOP_S
        if not until(lambda: not self._folder.exists(), limit, 0.2):
            raise HpcganError(f"cluster {self.id} did not end within {limit:.0f} s: stop it on {self._about['host']}")

    def _give_up(self, error: BaseException, guard: Interrupts) -> None:
        """End what has begun; what the engines said stays with the error."""
        log = self.log().strip()
        if isinstance(error, HpcganError) and log and sys.version_info >= (3, 11):
            error.add_note(f"The engines said:\n{log[-KEPT:]}")
        with contextlib.suppress(Exception), guard.hold():
            self._end(lambda: guard.hurry)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # --- inside ------------------------------------------------------------------------------------

    def _note(self, **what: Any) -> None:
        """Have the folder know it."""
        self._about.update(what)
        folders.write(self._folder, self._about)

    @property
    def _controller_log(self) -> Path:
        return self._folder / "controller.log"

    def _controller_said(self) -> str:
        return self._controller_log.read_text(errors="replace") if self._controller_log.exists() else ""


def _need_ipyparallel() -> None:
    try:
        import ipyparallel  # noqa: F401
    except ImportError:
        raise InputError("clusters need ipyparallel: pip install 'hpcgan[interactive]'") from None


def _check_seconds(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"{name}={value}: give seconds above 0")


def _can_be_reached(about: folders.About) -> bool:
    running = folders.life(about) in ("lives", "unknown") and folders.engines_live(about) is not False
    return "ranks" in about and running


def _why_not(folder: Path, ids: Sequence[str]) -> str:
    """What has become of a cluster that somebody asks for."""
    if folder.name not in ids:
        return ""
    about = folders.read(folder)
    if not folder.is_dir():
        return ": it has ended, and what was left of it is removed"
    if folders.life(about) == "lost":
        return ": its controller has ended; its ranks end, too, at the latest when what they train has ended"
    if "ranks" not in about:
        return ": it is still being started"
    why = cause(folder) or "nobody has told why"
    folders.end_process(about["controller"], folders.CONTROLLER_S)
    folders.remove(folder)
    return f": its ranks have ended ({why}), and what was left of it is removed"


def _row(folder: Path) -> dict[str, Any]:
    about, status = folders.read(folder), folders.read(folder, "status.json")
    ranks, life = about.get("ranks", ()), folders.life(about)
    nodes = sorted({str(rank["host"]) for rank in ranks})
    where = str(about.get("host", "?"))
    if nodes and nodes != [where]:
        where += f" with {', '.join(nodes[:3])}{f' and {len(nodes) - 3} more' if len(nodes) > 3 else ''}"
    going = "starting" if not ranks else "busy" if status.get("busy") else "ready"
    return {
        "id": folder.name, "where": where, "kind": about.get("kind"), "ranks": len(ranks) or about.get("n"),
        "state": going if life == "lives" else life, "since": about.get("since"),
        "idle": f"{status['idle']} s" if "idle" in status else None,
    }  # fmt: skip
