"""One trial: `python -m hpcgan.sweep.trial STUDY NUMBER`, started by an executor, wherever that is.

The training is an ordinary one, `hpcgan train`, in processes of its own; this one sees it to its end and writes
`result.json`. It holds a lease on the trial, so a trial never runs twice at a time, whoever starts it. Exit codes:
0 there is a result, 75 stopped on request with a checkpoint, else none came of it and the trial may be tried again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from hpcgan.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, HpcganError, InputError
from hpcgan.launch.launcher import Place, Watch, launch
from hpcgan.launch.outcome import end_after, launch_training
from hpcgan.launch.process import STOP_SIGNALS, Requests, handling, rank_command
from hpcgan.launch.topology import UNKNOWN, Topology
from hpcgan.launch.world import set_parent_death_signal
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import FencedError, Lease, attempt_state, attempts_made
from hpcgan.runs.records import End, Epoch
from hpcgan.sweep.store import Assignment, Result, State, StudyDirectory
from hpcgan.system import failure, streams

#: Seconds that processes of an earlier attempt get to notice that they are alone.
PATIENCE = 120.0
#: Seconds between looks for the study's wish that trials stop.
WATCH = 1.0
#: Generated samples that are scored on test events.
TEST_SAMPLES = 5
#: Characters of a reason that are kept.
LONGEST_REASON = 500


class Direct:
    """A launcher of a single rank: the process itself."""

    name = "python"
    flavour = UNKNOWN

    def command(self, topology: Topology, argv: Sequence[str], module: str) -> list[str]:
        """The command line of `python -m module ARGV`, which dies with this process."""
        return rank_command(argv, module)


@dataclass
class Trial:
    """A trial of a study, as this process runs it.

    Parameters
    ----------
    study : StudyDirectory
    number : int
    requests : Requests
        Requests to stop that this process has got.
    """

    study: StudyDirectory
    number: int
    requests: Requests
    lost: bool = False

    def run(self) -> int:
        """Train, or score on test events, whichever is left to do; the exit code.

        Raises
        ------
        InputError
            There is no such trial, or another process has it.
        HpcganError
            The result cannot be written.
        """
        description = self.study.description()
        assignment = self.study.assignment(self.number)
        if assignment is None:
            raise InputError(f"{self.study.path}: there is no trial {self.number}")
        if assignment.has_ended(self.study.result(self.number)):
            return EXIT_DONE
        lease = Lease(self.study.runner(self.number), self._on_lost)
        code = EXIT_FAILED
        failure_file(self.study, self.number).unlink(missing_ok=True)  # of an earlier attempt
        try:
            with open(self.study.log_file(self.number), "ab") as log:
                result = self.study.result(self.number)
                if assignment.has_ended(result):  # by whoever had the lease before
                    code = EXIT_DONE
                elif result is not None:
                    code = self._score(result, log)
                else:
                    code = self._train(assignment, description.ranks, description.threads, lease, log)
        finally:
            stopped = code == EXIT_INTERRUPTED or (code != EXIT_DONE and self.requests.pending())
            with contextlib.suppress(OSError):
                lease.release("done" if code == EXIT_DONE else "interrupted" if stopped else "failed")
        return EXIT_INTERRUPTED if stopped else code

    def _on_lost(self, text: str) -> None:
        """Another process has the trial: end everything here, at once."""
        self.lost = True
        self.requests.at = self.requests.at or time.monotonic()
        self.requests.hurry = True
        self.requests.report(f"hpcgan: {text}")

    def _train(self, assignment: Assignment, ranks: int, threads: int, lease: Lease, log: IO[bytes]) -> int:
        run = self.study.trial(self.number)
        self._wait_for_others(run)
        if self.requests.pending():
            return EXIT_INTERRUPTED
        started, before = time.time(), attempts_made(run)
        argv = ["train", str(run.config_file), *self._place_of_data(assignment), "--run", str(run.path)]
        code = launch_training(argv, run, ranks, **self._options(ranks, threads, log))
        if self.lost:
            return EXIT_FAILED
        result = judge(self.study, assignment, lease.attempt, started, code, end_after(run, before))
        if result is None:
            return code or EXIT_FAILED
        lease.check()
        self.study.write_result(result)
        return EXIT_DONE

    def _place_of_data(self, assignment: Assignment) -> list[str]:
        """Where the study's data are now, which may have been moved since this trial was made."""
        path = RunDirectory(self.study.path).read_config()["data"]["path"]
        return [] if "data.path" in assignment.params else [f"data.path={json.dumps(path)}"]

    def _options(self, ranks: int, threads: int | None, log: IO[bytes]) -> dict[str, Any]:
        """Of `launch`, which knows what suits several ranks here."""
        env = {**os.environ, failure.VARIABLE: str(failure_file(self.study, self.number).absolute())}
        place = Place(Direct() if ranks == 1 else None, threads=threads, env=env)
        return {
            "place": place,
            "watch": Watch(stdout=log, stderr=log, report=self.requests.report, requests=self.requests),
        }

    def _wait_for_others(self, run: RunDirectory) -> None:
        """Until the ranks of an earlier attempt, whose starter was killed, have ended.

        Raises
        ------
        HpcganError
            They have not.
        """
        end = time.monotonic() + PATIENCE
        while attempt_state(run) == "running" and not self.requests.pending():
            if time.monotonic() > end:
                raise HpcganError(f"{run.path}: the ranks of an earlier attempt are still there")
            time.sleep(0.2)

    def _score(self, result: Result, log: IO[bytes]) -> int:
        """Score a trained trial on test events."""
        run = self.study.trial(self.number)
        argv = ["evaluate", str(run.path), "--samples", str(TEST_SAMPLES), "--no-distances"]
        code = launch(argv, 1, **self._options(1, None, log))
        if code != EXIT_DONE or self.lost:
            return code or EXIT_FAILED
        try:
            report = json.loads((run.report / "report.json").read_text(encoding="utf-8"))
            deciding = run.load_config().scoring.deciding  # what selects epochs and trials
            mean = float(report[deciding]["mean"])
            spread = report[deciding]["error" if deciding == "held_out" else "std"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HpcganError(f"{run.report}/report.json: cannot be read: {error}") from None
        self.study.write_result(replace(result, test_score=mean, test_spread=spread))
        return EXIT_DONE


def judge(
    study: StudyDirectory, assignment: Assignment, attempts: int, started: float, code: int, end: End | None
) -> Result | None:
    """What came of a training that ended with an exit code; None if it was not brought to an end.

    Parameters
    ----------
    study : StudyDirectory
    assignment : Assignment
    attempts : int
        How often the trial was started.
    started : float
        Seconds since 1970.
    code : int
        Of the training.
    end : End or None
        What the training recorded of its end.
    """
    run = study.trial(assignment.number)
    reached = progress(study, assignment.number)
    state: State = "failed"
    if code == EXIT_DONE and end is not None and end.cause == "finished":
        state, reason = "complete", None
        if reached["score"] is None:
            state, reason = "failed", "no epoch has a finite score"
        if end.outcome == "pruned":  # by hand, it may be before the first epoch
            state, reason = "pruned", _verdict(run.verdict_file)
    elif code == EXIT_BAD_INPUT or (code == EXIT_FAILED and end is not None and end.outcome == "failed"):
        # Refused before there was a run to write a record into, it has told only whoever has started it.
        cause = failure.read(failure_file(study, assignment.number)) if end is None else end.failure
        if cause is not None and cause.kind == "environment":  # says nothing of the hyper-parameters
            return None
        reason = f"the training ended with exit code {code}" if cause is None else str(cause)[:LONGEST_REASON]
    else:
        return None
    return assignment.result(state, reason, attempts=attempts, started=started, **reached)


def failure_file(study: StudyDirectory, number: int) -> Path:
    """Where a trial's training tells why it failed (`hpcgan.system.failure`)."""
    return study.runner(number).path / "failure.json"


def progress(study: StudyDirectory, number: int) -> dict[str, Any]:
    """The best epoch's score, that epoch, and the epochs trained so far, as a `Result` has them."""
    epochs = records.read(study.trial(number).metrics_file, Epoch)
    score, epoch = min(((e.deciding, e.epoch) for e in epochs if e.deciding is not None), default=(None, None))
    return {"score": score, "epoch": epoch, "epochs": epochs[-1].epoch if epochs else 0}


def _verdict(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _watch(study: StudyDirectory, requests: Requests) -> None:
    """Take the study's wish that all trials stop for a request to this process."""
    while requests.at is None:
        if study.stop_file.exists():
            requests.at = time.monotonic()
            return
        time.sleep(WATCH)


def _number(text: str, of: str | None, env: Mapping[str, str]) -> int:
    """A trial's number, or which of a list this element of a Slurm array is."""
    if of is None:
        return int(text)
    element = env.get("SLURM_ARRAY_TASK_ID", "")
    numbers = of.split(",")
    if not re.fullmatch(r"\d+", element) or int(element) >= len(numbers):
        raise InputError(f"SLURM_ARRAY_TASK_ID={element!r} is no element of {len(numbers)}")
    return int(numbers[int(element)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a trial."""
    parser = argparse.ArgumentParser(prog="python -m hpcgan.sweep.trial", description="Run a trial of a study.")
    parser.add_argument("study", type=Path)
    parser.add_argument("number", nargs="?", default="")
    parser.add_argument("--of", metavar="N,...", help="as an element of a Slurm array: its number in this list")
    parser.add_argument("--cores", metavar="C,...", help="run on these cores only")
    parser.add_argument("--parent", type=int, metavar="PID", help="stop, with a checkpoint, when this process ends")
    args = parser.parse_args(argv)
    streams.guard()
    requests = Requests(lambda line: print(line, file=sys.stderr, flush=True))
    with handling(STOP_SIGNALS, requests.ask):
        if args.parent is not None:
            set_parent_death_signal(signal.SIGTERM)
            if os.getppid() != args.parent:  # it ended before
                return EXIT_INTERRUPTED
        if args.cores:
            os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})
        study = StudyDirectory(args.study)
        threading.Thread(target=_watch, args=(study, requests), daemon=True).start()
        try:
            return Trial(study, _number(args.number, args.of, os.environ), requests).run()
        except FencedError as error:
            print(f"hpcgan: {error}", file=sys.stderr, flush=True)
            return EXIT_BAD_INPUT
        except HpcganError as error:
            print(f"hpcgan: error: {error}", file=sys.stderr, flush=True)
            return error.exit_code
        except OSError as error:
            print(f"hpcgan: error: {error.filename}: {error.strerror}", file=sys.stderr, flush=True)
            return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
