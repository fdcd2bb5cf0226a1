"""What a generator is asked for: the conditions of each event, from points, arrays or a file. NumPy and h5py only."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from hpcgan import rng
from hpcgan.config import Config
from hpcgan.data import claims
from hpcgan.data.layouts.base import ROOT
from hpcgan.data.meaning import Meaning
from hpcgan.data.schema import Sample, concatenate, take
from hpcgan.data.storage import names, open_file, readable, refuse_foreign
from hpcgan.errors import InputError
from hpcgan.problems.base import Problem
from hpcgan.problems.events import open_split
from hpcgan.problems.layouts import layouts
from hpcgan.suggest import choose
from hpcgan.weights import resample

#: Conditions of events first ... first + n - 1, in physical units: (first, n) -> Sample.
Conditions = Callable[[int, int], Sample]
Point = Mapping[str, float]
#: Smallest and largest value by name of a condition.
Ranges = Mapping[str, tuple[float, float]]


def each(values: Sample) -> Conditions:
    """Event i has row i; beyond the last they start over."""
    rows = len(next(iter(values.values())))
    return lambda first, n: take(values, np.arange(first, first + n) % rows)


def from_random_events(available: Sample, seed: int) -> Conditions:
    """Event i has the conditions of a random one of the available events."""
    rows = len(next(iter(available.values())))

    def draw(first: int, n: int) -> Sample:
        uniforms = rng.uniform(seed, "sample/conditions", 0, first, n, 1)[:, 0]
        return take(available, np.minimum((uniforms * rows).astype(np.int64), rows - 1))

    return draw


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


def of_points(problem: Problem, points: Sequence[Point], where: str = "conditions") -> Sample:
    """A row for each point, checked: as `each` of them the points take turns.

    Raises
    ------
    InputError
        As `of_arrays`; begins with `where` and the point.
    """
    rows = []
    for point in points:
        for name, value in point.items():
            _numbers(value, where, name, "float64")
        place = f"{where} {','.join(f'{name}={value:g}' for name, value in point.items())}"
        rows.append(of_arrays(problem, point, place))
    return concatenate(rows)


def _check_names(problem: Problem, asked: Sequence[str], where: str) -> None:
    choices = ", ".join(problem.conditions)
    if not choices:
        raise InputError(f"{where}: the generator of problem '{problem.name}' takes no conditions")
    for name in asked:
        if name not in problem.conditions:
            hint = choose(name, problem.conditions, "conditions")
            raise InputError(f"{where}: '{name}' is not a condition of problem '{problem.name}'{hint}")
    missing = [name for name in problem.conditions if name not in asked]
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
            array = np.broadcast_to(array, (1, *spec.shape))
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


def warnings(problem: Problem, config: Config, conditions: Sample, trained: Ranges | None = None) -> list[str]:
    """What to warn of: conditions outside the range of the training data, or that these are not there to tell.

    `trained` are the ranges where they are known without the data.
    """
    if trained is None:
        try:
            available = training_conditions(problem, config)
        except InputError as error:
            return [f"no telling whether this is an extrapolation: {error}"]
        trained = ranges(available)
    texts = []
    for name in problem.conditions:
        low, high = trained[name]
        least, most = float(conditions[name].min()), float(conditions[name].max())
        unit = f" {spec.unit}" if (spec := problem.schema[name]).unit else ""
        if least < low or most > high:
            value = f"{least:g}" if least == most else f"{least:g} to {most:g}"
            texts.append(
                f"{name}={value}{unit} is outside the training data's {low:g} to {high:g}{unit}: an extrapolation"
            )
    return texts


def ranges(conditions: Sample) -> Ranges:
    """The smallest and the largest value of each condition."""
    return {name: (float(values.min()), float(values.max())) for name, values in conditions.items()}


# --- files: one row an event, as HDF5, CSV or NumPy array ---------------------------------------------


def read(problem: Problem, path: Path) -> Sample:
    """The conditions of each event that is asked for, checked.

    Parameters
    ----------
    problem : Problem
    path : Path
        `.h5`: a data set (n, ...) for each condition of the problem, under its name; a data file of the problem is one
        with the conditions of its own events. Energies that are said to be in another unit are converted.
        `.csv`: a line with the names of the conditions, then one an event.
        `.npy`: an array as of `of_rows`. All in physical units. What is read stays in
        memory, 4 bytes a number.

    Raises
    ------
    InputError
        No such file, another ending, not of this form, or what `of_arrays` refuses. Begins with the file.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise InputError(f"{path}: conditions are read from files that end in {', '.join(_READERS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return reader(problem, path)


def _hdf5(problem: Problem, path: Path) -> Sample:
    values: Sample = {}
    with open_file(path) as file:
        for name in problem.conditions:
            with readable(path, name):
                group = _group_with(path, file, name)
                if group is None:
                    raise InputError(f"{path}: has no data set '{name}' (it holds: {names(file)})")
                refuse_foreign(path, group, name, name)
                if not isinstance(group[name], h5py.Dataset):
                    raise InputError(f"{path}: '{name}' is no data set")
                unit = problem.schema[name].unit
                conversion = _conversion(path, group, name, Meaning(unit or None), problem.conditions)
                values[name] = np.asarray(conversion(group[name][()]))
            claims.announce(path, name, conversion, unit)
    return of_arrays(problem, problem.conditions_of_file(values, path), str(path))


def _conversion(
    path: Path, group: h5py.Group, name: str, meaning: Meaning, conditions: tuple[str, ...]
) -> claims.Conversion:
    """To the needed unit; what is said of the whole group is heeded where it holds conditions and nothing else."""
    if set(group.keys()) <= set(conditions):
        return claims.conversions(path, {name: (group[name], meaning)})[name]
    return claims.conversion_of_column(path, group[name], meaning)


def _group_with(path: Path, file: h5py.File, name: str) -> h5py.Group | None:
    for group in dict.fromkeys([ROOT, *(layout.group for layout in layouts())]):
        if group == ROOT:
            candidate = file[group]
        elif group in list(file.keys()):
            refuse_foreign(path, file, group, group)
            candidate = file[group]
        else:
            continue
        if isinstance(candidate, h5py.Group) and name in list(candidate.keys()):
            return candidate
    return None


def _csv(problem: Problem, path: Path) -> Sample:
    header: list[str] = []
    rows: list[list[float]] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, skipinitialspace=True)
            for cells in lines:
                if not cells:
                    continue
                if not header:
                    header = [cell.strip() for cell in cells]
                    continue
                where = f"{path}, line {lines.line_num}"
                if len(cells) != len(header):
                    raise InputError(f"{where}: {len(cells)} values under {len(header)} names")
                rows.append([_number(cell, where) for cell in cells])
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None
    if len(set(header)) < len(header):
        raise InputError(f"{path}: the first line names a condition twice: {', '.join(header)}")
    if not rows:
        raise InputError(f"{path}: needed are a line with the names of the conditions and one with values an event")
    return of_arrays(problem, dict(zip(header, np.array(rows).T, strict=True)), str(path))


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: '{text}' is not a number") from None


def _npy(problem: Problem, path: Path) -> Sample:
    try:
        rows = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header goes through Python's tokenizer and parser, with all their errors
        reason = str(error).strip().splitlines()
        raise InputError(f"{path}: not a readable NumPy array ({reason[0] if reason else 'no reason given'})") from None
    if not isinstance(rows, np.ndarray):
        raise InputError(f"{path}: holds several arrays (.npz); save one as .npy")
    return of_rows(problem, rows, str(path))


_READERS: dict[str, Callable[[Problem, Path], Sample]] = {".h5": _hdf5, ".csv": _csv, ".npy": _npy}
