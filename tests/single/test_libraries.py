"""Paths of loaded libraries, as /proc/self/maps has them."""

import ctypes.util

import pytest

from hpcgan.comm.libraries import loaded

LINE = b"7f0000000000-7f0000001000 r-xp 00000000 fe:01 1234567"


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (b"/opt/mpi/libmpi.so.40", "/opt/mpi/libmpi.so.40"),
        (b"/home/me/with space/a  b/libmpi.so.40", "/home/me/with space/a  b/libmpi.so.40"),
        (b"/home/me/end /libmpi.so.40.30.1 ", "/home/me/end /libmpi.so.40.30.1 "),
        (b"/gone away/libmpi.so.40 (deleted)", "/gone away/libmpi.so.40"),
        (b"/two\\012lines/libmpi.so.12", "/two\nlines/libmpi.so.12"),
        (b"/caf\xc3\xa9/libmpi.so", "/caf\u00e9/libmpi.so"),
        (b"/bytes\xff/libmpi.so", "/bytes\udcff/libmpi.so"),
    ],
)
def test_a_path_is_all_that_follows_the_inode(written, path):
    others = [b"7f00-7f01 rw-p 00000000 00:00 0", b"7f00-7f01 rw-p 00000000 00:00 0      [heap]",
              LINE + b"   /x/libmpi.so.d/other.so", LINE + b"   /x/libmpifort.so", b""]  # fmt: skip
    lines = [LINE + b"                      " + written, *others, LINE + b"   " + written]
    assert loaded("libmpi.so", b"\n".join(lines)) == [path]


def test_a_file_whose_name_ends_so_is_not_deleted(tmp_path):
    path = tmp_path / "libmpi.so (deleted)"
    path.touch()
    assert loaded("libmpi.so", LINE + b"  " + bytes(path) + b"\n") == [str(path)]


def test_this_process_has_loaded_the_c_library():
    assert ctypes.util.find_library("c") is not None
    assert any(path.startswith("/") for path in loaded("libc"))
