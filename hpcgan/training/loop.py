"""The training loop: fetch, update, record, score, checkpoint.

Knows neither the problem nor the method. Progress is counted in samples seen by all ranks.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from hpcgan import schedule
from hpcgan.comm.base import Comm
from hpcgan.config import Config, TrainingSection
from hpcgan.data.pipeline import Pipeline
from hpcgan.data.schema import Sample
from hpcgan.data.sharding import Sharding
from hpcgan.errors import HpcganError, Interrupted, Stopped
from hpcgan.evaluation.diversity import Diversity
from hpcgan.methods.base import ATTENTION, NONFINITE, Method, StepInput, StepResult
from hpcgan.metrics.observable import Score
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs import records
from hpcgan.runs.lease import Lease
from hpcgan.system.failure import Failure
from hpcgan.training.pace import Pace
from hpcgan.training.progress import Reporter
from hpcgan.training.requests import StopRequest
from hpcgan.training.state import TrainState

RECORD_EVERY = 50  # steps between `step` records
#: Samples of this rank, encoded, and the method's random numbers.
Batch = tuple[Sample, dict[str, np.ndarray]]
PAUSED_S = 1.0  # between two looks of a paused training


class Inbox(Protocol):
    """See `hpcgan.runs.commands.Inbox`."""

    def waiting(self) -> bool: ...
    def read(self) -> list[dict[str, Any]]: ...
    def remove(self, ids: Iterable[str]) -> None: ...


class NoCommands:
    """Nobody sends any."""

    def waiting(self) -> bool:
        """No."""
        return False

    def read(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def remove(self, ids: Iterable[str]) -> None:
        """There are none."""


@dataclass
class Writers:
    """What rank 0 writes with; other ranks have none.

    `tensorboard` takes samples seen and scalars by name, `samples` an epoch, of which it stores some events; `verdict`
    says why the training shall end early, if it shall, `inbox` has commands to it. `begun` is told the step after the
    first call of an attempt, which ends what it takes to start.
    """

    lease: Lease
    metrics: records.Writer
    tensorboard: Callable[[int, Mapping[str, float]], None]
    samples: Callable[[int], None]
    verdict: Callable[[], str | None] = lambda: None
    inbox: Inbox = field(default_factory=NoCommands)
    begun: Callable[[int], None] = lambda step: None


class Trainer:
    """One attempt at a training.

    Parameters
    ----------
    config : Config
    comm : Comm
    method : Method
    state : TrainState
        Possibly restored from a checkpoint.
    pipeline : Pipeline
    sharding : Sharding
    measure : callable
        () -> None, called on all ranks together after an epoch, before anything is sampled.
    scorer : callable or None
        (epoch) -> Score, called on all ranks together.
    diversity : callable or None
        (epoch) -> Diversity or None, called on all ranks together after the scorer.
    checkpoint_folder : Path
    writers : Writers or None
        None on ranks other than 0.
    stop : StopRequest
    reporter : Reporter
    """

    def __init__(
        self,
        config: Config,
        comm: Comm,
        method: Method,
        state: TrainState,
        pipeline: Pipeline,
        sharding: Sharding,
        measure: Callable[[], None],
        scorer: Callable[[int], Score] | None,
        diversity: Callable[[int], Diversity | None] | None,
        checkpoint_folder: Path,
        writers: Writers | None,
        stop: StopRequest,
        reporter: Reporter,
    ) -> None:
        self._config, self._comm, self._method, self._state = config, comm, method, state
        self._pipeline, self._sharding, self._measure = pipeline, sharding, measure
        self._scorer, self._diversity = scorer, diversity
        self._folder, self._writers = checkpoint_folder, writers
        self._stop, self._reporter = stop, reporter
        self._saved_step: int | None = None
        self._is_first = True  # of the calls of this attempt
        above = config.training.rollback.loss_above
        self._loss_above = math.inf if above is None else above
        self._pace = Pace(config.training.steps_per_call)

    def run(self) -> str | None:
        """Train to the end.

        Returns
        -------
        str or None
            Why the training ended before its last epoch, by a verdict that all ranks heard after the same epoch.

        Raises
        ------
        Interrupted
            A stop was requested, by a signal or a command (`Stopped`); a checkpoint holds the step all ranks reached.
        HpcganError
            Non-finite loss, ranks that differ, or a checkpoint that cannot be written.
        """
        counters, epochs = self._state.counters, self._config.training.epochs
        self._restart_clock()
        if counters.paused:
            self._attend(False)
        while counters.epoch < epochs:
            if counters.position == 0 and (reason := self._verdict()) is not None:
                return reason
            self._run_epoch()
            self._finish_epoch(last=counters.epoch + 1 == epochs)
        return None

    def _verdict(self) -> str | None:
        """Rank 0 looks, all ranks hear."""
        self._comm.beat(f"the verdict after epoch {self._state.counters.epoch}")
        found = self._writers.verdict() if self._writers is not None else None
        return cast("str | None", self._comm.broadcast_json(found))

    # --- one epoch -------------------------------------------------------------------------------

    def _run_epoch(self) -> None:
        counters = self._state.counters
        self._restart_clock()
        self._comm.beat(f"the data of epoch {counters.epoch + 1}")
        batches, waiting = self._batches(), deque[Batch]()
        while following := self._fetch(batches, waiting):
            self._comm.beat(f"step {counters.step}")
            stop = self._stop.requested is not None
            results = self._method.steps(
                self._planned(following),
                attention=stop or (self._writers is not None and self._writers.inbox.waiting()),
                loss_above=self._loss_above,
            )
            self._pace.took(len(results), time.monotonic() - self._fetching)
            for result in results:
                waiting.popleft()
                self._count(result, stop)
            if self._is_first:
                self._restart_clock()  # what TensorFlow took to build the step is no part of an epoch's rate either
            if self._is_first and self._writers is not None:
                self._writers.begun(counters.step)
            self._is_first = False
            self._comm.beat(f"the data of step {counters.step}")

    def _count(self, result: StepResult, stop: bool) -> None:
        """A step is done: record it, and hear what there is to say; `stop` if this rank said that it is asked to."""
        counters = self._state.counters
        counters.step += 1
        counters.samples += self._sharding.global_batch
        counters.position += self._sharding.global_batch
        if self._is_sound(result):
            self._record_step(result.metrics)
        if result.metrics[ATTENTION] > 0:
            self._attend(stop)

    def _batches(self) -> Iterator[Batch]:
        counters = self._state.counters
        return self._pipeline.rest_of_epoch(counters.epoch, counters.position, counters.step)

    def _fetch(self, batches: Iterator[Batch], waiting: deque[Batch]) -> list[Batch]:
        """The batches of the next call, which go on waiting: fewer at the end of the epoch, none if it is over."""
        self._fetching = time.monotonic()
        if not waiting:
            waiting.extend(itertools.islice(batches, 1))
        if not waiting:
            return []
        wanted = self._pace.steps(sum(array.nbytes for part in waiting[0] for array in part.values()))
        self._pipeline.ahead = wanted
        waiting.extend(itertools.islice(batches, max(0, wanted - len(waiting))))
        return list(itertools.islice(waiting, wanted))

    def _planned(self, waiting: Iterable[Batch]) -> list[StepInput]:
        """The next steps, as they are if nothing happens in between."""
        counters, size = self._state.counters, self._sharding.global_batch
        return [
            StepInput(
                counters.step + ahead,
                real,
                draws,
                self._learning_rates(ahead),
                counters.samples + (ahead + 1) * size,
                self._epochs_done(ahead),
            )
            for ahead, (real, draws) in enumerate(waiting)
        ]

    def _learning_rates(self, ahead: int = 0) -> dict[str, float]:
        counters = self._state.counters
        return learning_rates(
            self._config.training,
            self._epochs_done(ahead),
            self._sharding,
            counters.step + ahead,
            rollbacks=counters.rollbacks,
            changes=counters.changes,
        )

    def _epochs_done(self, ahead: int = 0) -> float:
        """Epochs, fractional, when `ahead` more steps of this one are done."""
        counters = self._state.counters
        return counters.epoch + (counters.position + ahead * self._sharding.global_batch) / self._sharding.n

    def _is_sound(self, result: StepResult) -> bool:
        """False if the step was bad and the training has gone back to its best state."""
        # The averages are the same numbers on every rank, and so are all decisions.
        if not result.is_finite:
            flags = self._comm.broadcast_json(self._comm.gather_json(result.finite_here))
            ranks = ", ".join(str(rank) for rank, finite in enumerate(flags) if not finite) or "?"
            self._go_back(
                f"loss or gradients became non-finite at step {self._state.counters.step} on rank {ranks}",
                "Lower the learning rates, or look for faulty input with 'hpcgan data info'",
            )
            return False
        worst, limit = result.worst(self._method.losses), self._loss_above
        if worst > limit:
            self._go_back(
                f"a loss of {worst:.4g} at step {self._state.counters.step} (training.rollback.loss_above: {limit:g})",
                "Lower the learning rates",
            )
            return False
        return True

    def _go_back(self, reason: str, remedy: str) -> None:
        """Put the best state in place of this one, as often as the configuration allows.

        Raises
        ------
        HpcganError
            On all ranks: not (any more) allowed, or no checkpoint to go back to.
        """
        counters, settings = self._state.counters, self._config.training.rollback
        found: dict[str, Any] = {}
        if counters.rollbacks < settings.limit:
            found = self._load_best()
        elif settings.limit:
            found["failure"] = f"{counters.rollbacks} rollbacks are all that training.rollback.limit allows"
        if "step" not in found:
            why = f" ({found['failure']})" if found else ""
            there = bool(checkpoints.steps(self._folder)) if self._writers is not None else None
            kept = f"the last checkpoint is intact{why}" if self._comm.broadcast_json(there) else "no checkpoint yet"
            raise HpcganError(f"{reason}; all ranks stopped, {kept}. {remedy}", collective=True)
        counters.rollbacks += 1
        if self._writers is not None:
            self._writers.metrics.write(
                records.Rollback(step=counters.step, reason=reason, to_step=found["step"], count=counters.rollbacks)
            )
        self._reporter.message(
            f"{reason}: back to the best state (rollback {counters.rollbacks} of {settings.limit}), "
            f"learning rates times {settings.rate_factor:g}"
        )

    def _load_best(self) -> dict[str, Any]:
        """Variables of the best checkpoint on all ranks: its `step`, or the `failure` that rank 0 met."""
        found: dict[str, Any] = {}
        if self._writers is not None:
            try:
                best = checkpoints.load_best(self._folder, self._reporter.message)
                self._state.load_variables(best.arrays)
                found = {"step": best.step}
            except HpcganError as error:
                found = {"failure": str(error)}
        found = self._comm.broadcast_json(found)
        if "step" in found:
            self._comm.broadcast_variables(list(self._state.variables.values()))
        return found

    def _record_step(self, metrics: Mapping[str, float]) -> None:
        counters = self._state.counters
        counters.count += 1
        for name, value in metrics.items():
            counters.sums[name] = counters.sums.get(name, 0.0) + value
        shown = {k: v for k, v in metrics.items() if k not in (NONFINITE, ATTENTION)}
        self._reporter.step(self._epochs_done(), self._rate(), shown)
        if self._writers is not None and counters.step % RECORD_EVERY == 0:
            self._writers.metrics.write(
                records.Step(
                    step=counters.step, samples=counters.samples, epoch=self._epochs_done(), metrics=dict(shown)
                )
            )
            self._writers.tensorboard(counters.samples, {f"step/{k}": v for k, v in shown.items()})

    def _restart_clock(self) -> None:
        self._clock, self._clock_samples = time.monotonic(), self._state.counters.samples

    def _rate(self) -> float | None:
        """Samples/s since the clock was started; None if there were none, or TensorFlow built the step meanwhile."""
        elapsed, samples = time.monotonic() - self._clock, self._state.counters.samples - self._clock_samples
        return samples / max(elapsed, 1e-9) if samples and not self._is_first else None

    def _finish_epoch(self, last: bool) -> None:
        counters = self._state.counters
        rate, rates = self._rate(), self._learning_rates()
        epoch = counters.epoch + 1
        means = {k: v / counters.count for k, v in counters.sums.items()}  # none, if every step was bad
        counters.epoch, counters.position, counters.count, counters.sums = epoch, 0, 0, {}
        started = time.monotonic()
        score = diversity = None
        self._comm.beat(f"measuring the generator of epoch {epoch}")
        self._measure()
        if self._scorer is not None and schedule.due(
            epoch, self._config.scoring.every_epochs, self._config.training.epochs
        ):
            self._comm.beat(f"scoring epoch {epoch}")
            score = self._scorer(epoch)
            diversity = self._diversity(epoch) if self._diversity is not None else None
        is_best = score is not None and (counters.best is None or score.total < counters.best["score"])
        if is_best and score is not None:
            counters.best = {"score": score.total, "epoch": epoch, "step": counters.step}
            counters.best_diversity = None if diversity is None else diversity.pairs
        record = records.Epoch(
            step=counters.step,
            epoch=epoch,
            samples=counters.samples,
            losses={loss.name: means.get(loss.metric) for loss in self._method.losses},
            probabilities={name: means.get(metric) for name, metric in self._method.probabilities.items()},
            collapse={
                "diversity": None if diversity is None else diversity.pairs,
                "nearest": None if diversity is None else diversity.nearest,
                "saturation": means.get("saturation"),
            },
            score=None if score is None else records.EpochScore(score.total, dict(score.parts), score.n, score.details),
            is_best=is_best,
            best=None if counters.best is None else records.Best(**counters.best),
            learning_rates=dict(rates),
            samples_per_second=rate,
            scoring_seconds=time.monotonic() - started,
        )
        self._comm.beat(f"the records of epoch {epoch}")
        if self._writers is not None:
            self._writers.metrics.write(record)
            self._writers.tensorboard(counters.samples, _scalars(record))
            self._writers.samples(epoch)
        self._reporter.epoch(record)
        gone_back = self._go_back_if_collapsed(score, diversity)
        if is_best or last or gone_back or schedule.due(epoch, self._config.checkpoint.every_epochs, epoch + 1):
            self._checkpoint(None if gone_back else score)  # a score belongs to the weights beside it

    def _go_back_if_collapsed(self, score: Score | None, diversity: Diversity | None) -> bool:
        """True if the epoch's score or diversity was so bad that the training has gone back to its best state."""
        counters, settings = self._state.counters, self._config.training.rollback
        best, factor, least = counters.best, settings.score_factor, settings.diversity_below
        if score is None or best is None:
            return False
        reason = None
        if factor is not None and score.total > factor * best["score"]:
            reason = (
                f"a score of {score.total:.4g} after epoch {counters.epoch}, {score.total / best['score']:.3g} "
                f"times the best (training.rollback.score_factor: {factor:g})"
            )
        elif least is not None and diversity is not None and diversity.pairs < least <= (counters.best_diversity or 0):
            # A best state that is no better is no place to go back to: all trainings begin with little diversity.
            reason = (
                f"a diversity of {diversity.pairs:.3g} of generated samples after epoch {counters.epoch} "
                f"(training.rollback.diversity_below: {least:g})"
            )
        if reason is not None:
            self._go_back(reason, "Lower the learning rates")
        return reason is not None

    # --- requests --------------------------------------------------------------------------------

    def _attend(self, stop: bool) -> None:
        """Hear what any rank has to say and obey on all of them, for as long as the training is paused.

        Raises
        ------
        Interrupted
            A signal, or a command, asks for the end.
        """
        counters, begun = self._state.counters, time.monotonic()
        while True:
            stop = any(self._comm.broadcast_json(self._comm.gather_json(stop)))
            commands = self._comm.broadcast_json(self._writers.inbox.read() if self._writers is not None else None)
            stopped = self._obey(commands) if commands else False
            if stopped:
                raise Stopped(self._goodbye("by a command"), collective=True)
            if stop:
                self._checkpoint(None)
                raise Interrupted(self._goodbye("on request"), collective=True)
            if not counters.paused:
                break
            self._comm.beat(f"the end of the pause at step {counters.step}")
            time.sleep(PAUSED_S)
            stop = self._stop.requested is not None
        self._clock += time.monotonic() - begun  # a pause is no part of an epoch's rate

    def _obey(self, commands: Sequence[Mapping[str, Any]]) -> bool:
        """Do what commands say, which are the same on all ranks; True if one of them says to stop.

        Their files go only when a checkpoint holds what they did: a training that is killed before finds them again.
        """
        counters = self._state.counters
        done = {change["id"] for change in counters.changes}
        for command in commands:
            if command["refused"] or command["id"] in done:
                continue
            if command["name"] in ("pause", "resume"):
                counters.paused = command["name"] == "pause"
            elif command["name"] == "set":
                counters.changes = [
                    *counters.changes, {"step": counters.step, **command["rates"], "id": command["id"]}
                ]  # fmt: skip
        rates = self._comm.gather_json(self._learning_rates()) or []
        if self._writers is not None:
            for command in commands:
                self._writers.metrics.write(
                    records.Command(step=counters.step, **command, paused=counters.paused, learning_rates=rates)
                )
        for command in commands:
            self._reporter.message(f"step {counters.step}: {_spoken(command)}")
        self._checkpoint(None)
        if self._writers is not None:
            self._writers.inbox.remove(command["id"] for command in commands)
        return any(command["name"] == "stop" and not command["refused"] for command in commands)

    def _goodbye(self, why: str) -> str:
        return f"stopped {why} at step {self._state.counters.step}, checkpoint written; run the same command to resume"

    # --- checkpoints -----------------------------------------------------------------------------

    def _checkpoint(self, score: Score | None) -> None:
        """Rank 0 writes, all ranks hear how it went."""
        self._comm.beat(f"the checkpoint of step {self._state.counters.step}")
        self._state.check_equal(self._comm)
        failure = None
        if self._writers is not None:
            counters = self._state.counters
            try:
                self._writers.lease.check()
                self._writers.metrics.sync()
                checkpoints.save(
                    self._folder,
                    counters.step,
                    self._state.arrays(),
                    self._state.meta(),
                    None if score is None else score.total,
                )
                checkpoints.prune(
                    self._folder, self._config.checkpoint.keep, counters.best["step"] if counters.best else None
                )
            except (HpcganError, OSError) as error:
                failure = asdict(Failure.of(error))
        failure = self._comm.broadcast_json(failure)
        if failure is not None:
            raise Failure(**failure).error()


