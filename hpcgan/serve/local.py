"""A service of a program or a notebook: `hpcgan serve` in a process of its own on this machine."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcgan.errors import HpcganError
from hpcgan.launch.world import set_parent_death_signal
from hpcgan.serve.client import Client
from hpcgan.system.last_words import last_words

LOOK_S = 0.05
"""Between two looks at whether it is ready."""


class LocalService:
    """A service that listens on 127.0.0.1, with a token of its own, until it is closed or whoever started it ends.

    Parameters
    ----------
    *runs : str or Path
        Run directories, or `pretrained:NAME`, each with `NAME=` in front for another name.
    options : sequence of str
        More for `hpcgan serve`, e.g. `("--workers", "2")`.
    timeout : float
        Seconds after which it must be ready.

    Attributes
    ----------
    url : str
    token : str
        What clients have to show.

    Raises
    ------
    HpcganError
        It ended before it was ready, with its reason, or is not ready in time.
    """

    def __init__(self, *runs: str | Path, options: Sequence[str] = (), timeout: float = 180.0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hpcgan-service-")
        folder = Path(self._folder.name)
        self._log, token_file, address = folder / "log", folder / "token", folder / "address.json"
        command = [sys.executable, "-m", "hpcgan", "serve", *map(str, runs), "--port", "0"]
        command += [f"--token-file={token_file}", f"--address-file={address}", *options]
        end_with_it = functools.partial(set_parent_death_signal, signal.SIGTERM)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the interrupt of a notebook's kernel is not for the service
                # The signal comes at the end of the thread that has started it, not of the whole process.
                preexec_fn=end_with_it if threading.current_thread() is threading.main_thread() else None,
            )
        try:
            self._await(address, timeout)
            self.url = str(json.loads(address.read_text(encoding="utf-8"))["url"])
            self.token = token_file.read_text(encoding="utf-8").strip()
        except BaseException:
            self.close()
            raise

    def client(self) -> Client:
        """A client for one thread at a time."""
        return Client(self.url, self.token)

    def describe(self, model: str) -> dict[str, Any]:
        """Inputs and outputs of a generator with their units, as the protocol's metadata have them."""
        return dict(json.loads(self._got(f"/v2/models/{model}")))

    def metrics(self) -> dict[str, float]:
        """What `/metrics` tells, by name and labels."""
        lines = (line for line in self._got("/metrics").splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    @property
    def pid(self) -> int:
        """Of its process, which has the workers for children."""
        return self._process.pid

    def close(self) -> int:
        """End it, once it has finished the requests that it has; its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        code = self._process.wait()
        self._folder.cleanup()
        return code

    def __enter__(self) -> LocalService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await(self, address: Path, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not address.exists():
            if self._process.poll() is not None:
                log = self._log.read_text(encoding="utf-8", errors="replace")
                raise HpcganError(f"the service ended: {last_words(log)}")
            if time.monotonic() > end:
                raise HpcganError(f"the service was not ready after {timeout:.0f} s; give a longer timeout=")
            time.sleep(LOOK_S)

    def _got(self, path: str) -> str:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())
