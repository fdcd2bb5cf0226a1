"""How the files of a problem are opened, checked and written."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import Layout
from hpcgan.data.layouts.tensor_layout import SAMPLES
from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.data.schema import Sample, Schema
from hpcgan.data.source import Source
from hpcgan.data.storage import Target
from hpcgan.errors import InputError
from hpcgan.problems.discovery import PROBLEMS


class ProblemFiles(ABC):
    """What a problem says of its files; by default one file a split, in which each tensor of the schema is a data set.

    Such a problem says what is special about its files: `check_samples`, `file_attributes`, `group_of`, `noun`. With
    files of another kind it overrides `open`, `validate` and `writer`, and names their layouts.
    """

    name: ClassVar[str]
    #: Layouts of its files, which generic commands then know (`hpcgan.problems.layouts`).
    layouts: ClassVar[Sequence[Layout]] = (SAMPLES,)
    #: What `hpcgan data NAME` makes for it, by NAME: `module:class` of each `hpcgan.data.generators.Generator`.
    generators: ClassVar[Mapping[str, str]] = {}
    #: What `hpcgan data import` reads for it: `module:class` of each `hpcgan.data.importers.Importer`.
    importers: ClassVar[Sequence[str]] = ()
    #: What messages call the samples of a file.
    noun: ClassVar[str] = "samples"

    @property
    @abstractmethod
    def schema(self) -> Schema: ...

    @property
    def file_attributes(self) -> Mapping[str, Any]:
        """Attributes that a file of generated samples has besides the problem's name."""
        return {}

    def group_of(self, file: Path) -> str:
        """Group of a file that holds the data sets; here a file can be refused with a message of its own.

        Raises
        ------
        InputError
        """
        return SAMPLES.group

    def check_samples(self, sample: Sample, path: str, first: int) -> None:
        """Refuse samples that cannot be; those of file `path` from number `first` on (`InputError`)."""

    def check_events(self, source: Source) -> None:
        """Refuse events (`InputError`) that are readable, but none of this problem's: those used, not all of a file."""

    def files(self, path: Path, split: str) -> dict[str, Path]:
        """The files that a split of the data folder consists of, by name; "" where it is one.

        Raises
        ------
        InputError
            One of several is missing.
        """
        return {"": file_of(path, split)}

    def existing(self, path: Path, split: str) -> Path:
        """The file of a split, which has to be there.

        Raises
        ------
        InputError
            It is not; the message says how to make it.
        """
        file = file_of(path, split)
        if not file.is_file():
            maker = next(iter(self.generators), None)
            place = f"{type(self).__module__}:{type(self).__qualname__}"
            if all(place != point.value for point in PROBLEMS.entry_points().values()):
                maker = maker and place  # its generators have no names
            hint = "" if maker is None else f"; make it with 'hpcgan data {maker} --out {path} ...'"
            raise InputError(f"{file}: no such file{hint}")
        return file

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        """Open one split (`train`, `val`, `test`) of the data folder, or the file itself.

        Raises
        ------
        InputError
            Missing or broken file.
        """
        file = self.existing(path, split)
        return TensorSource(file, self.schema, cache_mb, self.group_of(file))

    def validate(self, path: Path, split: str) -> None:
        """Read a whole split once and refuse what cannot be trained on.

        Raises
        ------
        InputError
            Missing, truncated or unsuitable file, wrong shape, NaN or negative energies.
        """
        file = self.existing(path, split)
        tensors.validate(file, self.schema, self.check_samples, self.group_of(file))

    @contextlib.contextmanager
    def writer(
        self, path: Path, n: int, attributes: Mapping[str, Any], force: bool = False
    ) -> Iterator[Callable[[Sample], None]]:
        """Write `n` generated samples in the layout of the training data, batch by batch.

        The context gives a function that appends a batch (physical units). The file appears under its
        name when the context ends without an error, and is complete then.

        Raises
        ------
        InputError
            The file exists (and `force` is not set), or cannot be written.
        """
        target = target_of(path, n, {"problem": self.name, **self.file_attributes, **attributes}, force)
        with tensors.Writer(target, self.schema, noun=self.noun) as writer:
            yield writer.append


def target_of(path: Path, n: int, attributes: Mapping[str, Any], force: bool) -> Target:
    """A single file of generated samples, as a `SplitWriter` takes it.

    Raises
    ------
    InputError
        The name does not end in .h5.
    """
    if path.suffix != ".h5":
        raise InputError(f"{path}: give a name that ends in .h5")
    return Target(path.absolute().parent, {path.stem: n}, attributes, force)


def file_of(path: Path, split: str) -> Path:
    """The file of a split, or the path itself if it is a file."""
    return path if path.is_file() else path / f"{split}.h5"