def learning_rates(
    settings: TrainingSection,
    epochs: float,
    sharding: Sharding,
    step: int,
    *,
    rollbacks: int = 0,
    changes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, float]:
    """Rate of each network that is trained.

    Parameters
    ----------
    settings : TrainingSection
    epochs : float
        Epochs done.
    sharding : Sharding
        Its batches make the factor on the rates.
    step : int
        Number of the step, from 0.
    rollbacks : int
        How often the training went back.
    changes : sequence of mappings
        Rates that commands have set, after those of the configuration.
    """
    changes = [*(change.model_dump() for change in settings.schedule.changes), *changes]
    reduced = settings.rollback.rate_factor**rollbacks
    return {
        name: reduced
        * schedule.learning_rate(
            schedule.base_rate(adam.learning_rate, name, step, changes),
            epochs,
            times=sharding.global_batch / (settings.schedule.reference_batch or sharding.batch_size),
            scaling=settings.schedule.scaling,
            warmup_epochs=settings.schedule.warmup_epochs,
            decay=settings.schedule.decay,
            decay_start=settings.schedule.decay_start,
            decay_epochs=settings.schedule.decay_epochs or float(settings.epochs),
            final_fraction=settings.schedule.final_fraction,
        )
        for name, adam in settings.optimizers.items()
    }


def _scalars(record: records.Epoch) -> dict[str, float]:
    rate, scores = record.samples_per_second, record.score
    groups: dict[str, Mapping[str, float | None]] = {
        "losses": record.losses,
        "probabilities": record.probabilities,
        "collapse": record.collapse,
        "learning_rates": record.learning_rates,
        "score": {} if scores is None else {"total": scores.total, **scores.parts},
    }
    flat = {f"{group}/{name}": value for group, numbers in groups.items() for name, value in numbers.items()}
    return {name: value for name, value in {"samples_per_second": rate, **flat}.items() if value is not None}


def _spoken(command: Mapping[str, Any]) -> str:
    if command["refused"]:
        return f"a command was refused: {command['refused']}"
    rates = ", ".join(f"{network} {rate:g}" for network, rate in command["rates"].items())
    return f"command {command['name']}{': learning rate of ' + rates if rates else ''}"
