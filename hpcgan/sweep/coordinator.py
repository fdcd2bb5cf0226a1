"""The one process that decides in a study: what is tried, what is tried again, what ends early, what has won.

Everything it knows is in the study's directory. It can be killed at any time; the next one reads the directory, sees
which trials have ended, which are still run by somebody, and which were lost, and goes on.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hpcgan.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, HpcganError, Interrupted
from hpcgan.launch.process import GRACE, Requests
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.lease import attempt_state
from hpcgan.sweep.executors.base import Executor
from hpcgan.sweep.ledger import (
    OWN_SAMPLERS,
    Ledger,
    known_params,
    repeat_seed,
    scores_of,
    trial_seed,
)
from hpcgan.sweep.space import Space
from hpcgan.sweep.store import STATES, Assignment, Description, Result, StudyDirectory
from hpcgan.sweep.trial import failure_file, standing
from hpcgan.system import failure

#: The longest wait before a lost trial is started again, seconds.
LONGEST_BACKOFF = 60.0
#: Stops without a new checkpoint in between after which a trial counts as lost, as one whose time limit is too short.
FRUITLESS = 3


@dataclass(frozen=True)
class Plan:
    """How much is to be done.

    Attributes
    ----------
    trials : int
        Of the search.
    top, repeats : int
        So many of the best are trained again, with so many fresh seeds each. 0 repeats: none are.
    retries : int
        How often a lost trial is started again.
    backoff : float
        Seconds before that, more before each one after it.
    """

    trials: int
    top: int = 1
    repeats: int = 0
    retries: int = 3
    backoff: float = 2.0


@dataclass
class _Standing:
    """What the coordinator remembers of a trial that has not ended."""

    not_before: float = 0.0
    stops: int = 0
    lost: int = 0
    step: int = -1
    size: int = -1  # of its metrics when they were last looked at
    elsewhere: bool = False


@dataclass
class Coordinator:
    """Runs a study to its end.

    Parameters
    ----------
    study : StudyDirectory
        Whose lease the caller holds.
    description : Description
    space : Space
    ledger : Ledger
    executor : Executor
    plan : Plan
    requests : Requests
        Requests to stop that this process has got.
    report : callable
        Takes one line for the user.
    check : callable
        Raises when another coordinator has taken the study over.
    concurrency : int
        Trials at a time of an executor that queues by itself, for samplers that learn from what has ended.
    grace : float
        Seconds for trials to end after they were asked to.
    """

    study: StudyDirectory
    description: Description
    space: Space
    ledger: Ledger
    executor: Executor
    plan: Plan
    requests: Requests
    report: Callable[[str], None]
    check: Callable[[], None] = lambda: None
    concurrency: int = 1
    grace: float = GRACE
    _assignments: dict[int, Assignment] = field(default_factory=dict)
    _results: dict[int, Result] = field(default_factory=dict)
    _open: dict[int, _Standing] = field(default_factory=dict)
    _flying: set[int] = field(default_factory=set)
    _started: bool = False

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
        done = sum(1 for n in self._results if self._assignments[n].repeat_of is None)
        if self._assignments:
            self.report(f"{done} of {self.plan.trials} trials have ended before")
        while not self.requests.made():
            self.check()
            self._heed()
            self._harvest()
            self._observe()
            if self.requests.made():
                break
            self._hand_in()
            if not self._open and not self._next_phase():
                return EXIT_DONE if self.best() else EXIT_FAILED  # not one trial is complete
            self._pause(self.executor.every)
        self._stop()
        raise Interrupted(f"{self.study.path}: stopped on request; run the same command to go on")

    # --- what there is -----------------------------------------------------------------------------

    def _read(self) -> None:
        """Take up what an earlier coordinator has left."""
        for number in range(self.ledger.count()):
            assignment = self.study.assignment(number)
            if assignment is None:
                raise HpcganError(f"{self.study.assignment_file(number)}: is gone")
            self._assignments[number] = assignment
            if (result := self.study.result(number)) is not None:
                self._results[number] = result
            if not self._ended(number):
                self._open[number] = _Standing()
        self._flying = self.executor.in_flight() & set(self._open)
        for number in self._open:
            if attempt_state(self.study.runner(number)) == "running":
                self._open[number].elsewhere = number not in self._flying
                self._flying.add(number)
        if self._flying:
            self.report(f"still running: {_numbers(self._flying)}")

    def _ended(self, number: int) -> bool:
        """Whether nothing is left to do of a trial."""
        result = self._results.get(number)
        if result is None:
            return False
        tested = result.test_score is not None or "test_failed" in result.extra
        return not self._assignments[number].test or tested

    def _take(self, assignment: Assignment) -> None:
        """A new trial."""
        self._assignments[assignment.number] = assignment
        self._open[assignment.number] = _Standing()
        self._look(assignment.number)  # one that the configuration refuses has its result by now

    # --- what has ended ------------------------------------------------------------------------------

    def _harvest(self) -> None:
        """Find out which trials are done, and which are lost."""
        for number, code in self.executor.poll().items():
            if number in self._flying and not self._look(number):
                self._came_back(number, code)
        for number in sorted(self._flying):
            if not self._open[number].elsewhere or attempt_state(self.study.runner(number)) == "running":
                continue
            if not self._look(number):
                self._came_back(number, None)

    def _look(self, number: int) -> bool:
        """Whether a trial has come to its end, which is then told."""
        result = self.study.result(number)
        if result is None:
            return False
        new = number not in self._results
        self._results[number] = result
        if new:
            self.ledger.tell(result)
            self.report(self._line(result))
        if self._ended(number):
            self._flying.discard(number)
            self._open.pop(number, None)
            return True
        return False

    def _came_back(self, number: int, code: int | None) -> None:
        """A trial's process has ended, and there is no result."""
        standing_, state = self._open[number], attempt_state(self.study.runner(number))
        if state == "running":  # by somebody else, who was there first: see how that ends
            standing_.elsewhere = True
            return
        if self._look(number):  # by then
            return
        standing_.elsewhere = False
        self._flying.discard(number)
        self._heed()
        if self.requests.made():  # that is why
            return
        if code == EXIT_INTERRUPTED or (code is None and state == "interrupted"):
            step = checkpoints.newest_step(self.study.trial(number).checkpoints)
            standing_.stops = 1 if step > standing_.step else standing_.stops + 1
            standing_.step = step
            if standing_.stops < FRUITLESS:
                self.report(f"trial {number} was stopped: it is started again")
                return
        # The ledger's trial is closed once it is trained: losses while it is scored on test events are counted here.
        lost = standing_.lost = max(self.ledger.lose(number), standing_.lost + 1)
        reason = failure.read(failure_file(self.study, number))
        why = f"exit code {code}" if code is not None else "its process is gone"
        why += f": {reason}" if reason is not None else ""
        if lost <= self.plan.retries:
            standing_.not_before = time.monotonic() + min(self.plan.backoff * lost, LONGEST_BACKOFF)
            self.report(f"trial {number} was lost ({why}); {lost} of {self.plan.retries} retries")
            return
        self._give_up(number, f"lost {lost} times, the last time with {why}")

    def _give_up(self, number: int, reason: str) -> None:
        """Record a trial that cannot be brought to an end as failed."""
        if (result := self._results.get(number)) is not None:  # trained, but it could not be scored on test events
            self.study.write_result(replace(result, extra={**result.extra, "test_failed": reason}))
        else:
            score, epoch, epochs = standing(self.study, number)
            assignment, lost = self._assignments[number], self.ledger.lost(number)
            made = assignment.result(lost, "failed", reason, score=score, epoch=epoch, epochs=epochs)
            self.study.write_result(made)
        self._look(number)

    # --- pruning -------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Tell the ledger of new epochs, and trials of its verdict."""
        if self.description.pruner == "none":
            return
        for number in sorted(self._flying):
            run, known = self.study.trial(number), self._open[number]
            if self._assignments[number].repeat_of is not None or run.verdict_file.exists():
                continue
            try:
                size = run.metrics_file.stat().st_size
            except OSError:
                continue
            if size == known.size:
                continue
            known.size = size
            scores = scores_of(self.study, number)
            epoch = self.ledger.observe(number, scores)
            if epoch is not None:
                best = min(s for e, s in scores.items() if e <= epoch)
                reason = f"{self.description.pruner} pruning after epoch {epoch}, best score {best:.2f}"
                if self.study.write_verdict(number, reason, epoch):
                    self.report(f"trial {number} shall end: {reason}")

    # --- what is next --------------------------------------------------------------------------------

    def _hand_in(self) -> None:
        """Start what waits, and ask for new trials while there is room."""
        waiting = [n for n in sorted(self._open) if n not in self._flying]
        searched = sum(1 for a in self._assignments.values() if a.repeat_of is None)
        own = self.description.sampler in OWN_SAMPLERS
        while searched < self.plan.trials and self._room(len(waiting), own) > 0:
            seed = trial_seed(self.description.seed, searched)
            if own:
                params = known_params(self.space, self.description, searched)
                made = self.ledger.add(params, seed, searched)
            else:
                made = self.ledger.ask(seed, searched)
            self._take(made)
            searched += 1
            if made.number in self._open:
                waiting.append(made.number)
            if not own and self.requests.made():
                break
        now = time.monotonic()
        ready = [n for n in waiting if self._open[n].not_before <= now]
        if self.executor.slots is not None:
            ready = ready[: max(0, self.executor.slots - len(self._flying))]
        if not ready:
            return
        try:
            self.executor.start(ready)
        except HpcganError as error:
            if not self._started:  # it never will, as it is
                raise
            self.report(f"cannot start trials now: {error}")
            for number in ready:
                self._open[number].not_before = now + LONGEST_BACKOFF / 4
            return
        self._started = True
        self._flying.update(ready)
        for number in ready:
            self._open[number].elsewhere = False

    def _room(self, waiting: int, own: bool) -> int:
        """For how many more trials parameters are wanted now."""
        if self.executor.slots is None and own:
            return 1
        most = self.executor.slots if self.executor.slots is not None else self.concurrency
        return most - len(self._flying) - waiting

    def _next_phase(self) -> bool:
        """When all that was begun has ended: repetitions, then test events; False if there is nothing more."""
        if not self.plan.repeats:
            return False
        chosen = self.best()[: self.plan.top]
        fresh = False
        for result in chosen:
            there = sum(1 for a in self._assignments.values() if a.repeat_of == result.number)
            for repetition in range(there, self.plan.repeats):
                seed = repeat_seed(self.description.seed, result.number, repetition)
                self._take(self.ledger.add(result.params, seed, None, result.number))
                fresh = True
        if fresh:
            which = ", ".join(str(result.number) for result in chosen)
            self.report(f"trained again with {self.plan.repeats} fresh seeds each: trial {which}")
            return True
        winner = self.winner()
        if winner is None:
            return False
        for number, assignment in self._assignments.items():
            if assignment.repeat_of == winner and self._results[number].state == "complete" and not assignment.test:
                self._assignments[number] = replace(assignment, test=True)
                self.study.write_assignment(self._assignments[number])
                if not self._ended(number):
                    self._open[number] = _Standing()
                    fresh = True
        if fresh:
            self.report(f"trial {winner} has the best mean: its repetitions are scored on test events")
        return fresh

    def best(self) -> list[Result]:
        """Complete trials of the search, the best first."""
        done = [r for r in self._results.values() if r.repeat_of is None and r.state == "complete"]
        return sorted((r for r in done if r.score is not None), key=lambda r: (r.score, r.number))

    def repeated(self, number: int) -> list[Result]:
        """Repetitions of a trial that have ended."""
        return [r for r in self._results.values() if r.repeat_of == number]

    def winner(self) -> int | None:
        """The trial whose repetitions have the best mean; those with failed ones come after all others."""
        ranks = []
        for result in self.best()[: self.plan.top]:
            scores = [r.score for r in self.repeated(result.number) if r.state == "complete" and r.score is not None]
            if scores:
                failed = len(self.repeated(result.number)) - len(scores)
                ranks.append((failed, statistics.fmean(scores), result.number))
        return min(ranks)[2] if ranks else None

    # --- the end -------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Ask all trials to stop, and wait until they have."""
        end = time.monotonic() + self.grace
        self.study.stop_file.touch()
        self.executor.stop()
        if self._flying:
            self.report(f"stopping: {_numbers(self._flying)} write checkpoints")
        while self._flying:
            if self.requests.hurry or time.monotonic() > end:
                self.executor.kill()
                self.report("ended without waiting for checkpoints")
                break
            self._harvest()
            self._pause(0.2, stopping=True)
        self._harvest()

    def _heed(self) -> None:
        """Take the stop file, which was not there when this coordinator began, for a request to it."""
        if self.study.stop_file.exists() and not self.requests.made():
            self.report(f"{self.study.stop_file} is there: somebody asks all trials to stop")
            self.requests.at = time.monotonic()

    def _pause(self, seconds: float, stopping: bool = False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (stopping or not self.requests.made()):
            time.sleep(min(0.1, seconds))

    def _line(self, result: Result) -> str:
        done = sum(1 for r in self._results.values() if r.repeat_of is None)
        what = f"trial {result.number}"
        if result.repeat_of is not None:
            what += f" (repeats {result.repeat_of})"
        score = "" if result.score is None else f" score {result.score:.2f} in epoch {result.epoch},"
        reason = f" ({result.reason})" if result.reason else ""
        return f"{what} {result.state}:{score} {done} of {self.plan.trials} done{reason}"

    def summary(self) -> list[str]:
        """What a terminal shows of the outcome."""
        results = [r for r in self._results.values() if r.repeat_of is None]
        counts = {state: sum(1 for r in results if r.state == state) for state in STATES}
        lines = [", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "complete")]
        for result in self.best()[: max(3, self.plan.top if self.plan.repeats else 0)]:
            params = ", ".join(f"{key} {_brief(value)}" for key, value in result.params.items())
            lines.append(f"trial {result.number}: score {result.score:.2f} in epoch {result.epoch} ({params})")
            scores = [r.score for r in self.repeated(result.number) if r.state == "complete" and r.score is not None]
            if scores:
                lines.append(f"  with {_plural(len(scores), 'fresh seed')}: {_mean(scores)}")
        if self.plan.repeats and (winner := self.winner()) is not None:
            tested = [r.test_score for r in self.repeated(winner) if r.test_score is not None]
            on_test = f"; on test events {_mean(tested)}" if tested else ""
            lines.append(f"winner: trial {winner}{on_test}")
        elif len(self.best()) > 1:
            lines.append("The best score of many is too good to be true: see --repeats.")
        return lines


def _mean(scores: list[float]) -> str:
    """With its standard error."""
    spread = f" +- {statistics.stdev(scores) / math.sqrt(len(scores)):.2f}" if len(scores) > 1 else ""
    return f"score {statistics.fmean(scores):.2f}{spread}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _brief(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _numbers(numbers: set[int]) -> str:
    listed = sorted(numbers)
    if len(listed) > 8:
        return f"{len(listed)} trials"
    return f"trial{'s' * (len(listed) > 1)} " + ", ".join(str(n) for n in listed)
