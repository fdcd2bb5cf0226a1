"""Hook of MkDocs: the pages that are not in docs/, and links to files of the repository.

README.md, CHANGELOG.md and CONTRIBUTING.md are pages as they are, so that the code host and the site show one text.
The reference has a page for each package, which mkdocstrings fills from the docstrings without importing anything.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files
from setuptools import find_packages

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
ROOT_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
REFERENCE = "api"


def reference_pages() -> dict[str, str]:
    """Text of the reference, by address: a page for each package, with a section for each of its modules."""
    pages = {}
    for package in sorted(["hpcgan", *(f"hpcgan.{name}" for name in find_packages(ROOT / "hpcgan"))]):
        folder = ROOT / package.replace(".", "/")
        modules = sorted(path.stem for path in folder.glob("*.py") if not path.name.startswith("_"))
        title = f"::: {package}\n    options:\n      heading_level: 1"
        name = "index" if package == "hpcgan" else package.removeprefix("hpcgan.")
        pages[f"{REFERENCE}/{name}.md"] = "\n\n".join([title, *(f"::: {package}.{module}" for module in modules)])
    return pages


def on_config(config: MkDocsConfig) -> None:
    """Put the reference into the navigation."""
    assert config.nav is not None
    entries: list[Any] = [
        {"hpcgan" if page.endswith("/index.md") else page.removeprefix(f"{REFERENCE}/").removesuffix(".md"): page}
        for page in reference_pages()
    ]
    config.nav.insert(-1, {"Reference": entries})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are not in docs/."""
    for source, address in ROOT_PAGES.items():
        files.append(File.generated(config, address, content=(ROOT / source).read_text(encoding="utf-8")))
    for address, text in reference_pages().items():
        files.append(File.generated(config, address, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository, as links of the site or to the code host.

    A link to a file that does not exist stays as it is, for MkDocs to report.
    """
    sources = {address: source for source, address in ROOT_PAGES.items()}
    address = page.file.src_uri
    here = (ROOT / sources[address]).parent if address in sources else (ROOT / "docs" / address).parent

    def rewritten(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / link[1]))
        if not target.exists() or not target.is_relative_to(ROOT):
            return link[0]
        path = target.relative_to(ROOT).as_posix()
        if path in ROOT_PAGES:
            path = f"docs/{ROOT_PAGES[path]}"
        if path.startswith("docs/"):
            to = os.path.relpath(path.removeprefix("docs/"), Path(address).parent)
        else:
            to = f"{config.repo_url.rstrip('/')}/blob/main/{path}"
        return to + (link[2] or "")

    return LINK.sub(rewritten, markdown)
