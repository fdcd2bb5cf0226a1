"""What all values of a data file come to, worked out while they are written: a leaf."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

ATTRIBUTE = "digest"
"""Where a file says it."""


class Digest:
    """SHA-256 over the data sets of a file, entry by entry, whatever pieces they come in.

    Of a column all values count; of a data set with more dimensions the Adler-32 of each entry, which is also what its
    compressed form ends with (RFC 1950): images that were compressed elsewhere need not be unpacked for it. Numbers
    count as little-endian float32, or int64.
    """

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def add(self, name: str, values: np.ndarray) -> None:
        """The next entries of a data set, (n, ...)."""
        if values.ndim == 1:
            self._of(name).update(_plain(values).tobytes())
        else:
            sums = [zlib.adler32(entry.tobytes()) for entry in _plain(values)]
            self._of(name).update(np.array(sums, ">u4").tobytes())

    def add_packed(self, name: str, entries: Iterable[bytes]) -> None:
        """The next entries of a data set, each compressed as float32 in the format of zlib."""
        self._of(name).update(b"".join(entry[-4:] for entry in entries))

    def __str__(self) -> str:
        hashes = {name: digest.hexdigest() for name, digest in self._found.items()}
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()

    def _of(self, name: str) -> Any:
        return self._found.setdefault(name, hashlib.sha256())


def _plain(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, "<f4" if values.dtype.kind == "f" else "<i8")
