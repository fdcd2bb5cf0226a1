"""A training from a notebook, in JupyterLab, in a browser: what a person sees there and presses."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jobs
import needs
import psutil
import pytest
import tiny
import yaml
from browser import CHROMIUM, Browser
from recorded import recorded

needs.found("horovod", "ipywidgets", "jupyterlab")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="JupyterLab is shown in a browser, and there is no Chromium"),
]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120.0  # for anything that takes the start of a kernel or of a training

# How the notebook comes by its training, which is in `run`.
START = """
from hpcgan.interactive import Cluster

cluster = Cluster.start("mpi", 2)
training = cluster.session().train("tiny.yaml", run="run")
"""
SHOW = "training.dashboard()"
# The panel has to live while a cell runs.
BUSY = """
state = training.wait()
cluster.stop()
print("it ended:", state)
"""


def notebook(*sources: str) -> dict:
    cells = [
        {"cell_type": "code", "id": f"cell-{i}", "execution_count": None, "metadata": {}, "outputs": [],
         "source": source.strip()}
        for i, source in enumerate(sources)
    ]  # fmt: skip
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the notebook finds around it."""
    made = tmp_path / "work"
    tiny.write_data(made / "data")
    raw = tiny.config(made / "data", "training.epochs=100000", "scoring.every_epochs=5").dump()
    (made / "tiny.yaml").write_text(yaml.safe_dump(raw))
    return made


@pytest.fixture
def jupyter(folder: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Address and token of a JupyterLab that knows nothing of this user's settings."""
    home = tmp_path / "jupyter"
    quiet = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
               "IPYTHONDIR": "ipython"}  # fmt: skip
    env = {**os.environ, **{name: str(home / part) for name, part in folders.items()}}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env["HPCGAN_CLUSTERS"] = str(tmp_path / "clusters")
    token = "of-the-test"
    with open(tmp_path / "jupyter.log", "wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
                "--ServerApp.port=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
            ],
            cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield _address(process, home / "runtime", tmp_path / "jupyter.log"), token
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            psutil.wait_procs([psutil.Process(process.pid)], timeout=20)
            for one in family:  # a kernel, or a training that a failed test has left
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError):
                url: str = json.loads(path.read_text())["url"]
                urllib.request.urlopen(f"{url}api", timeout=10).close()
                return url
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}")


def text(name: str) -> str:
    """JavaScript: what a part of the panel says."""
    return f"(document.querySelector('.hpcgan-{name}')?.innerText ?? '')"


EPOCH = f"Number(({text('header')}.match(/epoch ([0-9]+) of/) ?? [0, 0])[1])"
CURVES = "(document.querySelector('img.hpcgan-curves')?.src ?? '')"
SIZE = "document.querySelector('img.hpcgan-curves').naturalWidth"


def run_all(page, url, token, name):
    """Open a notebook and run its cells."""
    page.navigate(f"{url}lab/tree/{name}?token={token}")
    page.wait_for("document.querySelector('.jp-Notebook .jp-Cell')", SECONDS)
    page.click(".jp-Notebook .jp-Cell .cm-content")  # the status bar is that of the notebook from here on
    page.wait_for("document.querySelector('#jp-main-statusbar').innerText.includes('| Idle')", SECONDS)
    page.click("li.lm-MenuBar-item[aria-label=Run], .lm-MenuBar-item:nth-child(4)")
    page.click(".lm-Menu-item[data-command='runmenu:run-all']")


