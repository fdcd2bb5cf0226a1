"""Copies of data on a node's own storage: whole or not at all, whatever happens while they are made."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcgan.data import staging
from hpcgan.data.identity import identify
from hpcgan.data.staging import Copies, Original, Store, unstage
from hpcgan.errors import EnvironmentFailure, HpcganError, InputError
from hpcgan.system import files


def write(path: Path, seed: int = 0, numbers: int = 10_000) -> Path:
    """A data file of 8 bytes a number, which nothing can pack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["a/b"] = np.random.default_rng(seed).random(numbers)
    return path


def originals(folder: Path, seed: int = 0, numbers: int = 10_000) -> list[Original]:
    paths = [write(folder / name, seed + i, numbers) for i, name in enumerate(("train.h5", "sub/val.h5"))]
    return [Original(path, str(path.relative_to(folder)), identify(path).fingerprint) for path in paths]


@pytest.fixture
def data(tmp_path: Path) -> list[Original]:
    return originals(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "local"), {"SLURMD_NODENAME": "n7"})
    made.make()
    return made


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PIECE", 4096)
    monkeypatch.setattr(staging, "SYNC_EVERY", 3)


def copied(store: Store, data: list[Original]) -> Copies:
    """Copies, to the end."""
    copies = Copies(store, data)
    with copies.held():
        for _ in copies.make():
            pass
    return copies


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_whole(copies: Copies, data: list[Original]) -> None:
    assert copies.missing() == []
    assert files_in(copies.folder) == {original.name for original in data}
    for original in data:
        assert (copies.folder / original.name).read_bytes() == original.path.read_bytes()


@pytest.mark.usefixtures("small_pieces")
def test_copies_are_whole_and_made_once(store: Store, data: list[Original]) -> None:
    first = copied(store, data)
    assert_whole(first, data)
    assert first.size == sum(original.path.stat().st_size for original in data)
    before = {name: (first.folder / name).stat().st_ino for name in files_in(first.folder)}
    again = copied(store, data)
    assert (again.folder, again.size) == (first.folder, 0)
    assert {name: (first.folder / name).stat().st_ino for name in files_in(first.folder)} == before
    assert (store.path.stat().st_mode & 0o777) == 0o700


def test_progress_never_goes_back_and_ends_at_the_size(
    store: Store, data: list[Original], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PIECE", 4096)
    copies = Copies(store, data)
    with copies.held():
        progress = list(copies.make())
    assert progress == sorted(progress)
    assert progress[-1] == copies.size


def test_other_data_have_another_folder(store: Store, tmp_path: Path) -> None:
    """Somebody reads the copies of what the data were, while those of what they are now are made."""
    before = copied(store, originals(tmp_path / "data", seed=0))
    with h5py.File(before.folder / "train.h5") as reading:
        first = reading["a/b"][:10]
        after = copied(store, originals(tmp_path / "data", seed=5))
        assert after.folder != before.folder
        assert reading["a/b"][:10].tolist() == first.tolist()
    assert identify(before.folder / "train.h5").fingerprint != identify(after.folder / "train.h5").fingerprint


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    """By data of the same size."""
    other = write(path.with_name("other.h5"), seed=99)
    other.replace(path)


def write_into(path: Path) -> None:
    """A value that the fingerprint of a large file would not see."""
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"12345678")


def lose_the_note(path: Path) -> None:
    path.parent.with_suffix(".json").unlink()


def spoil_the_note(path: Path) -> None:
    path.parent.with_suffix(".json").write_text('{"train.h5": 3, "sub/val')


@pytest.mark.parametrize(
    "fault", [cut_off, replace, write_into, Path.unlink, lose_the_note, spoil_the_note], ids=lambda f: f.__name__
)
def test_a_copy_that_is_not_what_was_made_is_made_anew(store: Store, data: list[Original], fault: Any) -> None:
    path = copied(store, data).folder / "train.h5"
    path.chmod(0o600)
    fault(path)
    with contextlib.ExitStack() as stack:
        reading = stack.enter_context(open(path, "rb")) if path.exists() else None
        before = None if reading is None else reading.read()
        copies = copied(store, data)
        assert copies.size > 0
        if reading is not None and before is not None:  # another training that has this file open is not disturbed
            reading.seek(0)
            assert reading.read() == before
    assert_whole(copies, data)


