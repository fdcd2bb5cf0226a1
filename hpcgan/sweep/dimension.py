"""The dimensions of a search: which values a key can have, and which of them a draw and a grid take.

What depends on the configuration or on other dimensions is checked in `hpcgan.sweep.space`.
"""

from __future__ import annotations

import json
import math
import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from hpcgan import yamlio
from hpcgan.errors import InputError
from hpcgan.suggest import choose
from hpcgan.sweep.labels import show


def is_number(value: Any) -> bool:
    """A number that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_same(one: Any, other: Any) -> bool:
    """Equal and of one type: 1, 1.0 and true are three choices."""
    return bool(one == other) and type(one) is type(other)


class Dimension(BaseModel):
    """One key that is searched.

    Attributes
    ----------
    kind : str
        The word that names it in a file, with `values`.
    key : str
        Dotted key of the configuration.
    values : tuple
        The choices; for a range its two ends, both included.
    when : dict
        Other keys to the values that switch this dimension on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    kind: ClassVar[str]
    key: str = Field("", exclude=True)
    values: tuple[Any, ...]
    when: dict[str, tuple[Any, ...]] = {}

    @field_validator("when", mode="before")
    @classmethod
    def _one_value_is_a_list_of_one(cls, when: Any) -> Any:
        if when is None:
            return {}
        if not isinstance(when, dict) or not when:
            raise ValueError("keys and the values they must have, e.g. {model.architecture: detector}")
        return {str(key): values if isinstance(values, (list, tuple)) else (values,) for key, values in when.items()}

    @abstractmethod
    def at(self, u: float) -> Any:
        """The value at a place between 0 and 1 (excluded)."""

    @abstractmethod
    def grid(self) -> list[Any]:
        """The values that a grid takes, ascending or as given; InputError for a range without `points`."""

    @abstractmethod
    def can_be(self, value: Any) -> bool:
        """Whether it ever has this value; one of a range of real numbers only at the points of a grid."""

    def range_text(self) -> str:
        """What it can be, for messages."""
        return yamlio.dump({self.kind: list(self.values)}, flow=True).strip()

    def dump(self) -> dict[str, Any]:
        """As it would be written in a file, everything that is not the default spelled out."""
        plain = self.model_dump(mode="json", exclude_defaults=True)
        return {self.kind: plain.pop(self.kind), **plain}

    # --- as an axis: numbers on a scale, or choices with labels side by side ------------------------

    @property
    def is_log(self) -> bool:
        """Whether numbers lie on a logarithmic scale."""
        return False

    @property
    def labels(self) -> tuple[str, ...]:
        """Of choices, at the places 0, 1, ...: numbers ascend, others are as given. Empty for a range."""
        return ()

    @property
    def low(self) -> float:
        """Lower end of the numbers, or place of the first choice."""
        return 0.0 if self.labels else float(self.values[0])

    @property
    def high(self) -> float:
        """Upper end of the numbers, or place of the last choice."""
        return len(self.labels) - 1.0 if self.labels else float(self.values[1])

    def place(self, value: Any) -> float | None:
        """Where a value lies; None if it does not."""
        if self.labels:
            return float(self.labels.index(show(value))) if show(value) in self.labels else None
        return float(value) if is_number(value) and (value > 0 or not self.is_log) else None


class Choice(Dimension):
    """These values: `{choice: [16, 64, 128]}`."""

    kind = "choice"
    values: tuple[Any, ...] = Field(alias="choice")

    @field_validator("values", mode="before")
    @classmethod
    def _are_different_values_of_a_configuration(cls, values: Any) -> Any:
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError("an empty range; give a list of values, e.g. [16, 64]")
        for i, value in enumerate(values):
            if any(is_same(value, other) for other in values[:i]):
                raise ValueError(f"{value!r} is given twice")
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise ValueError(f"{value!r} is no value of a configuration") from None
        return tuple(values)

    def at(self, u: float) -> Any:
        return self.values[int(u * len(self.values))]

    def grid(self) -> list[Any]:
        return list(self.values)

    def can_be(self, value: Any) -> bool:
        return value in self.values

    @property
    def labels(self) -> tuple[str, ...]:
        by_label = {show(value): value for value in self.values}
        if all(is_number(value) for value in by_label.values()):
            return tuple(sorted(by_label, key=lambda label: by_label[label]))
        return tuple(by_label)


