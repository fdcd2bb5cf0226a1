"""HDF5's heaps of text, looked through before HDF5 does.

Text of variable length, of which most attributes are, stands in heaps (*HDF5 File Format Specification*, III.E, global
heap). HDF5 goes from entry to entry by their lengths; an entry that says it has none keeps it in the same place for
ever, in C, where no time limit and no Ctrl-C reaches it. Of a thousand files with some bytes changed, one has that.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from hpcgan.errors import InputError

ENDS = 1 << 20
"""Bytes at the beginning and at the end of a file that are searched: writers have attributes there."""

_SIGNATURE = b"GCOL\x01\0\0\0"
_HEADER = 16  # of a heap, and of an entry in it


def check_heaps(path: Path) -> None:
    """Refuse a file with a heap of which HDF5 would find no end, where lengths have eight bytes, as everybody's have.

    Raises
    ------
    InputError
        There is one: the file is damaged.
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return
        with contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
            for start, stop in ((0, min(size, ENDS)), (max(ENDS, size - ENDS), size)):
                for place in _places(data, start, stop):
                    if _is_endless(data, place):
                        raise InputError(
                            f"{path}: text at byte {place} of the file cannot be read (an entry of no length); "
                            "the file is damaged"
                        )


def _places(data: mmap.mmap, start: int, stop: int) -> Iterator[int]:
    place = data.find(_SIGNATURE, start, stop)
    while place >= 0:
        yield place
        place = data.find(_SIGNATURE, place + 1, stop)


def _is_endless(data: mmap.mmap, heap: int) -> bool:
    """Whether going through the entries of the heap at a place does not get on."""
    end = heap + _number(data, heap + 8, 8)
    place = heap + _HEADER
    while place + _HEADER <= min(end, len(data)):
        length = _number(data, place + 8, 8)
        # Entry 0 is the room that is left, and its length includes the header.
        step = length if _number(data, place, 2) == 0 else _HEADER + (length + 7) // 8 * 8
        step %= 1 << 64  # as in C
        if step == 0:
            return True
        place += step
    return False


def _number(data: mmap.mmap, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")
