"""Which events of a problem's files are used, and how they count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcgan import weights as of_events
from hpcgan.data.schema import Sample
from hpcgan.data.source import WEIGHT, Source, Subset, matching
from hpcgan.errors import InputError
from hpcgan.metrics import points
from hpcgan.problems.base import Problem

if TYPE_CHECKING:
    from hpcgan.config import DataConfig


@dataclass(frozen=True)
class Use:
    """Which events of a file are used, and how they count.

    Attributes
    ----------
    select : mapping of str to a number or a list of numbers
        Columns, and the values they must have.
    weighted : bool
        Whether events count with their weights.
    select_key, ignore_key : str
        What messages call the settings.
    """

    select: Mapping[str, float | list[float]] = field(default_factory=dict)
    weighted: bool = True
    select_key: str = "data.select"
    ignore_key: str = "data.weights=ignore"

    @property
    def example(self) -> str:
        """How to select events of y = 1."""
        return f"{self.select_key} y=1" if self.select_key.startswith("-") else f"{self.select_key}={{y: 1}}"

    @classmethod
    def of(cls, data: DataConfig) -> Use:
        """As a configuration has it."""
        return cls(data.select, data.weights == "use")


def open_events(problem: Problem, path: Path, split: str, use: Use, cache_mb: int = 1024) -> Source:
    """Open one split of a folder, or a file, with the events that are used of it: those selected, with any weight.

    Raises
    ------
    InputError
        Missing or broken file, no such column, no event that is left, weights of which no distribution can be made.
    """
    return _counted(_selected(problem.open(path, split, cache_mb), use), use)


def open_split(problem: Problem, data: DataConfig, split: str) -> Source:
    """Open a split as it is trained on, or selected by: also without the events of `data.leave_out`.

    Raises
    ------
    InputError
        As `open_events`; a file that is not that of the run (`run_data.load`); a point that no event of the
        training split has, or no event that is left.
    """
    data.require(split)
    use = Use.of(data)
    source = _selected(problem.open(data.path, split, data.cache_mb), use)
    if not data.leave_out:
        return _counted(source, use)
    conditions = source.conditions()
    kept = np.ones(len(source), bool)
    for point in data.leave_out:
        fits = matching(conditions, point)
        if split == "train" and not fits.any():
            source.close()
            raise InputError(
                f"{source.path}: data.leave_out: no event has {points.label(point)}; {_there(problem, conditions)}"
            )
        kept &= ~fits
    if not kept.any():
        source.close()
        raise InputError(f"{source.path}: data.leave_out leaves no event")
    return _counted(Subset(source, np.flatnonzero(kept)), use)


def _selected(source: Source, use: Use) -> Source:
    """The events that have the values asked for."""
    if not use.select:
        return source
    try:
        where, known = f"{source.path}: {use.select_key}", source.labels()
        kept = np.ones(len(source), bool)
        for name, value in use.select.items():
            if name not in known:
                known_columns = f"; there are: {', '.join(known)}" if known else ", nor any other to select by"
                raise InputError(f"{where}: the file has no column '{name}'{known_columns}")
            values = np.asarray(value, np.float64).reshape(-1)
            column = source.label(name)
            # Files hold most columns in single precision: 0.1 there is not 0.1.
            fits = np.isin(column, values) | np.isin(column, values.astype(np.float32).astype(np.float64))
            if not fits.any():
                raise InputError(f"{where}: no event has {_asked(name, values)}; there are: {counted(column)}")
            kept &= fits
        if not kept.any():
            raise InputError(f"{where} leaves no event: none has all of {', '.join(use.select)} as asked for")
    except BaseException:
        source.close()
        raise
    return Subset(source, np.flatnonzero(kept))


def _counted(source: Source, use: Use) -> Source:
    """The events that count: without those of weight zero, and with equal weights where weights are ignored."""
    try:
        weights = source.weights()
        if weights is None:
            return source
        if not use.weighted:
            return Subset(source, np.arange(len(source)), weighted=False)
        of_events.check(
            weights, f"{source.path}: data set '{WEIGHT}'", f"correct the file, or ignore weights with {use.ignore_key}"
        )
    except BaseException:
        source.close()
        raise
    return source if weights.all() else Subset(source, np.flatnonzero(weights), weightless=int(np.sum(weights == 0)))


def weights_used(source: Source) -> str | None:
    """One line on the weights that the events of a source have; None where all count alike."""
    weights = source.weights()
    weightless = source.weightless if isinstance(source, Subset) else 0
    if weights is None and not weightless:
        return None
    text = f"the weights of events are used: {len(source)} events of {source.path} "
    if weights is None:
        text += "have equal weights"
    else:
        text += f"determine as much as {of_events.effective(weights):.1f} of equal weight"
    return text + (f", {weightless} have the weight 0 and are left out" if weightless else "")


def weights_of_first(source: Source, events: int) -> np.ndarray | None:
    """Weights of the first events of a source, which are to be scored; None where all count alike.

    Raises
    ------
    InputError
        Their sum is not above zero.
    """
    weights = source.weights()
    if weights is None:
        return None
    n = min(events, len(source))
    where = f"{source.path}: data set '{WEIGHT}' of the first {n} events"
    of_events.check(weights[:n], where, "score more with scoring.events, or ignore weights with data.weights=ignore")
    return of_events.counting(weights[:n])


def doubts(source: Source, use: Use, *, trained: bool = True) -> list[str]:
    """What to warn of: negative weights, weights that cannot be used, a mixture of signal and background.

    Parameters
    ----------
    source : Source
        As `open_split` or `open_events` gave it.
    use : Use
    trained : bool
        Whether it is trained on, or compared with.
    """
    warnings = []
    weights = source.weights()
    if weights is not None and (weights < 0).any():
        share, of_sum = of_events.negative_shares(weights)
        what = (
            "training draws events by |weight|, since a batch cannot subtract events: the density that is learnt is "
            "that of |weight|"
            if trained
            else "distributions subtract them"
        )
        warnings.append(
            f"{source.path}: {share:.1%} of the events have a negative weight ({of_sum:.1%} of the sum of |weight|); "
            f"{what}"
        )
    if use.weighted and source.unused_weights():
        warnings.append(f"{source.path}: the weights of a pool's events are not used; sums draw all events alike")
    if "y" in source.labels() and "y" not in use.select:
        labels = source.label("y")
        if len(np.unique(labels)) > 1:
            warnings.append(
                f"{source.path}: the events are a mixture of y = {counted(labels)}, and all are used; "
                f"{use.example} selects those of y = 1"
            )
    return warnings


def counted(values: np.ndarray, most: int = 12) -> str:
    """The values that there are, and how often, `0 (30 events), 1 (12 events)`."""
    distinct, counts = np.unique(values, return_counts=True)
    texts = [f"{value:g} ({count} events)" for value, count in zip(distinct[:most], counts[:most], strict=True)]
    more = f" and {len(distinct) - most} other values" if len(distinct) > most else ""
    return ", ".join(texts) + more


def _asked(name: str, values: np.ndarray) -> str:
    return f"{name} = {' or '.join(f'{value:g}' for value in values)}"


def _there(problem: Problem, conditions: Sample) -> str:
    """The points of the conditions that there are, for a message."""
    rows = np.unique(np.stack([conditions[name].reshape(-1) for name in problem.conditions], axis=1), axis=0)
    labels = [points.label(dict(zip(problem.conditions, row.tolist(), strict=True))) for row in rows[:12]]
    more = f" and {len(rows) - 12} more" if len(rows) > 12 else ""
    return f"there are: {'; '.join(labels)}{more}"
