"""Draws docs/figures/how_it_works.png: what the parts of a training are, and what goes between them.

python benchmarks/how_it_works_figure.py docs/figures/how_it_works.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PROBLEM, ENGINE, RUN, TOOL = "#fde7c8", "#d7e6f5", "#dff0d8", "#eeeeee"
INK, FAINT = "#222222", "#555555"


def box(axes: Axes, place: tuple[float, float, float, float], colour: str, title: str, text: str = "") -> None:
    """A box at (left, bottom, width, height) with a title and smaller lines below it."""
    left, bottom, width, height = place
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, fc=colour, ec=INK, lw=1.1))
    centre, top = left + width / 2, bottom + height
    axes.text(centre, top - 0.16, title, ha="center", va="top", fontsize=11, weight="bold", color=INK)
    axes.text(centre, top - 0.52, text, ha="center", va="top", fontsize=10, color=INK, linespacing=1.45)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], both: bool = False) -> None:
    """An arrow between two points, with two heads if something goes both ways."""
    head = "<|-|>" if both else "-|>"
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=head, mutation_scale=13, lw=1.3, color=INK))


def label(axes: Axes, place: tuple[float, float], text: str) -> None:
    """What goes along an arrow."""
    axes.text(*place, text, fontsize=8.5, style="italic", color=FAINT, ha="center", va="center")


def draw() -> Figure:
    """The figure."""
    figure = Figure(figsize=(10, 5.6))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 5.6)
    axes.axis("off")

    box(
        axes,
        (0.2, 3.75, 2.3, 1.6),
        PROBLEM,
        "Problem (plug-in)",
        "what the data mean:\ntensors, units, networks,\nphysics score, figures",
    )
    box(axes, (0.2, 1.95, 2.3, 1.3), PROBLEM, "Events", "HDF5 files: train, val, test\n(your own, or generated)")
    box(axes, (0.2, 0.2, 2.3, 1.3), PROBLEM, "Configuration", "one YAML file, checked\nbefore anything starts")

    box(axes, (3.3, 0.2, 3.3, 5.15), ENGINE, "Training", "")
    for number, bottom in ((0, 3.2), (1, 1.3)):
        place = (3.5, bottom, 2.9, 1.45)
        box(
            axes,
            place,
            "white",
            f"rank {number}",
            "its share of each batch\ngenerator, discriminator\nscores its share of events",
        )
    arrow(axes, (4.95, 3.2), (4.95, 2.75), both=True)
    label(axes, (4.95, 2.975), "gradients, statistics           in one collective   ")
    axes.text(
        4.95,
        0.75,
        "rank 2, 3, ...  under mpirun or Slurm\nall ranks hold the same bits",
        ha="center",
        va="center",
        fontsize=10,
        color=INK,
        linespacing=1.45,
    )

    box(
        axes,
        (7.4, 3.05, 2.4, 2.3),
        RUN,
        "Run directory",
        "configuration, provenance,\nrecords of every epoch,\ncheckpoints with checksums\n\nthe same command resumes",
    )
    box(
        axes,
        (7.4, 0.2, 2.4, 2.2),
        TOOL,
        "All other tools",
        "sweeps, notebooks,\njobs, panels, commands,\nreports with null bands,\ngenerated events",
    )

    for height in (4.55, 2.6, 0.85):
        arrow(axes, (2.5, height), (3.3, height))
    arrow(axes, (6.6, 4.4), (7.4, 4.4))
    arrow(axes, (8.6, 3.05), (8.6, 2.4), both=True)
    label(axes, (7.0, 4.62), "records")
    arrow(axes, (7.4, 3.5), (6.6, 3.5))
    label(axes, (7.0, 3.28), "commands")
    return figure


if __name__ == "__main__":
    draw().savefig(Path(sys.argv[1]), dpi=130)
