"""HDF5's heaps of text, looked through before HDF5 does.

Text of variable length, of which most attributes are, stands in heaps (*HDF5 File Format Specification*, III.E, global
heap). HDF5 goes from entry to entry by their lengths; an entry that says it has none keeps it in the same place for
ever, in C, where no time limit and no Ctrl-C reaches it. Of a thousand files with some bytes changed, one has that.
"""

from __future__ import annotations

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
        for start in sorted({0, max(0, size - ENDS)}):
            file.seek(start)
            part = file.read(ENDS)
            for place in _places(part):
                if _is_endless(part, place):
                    raise InputError(
                        f"{path}: text at byte {start + place} of the file cannot be read (an entry of no length); "
                        "the file is damaged"
                    )


def _places(part: bytes) -> Iterator[int]:
    place = part.find(_SIGNATURE)
    while place >= 0:
        yield place
        place = part.find(_SIGNATURE, place + 1)


def _is_endless(part: bytes, heap: int) -> bool:
    """Whether going through the entries of the heap at a place does not get on."""
    end = heap + _number(part, heap + 8, 8)
    place = heap + _HEADER
    while place + _HEADER <= min(end, len(part)):
        length = _number(part, place + 8, 8)
        # Entry 0 is the room that is left, and its length includes the header.
        step = length if _number(part, place, 2) == 0 else _HEADER + (length + 7) // 8 * 8
        step %= 1 << 64  # as in C
        if step == 0:
            return True
        place += step
    return False


def _number(part: bytes, place: int, size: int) -> int:
    return int.from_bytes(part[place : place + size], "little")
