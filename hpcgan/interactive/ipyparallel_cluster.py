"""ipyparallel behind `Cluster`: its controller told what to be, reached and understood."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.errors import HpcganError, InputError

if TYPE_CHECKING:
    import ipyparallel

MISSING = "clusters need ipyparallel: pip install 'hpcgan[interactive]'"


def need_ipyparallel() -> None:
    try:
        import ipyparallel  # noqa: F401
    except ImportError:
        raise InputError(MISSING) from None


def controller_arguments(folder: Path, address: str | None, kind: str, idle: float) -> list[str]:
    """Of `hpcgan.interactive.controller`, for the cluster in a folder."""
    location = address or (socket.gethostname() if kind == "slurm" else "127.0.0.1")
    return [
        f"--profile-dir={folder}",
        f"--cluster-id={folder.name}",
        f"--ip={'*' if kind == 'slurm' else '127.0.0.1'}",
        f"--location={location}",
        "--IPController.enable_curve=True",
        f"--Controller.idle={float(idle)}",
        f"--Controller.folder={folder}",
        "--log-level=WARN",
    ]


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
