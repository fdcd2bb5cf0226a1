"""Pileup drawn on the fly: sums of minimum-bias events of a files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from hpcgan import rng
from hpcgan.data.schema import Sample
from hpcgan.data.source import WEIGHT, Source
from hpcgan.errors import InputError
from hpcgan.physics.pileup import SparseImages
from hpcgan.problems.pileup import files
from hpcgan.weights import counting

Counting = Literal["fixed", "poisson"]

BLOCKS = (4, 32)
"""Blocks of a held-out pool, at least and at most."""

EVENTS_OF_BLOCK = 10
"""Events of a block in units of mu, where the pool is large enough for that."""

LEAST_EVENTS = 2
"""The same, if it is not: with fewer, sums would hardly differ."""


class SumSource(Source):
    """Sums of mu events of a pool, each a function of (seed, epoch, index).

    The events of one sum differ (drawing without replacement); different sums share events, as a pool has far fewer
    than sums need. Sums for training are drawn from the whole pool, others in every epoch. Held-out ones are always the
    same, and their pool is cut into blocks: sum i takes all its events from block (i // len(mu)) modulo the number of
    blocks. So sums of different blocks are independent, which is what a null band needs to know (docs/pileup.md).

    Parameters
    ----------
    path : Path
        A files.
    mu : sequence of int
        Events of a sum. With several, sum i has number i modulo their number, and samples have it as the tensor `mu`.
    n : int
        Sums in an epoch.
    seed : int
    counting : "fixed" or "poisson"
        A sum has mu events, or a number drawn from a Poisson distribution of mean mu.
    held_out : bool
    most_blocks : int
        Blocks of a held-out pool, at most.

    Raises
    ------
    InputError
        Missing or broken file, or one of too few events for its sums.
    """

    def __init__(
        self,
        path: Path,
        mu: Sequence[int],
        n: int,
        seed: int,
        counting: Counting = "fixed",
        held_out: bool = False,
        most_blocks: int = BLOCKS[1],
    ) -> None:
        self.path = Path(path)
        self._mu, self._n, self._seed, self._held_out = tuple(mu), n, seed, held_out
        self._tables = [_poisson_table(number) for number in mu] if counting == "poisson" else None
        most = max(mu) if self._tables is None else max(len(table) for table in self._tables) - 1
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(files.open_pool(self.path))
            self._edges = _block_edges(self.path, file.n, max(mu), most, most_blocks if held_out else 1)
            stack.pop_all()
        self._file: files.PoolFile | None = file
        self._dim = most + (self._tables is not None)
        self._events: SparseImages | None = None

    def __len__(self) -> int:
        return self._n

    @property
    def n_blocks(self) -> int:
        """Blocks of the files."""
        return len(self._edges) - 1

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """Sums (n, 64, 64) float32 in MeV as `hist`, and with several mu theirs (n,) as `mu`."""
        indices = np.asarray(indices, dtype=np.int64)
        kind = indices % len(self._mu)
        draws = rng.uniform_at(self._seed, "pileup", 0 if self._held_out else epoch, indices, self._dim)
        counts = np.asarray(self._mu)[kind]
        if self._tables is not None:
            for_counts, draws = draws[:, 0], draws[:, 1:]
            for which, table in enumerate(self._tables):
                counts[kind == which] = np.searchsorted(table, for_counts[kind == which], side="right")
        low, high = self._edges[self.blocks(indices)], self._edges[self.blocks(indices) + 1]
        members = rng.subsets(draws, counts, high - low)
        sample = {"hist": self._pool().sums(np.where(members >= 0, members + low[:, None], -1))}
        if len(self._mu) > 1:
            sample["mu"] = np.asarray(self._mu, np.float32)[kind]
        return sample

    def conditions(self) -> Sample:
        """With several mu, those of all sums, (n,)."""
        if len(self._mu) == 1:
            return {}
        return {"mu": np.asarray(self._mu, np.float32)[np.arange(self._n) % len(self._mu)]}

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        """(n,) block of the pool that each sum takes its events from."""
        blocks: np.ndarray = np.asarray(indices, dtype=np.int64) // len(self._mu) % self.n_blocks
        return blocks

    def unused_weights(self) -> bool:
        """Whether the events of the pool have weights that are not all the same."""
        return self._file is not None and counting(self._file.per_sample(WEIGHT)) is not None

    def _pool(self) -> SparseImages:
        if self._events is None:
            if self._file is None:
                raise ValueError(f"{self.path}: read after it was closed")
            self._events = self._file.read()
        return self._events

    def close(self) -> None:
        """Close the file and drop the events."""
        self._events = None
        if self._file is not None:
            self._file.close()
            self._file = None


def _block_edges(path: Path, events: int, mu: int, most: int, most_blocks: int) -> np.ndarray:
    """Where blocks begin and end, (blocks + 1,)."""
    at_least = min(BLOCKS[0], most_blocks)
    if events < at_least * LEAST_EVENTS * most:
        needed = at_least * LEAST_EVENTS * most
        raise InputError(
            f"{path}: {events} events are too few for pileup of mu = {mu}, which needs {needed} here; "
            "make more with 'hpcgan data pileup --events N', or lower model.mu"
        )
    blocks = min(most_blocks, max(at_least, events // (EVENTS_OF_BLOCK * mu)))
    return np.arange(blocks + 1) * events // blocks


def _poisson_table(mu: int) -> np.ndarray:
    """Cumulative distribution of a Poisson variate, up to where all but 1e-12 is in; the number k of a uniform u is
    searchsorted(table, u, side="right").
    """
    most = mu + 8 * math.isqrt(mu) + 30
    terms = [math.exp(k * math.log(mu) - mu - math.lgamma(k + 1)) for k in range(most + 1)]
    table = np.cumsum(terms)
    table = table[: int(np.searchsorted(table, 1.0 - 1e-12)) + 1]
    table[-1] = 1.0
    return table
