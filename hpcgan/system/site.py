"""Which of the libraries of a training are a site's own (modules, conda), and whether they are still there."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What `make setup SITE=1` wrote of the site, in the environment.
SITE_FILE = Path("setup-site") / "site.json"
_LIBRARIES = {"tensorflow": "TensorFlow", "horovod": "Horovod", "mpi4py": "mpi4py"}


@dataclass(frozen=True)
class SiteReport:
    """The libraries of the site.

    Attributes
    ----------
    detail : str
        Each with where it is from.
    remedy : str
        What to do where they are not those of the set-up; else empty.
    """

    detail: str
    remedy: str


def report(
    mpirun: str | None, environ: Mapping[str, str] | None = None, prefix: str | None = None
) -> SiteReport | None:
    """What is the site's; None where all is of this environment.

    Parameters
    ----------
    mpirun : str or None
        Path of the launcher, where there is one.
    environ : mapping, optional
        By default `os.environ`: modules and conda say there what is loaded.
    prefix : str, optional
        Folder of this environment, by default that of this Python.
    """
    environ = os.environ if environ is None else environ
    folder = Path(sys.prefix if prefix is None else prefix)
    paths = {"MPI": mpirun, **{title: _origin(name) for name, title in _LIBRARIES.items()}}
    outside = {title: path for title, path in paths.items() if path is not None and not _is_inside(path, folder)}
    recorded = _recorded(folder)
    if recorded is None and not outside:
        return None
    details = [f"{title} {_source(path, environ)}" for title, path in outside.items()]
    return SiteReport("; ".join(details) or "nothing of the site is here", _remedy(recorded or {}, paths, environ))


def _origin(name: str) -> str | None:
    """The file of a package, which is not imported."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin


def _is_inside(path: str, folder: Path) -> bool:
    """Whether a file is in a folder, under either of its names."""
    return any(folder in Path(name).parents for name in (path, os.path.realpath(path)))


def _source(path: str, environ: Mapping[str, str]) -> str:
    """Module, conda environment or folder that a file is from."""
    path = path.removesuffix("/__init__.py")
    conda = environ.get("CONDA_PREFIX")
    if conda and _is_inside(path, Path(conda)):
        return f"of the conda environment {conda}"
    parts = [part.lower() for part in Path(path).parts]
    for module in _loaded(environ):
        if module.split("/")[0].lower() in parts:
            return f"of module {module} ({path})"
    return f"at {path}"


def _loaded(environ: Mapping[str, str]) -> list[str]:
    """Modules that are loaded, e.g. `openmpi/5.0.3`."""
    return [module for module in environ.get("LOADEDMODULES", "").split(":") if module]


def _recorded(folder: Path) -> dict[str, Any] | None:
    """What the set-up wrote of the site."""
    try:
        recorded: dict[str, Any] = json.loads((folder / SITE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return recorded


def _remedy(recorded: dict[str, Any], paths: Mapping[str, str | None], environ: Mapping[str, str]) -> str:
    """What to do where the libraries are not those that the environment was set up with."""
    absent = [module for module in recorded.get("modules", []) if module not in _loaded(environ)]
    if absent:
        return f"module load {' '.join(absent)} (loaded when this environment was set up; slurm/site.sh is the place)"
    conda = recorded.get("conda")
    if conda and environ.get("CONDA_PREFIX") != conda:
        return f"conda activate {conda} (active when this environment was set up; slurm/site.sh is the place)"
    titles = {"mpi": "MPI", **_LIBRARIES}
    for name, title in titles.items():
        before, now = recorded.get(name, {}).get("path"), paths[title]
        if before and (now is None or os.path.realpath(before) != os.path.realpath(now)):
            return f"{title} was {before} when this environment was set up: load that one, or run make setup SITE=1"
    return ""
