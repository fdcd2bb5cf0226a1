"""docs/architecture.md names code that exists: the way of a training, and the modules of the layout."""

from __future__ import annotations

import ast
import re

import documents
import pytest

ROOT = documents.ROOT
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CODE = documents.inline_code(ROOT / "docs" / "architecture.md")
PLACE = re.compile(r"(?:hpcgan/)?([\w/]+\.py):([\w.]+)")


def stops() -> list[str]:
    """The numbered stops of the newcomer's path."""
    section = PAGE.partition("## From `hpcgan train`")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. (.*(?:\n    .*)*)", section, re.MULTILINE)


def source_of(file: str, name: str) -> str:
    """The source of a function or class, which may be one of a class."""
    path = ROOT / "hpcgan" / file
    assert path.is_file(), f"there is no hpcgan/{file}"
    text = path.read_text()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, kinds) and child.name == part]
        assert inner, f"hpcgan/{file} has no {name}"
        node = inner[0]
    return ast.get_source_segment(text, node) or ""


def test_a_newcomer_comes_from_the_command_to_the_collective() -> None:
    places = [PLACE.search(stop) for stop in stops()]
    assert 10 <= len(places) <= 15
    assert all(places), "a stop names no path:function"
    sources = [source_of(*place.groups()) for place in places if place]
    assert "argv" in sources[0]
    assert "hvd.allreduce" in sources[-1]


def test_each_stop_is_called_by_an_earlier_one() -> None:
    """By its module, at least: the order is that of the calls."""
    places = [place.groups() for place in map(PLACE.search, stops()) if place]
    for number, (file, name) in enumerate(places[1:], start=1):
        earlier = "".join((ROOT / "hpcgan" / earlier).read_text() for earlier, _ in places[:number])
        function, _, method = name.partition(".")
        is_called = re.search(rf"\b{method or function}\(|\b{function}\(", earlier)
        assert is_called, f"no stop before hpcgan/{file}:{name} calls it"


@pytest.mark.parametrize(("file", "name"), sorted({match for code in CODE for match in PLACE.findall(code)}))
def test_every_function_that_is_named_exists(file: str, name: str) -> None:
    assert source_of(file, name)


def test_the_layout_is_that_of_the_package() -> None:
    layout = PAGE.partition("```text")[2].partition("```")[0]
    listed = set(re.findall(r"^(\w+)/", layout, re.MULTILINE))
    package = {path.parent.name for path in (ROOT / "hpcgan").glob("*/__init__.py")}
    assert listed == package
    files = {path.name for path in (ROOT / "hpcgan").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert {file for file in files if file in layout} == files


def test_a_place_that_does_not_exist_is_found() -> None:
    with pytest.raises(AssertionError, match=r"has no Loop\.fly"):
        source_of("training/loop.py", "Loop.fly")


def test_files_in_code_exist() -> None:
    """Paths without `hpcgan/` in front, as this page has them."""
    for code in CODE:
        if re.fullmatch(r"[a-z]+/[\w/]+\.py", code):
            assert any((folder / code).is_file() for folder in (ROOT / "hpcgan", ROOT)), code