def test_a_training_in_a_notebook_is_watched_paused_changed_and_stopped(folder, jupyter, tmp_path):
    url, token = jupyter
    (folder / "train.ipynb").write_text(json.dumps(notebook(START, SHOW, BUSY)))
    metrics = folder / "run" / "metrics.jsonl"

    with Browser(tmp_path / "chromium") as page:
        try:
            run_all(page, url, token, "train.ipynb")
            page.wait_for(f"{text('header')}.includes('running')", SECONDS)
            first = page.wait_for(f"{EPOCH} > 0 && {CURVES} && {SIZE} > 500 && {CURVES}", SECONDS)
            epoch = page.evaluate(EPOCH)
            page.wait_for(f"{EPOCH} > {epoch} && {CURVES} !== {json.dumps(first)} && {SIZE} > 500", SECONDS)
            page.wait_for("document.querySelector('img.hpcgan-samples')?.naturalWidth > 500", SECONDS)

            page.click("button.hpcgan-pause")
            page.wait_for(f"{text('header')}.includes('paused')")
            page.wait_for(f"{text('status')}.includes('pause: obeyed by all ranks at step')")
            assert page.evaluate("document.querySelector('button.hpcgan-pause').disabled")

            page.type(".hpcgan-generator input", "7")
            page.click("button.hpcgan-set")
            page.wait_for(f"{text('status')}.includes('a learning rate is above 0 and at most 1')")
            page.type(".hpcgan-generator input", "1.5e-4")
            page.click("button.hpcgan-set")
            page.wait_for(f"{text('status')}.includes('set generator=0.00015: obeyed')")
            assert page.evaluate("document.querySelector('.hpcgan-generator input').value") == ""

            page.click("button.hpcgan-resume")
            page.wait_for(f"{text('header')}.includes('running')")
            epoch = page.evaluate(EPOCH)
            page.wait_for(f"{EPOCH} > {epoch}", SECONDS)
            page.click("button.hpcgan-stop")
            page.wait_for(f"{text('header')}.includes('stopped')")
            page.wait_for("document.querySelector('.jp-Notebook').innerText.includes('it ended: stopped')")
            for name in ("pause", "resume", "checkpoint", "stop", "set"):
                # The state and the buttons come to the browser in messages of their own.
                page.wait_for(f"document.querySelector('button.hpcgan-{name}').disabled")
        finally:
            page.screenshot(tmp_path / "dashboard.png")
    assert list((tmp_path / "clusters").iterdir()) == []  # it was stopped, and has left nothing
    obeyed = recorded(metrics, "command")
    assert [r["name"] for r in obeyed] == ["pause", "set", "resume", "stop"]
    assert obeyed[1]["rates"] == {"generator": 1.5e-4}


SWEEP = """
from hpcgan.interactive import Sweep

sweep = Sweep.start("sweep.yaml", trials=3, concurrency=2, job={"threads": 1}, out="study")
sweep.dashboard()
"""
WAIT = """
state = sweep.wait()
print("it ended:", state)
"""


def test_a_sweep_in_a_notebook_is_watched_pruned_and_stopped(folder, jupyter, tmp_path):
    pytest.importorskip("optuna")
    url, token = jupyter
    jobs.make_sweep(folder)
    raw = yaml.safe_load((folder / "sweep.yaml").read_text())
    raw["scoring"]["every_epochs"] = 1
    (folder / "sweep.yaml").write_text(yaml.safe_dump(raw))
    (folder / "sweep.ipynb").write_text(json.dumps(notebook(SWEEP, WAIT)))
    picture = "document.querySelector('img.hpcgan-picture')"
    with Browser(tmp_path / "chromium") as page:
        try:
            run_all(page, url, token, "sweep.ipynb")
            page.wait_for(f"{text('header')}.includes('running')", SECONDS)
            page.wait_for(f"{picture}?.naturalWidth > 500", SECONDS)
            page.type(".hpcgan-number input", "7")
            page.click("button.hpcgan-prune")
            page.wait_for(f"{text('status')}.includes('no trial 7')")
            page.type(".hpcgan-number input", "1")
            page.click("button.hpcgan-prune")
            page.wait_for(f"{text('status')}.includes('trial 1 ends before its next epoch')")
            page.wait_for(f"{text('trials')}.includes('pruned by hand')", SECONDS)
            page.click("button.hpcgan-stop")
            page.wait_for("document.querySelector('.jp-Notebook').innerText.includes('it ended: stopped')", SECONDS)
            page.wait_for(f"{text('header')}.includes('stopped')")
            page.wait_for("document.querySelector('button.hpcgan-stop').disabled")
        finally:
            page.screenshot(tmp_path / "sweep.png")
    assert json.loads((folder / "study/trials/0001/result.json").read_text())["state"] == "pruned"
