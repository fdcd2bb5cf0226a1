"""A training as a live panel in a notebook: how it stands, its curves and samples, and buttons that command it."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

from hpcgan.config import Config, RateChange
from hpcgan.evaluation import epoch_samples
from hpcgan.interactive import figures
from hpcgan.interactive.live_panel import LivePanel, Picture, badge, text
from hpcgan.runs import commands
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.goodput import TimeSpent, time_spent
from hpcgan.runs.lease import attempts_made
from hpcgan.runs.records import Command, Epoch, Reader
from hpcgan.schedule import Rates

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
BAR_STYLES = {"done": "success", "pruned": "success", "failed": "danger", "lost": "danger", "running": "info"}
#: Of a command: what its button says on hovering, its icon and its width.
BUTTONS = {
    "pause": ("All ranks wait after the same step", "pause", "80px"),
    "resume": ("End the pause", "play", "88px"),
    "checkpoint": ("Have one written now", "save", "112px"),
    "stop": ("A checkpoint, then the end; the same training goes on when it is started again", "stop", "76px"),
    "set": ("From the next step on, before scaling by ranks and decay", "check", "64px"),
}


class TrainingDashboard(LivePanel):
    """The panel of one training; it lives until the training has ended, or `close`.

    A training that was stopped, or failed, may be started again: it is looked at less often, and shown when it is.

    Parameters
    ----------
    run : RunDirectory
    attempt_state : callable
        How the newest attempt stands, as `hpcgan.runs.lease.attempt_state`, or `starting`.
    every : float
        Seconds between two looks.

    Attributes
    ----------
    header : ipywidgets.HTML
        How the training stands.
    progress : ipywidgets.FloatProgress
        In epochs.
    buttons : dict of str to ipywidgets.Button
        By command.
    rates : dict of str to ipywidgets.Text
        Learning rates to set, by network; an empty one leaves that network's as it is.
    curves, samples : ipywidgets.Image
    """

    def __init__(self, run: RunDirectory, attempt_state: Callable[[], str], every: float = EVERY_S) -> None:
        self._run, self._attempt_state, self._config = run, attempt_state, run.load_config()
        self._reader = Reader(self._run.metrics_file, Epoch, Command)
        self._state, self._attempt = "not started", 0
        self._spent: tuple[tuple[int, int], TimeSpent | None] = (0, 0), None  # after an epoch of an attempt
        self._unanswered: dict[str, str] = {}  # names of commands, by their number
        super().__init__(run.path, every)

    def _build(self) -> None:
        import ipywidgets as widgets

        layout = widgets.Layout
        self.header = widgets.HTML(layout=layout(margin="0"))
        self.progress = widgets.FloatProgress(layout=layout(width="100%", height="14px", margin="2px 0 6px"))
        self.buttons = {
            name: widgets.Button(
                description=name.capitalize(), tooltip=tooltip, icon=icon, disabled=True,
                layout=layout(width=width, margin="2px 6px 2px 0"),
            )
            for name, (tooltip, icon, width) in BUTTONS.items()
        }  # fmt: skip
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._set() if name == "set" else self._send(name, {}))
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
        hidden = {"display": "none", "width": "100%", "margin": "0"}
        self.curves = widgets.Image(format="png", layout=layout(**hidden, max_width="1260px"))
        self._caption = widgets.HTML(layout=layout(margin="6px 0 0"))
        self.samples = widgets.Image(format="png", layout=layout(**hidden, max_width="690px"))
        self._pictures = {"curves": Picture(self.curves), "samples": Picture(self.samples)}
        *buttons, set_button = self.buttons.values()
        controls = widgets.HBox(
            [*buttons, label, *self.rates.values(), set_button],
            layout=layout(flex_flow="row wrap", align_items="center"),
        )
        self.box = widgets.VBox(
            [self.header, self.progress, controls, self.status, self._note, self.curves, self._caption, self.samples],
            layout=layout(width="auto", padding="6px 10px"),
        )
        outputs = {"header": self.header, "status": self.status, "curves": self.curves, "samples": self.samples}
        self._connect({"dashboard": self.box, **outputs, **self.buttons, **self.rates})

    # --- looking -----------------------------------------------------------------------------------

    def _look(self) -> float | None:
        attempt, state = attempts_made(self._run), self._attempt_state()
        if attempt != self._attempt:  # it may have been started with other settings
            self._config, self._attempt = self._run.load_config(), attempt
        self._reader.read()  # after the state: all records of a training that has ended are there
        self._state = "paused" if state == "running" and self._reader.paused else state
        self._hear()
        self._show_state()
        self._ask_for_pictures()
        if self._state in ENDED:
            return None
        if self._state in ALLOWED:
            return min(ANSWER_S, self._every) if self._unanswered else self._every
        return self._every if self._state == "starting" else RESTING * self._every

    def _show_state(self) -> None:
        state, records, epochs = self._state, self._reader, self._config.training.epochs
        self.header.value = _header(self._config, state, self._attempt, records, self._time_spent())
        self.progress.max = float(epochs)
        self.progress.value = min(records.epochs_done, float(epochs))
        self.progress.bar_style = BAR_STYLES.get(state, "warning" if self._attempt else "")
        allowed = ALLOWED.get(state, frozenset())
        for name, button in self.buttons.items():
            button.disabled = name not in allowed
        for network, field in self.rates.items():
            field.disabled = "set" not in allowed
            field.placeholder = f"{self._base_rate(network):g}"
        if not self.curves.value:
            drawing = (
                "Drawing ..." if records.of(Epoch) else "Curves and samples come with the first epoch that is done."
            )
            self._note.value = f"<i>{drawing}</i>"

    def _time_spent(self) -> TimeSpent | None:
        """As of the last epoch: it takes a look at all records."""
        done = self._reader.of(Epoch)[-1:]
        moment = self._attempt, done[0].epoch if done else 0
        if done and self._spent[0] != moment:
            self._spent = moment, time_spent(self._run)
        return self._spent[1]

    def _base_rate(self, network: str) -> float:
        """As `set` means it: before scaling by ranks and decay."""
        commands = [record for record in self._reader.of(Command) if record.rates]
        changes = [RateChange(step=record.step, rates=record.rates) for record in commands]
        return Rates(self._config.training).base(self._reader.step, changes)[network]

    def _ask_for_pictures(self) -> None:
        epochs = self._reader.of(Epoch)
        if not epochs:
            return
        attempt, epoch = epochs[-1].attempt, epochs[-1].epoch
        changes = sum(bool(record.rates) for record in self._reader.of(Command))
        self._due("curves", (epoch, attempt, changes), figures.curves, self._run, self._config.training.loss_label)
        if self._pictures["samples"].version != (epoch, attempt):
            # They come after the record.
            sampled = [number for number in epoch_samples.epochs(self._run) if number <= epoch]
            if sampled:
                self._due("samples", (sampled[-1], attempt), figures.samples, self._run, sampled[-1])

    def _label(self, name: str, version: tuple[Any, ...], caption: str) -> None:
        self._note.layout.display = "none"
        if name == "samples":
            self._caption.value = f"<b>Samples after epoch {version[0]}.</b> {html.escape(caption)}"

    # --- commands ----------------------------------------------------------------------------------

    def _set(self) -> None:
        rates = {}
        for network, field in self.rates.items():
            if value := field.value.strip():
                try:
                    rates[network] = float(value)
                except ValueError:
                    self._say(f"set: '{value}' is no learning rate for the {network}; write it as 1e-4", bad=True)
                    return
        if self._send("set", rates):
            for field in self.rates.values():
                field.value = ""

    def _send(self, name: str, rates: dict[str, float]) -> bool:
        """Without waiting for the answer, which the next looks find; whether it was sent."""

        def send() -> None:
            self._unanswered[commands.send(self._run, name, rates)] = name
            self._message = ""

        sent = self._try(send)
        if sent:
            self._look_now.set()
        return sent

    def _hear(self) -> None:
        """Take the answers that have come."""
        for number, name in list(self._unanswered.items()):
            record = self._reader.outcome(number)
            if record is None and self._state not in ENDED:
                continue
            del self._unanswered[number]
            if record is None:
                self._say(f"{name}: not obeyed, the training is {self._state}", bad=True)
            elif record.refused:
                self._say(f"{name}: refused, {record.refused}", bad=True)
            else:
                rates = "".join(f" {network}={rate:g}" for network, rate in record.rates.items())
                self._say(f"{name}{rates}: obeyed by all ranks at step {record.step:,}")

    def _notices(self) -> list[str]:
        lines = []
        if self._unanswered:
            names = ", ".join(self._unanswered.values())
            waits = "waiting for the answer" if self._state in ALLOWED else "obeyed when the training is started again"
            lines.append(text(f"{names}: sent, {waits}"))
        if n := self._reader.unusable:
            lines.append(text(f"{n} record{'s' * (n > 1)} of metrics.jsonl cannot be used", bad=True))
        return lines


def _header(config: Config, state: str, attempt: int, records: Reader, spent: TimeSpent | None) -> str:
    epochs_done = records.of(Epoch)
    last = epochs_done[-1] if epochs_done else None
    best = None if last is None else last.best
    rate = "–" if records.rate is None else f"{records.rate:,.0f}" if records.rate >= 10 else f"{records.rate:.2g}"
    parts = [
        f"<b style='font-size:1.3em'>{html.escape(config.name)}</b>",
        badge(state),
        f"epoch <b>{int(records.epochs_done)}</b> of {config.training.epochs}",
        f"step <b>{records.step:,}</b>",
        f"<b>{rate}</b> samples/s",
        "no score yet"
        if best is None
        else f"best {config.scoring.criterion} <b>{best.score:.2f}</b> (epoch {best.epoch})",
    ]
    if spent is not None and spent.goodput is not None:
        parts.append(f"goodput <b>{spent.goodput:.0%}</b>")
    if attempt > 1:
        parts.append(f"attempt {attempt}")
    spans = "".join(f"<span>{part}</span>" for part in parts)
    return f"<div style='display:flex;flex-wrap:wrap;gap:4px 22px;align-items:center'>{spans}</div>"
