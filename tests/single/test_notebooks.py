"""The notebooks as files: valid, without output, with parameters that a test can replace, thin over the package."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import needs
import pytest

needs.found("nbformat", "IPython", "mypy")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAY_IMPORT = {"hpcgan", "pandas", "matplotlib", "numpy", "IPython"} | set(sys.stdlib_module_names)
LONGEST = 30  # lines of a cell: what is longer belongs into the package

# The linters run it, too.
_spec = importlib.util.spec_from_file_location("notebook_code", ROOT / "tools/notebook_code.py")
notebook_code = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(notebook_code)


def read(path):
    import nbformat

    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_of(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def python_of(source):
    """Without the lines that are IPython's, not Python's."""
    from IPython.core.inputtransformer2 import TransformerManager

    return ast.parse(TransformerManager().transform_cell(source))


def imported(tree):
    """Top-level names of what is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else str(node.module).split(".")[0]


def problems(book):
    """What is wrong with a notebook."""
    found = []
    if (book.nbformat, book.nbformat_minor) != (4, 5):
        found.append(f"format {book.nbformat}.{book.nbformat_minor}")
    if book.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("another kernel")
    if book.cells[0].cell_type != "markdown" or not book.cells[0].source.startswith("# "):
        found.append("no title")
    code = code_of(book)
    tagged = [i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    if tagged != [0]:
        found.append(f"cells with parameters: {tagged}, not the first one of code")
    for cell in code:
        if cell.outputs or cell.execution_count is not None:
            found.append(f"{cell.id}: has output")
        tree = python_of(cell.source)
        found += [f"{cell.id}: imports {name}" for name in imported(tree) if name not in MAY_IMPORT]
        if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree)):
            found.append(f"{cell.id}: defines what belongs into the package")
        if len(cell.source.splitlines()) > LONGEST:
            found.append(f"{cell.id}: is long")
    if code and not all(isinstance(n, ast.Assign) for n in python_of(code[0].source).body):
        found.append("parameters are more than assignments")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_clean(path):
    import nbformat

    book = read(path)
    nbformat.validate(book)
    assert problems(book) == []


def test_there_are_notebooks():
    assert {"02_sweep", "03_analyse_results", "04_weak_scaling"} <= {path.stem for path in NOTEBOOKS}


def test_the_checks_find_what_they_look_for():
    import nbformat

    book = read(NOTEBOOKS[0])
    code = code_of(book)
    code[0].metadata["tags"] = []
    code[1].source = "import tensorflow\n%matplotlib inline\ndef f(): pass"
    code[1].execution_count = 3
    code[2].outputs = [nbformat.v4.new_output("stream", text="x")]
    assert problems(book) == [
        "cells with parameters: [], not the first one of code",
        f"{code[1].id}: has output",
        f"{code[1].id}: imports tensorflow",
        f"{code[1].id}: defines what belongs into the package",
        f"{code[2].id}: has output",
    ]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="types are those of the packages pinned for Python 3.11")
def test_mypy_finds_nothing_in_their_code():
    assert notebook_code.check(NOTEBOOKS) == (0, "")


def test_mypy_finds_what_is_not_there(tmp_path):
    book = read(FOLDER / "03_analyse_results.ipynb")
    code_of(book)[-1].source = "report.take_events(real)\nimport hpcgan.absent\n%matplotlib inline"
    import nbformat

    nbformat.write(book, tmp_path / "wrong.ipynb")
    code, output = notebook_code.check([tmp_path / "wrong.ipynb"])
    assert code == 1
    assert 'Module has no attribute "take_events"' in output
    assert 'Cannot find implementation or library stub for module named "hpcgan.absent"' in output
