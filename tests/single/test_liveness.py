import json
import os
import subprocess
import sys
import time

import pytest

from hpcgan.system import liveness
from hpcgan.system.liveness import Heart, Identity, Watcher, sign, watch


def changed(**fields):
    return Identity(**{**Identity.own().plain(), **fields})


def child(*command):
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def identity_of(pid):
    return changed(pid=pid, started=liveness._started(str(pid)))


def test_this_process_lives():
    mine = Identity.own()
    assert mine.lives() is True
    assert Identity.read(mine.plain()) == mine
    assert str(mine) == f"process {os.getpid()} on {mine.host}"


def test_a_process_that_has_ended_does_not_not_even_as_a_zombie():
    process = child("cat")
    other = identity_of(process.pid)
    assert other.lives() is True
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie from here on
    assert other.lives() is False
    process.wait()
    assert other.lives() is False


def test_a_process_that_is_stopped_lives():
    process = child("cat")
    try:
        other = identity_of(process.pid)
        process.send_signal(19)
        assert other.lives() is True
    finally:
        process.kill()
        process.communicate()


def test_a_later_process_of_the_same_number_is_another():
    assert changed(started="1").lives() is False


@pytest.mark.parametrize("field", ["boot", "space"])
@pytest.mark.parametrize("value", ["another", ""])
def test_numbers_mean_nothing_in_another_kernel_or_namespace(field, value):
    other = changed(**{field: value})
    assert not other.comparable()
    assert other.lives() is None


def test_nothing_is_compared_where_the_own_place_is_not_known(monkeypatch):
    mine = Identity.own()
    for unknown in ("_boot", "_space"):
        with monkeypatch.context() as patched:
            patched.setattr(liveness, unknown, lambda: "")
            assert Identity.own().lives() is None
            assert mine.lives() is None


def test_a_process_that_proc_hides_is_not_taken_for_dead(monkeypatch):
    mine = Identity.own()
    monkeypatch.setattr(liveness, "_started", lambda pid: None)

    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert mine.lives() is None


@pytest.mark.parametrize(
    "plain", [None, {}, [], "x", 7, {"pid": 1}, {"host": 1, "boot": "", "space": "", "pid": 1, "started": ""}]
)
def test_what_names_no_process(plain):
    assert Identity.read(plain) is None


@pytest.mark.parametrize("pid", [0, -1, "1", None, 1.0])
def test_what_is_no_number_of_a_process(pid):
    assert Identity.read({**Identity.own().plain(), "pid": pid}) is None


IN_ITS_OWN = """
import json, sys
from hpcgan.system.liveness import Identity
print(json.dumps([Identity(**json.loads(sys.argv[1])).lives(), Identity.own().plain(), Identity.own().lives()]))
"""


@pytest.mark.parametrize(
    ("options", "seen"),
    [(["--pid", "--fork", "--mount-proc"], True), (["--pid", "--fork"], None)],
    ids=["with its own /proc", "with the /proc of another"],
)
def test_in_another_namespace_of_the_same_kernel(options, seen):
    """With the same host name. Neither sees the other; without a /proc of its own one knows nothing at all."""
    mine = json.dumps(Identity.own().plain())
    done = subprocess.run(
        ["unshare", *options, sys.executable, "-c", IN_ITS_OWN, mine], capture_output=True, text=True, timeout=120
    )
    if "Operation not permitted" in done.stderr:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    of_mine, plain, of_itself = json.loads(done.stdout)
    assert of_mine is None
    assert of_itself is seen
    assert Identity.read(plain).lives() is None


def test_a_heart_changes_its_file_with_every_beat_and_takes_it_along(tmp_path, monkeypatch):
    monkeypatch.setattr(liveness, "BEAT_S", 0.01)
    path = tmp_path / "heart"
    heart = Heart(path)
    for _ in range(3):
        assert watch(lambda: sign(path)[0], sign(path)[0])  # the content alone: times of a file may be coarse
    heart.stop()
    assert not path.exists()


def test_a_heart_beats_on_a_full_disk(disk, monkeypatch):
    monkeypatch.setattr(liveness, "BEAT_S", 0.01)
    heart = Heart(disk.path / "heart")
    disk.fill()
    assert watch(lambda: sign(disk.path / "heart"), sign(disk.path / "heart"))
    heart.stop()
    disk.empty()


def test_a_heart_outlives_a_while_without_a_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(liveness, "BEAT_S", 0.01)
    folder = tmp_path / "mounted"
    folder.mkdir()
    heart = Heart(folder / "heart")
    os.rename(folder, tmp_path / "away")
    assert sign(folder / "heart") is None
    os.rename(tmp_path / "away", folder)
    assert watch(lambda: sign(folder / "heart"), sign(folder / "heart"))
    heart.stop()


def test_a_heart_stops_when_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(liveness, "BEAT_S", 0.01)
    heart = Heart(tmp_path / "heart", lambda: False)
    heart._thread.join(timeout=60)
    assert not heart._thread.is_alive()
    heart.stop()


def test_what_does_not_change_is_watched_to_the_end(monkeypatch):
    monkeypatch.setattr(liveness, "WATCH_S", 0.2)
    looks = []
    assert not watch(lambda: looks.append(1), None)
    assert len(looks) == 10


def test_a_watcher_that_was_stopped_itself_goes_on_to_watch(monkeypatch):
    """A machine that sleeps stops both: the time that has passed says nothing of the other."""
    monkeypatch.setattr(liveness, "WATCH_S", 10.0)
    looks, clock = [], [0.0]

    def sleep(seconds):
        clock[0] += 3600.0

    monkeypatch.setattr(liveness.time, "sleep", sleep)
    monkeypatch.setattr(liveness.time, "monotonic", lambda: clock[0])
    assert watch(lambda: looks.append(1) or len(looks) > 5, False)
    assert len(looks) == 6


def test_first_impressions(tmp_path, monkeypatch):
    path = tmp_path / "heart"
    assert Watcher().lives(path)  # not begun yet, perhaps
    path.write_bytes(b"1")
    assert Watcher().lives(path)
    for off in (-liveness.LOST_S / 2, 0.0, 3600.0):
        os.utime(path, (time.time() + off,) * 2)
        assert Watcher().lives(path)
    os.utime(path, (time.time() - 2 * liveness.LOST_S,) * 2)
    assert not Watcher().lives(path)
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    assert Watcher().lives(path)  # nothing can be held against it
    assert os.listdir(tmp_path) == ["heart"]
