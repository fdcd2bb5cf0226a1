import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys

import pytest

from hpcgan.errors import InputError
from hpcgan.system.files import folder_lock, refusal, sync, sync_folder, write_atomic, write_once


def failing(number):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch, call, number):
    path = tmp_path / "a.json"
    write_atomic(path, "one")
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomic(path, "two")
    monkeypatch.undo()
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_first_error_is_the_one_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", failing(errno.EDQUOT))
    monkeypatch.setattr(type(tmp_path), "unlink", failing(errno.EROFS))
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        write_atomic(tmp_path / "a", "one")


LINKLESS = [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV, errno.EACCES, errno.EINVAL]


@pytest.mark.parametrize("number", [None, *LINKLESS])
def test_write_once(tmp_path, monkeypatch, number):
    if number is not None:
        monkeypatch.setattr(os, "link", failing(number))
    assert write_once(tmp_path / "a", "one")
    assert not write_once(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_failure_to_link_is_no_lack_of_links(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", failing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        write_once(tmp_path / "a", "one")
    assert os.listdir(tmp_path) == []


def test_an_answer_of_the_server_that_was_lost(tmp_path, monkeypatch):
    """The link was made; asked again, NFS says that it is there already."""
    link = os.link

    def twice(old, new):
        link(old, new)
        link(old, new)

    monkeypatch.setattr(os, "link", twice)
    assert write_once(tmp_path / "a", "one")
    assert not write_once(tmp_path / "a", "two")


def _race(linkless, folder, start, won):
    if linkless:
        os.link = failing(errno.EPERM)
    start.wait()
    for n in range(50):
        if write_once(folder / str(n), str(os.getpid()) * 1000):
            won.put((n, os.getpid()))
    won.put(None)


@pytest.mark.parametrize("linkless", [False, True])
def test_of_many_one_wins_and_its_file_is_whole(tmp_path, linkless):
    context = multiprocessing.get_context("spawn")
    start, won = context.Event(), context.Queue()
    racers = [context.Process(target=_race, args=(linkless, tmp_path, start, won)) for _ in range(4)]
    for racer in racers:
        racer.start()
    start.set()
    winners, left = [], len(racers)
    while left:
        one = won.get(timeout=120)
        if one is None:
            left -= 1
        else:
            winners.append(one)
    for racer in racers:
        racer.join()
    assert sorted(n for n, _ in winners) == list(range(50))
    for n, pid in winners:
        assert (tmp_path / str(n)).read_text() == str(pid) * 1000


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR])
def test_a_folder_that_cannot_be_synced_is_not(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", failing(number))
    sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_that_cannot_be_synced_is_not(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", failing(number))
    write_atomic(tmp_path / "a", "one")
    assert (tmp_path / "a").read_text() == "one"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_sync_that_fails_is_told(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", failing(number))
    for call in (lambda: sync(0), lambda: sync_folder(tmp_path)):
        with pytest.raises(OSError, match=os.strerror(number)):
            call()


def test_a_folder_that_may_not_be_listed_is_not_synced(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    sync_folder(tmp_path)


LOCKED = """
import sys
from pathlib import Path
from hpcgan.system.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def only_files(descriptor, operation, flock=fcntl.flock):
    """As on NFS: a lock takes a file that is open for writing, which a folder cannot be."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    flock(descriptor, operation)


@pytest.mark.parametrize("nfs", [False, True])
def test_two_writers_keep_out_of_one_folder(tmp_path, monkeypatch, nfs):
    if nfs:
        monkeypatch.setattr(fcntl, "flock", only_files)
    with folder_lock(tmp_path), pytest.raises(InputError, match="another process is writing"), folder_lock(tmp_path):
        pass
    with folder_lock(tmp_path):  # again
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_goes_with_its_process(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match="another process is writing"), folder_lock(tmp_path):
        pass
    other.kill()
    other.communicate()
    with folder_lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks_one_goes_on_and_says_so(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    for _ in range(3):
        with folder_lock(tmp_path):
            pass
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{tmp_path}: this file system has no locks ({os.strerror(number)})" in said[0]
    assert os.listdir(tmp_path) == []


def test_a_lock_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"), folder_lock(tmp_path):
        pass


def test_where_a_file_can_be_made(tmp_path, monkeypatch):
    assert refusal(tmp_path) is None
    assert refusal(tmp_path / "to be" / "made") is None
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file") == "Not a directory"
    monkeypatch.setattr(os, "open", failing(errno.EROFS))
    assert refusal(tmp_path) == "Read-only file system"
