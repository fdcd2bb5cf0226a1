"""Where a hyper-parameter lies: numbers on a linear or logarithmic scale, or choices side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcgan.sweep.store import is_number
from hpcgan.sweep.table import Table, one_line


@dataclass(frozen=True)
class Domain:
    """The values of one key.

    Attributes
    ----------
    key : str
        Dotted key of the configuration.
    log : bool
        Numbers on a logarithmic scale.
    low, high : float
        Ends of the numbers; for choices, of their places.
    integer : bool
        Whole numbers only.
    choices : tuple of str
        Labels of the choices in order, at the places 0, 1, ...; empty for numbers.
    """

    key: str
    log: bool
    low: float
    high: float
    integer: bool = False
    choices: tuple[str, ...] = ()

    def place(self, value: Any) -> float | None:
        """Where a value lies; None if it does not."""
        if self.choices:
            name = show(value)
            return float(self.choices.index(name)) if name in self.choices else None
        return float(value) if is_number(value) and (value > 0 or not self.log) else None


def domains(table: Table) -> list[Domain]:
    """Domains of all keys that the space names or a trial has, in the order of the space."""
    values: dict[str, list[Any]] = {key: [] for key in table.description.space}
    for row in table.rows:
        for key, value in row.params.items():
            values.setdefault(key, []).append(value)
    return [_domain(key, table.description.space.get(key), found) for key, found in values.items()]


def show(value: Any, digits: int = 6) -> str:
    """A value as short text: some digits of a number, JSON of what is neither number nor text."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return json.dumps(value)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each dotted key, as many of its last parts as tell it from the others."""
    names = {}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        taken = [other for other in keys if other != key]
        name = next((t for t in tails if not any(f".{o}".endswith(f".{t}") for o in taken)), key)
        names[key] = one_line(name)
    return names


def _domain(key: str, dimension: Any, values: Sequence[Any]) -> Domain:
    numbers = [v for v in values if is_number(v)]
    choices = _choices(dimension)
    if choices is not None or len(numbers) < len(values) or not (numbers or _ends(dimension)):
        return _of_choices(key, [*(choices or []), *values])
    ends = [*(_ends(dimension) or []), *numbers]
    low, high = float(min(ends)), float(max(ends))
    integer = all(isinstance(end, int) for end in ends)
    return Domain(key, low > 0 and _is_log(dimension), low, high, integer)


def _of_choices(key: str, values: Sequence[Any]) -> Domain:
    by_name = {show(value): value for value in values}
    if all(is_number(value) for value in by_name.values()):
        by_name = dict(sorted(by_name.items(), key=lambda item: item[1]))
    return Domain(key, False, 0.0, max(0.0, len(by_name) - 1.0), choices=tuple(by_name))


# A dimension of `study.json` is its kind with the choices or the ends of the range, {"log_uniform": [1e-5, 1e-3]},
# and options. One of another form is taken for what its values look like, so that a report never fails for it.


def _choices(dimension: Any) -> list[Any] | None:
    found = dimension.get("choice") if isinstance(dimension, dict) else None
    return found if isinstance(found, list) and found else None


def _ends(dimension: Any) -> list[float] | None:
    if not isinstance(dimension, dict):
        return None
    ends = next((dimension[kind] for kind in ("uniform", "log_uniform", "int") if kind in dimension), None)
    return ends if isinstance(ends, list) and ends and all(is_number(end) for end in ends) else None


def _is_log(dimension: Any) -> bool:
    return isinstance(dimension, dict) and ("log_uniform" in dimension or dimension.get("log") is True)
