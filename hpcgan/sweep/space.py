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

import functools
import itertools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpcgan import config as configuration
from hpcgan import rng, yamlio
from hpcgan.config import Config
from hpcgan.errors import InputError
from hpcgan.suggest import did_you_mean
from hpcgan.sweep.dimension import KINDS, Choice, Dimension, Int, is_same, read

SECTION = "search"
#: Samplers whose trials are known before they run; others are Optuna's.
OWN_SAMPLERS = ("random", "grid")
_MOST_TRIALS = 1_000_000
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

    def planned(self, sampler: str, seed: int, index: int) -> dict[str, Any]:
        """Parameters of a trial of one of `OWN_SAMPLERS`."""
        return self.draw(seed, index) if sampler == "random" else self.grid()[index]

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
        trials = list(itertools.islice(self.combinations(values), _MOST_TRIALS + 1))
        if len(trials) > _MOST_TRIALS:
            raise InputError(f"{self.where}: {SECTION}: a grid of more than a million trials; take fewer points")
        return trials

    def combinations(self, values: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
        """Parameters of trials with all of these values of each key, the last key changing fastest."""

        def with_rest(params: dict[str, Any], rest: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
            if not rest:
                yield params
            elif not self.active(rest[0], params):
                yield from with_rest(params, rest[1:])
            else:
                for value in values[rest[0].key]:
                    yield from with_rest({**params, rest[0].key: value}, rest[1:])

        return with_rest({}, self.dimensions)

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
        dimensions.append(read(key, entry, label))
        for other in dimensions[-1].when:
            _check_key(plain, other, f"{label}.when.{other}")
            if other == key:
                raise InputError(f"{label}.when: the condition is on the key itself")
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
    _check_reachable(space)
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


def _check_reachable(space: Space) -> None:
    """Refuse a dimension whose conditions, each of which can be true, never are together.

    Looked at are combinations of the values that conditions name, with one more of each key; where these are too many,
    the dimensions pass.
    """
    values = {}
    for d in space.dimensions:
        named = [value for other in space.dimensions for value in other.when.get(d.key, ()) if d.can_be(value)]
        some = d.values if isinstance(d, Choice) else [d.at(i / 8) for i in range(8)]
        values[d.key] = [*named, *[value for value in some if value not in named][:1]]
    rest, combinations = list(space.dimensions), space.combinations(values)
    for params in itertools.islice(combinations, _COMBINATIONS):
        rest = [d for d in rest if d.key not in params]
        if not rest:
            return
    if next(combinations, None) is None:
        label = f"{space.where}: {SECTION}.{rest[0].key}.when"
        raise InputError(f"{label}: is never true: {' and '.join(rest[0].when)} never have these values together")


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
    keys = list(_keys(plain))
    if key not in keys:
        raise InputError(f"{label}: unknown key{did_you_mean(key, keys)}")
    if key in ("name", "problem", "seed"):
        raise InputError(f"{label}: '{key}' cannot be searched" + "; trials have seeds of their own" * (key == "seed"))
    if key == "scoring.quantities":
        raise InputError(f"{label}: '{key}' cannot be searched; all trials are compared by the same quantities")


def _keys(plain: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in plain.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")


def _value_at(plain: Mapping[str, Any], key: str) -> Any:
    return functools.reduce(operator.getitem, key.split("."), plain)


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    section, _, last = key.rpartition(".")
    (_value_at(raw, section) if section else raw)[last] = value
