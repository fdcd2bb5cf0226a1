"""What is overlaid: signal events, real pileup and generated pileup, each from whatever holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hpcgan.config import Config
from hpcgan.data.source import Source
from hpcgan.errors import InputError
from hpcgan.evaluation import conditions
from hpcgan.evaluation.events import notices_of
from hpcgan.problems import run_data
from hpcgan.problems.detector_images import files
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.problems.events import Use, open_events
from hpcgan.problems.pileup.layout import POOL
from hpcgan.problems.pileup.problem import PileupModel, PileupProblem
from hpcgan.problems.pileup.source import BLOCKS, SumSource
from hpcgan.report.output import Log
from hpcgan.runs import pretrained
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.console import quiet_tensorflow


@dataclass(frozen=True)
class Reader:
    """Where images come from.

    Attributes
    ----------
    read : callable
        (first, count) -> (count, 64, 64) float32; `first` a multiple of `step`.
    step : int
    blocks : callable or None
        (first, count) -> (count,) which of them depend on one another (`hpcgan.data.source.Dependent`).
    close : callable
        Closes the file, if there is one.
    """

    read: Callable[[int, int], np.ndarray]
    step: int = 1
    blocks: Callable[[int, int], np.ndarray] | None = None
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Images:
    """Images (64, 64) in MeV, read some at a time from the first on.

    Attributes
    ----------
    label : str
        What they are, for reports.
    path : Path
    n : int or None
        How many there are; None: as many as anybody wants.
    reader : Reader
    weights : (n,) array or None
        Of the events; None where all count alike.
    notices : sequence of str
        What there is to say about them.
    """

    label: str
    path: Path
    n: int | None
    reader: Reader
    weights: np.ndarray | None = None
    notices: Sequence[str] = ()


def open_signal(path: Path, use: Use) -> Images:
    """Signal events of a file.

    Raises
    ------
    InputError
        Missing or broken file, one of another grid or unit, or with pileup in it.
    """
    _refuse_missing(path)
    if POOL.holds(path):
        raise InputError(f"{path}: a pool of minimum-bias events, not signal events; give --signal a file of images")
    with files.open_images(path) as opened:
        kind = opened.text("problem")
        opened.announce()
    if kind == "pileup":
        raise InputError(f"{path}: holds pileup, not signal events")
    source = open_events(RpvProblem(RpvModel()), path, "", use, cache_mb=0)
    images = _images(source, f"signal: {path}", len(source))
    return replace(images, weights=source.weights(), notices=notices_of(source, use))


def settings_of(pileup: Path, mu: int) -> tuple[PileupProblem, Config | None]:
    """How pileup is drawn, and the configuration of the run, if it is one; TensorFlow is not loaded.

    Raises
    ------
    InputError
        Neither a file nor a run, a run of another problem, or trained at another mu.
    """
    if pileup.is_file():
        return PileupProblem(PileupModel(mu=mu)), None
    run = RunDirectory(pretrained.resolve(pileup))
    if not run.exists:
        _refuse_missing(pileup)
        raise InputError(f"{pileup}: neither a file nor a run directory (no config.yaml in it)")
    config = run_data.load(run)
    if config.problem != "pileup":
        raise InputError(f"{pileup}: a run of problem '{config.problem}', not of 'pileup'")
    assert isinstance(config.model, PileupModel)
    problem = PileupProblem(config.model)
    if not problem.conditions and mu not in config.model.mus:
        trained = ", ".join(map(str, config.model.mus))
        raise InputError(f"{pileup}: trained at mu = {trained}; --mu {mu} is not what it generates")
    return problem, config


def open_generated(
    pileup: Path, problem: PileupProblem, mu: int, checkpoint: Literal["best", "latest"], seed: int, log: Log
) -> Images:
    """Pileup of a run's generator, of a file of images, or drawn from a pool.

    Raises
    ------
    InputError
        A file that is broken, of another grid or unit, of other events, or made for another mu; no checkpoint yet.
    """
    if pileup.is_file():
        for stated in _stated_mus(pileup):
            if stated != mu:
                raise InputError(f"{pileup}: holds pileup of mu = {stated:g}; --mu {mu} is something else")
        source = problem.open(pileup, "")
        from_pool = isinstance(source, SumSource)
        label = f"drawn from the pool {pileup}" if from_pool else f"generated: {pileup}"
        return _images(source, label, None if from_pool else len(source))
    quiet_tensorflow()
    from hpcgan.evaluation.sampling import load_sampler

    sampler = load_sampler(pileup, checkpoint, warn=log)
    label = f"generated by {pileup}, epoch {sampler.checkpoint.epoch}"
    conditions_of = None
    if sampler.problem.conditions:
        values = conditions.of_points(sampler.problem, [{"mu": float(mu)}])
        conditions_of = conditions.each(values)
        for warning in conditions.warnings(sampler.problem, sampler.config, values, pretrained.ranges(pileup)):
            log(f"warning: {warning}")
    return Images(
        label,
        pileup,
        None,
        Reader(lambda first, count: sampler.sample(count, seed, first, conditions_of)["hist"], sampler.batch_size),
    )


def open_real(folder: Path, problem: PileupProblem, mu: int, n: int) -> tuple[Images, Images]:
    """`n` real pileups of the test split and as many of the validation split, in the same blocks.

    Raises
    ------
    InputError
        Pools that are missing, broken or too small.
    """
    model = problem.model

    def sums(split: str, most_blocks: int = BLOCKS[1]) -> SumSource:
        file = folder / f"{split}.h5"
        if not file.is_file():
            raise InputError(f"{file}: no such file; make it with 'hpcgan data pileup --out {folder} ...'")
        return SumSource(file, [mu], n, model.sums_seed, model.counting, True, most_blocks)

    pair = [sums("test"), sums("val")]
    fewest = min(source.n_blocks for source in pair)
    for source in pair:
        source.close()
    test, val = (_drawn(sums(split, fewest), f"real: {split} events of {folder}") for split in ("test", "val"))
    return test, val


def _drawn(source: SumSource, label: str) -> Images:
    images = _images(source, label, None)
    reader = replace(images.reader, blocks=lambda first, count: source.blocks(np.arange(first, first + count)))
    return replace(images, reader=reader)


def _images(source: Source, label: str, n: int | None) -> Images:
    def read(first: int, count: int) -> np.ndarray:
        return source.read(np.arange(first, first + count))["hist"]

    return Images(label, source.path, n, Reader(read, close=source.close))


def _stated_mus(path: Path) -> list[float]:
    """What a file of images says it is, as a whole or event by event; a pool serves for any mu.

    Raises
    ------
    InputError
        It was generated for another problem.
    """
    if POOL.holds(path):
        return []
    with files.open_images(path) as file:
        file.announce()
        made_for = file.text("run_problem")
        if made_for not in ("", "pileup"):
            raise InputError(f"{path}: generated by a run of problem '{made_for}', not of 'pileup'")
        each = file.column("mu")
        of_events = [] if each is None else [float(value) for value in np.unique(each)]
        whole = file.number("mu")
        return [*([] if whole is None else [whole]), *of_events]


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file")
