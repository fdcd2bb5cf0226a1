"""A small real job: `mpirun -np 2 python -m hpcgan.comm.selftest`, and what `hpcgan doctor` runs.

Every rank contributes different numbers to each collective and checks what comes back. Rank 0 prints
one line of JSON; any rank that got a wrong value ends the job with exit code 1. With `--describe` it
starts nothing and prints what TensorFlow, Horovod and mpi4py are.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import numpy as np

from hpcgan.comm.select import make_comm, parallel_backend
from hpcgan.errors import HpcganError
from hpcgan.launch.topology import threads_from_env


def describe() -> dict[str, Any]:
    """Versions and build of TensorFlow, Horovod and mpi4py, or why they cannot be imported."""
    description: dict[str, Any] = {}
    try:
        import tensorflow as tf

        description["tensorflow"] = {
            "version": tf.__version__,
            "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
            "cuda": bool(tf.test.is_built_with_cuda()),
        }
    except Exception as error:
        return {"tensorflow": {"error": _reason(error)}}
    for backend in ("horovod", "mpi"):
        try:
            description[backend] = importlib.import_module(f"hpcgan.comm.{backend}").build_info()
        except Exception as error:
            description[backend] = {"error": _reason(error)}
    return description


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in ("tensorflow", "horovod", "mpi4py"):
        return "not installed"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def main() -> int:
    """Run the collectives once, or describe; the exit code."""
    if sys.argv[1:] == ["--describe"]:
        print(json.dumps(describe()))
        return 0
    try:
        comm = make_comm(parallel_backend())
    except HpcganError as error:
        print(f"hpcgan: {error}", file=sys.stderr, flush=True)
        # Other ranks may be waiting in MPI already: only an abrupt end takes them along.
        os._exit(error.exit_code)
    try:
        from hpcgan.comm.devices import configure_devices

        gpus = configure_devices(comm, threads_from_env(os.environ))
        ranks = np.arange(comm.size)
        mean = comm.allreduce(np.array([comm.rank, 2.0], np.float32), "selftest.mean")
        _expect(mean.numpy(), np.array([ranks.mean(), 2.0], np.float32), "allreduce")
        gathered = comm.allgather(np.full(comm.rank + 1, comm.rank, np.int32), "selftest.gather")
        _expect(gathered.numpy(), np.repeat(ranks, ranks + 1), "allgather")
        _expect(comm.broadcast_json(comm.rank + 7), 7, "broadcast")
        seen = comm.gather_json({"rank": comm.rank, "node": os.uname().nodename, "gpus": gpus})
        if seen is not None:
            threads = threads_from_env(os.environ)
            answer = {"ranks": comm.size, "backend": comm.backend, "threads": threads}
            print(json.dumps({**answer, "allreduce": mean.numpy().tolist(), "seen": seen}))
        comm.close()
    except Exception as error:
        comm.abort(f"{type(error).__name__}: {error}")
    return 0


def _expect(got: Any, expected: Any, what: str) -> None:
    if not np.array_equal(got, expected):
        raise HpcganError(f"{what} gave {got}, not {expected}")


if __name__ == "__main__":
    sys.exit(main())
