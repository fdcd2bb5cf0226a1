"""Which sample goes to which rank in which step. NumPy only.

An epoch is one global permutation of the data, drawn from (seed, epoch); of events with weights it is one of as many
events that are drawn by |weight|, anew in each epoch. A global batch is the next
`batch_size * size` entries, each rank taking its contiguous share; the tail shorter than a global batch
is dropped, a different one each epoch. Position is counted in samples, so a run may resume in the middle
of an epoch on another number of ranks without seeing a sample twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpcgan import rng
from hpcgan.errors import InputError
from hpcgan.weights import resample


def rank_batch(path: Path, n: int, batch_size: int, global_batch_size: int | None, ranks: int) -> int:
    """Samples of a step on each of `ranks` ranks.

    Parameters
    ----------
    path : Path
        The training file, of `n` events.
    batch_size : int
        `training.batch_size`, of a rank.
    global_batch_size : int or None
        `training.global_batch_size`, of all ranks together; takes the place of `batch_size`.
    ranks : int

    Raises
    ------
    InputError
        The ranks cannot share a global batch evenly, or the file has fewer events than one.
    """
    on = f"on {ranks} rank{'s' * (ranks > 1)}"
    key = f"training.batch_size={batch_size} {on}"
    if global_batch_size is not None:
        if global_batch_size % ranks:
            fitting = [n for n in range(1, global_batch_size + 1) if global_batch_size % n == 0]
            raise InputError(
                f"training.global_batch_size={global_batch_size} cannot be shared evenly {on}; "
                f"ranks that can: {', '.join(map(str, fitting))}"
            )
        batch_size, key = global_batch_size // ranks, f"training.global_batch_size={global_batch_size}"
    if n < batch_size * ranks:
        raise InputError(f"{path}: {n} events are fewer than a global batch of {batch_size * ranks} ({key})")
    return batch_size


@dataclass(frozen=True)
class Sharding:
    """Epoch order of `n` samples over `size` ranks with `batch_size` samples each.

    With `weights` (n,), an epoch has n samples, sample i floor or ceil of n |w_i| / sum |w| times.

    Raises
    ------
    ValueError
        If there are fewer samples than one global batch.
    """

    n: int
    batch_size: int
    rank: int
    size: int
    seed: int
    weights: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.n < self.global_batch:
            raise ValueError(f"{self.n} samples are fewer than a global batch of {self.global_batch}")

    @property
    def global_batch(self) -> int:
        """Samples a step, over all ranks."""
        return self.batch_size * self.size

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return self.n // self.global_batch

    def steps_left(self, position: int) -> int:
        """Whole global batches left in an epoch of which `position` samples are done."""
        return (self.n - position) // self.global_batch

    def resampled(self, epoch: int) -> np.ndarray:
        """(n,) the samples of an epoch, ascending, on every rank alike: each once, or as often as its weight says."""
        if self.weights is None:
            return np.arange(self.n)
        return resample(self.weights, self.n, self.seed, "epoch-weights", epoch)

    def order(self, epoch: int) -> np.ndarray:
        """(n,) the samples of an epoch in the order in which they are seen, the same on every rank."""
        permutation = rng.permutation(self.seed, "epoch-order", epoch, self.n)
        return permutation if self.weights is None else self.resampled(epoch)[permutation]

    def shard(self, order: np.ndarray, position: int) -> np.ndarray:
        """(batch_size,) indices of this rank's share of the global batch that begins at `position`."""
        start = position + self.rank * self.batch_size
        return order[start : start + self.batch_size]
