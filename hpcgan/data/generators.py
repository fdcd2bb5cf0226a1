"""Generators of data sets: what `hpcgan data NAME` runs, on any number of processes."""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import hpcgan
from hpcgan.config.base import Section
from hpcgan.data.layouts.base import Layout
from hpcgan.data.storage import SplitWriter, Target, split_sizes
from hpcgan.data.workers import Progress, check_jobs, in_order
from hpcgan.errors import InputError


@dataclass(frozen=True)
class Block:
    """A unit of work: the `index`-th one, samples `first` to `first + n - 1`."""

    index: int
    first: int
    n: int


class DataSet(ABC):
    """A data set that is to be made: what its files depend on, the units of work, and who writes them.

    Attributes
    ----------
    n : int
        Samples over all three files.
    seed : int
        0 or more.
    layout : Layout
        Of the files.
    noun : str
        What messages call the samples.
    block : int
        Samples of a unit of work.
    """

    n: int
    seed: int
    block: ClassVar[int]
    layout: ClassVar[Layout]
    noun: ClassVar[str] = "events"

    def check(self) -> None:
        """Refuse what cannot be made.

        Raises
        ------
        InputError
        """
        if self.n < 5:
            raise InputError(f"{self.noun} = {self.n}: at least 5 are needed to fill train, validation and test")

    def sizes(self) -> Mapping[str, int]:
        """Samples of each file, `n` in all: by default 60, 20 and 20 percent."""
        return split_sizes(self.n)

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Everything that the files' contents depend on, as plain values: the same settings, the same files."""

    def attributes(self) -> Mapping[str, Any]:
        """What else the files say of themselves, such as `problem`."""
        return {}

    def tasks(self) -> Sequence[Any]:
        """Units of work in the order of the files: by default a `Block` each."""
        firsts = range(0, self.n, self.block)
        return [Block(i, first, min(self.block, self.n - first)) for i, first in enumerate(firsts)]

    @abstractmethod
    def make(self, task: Any, advance: Callable[[int], None]) -> Any:
        """Do a task, and tell `advance` each number of samples made; the outcome must not depend on who does it.

        Other processes do it, to which the data set is sent.
        """

    @abstractmethod
    def writer(self, target: Target) -> SplitWriter:
        """Writer of the files, not yet entered."""

    def write(self, writer: Any, results: Iterator[tuple[Any, Any]]) -> None:
        """Hand all results to the writer; they come in order, each with its task."""
        for _, result in results:
            writer.append(result)


def make_data_set(
    data_set: DataSet,
    out: str | os.PathLike[str],
    jobs: int = 1,
    progress: Progress | None = None,
    force: bool = False,
) -> bool:
    """Write ``train.h5``, ``val.h5`` and ``test.h5``, with as many samples as :meth:`DataSet.sizes` says.

    The same data set gives the same bytes whatever `jobs` is. With more than one job a script that calls this needs the
    usual ``if __name__ == "__main__":`` guard, since the workers are spawned.

    Parameters
    ----------
    data_set : DataSet
    out : path
        Folder of the files.
    jobs : int
        Processes that make samples; 1 works in this process.
    progress : callable(done, total), optional
    force : bool
        Replace existing files.

    Returns
    -------
    bool
        False if `out` already held exactly this data and nothing was done.

    Raises
    ------
    InputError
        Arguments out of range, an `out` that holds other data, no room on its disk.
    HpcganError
        The generator failed, the disk became full, or a worker process died. Nothing is left under the final names in
        any case.
    """
    check_jobs(data_set.seed, jobs)
    data_set.check()
    attributes = {
        **data_set.attributes(),
        "seed": data_set.seed,
        "hpcgan": hpcgan.__version__,
        "settings": json.dumps(data_set.settings()),
    }
    target = Target(out, data_set.sizes(), attributes, force)
    if target.is_there(data_set.layout.open):
        return False
    with data_set.writer(target) as writer:  # refuses what no disk could hold
        tasks = data_set.tasks()
        with contextlib.closing(in_order(data_set.make, tasks, jobs, data_set.n, progress)) as results:
            data_set.write(writer, zip(tasks, results, strict=True))
    return True


class Generator(Section, ABC):
    """A kind of data set that `hpcgan data NAME` makes; its fields, which need defaults, are the command's options.

    `pt_hat_min` is `--pt-hat-min`, a tuple of any length is an option that may be repeated, a `Literal` a choice; a
    validator takes a text of the command line apart. The class's docstring is the command's description, `summary` its
    line in the list of commands. The command has besides `--out`, `--seed`, `--jobs`, `--force` and the number of
    samples, which is called as `noun` says.
    """

    summary: ClassVar[str]
    noun: ClassVar[str] = "events"

    @abstractmethod
    def data_set(self, n: int, seed: int) -> DataSet:
        """The data set of `n` samples.

        Raises
        ------
        InputError
            Options that do not fit together.
        """
