"""Generated data sets: bytes, splits, masses, and what interruptions leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.data.generators import make_data_set
from hpcgan.data.storage import SPLITS, split_sizes
from hpcgan.data.workers import ProgressDisplay
from hpcgan.errors import InputError
from hpcgan.physics.detector import ATLAS
from hpcgan.physics.pythia import MinBiasProcess, QcdProcess, RpvProcess
from hpcgan.problems.detector_images import generate as module
from hpcgan.problems.detector_images.files import open_images, pack, validate
from hpcgan.problems.detector_images.generate import Block, Events, make_block

LIGHT, HEAVY = RpvProcess(1400, 850), RpvProcess(1800, 250)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_EVENTS", 8)


@pytest.fixture(scope="module")
def two_masses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_EVENTS", 8)
        assert make_data_set(Events([LIGHT, HEAVY], 21, seed=3), folder, jobs=1)
    return folder


def test_bytes_do_not_depend_on_the_jobs(two_masses: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    assert make_data_set(
        Events([LIGHT, HEAVY], 21, seed=3), tmp_path, jobs=2, progress=lambda *done: steps.append(done)
    )
    for split in SPLITS:
        assert (tmp_path / f"{split}.h5").read_bytes() == (two_masses / f"{split}.h5").read_bytes()
    assert steps[-1] == (21, 21)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_files_are_valid_and_complete(two_masses: Path) -> None:
    for split, size in split_sizes(21).items():
        validate(two_masses / f"{split}.h5")
        with open_images(two_masses / f"{split}.h5") as file:
            assert file.n == size
            assert file.column("y") is not None
            assert (file.column("y") == 1).all()
    assert sorted(path.name for path in two_masses.iterdir()) == ["test.h5", "train.h5", "val.h5"]


def test_masses_take_turns(two_masses: Path) -> None:
    masses = []
    for split in SPLITS:
        with open_images(two_masses / f"{split}.h5") as file:
            assert file.column("mGlu") is not None
            assert file.column("mNeu") is not None
            masses += list(zip(file.column("mGlu").tolist(), file.column("mNeu").tolist(), strict=True))
    assert masses == [(1400, 850), (1800, 250)] * 10 + [(1400, 850)]


def test_events_are_those_of_their_blocks(two_masses: Path) -> None:
    """Event i of the data set is event i // 2 of process i % 2, whatever it is mixed with."""
    images = np.concatenate([open_images(two_masses / f"{split}.h5").read() for split in SPLITS])
    tables = Events([LIGHT], 21, 3).tasks()[0].tables
    second = make_block(Block(HEAVY, 3, 1, 2, ATLAS, tables))
    assert pack(images[17:20:2]) == second


def test_events_are_all_different(two_masses: Path) -> None:
    images = np.concatenate([open_images(two_masses / f"{split}.h5").read() for split in SPLITS])
    assert len({image.tobytes() for image in images}) == 21


def test_attributes_tell_everything(two_masses: Path) -> None:
    with h5py.File(two_masses / "val.h5") as file:
        attributes = dict(file["all_events"].attrs)
    assert attributes["units"] == "MeV"
    assert attributes["axes"] == "eta, phi"
    assert attributes["process"] == "rpv"
    assert attributes["m_gluino_gev"].tolist() == [1400, 1800]
    assert attributes["ecm_gev"] == 13000
    assert "1000021" in attributes["slha"]
    assert attributes["generator"].startswith("PYTHIA 8.")
    settings = json.loads(attributes["settings"])
    assert settings["seed"] == 3
    assert settings["events"] == 21
    assert settings["detector"]["bz"] == 2.0
    assert "SUSY:gg2gluinogluino = on" in settings["pythia_settings"]


def test_seed_changes_events_and_same_settings_do_nothing(two_masses: Path, tmp_path: Path) -> None:
    before = (two_masses / "train.h5").stat().st_mtime_ns
    assert not make_data_set(Events([LIGHT, HEAVY], 21, seed=3), two_masses)
    assert (two_masses / "train.h5").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="seed: 3, asked for 4"):
        make_data_set(Events([LIGHT, HEAVY], 21, seed=4), two_masses)
    make_data_set(Events([LIGHT], 5, seed=4), tmp_path)
    with open_images(tmp_path / "train.h5") as one, open_images(two_masses / "train.h5") as other:
        assert not np.array_equal(one.read([0]), other.read([0]))


