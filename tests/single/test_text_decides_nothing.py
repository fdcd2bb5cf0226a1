"""No module decides by searching in messages or in what a program has printed.

How a run stands, how it ended and whose failure it was is said by typed records (`hpcgan.runs`) and failure files
(`hpcgan.system.failure`). What other programs print has no other form; who parses it is listed here, with the reason.
Checks of a whole short text, such as an option or a file's name (`re.fullmatch`), are free.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "hpcgan"

SEARCHES = {"search", "match", "findall", "finditer", "split", "sub", "subn"}
#: Modules that search in texts, and in which.
MAY_SEARCH = {
    "data.claims": "units and axes in the attributes of data files, as their authors have written them",
    "launch.mpirun_output": "mpirun and srun tell only in print which ranks were killed, and of what",
    "launch.slurm": "squeue, scontrol and sbatch answer in text; batch scripts are read back for their options",
    "launch.topology": "mpirun --version says in text which MPI it is",
    "sweep.report": "counts reasons as one that differ in their numbers only",
    "scaling.model": "names of files from names of interconnects",
    "system.last_words": "shows the last error of an engine or a service that could not even be loaded",
    "system.allocation": "names of the variables that a job sets, and Slurm's short form of counts a node",
    "tracking.memory": "names of files from names of trackers",
    "tracking.mlflow_runs": "names of curves in the characters that MLflow takes",
    "training.output": "TensorFlow's errors without its name of a node, to be shown",
    "yamlio": "numbers of YAML",
}
#: Modules that ask whether a message holds some words, and whose message that is.
MAY_ASK = {
    "data.storage": "HDF5's errors have no codes",
    "interactive.engine": "the event loop's RuntimeError has no type of its own",
    "launch.slurm": "scontrol's errors have no codes",
    "launch.topology": "mpirun --version",
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def searches(tree: ast.AST) -> list[int]:
    """Lines on which `re`, or a compiled expression, looks for something within a text."""
    names = {"re"}
    for node in ast.walk(tree):  # NAME = re.compile(...)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("re.compile("):
            names |= {ast.unparse(target) for target in node.targets}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SEARCHES
        and ast.unparse(node.func.value).split(".")[-1] in names
    ]


def is_words(node: ast.AST) -> bool:
    """A text of several words, which no key and no name is."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.Constant) and " " in part.value.strip("- ") for part in node.values)
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and len(node.value.split()) > 1


def is_message(node: ast.AST) -> bool:
    return ast.unparse(node).startswith("str(")


def questions(tree: ast.AST) -> list[int]:
    """Lines that ask whether a text has certain words in it, or begins or ends with them."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            if is_words(node.left) or is_message(node.comparators[0]):
                found.append(node.lineno)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("startswith", "endswith", "index", "find")
            and (is_message(node.func.value) or any(is_words(argument) for argument in node.args))
        ):
            found.append(node.lineno)
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize(("look", "allowed"), [(searches, MAY_SEARCH), (questions, MAY_ASK)])
def test_no_module_decides_by_what_a_text_says(look, allowed):
    lines = {module_of(path): look(ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES}
    places = {module: at for module, at in lines.items() if at}
    wrong = {f"hpcgan.{module}, lines {at}" for module, at in places.items() if module not in allowed}
    assert not wrong, "take a typed record or a failure file; see the docstring of this test"


def test_the_check_finds_what_it_looks_for():
    tree = ast.parse(
        """
_AT_WORK = re.compile("is at work")
def f(log, error, names):
    if re.search("error", log): pass
    if _AT_WORK.match(log): pass
    if re.fullmatch("[0-9]+", log): pass
    if "is at work in it" in log: pass
    if "work" in str(error): pass
    if log.endswith("from here on"): pass
    if "name" in names: pass
    if f"for {names} is none" in log: pass
"""
    )
    assert (searches(tree), questions(tree)) == ([4, 5], [7, 8, 9, 11])
