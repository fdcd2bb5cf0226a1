"""tools/matrix.sh: which TensorFlows it tries, and how it ends. Neither environments nor tests are real here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Makes an "environment" whose tests fail on one version, and cannot make that of another.
SETUP = """#!/bin/bash
[ "$*" = "train dev" ] || exit 1
[ "$HPCGAN_TF" != 2.99.0 ] || { echo "setup: installing packages failed" >&2; exit 1; }
mkdir -p "$HPCGAN_VENV/bin"
cat >"$HPCGAN_VENV/bin/python" <<'PY'
#!/bin/bash
case "$*" in
    -c*) echo 3.11.7 ;;
    *"tests/single")
        case "$0" in *2.18*) echo "FAILED test_x"; echo "== 1 failed =="; exit 1 ;; esac
        echo "== 9 passed ==" ;;
esac
PY
chmod +x "$HPCGAN_VENV/bin/python"
"""


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/matrix.sh", tmp_path / "tools")
    (tmp_path / "tools/setup.sh").write_text(SETUP)
    (tmp_path / "tools/setup.sh").chmod(0o755)
    for version in ("2.15.1", "2.18.1"):
        (tmp_path / f"constraints-tf{version}.txt").write_text("")
    return tmp_path


def matrix(tree, *versions):
    env = {name: value for name, value in os.environ.items() if not name.startswith("HPCGAN_")}
    done = subprocess.run([tree / "tools/matrix.sh", *versions], env=env, capture_output=True, text=True, timeout=60)
    table = done.stdout.split("\n\n")[1].splitlines()
    return done, [line.split(maxsplit=4) for line in table[1:]]


def test_every_version_with_pins_is_tried_and_one_that_fails_fails_all(tree):
    done, rows = matrix(tree)
    assert done.returncode == 1
    assert "FAILED test_x" in done.stdout
    assert [(version, python, result.strip()) for version, python, *_, result in rows] == [
        ("2.15.1", "3.11.7", "9 passed"),
        ("2.18.1", "3.11.7", "1 failed"),
    ]
    assert (tree / ".venvs/tf2.18.1.log").read_text().startswith("FAILED")


def test_versions_that_are_named(tree):
    done, rows = matrix(tree, "2.15.1", "2.21.0")
    assert done.returncode == 0
    assert [row[0] for row in rows] == ["2.15.1", "2.21.0"]
    done, rows = matrix(tree, "2.99.0", "2.15.1")
    assert done.returncode == 1
    assert rows[0][-1].strip() == "no environment: setup: installing packages failed"
    assert rows[1][-1].strip() == "9 passed"
