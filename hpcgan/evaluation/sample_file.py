"""Generated samples into a file, at constant memory, by one rank or several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgan.comm.base import Comm, SerialComm
from hpcgan.data.schema import sample_bytes, take
from hpcgan.data.storage import what_is_left
from hpcgan.errors import HpcganError

if TYPE_CHECKING:
    from hpcgan.data.schema import Sample
    from hpcgan.evaluation.conditions import Conditions
    from hpcgan.evaluation.sampling import RunSampler

ROUND_BYTES = 64 << 20
"""Samples in memory at a time on rank 0, about (4,096 detector images), but at least a batch of each rank."""


@dataclass(frozen=True)
class SampleFile:
    """The file that is written.

    Attributes
    ----------
    path : Path
    n, seed : int
        It gets the first `n` samples of the sequence of a seed.
    attributes : mapping
        Written into the file.
    force : bool
        Replace an existing file, which stays until the new one is complete.
    """

    path: Path
    n: int
    seed: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False


def write_samples(
    sampler: RunSampler,
    file: SampleFile,
    *,
    conditions: Conditions | None = None,
    comm: Comm | None = None,
    progress: Callable[[int], None] = lambda n_written: None,
    stopping: Callable[[], str | None] = lambda: None,
) -> None:
    """Write a file of samples; to be called on all ranks.

    In each round every rank makes the batches next to those of the rank before it, and rank 0 writes them in order,
    while the others make their next ones. Batches are cut at multiples of the batch size, wherever they are made, and
    are written one by one: the file has the same bytes on any number of ranks (with the same threads, whose number may
    change roundings).

    Parameters
    ----------
    sampler : RunSampler
    file : SampleFile
    conditions : Conditions, optional
        What the events are asked for; default: the sampler's.
    comm : Comm, optional
        By default this process is alone.
    progress : callable
        Hears on rank 0 the number of samples written.
    stopping : callable
        Name of the signal that has asked this rank to stop, or None.

    Raises
    ------
    InputError
        The file cannot be written, or exists.
    HpcganError
        Some rank was asked to stop; nothing is left.
    """
    comm = SerialComm() if comm is None else comm
    size = sampler.batch_size
    share = max(1, ROUND_BYTES // (comm.size * size * sample_bytes(sampler.problem.schema))) * size
    arguments: dict[str, Any] = {} if conditions is None else {"conditions": conditions}
    names: list[str] = []

    def make_round(start: int) -> dict[str, list[np.ndarray] | None]:
        """What each rank makes from sample `start` on, by tensor: on rank 0, None elsewhere."""
        first = start + comm.rank * share
        count = max(0, min(share, file.n - first))
        sample = sampler.sample(count, file.seed, first, **arguments) if count else {}
        if not names:  # of the first round, in which rank 0 has a share
            names.extend(comm.broadcast_json(list(sample)))
        return {name: comm.gather_array(sample.pop(name, np.empty(0))) for name in names}

    with contextlib.ExitStack() as stack:
        append: Callable[[Sample], None] | None = None
        if comm.is_root:
            append = stack.enter_context(sampler.problem.writer(file.path, file.n, file.attributes, file.force))
        n_written = 0
        for start in range(0, file.n, share * comm.size):
            comm.beat(f"the samples from {start} on")
            _stop_together(comm, stopping(), file.path)
            n_written += _append(append, make_round(start), size)
            progress(n_written)


def _append(append: Callable[[Sample], None] | None, parts: Mapping[str, list[np.ndarray] | None], size: int) -> int:
    """On rank 0, write what the ranks have made, batch by batch; how many samples."""
    if append is None:
        return 0
    total = 0
    for arrays in zip(*(part or [] for part in parts.values()), strict=True):
        sample = dict(zip(parts, arrays, strict=True))
        count = len(arrays[0])
        for first in range(0, count, size):
            append(take(sample, slice(first, first + size)))
        total += count
    return total


def _stop_together(comm: Comm, signal: str | None, path: Path) -> None:
    """End on all ranks if one was asked to; without a rank's own message, one would wait for the others for ever."""
    if comm.size == 1:
        signals = [signal]
    else:
        signals = comm.broadcast_json(comm.gather_json(signal))
    named = next((name for name in signals if name), None)
    if named is not None:
        raise HpcganError(f"{path}: stopped by {named}; {what_is_left([path])}", collective=True)
