"""A live panel in a notebook: looks at a directory, shows how it stands with pictures, and has buttons that command it.

The pictures are PNGs in an `ipywidgets.Image`, replaced as a whole. ipympl would give them zoom and pan; but it needs a
second extension in the front end that fits the kernel's version, registers its figures with pyplot, and draws each
change in the kernel, between cells. A PNG shows in every front end that has widgets, and can be drawn elsewhere
(`hpcgan.interactive.figure_process`). Who wants to zoom has `plot()` with `%matplotlib widget`.

Threads look at the directory and wait for pictures, not tasks of the kernel's event loop: that would stand still while
a cell runs, such as one with `Training.wait()`. Widgets may be updated from a thread; nothing here prints. Importing
this needs no widgets.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpcgan.errors import HpcganError, InputError
from hpcgan.interactive.figure_process import FigureProcess
from hpcgan.system.failure import in_one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Of a state.
COLOURS = {
    "running": "#0072B2", "paused": "#B36B00", "stopped": "#B36B00", "pruned": "#B36B00", "done": "#00795A",
    "failed": "#B3261E", "lost": "#B3261E", "broken": "#B3261E",
}  # fmt: skip
GREY = "#5f6368"
#: Seconds between two figures for each second of a core's time that the last one took: it has at most a fifth of one.
REST = 4
HOW = "pip install 'hpcgan[interactive]'"

PanelT = TypeVar("PanelT", bound="LivePanel")


def missing() -> str | None:
    """Why there can be no panel here, in one line."""
    try:
        import ipywidgets  # noqa: F401 - whether it is there
    except ImportError:
        return f"The dashboard needs ipywidgets: {HOW}"
    if getattr(_shell(), "kernel", None) is None:
        return f"The dashboard needs a notebook: {HOW}, then jupyter lab. Here, plot() returns the picture."
    return None


def display_plain(thing: Any) -> None:
    """Display something in a notebook, or a terminal of IPython; nothing elsewhere."""
    if _shell() is not None:
        from IPython.display import display

        display(thing)


def display_picture(figure: Figure) -> None:
    """Display a figure as it is now, whatever the kernel does with figures."""
    if _shell() is not None:
        from IPython.display import Image

        from hpcgan.report import plots

        display_plain(Image(data=plots.png(figure), width=1000))


def text(line: str, bad: bool = False) -> str:
    """A line of a panel as HTML."""
    colour = f"color:{COLOURS['failed']};" if bad else ""
    return f"<span style='{colour}line-height:1.4'>{html.escape(line)}</span>"


def badge(state: str) -> str:
    """A state on a coloured ground as HTML."""
    style = f"background:{COLOURS.get(state, GREY)};color:white;border-radius:4px;padding:2px 10px"
    return f"<span style='{style}'>{html.escape(state)}</span>"


def first_line(error: Exception) -> str:
    """An error as one line."""
    return str(error).partition("\n")[0] if isinstance(error, HpcganError) else in_one_line(error)


def display_live(make: Callable[[], PanelT], display_plainly: Callable[[], None]) -> PanelT | None:
    """Display a panel.

    Returns
    -------
    LivePanel or None
        None where there cannot be one: then a line says why, and the plain things are displayed as they are now, if
        there is a notebook to display them in.
    """
    why = missing()
    if why is None:
        panel = make()
        panel.show()
        return panel
    print(why)
    try:
        display_plainly()
    except InputError as error:  # no pandas, or nothing is done yet that could be drawn
        print(error)
    return None


@dataclass
class Picture:
    """A picture of a panel.

    Attributes
    ----------
    image : ipywidgets.Image
    function, arguments : callable, tuple
        As `FigureProcess.draw` takes them.
    version, last_version : tuple, optional
        Of what it shall show, and of what the last drawing was for.
    failure : str
        Of the last drawing.
    """

    image: Any
    function: Callable[..., Any] = print
    arguments: tuple[Any, ...] = ()
    version: tuple[Any, ...] | None = None
    last_version: tuple[Any, ...] | None = None
    failure: str = ""


class LivePanel:
    """Widgets that follow a directory until nobody works there any more, or `close`; there is one of a directory.

    A derived class makes the widgets (`_build`), looks (`_look`), and says more than the base in the hooks.

    Parameters
    ----------
    path : Path
        The directory.
    every : float
        Seconds between two looks.

    Attributes
    ----------
    box : ipywidgets.VBox
        All of it; a notebook displays it in as many places as wished.
    status : ipywidgets.HTML
        What came of the buttons, and what cannot be read or drawn.
    """

    box: Any
    status: Any

    def __init__(self, path: Path, every: float) -> None:
        before = _open.get(path)
        if before is not None:
            before.close()
        self._path, self._every = path, every
        self._lock = threading.RLock()
        self._closed, self._look_now, self._draw_now = threading.Event(), threading.Event(), threading.Event()
        self._figure_process = FigureProcess()
        self._looked_last = False
        self._message, self._trouble = "", ""
        self._displayed_in: int | None = None
        self._pictures: dict[str, Picture] = {}
        self._build()
        self.refresh()
        self._threads = [
            threading.Thread(target=target, name=f"hpcgan-panel-{name}", daemon=True)
            for target, name in ((self._follow, "follow"), (self._draw, "draw"))
        ]
        for thread in self._threads:
            thread.start()
        _open[path] = self

    def _build(self) -> None:
        """Make the widgets, `box` and `status` among them, and `_pictures`."""
        raise NotImplementedError

    def _look(self) -> float | None:
        """Show what is new and say which pictures are `_due`; seconds until the next look, None: there is none."""
        raise NotImplementedError

    def _notices(self) -> list[str]:
        """Further lines for the status, as HTML."""
        return []

    def _label(self, name: str, version: tuple[Any, ...], caption: str) -> None:
        """Hook: a picture has been drawn anew."""

    # --- displaying --------------------------------------------------------------------------------

    def _connect(self, widgets: Mapping[str, Any]) -> None:
        """Give widgets names for style sheets, and let them be heard while a cell runs.

        JupyterLab 4.4 and later send the messages of widgets to a subshell, so that they need not wait for the cell
        that runs. ipykernel 7.4 sends them on to the shell that last used the widget, that of the cells, unless there
        is no such routine. Elsewhere this is an attribute that nobody looks at.
        """
        for name, widget in widgets.items():
            widget.add_class(f"hpcgan-{name}")
            widget.comm._reply_subshell_for = None

    def show(self) -> None:
        """Display it here, too."""
        from IPython.display import display

        self._displayed_in = _cell()
        display(self.box)

    def _ipython_display_(self) -> None:
        """As the last value of a cell; not once more in the one that has displayed it."""
        if self._displayed_in is None or self._displayed_in != _cell():
            self.show()

    def close(self) -> None:
        """End the refreshing, and take the panel away. Who works in the directory does not notice."""
        for event in (self._closed, self._look_now, self._draw_now):
            event.set()
        self._figure_process.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(10.0)
        if _open.get(self._path) is self:
            del _open[self._path]
        _close_widget(self.box)

    # --- looking -----------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it still looks, or draws what it has seen."""
        return any(thread.is_alive() for thread in self._threads)

    def refresh(self) -> float | None:
        """Look and show what is new; what goes wrong is shown, too, and tried again with the next look.

        Returns
        -------
        float or None
            Seconds until there should be another look; None: nothing will change any more.
        """
        with self._lock:
            pause: float | None = self._every
            try:
                pause = self._look()
                self._trouble = ""
            except Exception as error:  # nothing may end the refreshing unseen
                self._trouble = f"cannot refresh, trying again: {first_line(error)}"
            self._show_status()
            return pause

    def _follow(self) -> None:
        try:
            while not self._closed.is_set() and (pause := self.refresh()) is not None:
                self._look_now.wait(pause)
                self._look_now.clear()
        finally:  # the last pictures are to come
            self._looked_last = True
            self._draw_now.set()

    # --- pictures ----------------------------------------------------------------------------------

    def _due(self, name: str, version: tuple[Any, ...], function: Callable[..., Any], *arguments: Any) -> None:
        """Have a picture drawn, if the last one that was asked for is of another version."""
        picture = self._pictures[name]
        if picture.version != version:
            picture.version, picture.function, picture.arguments = version, function, arguments
            self._draw_now.set()

    def _undrawn(self) -> list[str]:
        with self._lock:
            return [name for name, picture in self._pictures.items() if picture.version != picture.last_version]

    def _draw(self) -> None:
        try:
            while not self._closed.is_set():
                self._draw_now.wait()
                self._draw_now.clear()
                looked_last, seconds = self._looked_last, 0.0
                for name in self._undrawn():
                    self._draw_one(name, self._pictures[name])
                    seconds += self._figure_process.seconds
                if looked_last and not self._undrawn():
                    break
                self._closed.wait(REST * seconds)
        finally:
            self._figure_process.close()

    def _draw_one(self, name: str, picture: Picture) -> None:
        with self._lock:
            version, function, arguments = picture.version or (), picture.function, picture.arguments
        png, caption, failure = b"", "", ""
        try:
            png, caption = self._figure_process.draw(function, *arguments)
        except Exception as error:  # nothing may end the drawing unseen
            failure = f"{name}: {first_line(error)}"
        with self._lock:
            if self._closed.is_set():
                return
            picture.last_version, picture.failure = version, failure
            if not failure:
                picture.image.value, picture.image.layout.display = png, ""
                self._label(name, version, caption)
            self._show_status()

    # --- commands ----------------------------------------------------------------------------------

    def _try(self, action: Callable[[], None]) -> bool:
        """Do what a button asks for; whether it went well. If not, the panel says why: elsewhere nobody would see."""
        with self._lock:
            try:
                action()
            except Exception as error:
                self._say(first_line(error), bad=True)
                return False
            self._show_status()
            return True

    def _say(self, line: str, bad: bool = False) -> None:
        with self._lock:
            self._message = text(f"{time.strftime('%H:%M:%S')} {line}", bad)
            self._show_status()

    def _show_status(self) -> None:
        failures = [self._trouble, *(picture.failure for picture in self._pictures.values())]
        lines = [self._message, *self._notices(), *(text(failure, bad=True) for failure in failures if failure)]
        self.status.value = "<br>".join(line for line in lines if line)


#: Those of this kernel, by their directory.
_open: dict[Path, LivePanel] = {}


def _shell() -> Any:
    """IPython's, where this runs in one."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def _cell() -> int | None:
    """The number of the cell that runs."""
    shell = _shell()
    return None if shell is None else int(shell.execution_count)


def _close_widget(widget: Any) -> None:
    """Close a widget with all that belongs to it; otherwise the kernel keeps it, and the pictures, to its end."""
    for child in getattr(widget, "children", ()):
        _close_widget(child)
    for part in ("layout", "style"):
        if getattr(widget, part, None) is not None:
            getattr(widget, part).close()
    widget.close()
