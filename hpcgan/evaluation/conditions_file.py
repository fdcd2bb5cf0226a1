"""Requested conditions from a file: one row an event, as HDF5, CSV or NumPy array. NumPy and h5py only."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from hpcgan.data import claims
from hpcgan.data.layouts.base import ROOT
from hpcgan.data.meaning import Meaning
from hpcgan.data.schema import Sample
from hpcgan.data.storage import names, open_file, readable, refuse_foreign
from hpcgan.errors import InputError
from hpcgan.evaluation.conditions import of_arrays, of_rows
from hpcgan.problems.base import Problem
from hpcgan.problems.layouts import layouts


def read_conditions(problem: Problem, path: Path) -> Sample:
    """The conditions of each event that is asked for, checked.

    Parameters
    ----------
    problem : Problem
    path : Path
        `.h5`: a data set (n, ...) for each condition of the problem, under its name; a data file of the problem is one
        with the conditions of its own events. Energies that are said to be in another unit are converted.
        `.csv`: a line with the names of the conditions, then one an event.
        `.npy`: an array as of `hpcgan.evaluation.conditions.of_rows`. All in physical units. What is read stays in
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
    return of_arrays(problem, values, str(path))


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
