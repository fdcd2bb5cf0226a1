"""Importers: what `hpcgan data import` makes data sets from the files of other programs with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hpcgan.config.base import Section
from hpcgan.data.workers import Progress


@dataclass(frozen=True)
class Order:
    """What is to be imported, and where to.

    Attributes
    ----------
    files : sequence of paths
        All of them recognised.
    out : path
        Folder of the new files.
    force : bool
        Replace existing files.
    progress : callable(done, total)
    say : callable(text)
        Hears what was left out.
    """

    files: Sequence[Path]
    out: Path
    force: bool = False
    progress: Progress = lambda done, total: None
    say: Callable[[str], None] = lambda text: None


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
    def import_files(self, order: Order) -> bool:
        """Make ``train.h5``, ``val.h5`` and ``test.h5``: of five samples in a row three go to train, one to each other.

        Returns
        -------
        bool
            False if `order.out` already held exactly this data and nothing was done.

        Raises
        ------
        InputError
            Files that cannot be used, or an `order.out` that holds other data.
        """
