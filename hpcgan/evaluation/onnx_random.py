"""The random numbers of `hpcgan.rng` as nodes of an ONNX graph: a model that draws its own noise.

ONNX has `RandomNormal`, whose seed is fixed when the model is written and whose numbers depend on how requests are cut
into batches. Here the numbers are Philox-4x64 by counter (Salmon et al., SC'11), as in the rest of hpcgan: those of a
seed and the number of a sample, however many are asked for at a time. So a model that draws gives the events of
`hpcgan generate`.

Words of 64 bits are uint64, whose products ONNX has modulo 2^64; the upper halves of products are made of halves of
words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcgan import rng

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_WORDS = 4  # of a block
_LOW = 0xFFFFFFFF


class Nodes:
    """Nodes and constants that are added to a graph, with names of their own.

    Parameters
    ----------
    prefix : str
        Of all names.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._names: dict[tuple[str, str], str] = {}

    def __call__(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """The output of an operation."""
        from onnx import helper

        output = name or f"{self.prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{self.prefix}{len(self.nodes)}", **attributes))
        return output

    def constant(self, value: Any, dtype: Any) -> str:
        """A constant; equal ones are one."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype)
        key = (array.dtype.str, repr(array.tolist()))
        if key not in self._names:
            name = self._names[key] = f"{self.prefix}c{len(self._names)}"
            self.constants[name] = numpy_helper.from_array(array, name)
        return self._names[key]

    def word(self, value: int) -> str:
        """A constant of 64 bits."""
        return self.constant(value & (2**64 - 1), np.uint64)


def _high_and_low(to: Nodes, multiplier: int, word: str) -> tuple[str, str]:
    """Both halves of the product of 128 bits."""
    shift, mask = to.word(32), to.word(_LOW)

    def upper(x: str) -> str:
        return to("BitShift", x, shift, direction="RIGHT")

    m_low, m_high = to.word(multiplier & _LOW), to.word(multiplier >> 32)
    low, high = to("BitwiseAnd", word, mask), upper(word)
    first, second = to("Mul", low, m_low), to("Mul", high, m_low)
    # No carry is lost: (2^32 - 1)^2 + 2 (2^32 - 1) is below 2^64.
    middle = to("Add", to("Mul", low, m_high), to("Add", upper(first), to("BitwiseAnd", second, mask)))
    top = to("Add", to("Mul", high, m_high), to("Add", upper(second), upper(middle)))
    return top, to("Mul", word, to.word(multiplier))


def words(to: Nodes, seed: str, stream: str, first: str, n: str, words_each: int) -> str:
    """`hpcgan.rng._words` at step 0: (n, words_each) uint64.

    Parameters
    ----------
    to : Nodes
    seed, first, n : str
        Names of scalars, int64: the seed, the number of the first sample, and how many samples.
    stream : str
        What the numbers are for.
    words_each : int
        Of a sample.
    """
    blocks = -(-words_each // _WORDS)
    one, each = to.constant(1, np.int64), to.constant(blocks, np.int64)
    # NumPy's generator counts on before it makes a block.
    start = to("Add", to("Mul", first, each), one)
    numbers = to("Range", start, to("Add", start, to("Mul", n, each)), one)
    counter = [to("Cast", numbers, to=_type(np.uint64)), *[to.word(0)] * 3]
    key = [to("Cast", seed, to=_type(np.uint64)), to.word(rng.stream_id(stream))]
    for number in range(_ROUNDS):
        if number:
            key = [to("Add", part, to.word(weyl)) for part, weyl in zip(key, _WEYL, strict=True)]
        (high0, low0), (high1, low1) = (
            _high_and_low(to, multiplier, counter[which])
            for multiplier, which in zip(_MULTIPLIERS, (0, 2), strict=True)
        )
        counter = [
            to("BitwiseXor", to("BitwiseXor", high1, counter[1]), key[0]), low1,
            to("BitwiseXor", to("BitwiseXor", high0, counter[3]), key[1]), low0,
        ]  # fmt: skip
    last = to.constant([-1], np.int64)
    columns = [to("Unsqueeze", part, last) for part in counter]
    flat = to("Reshape", to("Concat", *columns, axis=1), to.constant([-1, blocks * _WORDS], np.int64))
    return _columns(to, flat, 0, words_each)


def uniform(to: Nodes, seed: str, stream: str, first: str, n: str, dim: int) -> str:
    """`hpcgan.rng.uniform` at step 0: (n, dim) float64 in [0, 1); arguments as of :func:`words`."""
    upper = to("BitShift", words(to, seed, stream, first, n, dim), to.word(11), direction="RIGHT")
    return to("Mul", to("Cast", upper, to=_type(np.float64)), to.constant(2.0**-53, np.float64))


def normal(to: Nodes, seed: str, stream: str, first: str, n: str, dim: int) -> str:
    """`hpcgan.rng.normal` at step 0: (n, dim) float64; arguments as of :func:`words`."""
    pairs = -(-dim // 2)
    u = uniform(to, seed, stream, first, n, 2 * pairs)
    # The difference is exact, so ln(1 - u) is as good as log1p.
    log = to("Log", to("Sub", to.constant(1.0, np.float64), _columns(to, u, 0, pairs)))
    radius = to("Sqrt", to("Mul", log, to.constant(-2.0, np.float64)))
    angle = to("Mul", _columns(to, u, pairs, 2 * pairs), to.constant(2.0 * math.pi, np.float64))
    both = to("Concat", to("Mul", radius, to("Cos", angle)), to("Mul", radius, to("Sin", angle)), axis=1)
    return _columns(to, both, 0, dim)


def _columns(to: Nodes, matrix: str, begin: int, end: int) -> str:
    limits: Sequence[str] = [to.constant([value], np.int64) for value in (begin, end, 1)]
    return to("Slice", matrix, *limits)


def _type(dtype: Any) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
