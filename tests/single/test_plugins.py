"""Classes by name: shipped, from entry points, and at a place."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcgan import plugins
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import TensorSpec
from hpcgan.data.storage import Target
from hpcgan.errors import InputError
from hpcgan.plugins import Plugins, load, loadable
from hpcgan.problems.base import Problem, problem_class
from hpcgan.problems.cosmo.problem import CosmoProblem
from hpcgan.problems.discovery import PROBLEMS
from hpcgan.problems.layouts import problem_of

ABSTRACT = """
import abc
class Abstract(abc.ABC):
    @abc.abstractmethod
    def a(self): ...
    @abc.abstractmethod
    def b(self): ...
"""
SHIPPED = {"one": "collections:OrderedDict"}


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """A shipped class, and what packages of other people declare."""
    (tmp_path / "others").mkdir()
    modules = {"__init__": "", "good": "class Two:\n    class Inner: ...\nvalue = 3\n" + ABSTRACT, "bad": "1 / 0",
               "lacking": "import no_such_module", "odd": "raise AttributeError('x')"}  # fmt: skip
    for name, text in modules.items():
        (tmp_path / "others" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [("two", "others.good:Two"), ("one", "others.good:Two"), ("bad", "others.bad:X")]
    declared = [EntryPoint(name, value, "group") for name, value in points]
    monkeypatch.setattr(plugins, "_warned", set())
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: declared if group == "group" else [])
    return Plugins("group", "thing", SHIPPED)


def test_names_and_classes(things: Plugins) -> None:
    assert things.names() == ["bad", "one", "two"]
    assert things.get("one").__name__ == "OrderedDict"  # a shipped name cannot be taken
    assert things.get("two").__name__ == "Two"
    assert things.get("others.good:Two") is things.get("two")
    assert things.get("others.good:Two.Inner").__name__ == "Inner"


def test_what_does_not_load_is_warned_of_once(things: Plugins, capsys: pytest.CaptureFixture[str]) -> None:
    assert [found.__name__ for found in things.all()] == ["OrderedDict", "Two"]
    assert things.all()
    warnings = capsys.readouterr().err.splitlines()
    assert warnings == [
        "warning: thing 'one' (others.good:Two): hpcgan has one of this name; left out",
        "warning: thing 'bad' (others.bad:X): importing others.bad failed: ZeroDivisionError: division by zero",
    ]
    assert loadable({"a": lambda: 1, "b": lambda: 2}) == [1, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "thing 'three' does not exist; choose one of: bad, one, two, or package.module:Class$"),
        ("tow", "did you mean 'two'"),
        ("nowhere:A", "there is no module 'nowhere' on Python's path.*the working directory does not count"),
        ("others.nowhere:A", "there is no module 'others.nowhere'"),
        ("others.good:A", "module others.good has no 'A'"),
        ("others.good:Abstract", "does not define a, b"),
        ("others.good:value", "is no class of a thing"),
        ("others.lacking:A", "importing others.lacking failed: No module named 'no_such_module'"),
        ("others.odd:A", "importing others.odd failed: AttributeError: x"),
        ("others.good:", "write it as package.module:Class"),
        ("others/good:Two", "write it as package.module:Class"),
        (":Two", "write it as package.module:Class"),
    ],
)
def test_what_there_is_not(things: Plugins, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        things.get(name)


def test_of_two_packages_that_take_one_name_neither_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package, value in (("first", "collections:Counter"), ("second", "collections:deque"), ("copy", "sys:x")):
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        name = "alone" if package == "copy" else "thing"
        (folder / "entry_points.txt").write_text(f"[test.things]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_warned", set())
    things = Plugins("test.things", "thing", SHIPPED)
    message = (
        "thing 'thing': first (collections:Counter) and second (collections:deque) both have one of this name; "
        "uninstall one of them, or write package.module:Class"
    )
    with pytest.raises(InputError) as error:
        things.get("thing")
    assert str(error.value) == message
    assert things.get("collections:deque").__name__ == "deque"
    (tmp_path / "second-1.0.dist-info" / "entry_points.txt").write_text("[test.things]\nthing = collections:Counter\n")
    assert things.get("thing").__name__ == "Counter"  # both mean the same one
    (tmp_path / "second-1.0.dist-info" / "entry_points.txt").write_text("[test.things]\nthing = collections:deque\n")
    assert [cls.__name__ for cls in things.all()] == ["OrderedDict"]  # all others are there
    assert f"warning: {message}" in capsys.readouterr().err.splitlines()


def test_problems() -> None:
    assert problem_class("cosmo") is problem_class("hpcgan.problems.cosmo.problem:CosmoProblem") is CosmoProblem
    assert {problem.name for problem in PROBLEMS.all()} >= {"rpv", "conditional", "pileup", "cosmo", "calogan"}
    assert all(issubclass(problem, Problem) for problem in PROBLEMS.all())
    with pytest.raises(InputError, match="is no class of a problem"):
        problem_class("hpcgan.config:Config")
    with pytest.raises(InputError, match="x: "):
        load("sys:no", "x")
    assert load("sys:version", "x") == sys.version


def test_no_code_is_imported_on_the_word_of_a_file(tmp_path: Path) -> None:
    schema = {"x": TensorSpec((2,))}
    for name, message in (("os.path:join", "has no name here; say it with --problem"), ("", "has no name here")):
        with tensors.Writer(Target(tmp_path, {"a": 1}, {"problem": name}, force=True), schema) as writer:
            writer.append({"x": np.zeros((1, 2))})
        with pytest.raises(InputError, match=message):
            problem_of(tmp_path / "a.h5")
    with tensors.Writer(Target(tmp_path, {"a": 1}, {}, force=True), schema) as writer:
        writer.append({"x": np.zeros((1, 2))})
    with pytest.raises(InputError, match="does not say which problem it belongs to"):
        problem_of(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["other"] = [1]
    with pytest.raises(InputError, match=r"of no known layout \(it holds: other\); known are samples \(samples\), "):
        problem_of(tmp_path / "b.h5")
