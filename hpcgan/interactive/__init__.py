"""Trainings seen and steered from a notebook: `attach(run)` gives a `Training`."""

from hpcgan.interactive.training import Training, attach

__all__ = ["Training", "attach"]
