"""Batches of one rank, prepared ahead in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from hpcgan import rng
from hpcgan.data.schema import Sample
from hpcgan.data.sharding import Sharding
from hpcgan.data.source import Source

#: Makes a method's random numbers from (step, first, n).
Draws = Callable[[int, int, int], dict[str, np.ndarray]]


class Encoder(Protocol):
    """What is needed of a problem."""

    @property
    def symmetries(self) -> Sequence[str]: ...
    def encode(self, sample: Sample) -> Sample: ...
    def augment(self, sample: Sample, symmetries: Sequence[str], draws: np.ndarray) -> Sample: ...


class Pipeline:
    """Reads, encodes and augments this rank's share of each global batch.

    Parameters
    ----------
    source : Source
    encoder : Encoder
        The problem.
    sharding : Sharding
    augment : sequence of str
        Symmetries that are switched on.
    draws : Draws
        The method's random numbers, drawn along with the data.
    """

    def __init__(
        self, source: Source, encoder: Encoder, sharding: Sharding, augment: Sequence[str], draws: Draws
    ) -> None:
        self._source, self._encoder, self._sharding = source, encoder, sharding
        self._augment, self._draws = tuple(augment), draws

    def rest_of_epoch(self, epoch: int, position: int, step: int) -> Iterator[tuple[Sample, dict[str, np.ndarray]]]:
        """Batches of an epoch from `position` (in samples) on, whose first is used in step `step`."""
        order = self._sharding.order(epoch)
        count, size = self._sharding.steps_left(position), self._sharding.global_batch
        with ThreadPoolExecutor(1, thread_name_prefix="pipeline") as pool:
            waiting: deque[Future[tuple[Sample, dict[str, np.ndarray]]]] = deque()
            for i in range(count):
                # The next one is prepared while this one is worked on.
                for j in range(i + len(waiting), min(i + 2, count)):
                    waiting.append(pool.submit(self._batch, order, epoch, position + j * size, step + j))
                yield waiting.popleft().result()

    def _batch(self, order: np.ndarray, epoch: int, position: int, step: int) -> tuple[Sample, dict[str, np.ndarray]]:
        first, n = self._sharding.rank * self._sharding.batch_size, self._sharding.batch_size
        real = self._encoder.encode(self._source.read(self._sharding.shard(order, position), epoch))
        if self._augment:
            uniforms = rng.uniform(self._sharding.seed, "augment", step, first, n, len(self._encoder.symmetries))
            real = self._encoder.augment(real, self._augment, uniforms)
        return real, self._draws(step, first, n)
