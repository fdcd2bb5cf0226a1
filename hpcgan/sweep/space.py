"""The search space: which keys of a configuration a study changes, and how.

The section `search:` of a configuration names keys, each with one kind of dimension:

    search:
      training.generator.learning_rate: {log_uniform: [1.0e-5, 1.0e-3]}
      training.label_flip: {uniform: [0.0, 0.2]}
      model.filters: {int: [4, 32], log: true}
      model.latent_dim: {choice: [16, 64, 128]}
      training.r1.weight: {log_uniform: [0.01, 1.0], when: {model.architecture: detector}}

Optional: `step` (int), `log` (int), `points` (values that a grid takes of a range), `when` (other keys and the value,
or list of values, that they must have for this key to be searched; otherwise it stays as the configuration has it).
Choices and the values of `when` are what the configuration makes of them (`_coerced`), so they compare as a trial's do;
a `when` that is never true is refused.

A draw is a function of (seed, number, key): trials are known before they run, and a key that is added to a space
leaves the draws of the others as they were.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hpcgan import config as configuration
from hpcgan import rng, yamlio
from hpcgan.config import Config
from hpcgan.errors import InputError
from hpcgan.suggest import choose, did_you_mean

KINDS = ("choice", "uniform", "log_uniform", "int")
_OPTIONS = {
    "choice": ("when",),
    "uniform": ("points", "when"),
    "log_uniform": ("points", "when"),
    "int": ("log", "step", "points", "when"),
}
SECTION = "search"
_COMBINATIONS = 10_000  # of the values of conditions, that are looked at
_BESIDE = 32  # draws of other keys, beside which a value is tried that does not go with the base's


@dataclass(frozen=True)
class Dimension:
    """One key that is searched.

    Attributes
    ----------
    key : str
        Dotted key of the configuration.
    kind : str
        One of `KINDS`.
    values : tuple
        The choices; for a range its two ends, both included.
    log : bool
        For `int`: even on a logarithmic scale.
    step : int
        For `int`.
    points : int or None
        Values that a grid takes.
    when : dict
        Key to the values that switch this dimension on.
    """

    key: str
    kind: str
    values: tuple[Any, ...]
    log: bool = False
    step: int = 1
    points: int | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def at(self, u: float) -> Any:
        """The value at a place between 0 and 1 (excluded)."""
        if self.kind == "choice":
            return self.values[int(u * len(self.values))]
        low, high = self.values
        if self.kind == "uniform":
            return min(low + (high - low) * u, high)
        if self.kind == "log_uniform":
            return min(max(math.exp(math.log(low) + (math.log(high) - math.log(low)) * u), low), high)
        if self.log:  # each integer has the share of the logarithmic scale that is nearest to it
            first, last = math.log(low - 0.5), math.log(high + 0.5)
            return min(max(round(math.exp(first + (last - first) * u)), low), high)
        return low + self.step * int(u * ((high - low) // self.step + 1))

    def grid(self) -> list[Any]:
        """The values that a grid takes, ascending or as given.

        Raises
        ------
        InputError
            A range without `points`.
        """
        if self.kind == "choice":
            return list(self.values)
        low, high = self.values
        if self.kind == "int" and self.points is None and not self.log:
            return list(range(low, high + 1, self.step))
        if self.points is None:
            raise InputError(f"{self.key}: a grid needs 'points', the number of values of this range")
        places = [i / (self.points - 1) if self.points > 1 else 0.5 for i in range(self.points)]
        if self.kind == "uniform":
            return [low + (high - low) * p for p in places]
        if self.kind == "log_uniform":
            inner = [math.exp(math.log(low) + (math.log(high) - math.log(low)) * p) for p in places]
            return [min(max(value, low), high) for value in inner]
        if self.log:
            return sorted({round(math.exp(math.log(low) + (math.log(high) - math.log(low)) * p)) for p in places})
        count = (high - low) // self.step
        return [low + self.step * i for i in sorted({round(count * p) for p in places})]

    def ends(self) -> list[Any]:
        """Values that between them show whether the configuration takes this dimension."""
        return list(self.values)

    def dump(self) -> dict[str, Any]:
        """As it would be written in a file, everything spelled out."""
        made: dict[str, Any] = {self.kind: list(self.values)}
        if self.log:
            made["log"] = True
        if self.step != 1:
            made["step"] = self.step
        if self.points is not None:
            made["points"] = self.points
        if self.when:
            made["when"] = {key: list(values) for key, values in self.when.items()}
        return made


class Space:
    """All dimensions, and the configuration that they change.

    Parameters
    ----------
    dimensions : sequence of Dimension
        Those that others depend on first.
    base : Config
        The configuration that trials change.
    where : str
        File, for messages.
    """

    def __init__(self, dimensions: Sequence[Dimension], base: Config, where: str) -> None:
        self.dimensions = tuple(dimensions)
        self.base = base
        self.where = where
        self.plain = base.dump()

    def dump(self) -> dict[str, Any]:
        """Key to dimension, as plain values."""
        return json.loads(json.dumps({d.key: d.dump() for d in self.dimensions}))

    def active(self, dimension: Dimension, params: Mapping[str, Any]) -> bool:
        """Whether a dimension is searched, given the values of those before it."""
        return all(
            (params[key] if key in params else _value_at(self.plain, key)) in values
            for key, values in dimension.when.items()
        )

    def draw(self, seed: int, index: int) -> dict[str, Any]:
        """Parameters of a random trial, a function of (seed, index).

        Parameters
        ----------
        seed : int
            Of the study.
        index : int
            Place in the search, from 0.
        """
        params: dict[str, Any] = {}
        for d in self.dimensions:
            if self.active(d, params):
                params[d.key] = d.at(float(rng.uniform(seed, f"sweep/{d.key}", 0, index, 1, 1)[0, 0]))
        return params

    def grid(self) -> list[dict[str, Any]]:
        """All trials of a grid, the last key changing fastest.

        Raises
        ------
        InputError
            A range without `points`, or a grid of more than a million trials.
        """
        try:
            values = {d.key: d.grid() for d in self.dimensions}
        except InputError as error:
            raise InputError(f"{self.where}: {SECTION}.{error}") from None
        found: list[dict[str, Any]] = []
        for params in self.combinations(values):
            found.append(params)
            if len(found) > 1_000_000:
                raise InputError(f"{self.where}: {SECTION}: a grid of more than a million trials; take fewer points")
        return found

    def combinations(self, values: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
        """Parameters of trials with all of these values of each key, the last key changing fastest."""
        return self._combinations(0, {}, values)

    def _combinations(
        self, first: int, params: dict[str, Any], values: Mapping[str, list[Any]]
    ) -> Iterator[dict[str, Any]]:
        if first == len(self.dimensions):
            yield dict(params)
            return
        d = self.dimensions[first]
        if not self.active(d, params):
            yield from self._combinations(first + 1, params, values)
            return
        for value in values[d.key]:
            yield from self._combinations(first + 1, {**params, d.key: value}, values)

    def config(self, params: Mapping[str, Any], seed: int) -> Config:
        """The configuration of a trial.

        Raises
        ------
        InputError
            The configuration does not take these values; the message names file and key.
        """
        raw = json.loads(json.dumps(self.plain))
        _set(raw, "seed", seed)
        for key, value in params.items():
            _set(raw, key, value)
        return configuration.load(raw, where=f"{self.where}: {SECTION}")


def parse(raw: Any, base: Config, where: str) -> Space:
    """Read the section `search:`.

    Parameters
    ----------
    raw : Any
        What YAML made of it.
    base : Config
        The rest of the configuration.
    where : str
        File, for messages.

    Raises
    ------
    InputError
        One line with file and key: an unknown key or kind, an empty range, a condition on what is not there, values
        that the configuration refuses.
    """
    if not isinstance(raw, dict) or not raw:
        raise InputError(
            f"{where}: '{SECTION}' must be a section of keys, e.g. {SECTION}: {{training.label_flip: "
            "{uniform: [0.0, 0.2]}}"
        )
    plain = base.dump()
    dimensions = []
    for key, entry in _flat(raw):
        label = f"{where}: {SECTION}.{key}"
        _check_key(plain, key, label)
        dimensions.append(_dimension(key, entry, label, plain))
    keys = [d.key for d in dimensions]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"{where}: {SECTION}.{twice[0]}: is given twice")
    if inside := [(a, b) for a in keys for b in keys if b.startswith(f"{a}.")]:
        raise InputError(f"{where}: {SECTION}.{inside[0][1]}: is part of '{inside[0][0]}', which is searched, too")
    space = Space(_in_order(dimensions, where), base, where)
    checked = []
    for d in space.dimensions:
        d = replace(d, when={other: _when_values(space, d.key, other, values) for other, values in d.when.items()})
        checked.append(_checked(space, d))
    space = Space(checked, base, where)
    _check_reachable(space, where)
    return space


def _checked(space: Space, d: Dimension) -> Dimension:
    """A dimension with its choices as the configuration takes them.

    Raises
    ------
    InputError
        It does not take one of them, or two of them are the same for it.
    """
    label = f"{space.where}: {SECTION}.{d.key}"
    taken = [_coerced(space, d.key, value) for value in d.ends()]
    if d.kind == "choice":
        for i, value in enumerate(taken):
            if any(_same(value, other) for other in taken[:i]):
                raise InputError(f"{label}.choice: {value!r} is given twice")
        return replace(d, values=tuple(taken))
    if d.kind != "int" and any(isinstance(value, int) for value in taken):
        raise InputError(
            f"{label}.{d.kind}: the configuration takes whole numbers here; write int: [..], with log: true"
        )
    return d


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and type(one) is type(other)


def _coerced(space: Space, key: str, value: Any) -> Any:
    """What the configuration makes of a value: a number of `"1e-5"` where it wants one.

    Raises
    ------
    InputError
        It takes the value neither beside the base's nor beside drawn ones.
    """
    refused: InputError | None = None
    for index in range(-1, _BESIDE):
        try:
            config = space.config({**(space.draw(0, index) if index >= 0 else {}), key: value}, 0)
        except InputError as error:
            refused = refused or error
            continue
        return _as_given(value, _value_at(config.dump(), key))
    assert refused is not None
    raise refused


def _as_given(given: Any, taken: Any) -> Any:
    """A value that was taken, without the defaults that came with a section."""
    if isinstance(given, dict) and isinstance(taken, dict):
        return {key: _as_given(value, taken.get(key, value)) for key, value in given.items()}
    return taken


def _when_values(space: Space, key: str, other: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """The values of a condition as the configuration takes them, each of which the other key can have.

    Raises
    ------
    InputError
        It never has one of them.
    """
    label = f"{space.where}: {SECTION}.{key}.when.{other}"
    try:
        taken = tuple(_coerced(space, other, value) for value in values)
    except InputError as error:
        reason = str(error).removeprefix(f"{space.where}: {SECTION}: ")
        raise InputError(f"{label}: is never true: {reason}") from None
    parent = next((d for d in space.dimensions if d.key == other), None)
    if parent is None:
        there = _value_at(space.plain, other)
        if there not in taken:
            raise InputError(
                f"{label}: is never true: '{other}' is {_shown(there)} and is not searched; search it as well, or "
                f"leave the dimension out ({SECTION}.{key}=null on the command line)"
            )
        return taken
    parent = _checked(space, parent)
    for value in taken:
        if not _can_be(parent, value) and not (parent.when and value == _value_at(space.plain, other)):
            raise InputError(
                f"{label}: is never true: '{other}' is never {_shown(value)}, it is searched in {_shown_range(parent)}"
            )
    return taken


def _can_be(d: Dimension, value: Any) -> bool:
    """Whether a dimension ever has this value; one of a range of real numbers only at the points of a grid."""
    if d.kind == "choice":
        return value in d.values
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if d.kind == "int":
        low, high = d.values
        return bool(low <= value <= high and value == int(value) and (value - low) % d.step == 0)
    return d.points is not None and any(math.isclose(value, point, rel_tol=1e-12) for point in d.grid())


def _shown(value: Any) -> str:
    return json.dumps(value)


def _shown_range(d: Dimension) -> str:
    if d.kind in ("uniform", "log_uniform") and d.points is None:
        return f"the real numbers from {d.values[0]} to {d.values[1]}, of which none comes twice: give it a choice"
    return yamlio.dump({d.kind: list(d.grid() if d.kind not in ("choice", "int") else d.values)}, flow=True).strip()


def _check_reachable(space: Space, where: str) -> None:
    """Refuse a dimension whose conditions, each of which can be true, never are together.

    Looked at are all combinations of the values that conditions name, with one more of each key; where these are too
    many, the dimension passes.
    """
    by_key = {d.key: d for d in space.dimensions}
    for d in space.dimensions:
        above = [p for p in space.dimensions if p.key in _ancestors(d, by_key)]
        named = {p.key: [v for c in space.dimensions for v in c.when.get(p.key, ()) if _can_be(p, v)] for p in above}
        values = {p.key: [*named[p.key], *_another(p, named[p.key])] for p in above}
        if math.prod(len(found) for found in values.values()) > _COMBINATIONS:
            continue
        part = Space(above, space.base, where)
        if not any(part.active(d, params) for params in part.combinations(values)):
            label = f"{where}: {SECTION}.{d.key}.when"
            raise InputError(f"{label}: is never true: {' and '.join(d.when)} never have these values together")


def _ancestors(d: Dimension, by_key: Mapping[str, Dimension]) -> set[str]:
    """Keys that are searched and on which it depends whether a dimension is."""
    found: set[str] = set()
    left = [key for key in d.when if key in by_key]
    while left:
        key = left.pop()
        if key not in found:
            found.add(key)
            left += [other for other in by_key[key].when if other in by_key]
    return found


def _another(d: Dimension, named: Sequence[Any]) -> list[Any]:
    """A value of a dimension that is none of these, if it has one."""
    values = d.values if d.kind == "choice" else [d.at(i / 8) for i in range(8)]
    return list(itertools.islice((value for value in values if value not in named), 1))


def override(raw: Any, items: Sequence[str]) -> Any:
    """A section with other dimensions, of items `search.KEY=DIMENSION`; `null` takes a key out.

    Raises
    ------
    InputError
        No dimension in YAML.
    """
    if not isinstance(raw, dict) or not items:
        return raw
    made = dict(_flat(raw))
    for item in items:
        key, equals, text = item.removeprefix(f"{SECTION}.").partition("=")
        try:
            value = yamlio.load(text)
        except yamlio.YamlError:
            value = text
        if not equals or not (value is None or isinstance(value, dict)):
            raise InputError(
                f"override '{item}': write it as {SECTION}.key={{uniform: [0, 1]}}, or null to leave it out"
            )
        made.pop(key, None)
        if value is not None:
            made[key] = value
    return made


def _flat(raw: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their dimensions; sections may also be nested, as in the rest of the file."""
    for key, entry in raw.items():
        dotted = f"{prefix}{key}"
        nested = isinstance(entry, dict) and entry and all(isinstance(v, dict) for v in entry.values())
        if nested and not set(entry) & {*KINDS, "when"}:
            yield from _flat(entry, f"{dotted}.")
        else:
            yield dotted, entry


