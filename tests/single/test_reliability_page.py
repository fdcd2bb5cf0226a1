"""docs/reliability.md: the tests that it names are there."""

from __future__ import annotations

import functools
import re

import documents
import pytest

PAGE = (documents.ROOT / "docs" / "reliability.md").read_text()
CODE = re.compile(r"(?:(?:single|parallel|integration)/)?(test_\w+)(?:: *(.*))?")


def names() -> list[str]:
    """What the last column of the table says, and the sentence on sweeps."""
    rows = [re.split(r"(?<!\\)\|", line)[-2] for line in PAGE.splitlines() if line.startswith("| ")]
    sentence = PAGE.partition("What is promised of sweeps")[2].partition("\n\n")[0]
    codes = [code for text in (*rows[1:], sentence) for code in re.findall(r"`([^`]+)`", text)]
    return sorted({code for code in codes if not code.startswith("make ")})


@functools.cache
def functions() -> dict[str, list[str]]:
    """The tests of each file."""
    files = (documents.ROOT / "tests").rglob("test_*.py")
    return {path.stem: re.findall(r"def test_(\w+)", path.read_text()) for path in files}


@pytest.mark.parametrize("code", names())
def test_a_named_test_exists(code: str) -> None:
    named = CODE.fullmatch(code)
    if named:
        assert named.group(1) in functions(), f"there is no {named.group(1)}.py"
    known = functions()[named.group(1)] if named else [name for tests in functions().values() for name in tests]
    for part in filter(None, re.split(r", *", (named.group(2) or "") if named else code)):
        assert any(part.rstrip(".") in name for name in known), f"there is no test {part}"


def test_every_promise_names_a_test() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| ") and not line.startswith("| what"):
            assert "`" in re.split(r"(?<!\\)\|", line)[-2], line
