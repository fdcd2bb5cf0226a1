"""What a request asks a generator for: which events, of which conditions, checked beforehand. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgan.data.schema import Sample, take
from hpcgan.errors import InputError
from hpcgan.evaluation import conditions as asking
from hpcgan.problems.base import Problem
from hpcgan.serve import protocol

NUMBERS = ("seed", "index", "events")
"""Inputs that say which events; those besides are the conditions of the problem."""
MOST_INDEX = 2**40


@dataclass(frozen=True)
class Asked:
    """Events that are asked for.

    Attributes
    ----------
    seeds, indices : (n,) int64
        Of each event: its seed, and its number in the sequence of that seed.
    conditions : mapping of str to (n, *shape) array
        In physical units; empty where the problem has none.
    """

    seeds: np.ndarray
    indices: np.ndarray
    conditions: Sample

    @property
    def n(self) -> int:
        """Number of events."""
        return len(self.seeds)

    def part(self, first: int, n: int) -> Asked:
        """Events first ... first + n - 1 of these."""
        rows = slice(first, first + n)
        return Asked(self.seeds[rows], self.indices[rows], take(self.conditions, rows))


def read(problem: Problem, inputs: Mapping[str, np.ndarray], most: int) -> Asked:
    """What the inputs of a request ask for.

    Parameters
    ----------
    problem : Problem
    inputs : mapping of str to array
        `seed` (1,) or (n,); `index` (1,) or (n,), by default 0; `events` (1,), where nothing else says n; and each of
        `problem.conditions`, (1,) or (n,), in physical units. With one seed and one index, the events are those from
        that index on; with several of either, each event has its own.
    most : int
        Events of a request, at most.

    Raises
    ------
    InputError
        Inputs that are missing, unknown, of unequal length or negative, more than `most` events, or conditions that no
        event can have.
    """
    of_events = {name: array for name, array in inputs.items() if name not in NUMBERS}
    if "seed" not in inputs:
        raise InputError("inputs: 'seed' is missing: the same seed makes the same events")
    numbers = {name: _whole(inputs[name], name) for name in NUMBERS if name in inputs}
    lengths = {name: len(array) for name, array in numbers.items() if name != "events" and len(array) > 1}
    lengths.update(
        (name, len(array))
        for name, array in of_events.items()
        if array.ndim and array.size > math.prod(problem.schema[name].shape if name in problem.schema else ())
    )
    if "events" in numbers:
        if len(numbers["events"]) != 1:
            raise InputError("inputs: 'events' is one number, how many")
        lengths["events"] = int(numbers["events"][0])
    n = max(lengths.values(), default=1)
    for name, length in lengths.items():
        if length != n:
            raise InputError(f"inputs: '{name[:40]}' is for {length} events, another input for {n}")
    if n < 1:
        raise InputError("inputs: 'events' is 0; give at least 1")
    if n > most:
        raise InputError(f"inputs: {n} events; this service makes at most {most} for a request")
    conditions: Sample = {}
    if of_events or problem.conditions:
        checked = asking.of_arrays(problem, of_events, "inputs")
        conditions = {name: np.broadcast_to(array, (n, *array.shape[1:])) for name, array in checked.items()}
    seeds, indices = numbers["seed"], numbers.get("index", np.zeros(1, np.int64))
    if len(seeds) == len(indices) == 1:
        indices = indices + np.arange(n)
    return Asked(np.broadcast_to(seeds, (n,)), np.broadcast_to(indices, (n,)), conditions)


def _whole(array: np.ndarray, name: str) -> np.ndarray:
    """An input of whole numbers, (n,)."""
    if array.dtype.kind not in "iu":
        raise InputError(f"inputs: '{name}' has whole numbers, INT64")
    flat = array.reshape(-1)
    if not len(flat) or len(flat) != max(array.shape, default=1):
        raise InputError(f"inputs: '{name}' has shape {array.shape}; needed is (1,) or (n,)")
    most = MOST_INDEX if name == "index" else 2**63 - 1
    if flat.min() < 0 or flat.max() > most:
        raise InputError(f"inputs: '{name}' has numbers below 0 or above {most}")
    return flat.astype(np.int64)


def metadata(name: str, version: str, problem: Problem) -> dict[str, Any]:
    """What the protocol says of a model: its inputs and outputs, with units as parameters."""

    def entry(tensor: str) -> dict[str, Any]:
        spec = problem.schema[tensor]
        # One number an event is (n,) or (n, 1), as the client likes.
        shape = [-1] if spec.role == "condition" and math.prod(spec.shape) == 1 else [-1, *spec.shape]
        return {
            "name": tensor,
            "datatype": protocol.datatype(spec.dtype),
            "shape": shape,
            "parameters": {"unit": spec.unit},
        }

    whole = [{"name": number, "datatype": "INT64", "shape": [-1]} for number in NUMBERS]
    return {
        "name": name,
        "versions": [version],
        "platform": "hpcgan",
        "inputs": [*whole, *(entry(condition) for condition in problem.conditions)],
        "outputs": [entry(tensor) for tensor in outputs(problem)],
    }


def outputs(problem: Problem) -> tuple[str, ...]:
    """The tensors that a request gets, in the order of the schema."""
    return tuple(name for name, spec in problem.schema.items() if spec.role == "data")
