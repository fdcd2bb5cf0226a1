"""Curves of a training: scores, losses, signs of a collapse, samples a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcgan.report import plots
from hpcgan.report.output import embed
from hpcgan.report.page import EmbeddedFigure
from hpcgan.runs.records import Epoch

#: Signs of a collapse in an epoch's record, as the figure names them.
COLLAPSE = {
    "diversity": "distance of generated pairs",
    "nearest": "distance to the nearest",
    "saturation": "discriminator's certainty",
}
#: Parts of a score in the figure of its curve, at most.
PARTS_SHOWN = 5
#: The curve of the loss of held-out events.
HELD_OUT = "held out"


def loss_curves(epochs: Sequence[Epoch]) -> dict[str, Sequence[float | None]]:
    """Losses of each epoch, of at least one, and of held-out events where a method tells them (`HELD_OUT`).

    None where every step of an epoch was bad (`training.rollback`), or nothing was scored: a gap in the curve.
    """
    losses: dict[str, Sequence[float | None]] = {
        name: [record.losses.get(name) for record in epochs] for name in epochs[0].losses
    }
    if any(record.held_out is not None for record in epochs):
        losses[HELD_OUT] = [None if record.held_out is None else record.held_out.mean for record in epochs]
    return losses


def training_figures(
    epochs: Sequence[Epoch],
    selected_epoch: int,
    band: dict[str, Any],
    loss_label: str,
) -> list[EmbeddedFigure]:
    """Curves of scores, losses and signs of a collapse; none without epochs.

    Parameters
    ----------
    epochs : sequence of Epoch
    selected_epoch : int
        That of the checkpoint that the report is about: it is marked.
    band : dict
        Null band of the report, shown where the scores have its N.
    loss_label : str
        What the losses are.
    """
    if not epochs:
        return []
    label = "Samples seen by all ranks"
    selected = next((float(r.samples) for r in epochs if r.epoch == selected_epoch), None)
    mark = None if selected is None else (selected, f"checkpoint (epoch {selected_epoch})")
    losses = loss_curves(epochs)
    caption_of_losses = "Losses, averaged over each epoch."
    if HELD_OUT in losses:
        caption_of_losses = "Losses: averaged over each epoch, and after it that of validation events (held out)."
    if any(r.selected_by == "held_out" for r in epochs):
        caption_of_losses += " The checkpoint is that with the lowest one held out."
    x = np.array([r.samples for r in epochs], dtype=np.float64)
    figures = []
    scored = [(r.samples, r.score) for r in epochs if r.score is not None]
    if scored:
        sizes = {score.n for _, score in scored}
        lines: dict[str, Sequence[float | None]] = {"total": [score.total for _, score in scored]}
        last = scored[-1][1].parts
        parts = list(last) if len(last) <= PARTS_SHOWN else sorted(last, key=lambda p: -last[p])[:PARTS_SHOWN]
        for part in parts:
            lines[part.replace("_", " ")] = [score.parts[part] for _, score in scored]
        selections = {r.samples: r.selection.total for r in epochs if r.selection is not None}
        if selections:
            lines["selection"] = [selections.get(samples) for samples, _ in scored]
        levels = None
        if sizes == {band["n"]}:
            levels = {"real against real: median": band["median"], "real against real: 95%": band["p95"]}
        at = ", ".join(str(size) for size in sorted(sizes))
        figure = plots.curves(
            np.array([samples for samples, _ in scored], dtype=np.float64),
            lines,
            label,
            f"Score (N = {at})",
            log_y=True,
            mark=mark,
            levels=levels,
        )
        caption = "Score on validation events after each epoch."
        if len(parts) < len(last):
            caption += f" Of its {len(last)} parts, the {len(parts)} that are largest at the end."
        if selections:
            caption += " The checkpoint is chosen by the selection, the same sum over scoring.quantities."
        figures.append(embed("score_curve", caption, figure, "training"))
    figure = plots.curves(x, losses, label, loss_label, mark=mark)
    figures.append(embed("loss_curve", caption_of_losses, figure, "training"))
    signs = {text: [r.collapse.get(name) for r in epochs] for name, text in COLLAPSE.items()}
    signs = {text: values for text, values in signs.items() if any(value is not None for value in values)}
    if signs:  # a training that is not scored, of a method without a discriminator, has none
        caption = (
            "Signs of a collapse: mean distances among generated events over those among real ones (1: as diverse; "
            "near 0: alike)"
        )
        if COLLAPSE["saturation"] in signs:
            caption += (
                ", and by how much the discriminator takes real events rather than generated ones for real "
                "(0: it cannot tell; near 1: it is certain, and teaches little)"
            )
        caption += "."
        figures.append(embed("collapse_curve", caption, plots.curves(x, signs, label, "Ratio", mark=mark), "training"))
    return figures
