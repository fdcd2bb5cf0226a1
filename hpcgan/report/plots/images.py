"""Images of events: means, single ones, tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from hpcgan import weights as of_events
from hpcgan.metrics.observable import UNWEIGHTED, SidesWeights
from hpcgan.report.plots.style import new_figure, styled


@styled
def mean_images(
    real: np.ndarray,
    fake: np.ndarray,
    extent: tuple[float, float, float, float],
    value: str,
    axes: tuple[str, str],
    *,
    log: bool = False,
    weights: SidesWeights = UNWEIGHTED,
) -> Figure:
    """Mean image of real and of generated events, their relative difference and its significance.

    Parameters
    ----------
    real, fake : (n, rows, columns), (m, rows, columns) arrays
        Rows run along the first of `axes` and are drawn horizontally.
    extent : tuple
        (first low, first high, second low, second high), the ranges of the axes.
    value : str
        Label of the colour scale.
    axes : (str, str)
        Labels of the axes.
    log : bool
        A logarithmic colour scale for the means, of at most six decades.
    weights : pair of (n,) arrays or None
        Of the events.
    """
    sides = list(zip((real, fake), weights, strict=True))
    means = [of_events.mean(images, w) for images, w in sides]
    variances = [of_events.mean_error(images, w) ** 2 for images, w in sides]
    difference = means[1] - means[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(means[0] > 0, difference / means[0], np.nan)
        pull = difference / np.sqrt(variances[0] + variances[1])
    positive = means[0][means[0] > 0]
    low, high = np.quantile(positive, [0.0, 1.0]).tolist() if len(positive) else (0.0, 1.0)
    logarithmic = log and len(positive) > 0
    scale = LogNorm(max(low, 1e-6 * high), 1.001 * high) if logarithmic else Normalize(low, high)
    finite = np.abs(relative[np.isfinite(relative)])
    limit = float(np.clip(np.quantile(finite, 0.95), 0.05, 1.0)) if len(finite) else 1.0
    figure = new_figure((8.6, 8.0))
    panels = figure.subplots(2, 2)
    content = (
        (means[0], "Real: mean", "viridis", scale, value),
        (means[1], "Generated: mean", "viridis", scale, value),
        (relative, "Relative difference", "RdBu_r", Normalize(-limit, limit), "generated / real - 1"),
        (pull, "Significance of the difference", "RdBu_r", Normalize(-5, 5), "difference / standard error"),
    )
    for panel, (image, title, colours, norm, text) in zip(panels.flat, content):
        picture = _draw_image(panel, image, extent, colours, norm)
        panel.set(title=title, xlabel=axes[0], ylabel=axes[1])
        figure.colorbar(picture, ax=panel, label=text, extend="neither" if colours == "viridis" else "both")
    return figure


@styled
def signed_images(
    panels: Sequence[tuple[str, np.ndarray]],
    extent: tuple[float, float, float, float],
    value: str,
    axes: tuple[str, str],
) -> Figure:
    """Images of numbers of either sign side by side, on one linear scale around zero.

    Parameters
    ----------
    panels : sequence of (title, image)
        (rows, columns) arrays; rows run along the first of `axes` and are drawn horizontally.
    extent, value, axes
        As in `mean_images`.
    """
    limit = max((float(np.abs(image).max()) for _, image in panels if image.size), default=0.0) or 1.0
    figure = new_figure((4.1 * len(panels) + 0.9, 4.2))
    places = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for panel, (title, image) in zip(places, panels, strict=True):
        picture = _draw_image(panel, image, extent, "RdBu_r", Normalize(-limit, limit))
        panel.set(title=title, xlabel=axes[0])
    places[0].set_ylabel(axes[1])
    figure.colorbar(picture, ax=places, label=value)
    return figure


@styled
def image_grid(
    real: np.ndarray,
    fake: np.ndarray,
    extent: tuple[float, float, float, float],
    value: str,
    axes: tuple[str, str],
    side: int = 3,
    *,
    linear: bool = False,
) -> Figure:
    """The first images of both samples side by side, on one logarithmic colour scale; zeros are white.

    Parameters
    ----------
    real, fake : (n, rows, columns) arrays
        `side`^2 of each are shown, or as many as there are; of one without any, nothing.
    extent, value, axes
        As in `mean_images`.
    side : int
        Images along a side of each block.
    linear : bool
        Instead a linear scale, from the 1st to the 99.5th percentile of the real images' values, for dense images of
        either sign.
    """
    real, fake = real[: side**2], fake[: side**2]
    of_scale = (real if len(real) else fake) if linear else np.concatenate([real, fake])
    norm = _scale(of_scale, linear)
    both = [(real, "Real"), (fake, "Generated")]
    blocks = [block for block in both if len(block[0])] or both
    between = side if len(blocks) == 2 else -1  # an empty, narrow column
    columns = len(blocks) * side + (len(blocks) - 1)
    figure = new_figure((10.4 if len(blocks) == 2 else 5.8, 5.4))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    with mpl.rc_context(
        {"font.size": 9, "axes.labelsize": 10, "xtick.minor.visible": False, "ytick.minor.visible": False}
    ):
        panels = figure.subplots(
            side,
            columns,
            squeeze=False,
            sharex=True,
            sharey=True,
            width_ratios=[0.12 if column == between else 1 for column in range(columns)],
        )
        picture = None
        for column in range(columns):
            block, within = divmod(column, side + 1)
            images, title = blocks[block]
            if within == side // 2:
                panels[0, column].set_title(title, fontsize=12)
            for row in range(side):
                panel = panels[row, column]
                i = row * side + within
                if column == between or i >= len(images):
                    panel.set_axis_off()
                    continue
                visible = images[i] if linear else np.where(images[i] > 0, images[i], np.nan)
                picture = _draw_image(panel, visible, extent, "viridis", norm)
                panel.tick_params(labelleft=column == 0)
                panel.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
                if row == side - 1:
                    panel.set_xlabel(axes[0])
                if column == 0:
                    panel.set_ylabel(axes[1])
        if picture is not None:
            figure.colorbar(picture, ax=panels, label=value, pad=0.015, extend="both" if linear else "min")
    return figure


@styled
def image_table(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    columns: Sequence[str],
    extent: tuple[float, float, float, float],
    value: str,
    axes: tuple[str, str],
    *,
    rule: int | None = None,
) -> Figure:
    """Images in a table, each column on a logarithmic colour scale of its own; zeros are white.

    Parameters
    ----------
    rows : sequence of (name, images)
        One image (rows, columns) a column of the table; first axes of images are drawn horizontally. Shapes may differ
        from column to column.
    columns : sequence of str
        Their titles.
    extent, value, axes
        As in `mean_images`, the same for all.
    rule : int, optional
        Leave a gap after so many rows.
    """
    gap = [] if rule is None or not 0 < rule < len(rows) else [rule]
    lines: list[tuple[str, Sequence[np.ndarray]] | None] = list(rows)
    for place in gap:
        lines.insert(place, None)
    heights = [0.15 if line is None else 1.0 for line in lines]
    figure = new_figure((3.1 * len(columns) + 0.6, 1.15 * sum(heights) + 1.1))
    with mpl.rc_context({"font.size": 9, "xtick.minor.visible": False, "ytick.minor.visible": False}):
        panels = figure.subplots(
            len(lines), len(columns), squeeze=False, sharex=True, sharey=True, height_ratios=heights
        )
        for j, title in enumerate(columns):
            lit = np.concatenate([image[image > 0] for _, images in rows for image in [images[j]]])
            low, high = (float(np.quantile(lit, 0.05)), float(lit.max())) if len(lit) else (1.0, 10.0)
            norm, picture = LogNorm(low, max(high, 1.001 * low)), None
            for panel, line in zip(panels[:, j], lines, strict=True):
                if line is None:
                    panel.set_axis_off()
                    continue
                name, images = line
                picture = _draw_image(panel, np.where(images[j] > 0, images[j], np.nan), extent, "viridis", norm)
                if j == 0:
                    panel.set_ylabel(name, fontsize=8)
            panels[0, j].set_title(title)
            panels[-1, j].set_xlabel(axes[0])
            if picture is not None:
                bar = figure.colorbar(picture, ax=panels[:, j], label=value, location="bottom", extend="min", pad=0.01)
                bar.ax.xaxis.set_minor_formatter(NullFormatter())
        figure.supylabel(axes[1], fontsize=9)
    return figure


@styled
def attention(
    real: np.ndarray,
    events: np.ndarray,
    maps: np.ndarray,
    extent: tuple[float, float, float, float],
    value: str,
    axes: tuple[str, str],
    *,
    linear: bool = False,
) -> Figure:
    """Where a classifier looks: means, and below them the first three events, each over its map of attention.

    Parameters
    ----------
    real : (rows, columns) array
        Mean of real events.
    events, maps : (n, rows, columns) arrays
        Generated events, and how much each pixel of theirs counts.
    extent, value, axes
        As in `mean_images`.
    linear : bool
        As in `image_grid`.
    """
    columns = 3
    means = [real, events.mean(axis=0)]
    scales = [_scale(np.stack(means), linear), _scale(events[:columns], linear)]
    of_mean, of_maps = maps.mean(axis=0), maps[:columns]
    figure = new_figure((9.2, 7.8))
    with mpl.rc_context({"font.size": 9, "xtick.minor.visible": False, "ytick.minor.visible": False}):
        panels = figure.subplots(3, columns, sharex=True, sharey=True)
        pictures: dict[tuple[int, int], Any] = {}

        def draw(row: int, column: int, image: np.ndarray, norm: Normalize, title: str, colours: str) -> None:
            visible = image if linear or colours != "viridis" else np.where(image > 0, image, np.nan)
            pictures[row, column] = _draw_image(panels[row, column], visible, extent, colours, norm)
            panels[row, column].set_title(title, fontsize=10)

        draw(0, 0, means[0], scales[0], "Real: mean", "viridis")
        draw(0, 1, means[1], scales[0], f"Generated, {len(events)} least real: mean", "viridis")
        draw(0, 2, of_mean, _from_zero(of_mean), "Attention: mean", "magma")
        for i in range(columns):
            if i >= len(events):
                panels[1, i].set_axis_off()
                panels[2, i].set_axis_off()
                continue
            draw(1, i, events[i], scales[1], f"Generated event {i + 1}", "viridis")
            draw(2, i, of_maps[i], _from_zero(of_maps), f"Attention in event {i + 1}", "magma")
        figure.colorbar(pictures[0, 1], ax=panels[0, :2], label=f"{value}, mean" if value else "mean", pad=0.015)
        figure.colorbar(pictures[0, 2], ax=panels[0, 2], label="attention", pad=0.015)
        figure.colorbar(pictures[1, 0], ax=panels[1, :], label=value, pad=0.015)
        figure.colorbar(pictures[2, 0], ax=panels[2, :], label="attention", pad=0.015)
        for panel in panels[:, 0]:
            panel.set_ylabel(axes[1])
        for panel in panels[-1]:
            panel.set_xlabel(axes[0])
    return figure


def _scale(images: np.ndarray, linear: bool) -> Normalize:
    """A colour scale for images: linear between percentiles, or logarithmic over what is lit."""
    if linear:
        low, high = (float(value) for value in np.quantile(images, [0.01, 0.995]))
        return Normalize(low, max(high, low + 1e-9))
    lit = images[images > 0]
    low, high = (float(np.quantile(lit, 0.01)), float(lit.max())) if len(lit) else (1.0, 10.0)
    return LogNorm(low, max(high, 1.001 * low))


def _from_zero(maps: np.ndarray) -> Normalize:
    return Normalize(0.0, float(np.quantile(maps, 0.998)) or 1.0)


def _draw_image(
    axes: Axes, image: np.ndarray, extent: tuple[float, float, float, float], colours: str, norm: Normalize
) -> Any:
    picture = axes.imshow(
        image.T,
        origin="lower",
        extent=extent,
        cmap=colours,
        norm=norm,
        aspect="auto",
        interpolation="nearest",
    )
    axes.tick_params(which="both", direction="out", top=False, right=False)
    return picture
