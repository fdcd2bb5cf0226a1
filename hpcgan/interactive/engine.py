"""An IPython engine that is one rank of an MPI job: `python -m hpcgan.interactive.engine`."""

from __future__ import annotations

import signal

from ipyparallel.engine.app import IPEngine


class Engine(IPEngine):
    """ipyparallel's engine, which also ends when its launcher asks it to.

    The launcher asks by SIGUSR1, which mpirun and srun pass on without killing anybody. A training that runs when it
    comes has a handler of its own, and sends it again at its end.
    """

    def init_signal(self) -> None:
        """Handle SIGUSR1 as SIGTERM."""
        super().init_signal()
        signal.signal(signal.SIGUSR1, self._signal_stop)

    def start(self) -> None:
        """Run until a signal, or until the controller is missed."""
        try:
            super().start()
        except RuntimeError as error:  # what an event loop says that has been stopped
            if "stopped before Future completed" not in str(error):
                raise


if __name__ == "__main__":
    Engine.launch_instance()
