"""Figures of a run and of a sweep as they stand now: what `plot()` returns and a panel shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.errors import InputError
from hpcgan.evaluation import epoch_samples
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.records import Command, Epoch
from hpcgan.sweep.table import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Lines = dict[str, Sequence[float | None]]


def curves(run: RunDirectory, loss_label: str) -> Figure:
    """Losses, score with its parts, and samples/s of each epoch so far.

    Parameters
    ----------
    run : RunDirectory
    loss_label : str
        Of the axis of the losses.

    Raises
    ------
    InputError
        No epoch is done yet.
    """
    from hpcgan.report import plots
    from hpcgan.report.training_curves import loss_curves

    epochs = records.read(run.metrics_file, Epoch)
    if not epochs:
        raise InputError(f"{run.path}: no epoch is done yet")
    panels: list[tuple[str, Lines, bool]] = [(loss_label, loss_curves(epochs), False)]
    scores = [record.score for record in epochs]
    if scored := [score for score in scores if score is not None]:
        sizes = ", ".join(str(n) for n in sorted({score.n for score in scored}))
        lines: Lines = {"total": [None if score is None else score.total for score in scores]}
        for part in scored[0].parts:
            lines[part.replace("_", " ")] = [None if score is None else score.parts[part] for score in scores]
        selections = [None if record.selection is None else record.selection.total for record in epochs]
        if any(value is not None for value in selections):
            lines["selection"] = selections
        panels.append((f"Score (N = {sizes})", lines, True))
    panels.append(("Samples/s", {"all ranks": [record.samples_per_second for record in epochs]}, False))
    changes = [record.step for record in records.read(run.metrics_file, Command) if record.rates]
    steps_per_epoch = epochs[-1].step / epochs[-1].epoch
    return plots.progress([record.epoch for record in epochs], panels, [step / steps_per_epoch for step in changes])


def samples(run: RunDirectory, epoch: int) -> tuple[str, Figure]:
    """Caption and figure of generated events of an epoch beside real ones.

    Raises
    ------
    InputError
        There are no samples of it, or the problem's samples are no images.
    """
    epochs = epoch_samples.epochs(run)
    if not epochs:
        raise InputError(f"{run.path}: no epoch is done yet")
    if epoch not in epochs:
        raise InputError(f"{run.path}: no samples of epoch {epoch}; there are {epochs[0]} to {epochs[-1]}")
    caption_and_figure = epoch_samples.figure(run, epoch)
    if caption_and_figure is None:
        raise InputError(f"{run.path}: its problem has no picture of single samples")
    return caption_and_figure


def trials(study: Path) -> Figure:
    """Score of each trial and parallel coordinates, in which a line is a trial, dark if its score is good.

    Raises
    ------
    InputError
        There is no study, or no trial has a score yet.
    """
    from hpcgan.sweep.figures import overview_figure

    figure = overview_figure(read_table(study))
    if figure is None:
        raise InputError(f"{study}: no trial has a score yet")
    return figure
