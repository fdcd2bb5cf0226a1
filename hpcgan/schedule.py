"""Learning rates and cadences: pure functions of the training's progress."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hpcgan.config import RateChange, ScheduleSection, TrainingSection
from hpcgan.config.training import Scaling


class Rates:
    """The learning rate of each network that is trained, at any time of a training.

    The rate goes linearly from that of the configuration to `times` of it, by the rule of `schedule.scaling`, in the
    warm-up (no ramp from zero: one rank trains at the base rate from the start, and N ranks begin like one), then
    decays between epochs `decay_start` and `decay_epochs` to `final_fraction` of its value.

    Parameters
    ----------
    settings : TrainingSection
    global_batch : int
        Samples of a step over all ranks; over the batch that the rates are for it is `times`.
    rank_batch : int
        Those of a rank: what the rates are for, unless `schedule.reference_batch` says otherwise.
    """

    def __init__(self, settings: TrainingSection, global_batch: int = 1, rank_batch: int = 1) -> None:
        self._initial = {name: adam.learning_rate for name, adam in settings.optimizers.items()}
        self._schedule, self._rate_factor = settings.schedule, settings.rollback.rate_factor
        times = global_batch / (settings.schedule.reference_batch or rank_batch)
        self._scale = batch_scale(settings.schedule.scaling, times)
        self._decay_epochs = settings.schedule.decay_epochs or float(settings.epochs)

    def base(self, step: int, changes: Iterable[RateChange] = ()) -> dict[str, float]:
        """Rates before scaling and decay, of several changes of a network the last one that holds.

        Parameters
        ----------
        step : int
            Number of the step, from 0.
        changes : iterable of RateChange
            What commands have set, after the changes of the configuration.
        """
        rates = dict(self._initial)
        for change in (*self._schedule.changes, *changes):
            if change.step <= step:
                rates.update(change.rates)
        return rates

    def at(
        self, step: int, epochs_done: float, rollbacks: int = 0, changes: Iterable[RateChange] = ()
    ) -> dict[str, float]:
        """Rates of a step.

        Parameters
        ----------
        step : int
            Number of the step, from 0.
        epochs_done : float
            Epochs, fractional, before it.
        rollbacks : int
            How often the training went back.
        changes : iterable of RateChange
            What commands have set.
        """
        scale, warmup_epochs = self._scale, self._schedule.warmup_epochs
        if warmup_epochs > 0 and epochs_done < warmup_epochs:
            scale = 1.0 + (scale - 1.0) * epochs_done / warmup_epochs
        factor = decay(self._schedule, epochs_done, self._decay_epochs)
        reduced = self._rate_factor**rollbacks
        return {name: reduced * (base * scale * factor) for name, base in self.base(step, changes).items()}


def batch_scale(rule: Scaling, times: float) -> float:
    """Factor on the learning rate for a batch `times` as large (linear: Goyal et al. 2017, arXiv:1706.02677)."""
    return {"none": 1.0, "sqrt": math.sqrt(times), "linear": float(times)}[rule]


def decay(schedule: ScheduleSection, epochs_done: float, decay_epochs: float) -> float:
    """Factor on the learning rate after so many epochs of a decay that ends at `decay_epochs`."""
    span = max(decay_epochs - schedule.decay_start, 1e-12)
    t = min(max((epochs_done - schedule.decay_start) / span, 0.0), 1.0)
    final = schedule.final_fraction
    if schedule.decay == "linear":
        return 1.0 - (1.0 - final) * t
    if schedule.decay == "cosine":
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * t))
    return 1.0


def due(count: int, every: int, last: int | None = None) -> bool:
    """True when `count` (1-based) is a multiple of `every`, or the last one; never if `every` is 0."""
    return every > 0 and (count % every == 0 or count == last)
