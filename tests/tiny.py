"""A training small enough for tests: the real problem, few events, narrow networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hpcgan import config as configuration
from hpcgan.comm.base import Comm, SerialComm
from hpcgan.config import Config, DataConfig, ScoringConfig
from hpcgan.data import storage
from hpcgan.data.pipeline import Pipeline
from hpcgan.data.storage import Target
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.runs.checkpoint import Checkpoint
from hpcgan.runs.directory import RunDirectory
from hpcgan.training.requests import StopRequest

EVENTS = 100  # 60 for training, 20 for validation, 20 for the test


def images(n: int, seed: int = 0) -> np.ndarray:
    """(n, 64, 64) MeV: sparse, with a few hot spots that make jets."""
    rng = np.random.default_rng(seed)
    hit = rng.random((n, 64, 64)) < 0.03
    made = hit * rng.exponential(5e3, (n, 64, 64))
    for image in made:
        for _ in range(rng.integers(3, 6)):
            i, j = rng.integers(20, 44), rng.integers(4, 60)
            image[i - 1 : i + 2, j - 1 : j + 2] += rng.exponential(8e4, (3, 3))
    return made.astype(np.float32)


def write_data(folder: Path, n: int = EVENTS) -> Path:
    """Train, validation and test files."""
    with hdf5.Writer(Target(folder, storage.split_sizes(n), {"settings": "{}"})) as writer:
        writer.append(images(n), 1.0, 1.0, 1400.0, 850.0)
    return folder


POINTS = ((1400.0, 850.0), (1600.0, 850.0), (1800.0, 850.0))  # mGlu, mNeu in GeV


def write_conditional_data(folder: Path, n: int = 150, points: Sequence[tuple[float, float]] = POINTS) -> Path:
    """The same with mass points in turn, and energies in proportion to the gluino mass."""
    m_glu, m_neu = np.array([points[i % len(points)] for i in range(n)]).T
    with hdf5.Writer(Target(folder, storage.split_sizes(n), {"settings": "{}"})) as writer:
        writer.append(images(n) * (m_glu / 1400.0).astype(np.float32)[:, None, None], 1.0, 1.0, m_glu, m_neu)
    return folder


def config(data: Path, *overrides: str) -> Config:
    """Two epochs of 15 (one rank) or 7 (two ranks) steps with everything switched on."""
    raw = {
        "problem": "rpv",
        "name": "tiny",
        "data": {"path": str(data), "augment": ["eta_reflection", "phi_reflection", "phi_rotation"]},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"epochs": 2, "batch_size": 4, "label_flip": 0.2, "average_half_life": 50},
        "scoring": {"events": 20},
    }
    return configuration.load(raw, overrides)


def train(settings: Config, folder: Path, stop: StopRequest | None = None, comm: Comm | None = None) -> RunDirectory:
    """A whole training, in a run directory."""
    from hpcgan.training import attempt  # which imports TensorFlow

    run = RunDirectory(folder)
    attempt.train(settings, run, comm or SerialComm(), stop or StopRequest())
    return run


def assert_same_state(ours: Checkpoint, theirs: Checkpoint) -> None:
    """Two checkpoints hold the same bits."""
    assert ours.meta == theirs.meta
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)


class Sampler:
    """Stands for that of a run in reports: `images`, brighter by a factor, and a run called `name`."""

    held_out_losses = None

    def __init__(self, folder: Path, brightness: float = 1.0, name: str = "tiny") -> None:
        self.problem, self._brightness = RpvProblem(RpvModel()), np.float32(brightness)
        self.config = SimpleNamespace(
            data=DataConfig(path=folder),
            scoring=ScoringConfig(),
            dump=lambda: {"name": name, "problem": "rpv", "method": "gan", "data": {"path": str(folder)}},
        )
        self.checkpoint = SimpleNamespace(step=30, epoch=2, score=12.5)

    def sample(self, n: int, seed: int, first: int = 0) -> dict[str, np.ndarray]:
        return {"hist": images(n, seed=1000 + seed) * self._brightness}


class StopAt(StopRequest):
    """Asks to stop when it is looked at for the n-th time: in step n."""

    def __init__(self, step: int) -> None:
        self._left = step

    @property
    def requested(self) -> str | None:
        self._left -= 1
        return "SIGTERM" if self._left == 0 else None


def spoil(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool], value: float = np.inf) -> None:
    """Feed an energy, infinite by default, to the steps (counted from 0) for which `bad` is true."""
    whole = Pipeline.rest_of_epoch

    def spoiled(self: Pipeline, epoch: int, position: int, step: int) -> Any:
        for i, (real, draws) in enumerate(whole(self, epoch, position, step)):
            if bad(step + i):
                real["hist"][1] = value
            yield real, draws

    monkeypatch.setattr(Pipeline, "rest_of_epoch", spoiled)
