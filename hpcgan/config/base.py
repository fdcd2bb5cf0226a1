"""What all sections of the configuration share: strictness, ranges of numbers, names on command lines."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic.fields import FieldInfo

from hpcgan.errors import HpcganError
from hpcgan.system import home

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decrement = Annotated[float, Field(ge=0, lt=1)]
#: The largest learning rate of a configuration and of a command: beyond it a step of Adam is larger than any weight.
LARGEST_RATE = 1.0
Rate = Annotated[float, Field(gt=0, le=LARGEST_RATE)]


def _expanded(value: Any) -> Any:
    """With variables and `~` in front replaced: no shell does that in a file, and none behind the = of an override."""
    if not isinstance(value, str):
        return value
    if not value.strip() or any(ord(character) < 32 for character in value):
        raise ValueError("input should be a path, without control characters")
    try:
        if "$" in value and not os.path.lexists(value):  # else a name has it
            value = home.with_variables(value, os.environ)
        return home.expand(value)
    except HpcganError as error:
        raise ValueError(str(error)) from None
    except KeyError as error:
        raise ValueError(f"'{value}': ${error.args[0]} is not set; set it, or write the path in full") from None
    except ValueError:
        raise ValueError(f"'{value}': there is no such path, and $ begins no variable, as $DATA or ${{DATA}}") from None


#: What is read; `~` in front is the user's folder, `$NAME` is a variable.
InputPath = Annotated[Path, BeforeValidator(_expanded)]


class Section(BaseModel):
    """Base of every section: unknown keys, NaN and infinities are errors, instances are read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _truth_is_no_number(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """Pydantic takes true for 1: `batch_size: true` would train with batches of one sample."""
        valid = handler(value)
        if _holds_truth(value) and not _holds_truth(valid) and not isinstance(valid, str):
            raise ValueError("input should be a number, not true or false")
        return valid

    @field_validator("*")
    @classmethod
    def _whole_numbers_fit(cls, value: Any, info: ValidationInfo) -> Any:
        """Libraries in C take no larger ones; a seed has a range of its own."""
        if type(value) is int and value >= 2**31 and info.field_name != "seed":
            raise ValueError(f"input should be less than {2**31}")
        return value


def _holds_truth(value: Any) -> bool:
    """Whether it is true or false, or a list with one of them."""
    return any(isinstance(part, bool) for part in (value if isinstance(value, list | tuple) else [value]))


class ModelSection(Section):
    """Base of the `model:` sections: what training settings have to know of the networks, whatever the problem.

    Two properties map settings of the section, as a user would write them, to those that mend it.

    Attributes
    ----------
    indifferent : tuple of str
        Keys that weights do not depend on: a training may start from weights that were trained with another value.
    """

    indifferent: ClassVar[tuple[str, ...]] = ()

    @property
    def batch_coupling(self) -> dict[str, str]:
        """Settings by which the discriminator's answer to one event depends on the other events of its batch."""
        return {}

    @property
    def noise_intolerance(self) -> dict[str, str]:
        """Settings by which the discriminator is undefined for noisy events, with intensities below zero, say."""
        return {}

    def refuse_options_of_pairs(self, options: Iterable[str]) -> None:
        """See to it that options of a generator and a discriminator are left out where the architecture is a density.

        Raises
        ------
        ValueError
            One of them has another value than its default; those that the section has not are none.
        """
        for option in options:
            field = type(self).model_fields.get(option)
            if field is not None and getattr(self, option) != field.default:
                raise ValueError(
                    f"model.{option} is of a generator and a discriminator, but model.architecture=multiscale has "
                    "neither: leave it out"
                )


@dataclass(frozen=True)
class Option:
    """What a key of a section is called elsewhere; part of the annotation of its field.

    Attributes
    ----------
    flag : str
        On hpcgan's command lines, without dashes; by default the key with dashes for underscores.
    metavar : str
        What stands for its value in help texts; by default after its type.
    sbatch : str
        Slurm's option; empty: Slurm has none.
    """

    flag: str = ""
    metavar: str = ""
    sbatch: str = ""


def option_of(key: str, field: FieldInfo) -> Option:
    """The names of a key, those that follow from the key included."""
    mark = next((mark for mark in field.metadata if isinstance(mark, Option)), Option())
    return replace(mark, flag=mark.flag or key.replace("_", "-"))
