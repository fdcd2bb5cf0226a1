"""Pools of events made of random numbers, for tests of what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.data.storage import Target, split_sizes
from hpcgan.physics.pileup import SparseImages
from hpcgan.problems.pileup import files as pool


def sparse_events(n: int, seed: int = 0, lit: float = 20.0) -> SparseImages:
    """Events with an exponentially distributed number of lit pixels, some with none; energies of some GeV."""
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.exponential(lit, n).astype(np.int64), 4096)
    pixel = [np.sort(rng.choice(4096, count, replace=False)) for count in counts]
    energy = 500.0 + rng.exponential(1500.0, counts.sum())
    indptr = np.concatenate(([0], np.cumsum(counts)))
    return SparseImages(indptr, np.concatenate(pixel).astype(np.uint16), energy.astype(np.float32))


def write_pool(folder: Path, n: int = 400, mu: Any = 3, seed: int = 0, **attributes: Any) -> SparseImages:
    """Pools of 60, 20 and 20 percent of the events; what is in them."""
    events = sparse_events(n, seed)
    said = {"settings": "{}", "problem": "pileup", "mu": mu, **attributes}
    with pool.Writer(Target(folder, split_sizes(n), said)) as writer:
        for start in range(0, n, 70):
            writer.append(events.part(slice(start, start + 70)))
    return events


def dense(events: SparseImages) -> np.ndarray:
    """(N, 64, 64) the slow way."""
    images = np.zeros((len(events), 4096), np.float32)
    for i in range(len(events)):
        for entry in range(events.indptr[i], events.indptr[i + 1]):
            images[i, events.pixel[entry]] += events.energy[entry]
    return images.reshape(-1, 64, 64)
