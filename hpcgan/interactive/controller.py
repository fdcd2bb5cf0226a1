"""A controller that does not stay behind: `python -m hpcgan.interactive.controller`.

It outlives the kernel that started it, so that a restarted one finds its cluster again, but not for ever: when no
notebook has shown itself and nothing has run on the engines for some time, it ends, and the engines, which miss its
heartbeat, end with it.
"""

from __future__ import annotations

import os
import time

from ipyparallel.controller.app import IPController
from tornado.ioloop import PeriodicCallback
from traitlets import Float, Unicode

#: Seconds between two looks.
EVERY = 2.0


class Controller(IPController):
    """ipyparallel's controller with an end."""

    idle = Float(600.0, config=True, help="Seconds without a notebook and without work after which it ends.")
    mark = Unicode(config=True, help="File that every notebook touches as long as it is there.")

    def start(self) -> None:
        """Run until a signal, or until nobody needs it any more."""
        self._used, self._seen = time.monotonic(), self._marked()
        self._look = PeriodicCallback(self._end_if_unused, EVERY * 1000)
        self._look.start()
        super().start()

    def _end_if_unused(self) -> None:
        seen = self._marked()
        if self.hub.pending or seen not in (None, self._seen):
            self._used = time.monotonic()
        self._seen = seen
        if time.monotonic() - self._used > self.idle:
            self.log.critical("nobody has used this cluster for %.0f s: ending", self.idle)
            self._look.stop()
            self.terminate_children()
            self.loop.stop()

    def _marked(self) -> int | None:
        """The mark's time, of another clock perhaps: that it changes is a sign of life."""
        try:
            return os.stat(self.mark).st_mtime_ns
        except OSError:
            return None


if __name__ == "__main__":
    Controller.launch_instance()
