"""Settings of all tests."""

from __future__ import annotations

import base64
import functools
import gc
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import one_rank
import pytest
from hypothesis import HealthCheck, settings
from warm import Warm, warm_networks

# Of the millions of objects that imports make, hardly one is garbage, and looking for it takes long.
gc.set_threshold(100_000, 50, 50)

# Before TensorFlow or matplotlib are imported by a test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

# A shell that starts the tests in the background, or nohup, has them ignore these, and so would all they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Other processes may share the cores, so an example's duration says nothing; failures must reproduce.
for name, examples in (("quick", 30), ("thorough", 300)):
    settings.register_profile(
        name,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
        max_examples=examples,
    )
settings.load_profile("quick")

PARALLEL = Path(__file__).parent / "parallel"
#: What takes longest begins first, or one process would be left with it in the end.
LONGEST = (
    *("tests/parallel", "test_sweep.py", "test_faults.py", "test_cluster.py", "test_documented_commands.py"),
    *("test_notebooks.py", "test_chaos.py", "test_file_systems.py", "test_export.py", "test_train_command.py"),
    *("test_scaling_command.py", "test_onnx.py", "test_jupyter.py", "test_plugin.py", "test_without_horovod.py"),
    *("test_attempt.py", "test_calogan_problem.py", "test_pretrained.py", "test_arm_problem.py"),
)


@pytest.fixture
def eager() -> Iterator[None]:
    """TensorFlow without graphs."""
    with one_rank.eagerly():
        yield


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Trainings of this module's tests share what is compiled."""
    with warm_networks() as made:
        yield made


@pytest.fixture
def cold(warm: Warm) -> Iterator[None]:
    """All of them but those of this test."""
    warm.cold = True
    yield
    warm.cold = False


#: A PNG of one pixel.
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not turned into pictures, half of what a report takes: for tests that look at none."""
    pytest.importorskip("matplotlib")
    from hpcgan.report import plots

    monkeypatch.setattr(plots, "png", lambda figure, dpi=130: DOT)


@pytest.fixture
def few_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """`hpcgan evaluate` makes its null bands of 20 comparisons instead of 2,000."""
    from hpcgan.evaluation import compare

    options = functools.partial(compare.EvaluationOptions, repetitions=20)
    monkeypatch.setattr(compare, "EvaluationOptions", options)


@pytest.fixture
def find_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that tests start find the trackers of `trackers.py`."""
    tests = Path(__file__).resolve().parent
    path = os.pathsep.join([str(tests), str(tests.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)


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


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--faults"):
        settings.load_profile("thorough")
        one_rank.thorough = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes (pytest-xdist)
        items.sort(key=lambda item: _place(item.nodeid))
    if not config.getoption("--faults"):
        left_out = [item for item in items if item.get_closest_marker("faults")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    # The plugin that starts ranks is tests/parallel/conftest.py: elsewhere the mark would do nothing and
    # the test would pass on one rank.
    for item in items:
        if item.get_closest_marker("world_size") and PARALLEL not in item.path.parents:
            raise pytest.UsageError(f"{item.nodeid}: tests with world_size belong in tests/parallel")


def _place(nodeid: str) -> int:
    """Of a test's file in the order of their beginnings."""
    path = nodeid.split("::")[0]
    return next((i for i, long in enumerate(LONGEST) if long in path), len(LONGEST))


#: Packages that no extra brings, which a test compares with where somebody has installed them.
COMPARED_WITH = ("prdc", "sklearn")


def lacks(longrepr: Any) -> str | None:
    """The package that a test was skipped for the want of, where `make test` installs it."""
    reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    match = re.search(r"could not import '([\w.]+)'|\bno ([a-zA-Z]\w+)$", reason)
    name = (match[1] or match[2]).split(".")[0] if match else None
    return None if name in COMPARED_WITH else name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """In CI nothing that was to be installed may be missing: there, a test that is skipped for it fails."""
    return fail_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """As of tests, of modules that are skipped as a whole."""
    return fail_in_ci((yield))


def fail_in_ci(report: Any) -> Any:
    """The report, which is a failure where CI lacks a package."""
    if os.environ.get("CI") and report.outcome == "skipped" and (name := lacks(report.longrepr)) is not None:
        report.outcome, report.longrepr = "failed", f"CI lacks {name}, which `make setup-dev` installs"
    return report


def pytest_collection_finish() -> None:
    gc.freeze()  # what is there now stays


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, one process has all of tests/parallel: it starts one job for each number of ranks."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "tests/parallel" if nodeid.startswith("tests/parallel/") else nodeid.split("::")[0]

    config.option.loadscopereorder = False
    return Scheduling(config, log)