def test_images_look_like_the_process(tmp_path: Path) -> None:
    make_data_set(Events([QcdProcess(500)], 10, seed=1), tmp_path)
    with open_images(tmp_path / "train.h5") as file:
        images = file.read()
        assert file.column("y") is not None
        assert (file.column("y") == 0).all()
        assert file.column("mGlu") is not None
        assert (file.column("mGlu") == 0).all()
    energy = images.sum(axis=(1, 2))
    assert 0.8e6 < energy.mean() < 4e6  # two jets of 500 GeV or more, MeV
    assert 0.005 < (images > 0).mean() < 0.06


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"events": 9}, "events = 9: at least 10"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**63}, "seed"),
        ({"jobs": 0}, "jobs = 0"),
        ({"jobs": 10**6}, "jobs"),
        ({"processes": []}, "no process"),
        ({"processes": [LIGHT, LIGHT]}, "rpv 1400, 850: named twice"),
        ({"processes": [LIGHT, QcdProcess()]}, "one kind"),
    ],
)
def test_bad_arguments(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arguments = {"processes": [LIGHT, HEAVY], "events": 21, "seed": 1, "jobs": 1, **changes}
    events = Events(arguments["processes"], arguments["events"], arguments["seed"])
    with pytest.raises(InputError, match=message):
        make_data_set(events, tmp_path / "out", arguments["jobs"])
    assert not (tmp_path / "out").exists()


@given(st.integers(1, 10_000), st.integers(1, 40))
def test_shares_add_up(events: int, parts: int) -> None:
    shares = module._shares(events, parts)
    assert sum(shares) == events
    assert max(shares) - min(shares) <= 1
    assert shares == [len(range(part, events, parts)) for part in range(parts)]


def test_seeds_of_blocks_differ() -> None:
    blocks = [
        Block(process, seed, index, 1, ATLAS)
        for process in (LIGHT, HEAVY, QcdProcess(), MinBiasProcess())
        for seed in range(20)
        for index in range(50)
    ]
    seeds = [block.seeds()[0] for block in blocks]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 1
    assert len({block.seeds()[1].random() for block in blocks}) == len(blocks)
    assert LIGHT != HEAVY
    assert Block(LIGHT, 3, 0, 1, ATLAS).seeds()[0] == Block(RpvProcess(1400.0, 850.0), 3, 0, 99, ATLAS).seeds()[0]


# --- interruptions, in a process of their own ----------------------------------------------------------------------

SCRIPT = """
import sys
from hpcgan.data.generators import make_data_set
from hpcgan.problems.detector_images.generate import Events
from hpcgan.physics.pythia import RpvProcess
if __name__ == "__main__":
    make_data_set(Events([RpvProcess(1400, 850)], 100_000), sys.argv[1], jobs=int(sys.argv[2]),
                  progress=lambda done, total: print(done, flush=True))
"""


def start(tmp_path: Path, jobs: int) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "out"), str(jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0  # events are being made
    return process


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (entry / "cmdline").read_text()
            except (OSError, IndexError):
                continue
            if parent == pid and "spawn_main" in command:
                found.append(int(entry.name))
    return found


def gone(pids: list[int], seconds: float = 120) -> bool:
    """Whether processes end (a zombie counts: nobody may be left to collect it here)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = []
        for pid in pids:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if state not in "ZX":
                alive.append(pid)
        if not alive:
            return True
        time.sleep(0.1)
    return False


def test_killed_parent_leaves_nothing_whole_and_no_workers(tmp_path: Path) -> None:
    process = start(tmp_path, 2)
    workers = children_of(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert gone(workers)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{split}.h5.part" for split in sorted(SPLITS)
    ]
    for part in (tmp_path / "out").iterdir():
        with pytest.raises(InputError):
            open_images(part)
    make_data_set(Events([LIGHT], 5), tmp_path / "out")  # and the folder can be used again
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.h5", "train.h5", "val.h5"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_leaves_nothing(tmp_path: Path, jobs: int) -> None:
    process = start(tmp_path, jobs)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert not (tmp_path / "out").exists()
    assert gone(workers)


def test_a_killed_worker_is_an_error(tmp_path: Path) -> None:
    process = start(tmp_path, 2)
    workers = children_of(process.pid)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "HpcganError: a worker process ended by signal 9 (SIGKILL)" in errors
    assert not (tmp_path / "out").exists()
    assert gone(workers)


def test_plain_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay("making", interval=0.0) as progress:
        progress(10, 100)
        time.sleep(0.01)
        progress(100, 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("making: 10/100 events, ")
    assert "events/s" in lines[1]
    with ProgressDisplay("making", interval=60) as progress:
        for done in range(1, 50):
            progress(done, 50)
    assert capsys.readouterr().err == ""
