"""`hpcgan data` with packages of other people that are broken: they are warned of, and hide no other."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hpcgan import plugins
from hpcgan.commands.cli import main
from hpcgan.problems.discovery import PROBLEMS
from hpcgan.problems.importers import importers

HEAD = """
from typing import Annotated, ClassVar
from hpcgan.config.base import Option
from hpcgan.data.generators import Generator
from hpcgan.data.importers import Importer
from hpcgan.problems.cosmo.problem import CosmoProblem

class Whole(Generator):
    summary: ClassVar[str] = "generate 100% of it"
    def data_set(self, n, seed): ...

class Reader(Importer):
    title: ClassVar[str] = "files of others"
    @classmethod
    def recognise(cls, path): return ""
    def import_files(self, order): ...
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module with some code, whose `Others` is an installed problem."""
    name = f"others_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(HEAD + request.param.replace("HERE", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("others", f"{name}:Others", PROBLEMS.group)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == PROBLEMS.group else [])
    monkeypatch.setattr(plugins, "_warned", set())
    return name


def problem(text: str) -> str:
    return f"class Others(CosmoProblem):\n    name = 'others'\n    {text}\n"


def of_generator(text: str, name: str = "mine") -> str:
    return f"class G(Whole):\n    {text}\n" + problem(f"generators = {{'{name}': 'HERE:G', 'whole': 'HERE:Whole'}}")


def of_importer(text: str, base: str = "Reader") -> str:
    return f"class I({base}):\n    {text}\n" + problem("importers = ('HERE:I',)")


BROKEN = {
    "no summary": ("class G(Generator):\n    def data_set(self, n, seed): ...\n"
                   + problem("generators = {'mine': 'HERE:G'}"), "has no text as its summary"),
    "no generator": (problem("generators = {'mine': 'HERE:Reader'}"), "is no subclass of hpcgan.data.generators.Gen"),
    "abstract generator": ("class G(Generator):\n    summary: ClassVar[str] = ''\n"
                           + problem("generators = {'mine': 'HERE:G'}"), "does not define data_set"),
    "info": (of_generator("pass", "info"), "there is another 'hpcgan data info'"),
    "shipped": (of_generator("pass", "rpv"), "there is another 'hpcgan data rpv'"),
    "jobs": (of_generator("jobs: int = 1"), "an option --jobs already"),
    "help": (of_generator("help: int = 1"), "an option --help already"),
    "noun": (of_generator("events: int = 1"), "an option --events already"),
    "no title": (of_importer("title: ClassVar[str] = None"), "has no text as its title"),
    "no importer": (of_importer("pass", "Whole"), "is no subclass of hpcgan.data.importers.Importer"),
    "out": (of_importer("out: int = 1"), "has --out already"),
    "flag": (of_importer("w: Annotated[int, Option(flag='weight')] = 1"), "has --weight already"),
    "layouts": (problem("layouts = CosmoProblem.layouts[0]"), "its layouts are no tuple"),
    "generators": (problem("generators = ('HERE:Whole',)"), "its generators are no mapping"),
    "figures": (problem("figures = CosmoProblem"), "its figures are no place"),
    "importers": (problem("importers = 'HERE:Reader'"), "its importers are no tuple"),
    "abstract problem": ("from hpcgan.problems.base import Problem\n"
                         "class Others(Problem):\n    name, Model = 'others', CosmoProblem.Model\n",
                         "does not define decode, encode, networks, "),
}  # fmt: skip


@pytest.mark.parametrize(("package", "message"), BROKEN.values(), ids=BROKEN, indirect=["package"])
def test_what_is_broken_is_warned_of_and_left_out(
    package: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "info", str(tmp_path / "absent.h5")]) == 2
    *warnings, error = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: ")
    assert message in warnings[0]
    assert package in warnings[0]
    assert "absent.h5: no such file" in error


@pytest.mark.parametrize("package", [of_importer("weight: str = ''\n    label: bool = False")], indirect=True)
@pytest.mark.parametrize(("weight", "message"), [("1e300", "give at most 1e+09"), ("a", "is not a number")])
def test_the_importer_of_a_file_reads_options_that_others_have_too(
    package: str, weight: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    towers = Path(__file__).parents[1] / "data" / "rpv_1400_850_towers.root"
    assert main(["data", "import", str(towers), "--weight", weight, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "argument --weight: " in error
    assert message in error


@pytest.mark.parametrize("package", [of_generator("jobs: int = 1"), of_importer("pass")], indirect=True)
def test_what_is_whole_is_there(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "generate 100% of it" in shown or "files of others" in " ".join(shown.split())
    assert {"Delphes files", "files of calorimeter showers"} <= {importer.title for importer in importers()}
