"""The plugin that runs tests on several ranks: it must find every way in which a test can fail there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hpcgan.errors import HpcganError
from hpcgan.launch.mpirun import find_mpirun

ROOT = Path(__file__).resolve().parents[2]
try:
    find_mpirun()
except HpcganError as error:
    pytest.skip(str(error), allow_module_level=True)

TESTS = """
    import os, signal, time
    import pytest
    from hpcgan.launch.world import expected_world

    def rank():
        return expected_world(os.environ).rank

    @pytest.mark.world_size(2)
    def test_passes():
        assert expected_world(os.environ).size == 2

    @pytest.mark.world_size(2)
    @pytest.mark.parametrize("where", [0, 1])
    def test_fails_on_one(where):
        print(f"printed on rank {rank()}")
        value = 41 + (rank() != where)
        assert value == 42

    @pytest.mark.world_size(2, timeout=2)
    def test_hangs_on_one():
        while rank() == 1:
            time.sleep(0.1)

    @pytest.mark.world_size(2)
    def test_dies_on_one():
        if rank() == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(30)

    @pytest.mark.world_size(2)
    def test_leaves_silently():
        os._exit(0)

    @pytest.mark.world_size(2)
    def test_skipped_everywhere():
        pytest.skip("not today")

    @pytest.mark.world_size(2)
    def test_skipped_on_one():
        if rank() == 1:
            pytest.skip("only here")

    @pytest.fixture
    def broken():
        raise RuntimeError("no fixture")

    @pytest.mark.world_size(2)
    def test_setup_fails(broken):
        pass

    @pytest.mark.world_size(3)
    def test_three():
        assert expected_world(os.environ).size == 3

    @pytest.mark.world_size(2)
    def test_comes_last():
        pass

    def test_without_ranks():
        assert expected_world(os.environ) is None
"""


def run(folder: Path, text: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((ROOT / "tests/parallel/conftest.py").read_text())
    (folder / "test_it.py").write_text(textwrap.dedent(text))
    (folder / "pytest.ini").write_text(
        "[pytest]\naddopts = --disable-plugin-autoload\nmarkers =\n    world_size(n): ranks\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *args, str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(tmp_path_factory.mktemp("inner"), TESTS)


def outcome(done: subprocess.CompletedProcess[str], name: str) -> str:
    found = re.search(rf"^(PASSED|FAILED|ERROR) \S*::{re.escape(name)}(?: |$)", done.stdout, re.MULTILINE)
    return found[1] if found else "none"


def section(done: subprocess.CompletedProcess[str], name: str) -> str:
    """What pytest prints about a failed test."""
    found = re.search(rf"^_+ {re.escape(name)} _+\n(.*?)(?=^_+ \S+ _+\n|^=+ )", done.stdout, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def test_tests_pass_when_all_ranks_do(done):
    for name in ("test_passes", "test_three", "test_comes_last", "test_without_ranks"):
        assert outcome(done, name) == "PASSED", done.stdout
    assert done.returncode == 1
    assert "7 failed, 4 passed, 1 skipped" in done.stdout


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_on_one_rank_is_shown_with_its_traceback(done, rank):
    assert outcome(done, f"test_fails_on_one[{rank}]") == "FAILED"
    text = section(done, f"test_fails_on_one[{rank}]")
    assert f"[rank {rank} of 2]" in text
    assert f"[rank {1 - rank} of 2]" not in text
    assert "assert 41 == 42" in text
    assert f"printed on rank {rank}" in text


def test_a_hang_is_a_failure_that_shows_where(done):
    assert outcome(done, "test_hangs_on_one") == "FAILED"
    text = section(done, "test_hangs_on_one")
    assert "[rank 1 of 2] was in it" in text
    assert "in test_hangs_on_one" in text


@pytest.mark.parametrize("name", ["test_dies_on_one", "test_leaves_silently"])
def test_a_rank_that_goes_away_is_a_failure(done, name):
    assert outcome(done, name) == "FAILED"
    assert "was in it" in section(done, name)


def test_a_failing_fixture_is_a_failure(done):
    assert outcome(done, "test_setup_fails") == "FAILED"
    assert "no fixture" in section(done, "test_setup_fails")


def test_skipped_counts_only_when_all_ranks_skip(done):
    assert outcome(done, "test_skipped_on_one") == "FAILED"
    assert "skipped on 1 of 2 ranks" in section(done, "test_skipped_on_one")
    assert re.search(r"^SKIPPED .*not today", done.stdout, re.MULTILINE)


def test_tests_that_never_run_fail(tmp_path):
    text = """
        import os
        import pytest
        from hpcgan.launch.world import expected_world

        if expected_world(os.environ) is not None:
            raise ImportError("only outside")

        @pytest.mark.world_size(2)
        def test_one(): pass

        @pytest.mark.world_size(2)
        def test_two(): pass
    """
    done = run(tmp_path, text)
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    assert "never ran on 2 ranks" in done.stdout
    assert "ImportError: only outside" in done.stdout


def test_no_mpirun_is_a_failure(tmp_path):
    text = """
        import pytest

        @pytest.mark.world_size(2)
        def test_one(): pass
    """
    done = run(tmp_path, text, HPCGAN_MPIRUN=str(tmp_path / "absent"))
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "absent cannot be run" in done.stdout


def test_the_mark_needs_a_number(tmp_path):
    done = run(tmp_path, "import pytest\n@pytest.mark.world_size\ndef test_one(): pass\n")
    assert done.returncode != 0
    assert "world_size takes one positive number" in done.stdout + done.stderr
