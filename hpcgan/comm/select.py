"""Choose the `Comm` of this process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hpcgan.comm.base import Comm
from hpcgan.config.registries import BACKENDS
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.launch.world import expected_world
from hpcgan.system import failure
from hpcgan.system.allocation import between_steps
from hpcgan.system.failure import Failure

#: Seconds in which a backend of somebody's own must be imported.
LOAD_S = 300.0


def parallel_backend() -> str:
    """The backend of several ranks: Horovod where it is installed, else mpi4py. Imports nothing."""
    spec = importlib.util.find_spec("horovod")
    return "horovod" if spec is not None and spec.loader is not None else "mpi"  # a mere folder of that name has none


def resolve_backend(backend: str, env: Mapping[str, str]) -> str:
    """The backend that `auto` stands for here, and a check of `serial`; imports nothing.

    Raises
    ------
    InputError
        `serial` is asked for in one of several ranks, where each of them would train on its own and write into the
        same run directory.
    """
    world = expected_world(env)
    size = 1 if world is None else world.size
    if backend == "auto":
        return parallel_backend() if size > 1 else "serial"
    if backend == "serial" and world is not None and size > 1:
        raise InputError(
            f"comm.backend: serial, but {world.launcher} started {size} ranks; use auto, or start one process"
        )
    return backend


def make_comm(backend: str = "auto") -> Comm:
    """The communicator of this process.

    Parameters
    ----------
    backend : str
        `comm.backend`: a name of `hpcgan.config.registries.BACKENDS`, `package.module:Class`, or `auto`, which is
        serial without a launcher or in a world of one, else Horovod; or mpi4py where there is no Horovod, which rank 0
        then says.

    Raises
    ------
    InputError
        See `resolve_backend`; or there is no such backend.
    HpcganError
        If the backend is not installed, or MPI reports another world than the launcher promised.
    """
    name = resolve_backend(backend, os.environ)
    comm: Comm = BACKENDS.get(name)()
    if backend == "auto" and name == "mpi" and comm.is_root:
        print("hpcgan: Horovod is not installed: the ranks average over mpi4py", file=sys.stderr, flush=True)
    return comm


def check(backend: str) -> None:
    """Refuse a backend of somebody's own that no rank could load.

    A process of its own looks: to import it may load TensorFlow and start MPI, which who starts ranks must not.

    Raises
    ------
    InputError
        As `Plugins.get`, or its import does not end, or ends the process.
    """
    if backend == "auto" or BACKENDS.ships(backend):
        return
    command = [sys.executable, "-m", "hpcgan.comm.select", backend]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "failure"
        env = {**between_steps(os.environ), failure.VARIABLE: str(file), "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            process = subprocess.run(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=LOAD_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"comm.backend '{backend}': its import did not end within {LOAD_S:.0f} s") from None
        refusal = failure.read(file)
    if refusal is not None:
        raise InputError(refusal.text)
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        raise InputError(f"comm.backend '{backend}': its import ended Python: {lines[-1]}")


def main() -> int:
    """Load the backend that the command line names, and tell why it cannot be; the exit code."""
    try:
        BACKENDS.get(sys.argv[1])
    except InputError as error:
        failure.tell(Failure.of(error))
        return error.exit_code
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
