"""The Slurm jobs of runs: their files and the queue, put together."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hpcgan.errors import HpcganError, InputError
from hpcgan.launch import slurm
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.goodput import TimeSpent, time_spent
from hpcgan.runs.lease import attempt_state, attempts_made
from hpcgan.runs.records import Begun, Epoch, Reader, Record
from hpcgan.system.console import print_table

#: Starts in a row that went into starting and stopping after which a job is not queued again.
FRUITLESS = 3


@dataclass(frozen=True)
class Trained:
    """How far a training is.

    Attributes
    ----------
    epochs : int
        Wanted.
    last : Epoch or None
        The last epoch that is done.
    spent : TimeSpent or None
        What its time went to.
    """

    epochs: int
    last: Epoch | None
    spent: TimeSpent | None


@dataclass(frozen=True)
class RunStatus:
    """A run at a glance.

    Attributes
    ----------
    run : str
        Its directory.
    state : str
        Of its job in the queue (pending, running ...), else of its last attempt (running, done, interrupted,
        failed, lost), or how a job ended that never came to train (cancelled ...), or new.
    job : str or None
        Its Slurm job that lives, else its last one.
    reason : str
        Why it waits, or where it runs.
    limit_left_s : float or None
        Seconds to the job's time limit.
    training : Trained
    """

    run: str
    state: str
    job: str | None
    reason: str
    limit_left_s: float | None
    training: Trained

    def plain(self) -> dict[str, Any]:
        """All of it as plain values; of the training `epoch`, `score`, the lowest one, and its own estimate of time."""
        last, epochs, spent = self.training.last, self.training.epochs, self.training.spent
        epoch = 0 if last is None else last.epoch
        return {
            "run": self.run,
            "state": self.state,
            "job": self.job,
            "reason": self.reason,
            "epoch": epoch,
            "epochs": epochs,
            "score": None if last is None else last.deciding,
            "best": None if last is None or last.best is None else last.best.score,
            "limit_left_s": self.limit_left_s,
            "training_left_s": training_left(last, epochs - epoch) if last and epochs > epoch else None,
            "time": None if spent is None else spent.plain(),
        }


def list_runs(folder: Path) -> list[RunStatus]:
    """Status of all runs directly in a folder, by name. A folder that is a run itself counts as one."""
    candidates = [folder] if is_run(folder) else sorted(p for p in folder.iterdir() if p.is_dir() and is_run(p))
    runs = [RunDirectory(path) for path in candidates]
    jobs = {run.path: jobs_of(run) for run in runs}
    queued: dict[str, slurm.QueueEntry] | None
    try:
        queued = slurm.queue([job for of_run in jobs.values() for job in of_run])
    except HpcganError:  # no Slurm here: the run directories say what they can
        queued = None
    return [_status(run, jobs[run.path], queued) for run in runs]


def is_run(path: Path) -> bool:
    """Whether a folder is a run, or was submitted to be one."""
    if (path / "study.json").is_file():  # a sweep, whose trials are runs
        return False
    return (path / "config.yaml").is_file() or (path / "jobs.jsonl").is_file()


def jobs_of(run: RunDirectory) -> dict[str, float]:
    """The Slurm jobs that were submitted for a run or trained in it, in order, and when each was first heard of."""
    entries = [(e.get("time"), e.get("job")) for e in records.read_lines(run.jobs_file)]
    entries += [(e.get("time"), e.get("slurm_job")) for e in records.read_lines(run.provenance_file)]
    first_heard: dict[str, float] = {}
    for when, job in sorted((t, str(job)) for t, job in entries if job and isinstance(t, (int, float))):
        first_heard.setdefault(job, when)
    return first_heard


def _newest_living(jobs: dict[str, float], queued: dict[str, slurm.QueueEntry]) -> slurm.QueueEntry | None:
    """Of a run's jobs the one to speak of: one that runs, else one that waits, else one that is just ending."""
    entries = [queued[job] for job in reversed(jobs) if job in queued]
    return max(entries, key=_liveliness, default=None)


def _liveliness(entry: slurm.QueueEntry) -> int:
    if entry.state not in slurm.UNFINISHED:
        return 0
    return 1 if entry.state == "PENDING" else 2


