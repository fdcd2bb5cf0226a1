"""The one train state: everything the training depends on, in a form a checkpoint can hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydantic

from hpcgan.comm.base import Comm
from hpcgan.config import RateChange
from hpcgan.errors import HpcganError
from hpcgan.runs.records import Best


@dataclass
class EpochUnderWay:
    """The epoch that is not done yet.

    Attributes
    ----------
    position : int
        Samples of it that are done.
    global_batch : int
        Samples of its last step, over all ranks.
    count, sums : int, dict of str to float
        Sums of the step metrics over so many steps.
    """

    position: int = 0
    global_batch: int = 0
    count: int = 0
    sums: dict[str, float] = field(default_factory=dict)


class CommandedChange(RateChange):
    """Learning rates that a command has set; `id` is the command's, by which it is known when it is found again."""

    id: str


@dataclass
class Commanded:
    """What commands have changed: learning rates, and whether the training pauses."""

    changes: list[CommandedChange] = field(default_factory=list)
    paused: bool = False


@dataclass(frozen=True)
class BestEpoch(Best):
    """The best epoch so far, with the diversity of its samples, if it was measured."""

    diversity: float | None = None


@dataclass
class Counters:
    """Where the training stands; all the rest of its progress derives from it.

    Attributes
    ----------
    step : int
        Updates done.
    samples : int
        Samples seen by all ranks.
    epoch : int
        Epochs completed.
    under_way : EpochUnderWay
    best : BestEpoch or None
    rollbacks : int
        How often the training went back to its best state.
    commanded : Commanded
    """

    step: int = 0
    samples: int = 0
    epoch: int = 0
    under_way: EpochUnderWay = field(default_factory=EpochUnderWay)
    best: BestEpoch | None = None
    rollbacks: int = 0
    commanded: Commanded = field(default_factory=Commanded)

    def advance(self, samples: int) -> None:
        """A step is done, of so many samples over all ranks."""
        self.step += 1
        self.samples += samples
        self.under_way.position += samples
        self.under_way.global_batch = samples

    def add(self, metrics: Mapping[str, float]) -> None:
        """The metrics of a step count in the means of its epoch."""
        epoch = self.under_way
        epoch.count += 1
        for name, value in metrics.items():
            epoch.sums[name] = epoch.sums.get(name, 0.0) + value

    def finish_epoch(self) -> dict[str, float]:
        """An epoch is done: the means of its metrics; none, if every step was bad."""
        epoch = self.under_way
        self.epoch, self.under_way = self.epoch + 1, EpochUnderWay(global_batch=epoch.global_batch)
        return {name: total / epoch.count for name, total in epoch.sums.items()}

    def is_best(self, score: float | None, diversity: float | None) -> bool:
        """Whether the epoch that is done is the best one so far by its score, which is then remembered."""
        if score is None or not (self.best is None or score < self.best.score):
            return False
        self.best = BestEpoch(score, self.epoch, self.step, diversity)
        return True


_PLAIN = pydantic.TypeAdapter(Counters)


@dataclass(frozen=True)
class Snapshot:
    """A copy of a train state, which no step changes.

    Attributes
    ----------
    step : int
    arrays : dict of str to array
        Values of all variables by name.
    meta : dict
        The counters as plain values.
    best_step : int or None
        Step of the best epoch so far.
    """

    step: int
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    best_step: int | None


class TrainState:
    """Named networks and optimizers of a method, and the counters.

    Parameters
    ----------
    networks, optimizers : mapping of str to object with `.named` (tf.Variables by name)
    """

    def __init__(self, networks: Mapping[str, Any], optimizers: Mapping[str, Any]) -> None:
        self.variables: dict[str, Any] = {}
        for group, members in (("network", networks), ("optimizer", optimizers)):
            for owner, member in members.items():
                for name, variable in member.named.items():
                    self.variables[f"{group}/{owner}/{name}"] = variable
        self.counters = Counters()

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the values of all variables by name: `numpy` of a variable is one by its documentation."""
        return {name: np.asarray(variable.numpy()) for name, variable in self.variables.items()}

    def meta(self) -> dict[str, Any]:
        """The counters as plain values."""
        values: dict[str, Any] = _PLAIN.dump_python(self.counters, mode="json")
        return values

    def snapshot(self) -> Snapshot:
        """A copy of all of it."""
        best = self.counters.best
        return Snapshot(self.counters.step, self.arrays(), self.meta(), None if best is None else best.step)

    def load(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Overwrite everything by what a checkpoint holds.

        Raises
        ------
        HpcganError
            The checkpoint has other variables or shapes than this model.
        """
        self.load_variables(arrays)
        self.load_counters(meta)

    def load_counters(self, meta: Mapping[str, Any]) -> None:
        """Overwrite the counters by what `meta` gave."""
        self.counters = _PLAIN.validate_python(meta)

    def load_variables(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Overwrite the variables, but not the counters.

        Raises
        ------
        HpcganError
            The checkpoint has other variables or shapes than this model.
        """
        missing = self.variables.keys() ^ arrays.keys()
        if missing:
            raise HpcganError(f"the checkpoint belongs to another model: '{min(missing)}' is only in one of them")
        for name, variable in self.variables.items():
            if np.shape(variable.numpy()) != arrays[name].shape:
                raise HpcganError(f"the checkpoint belongs to another model: '{name}' has another shape")
            variable.assign(arrays[name])

    def digest(self) -> str:
        """Hash of all variables, for comparing ranks."""
        whole = hashlib.blake2b(digest_size=16)
        for name, variable in sorted(self.variables.items()):
            whole.update(name.encode())
            # Not copied: a training waits for this before each checkpoint.
            whole.update(np.ascontiguousarray(memoryview(variable.read_value())).data)
        return whole.hexdigest()

    def check_equal(self, comm: Comm) -> None:
        """Verify that all ranks hold the same bits.

        Raises
        ------
        HpcganError
            On every rank, naming the ranks that differ from rank 0.
        """
        if comm.size == 1:
            return
        digests = comm.broadcast_json(comm.gather_json(self.digest()))
        odd = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if odd:
            raise HpcganError(
                f"ranks {odd} hold other weights than rank 0 at step {self.counters.step}; "
                "the last checkpoint is intact, run the same command to resume from it",
                collective=True,
            )
