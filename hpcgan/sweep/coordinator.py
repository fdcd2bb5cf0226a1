"""The one process that decides in a study: what is tried, what is tried again, what ends early, what has won.

Everything it knows is in the study's directory. It can be killed at any time; the next one reads the directory, sees
which trials have ended, which are still run by somebody, and which were lost, and goes on.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hpcgan.config import SweepSection
from hpcgan.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, HpcganError, InputError, Interrupted
from hpcgan.launch.process import GRACE, Requests
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.lease import attempt_state
from hpcgan.sweep import optuna_study, pruning
from hpcgan.sweep.executors import Executor
from hpcgan.sweep.space import OWN_SAMPLERS, Space
from hpcgan.sweep.statistics import Standing, ranking
from hpcgan.sweep.store import Assignment, Result, StudyDirectory
from hpcgan.sweep.table import TableReader
from hpcgan.sweep.trial import failure_file, progress
from hpcgan.system import failure
from hpcgan.system.files import version

#: The longest wait before a lost trial is started again, seconds.
LONGEST_BACKOFF = 60.0
#: Stops without a new checkpoint in between after which a trial counts as lost, as one whose time limit is too short.
FRUITLESS = 3


@dataclass
class _Trial:
    """What the coordinator knows of a trial.

    Attributes
    ----------
    assignment : Assignment
    result : Result or None
    runs : "here", "elsewhere" or None
        With this coordinator's executor, or with somebody else; None: it waits, or has ended.
    not_before : float
        When it may be started again, on this process's clock.
    stops : int
        In a row, without a new checkpoint in between.
    step : int
        Of its newest checkpoint when it was stopped last.
    judged : int
        Epochs that the pruner has seen.
    """

    assignment: Assignment
    result: Result | None = None
    runs: Literal["here", "elsewhere"] | None = None
    not_before: float = 0.0
    stops: int = 0
    step: int = -1
    judged: int = 0

    @property
    def number(self) -> int:
        return self.assignment.number

    @property
    def ended(self) -> bool:
        return self.assignment.has_ended(self.result)


class Coordinator:
    """Runs a study to its end.

    Parameters
    ----------
    study : StudyDirectory
        Whose lease the caller holds.
    space : Space
    executor : Executor
    plan : SweepSection
        How much is to be done: `trials`, `top`, `repeats`, `retries`.
    requests : Requests
        Requests to stop that this process has got.
    report : callable
        Takes one line for the user.
    check : callable
        Raises when another coordinator has taken the study over.

    Attributes
    ----------
    backoff : float
        Seconds before a lost trial is started again, more before each time after it.
    grace : float
        Seconds for trials to end after they were asked to.
    """

    backoff = 2.0
    grace = GRACE

    def __init__(
        self,
        study: StudyDirectory,
        space: Space,
        executor: Executor,
        plan: SweepSection,
        requests: Requests,
        report: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.study, self.space, self.executor, self.plan = study, space, executor, plan
        self.requests, self.report, self.check = requests, report, check
        self._reader = TableReader(study.path)
        self.description = self._reader.description
        self._trials: dict[int, _Trial] = {}
        self._versions: dict[int, Any] = {}  # of metrics when they were last looked at
        self._started = False

    def run(self) -> int:
        """Until everything is done; the exit code.

        Raises
        ------
        Interrupted
            A stop was requested: all trials have checkpoints.
        HpcganError
            The study's directory cannot be written, or belongs to another coordinator by now.
        """
        self._read()
        if self._trials:
            self.report(f"{self._done} of {self._wanted} trials have ended before")
        while not self.requests.pending():
            self.check()
            self._heed()
            self._harvest()
            self._observe()
            if self.requests.pending():
                break
            self._hand_in()
            if not self._open() and not self._next_phase():
                return EXIT_DONE if self._best() else EXIT_FAILED  # not one trial is complete
            self._pause(self.executor.every)
        self._stop()
        raise Interrupted(f"{self.study.path}: stopped on request; run the same command to go on")

    # --- what there is -----------------------------------------------------------------------------

    def _read(self) -> None:
        """Take up what an earlier coordinator has left."""
        for number in self.study.numbers():
            assignment = self.study.assignment(number)
            if assignment is not None:  # else its directory was made, and nothing said of it
                self._trials[number] = _Trial(assignment, self.study.result(number))
        queued = self.executor.in_flight()
        for trial in self._open():
            if trial.number in queued:
                trial.runs = "here"
            elif attempt_state(self.study.runner(trial.number)) == "running":
                trial.runs = "elsewhere"
        if flying := self._flying():
            self.report(f"still running: {_names(flying)}")

    def _open(self) -> list[_Trial]:
        """Trials of which something is left to do, by number."""
        return [trial for _, trial in sorted(self._trials.items()) if not trial.ended]

    def _flying(self) -> list[_Trial]:
        """Those that run, or are in a queue."""
        return [trial for trial in self._open() if trial.runs is not None]

    def _begin(self, params: Mapping[str, Any], seed: int, index: int | None, **fields: Any) -> _Trial:
        """A new trial; its number is the first that is free, so that one whose directory was deleted comes back."""
        number = _free(self._trials)
        assignment = Assignment(number=number, params=params, seed=seed, index=index, **fields)
        run, refusal = self.study.trial(number), None
        try:
            config = self.space.config(params, seed)
        except InputError as error:  # values that do not go together, which a sampler cannot know
            run.path.mkdir(parents=True, exist_ok=True)
            refusal = str(error)
        else:
            run.create(config)
        self.study.write_assignment(assignment)  # last, so that who finds that finds all
        if refusal is not None:
            self.study.write_result(assignment.result("failed", refusal))
        trial = self._trials[number] = _Trial(assignment)
        self._look(trial)
        return trial

    # --- what has ended ------------------------------------------------------------------------------

    def _harvest(self) -> None:
        """Find out which trials are done, and which are lost."""
        for number, code in self.executor.poll().items():
            trial = self._trials.get(number)
            if trial is not None and trial.runs is not None and not self._look(trial):
                self._came_back(trial, code)
        for trial in self._flying():
            if trial.runs == "here" or attempt_state(self.study.runner(trial.number)) == "running":
                continue
            if not self._look(trial):
                self._came_back(trial, None)

    def _look(self, trial: _Trial) -> bool:
        """Whether a trial has come to its end, which is then told."""
        result = self.study.result(trial.number)
        if result is None:
            return False
        before, trial.result = trial.result, result
        if before is None:
            self.report(self._line(result))
        if trial.ended:
            trial.runs = None
        return trial.ended

    def _came_back(self, trial: _Trial, code: int | None) -> None:
        """A trial's process has ended, and there is no result."""
        number, state = trial.number, attempt_state(self.study.runner(trial.number))
        if state == "running":  # by somebody else, who was there first: see how that ends
            trial.runs = "elsewhere"
            return
        if self._look(trial):  # by then
            return
        trial.runs = None
        self._heed()
        if self.requests.pending():  # that is why
            return
        if code == EXIT_INTERRUPTED or (code is None and state == "interrupted"):
            step = checkpoints.newest_step(self.study.trial(number).checkpoints)
            trial.stops = 1 if step > trial.step else trial.stops + 1
            trial.step = step
            if trial.stops < FRUITLESS:
                self.report(f"trial {number} was stopped: it is started again")
                return
        lost = trial.assignment.lost + 1
        self._assign(trial, lost=lost)
        reason = failure.read(failure_file(self.study, number))
        why = f"exit code {code}" if code is not None else "its process is gone"
        why += f": {reason}" if reason is not None else ""
        if lost <= self.plan.retries:
            trial.not_before = time.monotonic() + min(self.backoff * lost, LONGEST_BACKOFF)
            self.report(f"trial {number} was lost ({why}); {lost} of {self.plan.retries} retries")
            return
        self._give_up(trial, f"lost {lost} times, the last time with {why}")

    def _give_up(self, trial: _Trial, reason: str) -> None:
        """Record a trial that cannot be brought to an end as failed."""
        if trial.result is not None:  # trained, but it could not be scored on test events
            self.study.write_result(replace(trial.result, test_failed=reason))
        else:
            reached = {"attempts": trial.assignment.lost, **progress(self.study, trial.number)}
            self.study.write_result(trial.assignment.result("failed", reason, **reached))
        self._assign(trial, lost=0)  # who deletes the result has it tried anew
        self._look(trial)

    def _assign(self, trial: _Trial, **changes: Any) -> None:
        """Say something else of a trial."""
        trial.assignment = replace(trial.assignment, **changes)
        self.study.write_assignment(trial.assignment)

    # --- pruning -------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Judge trials by their new epochs."""
        if self.description.pruner == "none":
            return
        judged = {trial.number: trial for trial in self._flying() if trial.assignment.repeat_of is None}
        files = {number: self.study.trial(number).metrics_file for number in judged}
        versions = {number: version(file) for number, file in files.items()}
        if versions == self._versions:
            return
        self._versions, rows = versions, self._reader.read().rows
        for row in (row for row in rows if row.number in judged and row.curve):
            if self.study.trial(row.number).verdict_file.exists():
                continue
            trial = judged[row.number]
            reason = pruning.verdict(self.description.pruner, row, rows, trial.judged)
            trial.judged = row.epochs
            if reason is not None and self.study.write_verdict(row.number, reason, row.epochs):
                self.report(f"trial {row.number} shall end: {reason}")

    # --- what is next --------------------------------------------------------------------------------

    def _hand_in(self) -> None:
        """Start what waits, and ask for new trials while there is room."""
        waiting = [trial for trial in self._open() if trial.runs is None]
        own = self.description.sampler in OWN_SAMPLERS
        indices = {trial.assignment.index for trial in self._trials.values()}
        while (index := _free(indices)) < self._wanted and self._room(len(waiting), own) > 0:
            trial = self._search(index)
            indices.add(index)
            if not trial.ended:
                waiting.append(trial)
            if not own and self.requests.pending():
                break
        now = time.monotonic()
        ready = [trial for trial in waiting if trial.not_before <= now]
        if not self.executor.queues:
            ready = ready[: max(0, self.executor.concurrency - len(self._flying()))]
        if not ready:
            return
        try:
            self.executor.start([trial.number for trial in ready])
        except HpcganError as error:
            if not self._started:  # it never will, as it is
                raise
            self.report(f"cannot start trials now: {error}")
            for trial in ready:
                trial.not_before = now + LONGEST_BACKOFF / 4
            return
        self._started = True
        for trial in ready:
            trial.runs = "here"

    def _search(self, index: int) -> _Trial:
        """The next trial of the search."""
        sampler, seed = self.description.sampler, self.description.trial_seed(index)
        if sampler in OWN_SAMPLERS:
            return self._begin(self.space.planned(sampler, self.description.seed, index), seed, index)
        marks = {number: trial.assignment.marks for number, trial in self._trials.items()}
        params, notes = optuna_study.ask(self.space, self._reader.read(), _free(self._trials), marks)
        return self._begin(params, seed, index, marks=notes)

    def _room(self, waiting: int, own: bool) -> int:
        """For how many more trials parameters are wanted now."""
        if self.executor.queues and own:  # others learn from what has ended
            return 1
        return self.executor.concurrency - len(self._flying()) - waiting

    def _next_phase(self) -> bool:
        """When all that was begun has ended: repetitions, then test events; False if there is nothing more."""
        if not self.plan.repeats:
            return False
        chosen = self._best()[: self.plan.top]
        if repeated := [number for number in chosen if self._repeat(number)]:
            which = ", ".join(str(number) for number in repeated)
            self.report(f"trained again with {self.plan.repeats} fresh seeds each: trial {which}")
            return True
        first = next(iter(self.ranking()), None)
        if first is None or first.repeats is None:
            return False
        for number, trial in self._trials.items():
            assignment, result = trial.assignment, trial.result
            if assignment.repeat_of != first.number or assignment.test or result is None or result.state != "complete":
                continue
            self._trials[number] = _Trial(assignment, result)
            self._assign(self._trials[number], test=True, lost=0)
        if self._open():
            self.report(f"trial {first.number} has the best mean: its repetitions are scored on test events")
        return bool(self._open())

    def _repeat(self, number: int) -> bool:
        """Begin the repetitions that a trial still lacks; False if it lacks none."""
        seeds = {t.assignment.seed for t in self._trials.values() if t.assignment.repeat_of == number}
        planned_seeds = [self.description.repeat_seed(number, i) for i in range(self.plan.repeats)]
        missing = [seed for seed in planned_seeds if seed not in seeds]
        for seed in missing:
            self._begin(self._trials[number].assignment.params, seed, None, repeat_of=number)
        return bool(missing)

    def ranking(self) -> list[Standing]:
        """Configurations by what came of them, the best first."""
        return ranking(trial.result for trial in self._trials.values() if trial.result is not None)

    def _best(self) -> list[int]:
        """Complete trials of the search by their own score, by which they are chosen for repetitions."""
        scored = [(s.score, s.number) for s in self.ranking() if s.score is not None]
        return [number for _, number in sorted(scored)]

    @property
    def _wanted(self) -> int:
        """Trials of the search."""
        return self.plan.trials or 0

    @property
    def _done(self) -> int:
        """Of these, those that have been trained."""
        return sum(t.result is not None and t.assignment.repeat_of is None for t in self._trials.values())

    # --- the end -------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Ask all trials to stop, and wait until they have."""
        end = time.monotonic() + self.grace
        self.study.stop_file.touch()
        self.executor.stop()
        if flying := self._flying():
            self.report(f"stopping: {_names(flying)} write checkpoints")
        while self._flying():
            if self.requests.hurry or time.monotonic() > end:
                self.executor.kill()
                self.report("ended without waiting for checkpoints")
                break
            self._harvest()
            self._pause(0.2, stopping=True)
        self._harvest()

    def _heed(self) -> None:
        """Take the stop file, which was not there when this coordinator began, for a request to it."""
        if self.study.stop_file.exists() and not self.requests.pending():
            self.report(f"{self.study.stop_file} is there: somebody asks all trials to stop")
            self.requests.at = time.monotonic()

    def _pause(self, seconds: float, stopping: bool = False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (stopping or not self.requests.pending()):
            time.sleep(min(0.1, seconds))

    def _line(self, result: Result) -> str:
        what = f"trial {result.number}"
        if result.repeat_of is not None:
            what += f" (repeats {result.repeat_of})"
        score = "" if result.score is None else f" score {result.score:.2f} in epoch {result.epoch},"
        reason = f" ({result.reason})" if result.reason else ""
        return f"{what} {result.state}:{score} {self._done} of {self._wanted} done{reason}"


def _names(trials: Sequence[_Trial]) -> str:
    numbers = [str(trial.number) for trial in trials]
    return f"{len(numbers)} trials" if len(numbers) > 8 else f"trial{'s' * (len(numbers) > 1)} {', '.join(numbers)}"


def _free(numbers: Container[int | None]) -> int:
    """The first whole number that is not taken."""
    return next(number for number in itertools.count() if number not in numbers)
