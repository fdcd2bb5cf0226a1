"""Random numbers that are functions of what they are for. NumPy only, a leaf.

Every draw derives from (seed, stream, step, global sample index): N ranks with batch B see exactly what
one rank with batch N*B sees, and nothing but counters has to be saved to resume. The generator is
Philox-4x64 (Salmon et al., SC'11), used by its counter: key = (seed, stream), counter = (block, step).
"""

from __future__ import annotations

import hashlib

import numpy as np

_BLOCK = 4  # 64-bit words Philox makes from one counter value
_STEP_LIMIT = 1 << 63


def stream_id(name: str) -> int:
    """64-bit identifier of a named stream."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _words(seed: int, stream: str, step: int, first: int, n: int, words_each: int) -> np.ndarray:
    """`words_each` random 64-bit words for samples first ... first + n - 1, as (n, words_each)."""
    if not 0 <= step < _STEP_LIMIT or first < 0 or n < 0:
        raise ValueError(f"step {step}, first {first} and n {n} must not be negative")
    blocks = -(-words_each // _BLOCK)
    bits = np.random.Philox(
        key=np.array([seed & (2**64 - 1), stream_id(stream)], np.uint64),
        counter=np.array([first * blocks, step, 0, 0], np.uint64),
    )
    return bits.random_raw(n * blocks * _BLOCK).reshape(n, blocks * _BLOCK)[:, :words_each]


def uniform(seed: int, stream: str, step: int, first: int, n: int, dim: int) -> np.ndarray:
    """Uniform numbers in [0, 1).

    Parameters
    ----------
    seed : int
        Seed of the run.
    stream : str
        What the numbers are for; streams are independent.
    step : int
        Step of the training, or epoch, or whatever counts the draws.
    first, n : int
        Global indices of the samples: first ... first + n - 1.
    dim : int
        Numbers a sample.

    Returns
    -------
    (n, dim) float64
    """
    return (_words(seed, stream, step, first, n, dim) >> np.uint64(11)) * 2.0**-53


def uniform_at(seed: int, stream: str, step: int, indices: np.ndarray, dim: int) -> np.ndarray:
    """Uniform numbers in [0, 1) of samples whose global indices are anything but consecutive.

    Parameters
    ----------
    seed, stream, step, dim
        As of `uniform`.
    indices : (n,) int
        Global indices of the samples.

    Returns
    -------
    (n, dim) float64
        Row i is `uniform(seed, stream, step, indices[i], 1, dim)`.
    """
    rows = [uniform(seed, stream, step, index, 1, dim) for index in np.asarray(indices).tolist()]
    return np.concatenate(rows) if rows else np.empty((0, dim))


def normal(seed: int, stream: str, step: int, first: int, n: int, dim: int) -> np.ndarray:
    """Standard normal numbers by Box and Muller (1958); arguments and shape as `uniform`."""
    pairs = -(-dim // 2)
    u = uniform(seed, stream, step, first, n, 2 * pairs)
    radius = np.sqrt(-2.0 * np.log1p(-u[:, :pairs]))
    angle = 2.0 * np.pi * u[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :dim]


def runs(seeds: np.ndarray, indices: np.ndarray) -> list[tuple[int, int, int]]:
    """Samples side by side as stretches of one seed and of numbers that follow each other.

    Parameters
    ----------
    seeds, indices : (n,) int64
        Of each sample: its seed, and its number in the sequence of that seed.

    Returns
    -------
    list of (seed, first, n)
        In the order of the samples.
    """
    breaks = np.flatnonzero((np.diff(seeds) != 0) | (np.diff(indices) != 1)) + 1
    starts = [0, *breaks.tolist()]
    ends = [*breaks.tolist(), len(seeds)]
    return [(int(seeds[a]), int(indices[a]), b - a) for a, b in zip(starts, ends, strict=True) if b > a]


def permutation(seed: int, stream: str, step: int, n: int) -> np.ndarray:
    """A random order of 0 ... n - 1, the same on every rank."""
    bits = np.random.Philox(
        key=np.array([seed & (2**64 - 1), stream_id(stream)], np.uint64),
        counter=np.array([0, step, 0, 0], np.uint64),
    )
    return np.random.Generator(bits).permutation(n)


def subsets(uniforms: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Random subsets, every one of them equally likely: drawing without replacement, many times side by side.

    R. Floyd's algorithm (Bentley and Floyd, CACM 30 (1987) 754) takes as many uniform numbers as it draws, however
    large the set.

    Parameters
    ----------
    uniforms : (n, k) float64
        Uniform numbers in [0, 1).
    counts : (n,) int
        How many to draw in each row, at most k.
    sizes : (n,) int
        Each row draws from 0 ... size - 1.

    Returns
    -------
    (n, k) int64
        The first `counts[i]` entries of row i differ and are the subset, in no useful order; the others are -1.

    Raises
    ------
    ValueError
        A row draws more than there are.
    """
    n, k = uniforms.shape
    if np.any(counts > sizes) or np.any(counts > k):
        raise ValueError(f"more are drawn than there are, or than the {k} numbers given")
    chosen = np.full((n, k), -1, np.int64)
    for position in range(k):
        last = sizes - counts + position
        candidate = (uniforms[:, position] * (last + 1)).astype(np.int64)
        repeats = (chosen[:, :position] == candidate[:, None]).any(axis=1)
        chosen[:, position] = np.where(position < counts, np.where(repeats, last, candidate), -1)
    return chosen
