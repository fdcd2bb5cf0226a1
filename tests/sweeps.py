"""Studies small enough for tests: a space, a coordinator whose trials are made up, and the table of what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcgan import config
from hpcgan.config import Config, SweepSection
from hpcgan.launch.process import Requests
from hpcgan.runs.lease import Lease
from hpcgan.sweep import space as spaces
from hpcgan.sweep import study as studies
from hpcgan.sweep.coordinator import Coordinator
from hpcgan.sweep.space import Space
from hpcgan.sweep.store import Description, Result, StudyDirectory

SEARCH = {
    "training.generator.learning_rate": {"log_uniform": [1e-5, 1e-2]},
    "training.label_flip": {"uniform": [0.0, 0.2], "points": 3},
    "model.filters": {"choice": [1, 2, 3]},
    "model.latent_dim": {"int": [2, 5]},
}


def plan(trials: int, top: int = 1, repeats: int = 0, retries: int = 3) -> SweepSection:
    """How much is to be done."""
    return SweepSection(trials=trials, top=top, repeats=repeats, retries=retries)


def base(*overrides: str) -> Config:
    """What trials change; without TensorFlow."""
    raw = {
        "problem": "rpv",
        "name": "tiny",
        "data": {"path": "data"},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"epochs": 2, "batch_size": 4},
    }
    return config.load(raw, overrides)


def space(search: Mapping[str, Any] = SEARCH, *overrides: str) -> Space:
    """A search space over the tiny configuration."""
    return spaces.parse(dict(search), base(*overrides), "sweep.yaml")


def score_of(params: Mapping[str, Any], seed: int) -> float:
    """A made-up score: best at a learning rate of 1e-3 and no label flips, with some luck of the seed."""
    rate = params.get("training.generator.learning_rate", 1e-4)
    return abs(math.log10(rate) + 3) + 10 * params.get("training.label_flip", 0.0) + seed % 1000 / 1e4


def result_of(study: StudyDirectory, number: int, **fields: Any) -> Result:
    """What a trial would leave behind."""
    assignment = study.assignment(number)
    assert assignment is not None
    now = time.time()
    made = {
        "number": number, "params": assignment.params, "seed": assignment.seed, "repeat_of": assignment.repeat_of,
        "attempts": 1, "state": "complete", "score": score_of(assignment.params, assignment.seed), "epoch": 2,
        "epochs": 3, "reason": None, "started": now, "ended": now,
    }  # fmt: skip
    return Result(**{**made, **fields})


class FakeExecutor:
    """Runs trials by writing their result, or not.

    Parameters
    ----------
    study : StudyDirectory
    slots : int or None
        Trials at a time; None: it queues by itself.
    fates : mapping
        For some trials, what happens to it each time it is started, in turn: "complete", "lost", "stopped", or the
        fields of its result. The last one again and again.
    """

    every = 0.0
    queues = False

    def __init__(
        self, study: StudyDirectory, slots: int | None = 2, fates: Mapping[int, Sequence[Any]] | None = None
    ) -> None:
        self.concurrency, self.queues, self._study, self._fates = slots or 2, slots is None, study, fates or {}
        self.started: list[int] = []
        self.most = 0
        self._flying: list[int] = []
        self.at_poll: Callable[[FakeExecutor], None] = lambda _: None

    def start(self, numbers: Sequence[int]) -> None:
        self.started += numbers
        self._flying += numbers
        self.most = max(self.most, len(self._flying))

    def poll(self) -> dict[int, int | None]:
        self.at_poll(self)
        ended = {}
        for number in self._flying:
            fates = self._fates.get(number, ["complete"])
            fate = fates[min(self.started.count(number), len(fates)) - 1]
            done = self._study.result(number)
            if done is not None:  # wants its score on test events
                if fate != "lost":
                    self._study.write_result(Result(**{**vars(done), "test_score": 5.0, "test_spread": 0.5}))
            elif fate not in ("lost", "stopped"):
                self._study.write_result(result_of(self._study, number, **({} if fate == "complete" else fate)))
            ended[number] = {"lost": -9, "stopped": 75}.get(fate if isinstance(fate, str) else "", 0)
        self._flying.clear()
        return dict(ended)

    def in_flight(self) -> set[int]:
        return set(self._flying)

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        self._flying.clear()

    def close(self) -> None:
        pass


def describe(search: Space, threads: int = 1, **keys: Any) -> Description:
    """What a study is whose configuration has these keys in its section `sweep:`."""
    return studies.describe(search.base.model_copy(update={"sweep": SweepSection(**keys)}), search, threads)


def coordinate(
    path: Path,
    how_much: SweepSection,
    executor: FakeExecutor | None = None,
    *,
    search: Space | None = None,
    sampler: str = "random",
    pruner: str = "none",
    seed: int = 1,
    requests: Requests | None = None,
    said: list[str] | None = None,
) -> tuple[int, Coordinator]:
    """Run a study as the command does, with made-up trials."""
    search = search or space()
    study = StudyDirectory(path)
    description = describe(search, seed=seed, sampler=sampler, pruner=pruner)
    lines = [] if said is None else said
    with studies.opened(study, description, search.base, lines.append) as lease:
        assert isinstance(lease, Lease)
        coordinator = Coordinator(
            study, search, executor or FakeExecutor(study), how_much, requests or Requests(lines.append), lines.append,
            lease.check,
        )  # fmt: skip
        coordinator.backoff, coordinator.grace = 0.0, 5.0
        return coordinator.run(), coordinator


def table(path: Path) -> list[tuple[Any, ...]]:
    """What came of all trials, without what the clock says."""
    study = StudyDirectory(path)
    found = []
    for number in study.numbers():
        result = study.result(number)
        assert result is not None, number
        found.append(
            (number, result.params, result.seed, result.repeat_of, result.state, result.score, result.epoch,
             result.epochs)
        )  # fmt: skip
    return found
