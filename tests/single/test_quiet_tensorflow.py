"""What TensorFlow says of itself when it is imported is not heard, and all else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHATTER = """
import os, sys
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
os.write(2, b"I0000 00:00:1795974671.703506   16790 port.cc:153] oneDNN custom operations are on.\\n")
os.write(2, b"E0000 no such device\\n")
print("a warning", file=sys.stderr)
"""
IMPORT = "from hpcgan.system.console import quiet_tensorflow; quiet_tensorflow(); import tensorflow; "


def importing(folder, package, code="", **env):
    """A process that imports a package by the name of TensorFlow."""
    (folder / "tensorflow").mkdir()
    (folder / "tensorflow/__init__.py").write_text(package)
    variables = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", IMPORT + code],
        env={**variables, "PYTHONPATH": f"{folder}:{ROOT}", **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_its_chatter_is_left_out_and_nothing_else(tmp_path):
    done = importing(
        tmp_path, CHATTER, "import sys; print('after', file=sys.stderr); print(tensorflow.__spec__.loader)"
    )
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["E0000 no such device", "a warning", "after"]
    assert "SourceFileLoader" in done.stdout


def test_who_asks_for_all_of_it_gets_all(tmp_path):
    assert len(importing(tmp_path, CHATTER, TF_CPP_MIN_LOG_LEVEL="0").stderr.splitlines()) == 4


def test_the_last_words_of_a_crash_are_heard(tmp_path):
    words = "F0000 This TensorFlow was compiled to use AVX instructions"
    done = importing(tmp_path, f"import os\nos.write(2, b'{words}\\n')\nos.abort()")
    assert done.returncode != 0
    assert done.stderr.splitlines() == [words]


def test_a_failed_import_is_as_ever(tmp_path):
    done = importing(tmp_path, "raise ImportError('libfoo.so: cannot open shared object file')")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ImportError: libfoo.so: cannot open shared object file"


def test_there_is_nobody_to_hear(tmp_path):
    code = "import os; os.close(2); " + IMPORT + "print('done')"
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("import os, sys")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.parametrize("again", [1, 3])
def test_one_finder_is_enough(monkeypatch, again):
    from hpcgan.system import console

    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    for _ in range(again):
        console.quiet_tensorflow()
    assert sum(isinstance(finder, console._QuietFinder) for finder in sys.meta_path) == 1