def _dimension(key: str, entry: Any, label: str, plain: Mapping[str, Any]) -> Dimension:
    kinds = ", ".join(KINDS)
    if not isinstance(entry, dict):
        raise InputError(f"{label}: write one of {kinds}, e.g. {{uniform: [0.0, 0.2]}}")
    given = [kind for kind in KINDS if kind in entry]
    known = {*KINDS, *(option for options in _OPTIONS.values() for option in options)}
    for name in entry:
        if name not in known:
            raise InputError(f"{label}: unknown word '{name}'{choose(str(name), sorted(known), 'words here')}")
    if len(given) != 1:
        raise InputError(f"{label}: give one of {kinds}" + (f", not {' and '.join(given)}" if given else ""))
    (kind,) = given
    for name in entry:
        if name != kind and name not in _OPTIONS[kind]:
            raise InputError(f"{label}: '{name}' does not go with '{kind}'")
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{label}.log: true or false, not {log!r}")
    points, step = entry.get("points"), entry.get("step", 1)
    for name, value in (("points", points), ("step", step)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{label}.{name}: a whole number above zero, not {value!r}")
    if log and step != 1:
        raise InputError(f"{label}: 'step' does not go with 'log'")
    values = _choices(entry[kind], label) if kind == "choice" else _range(kind, entry[kind], log, step, label)
    return Dimension(key, kind, values, log, step, points, _when(key, entry.get("when"), label, plain))


def _choices(given: Any, label: str) -> tuple[Any, ...]:
    if not isinstance(given, list) or not given:
        raise InputError(f"{label}.choice: an empty range; give a list of values, e.g. [16, 64]")
    for i, value in enumerate(given):
        if any(value == other and type(value) is type(other) for other in given[:i]):
            raise InputError(f"{label}.choice: {value!r} is given twice")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise InputError(f"{label}.choice: {value!r} is no value of a configuration") from None
    return tuple(given)


def _range(kind: str, given: Any, log: bool, step: int, label: str) -> tuple[Any, ...]:
    if not isinstance(given, list) or len(given) != 2:
        raise InputError(f"{label}.{kind}: give the two ends of the range, e.g. [1, 8], not {given!r}")
    low, high = (_number(value, kind == "int", f"{label}.{kind}") for value in given)
    if not low < high:
        raise InputError(f"{label}.{kind}: the range from {low} to {high} is empty")
    if (kind == "log_uniform" or log) and low <= 0:
        raise InputError(f"{label}.{kind}: a logarithmic range begins above zero, not at {low}")
    if kind == "int":
        high = low + (high - low) // step * step
        if low == high:
            raise InputError(f"{label}.{kind}: a step of {step} leaves one value of the range only")
    return (low, high)


def _number(value: Any, whole: bool, label: str) -> Any:
    if isinstance(value, str):  # in quotes, which the configuration takes for a number as well
        try:
            value = float(value)
        except ValueError:
            raise InputError(f"{label}: {value!r} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{label}: {value!r} is not a number")
    if whole and value != int(value):
        raise InputError(f"{label}: {value!r} is not a whole number")
    return int(value) if whole else float(value)


def _when(key: str, given: Any, label: str, plain: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not given:
        raise InputError(f"{label}.when: keys and the values they must have, e.g. {{model.architecture: detector}}")
    for other in given:
        _check_key(plain, str(other), f"{label}.when.{other}")
        if other == key:
            raise InputError(f"{label}.when: the condition is on the key itself")
    return {str(k): tuple(v) if isinstance(v, list) else (v,) for k, v in given.items()}


def _in_order(dimensions: Sequence[Dimension], where: str) -> list[Dimension]:
    """As given, but what others depend on before them."""
    left, done = list(dimensions), list[Dimension]()
    searched = {d.key for d in dimensions}
    while left:
        placed = {d.key for d in done}
        ready = next((d for d in left if all(k in placed or k not in searched for k in d.when)), None)
        if ready is None:
            raise InputError(f"{where}: {SECTION}.{left[0].key}.when: the conditions go round in a circle")
        left.remove(ready)
        done.append(ready)
    return done


def _check_key(plain: Mapping[str, Any], key: str, label: str) -> None:
    """Refuse what is no key of the configuration, or what a study needs to be as it is."""
    node: Any = plain
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(node, Mapping) or section not in node:
            break
        node = node[section]
    else:
        if isinstance(node, Mapping) and last in node:
            if key in ("name", "problem", "seed"):
                raise InputError(
                    f"{label}: '{key}' cannot be searched" + "; trials have seeds of their own" * (key == "seed")
                )
            return
    everything = list(_keys(plain))
    raise InputError(f"{label}: unknown key{did_you_mean(key, everything)}")


def _keys(plain: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in plain.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")


def _value_at(plain: Mapping[str, Any], key: str) -> Any:
    node: Any = plain
    for part in key.split("."):
        node = node[part]
    return node


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    node = raw
    for section in sections:
        node = node[section]
    node[last] = value
