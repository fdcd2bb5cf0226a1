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

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpcgan import config as configuration
from hpcgan import rng, yamlio
from hpcgan.config import Config
from hpcgan.errors import InputError
from hpcgan.suggest import did_you_mean
from hpcgan.sweep.dimension import KINDS, Choice, Dimension, Int, is_same, read

SECTION = "search"
_COMBINATIONS = 10_000  # of the values of conditions, that are looked at
_BESIDE = 32  # draws of other keys, beside which a value is tried that does not go with the base's


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
        trials: list[dict[str, Any]] = []
        for params in self.combinations(values):
            trials.append(params)
            if len(trials) > 1_000_000:
                raise InputError(f"{self.where}: {SECTION}: a grid of more than a million trials; take fewer points")
        return trials

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
        dimensions.append(_read(key, entry, label, plain))
    keys = [d.key for d in dimensions]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"{where}: {SECTION}.{twice[0]}: is given twice")
    if inside := [(a, b) for a in keys for b in keys if b.startswith(f"{a}.")]:
        raise InputError(f"{where}: {SECTION}.{inside[0][1]}: is part of '{inside[0][0]}', which is searched, too")
    space = Space(_in_order(dimensions, where), base, where)
    checked = []
    for d in space.dimensions:
        when = {other: _when_values(space, d.key, other, values) for other, values in d.when.items()}
        checked.append(_checked(space, d.model_copy(update={"when": when})))
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
    values = [_coerced(space, d.key, value) for value in d.values]
    if isinstance(d, Choice):
        for i, value in enumerate(values):
            if any(is_same(value, other) for other in values[:i]):
                raise InputError(f"{label}.choice: {value!r} is given twice")
        return d.model_copy(update={"values": tuple(values)})
    if not isinstance(d, Int) and any(isinstance(value, int) for value in values):
        raise InputError(
            f"{label}.{d.kind}: the configuration takes whole numbers here; write int: [..], with log: true"
        )
    return d


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
        return _as_written(value, _value_at(config.dump(), key))
    assert refused is not None
    raise refused


def _as_written(raw: Any, parsed: Any) -> Any:
    """A value that was taken, without the defaults that came with a section."""
    if isinstance(raw, dict) and isinstance(parsed, dict):
        return {key: _as_written(value, parsed.get(key, value)) for key, value in raw.items()}
    return parsed


def _when_values(space: Space, key: str, other: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """The values of a condition as the configuration takes them, each of which the other key can have.

    Raises
    ------
    InputError
        It never has one of them.
    """
    label = f"{space.where}: {SECTION}.{key}.when.{other}"
    try:
        allowed_values = tuple(_coerced(space, other, value) for value in values)
    except InputError as error:
        reason = str(error).removeprefix(f"{space.where}: {SECTION}: ")
        raise InputError(f"{label}: is never true: {reason}") from None
    parent = next((d for d in space.dimensions if d.key == other), None)
    if parent is None:
        fixed = _value_at(space.plain, other)
        if fixed not in allowed_values:
            raise InputError(
                f"{label}: is never true: '{other}' is {json.dumps(fixed)} and is not searched; search it as well, or "
                f"leave the dimension out ({SECTION}.{key}=null on the command line)"
            )
        return allowed_values
    parent = _checked(space, parent)
    for value in allowed_values:
        if not parent.can_be(value) and not (parent.when and value == _value_at(space.plain, other)):
            raise InputError(
                f"{label}: is never true: '{other}' is never {json.dumps(value)}, it is searched in "
                f"{parent.range_text()}"
            )
    return allowed_values


def _check_reachable(space: Space, where: str) -> None:
    """Refuse a dimension whose conditions, each of which can be true, never are together.

    Looked at are all combinations of the values that conditions name, with one more of each key; where these are too
    many, the dimension passes.
    """
    by_key = {d.key: d for d in space.dimensions}
    for d in space.dimensions:
        above = [p for p in space.dimensions if p.key in _ancestors(d, by_key)]
        named = {p.key: [v for c in space.dimensions for v in c.when.get(p.key, ()) if p.can_be(v)] for p in above}
        values = {p.key: [*named[p.key], *_another(p, named[p.key])] for p in above}
        if math.prod(len(of_key) for of_key in values.values()) > _COMBINATIONS:
            continue
        part = Space(above, space.base, where)
        if not any(part.active(d, params) for params in part.combinations(values)):
            label = f"{where}: {SECTION}.{d.key}.when"
            raise InputError(f"{label}: is never true: {' and '.join(d.when)} never have these values together")


def _ancestors(d: Dimension, by_key: Mapping[str, Dimension]) -> set[str]:
    """Keys that are searched and on which it depends whether a dimension is."""
    ancestors: set[str] = set()
    stack = [key for key in d.when if key in by_key]
    while stack:
        key = stack.pop()
        if key not in ancestors:
            ancestors.add(key)
            stack += [other for other in by_key[key].when if other in by_key]
    return ancestors


def _another(d: Dimension, named: Sequence[Any]) -> list[Any]:
    """A value of a dimension that is none of these, if it has one."""
    values = d.values if isinstance(d, Choice) else [d.at(i / 8) for i in range(8)]
    return [value for value in values if value not in named][:1]


def override(raw: Any, items: Sequence[str]) -> Any:
    """A section with other dimensions, of items `search.KEY=DIMENSION`; `null` takes a key out.

    Raises
    ------
    InputError
        No dimension in YAML.
    """
    if not isinstance(raw, dict) or not items:
        return raw
    section = dict(_flat(raw))
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
        section.pop(key, None)
        if value is not None:
            section[key] = value
    return section


def _flat(raw: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their dimensions; sections may also be nested, as in the rest of the file."""
    for key, entry in raw.items():
        dotted = f"{prefix}{key}"
        nested = isinstance(entry, dict) and entry and all(isinstance(v, dict) for v in entry.values())
        if nested and not set(entry) & {*KINDS, "when"}:
            yield from _flat(entry, f"{dotted}.")
        else:
            yield dotted, entry


def _read(key: str, entry: Any, label: str, plain: Mapping[str, Any]) -> Dimension:
    """A dimension whose conditions are on other keys of the configuration."""
    dimension = read(key, entry, label)
    for other in dimension.when:
        _check_key(plain, other, f"{label}.when.{other}")
        if other == key:
            raise InputError(f"{label}.when: the condition is on the key itself")
    return dimension


def _in_order(dimensions: Sequence[Dimension], where: str) -> list[Dimension]:
    """As given, but what others depend on before them."""
    rest, ordered = list(dimensions), list[Dimension]()
    searched = {d.key for d in dimensions}
    while rest:
        placed = {d.key for d in ordered}
        ready = next((d for d in rest if all(k in placed or k not in searched for k in d.when)), None)
        if ready is None:
            raise InputError(f"{where}: {SECTION}.{rest[0].key}.when: the conditions go round in a circle")
        rest.remove(ready)
        ordered.append(ready)
    return ordered


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
