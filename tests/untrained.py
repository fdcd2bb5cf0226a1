"""Run directories that were never trained: a configuration and a checkpoint of weights to sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.config import Config
from hpcgan.runs.directory import RunDirectory


def make_run(folder: Path, config: Config, batches: Iterable[Mapping[str, Any]] = ()) -> RunDirectory:
    """A run with the generator's initial weights, and moving statistics unlike those that it begins with.

    `batches` (encoded) are what a network that takes constants from the data is calibrated with.
    """
    from hpcgan.evaluation.sampling import scored_network
    from hpcgan.methods.base import build_network, method_class
    from hpcgan.networks.capabilities import Calibrated
    from hpcgan.problems.base import problem_class
    from hpcgan.runs import checkpoint

    problem = problem_class(config.problem)(config.model)
    network = build_network(problem, method_class(config.method).sampled, config.seed, config.training.dtype)
    if isinstance(network, Calibrated):
        network.calibrate(batches)
    rng = np.random.default_rng(1)
    for variable in network.statistics:  # narrow ones: noise shows in the samples, as after a training
        spread = "variance" in variable.name
        variable.assign(rng.uniform(0.01, 0.05, variable.shape) if spread else rng.normal(0.0, 0.02, variable.shape))
    arrays = {f"network/{scored_network(config)}/{name}": v.numpy() for name, v in network.named.items()}
    run = RunDirectory(folder)
    run.create(config)
    checkpoint.save(run.checkpoints, 40, arrays, {"epoch": 3}, 2.5)
    return run
