"""Events that a run's generator made after an epoch, beside real ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcgan.errors import InputError
from hpcgan.problems import run_data
from hpcgan.problems.base import problem_class
from hpcgan.problems.events import open_split
from hpcgan.problems.figures import figures_of
from hpcgan.runs.directory import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.data.source import Source

#: Shown of each kind, at most.
SHOWN = 9


def epochs(run: RunDirectory) -> list[int]:
    """Epochs of which there are samples, ascending."""
    return sorted(int(p.stem.rpartition("-")[2]) for p in run.samples.glob("epoch-[0-9]*.h5"))


def figure(run: RunDirectory, epoch: int) -> tuple[str, Figure] | None:
    """Samples of an epoch, beside real ones if the run's data are found.

    Parameters
    ----------
    run : RunDirectory
    epoch : int

    Returns
    -------
    caption, figure : or None, if the problem's samples are no images

    Raises
    ------
    InputError
        No samples of this epoch, or they or the configuration cannot be read.
    """
    config = run_data.load(run)
    problem = problem_class(config.problem)(config.model)
    path = run.samples / f"epoch-{epoch:04d}.h5"
    fake = _first(lambda: problem.open(path, "", cache_mb=0), path)
    real = None
    with contextlib.suppress(InputError):  # a picture may be made where the data are not
        data = config.data.model_copy(update={"cache_mb": 0})
        real = _first(lambda: open_split(problem, data, "val"), data.path)
    captioned = figures_of(problem).singles(real, fake)
    if captioned is None:
        return None
    caption, picture = captioned
    missing = f" Real events are not shown: {config.data.path} does not hold them."
    return caption + (missing if real is None else ""), picture


def _first(opened: Callable[[], Source], path: Path) -> dict[str, np.ndarray]:
    """The first samples of a file or split."""
    try:
        with contextlib.closing(opened()) as source:
            return dict(source.read(np.arange(min(len(source), SHOWN))))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
