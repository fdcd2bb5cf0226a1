"""Requests that wait, merged into batches: of one generator, from several requests, at most a latency after the oldest.

A request that is larger than a batch takes several, in which it leaves room for others: requests take turns, a quarter
of a batch each. Threads call it; it starts none. NumPy only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.serve.asking import Asked
from hpcgan.serve.refusal import Refusal

SHARES = 4
"""A request leaves the rest of a batch to others after one part in so many."""
LOOK_S = 0.5
"""Between two looks at whether there still is somebody who wants a batch."""


class Job:
    """A request on its way: which events, who waits for them, and what is made already.

    Attributes
    ----------
    asked : Asked
    future : concurrent.futures.Future
        Gets all events, or why there are none; whoever cancels it wants none any more.
    arrived : float
        When it came, in seconds of the merger's clock.
    """

    def __init__(self, asked: Asked, arrived: float) -> None:
        self.asked, self.arrived = asked, arrived
        self.future: Future[Sample] = Future()
        self.given = 0  # events that are in some batch
        self._made = 0
        self._events: Sample = {}
        self._lock = threading.Lock()

    @property
    def remaining(self) -> int:
        """Events that are in no batch yet; none of a request that is over."""
        return 0 if self.future.done() else self.asked.n - self.given

    def deliver(self, first: int, events: Sample) -> None:
        """Take events from number `first` on; they may come in any order."""
        with self._lock:
            if self.future.done():
                return
            n = 0
            for name, values in events.items():
                if name not in self._events:
                    self._events[name] = np.empty((self.asked.n, *values.shape[1:]), values.dtype)
                self._events[name][first : first + len(values)] = values
                n = len(values)
            self._made += n
            whole = self._made == self.asked.n
        if whole:
            self._end(lambda: self.future.set_result(self._events))

    def fail(self, why: Refusal) -> None:
        """Tell who waits that there will be no events."""
        self._end(lambda: self.future.set_exception(why))

    def _end(self, set_outcome: Callable[[], None]) -> None:
        try:
            set_outcome()
        except InvalidStateError:  # the client has left, or another batch has failed
            self._events = {}


@dataclass(frozen=True)
class Part:
    """Events first ... first + n - 1 of a request."""

    job: Job
    first: int
    n: int


@dataclass(frozen=True)
class Batch:
    """Events that are made together.

    Attributes
    ----------
    model : int
        Number of the generator.
    parts : sequence of Part
    """

    model: int
    parts: Sequence[Part]

    @property
    def asked(self) -> Asked:
        """All its events, one after the other."""
        pieces = [part.job.asked.part(part.first, part.n) for part in self.parts]
        return Asked(
            np.concatenate([piece.seeds for piece in pieces]),
            np.concatenate([piece.indices for piece in pieces]),
            {
                name: np.concatenate([piece.conditions[name] for piece in pieces])
                for name in pieces[0].conditions
            },
        )  # fmt: skip

    def deliver(self, events: Sample) -> None:
        """Hand each request its events."""
        start = 0
        for part in self.parts:
            part.job.deliver(part.first, {name: array[start : start + part.n] for name, array in events.items()})
            start += part.n

    def fail(self, why: Refusal) -> None:
        """Have all its requests fail."""
        for part in self.parts:
            part.job.fail(why)


class Merger:
    """The requests that wait, by generator.

    Parameters
    ----------
    sizes : sequence of int
        Events of a full batch of each generator.
    latency_s : float
        How long a request waits for others to fill its batch with, at most.
    clock : callable
        Seconds.
    """

    def __init__(self, sizes: Sequence[int], latency_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._sizes, self._latency_s, self._clock = tuple(sizes), latency_s, clock
        self._queues: list[deque[Job]] = [deque() for _ in sizes]
        self._turn = 0  # of the generator that is looked at first
        self._closed = False
        self._changed = threading.Condition()

    def add(self, model: int, asked: Asked) -> Job:
        """Have events made; the job's future gets them.

        Raises
        ------
        Refusal
            It is closed.
        """
        job = Job(asked, self._clock())
        with self._changed:
            if self._closed:
                raise Refusal(503, "the service stops; ask another one")
            self._queues[model].append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """Take no more requests; those that were taken are finished."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail_all(self, why: Refusal) -> None:
        """Close, and have all requests fail that wait."""
        self.close()
        with self._changed:
            waiting = [job for queue in self._queues for job in queue]
            for queue in self._queues:
                queue.clear()
        for job in waiting:
            job.fail(why)

    def next(self, is_wanted: Callable[[], bool] = lambda: True) -> Batch | None:
        """The next batch, as soon as there is one; None once it is closed and nothing is left, or none is wanted."""
        with self._changed:
            while True:
                if not is_wanted():
                    self._changed.notify()  # what woke this one up is for another one
                    return None
                now, wake = self._clock(), None
                for model in self._in_turn():
                    queue = self._without_ended(model)
                    waiting = sum(job.remaining for job in queue)
                    if not waiting:
                        continue
                    due = min(job.arrived for job in queue) + self._latency_s
                    if waiting >= self._sizes[model] or self._closed or now >= due:
                        self._turn = model + 1
                        if batch := self._take(model):
                            self._changed.notify()  # another worker may have some of what is left
                            return batch
                        continue
                    wake = due if wake is None else min(wake, due)
                if self._closed:
                    return None
                self._changed.wait(LOOK_S if wake is None else min(LOOK_S, max(0.0, wake - now)))

    def _in_turn(self) -> list[int]:
        n = len(self._sizes)
        return [(self._turn + i) % n for i in range(n)]

    def _without_ended(self, model: int) -> deque[Job]:
        """The queue of a generator without the requests that are over, e.g. of clients that have left."""
        queue = self._queues[model]
        if any(not job.remaining for job in queue):
            queue = self._queues[model] = deque(job for job in queue if job.remaining)
        return queue

    def _take(self, model: int) -> Batch | None:
        """As many events as a batch holds; None if all requests have ended since they were counted."""
        queue, room = self._queues[model], self._sizes[model]
        parts: list[Part] = []
        share = max(1, room // SHARES)
        while room and queue:
            job = queue.popleft()
            n = min(job.remaining, room, share if queue else room)
            if not n:
                continue
            parts.append(Part(job, job.given, n))
            job.given += n
            room -= n
            if job.remaining:
                queue.append(job)
        return Batch(model, parts) if parts else None
