"""Notebooks run from top to bottom, with other parameters."""

from __future__ import annotations

import base64
import io
import secrets
import subprocess
import sys
from pathlib import Path

import jobs

ROOT = Path(__file__).resolve().parents[2]
PRESETS = {
    "01_train_interactively": {
        "root": ".", "config": "tiny.yaml", "overrides": ["training.epochs=100000"], "run": "runs/training",
        "engines": "mpi", "n": 2, "job": {}, "rate": 1e-3,
    },
    "02_sweep": {
        "root": ".", "config": "sweep.yaml", "overrides": [], "trials": 2, "concurrency": 2, "study": "runs/study",
    },
    "03_analyse_results": {"root": ".", "run": "runs/demo", "events": 500, "samples": 2, "splits": 30},
    "04_weak_scaling": {  # on the study of `test_scaling_command`
        "root": ".", "config": "tiny.yaml", "overrides": ["--mode", "strong", "--warm-up", "3", "--synthetic-data"],
        "ranks": "1,2", "steps": 20, "repeats": 1, "study": "study", "interconnect": "10GbE", "nodes": "1..64",
    },
    "05_service": {
        "root": ".", "run": "runs/untrained", "model": "untrained", "conditions": {}, "events": 20, "clients": [1, 3],
        "seconds": 0.5,
    },
}  # fmt: skip


def executed(name, folder, monkeypatch, preset=None):
    """A notebook with its parameters replaced by those for tests or given, after it was run in that folder."""
    import nbformat

    preset = preset or PRESETS[name]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HPCGAN_CLUSTERS", str(folder / "clusters"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # or a warning says that it will be so some day
    for variable in ("MPLBACKEND", "TF_CPP_MIN_LOG_LEVEL"):  # of the tests: a user has neither
        monkeypatch.delenv(variable, raising=False)
    mark = secrets.token_hex(8)
    monkeypatch.setenv(jobs.MARK, mark)
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    (parameters,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    names = {line.split(" = ")[0] for line in parameters.source.splitlines()}
    assert names == set(preset)
    parameters.source = "\n".join(f"{key} = {value!r}" for key, value in preset.items())
    source, target = folder / f"{name}.ipynb", folder / f"{name}-executed.ipynb"
    nbformat.write(book, source)
    program = (
        "import sys, nbformat, nbclient\n"
        "book = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(book, timeout=900, resources={'metadata': {'path': sys.argv[3]}}).execute()\n"
        "nbformat.write(book, sys.argv[2])\n"
    )
    arguments = [sys.executable, "-c", program, str(source), str(target), str(folder)]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=jobs.PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        jobs.wait_for(lambda: not jobs.marked(mark), message=lambda: f"outlive the notebook: {jobs.marked(mark)}")
    finally:
        for process in jobs.marked(mark):
            process.kill()
    return nbformat.read(target, as_version=4)


def shown(book, kind):
    """All outputs of a kind: `text/plain`, `text/html`, `image/png`, or `stream`."""
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    if kind == "stream":
        return "".join(output.text for output in outputs if output.output_type == "stream")
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def cell(book, name):
    """What a cell has shown, in its order: (kind, content) of each output."""
    (found,) = (c for c in book.cells if c.id == name)
    kinds = ("image/png", "text/html", "text/markdown", "application/vnd.jupyter.widget-view+json", "text/plain")
    seen = []
    for output in found.outputs:
        if output.output_type == "stream":
            before = seen.pop()[1] if seen and seen[-1][0] == output.name else ""
            seen.append((output.name, before + output.text))
        else:
            kind = next(kind for kind in kinds if kind in output.data)
            seen.append((kind.rpartition("/")[2].rpartition(".")[2], output.data[kind]))
    return seen


def effects(book):
    """The kinds of what each cell of code has shown, by the cell's number."""
    return {
        c.id.removeprefix("code-"): [kind for kind, _ in cell(book, c.id)] for c in book.cells if c.id[:4] == "code"
    }


def drawn(png):
    """How many different colours a picture has: one, where nothing is drawn."""
    import matplotlib.image
    import numpy as np

    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(png)))
    return len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0))


def check(book, expected):
    """Each cell has shown what is expected, pictures are not empty, and tables have numbers."""
    seen = effects(book)
    others = {name: cell(book, f"code-{name}") for name in seen if seen[name] != expected.get(name)}
    assert seen == expected, f"cells that show something else: {others}"
    for png in shown(book, "image/png"):
        assert drawn(png) > 10
    for table in shown(book, "text/html"):
        assert "<td>" in table
