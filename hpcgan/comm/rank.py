"""A process as one rank of a job: environment, communicator, devices, and errors that end all ranks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcgan.errors import EXIT_DONE, HpcganError, Interrupted
from hpcgan.system import failure, streams
from hpcgan.system.failure import Failure

if TYPE_CHECKING:
    from hpcgan.comm.base import Comm


def _report(error: HpcganError) -> None:
    if isinstance(error, Interrupted):
        print(f"hpcgan: {error}", file=sys.stderr, flush=True)
        return
    failure.tell(Failure.of(error))
    print(f"hpcgan: error: {error}", file=sys.stderr, flush=True)


def run_as_rank(
    work: Callable[[Comm], None],
    backend: str | Comm = "auto",
    at_end: Callable[[], None] = lambda: None,
    report: Callable[[HpcganError], None] | None = None,
) -> int:
    """Do work as the rank this process is; the exit code.

    Parameters
    ----------
    work : callable
        Takes the communicator. Errors of it that not all ranks raise together end the whole job.
    backend : str or Comm
        `comm.backend`, of which a communicator is made when the environment is as MPI and TensorFlow want it.
    at_end : callable
        Called once the work has ended, however it did.
    report : callable, optional
        Of a process that lives on, as an engine of a notebook does: takes an error that all ranks raise together, on
        rank 0. By default it is printed to stderr, and whoever has started the job is told.

    Raises
    ------
    HpcganError
        There is no communicator.
    """
    from hpcgan.comm.select import make_comm
    from hpcgan.launch.topology import rank_environment, threads_from_env
    from hpcgan.launch.world import die_with_parent, ranks_of_launcher

    streams.guard()
    os.environ.update(rank_environment(os.environ))
    if ranks_of_launcher(os.environ) is not None:
        die_with_parent()
    comm = make_comm(backend) if isinstance(backend, str) else backend
    try:
        from hpcgan.comm.devices import configure_devices

        configure_devices(comm, threads_from_env(os.environ))
        work(comm)
    except HpcganError as error:
        at_end()
        if comm.size > 1 and not error.collective:
            comm.abort(str(error), error.exit_code, kind=error.kind)
        if comm.is_root:
            (report or _report)(error)
        comm.close()
        return error.exit_code
    except BaseException as error:
        if comm.size == 1:
            if report is None:
                failure.tell(Failure.of(error))
            raise
        reason = Failure.of(error)
        comm.abort(reason.text, details=traceback.format_exc(), kind=reason.kind)
    at_end()
    comm.close()
    return EXIT_DONE
