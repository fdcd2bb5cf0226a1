"""The training loop: fetch, update, record, score, checkpoint.

Knows neither the problem nor the method. Progress is counted in samples seen by all ranks.
"""

from __future__ import annotations

import time
from dataclasses import replace

from hpcgan import schedule
from hpcgan.evaluation.epoch import Diversity, EpochScores
from hpcgan.methods.base import ATTENTION
from hpcgan.metrics.observable import Score
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.records import Best
from hpcgan.training.assembly import Assembly
from hpcgan.training.output import Output
from hpcgan.training.profile import Profile
from hpcgan.training.progress import Clock
from hpcgan.training.requests import Requests, StopRequest
from hpcgan.training.rollback import Rollback
from hpcgan.training.saving import Saving


class Loop:
    """Trains an assembled training to its end.

    Parameters
    ----------
    assembly : Assembly
        Possibly restored from a checkpoint.
    run : RunDirectory
    output : Output
    stop : StopRequest
    """

    def __init__(self, assembly: Assembly, run: RunDirectory, output: Output, stop: StopRequest) -> None:
        self._assembly, self._output, self._comm = assembly, output, assembly.comm
        self._clock = Clock()
        self._profile = Profile(assembly, run, output, self._clock)
        self._saving = Saving(assembly, run, output)
        self._rollback = Rollback(assembly, run.checkpoints, output, self._saving)
        self._requests = Requests(assembly, run, stop, output, self._saving)
        self._is_first = True  # of the steps of this attempt

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
        try:
            reason = self._to_the_end()
            self._saving.settle()
            self._profile.finish()
            return reason
        finally:
            self._profile.close()
            self._saving.close()

    def _to_the_end(self) -> str | None:
        """Take the epochs that are left; why not all of them."""
        config, counters = self._assembly.config, self._assembly.state.counters
        if counters.commanded.paused:
            self._output.phases.exclude(self._requests.attend(stop=False))
        if config.scoring.every_epochs and counters.epoch < config.training.epochs:
            self._assembly.prepare_scoring()
            self._output.phases.done("scoring")
        while counters.epoch < config.training.epochs:
            if counters.under_way.position == 0 and (reason := self._requests.verdict()) is not None:
                return reason
            self._train_epoch()
            self._finish_epoch()
        return None

    def _train_epoch(self) -> None:
        """Take the steps of an epoch that are left."""
        assembly, counters, comm = self._assembly, self._assembly.state.counters, self._comm
        global_batch = assembly.sharding.global_batch
        self._clock.restart(counters.samples)
        comm.beat(f"the data of epoch {counters.epoch + 1}")
        for real, draws in self._profile.timed(assembly.rest_of_epoch()):
            comm.beat(f"step {counters.step}")
            stop, attention = self._requests.look()
            with self._profile.step():
                result = assembly.method.step(
                    counters.step,
                    real,
                    draws,
                    learning_rates=assembly.learning_rates(),
                    samples=counters.samples + global_batch,
                    attention=attention,
                    epochs=assembly.epochs_done,
                )
            counters.advance(global_batch)
            if self._is_first:
                self._clock.restart(counters.samples)  # what TensorFlow took to build the step is no part of a rate
            if not self._rollback.after_step(result):
                counters.add(result.metrics)
                self._output.step(result.metrics, self._clock)
            if result.metrics[ATTENTION] > 0:
                self._clock.exclude(self._requests.attend(stop))
            if self._is_first:
                self._output.begun()
                self._is_first = False
            comm.beat(f"the data of step {counters.step}")

    def _finish_epoch(self) -> None:
        """Score, record and checkpoint."""
        assembly, config, counters = self._assembly, self._assembly.config, self._assembly.state.counters
        method = assembly.method
        rate, learning_rates = self._clock.rate(counters.samples), assembly.learning_rates()
        means = counters.finish_epoch()
        started = time.monotonic()
        scores, diversity = self._score()
        held_out = None if scores is None else assembly.held_out()
        pairs = None if diversity is None else diversity.pairs
        self._comm.beat(f"the records of epoch {counters.epoch}")
        record = records.Epoch(
            step=counters.step,
            epoch=counters.epoch,
            samples=counters.samples,
            losses={loss.name: means.get(loss.metric) for loss in method.losses},
            probabilities={name: means.get(metric) for name, metric in method.probabilities.items()},
            collapse={
                "diversity": pairs,
                "nearest": None if diversity is None else diversity.nearest,
                "saturation": means.get("saturation"),
            },
            score=_recorded(None if scores is None else scores.score),
            selection=_recorded(None if scores is None else scores.selection),
            held_out=held_out,
            selected_by=config.scoring.select_by,
            learning_rates=dict(learning_rates),
            samples_per_second=rate,
            scoring_seconds=time.monotonic() - started,
        )
        is_best = counters.is_best(record.deciding, pairs)
        best = None if counters.best is None else Best(counters.best.score, counters.best.epoch, counters.best.step)
        self._output.epoch(replace(record, is_best=is_best, best=best))
        went_back = self._rollback.after_epoch(record.deciding, diversity)
        is_last = counters.epoch == config.training.epochs
        if is_best or is_last or went_back or schedule.due(counters.epoch, config.checkpoint.every_epochs):
            self._saving.save(None if went_back else record.deciding)  # a score belongs to the weights beside it

    def _score(self) -> tuple[EpochScores | None, Diversity | None]:
        """Scores and diversity of the generator, on all ranks, in the epochs for which there are any."""
        assembly, config, epoch = self._assembly, self._assembly.config, self._assembly.state.counters.epoch
        self._comm.beat(f"measuring the generator of epoch {epoch}")
        assembly.sampler.measure(self._comm)
        if not schedule.due(epoch, config.scoring.every_epochs, config.training.epochs):
            return None, None
        self._comm.beat(f"scoring epoch {epoch}")
        return assembly.score(epoch)


def _recorded(score: Score | None) -> records.EpochScore | None:
    return None if score is None else records.EpochScore(score.total, dict(score.parts), score.n, score.details)
