"""Trainings and sweeps in a notebook: `attach(run)` gives a `Training`, `Sweep.start(config, ...)` a `Sweep`."""

from hpcgan.interactive.sweep import Sweep
from hpcgan.interactive.training import Training, attach

__all__ = ["Sweep", "Training", "attach"]
