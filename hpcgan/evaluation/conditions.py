"""What a generator is asked for: the conditions of each event, as a function of its number. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hpcgan import rng
from hpcgan.config import Config
from hpcgan.data.schema import Sample, Schema, take
from hpcgan.errors import InputError
from hpcgan.problems.base import Problem
from hpcgan.problems.events import open_split
from hpcgan.suggest import choose
from hpcgan.weights import resample

#: Conditions of events first ... first + n - 1, in physical units: (first, n) -> Sample.
Conditions = Callable[[int, int], Sample]
Point = Mapping[str, float]


def each(values: Sample) -> Conditions:
    """Event i has row i; beyond the last they start over."""
    rows = len(next(iter(values.values())))
    return lambda first, n: take(values, np.arange(first, first + n) % rows)


def in_turn(points: Sequence[Point], schema: Schema) -> Conditions:
    """The points take turns: equal shares, whatever the number of events."""
    names = [name for name, spec in schema.items() if spec.role == "condition"]
    rows = {name: np.array([point[name] for point in points], np.float64) for name in names}
    return each({name: _shaped(values, schema, name) for name, values in rows.items()})


def from_random_events(available: Sample, seed: int) -> Conditions:
    """Event i has the conditions of a random one of the available events."""
    rows = len(next(iter(available.values())))

    def draw(first: int, n: int) -> Sample:
        uniforms = rng.uniform(seed, "sample/conditions", 0, first, n, 1)[:, 0]
        return take(available, np.minimum((uniforms * rows).astype(np.int64), rows - 1))

    return draw


def _shaped(values: np.ndarray, schema: Schema, name: str) -> np.ndarray:
    """One number an event as the schema has it."""
    shape = schema[name].shape
    return np.broadcast_to(values.reshape(-1, *(1 for _ in shape)), (len(values), *shape)).astype(schema[name].dtype)


def parse(text: str) -> dict[str, float]:
    """A point from the command line, `mGlu=1600,mNeu=850`.

    Raises
    ------
    InputError
        Not of this form.
    """
    point: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not name or not np.isfinite(number):
            raise InputError(f"--condition {text}: write it as NAME=NUMBER,NAME=NUMBER")
        if name in point:
            raise InputError(f"--condition {text}: '{name}' is given twice")
        point[name] = number
    return point


def check_points(problem: Problem, points: Sequence[Point], where: str = "--condition") -> None:
    """Refuse points with other conditions than the problem's, and what no event can have.

    Raises
    ------
    InputError
        Begins with `where` and the point.
    """
    for point in points:
        for name, value in point.items():
            _numbers(value, where, name, "float64")
        place = f"{where} {','.join(f'{name}={value:g}' for name, value in point.items())}"
        _check_names(problem, list(point), place)
        try:
            problem.check_conditions(in_turn([point], problem.schema)(0, 1))
        except InputError as error:
            raise InputError(f"{place}: {error}") from None


def _check_names(problem: Problem, names: Sequence[str], where: str) -> None:
    choices = ", ".join(problem.conditions)
    if not choices:
        raise InputError(f"{where}: the generator of problem '{problem.name}' takes no conditions")
    for name in names:
        if name not in problem.conditions:
            hint = choose(name, problem.conditions, "conditions")
            raise InputError(f"{where}: '{name}' is not a condition of problem '{problem.name}'{hint}")
    missing = [name for name in problem.conditions if name not in names]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} is missing; a generated event has all of {choices}")


def of_arrays(problem: Problem, values: Mapping[str, ArrayLike], where: str = "conditions") -> Sample:
    """Conditions of each event from one array a condition, checked; a single number stands for all events.

    Parameters
    ----------
    problem : Problem
    values : mapping of str to (n, *shape) array or number
        In physical units; where an event has one number, (n,) and (n, 1) are the same.
    where : str
        What messages begin with.

    Raises
    ------
    InputError
        Other conditions than the problem's, arrays of another shape or unequal length, values that are not finite, or
        what no event can have.
    """
    _check_names(problem, list(values), where)
    arrays: Sample = {}
    for name in problem.conditions:
        spec = problem.schema[name]
        array = _numbers(values[name], where, name, spec.dtype)
        if array.ndim == 0:
            array = _shaped(array.reshape(1), problem.schema, name)
        elif math.prod(spec.shape) == 1 and array.size == len(array):
            array = array.reshape(-1, *spec.shape)
        if array.shape[1:] != spec.shape or not len(array):
            needed = ", ".join(["n", *map(str, spec.shape)])
            raise InputError(f"{where}: '{name}' has shape {array.shape}; needed is ({needed})")
        arrays[name] = array
    n = max(len(array) for array in arrays.values())
    for name, array in arrays.items():
        if len(array) == 1:
            arrays[name] = np.repeat(array, n, axis=0)
        elif len(array) != n:
            raise InputError(f"{where}: '{name}' has {len(array)} values, another condition has {n}")
    try:
        problem.check_conditions(arrays)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return arrays


def of_rows(problem: Problem, rows: ArrayLike, where: str = "conditions") -> Sample:
    """Conditions of each event from one array, checked.

    Parameters
    ----------
    problem : Problem
    rows : (n, k) array
        A column for each of `problem.conditions`, in that order and in physical units; (n,) where there is one.
    where : str
        What messages begin with.

    Raises
    ------
    InputError
        As `of_arrays`.
    """
    _check_names(problem, problem.conditions, where)
    widths = [math.prod(problem.schema[name].shape) for name in problem.conditions]
    array = _numbers(rows, where, None, "float64")
    if array.ndim < 2 and sum(widths) == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2 or array.shape[1] != sum(widths):
        alone = "(n,) or " if sum(widths) == 1 else ""
        raise InputError(
            f"{where}: the array has shape {array.shape}; needed is {alone}(n, {sum(widths)}), a column for each of "
            f"{', '.join(problem.conditions)}"
        )
    parts = np.split(array, np.cumsum(widths)[:-1], axis=1)
    shaped = {
        name: part.reshape(-1, *problem.schema[name].shape)
        for name, part in zip(problem.conditions, parts, strict=True)
    }
    return of_arrays(problem, shaped, where)


def _numbers(values: Any, where: str, name: str | None, dtype: str) -> np.ndarray:
    """Finite numbers of a type, or an error that says whose they are not."""
    whose = where if name is None else f"{where}: '{name}'"
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal length
        array = np.asarray(None)
    if array.size and array.dtype.kind not in "iuf":
        raise InputError(f"{whose} does not hold numbers")
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    finite = np.isfinite(array)
    if not finite.all():
        index = np.argwhere(~finite)[0].tolist()
        event = f" of event {index[0]}" if index else ""
        raise InputError(f"{whose}{event} is {array[tuple(index)]:g}: give finite numbers")
    return array


def training_conditions(problem: Problem, config: Config) -> Sample:
    """Conditions of the events that a model was trained on, in physical units; by weight, where events have weights.

    Raises
    ------
    InputError
        The training data are not there, or not those of the run.
    """
    source = open_split(problem, config.data, "train")
    try:
        conditions, weights = source.conditions(), source.weights()
        if weights is None:
            return conditions
        return take(conditions, resample(weights, len(weights), config.seed, "conditions"))
    finally:
        source.close()


def warnings(problem: Problem, config: Config, conditions: Sample) -> list[str]:
    """What to warn of: conditions outside the range of the training data, or that these are not there to tell."""
    try:
        available = training_conditions(problem, config)
    except InputError as error:
        return [f"no telling whether this is an extrapolation: {error}"]
    texts = []
    for name in problem.conditions:
        low, high = float(available[name].min()), float(available[name].max())
        least, most = float(conditions[name].min()), float(conditions[name].max())
        unit = f" {spec.unit}" if (spec := problem.schema[name]).unit else ""
        if least < low or most > high:
            value = f"{least:g}" if least == most else f"{least:g} to {most:g}"
            texts.append(
                f"{name}={value}{unit} is outside the training data's {low:g} to {high:g}{unit}: an extrapolation"
            )
    return texts
