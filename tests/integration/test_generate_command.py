"""`hpcgan generate` as users start it on several ranks, to its end and to an earlier one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny
import untrained

pytest.importorskip("horovod")

import hpcgan
from hpcgan import config
from hpcgan.problems.detector_images.files import open_images


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    raw = {
        "problem": "conditional",
        "data": {"path": str(tiny.write_conditional_data(folder / "data"))},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"epochs": 1, "batch_size": 8, "average_half_life": 50},
        "comm": {"backend": "serial"},  # how it was trained does not matter
    }
    return untrained.make_run(folder / "run", config.load(raw)).path


def start(run, *options, launcher=()):
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", "hpcgan", "generate", str(run), *map(str, options)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "HPCGAN_THREADS": "1"},
    )  # fmt: skip


def test_two_ranks_share_a_request(run, tmp_path):
    asked = tmp_path / "asked.csv"
    masses = np.linspace(1400, 1900, 53).round(1)
    asked.write_text("mNeu,mGlu\n" + "".join(f"850,{mass}\n" for mass in masses))
    out = tmp_path / "x.h5"
    process = start(run, "--conditions", asked, "--out", out, "--seed", 3, "--ranks", 2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.count("warning: mGlu=1400 to 1900 GeV is outside the training data's 1400 to 1800 GeV") == 1
    assert output.count(f"{out}: 53 events from epoch 3") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked.csv", "x.h5"]
    with pytest.warns(UserWarning, match="outside"):
        alone = hpcgan.generate(run, seed=3, conditions={"mGlu": masses, "mNeu": 850})
    with open_images(out) as file:
        assert file.column("mGlu") == pytest.approx(masses)
        np.testing.assert_allclose(file.read(), alone["hist"], rtol=1e-4, atol=1e-6 * alone["hist"].max())


def test_a_bare_mpirun_that_is_stopped_leaves_nothing(run, tmp_path):
    mpirun = Path(sys.executable).with_name("mpirun")
    launcher = [str(mpirun) if mpirun.exists() else "mpirun", "-np", "2", "--bind-to", "none"]
    if os.geteuid() == 0:
        launcher.append("--allow-run-as-root")
    out = tmp_path / "x.h5"
    process = start(run, "-n", 400_000, "--out", out, launcher=launcher)
    end = time.monotonic() + 120
    part = tmp_path / "x.h5.part"
    while not part.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    (rank,) = [
        child for child in psutil.Process(process.pid).children(recursive=True)
        if child.environ().get("OMPI_COMM_WORLD_RANK") == "1" and "generate" in child.cmdline()
    ]  # fmt: skip
    rank.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert f"{out}: stopped by SIGTERM; nothing was kept" in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []
