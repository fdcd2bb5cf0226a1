"""Back to the best state, with lower learning rates, when a training went astray: `training.rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcgan.errors import HpcganError
from hpcgan.evaluation.epoch import Diversity
from hpcgan.methods.base import StepResult
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.training.assembly import Assembly
from hpcgan.training.output import Output
from hpcgan.training.saving import Saving


class Rollback:
    """Judges steps and epochs. The numbers are the same on every rank, and so are all decisions.

    Parameters
    ----------
    assembly : Assembly
    folder : Path
        Of the checkpoints.
    output : Output
    saving : Saving
    """

    def __init__(self, assembly: Assembly, folder: Path, output: Output, saving: Saving) -> None:
        self._state, self._comm, self._losses = assembly.state, assembly.comm, assembly.method.losses
        self._settings, self._folder, self._output = assembly.config.training.rollback, folder, output
        self._saving = saving

    def after_step(self, result: StepResult) -> bool:
        """True if the step was bad and the training has gone back."""
        step = self._state.counters.step
        if not result.is_finite:
            flags = self._comm.broadcast_json(self._comm.gather_json(result.finite_here))
            ranks = ", ".join(str(rank) for rank, finite in enumerate(flags) if not finite) or "?"
            self._go_back(
                f"loss or gradients became non-finite at step {step} on rank {ranks}",
                "Lower the learning rates, or look for faulty input with 'hpcgan data info'",
            )
            return True
        limit = self._settings.loss_above
        if limit is not None and (worst := max(result.metrics[loss.metric] for loss in self._losses)) > limit:
            key = f"training.rollback.loss_above: {limit:g}"
            self._go_back(f"a loss of {worst:.4g} at step {step} ({key})", "Lower the learning rates")
            return True
        return False

    def after_epoch(self, score: float | None, diversity: Diversity | None) -> bool:
        """True if the epoch's score (what epochs are compared by) or diversity was so bad that it has gone back."""
        counters, settings = self._state.counters, self._settings
        best, factor, least = counters.best, settings.score_factor, settings.diversity_below
        if score is None or best is None:
            return False
        reason = None
        if factor is not None and score > factor * best.score:
            reason = (
                f"a score of {score:.4g} after epoch {counters.epoch}, {score / best.score:.3g} "
                f"times the best (training.rollback.score_factor: {factor:g})"
            )
        elif least is not None and diversity is not None and diversity.pairs < least <= (best.diversity or 0):
            # A best state that is no better is no place to go back to: all trainings begin with little diversity.
            reason = (
                f"a diversity of {diversity.pairs:.3g} of generated samples after epoch {counters.epoch} "
                f"(training.rollback.diversity_below: {least:g})"
            )
        if reason is not None:
            self._go_back(reason, "Lower the learning rates")
        return reason is not None

    def _go_back(self, reason: str, remedy: str) -> None:
        """Put the best state in place of this one, as often as the configuration allows.

        Raises
        ------
        HpcganError
            On all ranks: not (any more) allowed, no checkpoint to go back to, or the last one cannot be written.
        """
        self._saving.settle()
        counters, settings = self._state.counters, self._settings
        loaded: dict[str, Any] = {}
        if counters.rollbacks < settings.limit:
            loaded = self._load_best()
        elif settings.limit:
            loaded["failure"] = f"{counters.rollbacks} rollbacks are all that training.rollback.limit allows"
        if "step" not in loaded:
            why = f" ({loaded['failure']})" if loaded else ""
            is_saved = bool(checkpoints.steps(self._folder)) if self._comm.is_root else None
            is_saved = self._comm.broadcast_json(is_saved)
            state = f"the last checkpoint is intact{why}" if is_saved else "no checkpoint yet"
            raise HpcganError(f"{reason}; all ranks stopped, {state}. {remedy}", collective=True)
        counters.rollbacks += 1
        self._output.rollback(reason, loaded["step"])
        self._output.message(
            f"{reason}: back to the best state (rollback {counters.rollbacks} of {settings.limit}), "
            f"learning rates times {settings.rate_factor:g}"
        )

    def _load_best(self) -> dict[str, Any]:
        """Variables of the best checkpoint on all ranks: its `step`, or the `failure` that rank 0 met."""
        loaded: dict[str, Any] = {}
        if self._comm.is_root:
            try:
                best = checkpoints.load_best(self._folder, self._output.message)
                self._state.load_variables(best.arrays)
                loaded = {"step": best.step}
            except HpcganError as error:
                loaded = {"failure": str(error)}
        loaded = self._comm.broadcast_json(loaded)
        if "step" in loaded:
            self._comm.broadcast_variables(list(self._state.variables.values()))
        return loaded
