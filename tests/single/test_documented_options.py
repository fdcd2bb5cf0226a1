"""Command lines and code in the documents, checked without running them: options, keys, imports, files."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import documents
import pytest
from documents import DOCUMENTS, LANGUAGES, PAGES, ROOT

from hpcgan import config as configuration
from hpcgan.commands import cli
from hpcgan.errors import InputError
from hpcgan.sweep import study

#: What a sentence may leave out of a command.
LEFT_OUT = ("the following arguments are required", "expected one argument")
#: Commands that are named in a sentence, without what they need.
BARE = re.compile(r"hpcgan( [a-z]+(\|[a-z]+)*){0,2}( --help)?")


def lines_of(path: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a command of hpcgan stands, and its words without `hpcgan`."""
    for block in documents.blocks(path):
        if block.language in ("sh", ""):
            for command in documents.shell_commands(block.text, folder):
                for words in (command, command[command.index("hpcgan") :] if "hpcgan" in command else []):
                    if words and words[0] == "hpcgan":
                        yield block.place, words[1:]
                        break
    for code in documents.inline_code(path):
        if code.startswith("hpcgan ") and not BARE.fullmatch(code):
            for command in documents.synopsis_commands(code):
                yield f"{path.relative_to(ROOT)}: `{code}`", command[1:]


def check(args: argparse.Namespace) -> None:
    """Refuse what the command would refuse of its configuration, if that is one of the repository."""
    if not os.path.exists(getattr(args, "config", None) or ""):
        return
    overrides = [item for item in args.overrides if item != "key=value"]
    if args.command == "sweep" or (args.command == "chaos" and args.trials is not None):
        study.load(Path(args.config), overrides)
    else:
        configuration.load(args.config, overrides)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_those_of_the_parser(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command is parsed; where it has a configuration of the repository, its keys and values are checked, too."""
    wrong = []
    for place, words in lines_of(path, tmp_path):
        if any("jets25" in word or "tests/plugin" in word for word in words):
            continue  # the package has to be installed: tests/integration/test_plugin.py runs these commands
        try:
            check(cli.parse(words))
        except SystemExit as end:
            message = capsys.readouterr().err.strip()
            is_part = "`" in place and any(text in message for text in LEFT_OUT)
            if end.code != 0 and not is_part:
                wrong.append(f"{place}: hpcgan {' '.join(words)}\n    {message}")
        except InputError as error:
            wrong.append(f"{place}: hpcgan {' '.join(words)}\n    {error}")
    assert not wrong, "\n".join(wrong)


def test_commands_that_sentences_name_exist() -> None:
    for path in DOCUMENTS:
        for code in documents.inline_code(path):
            if BARE.fullmatch(code) and " " in code:
                assert code.split()[1] in cli.COMMANDS or code.split()[1] == "--help", f"{path}: {code}"


def test_wrong_commands_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check above can fail: an option that went is one."""
    (commands,) = documents.shell_commands('for x in 1; do hpcgan doctor --tune "a $x"; done', tmp_path)
    assert commands == ["hpcgan", "doctor", "--tune", "a 1"]
    with pytest.raises(SystemExit):
        cli.parse(commands[1:])
    assert "--tune" in capsys.readouterr().err


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_say_their_language(path: Path) -> None:
    for block in documents.blocks(path):
        assert block.language in LANGUAGES, f"{block.place}: say which language the block is in"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_is_python_and_its_imports_are_there(path: Path) -> None:
    """Blocks are compiled, and what they import from hpcgan exists."""
    for block in documents.blocks(path):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text, block.place)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hpcgan":
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}"), (
                        f"{block.place}: {node.module} has no {name.name}"
                    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_are_there(path: Path) -> None:
    """Links, and code that is a path of the repository."""
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (path.parent / link).exists(), f"{path.relative_to(ROOT)}: there is no {link}"
    for code in documents.inline_code(path):
        file = code.partition(":")[0]
        if re.fullmatch(r"(hpcgan|tests|benchmarks|configs|slurm|tools|notebooks|docs)/[\w./-]+\.(?!html)\w+", file):
            assert (ROOT / file).exists(), f"{path.relative_to(ROOT)}: there is no {file}"
