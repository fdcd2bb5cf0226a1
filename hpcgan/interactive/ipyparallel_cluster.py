"""ipyparallel behind `Cluster`: its parts made, reached and understood."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
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


class Loop:
    """An event loop in a thread of its own, which ipyparallel's launchers need while they start."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name="hpcgan-ipyparallel", daemon=True).start()

    def _run(self) -> None:
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                self._loop.run_until_complete(task)
        self._loop.close()

    def run(self, what: Awaitable[Any], limit: float) -> Any:
        """The result of a coroutine, for which `limit` seconds are waited.

        Raises
        ------
        TimeoutError
            There is none in that time.
        """

        async def awaited() -> Any:
            return await asyncio.wait_for(what, limit)

        try:
            return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(limit + 1.0)
        except (futures.TimeoutError, asyncio.TimeoutError):  # which are TimeoutError from Python 3.11 on
            raise TimeoutError(f"no answer in {limit:.0f} s") from None

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


def new_cluster(folder: Path, engines: type, address: str | None, kind: str, idle: float) -> Any:
    import ipyparallel
    from traitlets.config import Config

    return ipyparallel.Cluster(
        config=Config(),
        load_profile=False,
        profile_dir=str(folder),
        cluster_id=folder.name,
        cluster_file="",  # `folder` keeps what must be known
        controller="hpcgan.interactive.launchers.Controller",
        engines=engines,
        shutdown_atexit=False,
        send_engines_connection_env=False,  # the environment of a job is no place for a key
        controller_ip="*" if kind == "slurm" else "127.0.0.1",
        controller_location=address or (socket.gethostname() if kind == "slurm" else "127.0.0.1"),
        controller_args=[
            "--IPController.enable_curve=True",
            f"--Controller.idle={float(idle)}",
            f"--Controller.folder={folder}",
            "--log-level=WARN",
        ],
        log=_silent(),
        delay=0.0,
    )


def _silent() -> logging.Logger:
    log = logging.getLogger("hpcgan.interactive.ipyparallel")
    log.setLevel(logging.CRITICAL + 1)
    return log


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
    outcomes: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcomes.append((True, function()))
        except Exception as error:
            outcomes.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcomes:
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    good, value = outcomes[0]
    if not good:
        raise value
    return value


def root_cause(error: BaseException) -> str:
    """One line of an error of ipyparallel, which may stand for several."""
    first = getattr(error, "elist", None)
    if first:
        name, value = first[0][:2]
        return f"{name}: {value}"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
