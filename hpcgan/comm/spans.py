"""When ranks were in collectives, by clocks that agree: what a profile asks of a communicator. A leaf."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hpcgan.comm.base import Comm

#: Collectives that are remembered; of more, the last ones.
CAPACITY = 1 << 17
ROUNDS = 30  # barriers of one comparison of clocks


class Span(NamedTuple):
    """A collective of this rank, by its own clock, in seconds since 1970.

    Attributes
    ----------
    name : str
        The same on all ranks.
    begun : float
        When the rank has handed over its share.
    waiting : float
        When the rank has begun to wait, with nothing else to do.
    ended : float
        When the rank has the result.
    """

    name: str
    begun: float
    waiting: float
    ended: float


@dataclass(frozen=True)
class ClockOffset:
    """What the clock of a rank is ahead of that of rank 0, in seconds: certainly within `error` of `seconds`."""

    seconds: float
    error: float


def compare_clocks(comm: Comm, rounds: int = ROUNDS) -> list[ClockOffset]:
    """Compare the clocks of all ranks with that of rank 0, on all ranks together.

    Returns
    -------
    list of ClockOffset
        By rank; on other ranks than 0, the same.
    """
    times = []
    comm.barrier()
    for _ in range(rounds):
        before = time.time()
        comm.barrier()
        times.append((before, time.time()))
    everyone = comm.broadcast_json(comm.gather_json(times))
    return [offset(everyone[0], theirs) for theirs in everyone]


def offset(first: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> ClockOffset:
    """The offset of a clock, from the times before and after barriers that both ranks have taken together.

    Nobody leaves a barrier before everybody has come. So a clock that is ahead by x shows x + what rank 0's shows, and
    (before of this rank) - x <= (after of rank 0), (before of rank 0) <= (after of this rank) - x: each barrier bounds
    x from both sides. The bounds hold whatever the barrier takes; the shorter it is, the closer they are.

    Parameters
    ----------
    first, other : sequence of (before, after)
        Of rank 0 and of the other rank, s, each by its own clock.
    """
    lowest = max(before - after for (before, _), (_, after) in zip(other, first, strict=True))
    highest = min(after - before for (_, after), (before, _) in zip(other, first, strict=True))
    return ClockOffset((lowest + highest) / 2, abs(highest - lowest) / 2)
