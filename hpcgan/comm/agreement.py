"""What fails on one rank fails on all, together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hpcgan.comm.base import Comm
from hpcgan.errors import HpcganError, InputError


@contextlib.contextmanager
def agreed(comm: Comm) -> Iterator[None]:
    """Run a block on all ranks; if it fails on some, all raise the first failure, named with its rank.

    Only for blocks without collectives, in which a failing rank would leave the others waiting.
    """
    failure: HpcganError | None = None
    try:
        yield
    except HpcganError as error:
        failure = error
    own = None
    if failure is not None:
        own = {"bad_input": isinstance(failure, InputError), "kind": failure.kind, "text": str(failure)}
    everyone = comm.broadcast_json(comm.gather_json(own))
    failed = [(rank, entry) for rank, entry in enumerate(everyone) if entry]
    if failed:
        rank, first = failed[0]
        where = "" if len(failed) == comm.size else f"rank {rank}: "
        together = (InputError if first["bad_input"] else HpcganError)(where + first["text"], collective=True)
        together.kind = first["kind"]
        raise together
