"""What the runs in a folder are doing: their files and the queue, put together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hpcgan import records
from hpcgan.console import print_table
from hpcgan.errors import HpcganError, InputError
from hpcgan.launch import slurm
from hpcgan.rundir import RunDirectory, attempt_state


@dataclass(frozen=True)
class RunStatus:
    """A run at a glance.

    Attributes
    ----------
    run : str
        Its directory.
    state : str
        Of its job in the queue (pending, running ...), else of its last attempt (running, done, interrupted,
        failed, lost), or new.
    job : str or None
        Its last Slurm job.
    reason : str
        Why it waits, or where it runs.
    epoch, epochs : int
        Done and wanted.
    score, best : float or None
        Of the last epoch, and the lowest.
    limit_left_s, training_left_s : float or None
        Seconds to the job's time limit, and the training's own estimate.
    """

    run: str
    state: str
    job: str | None
    reason: str
    epoch: int
    epochs: int
    score: float | None
    best: float | None
    limit_left_s: float | None
    training_left_s: float | None


def list_runs(folder: Path) -> list[RunStatus]:
    """Status of all runs directly in a folder, by name. A folder that is a run itself counts as one."""
    candidates = [folder] if _is_run(folder) else sorted(p for p in folder.iterdir() if p.is_dir() and _is_run(p))
    runs = [RunDirectory(path) for path in candidates]
    jobs = {run.path: _last_job(run) for run in runs}
    try:
        queued = slurm.queue([job for job in jobs.values() if job])
    except HpcganError:  # no Slurm here: the run directories say what they can
        queued = {}
    return [_status(run, jobs[run.path], queued) for run in runs]


def _is_run(path: Path) -> bool:
    if (path / "study.json").is_file():  # a sweep, whose trials are runs
        return False
    return (path / "config.yaml").is_file() or (path / "jobs.jsonl").is_file()


def _last_job(run: RunDirectory) -> str | None:
    """The job that was submitted or that ran last."""
    entries = [(e.get("time"), e.get("job")) for e in records.read_lines(run.jobs_file)]
    entries += [(e.get("time"), e.get("slurm_job")) for e in records.read_lines(run.provenance_file)]
    numbered = [(t, str(job)) for t, job in entries if job and isinstance(t, (int, float))]
    return max(numbered)[1] if numbered else None


def _status(run: RunDirectory, job: str | None, queued: dict[str, slurm.QueueEntry]) -> RunStatus:
    epochs = records.read(run.metrics_file, "epoch")
    last = epochs[-1] if epochs else {}
    wanted = wanted_epochs(run)
    done = int(last.get("epoch", 0))
    score = last.get("score")
    best = last.get("best")
    entry = queued.get(job) if job else None
    return RunStatus(
        run=str(run.path),
        state=entry.state.lower() if entry else attempt_state(run) or "new",
        job=job,
        reason=entry.reason if entry else "",
        epoch=done,
        epochs=wanted,
        score=score["total"] if score else None,
        best=best["score"] if best else None,
        limit_left_s=entry.seconds_left if entry else None,
        training_left_s=training_left(last, wanted - done) if wanted > done else None,
    )


def wanted_epochs(run: RunDirectory) -> int:
    """Epochs of a run's configuration; 0 if that does not say."""
    try:
        return int(run.read_config()["training"]["epochs"])
    except (InputError, KeyError, TypeError, ValueError, OverflowError):
        return 0


def training_left(last: dict[str, Any], epochs: int) -> float | None:
    """Seconds that the remaining epochs take if they are like the last one."""
    try:
        epoch_samples = last["samples"] / last["epoch"]
        return float(epochs * (epoch_samples / last["samples_per_second"] + last["scoring_seconds"]))
    except (KeyError, TypeError, ZeroDivisionError):
        return None


COLUMNS = ("run", "job", "state", "epoch", "score", "best", "to limit", "to end", "where or why")


def print_statuses(statuses: list[RunStatus]) -> None:
    """Print for people."""
    cells = [
        [
            s.run,
            s.job or "",
            s.state,
            f"{s.epoch}/{s.epochs}",
            _number(s.score),
            _number(s.best),
            clock(s.limit_left_s),
            clock(s.training_left_s),
            s.reason,
        ]
        for s in statuses
    ]
    print_table(COLUMNS, cells, left=("run", "state", "where or why"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds; nothing for nothing."""
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
