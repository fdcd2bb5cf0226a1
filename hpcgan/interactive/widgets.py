"""What the panels of trainings and of sweeps have in common. Importing it needs no widgets."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from hpcgan.errors import HpcganError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#5f6368"
PAUSE_OF_PAINTER = 4  # times the core's time that it took: it has at most a fifth of one
HOW = "pip install 'hpcgan[interactive]'"


def missing() -> str | None:
    """Why there can be no panel here, in one line."""
    try:
        import ipywidgets  # noqa: F401 - whether it is there
        from IPython import get_ipython
    except ImportError:
        return f"The dashboard needs ipywidgets: {HOW}"
    if getattr(get_ipython(), "kernel", None) is None:
        return f"The dashboard needs a notebook: {HOW}, then jupyter lab. Here, plot() returns the picture."
    return None


def display_plain(thing: Any) -> None:
    """Display something in a notebook, or a terminal of IPython; nothing elsewhere."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if get_ipython() is not None:
        display(thing)


def display_picture(figure: Figure) -> None:
    """Display a figure as it is now, whatever the kernel does with figures."""
    try:
        from IPython.display import Image
    except ImportError:
        return
    from hpcgan.report import plots

    display_plain(Image(data=plots.png(figure), width=1000))


def text(said: str, bad: bool = False) -> str:
    """A line of a panel as HTML."""
    colour = "color:#B3261E;" if bad else ""
    return f"<span style='{colour}line-height:1.4'>{html.escape(said)}</span>"


def badge(state: str, colour: str) -> str:
    """A word on a coloured ground as HTML."""
    style = f"background:{colour};color:white;border-radius:4px;padding:2px 10px"
    return f"<span style='{style}'>{html.escape(state)}</span>"


def line(error: Exception) -> str:
    """An error as one line."""
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, HpcganError) else f"{type(error).__name__}: {first}"


class Panel:
    """Something of widgets that a notebook displays, in as many places as wished.

    Attributes
    ----------
    box : ipywidgets.VBox
        All of it.
    """

    box: Any
    _shown_in: int | None = None

    def show(self) -> None:
        """Display it here, too."""
        from IPython.display import display

        self._shown_in = _cell()
        display(self.box)

    def _ipython_display_(self) -> None:
        """As the last value of a cell; not once more in the one that has displayed it."""
        if self._shown_in is None or self._shown_in != _cell():
            self.show()


def _cell() -> int | None:
    """The number of the cell that runs."""
    from IPython import get_ipython

    shell = get_ipython()
    return None if shell is None else int(shell.execution_count)


def hear_while_a_cell_runs(widget: Any) -> None:
    """Let a widget's messages be handled by the subshell that the front end has for them.

    JupyterLab 4.4 and later send them to a subshell, so that they need not wait for the cell that runs. ipykernel 7.4
    sends them on to the shell that last used the widget, that of the cells, unless there is no such routine.
    Elsewhere this is an attribute that nobody looks at.
    """
    widget.comm._reply_subshell_for = None


def close(widget: Any) -> None:
    """Close a widget with all that belongs to it; otherwise the kernel keeps it, and the pictures, to its end."""
    for child in getattr(widget, "children", ()):
        close(child)
    for part in ("layout", "style"):
        if getattr(widget, part, None) is not None:
            getattr(widget, part).close()
    widget.close()
