"""What killed attempts and killed jobs of MPI leave behind is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hpcgan.launch import scratch
from hpcgan.runs import leftovers
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease

OLD = 3600.0


def age(path, seconds):
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_the_next_attempt_removes_what_killed_ones_have_left(tmp_path):
    run = RunDirectory(tmp_path)
    for folder in (run.attempts, run.samples, run.commands):
        folder.mkdir()
    (run.attempts / "0001.json").write_text("{}")
    litter = [
        run.attempts / "0001.beat",
        run.path / ".config.yaml.123-0123abcd.tmp",
        run.attempts / ".0002.json.77-0123abcd.tmp",
        run.samples / ".epoch-0001.h5.4-0123abcd.tmp",
        run.attempts / ".0001.beat.0123abcd.tmp",  # of who looked whether it beats
    ]
    for path in litter:
        path.write_text("")
        age(path, OLD)
    words = run.attempts / "stalled-0123456789abcdef"
    words.mkdir()
    (words / "rank-0.json").write_text("{}")
    age(words, OLD)
    stay = [run.path / ".data.json.5-0123abcd.tmp", run.path / "notes.tmp", run.path / ".mine", run.commands / "c.json"]
    for path in stay:
        path.write_text("")
    for path in stay[1:]:  # the first one is being written
        age(path, OLD)
    leftovers_before = {path.name for path in stay}
    (run.attempts / "0001.json").write_text('{"state": "failed"}')
    lease = Lease(run)
    assert lease.attempt == 2
    assert not any(path.exists() for path in [*litter, words])
    assert {path.name for path in stay if path.exists()} == leftovers_before
    assert (run.attempts / "0002.beat").is_file()  # its own
    lease.release("done")
    assert sorted(path.name for path in run.attempts.iterdir()) == ["0001.json", "0002.json"]


def test_a_folder_that_cannot_be_read_is_no_error(tmp_path):
    leftovers.remove(RunDirectory(tmp_path / "nothing"), 1)


def test_a_job_of_mpi_has_a_folder_that_goes_with_it(tmp_path):
    with scratch.scratch(tmp_path) as variables:
        assert set(variables) == {"PRTE_MCA_prte_tmpdir_base", "OMPI_MCA_btl_sm_backing_directory"}
        (folder,) = tmp_path.iterdir()
        assert set(variables.values()) == {str(folder)}
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "sm_segment.0").write_text("x")
        assert scratch.sweep(tmp_path) == []  # somebody holds it
        with scratch.scratch(tmp_path):  # beside it
            assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_launcher_is_removed_by_the_next(tmp_path):
    program = (
        "import os, signal; from pathlib import Path; from hpcgan.launch.scratch import scratch\n"
        f"with scratch(Path({str(tmp_path)!r})) as v:\n"
        "    Path(v['PRTE_MCA_prte_tmpdir_base'], 'ompi.1').mkdir()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "ompi.1").is_dir()
    with scratch.scratch(tmp_path) as variables:
        assert not left.exists()
        assert variables
    (tmp_path / "mine").mkdir()
    assert scratch.sweep(tmp_path) == []


def test_without_a_place_mpi_does_as_it_always_does(tmp_path, monkeypatch):
    with scratch.scratch(tmp_path / "nothing") as variables:
        assert variables == {}
    monkeypatch.setattr("hpcgan.system.files._lock", lambda *_: 38)  # ENOSYS: a file system without locks
    with scratch.scratch(tmp_path) as variables:
        assert variables == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["hpcgan-mpi-file", "hpcgan-mpi-folder"])
def test_what_looks_like_such_a_folder_ends_nothing(tmp_path, name):
    place = tmp_path / name
    if name.endswith("file"):
        place.write_text("")
    else:
        place.mkdir()
    removed = scratch.sweep(tmp_path)
    assert removed == ([] if name.endswith("file") else [place])
