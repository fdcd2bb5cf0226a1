"""What a layout of data files is: the list that generic code goes through instead of knowing any.

Each problem declares the layouts of its files (`Problem.layouts`); :mod:`hpcgan.problems.layouts` finds that of a file.
Files are written by subclasses of :class:`hpcgan.data.storage.SplitWriter`, which only problems and generators make:
what else a sample comes with, such as columns, is theirs to know.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import h5py

from hpcgan.data import attributes
from hpcgan.data.storage import DataFile, open_file, readable, refuse_foreign
from hpcgan.data.workers import Progress
from hpcgan.errors import InputError

ROOT = "/"
"""Group of files whose data sets stand at the top."""


class Layout(ABC):
    """A kind of data file.

    Attributes
    ----------
    title : str
        What messages call files of this kind, such as `detector images`.
    group : str
        Group that holds all data sets, `ROOT` where they stand at the top.
    problem : str, optional
        Problem of files that do not name theirs in the attribute `problem`.
    export_format : str
        What `export` writes, for the help; "" where it writes nothing.
    """

    title: ClassVar[str]
    group: str
    problem: ClassVar[str | None] = None
    export_format: ClassVar[str] = ""

    @abstractmethod
    def recognises(self, file: h5py.File) -> bool:
        """Whether a file is of this kind, by the names of what it holds at the top; contents are not looked at."""

    @abstractmethod
    def open(self, path: Path) -> DataFile:
        """Open a file, with checks of its data sets but not of their contents.

        Raises
        ------
        InputError
        """

    @abstractmethod
    def validate(self, path: Path) -> None:
        """Read a whole file and refuse it if anything in it is wrong.

        Raises
        ------
        InputError
        """

    @abstractmethod
    def describe(self, path: Path, picture: str | os.PathLike[str] | None = None) -> str:
        """What a file holds, on several lines, after reading all of it; a PNG of some samples goes to `picture`.

        Raises
        ------
        InputError
            As `validate`.
        Unwritten
            The picture cannot be written.
        """

    def holds(self, path: Path) -> bool:
        """Whether a file is of this kind.

        Raises
        ------
        InputError
            No such file, not HDF5, or damaged.
        """
        with open_file(path) as file, readable(path, "the list of data sets"):
            return self.recognises(file)

    def problem_of(self, path: Path) -> str | None:
        """The problem that a file of this kind belongs to, None where it does not say.

        Raises
        ------
        InputError
            The file is damaged.
        """
        with open_file(path) as file, readable(path, f"attributes of {self.group}"):
            if self.group != ROOT:
                refuse_foreign(path, file, self.group, self.group)
            name = attributes.read(file[self.group]).get("problem")
        return name if isinstance(name, str) else self.problem

    def export(self, files: Sequence[Path], out: Path, force: bool = False, progress: Progress | None = None) -> bool:
        """Write files in the format of another program, if there is one for this layout.

        Returns
        -------
        bool
            False if `out` already held exactly these data and nothing was done.

        Raises
        ------
        InputError
            There is none, files that cannot be used, or an `out` that holds other data.
        """
        raise InputError(f"{files[0]}: holds {self.title}, for which there is no other format")