def test_only_what_is_missing_is_copied(store: Store, data: list[Original]) -> None:
    copied(store, data)
    (Copies(store, data).folder / "sub/val.h5").unlink()
    assert copied(store, data).size == data[1].path.stat().st_size


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("pieces", [1, 3, 20, 30, 45, 60])
def test_an_end_during_the_copying_leaves_whole_copies_only(store: Store, data: list[Original], pieces: int) -> None:
    """As SIGTERM has it: in each of the files, and while they are read again."""
    copies = Copies(store, data)
    with copies.held(), contextlib.closing(copies.make()) as making:
        for _ in range(pieces):
            next(making)
    left = files_in(copies.folder)
    assert left <= {original.name for original in data}
    assert {original.name for original in copies.missing()} == {original.name for original in data} - left
    assert_whole(copied(store, data), data)


KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from hpcgan.data import staging
    from hpcgan.data.identity import identify
    staging.PIECE = 4096
    folder = Path(sys.argv[2])
    data = [staging.Original(p, str(p.relative_to(folder)), identify(p).fingerprint)
            for p in (folder / "train.h5", folder / "sub/val.h5")]
    store = staging.Store(sys.argv[1])
    copies = staging.Copies(store, data)
    with copies.held():
        making = copies.make()
        for _ in range(int(sys.argv[3])):
            next(making)
        os.kill(os.getpid(), signal.SIGKILL)
