"""A cluster as a client of its controller sees it: its ranks, whether they are free, what they have printed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.errors import HpcganError, InputError
from hpcgan.interactive import folder as folders
from hpcgan.interactive.processes import until
from hpcgan.interactive.rows import Rows
from hpcgan.launch import slurm
from hpcgan.system import failure

if TYPE_CHECKING:
    import ipyparallel

#: Seconds in which everybody has heard that engines have answered, or ended.
SETTLE = 10.0
#: Seconds in which the controller must answer.
ANSWER = 20.0
#: Seconds between two signs of life of a notebook.
MARK_EVERY = 2.0
#: In the folder: why the engines failed.
FAILURE = "failure.json"
#: What is shown of ranks.
RANKS = ("rank", "size", "host", "pid", "threads", "backend", "engine")


class ClusterClient:
    """The engines of a cluster, which are the ranks of one MPI job.

    Attributes
    ----------
    id : str
    kind : str
        `mpi` or `slurm`.
    ranks : Rows
        A row a rank: `rank`, `host`, `pid`, `threads`, `engine` (its number for ipyparallel).
    """

    def __init__(self, folder: Path, about: folders.About) -> None:
        self._folder, self._about = folder, about
        self.id, self.kind = folder.name, str(about["kind"])
        self.ranks = Rows(about.get("ranks", ()), RANKS)
        self._client: ipyparallel.Client | None = None
        self._occupied: Callable[[], bool] = lambda: False
        self._closed = threading.Event()
        self._mark()
        self._marking = threading.Thread(target=self._keep_marking, name="hpcgan-cluster", daemon=True)
        self._marking.start()

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
        """`ready`, `busy`, `lost` (engines or the controller have ended) or `stopped`."""
        if self._client is None or not self._folder.is_dir():
            return "stopped"
        if len(self._client.ids) < self.size or folders.controller_lives(self._about) is False:
            return "lost"
        try:
            return "busy" if self.busy() else "ready"
        except HpcganError:  # the controller does not answer
            return "lost"

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
        logs = sorted(self._folder.glob("engines*.log"), key=lambda p: p.stat().st_mtime)
        return logs[-1].read_text(errors="replace") if logs else ""

    def cause(self) -> str | None:
        """Why the engines failed, as they, or who has started them, have told; None as long as nobody has."""
        return cause(self._folder)

    def end_of_job(self) -> str | None:
        """How the engines' Slurm job has ended; None if there is none, or it has not."""
        if self.kind != "slurm":
            return None
        with contextlib.suppress(HpcganError):
            status = slurm.job_state(self._job)
            if status is None or status.state not in slurm.PRESENT:
                return f"job {self._job} has ended ({status or 'unknown'})"
        return None

    @property
    def _job(self) -> str:
        return str(self._about["engines"]["job"])

    def __repr__(self) -> str:
        return f"<Cluster {self.id}: {self.size} {self.kind} rank{'s' * (self.size != 1)}, {self.state}>"

    # --- leaving it --------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the cluster as it is; `connect` finds it again, until it has been idle for long."""
        self._closed.set()
        self._marking.join(ANSWER)  # the folder may be removed now
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _mark(self) -> None:
        with contextlib.suppress(OSError):
            (self._folder / "mark").touch()

    def _keep_marking(self) -> None:
        while not self._closed.wait(MARK_EVERY) and self._folder.is_dir():
            self._mark()


def cause(folder: Path) -> str | None:
    """Why the engines of the cluster in a folder failed; None as long as nobody has told."""
    report = failure.read(folder / FAILURE)
    return None if report is None else str(report)


def connection_file(folder: Path, kind: str) -> Path:
    """What a `client` or an `engine` needs to reach the controller of the cluster in a folder."""
    return folder / "security" / f"ipcontroller-{folder.name}-{kind}.json"


def connect_client(folder: Path, timeout: float) -> ipyparallel.Client:
    import ipyparallel

    try:
        return ipyparallel.Client(
            str(connection_file(folder, "client")),
            timeout=timeout,
            profile_dir=str(folder),
            ipython_dir=str(folder),
            cluster_id=folder.name,
        )
    except (OSError, TimeoutError, ValueError, ipyparallel.error.IPythonError) as error:
        raise HpcganError(f"cluster {folder.name}: its controller does not answer ({root_cause(error)})") from None


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """The result of a function that may never return, as ipyparallel's do when the controller is gone.

    Raises
    ------
    TimeoutError
        It did not return in time.
    """
    outcome: futures.Future[Any] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except futures.TimeoutError:  # which is the other one from Python 3.11 on
        raise TimeoutError(f"no answer in {seconds:.0f} s") from None


def root_cause(error: BaseException) -> str:
    """One line of an error of ipyparallel, which may stand for several."""
    first = getattr(error, "elist", None)
    if first:
        name, value = first[0][:2]
        return f"{name}: {value}"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
