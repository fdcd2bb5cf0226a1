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


def normal(seed: int, stream: str, step: int, first: int, n: int, dim: int) -> np.ndarray:
    """Standard normal numbers by Box and Muller (1958); arguments and shape as `uniform`."""
    pairs = -(-dim // 2)
    u = uniform(seed, stream, step, first, n, 2 * pairs)
    radius = np.sqrt(-2.0 * np.log1p(-u[:, :pairs]))
    angle = 2.0 * np.pi * u[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :dim]


def permutation(seed: int, stream: str, step: int, n: int) -> np.ndarray:
    """A random order of 0 ... n - 1, the same on every rank."""
    bits = np.random.Philox(
        key=np.array([seed & (2**64 - 1), stream_id(stream)], np.uint64),
        counter=np.array([0, step, 0, 0], np.uint64),
    )
    return np.random.Generator(bits).permutation(n)
