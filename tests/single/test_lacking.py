"""What a machine lacks skips a test, with the reason, and fails it in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODULE = """
import needs
import pytest

def test_package():
    pytest.importorskip("no_such_package")

def test_optional():
    pytest.importorskip("prdc_of_others", reason="could not import 'prdc'")

def test_machine():
    needs.lacking("no root file system for the tests: not installed: debootstrap")
"""


@pytest.mark.parametrize(("ci", "failed"), [("", set()), ("true", {"test_package", "test_machine", "test_whole.py"})])
def test_what_is_missing_is_skipped_and_fails_in_ci(tmp_path, ci, failed):
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "test_parts.py").write_text(MODULE)
    (tmp_path / "test_whole.py").write_text("import needs\nneeds.found('no_such_package')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rsfE", "--import-mode=importlib", "-p", "no:cacheprovider"]
    env = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "CI": ci}
    done = subprocess.run(
        [*command, "--continue-on-collection-errors", f"--rootdir={tmp_path}", str(tmp_path)],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = ("test_package", "test_optional", "test_machine", "test_whole.py")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert {name for name in names for line in lines if name in line} == failed, done.stdout
    assert done.stdout.count("SKIPPED") == 4 - len(failed)
    if ci:
        assert "CI lacks no_such_package, which `make setup-dev` installs" in done.stdout