def living(run: RunDirectory) -> list[slurm.QueueEntry]:
    """The jobs of a run that run, or will.

    Raises
    ------
    HpcganError
        The scheduler does not answer.
    """
    queued = slurm.queue(list(jobs_of(run)))
    return [entry for entry in queued.values() if entry.state in slurm.UNFINISHED]


def refuse_second(run: RunDirectory, entries: list[slurm.QueueEntry]) -> None:
    """Refuse to submit a run of which there are jobs.

    Raises
    ------
    InputError
        One line that names the job.
    """
    if entries:
        entry = max(entries, key=_liveliness)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(jobs_of(run)[entry.job]))
        raise InputError(
            f"{run.path}: job {entry.job} of this run is {entry.state.lower()} (there since {since}); wait for it, "
            f"queue behind it with --again, or end it with 'hpcgan jobs {shlex.quote(str(run.path))} --cancel'"
        )


@contextlib.contextmanager
def submitting(run: RunDirectory) -> Iterator[None]:
    """Keep others from submitting a run while this process does.

    Raises
    ------
    InputError
        Another process does.
    """
    file = run.path / ".submitting"
    try:
        # What a killed process left behind: no submission takes as long. By the file server's clock.
        probe = run.path / f".submitting-{os.getpid()}"
        probe.touch()
        try:
            if probe.stat().st_mtime - file.stat().st_mtime > 3 * slurm.TIMEOUT:
                file.unlink()
        except FileNotFoundError:
            pass
        finally:
            probe.unlink(missing_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        raise InputError(
            f"{run.path}: another 'hpcgan submit' is submitting this run; see 'hpcgan jobs' in a minute"
        ) from None
    except OSError as error:
        raise InputError(f"{run.path}: cannot write the run directory: {error.strerror}") from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def cancel(run: RunDirectory) -> list[str]:
    """End the jobs of a run: one that waits at once, one that runs with a checkpoint; what was done, a line a job.

    A job that runs and was asked before is ended at once.

    Raises
    ------
    HpcganError
        Slurm does not answer, or refuses.
    """
    lines = []
    entries = records.read_lines(run.jobs_file)
    submitted = {str(e.get("job")) for e in entries if "script" in e}
    asked_before = {str(e.get("job")) for e in entries if "cancelled" in e}
    for entry in sorted(living(run), key=_liveliness):  # those that wait first: they must not start now
        job = entry.job
        if entry.state == "PENDING":
            slurm.cancel([job])
            lines.append(f"job {job} was waiting: it is taken out of the queue")
            continue
        if job not in submitted:  # a script of the user's, which may die of SIGUSR1: SIGTERM reaches the ranks
            slurm.cancel([job])
            lines.append(f"job {job} is cancelled: its ranks write a checkpoint if Slurm's KillWait is long enough")
        elif job in asked_before:
            slurm.cancel([job])
            lines.append(f"job {job} was asked before: it is cancelled now")
        elif not (slurm.forbid_requeue(job) and slurm.ask_to_stop(job)):
            lines.append(f"job {job} has just ended by itself")
        else:
            lines.append(
                f"job {job} is asked to write a checkpoint and to end, and does not queue again; "
                "--cancel once more ends it at once"
            )
        records.append(run.jobs_file, {"job": job, "time": time.time(), "cancelled": True})
    return lines


def newest_log(run: RunDirectory) -> Path | None:
    """The log that a job of a run has written last."""
    logs = [path for path in run.path.glob("slurm-*.out") if path.is_file()]
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def startup_seconds(run: RunDirectory) -> float | None:
    """Seconds that the last attempt took from its start to the end of its first step; None if none got there."""
    starts = Reader(run.metrics_file, Begun, replaced=True).read().of(Begun)
    seconds = [record.startup_s for record in starts if record.startup_s is not None]
    return seconds[-1] if seconds else None


def trained_seconds(run: RunDirectory, after: int) -> float:
    """Seconds that attempts after a number of them spent on steps after their first."""
    entries = [r for r in Reader(run.metrics_file, replaced=True).read().of(Record) if r.attempt > after]
    last = {record.attempt: record.time for record in entries}
    starts = {record.attempt: record.time for record in entries if isinstance(record, Begun)}
    return sum(max(0.0, last[attempt] - time) for attempt, time in starts.items())


@dataclass
class Shares:
    """What the starts of a Slurm job's chain are good for: how much of each goes into training.

    Parameters
    ----------
    run : RunDirectory
    job : str
    """

    run: RunDirectory
    job: str

    def __post_init__(self) -> None:
        self._attempts = attempts_made(self.run)
        self._started = time.monotonic()

    def hopeless(self) -> str | None:
        """Remember this start, which Slurm has stopped; why the chain is to end, if `FRUITLESS` in a row were as bad.

        A start is bad if less of it went into training than into its beginning and its end.
        """
        spent = time.monotonic() - self._started
        trained = trained_seconds(self.run, self._attempts)
        with contextlib.suppress(OSError):  # a full disk ends the chain for reasons of its own
            entry = {"job": self.job, "time": time.time(), "spent_s": spent, "trained_s": trained}
            records.append(self.run.jobs_file, entry)
        starts = [e for e in records.read_lines(self.run.jobs_file) if e.get("job") == self.job and "spent_s" in e]
        shares = [(float(e["trained_s"]), float(e["spent_s"])) for e in starts[-FRUITLESS:]]
        if len(shares) < FRUITLESS or any(trained >= spent / 2 for trained, spent in shares):
            return None
        each = ", ".join(f"{trained:.0f} s of {spent:.0f} s" for trained, spent in shares)
        return (
            f"{FRUITLESS} starts of job {self.job} in a row trained {each}: the rest went into starting and stopping; "
            "ask for a longer --time and submit again to go on from the last checkpoint"
        )


def _status(run: RunDirectory, jobs: dict[str, float], queued: dict[str, slurm.QueueEntry] | None) -> RunStatus:
    epochs = records.read(run.metrics_file, Epoch)
    entry = _newest_living(jobs, queued or {})
    job = entry.job if entry else next(reversed(jobs), None)
    state, reason = (entry.state.lower(), entry.reason) if entry else _state_of_no_job(run, job, queued is not None)
    spent = time_spent(run, time.time() if attempt_state(run) == "running" else None)
    trained = Trained(wanted_epochs(run), epochs[-1] if epochs else None, spent)
    return RunStatus(str(run.path), state, job, reason, entry.seconds_left if entry else None, trained)


def _state_of_no_job(run: RunDirectory, job: str | None, answered: bool) -> tuple[str, str]:
    """State and reason of a run none of whose jobs is in the queue; `job` is its newest."""
    attempt = attempt_state(run)
    began = {str(e.get("slurm_job")) for e in records.read_lines(run.provenance_file)}
    if job is None or job in began:
        return attempt or "new", ""
    if not answered:
        return attempt or "submitted", "Slurm does not answer here"
    try:
        queued = slurm.job_state(job)
    except HpcganError:
        queued = None
    if queued is None:
        return attempt or "cancelled", f"job {job} was cancelled or ended before its start"
    return attempt or queued.state.lower(), f"job {job}: {queued.state.lower()} before the training began"


def wanted_epochs(run: RunDirectory) -> int:
    """Epochs of a run's configuration; 0 if that does not say."""
    try:
        return int(run.read_config()["training"]["epochs"])
    except (InputError, KeyError, TypeError, ValueError, OverflowError):
        return 0


def training_left(last: Epoch, epochs: int) -> float | None:
    """Seconds that the remaining epochs take if they are like the last one; None if its rate is not known."""
    if not last.samples_per_second or last.epoch < 1:
        return None
    return epochs * (last.samples / last.epoch / last.samples_per_second + last.scoring_seconds)


COLUMNS = ("run", "job", "state", "epoch", "score", "best", "goodput", "to limit", "to end", "where or why")


def print_statuses(statuses: list[RunStatus]) -> None:
    """Print for people."""
    cells = []
    for s in (status.plain() for status in statuses):
        scores = ("" if s[name] is None else f"{s[name]:.2f}" for name in ("score", "best"))
        goodput = "" if s["time"] is None or s["time"]["goodput"] is None else f"{s['time']['goodput']:.0%}"
        spans = (clock(s[name]) for name in ("limit_left_s", "training_left_s"))
        cells.append(
            [s["run"], s["job"] or "", s["state"], f"{s['epoch']}/{s['epochs']}", *scores, goodput, *spans, s["reason"]]
        )
    print_table(COLUMNS, cells, texts=("run", "state", "where or why"))


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds; nothing for nothing."""
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