def _number(value: Any) -> Any:
    """A number; in quotes, too, as the configuration takes it."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if not is_number(number):
        raise ValueError(f"{value!r} is not a number")
    return number


def _count(value: Any) -> Any:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"a whole number above zero, not {value!r}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false, not {value!r}")
    return value


class Range(Dimension):
    """Numbers between two ends.

    Attributes
    ----------
    points : int or None
        Values that a grid takes.
    """

    points: Annotated[int | None, BeforeValidator(_count)] = None

    @field_validator("values", mode="before", check_fields=False)
    @classmethod
    def _are_two_numbers(cls, values: Any) -> Any:
        if not isinstance(values, (list, tuple)) or len(values) != 2:
            raise ValueError(f"give the two ends of the range, e.g. [1, 8], not {values!r}")
        ends = [_number(value) for value in values]
        if cls.kind == "int" and (broken := [end for end in ends if end != int(end)]):
            raise ValueError(f"{broken[0]!r} is not a whole number")
        low, high = (int(end) if cls.kind == "int" else float(end) for end in ends)
        if not low < high:
            raise ValueError(f"the range from {low} to {high} is empty")
        return low, high

    @model_validator(mode="after")
    def _logarithms_are_of_what_is_above_zero(self) -> Range:
        if self.is_log and self.values[0] <= 0:
            raise ValueError(f"a logarithmic range begins above zero, not at {self.values[0]}")
        return self

    def places(self) -> list[float]:
        """Where the points of a grid lie between 0 and 1."""
        if self.points is None:
            raise InputError(f"{self.key}: a grid needs 'points', the number of values of this range")
        return [i / (self.points - 1) if self.points > 1 else 0.5 for i in range(self.points)]

    def grid(self) -> list[Any]:
        return [self.at(place) for place in self.places()]

    def can_be(self, value: Any) -> bool:
        points = self.grid() if self.points is not None and is_number(value) else []
        return any(math.isclose(value, point, rel_tol=1e-12) for point in points)

    def range_text(self) -> str:
        if self.points is None:
            low, high = self.values
            return f"the real numbers from {low} to {high}, of which none comes twice: give it a choice"
        return yamlio.dump({self.kind: self.grid()}, flow=True).strip()


class Uniform(Range):
    """Real numbers: `{uniform: [0.0, 0.2]}`."""

    kind = "uniform"
    values: tuple[float, float] = Field(alias="uniform")

    def at(self, u: float) -> float:
        low, high = self.values
        return min(low + (high - low) * u, high)


class LogUniform(Range):
    """Real numbers, even on a logarithmic scale: `{log_uniform: [1.0e-5, 1.0e-3]}`."""

    kind = "log_uniform"
    values: tuple[float, float] = Field(alias="log_uniform")

    @property
    def is_log(self) -> bool:
        return True

    def at(self, u: float) -> float:
        low, high = self.values
        return min(max(_on_log_scale(low, high, u), low), high)


class Int(Range):
    """Whole numbers: `{int: [4, 32], log: true}`, or with `step`.

    Attributes
    ----------
    log : bool
        Even on a logarithmic scale.
    step : int
        From the lower end on; what is beyond the last whole step is no part of the range.
    """

    kind = "int"
    values: tuple[int, int] = Field(alias="int")
    log: Annotated[bool, BeforeValidator(_flag)] = False
    step: Annotated[int, BeforeValidator(_count)] = 1

    @model_validator(mode="after")
    def _steps_end_inside_the_range(self) -> Int:
        if self.log and self.step != 1:
            raise ValueError("'step' does not go with 'log'")
        low, high = self.values
        if high - low < self.step:
            raise ValueError(f"a step of {self.step} leaves one value of the range only")
        return self.model_copy(update={"values": (low, low + (high - low) // self.step * self.step)})

    @property
    def is_log(self) -> bool:
        return self.log

    def at(self, u: float) -> int:
        low, high = self.values
        if self.log:  # each integer has the share of the logarithmic scale that is nearest to it
            return min(max(round(_on_log_scale(low - 0.5, high + 0.5, u)), low), high)
        return low + self.step * int(u * ((high - low) // self.step + 1))

    def grid(self) -> list[Any]:
        low, high = self.values
        if self.log:
            return sorted({round(_on_log_scale(low, high, place)) for place in self.places()})
        if self.points is None:
            return list(range(low, high + 1, self.step))
        steps = (high - low) // self.step
        return [low + self.step * i for i in sorted({round(steps * place) for place in self.places()})]

    def can_be(self, value: Any) -> bool:
        low, high = self.values
        return is_number(value) and bool(low <= value <= high and (value - low) % self.step == 0)

    def range_text(self) -> str:
        return Dimension.range_text(self)


def _on_log_scale(low: float, high: float, u: float) -> float:
    """The number at a place between 0 and 1."""
    first, last = math.log(low), math.log(high)
    return math.exp(first + (last - first) * u)


# --- reading ----------------------------------------------------------------------------------------

KINDS: dict[str, type[Dimension]] = {model.kind: model for model in (Choice, Uniform, LogUniform, Int)}
_WORDS = sorted({*KINDS, *(name for model in KINDS.values() for name in model.model_fields)} - {"key", "values"})


def read(key: str, entry: Any, label: str) -> Dimension:
    """The dimension of a key: of what YAML or JSON made of it, whose one word of `KINDS` says which model it is.

    Raises
    ------
    InputError
        It is none; one line that begins with `label`.
    """
    if not isinstance(entry, dict):
        raise InputError(f"{label}: write one of {', '.join(KINDS)}, e.g. {{uniform: [0.0, 0.2]}}")
    for word in entry:
        if word not in _WORDS:
            raise InputError(f"{label}: unknown word '{word}'{choose(str(word), _WORDS, 'words here')}")
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) != 1:
        raise InputError(f"{label}: give one of {', '.join(KINDS)}" + (f", not {' and '.join(kinds)}" if kinds else ""))
    try:
        return KINDS[kinds[0]].model_validate({**entry, "key": key})
    except ValidationError as error:
        first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        raise InputError(f"{label}: '{first['loc'][0]}' does not go with '{kinds[0]}'")
    path = ".".join(str(part) for part in first["loc"] or kinds)
    raise InputError(f"{label}.{path}: {first['msg'].removeprefix('Value error, ')}")


def observed(key: str, values: Sequence[Any]) -> Dimension:
    """A dimension of a key that no space describes, after the values that trials have."""
    if values and all(is_number(value) for value in values):
        model: type[Dimension] = Int if all(isinstance(value, int) for value in values) else Uniform
        return model.model_construct(key=key, values=(min(values), max(values)))
    return Choice.model_construct(key=key, values=tuple(values))
