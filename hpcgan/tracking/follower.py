"""What rank 0 has of tracking: a process that reads what rank 0 writes, and that nothing waits for but an end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from hpcgan.config import TrackingConfig
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.files import warn
from hpcgan.tracking.process import LEAVES, WAITS, command

#: Of a process that has reached its own limit, until it is killed.
_GRACE_S = 1.0


class Follower:
    """The process that tells a tracker of a run, from its making on; without `tracking.to`, nothing.

    A process that cannot be started is warned of, and the training goes on.

    Parameters
    ----------
    settings : TrackingConfig
    run : RunDirectory
    """

    def __init__(self, settings: TrackingConfig, run: RunDirectory) -> None:
        self._settings, self._run = settings, run
        self._process: subprocess.Popen[bytes] | None = None
        if settings.to is None:
            return
        try:
            self._process = subprocess.Popen(
                command(settings, run.path.absolute()),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # with whatever the library starts: signals to the job are not for them
                env={name: value for name, value in os.environ.items() if name != "HPCGAN_FAILURE_FILE"},
            )
        except OSError as error:
            python = settings.python or "python"
            warn(f"tracking.to={settings.to}: cannot start {python}: {error.strerror}; the training goes on")

    def finish(self, wait: bool = True) -> None:
        """Have the process tell the rest and end, in `tracking.wait_s`; without `wait`, on its own."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin as pipe:  # it has ended already
            pipe.write(WAITS if wait else LEAVES)
            pipe.flush()
        if not wait:
            return
        try:
            code = process.wait(self._settings.wait_s + _GRACE_S)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        with contextlib.suppress(OSError):  # nothing of it is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if code != 0:
            warn(f"{self._run.path}: not all of it is tracked; 'hpcgan track {self._run.path}' tells what is missing")
