"""docs/new_problem.md shows the package that is tested, not another one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "new_problem.md").read_text()


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"<!-- (tests/plugin/\S+) -->\n```\w+\n(.*?)\n```", PAGE, re.DOTALL)


def test_code_blocks_are_the_package() -> None:
    found = blocks()
    assert len(found) == PAGE.count("```python") + PAGE.count("```yaml")
    for name, text in found:
        assert text in (ROOT / name).read_text(), f"docs/new_problem.md: a block is not as in {name}"


def test_no_code_of_the_package_is_left_out() -> None:
    """Imports and docstrings at the top of a module may be."""
    shown = "\n".join(text for _, text in blocks())
    for path in sorted((ROOT / "tests" / "plugin").rglob("*.py")):
        for definition in re.findall(r"^ *(?:def|class) \w+", path.read_text(), re.MULTILINE):
            assert definition in shown, f"docs/new_problem.md does not show {definition} of {path.name}"


def test_every_file_that_is_linked_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
