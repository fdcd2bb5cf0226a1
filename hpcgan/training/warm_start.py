"""Where a training gets its first weights from, if not from a seed: `training.start_from`. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcgan.config import Config, ModelSection
from hpcgan.errors import HpcganError, InputError
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.checkpoint import Checkpoint
from hpcgan.runs.directory import differences, owner_of

KEY = "training.start_from"


def check(config: Config) -> None:
    """Refuse an origin whose weights are not those of this configuration's networks, as far as can be told quickly.

    Raises
    ------
    InputError
        No run there or none with a checkpoint, another problem, or another model but for what its section calls
        `indifferent`; the message names the key.
    """
    if config.training.start_from is None:
        return
    path = config.training.start_from
    run, checkpoint = owner_of(path)
    if not run.exists:
        raise InputError(f"{KEY}: {path} is no run directory (with a config.yaml), and no checkpoint of one")
    other = run.load_config()
    if other.problem != config.problem:
        raise InputError(f"{KEY}: {path} is a run of problem {other.problem}, not {config.problem}")
    differing = differences(_architecture(other), _architecture(config), "model")
    if differing:
        examples = "; ".join(f"{key}: {old!r} there, {new!r} here" for key, old, new in differing[:3])
        raise InputError(f"{KEY}: the weights of {path} are of another model ({examples})")
    if checkpoint is None and not checkpoints.steps(run.checkpoints):
        raise InputError(f"{KEY}: {path} has no checkpoint yet")


def load(config: Config, path: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The checkpoint that a training starts from: the best of the run at `path`, or the one that is there.

    Raises
    ------
    InputError
        As `check`.
    HpcganError
        It is damaged.
    """
    check(config)
    run, checkpoint = owner_of(path)
    try:
        return checkpoints.load_best(run.checkpoints, warn) if checkpoint is None else checkpoints.load(checkpoint)
    except HpcganError as error:
        raise type(error)(f"{KEY}: {error}") from None


def _architecture(config: Config) -> dict[str, Any]:
    """The model section but for the keys that weights do not depend on."""
    model = config.model
    left_out = set(model.indifferent) if isinstance(model, ModelSection) else set()
    return model.model_dump(mode="json", exclude=left_out)
