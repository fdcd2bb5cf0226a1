"""Settings of all tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before TensorFlow or matplotlib are imported by a test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HPCGAN_TUNED", "off")  # what was measured on this machine is not what tests are about

# A shell that starts the tests in the background, or nohup, has them ignore these, and so would all they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Other processes may share the cores, so an example's duration says nothing; failures must reproduce.
settings.register_profile(
    "hpcgan", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("hpcgan")

PARALLEL = Path(__file__).parent / "parallel"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 16 MB, which takes the rights to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "hpcgan-tests", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"cannot mount a small disk: {done.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class SmallDisk:
    """A file system that can be filled.

    Parameters
    ----------
    path : Path
        Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, left: int = 0) -> None:
        """Leave this number of pages (4 KiB) free."""
        free = shutil.disk_usage(self.path).free - 4096 * left
        with open(self._filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free)

    def empty(self) -> None:
        """Take the filler away."""
        self._filler.unlink()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="also the tests marked `faults` (make test-faults)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--faults"):
        left_out = [item for item in items if item.get_closest_marker("faults")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    # The plugin that starts ranks is tests/parallel/conftest.py: elsewhere the mark would do nothing and
    # the test would pass on one rank.
    for item in items:
        if item.get_closest_marker("world_size") and PARALLEL not in item.path.parents:
            raise pytest.UsageError(f"{item.nodeid}: tests with world_size belong in tests/parallel")
