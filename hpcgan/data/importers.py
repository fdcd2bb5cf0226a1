"""Importers: what `hpcgan data import` makes data sets from the files of other programs with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from hpcgan.config.base import Section
from hpcgan.data.workers import Progress


class Importer(Section, ABC):
    """Reads files of one kind or of several; its fields are options of `hpcgan data import`, as those of a `Generator`.

    Attributes
    ----------
    title : str
        What it reads, for messages, such as `Delphes files`.
    needs : str
        What files of its kinds hold, such as `CaloChallenge: incident_energies, showers`; "" for nothing to say.
    """

    title: ClassVar[str]
    needs: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def recognise(cls, path: Path) -> str:
        """What a file is, such as `holds Geant4 showers`; "" where it is not for this importer.

        Raises
        ------
        InputError
            The file is damaged.
        """

    @abstractmethod
    def import_files(
        self,
        files: Sequence[Path],
        out: Path,
        force: bool = False,
        progress: Progress | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> bool:
        """Make ``train.h5``, ``val.h5`` and ``test.h5``: of five samples in a row three go to train, one to each other.

        Parameters
        ----------
        files : sequence of paths
            All of them recognised.
        out : path
            Folder of the files.
        force : bool
            Replace existing files.
        progress : callable(done, total), optional
        say : callable(text), optional
            Hears what was left out.

        Returns
        -------
        bool
            False if `out` already held exactly this data and nothing was done.

        Raises
        ------
        InputError
            Files that cannot be used, or an `out` that holds other data.
        """
