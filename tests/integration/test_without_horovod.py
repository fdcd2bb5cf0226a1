"""Where there is no Horovod: the ranks of `auto` average over mpi4py, and nothing else is lost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import jobs
import pytest

pytest.importorskip("mpi4py")
pytest.importorskip("tensorflow")

SAID = "hpcgan: Horovod is not installed: the ranks average over mpi4py"


@pytest.fixture
def hidden(tmp_path: Path) -> dict[str, str]:
    """An environment in which no process finds Horovod."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['horovod'] = None\n")
    root = Path(__file__).resolve().parents[2]
    return {"PYTHONPATH": f"{folder}:{root}:{os.environ.get('PYTHONPATH', '')}"}


def run(folder: Path, env: dict[str, str], *words: str) -> str:
    code, output = jobs.Running(folder, [sys.executable, "-m", "hpcgan", *words], env).finish()
    assert code == 0, output
    assert "Traceback" not in output
    return output


def test_training_and_scaling(tmp_path, hidden):
    setting = jobs.make_setting(tmp_path / "setting", epochs=1)
    output = run(setting, hidden, "train", "tiny.yaml", "--ranks", "2", "--run", "run")
    assert output.count(SAID) == 1
    assert "2 ranks (mpi)" in output
    options = ("--ranks", "1,2", "--repeats", "1", "--steps", "4", "--warm-up", "2", "--synthetic-data")
    run(setting, hidden, "scaling", "tiny.yaml", *options, "--out", "study")
    points = json.loads((setting / "study" / "study.json").read_text())["points"]
    assert [(point["ranks"], point["comm"], point["backend"]) for point in points] == [
        (1, "auto", "serial"),
        (2, "auto", "mpi"),
    ]


def test_doctor(tmp_path, hidden):
    report = json.loads(run(tmp_path, hidden, "doctor", "--json"))
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"]
    assert (checks["Horovod"]["status"], checks["mpi4py"]["status"]) == ("WARN", "OK")
    assert "average over mpi4py" in checks["Horovod"]["detail"]
    assert "2 ranks x 1 thread (mpi)" in checks["allreduce"]["detail"]


def test_a_training_that_asks_for_horovod_says_what_is_missing(tmp_path, hidden):
    setting = jobs.make_setting(tmp_path / "setting", backend="horovod")
    command = [sys.executable, "-m", "hpcgan", "train", "tiny.yaml", "--ranks", "2", "--run", "run"]
    code, output = jobs.Running(setting, command, hidden).finish()
    assert code != 0
    assert "Horovod with TensorFlow is not installed" in output
    assert "comm.backend=mpi" in output
