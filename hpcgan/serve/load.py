"""Many clients of a service at once, each of which asks, waits for the answer, and asks again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from hpcgan.serve.client import Client, ServiceError

PAUSE_S = 0.05
"""Before a client asks again that was refused."""

Size = Callable[[int, int], int]
"""Events of a client's request, by the numbers of client and request, from 0 on."""


class Answer(NamedTuple):
    """What a request came to: events and seconds; or, without events, the status of HTTP or the kind of error."""

    events: int
    seconds: float
    failure: str = ""


def ask_together(
    connect: Callable[[], Client], model: str, clients: int, seconds: float, size: Size, **conditions: float
) -> list[Answer]:
    """Have clients ask for events of a generator for some time, each for those of its own seed, one after the other.

    Parameters
    ----------
    connect : callable
        Makes a client.
    model : str
    clients : int
    seconds : float
        After them nobody asks any more; what was asked for is waited for.
    size : callable
    **conditions : float
        Of all events.

    Returns
    -------
    list of Answer
        Of all clients, one client after the other.
    """
    end = time.monotonic() + seconds

    def ask(number: int) -> list[Answer]:
        answers: list[Answer] = []
        done = 0
        with contextlib.closing(connect()) as client:
            while (began := time.monotonic()) < end:
                n = size(number, len(answers))
                try:
                    events = client.generate(model, seed=number, events=n, index=done, **conditions)
                except (ServiceError, OSError) as error:
                    failure = str(error.status) if isinstance(error, ServiceError) else type(error).__name__
                    answers.append(Answer(0, time.monotonic() - began, failure))
                    time.sleep(PAUSE_S)
                    continue
                answers.append(Answer(len(next(iter(events.values()))), time.monotonic() - began))
                done += n
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(ask, range(clients)) for answer in answers]
