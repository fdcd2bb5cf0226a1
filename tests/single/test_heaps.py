"""Heaps of text in which HDF5 would stay for ever: refused before it looks."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.data import heaps
from hpcgan.data.heaps import check_heaps
from hpcgan.data.storage import open_file
from hpcgan.errors import InputError

TEXTS = {"units": "MeV", "settings": '{"events": 20}'}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "texts.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(5000)
        file.attrs.update(TEXTS)
    return path


def entries(whole: bytes) -> list[int]:
    """Where the heap's entries begin: those of the texts, and the room that is left."""
    heap = whole.index(b"GCOL")
    places = [heap + 16]
    for text in TEXTS.values():
        places.append(places[-1] + 16 + (len(text) + 7) // 8 * 8)
    return places


def overwrite(path: Path, place: int, length: int) -> None:
    """Another length of the entry at a place."""
    with open(path, "r+b") as file:
        file.seek(place + 8)
        file.write(length.to_bytes(8, "little"))


def test_a_whole_file_is_opened(path: Path) -> None:
    first, _, room = entries(path.read_bytes())
    heap = first - 16
    size = int.from_bytes(path.read_bytes()[heap + 8 :][:8], "little")
    assert int.from_bytes(path.read_bytes()[room + 8 :][:8], "little") == heap + size - room  # as the test takes it
    with open_file(path) as file:
        assert dict(file.attrs) == TEXTS


@pytest.mark.parametrize(("entry", "length"), [(2, 0), (0, 2**64 - 16), (1, 2**64 - 17)])
def test_an_entry_that_leads_to_itself_is_refused(path: Path, entry: int, length: int) -> None:
    places = entries(path.read_bytes())
    overwrite(path, places[entry], length)
    message = (
        rf"^{re.escape(str(path))}: text at byte {places[0] - 16} of the file cannot be read \(an entry of no length"
    )
    with pytest.raises(InputError, match=message):
        open_file(path)


def test_heaps_at_both_ends_are_looked_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heaps, "ENDS", 8192)
    whole = path.read_bytes()
    heap, room = whole.index(b"GCOL"), entries(whole)[2]
    size = int.from_bytes(whole[heap + 8 : heap + 16], "little")
    endless = whole[heap:room] + bytes(16)
    endless += bytes(size - len(endless))
    for changed in (endless + bytes(50_000), bytes(50_000) + endless):
        path.write_bytes(changed)
        with pytest.raises(InputError, match="an entry of no length"):
            check_heaps(path)
    path.write_bytes(whole[heap : heap + size] + bytes(50_000) + whole[heap : heap + size])
    check_heaps(path)


def test_an_empty_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    check_heaps(tmp_path / "empty")


@given(st.data())
def test_any_damage_is_seen_or_has_an_end(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("heap") / "damaged.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(TEXTS)
    whole = bytearray(path.read_bytes())
    heap = whole.index(b"GCOL")
    for _ in range(data.draw(st.integers(1, 4))):
        whole[heap + data.draw(st.integers(8, 90))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        with open_file(path) as file:
            dict(file.attrs)
    except (InputError, OSError, RuntimeError, UnicodeDecodeError):
        pass
