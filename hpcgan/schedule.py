"""Learning-rate rules and cadences: pure functions of the training's progress. A leaf."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

Scaling = Literal["none", "sqrt", "linear"]
Decay = Literal["constant", "linear", "cosine"]


def base_rate(initial: float, network: str, step: int, changes: Iterable[Mapping[str, Any]]) -> float:
    """Learning rate of a network before scaling and decay, in a step.

    Parameters
    ----------
    initial : float
    network : str
    step : int
        Number of the step, from 0.
    changes : iterable of mappings
        With `step`, from which one on it holds, and a rate of `network` or None; of several the last one that holds.
    """
    rate = initial
    for change in changes:
        if change["step"] <= step and change.get(network) is not None:
            rate = change[network]
    return rate


def batch_scale(rule: Scaling, times: float) -> float:
    """Factor on the learning rate for a batch `times` as large (linear: Goyal et al. 2017, arXiv:1706.02677)."""
    return {"none": 1.0, "sqrt": math.sqrt(times), "linear": float(times)}[rule]


def learning_rate(
    base: float,
    epochs_done: float,
    *,
    times: float = 1.0,
    scaling: Scaling = "none",
    warmup_epochs: float = 0.0,
    decay: Decay = "constant",
    decay_start: float = 0.0,
    decay_epochs: float = 1.0,
    final_fraction: float = 0.0,
) -> float:
    """Learning rate after `epochs_done` (fractional) epochs.

    The rate goes linearly from `base` to `base * batch_scale` in the warm-up (no ramp from zero: one rank
    trains at `base` from the start, and N ranks begin like one), then decays between epochs `decay_start`
    and `decay_epochs` to `final_fraction` of its value. `times`: the global batch over the one that `base` is for.
    """
    scale = batch_scale(scaling, times)
    if warmup_epochs > 0 and epochs_done < warmup_epochs:
        scale = 1.0 + (scale - 1.0) * epochs_done / warmup_epochs
    span = max(decay_epochs - decay_start, 1e-12)
    t = min(max((epochs_done - decay_start) / span, 0.0), 1.0)
    if decay == "linear":
        factor = 1.0 - (1.0 - final_fraction) * t
    elif decay == "cosine":
        factor = final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * t))
    else:
        factor = 1.0
    return base * scale * factor


def due(count: int, every: int, last: int) -> bool:
    """True when `count` (1-based) is a multiple of `every`, or the last one; never if `every` is 0."""
    return every > 0 and (count % every == 0 or count == last)
