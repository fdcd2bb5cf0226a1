"""A cluster of IPython engines that are the ranks of one MPI job, on this machine or in a Slurm job.

Over ipyparallel's Cluster: its controller runs here, encrypted and with a random key, and what differs is how engines
are started (`launchers`, `engines`), that they are checked to be one MPI world, and that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import threading
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.errors import HpcganError, InputError
from hpcgan.files import write_atomic
from hpcgan.interactive.backend import (
    Loop,
    connect_client,
    connection_file,
    find_cause,
    known_cluster,
    need_ipyparallel,
    new_cluster,
    root_cause,
    within,
)
from hpcgan.interactive.training import until
from hpcgan.launch import slurm

if TYPE_CHECKING:
    import ipyparallel

    from hpcgan.interactive.launchers import Wanted
    from hpcgan.interactive.session import Session

#: Seconds for which engines are waited for by default: on this machine, and in a queue.
LOCAL_TIMEOUT, QUEUE_TIMEOUT = 180.0, 1800.0
#: Seconds in which everybody has heard that engines have answered, or ended.
SETTLE = 10.0
#: Seconds in which the controller must answer.
ANSWER = 20.0
#: Seconds between two signs of life of a notebook.
MARK_EVERY = 2.0


def clusters() -> Path:
    """Where clusters are kept: `HPCGAN_CLUSTERS`, else `~/.hpcgan/clusters`. Compute nodes must see it, too."""
    return Path(os.environ.get("HPCGAN_CLUSTERS") or Path.home() / ".hpcgan" / "clusters").absolute()


class Cluster:
    """Engines that train; made by `start` or `connect`.

    Attributes
    ----------
    id : str
    kind : str
        `mpi` or `slurm`.
    ranks : list of dict
        A row a rank: `rank`, `host`, `pid`, `threads`, `engine` (its number for ipyparallel).
    """

    def __init__(self, cluster: Any, loop: Loop, folder: Path, kind: str, report: Callable[[str], None]) -> None:
        self._cluster, self._loop, self._folder, self._report = cluster, loop, folder, report
        self.id, self.kind = folder.name, kind
        self.ranks: list[dict[str, Any]] = []
        self._client: ipyparallel.Client | None = None
        self._occupied: Callable[[], bool] = lambda: False
        self._open = threading.Event()
        self._open.set()
        self._mark()
        threading.Thread(target=self._keep_marking, name="hpcgan-cluster", daemon=True).start()

    # --- making one --------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        engines: str = "mpi",
        n: int = 2,
        *,
        nodes: int | None = None,
        threads: int | None = None,
        time: str = "1:00:00",
        site: Path | str | None = None,
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
        nodes : int, optional
            Nodes of the job; by default one a rank.
        threads : int, optional
            Compute threads of a rank; by default its share of the cores, or what the site gives.
        time : str
            Limit of the job. Before it, a training that runs writes a checkpoint.
        site : path, optional
            Shell file with the site's modules, sourced in the job; by default `slurm/site.sh` if it is there.
        address : str, optional
            Name or address of this machine as compute nodes reach it; by default its host name.
        timeout : float, optional
            Seconds for which the engines are waited for; by default 3 minutes here, 30 in a queue.
        idle : float
            Seconds without a notebook and without work after which the cluster ends by itself.
        report : callable
            Takes a line for the user.
        options
            Of the job: `partition`, `account`, `qos`, `reservation`, `constraint`, `gpus_per_node`, `mem`, `nodelist`,
            `exclude`, as of `hpcgan submit`.

        Raises
        ------
        InputError
            Options that make no job, ipyparallel is not installed, or Slurm will never start such a job.
        HpcganError
            The engines did not come, or are not one world; nothing is left behind.
        """
        need_ipyparallel()
        from hpcgan.interactive.launchers import wanted

        engine_set = wanted(engines, n, nodes, threads, time, site, options)
        _check_seconds("idle", idle)
        folder = _make_folder()
        loop = Loop()
        made = cls(new_cluster(folder, engine_set.launcher, address, engines, idle), loop, folder, engines, report)
        # Ctrl-C while the queue is waited for must leave nothing behind either.
        try:
            made._bring_up(n, engine_set, LOCAL_TIMEOUT if engines == "mpi" else QUEUE_TIMEOUT, timeout)
        except BaseException:
            with contextlib.suppress(Exception):
                made._end()  # the logs stay: the error may name them
            raise
        return made

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
            There is none, or none of that name.
        HpcganError
            It does not answer.
        """
        need_ipyparallel()
        there = _existing()
        if cluster is not None and cluster not in {folder.name for folder in there}:
            names = ", ".join(folder.name for folder in there) or "none"
            raise InputError(f"{clusters()}: no cluster '{cluster}' runs; there is {names}")
        if not there:
            raise InputError(f"{clusters()}: no cluster of yours runs; Cluster.start() makes one")
        folder = there[-1] if cluster is None else clusters() / cluster
        loop = Loop()
        about = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
        made = cls(known_cluster(folder, loop), loop, folder, about["kind"], report)
        try:
            made._client = connect_client(folder, timeout)
            made.ranks = about["ranks"]
            made._check_alive()
        except BaseException:
            made.close()
            raise
        return made

    def _bring_up(self, n: int, wanted: Wanted, default: float, timeout: float | None) -> None:
        self._loop.run(self._cluster.start_controller())
        try:
            self._loop.run(self._cluster.controller.get_connection_info())
        except (RuntimeError, TimeoutError):
            raise HpcganError(f"the controller did not start: {_last_line(self._controller_log())}") from None
        self._client = connect_client(self._folder, 60.0)
        arguments = [f"--IPEngine.url_file={self.engine_file}", f"--profile-dir={self._folder}",
                     "--mpi", "--IPEngine.max_heartbeat_misses=10", "--log-level=WARN"]  # fmt: skip
        settings = {**wanted.settings, "engine_args": arguments}
        if wanted.script is not None:
            settings.update(script=wanted.script(arguments), folder=str(self._folder))
        else:
            settings["output_file"] = str(self._folder / "engines.log")
        self._loop.run(self._cluster.start_engines(n, **settings))
        self._await_engines(n, default if timeout is None else timeout)
        self._accept(n, wanted.nodes)
        about = {"kind": self.kind, "host": socket.gethostname(), "controller": self._cluster.controller.pid}
        write_atomic(self._folder / "cluster.json", json.dumps({**about, "ranks": self.ranks}) + "\n")
        hosts = len({rank["host"] for rank in self.ranks})
        self._report(f"cluster {self.id}: {n} rank{'s' * (n > 1)} on {hosts} node{'s' * (hosts > 1)}")

    def _await_engines(self, n: int, timeout: float) -> None:
        """Until they have registered, telling how the queue stands."""
        end, told = clock.monotonic() + timeout, ""
        what, looked = "started", -1e9
        while len(self._client.ids) < n:  # type: ignore[union-attr]
            now = clock.monotonic()
            if self.kind == "slurm" and now - looked > 2.0:
                looked, what = now, self._queue_state()
                if what != told:
                    told = what
                    self._report(f"job {self._engine_set.job_id}: {what}")
            elif self.kind == "mpi" and self._engine_set.state == "after":
                raise HpcganError(f"the engines ended at once: {self.cause() or _last_line(self.log())}")
            if now > end:
                raise HpcganError(
                    f"{len(self._client.ids)} of {n} engines came within {timeout:.0f} s"  # type: ignore[union-attr]
                    + (f"; job {self._engine_set.job_id} was {what} and is cancelled: give a longer timeout= "
                       "or ask for less" if self.kind == "slurm" else f": see {self._folder / 'engines.log'}")
                )  # fmt: skip
            clock.sleep(0.1)

    def _queue_state(self) -> str:
        """How the job stands.

        Raises
        ------
        InputError
            Slurm will not start it as it is.
        HpcganError
            It has ended.
        """
        job = self._engine_set.job_id
        try:
            found = slurm.job_state(job)
        except HpcganError as error:  # the controller is busy or restarts: asked again
            return str(error)
        if found is None or found.state not in slurm.PRESENT:
            reason = self.cause() or _last_line(self.log())
            raise HpcganError(f"job {job} ended ({found or 'unknown'}) before its engines came: {reason}")
        if found.state == "PENDING" and (obstacle := slurm.obstacle(job, within=0.0)):
            raise InputError(f"Slurm does not start job {job} as it was asked for ({obstacle}); it is cancelled")
        return str(found)

    def _accept(self, n: int, nodes: int | None) -> None:
        """Check that the engines are the ranks of one world, over the nodes that were asked for."""
        from hpcgan.interactive import ranks

        view = self._client[:]  # type: ignore[index]
        view.block = False
        result = view.apply_async(ranks.describe)
        found = self._answers(result, "the check of the ranks")
        rows = [{**row, "engine": engine} for row, engine in zip(found, view.targets)]
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
        self.ranks = rows
        self.settle()

    def _answers(self, result: Any, what: str, timeout: float = 300.0) -> list[Any]:
        """Results of all engines.

        Raises
        ------
        HpcganError
            One of them failed or died, with the cause, or there are none in time.
        """
        import ipyparallel

        try:
            answers: list[Any] = result.get(timeout)
            return answers
        except (TimeoutError, ipyparallel.error.TimeoutError):
            raise HpcganError(f"{what}: no answer from the engines in {timeout:.0f} s") from None
        except ipyparallel.error.IPythonError as error:
            raise HpcganError(f"{what} failed: {self.cause() or root_cause(error)}") from None

    # --- how it stands -----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Ranks."""
        return len(self.ranks)

    @property
    def client(self) -> ipyparallel.Client:
        """Ipyparallel's view of it.

        Raises
        ------
        InputError
            The cluster was stopped or closed.
        """
        if self._client is None:
            raise InputError(f"cluster {self.id} was stopped; Cluster.start() makes another one")
        return self._client

    @property
    def connection_file(self) -> Path:
        """What other clients of the controller need, e.g. `hpcgan sweep --executor ipyparallel --cluster FILE`."""
        return connection_file(self._folder, "client")

    @property
    def engine_file(self) -> Path:
        """What engines need."""
        return connection_file(self._folder, "engine")

    @property
    def state(self) -> str:
        """`ready`, `busy`, `lost` (engines have ended) or `stopped`."""
        if self._client is None:
            return "stopped"
        if len(self._client.ids) < self.size:
            return "lost"
        return "busy" if self.busy() else "ready"

    def busy(self) -> bool:
        """Whether an engine works or has work waiting, whoever has asked for it.

        Raises
        ------
        HpcganError
            The controller does not answer.
        """
        # The controller hears of what this kernel has just asked for a moment later.
        return self._occupied() or self._has_work()

    def occupy(self, still: Callable[[], bool]) -> None:
        """Note that this kernel has given the engines something to do, for as long as `still` is true."""
        self._occupied = still

    def _has_work(self) -> bool:
        import ipyparallel

        try:
            status = within(ANSWER, self.client.queue_status)
        except (TimeoutError, ipyparallel.error.IPythonError) as error:
            raise HpcganError(f"cluster {self.id}: the controller does not answer ({root_cause(error)})") from None
        return any(part["queue"] or part["tasks"] for engine, part in status.items() if isinstance(engine, int))

    def settle(self) -> None:
        """After engines have answered: until the controller knows it, so that they are not taken for busy."""
        with contextlib.suppress(HpcganError):
            until(lambda: not self._has_work(), SETTLE, 0.05)

    def log(self) -> str:
        """What the engines have printed."""
        engine_set = self._engine_set
        return str(engine_set.get_output()) if engine_set is not None else _newest_log(self._folder)

    def cause(self, since: int = 0, *, sure: bool = False) -> str | None:
        """The first line of the log that says why a rank ended; None if there is none.

        Parameters
        ----------
        since : int
            Characters of the log to leave out.
        sure : bool
            Only a line that names a rank, or an error of hpcgan.
        """
        return find_cause(self.log()[since:], sure=sure)

    def __repr__(self) -> str:
        return f"<Cluster {self.id}: {self.size} {self.kind} ranks, {self.state}>"

    # --- using and ending it -----------------------------------------------------------------------

    def session(self) -> Session:
        """What trains on it."""
        from hpcgan.interactive.session import Session

        return Session(self)

    def stop(self) -> None:
        """End the engines, their job and the controller. A training that runs writes a checkpoint first.

        Raises
        ------
        HpcganError
            Slurm does not end the job; the rest has ended.
        """
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        try:
            if self._cluster.engines:
                self._loop.run(self._cluster.stop_engines())
        finally:
            self.close()  # not before: a training that stops is followed to its end
            with contextlib.suppress(Exception):
                self._loop.run(self._cluster.stop_controller())
            self._loop.close()

    def close(self) -> None:
        """Leave the cluster as it is; `connect` finds it again, until it has been idle for long."""
        self._open.clear()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # --- inside ------------------------------------------------------------------------------------

    @property
    def _engine_set(self) -> Any:
        return self._cluster.engine_set

    def _check_alive(self) -> None:
        if len(self.client.ids) < self.size:
            raise HpcganError(f"cluster {self.id}: its engines have ended ({self.cause() or 'no cause in its log'})")

    def _controller_log(self) -> str:
        try:
            return Path(self._cluster.controller.output_file).read_text(errors="replace")
        except OSError:
            return ""

    def _mark(self) -> None:
        with contextlib.suppress(OSError):
            (self._folder / "mark").touch()

    def _keep_marking(self) -> None:
        while self._open.is_set():
            self._mark()
            clock.sleep(MARK_EVERY)


def _check_seconds(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"{name}={value}: give seconds above 0")


def _make_folder() -> Path:
    folder = clusters() / f"{clock.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); HPCGAN_CLUSTERS names another place") from None
    return folder


def _existing() -> list[Path]:
    """Clusters whose controller runs, as far as this machine can tell, the newest one last."""
    root = clusters()
    found = root.iterdir() if root.is_dir() else ()
    return sorted(folder for folder in found if any(folder.glob("security/*-client.json")) and _lives(folder))


def _lives(folder: Path) -> bool:
    try:
        about = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
        if about["host"] != socket.gethostname():
            return True
        command = Path(f"/proc/{int(about['controller'])}/cmdline").read_bytes()
        return folder.name.encode() in command
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def _newest_log(folder: Path) -> str:
    logs = sorted(folder.glob("engines*.log"), key=lambda p: p.stat().st_mtime)
    return logs[-1].read_text(errors="replace") if logs else ""
