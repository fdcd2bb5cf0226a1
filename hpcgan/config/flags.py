"""Sections of the configuration as short options of a command line, and as keywords in Python.

An option is the key of a section under another name: its type, its choices and its help text are those of the field,
and what it is given becomes an override like `job.nodes=2`. So a flag says the same as the override, and the last one
counts.
"""

from __future__ import annotations

import argparse
import json
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from hpcgan.config.base import Section, option_of
from hpcgan.errors import InputError
from hpcgan.suggest import choose

AnySection = TypeVar("AnySection", bound=Section)


def add_flags(
    parser: argparse._ActionsContainer,
    name: str,
    model: type[Section],
    leave_out: Collection[str] = (),
    as_text: Collection[str] = (),
) -> None:
    """Add an option for each key of a section.

    Parameters
    ----------
    parser : parser or group of arguments
    name : str
        Of the section.
    model : type
        The section.
    leave_out : collection of str
        Keys that the command does not heed.
    as_text : collection of str
        Keys whose values are not read yet, since it is not known of which section they are.
    """
    for key, field in model.model_fields.items():
        if key in leave_out:
            continue
        option, kind = option_of(key, field), _without_none(field.annotation)
        settings: dict[str, Any] = {"dest": f"{name}.{key}", "help": _help(field, option.metavar)}
        if isinstance(field.default, bool):
            settings.update(action="store_const", const=not field.default)
        elif key in as_text:
            settings.update(metavar=option.metavar or "N")
        elif typing.get_origin(kind) is typing.Literal:
            settings.update(choices=typing.get_args(kind), metavar=option.metavar or None)
        else:
            settings.update(type=reader(model, key), metavar=option.metavar or "N")
            if typing.get_origin(kind) is tuple and ... in typing.get_args(kind):  # of any length: options add up
                settings.update(action="extend")
        parser.add_argument(f"--{option.flag}", **settings)


def overrides_of(args: argparse.Namespace) -> list[str]:
    """What the options of `add_flags` were given, as overrides."""
    values = {key: value for key, value in vars(args).items() if "." in key and value is not None}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def keywords_of(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """What the options of a section were given, by key."""
    values = {key.partition("."): value for key, value in vars(args).items() if value is not None}
    return {key: value for (first, dot, key), value in values.items() if dot and first == name}


def as_overrides(name: str, values: Section) -> list[str]:
    """What was given for a section, as overrides."""
    return [f"{name}.{key}={json.dumps(value)}" for key, value in explicit_values(values, mode="json").items()]


def explicit_values(values: Section | Mapping[str, Any] | None, **options: Any) -> dict[str, Any]:
    """What a section was given, without its defaults; `options` are those of pydantic's `model_dump`."""
    if isinstance(values, Section):
        return values.model_dump(exclude_unset=True, **options)
    return dict(values or {})


def section(
    name: str, model: type[AnySection], values: Section | Mapping[str, Any] | None, others: Collection[str] = (),
    **keywords: Any,
) -> AnySection:  # fmt: skip
    """A section, from what a Python function was given for it.

    Parameters
    ----------
    name : str
        Of the section.
    model : type
    values : section or mapping, optional
    others : collection of str
        What else the function takes by name.
    **keywords
        Keys of the section, before `values`.

    Raises
    ------
    InputError
        The section has no such key, or the key no such value: one line that names it.
    """
    together = {**explicit_values(values), **keywords}
    for key in together:
        if key not in model.model_fields:
            raise InputError(f"unknown option '{key}'{choose(key, (*others, *model.model_fields), 'options here')}")
    try:
        return model.model_validate(together)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            value = repr(first["input"])
            value = value if len(value) <= 80 else f"{value[:77]}..."
            reason = f"{name}.{first['loc'][0]}={value}: {reason[0].lower()}{reason[1:]}"
        raise InputError(reason) from None


def _without_none(annotation: Any) -> Any:
    """The type of a value that is given: X of `X | None`."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    kinds = [kind for kind in typing.get_args(annotation) if kind is not types.NoneType]
    return kinds[0] if len(kinds) == 1 else annotation


def _help(field: FieldInfo, metavar: str) -> str:
    text, default = field.description or "", field.default
    if default not in (None, (), "") and not isinstance(default, bool):
        values = default if isinstance(default, tuple) else (default,)
        texts = (f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        text += f" (default: {(':' if ':' in metavar else ',').join(texts)})"
    return text.replace("%", "%%")


def reader(model: type[Section], key: str) -> Callable[[str], Any]:
    """A type of argument: what the section takes for a key, as a plain value; it raises `ArgumentTypeError`."""

    def read(text: str) -> Any:
        try:
            return model.model_validate({key: text}).model_dump(mode="json")[key]
        except ValidationError as error:
            raise argparse.ArgumentTypeError(_reason(text, error)) from None

    return read


def _reason(text: str, error: ValidationError) -> str:
    """What is wrong with the text of an option."""
    first = error.errors()[0]
    if len(first["loc"]) > 1:  # one of a list
        text = str(first["input"])
    text = text if len(text) <= 60 else f"{text[:40]}...{text[-10:]}"
    limits = first.get("ctx", {})
    if first["type"] in ("int_parsing", "int_parsing_size", "int_from_float"):
        return f"'{text}' is not a whole number"
    if first["type"] == "float_parsing":
        return f"'{text}' is not a number"
    if first["type"] == "finite_number":
        return f"'{text}' is not a finite number"
    if first["type"] == "literal_error":
        return f"'{text}': give {limits['expected']}"
    for bound, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if bound in limits:
            return f"{text}: give {words} {limits[bound]:g}"
    return f"{text!r}: {first['msg'].removeprefix('Value error, ')}"
