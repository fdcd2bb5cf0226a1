"""The showers of a comparison: of two files of anybody, or of a run and its data. Loading a run needs TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hpcgan.calochallenge.geometry import of_segmentation
from hpcgan.calochallenge.protocol import Comparison
from hpcgan.calochallenge.showers import checked, of_sample, read
from hpcgan.comm.agreement import agreed
from hpcgan.comm.base import Comm
from hpcgan.data.schema import Sample, take
from hpcgan.errors import InputError
from hpcgan.evaluation.conditions import each
from hpcgan.evaluation.events import choose
from hpcgan.problems import run_data
from hpcgan.problems.base import problem_class
from hpcgan.problems.calorimeter.calogan import CaloganProblem
from hpcgan.problems.calorimeter.source import PARTICLE, PDG
from hpcgan.problems.events import open_split
from hpcgan.runs.directory import RunDirectory, trained_run
from hpcgan.weights import single_events

if TYPE_CHECKING:
    from hpcgan.config import Config

Log = Callable[[str], None]

#: Of the noise of generated showers, and of the order of real ones.
SEED = 1


@dataclass(frozen=True)
class Loaded:
    """What is compared.

    Attributes
    ----------
    comparisons : list of Comparison
    title : str
        What a report is about.
    real, fake : str
        What it calls the two sides.
    notices : list of str
        What a reader has to know before the numbers.
    """

    comparisons: list[Comparison]
    title: str
    real: str
    fake: str
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Files:
    """Showers of files.

    Attributes
    ----------
    real, fake : Path
        CaloChallenge or CaloGAN files, or what else `hpcgan data import` takes.
    other_real : Path, optional
        More real showers, to hold real ones against.
    binning : Path, optional
        XML of CaloChallenge files; by default the published one with as many voxels.
    events : int, optional
        Showers on each side, the first of each file; by default all.
    cut_mev : float
        Voxels below it become 0, on all sides.
    """

    real: Path
    fake: Path
    other_real: Path | None = None
    binning: Path | None = None
    events: int | None = None
    cut_mev: float = 0.0

    def load(self, comm: Comm, log: Log) -> Loaded:
        """Read the files; to be called on all ranks.

        Raises
        ------
        InputError
            Files that are missing, broken, of unlike geometries or too small.
        """
        with agreed(comm):
            log(f"reading {self.fake}")
            fake, geometry = read(self.fake, self.binning, self.events, self.cut_mev)
            log(f"reading {self.real}")
            real, of_real = read(self.real, self.binning, 2 * len(fake), self.cut_mev)
            other = None
            if self.other_real is not None:
                log(f"reading {self.other_real}")
                other, of_other = read(self.other_real, self.binning, len(fake), self.cut_mev)
                _check_alike(self.real, of_real.title, self.other_real, of_other.title)
            _check_alike(self.real, of_real.title, self.fake, geometry.title)
            comparison = Comparison.of(of_real, real, fake, other)
        sides = f"real: {self.real}", f"generated: {self.fake}"
        return Loaded([comparison], self.fake.name, *sides, _cut_notice(self.cut_mev))


def _check_alike(first: Path, of_first: str, second: Path, of_second: str) -> None:
    if of_first != of_second:
        raise InputError(f"{second}: has the voxels of {of_second}, {first} those of {of_first}")


def _cut_notice(cut_mev: float) -> list[str]:
    return [f"Voxels below {cut_mev:g} MeV are 0 on all sides (--cut)."] if cut_mev > 0 else []


@dataclass(frozen=True)
class Run:
    """Showers that the generator of a run makes for the energies of real ones, and these.

    Attributes
    ----------
    path : Path
        Run directory, or `pretrained:NAME`.
    checkpoint : "best" or "latest"
    split : str
        Whose showers are the real ones. Those of another split are held against them.
    data : Path, optional
        Folder of real showers; by default the run's own, wherever they lie.
    events : int, optional
        Showers on each side, drawn at random; by default all of the split.
    cut_mev : float
        Voxels below it become 0, on all sides.
    """

    path: Path
    checkpoint: Literal["best", "latest"] = "best"
    split: str = "test"
    data: Path | None = None
    events: int | None = None
    cut_mev: float = 0.0

    def check(self) -> tuple[RunDirectory, Config, list[str]]:
        """The run, its configuration and what is to be said of its data, before TensorFlow takes its seconds to load.

        Raises
        ------
        InputError
            No run, or one of another problem.
        """
        directory = trained_run(self.path)
        if self.data is None:
            config, notice = run_data.load(directory), None
        else:
            config, notice = run_data.with_other_data(directory.load_config(), directory, self.data)
        if config.problem != CaloganProblem.name:
            raise InputError(
                f"{self.path}: is a run of problem '{config.problem}'; --protocol calochallenge takes runs of "
                f"'{CaloganProblem.name}', or files with --real and --fake"
            )
        for name in sorted({self.split, self.other}):
            config.data.require(name)
        return directory, config, [] if notice is None else [notice]

    @property
    def other(self) -> str:
        """The split whose showers are held against the real ones."""
        return "val" if self.split != "val" else "test"

    def load(self, comm: Comm, log: Log) -> Loaded:
        """Read real showers and generate as many; to be called on all ranks.

        Raises
        ------
        InputError
            As `check`; bad data files, too few showers.
        """
        with agreed(comm):
            _, config, notices = self.check()
        from hpcgan.evaluation.sampling import load_sampler

        sampler = dataclasses.replace(load_sampler(self.path, self.checkpoint, warn=log, comm=comm), config=config)
        with agreed(comm):
            log(f"reading real showers of {config.data.path}")
            real, other = (_read(config, split, self.events) for split in (self.split, self.other))
            n = len(next(iter(real.values())))
            log(f"generating {n} showers")
            asked = {name: real[name] for name in sampler.problem.conditions}
            fake = sampler.sample(n, SEED, conditions=each(asked)) | asked
            comparisons = _by_particle(sampler.problem, (real, fake, other), self.cut_mev)
        if self.split != "test":
            notices.append(f"Showers of the {self.split} split, which training or selection has seen.")
        return Loaded(
            comparisons,
            config.name,
            f"{self.split} showers of {config.data.path}",
            f"{n} generated showers, epoch {sampler.checkpoint.epoch}",
            notices + _cut_notice(self.cut_mev),
        )


def _read(config: Config, split: str, events: int | None) -> Sample:
    """Showers of a split, in random order; of weighted ones some that are drawn by |weight|, none of them twice."""
    problem = problem_class(config.problem)(config.model)
    problem.validate(Path(config.data.path), split)
    source = open_split(problem, config.data, split)
    try:
        here = single_events(source.weights(), len(source), SEED)
        order = here[choose(len(here), len(here), SEED)]
        return source.read(order if events is None else order[:events])
    finally:
        source.close()


def _by_particle(problem: object, samples: tuple[Sample, Sample, Sample], cut_mev: float) -> list[Comparison]:
    """A comparison for each particle: real, generated and other real showers of it."""
    assert isinstance(problem, CaloganProblem)
    cells = problem.model.cells
    geometry, names = of_segmentation(cells), {number: name for name, number in PDG.items()}
    comparisons = []
    for number in problem.model.classes or (None,):
        sides = []
        for sample, where in zip(samples, ("real showers", "generated showers", "other real showers"), strict=True):
            rows = np.arange(len(sample["energy"])) if number is None else np.flatnonzero(sample[PARTICLE] == number)
            sides.append(checked(of_sample(take(sample, rows), cells), where, cut_mev=cut_mev))
        title = "" if number is None else names[number]
        real, fake, other = sides
        comparisons.append(Comparison.of(geometry, real, fake, other, title))
    return comparisons
