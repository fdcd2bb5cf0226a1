"""Starts the engines of a cluster as the ranks of one MPI job: `python -m hpcgan.interactive.engines`.

In the place of ipyparallel's bare `mpiexec` or `srun`, so that engines get the same launcher, threads, MPI settings and
signals as a batch training. A request to stop (SIGTERM; SIGUSR1 before Slurm's time limit) reaches every engine: one
that trains writes a checkpoint first.
"""

from __future__ import annotations

import argparse
import os
import sys

from hpcgan.errors import HpcganError
from hpcgan.launch import srun
from hpcgan.launch.launcher import Place, launch
from hpcgan.system import failure, streams
from hpcgan.system.allocation import current_job
from hpcgan.system.failure import Failure


def main() -> int:
    """Run the engines until they are asked to stop; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hpcgan.interactive.engines")
    parser.add_argument("--ranks", type=int, help="engines; by default the tasks of the Slurm job this is")
    parser.add_argument("--threads", type=int, help="compute threads of each")
    parser.add_argument("--failure-file", required=True, help="where it is told why they ended, if they failed")
    parser.add_argument("arguments", nargs="*", help="of each engine")
    args = parser.parse_args()
    streams.guard()
    env = {**os.environ, failure.VARIABLE: args.failure_file}
    job = current_job(env) if args.ranks is None else None
    try:
        return launch(
            args.arguments,
            job.tasks if job else args.ranks or 1,
            module="hpcgan.interactive.engine",
            place=Place(srun.choose("auto", env) if job else None, job.nodes if job else 1, args.threads, env),
        )
    except HpcganError as error:
        failure.tell(Failure.of(error), env)
        print(f"hpcgan: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
