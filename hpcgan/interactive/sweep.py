"""A sweep as a notebook sees it: started, watched, and steered through its study's directory.

`Sweep.start` starts `hpcgan sweep` as a process of its own, which goes on when the notebook's kernel ends; whoever
attaches to the study later, here or elsewhere, sees and steers the same.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.config import JobSection, SweepSection, flags
from hpcgan.errors import EXIT_BAD_INPUT, EXIT_DONE, HpcganError, InputError
from hpcgan.interactive import figures, processes
from hpcgan.interactive.live_panel import display_live, display_picture, display_plain
from hpcgan.interactive.processes import until
from hpcgan.interactive.rows import import_pandas
from hpcgan.interactive.sweep_dashboard import SweepDashboard
from hpcgan.interactive.training import Training
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import held_by
from hpcgan.sweep import commands
from hpcgan.sweep import report as reports
from hpcgan.sweep import study as studies
from hpcgan.sweep.statistics import ranking
from hpcgan.sweep.store import StudyDirectory
from hpcgan.sweep.table import TableReader
from hpcgan.system import failure
from hpcgan.system.files import version

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

#: Seconds between two looks whether a sweep is at work.
LOOK_S = 0.1


class Sweep:
    """A search for hyper-parameters, by its study's directory; made by `Sweep.start` or `Sweep.attach`.

    Attributes
    ----------
    path : Path
        The study's directory.
    """

    def __init__(self, path: Path) -> None:
        self._reader = TableReader(path)
        self.path = path

    @classmethod
    def attach(cls, path: Path | str) -> Sweep:
        """The sweep of a study's directory, whoever runs it.

        Raises
        ------
        InputError
            There is no study, or its description cannot be read.
        """
        return cls(Path(path).absolute())

    @classmethod
    def start(
        cls,
        config: Path | str,
        overrides: Sequence[str] = (),
        *,
        sweep: SweepSection | Mapping[str, Any] | None = None,
        job: JobSection | Mapping[str, Any] | None = None,
        out: Path | str | None = None,
        **options: Any,
    ) -> Sweep:
        """Start a sweep, or go on with one: the same call again does what is missing.

        It returns once the sweep is at work, in some seconds; the sweep goes on by itself, also when this process ends.
        What it has to say is in `log`.

        Parameters
        ----------
        config : path
            A YAML file with the section `search`.
        overrides : sequence of str
            `key.path=value`, and `search.key.path={...}`, as on the command line.
        sweep : SweepSection or mapping, optional
            Keys of the section `sweep:`, before those of the file: `trials`, `executor`, `ranks`, `seed` ...
        job : JobSection or mapping, optional
            Keys of the section `job:`, before those of the file: `threads`; for Slurm `partition`, `time` ...
        out : path, optional
            The study's directory; by default `runs/sweep-NAME-HASH`.
        **options
            Keys of the section `sweep:`, before those in `sweep`: `trials=32, executor="slurm"`.

        Raises
        ------
        InputError
            What the command refuses, in its one line: bad values, missing data, another sweep at work on this study ...
        HpcganError
            It could not begin for another reason.
        """
        others = ("config", "overrides", "sweep", "job", "out")
        overrides = [
            *overrides,
            *flags.as_overrides("sweep", flags.section("sweep", SweepSection, sweep, others, **options)),
            *flags.as_overrides("job", flags.section("job", JobSection, job)),
        ]
        if out is None:
            base, space = studies.load(Path(config), overrides)
            out = studies.default_directory(studies.describe(base, space, threads=1))
        path = Path(out).absolute()
        command = ["sweep", str(Path(config).absolute()), *overrides, f"--out={path}"]
        _start(command, StudyDirectory(path))
        return cls(path)

    # --- how it stands -----------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """`running`, or how it ended: `done`, `stopped`, `failed` or `lost` (killed); `not started` if it never was.

        Of the process that hands out trials. Trials of a batch system and of engines go on without it.
        """
        return commands.state(self.path)

    @property
    def log(self) -> Path:
        """What a sweep that was started from Python has printed."""
        return self._reader.study.coordinator_log

    @property
    def best(self) -> dict[str, Any] | None:
        """The trial that leads; None before one is complete.

        `number`, `score` (which selected it), `epoch` and `params`; with repetitions, which go before the score, their
        `mean` with its `error` and their number `n`, else None.
        """
        table = self._reader.read()
        places = ranking(table.rows)
        if not places:
            return None
        first, row = places[0], table.row(places[0].number)
        again = first.repeats
        return {
            "number": first.number,
            "score": first.score,
            "epoch": None if row is None else row.epoch,
            "params": dict(first.params),
            "mean": None if again is None else again.mean,
            "error": None if again is None else again.error,
            "n": None if again is None else again.n,
        }

    def table(self) -> pandas.DataFrame:
        """A row a trial, by number: state, hyper-parameters, score, epochs, seconds (`sweep.report.columns`).

        Of a trial that has not ended, the score is the best so far. What cannot be read has the state `broken`.

        Raises
        ------
        InputError
            pandas is not installed.
        """
        table: pandas.DataFrame = import_pandas().DataFrame(reports.columns(self._reader.read()))
        return table

    def wait(self, timeout: float | None = None, every: float = 0.5) -> str:
        """Until nobody hands out trials any more; how it stands then.

        Raises
        ------
        HpcganError
            It still goes on after `timeout` seconds.
        """
        if not until(lambda: self.state != "running", timeout, every):
            raise HpcganError(f"{self.path}: still running after {timeout:.0f} s")
        return self.state

    def trial(self, number: int) -> Training:
        """The training of a trial.

        Raises
        ------
        InputError
            There is no such trial (yet), or its configuration cannot be read.
        """
        commands.trial_row(self._reader, number)
        return Training(self._reader.study.trial(number))

    # --- commands ----------------------------------------------------------------------------------

    def stop(self, wait: float = 60.0) -> None:
        """Have all trials write checkpoints and end; the same `Sweep.start` goes on.

        Parameters
        ----------
        wait : float
            Seconds for the sweep to end; 0: not at all.

        Raises
        ------
        InputError
            Nobody works on it, or its directory cannot be written.
        HpcganError
            It has not ended by then; it will, when the trials have written their checkpoints.
        """
        commands.stop(self._reader)
        if wait > 0:
            try:
                self.wait(wait)
            except HpcganError:
                raise HpcganError(
                    f"{self.path}: has been asked to stop, but trials still write checkpoints after {wait:.0f} s"
                ) from None

    def prune(self, number: int) -> None:
        """Have a trial end before its next epoch, as one that a pruner ends; a trial that waits ends when it begins.

        It counts as pruned, with the best score until then and a reason that says it was by hand. That is decided once
        and cannot be taken back.

        Raises
        ------
        InputError
            There is no such trial, it has ended, or that was decided already.
        """
        commands.prune(self._reader, number)

    # --- pictures and report -----------------------------------------------------------------------

    def plot(self) -> Figure:
        """Score of each trial and parallel coordinates, in which a line is a trial, dark if its score is good.

        Raises
        ------
        InputError
            No trial has a score yet.
        """
        return figures.trials(self.path)

    def dashboard(self) -> SweepDashboard | None:
        """Display a live panel with buttons; where there are no widgets, table, picture and what a panel needs."""
        return display_live(lambda: SweepDashboard(self.path), self._display_plainly)

    def _display_plainly(self) -> None:
        display_plain(self.table())
        display_picture(self.plot())

    def report(self) -> Path:
        """Write the report as it stands now; its page.

        Raises
        ------
        InputError
            It cannot be written.
        """
        return reports.write(self._reader.read())[-1]


def _start(command: Sequence[str], study: StudyDirectory) -> None:
    """Start the command in a session of its own, until it is at work; what it has told if it ends before is raised."""
    run, goal_before = RunDirectory(study.path), version(study.goal_file)

    def at_work() -> bool:
        """It has the study, and has written how much is to be done: from here on nothing is refused any more."""
        return version(study.goal_file) != goal_before and held_by(run, process.pid)

    with tempfile.TemporaryDirectory(prefix="hpcgan-") as folder:
        failure_file, output = Path(folder) / "failure.json", Path(folder) / "output"
        env = {**os.environ, failure.VARIABLE: str(failure_file)}
        process = processes.start("hpcgan", [*command, f"--log={study.coordinator_log}"], output, env)
        try:
            until(lambda: at_work() or process.poll() is not None, None, LOOK_S)
        except BaseException:  # Ctrl-C, say
            process.terminate()
            raise
        if process.returncode in (None, EXIT_DONE):
            print(output.read_text(errors="replace"), end="", file=sys.stderr)
            return
        cause = failure.read(failure_file)
    text = "hpcgan sweep did not start" if cause is None else str(cause)
    if process.returncode == EXIT_BAD_INPUT:
        raise InputError(text)
    raise HpcganError(f"{text} (exit code {process.returncode})")
