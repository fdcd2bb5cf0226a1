"""How figures look, and how they become pictures."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any, TypeVar, cast

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

Function = TypeVar("Function", bound=Callable[..., Any])

REAL = "#4d4d4d"
FAKE = "#D55E00"
BEFORE = "#0072B2"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

STYLE: Any = {
    "font.size": 11,
    "axes.linewidth": 0.9,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "mathtext.default": "regular",
    "savefig.facecolor": "white",
}


def styled(function: Function) -> Function:
    """Run a function with the style of this module, and leave matplotlib's own as it was."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return cast(Function, run)


@styled
def png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # `Figure.savefig` gives the same bytes, but works out the layout twice
    nobody: Any = {"Software": None}
    imsave(buffer, canvas.buffer_rgba(), format="png", dpi=dpi, metadata=nobody)
    return buffer.getvalue()


def with_unit(label: str, unit: str) -> str:
    """Axis label `label [unit]`."""
    return f"{label} [{unit}]" if unit else label


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of that size in inches, with a canvas of its own."""
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure
