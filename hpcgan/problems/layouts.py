"""The layouts of all problems' files: which one a file has, and whose it is."""

from __future__ import annotations

import os
from pathlib import Path

from hpcgan.data.layouts.base import Layout
from hpcgan.data.layouts.tensor_layout import SAMPLES
from hpcgan.data.storage import names, open_file, readable
from hpcgan.errors import InputError
from hpcgan.problems.discovery import PROBLEMS
from hpcgan.problems.importers import importers


def layouts() -> list[Layout]:
    """Every layout that a problem declares, those of hpcgan first."""
    return list(dict.fromkeys([SAMPLES, *(layout for problem in PROBLEMS.all() for layout in problem.layouts)]))


def layout_of(path: str | os.PathLike[str]) -> Layout:
    """The layout of a file.

    Raises
    ------
    InputError
        No such file, not HDF5, or of no layout; one of another program is said to be that.
    """
    path = Path(path)
    choices = layouts()
    try:
        with open_file(path) as file, readable(path, "the list of data sets"):
            for layout in choices:
                if layout.recognises(file):
                    return layout
            groups = ", ".join(
                f"{layout.title} ({'top' if layout.group == '/' else layout.group})" for layout in choices
            )
            raise InputError(f"{path}: of no known layout (it holds: {names(file)}); known are {groups}")
    except InputError:
        kind = next(filter(None, (importer.recognise(path) for importer in importers())), None)
        if kind is None:
            raise
        raise InputError(f"{path}: {kind}; hpcgan data import makes a data set of it") from None


def problem_of(path: str | os.PathLike[str]) -> str:
    """Name of the problem that a file belongs to: what its attribute `problem` says, else that of its layout.

    Raises
    ------
    InputError
        As `layout_of`, or nothing says it, or it has no name in `PROBLEMS`.
    """
    path = Path(path)
    layout = layout_of(path)
    name = layout.problem_of(path)
    if name is None:
        raise InputError(
            f"{path}: does not say which problem it belongs to (attribute problem of {layout.group}); "
            "name it with --problem"
        )
    if name not in PROBLEMS.names():  # whatever stands in a file: no code is imported on its word
        raise InputError(f"{path}: belongs to problem {name[:80]!r}, which has no name here; say it with --problem")
    return name