""")


@pytest.mark.parametrize("pieces", [5, 45])
def test_a_process_that_is_killed_while_it_copies(
    store: Store, data: list[Original], tmp_path: Path, pieces: int
) -> None:
    """Nobody waits for it, what it left half goes, and nothing of that is taken for whole."""
    argv = [sys.executable, "-c", KILLED, str(store.path.parent), str(tmp_path / "data"), str(pieces)]
    done = subprocess.run(argv, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    copies = Copies(store, data)
    assert any(name.endswith(".tmp") for name in files_in(copies.folder))
    assert len(copies.missing()) == (2 if pieces == 5 else 1)
    assert_whole(copied(store, data), data)


@pytest.mark.usefixtures("small_pieces")
def test_two_jobs_that_copy_at_the_same_time(
    store: Store, data: list[Original], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "POLL_S", 0.0)
    first, second = Copies(store, data), Copies(Store(str(store.path.parent)), data)
    with first.held(), second.held():
        copying, waiting = first.make(), second.make()
        while (progress := next(copying, None)) is not None:
            assert progress > 0
            assert next(waiting) == 0
        assert list(waiting) == []
    assert second.size == 0
    assert_whole(second, data)


def test_whoever_waits_copies_when_the_other_has_given_up(
    store: Store, data: list[Original], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "POLL_S", 0.0)
    first, second = Copies(store, data), Copies(store, data)
    with first.held(), second.held():
        copying, waiting = first.make(), second.make()
        next(copying)
        assert next(waiting) == 0
        copying.close()
        assert list(waiting)[-1] == second.size > 0
    assert_whole(second, data)


# --- what stands in the way -------------------------------------------------------------------------------


def refusal(store: Store, data: list[Original], kind: type[HpcganError]) -> str:
    """What is said of copies that cannot be made, in one line, and that names the node; nothing half is left."""
    with pytest.raises(kind) as error:
        copied(store, data)
    text = str(error.value)
    assert "\n" not in text
    assert "node n7" in text
    assert not any(name.endswith(".tmp") for name in files_in(store.path))
    return text


def on(disk: Any) -> Store:
    store = Store(str(disk.path), {"SLURMD_NODENAME": "n7"})
    store.make()
    return store


def test_data_larger_than_the_storage(disk: Any, tmp_path: Path) -> None:
    text = refusal(on(disk), originals(tmp_path / "data", numbers=1_500_000), InputError)
    assert re.fullmatch(
        rf"data.stage: {disk.path} on node n7: the data need 24 MB and 16.\d MB of 16.8 MB are free; name a folder of "
        "a larger file system, or leave data.stage out",
        text,
    )


def test_a_storage_that_is_full(disk: Any, tmp_path: Path) -> None:
    store = on(disk)
    (disk.path / "of somebody else").write_bytes(bytes(10_000_000))
    text = refusal(store, originals(tmp_path / "data", numbers=500_000), EnvironmentFailure)
    assert "the data need 8.01 MB and 6.7" in text
    assert "make room" in text


def test_a_storage_that_is_filled_meanwhile(disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "make_room", lambda self, needed: disk.fill(left=500))
    text = refusal(on(disk), originals(tmp_path / "data", numbers=500_000), EnvironmentFailure)
    assert "cannot be copied (No space left on device)" in text


def test_room_is_made_of_copies_that_nobody_reads(disk: Any, tmp_path: Path) -> None:
    store = on(disk)
    sets = [originals(tmp_path / str(seed), seed, 300_000) for seed in range(4)]  # 4.8 MB each
    old, held, newer = (copied(store, data) for data in sets[:3])
    with held.held():
        for lock, age in ((old, 3), (newer, 2)):
            os.utime(store.path / f"{lock.name}.lock", ns=(age, 100 - age))
        last = copied(store, sets[3])
        assert not old.folder.exists()
        assert_whole(held, sets[1])
        assert_whole(newer, sets[2])
        assert_whole(last, sets[3])


def test_nothing_is_removed_for_what_has_no_place_anyway(disk: Any, tmp_path: Path) -> None:
    store = on(disk)
    data = originals(tmp_path / "small", numbers=1000)
    copies = copied(store, data)
    refusal(store, originals(tmp_path / "data", numbers=1_500_000), InputError)
    assert_whole(copies, data)


def test_a_folder_that_may_only_be_read(disk: Any, data: list[Original]) -> None:
    remount = ["mount", "-o", "remount,ro", str(disk.path)]
    subprocess.run(remount, check=True, timeout=30)
    text = refusal(Store(str(disk.path / "x"), {"SLURMD_NODENAME": "n7"}), data, InputError)
    assert text == (
        f"data.stage: {disk.path}/x on node n7 cannot be written (Read-only file system); name a folder of the nodes' "
        "own storage that can be written, or leave it out"
    )


def test_a_file_in_place_of_the_folder(tmp_path: Path, data: list[Original]) -> None:
    (tmp_path / "file").write_text("")
    text = refusal(Store(str(tmp_path / "file" / "x"), {"SLURMD_NODENAME": "n7"}), data, InputError)
    assert "Not a directory" in text


def test_the_folder_of_somebody_who_lies_in_wait(tmp_path: Path, data: list[Original]) -> None:
    store = Store(str(tmp_path), {"SLURMD_NODENAME": "n7"})
    (tmp_path / "elsewhere").mkdir()
    store.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="on node n7 is not your own"):
        store.make()
    assert files_in(tmp_path / "elsewhere") == set()


def test_a_file_that_is_gone(store: Store, data: list[Original]) -> None:
    data[1].path.unlink()
    assert f"{data[1].path} on node n7 cannot be" in refusal(store, data, EnvironmentFailure)


def test_a_file_that_holds_something_else(store: Store, data: list[Original]) -> None:
    write(data[0].path, seed=77)
    assert f"{data[0].path} on node n7: holds other data than rank 0 reads" in refusal(store, data, InputError)
    assert Copies(store, data).missing() == data


@pytest.mark.usefixtures("small_pieces")
def test_a_file_that_changes_while_it_is_copied(store: Store, data: list[Original]) -> None:
    copies = Copies(store, data)

    def make() -> None:
        for done in copies.make():
            if done == 8192:
                os.utime(data[0].path)

    with copies.held(), pytest.raises(EnvironmentFailure, match=r"train\.h5 on node n7: changed while it was copied"):
        make()
    assert files_in(copies.folder) == set()


def test_a_disk_that_spoils_what_it_takes(store: Store, data: list[Original], monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiling(copy: Any) -> Any:
        return lambda piece: copy.write(bytes(piece[:-1]) + bytes([piece[-1] ^ 1]))

    monkeypatch.setattr(staging, "_into", spoiling)
    assert "is not what was read; see to that disk" in refusal(store, data, EnvironmentFailure)
    assert files_in(Copies(store, data).folder) == set()


@pytest.mark.parametrize("setting", ["$LOCAL/x", "${LOCAL}/x", "/scratch/$JOB/x"])
def test_variables_are_those_of_the_node(setting: str) -> None:
    assert staging.expanded(setting, {"LOCAL": "/scratch/7", "JOB": "7"}) == Path("/scratch/7/x")


@pytest.mark.parametrize("env", [{}, {"TMPDIR": ""}])
def test_a_variable_that_is_not_set(env: dict[str, str]) -> None:
    with pytest.raises(InputError) as error:
        Store("${TMPDIR}/x", {**env, "SLURMD_NODENAME": "n7"})
    assert str(error.value) == (
        "data.stage: $TMPDIR of '${TMPDIR}/x' is not set on node n7; name a folder, or a variable that every rank has"
    )


@pytest.mark.parametrize("setting", ["/scratch/$", "$1/x", "${TMP"])
def test_a_dollar_that_begins_no_variable(setting: str) -> None:
    with pytest.raises(InputError, match="must begin a variable"):
        Store(setting, {"TMP": "/tmp"})


def test_what_speaks_against_a_copy(store: Store, data: list[Original], monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(store.doubt(data[0].path)).endswith("is on the file system on which the data are")
    assert store.doubt(Path("/proc/self/stat")) is None
    monkeypatch.setattr(staging, "_file_system", lambda path: "lustre")
    assert "is on a file system that nodes share (lustre)" in str(store.doubt(Path("/proc/self/stat")))


def test_the_kind_of_a_file_system_is_known() -> None:
    assert staging._file_system(Path("/proc/self/stat")) == "proc"


def test_who_sees_the_same_folder_of_the_same_machine(tmp_path: Path) -> None:
    stores = [Store(str(tmp_path / name)) for name in ("a", "a", "b")]
    for store in stores:
        store.make()
    assert stores[0].place == stores[1].place != stores[2].place


# --- without locks, and at the end ------------------------------------------------------------------------


def test_a_file_system_without_locks(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(files, "_told", set())
    data = originals(tmp_path / "data")
    copies = copied(store, data)
    assert_whole(copies, data)
    assert capfd.readouterr().err.count("this file system has no locks") == 1
    assert store.remove(copies.name) is None  # nobody knows whether somebody reads it
    assert_whole(copies, data)
    assert unstage(str(store.path.parent))[1].removed == 1


def test_copies_are_removed_on_request(store: Store, tmp_path: Path) -> None:
    sets = [originals(tmp_path / str(seed), seed) for seed in range(2)]
    read, idle = (copied(store, data) for data in sets)
    with read.held():
        same, removal = unstage(str(store.path.parent))
        assert same.path == store.path
        assert (removal.removed, removal.in_use) == (1, 1)
        assert removal.size == sum(original.path.stat().st_size for original in sets[1])
        assert not idle.folder.exists()
        assert_whole(read, sets[0])
    assert unstage(str(store.path.parent))[1].removed == 1
    assert not store.path.exists()
    assert unstage(str(store.path.parent))[1] == staging.Removal(0, 0, 0)
    assert_whole(copied(store, sets[0]), sets[0])


@pytest.mark.usefixtures("small_pieces")
def test_what_is_being_copied_is_not_removed(store: Store, data: list[Original]) -> None:
    copies = Copies(store, data)
    with copies.held():
        for _ in copies.make():
            assert unstage(str(store.path.parent))[1].in_use == 1
    assert_whole(copies, data)


def test_a_store_that_is_removed_by_hand(store: Store, data: list[Original]) -> None:
    copied(store, data)
    shutil.rmtree(store.path)
    assert_whole(copied(store, data), data)


def test_a_link_in_place_of_the_store_is_refused_and_not_followed(tmp_path: Path) -> None:
    """Somebody else may put one into a folder that all may write."""
    other = tmp_path / "other"
    (other / "uv").mkdir(parents=True)
    (other / "uv.lock").touch()
    link = Store(str(tmp_path / "local")).path
    link.parent.mkdir()
    link.symlink_to(other)
    with pytest.raises(InputError, match="is not your own; look at what it is"):
        unstage(str(tmp_path / "local"))
    assert files_in(other) == {"uv.lock"}


def test_only_what_copies_are_called_is_removed(store: Store, data: list[Original]) -> None:
    copied(store, data)
    (store.path / "mine.lock").touch()
    assert unstage(str(store.path.parent))[1].removed == 1
    assert (store.path / "mine.lock").exists()
