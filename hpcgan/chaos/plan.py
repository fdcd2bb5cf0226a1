"""When which fault comes: drawn beforehand, so that a seed says what a campaign does."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcgan.chaos.faults import Fault


@dataclass(frozen=True)
class Planned:
    """A fault that is to come.

    Attributes
    ----------
    number : int
        From 1.
    after_s : float
        Seconds in which a training is at work, since the fault before.
    fault : Fault
    chance : random.Random
        What the fault chooses by.
    """

    number: int
    after_s: float
    fault: Fault
    chance: random.Random


def plan(faults: Sequence[Fault], failures: int, mtbf: float, seed: int) -> Iterator[Planned]:
    """Faults at times of a Poisson process, of kinds that are equally likely.

    Parameters
    ----------
    faults : sequence of Fault
        The kinds.
    failures : int
        How many.
    mtbf : float
        Mean time between two, s.
    seed : int
    """
    for number in range(1, failures + 1):
        chance = random.Random(f"{seed} {number}")  # of one fault: what it draws changes no other one
        after_s, kind = chance.expovariate(1.0 / mtbf), faults[int(chance.random() * len(faults))]
        yield Planned(number, after_s, kind, chance)
