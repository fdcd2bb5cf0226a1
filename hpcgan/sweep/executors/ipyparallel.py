"""Trials on IPython engines, balanced over them by ipyparallel's scheduler."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hpcgan.config import Config
from hpcgan.errors import HpcganError, InputError
from hpcgan.sweep.executors import Executor
from hpcgan.sweep.store import StudyDirectory

#: Seconds for the controller to answer.
TIMEOUT = 30.0
#: Seconds between looks whether it is still there.
LOOK_EVERY = 5.0


class IpyparallelExecutor(Executor):
    """Each engine runs one trial at a time, as a child process that is no rank of whatever the engine is one of.

    The engines must see the study under the same path and have hpcgan. Their cluster is that of `sweep.cluster`, by
    default that of ipyparallel's default profile.
    """

    def __init__(self, study: StudyDirectory, config: Config, report: Callable[[str], None]) -> None:
        super().__init__(study, config, report)
        self._client: Any = None
        self._tasks: dict[int, Any] = {}
        self._address, self._look_again, self._refused = _address(config.sweep.cluster), 0.0, 0

    def open(self) -> None:
        """Connect to the cluster.

        Raises
        ------
        InputError
            ipyparallel is not installed, there is no such cluster, or it has no engines.
        """
        sweep = self.config.sweep
        cluster = sweep.cluster
        try:
            import ipyparallel
        except ImportError:
            raise InputError("--executor ipyparallel needs it: pip install 'hpcgan[interactive]'") from None
        if cluster is not None and not cluster.is_file():
            raise InputError(f"{cluster}: no such file (--cluster)")
        try:
            where = {} if cluster is None else {"connection_info": str(cluster)}
            self._client = ipyparallel.Client(timeout=TIMEOUT, **where)
        except (OSError, TimeoutError, ValueError, ipyparallel.error.IPythonError) as error:
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"no IPython cluster answers ({text}): start one, or name it with --cluster") from None
        engines = len(self._client.ids)
        if not engines:
            raise InputError("the IPython cluster has no engines (yet)")
        self.concurrency = min(sweep.concurrency or engines, engines)
        self._view = self._client.load_balanced_view()

    def start(self, numbers: Sequence[int]) -> None:
        """Hand in a task for each."""
        if not self._client.ids:
            raise HpcganError("all engines of the IPython cluster are gone")
        for number in numbers:
            self._tasks[number] = self._view.apply_async(
                run_child, str(self.study.path.absolute()), number, os.getcwd()
            )

    def poll(self) -> dict[int, int | None]:
        """Exit codes of children that have ended; None where the engine was lost.

        Raises
        ------
        HpcganError
            The controller is gone, and with it all word of the tasks.
        """
        if self._tasks:
            self._check_controller()
        ended: dict[int, int | None] = {}
        for number, task in list(self._tasks.items()):
            if task.ready():
                try:
                    ended[number] = int(task.get(timeout=0))
                except Exception:  # whatever the engine met, or its loss: there is a result or there is none
                    ended[number] = None
                del self._tasks[number]
        return ended

    def _check_controller(self) -> None:
        """ZeroMQ waits for ever for a controller that is gone: see whether its port is still open."""
        if self._address is None or time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + LOOK_EVERY
        try:
            socket.create_connection(self._address, timeout=TIMEOUT).close()
        except OSError as error:
            self._refused += 1
            if self._refused > 2:
                raise HpcganError(
                    f"the IPython controller does not answer any more ({error}): start a cluster, and run the same "
                    "command to go on"
                ) from None
        else:
            self._refused = 0

    def in_flight(self) -> set[int]:
        """Those of this process; others' show by their lease."""
        return set(self._tasks)

    def stop(self) -> None:
        """Take back what waits; what runs sees the study's stop file."""
        for task in self._tasks.values():
            if not task.ready():
                task.abort()

    def close(self) -> None:
        """Leave the cluster."""
        if self._client is not None:
            self._client.close()


def _address(cluster: Path | None) -> tuple[str, int] | None:
    """Host and port of a controller, if the file says so and it is reached directly."""
    if cluster is None:
        return None
    try:
        content = json.loads(cluster.read_text(encoding="utf-8"))
        transport, _, host = str(content["interface"]).partition("://")
        if transport != "tcp" or content.get("ssh"):
            return None
        host = str(content.get("location") or "127.0.0.1") if host in ("*", "0.0.0.0") else host
        return host, int(content["registration"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_child(study: str, number: int, folder: str) -> int:
    """On an engine: run a trial in a process of its own; its exit code."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    from hpcgan.sweep.executors import command
    from hpcgan.sweep.store import StudyDirectory
    from hpcgan.system.allocation import outside

    with open(StudyDirectory(Path(study)).log_file(number), "ab") as log:
        return subprocess.run(
            command(sys.executable, study, number, "--parent", str(os.getpid())),
            cwd=folder,
            env=outside(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        ).returncode
