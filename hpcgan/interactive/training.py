"""A training as a notebook sees it: what its run directory says, and commands to it.

Everything goes through the run directory, so it makes no difference whether the training runs on this machine, in a
batch job or not at all, and a kernel that is restarted attaches again and has lost nothing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation import epoch_samples
from hpcgan.interactive import figures
from hpcgan.interactive.live_panel import display_live, display_picture
from hpcgan.interactive.processes import until
from hpcgan.interactive.rows import import_pandas
from hpcgan.interactive.training_dashboard import TrainingDashboard
from hpcgan.problems import run_data
from hpcgan.runs import commands as control
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.goodput import TimeSpent, time_spent
from hpcgan.runs.lease import attempt_state
from hpcgan.runs.records import Best, Command, Epoch, Reader
from hpcgan.suggest import did_you_mean

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

#: How a training stands when nobody works on it.
RESTS = ("done", "pruned", "stopped", "interrupted", "failed", "lost")


def attach(run: Path | str) -> Training:
    """The training of a run directory, whoever runs it.

    Raises
    ------
    InputError
        There is no run here.
    """
    return Training(RunDirectory(Path(run).absolute()))


class Training:
    """Reads and commands one training.

    Parameters
    ----------
    run : RunDirectory

    Raises
    ------
    InputError
        There is no run there, or its configuration is broken.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.config = run_data.load(run)

    def __repr__(self) -> str:
        return f"<Training {self.run.path.name}: {self.state}, epoch {self.epoch} of {self.config.training.epochs}>"

    # --- how it stands -----------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """`not started`, `running`, `paused`, or how it ended: one of `RESTS`."""
        state = self.attempt_state()
        if state == "running":
            return "paused" if Reader(self.run.metrics_file, Command).read().paused else "running"
        return state

    def attempt_state(self) -> str:
        """As `state`, but of a training that is paused `running`: without a look at its records."""
        return attempt_state(self.run) or "not started"

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        epochs = self._epochs()
        return epochs[-1].epoch if epochs else 0

    @property
    def best(self) -> Best | None:
        """`score`, `epoch` and `step` of the best epoch so far."""
        epochs = self._epochs()
        return epochs[-1].best if epochs else None

    def _epochs(self) -> list[Epoch]:
        return records.read(self.run.metrics_file, Epoch)

    def metrics(self, kind: str = "epoch") -> pandas.DataFrame:
        """What the training has recorded, a row a record, nested values as `losses.generator`.

        Parameters
        ----------
        kind : "start", "begun", "epoch", "step", "command", "checkpoint", "rollback" or "end"

        Raises
        ------
        InputError
            Another kind, or pandas is not installed.
        """
        kinds = records.KINDS
        if kind not in kinds:
            raise InputError(f"kind '{kind}': choose one of {', '.join(kinds)}{did_you_mean(kind, kinds)}")
        rows = [records.plain(record) for record in records.read(self.run.metrics_file, kinds[kind])]
        table: pandas.DataFrame = import_pandas().json_normalize(rows)
        return table

    def wait(self, timeout: float | None = None, every: float = 0.5) -> str:
        """Until nobody works on the training any more; how it stands then.

        Raises
        ------
        HpcganError
            It still goes on after `timeout` seconds.
        """
        if not until(lambda: self.state in RESTS, timeout, every):
            raise HpcganError(f"{self.run.path}: still {self.state} after {timeout:.0f} s")
        return self.state

    def reach(self, epoch: int, timeout: float | None = None, every: float = 0.5) -> str:
        """Until an epoch is done, its samples included, or the training has ended; how it stands then.

        Raises
        ------
        InputError
            It has no such epoch.
        HpcganError
            It is not that far after `timeout` seconds.
        """
        if not 1 <= epoch <= self.config.training.epochs:
            raise InputError(f"{self.run.path}: epoch {epoch} is none of its 1 to {self.config.training.epochs}")

        def reached() -> bool:
            current = self.epoch  # recorded before the samples are written
            return (
                current > epoch or (current == epoch and epoch in epoch_samples.epochs(self.run)) or self.state in RESTS
            )

        if not until(reached, timeout, every):
            raise HpcganError(f"{self.run.path}: in epoch {self.epoch + 1} after {timeout:.0f} s")
        return self.state

    def time_spent(self) -> TimeSpent | None:
        """What the time of the training went to so far (`seconds`, `startup`, `goodput`); None before its start."""
        return time_spent(self.run, time.time() if self.attempt_state() == "running" else None)

    # --- commands ----------------------------------------------------------------------------------

    def pause(self, wait: float = 60.0) -> None:
        """All ranks wait after the same step. `wait`: seconds for the answer, 0 for not at all."""
        self._send("pause", {}, wait)

    def resume(self, wait: float = 60.0) -> None:
        """End a pause."""
        self._send("resume", {}, wait)

    def set(self, lr: float | None = None, *, wait: float = 60.0, **rates: float | None) -> None:
        """Learning rates from the next step on, before scaling by ranks and decay.

        Parameters
        ----------
        lr : float, optional
            Of all networks; those that are named go before it.
        wait : float
            Seconds for the answer; 0: not at all.
        rates : float, optional
            By network, `generator` and `discriminator` of an adversarial training.

        Raises
        ------
        InputError
            No rate, one that is out of range, or of a network that is not trained; the training has ended.
        HpcganError
            No answer; the command stays.
        """
        all_rates = {**dict.fromkeys(self.config.training.networks, lr), **rates}
        self._send("set", {k: rate for k, v in all_rates.items() if (rate := lr if v is None else v) is not None}, wait)

    def checkpoint(self, wait: float = 60.0) -> None:
        """Have one written now."""
        self._send("checkpoint", {}, wait)

    def stop(self, wait: float = 60.0) -> None:
        """A checkpoint, then the end; the same training goes on when it is started again."""
        self._send("stop", {}, wait)

    def _send(self, name: str, rates: dict[str, float], wait: float) -> None:
        sent = control.send(self.run, name, rates)
        if wait > 0:
            control.wait(self.run, sent, wait)

    # --- pictures ----------------------------------------------------------------------------------

    def plot(self) -> Figure:
        """Losses, score with its parts, and samples/s of each epoch so far.

        Raises
        ------
        InputError
            No epoch is done yet.
        """
        return figures.curves(self.run, self.config.training.loss_label)

    def samples(self, epoch: int | None = None) -> Figure:
        """Generated events of an epoch beside real ones.

        Parameters
        ----------
        epoch : int, optional
            By default the last one that is done.

        Raises
        ------
        InputError
            There are no samples of it.
        """
        if epoch is None:
            epoch = max(epoch_samples.epochs(self.run), default=0)
        return figures.samples(self.run, epoch)[1]

    def dashboard(self) -> TrainingDashboard | None:
        """Display a live panel with buttons; where there are no widgets, the picture and what a panel needs."""
        return display_live(
            lambda: TrainingDashboard(self.run, self.attempt_state), lambda: display_picture(self.plot())
        )
