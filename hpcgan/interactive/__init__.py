"""Trainings and sweeps started, seen and steered from a notebook.

`Cluster.start()` makes ranks, `cluster.session().train(config)` trains on them, `attach(run)` is the training of any
run directory, `Sweep.start(config, ...)` a sweep. `%load_ext hpcgan.interactive` gives the line magic `%hpcgan`.
"""

from __future__ import annotations

from typing import Any

from hpcgan.interactive.cluster import Cluster
from hpcgan.interactive.session import Session
from hpcgan.interactive.sweep import Sweep
from hpcgan.interactive.training import Training, attach

__all__ = ["Cluster", "Session", "Sweep", "Training", "attach"]


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext hpcgan.interactive`."""
    from hpcgan.interactive.magic import HpcganMagics

    shell.register_magics(HpcganMagics)
