"""A controller that does not stay behind: `python -m hpcgan.interactive.controller`.

It outlives the kernel that started it, so that a restarted one finds its cluster again, but not for ever: when no
notebook has shown itself and nothing has run on the engines for some time, or when somebody who cannot reach its
processes asks for it, it ends the engines, itself and the cluster's folder. Its own processes end with it, also when it
is killed; the engines then miss its heartbeat, and end once they have nothing to do.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ipyparallel.controller.app import IPController
from tornado.ioloop import PeriodicCallback
from traitlets import Float, Unicode

from hpcgan.errors import HpcganError
from hpcgan.interactive import folder as folders
from hpcgan.launch.world import die_with_parent
from hpcgan.system.files import version, write_atomic

#: Seconds between two looks.
EVERY = 2.0
#: Seconds without a sign of the kernel after which a cluster that is still being started is given up.
STARTING = 60.0
#: Seconds between two lines about how it stands, as long as nothing changes.
TOLD_EVERY = 10.0


class Controller(IPController):
    """ipyparallel's controller with an end."""

    idle = Float(600.0, config=True, help="Seconds without a notebook and without work after which it ends.")
    folder = Unicode(config=True, help="Of the cluster; every notebook touches `mark` there as long as it is there.")

    def start(self) -> None:
        """Run until a signal, or until nobody needs it any more."""
        me = os.getpid()
        os.register_at_fork(after_in_child=lambda: _die_with(me))
        self._used, self._seen = time.monotonic(), version(Path(self.folder) / "mark")
        self._told: tuple[float, object] = (0.0, None)
        self._about: folders.About = {}
        self._over = False
        self._look = PeriodicCallback(self._end_if_unused, EVERY * 1000)
        self._look.start()
        super().start()
        if self._over:
            folders.remove(Path(self.folder))

    def _end_if_unused(self) -> None:
        place, now = Path(self.folder), time.monotonic()
        self._about = folders.read(place) or self._about
        # Whether the mark is another one than before: the file server's clock may be behind this one.
        seen = version(place / "mark")
        if self.hub.pending or seen != self._seen:
            self._used, self._seen = now, seen
        limit = self.idle if "ranks" in self._about else min(self.idle, STARTING)
        if now - self._used > limit:
            self._end(f"nobody has used this cluster for {limit:.0f} s")
        elif (place / "stop").exists():
            self._end("asked to stop")
        elif place.exists():
            self._tell(place, now)
        else:
            self._end("its folder is gone")

    def _tell(self, place: Path, now: float) -> None:
        state = bool(self.hub.pending), len(self.hub.engines)
        if self._told[1] == state and now - self._told[0] < TOLD_EVERY:
            return
        self._told = now, state
        status = {"busy": state[0], "engines": state[1], "idle": round(now - self._used)}
        try:
            write_atomic(place / "status.json", json.dumps(status) + "\n")
        except OSError as error:
            self.log.error("how this cluster stands cannot be told: %s", error)

    def _end(self, why: str) -> None:
        self.log.critical("%s: ending", why)
        self._look.stop()
        try:
            folders.end_engines(self._about)
            self._over = True
        except HpcganError as error:
            self.log.error("%s", error)
        self.terminate_children()
        self.loop.stop()


def _die_with(parent: int) -> None:
    die_with_parent()
    if os.getppid() != parent:  # it ended in between
        os._exit(1)


if __name__ == "__main__":
    Controller.launch_instance()
