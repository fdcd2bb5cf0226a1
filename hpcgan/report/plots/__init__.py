"""Plot primitives of the reports: real against generated.

Every function returns a `matplotlib.figure.Figure` of its own with the Agg canvas: nothing is registered
with pyplot, nothing has to be closed. Colours are those of Okabe and Ito (colour universal design).
"""

from hpcgan.report.plots.distributions import (
    Band,
    dependence,
    families,
    histogram_grid,
    histogram_ratio,
    named_histogram_ratio,
    null_distribution,
    profile_ratio,
    spectrum_ratio,
)
from hpcgan.report.plots.images import attention, image_grid, image_table, mean_images, signed_images
from hpcgan.report.plots.lines import curves, progress, series, stacked
from hpcgan.report.plots.style import BEFORE, COLOURS, FAKE, REAL, STYLE, new_figure, png, styled, with_unit

__all__ = [
    "BEFORE",
    "COLOURS",
    "FAKE",
    "REAL",
    "STYLE",
    "Band",
    "attention",
    "curves",
    "dependence",
    "families",
    "histogram_grid",
    "histogram_ratio",
    "image_grid",
    "image_table",
    "mean_images",
    "named_histogram_ratio",
    "new_figure",
    "null_distribution",
    "png",
    "profile_ratio",
    "progress",
    "series",
    "signed_images",
    "spectrum_ratio",
    "stacked",
    "styled",
    "with_unit",
]
