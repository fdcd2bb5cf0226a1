"""A training as a live panel in a notebook: how it stands, its curves and samples, and buttons that command it.

The pictures are PNGs in an `ipywidgets.Image`, replaced as a whole. ipympl would give them zoom and pan; but it needs a
second extension in the front end that fits the kernel's version, registers its figures with pyplot, and draws each
change in the kernel, between cells. A PNG shows in every front end that has widgets, and can be drawn elsewhere
(`hpcgan.interactive.figure_process`). Who wants to zoom has `Training.plot()` with `%matplotlib widget`.

A thread looks at the run directory, not a task of the kernel's event loop: that would stand still while a cell runs,
such as one with `Training.wait()`. Widgets may be updated from a thread; nothing here prints.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.config import RateChange
from hpcgan.errors import InputError
from hpcgan.evaluation import run_samples
from hpcgan.interactive import widgets as common
from hpcgan.interactive.figure_process import Painter, Picture
from hpcgan.runs import commands as control
from hpcgan.runs.lease import attempts_made
from hpcgan.runs.records import Command, Epoch, Reader
from hpcgan.schedule import Rates

if TYPE_CHECKING:
    from hpcgan.interactive.training import Training

EVERY_S = 2.0
ANSWER_S = 0.5  # between two looks while an answer is awaited
RESTING = 5  # times as long between two looks at a training that nobody works on
#: States of a training that nobody goes on with.
ENDED = ("done", "pruned")
#: What may be sent in which state.
ALLOWED: Mapping[str, frozenset[str]] = {
    "running": frozenset({"pause", "checkpoint", "stop", "set"}),
    "paused": frozenset({"resume", "checkpoint", "stop", "set"}),
}
COLOURS = {"running": "#0072B2", "paused": "#B36B00", "done": "#00795A", "failed": "#B3261E", "lost": "#B3261E"}
BAR_STYLES = {"done": "success", "pruned": "success", "failed": "danger", "lost": "danger", "running": "info"}

_open: dict[Path, TrainingDashboard] = {}


def show(training: Training) -> TrainingDashboard | None:
    """Display a dashboard, in place of one of the same run that this kernel has already.

    Returns
    -------
    TrainingDashboard or None
        None where there cannot be one: then the plain picture is displayed, if there is a notebook to display it in,
        with a line that says why.
    """
    why = common.missing()
    if why is not None:
        print(why)
        _display_plain(training)
        return None
    made = TrainingDashboard(training)
    made.show()
    return made


def _display_plain(training: Training) -> None:
    try:
        common.display_picture(training.plot())
    except InputError as error:  # no epoch is done yet
        print(error)


class TrainingDashboard(common.Panel):
    """The panel of one training; it lives until the training has ended, or `close`.

    A training that was stopped, or failed, may be started again: it is looked at less often, and shown when it is.

    Parameters
    ----------
    training : Training
    every : float
        Seconds between two looks.

    Attributes
    ----------
    box : ipywidgets.VBox
        All of it.
    header, status : ipywidgets.HTML
        How the training stands; what came of commands, and what cannot be read or drawn.
    progress : ipywidgets.FloatProgress
        In epochs.
    buttons : dict of str to ipywidgets.Button
        By command.
    rates : dict of str to ipywidgets.Text
        Learning rates to set, by network; an empty one leaves that network's as it is.
    curves, samples : ipywidgets.Image
    """

    def __init__(self, training: Training, every: float = EVERY_S) -> None:
        before = _open.pop(training.run.path, None)
        if before is not None:
            before.close()
        self._training, self._every = training, every
        self._run, self._config = training.run, training.config
        self._reader, self._painter = Reader(self._run.metrics_file, Epoch, Command), Painter()
        self._lock = threading.RLock()
        self._closed, self._wake, self._to_paint = threading.Event(), threading.Event(), threading.Event()
        self._finished = False
        self._state, self._attempt = "not started", 0
        self._pending: dict[str, str] = {}
        self._message, self._trouble = "", ""
        self._failures: dict[Picture, str] = {}
        self._wanted: dict[Picture, tuple[int, ...]] = {}
        self._painted: dict[Picture, tuple[int, ...]] = {}
        self._build()
        self.refresh()
        self._threads = [
            threading.Thread(target=target, name=f"hpcgan-dashboard-{name}", daemon=True)
            for target, name in ((self._follow, "follow"), (self._paint, "paint"))
        ]
        for thread in self._threads:
            thread.start()
        _open[self._run.path] = self

    # --- what there is to see ----------------------------------------------------------------------

    def _build(self) -> None:
        import ipywidgets as widgets

        layout = widgets.Layout
        self.header = widgets.HTML(layout=layout(margin="0"))
        self.progress = widgets.FloatProgress(layout=layout(width="100%", height="14px", margin="2px 0 6px"))
        self.buttons = {
            name: widgets.Button(
                description=name.capitalize(),
                tooltip=tooltip,
                icon=icon,
                disabled=True,
                layout=layout(width=width, margin="2px 6px 2px 0"),
            )
            for name, tooltip, icon, width in (
                ("pause", "All ranks wait after the same step", "pause", "80px"),
                ("resume", "End the pause", "play", "88px"),
                ("checkpoint", "Have one written now", "save", "112px"),
                (
                    "stop",
                    "A checkpoint, then the end; the same training goes on when it is started again",
                    "stop",
                    "76px",
                ),
                ("set", "From the next step on, before scaling by ranks and decay", "check", "64px"),
            )
        }
        for name, button in self.buttons.items():
            button.on_click(self._set if name == "set" else self._sender(name))
        self.rates = {
            network: widgets.Text(
                description=network,
                style={"description_width": "initial"},
                layout=layout(width="164px" if len(network) > 9 else "150px", margin="2px 8px 2px 0"),
            )
            for network in self._config.training.networks
        }
        label = widgets.HTML("Learning rates:", layout=layout(margin="2px 8px 2px 12px"))
        self.status = widgets.HTML(layout=layout(margin="0 0 4px", min_height="28px"))
        self._note = widgets.HTML()
        # Without a margin: with one it would be wider than the panel, which then scrolls.
        picture = {"display": "none", "width": "100%", "margin": "0"}
        self.curves = widgets.Image(format="png", layout=layout(**picture, max_width="1260px"))
        self._caption = widgets.HTML(layout=layout(margin="6px 0 0"))
        self.samples = widgets.Image(format="png", layout=layout(**picture, max_width="690px"))
        commands = [self.buttons[name] for name in ("pause", "resume", "checkpoint", "stop")]
        controls = widgets.HBox(
            [*commands, label, *self.rates.values(), self.buttons["set"]],
            layout=layout(flex_flow="row wrap", align_items="center"),
        )
        self.box = widgets.VBox(
            [self.header, self.progress, controls, self.status, self._note, self.curves, self._caption, self.samples],
            layout=layout(width="auto", padding="6px 10px"),
        )
        for part in (*self.buttons.values(), *self.rates.values()):
            common.hear_while_a_cell_runs(part)
        named = {"header": self.header, "status": self.status, "curves": self.curves, "samples": self.samples}
        for name, widget in {"dashboard": self.box, **named, **self.buttons, **self.rates}.items():
            widget.add_class(f"hpcgan-{name}")  # for style sheets

    def close(self) -> None:
        """End the refreshing, and take the panel away. The training does not notice."""
        self._closed.set()
        self._wake.set()
        self._to_paint.set()
        self._painter.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(10.0)
        if _open.get(self._run.path) is self:
            del _open[self._run.path]
        common.close(self.box)

    # --- refreshing --------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it still looks at the training."""
        return any(thread.is_alive() for thread in self._threads)

    def refresh(self) -> None:
        """Look at the run and show what is new; what goes wrong is shown, too, and tried again with the next look."""
        with self._lock:
            try:
                self._look()
                self._trouble = ""
            except Exception as error:  # nothing may end the refreshing unseen
                self._trouble = f"cannot refresh, trying again: {common.line(error)}"
            self._show_status()

    def _follow(self) -> None:
        try:
            while not self._closed.is_set():
                self.refresh()
                if self._state in ENDED and not self._trouble:
                    break
                self._wake.wait(self._pace())
                self._wake.clear()
        finally:  # the last pictures are to come
            self._finished = True
            self._to_paint.set()

    def _pace(self) -> float:
        if self._pending and self._state in ALLOWED:
            return min(ANSWER_S, self._every)
        return self._every if self._state in ALLOWED or self._state == "starting" else RESTING * self._every

    def _look(self) -> None:
        attempt, state = attempts_made(self._run), self._training.attempt_state()
        if attempt != self._attempt:  # it may have been started with other settings
            self._config, self._attempt = self._run.load_config(), attempt
        self._reader.read()  # after the state: all records of a training that has ended are there
        self._state = "paused" if state == "running" and self._reader.paused else state
        self._hear()
        self._show_state()
        self._want_pictures()

    def _show_state(self) -> None:
        state, seen, epochs = self._state, self._reader, self._config.training.epochs
        self.header.value = _header(self._config.name, state, self._attempt, epochs, seen)
        self.progress.max = float(epochs)
        self.progress.value = min(seen.epochs_done, float(epochs))
        self.progress.bar_style = BAR_STYLES.get(state, "warning" if self._attempt else "")
        allowed = ALLOWED.get(state, frozenset())
        for name, button in self.buttons.items():
            button.disabled = name not in allowed
        for network, field in self.rates.items():
            field.disabled = "set" not in allowed
            field.placeholder = f"{self._base_rate(network):g}"
        if not self.curves.value:
            drawing = "Drawing ..." if seen.of(Epoch) else "Curves and samples come with the first epoch that is done."
            self._note.value = f"<i>{drawing}</i>"

    def _base_rate(self, network: str) -> float:
        """As `set` means it: before scaling by ranks and decay."""
        commands = [record for record in self._reader.of(Command) if record.rates]
        sent = [RateChange(step=record.step, rates=record.rates) for record in commands]
        return Rates(self._config.training).base(self._reader.step, sent)[network]

    # --- pictures ----------------------------------------------------------------------------------

    def _want_pictures(self) -> None:
        """Have those drawn of which there is more than in the ones that are shown."""
        epochs = self._reader.of(Epoch)
        if not epochs:
            return
        attempt, done = epochs[-1].attempt, epochs[-1].epoch
        changes = sum(bool(record.rates) for record in self._reader.of(Command))
        wanted: dict[Picture, tuple[int, ...]] = {"curves": (done, attempt, changes)}
        if self._wanted.get("samples") != (done, attempt):
            there = [epoch for epoch in run_samples.epochs(self._run) if epoch <= done]  # they come after the record
            if there:
                wanted["samples"] = (there[-1], attempt)
        if wanted.items() - self._wanted.items():
            self._wanted.update(wanted)
            self._to_paint.set()

    def _paint(self) -> None:
        try:
            while not self._closed.is_set():
                self._to_paint.wait()
                self._to_paint.clear()
                finished, seconds = self._finished, 0.0
                for what, key in self._unpainted():
                    self._paint_one(what, key)
                    seconds += self._painter.seconds
                if finished and not self._unpainted():
                    break
                self._closed.wait(common.PAUSE_OF_PAINTER * seconds)
        finally:
            self._painter.close()

    def _unpainted(self) -> list[tuple[Picture, tuple[int, ...]]]:
        with self._lock:
            return [(what, key) for what, key in self._wanted.items() if self._painted.get(what) != key]

    def _paint_one(self, what: Picture, key: tuple[int, ...]) -> None:
        failure = ""
        try:
            png, caption = self._painter.draw(self._run.path, what, key[0] if what == "samples" else None)
        except Exception as error:  # nothing may end the drawing unseen
            failure = f"{what}: {common.line(error)}"
        if self._closed.is_set():
            return
        with self._lock:
            self._painted[what] = key
            self._failures[what] = failure
            if not failure:
                image = self.curves if what == "curves" else self.samples
                image.value, image.layout.display = png, ""
                self._note.layout.display = "none"
                if what == "samples":
                    self._caption.value = f"<b>Samples after epoch {key[0]}.</b> {html.escape(caption)}"
            self._show_status()

    # --- commands ----------------------------------------------------------------------------------

    def _sender(self, name: str) -> Callable[[Any], None]:
        def send(_button: Any) -> None:
            self._send(name, {})

        return send

    def _set(self, _button: Any) -> None:
        rates = {}
        for network, field in self.rates.items():
            if text := field.value.strip():
                try:
                    rates[network] = float(text)
                except ValueError:
                    self._say(f"set: '{text}' is no learning rate for the {network}; write it as 1e-4", bad=True)
                    return
        if self._send("set", rates):
            for field in self.rates.values():
                field.value = ""

    def _send(self, name: str, rates: dict[str, float]) -> bool:
        """Without waiting for the answer, which the next looks find; whether it was sent."""
        try:
            sent = control.send(self._run, name, rates)
        except Exception as error:  # in a button's callback: nobody would see it
            self._say(common.line(error), bad=True)
            return False
        with self._lock:
            self._pending[sent], self._message = name, ""
            self._show_status()
        self._wake.set()
        return True

    def _hear(self) -> None:
        """Take the answers that have come."""
        for sent, name in list(self._pending.items()):
            record = self._reader.outcome(sent)
            if record is None and self._state not in ENDED:
                continue
            del self._pending[sent]
            if record is None:
                self._say(f"{name}: not obeyed, the training is {self._state}", bad=True)
            elif record.refused:
                self._say(f"{name}: refused, {record.refused}", bad=True)
            else:
                rates = "".join(f" {network}={rate:g}" for network, rate in record.rates.items())
                self._say(f"{name}{rates}: obeyed by all ranks at step {record.step:,}")

    def _say(self, text: str, bad: bool = False) -> None:
        with self._lock:
            self._message = common.text(f"{time.strftime('%H:%M:%S')} {text}", bad)
            self._show_status()

    def _show_status(self) -> None:
        lines = [self._message] if self._message else []
        if self._pending:
            names = ", ".join(self._pending.values())
            waits = "waiting for the answer" if self._state in ALLOWED else "obeyed when the training is started again"
            lines.append(common.text(f"{names}: sent, {waits}"))
        lines += [common.text(text, bad=True) for text in (self._trouble, *self._failures.values()) if text]
        if self._reader.unusable:
            n = self._reader.unusable
            lines.append(common.text(f"{n} record{'s' * (n > 1)} of metrics.jsonl cannot be used", bad=True))
        self.status.value = "<br>".join(lines)


def _header(name: str, state: str, attempt: int, epochs: int, seen: Reader) -> str:
    recorded = seen.of(Epoch)
    best = recorded[-1].best if recorded else None
    parts = [
        f"<b style='font-size:1.3em'>{html.escape(name)}</b>",
        common.badge(state, COLOURS.get(state, common.GREY)),
        f"epoch <b>{int(seen.epochs_done)}</b> of {epochs}",
        f"step <b>{seen.step:,}</b>",
        f"<b>{_number(seen.rate)}</b> samples/s",
        "no score yet" if best is None else f"best score <b>{best.score:.2f}</b> (epoch {best.epoch})",
    ]
    if attempt > 1:
        parts.append(f"attempt {attempt}")
    spans = "".join(f"<span>{part}</span>" for part in parts)
    return f"<div style='display:flex;flex-wrap:wrap;gap:4px 22px;align-items:center'>{spans}</div>"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
