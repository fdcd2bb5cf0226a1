"""Tests on several ranks: `@pytest.mark.world_size(n)` runs a test under mpirun, on all of n ranks.

Outside MPI, all selected tests of one world size run in one job, `mpirun -np n python -m pytest ...`, and
are then reported here one by one, with the traceback of the rank that failed. A test passes when it has
passed on every rank. Ranks write their results line by line, so that nothing is lost with a job that
crashes or hangs:

- a rank on which a test fails ends the job a moment later, since the others may wait for it in a
  collective; a rank that hangs in a test prints its stacks and ends the job after the test's time-out;
- the tests that come after it run in a new job;
- when a job ends without any progress (it does not start, or cannot collect the tests), all tests left fail
  with what it printed. A test that never ran has failed.

The time-out of a test is 600 seconds unless the mark says otherwise: `world_size(2, timeout=30)`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _pytest.reports import TestReport

from hpcgan.errors import HpcganError
from hpcgan.launch.launcher import Place, Watch, launch
from hpcgan.launch.process import JobTimeout
from hpcgan.launch.world import expected_world

RESULTS = "HPCGAN_TEST_RESULTS"  # set for the ranks: the folder they write to
DEFAULT_TIMEOUT = 600.0
START_TIME = 600.0  # for imports and MPI, on a busy machine
#: Between a failure and the end of the job, so that ranks that fail the same way can say so.
FAIL_DELAY = 2.0


def _mark(item: pytest.Item) -> tuple[int, float] | None:
    """World size and time-out of a test."""
    mark = item.get_closest_marker("world_size")
    if mark is None:
        return None
    if len(mark.args) != 1 or not isinstance(mark.args[0], int) or mark.args[0] < 1:
        raise pytest.UsageError(f"{item.nodeid}: world_size takes one positive number")
    return mark.args[0], float(mark.kwargs.get("timeout", DEFAULT_TIMEOUT))


def pytest_configure(config: pytest.Config) -> None:
    folder = os.environ.get(RESULTS)
    plugin = Rank(Path(folder)) if folder else Jobs(config)
    config.pluginmanager.register(plugin, "hpcgan-parallel")


_comms: dict[str, Any] = {}


def _comm(backend: str) -> Any:
    """The communicator of this rank over a backend, with one compute thread; one for all tests."""
    from hpcgan.comm.devices import configure_devices
    from hpcgan.comm.select import make_comm

    if backend not in _comms:
        _comms[backend] = make_comm(backend)
        with contextlib.suppress(HpcganError):  # a test before may have started TensorFlow already
            configure_devices(_comms[backend], 1)
    return _comms[backend]


@pytest.fixture
def comm() -> Any:
    """The communicator of this rank, over Horovod."""
    return _comm("horovod")


@pytest.fixture(scope="session")
def comm_of() -> Any:
    """The communicator of this rank over the backend of a name."""
    return _comm


@pytest.fixture(autouse=True)
def _unwatched() -> Iterator[None]:
    """No watchdog of a training outlives its test: it would take the next ones for a standstill."""
    yield
    for made in _comms.values():
        made.unwatch()


@pytest.fixture(params=["horovod", "mpi"])
def each_comm(request: pytest.FixtureRequest) -> Any:
    """The communicator of this rank, over each of the backends."""
    return _comm(request.param)


# --- in a rank -----------------------------------------------------------------------------------------


class Rank:
    """Writes what happens to tests on this rank, and ends the job when one fails or hangs."""

    def __init__(self, folder: Path) -> None:
        world = expected_world(os.environ)
        self.rank = 0 if world is None else world.rank
        self.results = (folder / f"rank{self.rank}.jsonl").open("a", encoding="utf-8")
        self.stacks = (folder / f"rank{self.rank}.stacks").open("w", encoding="utf-8")

    def write(self, **record: Any) -> None:
        self.results.write(json.dumps(record) + "\n")
        self.results.flush()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        mark = _mark(item)
        self.write(test=item.nodeid, event="begin")
        faulthandler.dump_traceback_later(mark[1] if mark else DEFAULT_TIMEOUT, exit=True, file=self.stacks)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.write(test=item.nodeid, event="end")

    def pytest_runtest_logreport(self, report: TestReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        self.write(
            test=report.nodeid,
            event="report",
            when=report.when,
            outcome=report.outcome,
            text=reason,
            sections=report.sections if report.failed else [],
            seconds=report.duration,
        )
        if report.failed:
            time.sleep(FAIL_DELAY)
            os._exit(1)


# --- outside -------------------------------------------------------------------------------------------


@dataclass
class RankResult:
    """One test on one rank."""

    begun: bool = False
    ended: bool = False
    failed: bool = False
    skipped: str | None = None
    text: str = ""
    seconds: float = 0.0


@dataclass
class Outcome:
    """One test on all ranks."""

    outcome: str
    text: str = ""
    seconds: float = 0.0


@dataclass
class Jobs:
    """Runs the jobs when their first test is due, and reports tests from their results."""

    config: pytest.Config
    pending: dict[int, dict[str, float]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            mark = _mark(item)
            if mark is not None:
                self.pending.setdefault(mark[0], {})[item.nodeid] = mark[1]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        mark = _mark(item)
        if mark is None:
            return None
        started = time.time()
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if item.nodeid not in self.outcomes:
            self._run(item, mark[0])
        outcome = self.outcomes[item.nodeid]
        for report in _reports(item, outcome, started):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _run(self, item: pytest.Item, size: int) -> None:
        """All pending tests of one world size, in as many jobs as it takes."""
        factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
        left = self.pending.pop(size)
        while left:
            folder = factory.mktemp(f"world{size}")
            ending = self._job(folder, size, left)
            done = judge(folder, size, list(left), ending)
            if not done:
                done = dict.fromkeys(left, Outcome("failed", f"never ran on {size} ranks: {ending}"))
            for nodeid, outcome in done.items():
                self.outcomes[nodeid] = outcome
                left.pop(nodeid)

    def _job(self, folder: Path, size: int, tests: dict[str, float]) -> str:
        """Run one job; how it ended, with the end of what it printed."""
        root = self.config.rootpath
        argv = ["-q", f"--rootdir={root}", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
        if self.config.inipath is not None:
            argv += ["-c", str(self.config.inipath)]
        if self.config.getoption("--faults", False):
            argv.append("--faults")
        argv += [str(root / nodeid) for nodeid in tests]
        output = folder / "output.txt"
        with output.open("wb") as file:
            try:
                code = launch(
                    argv,
                    size,
                    module="pytest",
                    place=Place(env={**os.environ, RESULTS: str(folder)}),
                    watch=Watch(0.0, START_TIME + sum(tests.values()), file, file, report=lambda line: None),
                )
                ending = f"the job ended with exit code {code}"
            except JobTimeout as error:
                code, ending = 1, str(error)
            except HpcganError as error:
                return str(error)
        if code in (130, 143):
            pytest.exit("interrupted while the ranks were running", returncode=2)
        text = output.read_text(errors="replace").strip()
        return f"{ending}\n{text[-4000:]}".strip()


def judge(folder: Path, size: int, tests: list[str], ending: str) -> dict[str, Outcome]:
    """What a job says about its tests; those it says nothing about are left out."""
    ranks = [_read(folder / f"rank{rank}.jsonl") for rank in range(size)]
    done = {}
    for test in tests:
        each = [results.get(test, RankResult()) for results in ranks]
        failed = [f"[rank {rank} of {size}]\n{r.text}" for rank, r in enumerate(each) if r.failed]
        seconds = max(r.seconds for r in each)
        if failed:
            done[test] = Outcome("failed", "\n".join(failed), seconds)
        elif all(r.ended for r in each):
            skipped = [r.skipped for r in each if r.skipped is not None]
            if not skipped:
                done[test] = Outcome("passed", seconds=seconds)
            elif len(skipped) == size:
                done[test] = Outcome("skipped", skipped[0], seconds)
            else:
                done[test] = Outcome("failed", f"skipped on {len(skipped)} of {size} ranks: {skipped[0]}", seconds)
        elif any(r.begun for r in each):
            where = [
                f"[rank {rank} of {size}] "
                + ("passed" if r.ended else "was in it" if r.begun else "had not come to it")
                + (f"\n{stacks}" if (stacks := _stacks(folder, rank)) and not r.ended else "")
                for rank, r in enumerate(each)
            ]
            done[test] = Outcome("failed", "\n".join([*where, ending]), seconds)
    return done


def _stacks(folder: Path, rank: int) -> str:
    path = folder / f"rank{rank}.stacks"
    return path.read_text(errors="replace").strip() if path.exists() else ""


def _read(path: Path) -> dict[str, RankResult]:
    """The results of one rank; a last line that was not written to its end does not count."""
    results: dict[str, RankResult] = {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    for line in lines:
        record = json.loads(line)
        result = results.setdefault(record["test"], RankResult())
        if record["event"] == "begin":
            result.begun = True
        elif record["event"] == "end":
            result.ended = True
        else:
            result.seconds += record["seconds"]
            if record["outcome"] == "failed":
                result.failed = True
                sections = "".join(f"\n--- {name} ---\n{text}" for name, text in record["sections"])
                result.text += f"{record['text']}{sections}\n"
            elif record["outcome"] == "skipped":
                result.skipped = record["text"]
    return results


def _reports(item: pytest.Item, outcome: Outcome, started: float) -> Iterator[TestReport]:
    """Set-up, call and tear-down as pytest reports them of a test it has run itself."""
    for when in ("setup", "call", "teardown"):
        longrepr: Any = None
        result: Any = "passed"
        seconds = 0.0
        if when == "call":
            result, seconds = outcome.outcome, outcome.seconds
            if result == "failed":
                longrepr = outcome.text
            elif result == "skipped":
                longrepr = (str(item.path), item.location[1] or 0, outcome.text)
        yield TestReport(
            item.nodeid,
            item.location,
            dict.fromkeys(item.keywords, 1),
            result,
            longrepr,
            when,  # type: ignore[arg-type]
            duration=seconds,
            start=started,
            stop=time.time(),
        )
